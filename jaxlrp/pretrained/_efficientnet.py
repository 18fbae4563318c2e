"""The network EfficientNet-Lite0, whole or with fewer hidden channels."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn
from flax.core import FrozenDict

from jaxlrp._checks import check_count, check_mapping

# Per stage: blocks, kernel size, stride of the first block, expansion, output channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_BLOCKS = tuple(f"block_{i}" for i in range(sum(blocks for blocks, *_ in _STAGES)))


class InvertedResidual(nn.Module):
    """Expansion (1x1), depthwise convolution, linear projection (1x1), and a residual connection.

    Attributes:
      features: output channels.
      kernel_size: height and width of the depthwise kernel, in pixels.
      stride: stride of the depthwise convolution, in pixels.
      expansion: ratio of hidden to input channels; with 1 there is no
        expansion layer.
      hidden: hidden channels, if not as many as `expansion` says, as after pruning. Without an
        expansion layer they are the input channels.
      residual: whether the input is added to the output; by default if their shapes are equal.

    Raises:
      ValueError: if `hidden` is not a positive integer, or not the input channels where it must be.
    """

    features: int
    kernel_size: int
    stride: int
    expansion: int
    hidden: int | None = None
    residual: bool | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps (N, H, W, C) to (N, ceil(H / stride), ceil(W / stride), features)."""
        norm = functools.partial(_batch_norm, train)
        residual = x
        hidden = x.shape[-1] * self.expansion
        if self.hidden is not None:
            hidden = check_count("hidden", self.hidden)
        if self.expansion == 1 and hidden != x.shape[-1]:
            raise ValueError(
                f"hidden must be {x.shape[-1]}, the input channels, in a block without an expansion layer, "
                f"got {hidden}"
            )
        if self.expansion != 1:
            x = nn.Conv(hidden, (1, 1), use_bias=False, name="expand")(x)
            x = nn.relu6(norm(name="expand_norm")(x))
        x = nn.Conv(
            hidden,
            (self.kernel_size, self.kernel_size),
            strides=self.stride,
            feature_group_count=hidden,
            use_bias=False,
            name="depthwise",
        )(x)
        x = nn.relu6(norm(name="depthwise_norm")(x))
        x = nn.Conv(self.features, (1, 1), use_bias=False, name="project")(x)
        x = norm(name="project_norm")(x)
        add = x.shape == residual.shape if self.residual is None else self.residual
        return x + residual if add else x


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without training-time dropout and stochastic depth.

    Attributes:
      num_classes: number of logits.
      widths: channels of a pruned network, by module: "stem" (which are also the hidden ones of
        `block_0`), "block_1" to "block_15" (hidden channels), "head". Those left out are whole.

    Raises:
      TypeError, ValueError: if `widths` is no mapping, names another module, or has a width that is not a
        positive integer.

    Example:
      >>> EfficientNetLite0(widths={"block_3": 100, "head": 640}).widths["head"]
      640
    """

    num_classes: int = 1000
    widths: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        # frozen, because jax.jit(model.apply) takes a hash of the module
        object.__setattr__(self, "widths", _checked_widths(self.widths))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Computes the logits.

        Args:
          x: preprocessed images, (N, 224, 224, 3), floating, in -0.99 .. 1.
          train: whether BatchNorm uses the statistics of the batch and updates the running ones.

        Returns:
          Logits, (N, num_classes).
        """
        norm = functools.partial(_batch_norm, train)
        widths = {} if self.widths is None else self.widths
        x = nn.Conv(widths.get("stem", 32), (3, 3), strides=2, use_bias=False, name="stem")(x)
        x = nn.relu6(norm(name="stem_norm")(x))
        block = 0
        for blocks, kernel_size, first_stride, expansion, features in _STAGES:
            for stride in [first_stride] + [1] * (blocks - 1):
                name = f"block_{block}"
                x = InvertedResidual(
                    features, kernel_size, stride, expansion, widths.get(name),
                    # not even if the stem is pruned to as many channels as the block has
                    residual=None if block else False,
                    name=name,
                )(x, train)  # fmt: skip
                block += 1
        x = nn.Conv(widths.get("head", 1280), (1, 1), use_bias=False, name="head")(x)
        x = nn.relu6(norm(name="head_norm")(x))
        x = x.mean((1, 2))
        return nn.Dense(self.num_classes, name="classifier")(x)


def widths_of(variables: Mapping[str, Any]) -> dict[str, int]:
    """The widths of the network that variables belong to, such as those of `jaxlrp.improve.shrink`.

    Args:
      variables: of an EfficientNet-Lite0, whole or pruned; at least its "params".

    Returns:
      Channels by module: `EfficientNetLite0(widths=widths_of(variables))` fits the variables.

    Raises:
      TypeError, ValueError: if they are not variables of an EfficientNet-Lite0.

    Example:
      >>> from jaxlrp.pretrained import efficientnet_lite0
      >>> widths_of(efficientnet_lite0().variables)["block_3"]
      144
    """
    check_mapping("variables", variables, "efficientnet_lite0().variables")
    try:
        params = variables["params"]
        kernels = {name: params[name]["depthwise"]["kernel"] for name in _BLOCKS}
        kernels["head"] = params["head"]["kernel"]
        found = {name: int(kernel.shape[-1]) for name, kernel in kernels.items()}
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            'variables must have "params" with kernels of "head" and of the depthwise convolutions of '
            f'"block_0" to "block_{len(_BLOCKS) - 1}", as those of efficientnet_lite0() do, got '
            f"{sorted(map(str, variables))}"
        ) from error
    return {"stem": found.pop("block_0"), **found}


def _checked_widths(widths: Mapping[str, int] | None) -> FrozenDict[str, int] | None:
    if widths is None:
        return None
    check_mapping("widths", widths, '{"block_1": 48, "head": 640}')
    allowed = ("stem", *_BLOCKS[1:], "head")
    for module in widths:
        if module not in allowed:
            raise ValueError(
                f'widths must name "stem", "block_1" to "block_{len(_BLOCKS) - 1}" or "head", '
                f"got {module!r}"
            )
    return FrozenDict(
        {name: check_count(f"widths[{name!r}]", width) for name, width in widths.items()}
    )


def _batch_norm(train: bool, name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.99, epsilon=1e-3, name=name)
