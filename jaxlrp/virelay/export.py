"""Exports images, relevance and analyses to a project that ViRelAy opens."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlrp._checks import as_path, check_count
from jaxlrp.virelay.attribution import Attribution
from jaxlrp.virelay.folder import check_target, write_whole
from jaxlrp.virelay.labels import Classes, as_labels, label_map, valid_identifier
from jaxlrp.virelay.lazy import Rows, as_rows
from jaxlrp.virelay.pixels import (
    Allowed,
    Range,
    check_image_channels,
    check_size,
    is_range,
    size_of,
)
from jaxlrp.virelay.project import Part, analysis_files, project_file
from jaxlrp.virelay.validate import (
    check_attribution,
    check_prediction,
    checked_analyses,
    rows_of,
    rows_of_index,
    text,
)
from jaxlrp.virelay.write import write_analysis, write_attribution, write_dataset

_SLICE = 1 << 24  # bytes of relevance in float32, by default


def export_virelay(
    path: str | os.PathLike[str],
    *,
    images: Rows,
    labels: Any,
    classes: Classes,
    attributions: Attribution | Sequence[Attribution],
    word_net_ids: Classes | None = None,
    image_range: Range | None = None,
    channel_axis: int = -1,
    name: str = "relevance",
    model: str = "model",
    dataset: str = "dataset",
    allow_zero: bool = False,
    allow_negative: bool = False,
    batch_size: int | None = None,
    overwrite: bool = False,
) -> tuple[pathlib.Path, ...]:
    """Writes a folder that ViRelAy opens with ``python -m virelay FOLDER/project.yaml``.

    A ViRelAy project has one attribution method. Several methods give several project files that share the
    images: pass all of them to ``python -m virelay``.

    Images and relevance are read and written in slices, so memory does not grow with their number. The
    folder appears only once it is complete; an error leaves no files.

    Args:
      path: the folder, which must not exist yet.
      images: (N, H, W) or (N, H, W, C) with C of 1 or 3, H and W at least 4; anything that can be sliced.
        uint8, or real numbers with `image_range`. Gray images are written as three equal channels. Use
        `render_signals` or `render_tokens` for other data.
      labels: (N,) integers, the true label of each image; or (N, classes) booleans if images can have
        several. Kept in memory.
      classes: names of the labels, as a sequence or by number.
      attributions: one `Attribution`, or several with different methods.
      word_net_ids: identifiers of the labels, in the form of `classes`, from WordNet or your own; the
        viewer uses them as names of categories. None: made from `classes`. Characters that are invalid in
        HDF5 names become "_".
      image_range: the values of black and white. Values are scaled and rounded to 256 levels. None: images
        are uint8.
      channel_axis: axis of the channels of four-dimensional images and relevance: -1 or 1.
      name: name of the project in the viewer; with several attributions, the method is appended.
      model: name of the model.
      dataset: name of the data set.
      allow_zero: whether a map may be zero everywhere; the viewer shows it black.
      allow_negative: whether a map may have no positive relevance. Three color maps of the viewer show such
        a map incorrectly: "gray-red", "black-green" and "black-yellow". The other five are correct.
      batch_size: rows to read at once, > 0. None: 16 MiB of relevance.
      overwrite: whether to replace an earlier export. A folder with any other content is never replaced.

    Returns:
      The project files: ``project.yaml``, or one ``project-METHOD.yaml`` for each of several attributions.

    Raises:
      TypeError: if an argument has the wrong type.
      ValueError: if the viewer would fail on an argument; the message names it.
      FileExistsError: if `path` exists and may not be replaced.

    References:
      Anders et al. (2021), https://arxiv.org/abs/2106.13200

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> from jaxlrp.spray.analysis import Analysis, Clustering, Embedding
      >>> rng = np.random.default_rng(0)
      >>> points = {"pca": Embedding(rng.normal(size=(3, 2)))}
      >>> analysis = Analysis(0, np.array([0, 3, 5]), points, {"k": Clustering(np.array([0, 1, 0]), "pca")})
      >>> relevance, logits = rng.normal(size=(6, 8, 8)), rng.normal(size=(6, 2))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     files = export_virelay(
      ...         f"{folder}/project",
      ...         images=rng.integers(0, 256, (6, 8, 8), np.uint8),
      ...         labels=np.array([0, 1, 1, 0, 1, 0]),
      ...         classes=["cat", "dog"],
      ...         attributions=Attribution(relevance, logits, {"spray": [analysis]}),
      ...     )
      ...     [file.name for file in files]
      ['project.yaml']
    """
    path = as_path("path", path)
    check_target(path, overwrite)
    images = as_rows(images, "images")
    channels, *image_size = size_of(images, "images", channel_axis)
    check_image_channels(channels, tuple(images.shape))
    check_size("images", *image_size)
    if images.shape[0] == 0:
        raise ValueError("images must not be empty, got none")
    if image_range is not None and not is_range(image_range):
        raise ValueError(
            f"image_range must be (black, white) with black < white, got {image_range}"
        )
    if batch_size is not None:
        check_count("batch_size", batch_size)
    known = label_map(classes, word_net_ids)
    identifiers = {row["index"]: row["word_net_id"] for row in known}
    true_labels = as_labels(labels, images.shape[0], list(identifiers))
    parts = _parts(attributions, images.shape[0], tuple(image_size), channel_axis, identifiers)
    names = {k: text(v, k) for k, v in {"name": name, "model": model, "dataset": dataset}.items()}
    largest = max(3 * math.prod(image_size), *(math.prod(p.relevance.shape[1:]) for p in parts))
    size = batch_size or max(1, _SLICE // (4 * largest))

    def fill(folder: pathlib.Path) -> None:
        write_dataset(
            folder / "dataset.h5", images, true_labels, channel_axis, image_range, size
        )  # fmt: skip
        (folder / "label_map.json").write_text(json.dumps(known, indent=1), encoding="utf-8")
        for part in parts:
            write_attribution(
                folder / f"attribution{part.suffix}.h5", part.relevance, part.prediction,
                true_labels, part.rows, channel_axis, Allowed(allow_zero, allow_negative), size,
            )  # fmt: skip
            for file, group in zip(analysis_files(part), part.analyses.values(), strict=True):
                write_analysis(folder / file, group, identifiers)
            project = project_file(part, names, several=len(parts) > 1)
            (folder / f"project{part.suffix}.yaml").write_text(project, encoding="utf-8")

    write_whole(path, fill)
    return tuple(path / f"project{part.suffix}.yaml" for part in parts)


def _parts(
    attributions: Attribution | Sequence[Attribution],
    pictures: int,
    image_size: tuple[int, ...],
    channel_axis: int,
    identifiers: dict[int, str],
) -> list[Part]:
    """All attributions, after validation."""
    group = [attributions] if isinstance(attributions, Attribution) else list(attributions)
    if not group:
        raise ValueError("attributions must not be empty, got none")
    parts: list[Part] = []
    for attribution in group:
        check_attribution(attribution)
        relevance = as_rows(attribution.relevance, "relevance")
        prediction = as_rows(attribution.prediction, "prediction")
        _, *size = size_of(relevance, "relevance", channel_axis)
        if tuple(size) != image_size:
            raise ValueError(
                f"relevance must have the height and width of images, {image_size}, got {tuple(size)}; "
                "resize one of them"
            )
        check_prediction(prediction, relevance.shape[0])
        rows = rows_of(attribution, relevance, pictures)
        explained = np.arange(relevance.shape[0], dtype=np.uint32) if rows is None else rows
        indexed = rows_of_index(attribution, rows)
        analyses = checked_analyses(attribution.analyses, list(identifiers), explained, indexed)
        suffix = f"-{valid_identifier(attribution.method)}" if len(group) > 1 else ""
        if suffix.casefold() in [part.suffix.casefold() for part in parts]:
            raise ValueError(
                f"attributions must have different methods, got {attribution.method!r} again; "
                "file names are made from them"
            )
        parts.append(Part(attribution, relevance, prediction, rows, analyses, suffix))
    return parts
