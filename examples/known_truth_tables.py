"""Tables and figures of `known_truth.py`."""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from jaxlrp import metrics, plot
from jaxlrp.metrics import truth

CONTROLS = ("random", "input contrast", "edges")


class Row(NamedTuple):
    """One line of the table of all scores."""

    benchmark: str
    seed: int
    explained: str
    mask: str
    explainer: str
    metric: str
    value: float
    low: float
    high: float
    undefined: float


def rows_of(
    name: str, seed: int, explained: str, mask: str, found: metrics.Evaluation
) -> list[Row]:
    table = found.table(resamples=300)
    return [
        Row(
            name, seed, explained, mask, explainer, metric, *(float(a[i, j]) for a in (
                table.value, table.low, table.high, table.undefined)),
        )
        for i, explainer in enumerate(found.explainers)
        for j, metric in enumerate(found.metrics)
    ]  # fmt: skip


def means(rows: list[Row], **fixed: Any) -> dict[tuple[str, str], list[float]]:
    """Values over seeds by (explainer, metric), of the rows with these fields."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if all(getattr(row, k) == v for k, v in fixed.items()):
            found.setdefault((row.explainer, row.metric), []).append(row.value)
    return found


def interval(values: list[float]) -> str:
    """The mean over seeds, and their range."""
    held = [v for v in values if not np.isnan(v)]
    if not held:
        return "undefined"
    return f"{held[0]:.2f}" if len(held) == 1 else f"{np.mean(held):.2f} ({span(held)})"


def span(values: list[float]) -> str:
    """The least and the largest value."""
    held = [v for v in values if not np.isnan(v)]
    return f"{min(held):.2f} to {max(held):.2f}" if held else "undefined"


def poolings(rows: list[Row], name: str, mask: str, kind: str) -> str:
    """Every pooling of one benchmark, as a table in Markdown."""
    found = {k: v for k, v in means(rows, benchmark=name, explained="network", mask=mask).items()
             if k[1].startswith(kind)}  # fmt: skip
    columns = list(dict.fromkeys(m for _, m in found))
    lines = [["", *(m.partition(", ")[2] or m for m in columns)]]
    lines += [
        [e, *(interval(found[e, m]) for m in columns)] for e in dict.fromkeys(e for e, _ in found)
    ]
    return markdown(lines)


def lifts(rows: list[Row], explained: str, kind: str) -> str:
    """All benchmarks: the mean lift over seeds, from the pooling with the least to that with the most."""
    names = list(dict.fromkeys(r.benchmark for r in rows))
    found = {n: means(rows, benchmark=n, explained=explained, mask="lift") for n in names}
    lines = [["", *names]]
    for explainer in dict.fromkeys(e for held in found.values() for e, _ in held):
        cells = []
        for n in names:
            values = [
                float(np.mean(v))
                for (e, m), v in found[n].items()
                if e == explainer and m.startswith(kind)
            ]
            cells.append(span(values) if values else "-")
        lines.append([explainer, *cells])
    return markdown(lines)


def failures(rows: list[Row]) -> tuple[str, float]:
    """The lift of each planted failure, and the largest size of a mean.

    Means over methods, poolings, seeds and both metrics; in parentheses the method that is farthest from 0.
    """
    names = list(dict.fromkeys(r.benchmark for r in rows))
    lines, worst = [["", *names]], 0.0
    for explained in ("network", "random weights", "wrong question", "other masks"):
        cells = []
        for name in names:
            held: dict[str, list[float]] = {}
            for row in rows:
                fits = row.benchmark == name and row.explained == explained and row.mask == "lift"
                if fits and row.explainer not in CONTROLS and not np.isnan(row.value):
                    held.setdefault(row.explainer, []).append(row.value)
            values = [np.mean(v) for v in held.values()]
            cells.append(f"{np.mean(values):.3f} ({max(values, key=abs):.2f})")
            if explained != "network":
                worst = max(worst, abs(float(np.mean(values))))
        lines.append([explained, *cells])
    return markdown(lines), worst


def markdown(lines: list[list[str]]) -> str:
    head, *rest = lines
    return "\n".join("| " + " | ".join(c) + " |" for c in (head, ["---"] * len(head), *rest))


def figure(rows: list[Row]) -> Figure:
    """The lift of rank accuracy in each benchmark: a line from the least to the largest of six poolings."""
    names = list(dict.fromkeys(r.benchmark for r in rows))
    shown = Figure(figsize=(1.6 + 1.9 * len(names), 5), layout="constrained")
    axes = np.atleast_1d(shown.subplots(1, len(names), sharey=True))
    order = list(dict.fromkeys(r.explainer for r in rows))[::-1]
    for ax, name in zip(axes, names, strict=True):
        found = means(rows, benchmark=name, explained="network", mask="lift")
        for y, explainer in enumerate(order):
            held = [
                np.mean(v) for (e, m), v in found.items() if e == explainer and m.startswith("rank")
            ]
            if held:
                color = "gray" if explainer in CONTROLS else "tab:red"
                ax.plot([min(held), max(held)], [y, y], "o-", color=color, markersize=3)
        ax.axvline(0, color="black", linewidth=0.5)
        ax.set(title=name, xlabel="lift of rank")
    axes[0].set_yticks(range(len(order)), order)
    return shown


def draw(kept: truth.Benchmark, found: dict[str, np.ndarray], path: pathlib.Path) -> None:
    """Some samples, their true masks, and the relevance of some methods."""
    shown = [
        n for n in ("default", "all_epsilon", "epsilon_plus", "integrated gradients") if n in found
    ]
    figure = Figure(figsize=(2 * (2 + len(shown)), 6), layout="constrained")
    axes = figure.subplots(3, 2 + len(shown))
    for i, row in enumerate(axes):
        row[0].imshow(np.clip(kept.inputs[i] + 0.5, 0, 1))
        row[1].imshow(
            np.broadcast_to(kept.mask()[i], (*kept.inputs.shape[1:3], 1))[..., 0], cmap="gray_r"
        )
        for ax, name in zip(row[2:], shown, strict=True):
            plot.heatmap(found[name][i], ax=ax)
            ax.set_title(name if i == 0 else "", fontsize=9)
        for ax in row:
            ax.set_axis_off()
    axes[0, 0].set_title(kept.name, fontsize=9)
    axes[0, 1].set_title(f"truth: {kept.truth}", fontsize=9)
    figure.savefig(path, dpi=120)
