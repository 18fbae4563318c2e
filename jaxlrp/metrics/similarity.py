"""How similar two explanations are: values with options, and functions of two arrays.

* `Spearman()`: rank correlation. It does not depend on the scale or on monotonic changes of relevance.
* `Cosine()`: the angle between the two, where large relevance counts most.
* `SSIM(axes)`: similarity of the local structure of images.

Each accepts `absolute=True` to compare magnitudes without signs.
"""

from __future__ import annotations

import abc
import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp._checks import check_count
from jaxlrp.metrics import given
from jaxlrp.metrics.pooling import axes_of
from jaxlrp.metrics.statistics import cosine, spearman


@dataclasses.dataclass(frozen=True)
class Similarity(abc.ABC):
    """A similarity of two explanations of a sample, at most 1; equal explanations have 1.

    Attributes:
      absolute: whether signs are left out.
    """

    absolute: bool = False

    def __call__(self, a: Array, b: Array) -> Array:
        """The similarity of each pair, (n,); `nan` where one is constant or zero, or is not finite.

        Args:
          a, b: floats (n, ...) of the same shape.
        """
        finite = given.finite(a) & given.finite(b)
        found = self._of(jnp.abs(a), jnp.abs(b)) if self.absolute else self._of(a, b)
        return jnp.where(finite, found, jnp.nan)

    @abc.abstractmethod
    def _of(self, a: Array, b: Array) -> Array:
        """The similarity of each pair of finite arrays, (n,)."""


def check_similarity(value: object) -> None:
    """Refuses what does not compare two explanations.

    Raises:
      TypeError: if it is not a function, or is a class.
    """
    if not callable(value) or isinstance(value, type):
        raise TypeError(
            f"similarity must be a value such as metrics.similarity.Spearman(), got {value!r}"
        )


@dataclasses.dataclass(frozen=True)
class Spearman(Similarity):
    """The rank correlation, from -1 to 1; tied values share the mean of their ranks.

    Undefined (`nan`) where one of the two is constant.

    Attributes:
      absolute: whether signs are left out.
    """

    def _of(self, a: Array, b: Array) -> Array:
        return spearman(a.reshape(len(a), -1), b.reshape(len(b), -1))


@dataclasses.dataclass(frozen=True)
class Cosine(Similarity):
    """The cosine of the angle between the two, from -1 to 1. Undefined (`nan`) where one is zero.

    Attributes:
      absolute: whether signs are left out.
    """

    def _of(self, a: Array, b: Array) -> Array:
        return cosine(a.reshape(len(a), -1), b.reshape(len(b), -1))


@dataclasses.dataclass(frozen=True)
class SSIM(Similarity):
    r"""Structural similarity, from -1 to 1: the mean over all square windows, and over channels, of

        (2 m_a m_b + c_1) (2 s_ab + c_2) / ((m_a^2 + m_b^2 + c_1) (s_a^2 + s_b^2 + c_2))

    with means m, variances s^2 and covariances s_ab of the window (divided by its size less 1),
    c_1 = (0.01 L)^2 and c_2 = (0.03 L)^2. Each map is divided by its largest magnitude first; its range L
    is then 2, or 1 with `absolute`. Undefined (`nan`) where one of the two is zero.

    Attributes:
      absolute: whether signs are left out.
      axes: the two axes of an example along which windows lie, such as (0, 1) of (height, width, channels).
      window: its side, >= 2, in positions.

    References:
      Wang et al. (2004), https://doi.org/10.1109/TIP.2003.819861
    """

    axes: tuple[int, int] = (0, 1)
    window: int = 7

    def __post_init__(self) -> None:
        if check_count("window", self.window) < 2:
            raise ValueError(
                f"window must be an integer >= 2, got {self.window}: one position has no structure"
            )
        if np.shape(self.axes) != (2,):
            raise ValueError(f"axes must be two axes of windows such as (0, 1), got {self.axes!r}")

    def _of(self, a: Array, b: Array) -> Array:
        axes = axes_of(self.axes, a.ndim, "axes")
        if min(a.shape[i] for i in axes) < self.window:
            raise ValueError(
                f"window must fit into the explanations, {a.shape[1:]} along axes {self.axes}, got "
                f"{self.window}"
            )
        size = tuple(self.window if i in axes else 1 for i in range(a.ndim))
        count = self.window**2

        def mean(v: Array) -> Array:
            zero = jnp.zeros((), v.dtype)
            return lax.reduce_window(v, zero, lax.add, size, (1,) * v.ndim, "VALID") / count

        def scaled(v: Array) -> Array:
            return v / jnp.abs(v).max(axis=tuple(range(1, v.ndim)), keepdims=True)

        a, b = scaled(a), scaled(b)
        m_a, m_b, unbiased = mean(a), mean(b), count / (count - 1)
        s_aa, s_bb = unbiased * (mean(a * a) - m_a**2), unbiased * (mean(b * b) - m_b**2)
        s_ab = unbiased * (mean(a * b) - m_a * m_b)
        length = 1.0 if self.absolute else 2.0
        c_1, c_2 = (0.01 * length) ** 2, (0.03 * length) ** 2
        found = (2 * m_a * m_b + c_1) * (2 * s_ab + c_2)
        found = found / ((m_a**2 + m_b**2 + c_1) * (s_aa + s_bb + c_2))
        return found.mean(axis=tuple(range(1, a.ndim)))
