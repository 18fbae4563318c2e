"""First, last, depth and height through every nesting of control flow, against the unrolled function."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp as lrp
from jaxlrp import composites as C
from jaxlrp.network.arguments import Arguments
from jaxlrp.network.model import model_of
from jaxlrp.network.trace import trace

RNG = np.random.default_rng(0)
N = 3  # steps of every loop
WS = jnp.asarray(RNG.normal(size=(N, 4, 4)))
BEFORE, HEAD = jnp.asarray(RNG.normal(size=(4, 4))), jnp.asarray(RNG.normal(size=(4, 2)))
X = jnp.asarray(RNG.normal(size=(2, 4)))


def dense(h, w):
    return jax.nn.relu(h @ w)


@jax.custom_jvp
def declared(h):
    return jnp.tanh(h)


declared.defjvp(lambda primals, tangents: (declared(*primals), tangents[0]))


def scanned(body, wrap=lambda f: f):
    return lambda x: lax.scan(wrap(lambda h, w: (body(h, w), None)), x, WS)[0]


def unrolled(body):
    return lambda x: functools.reduce(body, WS, x)


def branch(h, w):
    return lax.cond(True, dense, lambda h, w: h, h, w)


def twice(h, w):
    return dense(dense(h, w), w)


# name: (in control flow, written out)
NESTS: dict[str, tuple[Callable, Callable]] = {
    "scan": (scanned(dense), unrolled(dense)),
    "scan of checkpoint": (scanned(dense, jax.checkpoint), unrolled(dense)),
    "checkpoint of scan": (jax.checkpoint(scanned(dense)), unrolled(dense)),
    "scan of jit": (scanned(dense, jax.jit), unrolled(dense)),
    "scan of cond": (scanned(branch), unrolled(dense)),
    "scan of checkpoint of cond": (scanned(branch, jax.checkpoint), unrolled(dense)),
    "switch of scans": (
        lambda x: lax.switch(1, [lambda x: x, scanned(dense), lambda x: dense(x, WS[0])], x),
        unrolled(dense),
    ),
    "two layers a step": (scanned(twice), unrolled(twice)),
    "scan of a declared derivative": (
        scanned(lambda h, w: declared(h @ w)), unrolled(lambda h, w: declared(h @ w))
    ),
    "scan of scan": (
        lambda x: lax.scan(lambda h, _: (scanned(dense)(h), None), x, None, length=2)[0],
        lambda x: unrolled(dense)(unrolled(dense)(x)),
    ),
    "fori_loop": (
        lambda x: lax.fori_loop(0, N, lambda i, h: dense(h, WS[i]), x),
        unrolled(dense),
    ),
    "recurrent": (
        lambda x: lax.scan(lambda h, t: (jnp.tanh(t @ WS[0] + h @ WS[1]), None), 0 * x[0], x)[0],
        lambda x: jnp.tanh(x[1] @ WS[0] + jnp.tanh(x[0] @ WS[0] + 0 * x[0] @ WS[1]) @ WS[1]),
    ),
}  # fmt: skip


def layers(f, x=X):
    network = trace(Arguments(model_of(f, 0, False), (x,)), {}).network
    return [layer for layer in network.layers() if layer.kind == "dense"]


@pytest.mark.parametrize("name", NESTS)
@pytest.mark.parametrize("place", ["before a head", "after a layer"])
def test_depths_are_those_of_the_unrolled_function(name, place):
    """Outside of loops they are equal; inside, the depth of the last step and the height of the first."""

    def around(f):
        return (lambda x: f(x) @ HEAD) if place == "before a head" else (lambda x: f(x @ BEFORE))

    held, plain = (layers(around(f)) for f in NESTS[name])
    outside = [layer for layer in held if not layer.loops and "switch" not in name]
    for layer in outside:
        depths = [other.depth for other in plain], [other.height for other in plain]
        assert (layer.depth, layer.height) in zip(*depths, strict=True)
    inside = [layer for layer in held if layer.loops]
    assert inside
    assert max(layer.depth for layer in held) == max(other.depth for other in plain)
    assert max(layer.height for layer in held) == max(other.height for other in plain)
    assert [la.last for la in held if la.output_shape[-1] == 2] == [
        la.last for la in plain if la.output_shape[-1] == 2
    ]
    if place == "before a head":
        assert not any(la.first for la in held if la.output_shape[-1] == 2)
    else:
        assert not any(layer.first for layer in inside)


def test_a_head_behind_scanned_and_checkpointed_layers_is_not_the_first():
    plan = lrp.plan(lambda x: scanned(dense, jax.checkpoint)(x) @ HEAD, C.epsilon_plus_flat(), X)
    assert not any(isinstance(rule, lrp.Flat) for rule in plan.rules)
    embedded = lambda x: scanned(dense, jax.checkpoint)(x @ BEFORE) @ HEAD  # noqa: E731
    rules = lrp.plan(embedded, C.epsilon_plus_flat(), X).rules
    assert [isinstance(rule, lrp.Flat) for rule in rules].count(True) == 1


def test_only_the_kernel_of_the_input_is_first_in_a_recurrent_network():
    cell, _ = NESTS["recurrent"]
    first = {layer.path: layer.first for layer in layers(cell)}
    assert list(first.values()) == [True, False]
