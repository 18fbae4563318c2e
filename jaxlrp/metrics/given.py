"""Checks of what metrics are given. Each message names the argument, what it must be, and what came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._compat import is_traced
from jaxlrp.explanation.result import Explanation
from jaxlrp.numerics import widen


def as_attributions(attributions: Any, inputs: Array | None = None) -> Array:
    """Attributions as floats, (n, ...), given as an array or an `Explanation`.

    Args:
      attributions: of the shape of the inputs, up to axes of length 1 such as that of the channels.
      inputs: what they belong to, None for a metric that needs none.

    Raises:
      TypeError: if they are not one real array.
      ValueError: if their shape does not fit.
    """
    if isinstance(attributions, Explanation):
        attributions = attributions.relevance
    found = as_array("attributions", attributions)
    if jnp.issubdtype(found.dtype, jnp.complexfloating):
        raise TypeError(f"attributions must be real numbers, got {found.dtype}")
    found = widen(found)
    if found.ndim < 2:
        raise ValueError(
            f"attributions must have shape (n, ...), one sample each, got {found.shape}; write "
            "attributions[None] for a single sample"
        )
    if not found.size:
        raise ValueError(f"attributions must not be empty, got shape {found.shape}")
    if inputs is not None and not fits(found.shape, inputs.shape):
        raise ValueError(
            f"attributions must have the shape of the inputs, {inputs.shape}, where axes other than the "
            f"first may have length 1, got {found.shape}"
        )
    return found


def check_predict(predict: Any) -> None:
    """Refuses what is not a function of the inputs.

    Raises:
      TypeError: if it cannot be called, or is a Linen module without variables.
    """
    if not callable(predict) or (isinstance(predict, nn.Module) and predict.scope is None):
        raise TypeError(
            f"predict must be a function of the inputs, got {type(predict).__name__}; for a Linen module "
            "write lambda x: model.apply(variables, x)"
        )


def finite(values: Array) -> Array:
    """Whether all values of a sample are finite, (n,)."""
    return jnp.isfinite(values).reshape(len(values), -1).all(axis=1)


def as_masks(masks: ArrayLike, attributions: Array) -> Array:
    """Masks as booleans of the shape of the attributions.

    Raises:
      TypeError: if they are no booleans.
      ValueError: if their shape does not fit.
    """
    found = as_array("masks", masks)
    if found.dtype != bool:
        raise TypeError(f"masks must be booleans, got {found.dtype}: write masks > 0")
    if not fits(found.shape, attributions.shape):
        raise ValueError(
            f"masks must have the shape of attributions, {attributions.shape}, where axes other than the "
            f"first may have length 1, got {found.shape}"
        )
    return jnp.broadcast_to(found, attributions.shape)


def fits(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether a shape is another one, up to axes of length 1 after the first."""
    return (
        len(shape) == len(whole)
        and shape[0] == whole[0]
        and all(a in (1, b) for a, b in zip(shape[1:], whole[1:], strict=True))
    )


def as_array(name: str, value: Any) -> Array:
    """One array.

    Raises:
      TypeError: if it is a pytree of several, or no array.
    """
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must be one numeric array with the samples along its first axis, got {value!r:.60}"
        ) from error


def as_inputs(inputs: Any) -> Array:
    """Inputs, (n, ...).

    Raises:
      TypeError, ValueError: if they are not one array of at least one sample.
    """
    found = as_array("inputs", inputs)
    if found.ndim < 2 or not found.size:
        raise ValueError(
            f"inputs must have shape (n, ...), one sample each, and not be empty, got {found.shape}; "
            "write inputs[None] for a single sample"
        )
    return found


def as_targets(targets: ArrayLike | None, n: int) -> Array | None:
    """One class for each sample, (n,); None for a function with one output.

    Raises:
      TypeError, ValueError: if they are not n integers.
    """
    if targets is None:
        return None
    found = as_array("targets", targets)
    if not jnp.issubdtype(found.dtype, jnp.integer):
        raise TypeError(f"targets must be integers, one class for each sample, got {found.dtype}")
    if found.ndim == 0:
        found = jnp.broadcast_to(found, (n,))
    if found.shape != (n,):
        raise ValueError(
            f"targets must have shape ({n},), one class for each sample, got {found.shape}"
        )
    return found


def as_context(context: Mapping[str, Any] | None, n: int) -> dict[str, Array]:
    """Further arguments by name, each (n, ...).

    Raises:
      TypeError, ValueError: if it is no dictionary of arrays, or one has another number of samples.
    """
    if context is None:
        return {}
    if not isinstance(context, Mapping):
        raise TypeError(
            f"context must be a dictionary of arrays by name, got {type(context).__name__}"
        )
    found = {str(name): as_array(f"context[{name!r}]", a) for name, a in context.items()}
    for name, array in found.items():
        if array.ndim < 1 or len(array) != n:
            raise ValueError(
                f"context[{name!r}] must have the {n} samples along its first axis, got shape {array.shape}"
            )
    return found


def as_keys(key: Any, n: int, what: str) -> Array:
    """One random key for each sample, (n,): those given, or made from one.

    The key of a sample depends on its position alone, so draws do not depend on how samples are batched
    inside a metric.

    Raises:
      TypeError, ValueError: if there is none, or it is no key.
    """
    if key is None:
        raise TypeError(f"{what} draws random numbers: pass key=jax.random.key(0)")
    if not jnp.issubdtype(getattr(key, "dtype", np.dtype(object)), jax.dtypes.prng_key):
        raise TypeError(f"key must be one random key such as jax.random.key(0), got {key!r}")
    if key.ndim == 0:
        return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n))
    if key.shape != (n,):
        raise ValueError(
            f"key must be one random key, or one for each of {n} samples, got keys of shape {key.shape}"
        )
    return key


def check_outputs(targets: Array | None, outputs: Any, n: int) -> None:
    """Refuses outputs that are not one array, and targets that they do not have.

    Args:
      targets: (n,), None for one output.
      outputs: what `predict` returns, as shapes and dtypes.
      n: how many samples it was given.

    Raises:
      TypeError: if the outputs are not one array.
      ValueError, IndexError: as `check_classes`.
    """
    if not hasattr(outputs, "shape"):
        raise TypeError(
            f"predict must return one array, got {type(outputs).__name__}: choose one of its outputs"
        )
    check_classes(targets, outputs.shape)
    if outputs.shape[0] != n:
        raise ValueError(
            f"predict must return one row for each of {n} samples, (n, classes) or (n,), got "
            f"{outputs.shape}"
        )


def check_classes(targets: Array | None, shape: tuple[int, ...]) -> None:
    """Refuses targets that the outputs, of this shape, do not have.

    Raises:
      ValueError: if targets and outputs do not belong together.
      IndexError: if a class is out of range.
    """
    if len(shape) not in (1, 2):
        raise ValueError(
            f"predict must return (n, classes) or (n,), got {shape}; reduce the outputs first, such as to "
            "the logits of one position"
        )
    if targets is None:
        if len(shape) == 2 and shape[1] != 1:
            raise ValueError(
                f"targets is missing: predict returns {shape[1]} outputs for each sample; pass one "
                "class each"
            )
        return
    if len(shape) == 1:
        raise ValueError("predict returns one output for each sample: leave out targets")
    if is_traced(targets):
        return
    # NumPy: while a function is traced, JAX would trace the comparison.
    classes = np.asarray(targets)
    wrong = (classes < 0) | (classes >= shape[1])
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        raise IndexError(
            f"targets[{i}] = {classes[i]} is out of range: the model has {shape[1]} classes, "
            f"0 to {shape[1] - 1}"
        )
