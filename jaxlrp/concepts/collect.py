"""`collect`: the scores of every concept for every sample of a data set, on disk."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxlrp.concepts.method import ConceptExplainer, Shapes, check_explainer, no_options
from jaxlrp.concepts.scores import Families, by_name, compute_scores
from jaxlrp.concepts.units import Concepts
from jaxlrp.dataset import (
    ComputeOptions,
    Given,
    ReadOptions,
    StoreOptions,
    Summary,
    Top,
    attribute_dataset,
)
from jaxlrp.dataset.resolve import SourceLike
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.explanation.result import Explanation
from jaxlrp.targets import Target


def collect(
    explainer: Explainer,
    concepts: Families,
    source: SourceLike,
    output: str | os.PathLike[str],
    *,
    args: Sequence[Any] = (),
    target: Given | Target | None = None,
    preprocess: Callable[[Any], Any] | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    progress: str = "auto",
    read: ReadOptions | None = None,
    compute: ComputeOptions | None = None,
    store: StoreOptions | None = None,
) -> Summary:
    """Stores the scores of every concept for every sample of a data set.

    It runs like `jaxlrp.dataset.attribute_dataset`: in batches, on all devices and hosts, and resumable
    after any interruption. `open_scores` reads what was stored: the samples with the largest scores of each
    concept (relevance and activation maximization), and statistics of classes.

    A sample takes 24 bytes per concept before compression: relevance, its maximum over positions, the
    position of that maximum, and the same for activation.

    Args:
      explainer: the result of `jaxlrp.explain`.
      concepts: the concepts of a layer, such as `Channels(layer, axis)`; or several of these, as a list or
        a dictionary by name.
      source, output, args, preprocess, batch_size, limit, progress, read, compute, store: as in
        `jaxlrp.dataset.attribute_dataset`.
      target: what is explained for each sample, one target each; if it is a class, it is the class of the
        sample. None: the target from the source, or the output itself if it is one number. Otherwise a
        class index, `jaxlrp.targets.predicted`, anything else that `jaxlrp.explain` takes, or
        `Given(...)`.

    Returns:
      A `Summary`: number of samples, failures with their reasons, throughput.

    Raises:
      TypeError, ValueError, IndexError: if an argument is invalid, naming it.
      StoreError: if the store has other contents, is locked or full; see `attribute_dataset`.

    References:
      Achtibat et al. (2023), https://doi.org/10.1038/s42256-023-00711-8

    Example:
      >>> import tempfile, jax.numpy as jnp, numpy as np, jaxlrp as lrp
      >>> from jaxlrp import concepts
      >>> explain = lrp.explain(lambda x: jnp.tanh(x) @ jnp.array([[1.0, -1.0]]))
      >>> x, labels = np.array([[3.0], [2.0], [1.0], [0.5]], np.float32), np.array([1, 0, 0, 1])
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     summary = concepts.collect(
      ...         explain, concepts.Channels("tanh", axis=-1), (x, labels), folder, progress="none"
      ...     )
      ...     opened = concepts.open_scores(folder)
      ...     relevant = opened.top("tanh", k=4, normalized=False)
      ...     active = opened.top("tanh", k=4, by="activation", normalized=False)
      >>> relevant.rows.tolist(), active.rows.tolist()
      ([[1, 2, 3, 0]], [[0, 1, 2, 3]])
    """
    held = check_explainer(explainer)
    if isinstance(target, (Top, list, tuple)):
        raise TypeError(
            f"target must be one target for each sample, got {target!r}: call collect once for each "
            "target, with another output folder each time"
        )
    return attribute_dataset(
        collecting(held, concepts), source, output, args=args, target=target, preprocess=preprocess,
        batch_size=batch_size, limit=limit, progress=progress, read=read, compute=compute, store=store,
    )  # fmt: skip


def collecting(explainer: Explainer, families: Families) -> ConceptExplainer[Explanation]:
    """The explainer whose "relevance" is the scores, by family and by the names of `Scores`."""
    named = by_name(families)
    for name, family in named.items():
        if family.batch is None:
            raise ValueError(
                f"the concepts {name!r} have batch=None, but samples are explained in batches: pass "
                "batch=, the axis of the samples in the output of the layer"
            )
    compute = functools.partial(_compute, explainer, named)
    return ConceptExplainer("collect", explainer, compute, no_options, _nothing)


def _compute(
    explainer: Explainer, families: dict[str, Concepts], args: tuple, kwargs: dict, target: Target
) -> tuple[Explanation, Shapes]:
    found, shapes = compute_scores(explainer, families, False, args, kwargs, target)
    scores = {name: dict(vars(held)) for name, held in found.items()}
    return Explanation(output=shapes[0], relevance=scores), shapes


def _nothing(options: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    """Nothing to check: each family looks at its layer while it is traced."""
