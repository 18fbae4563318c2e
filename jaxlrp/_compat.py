"""All that depends on a JAX or Flax version.

Nothing else in the package touches a private module, asks for a primitive by name, or reads the
parameters of an equation whose spelling has changed between the versions that we support.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax._src import config, core, source_info_util  # no public way to a user's source line
from jax._src import custom_batching as batching_internal
from jax._src import pjit as pjit_internal
from jax._src import shard_map as shard_map_internal
from jax._src.interpreters import ad
from jax._src.lax import lax as lax_internal
from jax._src.lax import parallel
from jax.extend import core as jex
from jax.extend.core import primitives as jex_primitives

ClosedJaxpr = jex.ClosedJaxpr
Jaxpr = jex.Jaxpr
Literal = jex.Literal
Primitive = jex.Primitive
JaxprEqn = Any

# `shard_map`, casts between its types, `reshard`, grouped products and calls with a batching rule of their
# own are exported under no public name.
_UNEXPORTED = (
    core, lax_internal, parallel, shard_map_internal, pjit_internal, batching_internal,
)  # fmt: skip
_LIBRARIES = tuple(os.path.dirname(str(module.__file__)) + os.sep for module in (jax, flax))
_LATE_LIBRARIES = {"torch", "torchax"}  # looked up where they are imported: they are optional
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


def bind(eqn: JaxprEqn, inputs: Sequence[Any]) -> list[Any]:
    """Evaluates an equation, under the types of the mesh's axes under which it was traced.

    They differ from those around it inside `jax.sharding.auto_axes` and `explicit_axes`.
    """
    mesh = eqn.ctx.cur_abstract_mesh
    if mesh == jax.sharding.get_abstract_mesh():
        return _bind(eqn, inputs)
    with jax.sharding.use_abstract_mesh(mesh):
        return _bind(eqn, inputs)


def bind_freely(eqn: JaxprEqn, inputs: Sequence[Any], **changes: Any) -> list[Any]:
    """Applies the primitive of an equation inside `freely`, with some parameters changed.

    The sharding that the equation asks of its result is that of the forward pass.
    """
    asked = {key: None for key in ("out_sharding", "sharding") if key in eqn.params}
    return _bind(eqn, inputs, **asked, **changes)


def _bind(eqn: JaxprEqn, inputs: Sequence[Any], **changes: Any) -> list[Any]:
    params = eqn.primitive.get_bind_params({**eqn.params, **changes})
    subfuns, params = params if isinstance(params, tuple) else ((), params)
    result = eqn.primitive.bind(*subfuns, *inputs, **params)
    return list(result) if eqn.primitive.multiple_results else [result]


def call_body(eqn: JaxprEqn) -> tuple[Jaxpr, Sequence[Any]]:
    """The body of a call-like equation and the constants it closes over."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr", "call"):
        body = eqn.params.get(key)
        if body is not None:
            return open_jaxpr(body)
    raise TypeError(
        f"the call primitive {eqn.primitive} contains no jaxpr; parameters {list(eqn.params)}"
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


def partition(axes: Sequence[Any]) -> jax.sharding.PartitionSpec:
    """The leading dimensions of an array laid out along axes of a mesh."""
    return jax.sharding.PartitionSpec(*axes)


def varying(value: Any) -> frozenset[str]:
    """The axes of the mesh along which a value, or a value of this type, varies in a `shard_map`."""
    return frozenset(type_of(value).mat.varying)


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


def typed_as(value: Array, other: Any) -> Array:
    """A value that lies on the mesh as `other` does, a value or a type.

    That is: it varies along the same axes, or has the same explicit sharding.
    """
    return placed_as(varied(value, varying(other)), other)


def placed_as(value: Array, other: Any) -> Array:
    """A value with the explicit sharding of `other`, a value or a type, where that has one."""
    return resharded(value, type_of(other).sharding)


def cotangent_of(value: Array, primal: Any) -> Array:
    """A cotangent with the explicit sharding of a value, or of its type.

    Raises:
      NotImplementedError: if the value is `reduced` along an axis of the mesh: JAX 0.10 counts what is
        replicated once for each device where it becomes unreduced.
    """
    sharding = type_of(primal).sharding
    if sharding.spec.reduced:
        raise NotImplementedError(
            f"a layer reads a value with sharding {sharding.spec}, whose cotangent would be unreduced: "
            "remove `reduced=` from the PartitionSpec of that value in the explained function"
        )
    return resharded(value, sharding)


def laid_along(value: Array, aval: Any) -> Array:
    """A value that broadcasts to a type, with the type's explicit sharding where they share an axis."""
    sharding = aval.sharding
    ahead = len(aval.shape) - value.ndim
    spec = [
        axes if n == whole else None
        for n, whole, axes in zip(
            value.shape, aval.shape[ahead:], tuple(sharding.spec)[ahead:], strict=True
        )
    ]
    return resharded(value, sharding.update(spec=partition(spec)))


def on_mesh_of(tree: Any) -> contextlib.AbstractContextManager[Any]:
    """Sets the mesh on which some of these arrays lie with explicit shardings, where none is set.

    Inside a trace the mesh is known: there it does nothing.
    """
    if core.trace_state_clean() and jax.sharding.get_abstract_mesh().empty:
        for value in jax.tree.leaves(tree):
            mesh = getattr(getattr(value, "sharding", None), "mesh", None)
            if isinstance(mesh, jax.sharding.Mesh) and mesh.abstract_mesh.explicit_axes:
                return jax.set_mesh(mesh)
    return contextlib.nullcontext()


def laid_out(value: Array, ahead: Sequence[str | None], aval: Any) -> Array:
    """A value with the explicit sharding of a type, behind dimensions laid along some axes ahead.

    What the mesh around the program knows to be explicit counts; inside, the axes may be of other types.
    """
    around = jax.sharding.get_abstract_mesh()
    mesh = aval.sharding.mesh if around.empty else around
    known = set(mesh.explicit_axes)
    spec = [
        axes if known.issuperset(axes if isinstance(axes, tuple) else (axes,)) else None
        for axes in (*ahead, *aval.sharding.spec)
    ]
    return resharded(value, jax.sharding.NamedSharding(mesh, partition(spec)))


def seen_around(value: Array) -> Array:
    """A value from inside `jax.sharding.auto_axes` as the explicit mesh around it sees it: unsharded."""
    held, around = jax.typeof(value).sharding.mesh, jax.sharding.get_abstract_mesh()
    if held.empty or held.explicit_axes or not around.explicit_axes:
        return value
    return resharded(value, jax.sharding.NamedSharding(around, partition(())))


def type_of(value: Any) -> Any:
    """The type of a value; a type is its own."""
    return value if isinstance(value, core.AbstractValue) else jax.typeof(value)


def resharded(value: Array, sharding: Any) -> Array:
    """A value with another sharding, if the mesh of that or of the value has explicit axes."""
    held = jax.typeof(value).sharding
    if held == sharding or not (held.mesh.explicit_axes or sharding.mesh.explicit_axes):
        return value
    if sharding.mesh.empty:
        return value
    with jax.sharding.use_abstract_mesh(sharding.mesh.abstract_mesh):
        return jax.sharding.reshard(value, sharding)


def freely(fun: Callable[..., Any], *args: Any) -> Any:
    """`fun(*args)`, the compiler choosing how what it computes lies on the mesh.

    Operations on arrays of explicit sharding must say how their results are sharded, or fail, and rules
    multiply, slice and reshape what the user's own operations were written for. So explicit axes of the
    mesh are automatic ones inside. The result is left so: see `typed_as`.
    """
    meshes = (jax.typeof(a).sharding.mesh for a in jax.tree.leaves(args) if _is_array(a))
    mesh = next((mesh for mesh in meshes if not mesh.empty), None)
    around = jax.sharding.get_abstract_mesh()
    if mesh is None or not (mesh.explicit_axes or around.explicit_axes):
        return fun(*args)
    with jax.sharding.use_abstract_mesh(_automatic(mesh)):
        return fun(*_freed(args))


def as_traced(fun: Callable[..., Array], like: Sequence[Any]) -> Callable[..., Array]:
    """A function of the program, for use inside `freely`; its arguments must be of the types of `like`."""
    return lambda *args: _freed(fun(*map(placed_as, args, like)))


def _automatic(mesh: Any) -> Any:
    explicit = mesh.explicit_axes
    if not explicit:
        return mesh
    return mesh.update_axis_types(dict.fromkeys(explicit, jax.sharding.AxisType.Auto))


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array)


def _freed(tree: Any) -> Any:
    """Values whose explicit shardings are forgotten."""

    def one(value: Any) -> Any:
        if not _is_array(value):
            return value
        mesh = _automatic(jax.typeof(value).sharding.mesh)
        return resharded(value, jax.sharding.NamedSharding(mesh, partition(())))

    return jax.tree.map(one, tree)


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


def _folder(package: str) -> str:
    return os.path.dirname(str(sys.modules[package].__file__)) + os.sep


def source_line(eqn: JaxprEqn) -> str:
    """The innermost `file:line (function)` outside JAX, Flax, PyTorch and this package; may be empty."""
    try:
        frames = list(source_info_util.user_frames(eqn.source_info.traceback))
    except Exception:  # a private interface: an error message must not fail for want of a line
        return ""
    skipped = (*_LIBRARIES, *map(_folder, _LATE_LIBRARIES & sys.modules.keys()), _HERE)
    for frame in frames:
        if not frame.file_name.startswith(skipped):
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


def is_of_trace(value: Any, other: Any) -> bool:
    """Whether two traced values belong to the same trace, and not one of them to a loop inside of it."""
    return getattr(value, "_trace", None) is getattr(other, "_trace", None)


def is_in_derivative(value: Any) -> bool:
    """Whether a derivative of what is computed from a value is being taken around this trace.

    False inside of a `jit` or a loop that is itself differentiated: it is traced before.
    """
    while is_traced(value):
        if isinstance(value, (ad.JVPTracer, ad.LinearizeTracer)):
            return True
        value = getattr(value, "val", None)  # of what vmap has batched
    return False


def is_array(value: Any) -> bool:
    """Whether `value` is a JAX array, a tracer or a NumPy array or scalar of a dtype JAX holds."""
    if isinstance(value, jax.Array):
        return True
    return isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufcV"


def make_jaxpr(fun: Callable[..., Any], *args: Any) -> tuple[ClosedJaxpr, Any]:
    """`jax.make_jaxpr` with the tree of the output's shapes."""
    return jax.make_jaxpr(fun, return_shape=True)(*args)


def is_eager() -> bool:
    """Whether operations are evaluated as they are called: in no transformation, and to be compiled."""
    return core.trace_state_clean() and not jax.config.jax_disable_jit  # pyright: ignore[reportAttributeAccessIssue]


def trace_context() -> Any:
    """The settings that a trace depends on, hashable: precision, x64, the mesh that is set."""
    return config.trace_context()


def evaluate_jaxpr(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """The outputs of a jaxpr."""
    return jex.jaxpr_as_fun(closed(jaxpr, consts))(*args)


def has_symbolic_zeros(values: Any) -> bool:
    """Whether a `custom_vjp` of these values may ask for symbolic zeros; an eager `shard_map` has none."""
    traces = (getattr(leaf, "_trace", None) for leaf in jax.tree.leaves(values))
    return not any(isinstance(trace, shard_map_internal.ShardMapTrace) for trace in traces)


def values_of(primals: Any) -> Any:
    """The values of what a forward rule with `symbolic_zeros` is given."""
    return jax.tree.map(lambda p: p.value, primals)


def is_differentiated(primals: Any) -> bool:
    """Whether a cotangent of these arguments is used, in a forward rule with `symbolic_zeros`."""
    return any(p.perturbed for p in jax.tree.leaves(primals))


def instantiated(cotangents: Any) -> Any:
    """Cotangents that a backward rule with `symbolic_zeros` is given, zeros as arrays."""

    def one(c: Any) -> Any:
        is_zero = isinstance(c, jax.custom_derivatives.SymbolicZero)
        return jnp.zeros(c.shape, cast(Any, c).dtype) if is_zero else c

    return jax.tree.map(one, cotangents)
