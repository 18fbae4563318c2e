"""Models, inputs and metrics of `metrics.py`, the same in both of its interpreters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

import jaxlrp as lrp
from jaxlrp import composites
from jaxlrp.pretrained.efficientnet_lite import EfficientNetLite0


class Case(NamedTuple):
    """A model with random weights, and what is explained.

    Attributes:
      apply: from (variables, inputs) to logits.
      variables: its parameters.
      x: inputs (n, height, width, channels).
      y: the predicted classes.
      explain: from (variables, inputs, targets) to relevance.
      steps: of pixel flipping.
      percentages: of ROAD.
      draws: of robustness.
    """

    apply: Callable[[Any, Array], Array]
    variables: Any
    x: np.ndarray
    y: np.ndarray
    explain: Callable[[Any, Array, Array], Array]
    steps: int
    percentages: tuple[int, ...]
    draws: int


class Network(nn.Module):
    """A small convolutional network for digits."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for channels in (8, 16):
            x = nn.relu(nn.Conv(channels, (3, 3))(x))
            x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Dense(64)(x.reshape(len(x), -1)))
        return nn.Dense(10)(x)


class Perceptron(nn.Module):
    """A model whose forward pass costs next to nothing, so that what metrics add to it shows."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.Dense(10)(nn.relu(nn.Dense(64)(x.reshape(len(x), -1))))


def case(name: str, n: int, draws: int, quick: bool) -> Case:
    """One of the cases.

    Args:
      name: "digits", 28 x 28, for a small convolutional network; "perceptron", the same for dense layers;
        "pictures", 224 x 224 with three channels, for EfficientNet-Lite0.
      n: how many inputs.
      draws: perturbations of each.
      quick: tiny inputs.
    """
    rng = np.random.default_rng(0)
    if name != "pictures":
        module = {"digits": Network, "perceptron": Perceptron}[name]()
        side, channels = 7 if quick else 28, 1
    else:
        side, channels, module = 32 if quick else 224, 3, EfficientNetLite0()
    # Smooth blobs on nothing, as digits are.
    coarse = np.maximum(rng.normal(size=(n, 7, 7, channels)), 0)
    x = np.asarray(jax.image.resize(coarse, (n, side, side, channels), "linear"), np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.asarray(x[:1]))
    apply = functools.partial(module.apply)
    y = np.concatenate(
        [np.asarray(jax.jit(apply)(variables, x[i : i + 8])) for i in range(0, n, 8)]
    )
    explainer = lrp.explain(module.apply, composites.epsilon_plus())
    # Quantus wants a divisor of the pixels
    pictures = name == "pictures"
    flips = side * side // (4 if quick else 28) if pictures else 7 if quick else 1
    return Case(
        apply, variables, x, y.argmax(axis=1), lambda v, x, y: explainer(v, x, target=y).relevance,
        x[0].size // flips, (10, 50, 90) if quick or pictures else tuple(range(1, 100, 2)), draws,
    )  # fmt: skip
