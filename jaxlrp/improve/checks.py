"""Checks of what several functions of this package are given."""

from __future__ import annotations

from typing import Any

from jaxlrp.explanation.explainer import Explainer


def position_of_parameters(explainer: Any) -> int:
    """The position of the one argument whose relevance an explainer returns besides that of the input.

    Raises:
      TypeError: if it is not the result of `jaxlrp.explain`.
      ValueError: if it has no such argument, or several.
    """
    if not isinstance(explainer, Explainer):
        raise TypeError(f"explainer must be the result of lrp.explain(...), got {explainer!r}")
    if len(explainer.parameters) != 1:
        raise ValueError(
            f"the explainer must have one argument of parameters, got parameters={explainer.parameters}: "
            "write lrp.explain(f, composite, argnums=1, parameters=0)"
        )
    return explainer.parameters[0]
