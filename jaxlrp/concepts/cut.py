"""Conditions that close the paths around their layers: relevance goes from one layer to the next."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxlrp.concepts.layers import check_passed_once
from jaxlrp.explanation.plan import Plan
from jaxlrp.explanation.pullback import Pullback
from jaxlrp.explanation.result import Explanation


@dataclasses.dataclass(frozen=True, eq=False)
class Cut:
    """Relevance that is sent from one conditioned layer to the next.

    Attributes:
      plan: which layers feed which.
      activations: the outputs of all conditioned layers, in the order of evaluation.
      whole: the explanation without conditions.
      stages: for each of these layers, the relevance that begins there.
    """

    plan: Plan
    activations: Mapping[str, Array]
    whole: Explanation
    stages: Mapping[str, Pullback]

    def send(self, masks: Mapping[str, Array], kept: Sequence[str]) -> tuple[Any, dict[str, Array]]:
        """The relevance of the input, and at the layers `kept`, that passes all layers in `masks`."""
        chain = [path for path in reversed(list(self.activations)) if path in masks]
        _check_chain(self.plan, chain)
        results = [self.whole]
        for layer in chain:
            relevance = results[-1].records[layer].relevance * masks[layer]
            target = relevance.astype(self.activations[layer].dtype)
            results.append(self.stages[layer](target=target))
        found = {}
        for path in kept:
            stage = _stage_of(self.plan, chain, path)
            blank = jnp.zeros_like(self.whole.records[path].relevance)
            found[path] = blank if stage is None else results[stage].records[path].relevance
        return results[-1].relevance, found


def _check_chain(plan: Plan, chain: Sequence[str]) -> None:
    """Refuses layers that no path crosses one after the other."""
    for layer in chain:
        check_passed_once(plan, layer)
    for upper, lower in itertools.pairwise(chain):
        if lower not in plan.upstream(upper):
            raise ValueError(
                f"with cut=True relevance must pass all layers of a condition, but no path leads from "
                f"{upper!r} back to {lower!r}: pass two conditions, or leave out cut"
            )


def _stage_of(plan: Plan, chain: Sequence[str], path: str) -> int | None:
    """Which stage of a cut pass brings relevance to a layer: 0 from the output; None if none does."""
    for i, layer in enumerate(chain):
        if layer == path or layer in plan.upstream(path):
            return i if i == 0 or path in plan.upstream(chain[i - 1]) else None
    return len(chain) if not chain or path in plan.upstream(chain[-1]) else None
