"""What relevance changes in training: which units may still learn, and what of a sample is hidden."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp._checks import check_count, check_mapping
from jaxlrp.improve.parameters import Wiring, scale_parameters
from jaxlrp.improve.pruning import masks
from jaxlrp.numerics import widen


def plasticity(scores: Mapping[str, ArrayLike], rate: float | None = None) -> dict[str, Array]:
    """How much each unit may change, so that what it is relevant for is not forgotten (EtNF).

    Args:
      scores: (units,) numbers >= 0 of each layer by name, such as `unit_relevance` over a few samples
        of what must be kept.
      rate: the fraction of units with the highest scores that are frozen, in [0, 1); the others change
        freely.
        None: `1 - U / max U`, with the largest score of the layer.

    Returns:
      (units,) numbers in [0, 1] by name: 0 for units that are frozen.

    Raises:
      TypeError, ValueError: if scores are no dictionary of vectors, NaN, or negative (without a rate),
        or the rate is outside of [0, 1).

    References:
      Ede et al. (2022), "Explain to Not Forget", https://doi.org/10.1007/978-3-031-14463-9_1

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> improve.plasticity({"relu": jnp.array([4.0, 1.0, 0.0])})["relu"].tolist()
      [0.0, 0.75, 1.0]
      >>> improve.plasticity({"relu": jnp.array([4.0, 1.0, 0.0])}, rate=0.4)["relu"].tolist()
      [0.0, 1.0, 1.0]
    """
    check_mapping("scores", scores, '{"relu": scores}')
    arrays = {name: widen(jnp.asarray(values)) for name, values in scores.items()}
    for name, u in arrays.items():
        if u.ndim != 1 or not len(u):
            raise ValueError(
                f"scores[{name!r}] must be one number for each unit, got shape {u.shape}"
            )
    if rate is not None:
        # As one layer: all units of a layer may be frozen, but not removed.
        free = masks({"units": -jnp.concatenate(list(arrays.values()))}, rate)["units"]
        ends = np.cumsum([len(u) for u in arrays.values()])
        parts = jnp.split(free.astype(float), ends[:-1])
        return dict(zip(arrays, parts, strict=True))
    found = {}
    for name, u in arrays.items():
        if not _compat.is_traced(u) and not (np.asarray(u) >= 0).all():
            raise ValueError(f"scores[{name!r}] must be >= 0, got negative numbers or NaN")
        largest = u.max()
        found[name] = jnp.where(largest > 0, 1 - u / jnp.where(largest > 0, largest, 1), 1.0)
    return found


def protect(
    plasticity: Mapping[str, ArrayLike], wiring: Mapping[str, Wiring]
) -> optax.GradientTransformation:
    """Scales the updates of what produces each unit: kernel, bias, and the BatchNorm that follows.

    Put it last in `optax.chain`, so that no momentum moves a frozen unit.

    Args:
      plasticity: (units,) numbers by name, such as those of `plasticity`: 0 freezes a unit.
      wiring: a `Wiring` for each name; `reads` is not used.

    Returns:
      An optax transformation.

    Raises:
      ValueError: in its update, if a module has no parameters, or none with this number of units.

    References:
      Ede et al. (2022), https://doi.org/10.1007/978-3-031-14463-9_1

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from jaxlrp import improve
      >>> frozen = improve.protect({"relu": jnp.array([0.0, 1.0])}, {"relu": improve.Wiring(["dense"])})
      >>> optimizer = optax.chain(optax.sgd(1.0), frozen)
      >>> params = {"dense": {"kernel": jnp.ones((1, 2))}}
      >>> updates, _ = optimizer.update(params, optimizer.init(params))
      >>> updates["dense"]["kernel"].tolist()
      [[-0.0, -1.0]]
    """
    check_mapping("plasticity", plasticity, '{"relu": numbers}')
    factors = {name: jnp.asarray(p) for name, p in plasticity.items()}

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return scale_parameters(updates, factors, wiring), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def log_odds(beta: float = 4.0, epsilon: float = 0.01) -> Callable[[Array], Array]:
    """The relevance that begins at probabilities or similarities p: `log(beta (p + e) / (1 + e - p))`.

    A target, for heads whose outputs are near each other, such as distances to prototypes.

    Args:
      beta: > 0.
      epsilon: e, > 0, keeps p off 0 and 1.

    References:
      Sun et al. (2021), https://doi.org/10.1109/ICPR48806.2021.9412941

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> round(float(improve.log_odds()(jnp.array(0.5))), 3)
      1.386
    """
    for name, value in (("beta", beta), ("epsilon", epsilon)):
        if not value > 0:
            raise ValueError(f"{name} must be > 0, got {value!r}")
    return lambda p: jnp.log(beta * (p + epsilon) / (1 + epsilon - p))


def relevance_drop(
    key: Array, x: ArrayLike, relevance: ArrayLike, size: int | Sequence[int],
    *, candidates: int = 10, fill: ArrayLike = 0.0,
) -> Array:  # fmt: skip
    """Erases a rectangle around one of the most relevant pixels of each image (RelDrop), to train on.

    What the model relies on most is hidden at times, so that it must use the rest. The control is the same
    with random numbers as relevance: random erasing.

    Args:
      key: of `jax.random`.
      x: (N, H, W, C).
      relevance: of the images, (N, H, W) or (N, H, W, C), whose channels are added.
      size: of the rectangle in pixels, one number or (height, width); at borders it is cut off.
      candidates: one of so many most relevant pixels is the center, drawn at random, >= 1.
      fill: what is written, a number or an array that broadcasts to (C,), such as the channels' means.

    Returns:
      The images, of the shape and dtype of `x`.

    Raises:
      ValueError: if shapes do not fit or an argument is out of range.

    References:
      Gururaj et al. (2025), https://doi.org/10.48550/arXiv.2505.21595

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> x, r = jnp.ones((1, 3, 3, 1)), jnp.zeros((1, 3, 3)).at[0, 0, 2].set(1.0)
      >>> improve.relevance_drop(jax.random.key(0), x, r, size=1, candidates=1)[0, ..., 0].tolist()
      [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    x, r = jnp.asarray(x), jnp.asarray(relevance)
    if x.ndim != 4 or r.shape not in (x.shape, x.shape[:3]):
        raise ValueError(
            f"x must be (N, H, W, C) and relevance (N, H, W) or of the shape of x, got {x.shape} "
            f"and {r.shape}"
        )
    height, width = (size, size) if isinstance(size, int) else size
    check_count("size", height)
    check_count("size", width)
    n, h, w, _ = x.shape
    if check_count("candidates", candidates) > h * w:
        raise ValueError(f"candidates must be at most the {h * w} pixels, got {candidates}")
    r = (r if r.ndim == 3 else r.sum(axis=-1)).reshape(n, -1)
    _, best = jax.lax.top_k(jax.lax.stop_gradient(r), candidates)
    picked = jax.random.randint(key, (n, 1), 0, candidates)
    row, column = jnp.divmod(jnp.take_along_axis(best, picked, axis=1)[:, :1], w)
    top, left = row - height // 2, column - width // 2
    rows, columns = (jnp.arange(n, dtype=row.dtype)[None] for n in (h, w))
    in_rows = (rows >= top) & (rows < top + height)
    in_columns = (columns >= left) & (columns < left + width)
    hidden = (in_rows[:, :, None] & in_columns[:, None, :])[..., None]
    return jnp.where(hidden, jnp.asarray(fill, x.dtype), x)
