"""The ledger: where relevance comes from and where it goes, layer by layer and between layers."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat
from jaxlrp._checks import check_count
from jaxlrp._described import described
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
from jaxlrp.rules import Pass, Rule
from jaxlrp.rules.linear import linear_without_bias
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
      kept: what did not go on to its inputs, received - passed.
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
        return self.kept - self.bias - self.stabilizer

    @property
    def kept(self) -> Array:
        """What it did not pass on: received - passed."""
        return self.received - self.passed

    @property
    def reason(self) -> str:
        return ledger_rows.KINDS.get(
            self.kind, "its bias, its stabilizer and its rule keep a share"
        )


@described
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
      readers: by path, the layers that a layer feeds, and from which it receives relevance.
      zero_bias: whether biases got no relevance.
    """

    output: Array
    input: Array
    magnitude: Array
    rows: dict[str, LedgerRow]
    cuts: tuple[str, ...] = ()
    readers: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    zero_bias: bool = False

    def top(self, n: int = 5) -> dict[str, LedgerRow]:
        """The rows that kept (or created) most relevance.

        Args:
          n: how many rows, >= 1.

        Returns:
          At most `n` rows by path, largest |received - passed| first; rows that kept less than 1e-6 of
          the output are left out. NaN comes first. Needs concrete values, so not under `jit`.

        Raises:
          ValueError: if `n` is not an integer >= 1.

        Example:
          >>> import jax.numpy as jnp, jaxlrp as lrp
          >>> w, b = jnp.array([[2.0], [1.0]]), jnp.array([2.0])
          >>> found = lrp.ledger(lambda x: x @ w + b, None, jnp.array([3.0, 2.0]))
          >>> {path: round(float(row.kept), 3) for path, row in found.top().items()}
          {'dot_general': 2.0}
        """
        check_count("n", n)
        sizes = {path: abs(float(row.kept)) for path, row in self.rows.items()}
        least = 1e-6 * abs(float(self.output))
        paths = [path for path, size in sizes.items() if not size <= least]
        paths.sort(key=lambda path: (math.isfinite(sizes[path]), -sizes[path]))
        return {path: self.rows[path] for path in paths[:n]}

    @property
    def absorbed(self) -> Array:
        """The relevance that all rows kept, in total."""
        return _sum([e.kept for e in self.rows.values()])

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
        """Where relevance grew a hundredfold, through which layer, and what to do; "" if nowhere."""
        gains = {path: float(gain) for path, gain in reversed(self.gains.items())}
        if not math.isfinite(float(self.input)):
            gains["input"] = math.nan
        return growth_warning(gains, self.readers, self.zero_bias)

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
        rendered += [self._totals(), *filter(None, [self.warning])]
        return "\n".join(rendered)

    def _totals(self) -> str:
        output, arrived = float(self.output), float(self.input)
        if not math.isfinite(arrived):
            return f"output {output:.6g}; the relevance of the input is not finite"
        absorbed = float(self.absorbed)
        said = (
            f"output {output:.6g}, input {arrived:.6g}, absorbed {absorbed:.6g}, "
            f"elsewhere {float(self.elsewhere):.3g}"
        )
        if abs(absorbed) < 0.01 * abs(output):
            return said
        most = ", ".join(f"{float(e.kept):.6g} at {path!r}" for path, e in self.top(3).items())
        return f"{said}\nmost absorbed: {most}; ledger.top(n) gives more"

    def _is_shown(self, row: LedgerRow) -> bool:
        """Layers are, and of the rest what kept more than rounding."""
        kept = max(abs(float(row.kept)), abs(float(row.bias)))
        return row.kind not in ledger_rows.KINDS or kept > 1e-6 * abs(float(self.output))


def _parts(ledger: Ledger) -> tuple[list[tuple[Any, Any]], Any]:
    rows = [(jax.tree_util.DictKey(path), row) for path, row in ledger.rows.items()]
    sides = [
        (jax.tree_util.GetAttrKey(name), getattr(ledger, name))
        for name in ("output", "input", "magnitude")
    ]
    held = (tuple(ledger.rows), ledger.cuts, tuple(ledger.readers.items()), ledger.zero_bias)
    return sides + rows, held


def _joined(held: Any, parts: Any) -> Ledger:
    paths, cuts, readers, zero_bias = held
    output, arrived, magnitude, *rows = parts
    by_path = dict(zip(paths, rows, strict=True))
    return Ledger(output, arrived, magnitude, by_path, cuts, dict(readers), zero_bias)


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
    found = Ledger(total, _sum(at_input), size, rows, plan.coverage.cuts, plan.readers, zero_bias)
    return found, output


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
def _without_bias(plan: Plan) -> Plan:
    rules: list[Rule] = []
    for row, rule in zip(plan.rows, plan.rules, strict=True):
        if row.kind in ("shift", "scale"):
            rules.append(Pass())
        elif row.kind in LINEAR_KINDS:
            rules.append(linear_without_bias(rule))
        else:
            rules.append(rule.without_bias())
    return dataclasses.replace(plan, rules=tuple(rules))
