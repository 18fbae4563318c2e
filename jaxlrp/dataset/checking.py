"""Is a sample like the others? What its arrays become, or what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp.dataset.source import Failure, Id, Sample


def checked(sample: Sample, spec: Any, classes: int | None) -> tuple[Id, Any] | Failure:
    """(id, (input, target, extra)) with the arrays that a spec asks for, or what is wrong."""
    rows: list[Any] = []
    for what, value, wanted in zip(
        ("input", "target", "arguments"), (sample.input, sample.target, dict(sample.extra)), spec,
        strict=True,
    ):  # fmt: skip
        if jax.tree.structure(value) != jax.tree.structure(wanted):
            return Failure(sample.id, _other_structure(what, value, wanted))
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(value)]
        likes = jax.tree.leaves(wanted)
        wrong = [why for pair in zip(leaves, likes, strict=True) if (why := _unlike(*pair))]
        if wrong:
            return Failure(sample.id, f"{what} {wrong[0]}")
        if what == "target" and classes is not None:  # before a cast makes another number of it
            outside = [int(t) for leaf in leaves for t in leaf.flat if not 0 <= int(t) < classes]
            if outside:
                return Failure(
                    sample.id, f"target {outside[0]} is out of range: 0 to {classes - 1}"
                )
        cast = [_cast(leaf, like.dtype) for leaf, like in zip(leaves, likes, strict=True)]
        changed = [why for pair in zip(leaves, cast, strict=True) if (why := _changed(*pair))]
        if changed:
            return Failure(sample.id, f"{what} {changed[0]}")
        rows.append(jax.tree.unflatten(jax.tree.structure(wanted), cast))
    return sample.id, tuple(rows)


def _unlike(leaf: np.ndarray, like: Any) -> str:
    """What is wrong with shape and kind of an array, "" if nothing."""
    if leaf.shape == like.shape and np.can_cast(leaf.dtype, like.dtype, "same_kind"):
        return ""
    return f"has shape {leaf.shape} and dtype {leaf.dtype}, expected {like.shape} and {like.dtype}"


def _cast(leaf: np.ndarray, dtype: Any) -> np.ndarray:
    with np.errstate(over="ignore"):  # looked at in `_changed`
        return leaf.astype(dtype, copy=False)


def _changed(leaf: np.ndarray, cast: np.ndarray) -> str:
    """Says that a number does not fit into a narrower dtype, which would make another of it."""
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
    return f"holds {outside[0]}, beyond {cast.dtype}, {low} to {high}" if outside else ""


def _other_structure(what: str, value: Any, wanted: Any) -> str:
    """What a sample has and most others have not, in words."""
    if what == "arguments":
        given, asked = set(value), set(wanted)
        if given != asked:
            parts = [f"lack {sorted(asked - given)}"] if asked - given else []
            parts += [f"have {sorted(given - asked)} besides"] if given - asked else []
            return f"arguments {' and '.join(parts)}: most samples have {sorted(asked) or 'none'}"
    if value is None:
        return f"{what} is missing (None), most samples have one"
    if wanted is None:
        return f"{what} is given, most samples have none"
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
