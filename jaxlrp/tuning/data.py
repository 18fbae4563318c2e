"""The samples of a search: arrays in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlrp.metrics.metric import Metric

KEYS = ("input", "target", "mask", "segments")


class Data(NamedTuple):
    """Samples, all arrays with n samples along the first axis.

    Attributes:
      inputs: (n, ...).
      targets: the class that is explained, (n,); None for a model with one output.
      masks: of the object, booleans; None if there are none.
      segments: integers; None if there are none.
      context: further arguments of the model by name.
      number: place of a sample in the whole data, (n,).
      prepared: what metrics computed of the model for all candidates, by metric; empty if nothing was.
    """

    inputs: Any
    targets: Any
    masks: Any
    segments: Any
    context: Mapping[str, Any]
    number: Any
    prepared: Mapping[str, Any]

    @property
    def size(self) -> int:
        """How many samples there are."""
        return len(self.number)

    def take(self, places: Any) -> Data:
        """Some of the samples."""
        return jax.tree.map(lambda a: a[places], self)

    def batches(self, size: int) -> Iterator[tuple[Data, int]]:
        """Batches of one size, and how many samples of each count: the last one is padded."""
        size = min(size, self.size)
        for start in range(0, self.size, size):
            places = np.arange(start, start + size)
            yield self.take(np.minimum(places, self.size - 1)), min(size, self.size - start)


def as_data(given: Any) -> Data:
    """Samples as `search` takes them.

    Raises:
      TypeError, ValueError: naming what is wrong.
    """
    if isinstance(given, tuple) and len(given) == 2:
        given = {"input": given[0], "target": given[1]}
    if not isinstance(given, Mapping) or "input" not in given:
        raise TypeError(
            "data must be (inputs, targets), or a dictionary of arrays with the keys 'input' and, where "
            f"there are some, 'target', 'mask', 'segments' and the context, got {type(given).__name__}"
        )
    arrays = {}
    for name, value in given.items():
        if value is None:
            continue
        found = np.asarray(value)
        if found.dtype == object or not found.shape:
            raise TypeError(f"data[{name!r}] must be one array (n, ...), got {value!r:.60}")
        arrays[name] = found
    n = len(arrays["input"])
    for name, found in arrays.items():
        if len(found) != n:
            raise ValueError(
                f"data[{name!r}] must have {n} samples like data['input'], got {len(found)}"
            )
    target = arrays.get("target")
    if target is not None and (target.ndim != 1 or not np.issubdtype(target.dtype, np.integer)):
        raise TypeError(
            f"targets must be one class for each sample, integers ({n},), got {target.dtype} "
            f"{target.shape}"
        )
    context = {name: found for name, found in arrays.items() if name not in (*KEYS, "id")}
    return Data(
        arrays["input"], target, arrays.get("mask"), arrays.get("segments"), context,
        np.arange(n, dtype=np.uint32), {},
    )  # fmt: skip


def check_metrics(metrics: Mapping[str, Metric], data: Data) -> None:
    """Refuses metrics that a search cannot use.

    Raises:
      ValueError: naming the metric.
    """
    for name, metric in metrics.items():
        if metric.compares_samples or metric.on_host or "variables" in metric.needs:
            reason = (
                "changes the parameters of the model"
                if "variables" in metric.needs
                else "needs all samples at once, outside of a compiled program"
            )
            raise ValueError(f"the metric {name!r} {reason}: search cannot use it")
        if metric.higher_is_better is None:
            raise ValueError(
                f"the metric {name!r} says of no direction that it is better: search cannot use it"
            )
        if "masks" in metric.needs and data.masks is None:
            raise ValueError(
                f"the metric {name!r} needs masks, but data has none: pass a dictionary with "
                '"mask": booleans (n, ...), True inside the object'
            )
