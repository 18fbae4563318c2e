"""Small networks, one for each kind of benchmark."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array


class Images(nn.Module):
    """Two convolutions, and two dense layers at each place, which know the question: (n, h, w, c) to (n, k)

    Attributes:
      classes: outputs, k.
      width: channels.
    """

    classes: int
    width: int = 32

    @nn.compact
    def __call__(self, x: Array, question: Array | None = None) -> Array:
        x = nn.relu(nn.Conv(self.width, (4, 4), strides=2)(x))
        x = nn.relu(nn.Conv(self.width, (3, 3), strides=2)(x))
        if question is not None:
            tiled = jnp.broadcast_to(question[:, None, None, :], (*x.shape[:3], question.shape[-1]))
            x = nn.relu(nn.Dense(2 * self.width)(jnp.concatenate([x, tiled], axis=-1)))
        x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.classes)(x.sum(axis=(1, 2)) / 8)


class Layout(nn.Module):
    """Convolutions, and dense layers that know where things are: (n, h, w, c) to (n, classes)."""

    classes: int

    @nn.compact
    def __call__(self, x: Array, question: Array) -> Array:
        x = nn.relu(nn.Conv(16, (3, 3), strides=2)(x))
        x = nn.relu(nn.Conv(16, (3, 3), strides=2)(x))
        x = jnp.concatenate([x.reshape(len(x), -1), question], axis=-1)
        for width in (128, 64):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.classes)(x)


class Series(nn.Module):
    """Two convolutions over time, and a layer that knows the question: (n, time, c) to (n, classes)."""

    classes: int
    length: int

    @nn.compact
    def __call__(self, x: Array, question: Array) -> Array:
        x = nn.relu(nn.Conv(48, (self.length,), strides=2)(x))
        tiled = jnp.broadcast_to(question[:, None, :], (*x.shape[:2], question.shape[-1]))
        x = nn.relu(nn.Dense(48)(jnp.concatenate([x, tiled], axis=-1)))
        x = nn.relu(nn.Dense(32)(x))
        return nn.Dense(self.classes)(x.sum(axis=1) / 8)


class Rows(nn.Module):
    """A perceptron: (n, columns) to (n, classes)."""

    classes: int
    width: int = 64

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for _ in range(2):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.classes)(x)


class Sequences(nn.Module):
    """One LSTM layer, whose last state gives one number: (n, time, c) to (n,)."""

    units: int = 16

    @nn.compact
    def __call__(self, x: Array) -> Array:
        states: Any = nn.RNN(nn.OptimizedLSTMCell(self.units))(x)
        return nn.Dense(1)(states[:, -1])[:, 0]
