"""The arrays of a store: their names, shapes, dtypes and axes, and the axis of the batch."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp.errors import UnsupportedError

SAMPLE, TARGET, CONDITION = "sample", "target", "condition"
_RELEVANCES = ("relevance", "record.")


@dataclasses.dataclass(frozen=True)
class Member:
    """One array of a store.

    Attributes:
      shape: the shape of one sample's part.
      dtype: its name, as in Zarr.
      dims: names of all axes, "sample" first.
    """

    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]


def is_relevance(name: str) -> bool:
    """Whether an array holds relevance, of the input or of a recorded layer."""
    return name.startswith(_RELEVANCES)


def stored_dtype(name: str, computed: Any, chosen: str | None) -> str:
    """The dtype in which an array is stored: `chosen` for relevance, at least float32 for other floats."""
    if not jnp.issubdtype(computed, jnp.floating):
        return np.dtype(computed).name
    if chosen is not None and is_relevance(name):
        return chosen
    return "float32" if computed.itemsize < 4 else np.dtype(computed).name


def axis_names(
    name: str, rank: int, *, several_targets: bool, conditions: bool, dims: tuple[str, ...] | None
) -> tuple[str, ...]:
    """Names of the axes of an array.

    Args:
      name: of the array.
      rank: number of axes without the one of samples.
      several_targets: whether each sample is explained for several targets.
      conditions: whether each sample is explained under several conditions.
      dims: the user's names for the axes of one sample's relevance.

    Raises:
      ValueError: if there are more or fewer `dims` than axes.
    """
    explained = is_relevance(name) or name.startswith("residual")
    lead = [TARGET] if several_targets and (explained or name == "target") else []
    lead += [CONDITION] if conditions and explained else []
    left = rank - len(lead)
    if name.startswith("relevance") and dims is not None:
        if len(dims) != left:
            raise ValueError(
                f"dims must name the {left} axes of one sample's relevance, got {dims}"
            )
        return (SAMPLE, *lead, *dims)
    if name == "output" and left == 1:
        return (SAMPLE, "class")
    return (SAMPLE, *lead, *(f"dim_{i}" for i in range(left)))


def named(prefix: str, tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by names that are valid names of folders.

    Raises:
      UnsupportedError: if two leaves would have the same name.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    found: dict[str, Any] = {}
    for path, leaf in leaves:
        key = re.sub(r"[/\\\0]", ".", jax.tree_util.keystr(path, simple=True, separator="."))
        name = f"{prefix}.{key}" if key else prefix
        if name in found:
            raise UnsupportedError(
                f"two parts of {prefix} would be stored as {name!r}: rename their keys so that they differ "
                "in more than '.' and '/'"
            )
        found[name] = leaf
    return found


def record_name(path: str, taken: Mapping[str, Any]) -> str:
    """The name of the array of a recorded layer.

    Raises:
      UnsupportedError: if the name is taken.
    """
    name = f"record.{path.replace('/', '.')}"
    if name in taken:
        raise UnsupportedError(
            f"{path!r} and another recorded layer would both be stored as {name!r}: record only one of them"
        )
    return name


def batch_axis(
    name: str, small: tuple[int, ...], large: tuple[int, ...], sizes: tuple[int, ...]
) -> int:
    """The axis of an array along which samples lie.

    Args:
      name: of the array.
      small, large: its shapes for two batches.
      sizes: samples of these batches.

    Raises:
      UnsupportedError: if there is none.
    """
    pairs = list(zip(small, large, strict=True))
    differ = [i for i, (a, b) in enumerate(pairs) if a != b]
    if len(differ) != 1 or pairs[differ[0]] != sizes:
        raise UnsupportedError(
            f"{name!r} has no batch axis: batches of {sizes[0]} and {sizes[1]} samples give the shapes "
            f"{small} and {large}. Explain a function that returns one result per sample"
        )
    return differ[0]
