"""The label map: index, name and identifier of each class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlrp.errors import near

LARGEST = np.iinfo(np.uint16).max  # labels are stored as uint16

Classes = Sequence[str] | Mapping[int, str]


def label_map(classes: Classes, word_net_ids: Classes | None) -> list[dict[str, Any]]:
    """The rows of label_map.json, sorted by index. Identifiers are made unique and valid."""
    names = _by_index(classes, "classes")
    given = {} if word_net_ids is None else _by_index(word_net_ids, "word_net_ids")
    if given and set(given) != set(names):
        raise ValueError(
            f"word_net_ids must have the same {len(names)} labels as classes, got {len(given)}: "
            f"only one of them has {sorted(set(given) ^ set(names))[:5]}"
        )
    found: dict[str, int] = {}
    for index, name in names.items():
        identifier = valid_identifier(given.get(index, name)) or f"class_{index}"
        if identifier in found and given:
            raise ValueError(
                f"word_net_ids must be unique, got {identifier!r} for labels {found[identifier]} and "
                f"{index}"
            )
        while identifier in found:
            identifier = f"{identifier}_{index}"
        found[identifier] = index
    return [{"index": i, "word_net_id": w, "name": names[i]} for w, i in found.items()]


def valid_identifier(text: str) -> str:
    """Keeps only letters, digits, "_", "-" and inner ".": the result names a group of an HDF5 file."""
    return re.sub(r"[^\w.-]+", "_", text.strip()).strip(".")


def _by_index(classes: Classes, name: str) -> dict[int, str]:
    if isinstance(classes, str):
        raise TypeError(f"{name} must be a sequence of names, got the single string {classes!r}")
    pairs = classes.items() if isinstance(classes, Mapping) else enumerate(classes)
    found = {}
    for index, text in pairs:
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{name} must be nonempty strings, got {text!r} for label {index}")
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)):
            raise TypeError(f"{name} must have integers as keys, got {index!r}")
        if not 0 <= index <= LARGEST:
            raise ValueError(f"{name} must be numbered from 0 to {LARGEST}, got {index}")
        found[int(index)] = text
    if not found:
        raise ValueError(f"{name} must name at least one label, got none")
    return dict(sorted(found.items()))


def as_labels(labels: Any, pictures: int, known: Sequence[int]) -> np.ndarray:
    """(N,) uint16, or (N, classes) bool, after checking that the label map has each label."""
    values = np.asarray(labels[:] if hasattr(labels, "shape") else labels)
    if values.ndim not in (1, 2) or len(values) != pictures:
        raise ValueError(
            f"labels must have shape ({pictures},), one label per image, or ({pictures}, classes) for "
            f"several labels per image, got {values.shape}"
        )
    if values.ndim == 2:
        return _several(values, known)
    if values.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got {values.dtype}")
    unknown = values[~np.isin(values, list(known))]
    if unknown.size:
        raise ValueError(
            f"labels must be in classes, got {unknown[0]}, but {near(str(unknown[0]), map(str, known))}"
        )
    return values.astype(np.uint16)


def _several(values: np.ndarray, known: Sequence[int]) -> np.ndarray:
    if values.dtype != bool and not np.isin(values, (0, 1)).all():
        raise ValueError(
            "labels of shape (N, classes) must be True where an image has a label, got values other than "
            "0 and 1; for one label per image pass labels.argmax(axis=1)"
        )
    present = values.astype(bool)
    unknown = [int(i) for i in np.flatnonzero(present.any(axis=0)) if i not in set(known)]
    if unknown:
        raise ValueError(
            f"labels must be in classes, but column {unknown[0]} of labels is set for an image and has no "
            "name in classes"
        )
    return present
