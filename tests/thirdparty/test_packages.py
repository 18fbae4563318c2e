"""Models of other packages, in Linen, NNX, Haiku and Equinox, as a user would bring them.

Optional: docs/howto/models.md says what to install; `python -m pytest -m thirdparty`. Weights are random,
sizes small. A model is a function of one array to logits (2, K); the last position of a language model, the
mean over what a network of pixels or nodes puts out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxlrp as lrp
from jaxlrp import composites

pytestmark = [
    pytest.mark.thirdparty,
    pytest.mark.filterwarnings("ignore"),  # of those packages, about their own future
]

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
IDS = jnp.asarray(RNG.integers(3, 40, (2, 8)), jnp.int32)
PIXELS = jnp.asarray(RNG.normal(size=(2, 32, 32, 3)), jnp.float32)
CHANNELS_FIRST = PIXELS.transpose(0, 3, 1, 2)
SIGNAL = jnp.asarray(RNG.normal(size=(2, 16, 3)), jnp.float32)
NODES = jnp.asarray(RNG.normal(size=(2, 5, 4)), jnp.float32)
EDGES = jnp.array([[0, 1, 1, 2, 3, 4, 4, 0], [1, 0, 2, 1, 4, 3, 0, 4]])

Model = tuple[Callable[[jax.Array], jax.Array], jax.Array]


def drawn(tree: Any) -> Any:
    """Parameters of which none is constant: what starts as zeros or ones gets noise."""
    rng = np.random.default_rng(1)

    def leaf(a: Any) -> Any:
        if not isinstance(a, jax.Array) or not jnp.issubdtype(a.dtype, jnp.floating):
            return a
        constant = np.ptp(np.asarray(a)) == 0
        return a + jnp.asarray(0.1 * constant * rng.normal(size=a.shape), a.dtype)

    return jax.tree.map(leaf, tree)


def logits(out: Any) -> jax.Array:
    """The last position of a sequence of scores, the first of several outputs."""
    for name in ("logits", "sample"):
        out = out[name] if isinstance(out, dict) and name in out else getattr(out, name, out)
    if isinstance(out, tuple | list):
        out = out[0]
    return out[:, -1] if out.ndim == 3 else out.mean((1, 2)) if out.ndim == 4 else out


def linen(module: Any, x: jax.Array, *rest: Any, **flags: Any) -> Model:
    """A Linen module, whose variables are drawn."""
    keys = {name: jax.random.key(i) for i, name in enumerate(("params", "dropout"))}
    variables = drawn(jax.jit(lambda x: module.init(keys, x, *rest, **flags))(x))
    return lambda x: logits(module.apply(variables, x, *rest, **flags)), x


def nnx_module(module: Any, x: jax.Array, *rest: Any, batched: bool = True, **flags: Any) -> Model:
    """An NNX module in evaluation mode; one of single examples is mapped over them."""
    module.eval()
    graphdef, state = nnx.split(module)
    module = nnx.merge(graphdef, drawn(state))
    if batched:
        return lambda x: logits(module(x, *rest, **flags)), x
    return jax.vmap(lambda x: module(x, *rest, **flags).mean(0)), x


def haiku(function: Callable[[jax.Array, bool], Any], x: jax.Array) -> Model:
    """A Haiku function of an input and of whether it trains, whose parameters are drawn."""
    hk = importlib.import_module("haiku")
    transformed = hk.without_apply_rng(hk.transform_with_state(function))
    params, state = drawn(jax.jit(lambda x: transformed.init(KEY, x, True))(x))
    return lambda x: logits(transformed.apply(params, state, x, False)[0]), x


def equinox(module: Any, x: jax.Array, **flags: Any) -> Model:
    """An Equinox module of single examples, in inference mode."""
    eqx = importlib.import_module("equinox")
    module = drawn(eqx.nn.inference_mode(module))

    def one(x: jax.Array) -> jax.Array:
        return logits(jax.tree.map(lambda a: a[None], module(x, **flags)))[0]

    return jax.vmap(one), x


NANODL = {
    "num_layers": 2, "hidden_dim": 16, "num_heads": 2, "feedforward_dim": 16, "dropout": 0.0,
    "vocab_size": 50, "embed_dim": 16, "max_length": 8, "start_token": 0, "end_token": 1,
}  # fmt: skip
MAMBA = {
    "vocab_size": 50, "hidden_size": 16, "state_size": 8, "head_dim": 8, "chunk_size": 4,
    "num_hidden_layers": 2,
}  # fmt: skip
UNET = {
    "sample_size": 8, "in_channels": 3, "out_channels": 3, "block_out_channels": (32, 64),
    "layers_per_block": 1, "attention_head_dim": 2, "cross_attention_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip
STATE_SPACE = {"feature_dim": 8, "state_dim": 8}


def sequence(m: Any, layer: Callable[[int], Any]) -> Model:
    module = m.S4Module(dim=8, depth=2, sequence_layer=layer)
    return linen(m.ContinuousSequenceModel(module, out_dim=5, emb_dim=8, pool=True), SIGNAL)


def egnn(m: Any) -> Model:
    jraph = importlib.import_module("jraph")
    senders, receivers = EDGES

    def energy(x: jax.Array, training: bool) -> jax.Array:
        def one(x):
            count = jnp.array([5])
            graph = jraph.GraphsTuple(x, None, receivers, senders, None, count, jnp.array([8]))
            return m.EGNN(8, 5, num_layers=2)(graph, pos)[0].mean(0)

        return jnp.stack([one(x[0]), one(x[1])])

    pos = jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32)
    return haiku(energy, NODES)


def graph(m: Any, name: str) -> Model:
    net = getattr(m, name)(4, 8, 2, 5, rngs=nnx.Rngs(0))
    return nnx_module(net, NODES, EDGES, batched=False)


# Name of the model: module it is in, and how a user makes it.
MODELS: dict[str, tuple[str, Callable[[Any], Model]]] = {
    "flaxmodels, ResNet-18": (
        "flaxmodels",
        lambda m: linen(m.ResNet18("logits", None, num_classes=5), PIXELS, train=False),
    ),
    "jax-resnet, ResNet-18": (
        "jax_resnet",
        lambda m: linen(m.ResNet18(n_classes=5), PIXELS),
    ),
    "jax-resnet, ResNeXt": (
        "jax_resnet",
        lambda m: linen(m.ResNeXt50(n_classes=5, stage_sizes=[1, 1, 1, 1]), PIXELS),
    ),
    "jax-resnet, ResNet-D": (
        "jax_resnet",
        lambda m: linen(m.ResNetD50(n_classes=5, stage_sizes=[1, 1, 1, 1]), PIXELS),
    ),
    "jax-resnet, ResNeSt": (
        "jax_resnet",
        lambda m: linen(m.ResNeSt50(n_classes=5, stage_sizes=[1, 1, 1, 1]), PIXELS),
    ),
    "jax-models, ConvMixer": (
        "jax_models.models.conv_mixer",
        lambda m: linen(m.ConvMixer(16, 4, 2, 3, num_classes=5), PIXELS, deterministic=True),
    ),
    "jax-models, PoolFormer": (
        "jax_models.models.poolformer",
        lambda m: linen(m.S12(attach_head=True, num_classes=5), PIXELS, deterministic=True),
    ),
    "nanodl, GPT-4 (mixture of experts)": (
        "nanodl",
        lambda m: linen(m.GPT4(**NANODL, num_experts=3), IDS, training=False),
    ),
    "nanodl, LaMDA": ("nanodl", lambda m: linen(m.LaMDA(**NANODL), IDS, training=False)),
    "nanodl, Mixtral": (
        "nanodl",
        lambda m: linen(
            m.Mixtral(**NANODL, num_groups=2, window_size=4, shift_size=2), IDS, training=False
        ),
    ),
    "nanodl, Gemma": (
        "nanodl",
        lambda m: linen(m.Gemma(**NANODL, num_groups=2), IDS, training=False),
    ),
    "nanodl, T5": ("nanodl", lambda m: linen(m.T5(**NANODL), IDS, IDS, training=False)),
    "nanodl, ViT": (
        "nanodl",
        lambda m: linen(m.ViT((8, 8), 2, 16, 2, 16, 0.0, 5), PIXELS, training=False),
    ),
    "nano-moe-jax": (
        "nano_moe",
        lambda m: linen(m.NanoMoE(m.NanoMoEConfig(50, 2, 2, 16, 32, block_size=8)), IDS),
    ),
    "transformer-in-transformer-flax, TNT": (
        "transformer_in_transformer_flax",
        lambda m: linen(
            m.TransformerInTransformer(
                m.TNTConfig(
                    num_classes=5, depth=2, image_size=32, inner_dim=8, inner_heads=2, inner_dim_head=4,
                    outer_dim=16, outer_heads=2, outer_dim_head=8,
                )
            ),
            PIXELS,
        ),
    ),
    "bottleneck-transformer-flax, BoTNet": (
        "bottleneck_transformer_flax",
        lambda m: linen(
            m.BoTNet(m.BoTNetConfig([1, 1, 1, 1], num_classes=5, head_dim=8, initial_filters=8)),
            PIXELS,
            False,
        ),
    ),
    "long-range-models, S5": (
        "long_range_models",
        lambda m: sequence(m, lambda depth: m.S5Layer(**STATE_SPACE)),
    ),
    "long-range-models, LRU": (
        "long_range_models",
        lambda m: sequence(m, lambda depth: m.LRULayer(**STATE_SPACE)),
    ),
    "image-classification-jax, ResNet": (
        "image_classification_jax.models.resnet",
        lambda m: linen(m.ResNetTiny(num_classes=5, num_filters=8), PIXELS, is_training=False),
    ),
    "flaxdiff, U-Net": (
        "flaxdiff.models",
        lambda m: linen(
            m.Unet(
                emb_features=16, feature_depths=[8, 16], attention_configs=[{"heads": 2}] * 2, norm_groups=4
            ),
            PIXELS,
            jnp.ones(2),
            jnp.asarray(RNG.normal(size=(2, 4, 8)), jnp.float32),
        ),
    ),
    "diffusers, U-Net": (
        "diffusers",
        lambda m: linen(
            m.FlaxUNet2DConditionModel(**UNET),
            CHANNELS_FIRST[:, :, :8, :8],
            jnp.ones(2),
            jnp.asarray(RNG.normal(size=(2, 4, 8)), jnp.float32),
        ),
    ),
    "egnn-jax, EGNN": ("egnn_jax", egnn),
    "jraphx, GCN": ("jraphx.nn.models", lambda m: graph(m, "GCN")),
    "jraphx, GAT": ("jraphx.nn.models", lambda m: graph(m, "GAT")),
    "jraphx, GIN": ("jraphx.nn.models", lambda m: graph(m, "GIN")),
    "jraphx, GraphSAGE": ("jraphx.nn.models", lambda m: graph(m, "GraphSAGE")),
    "mamba2-jax": (
        "mamba2_jax",
        lambda m: nnx_module(m.Mamba2ForCausalLM(m.Mamba2Config(**MAMBA), rngs=nnx.Rngs(0)), IDS),
    ),
    "mamba3-jax": (
        "mamba3_jax",
        lambda m: nnx_module(m.Mamba3ForCausalLM(m.Mamba3Config(**MAMBA), rngs=nnx.Rngs(0)), IDS),
    ),
    "attnax, ViT": (
        "attnax",
        lambda m: nnx_module(
            m.VisionTransformer(
                nnx.Rngs(0),
                m.VisionTransformerConfig(
                    image_size=32,
                    patch_size=8,
                    num_classes=5,
                    d_model=16,
                    num_heads=2,
                    num_layers=2,
                    d_ff=32,
                ),
            ),
            PIXELS,
        ),
    ),
    "equinox, MLP": ("equinox", lambda m: equinox(m.nn.MLP(3, 5, 8, 2, key=KEY), SIGNAL[:, 0])),
    "esm2quinox, ESM-2": (
        "esm2quinox",
        lambda m: equinox(m.ESM2(2, 16, 4, token_dropout=False, key=KEY), IDS),
    ),
    "pdequinox, ResNet": (
        "pdequinox.arch",
        lambda m: equinox(
            m.ClassicResNet(2, 3, 5, hidden_channels=8, num_blocks=2, key=KEY), CHANNELS_FIRST
        ),
    ),
    "pdequinox, U-Net": (
        "pdequinox.arch",
        lambda m: equinox(m.ClassicUNet(2, 3, 5, hidden_channels=8, num_levels=2, key=KEY), CHANNELS_FIRST),
    ),
    "pdequinox, FNO": (
        "pdequinox.arch",
        lambda m: equinox(
            m.ClassicFNO(2, 3, 5, hidden_channels=8, num_modes=4, num_blocks=2, key=KEY),
            CHANNELS_FIRST,
        ),
    ),
    "PaLM-jax": (
        "palm_jax",
        lambda m: equinox(m.PaLM(num_tokens=50, dim=16, dim_head=8, depth=2, heads=2, key=KEY), IDS),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_explained_as_it_is(name):
    module, make = MODELS[name]
    model, x = make(pytest.importorskip(module, reason=f"{name.split(',')[0]} is not installed"))
    expected = jax.jit(model)(x)
    for composite in (None, composites.attnlrp(), composites.epsilon_plus()):
        result = jax.jit(lrp.explain(model, composite))(x, target=1)
        # under jit, XLA may fuse otherwise
        np.testing.assert_allclose(result.output, expected, rtol=1e-3, atol=1e-4)
        assert result.relevance.shape == x.shape
        assert np.isfinite(result.relevance).all()
        assert np.abs(result.relevance).max() > 0
