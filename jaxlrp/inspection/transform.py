"""What a linear transform of an inspection layer is; transforms by functions, and into segments."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._checks import check_count


class Transform:
    """A linear map T of the last axes of a signal, and a linear left inverse S.

    A virtual inspection layer computes `z = T (x - offset)` and writes `x = offset + S z`. If S T
    is not the identity, the rest is the residual `x - offset - S z`.

    Attributes:
      axes: names of the output axes of the transform.
      reads: number of input axes, the last ones of the signal.
    """

    axes: ClassVar[tuple[str, ...]] = ("coefficient",)
    reads: ClassVar[int] = 1

    def forward(self, x: Array) -> Array:
        """T: from (..., N), or as many axes as `reads`, to (..., *coefficients)."""
        raise NotImplementedError

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        """S: from (..., *coefficients) to (..., *lengths), linear in z over the reals."""
        raise NotImplementedError

    def adjoint(self, c: Array) -> Array:
        """`S^T c`, by transposing S: from (..., *lengths) to (..., *coefficients)."""
        lengths = c.shape[c.ndim - self.reads :]
        z = jax.eval_shape(self.forward, c)
        try:
            transposed = jax.linear_transpose(lambda z: self.inverse(z, lengths), z)
            (result,) = transposed(c)
        except (NotImplementedError, AssertionError) as error:
            raise TypeError(
                f"the inverse of {self!r} must be linear and consist of operations that JAX can transpose: "
                f"{error}"
            ) from error
        return result

    def offset(self, lengths: tuple[int, ...]) -> Array | None:
        """The offset that is subtracted from x before the transform, if any: (*lengths)."""
        return None

    def pool(self, relevance: Array) -> Array:
        """Relevance of the coefficients, after any sums that are part of the transform."""
        return relevance

    def frequencies(self, n: int, sample_rate: float) -> np.ndarray:
        """The frequency of each entry of the frequency axis, in hertz.

        Args:
          n: length of the signal, in samples.
          sample_rate: samples per second, in hertz, > 0.

        Raises:
          TypeError: if the transform has no frequency axis.
        """
        raise TypeError(f"{type(self).__name__} has no frequency axis, only: {self.axes}")

    def times(self, n: int, sample_rate: float) -> np.ndarray:
        """The center of each entry of the time axis, in seconds; arguments as in `frequencies`.

        Raises:
          TypeError: if the transform has no time axis.
        """
        raise TypeError(f"{type(self).__name__} has no time axis, only: {self.axes}")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Functions(Transform):
    """A transform defined by two linear functions of your own.

    Attributes:
      analysis: T, from (..., N) to (..., *coefficients).
      synthesis: S, from (..., *coefficients) back to (..., N). JAX transposes it.
      names: names of the output axes.

    Example:
      >>> double = Functions(lambda x: 2 * x, lambda z: z / 2)
      >>> double.adjoint(jnp.array([1.0, 4.0])).tolist()
      [0.5, 2.0]
    """

    analysis: Callable[[Array], Array]
    synthesis: Callable[[Array], Array]
    names: tuple[str, ...] = ("coefficient",)

    @property
    def axes(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.names

    def forward(self, x: Array) -> Array:
        return self.analysis(x)

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        return self.synthesis(z)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Segments(Transform):
    """Cuts a signal into consecutive segments; the last is padded with zeros.

    Attributes:
      length: segment length in samples, >= 1.

    Raises:
      ValueError: if `length` is not an integer >= 1.

    Example:
      >>> Segments(2).forward(jnp.array([1.0, 2.0, 3.0])).tolist()
      [[1.0, 2.0], [3.0, 0.0]]
    """

    axes: ClassVar[tuple[str, ...]] = ("segment", "sample")

    length: int

    def __post_init__(self) -> None:
        check_count("length", self.length)

    def forward(self, x: Array) -> Array:
        n = x.shape[-1]
        count = -(-n // self.length)
        padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, count * self.length - n)])
        return padded.reshape(*x.shape[:-1], count, self.length)

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        return z.reshape(*z.shape[:-2], -1)[..., : lengths[0]]

    def times(self, n: int, sample_rate: float) -> np.ndarray:
        check_rate(sample_rate)
        return (np.arange(-(-n // self.length)) + 0.5) * self.length / sample_rate


def pools(transform: Transform) -> bool:
    """Whether a transform sums relevance."""
    return type(transform).pool is not Transform.pool


def check_rate(sample_rate: float) -> None:
    """Checks that a sample rate is finite and positive."""
    if not 0.0 < sample_rate < math.inf:
        raise ValueError(f"sample_rate must be positive and finite, in hertz, got {sample_rate!r}")


def check_signal(x: Any) -> None:
    """Checks that an array holds real floating-point numbers."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"a transform needs real floating-point signals, got dtype {x.dtype}; pass the real and "
            "the imaginary part of a complex signal as two channels"
        )
