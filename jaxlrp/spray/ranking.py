r"""Ranks classes and clusters by how likely they are to show a Clever Hans.

A cluster that is separated from the rest of its class is explained differently from the rest. Fisher's
criterion of the cluster (c) against the rest (r) of its class measures how clear the split is,

    F = max_w (w^T S_b w) / (w^T S_w w) = p (1 - p) (m_c - m_r)^T S_w^-1 (m_c - m_r),

where p is the share of the cluster, m are the means, and S_w is the pooled covariance within the two
groups. It is computed in the columns of the spectral embedding that were clustered, and corrected for
small-sample bias: with as many columns as samples, every split is perfect.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxlrp._checks import check_sequence
from jaxlrp._described import described
from jaxlrp.errors import near
from jaxlrp.spray.analysis import Analysis, used_columns
from jaxlrp.spray.features import length, preprocessed
from jaxlrp.spray.preprocess import Step, l1_normalize

_RIDGE = 1e-6  # in units of the mean variance, added to the variance within groups
_PERFECT = 1000.0


@described
@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A cluster of a class.

    Attributes:
      category: the class.
      cluster: its number in the clustering.
      fisher: Fisher's criterion of the cluster against the rest of its class, corrected for bias, in
        [0, 1000]; zero if there is no rest. 1000 is practically perfect separation.
      share: share of the samples of the class, in (0, 1].
      rows: (size,) rows of the data set, most typical first (nearest to the mean of the cluster).
      purity: share of the most frequent label in the cluster, in (0, 1]; None if `rank` got no labels.
      mean: mean of the preprocessed relevance; None if `rank` got no relevance.
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
        """The number of samples."""
        return len(self.rows)


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """All clusters, those most worth a look first. Prints as a table.

    Attributes:
      candidates: the clusters.
      embedding, clustering: names of the ranked embedding and clustering.
    """

    candidates: tuple[Candidate, ...]
    embedding: str
    clustering: str

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes, in the order of their first candidate."""
        return tuple(dict.fromkeys(found.category for found in self.candidates))

    def of_class(self, category: int) -> tuple[Candidate, ...]:
        """The clusters of one class, in the order of the ranking."""
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
    r"""Fisher's criterion of two groups of points: how clearly a plane separates them.

    F = p (1 - p) (m_1 - m_0)^T S_w^-1 (m_1 - m_0), the variance between the two groups divided by the
    variance within them, along the direction where this ratio is largest. 1e-6 of the mean variance is
    added to S_w.

    Some direction always separates a few points: if the groups do not differ, F is d / (n - d - 3) on
    average, in d dimensions. ``unbiased=True`` returns the expected value for many points,

    F' = ((n - d - 3) F - d) / n,

    which is the unbiased estimate for two normal distributions with the same covariance.

    Args:
      points: (n, d) floats. The d in F' is the rank of the points.
      inside: (n,) booleans, the first group.
      unbiased: whether to return F'.

    Returns:
      F or F', clipped to [0, 1000]. Zero if all points are in one group, or if all are equal. It does not
      depend on the scale of the points.

    Raises:
      ValueError: if a shape is wrong.

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
    preprocess: Step = l1_normalize,
    *,
    labels: Any = None,
    embedding: str = "spectral",
    clustering: str = "kmeans",
    min_share: float = 0.01,
    batch_size: int = 256,
) -> Ranking:
    """Ranks the clusters of all classes by how clearly they are separated.

    Clusters are sorted by Fisher's criterion. It uses only the columns that were clustered, because the
    others are noise for these clusters, and corrects for small-sample bias (see `fisher_score`), so that
    classes of different sizes are comparable. Ties, for example perfect splits, are sorted by the smaller
    side of the split, largest first; of the two sides of one split, the smaller one comes first. Splits
    that separate less than `min_share` of a class, and classes with a single cluster, come last. Noise is
    not a cluster but belongs to the rest.

    A clear split is not proof: it may be a Clever Hans, or two legitimate ways to recognize the class. Look
    at the mean relevance and at the samples.

    Args:
      analyses: returned by `analyze`.
      relevance: as in `analyze`, for the mean relevance of each cluster; None for no means.
      preprocess: function of a batch that is applied before the mean; it may differ from that of `analyze`.
      labels: (N,) labels of the data set, for the purity of each cluster. If the classes are predictions,
        use the true classes; otherwise predictions or the sources of the samples. None for no purity.
      embedding: where the criterion is computed: in the clustered columns if this embedding was clustered,
        otherwise in all columns.
      clustering: the clustering to rank.
      min_share: in [0, 1].
      batch_size: samples per batch, >= 1.

    Returns:
      `Ranking`.

    Raises:
      TypeError, ValueError: if an argument is invalid.

    Example:
      >>> import jax
      >>> from jaxlrp.spray import analyze
      >>> maps = np.repeat(np.eye(4)[:2], [12, 24], axis=0)
      >>> maps = maps + 0.1 * np.random.default_rng(0).uniform(size=(36, 4))
      >>> ranking = rank(analyze(maps, np.zeros(36, int), key=jax.random.key(0)), maps)
      >>> ranking.candidates[0].size, ranking.candidates[0].mean.argmax().item()
      (12, 0)
    """
    check_sequence("analyses", analyses, "the result of analyze(...)")
    analyses = tuple(analyses)
    if not analyses:
        raise ValueError("analyses must contain at least one Analysis, got none")
    if not 0.0 <= min_share <= 1.0:
        raise ValueError(f"min_share must be in [0, 1], got {min_share}")
    found = [c for a in analyses for c in _of_class(a, embedding, clustering)]
    if labels is not None:
        found = [dataclasses.replace(c, purity=_purity(labels, c.rows)) for c in found]
    if relevance is not None:
        means = cluster_means(relevance, [c.rows for c in found], preprocess, batch_size)
        found = [dataclasses.replace(c, mean=mean) for c, mean in zip(found, means, strict=True)]
    found.sort(key=lambda c: _order(c, min_share))
    return Ranking(tuple(found), embedding, clustering)


def _of_class(analysis: Analysis, embedding: str, clustering: str) -> list[Candidate]:
    for what, name, known in (
        ("embedding", embedding, analysis.embeddings),
        ("clustering", clustering, analysis.clusterings),
    ):
        if name not in known:
            raise ValueError(
                f"{what} must exist for class {analysis.category}, got {name!r}: {near(name, known)}"
            )
    points, made = analysis.embeddings[embedding].values, analysis.clusterings[clustering]
    labels, used = made.labels, points
    if made.base == embedding:
        used = points[:, : used_columns(made, analysis.embeddings[embedding])]
    found = []
    for cluster in np.unique(labels[labels >= 0]).tolist():
        inside = labels == cluster
        distance = ((points[inside] - points[inside].mean(axis=0)) ** 2).sum(axis=1)
        rows = analysis.index[inside][np.argsort(distance, kind="stable")]
        score = fisher_score(used, inside, unbiased=True)
        found.append(Candidate(analysis.category, cluster, score, inside.mean().item(), rows))
    return found


def _order(c: Candidate, min_share: float) -> tuple[float, ...]:
    # Rounded, so that both sides of a split are equal.
    score, side = float(f"{c.fisher:.6g}"), round(min(c.share, 1 - c.share), 9)
    return (side < min_share, -score, -side, c.share, c.category, c.cluster)


def _purity(labels: Any, rows: np.ndarray) -> float:
    labels = np.asarray(labels)
    if labels.ndim != 1 or rows.max() >= len(labels):
        raise ValueError(
            f"labels must have one entry for each sample of the data set (row {rows.max()} was analyzed), "
            f"got shape {labels.shape}"
        )
    return float(np.unique(labels[rows], return_counts=True)[1].max() / len(rows))


def cluster_means(
    relevance: Any, groups: list[np.ndarray], preprocess: Step, batch_size: int
) -> list[np.ndarray | None]:
    """The mean preprocessed relevance of each group of rows, read once."""
    sums: list[Any] = [0.0] * len(groups)
    wanted = np.unique(np.concatenate(groups))
    if wanted[-1] >= length(relevance):
        raise ValueError(
            f"relevance must contain the whole data set (row {wanted[-1]} was analyzed), got "
            f"{length(relevance)} samples"
        )
    ordered = [np.sort(rows) for rows in groups]
    for where, values in preprocessed(relevance, preprocess, wanted, batch_size):
        rows = wanted[where]  # ascending, as `wanted` is
        for i, group in enumerate(ordered):
            here = group[slice(*np.searchsorted(group, [rows[0], rows[-1] + 1]))]
            if here.size:
                sums[i] = sums[i] + values[np.searchsorted(rows, here)].sum(
                    axis=0, dtype=np.float64
                )
    return [total / len(rows) for total, rows in zip(sums, groups, strict=True)]
