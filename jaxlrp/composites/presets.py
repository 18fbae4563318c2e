"""Presets. Names and hyperparameters are those of Zennit in snake case."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jax import Array

from jaxlrp.composites.entries import Anything, Composite, ReLU, by_kind, composite, first, where
from jaxlrp.network.layers import Layer
from jaxlrp.numerics import Stabilizer
from jaxlrp.rules import (
    LRP0,
    AlphaBeta,
    BetaSmooth,
    DeconvNet,
    DerivativeTimesRelevance,
    Detach,
    Epsilon,
    Flat,
    Gamma,
    Gradient,
    GuidedBackprop,
    LookUp,
    Norm,
    Pass,
    Proportional,
    Rule,
    SignalTakesAll,
    Tempered,
    Uniform,
    WinnerTakesAll,
    ZBox,
    ZPlus,
)
from jaxlrp.rules.products import mixes_by_matrix_product

# What a layer gets when no entry matches it


def default_rule(layer: Layer, readout: str = "relevance") -> Rule | None:
    """The rule of a layer for which a composite has none; None if its kind has no default.

    Args:
      layer: the layer.
      readout: of the composite, "relevance" or "gradient".
    """
    if layer.kind == "embedding":
        return LookUp(gradient=readout == "gradient")
    if layer.kind == "scale" and layer.form is not None and layer.form.after_normalizer:
        return LRP0()  # part of the normalizer: its bias takes a share, as any bias does
    return _DEFAULTS.get(layer.kind)


_DEFAULTS: dict[str, Rule] = {
    "dense": LRP0(),
    "conv": LRP0(),
    "scale": Pass(),
    "shift": LRP0(),
    "sum": LRP0(),
    "pool": LRP0(),
    "maxpool": WinnerTakesAll(),
    "activation": Pass(),
    "product": Uniform(),
    "attention": Uniform(),
    "gate": SignalTakesAll(),
    "normalizer": Detach(),
    "quotient": Detach(),
    "quantizer": Pass(),
}


# Layered networks


def _layered(
    conv: Rule, dense: Rule, first_layer: Composite | None, stabilizer: Stabilizer, name: str
) -> Composite:
    parts = [] if first_layer is None else [first_layer]
    parts += [by_kind("conv", conv), by_kind("dense", dense)]
    parts += [by_kind(("sum", "pool"), Norm(stabilizer))]
    return composite(*parts, name=name)


def epsilon_gamma_box(
    low: float | Array,
    high: float | Array,
    *,
    epsilon: Stabilizer = 1e-6,
    gamma: float | Array = 0.25,
    stabilizer: Stabilizer = 1e-6,
    bias: str = "absorb",
) -> Composite:
    """Gamma in convolutions, epsilon in dense layers, z-box in a first convolution.

    Args:
      low, high: the least and greatest value that an input can have, in its units after
        preprocessing: numbers, or arrays that broadcast to the input, such as one per channel.
      epsilon: of the dense layers.
      gamma: of the convolutions.
      stabilizer: of all other denominators.
      bias: "absorb" or "zero", for every rule. With "zero", relevance of networks with folded BatchNorm
        explodes, since sums that nearly cancel without their biases are divided by.
    """
    conv = Gamma(gamma, bias=bias, stabilizer=stabilizer)
    first_layer = first(by_kind("conv", ZBox(low, high, stabilizer=stabilizer)))
    return _layered(conv, Epsilon(epsilon, bias=bias), first_layer, stabilizer, "epsilon_gamma_box")


def epsilon_plus(
    *, epsilon: Stabilizer = 1e-6, stabilizer: Stabilizer = 1e-6, bias: str = "absorb"
) -> Composite:
    """z+ in convolutions, epsilon in dense layers."""
    conv = ZPlus(bias=bias, stabilizer=stabilizer)
    return _layered(conv, Epsilon(epsilon, bias=bias), None, stabilizer, "epsilon_plus")


def epsilon_plus_flat(
    *, epsilon: Stabilizer = 1e-6, stabilizer: Stabilizer = 1e-6, bias: str = "absorb"
) -> Composite:
    """z+ in convolutions, epsilon in dense layers, flat in the first layer."""
    conv = ZPlus(bias=bias, stabilizer=stabilizer)
    first_layer = first(Flat(stabilizer=stabilizer))
    return _layered(conv, Epsilon(epsilon, bias=bias), first_layer, stabilizer, "epsilon_plus_flat")


def epsilon_alpha2_beta1(
    *, epsilon: Stabilizer = 1e-6, stabilizer: Stabilizer = 1e-6, bias: str = "absorb"
) -> Composite:
    """alpha 2, beta 1 in convolutions, epsilon in dense layers."""
    conv = AlphaBeta(2.0, 1.0, bias=bias, stabilizer=stabilizer)
    return _layered(conv, Epsilon(epsilon, bias=bias), None, stabilizer, "epsilon_alpha2_beta1")


def epsilon_alpha2_beta1_flat(
    *, epsilon: Stabilizer = 1e-6, stabilizer: Stabilizer = 1e-6, bias: str = "absorb"
) -> Composite:
    """alpha 2, beta 1 in convolutions, epsilon in dense layers, flat in the first layer."""
    conv = AlphaBeta(2.0, 1.0, bias=bias, stabilizer=stabilizer)
    first_layer = first(Flat(stabilizer=stabilizer))
    return _layered(
        conv, Epsilon(epsilon, bias=bias), first_layer, stabilizer, "epsilon_alpha2_beta1_flat"
    )


def all_epsilon(epsilon: Stabilizer = 1e-6, *, bias: str = "absorb") -> Composite:
    """Epsilon in all dense layers and convolutions."""
    return composite(by_kind(("conv", "dense"), Epsilon(epsilon, bias=bias)), name="all_epsilon")


def _transformer(
    epsilon: Stabilizer, gamma: float | Array | None, conv_gamma: float | Array | None, bias: str
) -> Composite:
    def linear(gamma: float | Array | None) -> Rule:
        return Epsilon(epsilon, bias=bias) if gamma is None else Gamma(gamma, bias=bias)

    return by_kind("conv", linear(conv_gamma)) + by_kind("dense", linear(gamma))


def attnlrp(
    *,
    epsilon: Stabilizer = 1e-6,
    gamma: float | Array | None = None,
    conv_gamma: float | Array | None = None,
    bias: str = "absorb",
) -> Composite:
    """AttnLRP, for transformers: every product of two values gives half of its relevance to each.

    The softmax is expanded to first order, which is its own derivative; activations pass relevance on;
    the denominators of LayerNorm and similar normalizers are held fixed. In a gated
    product the gate gets half, where `default()` gives all to the signal.

    Args:
      epsilon: of dense layers and convolutions that have no gamma.
      gamma, conv_gamma: of the dense layers and of the convolutions; None for epsilon. The paper has
        0.05 and 0.25 in vision transformers, whose gradients are noisy, and none in language models.
      bias: "absorb", as in the paper, or "zero". Without their biases many sums of queries, keys and
        hidden units nearly cancel, and relevances that are divided by them explode: with "zero" give an
        epsilon in units of the sums, `Stabilize(0.1, norm_scale=True, axis=(-1,))`.

    References:
      Achtibat et al. (2024), https://doi.org/10.48550/arXiv.2402.05602
    """
    products = by_kind(("product", "attention", "gate"), Uniform())
    parts = _transformer(epsilon, gamma, conv_gamma, bias) + products
    return dataclasses.replace(parts, name="attnlrp")


def cp_lrp(
    *,
    epsilon: Stabilizer = 1e-6,
    gamma: float | Array | None = None,
    conv_gamma: float | Array | None = None,
    bias: str = "absorb",
) -> Composite:
    """CP-LRP, for transformers: the attention weights are constants, the values take all relevance.

    Nothing flows to queries and keys. Other products are as in `attnlrp`.

    Args:
      epsilon, gamma, conv_gamma, bias: as in `attnlrp`.

    References:
      Ali et al. (2022), https://doi.org/10.48550/arXiv.2202.07304
    """
    parts = (
        _transformer(epsilon, gamma, conv_gamma, bias)
        + by_kind("attention", SignalTakesAll())
        + by_kind(("product", "gate"), Uniform())
    )
    return dataclasses.replace(parts, name="cp_lrp")


def relp() -> Composite:
    """RelP, for patching: LRP-0 in linear layers, half of a product to each of its factors.

    Activations pass relevance on, denominators of normalizers are held fixed, and the softmax is its own
    derivative: `attnlrp` without an epsilon. `concepts.relevance_patching` uses it.

    References:
      Jafari et al. (2025), https://doi.org/10.48550/arXiv.2508.21258
    """
    return composite(
        by_kind(("conv", "dense"), LRP0()),
        by_kind(("product", "attention", "gate"), Uniform()),
        name="relp",
    )


def gim(*, temperature: float | Array = 2.0) -> Composite:
    """Gradient interaction modifications, for patching and for transformers: gradient x value with changes.

    The softmax of attention is differentiated at a higher temperature, so that confident heads are not
    overlooked; each factor of a product of two values gets half; denominators of normalizers are held
    fixed. Linear layers have LRP-0 and activations their gradient, as the paper leaves them. Of softmax
    weights that no matrix product multiplies, the softmax keeps its derivative.

    Args:
      temperature: of the softmax, > 0; 1 is its derivative, 2 as in the paper.

    References:
      Edin et al. (2025), https://doi.org/10.48550/arXiv.2505.17630
    """
    return composite(
        by_kind(("conv", "dense"), LRP0()),
        where(mixes_by_matrix_product, Tempered(temperature)),
        by_kind(("product", "attention", "gate"), Uniform()),
        by_kind("activation", Gradient()),
        name="gim",
    )


def recurrent(gates: str = "all", *, epsilon: Stabilizer = 1e-3, bias: str = "absorb") -> Composite:
    """LRP for recurrent networks: LRP-all, or LRP-half or LRP-prop, with epsilon in every sum.

    A cell computes a term from its input and a term from its state in two layers and adds them.
    Where the terms cancel, the relevance of both grows from step to step without bound, unless this sum
    has a stabilizer, too.

    Args:
      gates: how the relevance of a gated product is shared. "all": the signal alone (LRP-all); "half":
        signal and gate take half each (LRP-half); "prop": each in proportion to its magnitude
        (LRP-prop).
      epsilon: of dense layers, convolutions and sums, in the units of a pre-activation. The papers
        use 0.001; a larger epsilon damps more and absorbs more.
      bias: "absorb" or "zero".

    Raises:
      ValueError: if `gates` is none of these.

    References:
      Arras et al. (2017), https://doi.org/10.18653/v1/W17-5221; Arras et al. (2019),
      https://doi.org/10.1007/978-3-030-28954-6_11

    Example:
      >>> from jaxlrp import composites
      >>> half = composites.recurrent("half", epsilon=0.1)
    """
    if gates not in _GATES:
        raise ValueError(f"gates must be one of {', '.join(_GATES)}, got {gates!r}")
    return composite(
        by_kind("gate", _GATES[gates]),
        by_kind("sum", Norm(epsilon)),
        by_kind(("conv", "dense"), Epsilon(epsilon, bias=bias)),
        name="recurrent",
    )


_GATES: dict[str, Rule] = {"all": SignalTakesAll(), "half": Uniform(), "prop": Proportional()}


def excitation_backprop(*, stabilizer: Stabilizer = 1e-6, bias: str = "absorb") -> Composite:
    """z+ everywhere; activations and standalone BatchNorms multiply relevance by their derivative.

    References:
      Zhang et al. (2018), https://doi.org/10.1007/s11263-017-1059-x
    """
    return composite(
        by_kind(("conv", "dense"), ZPlus(bias=bias, stabilizer=stabilizer)),
        by_kind(("sum", "pool"), Norm(stabilizer)),
        by_kind(("activation", "scale"), DerivativeTimesRelevance()),
        name="excitation_backprop",
    )


def _gradients(relu_rule: Rule | None, name: str) -> Composite:
    parts = [] if relu_rule is None else [where(ReLU(), relu_rule)]
    joined = composite(*parts, where(Anything(), Gradient()), name=name)
    return dataclasses.replace(joined, readout="gradient")


def gradient() -> Composite:
    """The plain gradient; returns the gradient, not relevance."""
    return _gradients(None, "gradient")


def guided_backprop() -> Composite:
    """Guided backpropagation: ReLUs pass only positive gradients; returns the gradient."""
    return _gradients(GuidedBackprop(), "guided_backprop")


def deconvnet() -> Composite:
    """The deconvolution network (DeconvNet); returns what it propagates, which is not relevance."""
    return _gradients(DeconvNet(), "deconvnet")


def beta_smooth(beta: float | Array = 10.0) -> Composite:
    """ReLUs get the gradient of a softplus; returns the gradient."""
    return _gradients(BetaSmooth(beta), "beta_smooth")


def default() -> Composite:
    """The composite used if none is given.

    `Gamma(0.25)` in convolutions, `Epsilon(1e-6)` in dense layers. It does not need the
    range of the input, and conserves relevance except for what biases absorb.
    """
    return dataclasses.replace(
        composite(by_kind("conv", Gamma(0.25)), by_kind("dense", Epsilon(1e-6))), name="default"
    )


PRESETS: dict[str, Callable[..., Composite]] = {
    f.__name__: f
    for f in (
        default, all_epsilon, epsilon_gamma_box, epsilon_plus, epsilon_plus_flat,
        epsilon_alpha2_beta1, epsilon_alpha2_beta1_flat, excitation_backprop, attnlrp, cp_lrp, relp, gim,
        recurrent, gradient, guided_backprop, deconvnet, beta_smooth,
    )
}  # fmt: skip
"""The presets by name."""
