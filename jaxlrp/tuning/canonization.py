"""What the rules take for a layer: BatchNorm, biases and residual sums as further choices of a search."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jaxlrp._checks import check_one_of, check_sequence
from jaxlrp.composites.entries import (
    Between,
    Chosen,
    Composite,
    Entry,
    First,
    Kind,
    Last,
    by_kind,
)
from jaxlrp.explanation.plan import Plan
from jaxlrp.network.layers import Layer
from jaxlrp.rules import LRP0, Magnitude, Norm, Rule, Unfolded
from jaxlrp.rules.linear import linear_without_bias
from jaxlrp.tuning.families import Family, as_families
from jaxlrp.tuning.presets import EPSILON, Candidates, relative

LINEAR = ("dense", "conv")
GIVEN = "given"
NORMS, BIASES, SUMS = (GIVEN, "pass", "share"), (GIVEN, "zero"), (GIVEN, "epsilon", "magnitude")
_NAMES = {
    ("norms", "pass"): "BatchNorm passes",
    ("norms", "share"): "BatchNorm shares",
    ("biases", "zero"): "no biases",
    ("sums", "epsilon"): "sums by epsilon",
    ("sums", "magnitude"): "sums by magnitude",
}


def canonized(
    candidates: Mapping[str, Any],
    plan: Plan | None = None,
    *,
    norms: Iterable[str] = NORMS,
    biases: Iterable[str] = (GIVEN,),
    sums: Iterable[str] = SUMS,
) -> Candidates:
    """Crosses candidates of a search with what rules take for a layer.

    Layers are found by structure, so nothing of the model changes; only composites do. "given" leaves a
    candidate as it is, under its own name. The names of the others say what was chosen, such as "gamma,
    BatchNorm passes, sums by magnitude".

    Args:
      candidates: families and composites by name, as `search` takes them. Those that propagate gradients
        instead of relevance stay as they are.
      plan: of the model, from `jaxlrp.plan`, to leave out what changes nothing in it; None for all.
      norms: of BatchNorms: "given"; "pass", relevance passes them unchanged, also those that a layer before
        absorbs (`rules.Unfolded`); "share", the shifts of those that no layer absorbs keep their share of
        relevance as well, as a bias does (LRP-0).
      biases: of dense layers and convolutions: "given"; "zero", they count nowhere. Relevance of networks
        with BatchNorm then often explodes.
      sums: of residual branches: "given"; "epsilon", with a further hyperparameter `sum_epsilon`, in units
        of the root mean square of the sum (`rules.Norm`); "magnitude", by size without sign
        (`rules.Magnitude`).

    Returns:
      By name: as many as there are combinations, times the candidates.

    Raises:
      TypeError, ValueError: naming the argument that is wrong.

    References:
      Pahde et al. (2023), https://doi.org/10.48550/arXiv.2211.17174

    Example:
      >>> from jaxlrp import tuning
      >>> sorted(tuning.canonized({"z+": "epsilon_plus"}, norms=("given", "pass"), sums=("given",)))
      ['z+', 'z+, BatchNorm passes']
    """
    families = as_families(candidates)
    if plan is not None and not isinstance(plan, Plan):
        raise TypeError(f"plan must be the result of jaxlrp.plan, got {type(plan).__name__}")
    choices = [
        [(name, held) for held in _used(name, given, known, plan)]
        for name, given, known in (
            ("norms", norms, NORMS), ("biases", biases, BIASES), ("sums", sums, SUMS),
        )
    ]  # fmt: skip
    found: Candidates = {}
    for name, family in families.items():
        middle = family({n: held.at(0.5) for n, held in family.ranges.items()})
        for chosen in itertools.product(*choices):
            kept = [choice for choice in chosen if choice[1] != GIVEN]
            if kept and middle.readout == "gradient":
                continue
            label = ", ".join([name, *(_NAMES[choice] for choice in kept)])
            if label in found:
                raise ValueError(f"candidates already have the name {label!r}: choose another")
            found[label] = _changed(family, dict(chosen)) if kept else family
    return found


def _used(name: str, given: Any, known: tuple[str, ...], plan: Plan | None) -> list[str]:
    """The values of a choice, those alone that change something."""
    check_sequence(name, given, repr(known))
    values = list(dict.fromkeys(given))
    if not values:
        raise ValueError(f"{name} must have at least one of {', '.join(known)}, got {given!r}")
    for value in values:
        check_one_of(name, value, known)
    if plan is None:
        return values
    changing = {value for value in values if value == GIVEN or _changes(name, value, plan)}
    return [value for value in values if value in changing] or [GIVEN]


def _changes(name: str, value: str, plan: Plan) -> bool:
    """Whether a choice changes anything in a model."""
    rows = plan.rows
    linear = [row for row in rows if row.kind in LINEAR]
    if name == "sums":
        return any(row.kind == "sum" for row in rows)
    if name == "biases":
        return any({"add", "add_any", "sub"} & set(row.absorbed) for row in linear)
    if value == "share":
        return any(row.kind == "scale" for row in rows)
    return any({"mul", "div"} & set(row.absorbed) for row in linear)


def _changed(family: Family, chosen: Mapping[str, str]) -> Family:
    """A family with choices."""
    own = dict(family.ranges)
    by_epsilon = chosen["sums"] == "epsilon"
    if by_epsilon:
        if "sum_epsilon" in own:
            raise ValueError(
                "a family has a hyperparameter 'sum_epsilon' already: rename it, or leave 'epsilon' out of "
                "sums"
            )
        own["sum_epsilon"] = EPSILON

    def build(**values: Any) -> Composite:
        sum_epsilon = values.pop("sum_epsilon") if by_epsilon else None
        return _composed(family(values), chosen, sum_epsilon)

    return Family(build, own)


def _composed(held: Composite, chosen: Mapping[str, str], sum_epsilon: Any) -> Composite:
    """A composite with choices, of which those for whole kinds of layers come first."""
    above: tuple[Entry, ...] = ()
    if chosen["sums"] == "epsilon":
        above += by_kind("sum", Norm(relative(sum_epsilon))).entries
    if chosen["sums"] == "magnitude":
        above += by_kind("sum", Magnitude()).entries
    if chosen["norms"] == "share":
        above += by_kind("scale", LRP0()).entries
    # an epsilon as in the presets: candidates are compared, and must not overflow
    zero = functools.partial(linear_without_bias, epsilon=1e-6)
    changes: list[Callable[[Rule], Rule]] = [zero] if chosen["biases"] == "zero" else []
    changes += [Unfolded] if chosen["norms"] == "pass" else []
    if changes:
        held = held + by_kind(LINEAR, LRP0())  # what layers get that no entry matches
    for change in changes:
        held = _mapped(held, change)
    return dataclasses.replace(held, entries=above + held.entries)


def _mapped(composite: Composite, change: Callable[[Rule], Rule]) -> Composite:
    """The composite with a function of its rules for dense layers and convolutions."""
    return dataclasses.replace(
        composite,
        entries=tuple(Entry(e.condition, _then(e, change)) for e in composite.entries),
    )


def _then(entry: Entry, change: Callable[[Rule], Rule]) -> Rule | Composite | Chosen:
    then = entry.then
    if isinstance(then, Composite):
        return _mapped(then, change)
    if isinstance(then, Chosen):
        return Chosen(_Changed(then, change))
    others = sorted(then.kinds.difference(LINEAR))
    if not then.kinds.intersection(LINEAR):
        return then
    match entry.condition:
        case First() | Last() | Between():
            others = []
        case Kind(kinds):
            others = [kind for kind in others if kind in kinds]
    if not others:
        return change(then)
    return by_kind(LINEAR, change(then)) + by_kind(others, then)


@dataclasses.dataclass(frozen=True)
class _Changed:
    """A user's function from a layer to its rule, with a function of that rule."""

    of: Chosen
    change: Callable[[Rule], Rule]

    def __call__(self, layer: Layer) -> Rule | None:
        rule = self.of(layer)
        return self.change(rule) if rule is not None and layer.kind in LINEAR else rule
