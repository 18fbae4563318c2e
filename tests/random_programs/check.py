"""Writes a random program and holds the library to its oracle."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxlrp as lrp
from jaxlrp import composites as C
from random_programs import control, floats, integers, moves
from random_programs.program import TIE, Array, Chooser, Float, Program

from numeric import promoting

# LRP-0 everywhere, and half of each product to each factor, whether or not one of them is a gate.
EXACT = C.composite(
    C.by_kind(("dense", "conv", "scale", "shift", "sum", "pool"), lrp.LRP0()),
    C.by_kind(("product", "gate", "attention"), lrp.rules.Uniform()),
)
STEPS = (*moves.STEPS, *floats.STEPS, *integers.STEPS, *control.STEPS)
RTOL = 1e-8  # float64, through quotients of sums that nearly cancel


@dataclasses.dataclass(frozen=True)
class Case:
    """A program with what is right for it.

    Attributes:
      source: the text of `program` and of the constants that it captures.
      arguments: its arguments, all of which are explained.
      value: its output.
      weights: the target is relevance `weights * value`.
      relevance: of each argument.
      depends: whether the output depends on any argument by more than comparisons.
    """

    source: str
    arguments: dict[str, Array]
    value: Array
    weights: Array
    relevance: tuple[Array, ...]
    depends: bool

    def text(self) -> str:
        """A script that shows the case."""
        arguments = "\n".join(
            f"{name} = np.array({value.tolist()}, np.{value.dtype})"
            for name, value in self.arguments.items()
        )
        names = ", ".join(self.arguments)
        return f"""
import jax, jax.numpy as jnp, numpy as np, jaxlrp as lrp
from jax import lax
from random_programs.check import EXACT
jax.config.update("jax_enable_x64", True)

{self.source}

{arguments}
target = np.array({self.weights.tolist()}) * program({names})
explain = lrp.explain(program, EXACT, argnums={tuple(range(len(self.arguments)))})
print(explain(*map(jnp.asarray, ({names},)), target=target).relevance)
# right: {tuple(r.tolist() for r in self.relevance)}
"""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a case: "passed", "refused" or "failed", and why."""

    kind: str
    why: str = ""


def _arguments(p: Program) -> dict[str, Array]:
    x = np.round(p.rng.normal(size=(3, 4)), 3)
    x[:, 0] = p.rng.integers(1, 6, 3)  # a column of codes
    ids = p.rng.permutation(8)[:4]
    choice = p.below(5)
    if choice == 0:
        return {"x": x}
    if choice == 1:
        return {"ids": ids}
    if choice == 2:
        return {"x": x, "ids": ids}
    if choice == 3:
        return {"ids": p.rng.permutation(8)[:6].reshape(2, 3)}
    return {"pixels": p.rng.permutation(120)[:6].reshape(2, 3).astype(np.uint8)}


def write(choose: Chooser, seed: int) -> Case | None:
    """A program and its relevance; None where nothing of the input reached a float."""
    p = Program(choose, seed)
    p.begin(_arguments(p))
    for _ in range(4 + p.below(12)):
        _step(p)
    out = p.output()
    if out is None:
        integers.table(p)
        out = p.output()
    if out is None:
        integers.to_float(p)
        out = p.output()
    if out is None:
        return None
    source, used = p.source(out)
    if not used:
        return None
    return _case(p, out, source, used)


def _step(p: Program) -> None:
    """One step that fits, of at most three."""
    for _ in range(3):
        before = len(p.nodes)
        p.among(STEPS)(p)
        if len(p.nodes) > before:
            return


def _case(p: Program, out: Float, source: str, used: list[str]) -> Case:
    weights = np.round(p.rng.normal(size=out.value.shape), 3)
    weights = np.where(
        np.abs(out.value) > TIE, weights, 0.0
    )  # of an output of zero nothing is made
    total = (out.d * weights).reshape(len(out.d), -1).sum(1)
    relevance = tuple(
        total[p.slots[name].start : p.slots[name].stop].reshape(p.arguments[name].shape)
        for name in used
    )
    arguments = {name: p.arguments[name] for name in used}
    return Case(source, arguments, out.value, weights, relevance, bool(np.any(out.d[:-1])))


def check(case: Case) -> Outcome:
    """Runs a case. Must be called where JAX computes in float64."""
    scope = {"jax": jax, "jnp": jnp, "np": np, "lax": lax}
    exec(case.source, scope)
    program = promoting(scope["program"])  # as the programs of users do
    arguments = [jnp.asarray(v) for v in case.arguments.values()]
    # one program to compile, in a third of the time of its parts
    explain = jax.jit(lrp.explain(program, EXACT, argnums=tuple(range(len(arguments)))))
    target = jnp.asarray(case.weights * case.value)
    try:
        found = explain(*arguments, target=target)
    except (lrp.UnsupportedError, ValueError, TypeError) as error:
        why = reason(error)
        known = isinstance(error, lrp.UnsupportedError) or any(word in why for word in _REFUSALS)
        return Outcome("refused" if known else "failed", why)
    except Exception as error:
        return Outcome("failed", reason(error))
    scale = max(np.abs(case.value).max(initial=0), 1e-3)
    if not np.allclose(found.output, case.value, rtol=1e-9, atol=1e-9 * scale):
        return Outcome("failed", "the oracle computes another value")
    scale = max(
        [np.abs(target).max(initial=0), *(np.abs(r).max(initial=0) for r in case.relevance), 1e-3]
    )
    for name, got, right in zip(case.arguments, found.relevance, case.relevance, strict=True):
        if np.shape(got) != right.shape:
            return Outcome("failed", f"the relevance of {name} has shape {np.shape(got)}")
        if not np.allclose(got, right, rtol=RTOL, atol=RTOL * scale):
            return Outcome("failed", f"wrong relevance of {name}: {np.asarray(got).tolist()}")
    return Outcome("passed")


# What the messages say when the input is reached by nothing that carries relevance.
_REFUSALS = ("explained argument (argnums=_)", "looked up in no")


def reason(error: Exception) -> str:
    """The message without what is particular to one program."""
    text = re.sub(r"from \S+:\d+ \([^)]*\)", "", f"{type(error).__name__}: {error}")
    text = re.sub(r"'[\w/:]*'|\([\d, ]*\)|\d+", "_", text)
    return re.sub(r"\s+", " ", text)[:110]
