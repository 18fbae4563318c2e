"""Operations that only move values: of floats, integers and truth values alike."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from random_programs.program import Array, Bool, Float, Int, Linear, Node, Program, distinct, each

LARGEST, DIMENSIONS = 36, 3
Move = tuple[str, Linear] | None  # code with `{}` for the operand


def moved(p: Program, code: str, f: Linear, *nodes: Node) -> None:
    """Emits the result of moving one value, or several of one type."""
    first = nodes[0]
    name = p.line(code.format(*(n.name for n in nodes)))
    if isinstance(first, Float):
        d = each(f, *(n.d for n in nodes))
        constant = all(n.constant for n in nodes)
        p.emit(Float(name, d, any(n.shifted for n in nodes), constant))
    elif isinstance(first, Int):
        value, c = f(*(n.value for n in nodes)), each(f, *(n.c for n in nodes))
        flags = (all(n.code for n in nodes), all(n.number for n in nodes))
        p.emit(Int(name, value, c, *flags, all(n.constant for n in nodes)))
    else:
        p.emit(Bool(name, f(*(n.value for n in nodes))))


def _axis(p: Program, a: Array) -> int:
    return p.below(a.ndim)


def _along(axis: int, part: str) -> str:
    return "[" + ":, " * axis + part + "]"


def flip(p: Program, a: Array) -> Move:
    axis = _axis(p, a)
    code = p.among(
        [f"jnp.flip({{}}, {axis})", f"lax.rev({{}}, ({axis},))", "{}" + _along(axis, "::-1")]
    )
    return code, lambda v: np.flip(v, axis)


def roll(p: Program, a: Array) -> Move:
    axis, by = _axis(p, a), 1 + p.below(2)
    return f"jnp.roll({{}}, {by}, {axis})", lambda v: np.roll(v, by, axis)


def transpose(p: Program, a: Array) -> Move:
    order = tuple(range(a.ndim))[::-1]
    if a.ndim == 3 and p.below(2):
        order = (1, 0, 2)
    code = p.among([f"jnp.transpose({{}}, {order})", f"lax.transpose({{}}, {order})"])
    return code, lambda v: np.transpose(v, order)


def reshape(p: Program, a: Array) -> Move:
    shapes = [(a.size,), a.shape[::-1], (a.shape[0], a.size // a.shape[0])]
    shapes += [(2, a.size // 2), (a.size // 2, 2)] if a.size % 2 == 0 else []
    shape = p.among(shapes)
    return p.among([f"{{}}.reshape({shape})", f"lax.reshape({{}}, {shape})"]), lambda v: v.reshape(
        shape
    )


def part(p: Program, a: Array) -> Move:
    axis = _axis(p, a)
    n = a.shape[axis]
    if n < 2:
        return None
    size = 1 + p.below(n - 1)
    low = p.below(n - size + 1)
    code = p.among([
        "{}" + _along(axis, f"{low}:{low + size}"),
        f"lax.slice_in_dim({{}}, {low}, {low + size}, axis={axis})",
        f"lax.dynamic_slice_in_dim({{}}, {low}, {size}, axis={axis})",
    ])  # fmt: skip
    return code, lambda v: v.take(range(low, low + size), axis)


def every_other(p: Program, a: Array) -> Move:
    axis = _axis(p, a)
    return "{}" + _along(axis, "::2"), lambda v: v.take(range(0, v.shape[axis], 2), axis)


def chosen(p: Program, a: Array) -> Move:
    axis = _axis(p, a)
    order = [p.below(a.shape[axis]) for _ in range(a.shape[axis])]
    code = p.among([
        "{}" + _along(axis, f"np.array({order})"), f"jnp.take({{}}, np.array({order}), axis={axis})"
    ])  # fmt: skip
    return code, lambda v: v.take(order, axis)


def one_of(p: Program, a: Array) -> Move:
    if a.ndim < 2:
        return None
    axis = _axis(p, a)
    i = p.below(a.shape[axis])
    code = p.among([f"jnp.unstack({{}}, axis={axis})[{i}]", "{}" + _along(axis, str(i))])
    return code, lambda v: v.take(i, axis)


def halves(p: Program, a: Array) -> Move:
    axis = _axis(p, a)
    if a.shape[axis] % 2:
        return None
    i = p.below(2)
    return f"jnp.split({{}}, 2, {axis})[{i}]", lambda v: np.split(v, 2, axis)[i]


def wider(p: Program, a: Array) -> Move:
    if a.ndim == DIMENSIONS or 2 * a.size > LARGEST:
        return None
    choice = p.below(3)
    if choice == 0:
        return "{}[..., None]", lambda v: v[..., None]
    if choice == 1:
        shape = (2, *a.shape)
        return f"jnp.broadcast_to({{}}, {shape})", lambda v: np.broadcast_to(v, shape)
    return "jnp.repeat({}, 2, 0)", lambda v: np.repeat(v, 2, 0)


def by_rows(p: Program, a: Array) -> Move:
    if a.ndim < 2:
        return None
    return "jax.vmap(lambda row: row[::-1])({})", lambda v: v[:, ::-1]


def updated(p: Program, a: Array) -> Move:
    to, source = p.below(a.shape[0]), p.below(a.shape[0])

    def update(v: Array) -> Array:
        v = v.copy()
        v[to] = v[source]
        return v

    return f"{{0}}.at[{to}].set({{0}}[{source}])", update


MOVES: tuple[Callable[[Program, Array], Move], ...] = (
    flip, roll, transpose, reshape, part, every_other, chosen, one_of, halves, wider, by_rows, updated,
)  # fmt: skip


def _fit(node: Node) -> bool:
    """Whether a choice between it and another, a function of one value perhaps, may follow."""
    return not (isinstance(node, Float) and node.shifted)


def any_node(p: Program, fits: Callable[[Node], bool] = lambda node: True) -> Node | None:
    """Floats and integers more often than truth values."""
    return p.pick(p.among([Float, Float, Int, Int, Bool]), fits)


def _like(p: Program, node: Node) -> Node:
    """Another value of the same type and shape, or the same."""
    return p.pick(type(node), lambda n: n.value.shape == node.value.shape and _fit(n)) or node


def move(p: Program) -> None:
    node = any_node(p)
    if node is None or node.value.ndim == 0:
        return
    found = p.among(MOVES)(p, node.value)
    if found is not None:
        moved(p, *found, node)


def kept_or_other(p: Program) -> None:
    """A value of one of two, by a constant mask."""
    node = any_node(p, _fit)
    if node is None or node.value.ndim == 0:
        return
    other = _like(p, node)
    mask = p.rng.random(node.value.shape) < 0.6
    name = p.constant(mask)
    code = p.among([f"jnp.where({name}, {{0}}, {{1}})", f"lax.select_n({name}, {{1}}, {{0}})"])
    code = f"jnp.where({name}, {{}}, {{}})" if isinstance(node, Int) else code  # of several widths
    moved(p, code, lambda a, b: np.where(mask, a, b), node, other)


def joined(p: Program) -> None:
    a = any_node(p)
    if a is None or a.value.ndim == 0:
        return
    b = p.pick(type(a), lambda n: n.value.shape == a.value.shape)
    if 2 * a.value.size > LARGEST:
        return
    axis = _axis(p, a.value)
    if a.value.ndim < DIMENSIONS and p.below(2):
        moved(p, f"jnp.stack([{{}}, {{}}], {axis})", lambda a, b: np.stack([a, b], axis), a, b)
    else:
        code = f"jnp.concatenate([{{}}, {{}}], {axis})"
        moved(p, code, lambda a, b: np.concatenate([a, b], axis), a, b)


def padded(p: Program) -> None:
    """A row of constants before the others."""
    node = p.pick(p.among([Float, Int]))
    if node is None or node.value.ndim == 0 or node.value.size > LARGEST // 2:
        return
    fill = 3 if isinstance(node, Int) else p.among([0.0, p.number()])
    widths = ((1, 0), *((0, 0) for _ in node.value.shape[1:]))
    code = p.among([
        f"jnp.pad({node.name}, {widths}, constant_values={fill})",
        f"jnp.concatenate([jnp.full_like({node.name}[:1], {fill}), {node.name}])",
    ])  # fmt: skip
    name = p.line(code)

    def widen(parts: Array, last: float) -> Array:
        parts = np.stack([np.pad(v, widths) for v in parts])
        parts[-1, 0] = last
        return parts

    if isinstance(node, Float):
        p.emit(Float(name, widen(node.d, fill), node.shifted, node.constant))
    else:
        value = np.pad(node.value, widths, constant_values=fill)
        p.emit(Int(name, value, widen(node.c, 1.0), node.code, node.number, node.constant))


def chosen_by_truth(p: Program) -> None:
    """One of two by a comparison, which is frozen."""
    node = any_node(p, _fit)
    if node is None:
        return
    shape = node.value.shape
    truth = p.pick(Bool, lambda n: n.value.shape == shape)
    if truth is None:
        return
    other = _like(p, node)
    code = p.among(
        [f"jnp.where({truth.name}, {{0}}, {{1}})", f"lax.select_n({truth.name}, {{1}}, {{0}})"]
    )
    code = f"jnp.where({truth.name}, {{}}, {{}})" if isinstance(node, Int) else code
    moved(p, code, lambda a, b: np.where(truth.value, a, b), node, other)


def in_order(p: Program) -> None:
    """Sorted along the last axis, by itself or by another value's order."""
    node = p.pick(p.among([Float, Int]), lambda n: n.value.ndim > 0 and distinct(n.value))
    if node is None or (isinstance(node, Int) and np.sum(node.value == 0, -1).max() > 1):
        return
    keys = p.pick(Float, lambda n: n.value.shape == node.value.shape and distinct(n.value))
    if p.below(2) and keys is not None and (keys.value != 0).all():
        order = np.argsort(keys.value, -1, kind="stable")
        code = f"jnp.take_along_axis({{}}, jnp.argsort({keys.name}, -1), -1)"
    elif isinstance(node, Float) and p.below(2):
        order = np.argsort(-node.value, -1, kind="stable")[..., :2]
        code = f"lax.top_k({{}}, {order.shape[-1]})[0]"
    else:
        order = np.argsort(node.value, -1, kind="stable")
        code = p.among(["jnp.sort({}, -1)", "lax.sort({})"])
    moved(p, code, lambda v: np.take_along_axis(v, order, -1), node)


def at_the_greatest(p: Program) -> None:
    """The value at the place where another is greatest."""
    node = p.pick(p.among([Float, Int]), lambda n: n.value.ndim > 0)
    if node is None:
        return
    keys = p.pick(Float, lambda n: n.value.shape == node.value.shape and distinct(n.value))
    if keys is None:
        return
    place = keys.value.argmax(-1)[..., None]
    code = f"jnp.take_along_axis({{}}, {keys.name}.argmax(-1)[..., None], -1)"
    moved(p, code, lambda v: np.take_along_axis(v, place, -1), node)


STEPS = (
    move, move, move, move, kept_or_other, joined, joined, padded, chosen_by_truth, in_order,
    at_the_greatest,
)  # fmt: skip
