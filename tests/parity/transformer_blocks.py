"""Blocks of three transformers.

Written as they are in the wild: post-norm with a padding mask (BERT), pre-norm with root mean square,
rotary positions, grouped queries, a causal mask and a gated MLP (Llama), pre-norm with a class token
and a head (ViT).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from transformer_weights import HEADS, KEY_HEADS, MASKS, SIZE, TOKENS, WIDTH, Weights, rotation


def _layer_norm(x: jax.Array, scale: np.ndarray, bias: np.ndarray, eps: float) -> jax.Array:
    mean = x.mean(-1, keepdims=True)
    var = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(var + eps) * scale + bias


def _rms_norm(x: jax.Array, scale: np.ndarray) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6) * scale


def _heads(x: jax.Array) -> jax.Array:
    return x.reshape(TOKENS, -1, SIZE).transpose(1, 0, 2)


def _attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: np.ndarray) -> jax.Array:
    scores = jnp.einsum("htd,hsd->hts", q, k) / SIZE**0.5
    p = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1)
    return jnp.einsum("hts,hsd->htd", p, v).transpose(1, 0, 2).reshape(TOKENS, WIDTH)


def _self_attention(w: Weights, x: jax.Array, mask: np.ndarray) -> jax.Array:
    q, k, v = (_heads(x @ w[n] + w["b_" + n]) for n in ("q", "k", "v"))
    return _attention(q, k, v, mask) @ w["o"] + w["b_o"]


def _mlp(w: Weights, x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x @ w["up"] + w["b_up"], approximate=False) @ w["down"] + w["b_down"]


def bert(w: Weights, x: jax.Array) -> jax.Array:
    x = _layer_norm(x + _self_attention(w, x, MASKS["bert"]), w["norm1"], w["b_norm1"], 1e-12)
    return _layer_norm(x + _mlp(w, x), w["norm2"], w["b_norm2"], 1e-12)


def _rotate(x: jax.Array) -> jax.Array:
    cos, sin = rotation()
    a, b = jnp.split(x, 2, axis=-1)
    return x * cos + jnp.concatenate([-b, a], axis=-1) * sin


def llama(w: Weights, x: jax.Array) -> jax.Array:
    h = _rms_norm(x, w["norm1"])
    q, k, v = _rotate(_heads(h @ w["q"])), _rotate(_heads(h @ w["k"])), _heads(h @ w["v"])
    k, v = (jnp.repeat(a, HEADS // KEY_HEADS, axis=0) for a in (k, v))
    x = x + _attention(q, k, v, MASKS["llama"]) @ w["o"]
    h = _rms_norm(x, w["norm2"])
    return x + (jax.nn.silu(h @ w["gate"]) * (h @ w["up"])) @ w["down"]


def vit(w: Weights, x: jax.Array) -> jax.Array:
    x = x + _self_attention(w, _layer_norm(x, w["norm1"], w["b_norm1"], 1e-6), MASKS["vit"])
    x = x + _mlp(w, _layer_norm(x, w["norm2"], w["b_norm2"], 1e-6))
    return x[0] @ w["head"] + w["b_head"]


BLOCKS: dict[str, Callable[[Weights, jax.Array], jax.Array]] = {
    "bert": bert,
    "llama": llama,
    "vit": vit,
}
