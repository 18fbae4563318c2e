"""Checks for problems that the viewer's reader does not detect but fails on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlrp.spray.analysis import Analysis
from jaxlrp.virelay.attribution import Attribution
from jaxlrp.virelay.labels import valid_identifier
from jaxlrp.virelay.lazy import Rows

_STRATEGIES = ("true_label", "predicted_label")
_INDEXED = ("images", "relevance")
_LARGEST_ROW = np.iinfo(np.uint32).max
_LARGEST_CLUSTER = np.iinfo(np.int32).max  # clusters are stored as int32
_LARGEST_ATTRIBUTE = 60_000  # bytes; HDF5 keeps attributes below 64 KiB


def text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a nonempty string, got {value!r}")
    return value


def method_name(name: Any) -> str:
    """The name of an analysis in the file: the viewer looks for "_" where it displays "-"."""
    found = text(name, "analyses").strip().replace("-", "_")
    bad = [c for c in found if c in "/\\?#%" or not c.isprintable()]
    if bad or found in (".", ".."):
        raise ValueError(
            f"analyses must have names that are valid in a URL, got {name!r}; "
            "use letters, digits and '_'"
        )
    return found


def item_name(name: Any, what: str) -> str:
    """The name of an embedding or clustering, which must be valid in HDF5."""
    found = text(name, what)
    if "/" in found or "\0" in found or found == ".":
        raise ValueError(
            f"{what} must have names without '/', which would nest HDF5 groups, got {name!r}; "
            f"use {found.replace('/', '_')!r}"
        )
    return found


def as_index(rows: Any, name: str, total: int, of: str = "images") -> np.ndarray:
    """(n,) unique rows of the images, or of the relevance."""
    values = np.asarray(rows)
    if values.ndim != 1 or values.dtype.kind not in "iu" or not values.size:
        raise ValueError(
            f"{name} must be integers of shape (n,) with n >= 1, got {values.dtype} of shape "
            f"{values.shape}"
        )
    if values.min() < 0 or values.max() >= min(total, _LARGEST_ROW):
        raise ValueError(
            f"{name} must be rows of {of}, 0 to {total - 1}, got {values.min()} to {values.max()}"
        )
    unique, counts = np.unique(values, return_counts=True)
    if unique.size != values.size:
        raise ValueError(f"{name} must be unique, got row {unique[counts > 1][0]} again")
    return values.astype(np.uint32)


def rows_of(attribution: Attribution, relevance: Rows, pictures: int) -> np.ndarray | None:
    """The explained images; None for the first M of them, in order."""
    m = relevance.shape[0]
    if m == 0:
        raise ValueError("relevance must not be empty, got none")
    if attribution.rows is None:
        if m > pictures:
            raise ValueError(
                f"relevance must have at most {pictures} rows, one per image, got {m}; pass rows="
            )
        return None
    rows = as_index(attribution.rows, "rows", pictures)
    if len(rows) != m:
        raise ValueError(f"rows must have {m} entries, one per relevance, got {len(rows)}")
    return None if np.array_equal(rows, np.arange(m)) else rows


def rows_of_index(attribution: Attribution, rows: np.ndarray | None) -> np.ndarray | None:
    """The image that each index of the analyses refers to; None if the indices are images."""
    if attribution.index_of is None and rows is not None:
        raise ValueError(
            "index_of must be 'images' or 'relevance' unless rows are 0, 1, 2, ..., got None: it says what "
            "the index of the analyses refers to. For jaxlrp.spray.analyze it is 'relevance'; "
            "for a store use Attribution.from_store"
        )
    return rows if attribution.index_of == "relevance" else None


def check_attribution(attribution: Attribution) -> None:
    if not isinstance(attribution, Attribution):
        raise TypeError(
            "attributions must be one or several jaxlrp.virelay.Attribution, got "
            f"{type(attribution).__name__}"
        )
    text(attribution.method, "method")
    if attribution.strategy not in _STRATEGIES:
        raise ValueError(
            f"strategy must be {' or '.join(map(repr, _STRATEGIES))}, got {attribution.strategy!r}"
        )
    if attribution.index_of not in (None, *_INDEXED):
        raise ValueError(
            f"index_of must be {' or '.join(map(repr, _INDEXED))}, got {attribution.index_of!r}"
        )


def check_prediction(prediction: Rows, m: int) -> None:
    if len(prediction.shape) != 2 or prediction.shape[0] != m:
        raise ValueError(
            f"prediction must have shape ({m}, outputs), one row per relevance, got "
            f"{tuple(prediction.shape)}"
        )


def checked_analyses(
    analyses: Mapping[str, Sequence[Analysis]],
    known: Sequence[int],
    explained: np.ndarray,
    indexed: np.ndarray | None = None,
) -> dict[str, list[Analysis]]:
    """The analyses by the name to write, with rows of images, after validation.

    Args:
      analyses: as in `Attribution`.
      known: labels of the label map.
      explained: rows of images that have relevance.
      indexed: as returned by `rows_of_index`.
    """
    if not isinstance(analyses, Mapping) or not analyses:
        raise ValueError(
            'analyses must have at least one entry such as {"spray": [...]}, because the viewer cannot '
            f"open a project without one, got {analyses!r}"
        )
    found: dict[str, list[Analysis]] = {}
    files = set()
    for given, group in analyses.items():
        name = method_name(given)
        file = valid_identifier(name).casefold()
        if file in files:
            raise ValueError(
                f"analyses must have names that differ in letters or digits, got {given!r} again; "
                "file names are made from them"
            )
        files.add(file)
        if isinstance(group, Analysis) or not isinstance(group, Sequence):
            raise TypeError(
                f"analyses[{given!r}] must be a sequence of Analysis, one per class, got "
                f"{type(group).__name__}"
            )
        if not group:
            raise ValueError(f"analyses[{given!r}] must have at least one class, got none")
        _check_group(group, f"analyses[{given!r}]", known)
        found[name] = []
        for analysis in group:
            where = f"analyses[{given!r}] of label {analysis.category}"
            found[name].append(_of_pictures(analysis, where, indexed))
            _check_analysis(found[name][-1], where, explained)
    return found


def _check_group(group: Sequence[Analysis], where: str, known: Sequence[int]) -> None:
    """Checks that labels are known and unique, and that all have the same embeddings and clusterings."""
    seen = set()
    for analysis in group:
        if not isinstance(analysis, Analysis):
            raise TypeError(f"{where} must contain only Analysis, got {type(analysis).__name__}")
        if analysis.category not in known:
            raise ValueError(f"{where} must have labels in classes, got {analysis.category!r}")
        if analysis.category in seen:
            raise ValueError(f"{where} must have unique labels, got {analysis.category} twice")
        seen.add(analysis.category)
        for kind in ("embeddings", "clusterings"):
            first, here = (set(getattr(a, kind)) for a in (group[0], analysis))
            if first != here:
                raise ValueError(
                    f"{where} must have the same {kind} for all labels, got {sorted(here)} for label "
                    f"{analysis.category} and {sorted(first)} for label {group[0].category}: the viewer "
                    "offers those of the first label for all"
                )
            if not here:
                raise ValueError(f"{where} must have at least one of {kind}, got none")


def _of_pictures(analysis: Analysis, where: str, indexed: np.ndarray | None) -> Analysis:
    if indexed is None:
        return analysis
    index = as_index(analysis.index, f"index of {where}", len(indexed), "relevance")
    return dataclasses.replace(analysis, index=indexed[index])


def _check_analysis(analysis: Analysis, where: str, explained: np.ndarray) -> None:
    index = as_index(analysis.index, f"index of {where}", int(explained.max()) + 1)
    missing = np.setdiff1d(index, explained)
    if missing.size:
        raise ValueError(
            f"index of {where} must be of images that have relevance, row {missing[0]} has none"
        )
    for name, embedding in analysis.embeddings.items():
        here = f"embedding {item_name(name, 'embeddings')!r} of {where}"
        _check_points(embedding.values, here, len(index))
        _check_base(embedding.base, here, set(analysis.embeddings) - {name})
        if embedding.eigenvalues is not None:
            _check_eigenvalues(embedding.eigenvalues, here, np.shape(embedding.values)[1])
    for name, clustering in analysis.clusterings.items():
        here = f"clustering {item_name(name, 'clusterings')!r} of {where}"
        labels = np.asarray(clustering.labels)
        if labels.shape != (len(index),) or labels.dtype.kind not in "iu" or labels.min() < -1:
            raise ValueError(
                f"{here} must be {len(index)} integers, -1 (noise) or more, got {labels.dtype} of shape "
                f"{labels.shape}"
            )
        if labels.max() > _LARGEST_CLUSTER:
            raise ValueError(
                f"{here} must have cluster numbers up to {_LARGEST_CLUSTER}, got {labels.max()}; renumber "
                "them with numpy.unique(labels, return_inverse=True)"
            )
        _check_base(clustering.base, here, set(analysis.embeddings))


def _check_points(values: Any, where: str, n: int) -> None:
    points = np.asarray(values)
    if points.ndim != 2 or len(points) != n or not points.shape[1]:
        raise ValueError(f"{where} must have shape ({n}, d) with d >= 1, got {points.shape}")
    if not np.isfinite(points.astype(np.float32)).all():
        raise ValueError(f"{where} must be finite, because the browser cannot read NaN")


def _check_eigenvalues(eigenvalues: Any, where: str, d: int) -> None:
    values = np.asarray(eigenvalues)
    if values.shape != (d,) or not np.isfinite(values).all():
        raise ValueError(f"eigenvalues of {where} must be {d} finite numbers, got {values.shape}")
    if values.astype(np.float64).nbytes > _LARGEST_ATTRIBUTE:
        raise ValueError(
            f"eigenvalues of {where} must be at most {_LARGEST_ATTRIBUTE // 8}, the limit of an HDF5 "
            f"attribute, got {d}; keep the smallest"
        )


def _check_base(base: str | None, where: str, known: set[str]) -> None:
    if base is not None and base not in known:
        raise ValueError(
            f"{where} must have a base among the embeddings {sorted(known)}, got {base!r}"
        )
