"""Checks a sample against the usual shapes and dtypes, and casts its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp.dataset.source import Failure, Id, Sample
from jaxlrp.errors import counted

_EXTRA = "an extra argument"


def checked(
    sample: Sample, spec: tuple[Any, Any, Any], classes: int | None
) -> tuple[Id, Any] | Failure:
    """(id, (input, target, extra)) with arrays as in `spec`, or a `Failure` that says what is wrong."""
    rows: list[Any] = []
    for what, value, wanted in zip(
        ("input", "target", _EXTRA), (sample.input, sample.target, dict(sample.extra)), spec,
        strict=True,
    ):  # fmt: skip
        if jax.tree.structure(value) != jax.tree.structure(wanted):
            return Failure(sample.id, _other_structure(what, value, wanted))
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(value)]
        likes = jax.tree.leaves(wanted)
        wrong = [why for pair in zip(leaves, likes, strict=True) if (why := _unlike(*pair))]
        if wrong:
            return Failure(sample.id, f"{what} {wrong[0]}")
        if what == "target" and classes is not None:  # before a cast can wrap it around
            outside = [int(t) for leaf in leaves for t in leaf.flat if not 0 <= int(t) < classes]
            if outside:
                return Failure(
                    sample.id,
                    f"target {outside[0]} is out of range: the output has {counted(classes, 'class')}, "
                    f"0 to {classes - 1}",
                )
        cast = [_cast(leaf, like.dtype) for leaf, like in zip(leaves, likes, strict=True)]
        changed = [why for pair in zip(leaves, cast, strict=True) if (why := _changed(*pair))]
        if changed:
            return Failure(sample.id, f"{what} {changed[0]}")
        rows.append(jax.tree.unflatten(jax.tree.structure(wanted), cast))
    return sample.id, tuple(rows)


def _unlike(leaf: np.ndarray, like: Any) -> str:
    """What is wrong with the shape or dtype of an array, "" if nothing."""
    if leaf.shape == like.shape and np.can_cast(leaf.dtype, like.dtype, "same_kind"):
        return ""
    return f"has shape {leaf.shape} and dtype {leaf.dtype}, expected {like.shape} and {like.dtype}"


def _cast(leaf: np.ndarray, dtype: Any) -> np.ndarray:
    with np.errstate(over="ignore"):  # checked in `_changed`
        return leaf.astype(dtype, copy=False)


def _changed(leaf: np.ndarray, cast: np.ndarray) -> str:
    """Says that a number does not fit a narrower dtype, "" if all do."""
    if leaf.dtype == cast.dtype or not leaf.size:
        return ""
    if jnp.issubdtype(cast.dtype, jnp.integer):
        limits = jnp.iinfo(cast.dtype)
        low, high = int(limits.min), int(limits.max)
        outside = [x for x in (int(leaf.max()), int(leaf.min())) if not low <= x <= high]
    else:
        lost = np.isfinite(leaf) & ~np.isfinite(cast)
        low, high = (
            f"{float(x):.3g}" for x in (jnp.finfo(cast.dtype).min, jnp.finfo(cast.dtype).max)
        )
        outside = leaf[lost].tolist()
    return (
        f"contains {outside[0]}, outside the range of {cast.dtype}, {low} to {high}"
        if outside
        else ""
    )


def _other_structure(what: str, value: Any, wanted: Any) -> str:
    """How the structure of a sample differs from that of most others."""
    if what == _EXTRA:
        given, expected = set(value), set(wanted)
        if given != expected:
            missing, more = sorted(expected - given), sorted(given - expected)
            parts = [f"missing {missing}"] if missing else []
            parts += [f"unexpected {more}"] if more else []
            return f"extra arguments: {', '.join(parts)}; most samples have {sorted(expected) or 'none'}"
    if value is None:
        return f"{what} is missing (None), most samples have one"
    if wanted is None:
        return f"{what} is present, most samples have none"
    return f"{what} is {_words(value)}, most samples have {_words(wanted)}"


def _words(tree: Any) -> str:
    if tree is None:
        return "None"
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{k!r}: {_words(v)}" for k, v in tree.items()) + "}"
    if isinstance(tree, (list, tuple)):
        ends = "[]" if isinstance(tree, list) else "()"
        return f"{ends[0]}{', '.join(map(_words, tree))}{ends[1]}"
    return "an array"
