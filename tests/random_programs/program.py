"""A program as it is being written, and what each of its values is made of.

The oracle is arithmetic in NumPy that shares nothing with the library. Of every value `v` it holds
its contributions: arrays `d[0], d[1], ...` of the shape of v, one for each number of the explained
arguments, and a last one for all constants, which add up to v. They are computed forward:

* what is linear (sums, products with constants, moves) is applied to each contribution by itself;
* an elementwise function `y = f(x)` with f(0) = 0 hands its relevance to x, so that `d_y = d_x y / x`;
* a maximum is the value that it took, a comparison the truth value that it gave;
* of a product `a b` each factor has half: `d = (d_a b + a d_b) / 2`;
* an integer stands for its number, whatever is looked up for it: it holds carriers `c` that add up to
  1, and an embedding `e[i]` has the contributions `c e[i]`.

LRP-0 gives the k-th number of the input the relevance `sum_o R_o / y_o d[k]_o`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

Array = np.ndarray
Linear = Callable[..., Array]  # linear in all of its arguments together


class Chooser(Protocol):
    """Where decisions come from: a generator of random numbers, or hypothesis."""

    def below(self, n: int) -> int:
        """An integer from 0 to n - 1; simpler programs for smaller ones."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Float:
    """A floating-point value.

    Attributes:
      name: in the program.
      d: contributions, (numbers + 1, *shape).
      shifted: whether a constant was added that no linear layer has absorbed. Functions of one value
        treat such a constant as their own, so that nothing nonlinear may follow at once.
      constant: whether it depends on the input by comparisons and `stop_gradient` alone.
    """

    name: str
    d: Array
    shifted: bool = False
    constant: bool = False

    @property
    def value(self) -> Array:
        return self.d.sum(0)


@dataclasses.dataclass(frozen=True, eq=False)
class Int:
    """An integer value.

    Attributes:
      name: in the program.
      value: the integers.
      c: carriers, (numbers + 1, *shape), which add up to 1.
      code: whether it may be looked up in a table.
      number: whether it may be read as a number, of which contributions are proportional to it.
      constant: as of `Float`.
    """

    name: str
    value: Array
    c: Array
    code: bool = True
    number: bool = True
    constant: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Bool:
    """A truth value, which is frozen at what it is."""

    name: str
    value: Array


Node = Float | Int | Bool


@dataclasses.dataclass(frozen=True)
class Line:
    name: str
    code: str

    @property
    def uses(self) -> set[str]:
        return set(re.findall(r"\b(?:v|k|f)\d+\b|\b(?:x|ids|pixels)\b", self.code)) - {self.name}


class Program:
    """Lines of a function, its arguments, its constants, and the values so far."""

    def __init__(self, choose: Chooser, seed: int) -> None:
        self.choose = choose
        self.rng = np.random.default_rng(seed)
        self.lines: list[Line] = []
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {}
        self.arguments: dict[str, Array] = {}
        self.slots: dict[str, range] = {}  # which contributions belong to an argument
        self.count = 0  # of numbers explained

    # Decisions

    def below(self, n: int) -> int:
        return self.choose.below(n)

    def among(self, options: Sequence):
        return options[self.below(len(options))]

    def pick(self, kind: type, fits: Callable[..., bool] = lambda node: True) -> Node | None:
        """One of the values of a type, late ones first."""
        found = [n for n in reversed(self.nodes) if isinstance(n, kind) and fits(n)]
        n = min(len(found), 4)
        return found[min(self.below(n), self.below(n))] if found else None

    # Writing

    def begin(self, arguments: dict[str, Array]) -> None:
        """Declares the arguments, all of which are explained."""
        total = sum(a.size for a in arguments.values())
        for name, value in arguments.items():
            self.arguments[name] = value
            self.slots[name] = range(self.count, self.count + value.size)
            carriers = np.zeros((total + 1, *value.shape))
            for flat in range(value.size):
                carriers[self.count + flat].flat[flat] = 1
            self.count += value.size
            if np.issubdtype(value.dtype, np.floating):
                self.nodes.append(Float(name, carriers * value))
            else:
                self.nodes.append(Int(name, value.astype(np.int64), carriers))

    def line(self, code: str, prefix: str = "v") -> str:
        """Adds a line, `name = code`, or code in which `NAME` stands for the name that it defines."""
        name = f"{prefix}{len(self.lines)}"
        code = code.replace("NAME", name) if "NAME" in code else f"{name} = {code}"
        self.lines.append(Line(name, code))
        return name

    def emit(self, node: Node) -> None:
        self.nodes.append(node)

    def constant(self, value: Array) -> str:
        """Declares an array that the program captures."""
        name = f"k{len(self.constants)}"
        self.constants[name] = value
        return name

    def normal(self, *shape: int) -> Array:
        return np.round(self.rng.normal(size=shape), 3)

    def number(self) -> float:
        """A factor away from zero and one."""
        return float(np.round(self.rng.uniform(0.3, 0.9) * self.rng.choice([-1, 1]), 3))

    def only_constant(self, value: Array) -> Array:
        """Contributions of a constant."""
        return np.concatenate([np.zeros((self.count, *np.shape(value))), np.asarray(value)[None]])

    # Reading

    def output(self) -> Float | None:
        floats = [n for n in self.nodes if isinstance(n, Float)]
        moving = [n for n in floats if not n.constant and n.name not in self.arguments]
        return (moving or [n for n in floats if n.name not in self.arguments] or [None])[-1]

    def source(self, output: Float) -> tuple[str, list[str]]:
        """The text of the function, without lines that do not matter, and the arguments that do."""
        needed, kept = {output.name}, []
        for line in reversed(self.lines):
            if line.name in needed:
                kept.append(line)
                needed |= line.uses
        arguments = [name for name in self.arguments if name in needed]
        body = [part for line in reversed(kept) for part in line.code.split("\n")]
        constants = [
            f"{name} = np.array({value.tolist()})"
            for name, value in self.constants.items()
            if name in needed
        ]
        text = [*constants, "", f"def program({', '.join(arguments)}):"]
        text += [f"    {part}" for part in body]
        return "\n".join([*text, f"    return {output.name}"]), arguments


TIE = 1e-9  # values nearer than this are as good as equal, but zeros that are exact


def distinct(a: Array, axis: int = -1) -> bool:
    """Whether no two values along an axis are as good as equal, zeros aside."""
    rows = np.moveaxis(a, axis, -1).reshape(-1, a.shape[axis])
    return all((np.diff(np.sort(row[row != 0])) > TIE).all() for row in rows)


def steady(f: Callable[[Array], Array], x: Array) -> bool:
    """Whether a function jumps at none of these values, zeros aside: rounding decides nothing."""
    return bool((np.abs(f(x + TIE) - f(x - TIE))[x != 0] < 1e-6).all())


def each(f: Linear, *ds: Array) -> Array:
    """Applies a linear function to each contribution."""
    return np.stack([f(*parts) for parts in zip(*ds, strict=True)])
