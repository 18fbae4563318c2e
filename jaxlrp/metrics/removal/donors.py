"""Removed values taken from other samples."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.metrics.removal.replacing import Removal


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Donors(Removal):
    """The values of another sample, drawn from data; all removed values come from the same sample.

    Values that belong together stay together, and all inserted values occur in the data. If the sample is
    drawn from all of the data (marginal), the inserted values need not fit the kept values. If it is drawn
    from the samples that are closest in the kept values (conditional), they fit as well as the data allow.

    Closeness is the sum of squared differences of the kept values, each in units of its standard deviation
    in the data (values that are constant there do not count); for integers, such as token ids or
    categories, it is the number of kept values that differ. Samples of the data that are equal to the input
    in every value are never drawn, unless there are no others.

    A conditional draw compares each input with all N samples of the data.

    Attributes:
      data: (N, ...), examples of the shape and dtype of the inputs.
      neighbors: None to draw from all; k to draw from the k closest in the kept values, 1 <= k <= N.

    Raises:
      ValueError: if `neighbors` is not from 1 to N; in a call, if data and inputs do not fit.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp.metrics import removal
      >>> data = jnp.array([[0.0, 1.0], [5.0, 2.0], [9.0, 3.0]])
      >>> x, keep = jnp.array([[5.5, 7.0]]), jnp.array([[True, False]])
      >>> removal.Donors(data, neighbors=1)(x, keep, jax.random.split(jax.random.key(0), 1)).tolist()
      [[5.5, 2.0]]
    """

    data: ArrayLike
    neighbors: int | None = None

    def __post_init__(self) -> None:
        if self.neighbors is None or not hasattr(self.data, "shape"):
            return
        if check_count("neighbors", self.neighbors) > jnp.shape(self.data)[0]:
            raise ValueError(
                f"neighbors={self.neighbors} must be at most the number of samples in data, "
                f"{jnp.shape(self.data)[0]}"
            )

    @property
    def random(self) -> bool:
        return True

    def __call__(self, inputs: Array, keep: Array, keys: Array | None) -> Array:
        assert keys is not None
        data = jnp.asarray(self.data)
        if data.shape[1:] != inputs.shape[1:] or data.dtype != inputs.dtype:
            raise ValueError(
                f"data of removal.Donors must be examples like the inputs, {inputs.dtype}"
                f"{list(inputs.shape[1:])}, got {data.dtype}{list(data.shape[1:])}"
            )
        if self.neighbors is None:
            same = lax.map(lambda donor: _all(inputs == donor), data).T
            pick = jax.vmap(jax.random.categorical)(keys, jnp.where(same, -jnp.inf, 0.0))
        else:
            found = _distances(inputs, keep, data)
            best, closest = lax.top_k(-found, self.neighbors)
            number = jnp.maximum((best > -jnp.inf).sum(axis=1), 1)
            place = jax.vmap(lambda k, most: jax.random.randint(k, (), 0, most))(keys, number)
            pick = jnp.take_along_axis(closest, place[:, None], axis=1)[:, 0]
        return jnp.where(keep, inputs, data[pick])


def _distances(inputs: Array, keep: Array, data: Array) -> Array:
    """How far each sample of the data is from each input in what is kept, (b, N); inf for its own."""
    axes = tuple(range(1, inputs.ndim))
    if jnp.issubdtype(inputs.dtype, jnp.floating):
        variance = data.var(axis=0)
        scale = jnp.where(variance > 0, 1 / jnp.where(variance > 0, variance, 1), 0)

        def distance(donor: Array) -> Array:
            return jnp.where(keep, scale * (inputs - donor) ** 2, 0).sum(axis=axes)
    else:

        def distance(donor: Array) -> Array:
            return (keep & (inputs != donor)).sum(axis=axes).astype(jnp.float32)

    def one(donor: Array) -> Array:
        return jnp.where(_all(inputs == donor), jnp.inf, distance(donor))

    return lax.map(one, data).T


def _all(flags: Array) -> Array:
    return flags.reshape(len(flags), -1).all(axis=1)
