"""One explanation: relevance from a target to the input, and to what else was asked for."""

from __future__ import annotations

import dataclasses
import fnmatch
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat, targets
from jaxlrp.errors import GrowthWarning, NonFiniteError, near, where
from jaxlrp.explanation.growth import growth_warning
from jaxlrp.explanation.plan import Plan
from jaxlrp.network.control_flow import Taps
from jaxlrp.network.dependence import cuts_before, is_inexact
from jaxlrp.network.discrete import carrier, is_discrete, lifted, raw, with_carrier
from jaxlrp.network.trace import Source, Traced, trace
from jaxlrp.numerics import to_relevance, widen
from jaxlrp.propagation.blanks import blanks
from jaxlrp.propagation.interpreter import Rules, interpret


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Record:
    """What was recorded at a layer's output.

    Attributes:
      relevance: of the output, same shape; layers inside a scan have its length as leading axis.
      activation: the output itself.
    """

    relevance: Array
    activation: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Explanation:
    """What an explanation gives.

    Attributes:
      output: of the function.
      relevance: of the explained argument, of its structure and shapes; of an integer input, one
        number for each token. A tuple where `argnums` is one.
      aux: the auxiliary output, with `has_aux`.
      records: what `record=` asked for, by layer path.
      parameters: with `parameters=`, the relevance of those arguments, of their structure.
      gains: with `debug=True`, the sum of |R| at the output of each layer in units of that at the output
        of the function, by path; of a layer in a scan, in the step where it is greatest.
    """

    output: Any
    relevance: Any
    aux: Any = None
    records: dict[str, Record] = dataclasses.field(default_factory=dict)
    parameters: Any = None
    gains: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
    """One explanation: what is traced, what is planned, what is asked for.

    Attributes:
      source, traced, plan: the function, its trace, the rule of each layer.
      patterns: `record=` of `explain`; paths or shell patterns.
      start: the path of the layer at which relevance begins, None for the output.
      parameters: positions of arguments whose own relevance is asked for.
      args: the positional arguments.
    """

    source: Source
    traced: Traced
    plan: Plan
    patterns: tuple[str, ...]
    start: str | None
    parameters: tuple[int, ...]
    args: tuple[Any, ...]

    def run(self, target: Any, condition: Mapping[str, Any]) -> Explanation:
        """One forward pass and one pass of relevance; see `explain` for target and condition."""
        traced = self.traced
        self._check_depends()
        recorded = self._recorded()
        masks = {path: self._mask(path, m) for path, m in condition.items()}
        weights = self._parameter_values()
        tapped = dict.fromkeys(recorded)
        if self.start is not None:
            tapped[self._known(self.start)] = None
        blank = blanks(traced.network)
        deltas = {path: blank[path].output for path in tapped}
        rules = Rules.planned(self.plan, self.start)

        def forward(variables: dict[str, Any]) -> tuple[Any, Any]:
            values = list(traced.values)
            for n, value in (variables["parameters"] | variables["explained"]).items():
                values[n] = with_carrier(lifted(values[n]), value)
            taps = Taps(outputs=variables["taps"], masks=masks)
            found, activations = interpret(traced.network, rules, values, taps)
            outputs = list(map(raw, found))
            output = jax.tree.unflatten(traced.output_tree, outputs[: traced.n_outputs])
            held = activations
            rest = (output, outputs[traced.n_outputs :], held)
            return (output if self.start is None else held[self.start]), rest

        variables = {
            "explained": {n: carrier(lifted(traced.values[n])) for n in traced.explained},
            "parameters": {n: traced.values[n] for n in weights},
            "taps": deltas,
        }
        begun, pull, (output, aux, activations) = jax.vjp(forward, variables, has_aux=True)
        (g,) = pull(targets.initial(begun, target, self.plan.readout))
        return Explanation(
            output=output,
            relevance=self._relevance(g["explained"]),
            aux=None if traced.aux_tree is None else jax.tree.unflatten(traced.aux_tree, aux),
            records={
                path: Record(self._read(activations[path], g["taps"][path]), activations[path])
                for path in recorded
            },
            parameters=self._parameter_relevance(g["parameters"]),
        )

    def _read(self, a: Array, g: Array) -> Array:
        if self.plan.readout == "gradient":
            return g

        def read(a: Array, g: Array) -> Array:
            return (
                to_relevance(widen(a), g) if is_discrete(a) else to_relevance(a, g).astype(_real(a))
            )

        return _compat.placed_as(_compat.freely(read, jnp.asarray(a), g), a)

    def _relevance(self, g: Mapping[int, Array]) -> Any:
        read = {n: self._read(self.traced.values[n], g[n]) for n in self.traced.explained}
        found = self.traced.arguments(self.args, self.source.argnums, read)
        return found[0] if self.source.single else found

    def _check_depends(self) -> None:
        network = self.traced.network
        outputs = network.graph.outputs[: self.traced.n_outputs]
        floats = [v for v in outputs if is_inexact(network.graph, v)]
        if any(v in network.live for v in floats):
            return
        if outputs and not floats:
            dtypes = sorted({str(network.graph.avals[v].dtype) for v in outputs})
            raise TypeError(
                f"the output has dtype {', '.join(dtypes)}: relevance begins at a floating-point output; "
                "explain the function that gives scores, or cast the output, f(x).astype('float32')"
            )
        cuts = cuts_before(network.structure.dependence, outputs)
        what = f"the explained argument (argnums={self.source.argnums})"
        if cuts:
            listed = "; ".join(f"`{op.primitive}` {where('', op.source)}" for op in cuts[:3])
            raise ValueError(
                f"the output depends on {what} only through operations that carry no relevance: {listed}. "
                "Comparisons, positions of maxima, casts to booleans and `stop_gradient` are constants: "
                "explain the function of what comes after them, or replace them by a smooth function"
            )
        raise ValueError(
            f"the output does not depend on {what}: name the argument that holds the input"
        )

    def _known(self, path: str) -> str:
        paths = self.plan.paths
        if path not in paths:
            raise ValueError(f"there is no layer {path!r}: {near(path, paths)}")
        return path

    def _recorded(self) -> list[str]:
        found: dict[str, None] = {}
        for pattern in self.patterns:
            paths = self.plan.paths
            matched = [p for p in paths if p == pattern or fnmatch.fnmatchcase(p, pattern)]
            if not matched:
                raise ValueError(
                    f"record={pattern!r} matches no layer: {near(pattern, self.plan.paths)}"
                )
            found.update(dict.fromkeys(map(self._known, matched)))
        return list(found)

    def _mask(self, path: str, mask: Any) -> Array:
        shape = blanks(self.traced.network)[self._known(path)].shape
        mask = jnp.asarray(mask)
        try:
            fits = jnp.broadcast_shapes(mask.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"condition[{path!r}] must broadcast to the output of that layer, of shape {shape}, got "
                f"shape {mask.shape}"
            )
        return jnp.broadcast_to(mask, shape)

    def _parameter_values(self) -> list[int]:
        """Which traced values are parameters whose relevance is asked for."""
        if not self.parameters:
            return []
        for rule, row in zip(self.plan.rules, self.plan.rows, strict=True):
            if row.kind in ("dense", "conv") and not rule.splits_parameters:
                raise ValueError(
                    f"parameters={self.parameters} asks for the relevance of parameters, of which the "
                    f"rule {rule!r} at {row.path!r} says nothing"
                )
        return [
            n
            for n, (argument, _) in enumerate(self.traced.places)
            if argument in self.parameters and jnp.issubdtype(_dtype(self.traced, n), jnp.inexact)
        ]

    def _parameter_relevance(self, g: Mapping[int, Array]) -> Any:
        if not self.parameters:
            return None
        read = {
            n: value * g[n] if n in g else jnp.zeros(jnp.shape(value))
            for n, value in enumerate(self.traced.values)
        }
        found = self.traced.arguments(self.args, self.parameters, read)
        return found[0] if len(found) == 1 else found


def _dtype(traced: Traced, n: int) -> Any:
    return jnp.result_type(traced.values[n])


def _real(a: Array) -> Any:
    return jnp.real(a).dtype


def check_finite(
    held: Source, planned: Plan, args: tuple, kwargs: dict, target: Any, condition: Any
) -> dict[str, float]:
    """Raises at the first layer whose activation or relevance is not finite. For `debug=True`.

    Returns:
      The gain of each layer: its sum of |R|, in units of the initial relevance's.

    Warns:
      GrowthWarning: where relevance grew beyond bounds.

    Raises:
      NonFiniteError: naming the layer.
      TypeError: under `jit`, where values cannot be looked at.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(args):
        if _compat.is_traced(leaf):
            raise TypeError("debug=True looks at values and cannot run under jit: call it outside")
        if hasattr(leaf, "dtype") and not _is_finite(leaf):
            raise NonFiniteError(f"argument{jax.tree_util.keystr(path)} holds NaN or infinity")
    traced = trace(held, args, kwargs)
    paths = planned.paths
    setup = Attribution(held, traced, planned, paths, None, (), args)
    result = setup.run(target, condition or {})
    records = result.records
    for path in paths:
        if not _is_finite(records[path].activation):
            raise NonFiniteError(f"the output of layer {path!r} is the first with NaN or infinity")
    for path in reversed(paths):
        if not _is_finite(records[path].relevance):
            raise NonFiniteError(
                f"the relevance at the output of layer {path!r} is the first, from the output on, "
                f"with NaN or infinity; the layers behind it have {planned[path]!r} and the like: a "
                "stabilizer of zero, or an initial relevance that is not finite?"
            )
    if not all(map(_is_finite, jax.tree.leaves(result.relevance))):
        raise NonFiniteError(
            "the relevance of the explained argument holds NaN or infinity, though that of every "
            f"layer's output is finite: it is made by the first layer, {paths[0]!r} with "
            f"{planned[paths[0]]!r}"
        )
    begun = targets.initial(result.output, target, planned.readout)
    sizes = jax.tree.map(
        lambda z, g: float(jnp.abs(to_relevance(z, g)).sum()), result.output, begun
    )
    start = sum(jax.tree.leaves(sizes))
    found = {row.path: _size(records[row.path].relevance, row.loops) for row in planned.rows}
    gains = {path: size / start for path, size in found.items() if start}
    if said := growth_warning(dict(reversed(gains.items()))):
        warnings.warn(said, GrowthWarning, stacklevel=3)
    return gains


def _size(relevance: Array, loops: int) -> float:
    """The sum of |R|, in the step of the scans around where it is greatest."""
    axes = tuple(range(loops, relevance.ndim))
    return float(jnp.max(jnp.abs(relevance).sum(axes)))


def _is_finite(a: Any) -> bool:
    a = jnp.asarray(a)
    return not jnp.issubdtype(a.dtype, jnp.inexact) or bool(jnp.all(jnp.isfinite(a)))
