"""Converts PyTorch weights to variables of Linen modules, for all pretrained networks."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util

Arrays = Mapping[str, np.ndarray]


def package_folder(package: str, network: str, install: str) -> Path:
    """The folder of a package with weights. It is not imported, because many such packages need PyTorch.

    Raises:
      ImportError: if it is not installed; names the network that needs it and how to install it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"the weights of {network} are in a package that is not installed: {install}"
        )
    return Path(spec.submodule_search_locations[0])


def to_linen(checkpoint: Arrays, scope: Callable[[str], str]) -> dict[str, np.ndarray]:
    """Renames the tensors of a checkpoint to Linen's names and transposes kernels to its axis order.

    Args:
      checkpoint: tensors by name, "<module>.<leaf>", of convolutions over any number of axes, dense
        layers and BatchNorms.
      scope: function from a module name in the checkpoint to our path, such as "block_0/expand".

    Returns:
      Arrays by flat name, such as "params/block_0/expand/kernel".
    """
    flat = {}
    for name, value in checkpoint.items():
        module, _, leaf = name.rpartition(".")
        path = scope(module)
        if leaf == "weight" and value.ndim > 1:
            # (out, in, *space) to (*space, in, out)
            flat[f"params/{path}/kernel"] = np.moveaxis(value, (0, 1), (-1, -2))
        elif leaf == "weight":
            flat[f"params/{path}/scale"] = value
        elif leaf == "bias":
            flat[f"params/{path}/bias"] = value
        elif leaf in ("running_mean", "running_var"):
            flat[f"batch_stats/{path}/{leaf.removeprefix('running_')}"] = value
    return flat


def signature(model: nn.Module, *args: Any) -> dict[str, Any]:
    """The shape and dtype of each variable of a model, by flat name, without computing anything."""
    variables = jax.eval_shape(model.init, jax.random.key(0), *args)
    return traverse_util.flatten_dict(variables, sep="/")


def digest(flat: Mapping[str, Any]) -> str:
    """A hash of names, shapes and dtypes: 16 hexadecimal digits."""
    said = [(name, tuple(value.shape), str(value.dtype)) for name, value in sorted(flat.items())]
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


def matches(flat: Arrays, expected: Mapping[str, Any]) -> bool:
    """Whether names, shapes and dtypes agree with those of a model."""
    found = {name: (value.shape, value.dtype) for name, value in flat.items()}
    return found == {name: (value.shape, value.dtype) for name, value in expected.items()}


def nested(flat: Arrays) -> dict[str, Any]:
    """Converts flat arrays to the nested variables of a model."""
    return traverse_util.unflatten_dict(jax.device_put(dict(flat)), sep="/")
