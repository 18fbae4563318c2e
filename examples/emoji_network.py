"""Emoji of two artists, and a small network that names their category. Used by emoji.py."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from PIL import Image
from rich.progress import track

ARTISTS = ("google", "twitter")
SIZE = 32
INSTALL = "npm install --no-save emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0"


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures with what is known of them, one row each.

    Attributes:
      images: (N, 32, 32, 3), floats in [0, 1].
      category: (N,), the class, of `categories`.
      subcategory: (N,), of `subcategories`; the network never sees it.
      artist: (N,), 0 or 1; the network never sees it.
      sign: (N,), the number of the emoji: two artists draw the same.
      name: (N,), in words.
    """

    images: np.ndarray
    category: np.ndarray
    subcategory: np.ndarray
    artist: np.ndarray
    sign: np.ndarray
    name: np.ndarray
    categories: tuple[str, ...]
    subcategories: tuple[str, ...]
    artists: tuple[str, str]

    def __len__(self) -> int:
        return len(self.images)

    def of(self, rows: np.ndarray) -> Pictures:
        """Some of the pictures."""
        names = ("images", "category", "subcategory", "artist", "sign", "name")
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in names})

    def split(self, share: float, seed: int) -> tuple[Pictures, Pictures]:
        """Two parts, the first with this share of the signs; all pictures of a sign are in one."""
        signs = np.random.default_rng(seed).permutation(np.unique(self.sign))
        inside = np.isin(self.sign, signs[: int(share * len(signs))])
        return self.of(inside), self.of(~inside)


def read(folder: pathlib.Path, quick: bool) -> Pictures:
    """Reads the emoji that both artists drew, on white; with `quick` at most 30 of a category."""
    listed = folder / "emoji-datasource-google" / "emoji.json"
    if not listed.exists():
        if quick:
            return digits()
        raise SystemExit(f"there are no emoji in {folder}; get them with\n    {INSTALL}\n"
                         "and pass their folder: --data node_modules")  # fmt: skip
    kept = [
        sign
        for sign in sorted(json.loads(listed.read_text("utf8")), key=lambda s: s["sort_order"])
        if all(sign[f"has_img_{artist}"] for artist in ARTISTS) and sign["category"] != "Component"
    ]
    if quick:
        seen: dict[str, int] = {}
        order = np.random.default_rng(0).permutation(len(kept))
        chosen = []
        for i in order:
            seen[kept[i]["category"]] = seen.get(kept[i]["category"], 0) + 1
            if seen[kept[i]["category"]] <= 30:
                chosen.append(i)
        kept = [kept[i] for i in sorted(chosen)]
    images = [
        _on_white(folder / f"emoji-datasource-{artist}" / "img" / artist / "64" / sign["image"])
        for artist in ARTISTS
        for sign in track(kept, description=artist)
    ]
    categories = tuple(sorted({sign["category"] for sign in kept}))
    subcategories = tuple(sorted({sign["subcategory"] for sign in kept}))
    twice = np.tile(np.arange(len(kept)), 2)
    return Pictures(
        images=np.stack(images),
        category=np.array([categories.index(s["category"]) for s in kept])[twice],
        subcategory=np.array([subcategories.index(s["subcategory"]) for s in kept])[twice],
        artist=np.repeat([0, 1], len(kept)),
        sign=twice,
        name=np.array([(s["name"] or s["short_name"]).lower() for s in kept])[twice],
        categories=categories,
        subcategories=subcategories,
        artists=ARTISTS,
    )


def _on_white(path: pathlib.Path) -> np.ndarray:
    picture = Image.open(path).convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    small = Image.alpha_composite(white, picture).convert("RGB").resize((SIZE, SIZE))
    return np.asarray(small, np.float32) / 255


def digits() -> Pictures:
    """Where there are no emoji: digits in black ink, and in white on red, by "two artists"."""
    from sklearn.datasets import load_digits

    held = load_digits()
    ink = np.repeat(np.repeat(held.images[:300] / 16, 4, axis=1), 4, axis=2)[..., None]
    black, red = 1 - ink * np.ones(3), ink + (1 - ink) * np.array([0.8, 0.1, 0.1])
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    value, twice = held.target[:300], np.tile(np.arange(300), 2)
    return Pictures(
        images=np.concatenate([black, red]).astype(np.float32),
        category=(value % 2)[twice],
        subcategory=value[twice],
        artist=np.repeat([0, 1], 300),
        sign=twice,
        name=np.array([words[v] for v in value])[twice],
        categories=("even", "odd"),
        subcategories=tuple(words),
        artists=("black ink", "red paper"),
    )


class CNN(nn.Module):
    """Four convolutions, the mean over positions, and one dense layer.

    Attributes:
      classes: number of categories.
    """

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps pictures, (N, 32, 32, 3), to logits, (N, classes)."""
        for i, features in enumerate((24, 48, 64, 64)):
            x = nn.relu(nn.Conv(features, (3, 3), name=f"conv_{i}")(x))
            if i < 3:
                x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(self.classes, name="head")(x.mean(axis=(1, 2)))


def train(model: CNN, data: Pictures, epochs: int, size: int = 64) -> Any:
    """Trains the network on pictures that are shifted and mirrored at random; returns its variables."""
    variables = model.init(jax.random.key(0), data.images[:1])
    steps = epochs * (len(data) // size)
    optimizer = optax.adamw(optax.cosine_onecycle_schedule(steps, 4e-3), weight_decay=1e-3)

    def loss(variables: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        logits = model.apply(variables, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(variables: Any, state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any]:
        updates, state = optimizer.update(jax.grad(loss)(variables, x, y), state, variables)
        return optax.apply_updates(variables, updates), state

    state, rng = optimizer.init(variables), np.random.default_rng(0)
    for _ in track(range(epochs), description="training"):
        order = rng.permutation(len(data))
        for begin in range(0, len(data) - size + 1, size):
            rows = order[begin : begin + size]
            x = _varied(data.images[rows], rng)
            variables, state = step(variables, state, x, jnp.asarray(data.category[rows]))
    return variables


def _varied(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pictures shifted by up to two pixels, and half of them mirrored."""
    wide = np.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)], mode="edge")
    result = np.empty_like(images)
    for i, (down, right) in enumerate(rng.integers(0, 5, (len(images), 2))):
        moved = wide[i, down : down + SIZE, right : right + SIZE]
        result[i] = moved[:, ::-1] if rng.random() < 0.5 else moved
    return result
