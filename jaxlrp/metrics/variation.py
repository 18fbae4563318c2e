"""How smooth is an explanation? Its total variation, at several scales."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._checks import check_count, is_number
from jaxlrp.metrics.metric import ComplexityMetric, metric
from jaxlrp.metrics.pooling import axes_of


@metric
class TotalVariation(ComplexityMetric):
    """How much neighboring positions differ: the mean of |difference| along each axis, summed over axes.

    Of |a| summed over all other axes, clipped at a percentile of each sample and divided by it, so that
    single large values do not decide. At a scale s, means over blocks of s positions along each axis are
    compared; the score is the mean over the scales.

    Lower is smoother, from 0 (constant) to the number of axes. Smooth does not mean right: a blurred map
    always has a better score. It does not depend on the magnitude of the attributions. Undefined (`nan`)
    where the percentile is zero.

    Attributes:
      axes: of an example, along which positions are neighbors: (0, 1) of (height, width, channels).
      scales: sides of the blocks, >= 1 each; positions that fill no block are left out.
      percentile: at which |a| is clipped, > 0 and <= 100.

    References:
      Goh et al. (2021), https://doi.org/10.1109/ICPR48806.2021.9413242

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> a = jnp.array([[0.0, 4.0, 0.0, 4.0, 4.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
      >>> metrics.TotalVariation(axes=(0,), percentile=100)(a).tolist()
      [0.75, 0.0]
    """

    axes: tuple[int, ...] = (0, 1)
    scales: tuple[int, ...] = (1,)
    percentile: float = 99.0
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    def __post_init__(self) -> None:
        if not isinstance(self.scales, tuple) or not self.scales:
            raise ValueError(
                f"scales must be a tuple of sides of blocks such as (1, 2), got {self.scales!r}"
            )
        for scale in self.scales:
            check_count("scales", scale)
        if is_number(self.percentile) and not 0 < self.percentile <= 100:
            raise ValueError(f"percentile must be > 0 and <= 100, got {self.percentile!r}")

    @property
    def higher_is_better(self) -> bool:
        return False

    def _compute(self, attributions: Array) -> Array:
        axes = axes_of(self.axes, attributions.ndim, "axes")
        kept = (0, *axes)
        sizes = jnp.moveaxis(jnp.abs(attributions), kept, range(len(kept)))
        sizes = sizes.sum(axis=tuple(range(len(kept), sizes.ndim)))
        limit = jnp.percentile(
            sizes.reshape(len(sizes), -1), self.percentile, axis=1
        )  # of each sample
        limit = limit.reshape(-1, *[1] * (sizes.ndim - 1))
        sizes = jnp.minimum(sizes, limit) / limit  # 0 / 0: undefined
        return jnp.mean(jnp.stack([_variation(_blocks(sizes, s)) for s in self.scales]), axis=0)


def _blocks(sizes: Array, scale: int) -> Array:
    """Means over blocks of `scale` positions along each axis but the first."""
    if scale == 1:
        return sizes
    counts = [n // scale for n in sizes.shape[1:]]
    if min(counts) < 2:
        raise ValueError(
            f"scales must leave at least 2 blocks along each axis of maps of shape {sizes.shape[1:]}, got "
            f"{scale}"
        )
    cut = sizes[(slice(None), *(slice(n * scale) for n in counts))]
    split = cut.reshape(len(cut), *np.ravel([(n, scale) for n in counts]).tolist())
    return split.mean(axis=tuple(range(2, split.ndim, 2)))


def _variation(sizes: Array) -> Array:
    found = [
        jnp.abs(jnp.diff(sizes, axis=axis)).reshape(len(sizes), -1).mean(axis=1)
        for axis in range(1, sizes.ndim)
        if sizes.shape[axis] > 1
    ]
    return sum(found, jnp.zeros(len(sizes), sizes.dtype))
