"""A composite as Python code."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import jax
import numpy as np

from jaxlrp import rules
from jaxlrp.composites.entries import (
    Between,
    Composite,
    Condition,
    Entry,
    First,
    Kind,
    Last,
    Module,
    Operation,
    Path,
)
from jaxlrp.numerics import Function

_HEADER = "from jaxlrp import composites, rules"


def code(composite: Composite, name: str = "composite") -> str:
    """Python code that builds an equal composite, to paste into a script.

    Numbers are written so that reading them again gives the same bits.

    Args:
      composite: of rules and conditions that jaxlrp has; functions of your own must be importable.
      name: of the variable.

    Returns:
      Several lines: imports, then the assignment.

    Raises:
      TypeError: if `composite` is none.
      ValueError: if it has a lambda or a local function, which no code can name.

    Example:
      >>> import jaxlrp as lrp
      >>> from jaxlrp import composites
      >>> mine = composites.by_kind("conv", lrp.Gamma(0.5)) + composites.first(lrp.Flat())
      >>> print(composites.code(mine).rstrip())
      from jaxlrp import composites, rules
      <BLANKLINE>
      composite = composites.composite(
          composites.by_kind("conv", rules.Gamma(gamma=0.5)),
          composites.first(rules.Flat()),
      )
    """
    if not isinstance(composite, Composite):
        raise TypeError(
            f"composite must be a Composite, got {type(composite).__name__}: a preset must be called"
        )
    imports: set[str] = set()
    body = _composite(composite, imports, 0)
    return "\n".join([*sorted({_HEADER, *imports}), "", f"{name} = {body}"]) + "\n"


def _composite(composite: Composite, imports: set[str], depth: int) -> str:
    pad = "    " * (depth + 1)
    lines = [f"{pad}{_entry(entry, imports, depth + 1)},\n" for entry in composite.entries]
    if composite.name:
        lines.append(f"{pad}name={_text(composite.name)},\n")
    text = f"composites.composite(\n{''.join(lines)}{'    ' * depth})"
    if composite.readout == "relevance":
        return text
    imports.add("import dataclasses")
    return f"dataclasses.replace({text}, readout={_text(composite.readout)})"


def _entry(entry: Entry, imports: set[str], depth: int) -> str:
    then = entry.then
    if isinstance(then, Composite):
        inner = _composite(then, imports, depth)
    elif isinstance(then, rules.Rule):
        inner = _value(then, imports)
    else:
        raise ValueError(
            f"a composite with the function {then.function!r} cannot be written as code: use conditions "
            "of jaxlrp.composites with rules"
        )
    return _condition(entry.condition, imports).format(then=inner)


def _condition(condition: Condition, imports: set[str]) -> str:
    match condition:
        case Kind(kinds):
            shown = ", ".join(map(_text, kinds))
            shown = shown if len(kinds) == 1 else f"({shown})"
            return f"composites.by_kind({shown}, {{then}})"
        case Path(pattern):
            return f"composites.by_path({_escaped(_pattern(pattern, imports))}, {{then}})"
        case Module(module):
            return f"composites.by_module({_escaped(_text(module))}, {{then}})"
        case Operation(operation):
            return f"composites.by_operation({_escaped(_text(operation))}, {{then}})"
        case Between(low, high):
            return f"composites.by_depth({low}, {high}, {{then}})"
        case First():
            return "composites.first({then})"
        case Last():
            return "composites.last({then})"
    return f"composites.where({_imported(condition, imports)}, {{then}})"


def _text(value: str) -> str:
    """A string literal."""
    return json.dumps(value)


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _pattern(pattern: str | re.Pattern[str], imports: set[str]) -> str:
    if isinstance(pattern, str):
        return _text(pattern)
    imports.add("import re")
    return f"re.compile({_text(pattern.pattern)}, {int(pattern.flags)})"


def _imported(value: Any, imports: set[str]) -> str:
    """The name of a function or an instance of a condition without fields, imported."""
    made = dataclasses.is_dataclass(value) and not dataclasses.fields(value)
    named = type(value) if made else value
    module, name = getattr(named, "__module__", ""), getattr(named, "__qualname__", "")
    if module == "__main__" or not name.isidentifier():
        raise ValueError(
            f"{value!r} cannot be written as code, because it cannot be imported: define it at the top "
            "level of a module"
        )
    imports.add(f"from {module} import {name}")
    return f"{name}()" if made else name


def _value(value: Any, imports: set[str]) -> str:
    if isinstance(value, Function):
        return _imported(value.function, imports)
    if isinstance(value, (rules.Rule, rules.Stabilize)):
        held: Any = value
        fields = [f for f in dataclasses.fields(held) if f.init]
        changed = [f for f in fields if not _is_default(f, getattr(value, f.name))]
        inner = ", ".join(f"{f.name}={_value(getattr(value, f.name), imports)}" for f in changed)
        name = type(value).__name__
        if getattr(rules, name, None) is not type(value):
            return f"{_imported(type(value), imports)}({inner})"
        return f"rules.{name}({inner})"
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return _array(np.asarray(value), imports)
    if callable(value):
        return _imported(value, imports)
    if isinstance(value, float) and not np.isfinite(value):
        return f'float("{value}")'
    return _text(value) if isinstance(value, str) else repr(value)


def _array(held: np.ndarray, imports: set[str]) -> str:
    if held.ndim == 0:
        return _value(float(str(held)), imports)  # the shortest decimal of its dtype
    imports.add("import jax.numpy as jnp")
    shown = np.array2string(held, separator=", ", threshold=held.size, floatmode="unique")
    shown = re.sub(r"\b(inf|nan)\b", r"jnp.\1", " ".join(shown.split()))
    return f"jnp.array({shown}, {_text(str(held.dtype))})"


def _is_default(field: dataclasses.Field, value: Any) -> bool:
    default = field.default
    if default is dataclasses.MISSING or isinstance(value, (jax.Array, np.ndarray)):
        return False
    return type(value) is type(default) and bool(value == default)
