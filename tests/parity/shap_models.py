"""Networks of ten columns, for exact Shapley values and for LRP."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Weights = dict[str, Array]


def weights(seed: int = 0) -> Weights:
    """Random weights of all networks."""
    rng = np.random.default_rng(seed)
    shapes = {
        "linear": (10,),
        "each": (10, 8),
        "each_head": (10, 8),
        "hidden": (10, 16),
        "hidden_bias": (16,),
        "head": (16,),
    }
    return {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}


def linear(w: Weights, x: Array) -> Array:
    """A linear model with a bias."""
    return x @ w["linear"] + 3.0


def additive(w: Weights, x: Array) -> Array:
    """A small ReLU network without biases for each column, summed, and a bias."""
    hidden = jax.nn.relu(jnp.einsum("nf,fh->nfh", x, w["each"]))
    return jnp.einsum("nfh,fh->n", hidden, w["each_head"]) - 2.0


def curves(w: Weights, x: Array) -> Array:
    """A sum of curved functions of single columns that are zero at zero."""
    return (jnp.tanh(x) * w["linear"]).sum(axis=1) + (x[:, 2] ** 2 + jnp.expm1(x[:, 8])) + 1.0


def product(w: Weights, x: Array) -> Array:
    """A product of two columns: both must be there."""
    return x[:, 2] * x[:, 8] * w["linear"][0]


def perceptron(w: Weights, x: Array) -> Array:
    """A network in which columns interact."""
    return jax.nn.relu(x @ w["hidden"] + w["hidden_bias"]) @ w["head"]


AGREE = {"linear": linear, "additive": additive, "curves": curves, "product": product}
MODELS = {**AGREE, "perceptron": perceptron}
