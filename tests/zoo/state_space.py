"""State-space models and linear attention: long memories without a softmax."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from zoo.entries import Family, Model, linen, normal

FAMILY = Family()
STEPS, WIDTH, STATE = 6, 4, 3


def sequence(rng: np.random.Generator) -> jax.Array:
    return normal(rng, 2, STEPS, WIDTH)


def _combine(left, right):
    (a, b), (c, d) = left, right
    return a * c, c * b + d


class S5(nn.Module):
    """A complex diagonal state space, by `associative_scan`, a gated output."""

    @nn.compact
    def __call__(self, x):
        read = self.param
        for i in range(2):
            u = nn.LayerNorm()(x)
            decay = -jnp.exp(read(f"log_rate_{i}", nn.initializers.normal(), (STATE,)))
            lam = decay + 1j * jnp.arange(1.0, STATE + 1)
            b = read(f"b_{i}", nn.initializers.normal(), (2, WIDTH, STATE))
            c = read(f"c_{i}", nn.initializers.normal(), (2, STATE, WIDTH))
            d = read(f"d_{i}", nn.initializers.normal(), (WIDTH,))
            step = jnp.exp(lam * 0.3)
            bu = (u @ (b[0] + 1j * b[1])) * ((step - 1) / lam)
            a = jnp.broadcast_to(step, bu.shape)
            _, states = jax.lax.associative_scan(_combine, (a, bu), axis=1)
            y = 2 * (states @ (c[0] + 1j * c[1])).real + u * d
            y = nn.gelu(y)
            x = x + y * nn.sigmoid(nn.Dense(WIDTH)(y))
        return nn.Dense(3)(x.mean(axis=1))


@FAMILY.add()
def s5(rng: np.random.Generator) -> Model:
    return linen(rng, S5(), sequence(rng))


@FAMILY.add()
def linear_recurrent_unit(rng: np.random.Generator) -> Model:
    """A complex diagonal recurrence by `lax.scan`."""
    b = jax.lax.complex(normal(rng, WIDTH, STATE), normal(rng, WIDTH, STATE))
    c = jax.lax.complex(normal(rng, STATE, WIDTH), normal(rng, STATE, WIDTH))
    lam = 0.8 * jnp.exp(1j * jnp.arange(1.0, STATE + 1, dtype=complex))
    head = normal(rng, WIDTH, 3)

    def f(x):
        def step(h, u):
            h = lam * h + u.astype(b.dtype) @ b
            return h, (h @ c).real

        h = jnp.zeros((x.shape[0], STATE), b.dtype)
        _, y = jax.lax.scan(step, h, x.swapaxes(0, 1))
        return jax.nn.gelu(y).mean(axis=0) @ head

    return f, sequence(rng)


class Mamba(nn.Module):
    """A selective scan: the rate, the input and the output matrix depend on the input."""

    @nn.compact
    def __call__(self, x):
        for i in range(2):
            u, gate = jnp.split(nn.Dense(2 * WIDTH)(nn.RMSNorm()(x)), 2, axis=-1)
            conv = nn.Conv(WIDTH, (3,), padding="CAUSAL", feature_group_count=WIDTH)
            u = nn.silu(conv(u))
            rate = nn.softplus(nn.Dense(WIDTH)(nn.Dense(1)(u)))
            b, c = jnp.split(nn.Dense(2 * STATE, use_bias=False)(u), 2, axis=-1)
            a = -jnp.exp(self.param(f"log_a_{i}", nn.initializers.normal(), (WIDTH, STATE)))
            d = self.param(f"d_{i}", nn.initializers.ones, (WIDTH,))
            kept = jnp.exp(rate[..., None] * a)
            given = (rate * u)[..., None] * b[:, :, None, :]

            def step(h, t):
                kept, given, c = t
                h = kept * h + given
                return h, jnp.einsum("bdn,bn->bd", h, c)

            h = jnp.zeros((x.shape[0], WIDTH, STATE), x.dtype)
            turned = jax.tree.map(lambda t: t.swapaxes(0, 1), (kept, given, c))
            _, y = jax.lax.scan(step, h, turned)
            y = y.swapaxes(0, 1) + u * d
            x = x + nn.Dense(WIDTH)(y * nn.silu(gate))
        return nn.Dense(3)(nn.RMSNorm()(x)[:, -1])


@FAMILY.add()
def mamba(rng: np.random.Generator) -> Model:
    return linen(rng, Mamba(), sequence(rng))


class MinGru(nn.Module):
    """A gated recurrence whose gates see the input alone, by `associative_scan`."""

    @nn.compact
    def __call__(self, x):
        z = nn.sigmoid(nn.Dense(WIDTH)(x))
        h = jnp.tanh(nn.Dense(WIDTH)(x))
        _, h = jax.lax.associative_scan(_combine, (1 - z, z * h), axis=1)
        return nn.Dense(3)(h)


@FAMILY.add()
def min_gru(rng: np.random.Generator) -> Model:
    return linen(rng, MinGru(), sequence(rng))


class LinearAttention(nn.Module):
    """Positive features of queries and keys, divided by their own sum."""

    @nn.compact
    def __call__(self, x):
        q, k = (nn.elu(nn.Dense(WIDTH)(x)) + 1 for _ in range(2))
        v = nn.Dense(WIDTH)(x)
        state = jnp.cumsum(jnp.einsum("btd,bte->btde", k, v), axis=1)
        total = jnp.einsum("btd,btd->bt", q, jnp.cumsum(k, axis=1))
        y = jnp.einsum("btd,btde->bte", q, state) / total[..., None]
        return nn.Dense(3)(x + nn.Dense(WIDTH)(y))


@FAMILY.add()
def linear_attention(rng: np.random.Generator) -> Model:
    return linen(rng, LinearAttention(), sequence(rng))


class Retention(nn.Module):
    """Products of queries and keys that decay with distance, a norm for each head, a gate."""

    @nn.compact
    def __call__(self, x):
        q, k, v = (nn.Dense(WIDTH, use_bias=False)(x) for _ in range(3))
        distance = jnp.arange(STEPS)[:, None] - jnp.arange(STEPS)[None]
        decay = jnp.where(distance >= 0, 0.9 ** jnp.maximum(distance, 0), 0.0)
        y = jnp.einsum("bqk,bke->bqe", jnp.einsum("bqd,bkd->bqk", q, k) * decay, v)
        y = nn.GroupNorm(2, use_scale=False, use_bias=False, reduction_axes=(-1,))(y)
        return nn.Dense(3)(x + nn.Dense(WIDTH)(nn.silu(nn.Dense(WIDTH)(x)) * y))


@FAMILY.add()
def retention(rng: np.random.Generator) -> Model:
    return linen(rng, Retention(), sequence(rng))


@FAMILY.add()
def fourier_mixing(rng: np.random.Generator) -> Model:
    """FNet: the real part of a Fourier transform mixes tokens and features."""
    w, v, head = normal(rng, WIDTH, 8), normal(rng, 8, WIDTH, scale=0.3), normal(rng, WIDTH, 3)

    def f(x):
        x = x + jnp.fft.fft2(x, axes=(1, 2)).real
        x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return (x + jax.nn.gelu(x @ w) @ v).mean(axis=1) @ head

    return f, sequence(rng)
