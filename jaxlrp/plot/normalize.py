"""Converts relevance to numbers in [-1, 1] and to colors that are neutral at zero.

    share = clip(R / limit, -1, 1),        color = cmap((1 + share) / 2)

Both signs share one limit, so zero relevance is always the exact middle of the color map.
"""

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from jax.core import Tracer
from matplotlib.colors import Colormap, LinearSegmentedColormap

from jaxlrp.plot.given import Relevance, relevance_of


def normalize(
    relevance: Relevance,
    axis: int | Sequence[int] | None = None,
    method: Literal["absmax", "signed"] = "absmax",
    percentile: float = 100.0,
) -> np.ndarray:
    r"""Scales relevance to [-1, 1] about zero: signs and zeros are kept, units are lost.

    absmax:  clip(R / s, -1, 1),                          s = the percentile of |R| where R != 0
    signed:  clip(R+ / s+, 0, 1) - clip(R- / s-, 0, 1),   s+, s- = the same for R+ and for R-

    With ``"absmax"``, positive and negative values stay comparable. With ``"signed"`` they do not,
    but weak evidence of one sign stays visible beside strong evidence of the other. Zeros are
    excluded from the percentile, so that a sparse map keeps its scale. A map of zeros stays zero.

    Args:
      relevance: any shape, real (bfloat16 too), finite; NumPy or concrete JAX array, or an explanation.
        Not modified.
      axis: the axes that share one scale. None: one scale for the whole array. For a batch
        ``(N, H, W, C)``, ``(1, 2, 3)`` gives each image its own.
      method: "absmax" or "signed".
      percentile: in (0, 100], in percent. 100 divides by the largest magnitude and clips nothing;
        99 saturates the largest one percent of the nonzero values at -1 or 1.

    Returns:
      NumPy array of the same shape, in [-1, 1], dimensionless: float32 for floats of up to 32 bits,
        otherwise float64.

    Raises:
      TypeError: if `relevance` is traced (inside `jax.jit`) or does not hold real numbers.
      ValueError: if `relevance` is empty or not finite, or another argument is out of range.

    Example:
      >>> import numpy as np
      >>> normalize(np.array([2.0, -4.0, 0.0])).tolist()
      [0.5, -1.0, 0.0]
      >>> normalize(np.array([2.0, -4.0, 0.0]), method="signed").tolist()
      [1.0, -1.0, 0.0]
    """
    relevance = relevance_of(relevance)
    values = as_real(relevance, "relevance")
    axes = _checked_axes(axis, values.ndim)
    _check_percentile(percentile)
    if method == "absmax":
        share = _divide_by_percentile(values, axes, percentile)
    elif method == "signed":
        positive, negative = np.maximum(values, 0.0), np.maximum(-values, 0.0)
        share = _divide_by_percentile(positive, axes, percentile)
        share -= _divide_by_percentile(negative, axes, percentile)
    else:
        raise ValueError(f"method must be 'absmax' or 'signed', got {method!r}")
    dtype = np.asarray(relevance).dtype
    narrow = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize <= 4
    return share.astype(np.float32 if narrow else np.float64)


def _divide_by_percentile(
    values: np.ndarray, axes: tuple[int, ...], percentile: float
) -> np.ndarray:
    """clip(values / s, -1, 1), where s is the percentile of the nonzero magnitudes, or 1 if none."""
    magnitude = np.abs(values)
    all_zero = ~np.any(magnitude > 0, axis=axes, keepdims=True)
    counted = np.where(all_zero, 1.0, np.where(magnitude > 0, magnitude, np.nan))
    scale = np.nanpercentile(counted, percentile, axis=axes, keepdims=True)
    return np.clip(values / scale, -1.0, 1.0)


def _checked_axes(axis: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    axes = (axis,) if isinstance(axis, int | np.integer) else tuple(axis)
    if not axes or any(not -ndim <= a < ndim for a in axes):
        raise ValueError(
            f"axis must be valid for relevance, which has {ndim} axes, got {axis}; "
            "None scales the whole array by one number"
        )
    return tuple(a % ndim for a in axes)


# --- input ----------------------------------------------------------------------------------------


def as_real(value: Relevance, name: str) -> np.ndarray:
    """Converts `value` to a float64 array that must not be modified; `name` is for error messages.

    Raises:
      TypeError: if traced, or not real.
      ValueError: if empty, ragged, or not finite.
    """
    value = relevance_of(value, name)
    if isinstance(value, Tracer):
        raise TypeError(
            f"{name} must be a concrete array, got a traced one ({value.aval}); "
            "plot the result outside of jax.jit, jax.vmap and jax.grad"
        )
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be an array with rows of equal length: {error}") from error
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise TypeError(
            f"{name} must contain real numbers, got dtype {array.dtype}; "
            "convert it first, for example with jnp.real or .astype(float)"
        )
    if array.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    array = array.astype(np.float64, copy=False)
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(
            f"{name} must be finite, got {array[where]} at index {where} "
            f"({np.sum(~finite)} of {array.size} entries are not finite); "
            "find their cause, or replace them with np.nan_to_num"
        )
    return array


# --- color ---------------------------------------------------------------------------------------

# From the blue end to the red end, evenly spaced, fitted in CIE L* and Oklch. At the same distance
# from the middle, both sides have the same lightness (in even steps) and, for the first two, the
# same opacity in an overlay. So |R| is readable in a grayscale print, and its sign (blue or red)
# with the common color vision deficiencies.
_ANCHORS = {
    "relevance": (
        "#1354bc #2d77d9 #519cec #83bff4 #c1e0f7 #ffffff #fdd3c1 #ffa183 #f96c51 #de392d #b31318"
    ),
    "relevance-dark": (
        "#44adfe #2784df #1f5faf #1d4075 #15233b #000000 #3b1815 #75241e #af3429 #df533e #fe8261"
    ),
    "relevance-gray": (
        "#0953c1 #1568d6 #2e81dc #5897d2 #8aabc3 #bbbbbb #c59e91 #d07d66 #d35842 #c8352a #b1191b"
    ),
}
_COLORMAPS = {
    name: LinearSegmentedColormap.from_list(name, anchors.split(), N=511)
    for name, anchors in _ANCHORS.items()
}


def as_colormap(cmap: str | Colormap) -> Colormap:
    """The color map of that name, ours ("relevance", -dark, -gray) or matplotlib's.

    A smooth map with an even number of entries has no exact middle, so it is resampled with one
    more: zero is then exactly white in "bwr" too.

    Raises:
      ValueError: if the name is unknown.
    """
    ours_or_theirs = {**mpl.colormaps, **_COLORMAPS}
    found = cmap if isinstance(cmap, Colormap) else ours_or_theirs.get(cmap)
    if found is None:
        raise ValueError(
            f"cmap must be one of {sorted(_COLORMAPS)} or a matplotlib color map, "
            f"got {cmap!r}; list(matplotlib.colormaps) lists them"
        )
    even = isinstance(found, LinearSegmentedColormap) and found.N % 2 == 0
    return found.resampled(found.N + 1) if even else found


def symmetric_limit(
    values: np.ndarray, limit: float | None, percentile: float | None = None
) -> float:
    """`limit` after validation; for None the percentile of the nonzero magnitudes, or 1 if there are none.

    Raises:
      ValueError: if `limit` or `percentile` is out of range, or both are given.
    """
    if limit is None:
        magnitude = np.abs(values[values != 0])
        percentile = 100.0 if percentile is None else percentile
        _check_percentile(percentile)
        return float(np.percentile(magnitude, percentile)) if magnitude.size else 1.0
    if percentile is not None:
        raise ValueError(
            f"percentile must be None with limit={limit}, got {percentile}; each sets where colors saturate"
        )
    if not 0.0 < limit < np.inf:
        raise ValueError(
            f"limit must be positive and finite, got {limit}; "
            "None uses the largest magnitude of relevance"
        )
    return float(limit)


def _check_percentile(percentile: float) -> None:
    if not 0.0 < percentile <= 100.0:
        raise ValueError(
            f"percentile must be in (0, 100], got {percentile}; "
            "100 divides by the largest magnitude"
        )
