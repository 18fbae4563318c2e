"""Which composites are good on networks that did not choose them? An epsilon that needs no tuning.

    python examples/defaults.py [--stamps DIR] [--speech DIR] [--reviews FILE] [--output DIR] [--quick]

Six networks with real weights and six small ones, in four families of architectures:

    convolutional    EfficientNet-Lite0, CREPE; networks of the benchmarks scenes, artefacts and events
    transformer      MiniLM; a small ViT
    recurrent        Silero VAD (LSTM), g2p (two GRUs); the LSTM of the benchmark arithmetic
    dense            ADMET-AI (a graph network); the perceptron of the benchmark multiplexer

and three measures of each explanation:

    correlation   does removing sets of features change the output as much as their relevance says?
    flipping      area between the curves of removing the least and the most relevant features first
    truth         share of the relevance where the answer is known to be

Candidates of a family: an epsilon in units of the root mean square of a layer's outputs, of each sample or
of each position; gammas; both; the presets with their own constants. None knows more of a network than its
architecture.

The criterion was fixed before the run. On the first half of the samples, each candidate has a rank among
those of its family, for each network and measure, by its mean. The mean rank over networks and measures
chooses. To judge this way of choosing, each network in turn is left out, a candidate is chosen on the
others, and is compared with the presets on the other half of the samples of the one left out. What is
chosen on all networks is the default that the documentation recommends.

Data and weights as in pitch.py, speech.py, recurrent.py, molecules.py, text_sentiment.py and
evaluate_images.py; a network whose data or weights are missing is left out. Writes defaults.md, and for
each network its scores (.json; delete the file to compute them again) and the folder of its search, which
continues if it was interrupted. The run takes more than an hour on two cores. --quick takes one network,
few samples and few candidates. Exits with code 1 if the chosen ones are worse than the composite that is
used if none is given, on most pairs of network and measure; so few samples as in quick mode do not tell.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import concepts_images
import speech
from defaults_networks import CONVOLUTIONAL, DENSE, RECURRENT, TRANSFORMER, Problem, problems
from defaults_table import Scores, report
from jaxlrp import composites, rules, tuning
from jaxlrp.composites import by_kind
from text_sentiment import SDIST

POINTS = 6
EPSILON = tuning.Range(0.01, 10**0.5)  # .01, .03, .1, .3, 1, 3, in units of the root mean square
GAMMA = tuning.Range(0.0625, 2.0)  # .06, .13, .25, .5, 1, 2


def of_position(epsilon: Any) -> rules.Stabilize:
    """In units of the root mean square of the features of a position: token, atom, bond."""
    return rules.Stabilize(epsilon, norm_scale=True, axis=(-1,))


def candidates(problem: Problem, quick: bool) -> dict[str, Any]:
    """Families and composites by name; the presets that suit the architecture are among them."""
    linear = ("conv", "dense")
    found: dict[str, Any] = {
        "default": composites.default(),
        "epsilon": tuning.family(
            lambda epsilon: by_kind(linear, rules.Epsilon(tuning.relative(epsilon))),
            epsilon=EPSILON,
        ),
        "all_epsilon": composites.all_epsilon(),
    }
    if quick:
        return found
    if problem.family in (CONVOLUTIONAL, DENSE):
        kind = "conv" if problem.family == CONVOLUTIONAL else "dense"
        found |= _with_gamma(kind) | {
            "epsilon_plus": composites.epsilon_plus(),
            "epsilon_alpha2_beta1": composites.epsilon_alpha2_beta1(),
        }
    if problem.family == CONVOLUTIONAL:
        if problem.bounds is not None:
            found["epsilon_gamma_box"] = composites.epsilon_gamma_box(*problem.bounds)
        found["epsilon_plus_flat"] = composites.epsilon_plus_flat()
        found["epsilon_alpha2_beta1_flat"] = composites.epsilon_alpha2_beta1_flat()
    if problem.family == DENSE:
        found["z+"] = by_kind("dense", rules.ZPlus())
        found["epsilon .1"] = composites.all_epsilon(0.1)
        found["epsilon of positions"] = tuning.family(
            lambda epsilon: by_kind("dense", rules.Epsilon(of_position(epsilon))), epsilon=EPSILON
        )
    if problem.family == TRANSFORMER:
        del found["epsilon"]  # as that of AttnLRP, where there are no gates
        found |= _attention()
    if problem.family == RECURRENT:
        found |= _gated()
    return found


def _with_gamma(kind: str) -> dict[str, Any]:
    """Gamma in the layers of one kind, epsilon in dense ones."""

    def gamma(gamma: Any) -> composites.Composite:
        return by_kind(kind, rules.Gamma(gamma)) + composites.default()

    def both(epsilon: Any) -> composites.Composite:
        stable = tuning.relative(epsilon)
        lower = by_kind(kind, rules.Gamma(0.25, stabilizer=stable))
        return lower + by_kind("dense", rules.Epsilon(stable))

    return {
        "gamma": tuning.family(gamma, gamma=GAMMA),
        "gamma .25": tuning.family(both, epsilon=EPSILON),
    }


def _attention() -> dict[str, Any]:
    def gamma(gamma: Any) -> composites.Composite:
        return composites.attnlrp(gamma=gamma, conv_gamma=gamma)

    def positions(epsilon: Any) -> composites.Composite:
        return composites.attnlrp(epsilon=of_position(epsilon))

    found: dict[str, Any] = {
        "attnlrp, gamma": tuning.family(gamma, gamma=GAMMA),
        "attnlrp, epsilon of positions": tuning.family(positions, epsilon=EPSILON),
    }
    for name, preset in (("attnlrp", composites.attnlrp), ("cp_lrp", composites.cp_lrp)):
        found |= {
            name: preset(),
            f"{name}, epsilon .1": preset(epsilon=0.1),
            f"{name}, epsilon": tuning.family(
                lambda epsilon, preset=preset: preset(epsilon=tuning.relative(epsilon)),
                epsilon=EPSILON,
            ),
        }
    return found


def _gated() -> dict[str, Any]:
    found: dict[str, Any] = {"epsilon 4": composites.all_epsilon(4.0)}
    for gates in ("all", "half"):
        found |= {
            f"recurrent {gates}": composites.recurrent(gates),
            f"recurrent {gates}, .1": composites.recurrent(gates, epsilon=0.1),
            f"recurrent {gates}, epsilon": tuning.family(
                lambda epsilon, gates=gates: composites.recurrent(
                    gates, epsilon=tuning.relative(epsilon)
                ),
                epsilon=EPSILON,
            ),
        }
    return found


def scored(name: str, problem: Problem, output: pathlib.Path | None, quick: bool) -> Scores:
    """The scores of all candidates, of each sample; printed."""
    found = tuning.search(
        problem.fun, candidates(problem, quick), problem.metrics, problem.data,
        args=(problem.variables,), method=tuning.Grid(2 if quick else POINTS), held_out=0.0,
        key=jax.random.key(2), output=None if output is None else output / f"defaults_{name}",
        batch_size=problem.batch_size, at_once=2,
    )  # fmt: skip
    rows: Mapping[str, Mapping[str, np.ndarray]] = {c.label: c.scores for c in found.candidates}
    size = len(problem.data["input"])
    print(f"{name}: {len(rows)} candidates, {size} samples", flush=True)
    return Scores(name, problem.family, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stamps", type=pathlib.Path, default=concepts_images.STAMPS)
    parser.add_argument("--speech", type=pathlib.Path, default=speech.DATA)
    parser.add_argument("--reviews", type=pathlib.Path, default=pathlib.Path(f"{SDIST}.tar.gz"))
    parser.add_argument("--only", nargs="+", help="names of networks")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="one network, few candidates")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    quick, found = arguments.quick, []
    for name, load in problems(arguments.stamps, arguments.speech, arguments.reviews, quick):
        if arguments.only and name not in arguments.only:
            continue
        kept = arguments.output / f"defaults_{name}.json"
        if kept.exists() and not quick:
            found.append(Scores.read(kept))
            continue
        try:
            problem = load()
        except (ImportError, SystemExit) as error:
            print(f"{name} is left out: {error}")
            continue
        found.append(scored(name, problem, None if quick else arguments.output, quick))
        if not quick:
            found[-1].write(kept)
    text, failed = report(found)
    print(text)
    (arguments.output / "defaults.md").write_text(text, encoding="utf-8")
    return 1 if failed and not quick else 0


if __name__ == "__main__":
    raise SystemExit(main())
