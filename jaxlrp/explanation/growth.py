"""Relevance that grows without bound: where a plan allows it, and where it was seen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from jaxlrp.rules import Rule

# Rules that weigh contributions by sign at most triple the sum of magnitudes at a layer; what grows
# a hundredfold was divided by sums that nearly cancel.
LIMIT = 100.0


class Step(NamedTuple):
    """A layer of a plan: its path, kind and rule, and how many steps the recurrent loops around it have."""

    path: str
    kind: str
    rule: Rule
    steps: int


def growth_warning(
    gains: Mapping[str, float],
    readers: Mapping[str, tuple[str, ...]] | None = None,
    zero_bias: bool = False,
) -> str:
    """A sentence on the layer at which relevance grew the most, "" where it stayed within bounds.

    Args:
      gains: by path, the sum of |R| in units of that at the output; from the output to the input.
      readers: by path, the layers that read its output; they send it its relevance.
      zero_bias: whether biases got no relevance.
    """
    wild = next((path for path, gain in gains.items() if not math.isfinite(gain)), None)
    finite = {path: gain for path, gain in gains.items() if math.isfinite(gain)}
    most = max(finite, key=lambda path: finite[path], default=None)
    grown = most is not None and finite[most] > LIMIT
    if wild is None and not grown:
        return ""
    parts = []
    if grown:
        assert most is not None
        parts.append(f"relevance grew to {finite[most]:.3g} times its start at {most!r}")
    if wild is not None:
        parts.append(
            f"it is not finite at {wild!r}" if parts else f"relevance is not finite at {wild!r}"
        )
    first = next(path for path, gain in gains.items() if not gain <= LIMIT)
    made = " and ".join(map(repr, (readers or {}).get(first, ())))
    began = f"It first exceeds {LIMIT:.0f} times its start at {first!r}"
    began += f", to which {made} passed it. " if made else ". "
    return f"warning: {', and '.join(parts)}. {began}{_ZEROED if zero_bias else _ADVICE}"


_ADVICE = (
    "The layers after it divide by sums that nearly cancel. Use rules that damp them: "
    "composites.recurrent(epsilon=0.1) for recurrent networks, composites.all_epsilon(lrp.rules.Stabilize("
    "0.1, norm_scale=True)) for others; and let biases count (bias='absorb', zero_bias=False)"
)
_ZEROED = (
    "With zero_bias=True, layers divide by sums without their biases. These nearly cancel here, as they "
    "often do where BatchNorm is folded: this ledger does not describe the explanation. Use "
    "zero_bias=False and read the column 'bias'"
)


def plan_warning(layers: Iterable[Step]) -> str:
    """A sentence on sums of a recurrence that nothing damps, "" where there are none."""
    loose = [la for la in layers if la.steps > 1 and la.kind == "sum" and la.rule.is_autodiff]
    if not loose:
        return ""
    first = loose[0]
    more = f" and {len(loose) - 1} more" if len(loose) > 1 else ""
    return (
        f"warning: the sum at {first.path!r}{more} is taken in each of {first.steps} steps of a recurrence "
        f"without a stabilizer ({first.rule!r}). Where its terms nearly cancel, relevance grows from step "
        "to step without bound: use composites.recurrent(), or lrp.rules.Norm(1e-3) for these sums"
    )
