"""Operations on floating-point values."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from random_programs.moves import DIMENSIONS, LARGEST
from random_programs.program import TIE, Array, Bool, Float, Program, distinct, each, steady


def free(p: Program) -> Float | None:
    """A value that something nonlinear may follow."""
    return p.pick(Float, lambda n: not n.shifted and not n.constant)


def linear(
    p: Program, code: str, f: Callable[[Array], Array], a: Float, mixes: bool = False
) -> None:
    """Emits a linear function of one value; one that `mixes` absorbs what was added before."""
    name = p.line(code.format(a.name))
    p.emit(Float(name, each(f, a.d), a.shifted and not mixes, a.constant))


def scaled(p: Program) -> None:
    a = p.pick(Float)
    if a is None:
        return
    s = p.number()
    choice = p.below(4)
    if choice == 0:
        linear(p, f"{{}} * {s}", lambda v: v * s, a)
    elif choice == 1:
        linear(p, f"{{}} / {s}", lambda v: v / s, a)
    elif choice == 2:
        linear(p, "-{}", lambda v: -v, a)
    else:
        k = 1 + 0.5 * p.normal(*a.value.shape[-1:])
        linear(p, f"{p.constant(k)} * {{}}", lambda v: k * v, a)


def dense(p: Program) -> None:
    """A dense layer along the last or the first axis, with or without a bias."""
    a = p.pick(Float, lambda n: n.value.ndim > 0)
    if a is None:
        return
    n, m = a.value.shape[-1], 2 + p.below(3)
    if a.value.size // n * m > LARGEST:
        return
    w, b = p.normal(n, m), p.normal(m)
    names = p.constant(w), p.constant(b)
    code = p.among([f"{{}} @ {names[0]}", f"jnp.einsum('...i,ij->...j', {{}}, {names[0]})"])
    name = p.line(code.format(a.name) + f" + {names[1]}" if p.below(2) else code.format(a.name))
    d = each(lambda v: v @ w, a.d)
    if p.lines[-1].code.endswith(names[1]):
        d[-1] += b
    p.emit(Float(name, d, False, a.constant))


def first_axis(p: Program) -> None:
    a = p.pick(Float, lambda n: n.value.ndim == 2)
    if a is None:
        return
    w = p.normal(3, a.value.shape[0])
    if 3 * a.value.shape[1] <= LARGEST:
        linear(p, f"{p.constant(w)} @ {{}}", lambda v: w @ v, a, mixes=True)


def convolution(p: Program) -> None:
    a = p.pick(Float, lambda n: n.value.ndim == 3)
    if a is None:
        return
    k = p.normal(3, a.value.shape[2], 2)
    if math.prod(a.value.shape[:2]) * 2 > LARGEST:
        return

    def same(v: Array) -> Array:
        padded = np.pad(v, ((0, 0), (1, 1), (0, 0)))
        return sum(padded[:, i : i + v.shape[1]] @ k[i] for i in range(3))

    code = (
        f"lax.conv_general_dilated({{}}, {p.constant(k)}, (1,), 'SAME', "
        "dimension_numbers=('NWC', 'WIO', 'NWC'))"
    )
    linear(p, code, same, a, mixes=True)


def bias(p: Program) -> None:
    """A constant that is added where no linear layer is: a position embedding."""
    a = p.pick(Float, lambda n: not n.constant)
    if a is None:
        return
    k = p.normal(*a.value.shape)
    name = p.line(p.among([f"{a.name} + {{}}", f"{{}} + {a.name}"]).format(p.constant(k)))
    d = a.d.copy()
    d[-1] += k
    p.emit(Float(name, d, True))


def added(p: Program) -> None:
    a = free(p)
    if a is None:
        return
    s = p.number()
    shapes = (a.value.shape, a.value.shape[1:])  # the latter broadcasts
    b = p.pick(
        Float, lambda n: n is not a and n.value.shape in shapes and not n.shifted and not n.constant
    )
    if b is not None:
        code = p.among(["{0} + {2} * {1}", "{2} * {1} + {0}", "{0} - {1} * (-{2})"])
        shape = a.value.shape
        name = p.line(code.format(a.name, b.name, s))
        p.emit(Float(name, each(lambda u, v: u + s * np.broadcast_to(v, shape), a.d, b.d)))


def reduced(p: Program) -> None:
    a = p.pick(Float, lambda n: n.value.ndim > 0)
    if a is None:
        return
    axis, choice = p.below(a.value.ndim), p.below(4)
    if choice == 0:
        linear(p, f"{{}}.sum({axis})", lambda v: v.sum(axis), a, mixes=a.value.shape[axis] > 1)
    elif choice == 1:
        linear(p, f"{{}}.mean({axis})", lambda v: v.mean(axis), a, mixes=a.value.shape[axis] > 1)
    elif choice == 2:
        linear(p, f"jnp.cumsum({{}}, {axis})", lambda v: v.cumsum(axis), a)
    else:
        ids = [p.below(2) for _ in range(a.value.shape[0])]
        code = f"jax.ops.segment_sum({{}}, np.array({ids}), 2)"
        linear(p, code, lambda v: np.stack([v[np.array(ids) == i].sum(0) for i in (0, 1)]), a)


# Functions of one value, with f(0) = 0

Scalar = Callable[[Array], Array]
FUNCTIONS: tuple[tuple[str, Scalar], ...] = (
    ("jax.nn.relu({})", lambda x: np.maximum(x, 0)),
    ("jnp.maximum({}, 0)", lambda x: np.maximum(x, 0)),
    ("jnp.where({0} > 0, {0}, 0.0)", lambda x: np.maximum(x, 0)),
    ("{0} * ({0} > 0)", lambda x: np.maximum(x, 0)),
    ("jnp.abs({})", np.abs),
    ("jax.nn.leaky_relu({}, 0.2)", lambda x: np.where(x > 0, x, 0.2 * x)),
    ("jnp.maximum({0}, 0.3 * {0})", lambda x: np.maximum(x, 0.3 * x)),
    ("jnp.where({0} > 0.2, {0}, 0.5 * {0})", lambda x: np.where(x > 0.2, x, 0.5 * x)),
    ("jnp.clip({}, -0.8, 0.9)", lambda x: np.clip(x, -0.8, 0.9)),
    ("jnp.minimum({}, 0.7)", lambda x: np.minimum(x, 0.7)),
    ("lax.clamp(-0.5, {}, 0.5)", lambda x: np.clip(x, -0.5, 0.5)),
    ("jax.nn.relu6(4 * {})", lambda x: np.clip(4 * x, 0, 6)),
    ("jnp.tanh({})", np.tanh),
    ("jax.nn.silu({})", lambda x: x / (1 + np.exp(-x))),
    ("jnp.floor(3 * {})", lambda x: np.floor(3 * x)),
    ("jnp.round(2 * {})", lambda x: np.round(2 * x)),
    ("({} // 0.5)", lambda x: np.floor(x / 0.5)),
    ("jnp.sign({0}) * {0}", np.abs),
    ("(0.25 * jnp.square({}))", lambda x: 0.25 * x * x),
)


def passed(d: Array, f: Scalar) -> Array:
    """Contributions of f(x), proportional to those of x."""
    x = d.sum(0)
    slope = np.divide(f(x), x, out=np.zeros_like(x), where=x != 0)
    return d * slope


def function(p: Program) -> None:
    a = free(p)
    if a is None:
        return
    code, f = p.among(FUNCTIONS)
    if steady(f, a.value):
        p.emit(Float(p.line(code.format(a.name)), passed(a.d, f)))


def broadcasting(p: Program) -> None:
    """A function that broadcasts against a row of constants, by itself or before."""
    a = free(p)
    if a is None or a.value.ndim == DIMENSIONS or 2 * a.value.size > LARGEST:
        return
    k = -np.abs(p.normal(2)) - 0.1
    name, spread = p.constant(k), f"{a.name}[..., None]"
    if p.below(2):
        spread = f"jnp.broadcast_to({spread}, {(*a.value.shape, 2)})"
    choice = p.below(3)
    code = ("jnp.maximum({}, {})", "jnp.minimum({}, -{})", "jnp.abs({} * {})")[choice].format(
        spread, name
    )
    f = (
        lambda x: np.maximum(x, k), lambda x: np.minimum(x, -k), lambda x: np.abs(x * k),
    )[choice]  # fmt: skip
    d = np.broadcast_to(a.d[..., None], (*a.d.shape, 2))
    p.emit(Float(p.line(code), passed(d, f)))


def maximum(p: Program) -> None:
    """Of two values, or along an axis."""
    a = free(p)
    if a is None:
        return
    if p.below(2) and a.value.ndim:
        axis, code = p.below(a.value.ndim), p.among(["max", "min"])
        if not distinct(a.value, axis):
            return
        place = np.expand_dims(getattr(a.value, f"arg{code}")(axis), axis)
        if p.below(2):
            code = f"{code}({axis}, keepdims=True)"
            linear(p, f"{{}}.{code}", lambda v: np.take_along_axis(v, place, axis), a)
        else:
            linear(
                p,
                f"{{}}.{code}({axis})",
                lambda v: np.take_along_axis(v, place, axis).squeeze(axis),
                a,
            )
        return
    b = p.pick(
        Float,
        lambda n: (
            n is not a and n.value.shape == a.value.shape and not n.shifted and not n.constant
        ),
    )
    if b is None:
        return
    difference = a.value - b.value
    if (np.abs(difference)[difference != 0] > TIE).all():
        left = a.value >= b.value
        if p.below(2):
            code = p.among(["jnp.maximum({}, {})", "jnp.where({0} >= {1}, {0}, {1})"])
        else:
            code, left = "jnp.minimum({}, {})", a.value <= b.value
        p.emit(Float(p.line(code.format(a.name, b.name)), np.where(left, a.d, b.d)))


def product(p: Program) -> None:
    """Half to each, all to the other where one is a constant."""
    a = free(p)
    if a is None:
        return
    b = p.pick(Float, lambda n: n is not a and n.value.shape == a.value.shape and not n.shifted)
    if b is None:
        return
    name = p.line(
        p.among(["{} * {}", "jnp.multiply({}, {})"]).format(
            *p.among([(a.name, b.name), (b.name, a.name)])
        )
    )
    if b.constant:
        p.emit(Float(name, a.d * b.value))
    else:
        p.emit(Float(name, (a.d * b.value + a.value * b.d) / 2))


def held(p: Program) -> None:
    """A constant by `stop_gradient`."""
    a = p.pick(Float, lambda n: not n.constant)
    if a is not None:
        p.emit(Float(p.line(f"lax.stop_gradient({a.name})"), p.only_constant(a.value), False, True))


def plus_constant(p: Program) -> None:
    """A sum with something that carries no relevance."""
    a = p.pick(Float, lambda n: not n.constant)
    if a is None:
        return
    b = p.pick(Float, lambda n: n.constant and n.value.shape == a.value.shape)
    if b is not None:
        name = p.line(p.among([f"{a.name} + {b.name}", f"{b.name} + {a.name}"]))
        p.emit(Float(name, a.d + b.d, True))


def normalized(p: Program) -> None:
    """Divided by a statistic of itself, which is held fixed."""
    a = p.pick(Float, lambda n: n.value.ndim > 0 and n.value.shape[-1] > 1 and not n.constant)
    if a is None:
        return
    v = a.value
    code, by = p.among([
        ("{0} / (1 + jnp.abs({0}).sum(-1, keepdims=True))", 1 + np.abs(v).sum(-1, keepdims=True)),
        ("{0} * lax.rsqrt(jnp.mean({0} ** 2, -1, keepdims=True) + 0.1)",
         np.sqrt(np.mean(v**2, -1, keepdims=True) + 0.1)),
        ("{0} / jnp.sqrt(jnp.sum({0} * {0}, -1, keepdims=True) + 0.1)",
         np.sqrt(np.sum(v * v, -1, keepdims=True) + 0.1)),
    ])  # fmt: skip
    linear(p, code, lambda d: d / by, a)


# Truth values


def compared(p: Program) -> None:
    a = p.pick(Float)
    if a is None:
        return
    b = p.pick(Float, lambda n: n is not a and n.value.shape == a.value.shape)
    if b is not None and p.below(2) and np.abs(a.value - b.value).min(initial=1) > TIE:
        p.emit(Bool(p.line(f"{a.name} > {b.name}"), a.value > b.value))
    elif np.abs(a.value - 0.11).min(initial=1) > TIE:
        code, value = p.among([("> 0.11", a.value > 0.11), ("<= 0.11", a.value <= 0.11)])
        p.emit(Bool(p.line(f"{a.name} {code}"), value))


def logic(p: Program) -> None:
    a = p.pick(Bool)
    if a is None:
        return
    b = p.pick(Bool, lambda n: n.value.shape == a.value.shape)
    code, value = p.among([
        ("~{0}", ~a.value), ("{0} & {1}", a.value & b.value), ("{0} | {1}", a.value | b.value),
        ("jnp.logical_xor({0}, {1})", a.value ^ b.value),
    ])  # fmt: skip
    p.emit(Bool(p.line(code.format(a.name, b.name)), value))


def masked(p: Program) -> None:
    """A value times a truth value, or its mean where that holds."""
    truth = p.pick(Bool)
    if truth is None:
        return
    shape = truth.value.shape
    a = p.pick(Float, lambda n: n.value.shape == shape and not n.constant and not n.shifted)
    choice = p.below(4)
    if a is None or choice == 3:
        name = p.line(f"{truth.name}.astype(float)")
        p.emit(Float(name, p.only_constant(truth.value.astype(float)), False, True))
    elif choice == 2 and a.value.ndim:
        count = np.maximum(truth.value.sum(-1), 1)
        code = f"({{}} * {truth.name}).sum(-1) / jnp.maximum({truth.name}.sum(-1), 1)"
        linear(p, code, lambda v: (v * truth.value).sum(-1) / count, a, mixes=a.value.shape[-1] > 1)
    else:
        code = p.among([f"{{}} * {truth.name}", f"jnp.where({truth.name}, {{}}, 0.0)"])
        linear(p, code, lambda v: v * truth.value, a)


STEPS = (
    scaled, dense, dense, first_axis, convolution, bias, added, added, reduced, function, function,
    function, broadcasting, maximum, product, held, plus_constant, normalized, compared, compared, logic,
    masked, masked,
)  # fmt: skip
