"""Domains in which relevance is read: where it lies, at which scale, at which frequency.

What covers a whole image, such as a tint or a faint pattern, moves relevance everywhere a little and lies
nowhere. In the frequency domain it lies at one place. Each domain is a value that is called with a batch
of relevance (n, ...) and the inputs it explains, and returns a batch of points. A function of your
own that takes `(relevance, inputs)` is a domain too.
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

_FAINT = 0.01  # of the mean: what is below it is alike in logarithms


def default_domains(*, inputs: bool) -> Mapping[str, Domain]:
    """The domains that `screen` reads: "raw", "pooled", "spectrum", and with inputs "frequency",
    "fine" and "log".

    Example:
      >>> list(default_domains(inputs=False))
      ['raw', 'pooled', 'spectrum']
    """
    found: dict[str, Domain] = {"raw": Raw(), "pooled": Pooled(), "spectrum": Spectrum()}
    if not inputs:
        return found
    fine = Frequency(cells=None, components=10)
    return found | {
        "frequency": Frequency(), "fine": fine, "log": dataclasses.replace(fine, log=True)
    }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Raw:
    """Relevance as it is, divided by its sum of magnitudes: what lies at one place.

    Example:
      >>> Raw()(jnp.array([[1.0, -3.0]]), None).tolist()
      [[0.25, -0.75]]
    """

    def __call__(self, relevance: Array, inputs: Array | None = None) -> Array:
        return l1_normalize(relevance)


@dataclasses.dataclass(frozen=True)
class Pooled:
    """Relevance summed over a coarse grid: what lies at about one place, or in one channel.

    Attributes:
      cells: of the grid along an axis of space or time, at most, >= 1.
      axes: of space or time; None for axis 1 of (n, T) and axes 1 and 2 of (n, H, W) or (n, H, W, C).

    Example:
      >>> Pooled(cells=2)(jnp.array([[1.0, 1.0, -1.0, -1.0]]), None).tolist()
      [[0.5, -0.5]]
    """

    cells: int = 8
    axes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_count("cells", self.cells)

    def __call__(self, relevance: Array, inputs: Array | None = None) -> Array:
        return l1_normalize(_gridded(relevance, self.cells, _space(relevance, self.axes)))


@dataclasses.dataclass(frozen=True)
class Spectrum:
    r"""The magnitudes of the Fourier transform of the relevance map: how fine its pattern is.

    sqrt of |DFT(R)|, summed over a coarse grid of frequencies and divided by their sum. It needs no inputs,
    and is not relevance: the relevance of frequencies is `Frequency`. The distance between
    two samples is Hellinger's, so that the weak high frequencies count beside the strong low ones.

    Attributes:
      cells: of the grid along an axis of frequencies, at most, >= 1; half as many along the last, which
        holds half of the frequencies.
      axes: as of `Pooled`.

    Example:
      >>> Spectrum()(jnp.array([[1.0, -1.0, 1.0, -1.0]]), None).tolist()
      [[0.0, 0.0, 1.0]]
    """

    cells: int = 8
    axes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_count("cells", self.cells)

    def __call__(self, relevance: Array, inputs: Array | None = None) -> Array:
        axes = _space(relevance, self.axes)
        return _shares(jnp.abs(jnp.fft.rfftn(widen(relevance), axes=axes)), self.cells, axes)


@dataclasses.dataclass(frozen=True)
class Frequency:
    r"""The relevance of frequencies, by a virtual inspection layer before the model.

    sqrt of |R_z|, summed over a coarse grid of frequencies and divided by their sum, with c = R / x and
    R_z = Re(z (S^T c)) as `jaxlrp.inspection.decompose` computes it. Needs the inputs as the network got
    them: if it got (x - mean) / std, these. What the network hardly uses may show too, since z is that
    of the input.

    With every frequency for itself, a pattern of one frequency is not diluted by those beside it. But of
    hundreds of dimensions most are noise, which hides who is near to whom; `components` takes it away.

    Roots of shares show what is there. What is missing, as after a strong compression, is near zero in
    any case, and shows in log(|R_z| + 0.01 mean |R_z|), which is not divided by the sum: here it counts how
    much relevance there is.

    Attributes:
      cells, axes: as of `Spectrum`; one axis or two. `cells` None keeps every frequency.
      floor: entries of x with |x| <= floor max|x| are left out, >= 0: c is not known there.
      components: `screen` keeps so many principal components of each class, >= 1; None for all dimensions.
      log: logarithms instead of roots of shares.

    References:
      Vielhaben et al. (2024), https://doi.org/10.1016/j.patcog.2024.110309

    Example:
      >>> x = jnp.array([[1.0, -1.0, 1.0, -1.0]])
      >>> Frequency()(0.25 * x * x, x).round(3).tolist()
      [[0.0, 0.0, 1.0]]
    """

    cells: int | None = 8
    axes: tuple[int, ...] | None = None
    floor: float = 0.01
    components: int | None = None
    log: bool = False

    def __post_init__(self) -> None:
        for name in ("cells", "components"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        check_at_least("floor", self.floor, 0.0)
        if self.axes is not None and len(self.axes) not in (1, 2):
            raise ValueError(f"axes must be one axis or two, got {self.axes}")

    def __call__(self, relevance: Array, inputs: Array | None = None) -> Array:
        if inputs is None:
            raise ValueError(
                "the domain Frequency needs inputs=, what the relevance explains; without them use Spectrum"
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
        return _shares(jnp.abs(found.relevance), self.cells, axes, self.log)


def _space(relevance: Array, axes: tuple[int, ...] | None) -> tuple[int, ...]:
    """The axes of space or time, ascending."""
    if axes is None:
        return (1,) if relevance.ndim == 2 else (1, 2)
    if any(not 0 < a < relevance.ndim for a in axes) or len(set(axes)) != len(axes) or not axes:
        raise ValueError(
            f"axes must be different ones from 1 to {relevance.ndim - 1}, after the samples, got {axes}"
        )
    return tuple(sorted(axes))


def _gridded(values: Array, cells: int, axes: tuple[int, ...], half: int | None = None) -> Array:
    """Sums over a grid of at most `cells` along each of some axes, half as many along `half`."""
    windows = [1] * (values.ndim - 1)
    for a in axes:
        most = max(1, cells // 2) if a == half else cells
        windows[a - 1] = int(np.ceil(values.shape[a] / most))
    return pool(values, windows)


def _shares(
    magnitudes: Array, cells: int | None, axes: tuple[int, ...], log: bool = False
) -> Array:
    """Roots of the shares of bands of frequencies; the last of the axes holds half of them."""
    bands: Any = magnitudes
    if cells is not None:
        centered: Any = jnp.fft.fftshift(magnitudes, axes=axes[:-1])
        bands = _gridded(centered, cells, axes, half=axes[-1])
    if not log:
        return jnp.sqrt(l1_normalize(bands))
    mean = bands.mean(axis=tuple(range(1, bands.ndim)), keepdims=True)
    return jnp.log(jnp.maximum(bands + _FAINT * mean, jnp.finfo(bands.dtype).tiny))
