"""What a compiled program does on one device, read from its text: collectives and matrix products.

XLA's own cost analysis counts the body of a loop once. Here each computation counts as often as it runs.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: the name of its result, the type of this, the operation, all that follows."""

    name: str
    type: str
    operation: str
    rest: str


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a program does on one device, loops counted as often as they run.

    Attributes:
      collectives: how many of each kind.
      moved: how many elements each kind has as results. Elements and not bytes: on a CPU, XLA computes
        bfloat16 products in float32, and decides by itself whether it converts before or after it gathers.
      flops: of matrix products, two for each multiplication.
    """

    collectives: dict[str, float]
    moved: dict[str, float]
    flops: float


def counts(text: str) -> Counts:
    """Counts what `Compiled.as_text()` says.

    Raises:
      ValueError: if a loop does not say how often it runs, or if the text has no entry computation.
    """
    entry, computations = _parse(text)
    times = _times(entry, computations)
    number, moved, flops = collections.Counter(), collections.Counter(), 0.0
    for name, instructions in computations.items():
        types = {i.name: i.type for i in instructions}
        for i in instructions:
            kind = i.operation.removesuffix("-start")
            if kind in COLLECTIVES:
                number[kind] += times[name]
                moved[kind] += times[name] * sum(map(math.prod, _shapes(i.type)))
            elif kind == "dot":
                flops += times[name] * _products(i, types)
    return Counts(dict(number), dict(moved), flops)


def _parse(text: str) -> tuple[str, dict[str, list[Instruction]]]:
    computations: dict[str, list[Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = head[2]
            computations[current] = []
            entry = current if head[1] else entry
        elif found := _LINE.match(line):
            computations[current].append(Instruction(*found.groups()))
    if not entry:
        raise ValueError("text has no ENTRY computation: give it what `Compiled.as_text()` returns")
    return entry, computations


def _times(entry: str, computations: dict[str, list[Instruction]]) -> dict[str, float]:
    """How often each computation runs."""
    times: dict[str, float] = collections.Counter()

    def visit(name: str, n: float) -> None:
        times[name] += n
        for i in computations[name]:
            called = _CALLED.findall(i.rest)
            for branches in _BRANCHES.findall(i.rest):
                called += re.findall(r"[\w.\-]+", branches)
            each = n
            if i.operation == "while":
                trips = _TRIPS.search(i.rest)
                if trips is None:
                    raise ValueError(f"the loop {i.name} does not say how often it runs")
                each = n * int(trips[1])
            for other in called:
                visit(other, each)

    visit(entry, 1.0)
    return times


def _shapes(type: str) -> list[tuple[int, ...]]:
    return [tuple(map(int, filter(None, dims.split(",")))) for _, dims in _ARRAY.findall(type)]


def _products(dot: Instruction, types: dict[str, str]) -> float:
    """FLOPs of a matrix product."""
    left = re.findall(r"%([\w.\-]+)", dot.rest)[0]
    (shape,) = _shapes(types[left])
    contracted = _CONTRACTED.search(dot.rest)
    axes = map(int, filter(None, contracted[1].split(","))) if contracted else ()
    return 2.0 * math.prod(_shapes(dot.type)[0]) * math.prod(shape[a] for a in axes)
