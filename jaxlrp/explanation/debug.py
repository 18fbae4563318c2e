"""The checks of `debug=True`: where values stop being finite, and where relevance grows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp.errors import GrowthWarning, NonFiniteError
from jaxlrp.explanation import initial_relevance
from jaxlrp.explanation.growth import growth_warning
from jaxlrp.explanation.plan import Plan
from jaxlrp.explanation.relevance_pass import RelevancePass
from jaxlrp.network.trace import Traced
from jaxlrp.numerics import to_relevance
from jaxlrp.targets import Target


def check_finite(
    traced: Traced,
    plan: Plan,
    start: str | None,
    target: Target,
    condition: Mapping[str, ArrayLike],
) -> dict[str, float]:
    """Raises at the first layer whose activation or relevance is not finite. For `debug=True`.

    Returns:
      The gain of each layer: its sum of |R|, in units of the initial relevance's.

    Warns:
      GrowthWarning: where relevance grew beyond bounds.

    Raises:
      NonFiniteError: naming the layer.
      TypeError: under `jit`, where values cannot be looked at.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(traced.arguments.args):
        if _compat.is_traced(leaf):
            raise TypeError(
                "debug=True looks at values and cannot run under jax.jit: call the explainer outside of it"
            )
        if hasattr(leaf, "dtype") and not _is_finite(leaf):
            raise NonFiniteError(
                f"positional argument {jax.tree_util.keystr(path)} contains NaN or infinity"
            )
    paths = plan.paths
    result, begun = RelevancePass(traced, plan, paths, start).run(target, condition)
    records = result.records
    for path in paths:
        if not _is_finite(records[path].activation):
            raise NonFiniteError(
                f"the output of layer {path!r} is the first that contains NaN or infinity"
            )
    for path in reversed(paths):
        if not _is_finite(records[path].relevance):
            raise NonFiniteError(
                f"going back from the output, relevance first becomes non-finite at the output of layer "
                f"{path!r}: check the rules of the layers after it (a stabilizer of zero?) and the "
                "initial relevance"
            )
    if not all(map(_is_finite, jax.tree.leaves(result.relevance))):
        raise NonFiniteError(
            "the relevance of the explained argument contains NaN or infinity, but that of every layer's "
            f"output is finite: it first appears at the input of layer {paths[0]!r} with {plan[paths[0]]!r}"
        )
    initial = initial_relevance.cotangent(begun, target, plan.readout)
    sizes = jax.tree.map(lambda z, g: float(jnp.abs(to_relevance(z, g)).sum()), begun, initial)
    total = sum(jax.tree.leaves(sizes))
    found = {row.path: _size(records[row.path].relevance, row.loops) for row in plan.rows}
    gains = {path: size / total for path, size in found.items() if total}
    if said := growth_warning(dict(reversed(gains.items())), plan.readers):
        warnings.warn(said, GrowthWarning, stacklevel=5)
    return gains


def _size(relevance: Array, loops: int) -> float:
    """The sum of |R|, in the step of the scans around where it is greatest."""
    axes = tuple(range(loops, relevance.ndim))
    return float(jnp.max(jnp.abs(relevance).sum(axes)))


def _is_finite(a: Any) -> bool:
    a = jnp.asarray(a)
    return not jnp.issubdtype(a.dtype, jnp.inexact) or bool(jnp.all(jnp.isfinite(a)))
