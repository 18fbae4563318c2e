"""Domains in which relevance is compared: position, scale and frequency.

An artifact that covers a whole image, such as a tint or a faint pattern, changes relevance slightly
everywhere and has no position. In the frequency domain it has one. A domain is called with a batch of
relevance (n, ...) and the inputs that it explains, and returns a batch of points. Any function
`(relevance, inputs)` can serve as a domain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._checks import check_at_least, check_count
from jaxlrp.inspection import DFT, DFT2, decompose
from jaxlrp.numerics import widen
from jaxlrp.spray.preprocess import l1_normalize, pool

Domain = Callable[[Array, Array | None], Array]

_FAINT = 0.01  # in units of the mean: logarithms do not distinguish values below it


def default_domains(*, inputs: bool) -> Mapping[str, Domain]:
    """The default domains of `screen`: "raw", "pooled", "spectrum", and with inputs also "frequency",
    "fine" and "log".

    Example:
      >>> list(default_domains(inputs=False))
      ['raw', 'pooled', 'spectrum']
    """
    found: dict[str, Domain] = {"raw": Raw(), "pooled": Pooled(), "spectrum": Spectrum()}
    if not inputs:
        return found
    fine = Frequency(max_cells=None, n_components=10)
    return found | {
        "frequency": Frequency(), "fine": fine, "log": dataclasses.replace(fine, log=True)
    }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Raw:
    """Relevance divided by the sum of its magnitudes: shows artifacts at a fixed position.

    Example:
      >>> Raw()(jnp.array([[1.0, -3.0]]), None).tolist()
      [[0.25, -0.75]]
    """

    def __call__(self, relevance: Array, inputs: Array | None = None) -> Array:
        return l1_normalize(relevance)


@dataclasses.dataclass(frozen=True)
class Pooled:
    """Relevance summed over a coarse grid: shows artifacts at roughly one position, or in one channel.

    Attributes:
      max_cells: maximum number of grid cells along each axis of space or time, >= 1.
      axes: axes of space or time; None for axis 1 of (n, T) and axes 1 and 2 of (n, H, W) or (n, H, W, C).

    Example:
      >>> Pooled(max_cells=2)(jnp.array([[1.0, 1.0, -1.0, -1.0]]), None).tolist()
      [[0.5, -0.5]]
    """

    max_cells: int = 8
    axes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_count("max_cells", self.max_cells)

    def __call__(self, relevance: Array, inputs: Array | None = None) -> Array:
        return l1_normalize(_gridded(relevance, self.max_cells, _space(relevance, self.axes)))


@dataclasses.dataclass(frozen=True)
class Spectrum:
    r"""Magnitudes of the Fourier transform of the relevance map: shows how fine-grained the map is.

    sqrt of |DFT(R)|, summed over a coarse grid of frequencies and divided by their sum. It needs no inputs
    and is not a relevance; see `Frequency` for the relevance of frequencies. The Euclidean distance between
    two samples is a Hellinger distance, so that weak high frequencies matter beside strong low ones.

    Attributes:
      max_cells: maximum number of grid cells along each frequency axis, >= 1; half as many along the last
        axis, which holds half of the frequencies.
      axes: as in `Pooled`.

    Example:
      >>> Spectrum()(jnp.array([[1.0, -1.0, 1.0, -1.0]]), None).tolist()
      [[0.0, 0.0, 1.0]]
    """

    max_cells: int = 8
    axes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_count("max_cells", self.max_cells)

    def __call__(self, relevance: Array, inputs: Array | None = None) -> Array:
        axes = _space(relevance, self.axes)
        return _shares(jnp.abs(jnp.fft.rfftn(widen(relevance), axes=axes)), self.max_cells, axes)


@dataclasses.dataclass(frozen=True)
class Frequency:
    r"""The relevance of frequencies, computed with a virtual inspection layer before the model.

    sqrt of |R_z|, summed over a coarse grid of frequencies and divided by their sum, with c = R / x and
    R_z = Re(z (S^T c)) as in `jaxlrp.inspection.decompose`. Needs the inputs as preprocessed for the
    network, for example (x - mean) / std. It may also show patterns that the network hardly uses, because z
    is the transform of the input.

    With one value per frequency, a pattern of a single frequency is not diluted by its neighbors. But most
    of the hundreds of dimensions are then noise, which hides the true neighbors; `n_components` removes it.

    Square roots of shares show content that is present. Missing content, for example after strong
    compression, is close to zero in any case. It shows in log(|R_z| + 0.01 mean |R_z|), which is not
    divided by the sum, because here the amount of relevance matters.

    Attributes:
      max_cells, axes: as in `Spectrum`; one or two axes. `max_cells=None` keeps every frequency.
      floor: entries of x with |x| <= floor max|x| are ignored, >= 0: c is unknown there.
      n_components: `screen` keeps this many principal components of each class, >= 1; None for all
        dimensions.
      log: use logarithms instead of square roots of shares.

    References:
      Vielhaben et al. (2024), https://doi.org/10.1016/j.patcog.2024.110309

    Example:
      >>> x = jnp.array([[1.0, -1.0, 1.0, -1.0]])
      >>> Frequency()(0.25 * x * x, x).round(3).tolist()
      [[0.0, 0.0, 1.0]]
    """

    max_cells: int | None = 8
    axes: tuple[int, ...] | None = None
    floor: float = 0.01
    n_components: int | None = None
    log: bool = False

    def __post_init__(self) -> None:
        for name in ("max_cells", "n_components"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        check_at_least("floor", self.floor, 0.0)
        if self.axes is not None and len(self.axes) not in (1, 2):
            raise ValueError(f"axes must be one or two axes, got {self.axes}")

    def __call__(self, relevance: Array, inputs: Array | None = None) -> Array:
        if inputs is None:
            raise ValueError(
                "the domain Frequency needs the explained inputs: pass inputs=, or use Spectrum"
            )
        axes = _space(relevance, self.axes)
        x = widen(
            inputs if jnp.issubdtype(inputs.dtype, jnp.floating) else inputs.astype("float32")
        )
        if x.shape != relevance.shape:
            raise ValueError(
                f"inputs must have the shape of the relevance, {relevance.shape}, got {x.shape}"
            )
        largest = jnp.abs(x).max(axis=tuple(range(1, x.ndim)), keepdims=True)
        kept = jnp.where(jnp.abs(x) > self.floor * largest, widen(relevance), 0)
        transform = DFT() if len(axes) == 1 else DFT2()
        found = decompose(transform, x, kept.astype(x.dtype), axis=axes)
        return _shares(jnp.abs(found.relevance), self.max_cells, axes, self.log)


def _space(relevance: Array, axes: tuple[int, ...] | None) -> tuple[int, ...]:
    """The axes of space or time, in ascending order."""
    if axes is None:
        return (1,) if relevance.ndim == 2 else (1, 2)
    if any(not 0 < a < relevance.ndim for a in axes) or len(set(axes)) != len(axes) or not axes:
        raise ValueError(
            f"axes must be distinct and in 1 to {relevance.ndim - 1} (axis 0 is the samples), got {axes}"
        )
    return tuple(sorted(axes))


def _gridded(
    values: Array, max_cells: int, axes: tuple[int, ...], half: int | None = None
) -> Array:
    """Sums over a grid of at most `max_cells` along the given axes, half as many along `half`."""
    windows = [1] * (values.ndim - 1)
    for a in axes:
        most = max(1, max_cells // 2) if a == half else max_cells
        windows[a - 1] = int(np.ceil(values.shape[a] / most))
    return pool(values, windows)


def _shares(
    magnitudes: Array, max_cells: int | None, axes: tuple[int, ...], log: bool = False
) -> Array:
    """Square roots of the shares of frequency bands; the last axis holds half of the frequencies."""
    bands: Any = magnitudes
    if max_cells is not None:
        centered: Any = jnp.fft.fftshift(magnitudes, axes=axes[:-1])
        bands = _gridded(centered, max_cells, axes, half=axes[-1])
    if not log:
        return jnp.sqrt(l1_normalize(bands))
    mean = bands.mean(axis=tuple(range(1, bands.ndim)), keepdims=True)
    return jnp.log(jnp.maximum(bands + _FAINT * mean, jnp.finfo(bands.dtype).tiny))
