"""What a user may give in place of a composite."""

from __future__ import annotations

from collections.abc import Callable

from jaxlrp.composites.entries import Anything, Chosen, Composite, Entry
from jaxlrp.composites.presets import PRESETS, default
from jaxlrp.network.layers import Layer
from jaxlrp.rules import Rule

RuleChooser = Callable[[Layer], Rule | None]
"""A function from a layer to its rule; None leaves the layer to its default rule."""


def as_composite(given: Composite | Rule | RuleChooser | None) -> Composite:
    """A composite of what a user gave: a rule wherever it applies, a function that chooses rules.

    Raises:
      TypeError: if it is none of these, with what to write instead.
    """
    if given is None:
        return default()
    if isinstance(given, Composite):
        return given
    if isinstance(given, Rule):
        return Composite((Entry(Anything(), given),), name=repr(given))
    if isinstance(given, type) or any(given is preset for preset in PRESETS.values()):
        name = getattr(given, "__name__", "")
        raise TypeError(f"composite is {name} itself, which must be called: write {name}(...)")
    if callable(given):
        return Composite((Entry(Anything(), Chosen(given)),), name=getattr(given, "__name__", ""))
    raise TypeError(
        "composite must be a Composite (see jaxlrp.composites), a Plan, a Rule, a function from a layer "
        f"to its rule, or None for the default; got {given!r}"
    )
