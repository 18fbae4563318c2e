"""Transformers in Linen: encoders, decoders, the ways of knowing positions."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from zoo.entries import Family, Model, linen, normal, tokens

FAMILY = Family()
WIDTH, HEADS, LENGTH, VOCABULARY = 8, 2, 5, 11


class Feedforward(nn.Module):
    """Two dense layers."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(x.shape[-1])(nn.gelu(nn.Dense(12)(x)))


class Block(nn.Module):
    """Attention and feedforward beside the identity, the norms before or after."""

    pre_norm: bool = True

    @nn.compact
    def __call__(self, x, mask=None):
        attend = nn.MultiHeadDotProductAttention(HEADS)
        if self.pre_norm:
            x = x + attend(nn.LayerNorm()(x), mask=mask)
            return x + Feedforward()(nn.LayerNorm()(x))
        x = nn.LayerNorm()(x + attend(x, mask=mask))
        return nn.LayerNorm()(x + Feedforward()(x))


class BertAttention(nn.Module):
    """Attention with an additive mask, as in the original."""

    @nn.compact
    def __call__(self, x, mask):
        split = lambda h: h.reshape(*h.shape[:2], HEADS, -1)  # noqa: E731
        q, k, v = (split(nn.Dense(WIDTH, name=name)(x)) for name in ("query", "key", "value"))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
        scores = scores + (1.0 - mask[:, None, None, :]) * jnp.finfo(scores.dtype).min
        out = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1), v)
        return nn.Dense(WIDTH, name="output")(out.reshape(x.shape))


class Bert(nn.Module):
    """Token, position and segment embeddings, post-norm blocks, a pooler, a classifier."""

    @nn.compact
    def __call__(self, ids):
        mask = jnp.ones(ids.shape).at[:, -1].set(0.0)
        x = nn.Embed(VOCABULARY, WIDTH, name="word")(ids)
        x = x + nn.Embed(LENGTH, WIDTH, name="position")(jnp.arange(ids.shape[1]))
        x = nn.LayerNorm()(x + nn.Embed(2, WIDTH, name="segment")(jnp.zeros_like(ids)))
        for _ in range(2):
            x = nn.LayerNorm()(x + BertAttention()(x, mask))
            x = nn.LayerNorm()(x + Feedforward()(x))
        return nn.Dense(3)(jnp.tanh(nn.Dense(WIDTH, name="pooler")(x[:, 0])))


@FAMILY.add(attention=True)
def bert(rng: np.random.Generator) -> Model:
    return linen(rng, Bert(), tokens(rng, 2, LENGTH))


class Gpt(nn.Module):
    """A decoder whose head is its embedding."""

    pre_norm: bool = True

    @nn.compact
    def __call__(self, ids):
        embed = nn.Embed(VOCABULARY, WIDTH)
        position = self.param("position", nn.initializers.normal(), (LENGTH, WIDTH))
        x = embed(ids) + position
        mask = nn.make_causal_mask(ids)
        for _ in range(2):
            x = Block(self.pre_norm)(x, mask)
        return embed.attend(nn.LayerNorm()(x))


@FAMILY.add(attention=True)
def gpt_pre_norm(rng: np.random.Generator) -> Model:
    return linen(rng, Gpt(), tokens(rng, 2, LENGTH))


@FAMILY.add(attention=True)
def gpt_post_norm(rng: np.random.Generator) -> Model:
    return linen(rng, Gpt(pre_norm=False), tokens(rng, 2, LENGTH))


class RMSNorm(nn.Module):
    """x / rms(x), times a scale that is around zero in Gemma and around one elsewhere."""

    around_zero: bool = False

    @nn.compact
    def __call__(self, x):
        name = "offset" if self.around_zero else "scale"
        scale = self.param(name, nn.initializers.ones, (x.shape[-1],))
        x = x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)
        return x * (1 + scale) if self.around_zero else x * scale


def rotate(x: jax.Array) -> jax.Array:
    """Rotary embedding of (batch, length, heads, features): halves turn by position."""
    half = x.shape[-1] // 2
    angle = jnp.arange(x.shape[1])[:, None] / 100 ** (jnp.arange(half) / half)
    cos, sin = jnp.cos(angle)[None, :, None], jnp.sin(angle)[None, :, None]
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class GroupedAttention(nn.Module):
    """Grouped-query attention with rotary positions, causal by minus infinity."""

    softcap: float | None = None
    groups: int = 1

    @nn.compact
    def __call__(self, x):
        dense = functools.partial(nn.DenseGeneral, use_bias=False)
        q = rotate(dense((HEADS, 4), name="q_proj")(x))
        k = rotate(dense((self.groups, 4), name="k_proj")(x))
        v = dense((self.groups, 4), name="v_proj")(x)
        causal = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
        if self.softcap is None:
            k, v = (jnp.repeat(a, HEADS // self.groups, axis=2) for a in (k, v))
            scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / 2.0
            weights = nn.softmax(jnp.where(causal, scores, -jnp.inf))
            out = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
        else:
            q = q.reshape(*q.shape[:2], self.groups, -1, 4)
            scores = jnp.einsum("btkgh,bskh->bkgts", q * 0.5, k)
            scores = jnp.tanh(scores / self.softcap) * self.softcap
            weights = nn.softmax(jnp.where(causal, scores, -2.3819763e38))
            out = jnp.einsum("bkgts,bskh->btkgh", weights, v)
        return dense(x.shape[-1], axis=(-2, -1), name="o_proj")(
            out.reshape(*out.shape[:2], HEADS, 4)
        )


class Decoder(nn.Module):
    """Llama with SwiGLU, or Gemma with GEGLU and capped logits."""

    gemma: bool = False

    @nn.compact
    def __call__(self, ids):
        norm = functools.partial(RMSNorm, around_zero=self.gemma)
        dense = functools.partial(nn.Dense, use_bias=False)
        cap = 2.0 if self.gemma else None
        embed = nn.Embed(VOCABULARY, WIDTH)
        x = embed(ids) * (WIDTH**0.5 if self.gemma else 1.0)
        for _ in range(2):
            y = GroupedAttention(cap)(norm()(x))
            x = x + (norm()(y) if self.gemma else y)
            y = norm()(x)
            act = nn.gelu if self.gemma else nn.silu
            y = act(dense(12, name=f"gate_{_}")(y)) * dense(12, name=f"up_{_}")(y)
            x = x + dense(WIDTH, name=f"down_{_}")(y)
        x = norm()(x)
        if not self.gemma:
            return dense(VOCABULARY, name="lm_head")(x)
        return jnp.tanh(embed.attend(x) / 3.0) * 3.0


@FAMILY.add(attention=True)
def llama(rng: np.random.Generator) -> Model:
    return linen(rng, Decoder(), tokens(rng, 2, LENGTH))


@FAMILY.add(attention=True)
def gemma(rng: np.random.Generator) -> Model:
    return linen(rng, Decoder(gemma=True), tokens(rng, 2, LENGTH))


class T5Attention(nn.Module):
    """Attention without a scale; a learned bias by distance, for the first layer of a stack."""

    biased: bool = False
    causal: bool = False

    @nn.compact
    def __call__(self, x, memory):
        dense = functools.partial(nn.Dense, use_bias=False)
        split = lambda h: h.reshape(*h.shape[:2], HEADS, -1)  # noqa: E731
        q, k = (split(dense(WIDTH, name=n)(h)) for n, h in (("q", x), ("k", memory)))
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k)
        distance = jnp.arange(memory.shape[1])[None] - jnp.arange(x.shape[1])[:, None]
        if self.biased:
            bias = nn.Embed(9, HEADS, name="relative")(jnp.clip(distance, -4, 4) + 4)
            scores = scores + bias.transpose(2, 0, 1)[None]
        if self.causal:
            scores = scores + jnp.where(distance > 0, -1e10, 0.0)
        v = split(dense(WIDTH, name="v")(memory))
        out = jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(scores), v)
        return dense(WIDTH, name="o")(out.reshape(x.shape))


class T5(nn.Module):
    """Encoder and decoder; what is explained is what is read, not what was written so far."""

    @nn.compact
    def __call__(self, ids):
        dense = functools.partial(nn.Dense, use_bias=False)
        embed = nn.Embed(VOCABULARY, WIDTH)
        x = embed(ids)
        h = RMSNorm()(x)
        x = x + T5Attention(biased=True)(h, h)
        x = x + dense(WIDTH)(nn.relu(dense(12)(RMSNorm()(x))))
        memory = RMSNorm()(x)
        y = embed(jnp.broadcast_to(jnp.arange(3), (ids.shape[0], 3)))
        h = RMSNorm()(y)
        y = y + T5Attention(biased=True, causal=True)(h, h)
        y = y + T5Attention()(RMSNorm()(y), memory)
        y = y + dense(WIDTH)(nn.relu(dense(12)(RMSNorm()(y))))
        y = y + T5Attention()(RMSNorm()(y), memory)
        return embed.attend(RMSNorm()(y) * WIDTH**-0.5)


@FAMILY.add(attention=True)
def t5(rng: np.random.Generator) -> Model:
    return linen(rng, T5(), tokens(rng, 2, LENGTH))


class Alibi(nn.Module):
    """A decoder that knows positions by a slope on the scores; query, key and value in one."""

    @nn.compact
    def __call__(self, x):
        length = x.shape[1]
        slope = 2.0 ** -jnp.arange(1, HEADS + 1)[:, None, None]
        distance = jnp.arange(length)[None] - jnp.arange(length)[:, None]
        bias = jnp.where(distance > 0, -jnp.inf, slope * distance)
        for _ in range(2):
            qkv = nn.Dense(3 * WIDTH)(nn.LayerNorm()(x)).reshape(*x.shape[:2], HEADS, -1)
            q, k, v = jnp.split(qkv, 3, axis=-1)
            scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * 0.5 + bias
            out = jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(scores), v)
            x = x + nn.Dense(WIDTH)(out.reshape(x.shape))
            x = x + Feedforward()(nn.LayerNorm()(x))
        return nn.Dense(3)(x[:, -1])


@FAMILY.add(attention=True)
def alibi(rng: np.random.Generator) -> Model:
    return linen(rng, Alibi(), normal(rng, 2, LENGTH, WIDTH))


class CachedStep(nn.Module):
    """One step of decoding: the keys and values of earlier tokens are read from a cache."""

    @nn.compact
    def __call__(self, x):
        empty = functools.partial(nn.initializers.normal(), dtype=x.dtype)
        shape = (x.shape[0], LENGTH, HEADS, 4)
        cache_k = self.param("cached_key", empty, shape[1:])[None].repeat(x.shape[0], 0)
        cache_v = self.param("cached_value", empty, shape[1:])[None].repeat(x.shape[0], 0)
        index = jnp.asarray(3)
        h = nn.RMSNorm()(x)
        q, k, v = (nn.DenseGeneral((HEADS, 4), name=name)(h) for name in "qkv")
        k = jax.lax.dynamic_update_slice(cache_k, k, (0, index, 0, 0))
        v = jax.lax.dynamic_update_slice(cache_v, v, (0, index, 0, 0))
        seen = jnp.arange(LENGTH) <= index
        out = nn.dot_product_attention(q, k, v, mask=seen[None, None, None])
        x = x + nn.DenseGeneral(WIDTH, axis=(-2, -1))(out)
        return nn.Dense(VOCABULARY)(x + Feedforward()(nn.RMSNorm()(x)))[:, 0]


@FAMILY.add(attention=True)
def cached_step(rng: np.random.Generator) -> Model:
    return linen(rng, CachedStep(), normal(rng, 2, 1, WIDTH))


class Fused(nn.Module):
    """Attention by `jax.nn.dot_product_attention`, causal, with fewer keys than queries."""

    @nn.compact
    def __call__(self, x):
        q = nn.DenseGeneral((2 * HEADS, 4))(x)
        k, v = nn.DenseGeneral((HEADS, 4))(x), nn.DenseGeneral((HEADS, 4))(x)
        out = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        return nn.Dense(3)(nn.DenseGeneral(WIDTH, axis=(-2, -1))(out) + x)


@FAMILY.add(attention=True)
def fused_attention(rng: np.random.Generator) -> Model:
    return linen(rng, Fused(), normal(rng, 2, LENGTH, WIDTH))
