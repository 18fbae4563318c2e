"""Transforms that are matrices: a user's own, and principal components."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp.inspection.transform import Transform


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Matrix(Transform):
    """A transform defined by your own matrix.

    z = T x,   x ~ S z

    Attributes:
      analysis: T, (K, N).
      synthesis: S, (N, K); None for the pseudo-inverse of T, which minimizes the residual.

    Raises:
      ValueError: if the shapes do not match.

    Example:
      >>> import numpy as np
      >>> Matrix(np.array([[1.0, 1.0], [1.0, -1.0]])).forward(jnp.array([3.0, 1.0])).tolist()
      [4.0, 2.0]
    """

    analysis: Any
    synthesis: Any = None

    def __post_init__(self) -> None:
        if not hasattr(self.analysis, "shape"):
            return  # a pytree that is being rebuilt without arrays
        k, n = _two_axes("analysis", self.analysis)
        if self.synthesis is None:
            object.__setattr__(self, "synthesis", np.linalg.pinv(_concrete(self.analysis)))
        elif np.shape(self.synthesis) != (n, k):
            raise ValueError(
                f"synthesis must have shape {(n, k)}, that of analysis transposed, got "
                f"{np.shape(self.synthesis)}"
            )

    def forward(self, x: Array) -> Array:
        _check_length(self, x.shape[-1], jnp.shape(self.analysis)[1])
        return x @ _like(self.analysis, x).T

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        return z @ _like(self.synthesis, z).T


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class PCA(Transform):
    """Principal components: z = V (x - mean), x ~ mean + V^T z.

    Relevance of the mean is returned as offset, and of what the components miss as residual.

    Attributes:
      components: V, (K, N), orthonormal rows.
      mean: (N,), in the units of x.

    Example:
      >>> import numpy as np
      >>> waves = np.random.default_rng(0).normal(size=(50, 8))
      >>> PCA.fit(waves, 3).components.shape
      (3, 8)
    """

    axes: ClassVar[tuple[str, ...]] = ("component",)

    components: Any
    mean: Any

    @classmethod
    def fit(cls, signals: ArrayLike, n_components: int | None = None) -> PCA:
        """The leading components of a set of signals.

        Args:
          signals: (M, N), one per row.
          n_components: K, the number of components, between 1 and min(M, N); None for all.

        Raises:
          ValueError: if `signals` or `n_components` is invalid.
        """
        data = np.asarray(signals, np.float64)
        _two_axes("signals", data)
        most = min(data.shape)
        if n_components is not None and not 1 <= n_components <= most:
            raise ValueError(f"n_components must be between 1 and {most}, got {n_components!r}")
        mean = data.mean(axis=0)
        _, _, components = np.linalg.svd(data - mean, full_matrices=False)
        return cls(components[:n_components], mean)

    def offset(self, lengths: tuple[int, ...]) -> Array:
        _check_length(self, lengths[0], jnp.shape(self.mean)[0])
        return jnp.asarray(self.mean)

    def forward(self, x: Array) -> Array:
        _check_length(self, x.shape[-1], self.components.shape[1])
        return x @ _like(self.components, x).T

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        return z @ _like(self.components, z)


def _check_length(transform: Transform, got: int, expected: int) -> None:
    if got != expected:
        raise ValueError(
            f"{type(transform).__name__} is for signals of {expected} samples, got {got} along "
            "the axis: check axis=, or divide the signal into windows"
        )


def _two_axes(name: str, value: Any) -> tuple[int, int]:
    if np.ndim(value) != 2:
        raise ValueError(f"{name} must be a matrix, got shape {np.shape(value)}")
    return np.shape(value)  # pyright: ignore[reportReturnType]


def _concrete(matrix: Any) -> np.ndarray:
    if _compat.is_traced(matrix):
        raise ValueError(
            "synthesis is missing: it is the pseudo-inverse of analysis by default, which cannot be "
            "computed if analysis is traced"
        )
    return np.asarray(matrix, np.float64)


def _like(matrix: Any, x: Array) -> Array:
    """A matrix in the precision of x."""
    matrix = jnp.asarray(matrix)
    if jnp.iscomplexobj(x) or not jnp.iscomplexobj(matrix):
        return matrix.astype(x.dtype)
    return matrix.astype(jnp.result_type(x.dtype, jnp.complex64))
