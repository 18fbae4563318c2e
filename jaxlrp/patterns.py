"""PatternNet and PatternAttribution: patterns fitted to data, and composites that use them.

fitted = patterns.fit(model.apply, [(params, x)], argnums=1)
explain = lrp.explain(model.apply, patterns.attribution(fitted), argnums=1)
"""

from __future__ import annotations

import dataclasses
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
    or constant, has the pattern zero. Sums are taken in float64.

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
    sums: dict[str, _Sums] = {}

    def add(layer: BoundLayer, x: Array, z: Array) -> None:
        found = _sums_of(layer, x, z)
        path = layer.layer.path
        sums[path] = _added(sums[path], found) if path in sums else found

    rules = by_kind(_KINDS, _Observe(add)) + gradient()
    observe = explain(fun, rules, argnums=argnums, jit=False)
    for args in batches:
        check_sequence("each of batches", args, "(params, x)")
        observe(*args, target=jnp.ones_like)
    if not sums:
        raise ValueError("batches must have at least one batch, of a function with dense layers")
    return {path: _pattern(sums[path]) for path in reversed(sums)}  # seen from the output on


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


@dataclasses.dataclass(frozen=True)
class _Sums:
    """Over active samples and positions, in float64: n, y, y^2 (units,); x, x y, of the weight's shape."""

    n: np.ndarray
    y: np.ndarray
    yy: np.ndarray
    x: np.ndarray
    xy: np.ndarray
    dtype: Any = dataclasses.field(compare=False)


def _added(one: _Sums, other: _Sums) -> _Sums:
    return dataclasses.replace(
        one,
        **{f: getattr(one, f) + getattr(other, f) for f in ("n", "y", "yy", "x", "xy")},
    )


def _sums_of(layer: BoundLayer, x: Array, z: Array) -> _Sums:
    path, w = layer.layer.path, layer.weight
    if _compat.is_traced(x):
        raise ValueError(
            f"the values of {path!r} are not known, because it is inside of a loop, jit or checkpoint: fit "
            "patterns of a function without"
        )
    if w.ndim < 2 or w.shape[-1] != z.shape[-1]:
        raise ValueError(
            f"the units of {path!r} must be on the last axis of its weight and output, got shapes "
            f"{w.shape} and {z.shape}"
        )
    y = layer.op(x, w)
    active = jnp.ones_like(z) if layer.layer.last else (z > 0).astype(z.dtype)

    def over_inputs(s: Array) -> np.ndarray:
        (found,) = jax.linear_transpose(lambda w: layer.op(x, w), w)(s)
        return np.asarray(found, np.float64)

    def over_samples(s: Array) -> np.ndarray:
        return np.asarray(s, np.float64).reshape(-1, z.shape[-1]).sum(axis=0)

    return _Sums(
        over_samples(active), over_samples(active * y), over_samples(active * y * y),
        over_inputs(active), over_inputs(active * y), w.dtype,
    )  # fmt: skip


def _pattern(s: _Sums) -> Array:
    n = np.maximum(s.n, 1)
    mean = s.y / n
    variance = s.yy / n - mean**2
    live = variance > 1e-12 * s.yy / n
    numerator = (s.xy - s.x * mean) / n
    found = np.where(live, numerator / np.where(live, variance, 1), 0)
    return jnp.asarray(found, s.dtype)
