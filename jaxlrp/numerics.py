"""Division away from zero, and the conversion between relevance and its gradient form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp._checks import check_at_least

# A power of two, so that dividing by it and multiplying again is exact; small enough to leave
# every activation that matters alone, and so large that a relevance divided by it is finite.
_TINY_EXPONENT = {2: -14, 4: -60, 8: -300}


def tiny(dtype) -> float:
    """The smallest magnitude that relevance is divided by.

    2^-60 in float32 and bfloat16, 2^-300 in float64, 2^-14 in float16.
    """
    dtype = jnp.dtype(dtype)
    if dtype == jnp.bfloat16:
        return 2.0 ** _TINY_EXPONENT[4]
    itemsize = dtype.itemsize // (2 if jnp.issubdtype(dtype, jnp.complexfloating) else 1)
    return 2.0 ** _TINY_EXPONENT[itemsize]


def off_zero(a: Array) -> Array:
    """`s(a) = a + tiny` for a >= 0, `a - tiny` below: `a` nudged away from zero."""
    return _away(a, np.asarray(tiny(a.dtype), a.dtype))


def _away(a: Array, t: Array | np.ndarray) -> Array:
    """`a + t` for a >= 0, `a - t` below."""
    # lax here and below: each jnp call is traced as a jit of its own, and rules call these
    # functions hundreds of times
    if jnp.iscomplexobj(a) or np.ndim(t):
        return jnp.where(a >= 0, a + t, a - t)
    return lax.select(lax.ge(a, _like(a, 0)), lax.add(a, t), lax.sub(a, t))


def _like(a: Array, value: float) -> np.ndarray:
    """A number of the dtype of a."""
    return np.asarray(value, a.dtype)


def to_relevance(a: Array, g: Array) -> Array:
    """The relevance `R = s(a) g` of a value in gradient form; `Re(a g)` of a complex value.

    An infinite value with zero cotangent, such as a masked score, has none.
    """
    if jnp.iscomplexobj(a):
        return jnp.real(a * g)
    return finite_where_asked(off_zero(a), g) * g


def finite_where_asked(factor: Array, g: Array) -> Array:
    """A factor of g, with zero for what is infinite where g is zero: 0 for inf 0, which is NaN."""
    is_infinite = lax.eq(lax.abs(factor), _like(factor, np.inf))
    is_hidden = lax.bitwise_and(is_infinite, lax.eq(g, _like(g, 0)))
    return lax.select(is_hidden, lax.full_like(factor, 0), factor)


def to_gradient_form(a: Array, relevance: Array) -> Array:
    """The cotangent `g = R / s(a)` that carries a relevance R, in the wider of the two dtypes."""
    denominator = off_zero(a)
    if denominator.dtype != relevance.dtype:  # explicitly: users may forbid implicit promotion
        dtype = wide(denominator.dtype, relevance.dtype)
        relevance, denominator = relevance.astype(dtype), denominator.astype(dtype)
    return relevance / denominator


def summed_to(x: Array, values: Array) -> Array:
    """Values of the shape of z, summed along the axes along which x has one element."""
    axes = tuple(d for d, n in enumerate(x.shape) if n == 1 and values.shape[d] != 1)
    return jnp.sum(values, axis=axes, keepdims=True) if axes else values


def wide(*dtypes) -> jnp.dtype:
    """The dtype in which rules divide: float32 at the least; of integers, JAX's default for floats."""
    dtypes = [
        jnp.dtype(d) if jnp.issubdtype(d, jnp.inexact) else jax.dtypes.canonicalize_dtype(float)
        for d in dtypes
    ]
    double = any(
        d.itemsize >= (16 if jnp.issubdtype(d, jnp.complexfloating) else 8) for d in dtypes
    )
    if any(jnp.issubdtype(d, jnp.complexfloating) for d in dtypes):
        return jnp.dtype(np.complex128 if double else np.complex64)
    return jnp.dtype(np.float64 if double else np.float32)


def widen(a: Array) -> Array:
    """Raises a 16-bit value to float32, makes floats of integers, and leaves wider ones as they are."""
    return a.astype(wide(a.dtype))


def positive(a: Array) -> Array:
    """`max(a, 0)`, whose derivative is 0 at 0. Complex values compare by real part first."""
    return _masked(a > 0 if jnp.iscomplexobj(a) else lax.gt(a, _like(a, 0)), a)


def negative(a: Array) -> Array:
    """`min(a, 0)`, whose derivative is 0 at 0. Complex values compare by real part first."""
    return _masked(a < 0 if jnp.iscomplexobj(a) else lax.lt(a, _like(a, 0)), a)


def _masked(keep: Array, a: Array) -> Array:
    return lax.select(keep, a, lax.full_like(a, 0))


Stabilizer = float | Array | Callable[[Array], Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stabilize:
    r"""A denominator kept off zero: `z + epsilon` for z >= 0, `z - epsilon` below.

    Attributes:
      epsilon: what is added, >= 0, in the units of z.
      clip: replace values nearer to zero than epsilon by +-epsilon and leave the others as they are.
      norm_scale: take epsilon in units of the root mean square of z over `axis`; where all of these are
        zero, in the units of z, so that the result is not zero.
      axis: the axes of that mean; None for all but the first, or all of a vector.

    Example:
      >>> Stabilize(0.5)(jnp.array([0.0, 1.0, -1.0]))
      Array([ 0.5,  1.5, -1.5], dtype=float32)
    """

    epsilon: float | Array = 1e-6
    clip: bool = dataclasses.field(default=False, metadata={"static": True})
    norm_scale: bool = dataclasses.field(default=False, metadata={"static": True})
    axis: tuple[int, ...] | None = dataclasses.field(default=None, metadata={"static": True})

    def __post_init__(self) -> None:
        check_at_least("epsilon", self.epsilon, 0.0)

    def __call__(self, z: Array) -> Array:
        epsilon = jnp.asarray(self.epsilon, z.dtype)
        if self.norm_scale:
            axis = self.axis
            if axis is None:
                axis = tuple(range(1, z.ndim)) if z.ndim > 1 else None
            square = jnp.mean(z * z, axis=axis, keepdims=True)
            epsilon = epsilon * jnp.sqrt(jnp.where(square == 0, jnp.ones_like(square), square))
        if self.clip:
            floor = jnp.where(z >= 0, epsilon, -epsilon)
            return jnp.where(jnp.abs(z) < epsilon, floor, z)
        return _away(z, epsilon)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Function:
    """A user's stabilizer as a pytree without leaves."""

    function: Callable[[Array], Array] = dataclasses.field(metadata={"static": True})

    def __call__(self, z: Array) -> Array:
        return self.function(z)


def checked(name: str, stabilizer: Stabilizer) -> Stabilizer:
    """A stabilizer that a rule can hold: a number >= 0, or a function as a pytree."""
    check_at_least(name, stabilizer, 0.0)
    if callable(stabilizer) and not isinstance(stabilizer, (Stabilize, Function)):
        return Function(stabilizer)
    return stabilizer


def as_stabilizer(value: Stabilizer) -> Callable[[Array], Array]:
    """A stabilizer of a number or of a function."""
    return value if callable(value) else Stabilize(value)
