"""Attention whose softmax is normalized after the product with the values."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlrp.network.analysis import Structure
from jaxlrp.network.detect.group import Group, Taken
from jaxlrp.network.layers import Product


def mixtures(structure: Structure, taken: Taken) -> Iterator[Group]:
    for mixture in structure.mixtures:
        output = mixture.end.outputs[0]
        if output in structure.live:
            inputs, name = (mixture.weights, mixture.values), str(mixture.product.primitive)
            yield Group("attention", mixture.ops, inputs, output, name, Product(signal=1))
