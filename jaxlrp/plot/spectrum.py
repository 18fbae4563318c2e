"""Relevance of frequencies, and of time frames and frequencies."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize
from numpy.typing import ArrayLike

from jaxlrp.plot.figures import add_colorbar, new_axes
from jaxlrp.plot.given import Relevance, without_batch
from jaxlrp.plot.normalize import as_colormap, as_real, symmetric_limit
from jaxlrp.plot.pixels import blend

_DECIBELS = 40.0  # from black to white in a spectrogram
_ALPHA = 0.95


def spectrum(
    relevance: Relevance,
    amplitude: ArrayLike,
    *,
    frequencies: ArrayLike | None = None,
    ax: Axes | None = None,
    cmap: str | Colormap = "relevance-gray",
    limit: float | None = None,
    title: str | None = None,
    colorbar: bool = True,
) -> Axes:
    """Draws a spectrum as bars colored by relevance: gray is zero, red for, blue against.

    Args:
      relevance: (K,) or (1, K), an array, real, finite, or an explanation. Not modified.
      amplitude: same shape, the height of the bars, >= 0, such as |X|: `abs(found.coefficients)`.
      frequencies: (K,), increasing, in hertz, as returned by `transform.frequencies(n, sample_rate)`.
        None: the axis shows bin numbers.
      ax: the Axes to draw into. None creates a Figure, available as ``spectrum(...).figure``.
      cmap: as in `signal`.
      limit: relevance at which colors saturate, in its units, > 0. None: the largest magnitude.
      title: title of the panel.
      colorbar: whether to draw the color scale.

    Returns:
      The Axes.

    Raises:
      TypeError: if an array is traced or does not hold real numbers.
      ValueError: if a shape or a value is invalid; the message names the argument.

    Example:
      >>> import numpy as np
      >>> axes = spectrum([0.1, 2.0, -0.5], [1.0, 3.0, 1.0], frequencies=[0.0, 50.0, 100.0])
      >>> axes.get_xlabel()
      'frequency (Hz)'
    """
    values = without_batch(as_real(relevance, "relevance"), 1)
    heights = without_batch(as_real(amplitude, "amplitude"), 1)
    if values.ndim != 1 or len(values) < 2 or heights.shape != values.shape:
        raise ValueError(
            "relevance and amplitude must have the same shape (K,) with K >= 2, got "
            f"{values.shape} and {heights.shape}; select one sample of a batch"
        )
    if heights.min() < 0:
        raise ValueError(
            f"amplitude must be >= 0, got {heights.min():.4g}; use the magnitude of the coefficients"
        )
    places = _places(frequencies, len(values), "frequencies")
    colors, limit = as_colormap(cmap), symmetric_limit(values, limit)
    ax = new_axes((3.0, 8.0), colorbar, width=8.0) if ax is None else ax

    # Wide bars if there are few, lines if there are many; the most relevant ones are drawn last.
    width = float(np.clip(420.0 / len(values), 1.2, 6.0))
    order = np.argsort(np.abs(values), kind="stable")
    feet = np.stack([places, np.zeros_like(places)], axis=-1)
    bars = LineCollection(
        list(np.stack([feet, np.stack([places, heights], axis=-1)], axis=1)[order]),
        linewidths=width,
        cmap=colors,
        norm=Normalize(-limit, limit),
        capstyle="butt",
    )
    bars.set_array(values[order])
    ax.add_collection(bars)
    margin = 0.02 * (places[-1] - places[0])
    ax.set_xlim(places[0] - margin, places[-1] + margin)
    ax.set_ylim(0.0, 1.05 * heights.max() or 1.0)
    ax.set_xlabel("bin" if frequencies is None else "frequency (Hz)")
    ax.set_ylabel("amplitude")
    ax.spines[["top", "right"]].set_visible(False)
    if title is not None:
        ax.set_title(title)
    if colorbar:
        add_colorbar([ax], colors, limit, clipped=bool(np.abs(values).max() > limit))
    return ax


def spectrogram(
    relevance: Relevance,
    amplitude: ArrayLike | None = None,
    *,
    times: ArrayLike | None = None,
    frequencies: ArrayLike | None = None,
    ax: Axes | None = None,
    cmap: str | Colormap = "relevance",
    limit: float | None = None,
    title: str | None = None,
    colorbar: bool = True,
) -> Axes:
    """Draws relevance over frames and frequencies: red for, blue against, white at zero.

    Args:
      relevance: (M, K) or (1, M, K), frames first; an array, real, finite, or an explanation. Not
        modified.
      amplitude: same shape, >= 0. It is drawn in gray below the relevance, from white to gray over the
        loudest 40 decibels. None: relevance alone.
      times: (M,), centers of the frames in seconds, evenly spaced, as returned by
        `transform.times(n, sample_rate)`. None: the axis shows frame numbers.
      frequencies: (K,), in hertz, evenly spaced, as returned by `transform.frequencies(n, sample_rate)`.
        None: the axis shows bin numbers.
      ax: the Axes to draw into. None creates a Figure, available as ``spectrogram(...).figure``.
      cmap: as in `heatmap`.
      limit: relevance at which colors saturate, in its units, > 0. None: the largest magnitude.
      title: title of the panel.
      colorbar: whether to draw the color scale.

    Returns:
      The Axes.

    Raises:
      TypeError: if an array is traced or does not hold real numbers.
      ValueError: if a shape or a value is invalid; the message names the argument.

    Example:
      >>> import numpy as np
      >>> axes = spectrogram(np.eye(3), times=[0.0, 0.1, 0.2], frequencies=[0.0, 50.0, 100.0])
      >>> axes.get_xlabel(), axes.get_ylabel()
      ('time (s)', 'frequency (Hz)')
    """
    values = without_batch(as_real(relevance, "relevance"), 2)
    if values.ndim != 2:
        raise ValueError(
            f"relevance must have shape (frames, bins), got {values.shape}; select one sample of a batch "
            "and one channel"
        )
    seconds = _places(times, len(values), "times")
    hertz = _places(frequencies, values.shape[1], "frequencies")
    colors, limit = as_colormap(cmap), symmetric_limit(values, limit)
    extent = (*_ends(seconds), *_ends(hertz))
    pixels = values.T
    if amplitude is None:
        drawn = {"cmap": colors, "vmin": -limit, "vmax": limit}
    else:
        pixels = blend(values.T, _gray(amplitude, values.shape).T, colors, limit, _ALPHA)
        drawn = {}
    ax = new_axes((4.0, 8.0), colorbar, width=8.0) if ax is None else ax
    ax.imshow(
        pixels, origin="lower", aspect="auto", extent=extent, interpolation="nearest", **drawn
    )
    ax.set_xlabel("frame" if times is None else "time (s)")
    ax.set_ylabel("bin" if frequencies is None else "frequency (Hz)")
    if title is not None:
        ax.set_title(title)
    if colorbar:
        add_colorbar([ax], colors, limit, clipped=bool(np.abs(values).max() > limit))
    return ax


def _places(given: ArrayLike | None, count: int, name: str) -> np.ndarray:
    if given is None:
        return np.arange(float(count))
    places = as_real(given, name)
    if places.shape != (count,):
        raise ValueError(f"{name} must have shape {(count,)}, got {places.shape}")
    if (np.diff(places) <= 0).any():
        raise ValueError(f"{name} must be increasing, got {places[:4].tolist()} ...")
    return places


def _ends(places: np.ndarray) -> tuple[float, float]:
    """The outer edges of evenly spaced cells, given their centers."""
    half = (places[-1] - places[0]) / max(len(places) - 1, 1) / 2 or 0.5
    return float(places[0] - half), float(places[-1] + half)


def _gray(amplitude: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """White for values `_DECIBELS` below the loudest, middle gray for the loudest."""
    heights = without_batch(as_real(amplitude, "amplitude"), 2)
    if heights.shape != shape or heights.min() < 0:
        raise ValueError(
            f"amplitude must have the shape of relevance, {shape}, and be >= 0, got {heights.shape} and "
            f"a smallest value of {heights.min():.4g}"
        )
    loudest = heights.max() or 1.0
    decibels = 20 * np.log10(np.maximum(heights / loudest, 10 ** (-_DECIBELS / 20)))
    return 0.5 + 0.5 * (-decibels / _DECIBELS)
