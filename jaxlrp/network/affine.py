"""Linear layers with everything affine that follows them folded in.

A convolution, a bias, a BatchNorm and the reshapes between them are one affine map of the input.
`detect.linear` finds how far that map reaches; here its folded weight and bias are computed. They serve
the rules alone; the forward pass replays the user's own operations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import cast

import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat
from jaxlrp.network import primitives as P
from jaxlrp.network.graph import Env, Op, Value
from jaxlrp.network.matmul import bilinear
from jaxlrp.numerics import wide


@dataclasses.dataclass(frozen=True, eq=False)
class Absorbed:
    """An operation after the anchor: a change of shape, or an affine map by a constant.

    Attributes:
      op: the operation.
      constant: its constant operand; None for a change of shape and for `neg`.
      before, after: the shapes around it with 1 wherever a dimension holds no output feature.
    """

    op: Op
    constant: Value | None
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def reshapes(self) -> bool:
        return self.constant is None and self.op.primitive not in P.SAME | {P.NEG}


@dataclasses.dataclass(frozen=True, eq=False)
class LinearForm:
    """`z = op(x, weight) + bias`, bilinear in x and weight.

    Attributes:
      anchor: the `dot_general` or convolution; None for an elementwise scale.
      side: which operand of the anchor is the input, 0 or 1.
      kernel: the other operand.
      kernel_dims: for each dimension of the anchor's output, the kernel's dimension that it is, or
        None.
      extras: what else the anchor reads: the sizes of the groups of a grouped product.
      chain: what was absorbed, in order; a sum over devices comes before all that is affine.
      after_normalizer: whether an elementwise scale is the affine part of a normalizer.
    """

    anchor: Op | None
    side: int
    kernel: Value | None
    kernel_dims: tuple[int | None, ...]
    chain: tuple[Absorbed, ...]
    extras: tuple[Value, ...] = ()
    after_normalizer: bool = False

    def op(self, x: Array, weight: Array, extras: tuple[Array, ...] = ()) -> Array:
        """The bilinear map alone: no scale, no bias; at least in float32."""
        if self.anchor is None:
            return x * weight
        z = bilinear(self.anchor, self.side, x, weight, extras)
        for link in self.chain:
            if link.reshapes:
                (z,) = _compat.bind_freely(link.op.eqn, [z])
        return z

    def fold(self, env: Env) -> tuple[Array, Array]:
        """The folded weight and bias: (kernel's shape, broadcastable to z)."""
        weight, bias = _compat.freely(self._fold, {v: env[v] for v in self.constants})
        z = (self.chain[-1].op if self.chain else cast(Op, self.anchor)).eqn.outvars[0].aval
        if self.kernel is None:
            weight = _compat.laid_along(weight, z)
        else:
            weight = _compat.placed_as(weight, env[self.kernel])
        return weight, _compat.laid_along(bias, z)

    def _fold(self, env: Env) -> tuple[Array, Array]:
        dtype = wide(*(jnp.result_type(env[v]) for v in self.constants))
        bias, scale = jnp.zeros((), dtype), None
        undo: list[Callable[[Array], Array]] = []
        for link in self.chain:
            op = link.op
            if link.constant is None and op.primitive is not P.NEG:
                bias = _reshape_compact(op, link, bias)
                undo.append(_inverse(op, link))
                continue
            factor, bias = self._affine(link, bias, env)
            if factor is not None:
                for inverse in reversed(undo):
                    factor = inverse(factor)
                scale = factor if scale is None else scale * factor
        if self.anchor is None:
            return (jnp.ones((), dtype) if scale is None else scale), bias
        weight = jnp.asarray(env[cast(Value, self.kernel)], dtype)
        if scale is not None:
            weight = weight * self._on_kernel(scale, jnp.ndim(weight))
        return weight, bias

    @property
    def alone(self) -> LinearForm:
        """The product with its own bias, which is added to it directly, and nothing affine after that."""
        kept, own = [], True
        for link in self.chain:
            if link.constant is None and link.op.primitive is not P.NEG:
                kept.append(link)  # of the shape alone
                continue
            if own and link.op.primitive in P.ADD:
                kept.append(link)
            own = False
        return (
            self if len(kept) == len(self.chain) else dataclasses.replace(self, chain=tuple(kept))
        )

    @property
    def batch_axis(self) -> int | None:
        """The axis of x whose size `op` is free of, where there is one: examples of a convolution."""
        reshapes = any(link.reshapes for link in self.chain)
        if self.anchor is None or self.anchor.primitive is not P.CONV or self.side or reshapes:
            return None
        if self.anchor.params["batch_group_count"] != 1:
            return None
        return self.anchor.params["dimension_numbers"].lhs_spec[0]

    @property
    def constants(self) -> tuple[Value, ...]:
        """The values that the folded weight and bias are computed from."""
        found = [link.constant for link in self.chain if link.constant is not None]
        return tuple(found) if self.kernel is None else (self.kernel, *found)

    def _affine(self, link: Absorbed, bias: Array, env: Env) -> tuple[Array | None, Array]:
        """The factor by which an affine operation scales, and the bias after it."""
        primitive = link.op.primitive
        if primitive is P.NEG:
            return jnp.asarray(-1.0, bias.dtype), -bias
        constant = _compact(jnp.asarray(env[cast(Value, link.constant)], bias.dtype), link.before)
        constant_first = link.op.inputs[0] == link.constant
        if primitive in P.ADD:
            return None, bias + constant
        if primitive is P.SUB:
            if constant_first:
                return jnp.asarray(-1.0, bias.dtype), constant - bias
            return None, bias - constant
        factor = 1 / constant if primitive is P.DIV else constant
        return factor, bias * factor

    def _on_kernel(self, scale: Array, ndim: int) -> Array:
        """Lays a scale of the anchor's output out along the kernel's dimensions."""
        if scale.ndim == 0:
            return scale
        order = sorted((k, d) for d, k in enumerate(self.kernel_dims) if k is not None)
        scale = scale.transpose([d for _, d in order] + self._other_dims())
        shape = [1] * ndim
        for (k, _), size in zip(order, scale.shape, strict=False):
            shape[k] = size
        return scale.reshape(shape)

    def _other_dims(self) -> list[int]:
        return [d for d, k in enumerate(self.kernel_dims) if k is None]


def _compact(constant: Array, shape: tuple[int, ...]) -> Array:
    """The part of a constant that varies: index 0 wherever `shape` is 1."""
    if constant.ndim == 0:
        return constant
    return constant[tuple(slice(0, 1) if n == 1 else slice(None) for n in shape)]


def _reshape_compact(op: Op, link: Absorbed, value: Array) -> Array:
    if value.ndim == 0 or op.primitive in P.SAME:
        return value
    value = jnp.broadcast_to(value, link.before)
    if op.primitive is P.TRANSPOSE:
        return value.transpose(op.params["permutation"])
    return value.reshape(link.after)  # a sum over devices changes no shape


def _inverse(op: Op, link: Absorbed) -> Callable[[Array], Array]:
    def inverse(value: Array) -> Array:
        if value.ndim == 0 or op.primitive in P.SAME:
            return value
        value = jnp.broadcast_to(value, link.after)
        if op.primitive is P.TRANSPOSE:
            permutation = op.params["permutation"]
            return value.transpose([permutation.index(d) for d in range(len(permutation))])
        return value.reshape(link.before)

    return inverse
