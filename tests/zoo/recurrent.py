"""Recurrent networks: Linen, NNX and loops written by hand."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

from zoo.entries import Family, Model, linen, nnx_module, normal, tokens

FAMILY = Family()
STEPS, INPUTS, HIDDEN = 5, 4, 6
DTYPE = jnp.float64  # a carry has the type of the parameters


def sequence(rng: np.random.Generator) -> jax.Array:
    return normal(rng, 2, STEPS, INPUTS)


class Classifier(nn.Module):
    """A recurrent layer, its last step, a dense layer."""

    cell: Any

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.RNN(self.cell)(x)[:, -1])


@FAMILY.add()
def lstm_optimized(rng: np.random.Generator) -> Model:
    return linen(rng, Classifier(nn.OptimizedLSTMCell(HIDDEN, param_dtype=DTYPE)), sequence(rng))


@FAMILY.add()
def lstm(rng: np.random.Generator) -> Model:
    return linen(rng, Classifier(nn.LSTMCell(HIDDEN, param_dtype=DTYPE)), sequence(rng))


@FAMILY.add()
def gru(rng: np.random.Generator) -> Model:
    return linen(rng, Classifier(nn.GRUCell(HIDDEN, param_dtype=DTYPE)), sequence(rng))


@FAMILY.add()
def minimal_gated_unit(rng: np.random.Generator) -> Model:
    return linen(rng, Classifier(nn.MGUCell(HIDDEN, param_dtype=DTYPE)), sequence(rng))


class Bidirectional(nn.Module):
    """Tokens, both directions, every step labeled."""

    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(11, INPUTS)(ids)
        one, other = (
            nn.RNN(nn.GRUCell(HIDDEN, param_dtype=DTYPE)),
            nn.RNN(nn.OptimizedLSTMCell(HIDDEN, param_dtype=DTYPE)),
        )
        return nn.log_softmax(nn.Dense(3)(nn.Bidirectional(one, other)(x)))


@FAMILY.add()
def bidirectional(rng: np.random.Generator) -> Model:
    return linen(rng, Bidirectional(), tokens(rng, 2, STEPS))


class ConvLstm(nn.Module):
    """Pictures in time."""

    @nn.compact
    def __call__(self, x):
        x = nn.RNN(nn.ConvLSTMCell(4, (3, 3), param_dtype=DTYPE))(x)[:, -1]
        return nn.Dense(3)(x.mean(axis=(1, 2)))


@FAMILY.add(convolutional=True)
def conv_lstm(rng: np.random.Generator) -> Model:
    return linen(rng, ConvLstm(), normal(rng, 2, 3, 4, 4, 2))


class NnxClassifier(nnx.Module):
    """A recurrent layer, its last step, a dense layer, in NNX."""

    def __init__(self, cell: Any, rngs: nnx.Rngs) -> None:
        self.rnn = nnx.RNN(cell(INPUTS, HIDDEN, param_dtype=DTYPE, rngs=rngs), rngs=rngs)
        self.head = nnx.Linear(HIDDEN, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.rnn(x)[:, -1])


@FAMILY.add()
def nnx_lstm(rng: np.random.Generator) -> Model:
    return nnx_module(rng, lambda rngs: NnxClassifier(nnx.LSTMCell, rngs)), sequence(rng)


@FAMILY.add()
def nnx_gru(rng: np.random.Generator) -> Model:
    return nnx_module(rng, lambda rngs: NnxClassifier(nnx.GRUCell, rngs)), sequence(rng)


class Seq2Seq(nn.Module):
    """An encoder, and a decoder that attends to it additively at each step of a loop."""

    @nn.compact
    def __call__(self, x):
        states = nn.RNN(nn.GRUCell(HIDDEN, param_dtype=DTYPE))(x)
        keys = nn.Dense(HIDDEN, name="key")(states)
        cell, query = (
            nn.GRUCell(HIDDEN, name="decoder", param_dtype=DTYPE),
            nn.Dense(HIDDEN, name="query"),
        )
        score, head = nn.Dense(1, name="score"), nn.Dense(3, name="head")
        carry, outputs = states[:, -1], []
        for _ in range(2):
            weights = nn.softmax(score(jnp.tanh(keys + query(carry)[:, None])), axis=1)
            context = (weights * states).sum(axis=1)
            carry, y = cell(carry, context)
            outputs.append(head(jnp.concatenate([y, context], axis=-1)))
        return jnp.stack(outputs, axis=1)


@FAMILY.add()
def seq2seq(rng: np.random.Generator) -> Model:
    return linen(rng, Seq2Seq(), sequence(rng))


def elman_parameters(rng: np.random.Generator) -> dict[str, jax.Array]:
    return {
        "w": normal(rng, INPUTS, HIDDEN, scale=0.5),
        "u": normal(rng, HIDDEN, HIDDEN, scale=0.4),
        "b": normal(rng, HIDDEN, scale=0.3),
        "head": normal(rng, HIDDEN, 3),
    }


def elman(p: dict[str, jax.Array], x: jax.Array, *, unrolled: bool) -> jax.Array:
    """A plain recurrent network by `lax.scan`, or with its steps written out."""

    def step(h, x):
        h = jnp.tanh(x @ p["w"] + h @ p["u"] + p["b"])
        return h, h

    h, xs = jnp.zeros((x.shape[0], HIDDEN), x.dtype), x.swapaxes(0, 1)
    if unrolled:
        for t in range(len(xs)):
            h, _ = step(h, xs[t])
    else:
        h, _ = jax.lax.scan(step, h, xs)
    return h @ p["head"]


@FAMILY.add()
def scan_rnn(rng: np.random.Generator) -> Model:
    p = elman_parameters(rng)
    return lambda x: elman(p, x, unrolled=False), sequence(rng)


@FAMILY.add()
def neural_ode(rng: np.random.Generator) -> Model:
    """Euler steps in a `fori_loop` with constant bounds."""
    w, v, head = normal(rng, 4, 8), normal(rng, 8, 4, scale=0.3), normal(rng, 4, 3)

    def f(x):
        x = jax.lax.fori_loop(0, 4, lambda _, h: h + 0.1 * jnp.tanh(h @ w) @ v, x)
        return x @ head

    return f, normal(rng, 2, 4)


@FAMILY.add()
def early_exit(rng: np.random.Generator) -> Model:
    """A branch chosen by a constant, and one chosen by an index."""
    w, v, head = normal(rng, 4, 6), normal(rng, 4, 6), normal(rng, 6, 3)

    def f(x):
        x = jax.lax.cond(jnp.asarray(True), lambda x: jnp.tanh(x @ w), lambda x: x @ v, x)
        branches = [jnp.tanh, lambda h: h * jax.nn.sigmoid(h), lambda h: h]
        return jax.lax.switch(jnp.asarray(1), branches, x) @ head

    return f, normal(rng, 2, 4)


class Highway(nn.Module):
    """Gates that share what is let through: t h + (1 - t) x."""

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            t = nn.sigmoid(nn.Dense(6)(x))
            x = t * nn.relu(nn.Dense(6)(x)) + (1 - t) * x
        return nn.Dense(3)(x)


@FAMILY.add()
def highway(rng: np.random.Generator) -> Model:
    return linen(rng, Highway(), normal(rng, 2, 6))
