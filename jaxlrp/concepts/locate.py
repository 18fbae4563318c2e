"""Where a concept is in a sample: the conditional backward pass from the concept to the input."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp._checks import check_one_of
from jaxlrp.concepts.conditions import check_indices
from jaxlrp.concepts.layers import at_layers, planned
from jaxlrp.concepts.method import ConceptExplainer, Shapes, check_explainer, only_array
from jaxlrp.concepts.units import Concepts, check_family
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.targets import Target

Pair = tuple[int, int, float]
"""A concept, the row of a sample, and the value by which the sample was ranked."""

ORDERS = ("relevance", "relevance_max", "activation", "activation_max")
"""By what samples are ranked, as in `Scores`; and thus what is sent to the input to locate a concept."""


def locate(
    explainer: Explainer, concepts: Concepts, *, by: str = "relevance"
) -> ConceptExplainer[Array]:
    r"""Where one concept of each sample is: relevance of the input from that concept alone.

        R_p = back(S_c R^l),   or   back(S_c a^l) for activations

    where `back` propagates relevance from the layer to the input and S_c is the share of the concept in
    each unit. It is `conditional(explainer, cut=True)` with one concept for each example of the batch.

    Args:
      explainer: the result of `jaxlrp.explain`.
      concepts: the concepts of a layer with a batch axis. The first axis of the explained argument must be
        the batch axis, too.
      by: what starts at the layer. "relevance": the relevance of all units of the concept, for the target.
        "relevance_max": only the relevance at the position where it is largest. "activation" and
        "activation_max": the same with activations, whatever the output of the model.

    Returns:
      A function `(*args, target=None, concepts, **kwargs) -> relevance` of the shape of the explained
      argument (of tokens, one number each). `concepts` is (batch,), integers: the concept of each example.

    Raises:
      TypeError, ValueError, IndexError: naming the argument that is wrong, and how to fix it.

    References:
      Achtibat et al. (2023), https://doi.org/10.1038/s42256-023-00711-8

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import concepts
      >>> w, v = jnp.array([[2.0, -1.0], [1.0, 3.0]]), jnp.array([[1.0], [2.0]])
      >>> explain = lrp.explain(lambda x: jax.nn.relu(x @ w) @ v)
      >>> locate = concepts.locate(explain, concepts.Channels("relu", axis=-1))
      >>> x = jnp.array([[1.0, 2.0], [1.0, 2.0]])
      >>> jnp.rint(locate(x, concepts=[0, 1])).astype(int).tolist()
      [[2, 2], [-2, 12]]
    """
    held = check_explainer(explainer)
    check_family(concepts)
    if concepts.batch is None:
        raise ValueError(
            "concepts must have an axis of the batch, got batch=None: pass batch=, the axis of the "
            "examples"
        )
    check_one_of("by", by, ORDERS)
    compute = functools.partial(_locate, held, concepts, by)
    check = functools.partial(_check, concepts)
    return ConceptExplainer("locate", held, compute, _options, check)


def _options(kwargs: dict[str, Any]) -> dict[str, Any]:
    if "concepts" not in kwargs:
        raise TypeError("concepts is missing: pass concepts=[...], the concept of each example")
    chosen = kwargs.pop("concepts")
    if not _compat.is_traced(chosen):
        chosen = np.asarray(chosen)
    if chosen.ndim != 1 or not chosen.size or not jnp.issubdtype(chosen.dtype, jnp.integer):
        raise ValueError(
            f"concepts must be integers of shape (batch,), one for each example, got {chosen.dtype} of "
            f"shape {chosen.shape}"
        )
    return {"concepts": jnp.asarray(chosen, jnp.int32)}


def _check(family: Concepts, options: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    shape, chosen = shapes[family.layer].shape, options["concepts"]
    count, size = family.count(shape), shape[family.batch_axes(len(shape))[0]]
    if chosen.shape != (size,):
        raise ValueError(
            f"concepts must have one concept for each of {size} examples, got {chosen.shape[0]}"
        )
    if not _compat.is_traced(chosen):
        check_indices(family, np.asarray(chosen), count)


def _locate(
    explainer: Explainer, family: Concepts, by: str,
    args: tuple, kwargs: dict, target: Target, *, concepts: Array,
) -> tuple[Array, Shapes]:  # fmt: skip
    layer, of_relevance = family.layer, by.startswith("relevance")
    planned(explainer, args, kwargs, (family,), reached=of_relevance)
    stage = explainer.replace(record=(layer,), start=layer).vjp(*args, fun_kwargs=kwargs)
    activations = at_layers(stage, (layer,))
    _check(family, {"concepts": concepts}, activations)
    a = begun = activations[layer]
    if of_relevance:
        pullback = explainer.replace(record=(layer,)).vjp(*args, fun_kwargs=kwargs)
        begun = pullback(target=target).records[layer].relevance
    count = family.count(a.shape)
    values = family.collect(a, begun) if of_relevance else family.activations(a)
    chosen = jax.nn.one_hot(concepts, count, dtype=a.dtype)
    weights = chosen.reshape(len(concepts), *(1,) * (values.ndim - 2), count)
    if by.endswith("_max"):
        weights = weights * _largest(values, concepts, a.dtype)
    relevance = (begun * family.spread(a, weights)).astype(a.dtype)
    found = only_array(stage(target=relevance).relevance)
    return found, (stage.output, activations)


def _largest(values: Array, concepts: Array, dtype: Any) -> Array:
    """1 at the position where each example's concept is largest, the first of equal ones; else 0."""
    index = concepts.reshape(-1, *(1,) * (values.ndim - 1))
    of = jnp.take_along_axis(values, index, axis=-1)
    flat = of.reshape(len(of), -1)
    return jax.nn.one_hot(jnp.argmax(flat, axis=-1), flat.shape[-1], dtype=dtype).reshape(of.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Locator:
    """Locates pairs of a concept and a sample, in batches of one size and thus with one program.

    Attributes:
      explain: the result of `locate`.
      fetch, targets, args, batch_size: as in `references`.
    """

    explain: ConceptExplainer[Any]
    fetch: Callable[[np.ndarray], Any]
    targets: ArrayLike | None
    args: tuple[Any, ...]
    batch_size: int

    def each(
        self, pairs: Sequence[Pair], progress: str
    ) -> Iterator[tuple[Pair, np.ndarray, np.ndarray]]:
        """Each pair, its example, and the relevance of that."""
        from jaxlrp.dataset.progress import Progress

        shown = Progress(progress, len(pairs))
        try:
            for begin in range(0, len(pairs), self.batch_size):
                now = list(pairs[begin : begin + self.batch_size])
                whole = now + now[-1:] * (self.batch_size - len(now))
                rows = np.array([row for _, row, _ in whole])
                inputs = self.inputs(rows)
                target = None if self.targets is None else np.asarray(self.targets)[rows]
                of = np.array([concept for concept, _, _ in whole])
                found = self.explain(*self.args, *inputs, target=target, concepts=of)
                yield from zip(now, self.examples(inputs), np.asarray(found), strict=False)
                shown.advance(len(now))
        finally:
            shown.close()

    def inputs(self, rows: np.ndarray) -> tuple[Any, ...]:
        """The inputs of the model for these rows."""
        fetched = self.fetch(rows)
        inputs = fetched if isinstance(fetched, tuple) else (fetched,)
        if any(len(a) != len(rows) for a in inputs):
            raise ValueError(
                f"fetch must return one input for each of {len(rows)} rows, got {len(inputs[0])}"
            )
        return inputs

    def examples(self, inputs: tuple[Any, ...]) -> np.ndarray:
        """The explained argument among the inputs."""
        return np.asarray((*self.args, *inputs)[self.explain.model.argnums[0]])
