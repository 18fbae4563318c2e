"""Composites: which rule each layer gets.

A composite is a value: a tuple of entries, of which the first that fits a layer decides. An entry
fits where its condition holds and its rule applies to that kind of layer, so `by_path("head/*", Flat())`
applies to the linear layers below `head` and leaves the activations there to later entries.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from jaxlrp.network.detect import KINDS
from jaxlrp.network.layers import PARAMETERIZED_KINDS, Layer
from jaxlrp.rules import Rule

Condition = Callable[[Layer], bool]
"""A predicate on layers."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a composite: where `condition` holds, `then`.

    Attributes:
      condition: a predicate on layers, hashable.
      then: a rule, a composite that is asked in turn, or a function that chooses a rule.
    """

    condition: Condition
    then: Rule | Composite | Chosen


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A user's function from a layer to its rule, None for layers that it leaves to others."""

    function: Callable[[Layer], Rule | None]

    def __call__(self, layer: Layer) -> Rule | None:
        rule = self.function(layer)
        if rule is None or isinstance(rule, Rule):
            return rule
        raise TypeError(
            f"the composite function {self.function!r} must return a Rule or None for each layer, got "
            f"{rule!r} for {layer.path!r}{_hint(rule)}"
        )


@dataclasses.dataclass(frozen=True)
class Composite:
    """Which rule each layer gets: entries, of which the first match wins. `a + b` tries a before b.

    Attributes:
      entries: in order.
      readout: "relevance", or "gradient" for methods that propagate gradients.
      name: what tables call it.
    """

    entries: tuple[Entry, ...]
    readout: str = "relevance"
    name: str = ""

    def __add__(self, other: Composite) -> Composite:
        if not isinstance(other, Composite):
            raise TypeError(
                f"composites can only be added to composites, got {other!r}: say where it applies, for "
                "example by_kind('conv', rule), or pass a list [composite, rule] as the composite"
            )
        readout = "gradient" if "gradient" in (self.readout, other.readout) else "relevance"
        name = " + ".join(filter(None, (self.name, other.name)))
        return Composite(self.entries + other.entries, readout, name)

    def __radd__(self, other: Any) -> Composite:
        return self + other  # which says what is wrong

    def find(self, layer: Layer) -> Rule | None:
        """The rule for a layer; None if no entry matches."""
        return next((rule for _, rule in self._matches(layer)), None)

    def _matches(self, layer: Layer) -> Iterator[tuple[Entry, Rule]]:
        for entry in self.entries:
            if not entry.condition(layer):
                continue
            if isinstance(entry.then, Composite):
                yield from ((entry, rule) for _, rule in entry.then._matches(layer))
                continue
            rule = entry.then(layer) if isinstance(entry.then, Chosen) else entry.then
            if rule is not None and layer.kind in rule.kinds:
                yield entry, rule

    def all_entries(self) -> Iterator[Entry]:
        """The entries, those of nested composites included."""
        for entry in self.entries:
            yield entry
            if isinstance(entry.then, Composite):
                yield from entry.then.all_entries()


jax.tree_util.register_dataclass(Chosen, data_fields=[], meta_fields=["function"])
jax.tree_util.register_dataclass(Entry, data_fields=["then"], meta_fields=["condition"])
jax.tree_util.register_dataclass(
    Composite, data_fields=["entries"], meta_fields=["readout", "name"]
)


# Conditions


@dataclasses.dataclass(frozen=True)
class Kind:
    kinds: tuple[str, ...]

    def __call__(self, layer: Layer) -> bool:
        return layer.kind in self.kinds


@dataclasses.dataclass(frozen=True)
class Path:
    pattern: str | re.Pattern[str]

    def __call__(self, layer: Layer) -> bool:
        if isinstance(self.pattern, str):
            return fnmatch.fnmatchcase(layer.path, self.pattern)
        return self.pattern.fullmatch(layer.path) is not None


@dataclasses.dataclass(frozen=True)
class Module:
    module: str

    def __call__(self, layer: Layer) -> bool:
        return layer.module == self.module


@dataclasses.dataclass(frozen=True)
class Operation:
    """Layers that compute the primitive or function of this name."""

    name: str

    def __call__(self, layer: Layer) -> bool:
        return layer.name == self.name


@dataclasses.dataclass(frozen=True)
class Between:
    """Parameterized layers of a depth in [low, high); negative numbers count from the output."""

    low: int
    high: int | None

    def __call__(self, layer: Layer) -> bool:
        total = layer.depth + layer.height + 1
        low, high, _ = slice(self.low, self.high).indices(total)
        return layer.kind in PARAMETERIZED_KINDS and low <= layer.depth < high


@dataclasses.dataclass(frozen=True)
class First:
    def __call__(self, layer: Layer) -> bool:
        return layer.first and layer.kind in PARAMETERIZED_KINDS


@dataclasses.dataclass(frozen=True)
class Last:
    def __call__(self, layer: Layer) -> bool:
        return layer.last and layer.kind in PARAMETERIZED_KINDS


@dataclasses.dataclass(frozen=True)
class ReLU:
    def __call__(self, layer: Layer) -> bool:
        return layer.relu


@dataclasses.dataclass(frozen=True)
class Anything:
    def __call__(self, layer: Layer) -> bool:
        return True


def _single(condition: Condition, then: Rule | Composite) -> Composite:
    if not isinstance(then, (Rule, Composite)):
        raise TypeError(
            f"a composite maps layers to a rule or a composite, got {then!r}{_hint(then)}"
        )
    return Composite((Entry(condition, then),))


def _hint(then: Any) -> str:
    """What to write in place of a rule's class or a preset that was not called."""
    name = getattr(then, "__name__", "")
    return f": write {name}(...)" if name.isidentifier() and callable(then) else ""


def composite(*parts: Composite, name: str = "") -> Composite:
    """Joins composites in order: the first that has a rule for a layer decides.

    Example:
      >>> import jaxlrp as lrp
      >>> from jaxlrp.composites import by_kind, composite, first
      >>> c = composite(first(lrp.Flat()), by_kind("conv", lrp.ZPlus()), by_kind("dense", lrp.Epsilon()))
      >>> len(c.entries)
      3
    """
    for part in parts:
        if not isinstance(part, Composite):
            where = "say where it applies, for example by_kind('conv', rule)"
            fix = "write composite(*parts)" if isinstance(part, list | tuple) else where
            raise TypeError(f"composite() joins composites, got {part!r}: {fix}")
    readout = "gradient" if any(p.readout == "gradient" for p in parts) else "relevance"
    return Composite(tuple(e for p in parts for e in p.entries), readout, name)


def by_kind(kinds: str | Iterable[str], then: Rule | Composite) -> Composite:
    """Layers of a kind: "conv", "dense", "activation", ... (`jaxlrp.KINDS` lists them).

    Raises:
      ValueError: if there is no such kind.
      TypeError: if kinds are no strings.
    """
    listed = (kinds,) if isinstance(kinds, str) or not isinstance(kinds, Iterable) else tuple(kinds)
    for kind in listed:
        if not isinstance(kind, str):
            raise TypeError(
                f"kinds must be a kind of layer such as 'conv' (a string), or several, got {kinds!r}"
            )
        if kind not in KINDS:
            known = ", ".join(map(repr, KINDS))
            raise ValueError(f"there is no kind of layer {kind!r}: the kinds are {known}")
    return _single(Kind(listed), then)


def by_path(pattern: str | re.Pattern[str], then: Rule | Composite) -> Composite:
    """Layers whose path matches: a shell pattern ("features/*"; * crosses "/") or a compiled regex.

    A pattern that matches no layer is an error when the composite is applied.
    """
    if not isinstance(pattern, (str, re.Pattern)):
        raise TypeError(
            f"pattern must be a shell pattern (a string) or a compiled regex, got {pattern!r}"
        )
    return _single(Path(pattern), then)


def by_module(module: type | str, then: Rule | Composite) -> Composite:
    """Layers called in a Flax module of this type, given as a class or by its name."""
    if not isinstance(module, (str, type)):
        raise TypeError(f"module must be a Flax module class or its name, got {module!r}")
    return _single(Module(module if isinstance(module, str) else module.__name__), then)


def by_operation(name: str, then: Rule | Composite) -> Composite:
    """Layers that compute this function or primitive: "relu", "softplus", "cholesky"."""
    if not isinstance(name, str):
        raise TypeError(
            f"name must be that of an operation such as 'relu' (a string), got {name!r}"
        )
    return _single(Operation(name), then)


def first(then: Rule | Composite) -> Composite:
    """Dense layers and convolutions with no other between them and the input."""
    return _single(First(), then)


def last(then: Rule | Composite) -> Composite:
    """Dense layers and convolutions with no other between them and the output."""
    return _single(Last(), then)


def by_depth(low: int, high: int | None, then: Rule | Composite) -> Composite:
    """Layers at depth low, ..., high - 1: how many dense layers and convolutions precede them.

    Negative numbers count from the output, as in a slice. `by_depth(0, 3, Flat())` is the heatmap
    resolution control of Bach et al. (2016), https://arxiv.org/abs/1604.07426.
    """
    for name, value in (("low", low), ("high", 0 if high is None else high)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be a number of layers (an integer), got {value!r}")
    return _single(Between(low, high), then)


def where(condition: Condition, then: Rule | Composite) -> Composite:
    """Layers for which a function of your own, from a `jaxlrp.Layer` to a bool, returns True."""
    if not callable(condition):
        raise TypeError(
            f"condition must be a function from a lrp.Layer to a bool, got {condition!r}; by_kind and "
            "by_path take names"
        )
    return _single(condition, then)


def pattern_of(condition: Condition) -> tuple[str, str] | None:
    """(what, pattern) of a condition that must match a layer: a path pattern, a module type."""
    if isinstance(condition, Path):
        return "path", str(getattr(condition.pattern, "pattern", condition.pattern))
    if isinstance(condition, Module):
        return "module", condition.module
    if isinstance(condition, Operation):
        return "operation", condition.name
    return None
