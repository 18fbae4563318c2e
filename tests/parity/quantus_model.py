"""The network and the explanations on which metrics are compared with Quantus: formulas for NumPy and JAX.

A perceptron with one hidden layer of tanh, of images (n, height, width, channels). `xp` is `numpy` in
`make_quantus.py` and `jax.numpy` in `test_quantus.py`.
"""

from typing import Any, NamedTuple

import numpy as np

Array = Any


class Weights(NamedTuple):
    w1: Array
    b1: Array
    w2: Array
    b2: Array


LAYERS = {"hidden": ("w1", "b1"), "output": ("w2", "b2")}


def hidden(xp: Any, weights: Weights, x: Array) -> Array:
    return xp.tanh(x.reshape(len(x), -1) @ weights.w1 + weights.b1)


def logits(xp: Any, weights: Weights, x: Array) -> Array:
    return hidden(xp, weights, x) @ weights.w2 + weights.b2


def gradient(xp: Any, weights: Weights, x: Array, y: Array) -> Array:
    """d logit_y / d x, like x."""
    slope = 1 - hidden(xp, weights, x) ** 2
    return ((slope * xp.asarray(weights.w2).T[y]) @ weights.w1.T).reshape(x.shape)


def gradient_times_input(xp: Any, weights: Weights, x: Array, y: Array) -> Array:
    return x * gradient(xp, weights, x, y)


EXPLANATIONS = {"gradient": gradient, "gradient_times_input": gradient_times_input}


def random_weights(shape: tuple[int, int, int], seed: int) -> Weights:
    """Weights of these numbers of inputs, hidden units and classes; RandomState draws are stable."""
    draw = np.random.RandomState(seed).normal
    inputs, units, classes = shape
    return Weights(
        draw(size=(inputs, units)) / inputs**0.5,
        draw(size=units) / 10,
        draw(size=(units, classes)) / units**0.5,
        draw(size=classes) / 10,
    )


def randomized(weights: Weights, layers: tuple[str, ...], seed: int = 7) -> Weights:
    """The network with the weights of some layers drawn anew."""
    shape = (*weights.w1.shape, weights.w2.shape[1])
    new = random_weights(shape, seed)
    return weights._replace(
        **{name: getattr(new, name) for layer in layers for name in LAYERS[layer]}
    )


def shifted(xp: Any, weights: Weights, shift: float) -> Weights:
    """The network whose outputs for x + shift are those of the given one for x."""
    return weights._replace(b1=weights.b1 - shift * weights.w1.sum(axis=0))
