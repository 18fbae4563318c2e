r"""Similarities to prototypes, and what they say of classes.

    d_lp = |z_l - p|^2,   s_p = max_l ln((d_lp + 1) / (d_lp + eps)),   logit_k = sum_p s_p m_pk w_pk + b_k

z_l are the features at position l, m is 0 for deselected prototypes. Relevance of a similarity stays at the
position of the maximum, and is shared by channels that are close to those of the prototype (PRP):

    R_lc = s_p v_c / sum_c' v_c',   v_c = 1 / ((z_lc - p_c)^4 + 1e-12)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._described import described
from jaxlrp.heads.head import Head, as_array, dot, head
from jaxlrp.numerics import wide

_CLOSE = 1e-12  # of the paper


@described
@head
class Similarities(Head):
    """Similarities to prototypes; `PrototypeLayer.similarities` has them.

    Attributes:
      vectors: p, (P, C).
      epsilon: of the similarity.
    """

    vectors: Array
    epsilon: Array

    def __call__(self, features: ArrayLike) -> Array:
        """The similarities (N, P) of features (N, ..., C)."""
        return jax.vmap(lambda z: self._nearest(z)[0])(self.positions(features))

    def where(self, features: ArrayLike) -> Array:
        """The position of the maximum, an index into all positions in row-major order, (N, P)."""
        return jax.vmap(lambda z: self._nearest(z)[1])(self.positions(features))

    def relevance(self, features: ArrayLike, weights: Array) -> Array:
        z = self.positions(features)
        found = jax.lax.map(lambda pair: self._of_one(*pair), (z, weights.astype(z.dtype)))
        return found.reshape(jnp.shape(features))

    def positions(self, features: ArrayLike) -> Array:
        """Features (N, ..., C) as (N, L, C), in float32 at the least.

        Raises:
          ValueError: if they have another number of channels.
        """
        z = jnp.asarray(features)
        size = self.vectors.shape[1]
        if z.ndim < 3 or z.shape[-1] != size:
            raise ValueError(
                f"features must have shape (N, ..., {size}), positions before the channels of the "
                f"prototypes, got {z.shape}"
            )
        return z.reshape(len(z), -1, size).astype(wide(z.dtype))

    def _nearest(self, z: Array) -> tuple[Array, Array]:
        """Similarities (P,) and positions (P,) of z (L, C)."""
        p = self.vectors.astype(z.dtype)
        # of differences, not of squares: distances near zero make the largest similarities
        d = jax.lax.map(lambda one: ((z - one) ** 2).sum(-1), p)
        where = d.argmin(-1)
        least = jnp.take_along_axis(d, where[:, None], 1)[:, 0]
        return jnp.log((least + 1) / (least + self.epsilon.astype(z.dtype))), where

    def _of_one(self, z: Array, weights: Array) -> Array:
        s, where = self._nearest(z)
        p = self.vectors.astype(z.dtype)
        close = 1 / ((z[where] - p) ** 4 + _CLOSE)
        each = (weights * s)[:, None] * close / close.sum(-1, keepdims=True)
        return jnp.zeros_like(z).at[where].add(each)


@described
@head
class PrototypeLayer(Head):
    """Classes from similarities to prototypes; `layer` makes it.

    Attributes:
      similarities: to the prototypes; a head of its own, to explain a single prototype.
      weights: w, (P, K).
      bias: b, (K,).
      mask: m, 0 or 1, (P, K); 0 where a prototype is deselected for a class.
    """

    similarities: Similarities
    weights: Array
    bias: Array
    mask: Array

    def __call__(self, features: ArrayLike) -> Array:
        """The logits (N, K) of features (N, ..., C)."""
        return self.of_similarities(self.similarities(features))

    def of_similarities(self, s: Array) -> Array:
        """The logits (N, K) of similarities (N, P)."""
        return dot(s, (self.weights * self.mask).astype(s.dtype)) + self.bias.astype(s.dtype)

    def relevance(self, features: ArrayLike, weights: Array) -> Array:
        """Of each feature, (N, ..., C); they sum to the logit less its bias."""
        return self.similarities.relevance(
            features, dot(weights, (self.weights * self.mask).T.astype(weights.dtype))
        )

    def of_prototypes(self, features: ArrayLike, target: int) -> Array:
        """What each prototype adds to the logit of a class, s_p m_p w_p, (N, P)."""
        return self.similarities(features) * (self.weights * self.mask)[:, target]

    def deselect(
        self, prototypes: Iterable[int], classes: Iterable[int] | None = None
    ) -> PrototypeLayer:
        """The same layer without some prototypes.

        Args:
          prototypes: their indices.
          classes: for which they no longer count; None for all.

        Raises:
          ValueError: if there are no such prototypes or classes.
        """
        count, outputs = self.mask.shape
        rows = _indices("prototypes", prototypes, count)
        columns = np.arange(outputs) if classes is None else _indices("classes", classes, outputs)
        mask = np.array(self.mask)
        mask[np.ix_(rows, columns)] = 0
        return dataclasses.replace(self, mask=jnp.asarray(mask))


def _indices(name: str, given: Iterable[int], count: int) -> np.ndarray:
    found = np.asarray(list(given) if isinstance(given, Iterable) else [given])
    if not found.size or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"{name} must be indices such as [0, 3], got {given!r}")
    if found.min() < 0 or found.max() >= count:
        raise ValueError(f"{name} must be from 0 to {count - 1}, got {found.tolist()}")
    return found


def layer(
    vectors: ArrayLike, weights: ArrayLike, bias: ArrayLike = 0.0, *, epsilon: float = 1e-4
) -> PrototypeLayer:
    r"""The prototype layer and the last layer of a network such as ProtoPNet, as a head.

    s_p = max_l ln((|z_l - p|^2 + 1) / (|z_l - p|^2 + epsilon)),   logit_k = sum_p s_p m_pk w_pk + b_k

    R of the features is that of prototype relevance propagation (PRP): s_p m_p w_p at the position of the
    maximum, shared by channels in proportion to 1 / ((z_c - p_c)^4 + 1e-12). It sums to the logit less its
    bias, and with `layer.similarities` to s_p exactly. `heads.explain(layer, encoder)` explains classes,
    `heads.explain(layer.similarities, encoder)(x, target=p)` prototypes.

    Args:
      vectors: p, (P, C).
      weights: w of the last layer, (P, K).
      bias: b, a number, or (K,).
      epsilon: of the similarity, > 0 and < 1; the largest similarity is -ln epsilon.

    Returns:
      A head of features (N, ..., C), positions before channels.

    Raises:
      ValueError: if shapes do not fit, or epsilon is out of range.

    References:
      Gautam et al. (2023), "This looks more like that: Enhancing self-explaining models by prototypical
      relevance propagation", https://doi.org/10.1016/j.patcog.2022.109172; Gerstenberger et al. (2022),
      "But that's not why: Inference adjustment by interactive prototype deselection",
      https://arxiv.org/abs/2203.10087; Chen et al. (2019), "This looks like that", https://arxiv.org/abs/1806.10574

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import heads, prototypes
      >>> layer = prototypes.layer([[1.0, 0.0], [0.0, 1.0]], weights=[[1.0, -0.5], [-0.5, 1.0]])
      >>> features = jnp.array([[[1.0, 0.2], [0.0, 0.0]]])  # an input with two positions
      >>> result = heads.explain(layer.similarities)(features, target=0)
      >>> bool(jnp.allclose(result.relevance.sum(), result.output[0, 0], rtol=1e-5))
      True
      >>> layer(features).argmax(1).tolist(), layer.deselect([0])(features).argmax(1).tolist()
      ([0], [1])
    """
    p = as_array("vectors", vectors, 2, "(prototypes, channels)")
    w = as_array("weights", weights, 2, "(prototypes, classes)")
    if len(w) != len(p):
        raise ValueError(
            f"weights must have a row for each of {len(p)} prototypes, got shape {w.shape}"
        )
    b = as_array("bias", np.atleast_1d(bias), 1, "() or (classes,)")
    if b.shape not in ((1,), w.shape[1:]):
        raise ValueError(f"bias must be a number or have shape {w.shape[1:]}, got {b.shape}")
    if not 0 < float(epsilon) < 1:
        raise ValueError(f"epsilon must be above 0 and below 1, got {epsilon!r}")
    made = Similarities(p, jnp.asarray(float(epsilon)))
    return PrototypeLayer(made, w, jnp.broadcast_to(b, w.shape[1:]), jnp.ones_like(w))
