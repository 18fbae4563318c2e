"""Figures of a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jaxlrp import (
    plot,
)  # before matplotlib, so that a missing matplotlib gets the message of jaxlrp.plot
from jaxlrp.spray.analysis import Analysis, Clustering

# isort: split
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def overview(analysis: Analysis, clustering: Clustering, view: str) -> Figure:
    """The eigenvalues with the gap after the clusters, and a view with clusters as colors."""
    figure = Figure(figsize=(10.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    values = analysis.embeddings[clustering.base].eigenvalues
    if values is None:
        left.set_axis_off()
    else:
        _eigenvalues(left, values, clustering.n_clusters)
    _scatter(right, analysis.embeddings[view].values, clustering.labels)
    right.set_title(view)
    return figure


def _eigenvalues(ax: Axes, values: np.ndarray, k: int | None) -> None:
    ax.plot(np.arange(1, len(values) + 1), values, "o-", color="0.3", markersize=4, linewidth=0.8)
    if k is not None and k < len(values):
        ax.axvline(k + 0.5, color="#b31318", linestyle="--", linewidth=1)
        ax.annotate(
            f"k = {k}",
            (k + 0.5, 0.97),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            xytext=(5, 0),
            va="top",
            color="#b31318",
        )
    ax.set(xlabel="number", ylabel="eigenvalue of the Laplacian", title="eigengap", ylim=(0, None))
    ax.spines[["top", "right"]].set_visible(False)


def _scatter(ax: Axes, points: np.ndarray, labels: np.ndarray) -> None:
    flat = np.zeros((len(points), 2))
    flat[:, : min(2, points.shape[1])] = points[:, :2]
    colors = mpl.colormaps["tab10"]
    for cluster in np.unique(labels):
        inside = labels == cluster
        color = "0.75" if cluster < 0 else colors(cluster % 10)
        name = "noise" if cluster < 0 else str(cluster)
        # Rasterized, small and without edges, so that fifty thousand points stay one image.
        ax.scatter(*flat[inside].T, s=8, color=color, linewidths=0, label=name)
    if len(np.unique(labels)) <= 12:
        ax.legend(
            title="cluster", markerscale=2, frameon=False, bbox_to_anchor=(1, 1), loc="upper left"
        )
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(linewidth=0.5, color="0.6")


def strip(
    panels: Sequence[tuple[str, np.ndarray, np.ndarray | None]],
    draw: Callable[[Axes, np.ndarray, np.ndarray | None], None],
) -> Figure:
    """Samples side by side, each with its own color scale."""
    figure = Figure(figsize=(1.5 * max(len(panels), 2), 1.8), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, relevance, below) in zip(axes, panels, strict=True):
        draw(ax, relevance, below)
        ax.set_title(title, fontsize=9)
    return figure


def draw_sample(ax: Axes, relevance: np.ndarray, below: np.ndarray | None) -> None:
    """Draws a signal as a line and an image as a heatmap, over its input if given.

    Raises:
      ValueError: if the shape of the relevance is not (T,), (H, W) or (H, W, 1 or 3).
    """
    if relevance.ndim == 1:
        _line(ax, relevance, below)
    elif relevance.ndim == 2 or (relevance.ndim == 3 and relevance.shape[-1] in (1, 3)):
        values = relevance if relevance.ndim == 2 else relevance.sum(axis=-1)
        if below is not None and below.shape[:2] == values.shape:
            plot.overlay(values, below, ax=ax, channel_axis=-1 if below.ndim == 3 else None)
        else:
            plot.heatmap(values, ax=ax)
    else:
        raise ValueError(
            "to be drawn, preprocess must return relevance (n, T), (n, H, W) or (n, H, W, 3), got "
            f"samples of shape {relevance.shape}; sum over channels, or pass draw="
        )


def _line(ax: Axes, relevance: np.ndarray, below: np.ndarray | None) -> None:
    if below is not None and below.shape == relevance.shape and len(relevance) > 1:
        plot.signal(relevance, below, ax=ax, colorbar=False)
    else:
        ax.axhline(0.0, color="0.8", linewidth=0.8)
        ax.plot(relevance, color="0.2", linewidth=0.8)
    ax.set(xlabel="")
    ax.tick_params(labelsize=6)
