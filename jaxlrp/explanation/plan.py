"""The plan: the layers of a traced function, with the rule of each."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from typing import Any

import jax

from jaxlrp.composites import Composite, default, default_rule, words
from jaxlrp.errors import UnsupportedError, near, where
from jaxlrp.explanation.growth import Step, plan_warning
from jaxlrp.network import primitives as P
from jaxlrp.network.coverage import Coverage, cover
from jaxlrp.network.layers import Layer
from jaxlrp.network.nodes import Network
from jaxlrp.rules import Rule


@dataclasses.dataclass(frozen=True)
class Row:
    """What a plan says of one layer, beside its rule; see `jaxlrp.network.layers.Layer`."""

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
    """

    rules: tuple[Rule, ...]
    rows: tuple[Row, ...]
    readout: str = "relevance"
    coverage: Coverage = dataclasses.field(default=Coverage(()), compare=False)

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
        """A plan with other rules for some layers.

        Args:
          changes: from a path or a shell pattern to a rule. A pattern speaks of those layers that
            the rule applies to.

        Raises:
          KeyError: if a pattern matches no layer.
          ValueError: if a rule applies to none of the layers that its pattern matches.
        """
        rules = list(self.rules)
        for pattern, rule in changes.items():
            matched = [i for i, row in enumerate(self.rows)
                       if row.path == pattern or fnmatch.fnmatchcase(row.path, pattern)]  # fmt: skip
            if not matched:
                raise KeyError(
                    f"no layer of the plan matches {pattern!r}: {near(pattern, self.paths)}"
                )
            fitting = [i for i in matched if self.rows[i].kind in rule.kinds]
            if not fitting:
                kinds = ", ".join(sorted({self.rows[i].kind for i in matched}))
                raise ValueError(
                    f"{rule!r} applies to layers of kind {', '.join(sorted(rule.kinds))}, but "
                    f"{pattern!r} matches only {kinds}"
                )
            for i in fitting:
                rules[i] = rule
        return dataclasses.replace(self, rules=tuple(rules))

    @property
    def warning(self) -> str:
        """Where relevance may grow without bound, and what to do; "" where nothing tells of it."""
        pairs = zip(self.rows, self.rules, strict=True)
        return plan_warning(Step(row.path, row.kind, rule, row.repeats) for row, rule in pairs)

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
        rendered += filter(None, [self.warning])
        return "\n".join(rendered)


jax.tree_util.register_dataclass(
    Plan, data_fields=["rules"], meta_fields=["rows", "readout", "coverage"]
)


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def row_of(layer: Layer) -> Row:
    return Row(
        layer.path, layer.kind, layer.name, layer.module, layer.input_shapes, layer.output_shape,
        layer.absorbed, layer.depth, layer.source, layer.loops,
        layer.repeats,
    )  # fmt: skip


def make_plan(network: Network, composite: Composite | Plan | None) -> Plan:
    """Gives each layer of a network its rule.

    Raises:
      TypeError: if `composite` is neither a composite nor a plan.
      ValueError: if a pattern or type in the composite matches nothing, or a plan is that of
        another function.
      UnsupportedError: if a layer is unsupported and the composite has no rule for it.
    """
    layers = network.layers()
    if isinstance(composite, Plan):
        return _same_plan(layers, composite)
    composite = default() if composite is None else composite
    if not isinstance(composite, Composite):
        raise TypeError(
            "composite must be a Composite (see jaxlrp.composites), a Plan, or None for the default; "
            f"got {composite!r}"
        )
    check_all_match(layers, composite)
    rules = tuple(_rule(layer, composite) for layer in layers)
    return Plan(rules, tuple(map(row_of, layers)), composite.readout, cover(network))


def _rule(layer: Layer, composite: Composite) -> Rule:
    rule = composite.find(layer) or default_rule(layer)
    if rule is not None:
        return rule
    raise UnsupportedError(
        f"jaxlrp does not know how to explain `{layer.name}` {where(layer.path, layer.source)}. "
        f"{_hint(layer)}{_advice(layer)}"
    )


def _advice(layer: Layer) -> str:
    """Which rules the user can give to an operation that has none."""
    (op,) = layer.ops
    if op.primitive in P.WITHOUT_GRADIENT or layer.name.startswith(_OPAQUE):
        return "No rule can be given to it: explain the function before it or after it"
    gradient = f"composites.by_operation({layer.name!r}, lrp.rules.Gradient())"
    if len(op.outputs) > 1:
        return f"To take its gradient, put {gradient} before your composite with `+`"
    return (
        f"Give it a rule, for example composites.by_operation({layer.name!r}, "
        f"lrp.rules.Custom(function)) with function(layer, x, R) -> R_in, or {gradient} to take its "
        "gradient, and put it before your composite with `+`"
    )


def _hint(layer: Layer) -> str:
    """What to write instead of an operation that has no rule, where that is known."""
    if why := P.REFUSED.get(layer.ops[0].primitive):
        return f"{why} "
    if layer.name.startswith("call_exported"):
        return (
            "It is an exported function, which cannot be looked into: explain the function before its "
            "export. "
        )
    if layer.name.startswith(_KERNELS):
        return (
            "It is a kernel whose inside no trace shows: while you explain, choose the implementation "
            "in JAX operations, such as `jax.nn.dot_product_attention(..., implementation='xla')` or "
            "`flax.linen.dot_product_attention`. "
        )
    return ""


# Beginnings of names, for a hint in a message alone: these primitives have no public object.
_KERNELS = (
    "pallas_call", "triton_kernel_call", "tpu_custom_call", "ffi_call", "dot_product_attention",
    "pure_callback", "io_callback",
)  # fmt: skip


# Of these JAX has no derivative.
_OPAQUE = ("pure_callback", "io_callback", "call_exported")


def check_all_match(layers: tuple[Layer, ...], composite: Composite) -> None:
    """Refuses a composite of which a pattern or a type matches no layer."""
    known = {
        "path": [layer.path for layer in layers],
        "module": [layer.module for layer in layers if layer.module],
        "operation": [layer.name for layer in layers],
    }
    what = {"path": "path pattern", "module": "module type", "operation": "operation"}
    for entry in composite.all_entries():
        said = words(entry.condition)
        if said is None:
            continue
        sort, word = said
        matched = [layer for layer in layers if entry.condition(layer)]
        if not matched:
            raise ValueError(
                f"the {what[sort]} {word!r} of the composite matches no layer: "
                f"{near(word, known[sort])}; print(lrp.plan(...)) lists the layers"
            )
        if isinstance(entry.then, Rule) and not any(la.kind in entry.then.kinds for la in matched):
            kinds = ", ".join(sorted({layer.kind for layer in matched}))
            raise ValueError(
                f"{entry.then!r} applies to layers of kind {', '.join(sorted(entry.then.kinds))}, "
                f"but the {what[sort]} {word!r} matches only {kinds}"
            )


def _same_plan(layers: tuple[Layer, ...], plan: Plan) -> Plan:
    have = [(layer.path, layer.kind) for layer in layers]
    planned = [(row.path, row.kind) for row in plan.rows]
    if have != planned:
        extra = sorted({p for p, _ in planned} - {p for p, _ in have})
        missing = sorted({p for p, _ in have} - {p for p, _ in planned})
        raise ValueError(
            "the plan is that of another function: "
            f"layers only in the plan {extra[:5]}, only in the function {missing[:5]}; "
            "make it with lrp.plan of this function and arguments like these"
        )
    return plan
