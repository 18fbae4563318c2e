"""Continuity: how much attributions change while the input is translated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._checks import check_count, check_one_of
from jaxlrp.metrics.metric import Explained, RobustnessMetric, metric
from jaxlrp.metrics.removal import Constant, Removal
from jaxlrp.metrics.robustness.distances import NORMALIZE, Normalize, norm, normalized
from jaxlrp.metrics.work import in_batches, over_draws
from jaxlrp.numerics import widen


@metric
class Continuity(RobustnessMetric):
    r"""The largest change of the attributions while the input is moved along an axis.

        max over shifts s of  ||a(x) - a(x_s)||_1 / ||x - x_s||_2

    x_s is x moved by s positions. Lower is better, from 0 up. It depends on the scale of the attributions:
    to compare methods, pass `normalize="max"` or "rms". Attributions should move along with the input, so
    even a perfect explanation does not score 0: the metric finds jumps and does not test equivariance.

    Undefined (`nan`) if a shift does not change the input (a blank one), or attributions are not finite.

    Attributes:
      axis: of one example, along which it is moved: 1 is the width of (height, width, channels), 0 the
        time of (time, channels).
      shifts: by how many positions, towards larger indices if positive; None for 1 to the length of the
        axis less 1.
      fill: the value at positions that nothing moves to.
      normalize: attributions in units of their own sample: "max" of |a|, "rms", or "none".
      batch_size: how many moved inputs are explained at once, >= 1.

    References:
      Montavon et al. (2018), https://doi.org/10.1016/j.dsp.2017.10.011

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> moved = metrics.Continuity(axis=0, shifts=(1,))
      >>> moved(lambda x, y: x, jnp.array([[1.0, 0.0, 0.0]])).round(3)
      Array([1.414], dtype=float32)
    """

    axis: int = 1
    shifts: Sequence[int] | None = None
    fill: Removal = Constant(0.0)
    normalize: Normalize = "none"
    batch_size: int = 128
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    def __post_init__(self) -> None:
        check_one_of("normalize", self.normalize, NORMALIZE)
        check_count("batch_size", self.batch_size)
        if self.shifts is not None:
            object.__setattr__(self, "shifts", tuple(self.shifts))
            whole = all(
                isinstance(s, (int, np.integer)) and not isinstance(s, bool) for s in self.shifts
            )
            if not self.shifts or not whole or 0 in self.shifts:
                raise ValueError(
                    f"shifts must be one or more integers other than 0, got {self.shifts!r}"
                )

    @property
    def higher_is_better(self) -> bool:
        return False

    @property
    def random(self) -> bool:
        return self.fill.random

    def _along(self, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """The axis of an example, counted from 0, and the shifts."""
        ndim = len(shape) - 1
        if not -ndim <= self.axis < ndim:
            raise ValueError(
                f"axis {self.axis} of Continuity does not exist: an example has shape {shape[1:]}, whose "
                "axes are counted without that of the samples"
            )
        axis = self.axis % ndim
        length = shape[1 + axis]
        shifts = tuple(range(1, length)) if self.shifts is None else tuple(self.shifts)
        if not shifts or any(abs(s) > length for s in shifts):
            raise ValueError(
                f"shifts along axis {self.axis} must not exceed its length, {length}, and there must be "
                f"one, got {shifts}"
            )
        return axis, shifts

    def _compute(self, case: Explained) -> Array:
        inputs, everyone = case.inputs, jnp.arange(len(case.inputs))
        axis, shifts = self._along(inputs.shape)
        by = jnp.asarray(shifts)

        def attributions(x: Array, which: Array) -> Array:
            return normalized(case.attributions(x, which), self.normalize)

        plain = in_batches(lambda i: attributions(inputs[i], i), everyone, self.batch_size)

        def one(sample: Array, draw: Array) -> Array:
            x = inputs[sample]
            keys = None
            if case.keys is not None:
                keys = jax.vmap(jax.random.fold_in)(case.keys[sample], draw)
            moved = _moved(x, axis, by[draw], self.fill, keys)
            change = jnp.abs(plain[sample] - attributions(moved, sample))
            distance = norm(widen(x) - widen(moved))
            ratio = change.reshape(len(x), -1).sum(axis=1) / distance
            return jnp.where(jnp.isfinite(ratio), ratio, jnp.nan)

        return over_draws(one, len(inputs), len(shifts), self.batch_size).max(axis=1)


def _moved(x: Array, axis: int, by: Array, fill: Removal, keys: Array | None) -> Array:
    """Examples (b, ...) moved along an axis by (b,) positions each."""
    rolled = jax.vmap(lambda one, s: jnp.roll(one, s, axis))(x, by)
    source = jnp.arange(x.shape[1 + axis]) - by[:, None]
    keep = (source >= 0) & (source < x.shape[1 + axis])
    keep = keep.reshape(len(x), *(-1 if i == axis else 1 for i in range(x.ndim - 1)))
    return fill(rolled, keep, keys)
