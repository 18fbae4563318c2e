"""All that depends on a JAX or Flax version.

Nothing else in the package touches a private module, asks for a primitive by name, or reads the
parameters of an equation whose spelling has changed between the versions that we support.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import flax
import jax
import numpy as np
from jax import lax
from jax._src import source_info_util  # no public way to a user's source line
from jax.extend import core as jex
from jax.extend.core import primitives as jex_primitives

ClosedJaxpr = jex.ClosedJaxpr
Jaxpr = jex.Jaxpr
Literal = jex.Literal
Primitive = jex.Primitive
JaxprEqn = Any

_LIBRARIES = tuple(os.path.dirname(str(module.__file__)) + os.sep for module in (jax, flax))
_HERE = os.path.dirname(__file__) + os.sep


def primitive(name: str) -> Primitive | None:
    """The primitive object called `name`, or None where this JAX has none of that name."""
    for module in (lax, jex_primitives):
        found = getattr(module, f"{name}_p", None)
        if found is not None:
            return found
    return None


def primitives(*names: str) -> frozenset[Primitive]:
    """Those of the named primitives that this JAX has."""
    return frozenset(p for p in map(primitive, names) if p is not None)


def bind(eqn: JaxprEqn, inputs: Sequence[Any], **changes: Any) -> list[Any]:
    """Applies the primitive of an equation to other inputs, with some parameters changed."""
    params = eqn.primitive.get_bind_params({**eqn.params, **changes})
    subfuns, params = params if isinstance(params, tuple) else ((), params)
    result = eqn.primitive.bind(*subfuns, *inputs, **params)
    return list(result) if eqn.primitive.multiple_results else [result]


def call_body(eqn: JaxprEqn) -> tuple[Jaxpr, Sequence[Any]]:
    """The body of a call-like equation and the constants it closes over."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        body = eqn.params.get(key)
        if body is not None:
            return open_jaxpr(body)
    raise TypeError(
        f"the call primitive {eqn.primitive} holds no jaxpr; parameters {list(eqn.params)}"
    )


def open_jaxpr(body: Any) -> tuple[Jaxpr, Sequence[Any]]:
    """(jaxpr, constants) of an open or a closed jaxpr; JAX 0.12 has one class for both."""
    return getattr(body, "jaxpr", body), getattr(body, "consts", ())


def scan_counts(eqn: JaxprEqn) -> tuple[int, int]:
    """How many constants and how many carries a scan equation has."""
    if "num_consts" in eqn.params:
        return eqn.params["num_consts"], eqn.params["num_carry"]
    consts, carry, _ = eqn.params["ft_in"].unpack()
    return len(consts), len(carry)


def name_stack(eqn: JaxprEqn) -> str:
    """The scopes in which an equation was traced, relative to the jaxpr that holds it."""
    return str(eqn.source_info.name_stack)


def source_line(eqn: JaxprEqn) -> str:
    """The innermost `file:line (function)` outside JAX, Flax and this package; may be empty."""
    try:
        frames = list(source_info_util.user_frames(eqn.source_info.traceback))
    except Exception:  # a private interface: an error message must not fail for want of a line
        return ""
    for frame in frames:
        if not frame.file_name.startswith((*_LIBRARIES, _HERE)):
            line = getattr(frame, "start_line", getattr(frame, "line_num", "?"))
            return f"{frame.file_name}:{line} ({frame.function_name})"
    return ""


def closed(jaxpr: Jaxpr, consts: Sequence[Any] = ()) -> ClosedJaxpr:
    """A closed jaxpr of an open one and its constants."""
    return (
        jaxpr if isinstance(jaxpr, ClosedJaxpr) and not consts else ClosedJaxpr(jaxpr, list(consts))
    )


def function_name(eqn: JaxprEqn) -> str:
    """The name under which a call was made: `relu` for `jax.nn.relu`; may be empty."""
    name = eqn.params.get("name")
    if isinstance(name, str):
        return name
    jaxpr, _ = call_body(eqn)
    info = getattr(jaxpr, "debug_info", None)
    return str(getattr(info, "func_name", "") or "")


def is_traced(value: Any) -> bool:
    """Whether a value is known only inside a trace, and cannot be looked at."""
    return isinstance(value, jax.core.Tracer)  # pyright: ignore[reportAttributeAccessIssue]


def is_array(value: Any) -> bool:
    """Whether `value` is a JAX array, a tracer or a NumPy array or scalar of a dtype JAX holds."""
    if isinstance(value, jax.Array):
        return True
    return isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufcV"


def make_jaxpr(fun: Callable[..., Any], *args: Any) -> tuple[ClosedJaxpr, Any]:
    """`jax.make_jaxpr` with the tree of the output's shapes."""
    return jax.make_jaxpr(fun, return_shape=True)(*args)
