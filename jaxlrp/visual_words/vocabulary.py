"""What a vocabulary is, and how relevance of its features goes to local descriptors."""

from __future__ import annotations

import abc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp.numerics import tiny, wide


class Vocabulary(abc.ABC):
    """A function of the local descriptors of an image: a mean of terms, one for each descriptor.

    z_f = 1/L sum_l m_f(l);  features are z, or normalized z
    """

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """D, the length of a descriptor."""

    @abc.abstractmethod
    def terms(self, descriptors: Array) -> Array:
        """m_f(l) of the descriptors (L, D) of one image, (L, F)."""

    def normalize(self, z: Array) -> Array:
        """The features (N, F) of means z."""
        return z

    def __call__(self, descriptors: ArrayLike, valid: ArrayLike | None = None) -> Array:
        """The features of images, on which a classifier is trained.

        Args:
          descriptors: (N, L, D).
          valid: booleans (N, L), for images with fewer than L descriptors; the others are left out.

        Returns:
          (N, F).

        Raises:
          ValueError: if shapes do not fit, a descriptor is not finite, or an image has none.
        """
        x, mask = self._given(descriptors, valid)
        return _features(self, x, mask)

    def relevance(
        self,
        descriptors: ArrayLike,
        relevance: ArrayLike,
        valid: ArrayLike | None = None,
        *,
        epsilon: float = 0.0,
    ) -> Array:
        r"""The relevance of each descriptor.

        R_l = sum_{f: z_f != 0} R_f m_f(l) / sum_l' m_f(l') + sum_{f: z_f = 0} R_f / L

        A feature to which no descriptor contributes gives the same to each. The sum is that of the
        relevance of features.

        Args:
          descriptors: (N, L, D).
          relevance: R_f, (N, F), such as `heads.explain(head)(features, target=c).relevance`.
          valid: as for the features; a descriptor that is left out gets zero.
          epsilon: added to |z_f| in the denominator, >= 0, in units of z. Above zero, contributions that
            cancel count less, and R_f epsilon / (|z_f| + epsilon) is lost.

        Returns:
          (N, L).

        Raises:
          ValueError: if shapes do not fit, or epsilon is negative.
        """
        x, mask = self._given(descriptors, valid)
        if isinstance(epsilon, str) or not epsilon >= 0:
            raise ValueError(f"epsilon must be >= 0, got {epsilon!r}")
        given = jnp.asarray(relevance).astype(x.dtype)
        size = jax.eval_shape(self.terms, x[0]).shape[1]
        if given.shape != (len(x), size):
            raise ValueError(
                f"relevance must have shape ({len(x)}, {size}), that of the features, got {given.shape}"
            )

        return _of_descriptors(self, x, mask, given, jnp.asarray(epsilon, x.dtype))

    def mean_and_terms(self, descriptors: Array, mask: Array) -> tuple[Array, Array]:
        """z (F,) and m (L, F) of one image, without descriptors that are left out."""
        terms = jnp.where(mask[:, None], self.terms(descriptors), 0)
        return terms.sum(0) / mask.sum().astype(terms.dtype), terms

    def _given(self, descriptors: ArrayLike, valid: ArrayLike | None) -> tuple[Array, Array]:
        x = jnp.asarray(descriptors)
        if x.ndim != 3 or x.shape[2] != self.size or not x.size:
            raise ValueError(
                f"descriptors must have shape (images, descriptors, {self.size}), as those that the "
                f"vocabulary was made from, got {x.shape}"
            )
        x = x.astype(wide(x.dtype))
        mask = jnp.ones(x.shape[:2], bool) if valid is None else jnp.asarray(valid)
        if mask.shape != x.shape[:2] or mask.dtype != bool:
            raise ValueError(
                f"valid must be booleans of shape {x.shape[:2]}, got {mask.dtype} of shape {mask.shape}"
            )
        if not _compat.is_traced(mask) and not bool(mask.any(1).all()):
            without = int(np.argmin(np.asarray(mask.any(1))))
            raise ValueError(
                f"valid must keep a descriptor of each image, image {without} has none"
            )
        x = jnp.where(mask[..., None], x, 0)
        if not _compat.is_traced(x) and not bool(jnp.isfinite(x).all()):
            raise ValueError("descriptors must be finite, got NaN or inf: leave them out by valid=")
        return x, mask


@jax.jit
def _features(vocabulary: Any, x: Array, mask: Array) -> Array:
    return vocabulary.normalize(
        jax.lax.map(lambda one: vocabulary.mean_and_terms(*one)[0], (x, mask))
    )


@jax.jit
def _of_descriptors(
    vocabulary: Any, x: Array, mask: Array, relevance: Array, epsilon: Array
) -> Array:
    def one(held: tuple[Array, Array, Array]) -> Array:
        descriptors, mask, r = held
        z, terms = vocabulary.mean_and_terms(descriptors, mask)
        share = mask.astype(z.dtype) / mask.sum().astype(z.dtype)
        empty = jnp.abs(z) <= tiny(z.dtype)  # also what underflows nearly
        away = jnp.where(empty, 1, z + jnp.where(z < 0, -epsilon, epsilon))
        per_unit = jnp.where(empty, 0, r / away)
        evenly = jnp.where(empty, r, 0).sum()
        return share * (jnp.dot(terms, per_unit, precision="highest") + evenly)

    return jax.lax.map(one, (x, mask, relevance))
