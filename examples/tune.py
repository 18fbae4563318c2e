"""Which rules suit a network? A search on some samples, judged on others.

    python examples/tune.py [--network text sound images canonization] [--data FOLDER] [--output DIR]
        [--quick]

Three networks with real weights: MiniLM and a sentiment classifier on snippets of film reviews, the pitch
tracker CREPE on sums of two tones, EfficientNet-Lite0 on stamps pasted on photographs. For each, families
of composites compete with Zennit's presets and with what this library takes by default. What decides is
FaithfulnessCorrelation: do sets of words, frequencies or patches change the logit as much as their
relevance says? It is computed on the first half of the samples. On the second half, the best of each
family is scored by it again, and by measures that took no part in the choice:

    true mass    share of the relevance in what is known to be relevant: words that people rate as the
                 predicted class (share of the positive relevance), the softer tone, the pasted object
    true rank    share of the most relevant features, as many as there are true ones, that are true
    sparseness   Gini index

canonization explains the same pictures and network by three presets, each with four ways to treat
BatchNorms and residual sums.

The sounds are not those on which the composite of pitch.py was chosen. What `composites.recommended` has
for the architecture competes as well, but many of these samples were among those that chose it. Epsilons
of families are in units of the root mean square of a layer's outputs.

Data and weights as in evaluate_text.py, evaluate_audio.py and evaluate_images.py; a network whose data or
weights are missing is left out, with what to install.

Writes, for each network, the folder of the search, which continues if it was interrupted, the table (.md)
and the best composite as code (.py). Exits with code 1 if what was chosen is less faithful on the other
half than the default, by more than chance (95 %). The run takes about 45 minutes. --quick takes
few samples, two families and two candidates of each, and no images.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from sklearn.linear_model import LogisticRegression

import concepts_images
import evaluate_audio
import evaluate_images
import evaluate_text
import jaxlrp as lrp
from concepts_text import LENGTH, by_batch, snippets
from jaxlrp import composites, metrics, tuning
from jaxlrp.metrics import features, removal
from jaxlrp.pretrained import crepe, efficientnet_lite0, minilm
from pitch import FILTERS
from text_sentiment import MASK, SDIST, compiled, read

NETWORKS = ("text", "sound", "images", "canonization")
SAMPLES = {"text": 160, "sound": 64, "images": 32, "canonization": 32}


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is searched.

    Attributes:
      fun: from (variables, inputs) and the context by name to logits.
      variables: of the network.
      data: for `tuning.search`.
      candidates: families and composites by name.
      faithfulness, true: metrics by name: the one that decides, and those that do not.
      method, at_once, batch_size: of the search.
    """

    fun: Callable[..., Any]
    variables: Any
    data: Mapping[str, np.ndarray]
    candidates: Mapping[str, Any]
    faithfulness: metrics.Metric
    true: Mapping[str, metrics.Metric]
    method: tuning.Grid | tuning.Gradient
    at_once: int
    batch_size: int


def presets(first: composites.Composite | None = None) -> dict[str, composites.Composite]:
    """Those of Zennit that suit any network, below rules of one's own for some layers."""
    named = {
        "epsilon_plus": composites.epsilon_plus(),
        "epsilon_plus_flat": composites.epsilon_plus_flat(),
        "epsilon_alpha2_beta1": composites.epsilon_alpha2_beta1(),
    }
    return named if first is None else {f"filters, {k}": first + v for k, v in named.items()}


def recommended(architecture: str) -> dict[str, composites.Composite]:
    """What is recommended for the architecture: these networks, and many of these samples, chose it."""
    return {"recommended": composites.recommended(architecture)}


def text(path: pathlib.Path, count: int, steps: int, quick: bool) -> Problem:
    """MiniLM: what [MASK] in place of sets of words does to the logit of the predicted class."""
    reviews, net = read(path), minilm()
    order = np.random.default_rng(1).permutation(len(reviews.good))
    train, test = np.split(order, [int(0.6 * len(order))])
    seen = snippets(net, reviews, train[: 200 if quick else None], 128 if quick else len(train))
    some = snippets(net, reviews, test, 3 * count)
    embed = compiled(net, net.model.apply)
    head = LogisticRegression(max_iter=1000).fit(by_batch(embed, seen.ids, seen.mask), seen.good)
    target = head.predict(by_batch(embed, some.ids, some.mask)).astype(int)
    data = evaluate_text.data_of(net, target, some)
    data = {name: values[:count] for name, values in data.items()}
    words = features.Segments(data["segments"], number=LENGTH)
    vector = evaluate_text.embedded(net, np.array(MASK))
    return Problem(
        evaluate_text.classifier(net, head), net.variables, data,
        tuning.transformer() | presets() | recommended("transformer"),
        metrics.FaithfulnessCorrelation(
            features=words, removal=removal.Constant(vector), size=3, runs=10 if quick else 50, draws=1
        ),
        {
            "true mass": metrics.RelevanceMass(channels=-1),
            "true rank": metrics.RelevanceRank(channels=-1),
            "sparseness": metrics.Sparseness(features=words),
        },
        tuning.Gradient(steps), 1, 16,
    )  # fmt: skip


def sound(count: int, steps: int, quick: bool) -> Problem:
    """CREPE: what silence in place of sets of frequencies does to the logit of the predicted pitch."""
    net = crepe("tiny")
    data = evaluate_audio.sounds(net, count + evaluate_audio.SOUNDS)
    data = {name: values[-count:] for name, values in data.items()}

    def filters(gamma: Any, epsilon: Any) -> composites.Composite:
        below = composites.by_depth(1, 4, lrp.Gamma(gamma))
        return FILTERS + below + composites.all_epsilon(tuning.relative(epsilon))

    ranges = {"gamma": tuning.Range(0.01, 10.0), "epsilon": tuning.Range(1e-3, 10.0)}
    return Problem(
        evaluate_audio.of_amplitudes(net), net.variables, data,
        {"filters, gamma, epsilon": tuning.family(filters, **ranges)}
        | tuning.convolutional(depth=7) | presets(FILTERS) | recommended("convolutional"),
        metrics.FaithfulnessCorrelation(
            removal=removal.Constant(0.0), size=128, runs=10 if quick else 50, draws=1
        ),
        {
            "true mass": metrics.RelevanceMass(pool="sum,abs"),
            "true rank": metrics.RelevanceRank(pool="sum,abs"),
            "sparseness": metrics.Sparseness(),
        },
        tuning.Gradient(steps), 1, 16,
    )  # fmt: skip


def images(path: pathlib.Path, count: int, steps: int, quick: bool) -> Problem:
    """EfficientNet-Lite0: what the mean in place of sets of patches does to the logit of the object."""
    net = efficientnet_lite0()
    data = evaluate_images.compose(net, concepts_images.read(path, net.labels, quick), count)
    order = np.random.default_rng(1).permutation(len(data["id"]))
    data = {name: values[order] for name, values in data.items()}
    patches = features.Blocks((0, 1), size=16)
    low, high = net.input_range
    return Problem(
        net.model.apply, net.variables, data,
        tuning.convolutional(low, high, depth=50) | recommended("convolutional"),
        metrics.FaithfulnessCorrelation(
            features=patches, removal=removal.Mean((0, 1)), size=49, runs=50, draws=1, batch_size=8
        ),
        {
            "true mass": metrics.RelevanceMass(channels=-1),
            "true rank": metrics.RelevanceRank(channels=-1),
            "sparseness": metrics.Sparseness(features=features.Blocks((0, 1))),
        },
        tuning.Grid(3 if steps > 2 else 1), 9, 8,
    )  # fmt: skip


def canonization(path: pathlib.Path, count: int, steps: int, quick: bool) -> Problem:
    """The same by three presets, with BatchNorms folded or not, and sums shared as given or by size."""
    problem = images(path, count, steps, quick)
    plan = lrp.plan(problem.fun, None, problem.variables, problem.data["input"][:1], argnums=1)
    given = {k: problem.candidates[k] for k in ("default", "epsilon_plus", "epsilon_gamma_box")}
    crossed = tuning.canonized(given, plan, sums=("given", "magnitude"))
    return dataclasses.replace(problem, candidates=crossed)


def searched(name: str, problem: Problem, output: pathlib.Path, quick: bool) -> tuning.Search:
    """The result of the search for one network, printed and written."""
    candidates = dict(problem.candidates)
    if quick:
        families = [k for k, v in candidates.items() if isinstance(v, tuning.Family)]
        candidates = {k: candidates[k] for k in (families[0], "default")}
    found = tuning.search(
        problem.fun, candidates, {"faithfulness": problem.faithfulness, **problem.true},
        problem.data, args=(problem.variables,), method=problem.method, key=jax.random.key(2),
        output=None if quick else output / f"tune_{name}",
        batch_size=problem.batch_size, at_once=problem.at_once,
    )  # fmt: skip
    print(f"\n## {name}\n\n{found}\n", flush=True)
    (output / f"tune_{name}.md").write_text(f"{found}\n", encoding="utf-8")
    found.save(output / f"tune_{name}.py")
    return found


def is_worse(found: tuning.Search) -> bool:
    """Whether the best one is less faithful on the other half than the default, by more than chance."""
    best, default = (
        one.held_out["faithfulness"]
        for one in (found.best, found.best_of_family("default"))
        if one is not None and one.held_out is not None
    )
    gap = (best - default)[np.isfinite(best - default)]
    return bool(gap.mean() < -1.96 * gap.std(ddof=1) / np.sqrt(len(gap)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(f"{SDIST}.tar.gz"))
    parser.add_argument("--stamps", type=pathlib.Path, default=concepts_images.STAMPS)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument(
        "--quick", action="store_true", help="few samples and candidates, no images"
    )
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    quick = arguments.quick
    steps = 2 if quick else 10
    counts = {name: 8 if quick else count for name, count in SAMPLES.items()}
    problems: dict[str, Callable[[], Problem]] = {
        "text": lambda: text(arguments.data, counts["text"], steps, quick),
        "sound": lambda: sound(counts["sound"], steps, quick),
        "images": lambda: images(arguments.stamps, counts["images"], steps, quick),
        "canonization": lambda: canonization(
            arguments.stamps, counts["canonization"], steps, quick
        ),
    }
    worse = []
    for name in arguments.network:
        if quick and name in ("images", "canonization"):
            continue
        try:
            problem = problems[name]()
        except (ImportError, SystemExit) as error:
            print(f"{name} is left out: {error}")
            continue
        if is_worse(searched(name, problem, arguments.output, quick)):
            worse.append(name)
    for name in worse:
        print(
            f"FAILED: what was chosen for {name} is less faithful on the other half than the default"
        )
    return 1 if worse else 0


if __name__ == "__main__":
    raise SystemExit(main())
