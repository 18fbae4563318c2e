"""The relevance that an output begins with: the cotangent that a target stands for."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp import _compat
from jaxlrp._checks import is_number
from jaxlrp.errors import near
from jaxlrp.numerics import to_gradient_form
from jaxlrp.targets import Predicted, Selection, Target
from jaxlrp.targets.classes import check_classes, class_cotangent


def cotangent(output: Any, target: Target, readout: str = "relevance") -> Any:
    """The cotangent of the output that a target stands for.

    Args:
      output: the output of the explained function, an array or a pytree of arrays.
      target: see `jaxlrp.explain`.
      readout: "relevance": arrays and callables give relevances; "gradient": cotangents.

    Raises:
      TypeError, ValueError, IndexError: saying what fits this output.
    """
    seen = jax.tree.map(_compat.seen_around, output)
    return jax.tree.map(_compat.typed_as, _initial(seen, target, readout), output)


def as_arrays(target: Target) -> Target:
    """The target with arrays in place of numbers, so that one compiled program serves all classes."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Selection):
            indices = {name: as_arrays(getattr(leaf, name)) for name in leaf.indices}
            return dataclasses.replace(leaf, **indices) if indices else leaf  # pyright: ignore[reportArgumentType]
        # what no int32 holds is out of range of any output
        fits = is_number(leaf) and (isinstance(leaf, float) or abs(leaf) < 2**31)
        return jnp.asarray(leaf) if fits else leaf

    return jax.tree.map(one, target, is_leaf=lambda leaf: isinstance(leaf, Selection))


def check_type(target: Target) -> None:
    """Refuses what is a target for no output, before anything is traced.

    Raises:
      TypeError: with what to write instead.
    """
    for leaf in jax.tree.leaves(target, is_leaf=lambda leaf: isinstance(leaf, Selection)):
        if isinstance(leaf, type) and issubclass(leaf, Selection):
            made = "predicted" if leaf is Predicted else f"{leaf.__name__}(...)"
            raise TypeError(
                f"target is the class {leaf.__name__}: write jaxlrp.targets.{made} instead"
            )
        if leaf is target:
            _refuse_flag(leaf)
        if not (_is_value(leaf) or isinstance(leaf, Selection) or callable(leaf)):
            raise TypeError(
                "target must be a class index, an array of the output's shape, or a function of the "
                f"output, got {leaf!r}; for the predicted class pass jaxlrp.targets.predicted"
            )


def _refuse_flag(target: Any) -> None:
    if isinstance(target, (bool, np.bool_)):
        raise TypeError(
            f"target must be a class index, an array or a function of the output, got {target!r}"
        )


def _is_value(leaf: Any) -> bool:
    return _compat.is_array(leaf) or isinstance(leaf, (int, float))


def check_range(output: Any, target: Target) -> None:
    """Checks the class indices of a target whose values are known, before anything is computed.

    Args:
      output: the output of the function, or its shapes.
      target: one that fits the output.

    Raises:
      IndexError: if a class index is out of range.
    """
    if target is None or (callable(target) and not isinstance(target, Selection)):
        return
    leaves = jax.tree.leaves(output)
    if _is_single(output):
        target = _as_one_array(target)
    else:
        parts, _ = jax.tree_util.tree_flatten_with_path(output)
        given = jax.tree.structure(output).flatten_up_to(_completed(output, target))
        for (path, z), part in zip(parts, given, strict=True):
            with _naming_part(path):
                check_range(z, part)
        return
    if isinstance(target, Selection):
        for name in target.indices:
            check_range(output, getattr(target, name))
    elif leaves[0].ndim and _is_index(target, leaves[0]):
        check_classes(target, leaves[0].shape[-1])


def _is_single(output: Any) -> bool:
    """Whether the output is one array rather than a pytree of them."""
    return jax.tree_util.all_leaves([output])


@contextlib.contextmanager
def _naming_part(path: Any) -> Iterator[None]:
    """Adds to an error which part of the target it is about."""
    try:
        yield
    except (TypeError, ValueError, IndexError) as error:
        error.add_note(f"This is about target{jax.tree_util.keystr(path)}.")
        raise


def _initial(output: Any, target: Target, readout: str) -> Any:
    leaves = jax.tree.leaves(output)
    single = _is_single(output)
    target = _as_one_array(target) if single else target
    if isinstance(target, Selection):
        if not single:
            raise ValueError(
                f"{target!r} is a target for one array, but the output is {_describe(output)}: "
                f"{_how_for_parts(output)}"
            )
        return _compat.freely(lambda target, z: target.weights(z), target, output)
    if callable(target):
        target = target(output)
        if jax.tree.structure(target) != jax.tree.structure(output):
            raise ValueError(
                "the target function must return relevance shaped like the output, "
                f"{_describe(output)}, got {_describe(target)}"
            )
    if target is None:
        return _whole(output)
    if single and _is_index(target, leaves[0]):
        return class_cotangent(leaves[0], target)
    if not single:
        return _by_parts(output, target, readout)
    if jax.tree.structure(target) != jax.tree.structure(output):
        raise ValueError(
            f"the output is {_describe(output)}, which the target {_describe(target)} does not fit: "
            "pass class indices, an array of its shape, or a function from the output to that"
        )
    return _like(leaves[0], target, readout)


def _by_parts(output: Any, target: Any, readout: str) -> Any:
    """A target for each part of an output that is a pytree; none begins at those with None."""
    target = _completed(output, target)
    try:
        given = jax.tree.structure(output).flatten_up_to(target)
    except (ValueError, TypeError, KeyError):
        raise ValueError(
            f"the output is {_describe(output)}, which the target {_describe(target)} does not fit: "
            f"{_how_for_parts(output)}"
        ) from None
    if all(part is None for part in given):
        raise ValueError(
            "target is None for every part of the output: pass a target for at least one part"
        )
    parts, tree = jax.tree_util.tree_flatten_with_path(output)
    found = []
    for (path, z), part in zip(parts, given, strict=True):
        with _naming_part(path):
            found.append(_of_part(z, part, readout))
    return jax.tree.unflatten(tree, found)


def _of_part(z: Array, target: Any, readout: str) -> Any:
    if target is None:
        return jnp.zeros_like(z)
    if z.ndim == 0 and _is_value(target) and jnp.ndim(target) == 0 and not isinstance(target, bool):
        return _like(z, target, readout)  # a scalar has no classes: this is its relevance
    return _initial(z, target, readout)


def _as_one_array(target: Any) -> Any:
    """An array of a list of numbers, such as class indices; anything else as it is."""
    if isinstance(target, Selection):
        changed = {name: _as_one_array(getattr(target, name)) for name in target.indices}
        return dataclasses.replace(target, **changed) if changed else target  # pyright: ignore[reportArgumentType]
    leaves = jax.tree.leaves(target)
    if not isinstance(target, list | tuple) or not leaves or not all(map(_is_value, leaves)):
        return target
    try:
        return (jnp if any(map(_compat.is_traced, leaves)) else np).asarray(target)
    except (TypeError, ValueError):  # of different lengths
        return target


def _completed(output: Any, target: Any) -> Any:
    """A dictionary of targets with None for the parts of the output that it leaves out.

    Raises:
      ValueError: if it names a part that the output does not have.
    """
    if not (isinstance(output, Mapping) and isinstance(target, Mapping)):
        return target
    if unknown := [key for key in target if key not in output]:
        raise ValueError(
            f"target has the key {unknown[0]!r}, which the output does not have: "
            f"{near(str(unknown[0]), map(str, output))}"
        )
    return type(output)({key: target.get(key) for key in output})  # pyright: ignore[reportCallIssue]


def _how_for_parts(output: Any) -> str:
    """What to pass for an output that is a pytree."""
    parts, tree = jax.tree_util.tree_flatten_with_path(output)
    chosen = next((i for i, (_, z) in enumerate(parts) if z.ndim), 0)
    example = jax.tree.unflatten(tree, [0 if i == chosen else None for i in range(len(parts))])
    if isinstance(example, Mapping):
        shown = {key: part for key, part in example.items() if jax.tree.leaves(part)}
        example = f"{shown}, whose keys may be {', '.join(map(repr, example))}"
    pair = isinstance(output, tuple) and len(output) == 2
    aux = "; if the second part is auxiliary, pass has_aux=True to jaxlrp.explain" if pair else ""
    return (
        "pass a target for each of its parts in a pytree of the same structure (None where no relevance "
        f"begins), such as target={example}; a function from the output to relevance of the same "
        f"structure; or explain a function that returns the one output you mean{aux}"
    )


def _whole(output: Any) -> Any:
    """Without a target: the output itself, where there is one number for each example."""
    leaves = jax.tree.leaves(output)
    if not _is_single(output) and len(leaves) > 1:
        raise TypeError(
            f"target is missing: the output is {_describe(output)}: {_how_for_parts(output)}"
        )
    if len(leaves) == 1 and (leaves[0].ndim <= 1 or leaves[0].shape[1:] == (1,)):
        return jax.tree.map(jnp.ones_like, output)
    raise TypeError(
        f"target is missing: the output is {_describe(output)}, and one value per example must be "
        "chosen. Pass target=0 or target=labels (class indices), target=lrp.targets.predicted, "
        "an array of initial relevance shaped like the output, or a function from output to that"
    )


def _is_index(target: Any, z: Array) -> bool:
    _refuse_flag(target)
    if isinstance(target, (int, np.integer)):
        return True
    return (
        _compat.is_array(target)
        and jnp.issubdtype(target.dtype, jnp.integer)
        and (jnp.shape(target) != jnp.shape(z) or jnp.ndim(z) == 0)
    )


def _like(z: Array, relevance: Any, readout: str) -> Array:
    if jnp.shape(relevance) != jnp.shape(z):
        raise ValueError(
            f"target of shape {jnp.shape(relevance)} must have the output's shape {jnp.shape(z)}, "
            f"or be class indices of an integer dtype, got {jnp.result_type(relevance)}"
        )
    relevance = jnp.asarray(relevance).astype(z.dtype)
    return relevance if readout == "gradient" else _compat.freely(to_gradient_form, z, relevance)


def _describe(tree: Any) -> str:
    def show(leaf: Any) -> str:
        return (
            f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"
            if _compat.is_array(leaf)
            else repr(leaf)
        )

    if _is_single(tree):
        return show(tree)
    return str(jax.tree.map(show, tree))
