"""From which token did a language model read its answer? The answer is known, so explanations can be
scored.

    python examples/decoder.py [--output DIR] [--quick]

A small decoder like Llama (RMSNorm, rotary positions, grouped queries, gated MLP) learns a lookup
task: `k3 v7 k1 v2 k5 v9 ... k1` continues with `v2`. The answer is at only one position, the
value after the earlier `k1`. The relevance of the answer's logit should be highest there, followed
by the two equal keys that identify the position. Everything else is irrelevant.

Exits with code 1 if the model is not accurate or the relevance is elsewhere.
"""

from __future__ import annotations

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import jaxlrp as lrp
from jaxlrp import baselines, composites, plot

KEYS = VALUES = 10  # token ids: keys first, then values
PAIRS = 4
LENGTH = 2 * PAIRS + 1
WIDTH, HEADS, KEY_HEADS, HIDDEN, LAYERS = 64, 4, 2, 128, 2
SIZE = WIDTH // HEADS

METHODS = {
    "AttnLRP": composites.attnlrp(),
    "CP-LRP": composites.cp_lrp(),
    "default": composites.default(),
}
OURS = "AttnLRP"


def rotate(x: Array) -> Array:
    """Rotary positions, of (batch, time, heads, size)."""
    angle = jnp.arange(x.shape[1])[:, None] / 100 ** (jnp.arange(SIZE // 2) / (SIZE // 2))
    cos, sin = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        def linear(n: int, m: int) -> nnx.Linear:
            return nnx.Linear(n, m, use_bias=False, rngs=rngs)

        self.norm1, self.norm2 = nnx.RMSNorm(WIDTH, rngs=rngs), nnx.RMSNorm(WIDTH, rngs=rngs)
        self.q, self.o = linear(WIDTH, WIDTH), linear(WIDTH, WIDTH)
        self.k, self.v = linear(WIDTH, KEY_HEADS * SIZE), linear(WIDTH, KEY_HEADS * SIZE)
        self.gate, self.up = linear(WIDTH, HIDDEN), linear(WIDTH, HIDDEN)
        self.down = linear(HIDDEN, WIDTH)

    def __call__(self, x: Array) -> Array:
        h = self.norm1(x)
        q, k, v = (a.reshape(*a.shape[:2], -1, SIZE) for a in (self.q(h), self.k(h), self.v(h)))
        h = jax.nn.dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
        x = x + self.o(h.reshape(x.shape))
        h = self.norm2(x)
        return x + self.down(nnx.silu(self.gate(h)) * self.up(h))


class Decoder(nnx.Module):
    """Token ids (N, T) -> logits of the value after each token, (N, T, values)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(KEYS + VALUES, WIDTH, rngs=rngs)
        self.blocks = nnx.List(Block(rngs) for _ in range(LAYERS))
        self.norm = nnx.RMSNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, VALUES, use_bias=False, rngs=rngs)

    def __call__(self, ids: Array) -> Array:
        return self.decode(self.embed(ids))

    def decode(self, x: Array) -> Array:
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Last(nnx.Module):
    """The logits after the last token, (N, values)."""

    def __init__(self, model: Decoder) -> None:
        self.model = model

    def __call__(self, ids: Array) -> Array:
        return self.model(ids)[:, -1]


def samples(key: Array, n: int) -> tuple[Array, Array, Array]:
    """(sequences of pairs, then each key again with its value, (n, 4 PAIRS); values; first positions)."""
    of_keys, of_values, of_order = jax.random.split(key, 3)
    keys = jax.vmap(lambda k: jax.random.permutation(k, KEYS)[:PAIRS])(jax.random.split(of_keys, n))
    values = jax.random.randint(of_values, (n, PAIRS), 0, VALUES)
    order = jax.random.permutation(
        of_order, jnp.tile(jnp.arange(PAIRS), (n, 1)), 1, independent=True
    )
    again = [jnp.take_along_axis(a, order, axis=1) for a in (keys, values)]
    pairs = [jnp.stack([k, KEYS + v], axis=-1).reshape(n, -1) for k, v in ((keys, values), again)]
    return jnp.concatenate(pairs, axis=1), again[1], 2 * order + 1


def train(steps: int) -> Decoder:
    model = Decoder(nnx.Rngs(0))
    rate = optax.warmup_cosine_decay_schedule(0.0, 6e-3, 100, steps)
    steady = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    optimizer = nnx.Optimizer(model, steady, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, key):
        ids, answers, _ = samples(key, 128)

        def loss(model):
            logits = model(ids)[:, 2 * PAIRS :: 2]  # after each repeated key
            return optax.softmax_cross_entropy_with_integer_labels(logits, answers).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    for key in jax.random.split(jax.random.key(1), steps):
        step(model, optimizer, key)
    return model


def relevances(model: Decoder, ids: Array, answers: Array) -> dict[str, np.ndarray]:
    """Relevance of each token by method, (N, T)."""
    found = {}
    for name, composite in METHODS.items():
        explain = jax.jit(lrp.explain(Last(model), composite))
        found[name] = np.asarray(explain(ids, target=answers).relevance)
    embedded = model.embed(ids)
    explain = jax.jit(baselines.input_x_gradient(lambda x: model.decode(x)[:, -1]))
    found["input x gradient"] = np.asarray(explain(embedded, target=answers).relevance).sum(-1)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="train for fewer steps")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    console = Console()

    model = train(800 if arguments.quick else 2000)
    ids, answers, places = samples(jax.random.key(2), 500)
    ids, answers, place = ids[:, :LENGTH], answers[:, 0], np.asarray(places[:, 0])
    accuracy = float((model(ids)[:, -1].argmax(-1) == answers).mean())
    console.print(f"accuracy on {len(ids)} sequences: {accuracy:.3f} (chance {1 / VALUES:.3f})")

    rows = np.arange(len(ids))
    table = Table(title="Where is the relevance of the answer's logit?")
    for column in ("method", "answer is first", "mean rank", "share", "with both keys"):
        table.add_column(column, justify="left" if column == "method" else "right")
    firsts, found = {}, relevances(model, ids, answers)
    for name, relevance in found.items():
        rank = (relevance > relevance[rows, place][:, None]).sum(axis=1) + 1
        positive = np.maximum(relevance, 0)
        total = np.maximum(positive.sum(axis=1), 1e-30)  # nothing positive: no share
        share = positive[rows, place] / total
        needed = sum(positive[rows, at] for at in (place, place - 1, LENGTH - 1))
        firsts[name] = (rank == 1).mean()
        table.add_row(
            name, f"{firsts[name]:.3f}", f"{rank.mean():.2f}", f"{share.mean():.3f}",
            f"{(needed / total).mean():.3f}",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"by chance: first in {1 / LENGTH:.3f}, share {1 / LENGTH:.3f}, with keys {3 / LENGTH:.3f}"
    )

    some = slice(0, 6)
    words = [
        [f"k{i}" if i < KEYS else f"v{i - KEYS}" for i in np.asarray(row)] for row in ids[some]
    ]
    labels = [f"-> v{answer}:" for answer in np.asarray(answers[some])]
    colored = plot.text(words, found[OURS][some], labels=labels)
    console.file.write(f"{colored}\n")
    colored.save(arguments.output / "decoder.html")
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for ax, name in zip(figure.subplots(1, 2), (OURS, "input x gradient"), strict=True):
        plot.panel(
            found[name][some], column_labels=[str(t) for t in range(LENGTH)], row_labels=labels,
            ax=ax, title=name, xlabel="position", normalize_rows=True,
        )  # fmt: skip
        ax.scatter(place[some], np.arange(6), s=90, facecolors="none", edgecolors="black")
    path = arguments.output / "decoder.png"
    figure.savefig(path, dpi=110)
    console.print(f"figure: {path} (circles: position of the answer), text: decoder.html")
    if accuracy < 0.95 or firsts[OURS] < 0.9:
        console.print("FAILED: accuracy must be at least .95, and the answer most relevant in 90%")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
