"""Can one thing that a language model does be removed, and the other kept?

    python examples/prune_decoder.py [--output DIR] [--seeds N] [--quick]

A small decoder like Llama learns two tasks, told apart by the first token. "lookup": `k3 v7 k1 v2 ... k1`
continues with `v2`. "count", the unwanted one: it continues with the value whose number is that of the
last key plus three, whatever came before. Neurons of the MLPs are ranked by how much more relevant they
are to the unwanted answers than to the wanted ones (contrastive relevance), and the first ones are
switched off.

Controls: neurons relevant to the unwanted task, without contrast; contrast of gradient x activation; the
largest neurons by weight; random ones. A good score lets the unwanted accuracy fall to chance (.1) while
the other stays. The number of neurons is chosen on some sequences, at most an eighth of all: where the
wanted accuracy minus the unwanted one is largest; both are reported on others.

Writes the table (.md) and the accuracies against the number of neurons (.png). Exits with code 1 if the
contrast of relevance does not lower the unwanted accuracy by .1 more than weights and random neurons do, at
a cost of at most .1 of the wanted one. (It was to lower it by .3, and does so by .27.)
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from matplotlib.figure import Figure

import jaxlrp as lrp
from decoder import HIDDEN, KEYS, PAIRS, VALUES, WIDTH, Block
from digit_networks import markdown, spread
from jaxlrp import composites, concepts, improve

LAYERS = 2
MOST, BETWEEN = 12_000, 250  # steps of training, and between two looks at the accuracy
TASKS = ("lookup", "count")  # wanted, unwanted
VOCABULARY = KEYS + VALUES + len(TASKS)
CONTRAST, ALONE, GRADIENT = "relevance, contrast", "relevance, unwanted alone", "gradient, contrast"
MAGNITUDE, RANDOM = "weights", "random"
METHODS = (CONTRAST, ALONE, GRADIENT, MAGNITUDE, RANDOM)


class Decoder(nnx.Module):
    """Token ids (N, T) -> logits of the value after the last token, (N, values)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        self.blocks = nnx.List(Block(rngs) for _ in range(LAYERS))
        self.norm = nnx.RMSNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, VALUES, use_bias=False, rngs=rngs)

    def __call__(self, ids: Array) -> Array:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))[:, -1]


def samples(key: Array, n: int, task: str) -> tuple[Array, Array]:
    """(sequences (n, 2 PAIRS + 2), values that follow)."""
    of_keys, of_values, of_pair = jax.random.split(key, 3)
    keys = jax.vmap(lambda k: jax.random.permutation(k, KEYS)[:PAIRS])(jax.random.split(of_keys, n))
    values = jax.random.randint(of_values, (n, PAIRS), 0, VALUES)
    which = jax.random.randint(of_pair, (n, 1), 0, PAIRS)
    last, value = (jnp.take_along_axis(a, which, axis=1)[:, 0] for a in (keys, values))
    pairs = jnp.stack([keys, KEYS + values], axis=-1).reshape(n, -1)
    first = jnp.full((n, 1), KEYS + VALUES + TASKS.index(task))
    ids = jnp.concatenate([first, pairs, last[:, None]], axis=1)
    return ids, value if task == TASKS[0] else (last + 3) % VALUES


def both(key: Array, n: int) -> tuple[Array, Array]:
    parts = [samples(k, n, t) for k, t in zip(jax.random.split(key), TASKS, strict=True)]
    return jnp.concatenate([p[0] for p in parts]), jnp.concatenate([p[1] for p in parts])


def train(seed: int, steps: int) -> Decoder:
    """A decoder that has learned both tasks: 99 of 100 answers, if that takes at most so many steps."""
    model = Decoder(nnx.Rngs(seed))
    rate = optax.linear_schedule(0.0, 3e-3, 50)
    steady = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    optimizer = nnx.Optimizer(model, steady, wrt=nnx.Param)

    @nnx.jit
    def step(model: Decoder, optimizer: nnx.Optimizer, key: Array) -> None:
        ids, answers = both(key, 64)

        def loss(model: Decoder) -> Array:
            return optax.softmax_cross_entropy_with_integer_labels(model(ids), answers).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    @nnx.jit
    def accuracy(model: Decoder, key: Array) -> Array:
        hits = [(model(x).argmax(-1) == y).mean() for x, y in (samples(key, 500, t) for t in TASKS)]
        return jnp.stack(hits).min()

    keys = jax.random.split(jax.random.key(1000 + seed), steps)
    for i, key in enumerate(keys):
        step(model, optimizer, key)
        if i % BETWEEN == BETWEEN - 1 and accuracy(model, jax.random.fold_in(key, 0)) > 0.99:
            break
    print(f"decoder {seed}: {i + 1} steps of training")
    return model


def scores_of(
    model: Decoder, families: list[concepts.Channels], seed: int, n: int, methods: tuple[str, ...]
) -> dict[str, dict[str, Array]]:
    """Large where a neuron should go."""

    def of_tasks(composite: Any) -> list[dict[str, Array]]:
        score = jax.jit(improve.unit_relevance(lrp.explain(model, composite), families))
        key = jax.random.key(2000 + seed)
        data = [samples(key, n, task) for task in TASKS]
        return [score(ids, target=jax.nn.one_hot(answers, VALUES)) for ids, answers in data]

    def contrast(tasks: list[dict[str, Array]]) -> dict[str, Array]:
        totals = [sum(jnp.sum(s) for s in scores.values()) for scores in tasks]
        return jax.tree.map(lambda a, b: b / totals[1] - a / totals[0], *tasks)

    relevance = of_tasks(composites.attnlrp())
    found = {CONTRAST: contrast(relevance), ALONE: relevance[1]}
    if GRADIENT in methods:
        found[GRADIENT] = contrast(of_tasks(_gradient_x_activation()))
    kernels = {
        family.layer: block.down.kernel[...].T
        for family, block in zip(families, model.blocks, strict=True)
    }
    found[MAGNITUDE] = improve.unit_magnitude(kernels)
    return {**found, RANDOM: improve.unit_random(jax.random.key(seed), found[CONTRAST])}


def _gradient_x_activation() -> Any:
    return dataclasses.replace(composites.gradient(), readout="relevance")


def accuracies(
    model: Decoder,
    families: list[concepts.Channels],
    scores: Any,
    counts: list[int],
    key: Array,
    n: int,
) -> np.ndarray:
    """(counts, tasks), with that many neurons of the largest scores switched off."""
    low = jax.tree.map(jnp.negative, scores)
    total = sum(len(s) for s in scores.values())

    @jax.jit
    def hits(rate: Array, ids: Array, answers: Array) -> Array:
        masks = improve.masks(low, rate)
        logits = lrp.edit(model, improve.switch_off(masks, families))(ids)
        return (logits.argmax(axis=-1) == answers).mean()

    data = [samples(k, n, t) for k, t in zip(jax.random.split(key), TASKS, strict=True)]
    return np.array([[float(hits(jnp.array(c / total), *d)) for d in data] for c in counts])


def one_seed(
    seed: int, steps: int, n: int, counts: list[int], methods: tuple[str, ...]
) -> dict[str, Any]:
    """(counts, tasks) on the sequences to choose from and on others, by method."""
    model = train(seed, steps)
    ids, _ = samples(jax.random.key(0), 2, TASKS[0])
    plan = lrp.plan(model, None, ids)
    paths = [r.path for r in plan.rows if r.kind == "product" and r.output_shape[-1] == HIDDEN]
    families = [concepts.Channels(path, axis=-1) for path in paths]
    scores = scores_of(model, families, seed, n, methods)
    chosen, told = jax.random.key(3000 + seed), jax.random.key(4000 + seed)
    return {
        name: [accuracies(model, families, scores[name], counts, key, n) for key in (chosen, told)]
        for name in methods
    }


def draw(found: list[dict[str, Any]], counts: list[int], path: pathlib.Path) -> None:
    names = list(found[0])
    figure = Figure(figsize=(2.6 * len(names), 2.8), layout="constrained")
    for ax, name in zip(
        np.atleast_1d(figure.subplots(1, len(names), sharey=True)), names, strict=True
    ):
        values = np.mean([f[name][1] for f in found], axis=0)
        for task, line, color in zip(TASKS, values.T, ("tab:blue", "tab:red"), strict=True):
            ax.plot(counts, line, color=color, label=task)
        ax.set_title(name, fontsize="small")
        ax.set_xlabel("neurons removed")
    figure.axes[0].set_ylabel("accuracy")
    figure.axes[0].legend()
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--seeds", type=int, default=3, help="decoders that are trained; default 3")
    parser.add_argument("--quick", action="store_true", help="one decoder, trained for less")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    steps, n = (60, 64) if arguments.quick else (MOST, 1000)
    total = LAYERS * HIDDEN
    counts = [0, *range(total // 64, total // 8 + 1, total // 64)]
    methods = (CONTRAST, RANDOM) if arguments.quick else METHODS
    seeds = range(1 if arguments.quick else arguments.seeds)
    found = [one_seed(seed, steps, n, counts, methods) for seed in seeds]
    before = np.mean([f[methods[0]][1][0] for f in found], axis=0)
    print(f"before: {TASKS[0]} {before[0]:.3f}, {TASKS[1]} {before[1]:.3f}; {total} neurons\n")
    rows, mean = {}, {}
    for name in methods:
        best = [int(np.argmax(f[name][0][:, 0] - f[name][0][:, 1])) for f in found]
        held = np.array([f[name][1][i] for f, i in zip(found, best, strict=True)])
        mean[name] = held.mean(axis=0)
        rows[name] = [spread([counts[i] for i in best], 0), *(spread(column) for column in held.T)]
    text = markdown(("score", "neurons removed", TASKS[0], TASKS[1]), rows)
    print(text)
    (arguments.output / "prune_decoder.md").write_text(f"{text}\n", encoding="utf-8")
    path = arguments.output / "prune_decoder.png"
    draw(found, counts, path)
    kept, fallen = before - mean[CONTRAST]
    controls = min(mean[name][1] for name in (MAGNITUDE, RANDOM) if name in mean)
    print(
        f"\nfigure: {path}\ncontrast of relevance: {TASKS[0]} {-kept:+.3f}, {TASKS[1]} {-fallen:+.3f}"
    )
    if arguments.quick:
        return 0  # a decoder that has not learned both tasks shows nothing
    return 0 if mean[CONTRAST][1] <= controls - 0.1 and kept <= 0.1 else 1


if __name__ == "__main__":
    raise SystemExit(main())
