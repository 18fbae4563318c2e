"""Screens a data set in several domains for clusters of samples with surprising explanations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax import Array

from jaxlrp._checks import check_count, check_mapping
from jaxlrp.spray import extras, seeds
from jaxlrp.spray.analysis import Analysis
from jaxlrp.spray.analyze import Settings, analyze_points, checked_settings, members
from jaxlrp.spray.domains import Domain, Raw, default_domains
from jaxlrp.spray.effects import effect
from jaxlrp.spray.features import features
from jaxlrp.spray.findings import Finding, Screening
from jaxlrp.spray.null import surprise
from jaxlrp.spray.ranking import Candidate, Ranking, rank
from jaxlrp.spray.views import PCA


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
    batch_size: int = 256,
) -> Screening:
    """Finds clusters of samples with surprising explanations, in several domains.

    In each domain, each class is analyzed as by `analyze`, and its clearest split is scored as by `rank`.
    The
    score is compared with those of the other classes in the same domain, or with `controls`: see
    `surprise`. The p-values are multiplied by the number of tested classes and domains (Bonferroni). If a
    domain has an attribute `n_components`, it is reduced to this many principal components per class.

    The other classes form a valid null distribution only if most of them have no artifact. A pattern in
    most classes makes no class stand out. In that case, screen data that is known to be clean and pass the
    result as `controls`. With fewer than five classes and no controls, there are no p-values, and findings
    are sorted by score.

    Args:
      relevance: (N, ...), as in `analyze`. Read once for each domain.
      labels: (N,) or (N, classes), as in `analyze`.
      key: a `jax.random.key`; the same key gives the same result.
      inputs: (N, ...) of the same shape and order, as preprocessed for the network. Needed for the domains
        "frequency", "fine" and "log"; None leaves these out.
      outputs: (N, classes) of the network, for the effect on predictions; None for no effects.
      changed: function that is called with the `Candidate` of each surprising finding. It returns the
        outputs (size, classes) for `candidate.rows` after the suspected pattern was removed. Needs
        `outputs`.
      domains: by name; None for `default_domains`.
      stored: further domains by name: relevance (N, ...) of the same samples that was computed in another
        domain, for example by `jaxlrp.inspection.inspect`; treated as in `Raw`.
      controls: screenings of clean data, with the same domains and settings.
      alpha: probability of at least one false alarm in the whole screening, in (0, 1), if log F is normal.
      max_samples: maximum number of samples per class; a random subset of larger classes is used, which
        limits the time.
      settings: as in `analyze`; None for its defaults with principal components as the only view. The
        first clustering is ranked.
      classes, rows, batch_size: as in `analyze`.
      min_share: splits that separate less than this share of a class are not findings; see `rank`.

    Returns:
      `Screening`.

    Raises:
      ImportError: if scikit-learn is not installed.
      TypeError, ValueError: if an argument is invalid.

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
    settings = checked_settings(Settings(views={"pca": PCA()}) if settings is None else settings)
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
        name: _analyzed(source, sampled, seeds.named(key, name), settings, batch_size)
        for name, source in sources.items()
    }
    rankings = {
        name: rank(found, clustering=first, min_share=min_share) for name, found in analyses.items()
    }
    findings = _findings(rankings, controls, min_share)
    if outputs is not None:
        findings = [_with_effect(f, outputs, sampled, changed, alpha) for f in findings]
    return Screening(tuple(findings), analyses, rankings, alpha)


@dataclasses.dataclass(frozen=True)
class _Source:
    """The source of a domain: relevance, inputs or None, and the function that makes points from them."""

    relevance: Any
    inputs: Any
    domain: Domain

    def points(self, rows: np.ndarray, batch_size: int) -> np.ndarray:
        if self.inputs is None:
            return features(
                self.relevance, lambda r: self.domain(r, None), rows=rows, batch_size=batch_size
            )
        return features(
            self.relevance, self.domain, inputs=self.inputs, rows=rows, batch_size=batch_size
        )


def _check(key: Array, alpha: float, outputs: Any, changed: Any, relevance: Any) -> None:
    seeds.check_key(key)
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    if changed is not None and outputs is None:
        raise ValueError("changed needs the outputs before the pattern was removed: pass outputs=")
    if outputs is not None and (np.ndim(outputs) != 2 or len(outputs) != relevance.shape[0]):
        raise ValueError(
            f"outputs must have shape ({relevance.shape[0]}, classes), got {np.shape(outputs)}"
        )


def _sources(relevance: Any, inputs: Any, domains: Any, stored: Any) -> dict[str, _Source]:
    domains = default_domains(inputs=inputs is not None) if domains is None else domains
    check_mapping("domains", domains, '{"raw": Raw()}')
    check_mapping("stored", stored or {}, '{"layer": relevance}')
    for name, domain in domains.items():
        if not callable(domain) or isinstance(domain, type):
            raise TypeError(f"domains[{name!r}] must be a domain such as Raw(), got {domain!r}")
    found = {name: _Source(relevance, inputs, domain) for name, domain in domains.items()}
    for name, values in (stored or {}).items():
        if name in found:
            raise ValueError(
                f"stored must have other names than domains, {list(domains)}, got {name!r}"
            )
        if len(values) != relevance.shape[0]:
            raise ValueError(
                f"stored[{name!r}] must have the {relevance.shape[0]} samples of relevance, got "
                f"{len(values)}"
            )
        found[name] = _Source(values, None, Raw())
    if not found:
        raise ValueError("domains must contain at least one domain, got none")
    return found


def _drawn(index: np.ndarray, most: int, key: Array) -> np.ndarray:
    """At most this many of the rows, in ascending order."""
    if len(index) <= most:
        return index
    return np.sort(seeds.generator(key).choice(index, most, replace=False))


def _analyzed(
    source: _Source,
    sampled: Mapping[int, np.ndarray],
    key: Array,
    settings: Settings,
    batch_size: int,
) -> tuple[Analysis, ...]:
    wanted = np.unique(np.concatenate(list(sampled.values())))
    points = source.points(wanted, batch_size)
    kept = getattr(source.domain, "n_components", None)
    found = []
    for c, index in sampled.items():
        of_class = points[np.searchsorted(wanted, index)]
        of_class = _leading(of_class, kept, seeds.named(key, f"components of {c}"))
        named = seeds.named(key, f"class {c}")
        found.append(analyze_points(of_class, c, index, key=named, settings=settings))
    return tuple(found)


def _leading(points: np.ndarray, n_components: int | None, key: Array) -> np.ndarray:
    """The leading principal components of the points of a class; all points if they have fewer."""
    if n_components is None or n_components >= min(points.shape):
        return points
    return PCA(n_components=n_components)(points, key).astype(points.dtype)


def _findings(
    rankings: Mapping[str, Ranking], controls: Sequence[Screening], min_share: float
) -> list[Finding]:
    """One finding for each class and domain with a split, most surprising first."""
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
    """The clearest split of each class, if it separates enough samples."""
    firsts = [ranking.of_class(c)[0] for c in ranking.classes]
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
