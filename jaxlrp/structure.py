"""What a graph is made of: which values depend on the input, and through what.

Everything here is decided by structure, never by the name of a function or a module.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np

from jaxlrp import primitives as P
from jaxlrp._compat import primitives as _named
from jaxlrp.graph import Graph, Op, Value
from jaxlrp.softmaxes import Mixture, mixtures, units

Bounds = tuple[float, float]
ANY: Bounds = (-math.inf, math.inf)
Edge = tuple[Op, int]  # an operation's use of its i-th operand


@dataclasses.dataclass(frozen=True, eq=False)
class Structure:
    """What analysis found in a graph.

    Attributes:
      graph: the graph itself.
      dependent: inexact values that depend on the explained input.
      roots: inexact values made from an integer input (embeddings, casts), by that input.
      carrying: dependent values that the input reaches by uses that carry relevance.
      live: dependent values from which relevance can reach the input: not those whose only way to
        the output leads through a cut.
      cuts: uses that carry no relevance: a normaliser's denominator, `stop_gradient`.
      softmax: the operations of softmax units, which autodiff treats as a whole.
      mixtures: values that a softmax weighs, where it is normalised behind the product.
      dominator: for the result of an elementwise operation, the one value that it is a function of.
      bounds: what is known of the range of each value.
      random: values drawn at random, and what is made of them without the explained input.
      given: values computed from inputs or captured arrays; all others are written in the program.
    """

    graph: Graph
    dependent: frozenset[Value]
    roots: Mapping[Value, Value]
    carrying: frozenset[Value]
    live: frozenset[Value]
    cuts: frozenset[Edge]
    softmax: frozenset[Op]
    mixtures: tuple[Mixture, ...]
    dominator: Mapping[Value, Value]
    bounds: Mapping[Value, Bounds]
    random: frozenset[Value]
    given: frozenset[Value]

    def sources(self, op: Op) -> tuple[Value, ...]:
        """The live operands of an operation through which relevance flows, in order."""
        return tuple(
            v for i, v in enumerate(op.inputs) if v in self.live and (op, i) not in self.cuts
        )


def is_inexact(graph: Graph, value: Value) -> bool:
    dtype = getattr(graph.avals[value], "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def analyse(
    graph: Graph,
    explained: Iterable[Value],
    bounds: Mapping[Value, Bounds] | None = None,
    outputs: Iterable[Value] | None = None,
) -> Structure:
    """Analyses a graph.

    Args:
      graph: the graph.
      explained: the inputs whose relevance is asked for.
      bounds: what is known of the range of the inputs.
      outputs: the outputs that carry relevance; all by default.
    """
    explained = tuple(explained)
    dependent, roots = _dependence(graph, explained)
    dominator = _dominators(graph, dependent)
    mixed = mixtures(graph, dependent)
    softmax = units(graph, dependent) | {mixture.exp for mixture in mixed}
    cuts = _cuts(graph, dependent, dominator, softmax | {mixture.end for mixture in mixed})
    live = _live(graph, dependent, cuts, graph.outputs if outputs is None else outputs)
    return Structure(
        graph=graph,
        dependent=dependent,
        roots=roots,
        carrying=_carrying(graph, {*explained, *roots}, dependent, cuts),
        live=live,
        cuts=cuts,
        softmax=softmax,
        mixtures=mixed,
        dominator=dominator,
        bounds=_bounds(graph, dict(bounds or {})),
        random=_derived(
            graph, {v for op in graph.ops if op.primitive in P.RANDOM for v in op.outputs}
        )
        - _derived(graph, set(explained)),
        given=_derived(graph, {*graph.inputs, *graph.constants} - graph.literals),
    )


def _dependence(
    graph: Graph, explained: tuple[Value, ...]
) -> tuple[frozenset[Value], dict[Value, Value]]:
    """Values that depend on the explained inputs, and the roots made from integer inputs."""
    dependent = {v for v in explained if is_inexact(graph, v)}
    tokens = {v: v for v in explained if v not in dependent}
    roots: dict[Value, Value] = {}
    for op in graph.ops:
        if any(v in dependent for v in op.inputs):
            dependent.update(v for v in op.outputs if is_inexact(graph, v))
            continue
        token = next((tokens[v] for v in op.inputs if v in tokens), None)
        if token is None or _is_mask(graph, op):
            continue
        for v in op.outputs:
            if is_inexact(graph, v):
                roots[v] = token
                dependent.add(v)
            else:
                tokens[v] = token
    return frozenset(dependent), roots


def _is_mask(graph: Graph, op: Op) -> bool:
    """Whether an operation compares with a single number, as the mask of padding does.

    Such a mask is a constant. A one-hot vector compares with many numbers, and is an embedding.
    """
    return op.primitive in P.COMPARISONS and any(graph.shape(v) == () for v in op.inputs)


def _dominators(graph: Graph, dependent: frozenset[Value]) -> dict[Value, Value]:
    """Immediate dominators among elementwise operations of one shape.

    `d = dominator[v]` means that v is an elementwise function of d alone (and of constants), and that
    no value between the two has that property. Booleans count on the way: `where(x > 0, x, 0)`.
    """
    follows = set(dependent)
    dominator: dict[Value, Value] = {}
    depth: dict[Value, int] = {}

    def meet(a: Value, b: Value) -> Value | None:
        while a != b:
            if depth.get(a, 0) < depth.get(b, 0):
                a, b = b, a
            if a not in dominator:
                return None
            a = dominator[a]
        return a

    for op in graph.ops:
        if op.primitive not in P.ELEMENTWISE:
            continue
        (out,) = op.outputs
        operands = [v for v in op.inputs if v in follows]
        if not operands:
            continue
        follows.add(out)
        shape = graph.shape(out)
        if any(graph.shape(v) != shape for v in operands):
            continue
        found = _meet_all(operands, meet)
        if found is None and op.primitive is P.SELECT:
            # the predicate of a select by another source is a constant
            operands = [v for v in op.inputs[1:] if v in follows]
            found = _meet_all(operands, meet) if operands else None
        if found is not None:
            dominator[out] = found
            depth[out] = depth.get(found, 0) + 1
    return dominator


def _meet_all(values: list[Value], meet) -> Value | None:
    found: Value | None = values[0]
    for value in values[1:]:
        if found is None:
            return None
        found = meet(found, value)
    return found


def _cuts(
    graph: Graph,
    dependent: frozenset[Value],
    dominator: Mapping[Value, Value],
    whole: frozenset[Op],
) -> frozenset[Edge]:
    """Uses of dependent values that carry no relevance, but in operations that are part of a whole."""
    cuts: set[Edge] = set()
    for op in graph.ops:
        if op.primitive is P.STOP_GRADIENT:
            cuts.add((op, 0))
        if op.primitive not in (P.MUL, P.DIV) or op in whole:
            continue
        a, b = op.inputs
        if a not in dependent or b not in dependent or op.outputs[0] in dominator:
            continue
        if op.primitive is P.DIV or _is_normaliser(graph, b, dependent):
            cuts.add((op, 1))  # numerator / denominator, or value * rsqrt(statistic)
        elif _is_normaliser(graph, a, dependent):
            cuts.add((op, 0))
    return frozenset(cuts)


_REDUCTIONS = frozenset({P.REDUCE_SUM, P.WINDOW_SUM}) | P.MAXIMA
_ON_A_STATISTIC = (
    P.AFFINE
    | P.SHAPE
    | P.VARY
    | P.PSUM
    | {P.BROADCAST, P.MAX, P.MIN, P.CLAMP, P.SQRT, P.RSQRT, P.POW, P.INTEGER_POW}
    | _named("square", "abs", "rsqrt")
)


def _is_normaliser(graph: Graph, value: Value, dependent: frozenset[Value]) -> bool:
    """Whether `value` is a reciprocal (root) of a statistic of the input, times constants."""
    op, inverted = graph.producer.get(value), False
    while op is not None:
        moving = [v for v in op.inputs if v in dependent]
        if op.primitive in _REDUCTIONS or (op.primitive is P.DOT and len(moving) == 2):
            return inverted
        inverted |= (
            op.primitive is P.RSQRT
            or (op.primitive is P.DIV and op.inputs[0] not in dependent)
            or (op.primitive is P.INTEGER_POW and op.params["y"] < 0)
            or op.primitive is P.POW
        )
        if op.primitive not in _ON_A_STATISTIC or not moving:
            return False
        # Of a variance E[x^2] - E[x]^2 either term leads back to a reduction.
        op = graph.producer.get(moving[0])
    return False


def _live(
    graph: Graph,
    dependent: frozenset[Value],
    cuts: frozenset[Edge],
    outputs: Iterable[Value],
) -> frozenset[Value]:
    live = {v for v in outputs if v in dependent}
    for op in reversed(graph.ops):
        if not any(v in live for v in op.outputs):
            continue
        for i, v in enumerate(op.inputs):
            if v in dependent and (op, i) not in cuts:
                live.add(v)
    return frozenset(live)


def _carrying(
    graph: Graph, origins: set[Value], dependent: frozenset[Value], cuts: frozenset[Edge]
) -> frozenset[Value]:
    found = origins & dependent
    for op in graph.ops:
        if any(v in found and (op, i) not in cuts for i, v in enumerate(op.inputs)):
            found.update(v for v in op.outputs if v in dependent)
    return frozenset(found)


def _derived(graph: Graph, values: set[Value]) -> frozenset[Value]:
    """Those values and all that is computed from them."""
    found = set(values)
    for op in graph.ops:
        if any(v in found for v in op.inputs):
            found.update(op.outputs)
    return frozenset(found)


def _bounds(graph: Graph, bounds: dict[Value, Bounds]) -> dict[Value, Bounds]:
    """Interval arithmetic over the graph; what is not in the result may be anything."""
    for value in graph.literals:
        dtype = graph.avals[value].dtype
        is_real = jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
        if not is_real:
            continue
        held = np.asarray(graph.constants[value]).astype(np.float64)  # bfloat16 too
        if held.size and np.all(np.isfinite(held)):
            bounds[value] = (float(held.min()), float(held.max()))
    for op in graph.ops:
        rule = _INTERVALS.get(op.primitive)
        if rule is None:
            continue
        found = rule(op, [bounds.get(v, ANY) for v in op.inputs])
        if found != ANY:
            bounds[op.outputs[0]] = found
    return bounds


def _product(op: Op, xs: list[Bounds]) -> Bounds:
    if op.inputs[0] == op.inputs[1]:
        return (0.0, math.inf)
    corners = [_times(p, q) for p in xs[0] for q in xs[1]]
    return min(corners), max(corners)


def _times(p: float, q: float) -> float:
    return 0.0 if p == 0.0 or q == 0.0 else p * q


def _quotient(op: Op, xs: list[Bounds]) -> Bounds:
    (a, b), (c, d) = xs
    if c > 0:
        corners = [_times(p, 1 / q) if math.isfinite(q) else 0.0 for p in (a, b) for q in (c, d)]
        return min(corners), max(corners)
    return (0.0, math.inf) if a >= 0 and c >= 0 else ANY


def _union(op: Op, xs: list[Bounds]) -> Bounds:
    return min(a for a, _ in xs), max(b for _, b in xs)


def _same(op: Op, xs: list[Bounds]) -> Bounds:
    return xs[0]


def _sum(op: Op, xs: list[Bounds]) -> Bounds:
    a, b = xs[0]
    return (0.0 if a >= 0 else -math.inf, 0.0 if b <= 0 else math.inf)


def _power(op: Op, xs: list[Bounds]) -> Bounds:
    return (0.0, math.inf) if op.params["y"] % 2 == 0 or xs[0][0] >= 0 else ANY


def _fixed(low: float, high: float):
    return lambda op, xs: (low, high)


_POSITIVE = _fixed(0.0, math.inf)
_INTERVALS = {
    **dict.fromkeys(
        P.SHAPE | P.VARY | (P.MAXIMA - P.SCATTER_MAXIMA) | {P.BROADCAST, P.STOP_GRADIENT}
        | _named("slice", "dynamic_slice", "rev", "split", "tile", "unstack", "name",
                       "reduce_precision"),
        _same,
    ),
    P.CONCATENATE: _union,
    **dict.fromkeys(P.SCATTER_MAXIMA, lambda op, xs: _union(op, [xs[0], xs[2]])),
    P.PAD: _union,
    P.SELECT: lambda op, xs: _union(op, xs[1:]),
    **dict.fromkeys(_named("stack", "dynamic_update_slice"), _union),
    **dict.fromkeys(P.ADD, lambda op, xs: (xs[0][0] + xs[1][0], xs[0][1] + xs[1][1])),
    P.SUB: lambda op, xs: (xs[0][0] - xs[1][1], xs[0][1] - xs[1][0]),
    P.NEG: lambda op, xs: (-xs[0][1], -xs[0][0]),
    P.MUL: _product,
    P.DIV: _quotient,
    P.REDUCE_SUM: _sum,
    P.WINDOW_SUM: _sum,
    P.CUMSUM: _sum,
    P.MAX: lambda op, xs: (max(xs[0][0], xs[1][0]), max(xs[0][1], xs[1][1])),
    P.MIN: lambda op, xs: (min(xs[0][0], xs[1][0]), min(xs[0][1], xs[1][1])),
    P.CLAMP: lambda op, xs: (max(xs[0][0], min(xs[1][0], xs[2][0])), min(xs[2][1], xs[1][1])),
    P.EXP: _POSITIVE,
    P.SQRT: _POSITIVE,
    P.RSQRT: _POSITIVE,
    P.INTEGER_POW: _power,
    **dict.fromkeys(_named("square", "abs", "exp2"), _POSITIVE),
    **dict.fromkeys(_named("logistic"), _fixed(0.0, 1.0)),
    **dict.fromkeys(_named("tanh", "erf", "sin", "cos"), _fixed(-1.0, 1.0)),
    **dict.fromkeys(_named("erfc"), _fixed(0.0, 2.0)),
}  # fmt: skip
