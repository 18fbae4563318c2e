"""What a plan says where the output is a probability."""

from __future__ import annotations

from jaxlrp.network.probabilities import probabilities
from jaxlrp.network.trace import Traced


def probability_note(traced: Traced) -> str:
    """That relevance is that of a probability, and what to do instead; "" if no output is one."""
    outputs = traced.network.graph.outputs[: traced.n_outputs]
    found = probabilities(traced.network, outputs)
    if not found:
        return ""
    name, before = found[0].name, found[0].before
    start = f"pass start={before[0]!r} to lrp.explain, or " if len(before) == 1 else ""
    which = "the output" if traced.n_outputs == 1 else "an output"
    return (
        f"note: {which} is a {name}, so relevance is that of a probability, which hardly changes where "
        f"the model is sure. To explain the score instead, {start}explain a function that returns what the "
        f"{name} is computed from."
    )
