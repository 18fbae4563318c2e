"""Figures of causes: groups by prevalence and risk, their contributions, the network, its training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlrp._extras import need
from jaxlrp.causes.groups import Groups
from jaxlrp.causes.network import RiskNetwork

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["contributions", "dendrogram", "prevalence_and_risk", "training", "weights"]


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    need("matplotlib", "a figure of causes", "plot")
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained").add_subplot()


def _color(k: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab10"](k % 10)


def prevalence_and_risk(network: RiskNetwork, found: Groups, ax: Axes | None = None) -> Axes:
    """A box for each group: as wide as its prevalence, as high as its risk; areas are shares of cases.

    Args:
      network: whose baseline is drawn.
      found: from `groups`.
      ax: where to draw; None for a new figure, `ax.figure`.

    Raises:
      ImportError: without matplotlib.
    """
    ax = _axes(ax, (5, 3.5))
    left = 0.0
    for k, group in enumerate(found.groups):
        ax.bar(left, group.risk, group.prevalence, align="edge", color=_color(k), ec="white")
        middle = left + group.prevalence / 2
        ax.annotate(str(k), (middle, group.risk), ha="center", va="bottom")
        left += group.prevalence
    ax.axhline(float(network.baseline), color="black", ls="--", lw=1, label="baseline")
    ax.set(xlabel="share of people", ylabel="risk", xlim=(0, 1))
    ax.legend()
    return ax


def contributions(found: Groups, ax: Axes | None = None) -> Axes:
    """The mean contribution of each exposure in each group, with its standard deviation; crosses: alone.

    Args:
      found: from `groups`.
      ax: where to draw; None for a new figure, `ax.figure`.

    Raises:
      ImportError: without matplotlib.
    """
    ax = _axes(ax, (6, 4))
    names, count = found.groups[0].names, len(found.groups)
    at = np.arange(len(names))
    for k, group in enumerate(found.groups):
        place = at + (k - (count - 1) / 2) * 0.8 / count
        label = f"{k}: {group.prevalence:.0%}, risk {group.risk:.3f}"
        ax.barh(
            place, group.contributions, 0.8 / count, xerr=group.spread, color=_color(k), label=label
        )
        ax.plot(group.alone, place, "kx", ms=4)
    ax.set_yticks(at, names)
    ax.invert_yaxis()
    ax.set_xlabel("contribution to the risk (cross: of the exposure alone)")
    ax.legend(fontsize=8)
    return ax


def dendrogram(found: Groups, ax: Axes | None = None) -> Axes:
    """The distances at which clusters are merged, the last first: where they drop, cut.

    Args:
      found: from `groups`.
      ax: where to draw; None for a new figure, `ax.figure`.

    Raises:
      ImportError: without matplotlib.
    """
    ax = _axes(ax, (4, 3))
    last = [merge.distance for merge in found.merges[::-1]][:20]
    left = np.arange(1, len(last) + 1)
    ax.step(left, last, where="mid", color="black")
    ax.axvline(len(found.groups) - 0.5, ls="--", lw=1, color="red")
    ax.set(xlabel="groups left by the merge", ylabel="distance of the merge")
    return ax


def weights(network: RiskNetwork, ax: Axes | None = None) -> Axes:
    """The network: a line from each exposure to each hidden unit, as wide as its weight.

    Args:
      network: from `fit`.
      ax: where to draw; None for a new figure, `ax.figure`.

    Raises:
      ImportError: without matplotlib.
    """
    ax = _axes(ax, (5, 4))
    w, b = np.asarray(network.weights, float), np.asarray(network.biases, float)
    left, right = np.linspace(1, 0, len(w)), np.linspace(1, 0, len(b))
    largest = w.max() or 1.0
    for i, j in zip(*np.nonzero(w > largest / 100), strict=True):
        ax.plot((0, 1), (left[i], right[j]), color="black", lw=4 * w[i, j] / largest, alpha=0.6)
    for y, name in zip(left, network.names, strict=True):
        ax.annotate(name, (-0.02, y), ha="right", va="center")
    for y, bias in zip(right, b, strict=True):
        ax.plot(1, y, "o", ms=9, mfc="white", mec="black")
        ax.annotate(f"{bias:.2f}", (1.04, y), va="center", fontsize=8)
    ax.set(xlim=(-0.5, 1.3), title=f"baseline {float(network.baseline):.3f}")
    ax.set_axis_off()
    return ax


def training(network: RiskNetwork, ax: Axes | None = None) -> Axes:
    """The mean squared error during training.

    Args:
      network: from `fit`.
      ax: where to draw; None for a new figure, `ax.figure`.

    Raises:
      ImportError: without matplotlib.
    """
    ax = _axes(ax, (4, 3))
    ax.plot(np.asarray(network.losses), color="black", lw=1)
    ax.set(xlabel="step", ylabel="mean squared error")
    return ax
