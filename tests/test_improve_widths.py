"""Hidden channels of inverted residual blocks: switched off, set to zero, and cut out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.errors import ScopeParamShapeError

import jaxlrp as lrp
from jaxlrp import concepts, improve
from jaxlrp.pretrained.efficientnet_lite import EfficientNetLite0, InvertedResidual, widths_of

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 4, 4, 2))


class Residuals(nn.Module):
    """A stem and three inverted residual blocks; the first one has no expansion, the second one adds."""

    stem: int = 6
    hidden: tuple[int, int] = (12, 8)

    @nn.compact
    def __call__(self, x):
        norm = nn.BatchNorm(use_running_average=True, name="stem_norm")
        x = nn.relu6(norm(nn.Conv(self.stem, (3, 3), use_bias=False, name="stem")(x)))
        x = InvertedResidual(4, 3, 1, 1, self.stem, residual=False, name="block_0")(x)
        x = InvertedResidual(4, 3, 1, 3, self.hidden[0], name="block_1")(x)
        x = InvertedResidual(5, 5, 2, 2, self.hidden[1], name="block_2")(x)
        return nn.Dense(3, name="head")(x.mean((1, 2)))


def hidden_units(blocks):
    """Units and wiring of the hidden channels of blocks, by block; those of the first are the stem's."""
    units = {"stem": concepts.Channels("block_0/relu6", axis=-1)}
    writes = ["stem", "stem_norm", "block_0/depthwise", "block_0/depthwise_norm"]
    wiring = {"stem": improve.Wiring(writes, reads=["block_0/project"])}
    for b in (f"block_{i}" for i in range(1, blocks)):
        units[b] = concepts.Channels(f"{b}/relu6:1", axis=-1)
        inner = ("expand", "expand_norm", "depthwise", "depthwise_norm")
        wiring[b] = improve.Wiring([f"{b}/{m}" for m in inner], reads=[f"{b}/project"])
    return units, wiring


def normal_variables(net, x):
    shapes = jax.eval_shape(net.init, jax.random.key(0), x.astype(np.float32))
    drawn = jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape)), shapes)
    drawn["batch_stats"] = jax.tree.map(jnp.square, drawn["batch_stats"])  # variances
    return drawn


def test_hidden_channels_of_inverted_residual_blocks():
    """Off after the depthwise convolution, zero in all four modules, or cut out of them: the same."""
    units, wiring = hidden_units(3)
    variables = normal_variables(Residuals(), IMAGES)
    left = {
        "stem": 4,
        "block_1": 7,
        "block_2": 3,
    }  # four like the features of block_0, which adds nothing
    kept = {
        name: RNG.permutation(np.arange(n) < left[name])
        for name, n in {"stem": 6, "block_1": 12, "block_2": 8}.items()
    }
    switched = lrp.edit(Residuals().apply, improve.switch_off(kept, units))(variables, IMAGES)
    masked = improve.mask_parameters(variables, kept, wiring)
    np.testing.assert_array_equal(Residuals().apply(masked, IMAGES), switched)
    assert not np.allclose(Residuals().apply(variables, IMAGES), switched, rtol=0.01)
    net, small = Residuals(4, (7, 3)), improve.shrink(variables, kept, wiring)
    expected = jax.eval_shape(net.init, jax.random.key(0), IMAGES.astype(np.float32))
    assert jax.tree.map(jnp.shape, small) == jax.tree.map(jnp.shape, expected)
    np.testing.assert_allclose(net.apply(small, IMAGES), switched, rtol=1e-10)


def test_a_pruned_efficientnet():
    """Its variables fit, and it adds as often: `block_0` does not, though 16 channels go in and out."""
    whole, x = EfficientNetLite0(num_classes=3), jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    shapes, (units, wiring) = jax.eval_shape(whole.init, jax.random.key(0), x), hidden_units(16)
    wiring["head"] = improve.Wiring(["head", "head_norm"], reads=["classifier"])
    counts = widths_of(shapes)
    assert sorted(counts) == sorted([*units, "head"])
    assert (counts["stem"], counts["block_1"], counts["head"]) == (32, 96, 1280)
    kept = {name: np.arange(n) < n // 2 for name, n in counts.items()}
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    small = improve.shrink(zeros, kept, wiring)
    assert widths_of(small) == {name: n // 2 for name, n in counts.items()}
    net = EfficientNetLite0(num_classes=3, widths=widths_of(small))
    expected = jax.eval_shape(net.init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, small) == jax.tree.map(jnp.shape, expected)
    programs = [jax.make_jaxpr(f.apply)(v, x) for f, v in ((whole, shapes), (net, expected))]
    names = [[str(op.primitive) for op in program.eqns] for program in programs]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: EfficientNetLite0(widths={"block_0": 3}),
            ValueError, 'widths must name "stem", "block_1" to "block_15" or "head", got \'block_0\'',
        ),
        (
            lambda: EfficientNetLite0(widths={"head": 0}),
            ValueError, r"widths\['head'\] must be an integer >= 1, got 0",
        ),
        (lambda: EfficientNetLite0(widths=[3]), TypeError, "widths must be a dictionary"),
        (lambda: widths_of({"params": {}}), ValueError, r"as those of efficientnet_lite0\(\) do, got"),
        (
            lambda: InvertedResidual(4, 3, 1, 1, hidden=5).init(jax.random.key(0), IMAGES),
            ValueError, "hidden must be 2, the input channels, in a block without an exp.* got 5",
        ),
        (
            lambda: Residuals(hidden=(11, 8)).apply(normal_variables(Residuals(), IMAGES), IMAGES),
            ScopeParamShapeError, "block_1",
        ),
    ],
)  # fmt: skip
def test_wrong_widths_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
