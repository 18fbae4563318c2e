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
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax._src import core, source_info_util  # no public way to a user's source line
from jax._src import shard_map as shard_map_internal
from jax._src.lax import lax as lax_internal
from jax._src.lax import parallel
from jax.extend import core as jex
from jax.extend.core import primitives as jex_primitives

ClosedJaxpr = jex.ClosedJaxpr
Jaxpr = jex.Jaxpr
Literal = jex.Literal
Primitive = jex.Primitive
JaxprEqn = Any

# `shard_map`, casts between its types, and grouped products are exported under no public name.
_UNEXPORTED = (core, lax_internal, parallel, shard_map_internal)
_LIBRARIES = tuple(os.path.dirname(str(module.__file__)) + os.sep for module in (jax, flax))
_HERE = os.path.dirname(__file__) + os.sep


def primitive(name: str) -> Primitive | None:
    """The primitive object called `name`, or None where this JAX has none of that name."""
    for module in (lax, jex_primitives, *_UNEXPORTED):
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


def shard_mesh(eqn: JaxprEqn) -> dict[str, int]:
    """The axes over which a `shard_map` equation maps, and how many devices lie along each."""
    manual, shape = eqn.params["newly_manual_axes"], eqn.params["mesh"].shape
    return {axis: size for axis, size in shape.items() if axis in manual}


def shard_specs(eqn: JaxprEqn) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """How a `shard_map` equation lays its inputs and its outputs out on the mesh."""
    return eqn.params["in_specs"], eqn.params["out_specs"]


def tracks_varying(eqn: JaxprEqn) -> bool:
    """Whether the types inside a `shard_map` say along which axes of the mesh a value varies."""
    return eqn.params["check_vma"]


def shard_map(
    eqn: JaxprEqn, fun: Callable[..., Any], in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    """Maps another function over the devices of a `shard_map` equation."""
    return jax.shard_map(
        fun,
        mesh=eqn.params["mesh"],
        in_specs=in_specs,
        out_specs=out_specs,
        axis_names=eqn.params["newly_manual_axes"],
        check_vma=eqn.params["check_vma"],
    )


def partition(axes: Sequence[str | None]) -> jax.sharding.PartitionSpec:
    """The leading dimensions of an array laid out along axes of a mesh."""
    return jax.sharding.PartitionSpec(*axes)


def varying(value: Any) -> frozenset[str]:
    """The axes of the mesh along which a value, or a value of this type, varies in a `shard_map`."""
    aval = value if hasattr(value, "mat") else jax.typeof(value)
    return frozenset(getattr(aval, "mat", aval).varying)


def varying_around(aval: Any) -> frozenset[str]:
    """Those axes that belong to a mesh which the program is being mapped over right now."""
    return varying(aval) & frozenset(jax.sharding.get_abstract_mesh().manual_axes)


def zeros(shape: Sequence[int], dtype: Any, axes: frozenset[str] = frozenset()) -> Array:
    """Zeros of the type of a value that varies along some axes of a mesh."""
    return varied(jnp.zeros(shape, dtype), axes)


def varied(value: Array, axes: frozenset[str]) -> Array:
    """A value as one that varies along at least these axes of the mesh around it."""
    missing = tuple(sorted(axes - varying(value)))
    return lax.pcast(value, missing, to="varying") if missing else value


def typed_as(value: Array, other: Array) -> Array:
    """A value that lies on the mesh as `other` does: with its axes, or its explicit sharding."""
    return placed_as(varied(value, varying(other)), other)


def placed_as(value: Array, other: Array) -> Array:
    """A value with the explicit sharding of `other`, where it has one."""
    sharding = jax.typeof(other).sharding
    if not sharding.mesh.explicit_axes or jax.typeof(value).sharding == sharding:
        return value
    return jax.sharding.reshard(value, sharding)


def alike(*values: Array) -> tuple[Array, ...]:
    """Values that vary along the same axes of the mesh, as primitives ask of their operands."""
    axes = frozenset().union(*map(varying, values))
    return tuple(varied(value, axes) for value in values)


def summed_to(amount: Array, axes: frozenset[str]) -> Array:
    """An amount that varies along these axes of the mesh alone; the sum over devices is the same."""
    held = varying(amount)
    if held - axes:
        amount = lax.psum(amount, tuple(sorted(held - axes)))
    for axis in sorted(axes - held):
        amount = varied(amount / lax.axis_size(axis), frozenset({axis}))
    return amount


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
