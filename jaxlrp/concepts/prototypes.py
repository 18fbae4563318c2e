"""Finding the strategies of a model: prototypical concept explanations (PCX)."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxlrp._checks import check_count, check_one_of
from jaxlrp.concepts.mixtures import COVARIANCES, Fitted, fit
from jaxlrp.concepts.strategies import Prototypes


def prototypes(
    relevance: ArrayLike,
    classes: ArrayLike,
    *,
    n_components: int | Literal["bic"] = "bic",
    max_components: int = 8,
    covariance: Literal["diagonal", "shrunk", "full"] = "diagonal",
    min_variance: float = 1e-6,
    n_init: int = 3,
    seed: int = 0,
) -> Prototypes:
    r"""Finds the strategies by which a model recognizes each class (prototypical concept explanations).

    Args:
      relevance: (samples, concepts), the normalized concept relevance of a layer for the class of each
        sample: `concepts.scores(...)(x, target=classes).normalized`, or `concepts.normalize` of stored
        scores. Take correctly predicted training samples only.
      classes: (samples,), integers.
      n_components: strategies of each class; "bic" chooses 1 to `max_components` for each class by the
        Bayesian information criterion.
      max_components: the most that "bic" tries, never more than a class has different samples.
      covariance: "diagonal"; "shrunk", the components of the diagonal mixture with correlations that are
        shrunk towards zero by Ledoit and Wolf's formula, which has a density for any number of samples; or
        "full", as the authors do. A full covariance of more concepts than a
        component has samples is singular up to `min_variance`: it fits the samples at hand and rejects all
        others, and a warning says so.
      min_variance: added to each variance, > 0, in the units of squared relevance shares. Without it, a
        concept that is always zero would have no density.
      n_init: k-means starts of each mixture; the best fit is kept.
      seed: of k-means, an integer.

    Returns:
      The `Prototypes`.

    Raises:
      ValueError: naming the argument; if a class has fewer samples than components; if relevance is not
        finite.
      ImportError: if scikit-learn is missing.

    References:
      Dreyer et al. (2024), Understanding the (Extra-)Ordinary: Validating Deep Model Decisions with
      Prototypical Concept-based Explanations, https://arxiv.org/abs/2311.16681; Ledoit and Wolf (2004),
      https://doi.org/10.1016/S0047-259X(03)00096-4

    Example:
      >>> import numpy as np
      >>> from jaxlrp import concepts
      >>> one = np.array([[0.0, 0.0], [0.2, 0.0], [0.0, 0.2]])
      >>> nu, y = np.concatenate([one, one + 1]), np.full(6, 7)
      >>> found = concepts.prototypes(nu, y, n_components=2, min_variance=1e-4)
      >>> found
      Prototypes(components by class {7: 2}, concepts=2)
      >>> near, far = found.outlier_score(np.array([[0.0, 0.0], [0.5, 0.5]]), 7)
      >>> bool(near < far)
      True
    """
    x, y = _samples(relevance, classes)
    check_count("max_components", max_components)
    check_count("n_init", n_init)
    check_one_of("covariance", covariance, tuple(COVARIANCES))
    if isinstance(n_components, str) and n_components != "bic":
        raise ValueError(f"n_components must be 'bic' or an integer >= 1, got {n_components!r}")
    if n_components != "bic":
        check_count("n_components", n_components)
    if not min_variance > 0:
        raise ValueError(f"min_variance must be > 0, got {min_variance!r}")
    known = np.unique(y)
    fitted, rows = [], []
    for label in known:
        rows.append(np.flatnonzero(y == label))
        mine = x[rows[-1]]
        tried = _tried(int(label), mine, n_components, max_components)
        found = fit(mine, tried, covariance, min_variance, n_init, seed, f"class {label}")
        _check_full(int(label), len(mine), found, covariance)
        fitted.append(found)
    return _with_samples(_stacked(known, fitted), x, y, rows)


def _samples(relevance: ArrayLike, classes: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(relevance), np.asarray(classes)
    if x.ndim != 2 or not len(x) or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            "relevance must be floats of shape (samples, concepts), at least one sample, got "
            f"{x.dtype} of shape {x.shape}"
        )
    if y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"classes must be integers of shape {x.shape[:1]}, one for each sample, got {y.dtype} of shape "
            f"{y.shape}"
        )
    if not np.isfinite(x).all():
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
        raise ValueError(
            f"relevance must be finite, but {len(bad)} samples have NaN or inf, the first is row {bad[0]}: "
            "leave them out"
        )
    return x.astype(np.float64), y.astype(np.int64)


def _tried(label: int, x: np.ndarray, n_components: int | str, most: int) -> list[int]:
    """The numbers of components to try for a class."""
    if len(x) < 2:
        raise ValueError(
            f"class {label} has 1 sample, but a mixture needs at least 2: leave out this class"
        )
    if n_components != "bic":
        if len(x) < int(n_components):
            raise ValueError(
                f"class {label} has {len(x)} samples, fewer than n_components={n_components}: use fewer "
                'components, or n_components="bic"'
            )
        return [int(n_components)]
    return list(range(1, min(most, len(np.unique(x, axis=0))) + 1))


def _check_full(label: int, samples: int, found: Fitted, covariance: str) -> None:
    k, d = found.means.shape
    if covariance == "full" and samples < k * (d + 1):
        warnings.warn(
            f"class {label} has {samples} samples for {k} components of {d} concepts: a full covariance is "
            'singular up to min_variance and rejects new samples; use covariance="diagonal" or "shrunk"',
            stacklevel=3,
        )


def _stacked(classes: np.ndarray, fitted: list[Fitted]) -> Prototypes:
    """Mixtures of all classes, padded to the same number of components, without samples."""
    most = max(len(found.weights) for found in fitted)
    last = max(max(found.bic) for found in fitted)

    def pad(a: np.ndarray, value: float = 0.0) -> np.ndarray:
        wide = [(0, most - len(a)), *[(0, 0)] * (a.ndim - 1)]
        return np.pad(a, wide, constant_values=value)

    return Prototypes(
        classes=classes,
        weights=np.stack([pad(found.weights) for found in fitted]),
        means=np.stack([pad(found.means) for found in fitted]),
        whitening=np.stack([pad(found.whitening, 1.0) for found in fitted]),
        samples=np.full((len(fitted), most), -1),
        coverage=np.zeros((len(fitted), most)),
        count=np.zeros(len(fitted), np.int64),
        bic=np.array([[f.bic.get(k, np.nan) for k in range(1, last + 1)] for f in fitted]),
    )


def _with_samples(
    found: Prototypes, x: np.ndarray, y: np.ndarray, rows: list[np.ndarray]
) -> Prototypes:
    """Adds the samples nearest to the means, and how many samples each component covers."""
    samples, coverage = found.samples.copy(), found.coverage.copy()
    component = np.asarray(found.assign(x, y))
    for i, own in enumerate(rows):
        for k in range(found.n_components[i]):
            apart = np.square(x[own] - found.means[i, k]).sum(axis=-1)
            samples[i, k] = own[np.argmin(apart)]
            coverage[i, k] = np.mean(component[own] == k)
    count = np.array([len(own) for own in rows])
    return dataclasses.replace(found, samples=samples, coverage=coverage, count=count)
