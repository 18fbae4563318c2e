"""The targets and conditions for which each sample is explained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp import targets
from jaxlrp._checks import check_count
from jaxlrp.targets.classes import class_cotangent


@dataclasses.dataclass(frozen=True)
class Given:
    """Explains the target that comes with each sample of the source.

    Attributes:
      make: from the targets of a batch, (batch, ...), to the `target` of the explainer, such as
        `jaxlrp.targets.LogOdds`; None for the targets themselves.

    Example:
      >>> from jaxlrp import dataset, targets
      >>> dataset.Given(targets.Contrast).make.__name__
      'Contrast'
    """

    make: Callable[[Any], Any] | None = None


@dataclasses.dataclass(frozen=True)
class Top:
    """Explains the k classes with the largest outputs of each sample, one explanation per class.

    Attributes:
      k: number of classes, >= 1.

    Raises:
      ValueError: if k is not an integer >= 1.
    """

    k: int

    def __post_init__(self) -> None:
        check_count("k", self.k)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Ranked(targets.Selection):
    """The class whose output has a given rank, 0 for the largest."""

    rank: Array
    k: int = dataclasses.field(metadata={"static": True})

    def weights(self, z: Array) -> Array:
        if z.ndim < 2 or self.k > z.shape[-1]:
            raise ValueError(
                f"target=Top({self.k}) needs at least {self.k} classes along the last axis of the output, "
                f"which has shape {z.shape} for a batch: use a smaller k"
            )
        _, index = jax.lax.top_k(z, self.k)
        return class_cotangent(z, jnp.take(index, self.rank, axis=-1))


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """A target policy in the form that a compiled program uses.

    Attributes:
      choose: from the targets of the source, (batch, ...) or None, to the `target` of the explainer: one
        target, a list of them, or a pytree with a leading axis of length `count`.
      count: number of targets per sample; None for a single target without an axis.
      stacked: whether `choose` returns a pytree with a leading axis.
      index: from (given, output) to the classes that are explained, (batch,) or (batch, count); None
        if the targets are not classes.
      given: whether targets of the source are used as classes.
      made: whether they are first passed to `Given.make`, whose classes are not known.
      classes: the classes that are explained for every sample, if known.
    """

    choose: Callable[[Any], Any]
    count: int | None
    stacked: bool
    index: Callable[[Any, Array], Array] | None
    given: bool = False
    made: bool = False
    classes: tuple[int, ...] = ()


def policy(target: Any, given: Any, output: Callable[[], Any]) -> Policy:
    """Turns a target policy into the form that a compiled program uses.

    Args:
      target: None, an integer, `Given`, `Top`, a target as `jaxlrp.explain` takes it, or a list of
        those.
      given: shape and dtype of the source's targets, (batch, ...), or None.
      output: returns shape and dtype of the model's output; only called where the targets of a sample
        may be classes or positions.

    Raises:
      TypeError, ValueError: if it is none of these, or needs targets that the source does not have.
    """
    if isinstance(target, (list, tuple)):
        return _several(list(target))
    if isinstance(target, (np.ndarray, jax.Array)) and target.ndim:
        raise TypeError(
            "target must be one policy for all samples, got an array: pass one target per sample in the "
            "source, (inputs, targets); pass several targets for every sample as a list"
        )
    if isinstance(target, Given) or (target is None and given is not None):
        return _given(target or Given(), given, output)
    if isinstance(target, Top):
        k = target.k
        ranks = _Ranked(jnp.arange(k), k)
        return Policy(
            lambda _: jax.tree.map(jnp.asarray, ranks), k, True,
            lambda _, z: jax.lax.top_k(z, k)[1],
        )  # fmt: skip
    classes = (int(target),) if _is_int(target) else ()
    return Policy(lambda _: target, None, False, _index_of(target), classes=classes)


def _several(items: list[Any]) -> Policy:
    if not items:
        raise ValueError("target is an empty list: use None, or a list of at least one target")
    if any(isinstance(item, (Given, Top, list, tuple)) or item is None for item in items):
        raise TypeError(
            "a list of targets may contain class indices, jaxlrp.targets and functions of the output, got "
            f"{items!r}"
        )
    index = _indices([_index_of(item) for item in items])
    if all(_is_int(item) for item in items):
        classes = tuple(map(int, items))
        return Policy(lambda _: _as_array(classes), len(items), True, index, classes=classes)
    return Policy(lambda _: list(items), len(items), False, index)


def _indices(found: list[Any]) -> Callable[[Any, Array], Array] | None:
    if None in found:
        return None
    return lambda given, z: jnp.stack([one(given, z) for one in found], axis=1)


def _given(target: Given, given: Any, output: Callable[[], Any]) -> Policy:
    if given is None:
        raise ValueError(
            "target=Given() (--target given) needs a source with targets, but the source has none: pass "
            "(inputs, targets), or another target"
        )
    made, make = target.make is not None, target.make or (lambda t: t)
    if not (hasattr(given, "dtype") and jnp.issubdtype(given.dtype, jnp.integer)):
        return Policy(make, None, False, None)
    if len(given.shape) == 1:
        return Policy(make, None, False, lambda t, z: t, given=True, made=made)
    shape = getattr(output(), "shape", None)
    if shape is None or given.shape == shape[:-1]:
        return Policy(make, None, False, lambda t, z: t, given=shape is not None, made=made)
    if given.shape[:-1] == shape[:-1]:
        many = given.shape[-1]
        return Policy(
            lambda t: make(jnp.moveaxis(t, -1, 0)),
            many,
            True,
            lambda t, z: t,
            given=True,
            made=made,
        )
    raise ValueError(
        f"the source's targets have shape {given.shape[1:]} per sample, which does not fit the output's "
        f"{shape[1:]}: pass one class, or several along a last axis"
    )


def _as_array(classes: tuple[int, ...]) -> Array:
    """Class indices as int32, (count,). One that does not fit becomes -1, which is refused later."""
    limits = jnp.iinfo(jnp.int32)
    return jnp.asarray([c if limits.min <= c <= limits.max else -1 for c in classes], jnp.int32)


def _is_int(target: Any) -> TypeGuard[int]:
    return isinstance(target, (int, np.integer)) and not isinstance(target, bool)


def _index_of(target: Any) -> Callable[[Any, Array], Array] | None:
    if _is_int(target):
        return lambda _, z: jnp.broadcast_to(_as_array((target,)), z.shape[:-1])
    if isinstance(target, targets.Predicted):
        return lambda _, z: jnp.argmax(z, axis=-1)
    if isinstance(target, (targets.Contrast, targets.LogOdds)):
        return _index_of(target.target)
    return None


Conditions = Mapping[str, Mapping[str, Any]]


def conditions(given: Any) -> Conditions | None:
    """Conditions by name.

    Args:
      given: None, a dictionary from names to conditions, or a sequence of conditions, whose names are
        their positions. A condition maps layer paths to arrays, as in `jaxlrp.explain`.

    Raises:
      TypeError: if it is none of these.
    """
    if given is None:
        return None
    named = given if isinstance(given, Mapping) else None
    if isinstance(given, Sequence) and not isinstance(given, str):
        named = {str(i): condition for i, condition in enumerate(given)}
    if not named or not all(isinstance(condition, Mapping) for condition in named.values()):
        raise TypeError(
            "conditions must be a list of conditions, or a dictionary from names to conditions, where a "
            f"condition is a dictionary from layer paths to arrays, got {given!r}"
        )
    return dict(named)


def over(function: Callable[[Any], Any], items: Any, stacked: bool) -> Any:
    """Applies a function to each item and stacks the results along a new first axis."""
    if stacked:
        return jax.vmap(function)(items)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(function(item) for item in items))


def alike(found: Conditions) -> bool:
    """Whether conditions can be stacked: same layers, masks of the same shapes."""
    shapes = [{path: jnp.shape(mask) for path, mask in one.items()} for one in found.values()]
    return all(one == shapes[0] for one in shapes)


def stack(found: Conditions) -> Any:
    """Conditions that are alike, stacked along a new first axis."""
    return jax.tree.map(
        lambda *m: jnp.stack([jnp.asarray(a) for a in m]), *map(dict, found.values())
    )
