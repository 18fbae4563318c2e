"""One pass of relevance: from a target to the input, and to what else was requested."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxlrp.errors import where
from jaxlrp.explanation.compiled import Programs
from jaxlrp.explanation.patterns import by_layer, one, some
from jaxlrp.explanation.plan import Plan
from jaxlrp.explanation.pullback import Pullback, Signature
from jaxlrp.explanation.result import Explanation
from jaxlrp.network.control_flow import Taps
from jaxlrp.network.dependence import cuts_before, is_inexact
from jaxlrp.network.discrete import carrier, lifted, raw, with_carrier
from jaxlrp.network.trace import Traced
from jaxlrp.propagation.blanks import blanks
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

    def forward(self, condition: Iterable[str], programs: Programs | None = None) -> Pullback:
        """The forward pass.

        Args:
          condition: paths or shell patterns of layers whose relevance may be multiplied by masks.
          programs: where the pullback keeps compiled programs; None for one that does not compile.
        """
        traced, given = self.traced, self.traced.arguments
        self._check_depends()
        start = (
            None
            if self.start is None
            else one(f"start={self.start!r}", self.start, self.plan.paths)
        )
        recorded = self._matching("record", self.record)
        conditioned = self._matching("condition", condition)
        blank = blanks(traced.network)
        masks = {path: blank[path].output for path in conditioned}
        rules = self.plan.rules_for(start)

        def forward(variables: dict[str, Any]) -> tuple[Any, Any]:
            values = list(given.values)
            for n, value in (variables["parameters"] | variables["explained"]).items():
                values[n] = with_carrier(lifted(values[n]), value)
            found, held = interpret(traced.network, rules, values, Taps(variables["taps"], masks))
            outputs = list(map(raw, found))
            output = jax.tree.unflatten(traced.output_tree, outputs[: traced.n_outputs])
            begun = output if start is None else held.outputs[start]
            return (begun, held.masks), (output, outputs[traced.n_outputs :], held.outputs)

        tapped = {*recorded, *([] if start is None else [start])}
        variables = {
            "explained": {n: carrier(lifted(given.values[n])) for n in given.explained},
            "parameters": {n: given.values[n] for n in self._parameter_values()},
            "taps": {path: blank[path].output for path in tapped},
        }
        (begun, sides), pull, (output, aux, outputs) = jax.vjp(forward, variables, has_aux=True)
        kept = given.indices((*given.model.argnums, *given.parameters))
        return Pullback(
            output=output,
            aux=None if traced.aux_tree is None else jax.tree.unflatten(traced.aux_tree, aux),
            activations={path: outputs[path] for path in recorded},
            _begun=begun,
            _values={n: given.values[n] for n in kept},
            _blanks=dict(sides),
            _pull=pull,
            _known=Signature(
                readout=self.plan.readout,
                paths=tuple(conditioned),
                record=tuple(recorded),
                explained=given.templates(given.model.argnums),
                parameters=given.templates(given.parameters),
                single=given.model.single,
                programs=programs,
            ),
        )

    def run(self, target: Target, condition: Mapping[str, ArrayLike]) -> tuple[Explanation, Any]:
        """The explanation, and the values at which relevance begins: the output, or that of `start`.

        Args:
          target, condition: see `jaxlrp.explain`.
        """
        layers = by_layer("condition", condition, self.plan.paths)
        return self.forward(layers).explain(target, condition)

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
            f"the output does not depend on {what}: pass argnums= of the argument that contains the input"
        )

    def _matching(self, what: str, patterns: Iterable[str]) -> list[str]:
        """The paths of the layers that any of the patterns matches, in the order of evaluation."""
        paths = self.plan.paths
        found = {path for p in patterns for path in some(f"{what}={p!r}", p, paths)}
        return [path for path in paths if path in found]

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
