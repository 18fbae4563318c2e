"""Does an artifact still decide? Tests of prototype networks with and without it."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp.prototypes.layer import PrototypeLayer


def rise(layer: PrototypeLayer, clean: ArrayLike, changed: ArrayLike) -> Array:
    """How much more similar each prototype is with an artifact than without: mean of s' - s, (P,).

    Prototypes with a large rise stand for the artifact: look at them, and deselect them.

    Args:
      layer: from `layer`.
      clean: features of samples without the artifact, (N, ..., C).
      changed: of the same samples with it.

    Raises:
      ValueError: if shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import prototypes
      >>> layer = prototypes.layer([[1.0], [0.0]], jnp.ones((2, 2)))
      >>> found = prototypes.rise(layer, jnp.zeros((1, 2, 1)), jnp.array([[[0.0], [1.0]]]))
      >>> bool(found[0] > 8), float(found[1])
      (True, 0.0)
    """
    if jnp.shape(clean) != jnp.shape(changed):
        raise ValueError(
            "clean and changed must be features of the same samples, of one shape, got "
            f"{jnp.shape(clean)} and {jnp.shape(changed)}"
        )
    return (layer.similarities(changed) - layer.similarities(clean)).mean(0)


class Leakage(NamedTuple):
    """What an artifact does to predictions.

    Attributes:
      accuracy: without the artifact.
      with_artifact: accuracy with it.
      before: share of samples of other classes that are taken for the artifact's class without it.
      after: the same share with it. Near `before` if nothing leaks.
    """

    accuracy: float
    with_artifact: float
    before: float
    after: float


def leakage(clean: ArrayLike, changed: ArrayLike, labels: ArrayLike, into: int) -> Leakage:
    """Whether an artifact makes samples of other classes look like one class.

    Accuracy alone does not tell: it can be high while the artifact decides, if it comes with its class.

    Args:
      clean: predicted classes of samples without the artifact, (N,), or logits (N, K).
      changed: of the same samples with it.
      labels: their classes, (N,).
      into: the class that has the artifact in the training data.

    Raises:
      ValueError: if shapes do not fit, or all samples are of the class `into`.

    Example:
      >>> from jaxlrp import prototypes
      >>> prototypes.leakage([0, 1, 1, 2], [0, 0, 0, 2], [0, 1, 1, 2], into=0)
      Leakage(accuracy=1.0, with_artifact=0.5, before=0.0, after=0.6666666666666666)
    """
    y = np.asarray(labels)
    one, other = (np.asarray(a) for a in (clean, changed))
    one, other = (a.argmax(-1) if a.ndim == 2 else a for a in (one, other))
    if y.ndim != 1 or one.shape != y.shape or other.shape != y.shape:
        raise ValueError(
            f"clean, changed and labels must be of the same samples, (N,), got {one.shape}, "
            f"{other.shape} and {y.shape}"
        )
    others = y != into
    if not others.any():
        raise ValueError(f"labels must have other classes than into={into}, got none")
    return Leakage(
        float((one == y).mean()),
        float((other == y).mean()),
        float((one[others] == into).mean()),
        float((other[others] == into).mean()),
    )
