"""The compiled program: from a batch to everything that is stored of it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat
from jaxlrp.dataset import canonical, numeric_checks
from jaxlrp.dataset import policy as policies
from jaxlrp.dataset.members import (
    Member,
    axis_names,
    batch_axis,
    is_relevance,
    named,
    record_name,
    stored_dtype,
)
from jaxlrp.dataset.placement import Placement
from jaxlrp.dataset.policy import Conditions, Policy
from jaxlrp.dataset.reading import Spec
from jaxlrp.explanation.base import find_explainer
from jaxlrp.targets.classes import check_classes

_TRIED = (2, 3)  # samples per device of two traces, by which the axis of the batch is found


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """An explainer with all arguments that are not part of a batch.

    Attributes:
      explain: the result of `jaxlrp.explain`, or any function that returns an `Explanation`.
      args: the positional arguments without the explained one.
      kwargs: keyword arguments.
      position: index of the explained argument.
      conserves: whether relevance of the input is to be compared with that of the output.
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
        """The arguments, with their arrays replaced."""
        leaves, tree = jax.tree.flatten(self.args)
        left = iter(parameters)
        merged = [next(left) if hasattr(leaf, "dtype") else leaf for leaf in leaves]
        return jax.tree.unflatten(tree, merged)

    def __call__(self, args: tuple[Any, ...], x: Any, **kwargs: Any) -> Any:
        everything = (*args[: self.position], x, *args[self.position :])
        return self.explain(*everything, **self.kwargs, **kwargs)


def call(explain: Any, args: tuple[Any, ...]) -> Call:
    """Checks an explainer and its arguments. Arguments bound by `functools.partial` come first.

    Raises:
      TypeError: if `explain` is not callable, explains several arguments, or the explained argument
        does not lie after or between `args`.
    """
    kwargs: dict[str, Any] = {}
    while isinstance(explain, functools.partial):
        args, kwargs = (*explain.args, *args), {**explain.keywords, **kwargs}
        explain = explain.func
    if not callable(explain):
        raise TypeError(
            f"explainer must be callable, such as the result of jaxlrp.explain(...), got {explain!r}"
        )
    found = find_explainer(explain)
    if found is None and not _takes_target(explain):
        raise TypeError(
            "explainer must be the result of jaxlrp.explain(...), or a function with the keyword argument "
            f"target that returns an Explanation, got {explain!r}"
        )
    argnums = None if found is None else found[0].argnums
    if isinstance(argnums, (tuple, list)):
        if len(argnums) != 1:
            raise TypeError(
                f"explainer has argnums={argnums}, but a data set has one explained argument: combine "
                "several into one pytree"
            )
        (argnums,) = argnums
    position = len(args) if found is None or argnums is None else argnums - found[1]
    if position > len(args):
        raise TypeError(
            f"explainer has argnums={position}, so args must contain the {position} arguments before the "
            f"explained one, such as args=(variables,); got {len(args)}"
        )
    conserves = found is None or found[0].conserves
    return Call(explain, tuple(args), kwargs, position, conserves)


def _takes_target(function: Any) -> bool:
    """Whether a function takes `target=`, as far as its signature can be read."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    return "target" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


@dataclasses.dataclass(eq=False)
class Program:
    """What is computed of a batch.

    Attributes:
      members: the arrays that are stored, by name.
      classes: number of classes, if the targets of the source are class indices; else None.
      digest: a hash of the traced program, without the values of its parameters.
      equations: number of equations of the traced program.
      traces: number of times the program was traced for compilation.
      compilations: number of times it was compiled.
      trial_seconds: time spent on compiling trials.
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
    trial_seconds: float = 0.0
    axes: dict[str, int] = dataclasses.field(default_factory=dict)
    _tried: dict[int, Any] = dataclasses.field(default_factory=dict)

    def trial(self, size: int) -> Any:
        """As `compile`, to see what the program needs; counted only if a run then has such batches."""
        began = time.monotonic()
        uncounted = dataclasses.replace(self, traces=0, compilations=0)
        self._tried[size] = uncounted.compile(size)
        self.trial_seconds += time.monotonic() - began
        return self._tried[size]

    def compile(self, size: int) -> Any:
        """The program for this process's batches of `size`: of (parameters, input, rest)."""
        tried = self._tried.pop(size, None)
        self._tried.clear()
        if tried is not None:
            self.traces, self.compilations = self.traces + 1, self.compilations + 1
            return tried

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
            # An input without a result of its shape cannot be reused; the user cannot change that.
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
        """What is stored, with the axis of the batch first, and the checks of each sample."""
        found = {name: jnp.moveaxis(a, self.axes[name], 0) for name, a in raw.items()}
        stored = {
            name: numeric_checks.cast(a, self.members[name].dtype) for name, a in found.items()
        }
        relevances = [name for name in stored if is_relevance(name)]
        outputs = [name for name in stored if name.startswith("output")]
        checked = {
            "_finite_input": numeric_checks.all_finite(jax.tree.leaves(x)),
            "_finite": numeric_checks.all_finite([found[name] for name in relevances + outputs]),
        }
        rounded = [name for name in relevances if stored[name].dtype != found[name].dtype]
        if rounded:
            checked["_fits"] = numeric_checks.all_finite([stored[name] for name in rounded])
            errors = [numeric_checks.rounding_error(found[name], stored[name]) for name in rounded]
            checked["_error"] = jnp.max(jnp.stack(errors), axis=0)
        return stored | checked

    def _raw(self, parameters: list[Any], x: Any, target: Any, extra: Any) -> dict[str, Array]:
        """The arrays by name, with the axis of the batch where the function puts it."""
        args = self.call.with_parameters(parameters)

        def once(chosen: Any, condition: Any) -> dict[str, Any]:
            more = dict(extra) if condition is None else {**extra, "condition": condition}
            result = self.call(args, x, target=chosen, **more)
            found = named("relevance", result.relevance)
            for path, record in result.records.items():
                found[record_name(path, found)] = record.relevance
            found |= {f"_{name}": leaf for name, leaf in named("output", result.output).items()}
            if self.call.conserves and condition is None:
                found["residual"] = numeric_checks.residual(result.output, chosen, result.relevance)
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
            # int32 only fits class indices; a label from which a target is made can be larger
            found["target"] = index if self.policy.made else index.astype(jnp.int32)
        return found | named("label", target)

    def look(self) -> None:
        """Finds the members, their batch axes and the digest, by tracing twice."""
        shapes = []
        tried = [self.placement.structs(n, tuple(self.spec)) for n in _TRIED]
        for structs in tried:
            traced, shape = _compat.make_jaxpr(self._raw, self._abstract(), *structs)
            shapes.append(shape)
        sizes = tuple(jax.tree.leaves(structs)[0].shape[0] for structs in tried)
        self.equations, self.digest = len(traced.eqns), canonical.program(traced)
        small, large = shapes
        for name, a in small.items():
            self.axes[name] = batch_axis(name, a.shape, large[name].shape, sizes)
            shape = list(a.shape)
            shape.pop(self.axes[name])
            self.members[name] = Member(
                tuple(shape), stored_dtype(name, a.dtype, self.dtype), self._dims(name, len(shape))
            )
        output = self.members.get("output")
        if output is not None and output.shape:
            check_classes(self.policy.classes, output.shape[-1])
            if self.policy.given and (output.shape[-1] > 1 or not self.policy.made):
                self.classes = output.shape[-1]

    def _dims(self, name: str, rank: int) -> tuple[str, ...]:
        return axis_names(
            name, rank, several_targets=self.policy.count is not None,
            conditions=self.conditions is not None, dims=self.dims,
        )  # fmt: skip


def _greatest(z: Array) -> Array:
    return jnp.argmax(z, axis=-1).astype(jnp.int32)
