"""Groups of people with similar causes: clusters of risk contributions."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.causes.exposures import Exposures, as_exposures
from jaxlrp.causes.network import RiskNetwork


class Merge(NamedTuple):
    """Two clusters that become one: their numbers, the distance, and the persons of both."""

    first: int
    second: int
    distance: float
    count: float


def ward(distances: np.ndarray, counts: np.ndarray) -> list[Merge]:
    """Ward's clustering of points that stand for several persons each.

    It merges as a clustering of all persons would, once those at the same point are together. The two of
    clusters with the smallest 2 n_i n_j / (n_i + n_j) d(i, j) are merged, and (Lance and Williams)

    d(k, ij) = ((n_i + n_k) d(k, i) + (n_j + n_k) d(k, j) - n_k d(i, j)) / (n_i + n_j + n_k)

    Args:
      distances: (P, P), in place of squared Euclidean ones.
      counts: persons at each point, (P,).

    Returns:
      P - 1 merges; the cluster that the m-th makes has the number P + m.
    """
    size = np.asarray(counts, float)
    d = np.asarray(distances, float) * 2 * np.outer(size, size) / np.add.outer(size, size)
    np.fill_diagonal(d, np.inf)
    numbers, found = list(range(len(size))), []
    while len(size) > 1:
        i, j = sorted(np.unravel_index(d.argmin(), d.shape))
        total = size + size[i] + size[j]
        merged = ((size[i] + size) * d[i] + (size[j] + size) * d[j] - size * d[i, j]) / total
        found.append(Merge(numbers[i], numbers[j], float(d[i, j]), float(size[i] + size[j])))
        d[i], d[:, i], d[i, i] = merged, merged, np.inf
        size[i] += size[j]
        numbers[i] = len(counts) + len(found) - 1
        keep = np.arange(len(size)) != j
        d, size = d[keep][:, keep], size[keep]
        numbers.pop(j)
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """People with similar causes.

    Attributes:
      prevalence: their share of all.
      risk: their mean risk by the network.
      observed: their share of outcomes; NaN without outcomes.
      excess: their share of all risk, beyond the baseline: prevalence (risk - R_b) / mean risk.
      contributions: mean of each exposure, (D,), and `spread`, the standard deviation.
      spread: (D,).
      alone: the mean of what each exposure would add alone, (D,).
      synergy: the mean of what exposures add only together.
      exposed: the share who have each exposure, (D,).
      names: of exposures.
    """

    prevalence: float
    risk: float
    observed: float
    excess: float
    contributions: np.ndarray
    spread: np.ndarray
    alone: np.ndarray
    synergy: float
    exposed: np.ndarray
    names: tuple[str, ...]

    def __repr__(self) -> str:
        order = np.argsort(-self.contributions)
        parts = [f"{self.names[i]} {self.contributions[i]:+.3f}" for i in order[:4]]
        return (
            f"Group({self.prevalence:.1%} of people, risk {self.risk:.3f}, synergy {self.synergy:.3f}: "
            f"{', '.join(parts)})"
        )


class Groups(NamedTuple):
    """All groups.

    Attributes:
      labels: the group of each person, (N,); 0 has the largest risk.
      groups: one for each label.
      merges: of all combinations of exposures, for a dendrogram.
    """

    labels: np.ndarray
    groups: tuple[Group, ...]
    merges: tuple[Merge, ...]


def groups(
    network: RiskNetwork,
    exposures: Exposures | ArrayLike,
    count: int,
    outcomes: ArrayLike | None = None,
) -> Groups:
    """People grouped by the causes of their risk.

    Clusters of the contributions of exposures, without the baseline, by Manhattan distance and Ward's
    criterion, each combination of exposures weighted by the number of people who have it; ordered by risk.

    Args:
      network: from `fit`.
      exposures: as for `fit`.
      count: how many groups; look at the distances of `merges` to choose.
      outcomes: 0 or 1, (N,), for the observed risk.

    Returns:
      `Groups`.

    Raises:
      ValueError: if exposures are not one-hot, there are fewer combinations of exposures than groups, or
        outcomes do not fit.

    References:
      Rieckmann et al. (2022), https://doi.org/10.1093/ije/dyac078

    Example:
      >>> import numpy as np
      >>> from jaxlrp import causes
      >>> drug, sex = np.arange(400) % 2, np.arange(400) // 2 % 2
      >>> y = (drug * sex == 1) & (np.arange(400) % 5 > 0)
      >>> exposures = causes.one_hot({"drug": drug, "sex": sex})
      >>> found = causes.groups(causes.fit(exposures, y, l1=1e-4, rate=3e-3, steps=2000), exposures, 2, y)
      >>> [round(g.prevalence, 2) for g in found.groups], found.groups[0].observed
      ([0.25, 0.75], 0.8)
    """
    held = as_exposures(exposures, network.factors)
    y = None if outcomes is None else np.asarray(outcomes, float)
    if y is not None and y.shape != (len(held.values),):
        raise ValueError(
            f"outcomes must have shape ({len(held.values)},), one for each person, got {y.shape}"
        )
    rows, which, counts = np.unique(held.values, axis=0, return_inverse=True, return_counts=True)
    if check_count("count", count) > len(rows):
        raise ValueError(
            f"count must be at most {len(rows)}, the number of combinations of exposures, got {count}"
        )
    r = np.asarray(network.contributions(rows), float)
    merges = ward(np.abs(r[:, None] - r).sum(-1), counts)
    label, risk = _cut(merges, len(rows), count), np.asarray(network(rows), float)
    mean = [np.average(risk[label == k], weights=counts[label == k]) for k in range(count)]
    label = np.argsort(np.argsort(-np.array(mean), kind="stable"))[label]
    labels = label[which.ravel()]
    share = counts / counts.sum()
    made = []
    for k in range(count):
        inside, weights = label == k, counts[label == k]
        own = np.average(r[inside], axis=0, weights=weights)
        prevalence = float(share[inside].sum())
        of_risk = float(np.average(risk[inside], weights=weights))
        made.append(Group(
            prevalence, of_risk,
            float("nan") if y is None else float(y[labels == k].mean()),
            float(prevalence * (of_risk - float(network.baseline)) / (share * risk).sum()),
            own,
            np.sqrt(np.average((r[inside] - own) ** 2, axis=0, weights=weights)),
            np.average(np.asarray(network.alone(rows))[inside], axis=0, weights=weights),
            float(np.average(np.asarray(network.synergy(rows))[inside], weights=weights)),
            np.average(rows[inside], axis=0, weights=weights),
            held.names,
        ))  # fmt: skip
    return Groups(labels, tuple(made), tuple(merges))


def _cut(merges: list[Merge], points: int, count: int) -> np.ndarray:
    """The cluster of each point, (points,), when `count` clusters are left."""
    members: dict[int, list[int]] = {i: [i] for i in range(points)}
    for m, merge in enumerate(merges[: points - count]):
        members[points + m] = members.pop(merge.first) + members.pop(merge.second)
    label = np.zeros(points, int)
    for k, inside in enumerate(members.values()):
        label[inside] = k
    return label
