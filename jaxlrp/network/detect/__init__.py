"""Which operations make up which layer: one detector for each kind, tried in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from jaxlrp.network.analysis import Structure
from jaxlrp.network.detect.elementwise import call_units, elementwise
from jaxlrp.network.detect.embeddings import embeddings
from jaxlrp.network.detect.group import Group, Taken
from jaxlrp.network.detect.linear import linear
from jaxlrp.network.detect.maxima import maxima
from jaxlrp.network.detect.mixtures import mixtures
from jaxlrp.network.detect.normalizers import normalizers
from jaxlrp.network.detect.pools import pools
from jaxlrp.network.detect.products import products
from jaxlrp.network.detect.scales import scales
from jaxlrp.network.detect.sums import sums
from jaxlrp.network.detect.unsupported import unsupported

__all__ = ["DETECTORS", "KINDS", "Group", "find"]

Detector = Callable[[Structure, Taken], Iterator[Group]]

# Each detector with the kinds of layers that it finds. What one finds is closed to those after it.
DETECTORS: tuple[tuple[Detector, dict[str, str]], ...] = (
    (
        embeddings,
        {"embedding": "a table looked up by an integer, or a vector that says which integer it is"},
    ),
    (mixtures, {"attention": "a product of a value with softmax weights of the input"}),
    (
        linear,
        {
            "dense": "a `dot_general` with one operand that depends on the input, with what it absorbs",
            "conv": "a convolution of any dimension, transposed or not, with what it absorbs",
        },
    ),
    (
        elementwise,
        {
            "activation": "an elementwise nonlinear function of one value",
            "quantizer": "rounding, perhaps by a cast to an integer, with clipping and scaling",
        },
    ),
    (maxima, {"maxpool": "a maximum over a window or over axes, or of two values"}),
    (
        products,
        {
            "product": "a product of two values that depend on the input",
            "gate": "a product of a value with a bounded activation of another",
        },
    ),
    (
        normalizers,
        {
            "normalizer": "a value divided by a statistic of the same values, which is held fixed",
            "quotient": "a value divided by another, which is held fixed and gets no relevance",
        },
    ),
    (pools, {"pool": "a sum or mean over a window or over axes"}),
    (sums, {"sum": "an addition of two values that depend on the input: a residual connection"}),
    (
        scales,
        {
            "scale": "an elementwise affine map that no linear layer absorbs: a standalone BatchNorm",
            "shift": "a constant added where no linear layer absorbs it: a position embedding",
        },
    ),
    (unsupported, {"unsupported": "nonlinear, and none of these"}),
)

KINDS: dict[str, str] = {kind: meaning for _, kinds in DETECTORS for kind, meaning in kinds.items()}
"""The kinds of layers, and what they hold."""


def find(structure: Structure) -> list[Group]:
    """The layers of an analyzed graph."""
    taken = Taken(call_units(structure))
    groups: list[Group] = []
    for detect, _ in DETECTORS:
        for group in detect(structure, taken):
            groups.append(group)
            taken.add(group)
    return groups
