"""Vision transformers and what looks at pictures through attention, in Linen."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from zoo.entries import Family, Model, linen, normal

FAMILY = Family()
WIDTH, HEADS = 8, 2


def picture(rng: np.random.Generator, size: int = 4) -> jax.Array:
    return normal(rng, 2, size, size, 3)


class Layer(nn.Module):
    """A pre-norm encoder layer, in the shape that `nn.scan` asks for."""

    act: Callable = nn.gelu
    dtype: Any = None

    @nn.compact
    def __call__(self, x, _=None):
        norm = functools.partial(nn.LayerNorm, dtype=self.dtype)
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        x = x + nn.MultiHeadDotProductAttention(HEADS, dtype=self.dtype)(norm()(x))
        return x + dense(x.shape[-1])(self.act(dense(12)(norm()(x)))), None


class ViT(nn.Module):
    """Patches, a class token, positions, layers one by one, scanned over or rematerialized."""

    layers: str = "loop"
    act: Callable = nn.gelu
    dtype: Any = None
    depth: int = 2

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(WIDTH, (2, 2), (2, 2), padding="VALID", name="patches", dtype=self.dtype)(x)
        x = x.reshape(x.shape[0], -1, WIDTH)
        token = self.param("token", nn.initializers.normal(), (1, 1, WIDTH))
        x = jnp.concatenate([jnp.tile(token, (x.shape[0], 1, 1)).astype(x.dtype), x], axis=1)
        position = self.param("position", nn.initializers.normal(), (1, x.shape[1], WIDTH))
        x = x + position.astype(x.dtype)
        if self.layers == "loop":
            for i in range(self.depth):
                x, _ = Layer(self.act, self.dtype, name=f"layer_{i}")(x)
        elif self.layers == "remat":
            for i in range(self.depth):
                x, _ = nn.remat(Layer)(self.act, self.dtype, name=f"layer_{i}")(x)
        else:
            inner = nn.remat(Layer, prevent_cse=False) if "remat" in self.layers else Layer
            split = {"params": True}
            stack = nn.scan(inner, {"params": 0}, split_rngs=split, length=self.depth)
            x, _ = stack(self.act, self.dtype, name="layers")(x, None)
        x = nn.LayerNorm(dtype=self.dtype)(x)
        return nn.Dense(3, name="head", dtype=self.dtype)(x[:, 0])


@FAMILY.add(attention=True, convolutional=True)
def vit(rng: np.random.Generator) -> Model:
    return linen(rng, ViT(), picture(rng))


@FAMILY.add(attention=True, convolutional=True)
def vit_scan(rng: np.random.Generator) -> Model:
    return linen(rng, ViT("scan"), picture(rng))


@FAMILY.add(attention=True, convolutional=True)
def vit_remat(rng: np.random.Generator) -> Model:
    return linen(rng, ViT("remat"), picture(rng))


@FAMILY.add(attention=True, convolutional=True)
def vit_scan_remat(rng: np.random.Generator) -> Model:
    return linen(rng, ViT("scan_remat"), picture(rng))


@FAMILY.add(attention=True, convolutional=True, precise=False)
def vit_bfloat16(rng: np.random.Generator) -> Model:
    return linen(rng, ViT(dtype=jnp.bfloat16), picture(rng))


def quick_gelu(x: jax.Array) -> jax.Array:
    return x * nn.sigmoid(1.702 * x)


class Clip(nn.Module):
    """An image tower with quick GELU; cosines with the embeddings of three captions."""

    @nn.compact
    def __call__(self, x):
        image = nn.Dense(6, use_bias=False)(ViT(act=quick_gelu)(x))
        text = self.param("text", nn.initializers.normal(), (3, 6))
        image = image / jnp.linalg.norm(image, axis=-1, keepdims=True)
        text = text / jnp.linalg.norm(text, axis=-1, keepdims=True)
        return jnp.exp(self.param("logit_scale", nn.initializers.ones, ())) * image @ text.T


@FAMILY.add(attention=True, convolutional=True)
def clip(rng: np.random.Generator) -> Model:
    return linen(rng, Clip(), picture(rng))


class WindowAttention(nn.Module):
    """Attention within windows of 2 x 2, shifted by one or not, with a bias by offset."""

    shift: int = 0

    @nn.compact
    def __call__(self, x):
        b, h, w, c = x.shape
        x = jnp.roll(x, (-self.shift, -self.shift), axis=(1, 2)) if self.shift else x
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        qkv = nn.Dense(3 * c)(x).reshape(-1, 4, 3, HEADS, c // HEADS).transpose(2, 0, 3, 1, 4)
        q, k, v = qkv
        scores = (q * q.shape[-1] ** -0.5) @ k.swapaxes(-2, -1)
        at = np.stack(np.meshgrid([0, 1], [0, 1], indexing="ij")).reshape(2, -1)
        offset = (at[:, :, None] - at[:, None] + 1).transpose(1, 2, 0) @ np.array([3, 1])
        table = self.param("relative", nn.initializers.normal(), (9, HEADS))
        scores = scores + table[offset.ravel()].reshape(4, 4, HEADS).transpose(2, 0, 1)
        if self.shift:
            region = np.zeros((h, w))
            region[-self.shift :] += 1
            region[:, -self.shift :] += 2
            region = region.reshape(h // 2, 2, w // 2, 2).transpose(0, 2, 1, 3).reshape(-1, 4)
            mask = np.where(region[:, None] != region[:, :, None], -100.0, 0.0)
            scores = scores.reshape(b, -1, HEADS, 4, 4) + mask[None, :, None]
            scores = scores.reshape(-1, HEADS, 4, 4)
        x = (nn.softmax(scores) @ v).swapaxes(1, 2).reshape(-1, 4, c)
        x = nn.Dense(c)(x)
        x = x.reshape(b, h // 2, w // 2, 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return jnp.roll(x, (self.shift, self.shift), axis=(1, 2)) if self.shift else x


class Swin(nn.Module):
    """Two layers of windows, one shifted, and patches merged by four."""

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Conv(WIDTH, (2, 2), (2, 2))(x))
        for shift in (0, 1):
            x = x + WindowAttention(shift)(nn.LayerNorm()(x))
            x = x + nn.Dense(WIDTH)(nn.gelu(nn.Dense(12)(nn.LayerNorm()(x)), approximate=False))
        merged = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        x = nn.Dense(12, use_bias=False)(nn.LayerNorm()(jnp.concatenate(merged, axis=-1)))
        return nn.Dense(3)(nn.LayerNorm()(x).mean(axis=(1, 2)))


@FAMILY.add(attention=True, convolutional=True)
def swin(rng: np.random.Generator) -> Model:
    return linen(rng, Swin(), picture(rng, 8))


class MapHead(nn.Module):
    """Multihead attention pooling: a learned query reads the tokens."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(WIDTH)(x)
        probe = self.param("probe", nn.initializers.normal(), (1, 1, WIDTH))
        probe = jnp.tile(probe, (x.shape[0], 1, 1))
        x = nn.MultiHeadDotProductAttention(HEADS)(probe, x)
        x = x + nn.Dense(WIDTH)(nn.gelu(nn.Dense(12)(nn.LayerNorm()(x))))
        return nn.Dense(3)(x[:, 0])


@FAMILY.add(attention=True)
def map_head(rng: np.random.Generator) -> Model:
    return linen(rng, MapHead(), normal(rng, 2, 5, 6))


class Detr(nn.Module):
    """A convolution, an encoder layer, object queries that look at it, boxes."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(WIDTH, (3, 3), (2, 2))(x)).reshape(x.shape[0], -1, WIDTH)
        where = self.param("where", nn.initializers.normal(), (x.shape[1], WIDTH))
        q = x + where
        x = nn.LayerNorm()(x + nn.MultiHeadDotProductAttention(HEADS)(q, q, x))
        query = self.param("query", nn.initializers.normal(), (3, WIDTH))
        query = jnp.broadcast_to(query, (x.shape[0], 3, WIDTH))
        y = nn.LayerNorm()(nn.MultiHeadDotProductAttention(HEADS)(query, query, query))
        y = nn.LayerNorm()(y + nn.MultiHeadDotProductAttention(HEADS)(y + query, x + where, x))
        y = nn.LayerNorm()(y + nn.Dense(WIDTH)(nn.relu(nn.Dense(12)(y))))
        return nn.sigmoid(nn.Dense(4)(nn.relu(nn.Dense(WIDTH)(y))))


@FAMILY.add(attention=True, convolutional=True)
def detr(rng: np.random.Generator) -> Model:
    return linen(rng, Detr(), picture(rng))


class CrossCovariance(nn.Module):
    """Attention between features (XCiT): queries and keys of length one over the tokens."""

    @nn.compact
    def __call__(self, x):
        q, k, v = (nn.Dense(WIDTH)(x).reshape(*x.shape[:2], HEADS, -1) for _ in range(3))
        q = q / jnp.maximum(jnp.linalg.norm(q, axis=1, keepdims=True), 1e-12)
        k = k / jnp.maximum(jnp.linalg.norm(k, axis=1, keepdims=True), 1e-12)
        heat = self.param("temperature_scale", nn.initializers.ones, (HEADS, 1, 1))
        weights = nn.softmax(jnp.einsum("bnhd,bnhe->bhde", q, k) * heat)
        y = jnp.einsum("bhde,bnhe->bnhd", weights, v).reshape(*x.shape[:2], WIDTH)
        gamma = self.param("gamma", nn.initializers.ones, (WIDTH,))
        return nn.Dense(3)((x + gamma * nn.Dense(WIDTH)(y)).mean(axis=1))


@FAMILY.add(attention=True)
def cross_covariance(rng: np.random.Generator) -> Model:
    return linen(rng, CrossCovariance(), normal(rng, 2, 5, WIDTH))
