"""What an architecture of the zoo is, and how its weights are drawn.

Weights are drawn from shapes alone, so that nothing is degenerate: no bias is zero, no scale is one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

from numeric import promoting

Model = tuple[Any, jax.Array]  # a function of one array or an NNX module, and its input


@dataclasses.dataclass(frozen=True)
class Entry:
    """An architecture.

    Attributes:
      build: from a random generator to a function and its input; the output has at least two
        entries along its last axis.
      batched: whether the leading axis of input and output counts examples, free of each other.
      convolutional: whether presets that speak of convolutions say something of it.
      attention: whether presets for transformers say something of it.
      precise: whether it computes in float64 throughout.
    """

    build: Callable[[np.random.Generator], Model]
    batched: bool = True
    convolutional: bool = False
    attention: bool = False
    precise: bool = True


class Family(dict[str, Entry]):
    """Entries by name."""

    def add(self, **options: Any) -> Callable[[Callable], Callable]:
        """Enters a `build` under its own name."""

        def enter(build: Callable[[np.random.Generator], Model]) -> Callable:
            self[build.__name__] = Entry(build, **options)
            return build

        return enter


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> jax.Array:
    return jnp.asarray(scale * rng.normal(size=shape))


def tokens(rng: np.random.Generator, *shape: int, size: int = 11) -> jax.Array:
    return jnp.asarray(rng.integers(0, size, shape))


def _draw(rng: np.random.Generator, path: Any, leaf: Any) -> Any:
    """A value for a parameter of this name and shape."""
    name = jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")
    name = name.split("/")[-1]
    noise = rng.normal(size=leaf.shape)
    if name in ("var", "sigma"):
        drawn = 1 + 0.3 * np.abs(noise)
    elif name.endswith("scale"):
        drawn = 1 + 0.3 * noise
    elif leaf.ndim < 2 or name in ("bias", "mean"):
        drawn = 0.3 * noise
    elif name == "embedding":
        drawn = 0.7 * noise
    else:
        drawn = noise / np.sqrt(np.prod(leaf.shape[:-1]))
    return jnp.asarray(drawn)


def linen_variables(rng: np.random.Generator, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Variables for a Linen module called with these arguments."""
    init = promoting(functools.partial(module.init, **kwargs))  # parameters begin in float32
    shapes = jax.eval_shape(init, jax.random.key(0), *args)
    return jax.tree_util.tree_map_with_path(functools.partial(_draw, rng), shapes)


def linen(rng: np.random.Generator, module: nn.Module, x: jax.Array, **kwargs: Any) -> Model:
    """A Linen module with its variables bound, as a function of x."""
    variables = linen_variables(rng, module, x, **kwargs)
    apply = promoting(module.apply)  # Flax normalizes in float32 or wider, by promotion
    return functools.partial(apply, variables, **kwargs), x


def nnx_module(rng: np.random.Generator, create: Callable[[nnx.Rngs], nnx.Module]) -> Any:
    """An NNX module in evaluation mode."""
    graph, state = nnx.split(nnx.eval_shape(lambda: create(nnx.Rngs(0))))

    def draw(path: Any, leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.split(jax.random.key(0), leaf.shape)
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return jnp.zeros(leaf.shape, leaf.dtype)
        return _draw(rng, path, leaf)

    model = nnx.merge(graph, jax.tree_util.tree_map_with_path(draw, state))
    model.eval()
    return model
