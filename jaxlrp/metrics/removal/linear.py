"""Removed values interpolated from those that are kept, as ROAD does."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp._checks import check_at_least
from jaxlrp.metrics.removal.replacing import Removal, of_batch


@dataclasses.dataclass(frozen=True)
class Linear(Removal):
    r"""Each removed value is a weighted mean of its neighbors, removed ones included, plus noise.

    Along one axis this is linear interpolation between the closest kept values; before the first and after
    the last of them, the value is constant. Along several axes it is the sparse linear system of ROAD:

        x_i = sum_j w_ij x_j / sum_j w_ij        i removed, j its neighbors inside the grid

    A neighbor differs by at most one position along each axis. Its weight halves with each axis beyond the
    first along which it differs: of two axes, a direct neighbor has 1/6, a diagonal one 1/12, more at the
    borders. Noise is added only to removed values. It hides that a value was interpolated: without it, the
    result reveals the shape of the removed area.

    If no value of a grid is kept, all its values become their mean.

    Attributes:
      axes: along which axes of an example it interpolates; (0, 1) of (height, width, channels). An integer
        is one axis. Along the others, values are independent.
      noise: standard deviation of the noise, >= 0, in units of the input. Zero draws nothing.
      tolerance: with several axes the system is solved by conjugate gradients, until each value differs
        from the mean of its neighbors by at most this share of the sample's range, > 0.

    Raises:
      TypeError: in a call, if inputs are not floats.

    References:
      Rong et al. (2022), https://arxiv.org/abs/2202.00449

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp.metrics import removal
      >>> x = jnp.array([[0.0, 9.0, 9.0, 3.0, 9.0]])
      >>> keep = jnp.array([[True, False, False, True, False]])
      >>> removal.Linear(0, noise=0.0)(x, keep, None).tolist()
      [[0.0, 1.0, 2.0, 3.0, 3.0]]
    """

    axes: int | tuple[int, ...] = (0, 1)
    noise: float = 0.01
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        axes = (self.axes,) if isinstance(self.axes, int) else tuple(self.axes)
        if not axes:
            raise ValueError("axes must have at least one axis to interpolate along, got ()")
        object.__setattr__(self, "axes", axes)
        check_at_least("noise", self.noise, 0)
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be > 0, got {self.tolerance!r}")

    @property
    def random(self) -> bool:
        return self.noise > 0

    def __call__(self, inputs: Array, keep: Array, keys: Array | None) -> Array:
        if not jnp.issubdtype(inputs.dtype, jnp.floating):
            raise TypeError(
                f"removal.Linear interpolates, so inputs must be floats, got {inputs.dtype}; for ids of "
                "tokens use removal.Constant(mask_id)"
            )
        assert not isinstance(self.axes, int)
        axes = of_batch(self.axes, inputs.ndim)
        shape = [
            inputs.shape[i] if i in (0, *axes) else length for i, length in enumerate(keep.shape)
        ]
        keep = jnp.broadcast_to(keep, shape)
        start = _mean_of_kept(inputs, keep, axes)
        centered = jnp.where(keep, inputs - start, 0)
        if len(axes) == 1:
            found = _interpolate(centered, jnp.broadcast_to(keep, inputs.shape), axes[0])
        else:
            found = _solve(centered, keep, axes, self.tolerance * _spread(inputs))
        found = found + start
        if keys is not None and self.noise > 0:
            drawn = jax.vmap(lambda k: jax.random.normal(k, inputs.shape[1:], inputs.dtype))(keys)
            found = found + self.noise * drawn
        return jnp.where(keep, inputs, found)


def _mean_of_kept(inputs: Array, keep: Array, axes: tuple[int, ...]) -> Array:
    """The mean along the axes of what is kept, of everything where nothing is."""
    kept = keep.astype(inputs.dtype)
    count = kept.sum(axis=axes, keepdims=True)
    mean = (kept * inputs).sum(axis=axes, keepdims=True) / jnp.maximum(count, 1)
    return jnp.where(count > 0, mean, inputs.mean(axis=axes, keepdims=True))


def _spread(inputs: Array) -> Array:
    """The largest value of each sample less the smallest, (b, 1, ...)."""
    axes = tuple(range(1, inputs.ndim))
    return inputs.max(axis=axes, keepdims=True) - inputs.min(axis=axes, keepdims=True)


def _interpolate(values: Array, keep: Array, axis: int) -> Array:
    """Linear interpolation along one axis between kept values; zero where none is kept."""
    length = values.shape[axis]
    shape = [length if i == axis else 1 for i in range(values.ndim)]
    position = jnp.broadcast_to(jnp.arange(length).reshape(shape), values.shape)
    left = lax.cummax(jnp.where(keep, position, -1), axis=axis)
    right = lax.cummin(jnp.where(keep, position, length), axis=axis, reverse=True)
    from_left = jnp.take_along_axis(values, jnp.maximum(left, 0), axis=axis)
    from_right = jnp.take_along_axis(values, jnp.minimum(right, length - 1), axis=axis)
    from_left = jnp.where(left < 0, from_right, from_left)
    from_right = jnp.where(right == length, from_left, from_right)
    share = ((position - left) / jnp.maximum(right - left, 1)).astype(values.dtype)
    return from_left + share * (from_right - from_left)


@dataclasses.dataclass(frozen=True)
class _Grid:
    """Values on a grid with a border of zeros, each sample as one row: a neighbor is a fixed offset.

    So the sum over neighbors reads contiguous memory, which is several times as fast as shifting along
    axes.

    Attributes:
      shape: of the values, (b, ...).
      axes: of the grid.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def _order(self) -> list[int]:
        rest = [i for i in range(1, len(self.shape)) if i not in self.axes]
        return [0, *self.axes, *rest]

    @property
    def _bordered(self) -> list[int]:
        """The lengths of axes in that order, with the border, without that of the samples."""
        return [self.shape[i] + 2 * (i in self.axes) for i in self._order[1:]]

    def flat(self, values: Array, border: float | bool = 0) -> Array:
        """Values that broadcast to the shape, as rows (b or 1, length)."""
        shape = (len(values), *self.shape[1:])
        moved = jnp.transpose(jnp.broadcast_to(values, shape), self._order)
        width = [(int(i in self.axes),) * 2 for i in self._order]
        return jnp.pad(moved, width, constant_values=border).reshape(len(values), -1)

    def unflat(self, rows: Array) -> Array:
        """The inverse of `flat`."""
        found = rows.reshape(len(rows), *self._bordered)
        inside = [slice(1, -1) if i in self.axes else slice(None) for i in self._order]
        return jnp.transpose(found[tuple(inside)], np.argsort(self._order).tolist())

    def neighbors(self, rows: Array) -> Array:
        """The weighted sum of the neighbors: weight 1, halved with each further axis.

        The weights are those of a product of (1/2, 1, 1/2) along each axis, twice, less the position
        itself. At the border it is not zero.
        """
        found, lengths = rows, self._bordered
        for i in range(len(self.axes)):
            offset = math.prod(lengths[i + 1 :])
            padded = jnp.pad(found, ((0, 0), (offset, offset)))
            before, after = padded[:, : -2 * offset], padded[:, 2 * offset :]
            found = found + 0.5 * (before + after)
        return found - rows


def _solve(values: Array, keep: Array, axes: tuple[int, ...], limit: Array) -> Array:
    """Values for which each removed one is the mean of its neighbors.

    With W the weights of neighbors and D their sums, the system (D - W) u = W v, over removed positions,
    for u there and v kept, is symmetric and positive definite wherever a grid keeps a value. Conjugate
    gradients with D as preconditioner, all systems of a sample as one.

    Args:
      values: (b, ...), zero where removed.
      keep: like values, up to axes of length 1.
      axes: of the grid.
      limit: the largest residual that is left in units of values, (b, 1, ...).
    """
    grid = _Grid(values.shape, axes)
    inside = grid.flat(jnp.ones((1, *values.shape[1:]), values.dtype))
    # a grid of one position has no neighbor
    weight = jnp.maximum(grid.neighbors(inside), 0.25)
    fixed = grid.flat(keep, border=True)
    limit = limit.reshape(len(values), 1)

    def apply(u: Array) -> Array:
        return jnp.where(fixed, 0, weight * u - grid.neighbors(u))

    def dot(a: Array, b: Array) -> Array:
        return (a * b).sum(axis=1, keepdims=True)

    def far(r: Array) -> Array:
        return jnp.abs(r / weight).max(axis=1, keepdims=True) > limit

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        i, u, r, p, rho, going = state
        ap = apply(p)
        alpha = jnp.where(going, rho / jnp.where(going, dot(p, ap), 1), 0)
        u, r = u + alpha * p, r - alpha * ap
        z = r / weight
        new = dot(r, z)
        beta = jnp.where(going, new / jnp.where(going, rho, 1), 0)
        # A sample that has converged keeps its state.
        p, rho = jnp.where(going, z + beta * p, p), jnp.where(going, new, rho)
        return i + 1, u, r, p, rho, going & far(r)

    r = jnp.where(fixed, 0, grid.neighbors(grid.flat(values)))
    z = r / weight
    most = 10 * int(np.sum([values.shape[a] for a in axes])) + 100
    state = (jnp.zeros((), int), jnp.zeros_like(r), r, z, dot(r, z), far(r))
    _, u, *_ = lax.while_loop(lambda s: (s[0] < most) & s[-1].any(), step, state)
    return values + grid.unflat(u)
