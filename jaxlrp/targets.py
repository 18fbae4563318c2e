"""Targets: which relevance the output begins with."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp._checks import is_number
from jaxlrp.errors import counted
from jaxlrp.numerics import to_gradient_form

__all__ = ["Contrast", "LogOdds", "Predicted", "Selection", "Target", "predicted"]


def initial(output: Any, target: Target, readout: str = "relevance") -> Any:
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
    if not _is_single(output, leaves):
        parts, _ = jax.tree_util.tree_flatten_with_path(output)
        given = jax.tree.structure(output).flatten_up_to(target)
        for (path, z), part in zip(parts, given, strict=True):
            with _naming_part(path):
                check_range(z, part)
    elif isinstance(target, Selection):
        for name in target.indices:
            check_range(output, getattr(target, name))
    elif leaves[0].ndim and _is_index(target, leaves[0]):
        _check_classes(target, leaves[0].shape[-1])


def _is_single(output: Any, leaves: list[Any]) -> bool:
    """Whether the output is one array rather than a pytree of them."""
    return len(leaves) == 1 and jax.tree.structure(output) == jax.tree.structure(0)


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
    single = _is_single(output, leaves)
    if isinstance(target, Selection):
        if not single:
            raise ValueError(
                f"{target!r} is a target for one array, but the output is {_describe(output)}: pass a "
                "target for each of its parts, and None where no relevance begins"
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
    try:
        given = jax.tree.structure(output).flatten_up_to(target)
    except (ValueError, TypeError, KeyError):
        raise ValueError(
            f"the output is {_describe(output)}, which the target {_describe(target)} does not fit: "
            "pass a target for each of its parts in a pytree of the same structure (None where no "
            "relevance begins), a function from the output to relevance of the same structure, or "
            "explain a function that returns the one output you mean"
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
    number = _compat.is_array(target) or isinstance(target, (int, float))
    if z.ndim == 0 and number and jnp.ndim(target) == 0 and not isinstance(target, bool):
        return _like(z, target, readout)  # a scalar has no classes: this is its relevance
    return _initial(z, target, readout)


def _whole(output: Any) -> Any:
    """Without a target: the output itself, where there is one number for each example."""
    leaves = jax.tree.leaves(output)
    if len(leaves) == 1 and (leaves[0].ndim <= 1 or leaves[0].shape[1:] == (1,)):
        return jax.tree.map(jnp.ones_like, output)
    raise TypeError(
        f"target is missing: the output is {_describe(output)}, and one value per example must be "
        "chosen. Pass target=0 or target=labels (class indices), target=lrp.targets.predicted, "
        "an array of initial relevance shaped like the output, or a function from output to that"
    )


def _is_index(target: Any, z: Array) -> bool:
    if isinstance(target, (bool, np.bool_)):
        raise TypeError(
            f"target must be a class index, an array or a function of the output, got {target!r}"
        )
    if isinstance(target, (int, np.integer)):
        return True
    return (
        _compat.is_array(target)
        and jnp.issubdtype(target.dtype, jnp.integer)
        and (jnp.shape(target) != jnp.shape(z) or jnp.ndim(z) == 0)
    )


def class_cotangent(z: Array, target: Any) -> Array:
    """One at the target of each example: relevance begins as that logit.

    Raises:
      IndexError: if a target is out of range. Traced ones cannot be looked at: their relevance is NaN.
      ValueError: if there are not as many targets as examples.
    """
    if z.ndim == 0:
        raise ValueError(
            "the output is a scalar, which has no classes: leave target out, or pass an array"
        )
    classes = z.shape[-1]
    _check_classes(target, classes)
    index = jnp.asarray(target)
    if index.dtype.itemsize < 4:  # a small integer type may not hold the number of classes
        index = index.astype(jnp.int32)
    if index.ndim and index.shape != z.shape[:-1]:
        raise ValueError(
            f"target of shape {index.shape} must contain one class index for each of the outputs "
            f"{z.shape[:-1]}: the output has shape {z.shape}"
        )
    index = jnp.broadcast_to(index, z.shape[:-1])
    chosen = jax.nn.one_hot(index, classes, dtype=z.dtype)
    if not _compat.is_traced(target):
        return chosen
    outside = (index < 0) | (index >= classes)
    return jnp.where(outside[..., None], jnp.asarray(jnp.nan, z.dtype), chosen)


def _check_classes(target: Any, classes: int) -> None:
    """Refuses class indices that are out of range, unless they are traced."""
    if _compat.is_traced(target):
        return
    wrong = [int(t) for t in np.ravel(np.asarray(target)) if not 0 <= t < classes]
    if wrong:
        raise IndexError(
            f"target {wrong[0]} is out of range: the output has "
            f"{counted(classes, 'class')} along its last axis, 0 to {classes - 1}"
        )


def _like(z: Array, relevance: Any, readout: str) -> Array:
    if not _compat.is_array(relevance) and not isinstance(relevance, (int, float)):
        raise TypeError(
            "target must be a class index, an array of the output's shape, or a function of the output, "
            f"got {relevance!r}; for the predicted class pass jaxlrp.targets.predicted"
        )
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

    leaves = jax.tree.leaves(tree)
    if _is_single(tree, leaves):
        return show(leaves[0])
    return str(jax.tree.map(show, tree))


class Selection:
    """A target that weighs outputs: relevance begins as `weights * output`. A pytree.

    Attributes:
      indices: names of the fields that hold class indices.
    """

    indices: ClassVar[tuple[str, ...]] = ()

    def weights(self, z: Array) -> Array:
        """The weights, of the output's shape."""
        raise NotImplementedError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Predicted(Selection):
    """The class of the greatest output of each example."""

    def weights(self, z: Array) -> Array:
        return class_cotangent(z, jnp.argmax(z, axis=-1))


predicted = Predicted()
"""The class of the greatest output of each example."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Contrast(Selection):
    """The evidence for one class rather than another: relevance begins as z_target - z_against.

    Attributes:
      target: a class index, or one for each example; or `predicted`.
      against: a class index, or one for each example; None for the mean of all other classes.
    """

    indices: ClassVar[tuple[str, ...]] = ("target", "against")
    target: ArrayLike | Predicted
    against: ArrayLike | None = None

    def weights(self, z: Array) -> Array:
        of = self.target
        chosen = of.weights(z) if isinstance(of, Predicted) else class_cotangent(z, of)
        if self.against is None:
            return chosen - (1 - chosen) / (z.shape[-1] - 1)
        return chosen - class_cotangent(z, self.against)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LogOdds(Selection):
    r"""The log-odds of a class against the rest, log(p / (1 - p)) of its softmax probability p.

    Relevance begins as that number: it is split between the class and its competitors by their
    contribution to it, log(p/(1-p)) = z_c - logsumexp of the others = z_c - sum_k q_k z_k - H(q),
    where q is the softmax over the others; the entropy H belongs to no class and is left out.

    Attributes:
      target: a class index, or one for each example.
    """

    indices: ClassVar[tuple[str, ...]] = ("target",)
    target: ArrayLike

    def weights(self, z: Array) -> Array:
        chosen = class_cotangent(z, self.target)
        others = jnp.where(chosen > 0, -jnp.inf, z)
        return chosen - jax.nn.softmax(others, axis=-1)


Target = ArrayLike | Selection | Callable[[Any], Any] | Mapping[str, Any] | Sequence[Any] | None
"""Which relevance the output begins with: class indices, an array like the output, a `Selection`, a
function of the output, or a pytree with one of these for each part of the output."""
