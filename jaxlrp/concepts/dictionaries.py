"""Concepts that are not units: latents of a dictionary, linear directions, subspaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._described import described
from jaxlrp.concepts.units import Axis, Batch, Channels, Concepts
from jaxlrp.numerics import off_zero

_STATIC = {"static": True}


@described
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Dictionary(Concepts):
    """Latents of a dictionary: a layer's output as `x = sum_k z_k D_k + rest`.

    The dictionary is a virtual inspection layer: it reads the model and does not change it. With c = R / x,
    the relevance of latent k is `z_k <D_k, c>`, and that of the rest is `<x - sum_k z_k D_k, c>`. Together
    they sum exactly to the relevance of the layer, however the codes were computed.

    Attributes:
      encode: from activations (..., features) to codes (..., latents). It need not be linear or
        differentiable: the encoder of a sparse autoencoder, `sklearn`'s coefficients as a constant, ...
      decoder: (latents, features), the direction of each latent.
      axis: the axis of the features.
      groups: (latents,), integers from 0: the concept to which each latent belongs, so that a concept may
        be a subspace. None: each latent is its own concept.

    Raises:
      ValueError: if the decoder is not a matrix, or `groups` does not fit.

    References:
      Bricken et al. (2023), Towards Monosemanticity; Vielhaben et al. (2024),
      https://doi.org/10.1016/j.patcog.2024.110309 (virtual inspection layers).

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import concepts
      >>> decoder = jnp.array([[1.0, 0.0], [1.0, 1.0]])
      >>> latents = concepts.Dictionary("mlp", lambda x: x[..., ::-1] * 0.5, decoder, axis=-1)
      >>> x = jnp.array([[2.0, 4.0]])
      >>> latents.total(x, x).tolist()  # z = (2, 1), R = x
      [[2.0, 2.0]]
    """

    encode: Callable[[Any], Any] = dataclasses.field(metadata=_STATIC)
    decoder: ArrayLike
    axis: Axis = dataclasses.field(metadata=_STATIC)
    groups: tuple[int, ...] | None = dataclasses.field(default=None, metadata=_STATIC)

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.decoder) is object or self.decoder is None:
            return  # a pytree that is being rebuilt
        shape = jnp.shape(self.decoder)
        if len(shape) != 2:
            raise ValueError(f"decoder must have shape (latents, features), got {shape}")
        if self.groups is not None:
            groups = tuple(int(g) for g in self.groups)
            if len(groups) != shape[0] or set(groups) != set(range(max(groups) + 1)):
                raise ValueError(
                    f"groups must be {shape[0]} integers, the concept of each latent, numbered from 0 "
                    f"without gaps, got {groups}"
                )
            object.__setattr__(self, "groups", groups)

    @property
    def _features(self) -> Channels:
        return Channels(self.layer, self.axis, batch=self.batch, dims=self.dims)

    def feature_axes(self, ndim: int) -> tuple[int, ...]:
        return self._features.feature_axes(ndim)

    def count(self, shape: tuple[int, ...]) -> int:
        length, width = self._features.count(shape), jnp.shape(self.decoder)[1]
        if length != width:
            raise ValueError(
                f"decoder has {width} features, but axis {self.axis!r} of the layer {self.layer!r} has "
                f"{length}"
            )
        return jnp.shape(self.decoder)[0] if self.groups is None else max(self.groups) + 1

    def codes(self, a: Array) -> Array:
        """(batch, *positions, latents)

        Raises:
          ValueError: if `encode` returns another shape.
        """
        x = self._features.collect(a, a)
        z = jnp.asarray(self.encode(x))
        expected = (*x.shape[:-1], jnp.shape(self.decoder)[0])
        if z.shape != expected:
            raise ValueError(
                f"encode must return codes of shape {expected}, one for each row of the decoder, got "
                f"{z.shape}"
            )
        return jax.lax.stop_gradient(z).astype(a.dtype)

    def collect(self, a: Array, values: Array) -> Array:
        self.count(a.shape)
        decoder = jnp.asarray(self.decoder, a.dtype)
        cotangent = self._features.collect(a, values / off_zero(a))
        found = self.codes(a) * (cotangent @ decoder.T)
        return found if self.groups is None else found @ self._grouping(found.dtype)

    def activations(self, a: Array) -> Array:
        z = self.codes(a)
        return z if self.groups is None else z @ self._grouping(z.dtype)

    def spread(self, a: Array, weights: Array) -> Array:
        self.count(a.shape)
        if self.groups is not None:
            weights = weights @ self._grouping(weights.dtype).T
        decoder = jnp.asarray(self.decoder, a.dtype)
        part = (self.codes(a) * weights.astype(a.dtype)) @ decoder
        return self._features.spread(a, part) / off_zero(a)

    def _grouping(self, dtype: Any) -> Array:
        assert self.groups is not None
        return jax.nn.one_hot(jnp.array(self.groups), max(self.groups) + 1, dtype=dtype)


def directions(
    layer: str,
    vectors: ArrayLike,
    axis: Axis,
    *,
    groups: Sequence[int] | None = None,
    batch: Batch = ...,
    dims: Sequence[str] | None = None,
) -> Dictionary:
    """Linear directions or subspaces as concepts: concept activation vectors, principal components.

    Activations are decomposed by least squares, `z = x V^+`; what the directions do not span is the
    residual. Directions need not be orthogonal, but must be linearly independent.

    Args:
      layer, axis, batch, dims: as in `Dictionary`.
      vectors: (directions, features).
      groups: the concept of each direction: all directions of one group are a subspace.

    Returns:
      A `Dictionary`.

    Raises:
      ValueError: if the vectors are not a matrix, or not linearly independent.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import concepts
      >>> cavs = concepts.directions("mlp", jnp.array([[1.0, 1.0]]), axis=-1)
      >>> x = jnp.array([[3.0, 1.0]])
      >>> cavs.total(x, x).tolist()  # x = 2 (1, 1) + (1, -1), R = x
      [[4.0]]
    """
    found = np.asarray(vectors)
    if found.ndim != 2:
        raise ValueError(f"vectors must have shape (directions, features), got {found.shape}")
    if not jnp.issubdtype(found.dtype, jnp.inexact):
        found = found.astype(np.float32)
    rank = int(np.linalg.matrix_rank(found.astype(np.float64)))
    if rank < len(found):
        raise ValueError(
            f"vectors must be linearly independent, but these {len(found)} span only {rank} dimensions: "
            "leave out the redundant ones"
        )
    inverse = np.linalg.pinv(found.astype(np.float64)).astype(found.dtype)
    return Dictionary(
        layer,
        _LeastSquares(inverse),
        found,
        axis,
        groups=None if groups is None else tuple(groups),
        batch=batch,
        dims=None if dims is None else tuple(dims),
    )


class _LeastSquares:
    """Codes of activations by a pseudo-inverse (features, latents)."""

    def __init__(self, inverse: np.ndarray) -> None:
        self._inverse = inverse

    def __call__(self, x: Array) -> Array:
        return x @ jnp.asarray(self._inverse, x.dtype)
