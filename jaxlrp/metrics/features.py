"""What a feature is: the values of an input that are ranked and removed together.

Every value belongs to one feature, or to none. A layout is a value:

* `Elements()`: each number of the input on its own, channels included.
* `Blocks(axes, size)`: positions along some axes, or blocks of them. For an example (height, width,
  channels), `Blocks((0, 1))` are pixels and `Blocks((0, 1), size=8)` are patches; for (tokens, features),
  `Blocks(0)` are tokens and `Blocks(1)` are channels; for (time, channels), `Blocks(0, size=50)` are
  intervals; for (nodes, features), `Blocks(0)` are nodes; for a table row (columns,), `Elements()` are
  columns.
* `Segments(labels)`: your own segments, one segmentation for all samples or one for each;
  `superpixels(images)` computes superpixels.

Axes are those of one example, without the batch axis.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp._compat import is_traced
from jaxlrp._extras import need


class Features(abc.ABC):
    """How the values of an input are divided into features."""

    @abc.abstractmethod
    def labels(self, shape: tuple[int, ...]) -> Array:
        """The feature that each value belongs to.

        Args:
          shape: of the inputs, (n, ...).

        Returns:
          Integers (n or 1, ...) that broadcast to the inputs, -1 where a value belongs to no feature.

        Raises:
          ValueError: if inputs of this shape cannot be divided in this way.
        """

    @abc.abstractmethod
    def count(self, shape: tuple[int, ...]) -> int:
        """The number of features of inputs of this shape, (n, ...)."""

    def total(self, attributions: Array, shape: tuple[int, ...]) -> Array:
        """The sum of the attributions of each feature, (n, features).

        Args:
          attributions: floats (n, ...) of the shape of the inputs, up to axes of length 1.
          shape: of the inputs.

        Raises:
          ValueError: if attributions have one value where the inputs have several features.
        """
        labels = self.labels(shape)
        for axis, (a, b) in enumerate(zip(attributions.shape, labels.shape, strict=True)):
            if axis and a < b:
                raise ValueError(
                    f"attributions of shape {attributions.shape} have one value along axis {axis - 1} "
                    f"of an example, but {self!r} has several features there: use features.Blocks(...) "
                    "without this axis"
                )
        count = self.count(shape)
        summed = _sum_over(attributions, labels.shape)
        flat = summed.reshape(len(summed), -1)
        index = jnp.broadcast_to(labels, summed.shape).reshape(len(summed), -1)
        index = jnp.where(index < 0, count, index)
        totals = jax.vmap(lambda a, i: jax.ops.segment_sum(a, i, count + 1))(flat, index)
        return totals[:, :count]

    def spread(
        self, values: Array, shape: tuple[int, ...], absent: float | int | bool,
        which: Array | None = None,
    ) -> Array:  # fmt: skip
        """Values of features, spread to the values of the inputs.

        Args:
          values: (n, features).
          shape: of the inputs, (n, ...).
          absent: for values that belong to no feature.
          which: the samples that `values` belong to, (b,), then with b in place of n; None for all.

        Returns:
          (n, ...) that broadcasts to the inputs.
        """
        labels = self.labels(shape)
        if which is not None and len(labels) > 1:
            labels = labels[which]
        n, rest = len(values), labels.shape[1:]
        index = jnp.broadcast_to(labels, (n, *rest)).reshape(n, -1)
        found = jnp.take_along_axis(values, jnp.maximum(index, 0), axis=1)
        return jnp.where(index < 0, jnp.asarray(absent, values.dtype), found).reshape(n, *rest)

    def present(self, shape: tuple[int, ...]) -> Array:
        """Whether each feature has any value, (n or 1, features)."""
        return self.sizes(shape) > 0

    def sizes(self, shape: tuple[int, ...]) -> Array:
        """How many positions belong to each feature, (n or 1, features).

        Along an axis on which labels do not depend, such as the channel axis, all values are one position.
        """
        labels = self.labels(shape)
        index = labels.reshape(len(labels), -1)
        count = self.count(shape)
        index = jnp.where(index < 0, count, index)
        sizes = jax.vmap(lambda i: jax.ops.segment_sum(jnp.ones(i.shape, int), i, count + 1))(index)
        return sizes[:, :count]


def _sum_over(values: Array, shape: tuple[int, ...]) -> Array:
    """Sums along the axes, after the first, in which `shape` has length 1."""
    axes = tuple(i for i, length in enumerate(shape) if i and length == 1)
    return values.sum(axis=axes, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Elements(Features):
    """Each number of the input is a feature."""

    def labels(self, shape: tuple[int, ...]) -> Array:
        return jnp.arange(math.prod(shape[1:])).reshape(1, *shape[1:])

    def count(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape[1:])


@dataclasses.dataclass(frozen=True)
class Blocks(Features):
    """Positions along some axes, or blocks of positions; values along all other axes belong together.

    Attributes:
      axes: those of one example, without the axis of the samples; one integer or several. Negative ones
        count from the last.
      size: of a block along each of the axes, >= 1, or one integer for all. Where it does not divide an
        axis, the last block is smaller. A size above the length of an axis is an error when it is used.

    Example:
      >>> from jaxlrp.metrics import features
      >>> features.Blocks((0, 1), size=8).count((64, 28, 28, 3))
      16
    """

    axes: int | Sequence[int]
    size: int | Sequence[int] = 1

    def __post_init__(self) -> None:
        axes = (int(self.axes),) if np.ndim(self.axes) == 0 else tuple(self.axes)  # type: ignore[arg-type]
        sizes = (self.size,) * len(axes) if np.ndim(self.size) == 0 else tuple(self.size)  # type: ignore[arg-type]
        if not axes or len(sizes) != len(axes):
            raise ValueError(
                f"axes must name at least one axis, with one size for each, got axes={self.axes!r} and "
                f"size={self.size!r}"
            )
        object.__setattr__(self, "axes", axes)
        object.__setattr__(self, "size", tuple(check_count("size", s) for s in sizes))

    def _sizes(self, shape: tuple[int, ...]) -> dict[int, int]:
        """The size of a block along each axis of an example that is divided."""
        ndim = len(shape) - 1
        assert not isinstance(self.axes, int)
        assert not isinstance(self.size, int)
        for axis in self.axes:
            if not -ndim <= axis < ndim:
                raise ValueError(
                    f"axis {axis} of features.Blocks does not exist: an example has shape {shape[1:]}, "
                    "whose axes are counted without that of the samples"
                )
        sizes = {axis % ndim: s for axis, s in zip(self.axes, self.size, strict=True)}
        if len(sizes) != len(self.axes):
            raise ValueError(f"axes of features.Blocks must differ, got {self.axes}")
        for axis, size in sizes.items():
            if size > shape[1 + axis] > 0:
                raise ValueError(
                    f"size {size} of features.Blocks is larger than axis {axis} of an example, which has "
                    f"{shape[1 + axis]} positions: pass a smaller size (on the command line, --patch)"
                )
        return sizes

    def labels(self, shape: tuple[int, ...]) -> Array:
        sizes = self._sizes(shape)
        label = np.zeros((1,) * (len(shape) - 1), int)
        for axis, length in enumerate(shape[1:]):
            if axis in sizes:
                blocks = np.arange(length) // sizes[axis]
                along = blocks.reshape([-1 if i == axis else 1 for i in range(len(shape) - 1)])
                label = label * (blocks[-1] + 1) + along
        return jnp.asarray(label[None])

    def count(self, shape: tuple[int, ...]) -> int:
        return math.prod(math.ceil(shape[1 + a] / s) for a, s in self._sizes(shape).items())


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Segments(Features):
    """Your own segments, such as superpixels.

    Attributes:
      segmentation: integers (n, ...) or (1, ...) that broadcast to the inputs: the segment of each value,
        from 0; -1 for values that are never removed, such as padding.
      number: the largest number of segments of a sample; None to find it, which needs concrete labels.

    Raises:
      TypeError: if labels are not integers.
      ValueError: if none is >= 0, or there are more than `number`.
    """

    segmentation: ArrayLike
    number: int | None = None

    def __post_init__(self) -> None:
        if not hasattr(self.segmentation, "dtype") or is_traced(self.segmentation):
            return  # inside a transformation
        found = np.asarray(self.segmentation)
        if not np.issubdtype(found.dtype, np.integer):
            raise TypeError(f"segmentation must be integers (labels), got {found.dtype}")
        largest = int(found.max(initial=-1)) + 1
        if largest < 1:
            raise ValueError("segmentation has no label >= 0: there is nothing to remove")
        if self.number is None:
            object.__setattr__(self, "number", largest)
        elif largest > self.number:
            raise ValueError(f"segmentation has {largest} segments, more than number={self.number}")

    def labels(self, shape: tuple[int, ...]) -> Array:
        found = jnp.asarray(self.segmentation)
        if len(found.shape) != len(shape) or not all(
            a in (1, b) for a, b in zip(found.shape, shape, strict=True)
        ):
            raise ValueError(
                f"segmentation must have shape (n, ...) or (1, ...) that broadcasts to the inputs, "
                f"{shape}, got {found.shape}"
            )
        return found

    def count(self, shape: tuple[int, ...]) -> int:
        if self.number is None:
            raise ValueError(
                "features.Segments needs the number of segments under jax.jit: write "
                "Segments(labels, number=...)"
            )
        return self.number


def superpixels(
    images: ArrayLike,
    number: int = 100,
    *,
    channel_axis: int | None = -1,
    compactness: float = 10.0,
) -> Segments:
    """Superpixels as features: connected parts of each image of similar color, by SLIC.

    Args:
      images: (n, height, width, channels), or volumes with one more axis, in any real units: each image
        is scaled to [0, 1] first.
      number: of superpixels of each image, >= 1. The number found may differ.
      channel_axis: that of one example, without the axis of the samples; None if there is none.
      compactness: weight of spatial distance relative to color, > 0. For images with one channel, 0.1
        corresponds to about 10 for three channels.

    Returns:
      `Segments`, with length 1 along the axis of the channels.

    Raises:
      ImportError: without scikit-image.
      ValueError: if an argument is invalid.

    References:
      Achanta et al. (2012), https://doi.org/10.1109/TPAMI.2012.120

    Example:
      >>> import numpy as np
      >>> from jaxlrp.metrics import features
      >>> images = np.zeros((2, 8, 8, 3)); images[:, :, 4:] = 1.0
      >>> features.superpixels(images, 2).segmentation.shape
      (2, 8, 8, 1)
    """
    values = np.asarray(images, np.float64)
    check_count("number", number)
    positions = values.ndim - 1 - (channel_axis is not None)
    if positions not in (2, 3) or not len(values):
        raise ValueError(
            "images must be a batch with two or three axes of positions, besides that of the channels "
            f"(channel_axis={channel_axis}), got shape {values.shape}"
        )
    if not compactness > 0:
        raise ValueError(f"compactness must be > 0, got {compactness}")
    if not np.isfinite(values).all():
        raise ValueError("images must be finite, got NaN or infinity")
    slic = need("skimage.segmentation", "features.superpixels", "concepts").slic
    axes = tuple(range(1, values.ndim))
    low = values.min(axis=axes, keepdims=True)
    spread = values.max(axis=axes, keepdims=True) - low
    values = (values - low) / np.where(spread > 0, spread, 1)
    labels = [
        slic(image, number, compactness=compactness, channel_axis=channel_axis, start_label=0)
        for image in values
    ]
    found = np.stack(labels).astype(np.int32)
    if channel_axis is not None:
        found = np.expand_dims(found, 1 + channel_axis % (values.ndim - 1))
    return Segments(found)
