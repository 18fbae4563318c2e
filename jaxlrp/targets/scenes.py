"""Targets of segmentation and detection networks (L-CRP)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp.targets.classes import Selection, class_cotangent, of_positions


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Segmentation(Selection):
    r"""The positions that a segmentation network assigns to a class, each weighted by its score.

    R_py = max(z_py, 0) [argmax_c z_pc = y] m_p / sum of these over p

    The relevance of each sample sums to one, so a sample is explained the same in any batch. It is zero
    everywhere if no position of the region has the class and a positive score. Use `Region` for the plain
    scores of a region.

    Attributes:
      target: y, a class index, or one for each sample.
      mask: m, a region as in `Region`; None for all positions.

    Raises:
      ValueError: if the mask does not fit the output, or the output has no positions.

    References:
      Dreyer et al. (2023), "Revealing Hidden Context Bias in Segmentation and Object Detection through
      Concept-specific Explanations", https://doi.org/10.48550/arXiv.2211.11426

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> scores = jnp.array([[[3.0, 1.0], [1.0, 0.0], [0.0, 5.0]]])  # (N, positions, classes)
      >>> result = lrp.explain(lambda x: 1.0 * x)(scores, target=lrp.targets.Segmentation(0))
      >>> result.relevance[0, :, 0].tolist()
      [0.75, 0.25, 0.0]
    """

    indices: ClassVar[tuple[str, ...]] = ("target",)
    target: ArrayLike
    mask: ArrayLike | None = None

    def weights(self, z: Array) -> Array:
        chosen = class_cotangent(z, of_positions(z, self.target, self.mask))
        winner = jnp.argmax(z, axis=-1, keepdims=True) == jnp.arange(z.shape[-1])
        kept = chosen * (winner & (z > 0)).astype(z.dtype)
        if self.mask is not None:
            kept = kept * jnp.asarray(self.mask).astype(z.dtype)[..., None]
        total = jnp.sum(kept * z, axis=tuple(range(1, z.ndim)), keepdims=True)
        # NaN of a class index that is out of range stays
        return jnp.where(total == 0, jnp.zeros_like(kept), kept / total)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Detection(Selection):
    """One box of a detector: relevance begins as 1 at the score of a class in that box.

    The output, or this part of it, contains the scores of all candidate boxes, (N, boxes, classes). If
    candidates lie on a grid, reshape them to one axis. Relevance is zero if no box of the sample passes
    the threshold.

    Attributes:
      target: a class index, or one for each sample.
      rank: 0 for the box with the highest score for the class, 1 for the next, and so on.
      threshold: a box counts if its score is greater than this, in the units of the output, and not zero.

    Raises:
      ValueError: if the output has other axes than (N, boxes, classes), or fewer boxes than `rank` needs.

    References:
      Dreyer et al. (2023), https://doi.org/10.48550/arXiv.2211.11426

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> scores = jnp.array([[[0.9, 0.1], [0.2, 0.6], [0.8, 0.3]]])  # three boxes, two classes
      >>> explain = lrp.explain(lambda x: 2.0 * x)
      >>> explain(scores, target=lrp.targets.Detection(0, rank=1)).relevance[0, :, 0].tolist()
      [0.0, 0.0, 1.0]
    """

    indices: ClassVar[tuple[str, ...]] = ("target",)
    target: ArrayLike
    rank: int = dataclasses.field(default=0, metadata={"static": True})
    threshold: float | Array = 0.0

    def weights(self, z: Array) -> Array:
        if z.ndim != 3:
            raise ValueError(
                f"Detection needs scores of shape (N, boxes, classes), got {z.shape}: reshape the output, "
                "or explain the part of it that holds the scores"
            )
        if not 0 <= self.rank < z.shape[1]:
            raise ValueError(
                f"rank must be in 0 to {z.shape[1] - 1}: {z.shape[1]} boxes, got {self.rank}"
            )
        of_class = class_cotangent(z[:, 0], self.target)[:, None]  # (N, 1, classes)
        scores = jnp.sum(jnp.where(of_class == 0, jnp.zeros_like(z), of_class * z), axis=-1)
        value, box = (found[:, -1:] for found in jax.lax.top_k(scores, self.rank + 1))
        counts = (value > jnp.asarray(self.threshold, z.dtype)) & (value != 0)
        scale = jnp.where(counts, 1 / jnp.where(counts, value, jnp.ones_like(value)), 0.0)
        at = jax.nn.one_hot(box[:, 0], z.shape[1], dtype=z.dtype) * scale.astype(z.dtype)
        return of_class * at[..., None]
