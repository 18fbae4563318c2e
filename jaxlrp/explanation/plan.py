"""The plan: the layers of a traced function, and the rule of each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax

from jaxlrp._html import preformatted
from jaxlrp.composites.entries import Anything, Chosen, Composite, Entry, pattern_of
from jaxlrp.composites.given import GivenComposite, as_composite
from jaxlrp.composites.presets import default_rule
from jaxlrp.errors import near
from jaxlrp.explanation.growth import Step, plan_warning
from jaxlrp.explanation.patterns import matching
from jaxlrp.explanation.unsupported import unsupported
from jaxlrp.network.control_flow import leading_axes
from jaxlrp.network.coverage import Coverage, cover
from jaxlrp.network.discrete import is_discrete
from jaxlrp.network.layers import Layer
from jaxlrp.network.nodes import Network
from jaxlrp.network.wiring import before_each
from jaxlrp.propagation.interpreter import PlannedRules
from jaxlrp.rules import Rule


@dataclasses.dataclass(frozen=True)
class Row:
    """What a plan knows of one layer besides its rule; see `jaxlrp.Layer`.

    Attributes:
      before: the paths of the layers that feed it, without another layer in between.
      leading: the sizes of the axes that loops and `shard_map` around it put before its own axes where it
        is recorded.
    """

    path: str
    kind: str
    name: str
    module: str
    input_shapes: tuple[tuple[int, ...], ...]
    output_shape: tuple[int, ...]
    absorbed: tuple[str, ...]
    depth: int
    source: str = dataclasses.field(compare=False)
    loops: int = 0
    repeats: int = 1
    before: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    leading: tuple[int, ...] = dataclasses.field(default=(), compare=False)
    read_by_integers: bool = False  # an embedding with no float before it


@dataclasses.dataclass(frozen=True)
class Plan:
    """Layers and their rules. A pytree whose leaves are the rules' hyperparameters.

    `print(plan)` is a table and a verdict; `plan["path"]` a rule; `plan.replace({...})` another plan,
    which `attach` and `explain` take in place of a composite.

    Attributes:
      rules: one for each row.
      rows: the layers in the order of evaluation.
      readout: "relevance" or "gradient".
      coverage: how each operation that the input reaches is treated, and why; `print` it.
      note: that the output is a probability, whose relevance is rarely meant, and what to do; "" if it
        is none.
    """

    rules: tuple[Rule, ...]
    rows: tuple[Row, ...]
    readout: str = "relevance"
    coverage: Coverage = dataclasses.field(default=Coverage(()), compare=False)
    note: str = dataclasses.field(default="", compare=False)

    def __getitem__(self, path: str) -> Rule:
        for row, rule in zip(self.rows, self.rules, strict=True):
            if row.path == path:
                return rule
        raise KeyError(f"the plan has no layer {path!r}: {near(path, self.paths)}")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(row.path for row in self.rows)

    @property
    def tree(self) -> dict[str, Any]:
        """The rules as nested dictionaries, shaped like the module tree."""
        tree: dict[str, Any] = {}
        for row, rule in zip(self.rows, self.rules, strict=True):
            *parents, name = row.path.split("/")
            node = tree
            for parent in parents:
                child = node.get(parent)
                if not isinstance(child, dict):
                    child = {} if child is None else {"": child}
                    node[parent] = child
                node = child
            if isinstance(node.get(name), dict):
                node[name][""] = rule
            else:
                node[name] = rule
        return tree

    def replace(self, changes: Mapping[str, Rule]) -> Plan:
        """A plan with other rules for some layers; the first pattern that matches a layer wins.

        Args:
          changes: from a path or a shell pattern to a rule. A pattern changes only the layers that
            the rule applies to.

        Raises:
          KeyError: if a pattern matches no layer.
          ValueError: if a rule applies to none of the layers that its pattern matches.
        """
        chosen: dict[str, Rule] = {}
        kinds = {row.path: row.kind for row in self.rows}
        for pattern, rule in changes.items():
            matched = matching(pattern, self.paths)
            if not matched:
                raise KeyError(
                    f"no layer of the plan matches {pattern!r}: {near(pattern, self.paths)}"
                )
            fitting = [path for path in matched if kinds[path] in rule.kinds]
            if not fitting:
                raise ValueError(_no_fit(rule, repr(pattern), [kinds[path] for path in matched]))
            chosen = dict.fromkeys(fitting, rule) | chosen
        pairs = zip(self.paths, self.rules, strict=True)
        return dataclasses.replace(
            self, rules=tuple(chosen.get(path, rule) for path, rule in pairs)
        )

    def upstream(self, path: str) -> frozenset[str]:
        """The paths of all layers that relevance can reach from a layer.

        Raises:
          KeyError: if there is no such layer.
        """
        before = {row.path: row.before for row in self.rows}
        if path not in before:
            raise KeyError(f"the plan has no layer {path!r}: {near(path, self.paths)}")
        found: set[str] = set()
        left = list(before[path])
        while left:
            if (now := left.pop()) not in found:
                found.add(now)
                left += before[now]
        return frozenset(found)

    @property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """By path, the layers that the layer feeds, without another layer in between."""
        found: dict[str, tuple[str, ...]] = {}
        for row in self.rows:
            for path in row.before:
                found[path] = (*found.get(path, ()), row.path)
        return found

    def rules_for(self, start: str | None = None) -> PlannedRules:
        """The rules by path, as they are propagated; with a `start`, any unit may be given relevance.

        Args:
          start: the path of the layer at which relevance begins, None for the output.
        """
        pairs = list(zip(self.rows, self.rules, strict=True))
        feeds = [
            math.inf if row.loops else row.depth  # the next step of a loop hands it to all in it
            for row, rule in pairs
            if row.kind not in rule.keeps_zero and not row.read_by_integers
        ]
        floor = math.inf if start else max(feeds, default=0)
        of = {row.path: rule for row, rule in pairs}
        by_relevance = self.readout == "relevance"
        return PlannedRules(of, floor, by_relevance and bool(feeds or start))

    @property
    def warning(self) -> str:
        """Where relevance may grow without bound, and what to do; "" if nowhere."""
        pairs = zip(self.rows, self.rules, strict=True)
        return plan_warning(Step(row.path, row.kind, rule, row.repeats) for row, rule in pairs)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return preformatted(str(self))

    def __str__(self) -> str:
        header = ("path", "kind", "module", "shapes", "absorbs", "rule")
        lines: list[tuple[str, ...]] = [header]
        for row, rule in zip(self.rows, self.rules, strict=True):
            shapes = " ".join(map(_shape, row.input_shapes)) + " -> " + _shape(row.output_shape)
            kind = row.kind if row.name in (row.kind, "dot_general", "conv_general_dilated") else (
                f"{row.kind} ({row.name})")  # fmt: skip
            absorbs = " ".join(row.absorbed) if row.kind in ("dense", "conv", "scale") else ""
            lines.append((row.path, kind, row.module, shapes, absorbs, repr(rule)))
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        rendered = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
                    for line in lines]  # fmt: skip
        rendered.insert(1, "-" * max(map(len, rendered)))
        if self.coverage.counts:
            rendered.append(self.coverage.verdict)
        rendered += filter(None, [self.note, self.warning])
        return "\n".join(rendered)


jax.tree_util.register_dataclass(
    Plan, data_fields=["rules"], meta_fields=["rows", "readout", "coverage", "note"]
)


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def row_of(layer: Layer, before: tuple[str, ...], leading: tuple[int, ...]) -> Row:
    return Row(
        layer.path, layer.kind, layer.name, layer.module, layer.input_shapes, layer.output_shape,
        layer.absorbed, layer.depth, layer.source, layer.loops,
        layer.repeats, before, leading,
        layer.kind == "embedding" and all(is_discrete(a.dtype) for a in layer.input_avals),
    )  # fmt: skip


CompositeLike = GivenComposite | Plan
"""Which rule each layer gets: a composite, a preset or its name, a plan, one rule for all layers that it
applies to, a function from a layer to its rule, a list of these, or None for `composites.default()`."""


def make_plan(network: Network, composite: CompositeLike) -> Plan:
    """Gives each layer of a network its rule.

    Raises:
      TypeError: if `composite` is none of what `CompositeLike` lists.
      ValueError: if a pattern or type in the composite matches nothing, or a plan was made for a
        different function.
      UnsupportedError: if a layer is unsupported and the composite has no rule for it.
    """
    layers = network.layers()
    if isinstance(composite, Plan):
        return _same_plan(layers, composite)
    composite = as_composite(composite)
    check_all_match(layers, composite)
    rules = tuple(_rule(layer, composite) for layer in layers)
    before = before_each(network)
    leading = {
        layer.path: tuple(size for size, _ in leading_axes(graph.avals[layer.output], around))
        for layer, graph, around in network.placed()
    }
    rows = tuple(row_of(layer, before[layer.path], leading[layer.path]) for layer in layers)
    return Plan(rules, rows, composite.readout, cover(network))


def _rule(layer: Layer, composite: Composite) -> Rule:
    rule = composite.find(layer) or default_rule(layer, composite.readout)
    if rule is None:
        raise unsupported(layer)
    return rule


def check_all_match(layers: tuple[Layer, ...], composite: Composite) -> None:
    """Refuses a composite of which a pattern, a type or a rule of its own fits no layer."""
    known = {
        "path": [layer.path for layer in layers],
        "module": [layer.module for layer in layers if layer.module],
        "operation": [layer.name for layer in layers],
    }
    called = {"path": "path pattern", "module": "module type", "operation": "operation"}
    for entry in composite.all_entries():
        found = pattern_of(entry.condition)
        if found is None:
            _check_fits(layers, entry)
            continue
        sort, pattern = found
        what = f"the {called[sort]} {pattern!r}"
        matched = [layer for layer in layers if entry.condition(layer)]
        if not matched:
            raise ValueError(
                f"{what} of the composite matches no layer: "
                f"{near(pattern, known[sort])}; print(lrp.plan(...)) lists the layers"
            )
        if isinstance(entry.then, Rule) and not any(la.kind in entry.then.kinds for la in matched):
            raise ValueError(_no_fit(entry.then, what, [layer.kind for layer in matched]))


def _check_fits(layers: tuple[Layer, ...], entry: Entry) -> None:
    """Refuses one rule for all layers that applies to none, and a function that returns only such."""
    if isinstance(entry.then, Chosen):
        pairs = [(layer, entry.then(layer)) for layer in layers]
        chosen = [(layer, rule) for layer, rule in pairs if rule is not None]
    elif isinstance(entry.then, Rule) and isinstance(entry.condition, Anything):
        chosen = [(layer, entry.then) for layer in layers]
    else:
        return
    if chosen and not any(layer.kind in rule.kinds for layer, rule in chosen):
        kinds = [layer.kind for layer, _ in chosen]
        raise ValueError(_no_fit(chosen[0][1], "the composite", kinds))


def _no_fit(rule: Rule, what: str, kinds: list[str]) -> str:
    return (
        f"{rule!r} applies to layers of kind {', '.join(sorted(rule.kinds))}, but {what} matches only "
        f"{', '.join(sorted(set(kinds)))}"
    )


def _same_plan(layers: tuple[Layer, ...], plan: Plan) -> Plan:
    have = [(layer.path, layer.kind) for layer in layers]
    planned = [(row.path, row.kind) for row in plan.rows]
    if have != planned:
        extra = sorted({p for p, _ in planned} - {p for p, _ in have})
        missing = sorted({p for p, _ in have} - {p for p, _ in planned})
        raise ValueError(
            "this plan was made for a different function: "
            f"layers only in the plan {extra[:5]}, only in the function {missing[:5]}; "
            "make it with lrp.plan of this function and arguments like these"
        )
    return plan
