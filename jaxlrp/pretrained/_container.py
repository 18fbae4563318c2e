"""The container that every loader of a pretrained network returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import linen as nn


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
    """A trained network, with the functions and names that are needed to use it.

    Attributes:
      model: the Linen module; `model.apply(variables, inputs)` returns its outputs.
      variables: its collections (parameters and running statistics), float32.
      preprocess: converts raw data (images, sound, words) to inputs of the model. If the model has several
        inputs, they are the fields of a named tuple; see the loader.
      labels: the name of each output, by index; empty if outputs have no names. Names need not be unique.
      input_range: the smallest and largest value of an input, for the z-box rule; None if unknown.
      to_image: converts inputs back to a displayable image (uint8); None if inputs are not images.
    """

    model: nn.Module
    variables: Mapping[str, Any] = dataclasses.field(repr=False)
    preprocess: Callable[..., Any] = dataclasses.field(repr=False)
    labels: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    input_range: tuple[float, float] | None = None
    to_image: Callable[[np.ndarray], np.ndarray] | None = dataclasses.field(
        default=None, repr=False
    )
