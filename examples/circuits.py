"""Which parts of a language model carry an answer? Relevance patching against patching itself.

    python examples/circuits.py [--output DIR] [--seeds N] [--quick]

A small decoder like Llama learns sentences with an indirect object: "when Ann and Bob went to the shop ,
Ann gave a book to" continues with "Bob", the name that does not come twice. In the corrupted sentence Bob
gives the book, so the answer is "Ann". Activation patching puts one hidden value of the clean sentence
into the corrupted run and measures how far the difference of the two names' logits moves: one forward pass
for each value. Relevance patching (RelP, Jafari et al., 2025, https://doi.org/10.48550/arXiv.2508.21258)
estimates all of them in two forward passes and one backward pass, attribution patching does the same with
the plain gradient. The example prints Pearson's correlation of the estimates with the truth.

Then neurons of the MLPs are ranked, the best are kept and all others replaced by their mean: how much of
the difference of the logits remains? The best neurons of the first network are drawn as a graph: which of
them use which.

Exits with code 1 if relevance patching is not closer to the truth than attribution patching in the residual
stream and in the MLPs.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
from flax import nnx
from jax import Array
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import jaxlrp as lrp
from decoder import WIDTH, Block
from jaxlrp import composites, concepts
from jaxlrp.concepts import figures

LAYERS, NAMES, PLACES, THINGS = 3, 16, 6, 6
WORDS = ["[BOS]", "when", "and", "went", "to", "the", ",", "gave", "a"]
NAME0, PLACE0 = len(WORDS), len(WORDS) + NAMES
THING0 = PLACE0 + PLACES
VOCABULARY = THING0 + THINGS
LENGTH = 15  # of a sentence
PAIRS = 64

METHODS = {
    "relevance patching": composites.relp(),
    "attention held fixed": composites.cp_lrp(),
    "softmax at temperature 2": composites.gim(),
    "attribution patching": composites.gradient(),
}
OURS, PLAIN = "relevance patching", "attribution patching"


class Decoder(nnx.Module):
    """Token ids (N, T) -> logits of the next token after the last, (N, vocabulary)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        self.blocks = nnx.List(Block(rngs) for _ in range(LAYERS))
        self.norm = nnx.RMSNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, VOCABULARY, use_bias=False, rngs=rngs)

    def __call__(self, ids: Array) -> Array:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))[:, -1]


def sentences(key: Array, n: int) -> tuple[Array, Array, Array]:
    """Clean ids and corrupted ids, (n, 15) each; the names, (n, 2), the answer of the clean one first."""
    of_names, of_order, of_rest = jax.random.split(key, 3)
    names = jax.vmap(lambda k: jax.random.permutation(k, NAMES)[:2])(jax.random.split(of_names, n))
    names = NAME0 + names
    indirect, subject = names.T
    swapped = jax.random.bernoulli(of_order, shape=(n,))
    first, second = (
        jnp.where(swapped, indirect, subject),
        jnp.where(swapped, subject, indirect),
    )
    rest = jax.random.randint(of_rest, (2, n), 0, PLACES)

    def written(giver: Array) -> Array:
        word = {w: jnp.full(n, i) for i, w in enumerate(WORDS)}
        parts = [
            word["[BOS]"], word["when"], first, word["and"], second, word["went"], word["to"], word["the"],
            PLACE0 + rest[0], word[","], giver, word["gave"], word["a"], THING0 + rest[1], word["to"],
        ]  # fmt: skip
        return jnp.stack(parts, axis=1)

    return written(subject), written(indirect), names


def train(seed: int, steps: int, batch: int) -> Decoder:
    model = Decoder(nnx.Rngs(seed))
    rate = optax.warmup_cosine_decay_schedule(0.0, 3e-3, 100, steps)
    optimizer = nnx.Optimizer(
        model, optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)), wrt=nnx.Param
    )

    @nnx.jit
    def step(model: Decoder, optimizer: nnx.Optimizer, key: Array) -> None:
        ids, _, names = sentences(key, batch)

        def loss(model: Decoder) -> Array:
            logits = model(ids)
            return optax.softmax_cross_entropy_with_integer_labels(logits, names[:, 0]).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    for key in jax.random.split(jax.random.key(1000 + seed), steps):
        step(model, optimizer, key)
    return model


PARTS = {"residual stream": "add:3", "attention": "o", "MLP": "down"}  # after the MLP was added


def tokens(part: str) -> list[concepts.Channels]:
    """What is patched: each token of a part of each block."""
    return [concepts.Channels(f"blocks/{i}/{PARTS[part]}", axis=1) for i in range(LAYERS)]


def correlations(
    model: Decoder, clean: Array, corrupted: Array, names: Array, methods: list[str]
) -> dict[tuple[str, str], float]:
    """Pearson's correlation of estimated with exact effects, by (method, component)."""
    target = lrp.targets.Contrast(names[:, 0], names[:, 1])
    families = {f"{part} {i}": each for part in PARTS for i, each in enumerate(tokens(part))}
    exact = concepts.exact_patching(lrp.explain(model, "relp"), families)
    truth = by_part(exact(corrupted, clean=clean, target=target))
    found = {}
    for method in methods:
        estimate = concepts.relevance_patching(lrp.explain(model, METHODS[method]), families)
        effects = by_part(estimate(corrupted, clean=clean, target=target))
        for part in PARTS:
            found[method, part] = float(np.corrcoef(effects[part], truth[part])[0, 1])
    return found


def by_part(effects: dict[str, Array]) -> dict[str, np.ndarray]:
    """The effects of all blocks, flat, by part."""
    return {
        part: np.concatenate([np.ravel(v) for name, v in effects.items() if name[:-2] == part])
        for part in PARTS
    }


NEURONS = [concepts.Channels(f"blocks/{i}/mul", axis=-1) for i in range(LAYERS)]
SIZES = [0, 2, 5, 10, 20, 40, 80, 160, 320, 384]
RELEVANCE, GRADIENT = "relevance", "gradient x activation"


def curves(
    model: Decoder, ranked: tuple[Array, Array], tested: tuple[Array, Array], seed: int
) -> tuple[dict[str, concepts.CircuitCurve], dict[str, Array]]:
    """Circuits of MLP neurons by size, for each way of ranking; and the ranking by relevance.

    Neurons are ranked, and their means taken, on other sentences than those that the circuit is tested on.
    """

    def scores(composite: lrp.Composite, what: str) -> dict[str, Array]:
        ids, names = ranked
        target = lrp.targets.Contrast(names[:, 0], names[:, 1])
        found = concepts.scores(lrp.explain(model, composite), NEURONS)(ids, target=target)
        return {layer: getattr(each, what).mean(axis=0) for layer, each in found.items()}

    plain = dataclasses.replace(composites.gradient(), readout="relevance")
    ranking = {
        RELEVANCE: scores(composites.relp(), "relevance"),
        GRADIENT: scores(plain, "relevance"),
        "activation": scores(plain, "activation"),
    }
    keys = jax.random.split(jax.random.key(seed), LAYERS)
    some = ranking[RELEVANCE].items()
    ranking["random"] = {
        k: jax.random.normal(key, v.shape) for key, (k, v) in zip(keys, some, strict=True)
    }
    curve = concepts.circuit_curve(lrp.explain(model, "relp"), NEURONS)
    ids, names = tested
    target = lrp.targets.Contrast(names[:, 0], names[:, 1])
    found = {
        name: curve(ids, scores=each, sizes=SIZES, reference=ranked[0], target=target)
        for name, each in ranking.items()
    }
    return found, ranking[RELEVANCE]


def neuron_graph(
    model: Decoder, scores: dict[str, Array], ids: Array, names: Array, size: int = 20
) -> nx.DiGraph:
    """The neurons with the highest scores, and which of them use which."""
    grow = concepts.circuit_graph(lrp.explain(model, "relp"), NEURONS, batch_size=4)
    target = lrp.targets.Contrast(names[:, 0], names[:, 1])
    return grow(ids, scores=scores, size=size, target=target)


def passes(model: Decoder, ids: Array) -> float:
    """FLOPs of relevance patching of all parts, in forward passes of the model."""

    def flops(fun: Callable[..., object], *args: Array) -> float:
        cost = jax.jit(fun).lower(*args).compile().cost_analysis()
        assert cost is not None
        return cost["flops"]

    families = [family for part in PARTS for family in tokens(part)]
    patching = concepts.relevance_patching(lrp.explain(model, "relp"), families)
    target = jnp.full(len(ids), NAME0)
    whole = flops(lambda x, clean: patching(x, clean=clean, target=target), ids, ids)
    return whole / flops(lambda x: model(x), ids)


def draw(found: list[dict[str, concepts.CircuitCurve]], path: pathlib.Path) -> None:
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    ax = figure.subplots()
    for name in found[0]:
        lines = np.stack([curve[name].faithfulness for curve in found])
        ax.plot(SIZES, lines.mean(axis=0), marker="o", markersize=3, label=name)
        ax.fill_between(SIZES, lines.min(axis=0), lines.max(axis=0), alpha=0.15)
    ax.set_xscale("symlog", linthresh=2)
    ticks = [n for n in SIZES if n != 320]  # its label would touch the last one
    ax.set_xticks(ticks, [str(n) for n in ticks], minor=False)
    ax.minorticks_off()
    ax.set(xlabel="MLP neurons kept, of 384", ylabel="faithfulness", ylim=(-0.1, 1.1))
    ax.legend()
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--seeds", type=int, default=3, help="networks that are trained; default 3")
    parser.add_argument("--quick", action="store_true", help="one network, trained for fewer steps")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    console = Console(width=100)
    seeds = 1 if arguments.quick else arguments.seeds
    methods = [OURS, PLAIN] if arguments.quick else list(METHODS)

    found, lines, cost = [], [], 0.0
    for seed in range(seeds):
        model = train(seed, *((300, 64) if arguments.quick else (1000, 128)))
        clean, corrupted, names = sentences(jax.random.key(500 + seed), PAIRS)
        others, _, of_others = sentences(jax.random.key(900 + seed), 256)
        accuracy = float((model(others).argmax(-1) == of_others[:, 0]).mean())
        console.print(f"network {seed}: accuracy on {len(others)} sentences {accuracy:.3f}")
        found.append(correlations(model, clean, corrupted, names, methods))
        cost = passes(model, corrupted)
        each, scores = curves(model, (others, of_others), (clean, names), seed)
        lines.append(each)
        if seed == 0:
            graph = neuron_graph(model, scores, others[:16], of_others[:16])
            path = arguments.output / "circuit_graph.png"
            title = "MLP neurons of a decoder"
            figures.circuit(graph, each, min_weight=0.02, title=title).savefig(path, dpi=110)
            console.print(
                f"figure: {path}, {graph.number_of_edges()} edges of {len(graph)} neurons"
            )

    table = Table(title=f"Pearson's correlation with exact patching, {PAIRS} pairs of sentences")
    for column in ("method", *PARTS):
        table.add_column(column)
    for method in methods:
        cells = ([f"{each[method, part]:.3f}" for each in found] for part in PARTS)
        table.add_row(method, *map(" ".join, cells))
    console.print(table)
    exact = 3 * LAYERS * LENGTH
    console.print(f"relevance patching costs {cost:.1f} forward passes, exact patching {exact + 2}")

    table = Table(title="Faithfulness of circuits of MLP neurons, the others at their mean")
    for column in ("ranked by", *map(str, SIZES)):
        table.add_column(column)
    for name in lines[0]:
        mean = np.mean([line[name].faithfulness for line in lines], axis=0)
        table.add_row(name, *(f"{value:.2f}" for value in mean))
    console.print(table)
    path = arguments.output / "circuits.png"
    draw(lines, path)
    console.print(f"figure: {path} (mean over networks; shaded: smallest and largest)")
    wins = [
        each[OURS, part] > each[PLAIN, part]
        for each in found
        for part in ("residual stream", "MLP")
    ]
    return 0 if all(wins) else 1


if __name__ == "__main__":
    raise SystemExit(main())
