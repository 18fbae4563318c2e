"""Relevance of signals over time: the signal as a line, colored by its relevance."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from jaxlrp.plot.figures import NotebookFigure, add_colorbar, root_figure
from jaxlrp.plot.given import Relevance, without_batch
from jaxlrp.plot.normalize import as_colormap, as_real, symmetric_limit

_WIDTHS = (1.2, 3.2)  # points: at zero relevance, at the limit


def signal(
    relevance: Relevance,
    signal: ArrayLike,
    *,
    sample_rate: float | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    cmap: str | Colormap = "relevance-gray",
    limit: float | None = None,
    title: str | None = None,
    colorbar: bool = True,
) -> Figure:
    """Draws a signal as a line colored by relevance: gray is zero, red for, blue against.

    The line also gets thicker with |relevance|. Sample t colors the line from halfway to sample
    t - 1 to halfway to sample t + 1. Several channels are stacked, one panel each, with one time
    axis and one color scale.

    Args:
      relevance: (T,) or (T, C), time first; an array, real, finite, or an explanation of one sample.
        A batch of one, (1, T) or (1, T, C), is its only signal. Not modified.
      signal: same shape, the explained signal, in its own units. Not modified.
      sample_rate: samples per second (Hz), > 0. The time axis is then in seconds. None: in samples.
      ax: one Axes, or a sequence of C Axes for C channels. None creates a Figure.
      cmap: as in `heatmap`. A map that is white at zero hides irrelevant parts on white paper.
      limit: relevance at which color and width saturate, in its units, > 0. None: the largest
        magnitude of all channels.
      title: title of the first panel.
      colorbar: whether to draw the color scale beside the panels.

    Returns:
      The Figure; for a SubFigure, the Figure that contains it. If `ax` is None, its first C axes are
      the panels.

    Raises:
      TypeError: if an array is traced or does not hold real numbers.
      ValueError: if shapes, `sample_rate`, `limit`, `cmap` or the number of axes is invalid.

    Example:
      >>> import numpy as np
      >>> wave = np.sin(np.linspace(0.0, 6.0, 50))
      >>> figure = signal(wave**3, wave, sample_rate=25.0)
      >>> figure.axes[0].get_xlabel()
      'time (s)'
    """
    heights = _only_signal(as_real(signal, "signal"))
    values = _only_signal(as_real(relevance, "relevance"))
    _check_shapes(values, heights)
    values, heights = values.reshape(len(values), -1), heights.reshape(len(heights), -1)
    if sample_rate is not None and not 0.0 < sample_rate < np.inf:
        raise ValueError(
            f"sample_rate must be positive and finite, in samples per second, got {sample_rate}; "
            "None counts samples"
        )
    colors, limit = as_colormap(cmap), symmetric_limit(values, limit)
    times = np.arange(len(values)) / (1.0 if sample_rate is None else sample_rate)

    panels = _panels(ax, channels=values.shape[1])
    for channel, panel in enumerate(panels):
        line = _colored_line(times, heights[:, channel], values[:, channel], limit)
        line.set(cmap=colors, clim=(-limit, limit))
        panel.plot(times, heights[:, channel], color="0.8", linewidth=0.8, zorder=1)
        panel.add_collection(line)
        panel.set_xlim(times[0], times[-1])
        panel.spines[["top", "right"]].set_visible(False)
        if len(panels) > 1:
            panel.set_ylabel(f"channel {channel}")
    panels[0].figure.align_ylabels(panels)
    panels[-1].set_xlabel("sample" if sample_rate is None else "time (s)")
    if title is not None:
        panels[0].set_title(title)
    if colorbar:
        add_colorbar(panels, colors, limit, clipped=bool(np.abs(values).max() > limit))
    return root_figure(panels[0])


def _only_signal(array: np.ndarray) -> np.ndarray:
    """(T,) or (T, C) of a batch of one; a signal of one sample is not drawn."""
    return without_batch(array, 1 if array.ndim == 2 else 2)


def _check_shapes(relevance: np.ndarray, signal: np.ndarray) -> None:
    if relevance.shape != signal.shape:
        raise ValueError(
            "relevance must have the shape of signal, "
            f"{signal.shape}, got {relevance.shape}; use both from the same sample"
        )
    if signal.ndim not in (1, 2) or len(signal) < 2:
        raise ValueError(
            f"signal must have shape (T,) or (T, C) with T >= 2, got {signal.shape}; "
            "select one sample of a batch"
        )
    if signal.ndim == 2 and signal.shape[1] > signal.shape[0]:
        raise ValueError(
            f"signal must have time first, (T, C), got {signal.shape}, more channels than times; "
            "pass signal.T and relevance.T"
        )


def _panels(ax: Axes | Sequence[Axes] | None, channels: int) -> list[Axes]:
    if ax is None:
        figure = NotebookFigure(figsize=(8.0, 1.1 + 1.3 * channels), layout="constrained")
        return list(figure.subplots(channels, sharex=True, squeeze=False)[:, 0])
    panels = [ax] if isinstance(ax, Axes) else list(ax)
    if len(panels) != channels:
        raise ValueError(
            f"ax must have one Axes for each of the {channels} channels, got {len(panels)}; "
            f"create them with plt.subplots({channels}, sharex=True)"
        )
    return panels


def _colored_line(
    times: np.ndarray, heights: np.ndarray, relevance: np.ndarray, limit: float
) -> LineCollection:
    """One short polyline per sample: halfway before, the sample, halfway after."""
    points = np.stack([times, heights], axis=-1)
    between = (points[1:] + points[:-1]) / 2
    before = np.concatenate([points[:1], between])
    after = np.concatenate([between, points[-1:]])
    share = np.clip(np.abs(relevance) / limit, 0.0, 1.0)
    thin, thick = _WIDTHS
    line = LineCollection(
        list(np.stack([before, points, after], axis=1)),
        linewidths=thin + (thick - thin) * share,
        capstyle="round",
        joinstyle="round",
        zorder=2,
    )
    line.set_array(relevance)  # copies
    return line
