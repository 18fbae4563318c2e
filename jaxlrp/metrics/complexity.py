"""How simple is an explanation? Metrics that only use attributions.

Simple does not mean right: a map with the same single relevant pixel for every input gets the best score.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp import _extras
from jaxlrp._checks import check_at_least
from jaxlrp._compat import is_traced
from jaxlrp.metrics import given
from jaxlrp.metrics.features import Elements, Features
from jaxlrp.metrics.metric import ComplexityMetric, metric
from jaxlrp.metrics.pooling import axes_of


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _OfFeatures(ComplexityMetric):
    """A metric of the absolute attributions of features.

    Attributes:
      features: what is counted as one; attributions of a feature are summed.
    """

    features: Features = dataclasses.field(default_factory=Elements)

    def _sizes(self, attributions: Array) -> tuple[Array, Array]:
        """|a| of each feature, (n, features), zero where a sample lacks it, and how many it has, (n,)."""
        shape = attributions.shape
        present = self.features.present(shape)
        sizes = jnp.where(present, jnp.abs(self.features.total(attributions, shape)), 0)
        count = jnp.broadcast_to(present.sum(axis=1), len(sizes)).astype(sizes.dtype)
        # In units of the largest, so that sums neither overflow nor vanish.
        return sizes / sizes.max(axis=1, keepdims=True), count


@metric
class Sparseness(_OfFeatures):
    """How few features hold the relevance: the Gini index of |a|.

    G = sum_i (2 i - n - 1) v_i / (n sum_i v_i), where v_1 <= ... <= v_n are the sorted |a|.

    Higher is sparser, from 0 (all equal) to 1 - 1/n (one feature has all). It does not depend on the scale.
    Undefined (`nan`) where all attributions are zero.

    Attributes:
      features: what is counted as one; attributions of a feature are summed.

    References:
      Chalasani et al. (2020), https://arxiv.org/abs/1810.06583

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> a = jnp.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, -5.0, 0.0]])
      >>> metrics.Sparseness()(a).tolist()
      [0.0, 0.75]
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    @property
    def higher_is_better(self) -> bool:
        return True

    def _compute(self, attributions: Array) -> Array:
        sizes, count = self._sizes(attributions)
        ordered = jnp.sort(sizes, axis=1)
        # Features that a sample lacks are zeros, which come first.
        rank = jnp.arange(1, sizes.shape[1] + 1, dtype=sizes.dtype)
        rank = rank - (sizes.shape[1] - count[:, None])
        weight = 2 * rank - count[:, None] - 1
        return (weight * ordered).sum(axis=1) / (count * sizes.sum(axis=1))


@metric
class Complexity(_OfFeatures):
    """How evenly relevance is spread: the entropy of |a|.

    H = -sum_i p_i ln p_i,  p_i = |a_i| / sum_k |a_k|.

    Lower is simpler, from 0 (one feature has all) to ln n (all equal), in nats. Do not compare it between
    samples with different numbers of features. Undefined (`nan`) where all attributions are zero.

    Attributes:
      features: what is counted as one; attributions of a feature are summed.

    References:
      Bhatt et al. (2020), https://doi.org/10.24963/ijcai.2020/417

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> a = jnp.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, -5.0, 0.0]])
      >>> [round(h, 3) for h in metrics.Complexity()(a).tolist()]
      [1.386, 0.0]
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    @property
    def higher_is_better(self) -> bool:
        return False

    def _compute(self, attributions: Array) -> Array:
        sizes, _ = self._sizes(attributions)
        p = sizes / sizes.sum(axis=1, keepdims=True)
        return jnp.where(p == 0, 0, -p * jnp.log(jnp.where(p == 0, 1, p))).sum(axis=1)


@metric
class EffectiveComplexity(_OfFeatures):
    """How many features matter: those with |a| > epsilon.

    With `relative`, |a| is divided by the sample's maximum, so the score does not depend on the scale.

    Lower is simpler, from 0 to n; `relative`, from 1. The number depends on `epsilon`. Undefined (`nan`)
    where all attributions are zero.

    Attributes:
      features: what is counted as one; attributions of a feature are summed.
      epsilon: threshold that |a| must exceed, >= 0.
      relative: whether `epsilon` is a share of the sample's largest |a|.

    References:
      Nguyen and Martinez (2020), https://arxiv.org/abs/2007.07584

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> metrics.EffectiveComplexity(epsilon=0.1)(jnp.array([[100.0, 20.0, 5.0]])).tolist()
      [2.0]
    """

    epsilon: float = 1e-5
    relative: bool = True
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    def __post_init__(self) -> None:
        check_at_least("epsilon", self.epsilon, 0.0)

    @property
    def higher_is_better(self) -> bool:
        return False

    def _compute(self, attributions: Array) -> Array:
        shape = attributions.shape
        sizes = jnp.abs(self.features.total(attributions, shape))
        sizes = jnp.where(self.features.present(shape), sizes, 0)
        largest = sizes.max(axis=1)
        limit = self.epsilon * largest if self.relative else self.epsilon
        count = (sizes > jnp.reshape(limit, (-1, 1))).sum(axis=1).astype(sizes.dtype)
        return jnp.where(largest > 0, count, jnp.nan)


@metric
class Coherence(ComplexityMetric):
    r"""How compact the salient positions of a map are (MST-C).

    The salient positions V are those whose |R| is positive and at or above a percentile of the map:

        100 diagonal (1 / sqrt(area of the convex hull of V)) (|V| / length of their minimum spanning tree)

    where lengths are in positions and the diagonal is that of the map. The tree spans all of V. The usual
    approximation, a graph that joins each position with its 20 nearest neighbors, has a tree of the same
    length unless groups lie far apart; then it leaves out the gaps between them.

    Higher is more compact, from 0 upward. Compact does not mean right: a spot beside the object scores as
    well as one on it. Undefined (`nan`) where all salient positions lie on one line, and where all
    attributions are equal.

    It runs on the host, one sample at a time, and not under `jit`. It requires SciPy.

    Attributes:
      axes: the two axes of an example along which positions lie, such as (0, 1) of (height, width,
        channels); attributions along all others are summed.
      percentile: from 0 to 100.

    Raises:
      ImportError: if SciPy is not installed.

    References:
      Mesgari et al. (2026), https://arxiv.org/abs/2603.29491

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> square = jnp.zeros((1, 8, 8, 1)).at[:, 2:4, 2:4].set(1.0)
      >>> corners = jnp.zeros((1, 8, 8, 1)).at[:, ::7, ::7].set(1.0)
      >>> metrics.Coherence()(jnp.concatenate([square, corners])).round().tolist()
      [1508.0, 31.0]
    """

    axes: tuple[int, int] = (0, 1)
    percentile: float = 80.0
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    on_host: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.percentile <= 100:
            raise ValueError(f"percentile must be in [0, 100], got {self.percentile!r}")
        if np.shape(self.axes) != (2,):
            raise ValueError(
                f"axes must be two axes of positions such as (0, 1), got {self.axes!r}"
            )

    @property
    def higher_is_better(self) -> bool:
        return True

    def __call__(self, attributions: Any) -> Array:
        a = given.as_attributions(attributions)
        if is_traced(a):
            raise TypeError(
                "Coherence runs on the host and cannot be compiled: call it outside of jax.jit"
            )
        return self._compute(a)

    def _compute(self, attributions: Array) -> Array:
        kept = axes_of(self.axes, attributions.ndim, "axes")
        others = tuple(i for i in range(1, attributions.ndim) if i not in kept)
        maps = np.abs(np.asarray(attributions).sum(axis=others))
        found = [self._of_map(m if kept[0] < kept[1] else m.T) for m in maps]
        return jnp.asarray(found, attributions.dtype)

    def _of_map(self, sizes: np.ndarray) -> float:
        """The score of one map of |R|, (height, width)."""
        if not np.isfinite(sizes).all() or sizes.max() == sizes.min():
            return float("nan")
        salient = (sizes >= np.percentile(sizes, self.percentile)) & (sizes > 0)
        points = np.argwhere(salient).astype(float)
        spatial = _extras.need("scipy.spatial", "Coherence", "metrics")
        if len(points) < 3 or np.linalg.matrix_rank(points - points[0]) < 2:
            return float("nan")
        area = spatial.ConvexHull(points).volume  # of a polygon, its area
        length = _tree_length(points)
        return float(100 * np.hypot(*sizes.shape) / np.sqrt(area) * len(points) / length)


def _tree_length(points: np.ndarray) -> float:
    """The length of the minimum spanning tree of different points of a plane, (m, 2), not on one line."""
    sparse = _extras.need("scipy.sparse", "Coherence", "metrics")
    graphs = _extras.need("scipy.sparse.csgraph", "Coherence", "metrics")
    spatial = _extras.need("scipy.spatial", "Coherence", "metrics")
    # The tree is part of the Delaunay triangulation.
    corners = spatial.Delaunay(points).simplices
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [0, 2]]])
    start, end = np.unique(np.sort(edges, axis=1), axis=0).T
    length = np.linalg.norm(points[start] - points[end], axis=1)
    graph = sparse.csr_array((length, (start, end)), shape=(len(points), len(points)))
    return float(graphs.minimum_spanning_tree(graph).sum())
