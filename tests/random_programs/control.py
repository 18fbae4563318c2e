"""Control flow and calls around random bodies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from random_programs.floats import FUNCTIONS, free, passed
from random_programs.program import Array, Bool, Float, Int, Program

Body = tuple[
    str, Callable[[Array], Array]
]  # the name of the function, and what it does to contributions
Part = tuple[str, Callable[[Array], Array]]  # an expression in `h`, likewise


def _part(p: Program, n: int) -> Part:
    """One step of a body: from (..., n) to (..., n)."""
    choice = p.below(6)
    if choice == 0:
        code, f = p.among(FUNCTIONS[:12])
        return code.format("h"), lambda d: passed(d, f)
    if choice == 1:
        w, b = p.normal(n, n), p.normal(n)

        def layer(d: Array) -> Array:
            d = d @ w
            d[-1] += b
            return d

        return f"h @ {p.constant(w)} + {p.constant(b)}", layer
    if choice == 2:
        w = p.normal(n, n)
        return f"h @ {p.constant(w)}", lambda d: d @ w
    if choice == 3:
        return "h[..., ::-1]", lambda d: d[..., ::-1]
    if choice == 4:
        return "h + 0.5 * jax.nn.relu(h)", lambda d: d + 0.5 * passed(d, lambda x: np.maximum(x, 0))

    def greater(d: Array) -> Array:
        other = 0.7 * d[..., ::-1]
        return np.where(d.sum(0) >= other.sum(0), d, other)

    return "jnp.maximum(h, 0.7 * h[..., ::-1])", greater


def body(p: Program, n: int) -> Body:
    parts = [_part(p, n) for _ in range(1 + p.below(3))]
    lines = "".join(f"    h = {code}\n" for code, _ in parts)
    name = p.line(f"def NAME(h):\n{lines}    return h", "f")

    def run(d: Array) -> Array:
        for _, f in parts:
            d = f(d)
        return d

    return name, run


def call(p: Program) -> None:
    a = free(p)
    if a is None or a.value.ndim == 0:
        return
    f, run = body(p, a.value.shape[-1])
    wraps = ["jax.jit({})({})", "jax.checkpoint({})({})", "jax.jit(jax.checkpoint({}))({})"]
    if a.value.ndim > 1:
        wraps += ["jax.vmap({})({})", "lax.map({}, {})"]
    choice = p.below(len(wraps) + 2)
    if choice < len(wraps):
        name = p.line(wraps[choice].format(f, a.name))
    else:
        kind = "jvp" if choice == len(wraps) else "vjp"
        rule = (
            f"NAME.defjvp(lambda p, t: jax.jvp({f}, p, t))" if kind == "jvp"
            else f"NAME.defvjp(lambda h: jax.vjp({f}, h), lambda pull, g: pull(g))"
        )  # fmt: skip
        own = p.line(f"NAME = jax.custom_{kind}({f})\n{rule}", "f")
        name = p.line(f"{own}({a.name})")
    p.emit(Float(name, run(a.d)))


def branch(p: Program) -> None:
    a, truth = free(p), p.pick(Bool)
    if a is None or a.value.ndim == 0:
        return
    n = a.value.shape[-1]
    bodies = [body(p, n) for _ in range(2 + p.below(2))]
    names = ", ".join(name for name, _ in bodies)
    if len(bodies) == 3:
        code, taken = (f"{truth.name}.sum() % 3", truth.value.sum() % 3) if truth else ("2", 2)
        name = p.line(f"lax.switch({code}, [{names}], {a.name})")
    else:
        code, yes = (
            (f"{truth.name}.any()", truth.value.any())
            if truth
            else (f"{a.name}.sum() < 0.1", a.value.sum() < 0.1)
        )
        taken = 0 if yes else 1
        name = p.line(f"lax.cond({code}, {names}, {a.name})")
    p.emit(Float(name, bodies[taken][1](a.d)))


def loop(p: Program) -> None:
    a = free(p)
    if a is None or a.value.ndim == 0:
        return
    n = a.value.shape[-1]
    f, run = body(p, n)
    wrapped = p.among([f, f"jax.checkpoint({f})"])
    choice = p.below(3)
    d = a.d
    if choice == 0:
        turns = 1 + p.below(3)
        name = p.line(f"lax.fori_loop(0, {turns}, lambda i, h: {wrapped}(h), {a.name})")
        for _ in range(turns):
            d = run(d)
    elif choice == 1:
        ws = p.normal(2, n, n)
        name = p.line(
            f"lax.scan(lambda h, w: ({wrapped}(h) @ w, None), {a.name}, {p.constant(ws)})[0]"
        )
        for w in ws:
            d = run(d) @ w
    else:
        ws = p.normal(2, n, n)
        name = p.line(
            f"lax.scan(lambda h, w: ({wrapped}(h) @ w, h), {a.name}, {p.constant(ws)})[1]"
        )
        seen = []
        for w in ws:
            seen.append(d)
            d = run(d) @ w
        d = np.stack(seen, 1)
        if d[0].ndim > 3:
            return
    p.emit(Float(name, d))


def over_rows(p: Program) -> None:
    """A recurrent network over the first axis, of floats or of looked up integers."""
    a = p.pick(p.among([Float, Int]))
    if isinstance(a, Int):
        if a.value.ndim != 1 or not a.code or a.value.min() < 0 or a.value.max() >= 8:
            return
        rows, n = p.normal(8, 2), 2
        code, inputs = f"jnp.asarray({p.constant(rows)})[r]", a.c[..., None] * rows[a.value]
    elif a is None or a.value.ndim != 2 or a.shifted:
        return
    else:
        code, inputs, n = "r", a.d, a.value.shape[1]
    f, run = body(p, n)
    state = np.zeros((p.count + 1, n))
    seen = []
    for t in range(inputs.shape[1]):
        seen.append(state)
        state = 0.5 * run(state) + inputs[:, t]
    step = f"lambda h, r: (0.5 * {f}(h) + {code}, h)"
    if p.below(2):
        name = p.line(f"lax.scan({step}, jnp.zeros({n}), {a.name})[0]")
        p.emit(Float(name, state, False, a.constant))
    else:
        name = p.line(f"lax.scan({step}, jnp.zeros({n}), {a.name})[1]")
        p.emit(Float(name, np.stack(seen, 1), False, a.constant))


STEPS = (call, call, branch, loop, loop, over_rows)
