"""PatternNet and PatternAttribution: patterns fitted to data, and composites that use them.

fitted = patterns.fit(model.apply, [(params, x)], argnums=1)
explain = lrp.explain(model.apply, patterns.attribution(fitted), argnums=1)
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp import _compat
from jaxlrp._checks import check_mapping, check_sequence
from jaxlrp.composites import Composite, by_kind, by_path, gradient
from jaxlrp.concepts.method import ConceptExplainer, no_check, no_options
from jaxlrp.explanation.explainer import explain
from jaxlrp.network.model import Function
from jaxlrp.rules import BoundLayer, Pattern, Rule, Shares, rule

__all__ = ["attribution", "fit", "signal"]

Patterns = dict[str, Array]
"""The pattern of each dense layer and convolution, of the shape of its folded weight, by path."""

_KINDS = ("dense", "conv")


def fit(fun: Function, batches: Iterable[Sequence[Any]], *, argnums: int | None = None) -> Patterns:
    r"""The patterns of all dense layers and convolutions, from data.

    a = (E[x y] - E[x] E[y]) / (E[y^2] - E[y]^2),   y = sum_i w_i x_i

    for each unit, over the samples and positions in which it is active (y + b > 0), of last layers over
    all: the regression of the input on the output, so that sum_i w_i a_i = 1. A unit that is never active,
    or constant, has the pattern zero. One program is compiled for each shape of a batch. It sums deviations
    from the mean of the batch in the network's precision; sums of batches are added in float64.

    Args:
      fun: the function or Flax module, as in `jaxlrp.explain`.
      batches: the arguments of each call, tuples such as `(params, x)`.
      argnums: the position of the input, as in `jaxlrp.explain`.

    Returns:
      A dictionary by path of the layer.

    Raises:
      TypeError: if `batches` is not a sequence of tuples.
      ValueError: if there are no batches; at a layer inside a loop or `jax.checkpoint`, whose values
        are not known; and at one whose units are not on the last axis of weight and output.

    References:
      Kindermans et al. (2018), https://doi.org/10.48550/arXiv.1705.05598, eq. 6 and 7

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import patterns
      >>> w = jnp.array([[1.0], [-1.0]])  # takes the noise of the second input out of the first
      >>> y, noise = jax.random.normal(jax.random.key(0), (2, 10_000))
      >>> x = jnp.stack([y + noise, noise], axis=1)
      >>> jnp.abs(patterns.fit(lambda x: x @ w, [(x,)])["dot_general"][:, 0]).round(1).tolist()
      [1.0, 0.0]
    """
    check_sequence("batches", batches, "[(params, x)]")
    observe = ConceptExplainer(
        "fit", explain(fun, gradient(), argnums=argnums), functools.partial(_observed, fun, argnums),
        no_options, no_check,
    )  # fmt: skip
    total: dict[str, _Moments] = {}
    for args in batches:
        check_sequence("each of batches", args, "(params, x)")
        for path, sums in observe(*args):
            found = _moments(path, sums)
            total[path] = _added(total[path], found) if path in total else found
    if not total:
        raise ValueError("batches must have at least one batch, of a function with dense layers")
    return {path: _pattern(total[path]) for path in reversed(total)}  # seen from the output on


def attribution(patterns: Mapping[str, Array]) -> Composite:
    """PatternAttribution: how much each input contributed, by fitted patterns. Returns the gradient.

    Explain the output with its own value, as published: `target=lambda z: z * onehot`. ReLUs pass the
    gradient.

    Args:
      patterns: of `fit`.
    """
    return _composite(patterns, True, "pattern_attribution")


def signal(patterns: Mapping[str, Array]) -> Composite:
    """PatternNet: the part of the input that made the output what it is; see `attribution`."""
    return _composite(patterns, False, "pattern_net")


def _composite(patterns: Mapping[str, Array], weighted: bool, name: str) -> Composite:
    check_mapping("patterns", patterns, "patterns.fit(...)")
    found = gradient()
    for path, a in patterns.items():
        found = by_path(re.compile(re.escape(path)), Pattern(a, attribution=weighted)) + found
    return dataclasses.replace(found, name=name)


@rule
class _Observe(Rule):
    """The gradient, which shows each layer to a function on the way."""

    kinds: ClassVar[frozenset[str]] = frozenset(_KINDS)
    splits_parameters: ClassVar[bool] = False

    see: Any = dataclasses.field(metadata={"static": True})

    def backward(self, layer: BoundLayer, inputs: tuple[Array, ...], z: Array, g: Array) -> Shares:
        (x,) = inputs
        self.see(layer, x, z)
        return Shares((layer.transpose(g, x),))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Sums:
    """Over active samples and positions of a batch, d = y - pivot.

    n, d, d^2 and the pivot are (units,); x and x d have the shape of the weight.
    """

    pivot: Array
    n: Array
    d: Array
    dd: Array
    x: Array
    xd: Array


def _observed(
    fun: Function, argnums: int | None, args: tuple, kwargs: dict, target: Any
) -> tuple[list[tuple[str, _Sums]], Any]:
    """The sums of each layer: part of one compiled program, from rules that are traced on the way."""
    seen: dict[str, _Sums] = {}
    outside = next(filter(_compat.is_traced, jax.tree.leaves(args)), None)

    def see(layer: BoundLayer, x: Array, z: Array) -> None:
        if _compat.is_traced(x) and not _compat.is_of_trace(x, outside):
            raise ValueError(_unknown(layer.layer.path))
        seen[layer.layer.path] = _sums_of(layer, x, z)

    rules = by_kind(_KINDS, _Observe(see)) + gradient()
    found = explain(fun, rules, argnums=argnums, jit=False)(*args, target=jnp.ones_like)
    return list(seen.items()), (found.relevance, {})


def _unknown(path: str) -> str:
    return (
        f"the values of {path!r} are not known, because it is inside of a loop, jit or checkpoint: fit "
        "patterns of a function without"
    )


def _sums_of(layer: BoundLayer, x: Array, z: Array) -> _Sums:
    path, w = layer.layer.path, layer.weight
    if w.ndim < 2 or w.shape[-1] != z.shape[-1]:
        raise ValueError(
            f"the units of {path!r} must be on the last axis of its weight and output, got shapes "
            f"{w.shape} and {z.shape}"
        )
    y = layer.op(x, w)
    active = jnp.ones_like(z) if layer.layer.last else (z > 0).astype(z.dtype)
    axes = tuple(range(z.ndim - 1))
    n = active.astype(int).sum(axes)
    # near the mean, so that sums in float32 do not lose the variance of outputs far from zero
    pivot = (active * y).sum(axes) / jnp.maximum(n, 1).astype(y.dtype)
    d = active * (y - pivot)

    def over_inputs(s: Array) -> Array:
        return jax.linear_transpose(lambda w: layer.op(x, w), w)(s)[0]

    return _Sums(pivot, n, d.sum(axes), (d * d).sum(axes), over_inputs(active), over_inputs(d))


@dataclasses.dataclass(frozen=True)
class _Moments:
    """Over active samples and positions, in float64.

    Attributes:
      n, y, yy: number, mean and sum of squared deviations of the outputs, (units,).
      x, xy: mean of the inputs, and sum of products of deviations, of the shape of the weight.
    """

    n: np.ndarray
    y: np.ndarray
    yy: np.ndarray
    x: np.ndarray
    xy: np.ndarray
    dtype: Any = dataclasses.field(compare=False)


def _moments(path: str, sums: _Sums) -> _Moments:
    if _compat.is_traced(sums.n):
        raise ValueError(_unknown(path))
    pivot, n, d, dd, x, xd = (
        np.asarray(getattr(sums, field.name), np.float64) for field in dataclasses.fields(sums)
    )
    of = np.maximum(n, 1)
    return _Moments(n, pivot + d / of, dd - d * d / of, x / of, xd - x * d / of, sums.x.dtype)


def _added(one: _Moments, other: _Moments) -> _Moments:
    n = one.n + other.n
    share = other.n / np.maximum(n, 1)
    x, y, both = other.x - one.x, other.y - one.y, one.n * share
    return dataclasses.replace(
        one, n=n, y=one.y + y * share, x=one.x + x * share,
        yy=one.yy + other.yy + y * y * both, xy=one.xy + other.xy + x * y * both,
    )  # fmt: skip


def _pattern(m: _Moments) -> Array:
    live = m.yy > 1e-12 * (m.yy + m.n * m.y**2)
    found = np.where(live, m.xy / np.where(live, m.yy, 1), 0)
    return jnp.asarray(found, m.dtype)
