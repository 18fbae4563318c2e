"""Figures of an evaluation: bars, radar, critical differences, curves.

All functions draw with matplotlib, ``pip install "jaxlrp[plot]"``, and return a Figure that needs no
display and is not registered with pyplot; a notebook shows it, a script saves it with ``savefig``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from jaxlrp._extras import need

need("matplotlib", "jaxlrp.metrics.figures", "plot")

import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from jaxlrp.metrics.evaluation.significance import Comparison  # noqa: E402
from jaxlrp.metrics.evaluation.table import Table  # noqa: E402
from jaxlrp.plot.figures import NotebookFigure  # noqa: E402

# The palette of Okabe and Ito, which color-blind people can tell apart, without its yellow.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
_STYLES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
_BEST, _OTHER = "#0072B2", "#A9C4D6"
_PANELS = 4  # in a row
_ARROWS = {True: "higher is better", False: "lower is better", None: "no better direction"}


def bars(table: Table, *, title: str | None = None) -> Figure:
    """A panel of bars for each metric, with the intervals; the best explainer is dark.

    Args:
      table: of an evaluation, `evaluation.table()`.
      title: of the figure.

    Returns:
      The Figure. A bar is missing where no sample has a score. Where few bars are more than ten times as
      long as all others, the axis ends after the others, and the long ones are cut and show their value.
    """
    count, names = len(table.metrics), table.explainers
    rows = math.ceil(count / _PANELS)
    columns = math.ceil(count / rows)
    longest = max(map(len, names))
    size = (1.2 + 0.06 * longest + 2.2 * columns, rows * (0.75 + 0.26 * len(names)) + 0.3)
    figure = NotebookFigure(figsize=size, layout="compressed")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    places = np.arange(len(names))
    for j, ax in enumerate(panels):
        if j >= count:
            ax.set_visible(False)
            continue
        value = table.value[:, j]
        best = table.rank[:, j] == np.nanmin(table.rank[:, j], initial=np.inf)
        ends = np.abs(np.stack([value - table.low[:, j], table.high[:, j] - value]))
        ends[~np.isfinite(ends)] = 0.0
        shown = np.where(np.isfinite(value), value, 0.0)
        ax.barh(places, shown, height=0.7, color=[_BEST if b else _OTHER for b in best])
        known = np.isfinite(value)
        ax.errorbar(
            shown[known], places[known], xerr=ends[:, known], fmt="none", ecolor="0.2", elinewidth=1,
            capsize=2,
        )  # fmt: skip
        for i in np.flatnonzero(~known):
            ax.text(
                0,
                i,
                " undefined" if np.isnan(value[i]) else f" {value[i]}",
                va="center",
                size="small",
            )
        _cut(ax, shown)
        what = " (median)" if table.statistic[j] == "median" else ""
        ax.set_title(table.metrics[j] + what, size="medium")
        ax.set_xlabel(_ARROWS[table.higher_is_better[j]], size="small")
        ax.axvline(0, color="0.4", linewidth=0.8)
        ax.tick_params(labelsize="small")
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(places, names)
    panels[0].invert_yaxis()
    _title(figure, title)
    return figure


def _cut(ax: Any, values: np.ndarray) -> None:
    """Ends the axis before bars, at most a quarter of all, more than ten times as long as all others."""
    ordered = np.sort(np.abs(values))[::-1]
    for longest, next_one in pairwise(ordered[: len(ordered) // 4 + 1]):
        if longest > 10 * next_one > 0:
            end, (low, high) = 1.3 * next_one, ax.get_xlim()
            ax.set_xlim(max(low, -end), min(high, end))
            for i in np.flatnonzero(np.abs(values) > end):
                place = math.copysign(0.98 * end, values[i])
                side = "right" if values[i] > 0 else "left"
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
                ax.text(place, i, f"{values[i]:.3g}", ha=side, va="center", size="small", bbox=box)
            return


def radar(table: Table, *, title: str | None = None) -> Figure:
    """A polygon for each explainer: each metric is an axis, from the worst explainer to the best.

    Only the order and relative distances among these explainers can be seen; `bars` shows the scores.
    Metrics without a direction are left out, and so are explainers without a score by one of the other
    metrics.

    Args:
      table: of an evaluation, `evaluation.table()`, with at least three metrics that have a direction.
      title: of the figure.

    Raises:
      ValueError: if there are fewer such metrics, or no explainer is scored by all.
    """
    chosen = [j for j, better in enumerate(table.higher_is_better) if better is not None]
    if len(chosen) < 3:
        raise ValueError(
            f"a radar needs at least 3 metrics with a better direction, got {len(chosen)}: use bars"
        )
    sign = np.array([1.0 if table.higher_is_better[j] else -1.0 for j in chosen])
    value = table.value[:, chosen] * sign
    whole = np.flatnonzero(np.isfinite(value).all(axis=1))
    if not whole.size:
        raise ValueError("no explainer has a finite score by all metrics: use bars")
    low, high = value[whole].min(axis=0), value[whole].max(axis=0)
    share = (value - low) / np.where(high > low, high - low, 1.0)
    angles = np.linspace(0, 2 * np.pi, len(chosen), endpoint=False)
    wide = 6.7 + 0.085 * max(map(len, table.explainers))  # inches: labels, polygon, labels, legend
    figure = NotebookFigure(figsize=(wide, 4.2))
    ax: Any = figure.add_axes((1.5 / wide, 0.1, 3.3 / wide, 0.76), projection="polar")
    for place, i in enumerate(whole):
        color, style, width = _look(place, len(whole))
        around = np.append(np.arange(len(chosen)), 0)
        ax.plot(
            angles[around],
            share[i][around],
            color=color,
            linestyle=style,
            linewidth=width,
            label=table.explainers[i],
        )
    ax.set_theta_offset(np.pi / 2)
    ax.set_theta_direction(-1)
    ax.set_xticks(angles, [table.metrics[j] for j in chosen], size="small")
    for label, angle in zip(ax.get_xticklabels(), angles, strict=True):
        side = math.sin(angle)
        label.set_horizontalalignment(
            "left" if side > 0.1 else "right" if side < -0.1 else "center"
        )
    ax.tick_params(axis="x", pad=2)
    ax.set_yticks([0, 0.5, 1], [])
    between = np.pi / len(chosen)
    for radius, word in ((0, "worst"), (1, "best")):
        ax.text(between, radius, word, size="x-small", color="0.4", ha="center", va="center")
    ax.set_ylim(-0.15, 1.05)
    figure.legend(
        loc="upper left", bbox_to_anchor=(6.1 / wide, 0.92), fontsize="small", frameon=False
    )
    _title(figure, title)
    return figure


def critical_difference(comparison: Comparison, *, title: str | None = None) -> Figure:
    """Mean ranks on a line; explainers that do not differ significantly are joined by a bar.

    Args:
      comparison: of an evaluation, `evaluation.significance(metric)`.
      title: of the figure; None for the metric and the p of the Friedman test.

    References:
      Demšar (2006), https://www.jmlr.org/papers/v7/demsar06a.html
    """
    found = comparison
    order = np.argsort(found.mean_ranks, kind="stable")
    k, mean = len(order), found.mean_ranks[order]
    groups = _groups(mean, found.critical_difference)
    tall = math.ceil(k / 2)
    top = 0.35 * len(groups) + 0.3
    figure = NotebookFigure(
        figsize=(7.0, 1.5 + 0.16 * len(groups) + 0.26 * tall), layout="compressed"
    )
    ax = figure.add_subplot()
    ax.plot([1, k], [0, 0], color="black", linewidth=1.2)
    for tick in range(1, k + 1):
        ax.plot([tick, tick], [0, -0.15], color="black", linewidth=1)
        ax.text(tick, -0.25, str(tick), ha="center", va="bottom", size="small")
    for place, i in enumerate(order):
        left = place < tall
        depth = top + 0.6 * (place if left else k - 1 - place) + 0.3
        end = 0.8 if left else k + 0.2
        ax.plot([mean[place], mean[place], end], [0, depth, depth], color="0.35", linewidth=0.9)
        text = (
            f"{found.explainers[i]}  {mean[place]:.2f}"
            if left
            else f"{mean[place]:.2f}  {found.explainers[i]}"
        )
        ax.text(
            end + (-0.05 if left else 0.05),
            depth,
            text,
            ha="right" if left else "left",
            va="center",
            size="small",
        )
    for level, (first, last) in enumerate(groups):
        height = 0.3 + 0.35 * level
        ax.plot(
            [mean[first] - 0.04, mean[last] + 0.04],
            [height] * 2,
            color=_BEST,
            linewidth=4,
            solid_capstyle="round",
        )
    width = min(found.critical_difference, k - 1)
    ax.plot([1, 1 + width], [-1.0, -1.0], color="black", linewidth=1.2)
    for end in (1, 1 + width):
        ax.plot([end, end], [-1.1, -0.9], color="black", linewidth=1.2)
    more = "" if width == found.critical_difference else " (more than the whole line)"
    ax.text(
        1 + width / 2,
        -1.15,
        f"critical difference {found.critical_difference:.2f}{more}",
        ha="center",
        va="bottom",
        size="small",
    )
    wide = 0.05 * k * 1.6
    ax.set_xlim(0.8 - wide - 0.9, k + 0.2 + wide + 0.9)
    ax.set_ylim(top + 0.6 * tall + 0.2, -1.7)
    ax.set_axis_off()
    _title(
        figure,
        title
        or f"{found.metric}: mean rank over {found.samples} samples, Friedman p = {found.p:.2g}",
    )
    return figure


def curves(
    found: Mapping[str, Any], *, score: str = "score of the target", title: str | None = None
) -> Figure:
    """Removal curves: how the score falls with the most and with the least relevant features first.

    Lines are means over the samples with a curve, bands are 95% intervals of the mean (1.96 standard
    errors).

    Args:
      found: curves by name of the explainer, such as those of `jaxlrp.metrics.curves`: `morf` and `lerf`
        (samples, points), `removed` (points,).
      score: what is on the vertical axis.
      title: of the figure.

    Raises:
      ValueError: if there is no curve, or all of an explainer are `nan`.
    """
    if not found:
        raise ValueError("found is empty: pass the curves of at least one explainer")
    figure = NotebookFigure(figsize=(8.6, 3.3), layout="compressed")
    panels = figure.subplots(1, 2, sharey=True)
    heads = ("most relevant first (lower is better)", "least relevant first (higher is better)")
    for ax, which, head in zip(panels, ("morf", "lerf"), heads, strict=True):
        for place, (name, held) in enumerate(found.items()):
            values, removed = np.asarray(getattr(held, which)), np.asarray(held.removed)
            values = values[~np.isnan(values).any(axis=1)]
            if not len(values):
                raise ValueError(
                    f"found[{name!r}] must contain at least one finite curve, got only NaN"
                )
            share = removed / removed[-1]
            mean, error = values.mean(axis=0), values.std(axis=0) / math.sqrt(len(values))
            color, style, width = _look(place, len(found))
            ax.plot(
                share,
                mean,
                color=color,
                linestyle=style,
                label=name if which == "morf" else None,
                linewidth=width,
            )
            ax.fill_between(
                share,
                mean - 1.96 * error,
                mean + 1.96 * error,
                color=color,
                alpha=0.12,
                linewidth=0,
            )
        ax.set_title(head, size="medium")
        ax.set_xlabel("share of features removed", size="small")
        ax.set_xlim(0, 1)
        ax.tick_params(labelsize="small")
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(score, size="small")
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    _title(figure, title)
    return figure


def _groups(mean: np.ndarray, critical: float) -> list[tuple[int, int]]:
    """First and last place of each longest run of sorted mean ranks that lie within the difference."""
    found: list[tuple[int, int]] = []
    for first in range(len(mean)):
        last = int(np.flatnonzero(mean <= mean[first] + critical)[-1])
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def _look(place: int, count: int) -> tuple[str, Any, float]:
    """Color, style and width of a line; later lines are thinner, so that equal ones can be seen."""
    width = 3.0 - 1.8 * place / max(count - 1, 1)
    return _COLORS[place % len(_COLORS)], _STYLES[(place // len(_COLORS)) % len(_STYLES)], width


def _title(figure: Figure, title: str | None) -> None:
    if title is not None:
        figure.suptitle(title, size="medium")


__all__: Sequence[str] = ["bars", "critical_difference", "curves", "radar"]
