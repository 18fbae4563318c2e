"""PyTorch modules, converted: outputs, relevances, ledgers, names; Zennit's relevances of the same modules.

Optional: `pip install "jaxlrp[torch]" "transformers==4.57.*"` and, to compare, `pip install --no-deps
--ignore-requires-python zennit==1.0.0 lxt==2.1`; `python -m pytest -m thirdparty`. Weights are random,
modules small.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import composites, pytorch

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("torchax", reason="torchax is not installed")
nn = torch.nn

pytestmark = [
    pytest.mark.thirdparty,
    pytest.mark.filterwarnings("ignore"),  # of torch and torchax, about their own future
]


class Residual(nn.Module):
    """Functions and operators in place of modules, one of them in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.bn0 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        x = nn.functional.relu(self.bn0(self.conv0(x)), inplace=True)
        y = self.bn1(self.conv1(x))
        y += x
        return self.head(y.relu_().mean((2, 3)))


class Encoder(nn.Module):
    """A transformer of token ids."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Any) -> Any:
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1], device=ids.device)
        return self.head(self.encoder(self.embed(ids), mask=mask, is_causal=True)[:, -1])


class Masked(nn.Module):
    """Makes a tensor where the model's own are not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.ones(x.shape[-1])


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.lstm(x)[0][:, -1])


def vgg() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(24, 10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 3),
    )  # fmt: skip


def depthwise() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, groups=3), nn.GroupNorm(2, 6), nn.Hardswish(), nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(6, 4, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
    )  # fmt: skip


def images() -> Any:
    return torch.randn(2, 3, 8, 8)


MODULES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "vgg": (vgg, images),
    "residual": (Residual, images),
    "depthwise": (depthwise, images),
    "encoder": (Encoder, lambda: torch.randint(0, 20, (2, 6))),
    "recurrent": (Recurrent, lambda: torch.randn(2, 4, 8)),
}


def made(name: str) -> tuple[Any, Any]:
    """A module in evaluation mode whose statistics are not those of initialization, and its input."""
    torch.manual_seed(0)
    module, x = (make() for make in MODULES[name])
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.normal_(child.running_mean)
            nn.init.uniform_(child.running_var, 0.5, 2.0)
            nn.init.uniform_(child.weight, -1.0, 2.0)
    return module.eval(), x


def needs(package: str, version: str) -> None:
    found = importlib.util.find_spec(package)
    if found is None or not importlib.metadata.version(package).startswith(version):
        pytest.skip(f"{package} {version} is not installed")


def numpy(tensor: Any) -> np.ndarray:
    return tensor.detach().numpy()


@pytest.mark.parametrize("name", MODULES)
def test_a_module(name):
    module, x = made(name)
    before = {key: numpy(value).copy() for key, value in module.state_dict().items()}
    expected = numpy(module(x))
    net = pytorch.convert(module)
    explain = lrp.explain(net, composites.epsilon_plus())

    found = explain(x, target=torch.tensor([2, 1]))
    np.testing.assert_allclose(found.output, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(net(x), expected, rtol=1e-5, atol=1e-6)
    scale = np.abs(found.relevance).max()
    assert scale > 0
    singles = [explain(x[i : i + 1], target=c).relevance for i, c in enumerate((2, 1))]
    np.testing.assert_allclose(found.relevance, np.concatenate(singles), atol=1e-5 * scale)

    ledger = explain.ledger(x, target=jnp.array([2, 1]))
    assert abs(float(ledger.elsewhere)) < 1e-5 * float(ledger.magnitude)
    np.testing.assert_allclose(
        float(ledger.input), float(np.sum(found.relevance)), atol=1e-5 * float(ledger.magnitude)
    )

    np.testing.assert_array_equal(numpy(module(x)), expected)  # and the module is what it was
    assert not any("forward" in vars(child) for child in module.modules())
    for key, value in module.state_dict().items():
        np.testing.assert_array_equal(numpy(value), before[key])


def test_layers_have_the_names_and_types_of_modules():
    module, x = made("encoder")
    net = pytorch.convert(module)
    rows = {row.path: row.module for row in lrp.plan(net, None, x).rows}
    layer = "encoder.layers.1"
    expected = {
        "embed": "Embedding", f"{layer}.self_attn": "MultiheadAttention",
        f"{layer}.self_attn.out_proj": "MultiheadAttention", f"{layer}/add": "TransformerEncoderLayer",
        f"{layer}.norm1/mul": "LayerNorm", f"{layer}.linear2": "Linear", "head": "Linear",
    }  # fmt: skip
    assert expected.items() <= rows.items()

    chosen = composites.by_path("encoder.layers.0.*", lrp.ZPlus())
    chosen += composites.by_module(nn.Linear, lrp.Gamma(0.5)) + composites.default()
    # in a function around the model, for other variables
    for plan in (
        lrp.plan(net, chosen, x),
        lrp.plan(net.apply, chosen, net.variables, x),
        lrp.plan(net.then(lambda logits: logits[:, :2]), chosen, x),
        lrp.plan(lambda ids: net(ids)[:, :2], chosen, x),
    ):
        assert isinstance(plan["encoder.layers.0.linear1"], lrp.ZPlus)
        assert isinstance(plan["encoder.layers.1.linear1"], lrp.Gamma)
        assert isinstance(plan["head"], lrp.Gamma)


def test_variables_are_arguments():
    module, x = made("vgg")
    net = pytorch.convert(module)
    doubled = {
        key: 2 * value if key.startswith("12.") else value for key, value in net.variables.items()
    }
    one = lrp.explain(net)(x, target=0).relevance
    two = lrp.explain(net.apply)(doubled, x, target=0).relevance
    np.testing.assert_allclose(two, 2 * one, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        module[12].weight.zero_()  # is not seen
    np.testing.assert_array_equal(lrp.explain(net)(x, target=0).relevance, one)


def test_tensors_that_are_strided_or_require_gradients():
    module, x = made("residual")
    explain = lrp.explain(pytorch.convert(module))
    expected = explain(x.numpy(), target=0).relevance
    strided = torch.stack([x, x], -1)[..., 1].requires_grad_()
    np.testing.assert_array_equal(explain(strided, target=0).relevance, expected)
    np.testing.assert_array_equal(explain.vjp(strided)(target=0).relevance, expected)
    half = lrp.explain(lambda x: x.sum(1))(torch.ones(2, 3, dtype=torch.bfloat16))
    assert half.relevance.dtype == jnp.bfloat16


def test_what_is_refused():
    module, x = made("vgg")
    with pytest.raises(TypeError, match=r"fun is a PyTorch module .* jaxlrp\.pytorch\.convert"):
        lrp.explain(module)
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module, got <function"):
        pytorch.convert(vgg)
    module[11].train()
    with pytest.raises(lrp.TrainingModeError, match=r"training mode \('11'\).*module\.eval"):
        pytorch.convert(module)
    module.eval()
    with pytest.raises(TypeError, match="TorchScript"):
        pytorch.convert(torch.jit.trace(module, x))
    with pytest.raises(TypeError, match=r"module\._orig_mod"):
        pytorch.convert(torch.compile(module))
    with pytest.raises(ValueError, match=r"parameter '0\.weight' is float64.*jax_enable_x64"):
        pytorch.convert(module.double())
    masked = pytorch.convert(nn.Sequential(Masked()).eval())
    with pytest.raises(TypeError, match=r"in module '0' .*device=x\.device"):
        lrp.plan(masked, None, torch.ones(2, 3))
    pooled = pytorch.convert(nn.Sequential(nn.AdaptiveMaxPool2d(1)).eval())
    with pytest.raises(lrp.UnsupportedError, match=r"adaptive_max_pool2d .*in module '0'"):
        lrp.plan(pooled, None, x)


@pytest.mark.parametrize("missing", ["torch", "torchax"])
def test_a_missing_package_is_named(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf'requires {missing}, .*pip install "jaxlrp\[torch\]"'):
        pytorch.convert(None)


def test_versions_that_do_not_work_together_are_named(monkeypatch):
    real = importlib.import_module

    def failing(name: str) -> Any:
        if name == "torchax":
            raise AttributeError("torch has no attribute that torchax needs")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", failing)
    expected = rf"with torch {torch.__version__}.*torch==2\.9\.1 torchax==0\.0\.13"
    with pytest.raises(ImportError, match=expected.replace("+", r"\+")):
        pytorch.convert(None)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["epsilon_plus", "epsilon_gamma_box"])
def test_zennit_gives_the_same_relevance(name, monkeypatch):
    """With its canonizer, which merges BatchNorm; and the module can be converted after Zennit used it."""
    needs("zennit", "1.0")  # earlier ones have other stabilizers
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    worker = importlib.import_module("_zennit_worker")
    module, x = made("vgg")
    module, x = module.double(), x.double().clamp(-3, 3)
    with worker.Gradient(module, worker.composite_of(name, x, -3.0, 3.0)) as attributor:
        _, expected = attributor(x, torch.eye(3, dtype=torch.float64)[[2, 1]])
    ours = {
        "epsilon_plus": composites.epsilon_plus(),
        "epsilon_gamma_box": composites.epsilon_gamma_box(-3.0, 3.0),
    }
    with jax.numpy_dtype_promotion("standard"):
        found = lrp.explain(pytorch.convert(module), ours[name])(
            x, target=lambda output: jnp.eye(3, dtype=output.dtype)[jnp.array([2, 1])]
        )
    scale = float(expected.abs().max())
    np.testing.assert_allclose(found.relevance, numpy(expected), rtol=1e-6, atol=1e-10 * scale)


class Logits(nn.Module):
    """The logits of the last position, of embedded tokens."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, embedded: torch.Tensor) -> torch.Tensor:
        return self.model(inputs_embeds=embedded, use_cache=False).logits[:, -1]


@pytest.mark.usefixtures("x64")
def test_lxt_gives_the_same_relevance(monkeypatch):
    """Of the same Llama of transformers, whose module LXT patches for good, after ours was converted."""
    needs("lxt", "2.1")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    code = importlib.import_module("transformers.models.llama.modeling_llama")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation="eager", use_cache=False,
    )  # fmt: skip
    module = Logits(transformers.LlamaForCausalLM(config)).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(5 if parameter.ndim > 1 else 1)  # else attention is uniform
    x = torch.randn(2, 7, 32, dtype=torch.float64)
    with jax.numpy_dtype_promotion("standard"):
        explain = lrp.explain(pytorch.convert(module), composites.attnlrp(epsilon=0.0))
        found = explain(x, target=3)

    for name in ("LlamaMLP", "LlamaRMSNorm"):  # restored afterwards
        kept = getattr(code, name)
        monkeypatch.setattr(kept, "forward", kept.forward)
    for name in ("eager_attention_forward", "ALL_ATTENTION_FUNCTIONS"):
        monkeypatch.setattr(code, name, getattr(code, name))
    importlib.import_module("lxt.efficient").monkey_patch(code)
    given = x.requires_grad_()
    output = module(given)
    output[:, 3].sum().backward()
    expected = numpy(given * given.grad)
    # transformers computes norms and softmax in float32
    np.testing.assert_allclose(found.output, numpy(output), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.relevance, expected, atol=1e-5 * np.abs(expected).max())
