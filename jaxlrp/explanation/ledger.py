"""The ledger: where relevance comes from and where it goes, layer by layer and between layers."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat
from jaxlrp._html import preformatted
from jaxlrp.explanation import initial_relevance
from jaxlrp.explanation.growth import growth_warning
from jaxlrp.explanation.plan import Plan
from jaxlrp.network.control_flow import Taps
from jaxlrp.network.discrete import carrier, lifted, raw, with_carrier
from jaxlrp.network.layers import LINEAR_KINDS
from jaxlrp.network.trace import Traced
from jaxlrp.numerics import to_relevance, widen
from jaxlrp.propagation import ledger_rows
from jaxlrp.propagation.blanks import axes_around, empty_ledger
from jaxlrp.propagation.interpreter import interpret
from jaxlrp.propagation.taps import COLUMNS, MAGNITUDE
from jaxlrp.rules import Epsilon, Pass, Rule
from jaxlrp.targets import Target


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LedgerRow:
    """What became of the relevance that one layer, or something between layers, received.

    Amounts are sums, scalars.

    Attributes:
      received: the relevance of its output.
      passed: the relevance that it sent to its inputs.
      bias: what its bias kept, or constants that it joins to what depends on the input.
      stabilizer: what its stabilizer kept.
      rule: the rest: what the rule itself created or lost, such as z+ if no contribution is positive.
      magnitude: the sum of |R| over its output; of a layer in a scan, of the step where it is greatest.
      kind: of the layer, see `jaxlrp.KINDS`, or what else it is: "softmax", "constant",
        "carry", "stopped", "autodiff".
      reason: why relevance may end there.
    """

    received: Array
    passed: Array
    bias: Array
    stabilizer: Array
    magnitude: Array
    kind: str = dataclasses.field(default="", metadata={"static": True})

    @property
    def rule(self) -> Array:
        return self.received - self.passed - self.bias - self.stabilizer

    @property
    def reason(self) -> str:
        return ledger_rows.KINDS.get(
            self.kind, "its bias, its stabilizer and its rule keep a share"
        )


@dataclasses.dataclass(frozen=True)
class Ledger:
    """Relevance from the output to the input; `print` it.

    Attributes:
      output: the initial relevance of the output, in total.
      input: the relevance that arrived at the explained argument, in total.
      magnitude: the sum of |R| over the output.
      rows: by path, in the order of evaluation: layers, and what keeps relevance between them.
      cuts: the operations whose results are constants although they read the input, each with its path
        and source line: comparisons, positions of maxima, `stop_gradient`.
    """

    output: Array
    input: Array
    magnitude: Array
    rows: dict[str, LedgerRow]
    cuts: tuple[str, ...] = ()

    @property
    def absorbed(self) -> Array:
        """The relevance that all rows kept, in total."""
        return _sum([e.received - e.passed for e in self.rows.values()])

    @property
    def elsewhere(self) -> Array:
        """The relevance that no row accounts for: rounding errors."""
        return self.output - self.input - self.absorbed

    @property
    def gains(self) -> dict[str, Array]:
        """By path, the sum of |R| that the row received, divided by that of the output."""
        return {path: e.magnitude / self.magnitude for path, e in self.rows.items()}

    @property
    def warning(self) -> str:
        """Where relevance grew a hundredfold, and what to do; "" if nowhere."""
        gains = {path: float(gain) for path, gain in reversed(self.gains.items())}
        return growth_warning(gains)

    @property
    def residual(self) -> Array:
        """|output - input| / |output|: 0 is conservation."""
        return jnp.abs(self.output - self.input) / jnp.abs(self.output)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return preformatted(str(self))

    def __str__(self) -> str:
        shown = {path: e for path, e in self.rows.items() if self._is_shown(e)}
        header = ("path", "kind", "received", "passed", "bias", "stabilizer", "rule")
        lines: list[tuple[str, ...]] = [header]
        for path, e in shown.items():
            amounts = (e.received, e.passed, e.bias, e.stabilizer, e.rule)
            lines.append((path, e.kind, *(f"{float(v):.6g}" for v in amounts)))
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        rendered = [
            "  ".join(
                cell.ljust(w) if i < 2 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        rendered.insert(1, "-" * len(rendered[0]))
        kinds = dict.fromkeys(e.kind for e in shown.values() if e.kind in ledger_rows.KINDS)
        rendered += [f"{kind}: {ledger_rows.KINDS[kind]}" for kind in kinds]
        if self.cuts:
            rendered.append(f"constants although they read the input: {'; '.join(self.cuts)}")
        rendered.append(
            f"output {float(self.output):.6g}, input {float(self.input):.6g}, "
            f"absorbed {float(self.absorbed):.6g}, elsewhere {float(self.elsewhere):.3g}"
        )
        rendered += filter(None, [self.warning])
        return "\n".join(rendered)

    def _is_shown(self, row: LedgerRow) -> bool:
        """Layers are, and of the rest what kept more than rounding."""
        kept = max(abs(float(row.received - row.passed)), abs(float(row.bias)))
        return row.kind not in ledger_rows.KINDS or kept > 1e-6 * abs(float(self.output))


def _parts(ledger: Ledger) -> tuple[list[tuple[Any, Any]], Any]:
    rows = [(jax.tree_util.DictKey(path), row) for path, row in ledger.rows.items()]
    sides = [
        (jax.tree_util.GetAttrKey(name), getattr(ledger, name))
        for name in ("output", "input", "magnitude")
    ]
    return sides + rows, (tuple(ledger.rows), ledger.cuts)


def _joined(held: Any, parts: Any) -> Ledger:
    paths, cuts = held
    output, arrived, magnitude, *rows = parts
    return Ledger(output, arrived, magnitude, dict(zip(paths, rows, strict=True)), cuts)


# Not as a dataclass, whose dictionary JAX would sort by path.
jax.tree_util.register_pytree_with_keys(Ledger, _parts, _joined)


def compute_ledger(
    traced: Traced, plan: Plan, target: Target, zero_bias: bool
) -> tuple[Ledger, Any]:
    """The ledger of a traced function, and its output; see `jaxlrp.ledger`."""
    network, given = traced.network, traced.arguments
    rules = (_without_bias(plan) if zero_bias else plan).rules_for()
    audited = ledger_rows.audit(network, rules.of, network.graph.outputs[: traced.n_outputs])
    variables = {
        "explained": {n: carrier(lifted(given.values[n])) for n in given.explained},
        "ledger": empty_ledger(audited),
    }

    def forward(variables: dict[str, Any]) -> Any:
        values = list(given.values)
        for n, value in variables["explained"].items():
            values[n] = with_carrier(lifted(values[n]), value)
        outputs, _ = interpret(audited, rules, values, Taps(ledger=variables["ledger"]))
        return jax.tree.unflatten(traced.output_tree, list(map(raw, outputs[: traced.n_outputs])))

    output, pull = jax.vjp(forward, variables)
    whole = jax.tree.map(jnp.ones_like, output)
    begun = whole if target is None else initial_relevance.cotangent(output, target)
    (g,) = pull(begun)
    kinds = {la.path: la.kind for la in network.layers()} | audited.accounts()
    rows = {
        path: _row(booked.reshape(-1, COLUMNS), kinds[path], rules.of.get(path))
        for path, booked in ((path, g["ledger"][path]) for path in variables["ledger"])
    }
    axes = axes_around(network)
    at_input = [_total(given.values[n], c, axes) for n, c in g["explained"].items()]
    totals = jax.tree.map(functools.partial(_total, axes=axes), output, begun)
    sizes = jax.tree.map(functools.partial(_total, axes=axes, magnitude=True), output, begun)
    total, size = _sum(jax.tree.leaves(totals)), _sum(jax.tree.leaves(sizes))
    return Ledger(total, _sum(at_input), size, rows, plan.coverage.cuts), output


def _row(booked: Array, kind: str, rule: Rule | None) -> LedgerRow:
    """Of an account, one row for each step of the scans around it."""
    received, passed, bias, stabilizer, _ = jnp.sum(booked, axis=0)
    magnitude = jnp.max(booked[:, MAGNITUDE])
    if kind in ("constant", "stopped", "carry") or (
        kind in LINEAR_KINDS and rule is not None and rule.is_autodiff
    ):
        bias = received - passed  # of LRP-0 all that does not arrive is the bias's
    return LedgerRow(received, passed, bias, stabilizer, magnitude, kind)


def _sum(parts: list[Array]) -> Array:
    return sum(parts[1:], parts[0]) if parts else jnp.zeros(())


def _total(a: Array, g: Array, axes: frozenset[str], magnitude: bool = False) -> Array:
    relevance = to_relevance(widen(jnp.asarray(a)), widen(g))
    total = jnp.sum(jnp.abs(relevance) if magnitude else relevance)
    return _compat.summed_to(total, axes)


# LRP-0 without its bias must divide; what this keeps off zero stays below float32's resolution.
_EXACT = Epsilon(1e-12, bias="zero")


def _without_bias(plan: Plan) -> Plan:
    rules: list[Rule] = []
    for row, rule in zip(plan.rows, plan.rules, strict=True):
        if row.kind in ("shift", "scale"):
            rules.append(Pass())
        elif row.kind in LINEAR_KINDS and rule.is_autodiff:
            rules.append(_EXACT)
        else:
            rules.append(rule.without_bias())
    return dataclasses.replace(plan, rules=tuple(rules))
