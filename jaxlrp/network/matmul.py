"""The bilinear map of a dense layer or convolution, as a product of two matrices where it is one.

Relevance goes back through its transpose. A matrix can be read transposed in place; a kernel of more
dimensions would be copied at every call, and a convolution over patches runs as a slow loop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jax import Array, lax

from jaxlrp import _compat
from jaxlrp.network import primitives as P
from jaxlrp.network.graph import Op


def bilinear(
    anchor: Op, side: int, x: Array, weight: Array, extras: tuple[Array, ...] = ()
) -> Array:
    """What the anchor makes of x and weight, but for rounding; at least in float32.

    Args:
      anchor: the `dot_general`, `ragged_dot_general` or convolution.
      side: which of its operands is x, 0 or 1.
      x, weight: the operands, of dtypes that may be wider than the anchor's.
      extras: what else it reads.
    """
    x, weight = _compat.alike(x, weight)
    if anchor.primitive is P.DOT and weight.ndim > 2:
        contracted, batch = anchor.params["dimension_numbers"]
        if not any(batch) and _order(weight, contracted[1 - side]) is not None:
            return _product(x, weight, contracted[side], contracted[1 - side], side, anchor)
    if anchor.primitive is P.CONV and side == 0:
        numbers = anchor.params["dimension_numbers"]
        if _tiles(anchor) and _order(weight, numbers.rhs_spec[1:]) is not None:
            return _over_patches(anchor, x, weight)
    operands = (x, weight) if side == 0 else (weight, x)
    (z,) = _compat.bind_freely(anchor.eqn, (*operands, *extras), preferred_element_type=None)
    return z


def _order(weight: Array, contracted: Sequence[int]) -> int | None:
    """Which dimension of a matrix the contracted ones are: 0 if they come before all others, 1 if after.

    None if they are mixed with others, so that the weight is no matrix.
    """
    lie = [d in contracted for d, n in enumerate(weight.shape) if n != 1]
    if lie == sorted(lie, reverse=True):
        return 0
    return 1 if lie == sorted(lie) else None


def _product(
    x: Array, weight: Array, of_x: Sequence[int], of_weight: Sequence[int], side: int, anchor: Op
) -> Array:
    """`dot_general` without batch dimensions, its weight as a matrix.

    Args:
      x, weight: the operands.
      of_x, of_weight: their contracted dimensions, in pairs.
      side: 0 where x is the left one, whose dimensions come first.
      anchor: says how precise it is.
    """
    pairs = sorted(zip(of_weight, of_x, strict=True))  # as they lie in the weight
    free = [d for d in range(x.ndim) if d not in of_x]
    kept = tuple(x.shape[d] for d in free)
    own = tuple(n for d, n in enumerate(weight.shape) if d not in of_weight)
    rows, columns = math.prod(weight.shape[d] for d in of_weight), math.prod(own)
    x = lax.reshape(lax.transpose(x, (*free, *(d for _, d in pairs))), (*kept, rows))
    order = _order(weight, of_weight)
    assert order is not None  # `bilinear` has looked
    matrix = lax.reshape(weight, (columns, rows) if order else (rows, columns))
    left, right = (x, len(free)), (matrix, order)
    if side == 1:
        left, right = right, left
    dimensions = (((left[1],), (right[1],)), ((), ()))
    z = lax.dot_general(left[0], right[0], dimensions, precision=anchor.params["precision"])
    return lax.reshape(z, (*kept, *own) if side == 0 else (*own, *kept))


def _tiles(anchor: Op) -> bool:
    """Whether the windows of a convolution lie side by side, or are one element each."""
    params = anchor.params
    kernel = anchor.eqn.invars[1].aval.shape
    sizes = [kernel[d] for d in params["dimension_numbers"].rhs_spec[2:]]
    steps = zip(sizes, params["window_strides"], params["rhs_dilation"], strict=True)
    return (
        all(n == 1 or (n == stride and dilation == 1) for n, stride, dilation in steps)
        and all(lo == hi == 0 for lo, hi in params["padding"])
        and all(d == 1 for d in params["lhs_dilation"])
        and params["feature_group_count"] == params["batch_group_count"] == 1
    )


def _over_patches(anchor: Op, x: Array, weight: Array) -> Array:
    """A convolution whose windows do not overlap."""
    numbers, strides = anchor.params["dimension_numbers"], anchor.params["window_strides"]
    _, into, *spatial = numbers.rhs_spec
    sizes = [weight.shape[d] for d in spatial]
    x = lax.transpose(x, (numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1]))
    for axis, (n, stride) in enumerate(zip(sizes, strides, strict=True), start=1):
        end, step = (x.shape[axis], stride) if n == 1 else (x.shape[axis] // n * n, 1)
        if (end, step) != (x.shape[axis], 1):
            x = lax.slice_in_dim(x, 0, end, step, axis)
    split = [m for n, k in zip(x.shape[1:-1], sizes, strict=True) for m in (n // k, k)]
    x = lax.reshape(x, (x.shape[0], *split, x.shape[-1]))
    windows = range(2, x.ndim - 1, 2)
    z = _product(x, weight, (*windows, x.ndim - 1), (*spatial, into), 0, anchor)
    order = (numbers.out_spec[0], *numbers.out_spec[2:], numbers.out_spec[1])
    return lax.transpose(z, [order.index(d) for d in range(z.ndim)])
