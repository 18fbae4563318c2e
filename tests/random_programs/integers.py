"""Operations on integers: tables, arithmetic of codes, casts to and from floats."""

from __future__ import annotations

import numpy as np

from random_programs.moves import DIMENSIONS, LARGEST
from random_programs.program import TIE, Array, Bool, Float, Int, Program, distinct, each, steady

ROWS = 16  # of each table
BYTE = 250  # what an integer of eight bits can hold


def embedded(c: Array, rows: Array) -> Array:
    """The contributions of what was looked up."""
    extra = rows.ndim - (c.ndim - 1)
    return c.reshape(*c.shape, *([1] * extra)) * rows


def table(p: Program) -> None:
    i = p.pick(Int, lambda n: n.code and n.value.min() >= 0 and n.value.max() < ROWS)
    if i is None:
        return
    wide = i.value.ndim < DIMENSIONS and 2 * i.value.size <= LARGEST and p.below(4)
    rows = p.normal(ROWS, 2) if wide else p.normal(ROWS)
    k = p.constant(rows)
    codes = [f"jnp.asarray({k})[{{}}]", f"jnp.take({k}, {{}}, axis=0)"]
    if wide:
        codes += [
            f"jax.nn.one_hot({{}}, {ROWS}) @ {k}",
            f"({{}}[..., None] == np.arange({ROWS})) @ {k}",
        ]
    if wide and i.value.ndim == 1:
        codes.append(f"jax.vmap(lambda i: lax.dynamic_index_in_dim({k}, i, keepdims=False))({{}})")
    name = p.line(p.among(codes).format(i.name))
    p.emit(Float(name, embedded(i.c, rows[i.value]), False, i.constant))


def one_hot(p: Program) -> None:
    i = p.pick(Int, lambda n: n.code and n.value.ndim < DIMENSIONS and n.value.size <= LARGEST // 4)
    if i is None:
        return
    code = p.among(["jax.nn.one_hot({}, 4)", "({}[..., None] == np.arange(4)).astype(float)"])
    hot = (i.value[..., None] == np.arange(4)).astype(float)
    p.emit(Float(p.line(code.format(i.name)), embedded(i.c, hot), False, i.constant))


def arithmetic(p: Program) -> None:
    """Other codes for the same: no longer the number that it was."""
    i = p.pick(Int, lambda n: n.code and n.value.min() >= 0)
    if i is None:
        return
    code, f = p.among([
        ("{} + 2", lambda v: v + 2), ("{} // 2", lambda v: v // 2), ("{} % 3", lambda v: v % 3),
        ("2 * {}", lambda v: 2 * v), ("jnp.minimum({}, 4)", lambda v: np.minimum(v, 4)),
        ("jnp.clip({}, 1, 5)", lambda v: np.clip(v, 1, 5)),
        ("7 - jnp.minimum({}, 7)", lambda v: 7 - np.minimum(v, 7)),
    ])  # fmt: skip
    if f(i.value).max() < BYTE:
        p.emit(Int(p.line(code.format(i.name)), f(i.value), i.c, True, False, i.constant))


def to_float(p: Program) -> None:
    i = p.pick(Int, lambda n: n.number)
    if i is None:
        return
    code, s = p.among(
        [
            ("{}.astype(float)", 1.0),
            ("{}.astype(float) / 255", 1 / 255),
            ("{}.astype(float) * 0.1", 0.1),
        ]
    )
    p.emit(Float(p.line(code.format(i.name)), i.c * i.value * s, False, i.constant))


def to_integer(p: Program) -> None:
    """A float as the code or the number that it rounds to."""
    a = p.pick(Float, lambda n: not n.shifted)
    if a is None:
        return
    x = a.value
    code, f = p.among([
        ("{}.astype(int)", np.trunc), ("jnp.round({}).astype(jnp.int32)", np.round),
        ("jnp.floor({}).astype(jnp.int32)", np.floor),
        ("jnp.round(9 * {}).astype(jnp.int32)", lambda v: np.round(9 * v)),
    ])  # fmt: skip
    if not steady(f, x):
        return
    c = a.d / np.where(x != 0, x, 1)
    c[-1] += np.where(x != 0, 0, 1)
    solid = bool(np.abs(x).min(initial=1) > 1e-3)
    p.emit(Int(p.line(code.format(a.name)), f(x).astype(np.int64), c, solid, True, a.constant))


def wrapped(p: Program) -> None:
    """Codes of any integers."""
    i = p.pick(Int, lambda n: n.code)
    if i is not None:
        p.emit(Int(p.line(f"{i.name} % {ROWS}"), i.value % ROWS, i.c, True, False, i.constant))


def integer_product(p: Program) -> None:
    """A dense layer in integers, as after a quantizer."""
    i = p.pick(Int, lambda n: n.number and n.value.ndim > 0)
    if i is None or i.value.size // i.value.shape[-1] * 3 > LARGEST:
        return
    w = p.rng.integers(-4, 5, (i.value.shape[-1], 3))
    name = p.line(f"{i.name}.astype(jnp.int32) @ {p.constant(w)}")
    value, d = i.value @ w, each(lambda v: v @ w, i.c * i.value)
    c = d / np.where(value != 0, value, 1)
    if (np.abs(d).max(0)[value == 0] > TIE).any():
        return  # a sum that cancels: no number is proportional to its parts
    c[-1] += np.where(value != 0, 0, 1)
    p.emit(Int(name, value, c, False, True, i.constant))


def compared(p: Program) -> None:
    i = p.pick(Int)
    if i is None:
        return
    j = p.pick(Int, lambda n: n.value.shape == i.value.shape)
    code, value = p.among([
        ("{0} > 2", i.value > 2), ("{0} != 3", i.value != 3), ("{0} < {1}", i.value < j.value),
        ("{0} == {1}", i.value == j.value),
    ])  # fmt: skip
    p.emit(Bool(p.line(code.format(i.name, j.name)), value))


def greatest(p: Program) -> None:
    """The place of the greatest value: a cut."""
    a = p.pick(Float, lambda n: n.value.ndim > 0 and distinct(n.value))
    if a is not None:
        value = a.value.argmax(-1)
        c = p.only_constant(np.ones_like(value, float))
        p.emit(Int(p.line(f"{a.name}.argmax(-1)"), value, c, True, False, True))


STEPS = (
    table, table, table, one_hot, arithmetic, to_float, to_float, to_integer, to_integer, wrapped,
    integer_product, compared, greatest,
)  # fmt: skip
