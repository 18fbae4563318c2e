"""Writes the HDF5 files slice by slice."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

import h5py
import numpy as np
from numpy.typing import ArrayLike

from jaxlrp.spray.analysis import Analysis, used_columns
from jaxlrp.virelay.lazy import Rows, slices
from jaxlrp.virelay.pixels import Allowed, Range, to_maps, to_pixels

_CHUNK = 1 << 17  # bytes: the viewer reads one row at a time and unpacks its whole chunk


def write_rows(
    group: h5py.Group,
    name: str,
    source: Rows,
    convert: Callable[[np.ndarray, int], np.ndarray],
    size: int,
    argument: str,
) -> None:
    """Writes an array as long as `source`, with one slice in memory at a time.

    Args:
      group: the HDF5 group to write to.
      name: name of the array.
      source: what is read.
      convert: function from rows of the source and the number of the first to rows of the array.
      size: rows in a slice.
      argument: name of the source in messages.
    """
    dataset = None
    for start, part in slices(source, argument, size):
        rows = convert(part, start)
        if dataset is None:
            in_chunk = max(1, min(size, source.shape[0], _CHUNK // max(1, rows[0].nbytes)))
            size_of_chunk = (in_chunk, *rows.shape[1:])
            dataset = group.create_dataset(
                name, (source.shape[0], *rows.shape[1:]), rows.dtype,
                chunks=size_of_chunk, compression="gzip", compression_opts=1, shuffle=True,
            )  # fmt: skip
        dataset[start : start + len(rows)] = rows


def write_dataset(
    path: pathlib.Path,
    images: Rows,
    labels: np.ndarray,
    channel_axis: int,
    limits: Range | None,
    size: int,
) -> None:
    """dataset.h5: data (N, 3, H, W) uint8 and label."""
    with h5py.File(path, "w") as file:
        write_rows(
            file, "data", images, lambda b, at: to_pixels(b, at, channel_axis, limits), size, "images"
        )  # fmt: skip
        file["label"] = labels


def write_attribution(
    path: pathlib.Path,
    relevance: Rows,
    prediction: Rows,
    labels: np.ndarray,
    rows: np.ndarray | None,
    channel_axis: int,
    allowed: Allowed,
    size: int,
) -> None:
    """attribution.h5: attribution (M, 3, H, W) float32, prediction, label; index unless it is 0, 1, ..."""
    with h5py.File(path, "w") as file:
        write_rows(
            file, "attribution", relevance, lambda b, at: to_maps(b, at, channel_axis, allowed),
            size, "relevance",
        )  # fmt: skip
        write_rows(file, "prediction", prediction, _to_prediction, size, "prediction")
        file["label"] = labels[: relevance.shape[0]] if rows is None else labels[rows]
        if rows is not None:
            file["index"] = rows


def _to_prediction(batch: np.ndarray, start: int) -> np.ndarray:
    values = batch.astype(np.float32)
    if not np.isfinite(values).all():
        row = start + int(np.argwhere(~np.isfinite(values))[0, 0])
        raise ValueError(
            f"prediction must be finite, because the browser cannot read NaN, but row {row} is not"
        )
    return values


def write_analysis(
    path: pathlib.Path, analyses: Sequence[Analysis], identifiers: dict[int, str]
) -> None:
    """analysis.h5: one group per class. Classes, embeddings and clusterings keep their given order."""
    with h5py.File(path, "w", track_order=True) as file:
        for analysis in analyses:
            category = file.create_group(identifiers[int(analysis.category)], track_order=True)
            category["index"] = np.asarray(analysis.index).astype(np.uint32)
            _write_embeddings(category.create_group("embedding", track_order=True), analysis)
            _write_clusterings(category.create_group("cluster", track_order=True), analysis)


def _write_embeddings(group: h5py.Group, analysis: Analysis) -> None:
    for name, embedding in analysis.embeddings.items():
        group[name] = _to_points(embedding.values)
        if embedding.eigenvalues is not None:
            # Largest first: the viewer draws them from last to first.
            ascending = np.sort(np.asarray(embedding.eigenvalues, np.float64))
            group[name].attrs["eigenvalue"] = ascending[::-1]
        if embedding.base is not None:
            group[name].attrs["embedding"] = embedding.base
            columns = np.shape(analysis.embeddings[embedding.base].values)[1]
            group[name].attrs["index"] = np.arange(columns, dtype=np.uint32)


def _to_points(values: ArrayLike) -> np.ndarray:
    """(n, d) float32 points that the viewer can draw, also for a class with one sample."""
    points = np.asarray(values).astype(np.float32)
    points = np.pad(
        points, [(0, 0), (0, max(0, 2 - points.shape[1]))]
    )  # the viewer draws two columns
    if not points[:, :2].any():
        points[:, 0] = 1.0  # the viewer divides by the largest coordinate, so not all may be zero
    return points


def _write_clusterings(group: h5py.Group, analysis: Analysis) -> None:
    for name, clustering in analysis.clusterings.items():
        group[name] = np.asarray(clustering.labels).astype(np.int32)
        group[name].attrs["embedding"] = clustering.base
        columns = used_columns(clustering, analysis.embeddings[clustering.base])
        group[name].attrs["index"] = np.arange(columns, dtype=np.uint32)
        if clustering.n_clusters is not None:
            group[name].attrs["k"] = clustering.n_clusters
