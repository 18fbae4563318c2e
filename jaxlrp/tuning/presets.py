"""Families for common architectures: where to begin a search."""

from __future__ import annotations

from typing import Any

from jax import Array

from jaxlrp import composites
from jaxlrp.composites.entries import Composite, by_depth, by_kind, first
from jaxlrp.explanation.plan import Plan
from jaxlrp.rules import Epsilon, Gamma, Stabilize, WSquare, ZBox, ZPlus
from jaxlrp.tuning.families import Range, family

Candidates = dict[str, Any]
"""Families and composites by name, as `search` takes them."""

GAMMA = Range(0.01, 10.0)
EPSILON = Range(1e-3, 10.0)  # in units of the root mean square of a layer's outputs


def relative(epsilon: float | Array) -> Stabilize:
    """An epsilon in units of the root mean square of the outputs of a layer, of each sample.

    Args:
      epsilon: >= 0, may be traced.

    Example:
      >>> import jaxlrp as lrp
      >>> lrp.Epsilon(relative(0.1)).epsilon.norm_scale
      True
    """
    return Stabilize(epsilon, norm_scale=True)


def convolutional(
    low: float | Array | None = None, high: float | Array | None = None, *, depth: int | None = None
) -> Candidates:
    """Families for convolutional networks: gamma, epsilon, z+ and what is common in the first layer.

    Args:
      low, high: bounds of the inputs after preprocessing, for z-box in the first layer; None to leave the
        first layer to the rule of the others.
      depth: how many dense layers and convolutions follow each other (`Layer.depth` of the last, plus
        one), to give the lower and upper half a gamma each; None to leave this family out.

    Returns:
      By name. Epsilons are in units of the root mean square of a layer's outputs.

    Example:
      >>> sorted(convolutional())
      ['default', 'epsilon', 'epsilon_alpha2_beta1', 'epsilon_plus', 'epsilon_plus_flat', 'gamma']
    """
    if (low is None) != (high is None):
        raise TypeError("pass both low and high, the bounds of the inputs, or neither")
    pixels = () if low is None or high is None else (first(by_kind("conv", ZBox(low, high))),)

    def joined(*parts: Composite) -> Composite:
        return composites.composite(*pixels, *parts)

    def gamma(gamma: float | Array, epsilon: float | Array) -> Composite:
        return joined(by_kind("conv", Gamma(gamma)), by_kind("dense", Epsilon(relative(epsilon))))

    found: Candidates = {
        "default": composites.default(),
        "gamma": family(gamma, gamma=GAMMA, epsilon=EPSILON),
        "epsilon": family(
            lambda epsilon: joined(by_kind(("conv", "dense"), Epsilon(relative(epsilon)))),
            epsilon=EPSILON,
        ),
        "epsilon_plus": joined(composites.epsilon_plus()),
        "epsilon_plus_flat": composites.epsilon_plus_flat(),
        "epsilon_alpha2_beta1": joined(composites.epsilon_alpha2_beta1()),
    }
    if low is not None and high is not None:
        found["epsilon_gamma_box"] = composites.epsilon_gamma_box(low, high)
    if depth is not None:
        half = depth // 2

        def two(lower: float | Array, upper: float | Array) -> Composite:
            return joined(
                by_depth(0, half, by_kind("conv", Gamma(lower))),
                by_kind("conv", Gamma(upper)),
                by_kind("dense", Epsilon()),
            )

        found["two gammas"] = family(two, lower=GAMMA, upper=GAMMA)
    return found


def transformer() -> Candidates:
    """Families for transformers: AttnLRP and CP-LRP, each with an epsilon or a gamma.

    Returns:
      By name. Epsilons are in units of the root mean square of a layer's outputs.
    """
    found: Candidates = {"default": composites.default()}
    for name, preset in (("attnlrp", composites.attnlrp), ("cp_lrp", composites.cp_lrp)):
        found[name] = preset()
        found[f"{name}, epsilon"] = family(
            lambda epsilon, preset=preset: preset(epsilon=relative(epsilon)), epsilon=EPSILON
        )
        found[f"{name}, gamma"] = family(
            lambda gamma, preset=preset: preset(gamma=gamma, conv_gamma=gamma), gamma=GAMMA
        )
    return found


def recurrent() -> Candidates:
    """Families for recurrent networks: three ways to share the relevance of a gate, with an epsilon."""
    found: Candidates = {"default": composites.default()}
    for gates in ("all", "half", "prop"):
        found[f"gates {gates}"] = family(
            lambda epsilon, gates=gates: composites.recurrent(gates, epsilon=relative(epsilon)),
            epsilon=EPSILON,
        )
    return found


def dense() -> Candidates:
    """Families for networks of dense layers: epsilon, gamma, z+, and w² in the first layer."""
    return {
        "default": composites.default(),
        "epsilon": family(
            lambda epsilon: by_kind("dense", Epsilon(relative(epsilon))), epsilon=EPSILON
        ),
        "gamma": family(lambda gamma: by_kind("dense", Gamma(gamma)), gamma=GAMMA),
        "z+": by_kind("dense", ZPlus()),
        "w², epsilon": family(
            lambda epsilon: first(WSquare()) + by_kind("dense", Epsilon(relative(epsilon))),
            epsilon=EPSILON,
        ),
    }


def suggest(
    plan: Plan, low: float | Array | None = None, high: float | Array | None = None
) -> Candidates:
    """The families for the architecture of a plan.

    Args:
      plan: of the model, from `jaxlrp.plan`.
      low, high: bounds of the inputs of a convolutional network; see `convolutional`.

    Returns:
      Those of `transformer` if the plan has attention, of `recurrent` if it has gates in a loop, of
      `convolutional` if it has convolutions, and of `dense` otherwise.

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> sorted(suggest(lrp.plan(lambda x: x @ jnp.eye(3), None, jnp.ones((1, 3)))))
      ['default', 'epsilon', 'gamma', 'w², epsilon', 'z+']
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"plan must be the result of jaxlrp.plan, got {type(plan).__name__}")
    kinds = {row.kind for row in plan.rows}
    if "attention" in kinds:
        return transformer()
    if "gate" in kinds and any(row.kind == "gate" and row.loops for row in plan.rows):
        return recurrent()
    if "conv" in kinds:
        depth = 1 + max(row.depth for row in plan.rows if row.kind in ("conv", "dense"))
        return convolutional(low, high, depth=depth)
    return dense()
