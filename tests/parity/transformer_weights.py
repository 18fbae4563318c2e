"""Weights, inputs and masks of the transformer blocks, in NumPy for any framework."""

from __future__ import annotations

import numpy as np

TOKENS, WIDTH, HEADS, HIDDEN, CLASSES = 5, 8, 4, 12, 3
KEY_HEADS = 2  # of the Llama block
SIZE = WIDTH // HEADS

Weights = dict[str, np.ndarray]


def _normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return rng.normal(size=shape) * scale


def weights(name: str) -> Weights:
    """float64 weights: matrices are (in, out)."""
    rng = np.random.default_rng(["bert", "llama", "vit"].index(name))
    keys = (KEY_HEADS if name == "llama" else HEADS) * SIZE
    shapes = {"q": WIDTH, "k": keys, "v": keys, "o": WIDTH}
    found = {n: _normal(rng, WIDTH, out, scale=WIDTH**-0.5) for n, out in shapes.items()}
    found |= {
        "up": _normal(rng, WIDTH, HIDDEN, scale=0.4),
        "down": _normal(rng, HIDDEN, WIDTH, scale=0.4),
    }
    for norm in ("norm1", "norm2"):
        found[norm] = 1 + 0.3 * _normal(rng, WIDTH)
    if name == "llama":
        return found | {"gate": _normal(rng, WIDTH, HIDDEN, scale=0.4)}
    for n in ("q", "k", "v", "o", "up", "down"):
        found["b_" + n] = 0.2 * _normal(rng, found[n].shape[1])
    for norm in ("norm1", "norm2"):
        found["b_" + norm] = 0.2 * _normal(rng, WIDTH)
    if name == "vit":
        found |= {"head": _normal(rng, WIDTH, CLASSES), "b_head": 0.2 * _normal(rng, CLASSES)}
    return found


def inputs(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(x, relevance of the output)."""
    rng = np.random.default_rng(10 + ["bert", "llama", "vit"].index(name))
    out = (CLASSES,) if name == "vit" else (TOKENS, WIDTH)
    return _normal(rng, TOKENS, WIDTH), _normal(rng, *out)


def rotation() -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of rotary positions, (tokens, size of a head)."""
    angle = np.arange(TOKENS)[:, None] / 100 ** (np.arange(SIZE // 2) / (SIZE // 2))
    angle = np.concatenate([angle, angle], axis=-1)
    return np.cos(angle), np.sin(angle)


MASKS = {
    "bert": np.arange(TOKENS)[None, :] < TOKENS - 1,  # the last token is padding
    "llama": np.tril(np.ones((TOKENS, TOKENS), bool)),
    "vit": np.ones((TOKENS, TOKENS), bool),
}
