"""Quantization of weights to few levels, with entropy (ECQ) and relevance (ECQx) in the cost."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp._checks import check_at_least, is_number
from jaxlrp._described import described

T = TypeVar("T")

_PERCENTILE = 99.9  # of |w|: where the outermost level lies
_BISECTIONS = 24


@described
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """An array of few levels. A pytree; `index` and `centroids` are all that has to be stored.

    Attributes:
      index: uint8, of the shape of the array: the level of each number.
      centroids: (levels,), increasing and symmetric about zero.
    """

    index: Array
    centroids: Array

    @property
    def dense(self) -> Array:
        """The array itself, `centroids[index]`."""
        return self.centroids[self.index]

    @property
    def sparsity(self) -> Array:
        """The fraction of numbers that are zero."""
        return _sparsity(self.index, len(self.centroids))

    @property
    def entropy(self) -> Array:
        """Bits per number of the best code of the indices: `-sum_c P_c log2 P_c`."""
        p = _frequencies(self.index, len(self.centroids))
        return -jnp.where(p > 0, p * jnp.log2(jnp.where(p > 0, p, 1)), 0).sum()

    @property
    def bits(self) -> int:
        """Bits per index at a fixed length."""
        return math.ceil(math.log2(len(self.centroids)))

    @property
    def packed_bytes(self) -> int:
        """Bytes of the indices at `bits` each, and of the centroids."""
        return math.ceil(self.index.size * self.bits / 8) + self._centroid_bytes

    @property
    def coded_bytes(self) -> int:
        """Bytes of the indices in a code that reaches the entropy, and of the centroids. Not traced."""
        return math.ceil(self.index.size * float(self.entropy) / 8) + self._centroid_bytes

    @property
    def _centroid_bytes(self) -> int:
        return self.centroids.size * self.centroids.dtype.itemsize


def centroids(w: ArrayLike, bits: int) -> Array:
    """The levels of a symmetric grid around zero.

    c_i = i d,   |i| < 2^(bits - 1),   d = P_99.9(|w|) / (2^(bits - 1) - 1)

    with the 99.9th percentile P_99.9; the few weights beyond it take the outermost level.

    Args:
      w: weights of one layer.
      bits: 2 to 8. Two bits are three levels, -d, 0 and d.

    Returns:
      (2^bits - 1,), increasing, of the dtype of `w`.

    Raises:
      ValueError: if bits is out of range, or weights are NaN, infinite or (almost) all zero.

    References:
      Becking et al. (2022), https://doi.org/10.1007/978-3-031-04083-2_14

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> improve.centroids(jnp.array([1.0, -1.0, 1.0]), bits=2).tolist()
      [-1.0, 0.0, 1.0]
    """
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not 2 <= bits <= 8:
        raise ValueError(f"bits must be an integer in 2 to 8, got {bits!r}")
    w = jnp.asarray(w)
    if not _compat.is_traced(w) and not jnp.isfinite(w).all():
        raise ValueError("w must be finite, got NaN or infinite weights")
    most = 2 ** (bits - 1) - 1
    step = jnp.percentile(jnp.abs(w).ravel(), _PERCENTILE) / most
    if not _compat.is_traced(step) and not step > 0:
        raise ValueError(
            "w must have weights other than zero: a grid of step zero has one level; leave this array out"
        )
    return step * jnp.arange(-most, most + 1, dtype=w.dtype)


def ecq(
    w: ArrayLike,
    bits: int,
    strength: ArrayLike,
    *,
    relevance: ArrayLike | None = None,
    p: float = 0.1,
) -> Quantized:
    """Assigns each weight to a level, at a price for rare levels (ECQ) and for losing relevance (ECQx).

    cost_c(w) = f_c (((w - c) / d)^2 + strength I_c),   I_c = -log2 P_c

    Here d is the step of the grid, and P_c the share of weights whose nearest level is c, with P_0 lifted
    to at least .5. All f_c are 1, but with relevance R it is `f_0 = 2 r^beta`, `r = |R| / max |R|`: the
    level zero costs more for relevant weights. beta begins at `ln(.5) / ln(mean(r))`, where a weight of
    mean relevance has factor 1, or at 1 if that is less. It then moves in [0, 1] until the sparsity lies
    in [s - p, s], or as near as it gets; s is the sparsity of ECQ.

    Args:
      w: weights of one layer.
      bits: 2 to 8, see `centroids`.
      strength: price of a bit, >= 0, in units of d^2. At zero each weight takes the nearest level. May be
        traced.
      relevance: of the shape of `w`: `jaxlrp.explain(..., parameters=...)`, over reference samples.
        Constant or zero relevance changes nothing.
      p: how far the sparsity may fall below that of ECQ, >= 0.

    Returns:
      A `Quantized`.

    Raises:
      ValueError: if an argument is out of range, NaN, or relevance has another shape.

    References:
      Becking et al. (2022), https://doi.org/10.1007/978-3-031-04083-2_14

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> w = jnp.array([0.9, -1.0, 0.1, 0.6])
      >>> improve.ecq(w, bits=2, strength=0.0).dense.round(2).tolist()
      [1.0, -1.0, 0.0, 1.0]
    """
    check_at_least("strength", strength, 0)
    check_at_least("p", p, 0)
    w = jnp.asarray(w)
    levels = centroids(w, bits)
    distance, price = _costs(w, levels, jnp.asarray(strength, w.dtype))
    index = functools.partial(_cheapest, distance + price, len(levels) // 2)
    plain = index(jnp.ones_like(w))
    if relevance is None:
        return Quantized(plain, levels)
    r = jnp.abs(jnp.asarray(relevance)).astype(w.dtype)
    if r.shape != w.shape:
        raise ValueError(f"relevance must have the shape of w, {w.shape}, got {r.shape}")
    if not _compat.is_traced(r) and not jnp.isfinite(r).all():
        raise ValueError("relevance must be finite, got NaN or infinite numbers")
    r = r / jnp.where(r.max() > 0, r.max(), 1)
    wanted = _sparsity(plain, len(levels))
    beta = _beta(r, index, len(levels), wanted, p)
    factor = jnp.where(r.min() == r.max(), jnp.ones_like(r), _factor(r, beta))
    return Quantized(index(factor), levels)


def straight_through(w: Array, quantized: Quantized) -> Array:
    """The quantized weights, with the derivative of `w`: what to train with.

    Args:
      w: the weights in full precision, which the optimizer updates.
      quantized: of these weights, `ecq(w, ...)`.

    Returns:
      `quantized.dense`, exactly; its derivative with respect to `w` is one.

    Raises:
      ValueError: if the shapes differ.

    References:
      Bengio et al. (2013), https://doi.org/10.48550/arXiv.1308.3432

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> q = improve.ecq(jnp.array([0.9, -1.0, 0.1]), bits=2, strength=0.0)
      >>> jax.grad(lambda w: improve.straight_through(w, q).sum())(jnp.array([0.9, -1.0, 0.1])).tolist()
      [1.0, 1.0, 1.0]
    """
    dense = quantized.dense
    if w.shape != dense.shape:
        raise ValueError(f"quantized must have the shape of w, {w.shape}, got {dense.shape}")
    return jax.lax.stop_gradient(dense) + (w - jax.lax.stop_gradient(w))


def relevance_momentum(new: T, old: T | None = None, *, momentum: float = 0.1) -> T:
    """Relevance of weights, averaged over training steps: `(1 - momentum) R_new + momentum R_old`.

    Args:
      new: a pytree of relevance.
      old: what the previous step returned; None in the first step.
      momentum: in [0, 1).

    Returns:
      A pytree as `new`.

    Raises:
      ValueError: if momentum is out of range.

    References:
      Becking et al. (2022), https://doi.org/10.1007/978-3-031-04083-2_14

    Example:
      >>> from jaxlrp import improve
      >>> improve.relevance_momentum({"w": 1.0}, {"w": 2.0})
      {'w': 1.1}
    """
    if not is_number(momentum) or not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum!r}")
    if old is None:
        return new
    return jax.tree.map(lambda a, b: (1 - momentum) * a + momentum * b, new, old)


def layer_strengths(parameters: Any, strength: float) -> Any:
    """The strength of `ecq` for each array, weaker for small ones: `strength (n / n_max + .05) / 1.05`.

    Args:
      parameters: a pytree of arrays with n numbers each; the largest has n_max.
      strength: of the largest array, >= 0.

    Returns:
      A pytree of numbers with the structure of `parameters`.

    Raises:
      ValueError: if strength is negative, or there is no array.

    References:
      Becking et al. (2022), https://doi.org/10.1007/978-3-031-04083-2_14, and its published code

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> found = improve.layer_strengths({"a": jnp.ones(100), "b": jnp.ones(10)}, 2.1)
      >>> round(found["a"], 3), round(found["b"], 3)
      (2.1, 0.3)
    """
    check_at_least("strength", strength, 0)
    sizes = [jnp.size(leaf) for leaf in jax.tree.leaves(parameters)]
    if not sizes or not max(sizes):
        raise ValueError("parameters must have at least one array with numbers in it")
    return jax.tree.map(
        lambda leaf: strength * (jnp.size(leaf) / max(sizes) + 0.05) / 1.05, parameters
    )


def _costs(w: Array, levels: Array, strength: Array) -> tuple[Array, Array]:
    """((w - c) / d)^2, of shape (levels, *w.shape), and lambda I_c, which broadcasts to it."""
    middle = len(levels) // 2
    column = levels.reshape(-1, *(1,) * w.ndim)
    distance = jnp.square((w - column) / levels[middle + 1])
    p = _frequencies(jnp.argmin(distance, axis=0), len(levels)).astype(w.dtype)
    p = p.at[middle].max(0.5)
    p = jnp.maximum(
        p, 1 / w.size
    )  # an empty level costs as much as the rarest, and is farther away
    return distance, (-strength * jnp.log2(p)).reshape(column.shape)


def _cheapest(cost: Array, middle: int, factor: Array) -> Array:
    return jnp.argmin(cost.at[middle].multiply(factor), axis=0).astype(jnp.uint8)


def _factor(r: Array, beta: Array) -> Array:
    return 2 * jnp.power(r, beta)


def _beta(r: Array, index: Callable[[Array], Array], levels: int, wanted: Array, p: float) -> Array:
    """The exponent with a sparsity in [wanted - p, wanted]; sparsity grows with it."""

    def sparsity(beta: Array) -> Array:
        return _sparsity(index(_factor(r, beta)), levels)

    mean = jnp.clip(r.mean(), jnp.finfo(r.dtype).tiny, 1 - jnp.finfo(r.dtype).eps)
    start = jnp.minimum(jnp.log(jnp.full_like(mean, 0.5)) / jnp.log(mean), 1)
    first = sparsity(start)

    def bisect(low: Array, high: Array, bound: Array) -> tuple[Array, Array]:
        """Where the sparsity passes the bound: at most that on the left, more on the right."""

        def step(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            middle = (ends[0] + ends[1]) / 2
            over = sparsity(middle) > bound
            return jnp.where(over, ends[0], middle), jnp.where(over, middle, ends[1])

        return jax.lax.fori_loop(0, _BISECTIONS, step, (low, high))

    zero, one = jnp.zeros_like(start), jnp.ones_like(start)
    lower, _ = bisect(zero, start, wanted)
    left, right = bisect(start, one, wanted - p)
    higher = jnp.where(sparsity(right) <= wanted, right, left)
    return jnp.where(first > wanted, lower, jnp.where(first < wanted - p, higher, start))


def _frequencies(index: Array, levels: int) -> Array:
    return jnp.bincount(index.ravel().astype(int), length=levels) / index.size


def _sparsity(index: Array, levels: int) -> Array:
    return (index == levels // 2).sum() / index.size
