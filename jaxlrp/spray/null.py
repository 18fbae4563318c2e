r"""How surprising a score is, compared with other classes or with clean control data.

A score alone does not distinguish a Clever Hans from a class without artifacts. Clustering always finds the
best split of its data, and a class without artifacts has clusters too, so its score is not zero. Shuffled
or Gaussian surrogate data has no clusters at all, so every real class would be surprising. Only classes
without artifacts show which scores are normal. The null distribution is therefore

    log F ~ Normal(mean, variance) over the classes that are not tested,

estimated from m of them. A few classes may be similar by chance, so their variance is moderated by a prior
variance (Smyth, 2004) of 0.5^2 with the weight of 20 degrees of freedom. The tested class then has

    t = (log F - mean) / (s sqrt(1 + 1/m)),   s^2 = (20 0.5^2 + sum (log F_i - mean)^2) / (20 + m - 1),

with 20 + m - 1 degrees of freedom.

Several outliers could mask each other. The largest scores, up to a third of all, are therefore removed one
after the other (Rosner's generalized test for many outliers), and each is compared with the scores below
it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

MIN_CONTROLS = 4
_PRIOR_DEVIATION = 0.5  # of log F of classes without artifacts, measured on digits
_PRIOR_DEGREES = 20  # weight of the prior
_MIN_SCORE = 0.1  # of F: smaller scores count as equal


def surprise(scores: ArrayLike, controls: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    r"""How far each score is above those of other classes, and how probable that is by chance.

    Args:
      scores: (n,) scores of the classes in one domain, >= 0; see `fisher_score`. NaN for a class without a
        split, which is neither tested nor used as a control.
      controls: (m,) scores of clean data, m >= 4, used as the only null distribution. None compares each
        class with the other classes.

    Returns:
      (t, p), each (n,): the statistic and its one-sided p-value, not corrected for the number of tests.
      NaN if there are fewer than 4 controls, or no score.

    Raises:
      ValueError: if a score is negative, or fewer than 4 controls are given.

    References:
      Grubbs (1950), https://doi.org/10.1214/aoms/1177729885
      Rosner (1983), https://doi.org/10.1080/00401706.1983.10487848
      Smyth (2004), https://doi.org/10.2202/1544-6115.1027

    Example:
      >>> t, p = surprise([3.0, 4.0, 2.5, 3.5, 5.0, 400.0])
      >>> int(np.argmin(p)), bool(p[5] < 1e-3), bool(p[:5].min() > 0.05)
      (5, True, True)
    """
    logs = _logs("scores", scores)
    t, p = np.full(logs.shape, np.nan), np.full(logs.shape, np.nan)
    known = np.flatnonzero(~np.isnan(logs))
    if controls is not None:
        null = _logs("controls", controls)
        null = null[~np.isnan(null)]
        if known.size and len(null) < MIN_CONTROLS:
            raise ValueError(
                f"controls must contain at least {MIN_CONTROLS} scores, got {len(null)}"
            )
        for i in known:
            t[i], p[i] = _compared(float(logs[i]), null)
        return t, p
    if len(known) <= MIN_CONTROLS:
        return t, p
    order = known[np.argsort(-logs[known], kind="stable")]
    outliers = min(max(1, len(order) // 3), len(order) - MIN_CONTROLS)
    for place, i in enumerate(order):
        # Possible outliers are compared with the scores below them, all others with all other scores.
        null = order[place + 1 :] if place < outliers else order[order != i]
        t[i], p[i] = _compared(float(logs[i]), logs[null])
    # A class is an outlier if one below it is.
    first = order[:outliers]
    p[first] = np.minimum.accumulate(p[first][::-1])[::-1]
    return t, p


def _logs(name: str, scores: ArrayLike) -> np.ndarray:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or (values < 0).any():
        raise ValueError(f"{name} must be a vector of numbers >= 0, got {values}")
    return np.log(np.maximum(values, _MIN_SCORE))


def _compared(value: float, null: np.ndarray) -> tuple[float, float]:
    """(t, p) of a value, if it were another sample of the null distribution."""
    m, mean = len(null), null.mean()
    degrees = _PRIOR_DEGREES + m - 1
    squares = _PRIOR_DEGREES * _PRIOR_DEVIATION**2 + ((null - mean) ** 2).sum()
    t = float((value - mean) / np.sqrt(squares / degrees * (1 + 1 / m)))
    return t, float(stats.t.sf(t, degrees))
