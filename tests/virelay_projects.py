"""Small projects to export, for the tests of jaxlrp.virelay."""

from __future__ import annotations

import numpy as np

from jaxlrp.spray.analysis import Analysis, Clustering, Embedding
from jaxlrp.virelay import Attribution

N, H, W, CLASSES = 14, 9, 7, ["T-shirt/top", "n02124075", "Bag"]
LABELS = np.arange(N) % 3
PREDICTION = np.random.default_rng(1).normal(size=(N, 3))


def images(channels: int = 3) -> np.ndarray:
    """(N, H, W, C) uint8, smooth, so that JPEG keeps them."""
    rows, columns = np.mgrid[:H, :W]
    levels = [8 * rows + 9 * columns * (c + 1) / 3 for c in range(channels)]
    step = np.arange(N)[:, None, None, None] * 6
    return (np.stack(levels, axis=-1)[None] + step).astype(np.uint8)


def relevance(channels: int = 3, seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N, H, W, channels))


def analysis(category: int, index: np.ndarray | None = None, seed: int = 0) -> Analysis:
    """Two embeddings, the first made from the second, and two clusterings. Not in alphabetical order."""
    index = np.flatnonzero(category == LABELS) if index is None else index
    rng = np.random.default_rng(seed + category)
    points = rng.normal(size=(len(index), 4))
    return Analysis(
        category,
        index,
        {
            "tsne": Embedding(points[:, :2] * 3, base="spectral"),
            "spectral": Embedding(points, np.array([0.0, 0.125, 0.5, 0.75])),
        },
        {
            "kmeans-2": Clustering(np.arange(len(index)) % 2, "spectral", 2),
            "dbscan": Clustering(np.arange(len(index)) % 3 - 1, "tsne"),
        },
    )


def analyses() -> dict[str, list[Analysis]]:
    return {"spray-abs": [analysis(1), analysis(2), analysis(0)], "other": [analysis(0, seed=7)]}


def attribution(**changes) -> Attribution:
    values = {"relevance": relevance(), "prediction": PREDICTION, "analyses": analyses(), **changes}
    return Attribution(**values)


def arguments(**changes) -> dict:
    """Of `export_virelay`, but for the path."""
    return {
        "images": images(),
        "labels": LABELS,
        "classes": CLASSES,
        "attributions": attribution(),
        **changes,
    }
