"""The HDF5 files, written slice by slice."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

import h5py
import numpy as np
from numpy.typing import ArrayLike

from jaxlrp.spray.analysis import Analysis, used_columns
from jaxlrp.virelay.lazy import Rows, slices
from jaxlrp.virelay.pixels import Allowed, Range, to_maps, to_pixels

_CHUNK = 1 << 17  # bytes: the viewer reads one row at a time, and unpacks a chunk for it


def write_rows(
    group: h5py.Group,
    name: str,
    source: Rows,
    convert: Callable[[np.ndarray, int], np.ndarray],
    size: int,
    argument: str,
) -> None:
    """Writes an array as long as `source`, holding one slice of it at a time.

    Args:
      group: where to.
      name: of the array.
      source: what is read.
      convert: from rows of the source and the number of the first to rows of the array.
      size: rows in a slice.
      argument: what messages call the source.
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
            f"prediction must be finite, for the browser reads no NaN, got row {row} with one"
        )
    return values


def write_analysis(
    path: pathlib.Path, analyses: Sequence[Analysis], identifiers: dict[int, str]
) -> None:
    """analysis.h5: one group for each class, in the order given, as are embeddings and clusterings."""
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
            # Largest first: the viewer draws them from the last to the first.
            ascending = np.sort(np.asarray(embedding.eigenvalues, np.float64))
            group[name].attrs["eigenvalue"] = ascending[::-1]
        if embedding.of is not None:
            group[name].attrs["embedding"] = embedding.of
            columns = np.shape(analysis.embeddings[embedding.of].values)[1]
            group[name].attrs["index"] = np.arange(columns, dtype=np.uint32)


def _to_points(values: ArrayLike) -> np.ndarray:
    """(n, d) float32 that the viewer can draw, as the one point of a class of one sample."""
    points = np.asarray(values).astype(np.float32)
    points = np.pad(points, [(0, 0), (0, max(0, 2 - points.shape[1]))])  # it draws two columns
    if not points[:, :2].any():
        points[:, 0] = 1.0  # it divides by the largest coordinate, so not all may be at the origin
    return points


def _write_clusterings(group: h5py.Group, analysis: Analysis) -> None:
    for name, clustering in analysis.clusterings.items():
        group[name] = np.asarray(clustering.labels).astype(np.int32)
        group[name].attrs["embedding"] = clustering.of
        columns = used_columns(clustering, analysis.embeddings[clustering.of])
        group[name].attrs["index"] = np.arange(columns, dtype=np.uint32)
        if clustering.k is not None:
            group[name].attrs["k"] = clustering.k
