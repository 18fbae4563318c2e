"""Pairs of sentences, pictures and sounds that are alike for a known reason; used by `retrieval.py`."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxlrp as lrp
from jaxlrp import composites, higher_order, inspection
from jaxlrp.pretrained import Pretrained, crepe, efficientnet_lite0, minilm
from jaxlrp.pretrained.crepe import FRAME, SAMPLE_RATE
from jaxlrp.pretrained.efficientnet_lite import SIZE, EfficientNetLite0, normalize
from photographs import two_photograph_composites
from pitch import COMPOSITES, DISTRACTORS, LOUDER, TUNED, near
from text_sentiment import MASK

LRP, GRADIENT = "BiLRP", "gradient x input"

# One sentence, the other, and which words belong together.
SENTENCES = """
a kitten naps on the couch
on the sofa a cat is sleeping
kitten|cat naps|sleeping couch|sofa

the physician examined a child
a kid was seen by the doctor
physician|doctor child|kid examined|seen

he bought a new automobile
a fresh car was purchased by him
bought|purchased new|fresh automobile|car

rain fell on the village
the small town got wet in a shower
rain|shower fell|got village|town

the teacher praised her pupil
a student was applauded by the instructor
teacher|instructor praised|applauded pupil|student

our team won the match
the game ended in victory for our club
team|club won|victory match|game

the ship sailed across the ocean
over the sea a boat traveled
ship|boat sailed|traveled ocean|sea across|over

prices of gasoline rose
fuel became more expensive
prices|expensive gasoline|fuel rose|became

the chef cooked a tasty meal
a delicious dinner was prepared by the cook
chef|cook cooked|prepared tasty|delicious meal|dinner

thieves robbed the bank
burglars stole from a financial institution
thieves|burglars robbed|stole bank|institution

the jet landed at the airport
on the runway an airplane touched down
jet|airplane landed|touched airport|runway

she wrote a letter to her mother
her mom received a note written by her
wrote|written letter|note mother|mom

the forest was destroyed by fire
flames burned the woods down
forest|woods destroyed|burned fire|flames

the king ruled a large country
a vast nation was governed by the monarch
king|monarch ruled|governed large|vast country|nation

scientists discovered a distant planet
a faraway world was found by researchers
scientists|researchers discovered|found distant|faraway planet|world

the puppy chased a rabbit
a hare was followed by the dog
puppy|dog chased|followed rabbit|hare

his house is close to the shop
the store is near his home
house|home close|near shop|store

the movie made us cry
we were in tears during the film
movie|film cry|tears us|we

soldiers guarded the gate
the entrance was protected by troops
soldiers|troops guarded|protected gate|entrance

the company fired many workers
hundreds of employees were dismissed by the firm
company|firm fired|dismissed many|hundreds workers|employees
"""
TOKENS = 16
TILES = 8  # on each side
BANDS = 64


class Sample(NamedTuple):
    """Two inputs that are alike.

    Attributes:
      inputs: both, as `Kind` takes them.
      shown: both, for display.
      features: how many features each has.
      truth: which pairs of features are the reason, (features, features), bool.
    """

    inputs: tuple[Any, Any]
    shown: tuple[Any, Any]
    features: tuple[int, int]
    truth: np.ndarray


class Kind(NamedTuple):
    """Samples of one kind, and the network that embeds them.

    Attributes:
      name: of the kind.
      samples: pairs of inputs.
      factors: by method: from an input to relevance of its features for K directions, (K, features).
      without: from an input and (T, features), zero where a feature is removed, to embeddings, (T, D).
    """

    name: str
    samples: list[Sample]
    factors: dict[str, Callable[[Any], np.ndarray]]
    without: Callable[[Any, np.ndarray], np.ndarray]


def drawn(outputs: int, count: int) -> Array:
    """Random directions that stand for all outputs, (count, outputs)."""
    return jax.random.normal(jax.random.key(0), (count, outputs)) / np.sqrt(count)


def methods_of(
    embed: Callable[..., Array],
    variables: Any,
    composite: lrp.Composite,
    pool: Callable[..., Array],
    directions: Array,
) -> dict[str, Callable[..., Array]]:
    """Both methods, as functions of an input and what else `embed(variables, x, *rest)` takes.

    Variables are arguments of what is compiled: XLA would spend its time on constants.
    """

    @jax.jit
    def ours(variables: Any, x: Array, *rest: Array) -> Array:
        made = higher_order.factors(
            lambda x: embed(variables, x, *rest), composite, pool=functools.partial(pool, x),
            directions=directions, batch_size=16,
        )  # fmt: skip
        return made(x)

    @jax.jit
    def gradient(variables: Any, x: Array, *rest: Array) -> Array:
        _, pull = jax.vjp(lambda x: embed(variables, x, *rest), x)
        return jax.lax.map(lambda d: pool(x, x * pull(d)[0]), directions, batch_size=16)

    return {
        LRP: functools.partial(ours, variables),
        GRADIENT: functools.partial(gradient, variables),
    }


def sentences(count: int, directions: int) -> Kind:
    """Paraphrases; a feature is a word."""
    net = minilm()

    def embed(variables: Any, words: Array, mask: Array) -> Array:
        return net.model.apply(variables, words[None], mask[None], method="encode")[0]

    @jax.jit
    def encode(variables: Any, ids: Array, mask: Array) -> Array:
        return net.model.apply(variables, ids, jnp.broadcast_to(mask, ids.shape))

    by_piece = methods_of(
        embed, net.variables, composites.cp_lrp(), lambda x, r: r.sum(-1), drawn(384, directions)
    )

    def by_word(method: Callable) -> Callable:
        def of(given: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
            ids, mask, belongs = given
            words = net.model.apply(net.variables, ids, method="embed")
            return np.asarray(method(words, mask)) @ belongs.T

        return of

    def without(given: tuple[np.ndarray, np.ndarray, np.ndarray], keep: np.ndarray) -> np.ndarray:
        ids, mask, belongs = given
        gone = (~keep).astype(int) @ belongs > 0
        padded = np.zeros((TOKENS, TOKENS), bool)  # one shape: one compilation
        padded[: len(gone)] = gone
        return np.asarray(encode(net.variables, np.where(padded, MASK, ids), mask))[: len(gone)]

    samples = [_paraphrase(net, *it.split("\n")) for it in SENTENCES.strip().split("\n\n")[:count]]
    return Kind("text", samples, {n: by_word(m) for n, m in by_piece.items()}, without)


def _paraphrase(net: Pretrained, left: str, right: str, together: str) -> Sample:
    words = left.split(), right.split()
    inputs = []
    for sentence in words:
        ids, mask, ((_, *pieces, _),) = net.preprocess([" ".join(sentence)])
        belongs = np.zeros((len(sentence), TOKENS))
        word = -1
        for i, piece in enumerate(pieces):
            word += not piece.startswith("##")
            belongs[word, 1 + i] = 1
        ids, mask = (np.pad(a[0], (0, TOKENS - a.shape[1])) for a in (ids, mask))
        inputs.append((ids, mask, belongs))
    truth = np.zeros((len(words[0]), len(words[1])), bool)
    for pair in together.split():
        one, other = pair.split("|")
        truth[words[0].index(one), words[1].index(other)] = True
    return Sample((inputs[0], inputs[1]), words, truth.shape, truth)


def pictures(count: int, directions: int) -> Kind:
    """Two photographs side by side, of which one is also in the other picture; a feature is a tile."""
    net = efficientnet_lite0()
    model, variables = EfficientNetLite0(1280), headless(net, jnp.eye(1280))
    embed_all = jax.jit(model.apply)

    def embed(variables: Any, x: Array) -> Array:
        return model.apply(variables, x[None])[0]  # pyright: ignore

    def of_tiles(_: Any, relevance: Array) -> Array:
        side = SIZE // TILES
        return relevance.reshape(TILES, side, TILES, side, 3).sum((1, 3, 4)).reshape(-1)

    def without(x: np.ndarray, keep: np.ndarray) -> np.ndarray:
        masks = keep.reshape(-1, TILES, TILES).repeat(SIZE // TILES, 1).repeat(SIZE // TILES, 2)
        gray = x * masks[..., None].astype(np.float32)
        return np.asarray(embed_all(variables, gray))

    predict = jax.jit(net.model.apply)
    known = [
        it
        for it in two_photograph_composites(lambda p: predict(net.variables, normalize(p)[None])[0])
        if it.layout == "beside"
    ]
    columns = np.arange(TILES**2) % TILES < TILES // 2
    sides = columns, ~columns  # tiles of the left photograph, of the right one
    samples = []
    for a, b in itertools.product(known, known):
        if a.names[1] == b.names[0] and a.names[0] != b.names[1]:  # at another place
            inputs = normalize(a.picture), normalize(b.picture)
            truth = np.outer(sides[1], sides[0])
            samples.append(Sample(inputs, (a.picture, b.picture), truth.shape, truth))
    order = np.random.default_rng(0).permutation(len(samples))[:count]
    methods = methods_of(
        embed, variables, composites.default(), of_tiles, drawn(1280, directions)
    )  # fmt: skip
    return Kind("images", [samples[i] for i in order], methods, without)


def headless(net: Pretrained, kernel: Array) -> Any:
    """Variables with another last layer, without a bias: the identity gives the hidden features."""
    head = {"kernel": kernel, "bias": jnp.zeros(kernel.shape[1])}
    return {**net.variables, "params": {**net.variables["params"], "classifier": head}}


def sounds(count: int, directions: int) -> Kind:
    """A tone that two sounds share, each beside another one that is louder; a feature is a band."""
    net = crepe("tiny")
    transform = inspection.DFT()
    hidden, bins = net.variables["params"]["classifier"]["kernel"].shape
    variables = headless(net, jnp.eye(hidden, bins))  # and zeros

    @jax.jit
    def embed_all(variables: Any, x: Array) -> Array:
        return net.model.apply(variables, x)[:, :hidden]  # pyright: ignore

    def of_bands(x: Array, relevance: Array) -> Array:
        """Of frequencies (Vielhaben et al., 2024), summed over bands."""
        gradient = jnp.where(x == 0, 0, relevance / jnp.where(x == 0, 1, x))
        found = (transform.forward(x) * transform.adjoint(gradient)).real
        return found[:-1].reshape(BANDS, -1).sum(-1)

    def without(x: np.ndarray, keep: np.ndarray) -> np.ndarray:
        spectrum = np.fft.rfft(x) * np.append(keep.repeat(FRAME // 2 // BANDS, 1), keep[:, -1:], 1)
        return np.asarray(embed_all(variables, np.fft.irfft(spectrum).astype(np.float32)))

    t = np.arange(FRAME) / SAMPLE_RATE
    samples = []
    for i, f0 in enumerate(np.geomspace(110, 900, count)):
        others = [DISTRACTORS[(i + k) % 3] for k in range(2)]
        waves = [np.sin(2 * np.pi * f0 * t + k) + LOUDER * np.sin(2 * np.pi * other * t)
                 for k, other in enumerate(others)]  # fmt: skip
        left, right = net.preprocess(np.stack(waves))
        there = near(np.array([f0]))[0, :-1].reshape(BANDS, -1).any(-1)
        shown = [f"{f0:.0f} Hz beside {other:.0f} Hz" for other in others]
        truth = np.outer(there, there)
        samples.append(Sample((left, right), (shown[0], shown[1]), truth.shape, truth))
    methods = methods_of(
        lambda variables, x: embed_all(variables, x[None])[0], variables, COMPOSITES[TUNED],
        of_bands, drawn(hidden, directions),
    )  # fmt: skip
    return Kind("sound", samples, methods, without)
