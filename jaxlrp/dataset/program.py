"""The one compiled program: from a batch to all that is stored of it."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp import _compat, targets
from jaxlrp.dataset import canonical
from jaxlrp.dataset import policy as policies
from jaxlrp.dataset.placement import Placement
from jaxlrp.dataset.policy import Conditions, Policy
from jaxlrp.dataset.reading import Spec
from jaxlrp.errors import UnsupportedError
from jaxlrp.explanation.base import find_explainer
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.numerics import tiny, to_relevance

SAMPLE, TARGET, CONDITION = "sample", "target", "condition"
_TRIED = (2, 3)  # samples on each device, by whose difference the axis of the batch is told


@dataclasses.dataclass(frozen=True)
class Member:
    """One array of the store.

    Attributes:
      shape: of one sample.
      dtype: its name, as Zarr has it.
      dims: names of all axes, "sample" first.
    """

    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """A function that explains, with all that is not a batch.

    Attributes:
      explain: what `jaxlrp.explain` gives, or any function that gives an `Explanation`.
      args: the positional arguments but the explained one.
      kwargs: keyword arguments.
      position: of the explained argument.
      conserves: whether relevance is to be compared with what it begins with.
    """

    explain: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    position: int
    conserves: bool

    @property
    def parameters(self) -> list[Any]:
        """The arrays among the arguments."""
        return [leaf for leaf in jax.tree.leaves(self.args) if hasattr(leaf, "dtype")]

    def with_parameters(self, parameters: list[Any]) -> tuple[Any, ...]:
        """The arguments, with other arrays."""
        leaves, tree = jax.tree.flatten(self.args)
        left = iter(parameters)
        merged = [next(left) if hasattr(leaf, "dtype") else leaf for leaf in leaves]
        return jax.tree.unflatten(tree, merged)

    def __call__(self, args: tuple[Any, ...], x: Any, **kwargs: Any) -> Any:
        everything = (*args[: self.position], x, *args[self.position :])
        return self.explain(*everything, **self.kwargs, **kwargs)


def call(explain: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> Call:
    """Looks at what the user gave.

    Raises:
      TypeError: if `explain` is no function, or explains several arguments, or the explained argument
        is not behind or between `args`.
    """
    if not callable(explain):
        raise TypeError(
            f"explain must be a function such as jaxlrp.explain(...) gives, got {explain!r}"
        )
    found = find_explainer(explain)
    argnums = None if found is None else found[0].argnums
    if isinstance(argnums, (tuple, list)):
        if len(argnums) != 1:
            raise TypeError(
                f"explain has argnums={argnums}: a data set has one explained argument; put several into "
                "one pytree"
            )
        (argnums,) = argnums
    position = len(args) if found is None or argnums is None else argnums - found[1]
    if position > len(args):
        raise TypeError(
            f"explain has argnums={position}, so args must hold the {position} arguments before the "
            f"explained one, such as args=(variables,); got {len(args)}"
        )
    known = found[0] if found is not None and isinstance(found[0], Explainer) else None
    readout = known.composite.readout if known else "relevance"
    conserves = readout == "relevance" and (known is None or known.start is None)
    return Call(explain, tuple(args), dict(kwargs or {}), position, conserves)


@dataclasses.dataclass(eq=False)
class Program:
    """What is computed of a batch.

    Attributes:
      members: what is stored, by name.
      classes: how many the output has, where the source's targets are classes.
      digest: a hash of the traced program; its parameters do not count.
      equations: how many it has.
      traces: how often the program was traced for compilation.
      compilations: how often it was compiled.
    """

    call: Call
    policy: Policy
    conditions: Conditions | None
    spec: Spec
    placement: Placement
    dtype: str | None
    dims: tuple[str, ...] | None
    parameters: list[Any]
    members: dict[str, Member] = dataclasses.field(default_factory=dict)
    classes: int | None = None
    digest: str = ""
    equations: int = 0
    traces: int = 0
    compilations: int = 0
    axes: dict[str, int] = dataclasses.field(default_factory=dict)

    def compile(self, size: int) -> Any:
        """The program for this process's batches of `size`: of (parameters, input, rest)."""

        def step(parameters: list[Any], x: Any, rest: Any) -> dict[str, Array]:
            self.traces += 1
            return self._step(parameters, x, *rest)

        spec, struct = tuple(self.spec), self.placement.struct
        whole = self.placement.whole(size)
        batch = self.placement.batch
        x, *rest = jax.tree.map(lambda s: struct((whole, *s.shape), s.dtype, batch), spec)
        placed = [leaf.sharding for leaf in self.parameters]
        donated = jax.jit(
            step, donate_argnums=1, in_shardings=(placed, batch, batch), out_shardings=batch
        )
        with warnings.catch_warnings():
            # An input that has no result of its shape cannot be reused: nothing that a user can mend.
            warnings.filterwarnings("ignore", "Some donated buffers were not usable")
            compiled = donated.lower(self._abstract(), x, tuple(rest)).compile()
        self.compilations += 1
        return compiled

    def _abstract(self) -> list[Any]:
        struct = self.placement.struct
        return [struct(leaf.shape, leaf.dtype, leaf.sharding) for leaf in self.parameters]

    def _step(self, parameters: list[Any], x: Any, target: Any, extra: Any) -> dict[str, Array]:
        result = _compat.freely(self._checked, self._raw(parameters, x, target, extra), x)
        batch = self.placement.batch
        return {name: _compat.resharded(a, batch) for name, a in result.items()}

    def _checked(self, raw: dict[str, Array], x: Any) -> dict[str, Array]:
        """What is stored, the axis of the batch first, and what is wrong with it."""
        found = {name: jnp.moveaxis(a, self.axes[name], 0) for name, a in raw.items()}
        stored = {name: _cast(a, self.members[name].dtype) for name, a in found.items()}
        relevances = [name for name in stored if name.startswith(("relevance", "record."))]
        outputs = [name for name in stored if name.startswith("output")]
        checks = {
            "_finite_input": _all_finite(jax.tree.leaves(x)),
            "_finite": _all_finite([found[name] for name in relevances + outputs]),
        }
        if any(stored[name].dtype != found[name].dtype for name in relevances):
            checks["_fits"] = _all_finite([stored[name] for name in relevances])
            errors = [_error(found[name], stored[name]) for name in relevances]
            checks["_error"] = jnp.max(jnp.stack(errors), axis=0)
        return stored | checks

    def _raw(self, parameters: list[Any], x: Any, target: Any, extra: Any) -> dict[str, Array]:
        """By name, the axis of the batch where it is."""
        args = self.call.with_parameters(parameters)

        def once(chosen: Any, condition: Any) -> dict[str, Any]:
            more = dict(extra) if condition is None else {**extra, "condition": condition}
            result = self.call(args, x, target=chosen, **more)
            found = _named("relevance", result.relevance)
            for path, record in result.records.items():
                found[_record(path, found)] = record.relevance
            found |= {f"_{name}": leaf for name, leaf in _named("output", result.output).items()}
            if self.call.conserves and condition is None:
                found["residual"] = _residual(result.output, chosen, result.relevance)
            return found

        def of_target(chosen: Any) -> dict[str, Any]:
            if self.conditions is None:
                return once(chosen, None)
            stacked = policies.alike(self.conditions)
            items = policies.stack(self.conditions) if stacked else self.conditions.values()
            return policies.over(lambda c: once(chosen, c), items, stacked)

        chosen = self.policy.choose(target)
        if self.policy.count is None:
            found = of_target(chosen)
        else:
            found = policies.over(of_target, chosen, self.policy.stacked)
        leading = (self.policy.count is not None) + (self.conditions is not None)
        outputs = {k: a[(0,) * leading] for k, a in found.items() if k.startswith("_output")}
        found = {k: a for k, a in found.items() if k not in outputs}
        found |= {k.removeprefix("_"): a for k, a in outputs.items()}
        z = found.get("output")
        if z is not None and z.ndim > 1 and z.shape[-1] > 1:
            found["prediction"] = _compat.freely(_greatest, z)
        if z is not None and self.policy.index is not None:
            index = _compat.freely(self.policy.index, target, z)
            # what is no class yet is not known to fit
            found["target"] = index if self.policy.made else index.astype(jnp.int32)
        return found | _named("label", target)

    def look(self) -> None:
        """Finds the members, the axis of the batch of each, and the digest, by tracing twice."""
        shapes = []
        tried = [self.placement.structs(n, tuple(self.spec)) for n in _TRIED]
        for structs in tried:
            traced, shape = _compat.make_jaxpr(self._raw, self._abstract(), *structs)
            shapes.append(shape)
        sizes = tuple(jax.tree.leaves(structs)[0].shape[0] for structs in tried)
        self.equations, self.digest = len(traced.eqns), canonical.program(traced)
        small, large = shapes
        for name, a in small.items():
            self.axes[name] = _batch_axis(name, a.shape, large[name].shape, sizes)
            shape = list(a.shape)
            shape.pop(self.axes[name])
            self.members[name] = Member(
                tuple(shape), self._stored(name, a.dtype), self._dims(name, len(shape))
            )
        output = self.members.get("output")
        if output is not None and output.shape:
            policies.check_classes(self.policy.classes, output.shape[-1])
            if self.policy.given and (output.shape[-1] > 1 or not self.policy.made):
                self.classes = output.shape[-1]

    def _stored(self, name: str, dtype: Any) -> str:
        if not jnp.issubdtype(dtype, jnp.floating):
            return np.dtype(dtype).name
        if self.dtype is not None and name.startswith(("relevance", "record.")):
            return self.dtype
        return "float32" if dtype.itemsize < 4 else np.dtype(dtype).name

    def _dims(self, name: str, rank: int) -> tuple[str, ...]:
        explained = name.startswith(("relevance", "record.", "residual"))
        lead = [TARGET] if self.policy.count is not None and (explained or name == "target") else []
        lead += [CONDITION] if self.conditions is not None and explained else []
        left = rank - len(lead)
        if name.startswith("relevance") and self.dims is not None:
            if len(self.dims) != left:
                raise ValueError(
                    f"dims must name the {left} axes of one sample's relevance, got {self.dims}"
                )
            return (SAMPLE, *lead, *self.dims)
        if name == "output" and left == 1:
            return (SAMPLE, "class")
        return (SAMPLE, *lead, *(f"dim_{i}" for i in range(left)))


def _named(prefix: str, tree: Any) -> dict[str, Any]:
    """Leaves by names that can be those of folders.

    Raises:
      UnsupportedError: if two leaves would have the same name.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    found: dict[str, Any] = {}
    for path, leaf in leaves:
        key = re.sub(r"[/\\\0]", ".", jax.tree_util.keystr(path, simple=True, separator="."))
        name = f"{prefix}.{key}" if key else prefix
        if name in found:
            raise UnsupportedError(
                f"two parts of {prefix} would be stored as {name!r}: give their keys names that differ in "
                "more than '.' and '/'"
            )
        found[name] = leaf
    return found


def _greatest(z: Array) -> Array:
    return jnp.argmax(z, axis=-1).astype(jnp.int32)


def _batch_axis(
    name: str, small: tuple[int, ...], large: tuple[int, ...], tried: tuple[int, ...]
) -> int:
    pairs = list(zip(small, large, strict=True))
    differ = [i for i, (a, b) in enumerate(pairs) if a != b]
    if len(differ) != 1 or pairs[differ[0]] != tried:
        raise UnsupportedError(
            f"{name!r} has no axis of the batch: for batches of {tried[0]} and {tried[1]} samples its "
            f"shapes are {small} and {large}. Explain a function that gives each sample its own result"
        )
    return differ[0]


def _record(path: str, found: Mapping[str, Any]) -> str:
    """The name of a recorded layer's array."""
    name = f"record.{path.replace('/', '.')}"
    if name in found:
        raise UnsupportedError(
            f"two recorded layers would be stored as {name!r}, one of them is {path!r}: record one of them"
        )
    return name


def _per_sample(a: Array) -> Array:
    return a.reshape(a.shape[0] if a.ndim else 1, -1)


def _all_finite(leaves: list[Array]) -> Array:
    found = jnp.ones(leaves[0].shape[0], bool)
    for a in leaves:
        if jnp.issubdtype(a.dtype, jnp.inexact):
            found &= jnp.isfinite(_per_sample(a)).all(axis=1)
    return found


def _cast(a: Array, dtype: str) -> Array:
    return a if a.dtype == jnp.dtype(dtype) else a.astype(dtype)


def _error(exact: Array, stored: Array) -> Array:
    """The largest error of each sample, in units of its largest relevance.

    A network that is dead for a sample gives it less than `tiny`, which is no relevance to be wrong about.
    """
    exact = _per_sample(exact)
    worst = jnp.abs(exact - _per_sample(stored).astype(exact.dtype)).max(axis=1)
    return worst / jnp.maximum(jnp.abs(exact).max(axis=1), tiny(exact.dtype))


def _residual(output: Any, target: Any, relevance: Any) -> Array:
    """|begun - arrived| / |begun| of each sample."""

    def total(tree: Any) -> Array:
        parts = [_per_sample(a).sum(axis=1) for a in jax.tree.leaves(tree)]
        return sum(parts[1:], parts[0])

    def residual(output: Any, cotangent: Any, relevance: Any) -> Array:
        whole = total(jax.tree.map(to_relevance, output, cotangent))
        return jnp.abs(whole - total(relevance)) / jnp.abs(whole)

    return _compat.freely(residual, output, targets.initial(output, target), relevance)
