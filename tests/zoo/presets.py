"""The presets, and which of them meets which architecture of the zoo."""

from __future__ import annotations

from collections.abc import Callable

import jax

from jaxlrp import composites as C
from jaxlrp.composites import Composite
from zoo.entries import Entry
from zoo.registry import ZOO

# Each is made from the input of the network, of which the z-box asks its range.
ANY: dict[str, Callable[[jax.Array], Composite]] = {
    "gradient": lambda x: C.gradient(),
    "guided_backprop": lambda x: C.guided_backprop(),
    "deconvnet": lambda x: C.deconvnet(),
    "beta_smooth": lambda x: C.beta_smooth(),
    "all_epsilon": lambda x: C.all_epsilon(),
    "recurrent_all": lambda x: C.recurrent("all"),
    "recurrent_half": lambda x: C.recurrent("half"),
    "recurrent_prop": lambda x: C.recurrent("prop"),
    "excitation_backprop": lambda x: C.excitation_backprop(),
    "epsilon_plus_flat": lambda x: C.epsilon_plus_flat(),
}
CONVOLUTIONAL: dict[str, Callable[[jax.Array], Composite]] = {
    "epsilon_plus": lambda x: C.epsilon_plus(),
    "epsilon_alpha2_beta1": lambda x: C.epsilon_alpha2_beta1(),
    "epsilon_alpha2_beta1_flat": lambda x: C.epsilon_alpha2_beta1_flat(),
    "epsilon_gamma_box": lambda x: C.epsilon_gamma_box(x.min() - 1.0, x.max() + 1.0),
}
ATTENTION: dict[str, Callable[[jax.Array], Composite]] = {
    "attnlrp": lambda x: C.attnlrp(),
    "cp_lrp": lambda x: C.cp_lrp(),
    "attnlrp_gamma": lambda x: C.attnlrp(gamma=0.05, conv_gamma=0.25),
    "cp_lrp_gamma": lambda x: C.cp_lrp(gamma=0.05, conv_gamma=0.25),
}
ALL = ANY | CONVOLUTIONAL | ATTENTION
GRADIENTS = ("gradient", "guided_backprop", "deconvnet", "beta_smooth")  # read out no relevance
EVERYWHERE = ("gradient", "attnlrp", "cp_lrp")  # `test_zoo.test_presets` has them on all


def applicable(entry: Entry) -> list[str]:
    """The presets that say something of an architecture."""
    found = list(ANY)
    if entry.convolutional:
        found += CONVOLUTIONAL
    if entry.attention:
        found += ATTENTION
    return found


def rotated() -> dict[str, str]:
    """A preset for each architecture: the next of those that say something of its kind."""
    turns: dict[tuple[bool, bool], int] = {}
    found = {}
    for name, entry in ZOO.items():
        kind = (entry.convolutional, entry.attention)
        # last to first: those come first that say something of few
        names = [preset for preset in applicable(entry) if preset not in EVERYWHERE][::-1]
        turn = turns[kind] = turns.get(kind, -1) + 1
        found[name] = names[turn % len(names)]
    return found
