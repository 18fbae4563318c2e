"""One pass of relevance: from a target to the input, and to what else was requested."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat, targets
from jaxlrp.errors import where
from jaxlrp.explanation.patterns import by_layer, one, some
from jaxlrp.explanation.plan import Plan
from jaxlrp.explanation.result import Explanation, Record
from jaxlrp.network.control_flow import Taps
from jaxlrp.network.dependence import cuts_before, is_inexact
from jaxlrp.network.discrete import carrier, is_discrete, lifted, raw, with_carrier
from jaxlrp.network.trace import Traced
from jaxlrp.numerics import to_relevance, widen
from jaxlrp.propagation.blanks import Blanks, blanks
from jaxlrp.propagation.interpreter import interpret
from jaxlrp.targets import Target


@dataclasses.dataclass(frozen=True, eq=False)
class RelevancePass:
    """One forward pass and one pass of relevance: what is traced, planned and requested.

    Attributes:
      traced, plan: the function on its arguments, the rule of each layer.
      record: paths or shell patterns of layers, `record=` of `explain`.
      start: path or shell pattern of the layer at which relevance begins, None for the output.
    """

    traced: Traced
    plan: Plan
    record: tuple[str, ...] = ()
    start: str | None = None

    def run(self, target: Target, condition: Mapping[str, ArrayLike]) -> tuple[Explanation, Any]:
        """The explanation, and the values at which relevance begins: the output, or that of `start`.

        Args:
          target, condition: see `jaxlrp.explain`.
        """
        traced, given = self.traced, self.traced.arguments
        self._check_depends()
        start = None if self.start is None else one("start", self.start, self.plan.paths)
        recorded = self._recorded()
        blank = blanks(traced.network)
        masks = self._masks(condition, blank)
        weights = self._parameter_values()
        tapped = {*recorded, *([] if start is None else [start])}
        rules = self.plan.rules_for(start)

        def forward(variables: dict[str, Any]) -> tuple[Any, Any]:
            values = list(given.values)
            for n, value in (variables["parameters"] | variables["explained"]).items():
                values[n] = with_carrier(lifted(values[n]), value)
            taps = Taps(outputs=variables["taps"], masks=masks)
            found, recorded = interpret(traced.network, rules, values, taps)
            outputs = list(map(raw, found))
            output = jax.tree.unflatten(traced.output_tree, outputs[: traced.n_outputs])
            rest = (output, outputs[traced.n_outputs :], recorded)
            return (output if start is None else recorded[start]), rest

        variables = {
            "explained": {n: carrier(lifted(given.values[n])) for n in given.explained},
            "parameters": {n: given.values[n] for n in weights},
            "taps": {path: blank[path].output for path in tapped},
        }
        begun, pull, (output, aux, activations) = jax.vjp(forward, variables, has_aux=True)
        (g,) = pull(targets.initial(begun, target, self.plan.readout))
        explanation = Explanation(
            output=output,
            relevance=self._relevance(g["explained"]),
            aux=None if traced.aux_tree is None else jax.tree.unflatten(traced.aux_tree, aux),
            records={
                path: Record(self._read(activations[path], g["taps"][path]), activations[path])
                for path in recorded
            },
            parameters=self._parameter_relevance(g["parameters"]),
        )
        return explanation, begun

    def _read(self, a: Array, g: Array) -> Array:
        if self.plan.readout == "gradient":
            return g

        def read(a: Array, g: Array) -> Array:
            return (
                to_relevance(widen(a), g) if is_discrete(a) else to_relevance(a, g).astype(_real(a))
            )

        return _compat.placed_as(_compat.freely(read, jnp.asarray(a), g), a)

    def _relevance(self, g: Mapping[int, Array]) -> Any:
        given = self.traced.arguments
        read = {n: self._read(given.values[n], g[n]) for n in given.explained}
        found = given.rebuilt(given.model.argnums, read)
        return found[0] if given.model.single else found

    def _check_depends(self) -> None:
        network = self.traced.network
        outputs = network.graph.outputs[: self.traced.n_outputs]
        floats = [v for v in outputs if is_inexact(network.graph, v)]
        if any(v in network.live for v in floats):
            return
        if outputs and not floats:
            dtypes = sorted({str(network.graph.avals[v].dtype) for v in outputs})
            raise TypeError(
                f"the output has dtype {', '.join(dtypes)}: relevance needs a floating-point output; "
                "explain the function that gives scores, or cast the output, f(x).astype('float32')"
            )
        cuts = cuts_before(network.structure.dependence, outputs)
        what = f"the explained argument (argnums={self.traced.arguments.model.argnums})"
        if cuts:
            listed = "; ".join(f"`{op.primitive}` {where('', op.source)}" for op in cuts[:3])
            raise ValueError(
                f"the output depends on {what} only through operations that carry no relevance: {listed}. "
                "Comparisons, positions of maxima, casts to booleans and `stop_gradient` are constants: "
                "explain the part of the function after them, or replace them by a smooth function"
            )
        raise ValueError(
            f"the output does not depend on {what}: pass argnums= of the argument that holds the input"
        )

    def _recorded(self) -> list[str]:
        paths = self.plan.paths
        found = {path for p in self.record for path in some(f"record={p!r}", p, paths)}
        return [path for path in paths if path in found]

    def _masks(
        self, condition: Mapping[str, ArrayLike], blank: Mapping[str, Blanks]
    ) -> dict[str, Array]:
        given = by_layer("condition", condition, self.plan.paths)
        return {path: _mask(key, path, m, blank[path].shape) for path, (key, m) in given.items()}

    def _parameter_values(self) -> list[int]:
        """Which traced values are parameters whose relevance is asked for."""
        given = self.traced.arguments
        if not given.parameters:
            return []
        for rule, row in zip(self.plan.rules, self.plan.rows, strict=True):
            if row.kind in ("dense", "conv") and not rule.splits_parameters:
                raise ValueError(
                    f"parameters={given.parameters} asks for the relevance of parameters, which the "
                    f"rule {rule!r} at {row.path!r} does not define: give this layer "
                    "another rule, such as Epsilon()"
                )
        dtypes = {n: jnp.result_type(given.values[n]) for n in given.indices(given.parameters)}
        return [n for n, dtype in dtypes.items() if jnp.issubdtype(dtype, jnp.inexact)]

    def _parameter_relevance(self, g: Mapping[int, Array]) -> Any:
        given = self.traced.arguments
        if not given.parameters:
            return None
        read = {
            n: value * g[n] if n in g else jnp.zeros(jnp.shape(value))
            for n, value in enumerate(given.values)
        }
        found = given.rebuilt(given.parameters, read)
        return found[0] if len(found) == 1 else found


def _mask(key: str, path: str, mask: ArrayLike, shape: tuple[int, ...]) -> Array:
    mask = jnp.asarray(mask)
    try:
        fits = jnp.broadcast_shapes(mask.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"condition[{key!r}] must broadcast to the output of layer {path!r}, of shape {shape}, got "
            f"shape {mask.shape}"
        )
    return jnp.broadcast_to(mask, shape)


def _real(a: Array) -> Any:
    return jnp.real(a).dtype
