"""The ledger: where relevance comes from and where it goes, layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import targets
from jaxlrp.composites import Composite
from jaxlrp.interpreter import Rules, interpret
from jaxlrp.layers import LINEAR_KINDS, Layer
from jaxlrp.numerics import to_relevance
from jaxlrp.planning import Plan, make_plan
from jaxlrp.rules import Epsilon, Pass, Rule
from jaxlrp.taps import Activations, Taps, blanks
from jaxlrp.trace import source, trace


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Entry:
    """What became of the relevance that one layer was given. All are sums, scalars.

    Attributes:
      received: the relevance of its output.
      passed: what it sent to its inputs.
      bias: what its bias kept.
      stabiliser: what its stabiliser kept.
      rule: the rest: what the rule itself made or lost, such as z+ where nothing is positive.
    """

    received: Array
    passed: Array
    bias: Array
    stabiliser: Array

    @property
    def rule(self) -> Array:
        return self.received - self.passed - self.bias - self.stabiliser


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ledger:
    """Relevance from the output to the input; `print` it.

    Attributes:
      output: the relevance that the output began with, a sum over everything.
      input: the relevance that arrived at the explained argument.
      entries: by layer path, in the order of evaluation.
    """

    output: Array
    input: Array
    entries: dict[str, Entry]

    @property
    def absorbed(self) -> Array:
        """What all layers together kept: bias, stabiliser and rule."""
        kept = [e.received - e.passed for e in self.entries.values()]
        return _sum(kept)

    @property
    def elsewhere(self) -> Array:
        """What was lost where there is no layer: `stop_gradient`, or between float roundings."""
        return self.output - self.input - self.absorbed

    @property
    def residual(self) -> Array:
        """|output - input| / |output|: 0 is conservation."""
        return jnp.abs(self.output - self.input) / jnp.abs(self.output)

    def __str__(self) -> str:
        header = ("path", "received", "passed", "bias", "stabiliser", "rule")
        lines = [header] + [
            (
                path,
                *(f"{float(v):.6g}" for v in (e.received, e.passed, e.bias, e.stabiliser, e.rule)),
            )
            for path, e in self.entries.items()
        ]
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        rendered = [
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        rendered.insert(1, "-" * len(rendered[0]))
        rendered.append(
            f"output {float(self.output):.6g}, input {float(self.input):.6g}, "
            f"absorbed {float(self.absorbed):.6g}, elsewhere {float(self.elsewhere):.3g}"
        )
        return "\n".join(rendered)


def check_conservation(
    fun: Any,
    composite: Composite | Plan | None,
    *args: Any,
    argnums: int | Sequence[int] | None = None,
    target: Any = None,
    zero_bias: bool = False,
    **kwargs: Any,
) -> Ledger:
    """Where relevance is absorbed, layer by layer.

    Args:
      fun, composite: as in `attach`.
      *args, **kwargs: arguments of `fun`.
      argnums: as in `attach`; by default the last positional argument.
      target: as in `explain`; without it the whole output is the initial relevance.
      zero_bias: count no bias anywhere: rules drop it, and a constant that is added passes
        relevance on. Then only stabilisers and rules absorb.

    Returns:
      A `Ledger`. Runs under `jit` too.

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> w, b = jnp.array([[2.0, -1.0], [1.0, 3.0]]), jnp.array([1.0, 0.0])
      >>> ledger = lrp.check_conservation(lambda x: x @ w + b, None, jnp.array([1.0, 2.0]))
      >>> float(ledger.output), round(float(ledger.input), 3)
      (10.0, 9.0)
    """
    argnums = max(len(args) - 1, 0) if argnums is None else argnums
    traced = trace(source(fun, argnums, False), args, kwargs)
    network = traced.network
    planned = make_plan(network, composite)
    if zero_bias:
        planned = _without_bias(planned)
    rules = Rules.planned(planned)
    layers = network.layers()
    blank_of = blanks(network)

    floats = [n for n in traced.explained if jnp.issubdtype(traced.values[n].dtype, jnp.inexact)]
    variables = {
        "explained": {n: traced.values[n] for n in floats},
        "outputs": {path: blank.output for path, blank in blank_of.items()},
        "inputs": {path: blank.inputs for path, blank in blank_of.items()},
        "ledger": {path: blank.ledger for path, blank in blank_of.items()},
    }

    def forward(variables: dict[str, Any]) -> tuple[Any, Any]:
        values = list(traced.values)
        for n, value in variables["explained"].items():
            values[n] = value
        taps = Taps(variables["outputs"], {}, variables["inputs"], variables["ledger"])
        outputs, activations = interpret(network, rules, values, taps)
        output = jax.tree.unflatten(traced.output_tree, outputs[: traced.n_outputs])
        return output, activations

    output, pull, activations = jax.vjp(forward, variables, has_aux=True)
    whole = jax.tree.map(jnp.ones_like, output)
    begun = whole if target is None else targets.initial(output, target)
    (g,) = pull(begun)
    entries = {la.path: _entry(la, rules.of[la.path], activations, g) for la in layers}
    at_input = [_total(traced.values[n], c) for n, c in g["explained"].items()]
    at_input += [entries[la.path].received for la in layers if la.kind == "embedding"]
    begun_with = jax.tree.leaves(jax.tree.map(_total, output, begun))
    return Ledger(_sum(begun_with), _sum(at_input), entries)


def _entry(layer: Layer, rule: Rule, activations: Activations, g: dict[str, Any]) -> Entry:
    path = layer.path
    received = _total(activations.outputs[path], g["outputs"][path])
    if layer.kind == "embedding":
        return Entry(received, received, jnp.zeros(()), jnp.zeros(()))
    sent = zip(activations.inputs[path], g["inputs"][path], strict=True)
    parts = [_total(a, c) for a, c in sent]
    passed = _sum(parts)
    _, _, bias, stabiliser = jnp.sum(g["ledger"][path].reshape(-1, 4), axis=0)
    if rule.is_autodiff and layer.kind in LINEAR_KINDS:
        bias = received - passed  # of LRP-0 all that does not arrive is the bias's
    return Entry(received, passed, bias, stabiliser)


def _sum(parts: list[Array]) -> Array:
    return sum(parts[1:], parts[0]) if parts else jnp.zeros(())


def _total(a: Array, g: Array) -> Array:
    return jnp.sum(to_relevance(jnp.asarray(a), g))


# LRP-0 without its bias must divide; what this keeps off zero stays below float32's resolution.
_EXACT = Epsilon(1e-12, bias="zero")


def _without_bias(plan: Plan) -> Plan:
    rules: list[Rule] = []
    for row, rule in zip(plan.rows, plan.rules, strict=True):
        if row.kind in ("shift", "scale"):
            rules.append(Pass())
        elif row.kind in LINEAR_KINDS and rule.is_autodiff:
            rules.append(_EXACT)
        elif hasattr(rule, "bias"):
            rules.append(dataclasses.replace(cast(Any, rule), bias="zero"))
        else:
            rules.append(rule)
    return dataclasses.replace(plan, rules=tuple(rules))
