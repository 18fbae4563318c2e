"""Graph networks and sets: messages by `segment_sum`, written in plain JAX and in Linen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from zoo.entries import Family, Model, linen, normal

FAMILY = Family()
NODES, WIDTH = 5, 4
SENDERS = np.array([0, 1, 1, 2, 3, 4, 2, 0, 1, 2, 3, 4])
RECEIVERS = np.array([1, 0, 2, 1, 4, 3, 3, 0, 1, 2, 3, 4])


def gather_sum(messages: jax.Array) -> jax.Array:
    return jax.ops.segment_sum(messages, RECEIVERS, NODES)


@FAMILY.add(batched=False)
def gcn(rng: np.random.Generator) -> Model:
    """Kipf and Welling: messages weighed by degree."""
    weights = [normal(rng, *s, scale=0.6) for s in ((WIDTH, 6), (6, 6), (6, 3))]
    biases = [normal(rng, s, scale=0.3) for s in (6, 6, 3)]
    degree = jax.ops.segment_sum(jnp.ones(len(SENDERS)), RECEIVERS, NODES)
    norm = (degree[SENDERS] * degree[RECEIVERS]) ** -0.5

    def f(x):
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            x = jax.nn.relu(gather_sum((x @ w)[SENDERS] * norm[:, None]) + b)
        return x.mean(axis=0) @ weights[-1] + biases[-1]

    return f, normal(rng, NODES, WIDTH)


@FAMILY.add(batched=False)
def gcn_dense(rng: np.random.Generator) -> Model:
    """The same by a matrix of neighbors."""
    w, v, head = normal(rng, WIDTH, 6), normal(rng, 6, 6, scale=0.5), normal(rng, 6, 3)
    near = jnp.zeros((NODES, NODES)).at[RECEIVERS, SENDERS].set(1.0)
    near = near / near.sum(axis=1, keepdims=True)

    def f(x):
        x = jax.nn.relu(near @ x @ w)
        return jax.nn.relu(near @ (x @ v)).sum(axis=0) @ head

    return f, normal(rng, NODES, WIDTH)


class Gat(nn.Module):
    """Attention over the neighbors: a softmax over segments."""

    @nn.compact
    def __call__(self, x):
        for i in range(2):
            h = nn.Dense(6, use_bias=False)(x).reshape(NODES, 2, 3)
            a = self.param(f"a_{i}", nn.initializers.normal(), (2, 2, 3))
            score = (h * a[0]).sum(-1)[SENDERS] + (h * a[1]).sum(-1)[RECEIVERS]
            score = nn.leaky_relu(score, 0.2)
            top = jax.ops.segment_max(score, RECEIVERS, NODES)
            weight = jnp.exp(score - top[RECEIVERS])
            weight = weight / gather_sum(weight)[RECEIVERS]
            x = nn.elu(gather_sum(h[SENDERS] * weight[..., None]).reshape(NODES, 6))
        return nn.Dense(3)(x)


@FAMILY.add(batched=False)
def gat(rng: np.random.Generator) -> Model:
    return linen(rng, Gat(), normal(rng, NODES, WIDTH))


class Gin(nn.Module):
    """Sums of neighbors through a perceptron; the greatest of all nodes is read."""

    @nn.compact
    def __call__(self, x):
        norm = nn.BatchNorm(use_running_average=True)
        for i in range(2):
            epsilon = self.param(f"epsilon_{i}", nn.initializers.zeros, ())
            h = (1 + epsilon) * x + gather_sum(x[SENDERS])
            x = nn.relu(nn.Dense(6)(nn.relu(nn.Dense(6)(h))))
        return nn.Dense(3)(jnp.concatenate([norm(x).sum(axis=0), x.max(axis=0)]))


@FAMILY.add(batched=False)
def gin(rng: np.random.Generator) -> Model:
    return linen(rng, Gin(), normal(rng, NODES, WIDTH))


class MessagePassing(nn.Module):
    """Messages of sender, receiver and edge; a GRU updates the nodes; means and maxima."""

    @nn.compact
    def __call__(self, x):
        edge = self.param("edge", nn.initializers.normal(), (len(SENDERS), 2))
        h, cell = nn.Dense(6)(x), nn.GRUCell(6)
        message = nn.Dense(6)
        for _ in range(2):
            joined = jnp.concatenate([h[SENDERS], h[RECEIVERS], edge], axis=-1)
            m = nn.relu(message(joined))
            count = gather_sum(jnp.ones((len(SENDERS), 1)))
            m = gather_sum(m) / jnp.maximum(count, 1)
            h, _ = cell(h, m)
        graph = np.array([0, 0, 0, 1, 1])
        return nn.Dense(3)(jax.ops.segment_max(h, graph, 2))


@FAMILY.add(batched=False)
def message_passing(rng: np.random.Generator) -> Model:
    return linen(rng, MessagePassing(), normal(rng, NODES, WIDTH))


class DeepSets(nn.Module):
    """Every element by itself, the greatest and the mean of all, minus their mean."""

    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.Dense(8)(x))
        h = nn.relu(nn.Dense(8)(h - h.mean(axis=1, keepdims=True)))
        return nn.Dense(3)(jnp.concatenate([h.max(axis=1), h.mean(axis=1)], axis=-1))


@FAMILY.add()
def deep_sets(rng: np.random.Generator) -> Model:
    return linen(rng, DeepSets(), normal(rng, 2, NODES, WIDTH))


class GatedPooling(nn.Module):
    """Multiple instances weighed by a softmax of tanh times sigmoid."""

    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.Dense(6)(x))
        score = nn.Dense(1)(jnp.tanh(nn.Dense(4)(h)) * nn.sigmoid(nn.Dense(4)(h)))
        weights = nn.softmax(score, axis=1)
        return nn.Dense(3)((weights * h).sum(axis=1))


@FAMILY.add()
def gated_pooling(rng: np.random.Generator) -> Model:
    return linen(rng, GatedPooling(), normal(rng, 2, NODES, WIDTH))


class DotInteraction(nn.Module):
    """A recommender: features in pairs, by their products (DLRM), and a cross layer (DCN)."""

    @nn.compact
    def __call__(self, x):
        fields = nn.Dense(4)(x)
        pairs = jnp.einsum("bif,bjf->bij", fields, fields)
        upper = np.triu_indices(NODES, 1)
        flat = x.reshape(x.shape[0], -1)
        crossed = flat * nn.Dense(flat.shape[-1])(flat) + flat
        joined = jnp.concatenate([pairs[:, upper[0], upper[1]], crossed], axis=-1)
        return nn.Dense(3)(nn.relu(nn.Dense(8)(joined)))


@FAMILY.add()
def dot_interaction(rng: np.random.Generator) -> Model:
    return linen(rng, DotInteraction(), normal(rng, 2, NODES, WIDTH))
