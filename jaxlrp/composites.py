"""Composites: which rule each layer gets.

A composite is a value: a tuple of entries, of which the first that fits a layer decides. An entry
fits where its condition holds and its rule applies to that kind of layer, so `by_path("head/*", Flat())`
speaks of the linear layers below `head` and leaves the activations there to later entries.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
from jax import Array

from jaxlrp.errors import near
from jaxlrp.layers import KINDS, PARAMETERISED_KINDS, Layer
from jaxlrp.numerics import Stabiliser
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
    Norm,
    Pass,
    Rule,
    SignalTakesAll,
    Uniform,
    WinnerTakesAll,
    ZBox,
    ZPlus,
)

Condition = Callable[[Layer], bool]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a composite: where `condition` holds, `then`.

    Attributes:
      condition: a predicate on layers, hashable.
      then: a rule, or a composite that is asked in turn.
    """

    condition: Condition
    then: Rule | Composite


@dataclasses.dataclass(frozen=True)
class Composite:
    """Entries, the first match wins. Add two to put one before the other.

    Attributes:
      entries: in order.
      readout: "relevance", or "gradient" for methods that propagate gradients.
      name: for tables.
    """

    entries: tuple[Entry, ...]
    readout: str = "relevance"
    name: str = ""

    def __add__(self, other: Composite) -> Composite:
        readout = "gradient" if "gradient" in (self.readout, other.readout) else "relevance"
        name = " + ".join(filter(None, (self.name, other.name)))
        return Composite(self.entries + other.entries, readout, name)

    def find(self, layer: Layer) -> Rule | None:
        """The rule for a layer, None where no entry fits."""
        return next((rule for _, rule in self._matches(layer)), None)

    def _matches(self, layer: Layer) -> Iterator[tuple[Entry, Rule]]:
        for entry in self.entries:
            if not entry.condition(layer):
                continue
            if isinstance(entry.then, Composite):
                yield from ((entry, rule) for _, rule in entry.then._matches(layer))
            elif layer.kind in entry.then.kinds:
                yield entry, entry.then

    def all_entries(self) -> Iterator[Entry]:
        """The entries, those of nested composites included."""
        for entry in self.entries:
            yield entry
            if isinstance(entry.then, Composite):
                yield from entry.then.all_entries()


jax.tree_util.register_dataclass(Entry, data_fields=["then"], meta_fields=["condition"])
jax.tree_util.register_dataclass(
    Composite, data_fields=["entries"], meta_fields=["readout", "name"]
)


# Conditions


@dataclasses.dataclass(frozen=True)
class Kind:
    kinds: tuple[str, ...]

    def __call__(self, layer: Layer) -> bool:
        return layer.kind in self.kinds


@dataclasses.dataclass(frozen=True)
class Path:
    pattern: str | re.Pattern[str]

    def __call__(self, layer: Layer) -> bool:
        if isinstance(self.pattern, str):
            return fnmatch.fnmatchcase(layer.path, self.pattern)
        return self.pattern.fullmatch(layer.path) is not None


@dataclasses.dataclass(frozen=True)
class Module:
    module: str

    def __call__(self, layer: Layer) -> bool:
        return layer.module == self.module


@dataclasses.dataclass(frozen=True)
class Operation:
    """Layers that compute the primitive or function of this name."""

    name: str

    def __call__(self, layer: Layer) -> bool:
        return layer.name == self.name


@dataclasses.dataclass(frozen=True)
class Between:
    """Parameterised layers of a depth in [low, high); negative numbers count from the output."""

    low: int
    high: int | None

    def __call__(self, layer: Layer) -> bool:
        total = layer.depth + layer.height + 1
        low, high, _ = slice(self.low, self.high).indices(total)
        return layer.kind in PARAMETERISED_KINDS and low <= layer.depth < high


@dataclasses.dataclass(frozen=True)
class First:
    def __call__(self, layer: Layer) -> bool:
        return layer.first and layer.kind in PARAMETERISED_KINDS


@dataclasses.dataclass(frozen=True)
class Last:
    def __call__(self, layer: Layer) -> bool:
        return layer.last and layer.kind in PARAMETERISED_KINDS


@dataclasses.dataclass(frozen=True)
class ReLU:
    def __call__(self, layer: Layer) -> bool:
        return layer.relu


@dataclasses.dataclass(frozen=True)
class Anything:
    def __call__(self, layer: Layer) -> bool:
        return True


def _single(condition: Condition, then: Rule | Composite) -> Composite:
    if not isinstance(then, (Rule, Composite)):
        hint = f": write {then.__name__}()" if isinstance(then, type) else ""
        raise TypeError(f"a composite maps layers to a rule or a composite, got {then!r}{hint}")
    return Composite((Entry(condition, then),))


def composite(*parts: Composite, name: str = "") -> Composite:
    """Puts composites one behind the other: the first that has a rule for a layer decides.

    Example:
      >>> import jaxlrp as lrp
      >>> from jaxlrp.composites import by_kind, composite, first
      >>> c = composite(first(lrp.Flat()), by_kind("conv", lrp.ZPlus()), by_kind("dense", lrp.Epsilon()))
      >>> len(c.entries)
      3
    """
    for part in parts:
        if not isinstance(part, Composite):
            raise TypeError(
                f"composite() joins composites, got {part!r}: say where it applies, for example "
                "by_kind('conv', rule)"
            )
    readout = "gradient" if any(p.readout == "gradient" for p in parts) else "relevance"
    return Composite(tuple(e for p in parts for e in p.entries), readout, name)


def by_kind(kinds: str | Iterable[str], then: Rule | Composite) -> Composite:
    """Layers of a kind: "conv", "dense", "activation", ... (`jaxlrp.layers.KINDS`).

    Raises:
      ValueError: if there is no such kind.
    """
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"there is no kind of layer {kind!r}: {near(kind, KINDS, len(KINDS))}")
    return _single(Kind(kinds), then)


def by_path(pattern: str | re.Pattern[str], then: Rule | Composite) -> Composite:
    """Layers whose path matches: a shell pattern ("features/*"; * crosses "/") or a compiled regex.

    A pattern that matches no layer is an error when the composite is applied.
    """
    return _single(Path(pattern), then)


def by_module(module: type | str, then: Rule | Composite) -> Composite:
    """Layers called in a Flax module of this type, given as a class or by its name."""
    return _single(Module(module if isinstance(module, str) else module.__name__), then)


def by_operation(name: str, then: Rule | Composite) -> Composite:
    """Layers that compute this function or primitive: "relu", "softplus", "cholesky"."""
    return _single(Operation(name), then)


def first(then: Rule | Composite) -> Composite:
    """Dense layers and convolutions with no other between them and the input."""
    return _single(First(), then)


def last(then: Rule | Composite) -> Composite:
    """Dense layers and convolutions with no other between them and the output."""
    return _single(Last(), then)


def by_depth(low: int, high: int | None, then: Rule | Composite) -> Composite:
    """Layers at depth low, ..., high - 1: how many dense layers and convolutions precede them.

    Negative numbers count from the output, as in a slice. `by_depth(0, 3, Flat())` is the heatmap
    resolution control of Bach et al. (2016), https://arxiv.org/abs/1604.07426.
    """
    return _single(Between(low, high), then)


def where(condition: Condition, then: Rule | Composite) -> Composite:
    """Layers for which a predicate of your own holds."""
    return _single(condition, then)


# What a layer gets when no entry speaks of it


def default_rule(layer: Layer) -> Rule | None:
    """The rule of a layer of which a composite says nothing; None where there is none to give."""
    if layer.kind == "scale" and layer.after_normaliser:
        return LRP0()  # part of the normaliser: its bias takes a share, as any bias does
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
    "normaliser": Detach(),
    "embedding": LRP0(),
}


# Presets. Names and hyperparameters are those of Zennit in snake case.


def _layered(
    conv: Rule, dense: Rule, first_layer: Composite | None, stabiliser: Stabiliser, name: str
) -> Composite:
    parts = [] if first_layer is None else [first_layer]
    parts += [by_kind("conv", conv), by_kind("dense", dense)]
    parts += [by_kind(("sum", "pool"), Norm(stabiliser))]
    return composite(*parts, name=name)


def epsilon_gamma_box(
    low: float | Array,
    high: float | Array,
    *,
    epsilon: Stabiliser = 1e-6,
    gamma: float | Array = 0.25,
    stabiliser: Stabiliser = 1e-6,
    bias: str = "absorb",
) -> Composite:
    """Gamma in convolutions, epsilon in dense layers, z-box in a first convolution.

    Args:
      low, high: the least and greatest value that an input can have, in its units after
        preprocessing: numbers, or arrays that broadcast to the input, such as one per channel.
      epsilon: of the dense layers.
      gamma: of the convolutions.
      stabiliser: of all other denominators.
      bias: "absorb" or "zero", for every rule.
    """
    return _layered(
        Gamma(gamma, bias, stabiliser),
        Epsilon(epsilon, bias),
        first(by_kind("conv", ZBox(low, high, stabiliser))),
        stabiliser,
        "epsilon_gamma_box",
    )


def epsilon_plus(
    *, epsilon: Stabiliser = 1e-6, stabiliser: Stabiliser = 1e-6, bias: str = "absorb"
) -> Composite:
    """z+ in convolutions, epsilon in dense layers."""
    return _layered(
        ZPlus(bias, stabiliser), Epsilon(epsilon, bias), None, stabiliser, "epsilon_plus"
    )


def epsilon_plus_flat(
    *, epsilon: Stabiliser = 1e-6, stabiliser: Stabiliser = 1e-6, bias: str = "absorb"
) -> Composite:
    """z+ in convolutions, epsilon in dense layers, flat in the first layer."""
    return _layered(
        ZPlus(bias, stabiliser), Epsilon(epsilon, bias), first(Flat(stabiliser)), stabiliser,
        "epsilon_plus_flat",
    )  # fmt: skip


def epsilon_alpha2_beta1(
    *, epsilon: Stabiliser = 1e-6, stabiliser: Stabiliser = 1e-6, bias: str = "absorb"
) -> Composite:
    """alpha 2, beta 1 in convolutions, epsilon in dense layers."""
    return _layered(
        AlphaBeta(2.0, 1.0, bias, stabiliser), Epsilon(epsilon, bias), None, stabiliser,
        "epsilon_alpha2_beta1",
    )  # fmt: skip


def epsilon_alpha2_beta1_flat(
    *, epsilon: Stabiliser = 1e-6, stabiliser: Stabiliser = 1e-6, bias: str = "absorb"
) -> Composite:
    """alpha 2, beta 1 in convolutions, epsilon in dense layers, flat in the first layer."""
    return _layered(
        AlphaBeta(2.0, 1.0, bias, stabiliser), Epsilon(epsilon, bias), first(Flat(stabiliser)),
        stabiliser, "epsilon_alpha2_beta1_flat",
    )  # fmt: skip


def all_epsilon(epsilon: Stabiliser = 1e-6, *, bias: str = "absorb") -> Composite:
    """Epsilon in all dense layers and convolutions."""
    return composite(by_kind(("conv", "dense"), Epsilon(epsilon, bias)), name="all_epsilon")


def _transformer(
    epsilon: Stabiliser, gamma: float | Array | None, conv_gamma: float | Array | None, bias: str
) -> Composite:
    def linear(gamma: float | Array | None) -> Rule:
        return Epsilon(epsilon, bias) if gamma is None else Gamma(gamma, bias)

    return by_kind("conv", linear(conv_gamma)) + by_kind("dense", linear(gamma))


def attnlrp(
    *,
    epsilon: Stabiliser = 1e-6,
    gamma: float | Array | None = None,
    conv_gamma: float | Array | None = None,
    bias: str = "absorb",
) -> Composite:
    """AttnLRP, for transformers: every product of two values gives half of its relevance to each.

    The softmax is expanded to first order, which is its own derivative; activations pass relevance on;
    the denominators of LayerNorm and its kin are held fixed. Where `default()` gives all of a gated
    product to the signal, here the gate gets half.

    Args:
      epsilon: of dense layers and convolutions that have no gamma.
      gamma, conv_gamma: of the dense layers and of the convolutions; None for epsilon. The paper has
        0.05 and 0.25 in vision transformers, whose gradients are noisy, and none in language models.
      bias: "absorb" or "zero".

    References:
      Achtibat et al. (2024), https://doi.org/10.48550/arXiv.2402.05602
    """
    products = by_kind(("product", "attention", "gate"), Uniform())
    parts = _transformer(epsilon, gamma, conv_gamma, bias) + products
    return dataclasses.replace(parts, name="attnlrp")


def cp_lrp(
    *,
    epsilon: Stabiliser = 1e-6,
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


def excitation_backprop(*, stabiliser: Stabiliser = 1e-6, bias: str = "absorb") -> Composite:
    """z+ everywhere; activations and BatchNorm apart multiply relevance by their derivative.

    References:
      Zhang et al. (2018), https://doi.org/10.1007/s11263-017-1059-x
    """
    return composite(
        by_kind(("conv", "dense"), ZPlus(bias, stabiliser)),
        by_kind(("sum", "pool"), Norm(stabiliser)),
        by_kind(("activation", "scale"), DerivativeTimesRelevance()),
        name="excitation_backprop",
    )


def _gradients(relu_rule: Rule | None, name: str) -> Composite:
    parts = [] if relu_rule is None else [where(ReLU(), relu_rule)]
    joined = composite(*parts, where(Anything(), Gradient()), name=name)
    return dataclasses.replace(joined, readout="gradient")


def gradient() -> Composite:
    """The plain gradient; reads out g, no relevance."""
    return _gradients(None, "gradient")


def guided_backprop() -> Composite:
    """Guided backpropagation: ReLUs let positive gradients pass; reads out the gradient."""
    return _gradients(GuidedBackprop(), "guided_backprop")


def deconvnet() -> Composite:
    """The deconvolution network; reads out what it propagates, no relevance."""
    return _gradients(DeconvNet(), "deconvnet")


def beta_smooth(beta: float | Array = 10.0) -> Composite:
    """ReLUs have the gradient of a softplus; reads out the gradient."""
    return _gradients(BetaSmooth(beta), "beta_smooth")


def default() -> Composite:
    """What a user who names no composite gets: `Gamma(0.25)` in convolutions, `Epsilon` in dense layers.

    It asks for no knowledge of the input's range, and conserves relevance up to the biases.
    """
    return dataclasses.replace(
        composite(by_kind("conv", Gamma(0.25)), by_kind("dense", Epsilon(1e-6))), name="default"
    )


PRESETS: dict[str, Callable[..., Composite]] = {
    f.__name__: f
    for f in (
        default, all_epsilon, epsilon_gamma_box, epsilon_plus, epsilon_plus_flat,
        epsilon_alpha2_beta1, epsilon_alpha2_beta1_flat, excitation_backprop, attnlrp, cp_lrp,
        gradient, guided_backprop, deconvnet, beta_smooth,
    )
}  # fmt: skip


def words(condition: Any) -> tuple[str, str] | None:
    """(what, word) of a condition that must match something: a path pattern, a module type."""
    if isinstance(condition, Path):
        return "path", str(getattr(condition.pattern, "pattern", condition.pattern))
    if isinstance(condition, Module):
        return "module", condition.module
    if isinstance(condition, Operation):
        return "operation", condition.name
    return None
