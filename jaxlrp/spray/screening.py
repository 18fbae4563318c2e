"""Screens a data set for groups of samples that are explained in a surprising way, in several domains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax import Array

from jaxlrp._checks import check_count
from jaxlrp.spray import extras, seeds
from jaxlrp.spray.analysis import Analysis
from jaxlrp.spray.analyze import Settings, analyze_points, members
from jaxlrp.spray.domains import Domain, Raw, default_domains
from jaxlrp.spray.effects import Effect, effect
from jaxlrp.spray.null import surprise
from jaxlrp.spray.preprocess import features
from jaxlrp.spray.ranking import Candidate, Ranking, rank
from jaxlrp.spray.views import PCA

_SHOWN = 40  # lines of a table


@dataclasses.dataclass(frozen=True, eq=False)
class Finding:
    """The clearest cut of a class in a domain, and what it is worth.

    Attributes:
      domain: where it was found.
      candidate: the smaller side of the cut, with its class, score and rows.
      t: how far log F is above that of other classes, in their standard deviations; see `surprise`. NaN
        where there are too few to compare with.
      p_value: corrected, in [0, 1]: the probability that any class in any domain would score like this
        by chance (Bonferroni). NaN as t is.
      effect: on predictions; None where `screen` got no outputs.
    """

    domain: str
    candidate: Candidate
    t: float
    p_value: float
    effect: Effect | None = None

    @property
    def category(self) -> int:
        """The class."""
        return self.candidate.category

    @property
    def fisher(self) -> float:
        """The score, in [0, 1000]; see `fisher_score`."""
        return self.candidate.fisher

    @property
    def rows(self) -> np.ndarray:
        """(size,) rows of the data set, the most typical first."""
        return self.candidate.rows


@dataclasses.dataclass(frozen=True, eq=False)
class Screening:
    """What `screen` found, the most surprising first. Prints as a table.

    Attributes:
      findings: one for each class and domain in which the class has a cut.
      analyses: of each domain, of all classes.
      rankings: of each domain, all clusters.
      alpha: the probability of a false alarm that is accepted, for the whole screening.
    """

    findings: tuple[Finding, ...]
    analyses: Mapping[str, tuple[Analysis, ...]]
    rankings: Mapping[str, Ranking]
    alpha: float

    @property
    def surprising(self) -> tuple[Finding, ...]:
        """The findings with a corrected p-value of at most `alpha`."""
        return tuple(f for f in self.findings if f.p_value <= self.alpha)

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes, in the order of their first finding."""
        return tuple(dict.fromkeys(f.category for f in self.findings))

    def of(self, category: int) -> tuple[Finding, ...]:
        """The findings of one class, in their order: one for each domain at most."""
        return tuple(f for f in self.findings if f.category == category)

    def __str__(self) -> str:
        lines = [
            f"{'rank':>4} {'class':>6} {'domain':<10} {'Fisher':>8} {'t':>6} {'p':>8} {'size':>7} "
            f"{'share':>6}  effect"
        ]
        for i, f in enumerate(self.findings[:_SHOWN], start=1):
            told = "" if f.effect is None else str(f.effect)
            mark = "*" if f.p_value <= self.alpha else " "
            lines.append(
                f"{i:4} {f.category:6} {f.domain:<10} {f.fisher:8.4g} {f.t:6.1f} {f.p_value:8.2g}{mark}"
                f"{f.candidate.size:7} {f.candidate.share:6.3f}  {told}"
            )
        if len(self.findings) > _SHOWN:
            lines.append(f"... and {len(self.findings) - _SHOWN} less surprising ones")
        lines.append(f"{len(self.surprising)} surprising (*): corrected p <= {self.alpha:g}")
        return "\n".join(line.rstrip() for line in lines)


def screen(
    relevance: Any,
    labels: Any,
    *,
    key: Array,
    inputs: Any = None,
    outputs: Any = None,
    changed: Callable[[Candidate], Any] | None = None,
    domains: Mapping[str, Domain] | None = None,
    stored: Mapping[str, Any] | None = None,
    controls: Sequence[Screening] = (),
    alpha: float = 0.01,
    max_samples: int = 5000,
    settings: Settings | None = None,
    classes: Sequence[int] | None = None,
    rows: Any = None,
    min_share: float = 0.01,
    batch: int = 256,
) -> Screening:
    """Looks for groups of samples that are explained in a surprising way, in several domains.

    In each domain each class is analyzed as by `analyze`, and its clearest cut is scored as by `rank`. The
    score is compared with those of the other classes in the same domain, or with `controls`: see
    `surprise`. The p-values are multiplied by the number of classes and domains tested (Bonferroni). A
    domain with an attribute `components` is reduced to as many principal components of each class.

    The other classes are a null distribution if most of them are honest. A pattern in most classes
    makes no class stand out; for that, screen data that are known to be clean, and give the result
    as `controls`. With fewer than five classes and no controls there are no p-values, and the order is
    that of the scores.

    Args:
      relevance: (N, ...), as in `analyze`. Read once for each domain.
      labels: (N,) or (N, classes), as in `analyze`.
      key: a `jax.random.key`: the same key gives the same result.
      inputs: (N, ...) of the same shape and order, what the network got; for the domains "frequency",
        "fine" and "log". None for the domains that do not need it.
      outputs: (N, classes) of the network, for the effect on predictions; None for no effects.
      changed: for each surprising finding called with its `Candidate`; returns (size, classes), the outputs
        for `candidate.rows` after the pattern that you suspect was removed. Needs `outputs`.
      domains: by name; None for those of `default_domains`.
      stored: further domains by name: relevance (N, ...) of the same samples that was computed in them,
        such as that of `jaxlrp.inspection.inspect`; read as `Raw` reads it.
      controls: screenings of data in which nothing is suspected, with the same domains and settings.
      alpha: probability of one false alarm or more in the whole screening, in (0, 1), if log F is normal.
      max_samples: of a class; of a larger one so many are drawn at random, which bounds the time.
      settings: as in `analyze`; None for its defaults with principal components as the only view. The
        clustering that comes first is ranked.
      classes, rows, batch: as in `analyze`.
      min_share: as `least_share` of `rank`: a cut that parts less of a class is no finding.

    Returns:
      `Screening`.

    Raises:
      ImportError: if scikit-learn is not installed.
      TypeError, ValueError: if an argument does not fit.

    References:
      Lapuschkin et al. (2019), https://doi.org/10.1038/s41467-019-08987-4
      Vielhaben et al. (2024), https://doi.org/10.1016/j.patcog.2024.110309

    Example:
      >>> import jax
      >>> rng = np.random.default_rng(0)
      >>> maps = 1 + 0.1 * rng.normal(size=(240, 8, 8))
      >>> maps[:10, :2, :2] += 2  # a mark in a quarter of class 0
      >>> found = screen(maps, np.repeat(np.arange(6), 40), key=jax.random.key(0))
      >>> found.surprising[0].category, sorted(found.surprising[0].rows.tolist()) == list(range(10))
      (0, True)
    """
    settings = Settings(views={"pca": PCA()}) if settings is None else settings
    _check(key, alpha, outputs, changed, relevance)
    check_count("max_samples", max_samples)
    extras.scikit_learn("cluster")
    sampled = {
        c: _drawn(index, max_samples, seeds.named(key, f"samples of {c}"))
        for c, index in members(labels, relevance, classes, rows).items()
    }
    sources = _sources(relevance, inputs, domains, stored)
    first = next(iter(settings.clusterings))
    analyses = {
        name: _analyzed(source, sampled, seeds.named(key, name), settings, batch)
        for name, source in sources.items()
    }
    rankings = {
        name: rank(found, clustering=first, least_share=min_share)
        for name, found in analyses.items()
    }
    findings = _findings(rankings, controls, min_share)
    if outputs is not None:
        findings = [_with_effect(f, outputs, sampled, changed, alpha) for f in findings]
    return Screening(tuple(findings), analyses, rankings, alpha)


@dataclasses.dataclass(frozen=True)
class _Source:
    """What is read of a domain: relevance, the inputs with it or None, and how points are made of them."""

    relevance: Any
    inputs: Any
    domain: Domain

    def points(self, rows: np.ndarray, batch: int) -> np.ndarray:
        if self.inputs is None:
            return features(self.relevance, lambda r: self.domain(r, None), rows=rows, batch=batch)
        return features(self.relevance, self.domain, inputs=self.inputs, rows=rows, batch=batch)


def _check(key: Array, alpha: float, outputs: Any, changed: Any, relevance: Any) -> None:
    seeds.check_key(key)
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    if changed is not None and outputs is None:
        raise ValueError("changed needs outputs=, the outputs before the pattern was removed")
    if outputs is not None and (np.ndim(outputs) != 2 or len(outputs) != relevance.shape[0]):
        raise ValueError(
            f"outputs must have shape ({relevance.shape[0]}, classes), got {np.shape(outputs)}"
        )


def _sources(relevance: Any, inputs: Any, domains: Any, stored: Any) -> dict[str, _Source]:
    domains = default_domains(inputs=inputs is not None) if domains is None else domains
    found = {name: _Source(relevance, inputs, domain) for name, domain in domains.items()}
    for name, values in (stored or {}).items():
        if name in found:
            raise ValueError(f"stored[{name!r}] has the name of one of domains: {list(domains)}")
        if len(values) != relevance.shape[0]:
            raise ValueError(
                f"stored[{name!r}] must have the {relevance.shape[0]} samples of relevance, got "
                f"{len(values)}"
            )
        found[name] = _Source(values, None, Raw())
    if not found:
        raise ValueError("domains must hold at least one domain, got none")
    return found


def _drawn(index: np.ndarray, most: int, key: Array) -> np.ndarray:
    """At most so many of the rows, ascending."""
    if len(index) <= most:
        return index
    return np.sort(seeds.generator(key).choice(index, most, replace=False))


def _analyzed(
    source: _Source, sampled: Mapping[int, np.ndarray], key: Array, settings: Settings, batch: int
) -> tuple[Analysis, ...]:
    wanted = np.unique(np.concatenate(list(sampled.values())))
    points = source.points(wanted, batch)
    kept = getattr(source.domain, "components", None)
    found = []
    for c, index in sampled.items():
        of_class = points[np.searchsorted(wanted, index)]
        of_class = _leading(of_class, kept, seeds.named(key, f"components of {c}"))
        named = seeds.named(key, f"class {c}")
        found.append(analyze_points(of_class, c, index, key=named, settings=settings))
    return tuple(found)


def _leading(points: np.ndarray, components: int | None, key: Array) -> np.ndarray:
    """The principal components of the points of a class, all that there are if they are few."""
    if components is None or components >= min(points.shape):
        return points
    return PCA(dimensions=components)(points, key).astype(points.dtype)


def _findings(
    rankings: Mapping[str, Ranking], controls: Sequence[Screening], min_share: float
) -> list[Finding]:
    """One for each class and domain with a cut, the most surprising first."""
    best = {name: _cuts(ranking, min_share) for name, ranking in rankings.items()}
    tests = sum(len(cuts) for cuts in best.values())
    found = []
    for name, cuts in best.items():
        null = _null(name, controls)
        t, p = surprise([c.fisher for c in cuts], null)
        p = np.minimum(p * tests, 1.0)
        found += [Finding(name, *pair) for pair in zip(cuts, t.tolist(), p.tolist(), strict=True)]
    return sorted(found, key=_order)


def _order(f: Finding) -> tuple[float, ...]:
    unknown = np.isnan(f.p_value)
    return (unknown, 0.0 if unknown else f.p_value, 0.0 if unknown else -f.t, -f.fisher)


def _cuts(ranking: Ranking, min_share: float) -> list[Candidate]:
    """The clearest cut of each class, if it parts enough."""
    firsts = [ranking.of(c)[0] for c in ranking.classes]
    return [c for c in firsts if min_share <= min(c.share, 1 - c.share) and c.share < 1]


def _null(domain: str, controls: Sequence[Screening]) -> list[float] | None:
    if not controls:
        return None
    missing = [i for i, s in enumerate(controls) if domain not in s.analyses]
    if missing:
        raise ValueError(
            f"controls[{missing[0]}] must have the domain {domain!r}, got "
            f"{list(controls[missing[0]].analyses)}"
        )
    return [f.fisher for s in controls for f in s.findings if f.domain == domain]


def _with_effect(
    found: Finding,
    outputs: Any,
    sampled: Mapping[int, np.ndarray],
    changed: Callable[[Candidate], Any] | None,
    alpha: float,
) -> Finding:
    values = np.asarray(outputs)
    rest = np.setdiff1d(sampled[found.category], found.rows)
    after = None
    if changed is not None and found.p_value <= alpha:
        after = changed(found.candidate)
    told = effect(found.category, values[found.rows], values[rest], after)
    return dataclasses.replace(found, effect=told)
