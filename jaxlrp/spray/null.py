r"""How surprising a score is: each class is compared with the others, or with held-out controls.

A bare score does not tell a Clever Hans from an honest class. Clustering always finds the best cut of the
data it clusters, and honest classes have kinds too, so their scores are not zero. Shuffled or Gaussian
surrogates have no kinds at all, and next to them every real class is surprising. What an honest class
scores is shown by honest classes. So the null distribution is

    log F ~ Normal(mean, variance) of the classes that are not tested,

estimated from m of them. Few classes may be alike by chance, so their variance is moderated by a prior one
(Smyth, 2004), 0.5^2 with the weight of 20 degrees of freedom, and one more class has

    t = (log F - mean) / (s sqrt(1 + 1/m)),   s^2 = (20 0.5^2 + sum (log F_i - mean)^2) / (20 + m - 1),

with 20 + m - 1 degrees of freedom.

Several classes that stand out would hide each other. So the largest scores, up to a third of all, are
taken away one after the other (Rosner's generalized test of many outliers), each compared with those
below it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

MIN_CONTROLS = 4
_PRIOR_DEVIATION = 0.5  # of log F of honest classes, seen on digits
_PRIOR_DEGREES = 20  # how much it weighs
_MIN_SCORE = 0.1  # of F: scores below it are alike


def surprise(scores: ArrayLike, controls: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    r"""How far each score lies above what other classes score, and how probable that is by chance.

    Args:
      scores: (n,) of the classes, >= 0, of one domain; see `fisher_score`. NaN for a class without a cut,
        which is neither tested nor a control.
      controls: (m,) scores of data in which nothing is suspected, m >= 4; then they alone are the null
        distribution. None: each class is compared with the other classes.

    Returns:
      (t, p), each (n,): the statistic and its one-sided p-value, before any correction for the number of
      tests. NaN where there are fewer than 4 controls, or no score.

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
            raise ValueError(f"controls must hold at least {MIN_CONTROLS} scores, got {len(null)}")
        for i in known:
            t[i], p[i] = _compared(float(logs[i]), null)
        return t, p
    if len(known) <= MIN_CONTROLS:
        return t, p
    order = known[np.argsort(-logs[known], kind="stable")]
    outliers = min(max(1, len(order) // 3), len(order) - MIN_CONTROLS)
    for place, i in enumerate(order):
        # Those that may stand out are compared with what lies below them, all others with the rest.
        null = order[place + 1 :] if place < outliers else order[order != i]
        t[i], p[i] = _compared(float(logs[i]), logs[null])
    # A class stands out if one below it does.
    first = order[:outliers]
    p[first] = np.minimum.accumulate(p[first][::-1])[::-1]
    return t, p


def _logs(name: str, scores: ArrayLike) -> np.ndarray:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or (values < 0).any():
        raise ValueError(f"{name} must be a vector of numbers >= 0, got {values}")
    return np.log(np.maximum(values, _MIN_SCORE))


def _compared(value: float, null: np.ndarray) -> tuple[float, float]:
    """(t, p) of a value that might be one more of the null distribution."""
    m, mean = len(null), null.mean()
    degrees = _PRIOR_DEGREES + m - 1
    squares = _PRIOR_DEGREES * _PRIOR_DEVIATION**2 + ((null - mean) ** 2).sum()
    t = float((value - mean) / np.sqrt(squares / degrees * (1 + 1 / m)))
    return t, float(stats.t.sf(t, degrees))
