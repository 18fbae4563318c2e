"""Programs that an explainer compiles for its eager calls."""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import threading
import types
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import jax

from jaxlrp import _compat

LIMIT = 32  # how many programs an explainer holds

# What a function raises that looks at the values of arrays, which a trace does not have.
_LOOKS_AT_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


class Programs:
    """Compiled programs, at most `limit`; the one that was not used for the longest time goes first.

    There is one program for each structure, shapes, dtypes, shardings and static values of the inputs,
    and for each of JAX's settings. Arrays are its arguments. So are arrays that the function closes
    over, which would otherwise be copied into each program; as with `jax.jit`, the function is traced
    once for each program, and later changes of other captured state are not seen.

    Args:
      limit: how many programs are held.
      holds_arrays: whether programs of functions that close over arrays are held, and with them the arrays.
    """

    def __init__(self, limit: int = LIMIT, *, holds_arrays: bool = True) -> None:
        self._limit = limit
        self._holds_arrays = holds_arrays
        self._owner: Hashable = None
        self._held: collections.OrderedDict[Hashable, _Program] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def of(self, owner: Hashable) -> Programs:
        """The same programs, of which `run` uses those of this owner."""
        view = copy.copy(self)
        view._owner = owner
        return view

    def run(
        self,
        what: str,
        fun: Callable[[Any], tuple[Any, Any]],
        inputs: Any,
        check: Callable[[Any], None],
    ) -> Any:
        """The first of the two results of `fun(inputs)`, compiled.

        A function that looks at the values of arrays is evaluated as it is, and so is one with a static
        input that has no hash.

        Args:
          what: tells apart the functions of one explainer.
          fun: from a pytree of inputs to (a pytree, arrays whose shapes `check` is called with).
          inputs: arrays in it are traced, everything else is static.
          check: called before anything is computed.
        """
        leaves, tree = jax.tree.flatten(inputs)
        try:
            key = (self._owner, what, tree, tuple(map(_key, leaves)), _compat.trace_context())
            hash(key)
        except TypeError:
            return fun(inputs)[0]
        with self._lock:
            program = self._held.get(key)
            if program is not None:
                self._held.move_to_end(key)
        known = program is not None
        program = program or _trace(fun, leaves, tree)
        if program.run is not None:
            check(program.shapes)
        if not known and (self._holds_arrays or not program.constants):
            self._hold(key, program)
        if program.run is None:
            return fun(inputs)[0]
        return program([leaf for leaf in leaves if _compat.is_array(leaf)])

    def _hold(self, key: Hashable, program: _Program) -> None:
        with self._lock:
            self._held[key] = program
            while len(self._held) > self._limit:
                self._held.popitem(last=False)


@dataclasses.dataclass(frozen=True, eq=False)
class _Program:
    """One compiled program.

    Attributes:
      run: from (constants, arrays) to arrays; None for a function that cannot be compiled.
      constants: the arrays that the function closes over.
      tree, leaves: of the result, whose arrays are computed.
      shapes: what `check` is called with.
    """

    run: Callable[..., list[Any]] | None = None
    constants: tuple[Any, ...] = ()
    tree: Any = None
    leaves: tuple[Any, ...] = ()
    shapes: Any = None

    def __call__(self, arrays: list[Any]) -> Any:
        assert self.run is not None
        found = iter(self.run(self.constants, arrays))
        leaves = [next(found) if leaf is _COMPUTED else leaf for leaf in self.leaves]
        return jax.tree.unflatten(self.tree, leaves)


_COMPUTED = object()  # in place of an array of the result


def _trace(fun: Callable[[Any], tuple[Any, Any]], leaves: list[Any], tree: Any) -> _Program:
    """Traces a function once."""
    places = [i for i, leaf in enumerate(leaves) if _compat.is_array(leaf)]
    seen: dict[str, Any] = {}

    def flat(*arrays: Any) -> list[Any]:
        merged = list(leaves)
        for i, array in zip(places, arrays, strict=True):
            merged[i] = array
        result, begun = fun(jax.tree.unflatten(tree, merged))
        found, seen["tree"] = jax.tree.flatten(result)
        seen["leaves"] = tuple(_COMPUTED if _compat.is_array(a) else a for a in found)
        seen["shapes"] = jax.tree.map(lambda z: jax.ShapeDtypeStruct(z.shape, z.dtype), begun)
        return [a for a in found if _compat.is_array(a)]

    try:
        closed, _ = _compat.make_jaxpr(flat, *(leaves[i] for i in places))
    except _LOOKS_AT_VALUES:
        return _Program()
    jaxpr, constants = _compat.open_jaxpr(closed)
    run = jax.jit(lambda constants, arrays: _compat.evaluate_jaxpr(jaxpr, constants, arrays))
    return _Program(run, tuple(constants), **seen)


def _key(leaf: Any) -> Hashable:
    """What a program depends on of an input: the type of an array, the value of anything else."""
    if _compat.is_array(leaf):
        placed = leaf.sharding if getattr(leaf, "committed", False) else None
        return jax.typeof(leaf), placed
    return _static(leaf)


class _Same:
    """A key that is equal for the same object, which it keeps."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._value is other._value

    def __hash__(self) -> int:
        return id(self._value)


def key_of_value(value: Any) -> Hashable:
    """A key that is equal for equal values, functions and frozen dataclasses among them.

    Raises:
      TypeError: if something in it has no hash, or a function reads what has none, such as an array or a
        dictionary, which may be another one at the next call.
    """
    key = _static(value, strict=True)
    hash(key)
    return key


def _static(value: Any, depth: int = 0, strict: bool = False) -> Hashable:
    """A key that is equal for equal values: `1`, `1.0` and `True` are not, two like functions are.

    A function that is written down in a loop is a new object in each iteration, but the same program.

    Args:
      value: any.
      depth: how many functions read each other on the way to it.
      strict: raise `TypeError` for a function that reads what has no hash, which otherwise is equal to
        itself alone.
    """
    inner = functools.partial(_static, depth=depth, strict=strict)
    if isinstance(value, (bool, int, float, complex)):
        return type(value), repr(value)
    if type(value) is tuple:
        return tuple, tuple(map(inner, value))
    if isinstance(value, functools.partial):
        parts = type(value), inner((value.func, value.args, *value.keywords.items()))
        return parts if strict or _has_hash(parts) else _Same(value)
    if _is_frozen(value):
        fields = (getattr(value, field.name) for field in dataclasses.fields(value))
        return type(value), inner(tuple(fields))
    if strict and isinstance(value, types.MethodType):
        return type(value), inner(value.__self__), value.__func__
    if isinstance(value, types.FunctionType):
        try:
            if depth > 8:
                raise TypeError(f"{value!r} reads itself")
            parts = value.__code__, _static(_read_by(value), depth + 1, strict)
            hash(parts)
        except (TypeError, ValueError) as error:  # an array, or a variable without a value yet
            if strict:
                raise TypeError(str(error)) from error
            return _Same(value)
        return parts
    return type(value), value


def _has_hash(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _is_frozen(value: Any) -> bool:
    """Whether a value is a frozen dataclass that compares by its fields."""
    options = getattr(type(value), "__dataclass_params__", None)
    return options is not None and options.frozen and options.eq


def _read_by(function: types.FunctionType) -> tuple[Any, ...]:
    """The defaults of a function, what it closes over, and the global variables that it reads.

    Raises:
      ValueError: if one of these has no value yet.
    """
    defaults = (function.__defaults__, *(function.__kwdefaults__ or {}).items())
    closed = tuple(cell.cell_contents for cell in function.__closure__ or ())
    return defaults, closed, tuple(_globals_of(function.__code__, function.__globals__))


def _globals_of(code: types.CodeType, known: dict[str, Any]) -> Iterator[Any]:
    """The values of the global variables that a function reads, but for modules."""
    for name in code.co_names:
        if name in known and not isinstance(known[name], types.ModuleType):
            yield known[name]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals_of(constant, known)
