"""The files of zennit-crp: reference samples of each concept, of all samples and of each class.

`{Rel,Act}Max_{sum,max}_{normed,unnormed}/LAYER_{data,rel,rf}.npy` hold, for all samples together, the
index in the data set, the score and the position, each (k, concepts) in int64, float32 and int64;
`{Rel,Act}Stats_.../LAYER/CLASS_{data,rel,rf}.npy` the same for each class, and `targets.npy` in that folder
the classes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxlrp._checks import as_path
from jaxlrp.concepts.opened import By, StoredScores
from jaxlrp.concepts.topk import TopK
from jaxlrp.errors import near

_WORDS = {
    "relevance": ("Rel", "sum"),
    "relevance_max": ("Rel", "max"),
    "activation": ("Act", "sum"),
    "activation_max": ("Act", "max"),
}


def write_zennit(
    path: str | os.PathLike[str],
    scores: StoredScores,
    *,
    layers: Mapping[str, str] | None = None,
    by: Sequence[By] = ("relevance", "activation"),
    normalized: bool = True,
    k: int = 40,
) -> None:
    """Writes the reference samples of each concept as files of zennit-crp.

    If each sample has a class, the reference samples of each class are written too, except for classes
    without samples. Existing files are replaced.

    Args:
      path: the folder that zennit-crp calls "path"; created if missing.
      scores: the result of `open_scores`. Its ids are written as the indices of samples if they are
        integers, else its rows.
      layers: from names of families to names of layers in zennit-crp; None for all, under their own names.
      by: which scores.
      normalized: whether they are normalized.
      k: the maximum number of samples of each concept, >= 1. zennit-crp keeps 40.

    Raises:
      KeyError: if there are no such concepts.
      ValueError: if an argument is invalid.
    """
    if isinstance(by, str):
        raise TypeError(f"by must be a list of scores, such as [{by!r}], got {by!r}")
    names = {name: name for name in scores} if layers is None else dict(layers)
    indices = np.arange(len(scores.ids))
    if all(isinstance(name, int) for name in scores.ids):
        indices = np.array(scores.ids, np.int64)
    classes = [] if scores.targets is None else np.unique(scores.targets).tolist()
    for one in by:
        for name, layer in names.items():
            whole = scores.top(name, min(k, len(indices)), one, normalized=normalized)
            _write(_folder(path, one, normalized, "Max"), f"{layer}_", whole, indices)
            if not classes:
                continue
            stats = _folder(path, one, normalized, "Stats")
            each = scores.top(name, whole.k, one, normalized=normalized, per_class=classes)
            for place, c in enumerate(classes):
                _write(stats / layer, f"{c}_", each[place], indices)
            np.save(stats / "targets.npy", np.array(classes, np.int64))


def read_zennit(
    path: str | os.PathLike[str],
    layer: str,
    *,
    by: By = "relevance",
    normalized: bool = True,
    target: int | None = None,
) -> TopK:
    """Reads the reference samples of the concepts of a layer from files of zennit-crp.

    Args:
      path: the folder that zennit-crp calls "path".
      layer: the layer.
      by: which score.
      normalized: whether it is normalized.
      target: the class; None for all samples together.

    Returns:
      A `TopK` of shape (concepts, k), whose rows are indices in the data set.

    Raises:
      FileNotFoundError: if there are no such files; it lists the available ones.
      ValueError: if the shapes of the arrays do not match.
    """
    if by not in _WORDS:
        raise ValueError(f"by must be one of {', '.join(map(repr, _WORDS))}, got {by!r}")
    folder = _folder(path, by, normalized, "Max" if target is None else "Stats")
    folder, name = (folder, layer) if target is None else (folder / layer, str(target))
    paths = [folder / f"{name}_{part}.npy" for part in ("rel", "data", "rf")]
    if not all(p.is_file() for p in paths):
        there = [p.name.removesuffix("_data.npy") for p in folder.glob("*_data.npy")]
        what = "layer" if target is None else f"class of the layer {layer!r}"
        raise FileNotFoundError(f"{str(folder)!r} has no {what} {name!r}: {near(name, there)}")
    values, rows, positions = (np.load(p, allow_pickle=False).T for p in paths)
    if values.ndim != 2 or not values.shape == rows.shape == positions.shape:
        raise ValueError(
            f"the arrays of {name!r} in {str(folder)!r} must have one shape, (samples, concepts), got "
            f"{[a.T.shape for a in (values, rows, positions)]}"
        )
    return TopK(values, rows.astype(np.int64), positions.astype(np.int64))


def _folder(path: str | os.PathLike[str], by: str, normalized: bool, kind: str) -> Path:
    mode, reduced = _WORDS[by]
    return (
        as_path("path", path) / f"{mode}{kind}_{reduced}_{'normed' if normalized else 'unnormed'}"
    )


def _write(folder: Path, start: str, top: TopK, indices: np.ndarray) -> None:
    """One state, without the places that are empty for all concepts."""
    folder.mkdir(parents=True, exist_ok=True)
    count = int((top.rows >= 0).sum(axis=-1).max())
    parts = {
        "data": indices[top.rows[:, :count]].astype(np.int64),
        "rel": top.values[:, :count].astype(np.float32),
        "rf": top.positions[:, :count].astype(np.int64),
    }
    for name, held in parts.items():
        np.save(folder / f"{start}{name}.npy", np.ascontiguousarray(held.T))
