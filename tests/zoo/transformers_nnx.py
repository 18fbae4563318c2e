"""Transformers and others in NNX."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.entries import Family, Model, nnx_module, normal, tokens

from numeric import promoting

FAMILY = Family()
WIDTH, HEADS, LENGTH, VOCABULARY = 8, 2, 5, 11


class Layer(nnx.Module):
    """A pre-norm encoder layer."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm1 = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.up = nnx.Linear(WIDTH, 12, rngs=rngs)
        self.down = nnx.Linear(12, WIDTH, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    @promoting  # NNX normalizes in float32 or wider, by promotion
    def __call__(self, x):
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.down(nnx.gelu(self.up(self.norm2(x)))))


class ViT(nnx.Module):
    """A vision transformer; its layers in a list, rematerialized, or scanned over."""

    def __init__(self, rngs: nnx.Rngs, layers: str = "loop") -> None:
        self.kind = layers
        self.patches = nnx.Conv(3, WIDTH, (2, 2), (2, 2), padding="VALID", rngs=rngs)
        self.token = nnx.Param(jnp.zeros((1, 1, WIDTH)))
        self.position = nnx.Param(jnp.zeros((1, 5, WIDTH)))
        if layers == "scan":
            create = nnx.split_rngs(splits=2)(nnx.vmap(Layer, in_axes=0, out_axes=0))
            self.layers = create(rngs)
        else:
            self.layers = nnx.List([Layer(rngs) for _ in range(2)])
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, 3, rngs=rngs)

    @promoting
    def __call__(self, x):
        x = self.patches(x)
        x = x.reshape(x.shape[0], -1, WIDTH)
        x = jnp.concatenate([jnp.tile(self.token[...], (x.shape[0], 1, 1)), x], axis=1)
        x = x + self.position[...]
        if self.kind == "scan":
            axes = (nnx.Carry, 0)
            x = nnx.scan(lambda x, layer: layer(x), in_axes=axes, out_axes=nnx.Carry)(
                x, self.layers
            )
        else:
            for layer in self.layers:
                call = nnx.remat(lambda la, x: la(x)) if self.kind == "remat" else Layer.__call__
                x = call(layer, x)
        return self.head(self.norm(x)[:, 0])


@FAMILY.add(attention=True, convolutional=True)
def nnx_vit(rng: np.random.Generator) -> Model:
    return nnx_module(rng, ViT), normal(rng, 2, 4, 4, 3)


@FAMILY.add(attention=True, convolutional=True)
def nnx_vit_remat(rng: np.random.Generator) -> Model:
    return nnx_module(rng, lambda rngs: ViT(rngs, "remat")), normal(rng, 2, 4, 4, 3)


@FAMILY.add(attention=True, convolutional=True)
def nnx_vit_scan(rng: np.random.Generator) -> Model:
    return nnx_module(rng, lambda rngs: ViT(rngs, "scan")), normal(rng, 2, 4, 4, 3)


def rotate(x: jax.Array) -> jax.Array:
    """Rotary embedding as complex numbers: neighbors turn by position."""
    half = x.shape[-1] // 2
    angle = jnp.arange(x.shape[1])[:, None] / 100 ** (jnp.arange(half) / half)
    pairs = jax.lax.complex(x[..., ::2], x[..., 1::2])
    turned = pairs * jnp.exp(1j * angle)[None, :, None]
    return jnp.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


class LlamaLayer(nnx.Module):
    """RMSNorm, rotary grouped-query attention, SwiGLU from one fused kernel."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        linear = functools.partial(nnx.Linear, use_bias=False, rngs=rngs)
        self.norm1, self.norm2 = nnx.RMSNorm(WIDTH, rngs=rngs), nnx.RMSNorm(WIDTH, rngs=rngs)
        self.q, self.k, self.v = linear(WIDTH, 8), linear(WIDTH, 4), linear(WIDTH, 4)
        self.o = linear(8, WIDTH)
        self.gate_up, self.down = linear(WIDTH, 24), linear(12, WIDTH)

    @promoting
    def __call__(self, x):
        split = lambda h: h.reshape(*h.shape[:2], -1, 4)  # noqa: E731
        h = self.norm1(x)
        q, k, v = rotate(split(self.q(h))), rotate(split(self.k(h))), split(self.v(h))
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.reshape(*x.shape[:2], -1))
        gate, up = jnp.split(self.gate_up(self.norm2(x)), 2, axis=-1)
        return x + self.down(nnx.silu(gate) * up)


class Llama(nnx.Module):
    """A decoder over tokens."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        self.layers = nnx.List([LlamaLayer(rngs) for _ in range(2)])
        self.norm = nnx.RMSNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, VOCABULARY, use_bias=False, rngs=rngs)

    @promoting
    def __call__(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


@FAMILY.add(attention=True)
def nnx_llama(rng: np.random.Generator) -> Model:
    return nnx_module(rng, Llama), tokens(rng, 2, LENGTH)


class Policy(nnx.Module):
    """Actor and critic on one trunk, joined; BatchNorm in evaluation mode."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, 6, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.hidden = nnx.Linear(6 * 16, 8, rngs=rngs)
        self.actor, self.critic = nnx.Linear(8, 3, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        x = jnp.tanh(self.hidden(x.reshape(x.shape[0], -1)))
        actions = self.actor(x)
        advantage = actions - actions.mean(axis=-1, keepdims=True)
        return self.critic(x) + advantage


@FAMILY.add(convolutional=True)
def nnx_policy(rng: np.random.Generator) -> Model:
    return nnx_module(rng, Policy), normal(rng, 2, 4, 4, 3)


class QKNorm(nnx.Module):
    """Attention whose queries and keys are normalized, with a learned query, and a gate."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.attention = nnx.MultiHeadAttention(
            HEADS, WIDTH, decode=False, normalize_qk=True, rngs=rngs
        )
        self.query = nnx.Param(jnp.zeros((1, 3, WIDTH)))
        self.gate = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, 3, rngs=rngs)

    @promoting
    def __call__(self, x):
        x = x * nnx.sigmoid(self.gate(x))
        query = jnp.broadcast_to(self.query[...], (x.shape[0], 3, WIDTH))
        x = x + self.attention(x)
        return self.head(self.attention(query, x))


@FAMILY.add(attention=True)
def nnx_perceiver(rng: np.random.Generator) -> Model:
    return nnx_module(rng, QKNorm), normal(rng, 2, LENGTH, WIDTH)
