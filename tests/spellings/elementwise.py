"""Functions of single values: activations, splines, rounding, scales and shifts."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spellings.table import ALL, B, Pair, V, W, X, mostly_slow, normal

from numeric import promoting

SQRT2 = float(np.sqrt(2))
KNOTS = np.array([-1.3, -0.4, 0.5, 1.2])
COEFFICIENTS = normal(4, 4, 3, seed=5)  # (inputs, knots, outputs)
POSITIVE = np.array([[5.25, 3.5, 1.75, 8.2], [2.9, 6.6, 4.4, 0.3]])

NO_DERIVATIVES = tuple(name for name in ALL if name != "excitation_backprop")

Function = Callable[[jax.Array], jax.Array]


def hidden(act: Function) -> Function:
    """A network with one hidden layer."""
    return lambda x: act(x @ W + B) @ V


def basis(act: Function) -> Function:
    """A layer of functions of single inputs, each a combination of `act(x)`, (..., inputs, knots)."""
    return lambda x: jnp.einsum("nik,iko->no", act(x), COEFFICIENTS)


def wide(x: jax.Array) -> jax.Array:
    return jnp.broadcast_to(x[..., None], (*x.shape, len(KNOTS)))


def knots(x: jax.Array) -> jax.Array:
    return jnp.broadcast_to(KNOTS, (*x.shape, len(KNOTS)))


def pair(one: Function, other: Function) -> Pair:
    return Pair("activation", hidden(one), hidden(other), (X,))


def gelu_tanh(x: jax.Array) -> jax.Array:
    return 0.5 * x * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = mostly_slow(
{
    "relu: max, where": pair(lambda x: jnp.maximum(x, 0), lambda x: jnp.where(x > 0, x, 0)),
    "relu: jax.nn, clip": pair(jax.nn.relu, lambda x: jnp.clip(x, 0)),
    "relu: product with a truth value": pair(
        jax.nn.relu, promoting(lambda x: x * (x > 0))  # bool times float is the point
    ),
    "relu: half of x + |x|": pair(jax.nn.relu, lambda x: (x + jnp.abs(x)) / 2),
    "leaky relu: where, max": pair(jax.nn.leaky_relu, lambda x: jnp.maximum(x, 0.01 * x)),
    "silu: jax.nn, product": pair(jax.nn.silu, lambda x: x * jax.nn.sigmoid(x)),
    "silu: division": pair(jax.nn.silu, lambda x: x / (1 + jnp.exp(-x))),
    "gelu: exact": pair(
        lambda x: jax.nn.gelu(x, approximate=False), lambda x: x / 2 * (1 + lax.erf(x / SQRT2))
    ),
    "gelu: tanh": pair(jax.nn.gelu, gelu_tanh),
    "softplus": pair(jax.nn.softplus, lambda x: jnp.log1p(jnp.exp(x))),
    "hard swish": pair(jax.nn.hard_swish, lambda x: x * jnp.clip(x + 3, 0, 6) / 6),
    "elu": pair(jax.nn.elu, lambda x: jnp.where(x > 0, x, jnp.exp(jnp.minimum(x, 0)) - 1)),
    "tanh: exponentials": pair(jnp.tanh, lambda x: (jnp.exp(2 * x) - 1) / (jnp.exp(2 * x) + 1)),
    "square: power, product": pair(lambda x: x**2, lambda x: x * x),
    "tanh: by vmap": pair(jnp.tanh, jax.vmap(jax.vmap(jnp.tanh))),
    "tanh: before and after a transpose": pair(lambda x: jnp.tanh(x.T).T, lambda x: jnp.tanh(x)),
},
        "relu: max, where",
                "gelu: tanh",
    )  # fmt: skip


# What broadcasts by itself, and what is broadcast before


def spline(x: jax.Array, at: jax.Array) -> jax.Array:
    """Quadratic B-splines with a support of three around each knot."""
    d = jnp.abs(x - at)
    return jnp.where(d < 0.5, 0.75 - d**2, jnp.where(d < 1.5, 0.5 * (1.5 - d) ** 2, 0.0))


def _bell(d: jax.Array) -> jax.Array:
    return jnp.exp(-2 * d * d)


def cox_de_boor(x: jax.Array) -> jax.Array:
    """Linear B-splines by recursion, from differences with the knots."""
    t = KNOTS
    inside = ((x >= t[:-1]) & (x < t[1:])).astype(x.dtype)
    rising = (x - t[:-2]) / (t[1:-1] - t[:-2]) * inside[..., :-1]
    falling = (t[2:] - x) / (t[2:] - t[1:-1]) * inside[..., 1:]
    return rising + falling


BROADCASTS = mostly_slow(
{
    "maximum with knots: broadcast inside, before": Pair(
        "activation",
        basis(lambda x: jnp.maximum(x[..., None], KNOTS)),
        basis(lambda x: jnp.maximum(wide(x), knots(x))),
        (X,),
    ),
    "hinges: broadcast inside, before": Pair(
        "activation",
        basis(lambda x: jax.nn.relu(x[..., None] - KNOTS)),
        basis(lambda x: jax.nn.relu(wide(x) - knots(x))),
        (X,),
    ),
    "hinges: broadcast inside, one knot after the other": Pair(
        "activation",
        basis(lambda x: jax.nn.relu(x[..., None] - KNOTS)),
        basis(lambda x: jnp.stack([jax.nn.relu(x - k) for k in KNOTS], -1)),
        (X,),
    ),
    "radial basis: broadcast inside, before": Pair(
        "activation",
        basis(lambda x: jnp.exp(-2 * (x[..., None] - KNOTS) ** 2)),
        basis(lambda x: jnp.exp(-2 * (wide(x) - knots(x)) ** 2)),
        (X,),
    ),
    "radial basis: broadcast inside, by vmap": Pair(
        "activation",
        basis(lambda x: jnp.exp(-2 * (x[..., None] - KNOTS) ** 2)),
        basis(jax.vmap(jax.vmap(lambda v: jnp.exp(-2 * (v - KNOTS) ** 2)))),
        (X,),
    ),
    "radial basis: square, product": Pair(
        "activation",
        basis(lambda x: jnp.exp(-2 * jnp.square(x[..., None] - KNOTS))),
        basis(lambda x: _bell(x[..., None] - KNOTS)),
        (X,),
    ),
    "radial basis: difference computed once, twice": Pair(
        "activation",
        basis(lambda x: jnp.exp(-2 * jnp.square(x[..., None] - KNOTS))),
        basis(lambda x: jnp.exp((x[..., None] - KNOTS) * (KNOTS - x[..., None]) * 2)),
        (X,),
    ),
    "radial basis: at a center": Pair(
        "activation",
        basis(lambda x: jnp.exp(-2 * (x[..., None] - KNOTS) ** 2)),
        basis(lambda x: jnp.exp(-2 * (wide(x) - knots(x)) ** 2)),
        (np.where(X > 0, 0.5 + 1e-9, X),),
    ),
    "splines: broadcast inside, before": Pair(
        "activation",
        basis(lambda x: spline(x[..., None], KNOTS)),
        basis(lambda x: spline(wide(x), knots(x))),
        (X,),
    ),
    "splines: one knot after the other": Pair(
        "activation",
        basis(lambda x: spline(x[..., None], KNOTS)),
        basis(lambda x: jnp.stack([spline(x, float(k)) for k in KNOTS], -1)),
        (X,),
    ),
    "hats: recursion, maximum": Pair(
        "activation",
        lambda x: jnp.einsum("nik,iko->no", cox_de_boor(x[..., None]), COEFFICIENTS[:, :2]),
        lambda x: jnp.einsum(
            "nik,iko->no",
            jnp.maximum(
                0.0,
                jnp.minimum(
                    (x[..., None] - KNOTS[:-2]) / (KNOTS[1:-1] - KNOTS[:-2]),
                    (KNOTS[2:] - x[..., None]) / (KNOTS[2:] - KNOTS[1:-1]),
                ),
            ),
            COEFFICIENTS[:, :2],
        ),
        (X,),
    ),
    "Chebyshev: cosines, polynomials": Pair(
        "activation",
        lambda x: jnp.cos(3 * jnp.arccos(jnp.tanh(x))) @ V[:4],
        lambda x: (4 * jnp.tanh(x) ** 3 - 3 * jnp.tanh(x)) @ V[:4],
        (X,),
    ),
    "Chebyshev: degrees by broadcast, one after the other": Pair(
        "activation",
        basis(lambda x: jnp.cos(jnp.arccos(jnp.tanh(x))[..., None] * np.arange(1.0, 5.0))),
        basis(lambda x: jnp.stack([jnp.cos(k * jnp.arccos(jnp.tanh(x))) for k in range(1, 5)], -1)),
        (X,),
            NO_DERIVATIVES,
            why="a factor before an activation is part of it where the program spells it out",
    ),
    "Fourier features: broadcast inside, before": Pair(
        "activation",
        basis(lambda x: jnp.sin(x[..., None] * KNOTS)),
        basis(lambda x: jnp.sin(wide(x) * knots(x))),
        (X,),
    ),
},
        "maximum with knots: broadcast inside, before",
        "hinges: broadcast inside, one knot after the other",
        "radial basis: broadcast inside, before",
    "radial basis: square, product",
            "splines: one knot after the other",
        "Chebyshev: degrees by broadcast, one after the other",
)  # fmt: skip


# Rounding

STEPS = np.array([2.0, 1.5, 0.5, 3.0])


def rounding(
    one: Function, other: Function, presets: tuple[str, ...] = ALL, kind: str = "activation"
) -> Pair:
    why = "" if presets is ALL else "a rounding has no derivative that says anything"
    return Pair(
        kind,
        lambda x: one(x) @ V[:4],
        lambda x: other(x) @ V[:4],
        (POSITIVE,),
        presets,
        why=why,
    )


def int8(x: jax.Array) -> jax.Array:
    return x.astype(jnp.int8).astype(x.dtype)


ROUNDING = {
    "floor division: operator, floor": rounding(
        lambda x: x // 2, lambda x: jnp.floor(x / 2), NO_DERIVATIVES
    ),
    "floor division: by several numbers": rounding(
        lambda x: x // STEPS, lambda x: jnp.floor(x / STEPS), NO_DERIVATIVES
    ),
    "remainder: operator, rem": rounding(
        lambda x: x % 2, lambda x: lax.rem(x, jnp.full_like(x, 2))
    ),
    "round: to integers and back": rounding(
        jnp.round, lambda x: int8(jnp.round(x)), NO_DERIVATIVES, "quantizer"
    ),
    "fake quantization: in floats, through int8": rounding(
        lambda x: jnp.clip(jnp.round(x / 0.1), -127, 127) * 0.1,
        lambda x: int8(jnp.clip(jnp.round(x / 0.1), -127, 127)) * 0.1,
        NO_DERIVATIVES,
        "quantizer",
    ),
    "floor: by a cast": rounding(
        lambda x: jnp.floor(x * 4), lambda x: int8(x * 4), NO_DERIVATIVES, "quantizer"
    ),
}

# Scales and shifts by themselves

SCALE, SHIFT = np.array([0.5, 2.0, 1.5, -0.7]), np.array([0.1, -0.4, 0.3, 0.9])

AFFINE = mostly_slow(
    {
        "scale: BatchNorm in two orders": Pair(
            "scale", lambda x: (x - SHIFT) / SCALE, lambda x: x * (1 / SCALE) - SHIFT / SCALE, (X,)
        ),
        "shift: position before and after": Pair(
            "shift", lambda x: x[:, ::-1] + SHIFT, lambda x: SHIFT + x[:, ::-1], (X,)
        ),
        "shift: difference": Pair(
            "shift", lambda x: x[:, ::-1] + SHIFT, lambda x: x[:, ::-1] - (-SHIFT), (X,)
        ),
    },
    "scale: BatchNorm in two orders",
    "shift: difference",
)

PAIRS = ACTIVATIONS | BROADCASTS | ROUNDING | AFFINE
