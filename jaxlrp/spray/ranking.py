r"""Which classes and clusters are worth a look: candidates for a Clever Hans.

A cluster that is cut off from the rest of its class is explained in another way than the rest. How clear
the cut is, is told by Fisher's criterion of the cluster (c) against the rest (r) of its class,

    F = max_w (w^T S_b w) / (w^T S_w w) = p (1 - p) (m_c - m_r)^T S_w^-1 (m_c - m_r),

with the share p of the cluster, the means m, and the pooled covariance S_w within the two. It is computed
in the columns of the spectral embedding that were clustered, and without the bias of small samples: in
as many columns as there are samples every cut is perfect.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxlrp.errors import near
from jaxlrp.spray.analysis import Analysis, used_columns
from jaxlrp.spray.preprocess import Step, l1_normalize, length, prepared

_RIDGE = 1e-6  # in units of the mean variance, added to that within
_PERFECT = 1000.0


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A cluster of a class.

    Attributes:
      category: the class.
      cluster: its number in the clustering.
      fisher: Fisher's criterion of the cluster against the rest of its class, without its bias, in
        [0, 1000]; zero where there is no rest. 1000 and more is as good as perfect.
      share: of the samples of the class, in (0, 1].
      rows: (size,) rows of the data set, the most typical first: nearest to the mean of the cluster.
      purity: the share of the commonest label in the cluster, in (0, 1]; None where `rank` got no labels.
      mean: the mean of the prepared relevances; None where `rank` got no relevance.
    """

    category: int
    cluster: int
    fisher: float
    share: float
    rows: np.ndarray
    purity: float | None = None
    mean: np.ndarray | None = None

    @property
    def size(self) -> int:
        """How many samples."""
        return len(self.rows)


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """All clusters, the one that most deserves a look first. Prints as a table.

    Attributes:
      candidates: the clusters.
      embedding, clustering: the names of what was ranked.
    """

    candidates: tuple[Candidate, ...]
    embedding: str
    clustering: str

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes, in the order of their first candidate."""
        return tuple(dict.fromkeys(found.category for found in self.candidates))

    def of(self, category: int) -> tuple[Candidate, ...]:
        """The clusters of one class, in their order."""
        return tuple(found for found in self.candidates if found.category == category)

    def __str__(self) -> str:
        lines = [
            f"{'rank':>4} {'class':>6} {'cluster':>7} {'Fisher':>8} {'size':>7} {'share':>6} {'purity':>6}"
        ]
        for i, c in enumerate(self.candidates, start=1):
            purity = "" if c.purity is None else f"{c.purity:.3f}"
            lines.append(
                f"{i:4} {c.category:6} {c.cluster:7} {c.fisher:8.4g} {c.size:7} {c.share:6.3f} {purity:>6}"
            )
        return "\n".join(lines)


def fisher_score(points: ArrayLike, inside: ArrayLike, *, unbiased: bool = False) -> float:
    r"""Fisher's criterion of some points against the others: how clearly a plane can part them.

    F = p (1 - p) (m_1 - m_0)^T S_w^-1 (m_1 - m_0), the variance between the two groups over that within
    them, along the direction where this is largest. To S_w is added 1e-6 of the mean variance.

    Few points are parted by some direction always: without any difference F is d / (n - d - 3) on average,
    in d dimensions. ``unbiased=True`` gives what is expected of many points,

    F' = ((n - d - 3) F - d) / n,

    the unbiased estimate for two normal distributions of one covariance.

    Args:
      points: (n, d) floats. The d of F' is the number of dimensions that they fill.
      inside: (n,) booleans.
      unbiased: whether F' is returned.

    Returns:
      F or F' in [0, 1000]; larger values are returned as 1000, negative ones as 0. Zero if all points are
      on one side, or if all are equal. It does not change with the scale of the points.

    Raises:
      ValueError: if a shape does not fit.

    References:
      Fisher (1936), https://doi.org/10.1111/j.1469-1809.1936.tb02137.x
      Lachenbruch and Mickey (1968), Technometrics 10(1), 1-11 (the bias)
      Anders et al. (2022), https://doi.org/10.1016/j.inffus.2021.07.015

    Example:
      >>> round(fisher_score([[-1.0], [1.0], [9.0], [11.0]], [False, False, True, True]), 3)
      24.999
    """
    x, inside = np.asarray(points, np.float64), np.asarray(inside)
    if x.ndim != 2 or inside.shape != x.shape[:1] or inside.dtype != bool:
        raise ValueError(
            f"points must have shape (n, d) and inside (n,) booleans, got {x.shape} and "
            f"{inside.dtype} of {inside.shape}"
        )
    p = inside.mean() if len(x) else 0.0
    variance = x.var(axis=0).mean() if x.size else 0.0
    if p in (0.0, 1.0) or not variance > 0:
        return 0.0
    means = [x[~inside].mean(axis=0), x[inside].mean(axis=0)]
    within = x - np.where(inside[:, None], means[1], means[0])
    s_w = within.T @ within / len(x) + _RIDGE * variance * np.eye(x.shape[1])
    apart = means[1] - means[0]
    score = float(p * (1 - p) * apart @ np.linalg.solve(s_w, apart))
    if unbiased:
        d = int(np.linalg.matrix_rank(np.cov(x.T, bias=True), hermitian=True))
        score = ((len(x) - d - 3) * score - d) / len(x)
    return min(max(score, 0.0), _PERFECT)


def rank(
    analyses: Sequence[Analysis],
    relevance: Any = None,
    prepare: Step = l1_normalize,
    *,
    labels: Any = None,
    embedding: str = "spectral",
    clustering: str = "kmeans",
    least_share: float = 0.01,
    batch: int = 256,
) -> Ranking:
    """Ranks the clusters of all classes by how clearly they are cut off.

    First by Fisher's criterion, in the columns that were clustered, the others being noise to these
    clusters, and without its bias (see `fisher_score`), so that classes of all sizes compare. Of those that
    are equal, as perfect ones are, by the smaller side of the cut, the largest first; of the two sides of
    one cut, the smaller first. A cut that parts less than `least_share` of a class from it comes behind all
    others: a few odd samples, and a class that is whole. Noise is no cluster, but belongs to the rest.

    A clear cut is no proof: it may be a Clever Hans, or two honest ways to be that class. Look at the mean
    relevances and at the samples.

    Args:
      analyses: of `analyze`.
      relevance: as in `analyze`, for the mean relevance of each cluster; None for no means.
      prepare: from a batch of it to a batch, before the mean; it need not be that of `analyze`.
      labels: (N,) of the data set, for the purity of each cluster: what the samples are, if the classes
        are predictions; predictions or sources, if not. None for no purity.
      embedding: where the criterion is computed: in all columns, or, if it is what was clustered, in
        those that were.
      clustering: which clusters.
      least_share: in [0, 1].
      batch: samples at a time, >= 1.

    Returns:
      `Ranking`.

    Raises:
      TypeError, ValueError: if an argument does not fit.

    Example:
      >>> import jax
      >>> from jaxlrp.spray import analyze
      >>> maps = np.repeat(np.eye(4)[:2], [12, 24], axis=0)
      >>> maps = maps + 0.1 * np.random.default_rng(0).uniform(size=(36, 4))
      >>> ranking = rank(analyze(maps, np.zeros(36, int), key=jax.random.key(0)), maps)
      >>> ranking.candidates[0].size, ranking.candidates[0].mean.argmax().item()
      (12, 0)
    """
    analyses = tuple(analyses)
    if not analyses:
        raise ValueError("analyses must hold at least one analysis, got none")
    if not 0.0 <= least_share <= 1.0:
        raise ValueError(f"least_share must be in [0, 1], got {least_share}")
    found = [c for a in analyses for c in _of_class(a, embedding, clustering)]
    if labels is not None:
        found = [dataclasses.replace(c, purity=_purity(labels, c.rows)) for c in found]
    if relevance is not None:
        means = cluster_means(relevance, [c.rows for c in found], prepare, batch)
        found = [dataclasses.replace(c, mean=mean) for c, mean in zip(found, means, strict=True)]
    found.sort(key=lambda c: _order(c, least_share))
    return Ranking(tuple(found), embedding, clustering)


def _of_class(analysis: Analysis, embedding: str, clustering: str) -> list[Candidate]:
    for what, name, known in (
        ("embedding", embedding, analysis.embeddings),
        ("clustering", clustering, analysis.clusterings),
    ):
        if name not in known:
            raise ValueError(
                f"{what} must be one of class {analysis.category}, got {name!r}: {near(name, known)}"
            )
    points, made = analysis.embeddings[embedding].values, analysis.clusterings[clustering]
    labels, used = made.labels, points
    if made.of == embedding:
        used = points[:, : used_columns(made, analysis.embeddings[embedding])]
    found = []
    for cluster in np.unique(labels[labels >= 0]).tolist():
        inside = labels == cluster
        distance = ((points[inside] - points[inside].mean(axis=0)) ** 2).sum(axis=1)
        rows = analysis.index[inside][np.argsort(distance, kind="stable")]
        score = fisher_score(used, inside, unbiased=True)
        found.append(Candidate(analysis.category, cluster, score, inside.mean().item(), rows))
    return found


def _order(c: Candidate, least_share: float) -> tuple[float, ...]:
    # Rounded, so that the two sides of one cut are equal.
    score, side = float(f"{c.fisher:.6g}"), round(min(c.share, 1 - c.share), 9)
    return (side < least_share, -score, -side, c.share, c.category, c.cluster)


def _purity(labels: Any, rows: np.ndarray) -> float:
    labels = np.asarray(labels)
    if labels.ndim != 1 or rows.max() >= len(labels):
        raise ValueError(
            "labels must have one entry for each sample of the data set, of which row "
            f"{rows.max()} was analyzed, got shape {labels.shape}"
        )
    return float(np.unique(labels[rows], return_counts=True)[1].max() / len(rows))


def cluster_means(
    relevance: Any, groups: list[np.ndarray], prepare: Step, batch: int
) -> list[np.ndarray | None]:
    """The mean prepared relevance of each group of rows, read once."""
    sums: list[Any] = [0.0] * len(groups)
    wanted = np.unique(np.concatenate(groups))
    if wanted[-1] >= length(relevance):
        raise ValueError(
            f"relevance must be that of the data set, of which row {wanted[-1]} was analyzed, got "
            f"{length(relevance)} samples"
        )
    ordered = [np.sort(rows) for rows in groups]
    for where, values in prepared(relevance, prepare, wanted, batch):
        rows = wanted[where]  # ascending, as `wanted` is
        for i, group in enumerate(ordered):
            here = group[slice(*np.searchsorted(group, [rows[0], rows[-1] + 1]))]
            if here.size:
                sums[i] = sums[i] + values[np.searchsorted(rows, here)].sum(
                    axis=0, dtype=np.float64
                )
    return [total / len(rows) for total, rows in zip(sums, groups, strict=True)]
