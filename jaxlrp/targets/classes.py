"""Targets: which relevance the output begins with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp.errors import counted

__all__ = ["Contrast", "LogOdds", "Predicted", "Region", "Selection", "Target", "predicted"]


class Selection:
    """A target that weighs outputs: relevance begins as `weights * output`. A pytree.

    Attributes:
      indices: names of the fields that hold class indices.
    """

    indices: ClassVar[tuple[str, ...]] = ()

    def weights(self, z: Array) -> Array:
        """The weights, of the output's shape."""
        raise NotImplementedError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Predicted(Selection):
    """The class of the greatest output of each example."""

    def weights(self, z: Array) -> Array:
        return class_cotangent(z, jnp.argmax(z, axis=-1))


predicted = Predicted()
"""The class of the greatest output of each example."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Contrast(Selection):
    """The evidence for one class rather than another: relevance begins as z_target - z_against.

    Attributes:
      target: a class index, or one for each example; or `predicted`.
      against: a class index, or one for each example; None for the mean of all other classes.
    """

    indices: ClassVar[tuple[str, ...]] = ("target", "against")
    target: ArrayLike | Predicted
    against: ArrayLike | None = None

    def weights(self, z: Array) -> Array:
        of = self.target
        chosen = of.weights(z) if isinstance(of, Predicted) else class_cotangent(z, of)
        if self.against is None:
            return chosen - (1 - chosen) / (z.shape[-1] - 1)
        return chosen - class_cotangent(z, self.against)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LogOdds(Selection):
    r"""The log-odds of a class against the rest, log(p / (1 - p)) of its softmax probability p.

    Relevance begins as that number: it is split between the class and its competitors by their
    contribution to it, log(p/(1-p)) = z_c - logsumexp of the others = z_c - sum_k q_k z_k - H(q),
    where q is the softmax over the others; the entropy H belongs to no class and is left out.

    Attributes:
      target: a class index, or one for each example.
    """

    indices: ClassVar[tuple[str, ...]] = ("target",)
    target: ArrayLike

    def weights(self, z: Array) -> Array:
        chosen = class_cotangent(z, self.target)
        others = jnp.where(chosen > 0, -jnp.inf, z)
        return chosen - jax.nn.softmax(others, axis=-1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Region(Selection):
    """The scores of one class in a region, for outputs with a class for each position: segmentations.

    Relevance begins as sum_p m_p z_pc, for each sample, over the positions p of the output.

    Attributes:
      target: a class index, or one for each sample.
      mask: m, the region: booleans or weights that broadcast to the output without its last axis, the
        classes: (N, H, W), or (H, W) for the same region in all samples, of an output (N, H, W, C).

    Raises:
      ValueError: if the mask does not fit the output, or the output has no positions.

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> w = jnp.array([[1.0, 2.0], [0.0, 1.0], [1.0, 0.0]])
      >>> pixels = jnp.ones((1, 4, 4, 3))  # (N, H, W, channels); two classes at each pixel
      >>> left = jnp.arange(4) < 2  # (W,): the left half, 8 pixels
      >>> result = lrp.explain(lambda x: x @ w)(pixels, target=lrp.targets.Region(1, left))
      >>> float(jnp.rint(result.relevance.sum()))
      24.0
    """

    indices: ClassVar[tuple[str, ...]] = ("target",)
    target: ArrayLike
    mask: ArrayLike

    def weights(self, z: Array) -> Array:
        chosen = class_cotangent(z, of_positions(z, self.target, self.mask))
        return chosen * jnp.asarray(self.mask).astype(z.dtype)[..., None]


def of_positions(z: Array, target: ArrayLike, mask: ArrayLike | None) -> Array:
    """The class index of each position of an output (N, *positions, classes), or one for all of them.

    Args:
      z: the output.
      target: a class index, or one for each sample.
      mask: a region, which must fit the output; None for all positions.

    Raises:
      ValueError: if it does not fit, or there are no positions.
    """
    places, shape = z.shape[:-1], () if mask is None else jnp.shape(mask)
    pairs = zip(shape[::-1], places[::-1], strict=False)
    if not places or len(shape) > len(places) or not all(m in (1, p) for m, p in pairs):
        raise ValueError(
            f"the mask, of shape {shape}, must broadcast to the output without its "
            f"last axis, the classes: the output has shape {z.shape}"
        )
    index = jnp.asarray(target)
    if index.ndim == 1:  # one for each sample
        index = index.reshape(-1, *[1] * (len(places) - 1))
        index = jnp.broadcast_to(index, (len(index), *places[1:]))
    return index


def class_cotangent(z: Array, target: Any) -> Array:
    """One at the target of each example: relevance begins as that logit.

    Raises:
      IndexError: if a target is out of range. Traced ones cannot be looked at: their relevance is NaN.
      ValueError: if there are not as many targets as examples.
    """
    if z.ndim == 0:
        raise ValueError(
            "the output is a scalar, which has no classes: leave target out, or pass an array"
        )
    classes = z.shape[-1]
    check_classes(target, classes)
    index = jnp.asarray(target)
    if index.dtype.itemsize < 4:  # a small integer type may not hold the number of classes
        index = index.astype(jnp.int32)
    if index.ndim and index.shape != z.shape[:-1]:
        raise ValueError(
            f"target of shape {index.shape} must contain one class index for each of the outputs "
            f"{z.shape[:-1]}: the output has shape {z.shape}"
        )
    index = jnp.broadcast_to(index, z.shape[:-1])
    chosen = jax.nn.one_hot(index, classes, dtype=z.dtype)
    if not _compat.is_traced(target):
        return chosen
    outside = (index < 0) | (index >= classes)
    return jnp.where(outside[..., None], jnp.asarray(jnp.nan, z.dtype), chosen)


def check_classes(target: Any, classes: int) -> None:
    """Refuses class indices that are out of range, unless they are traced."""
    if _compat.is_traced(target):
        return
    wrong = [int(t) for t in np.ravel(np.asarray(target)) if not 0 <= t < classes]
    if wrong:
        raise IndexError(
            f"target {wrong[0]} is out of range: the output has "
            f"{counted(classes, 'class')} along its last axis, 0 to {classes - 1}"
        )


Target = ArrayLike | Selection | Callable[[Any], Any] | Mapping[str, Any] | Sequence[Any] | None
"""Which relevance the output begins with: class indices, an array like the output, a `Selection`, a
function of the output, or a pytree with one of these for each part of the output."""
