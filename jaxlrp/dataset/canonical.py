"""A hash of a traced program that is equal in every process and differs between programs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp import _compat
from jaxlrp.network import primitives as P

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
# Parameters of jit and shard_map that say where something runs, not what it computes.
_PLACE = re.compile(
    r"sharding|mesh|layout|device|donate|compiler_options|backend|inline|keep_unused"
)


def without_addresses(text: str) -> str:
    """A representation of objects without their memory addresses."""
    return _ADDRESS.sub("", text)


def program(jaxpr: Any) -> str:
    """A hash of a closed jaxpr, its constants and all nested jaxprs.

    Programs differ by primitives, parameters, operands, literals and constants. Of functions only the
    name counts, since what they compute is in the jaxpr. Inside a `shard_map`, whose shapes depend on
    the number of devices, only primitives count.
    """
    found = hashlib.blake2b(digest_size=16)
    for part in _program(*_compat.open_jaxpr(jaxpr)):
        found.update(part)
        found.update(b"\0")
    return found.hexdigest()


def array(value: Any) -> Iterator[bytes]:
    """Shape, dtype and bytes of an array; no bytes if it is distributed over processes."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        yield f"spread {value.dtype} {value.shape}".encode()
        return
    held = np.asarray(value)
    yield f"{held.dtype} {held.shape}".encode()
    if held.dtype == object:
        yield without_addresses(repr(value)).encode()
    elif held.size:
        yield np.ascontiguousarray(held).view(np.uint8).tobytes()


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, (_compat.Jaxpr, _compat.ClosedJaxpr))


def _program(jaxpr: _compat.Jaxpr, constants: Any) -> Iterator[bytes]:
    numbers: dict[Any, int] = {}

    def new(variables: Any) -> Iterator[bytes]:
        for var in variables:
            numbers[var] = len(numbers)
            shape, dtype = getattr(var.aval, "shape", ""), getattr(var.aval, "dtype", "")
            yield f"{numbers[var]} {dtype} {shape}".encode()

    def read(variables: Any) -> Iterator[bytes]:
        for var in variables:
            if isinstance(var, _compat.Literal):
                yield from array(var.val)
            else:
                yield str(numbers[var]).encode()

    yield from new([*jaxpr.constvars, *jaxpr.invars])
    for constant in constants:
        yield from array(constant)
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name.encode()
        yield from read(eqn.invars)
        if eqn.primitive is P.SHARD_MAP:
            yield from _primitives(eqn)
        else:
            yield from _value(eqn.params)
        yield from new(eqn.outvars)
    yield from read(jaxpr.outvars)


def _value(value: Any) -> Iterator[bytes]:
    """A parameter of an equation."""
    if _is_jaxpr(value):
        yield from _program(*_compat.open_jaxpr(value))
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            if not _PLACE.search(str(key)):
                yield str(key).encode()
                yield from _value(value[key])
    elif isinstance(value, (tuple, list)):
        yield f"{len(value)}".encode()
        for item in value:
            yield from _value(item)
    elif isinstance(value, (set, frozenset)):
        yield from sorted(b"".join(_value(item)) for item in value)
    elif isinstance(value, (np.ndarray, jax.Array)):
        yield from array(value)
    elif callable(value) and not isinstance(value, type):
        yield str(getattr(value, "__name__", type(value).__name__)).encode()
    else:
        yield without_addresses(repr(value)).encode()


def _primitives(eqn: _compat.JaxprEqn) -> Iterator[bytes]:
    for value in jax.tree.leaves(dict(eqn.params), is_leaf=_is_jaxpr):
        if _is_jaxpr(value):
            for inner in _compat.open_jaxpr(value)[0].eqns:
                yield inner.primitive.name.encode()
                yield from _primitives(inner)
