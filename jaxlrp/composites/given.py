"""What a user may give in place of a composite."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxlrp.composites.entries import Anything, Chosen, Composite, Entry
from jaxlrp.composites.presets import PRESETS, default
from jaxlrp.errors import near
from jaxlrp.network.detect import KINDS
from jaxlrp.network.layers import Layer
from jaxlrp.rules import Rule

RuleChooser = Callable[[Layer], Rule | None]
"""A function from a layer to its rule; None leaves the layer to its default rule."""

GivenComposite = (
    Composite | Rule | RuleChooser | str | Callable[..., Composite] | Sequence[Any] | None
)
"""A composite, or what stands for one: a rule, a function from a layer to its rule, a preset or its name, a
sequence of these in which the first that has a rule for a layer decides, or None for the default."""


def as_composite(given: GivenComposite) -> Composite:
    """A composite of what a user gave.

    A rule is used wherever it applies; a preset, or its name, with its default options.

    Raises:
      TypeError, ValueError: if it stands for no composite, with what to write instead.
    """
    if given is None:
        return default()
    if isinstance(given, Composite):
        return given
    if isinstance(given, Rule):
        return Composite((Entry(Anything(), given),), name=repr(given))
    if isinstance(given, str):
        return _preset(given)
    if isinstance(given, list | tuple):
        return _joined(given)
    if isinstance(given, Mapping):
        key, rule = next(iter(given.items()), ("head", "rule"))
        raise TypeError(
            "composite must be no dictionary: write [lrp.composites.by_path(pattern, rule), ...], here "
            f"by_path({key!r}, {rule!r}), or edit a plan, lrp.plan(...).replace({{pattern: rule}})"
        )
    if isinstance(given, type):
        raise TypeError(
            f"composite is the class {given.__name__}, which must be called: write {given.__name__}(...)"
        )
    if callable(given):
        return _chooser(given)
    raise TypeError(
        "composite must be a Composite (see jaxlrp.composites), the name of a preset, a Plan, a Rule, a "
        "function from a layer to its rule, a list of these, or None for the default; got "
        f"{given!r}"
    )


def _preset(name: str) -> Composite:
    if name not in PRESETS:
        kind = (
            f"; for layers of kind {name!r} write by_kind({name!r}, rule)" if name in KINDS else ""
        )
        raise ValueError(f"there is no preset {name!r}: {near(name, PRESETS)}{kind}")
    parameters = inspect.signature(PRESETS[name]).parameters.values()
    needed = ", ".join(p.name for p in parameters if p.default is p.empty)
    if needed:
        raise TypeError(
            f"the preset {name} has no default for {needed}: write lrp.composites.{name}({needed}) with "
            "your values"
        )
    return PRESETS[name]()


def _joined(parts: Sequence[Any]) -> Composite:
    if not parts:
        raise TypeError("composite is an empty list: pass None for the default")
    return functools.reduce(operator.add, map(as_composite, parts))


def _chooser(given: Callable[..., Any]) -> Composite:
    name = getattr(given, "__name__", "")
    if PRESETS.get(name) is given:
        return _preset(name)
    if getattr(given, "__module__", None) == Composite.__module__:  # `by_kind` itself
        needed = ", ".join(inspect.signature(given).parameters)
        raise TypeError(f"composite is {name} itself, which must be called: write {name}({needed})")
    try:
        inspect.signature(given).bind(None)
    except TypeError as error:
        raise TypeError(
            f"the composite function {given!r} must take one argument, a lrp.Layer, and return its rule or "
            f"None: {error}"
        ) from None
    except ValueError:  # a function without a signature
        pass
    return Composite((Entry(Anything(), Chosen(given)),), name=name)
