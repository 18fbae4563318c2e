"""One composite for each family of architectures, whose numbers need no tuning."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jaxlrp._checks import check_one_of
from jaxlrp.composites.entries import Composite, by_kind
from jaxlrp.composites.presets import all_epsilon, cp_lrp, recurrent
from jaxlrp.rules import Epsilon, Stabilize

_BUILT: dict[str, Callable[[], Composite]] = {
    "convolutional": lambda: by_kind(("conv", "dense"), Epsilon(Stabilize(0.3, norm_scale=True))),
    "transformer": lambda: cp_lrp(epsilon=Stabilize(0.01, norm_scale=True)),
    "recurrent": lambda: recurrent("all", epsilon=Stabilize(0.1, norm_scale=True)),
    "dense": lambda: all_epsilon(Stabilize(0.1, norm_scale=True, axis=(-1,))),
}


def recommended(architecture: str) -> Composite:
    """The composite for a family of architectures, with an epsilon that has no unit.

    An absolute epsilon is right for one size of pre-activations, and sizes differ between networks and
    layers. Here it is a share of the root mean square of a layer's outputs, so scaling the weights of a
    layer, and undoing it in the next one, changes nothing. The shares were chosen on several networks at
    once, and judged on networks left out: the documentation has all scores, also where others are better.
    For deep networks on pictures, prefer `epsilon_gamma_box` or `default`.

    | architecture | composite | epsilon |
    |---|---|---|
    | "convolutional" | epsilon in convolutions and dense layers | .3, of each sample |
    | "transformer" | `cp_lrp` | .01, of each sample |
    | "recurrent" | `recurrent("all")` | .1, of each sample |
    | "dense" | epsilon in all layers; graph networks as well | .1, of each position |

    Args:
      architecture: one of these.

    Returns:
      A `Composite`, to which you can add your own rules from the left.

    Raises:
      ValueError: if there is no such architecture.

    Example:
      >>> import jaxlrp as lrp
      >>> from jaxlrp import composites
      >>> composites.recommended("dense").name
      'recommended("dense")'
    """
    check_one_of("architecture", architecture, tuple(_BUILT))
    return dataclasses.replace(_BUILT[architecture](), name=f'recommended("{architecture}")')
