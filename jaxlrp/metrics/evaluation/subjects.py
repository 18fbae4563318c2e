"""What is evaluated: explainers, functions and attributions, all in one form."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxlrp.composites import PRESETS
from jaxlrp.dataset.members import CONDITION, TARGET
from jaxlrp.dataset.relevance import Relevance, open_relevance
from jaxlrp.dataset.source import Id, is_array
from jaxlrp.explanation.base import BaseExplainer, find_explainer
from jaxlrp.explanation.result import Explanation
from jaxlrp.metrics import given
from jaxlrp.network.model import Model

Predict = Callable[..., Any]
KEY = "_key"  # the random keys of samples, among the context of an explainer that draws


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """One thing that is evaluated.

    Attributes:
      name: in the table.
      run: from (args, inputs, targets, context) to attributions or an `Explanation`; None for attributions
        that are given.
      predict: from (args, inputs, context) to outputs; None where no model is known.
      varies: whether the first positional argument holds the parameters, before the inputs.
      own: whether `predict` is that of the explainer, with the same parameters.
      draws: whether `run` takes one random key for each sample, as `context[KEY]`.
      given: from the position and the id of a sample to its attributions, where they are given.
      count: of how many samples attributions are given, in the order of the data; None where not known.
      model: equal for explainers with the same `predict`; None if no model is known.
    """

    name: str
    run: Callable[[tuple, Any, Any, dict[str, Any]], Any] | None
    predict: Callable[[tuple, Any, dict[str, Any]], Any] | None
    draws: bool = False
    varies: bool = False
    own: bool = True
    given: Callable[[int, Id], np.ndarray] | None = None
    count: int | None = None
    model: Any = None


def subjects(
    explainers: Mapping[str, Any], args: tuple[Any, ...], predict: Predict | None
) -> list[Subject]:
    """All explainers in one form.

    Args:
      explainers: by name; see `evaluate`.
      args: positional arguments without the explained one.
      predict: from (inputs, **context) to outputs, for all; None to take those of the explainers. One
        without a model gets that of the others, if they share one.

    Raises:
      TypeError, ValueError: naming the explainer that is wrong.
    """
    if not isinstance(explainers, Mapping):
        raise TypeError(
            f"explainers must be a dictionary from names to explainers, got {type(explainers).__name__}"
        )
    if not explainers:
        raise ValueError("explainers is empty: pass at least one")
    if predict is not None:
        given.check_predict(predict)
    found = [_subject(name, value, args) for name, value in explainers.items()]
    if predict is not None:

        def outputs(_: tuple, x: Any, context: dict[str, Any]) -> Any:
            return predict(x, **context)

        return [dataclasses.replace(s, predict=outputs, own=False) for s in found]
    known: dict[Any, Subject] = {}
    for subject in found:
        if subject.model is not None:
            known.setdefault(subject.model, subject)
    only = next(iter(known.values())) if len(known) == 1 else None
    shared = [only if s.model is None else known[s.model] for s in found]
    return [
        s if other is None else dataclasses.replace(s, predict=other.predict)
        for s, other in zip(found, shared, strict=True)
    ]


def _subject(name: Any, value: Any, args: tuple[Any, ...]) -> Subject:
    if not isinstance(name, str) or not name:
        raise TypeError(f"names of explainers must be strings, got {name!r}")
    if isinstance(value, Explanation):
        value = value.relevance
    if isinstance(value, (str, os.PathLike)):
        value = _opened(name, value)
    if isinstance(value, Relevance):
        return _stored(name, value)
    if is_array(value):
        return _array(name, value)
    if not callable(value):
        raise TypeError(
            f"explainers[{name!r}] must be the result of jaxlrp.explain, a baseline, a function of "
            f"(inputs, targets), an array of attributions or a store of them, got {type(value).__name__}"
        )
    held = find_explainer(value)
    if held is None:

        def run(_: tuple, x: Any, y: Any, context: dict[str, Any]) -> Any:
            return value(x, y, **context)

        return Subject(name, run, None)
    return _explainer(name, value, *held, args)


def _opened(name: str, path: str | os.PathLike[str]) -> Relevance:
    if isinstance(path, str) and path in PRESETS and not os.path.exists(path):
        raise TypeError(
            f"explainers[{name!r}] is {path!r}, a composite without a model: write "
            f'jaxlrp.explain(model, "{path}")'
        )
    return open_relevance(path)


def _explainer(
    name: str, value: Any, held: BaseExplainer, bound: int, args: tuple[Any, ...]
) -> Subject:
    if not isinstance(held.argnums, int):
        raise TypeError(
            f"explainers[{name!r}] has argnums={held.argnums}, but one argument must be explained"
        )
    position = held.argnums - bound
    if not 0 <= position <= len(args):
        raise TypeError(
            f"explainers[{name!r}] has argnums={held.argnums}, so args must contain the {position} "
            f"arguments before the explained one, such as args=(variables,); got {len(args)}"
        )
    partials = _bound(value)
    options = {k: v for k, v in partials[1].items() if k not in _OPTIONS}
    draws = "key" in getattr(held, "options", ()) and "key" not in partials[1]

    def run(args: tuple, x: Any, y: Any, context: dict[str, Any]) -> Any:
        given = {("key" if k == KEY else k): v for k, v in context.items()}
        return value(*args[:position], x, *args[position:], target=y, **given)

    def predict(args: tuple, x: Any, context: dict[str, Any]) -> Any:
        outputs = held.model.call(
            *partials[0], *args[:position], x, *args[position:], **options, **context
        )
        return held.model.split(outputs)[0]

    bound_leaves = tuple(map(id, jax.tree.leaves((partials[0], options))))
    return Subject(
        name,
        run,
        predict,
        draws,
        position > 0,
        model=(_identity(held.model), position, bound_leaves),
    )


def _identity(model: Model) -> Any:
    """Equal for the same function, method of the same module, or NNX module with the same state."""
    if model.state is not None:
        return tuple(map(id, jax.tree.leaves(model.state)))
    if inspect.ismethod(model.fun):
        return id(model.fun.__self__), model.fun.__func__
    return id(model.fun)


_OPTIONS = ("key", "target", "condition", "fun_kwargs")  # of explainers, not of models


def _bound(value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that `functools.partial` has bound."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    while not isinstance(value, BaseExplainer):
        if isinstance(value, functools.partial):
            args, kwargs = (*value.args, *args), {**value.keywords, **kwargs}
            value = value.func
        else:
            value = value.__wrapped__
    return args, kwargs


def _array(name: str, value: Any) -> Subject:
    """Attributions (n, ...), by the position of a sample in the data."""
    if not value.shape:
        raise ValueError(f"explainers[{name!r}] must have shape (n, ...), got ()")
    held = np.asarray(value) if isinstance(value, Array) else value

    def given(i: int, _: Id) -> np.ndarray:
        if i >= len(held):
            raise IndexError(f"explainers[{name!r}] has attributions of only {len(held)} samples")
        return np.asarray(held[i])

    return Subject(name, None, None, given=given, count=len(held))


def _stored(name: str, opened: Relevance) -> Subject:
    """Attributions of a store, by the id of a sample."""
    if "relevance" not in opened or {TARGET, CONDITION} & set(opened.dims):
        raise ValueError(
            f"explainers[{name!r}]: the store {str(opened.path)!r} must contain one relevance for each "
            f"sample, got {list(opened)} with axes {opened.dims if 'relevance' in opened else ()}"
        )
    rows = {found: row for row, found in enumerate(opened.ids)}
    held = opened.relevance

    def given(_: int, found: Id) -> np.ndarray:
        if found not in rows:
            raise KeyError(f"the store of explainers[{name!r}] has no sample {found!r}")
        return held[rows[found]]

    return Subject(name, None, None, given=given)
