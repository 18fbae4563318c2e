"""Figures without pyplot that display in a notebook, and the color scale beside panels."""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

_INCHES = 2.2  # width of one panel of several


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


class NotebookFigure(Figure):
    """A Figure that is not registered with pyplot and displays in a notebook."""

    def _repr_png_(self) -> bytes:
        return _png(self)


class _NotebookAxes(Axes):
    """Axes that display in a notebook as their whole Figure."""

    def _repr_png_(self) -> bytes:
        return _png(root_figure(self))


def root_figure(ax: Axes) -> Figure:
    """The Figure of `ax`, even if `ax` is in a SubFigure."""
    return ax.figure.canvas.figure


def _height_over_width(shape: tuple[float, ...]) -> float:
    return float(np.clip(shape[0] / shape[1], 0.2, 4.0))


def new_figure(shape: tuple[int, ...], rows: int, columns: int, suptitle: bool) -> NotebookFigure:
    """A new Figure for rows and columns of panels with the proportions (height, width)."""
    height = rows * _INCHES * _height_over_width(shape) + 0.3 + 0.3 * suptitle
    return NotebookFigure(figsize=(columns * _INCHES + 0.8, height), layout="compressed")


def new_axes(shape: tuple[float, ...], colorbar: bool, width: float = 4.0) -> Axes:
    """Axes of a new Figure, `width` inches wide, with the proportions (height, width)."""
    size = (width + 0.8 * colorbar, width * _height_over_width(shape) + 0.3)
    figure = NotebookFigure(figsize=size, layout="compressed")
    return figure.add_subplot(axes_class=_NotebookAxes)


def finish(ax: Axes, title: str | None) -> None:
    """Removes ticks, draws a thin frame and the title."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(linewidth=0.5, color="0.6")
    if title is not None:
        ax.set_title(title)


def add_colorbar(
    panels: list[Axes],
    cmap: Colormap,
    limit: float,
    numbers: bool = True,
    percentile: float | None = None,
    clipped: bool = False,
) -> None:
    """Draws a slim color scale beside `panels`, which says where colors are clipped.

    Args:
      numbers: False if each panel has its own limit.
      percentile: that of the nonzero magnitudes at which colors saturate, if it was chosen.
      clipped: whether some relevance is beyond `limit`.
    """
    figure = panels[0].figure
    tall = Bbox.union([p.get_window_extent() for p in panels]).height / figure.dpi
    scale = ScalarMappable(Normalize(-limit, limit), cmap)
    bar = figure.colorbar(scale, ax=panels, aspect=max(tall / 0.12, 5.0), pad=0.02)
    clipping = percentile is not None and percentile < 100
    end = f"{limit:.2g}" if numbers else f"p{percentile:g}" if clipping else "max"
    bar.set_ticks([-limit, 0.0, limit], labels=[f"\N{MINUS SIGN}{end}", "0", f"+{end}"])
    bar.ax.tick_params(length=2, labelsize="small")
    bar.outline.set(linewidth=0.5, edgecolor="0.6")
    note = f", clipped at percentile {percentile:g}" if clipping else ", clipped" if clipped else ""
    bar.set_label(f"relevance{note}", fontsize="small")
