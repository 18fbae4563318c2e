"""What a pair of spellings is, and the weights that the pairs share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxlrp import composites as C
from jaxlrp.composites import Composite

PRESETS: dict[str, Callable[[], Composite]] = {
    "epsilon_plus": C.epsilon_plus,
    "attnlrp": C.attnlrp,
    "cp_lrp": C.cp_lrp,
    "epsilon_alpha2_beta1": C.epsilon_alpha2_beta1,
    "recurrent_all": lambda: C.recurrent("all"),
    "all_epsilon": C.all_epsilon,
    "epsilon_plus_flat": C.epsilon_plus_flat,
    "recurrent_half": lambda: C.recurrent("half"),
    "excitation_backprop": C.excitation_backprop,
    "epsilon_gamma_box": lambda: C.epsilon_gamma_box(-5.0, 300.0),
}
ALL = tuple(PRESETS)
# Those that leave sums and pools to LRP-0: a sum that one spelling has and the other does not is then
# no difference.
PLAIN_SUMS = ("attnlrp", "cp_lrp", "all_epsilon")
NO_FLAT = tuple(name for name in ALL if name != "epsilon_plus_flat")
ONLY_PLAIN = "one spelling has a sum, of which other presets stabilize the denominator"


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two spellings of one function.

    Attributes:
      kind: the kind of layer that the pair is about; the plan of `one` has one.
      one, other: the spellings, functions of the arguments.
      args: the arguments; the first is explained.
      presets: those under which both must agree, the default composite aside.
      rtol: how closely, relative to the greatest relevance.
      why: why `rtol` is not 1e-8, or `presets` not all.
      slow: whether it is tested under `-m slow` alone.
    """

    kind: str
    one: Callable[..., Any]
    other: Callable[..., Any]
    args: tuple[np.ndarray, ...]
    presets: tuple[str, ...] = ALL
    rtol: float = 1e-8
    why: str = ""
    slow: bool = False


def mostly_slow(pairs: dict[str, Pair], *often: str) -> dict[str, Pair]:
    """Pairs of which only those of these names are tested always: the others are much like them."""
    assert set(often) <= set(pairs)
    return {name: dataclasses.replace(p, slow=name not in often) for name, p in pairs.items()}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


X = normal(2, 4, seed=1)
W, B, V = normal(4, 6, seed=2), normal(6, seed=3), normal(6, 3, seed=4)
