"""A section of a report: the circuit of each class as a graph, and what it keeps of the class's score."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxlrp._html import figure_tag, text
from jaxlrp.concepts.circuit_graph import CircuitGrower, circuit_graph
from jaxlrp.concepts.circuits import CircuitCurve, circuit_curve
from jaxlrp.concepts.method import ConceptExplainer
from jaxlrp.concepts.patching import relevance_patching
from jaxlrp.concepts.references import Reference
from jaxlrp.concepts.units import Concepts
from jaxlrp.explanation.explainer import Explainer

_SAMPLES = 16  # of a class that rank concepts, and as many others on which the circuit is tested
_OTHERS = 32  # samples whose mean takes the place of what is switched off
_RANDOM = 3  # orders that the circuit is compared with
_RULE = (
    "The circuit of a class: the {size} concepts of these layers that matter most for it, and which of "
    "them use which (red: for, blue: against; the width is the share of relevance that a concept gets from "
    "one below). Beside it: how much of the class's score is left if only so many concepts are kept and "
    "all others are set to their mean over samples of all classes (1: all of it, 0: no more than without "
    "any). Concepts are ranked by the loss of score that relevance patching estimates "
    "for this, on other samples than those of the curve."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Circuits:
    """What makes the circuits of a report; `circuits_of` returns it.

    Attributes:
      name: of the family of the report.
      families: it and those below, by name.
      size: number of concepts in a circuit.
      rank: estimates of the effect of patching concepts.
      grow: to the graph.
      curve: to the ablation curve.
    """

    name: str
    families: Mapping[str, Concepts]
    size: int
    rank: ConceptExplainer[Any]
    grow: CircuitGrower
    curve: ConceptExplainer[CircuitCurve]


def circuits_of(
    explainer: Explainer, name: str, families: dict[str, Concepts], size: int
) -> Circuits:
    """What makes circuits of `size` concepts of these families; `name` is that of the report."""
    return Circuits(
        name, families, size,
        relevance_patching(explainer, families), circuit_graph(explainer, families),
        circuit_curve(explainer, families),
    )  # fmt: skip


def section(
    made: Circuits,
    groups: np.ndarray,
    chosen: Sequence[int],
    called: Sequence[str],
    targets: np.ndarray,
    call: Callable[[np.ndarray], tuple[Any, ...]],
    located: Mapping[int, Sequence[Reference]],
    to_image: Any,
    words: Any,
) -> list[str]:
    """The section, as HTML.

    Args:
      made: the result of `circuits_of`.
      groups: (samples,), the index of each row's class.
      chosen: indices of classes.
      called: the name of each.
      targets: (samples,), what was explained.
      call: from rows to the arguments of the explainer.
      located: references of concepts of the report's family.
      to_image, words: how to show them.
    """
    parts = [text("p", _RULE.format(size=made.size))]
    shown = {(made.name, concept): held[:1] for concept, held in located.items()}
    left_out = []
    for group in chosen:
        own = np.flatnonzero(groups == group)
        if len(own) < 2:
            left_out.append(called[group])
            continue
        ranked, tested, others = _rows(own, len(groups))
        target = int(targets[own[0]])
        parts += _circuit(made, call, ranked, tested, others, target, called[group], shown,
                          {"to_image": to_image, "words": words})  # fmt: skip
    if left_out:
        parts.append(text("p", f"Left out, with a single sample: {', '.join(left_out)}."))
    return parts


def _rows(own: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows that rank, rows that are tested, and rows to average, evenly spaced.

    Their numbers are powers of two, so that classes share compiled programs.
    """
    count = min(_SAMPLES, 1 << ((len(own) // 2).bit_length() - 1))
    pairs = own[np.linspace(0, len(own) // 2 - 1, count).round().astype(int) * 2]
    tested = own[np.searchsorted(own, pairs) + 1]
    left = np.setdiff1d(np.arange(total), tested)
    count = min(_OTHERS, 1 << (len(left).bit_length() - 1))
    return pairs, tested, left[np.linspace(0, len(left) - 1, count).round().astype(int)]


def _circuit(
    made: Circuits, call: Any, ranked: np.ndarray, tested: np.ndarray, others: np.ndarray, target: int,
    name: str, references: Any, options: dict[str, Any],
) -> list[str]:  # fmt: skip
    from jaxlrp.concepts import figures

    reference = call(others)[made.rank.model.argnums[0]]
    # What is lost, to first order, if a concept is replaced by its value in another sample; on average, by
    # its mean.
    found = made.rank(*call(np.resize(ranked, len(others))), clean=reference, target=target)
    loss = {family: -np.asarray(effects).mean(axis=0) for family, effects in found.items()}
    total = sum(map(len, loss.values()))
    size = min(made.size, total)
    graph = made.grow(*call(ranked), scores=loss, size=size, target=target)
    sizes = sorted({0, size, total, *(2**i for i in range(total.bit_length()))})
    args = call(tested)
    given = {"sizes": sizes, "reference": reference, "target": target}
    curve = made.curve(*args, scores=loss, **given)
    orders = [made.curve(*args, scores=_shuffled(loss, seed), **given)
              for seed in range(_RANDOM)]  # fmt: skip
    mean = np.mean([np.asarray(each.faithfulness) for each in orders], axis=0)
    random = dataclasses.replace(orders[0], faithfulness=mean)
    at = sizes.index(size)
    own, chance = float(np.asarray(curve.faithfulness)[at]), float(mean[at])
    if not np.isfinite([own, chance]).all():
        said = "Without any of these concepts the score is the same: the curve has no meaning."
    else:
        said = (
            f"It keeps {own:.0%} of the score of {len(tested)} samples, as many random concepts "
            f"{chance:.0%}."
        )
    drawn = figures.circuit(graph, {"circuit": curve, "random": random},
                            references=references, **options)  # fmt: skip
    tag = figure_tag(drawn, f"circuit of {name}, and its ablation curve")
    return [text("h3", name), text("p", said), f"<figure>{tag}</figure>"]


def _shuffled(scores: Mapping[str, np.ndarray], seed: int) -> dict[str, Any]:
    """Random scores of all concepts."""
    keys = jax.random.split(jax.random.key(seed), len(scores))
    return {name: jax.random.uniform(key, values.shape) for key, (name, values) in
            zip(keys, scores.items(), strict=True)}  # fmt: skip
