"""Wavelet transforms, orthogonal and biorthogonal."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp._checks import check_count
from jaxlrp.inspection.transform import Transform

Bank = tuple[tuple[float, ...], ...]

_HAAR: Bank = (
    (0.5**0.5, 0.5**0.5),
    (-(0.5**0.5), 0.5**0.5),
    (0.5**0.5, 0.5**0.5),
    (0.5**0.5, -(0.5**0.5)),
)

# The names of the signal extensions in jnp.pad.
_EXTENSIONS = {"symmetric": "symmetric", "reflect": "reflect", "zero": "constant"}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Wavelet(Transform):
    r"""The fast wavelet transform, coefficients coarse to fine: [a_J, d_J, ..., d_1].

    For a biorthogonal wavelet, the relevance of a coefficient is the coefficient times the transposed
    *synthesis* bank applied to c; the analysis bank would give something else.

    Attributes:
      name: "haar", or any discrete wavelet of PyWavelets (an extra), such as "db4" or "bior2.2"; or
        four filters (analysis low, high, synthesis low, high) in the order of PyWavelets.
      level: J, how often the low band is split, >= 1; None for as often as the filter fits.
      mode: extension of the signal beyond its ends. "periodization" has as many coefficients as
        samples (one more where the length at a level is odd); "symmetric", "reflect" and "zero" have more.

    Raises:
      ImportError: if PyWavelets is needed and missing.
      ValueError: if the name is unknown, or level or mode is invalid.

    References:
      Mallat (1989), https://doi.org/10.1109/34.192463

    Example:
      >>> Wavelet("haar").forward(jnp.array([4.0, 2.0, 1.0, 1.0])).round(3).tolist()
      [4.0, 2.0, 1.4140000343322754, 0.0]
    """

    axes: ClassVar[tuple[str, ...]] = ("coefficient",)

    name: Any = "haar"
    level: int | None = None
    mode: Literal["periodization", "symmetric", "reflect", "zero"] = "periodization"

    def __post_init__(self) -> None:
        if self.level is not None:
            check_count("level", self.level)
        if self.mode != "periodization" and self.mode not in _EXTENSIONS:
            known = ", ".join(map(repr, ("periodization", *_EXTENSIONS)))
            raise ValueError(f"mode must be one of {known}, got {self.mode!r}")
        if not isinstance(self.name, str):
            filters = tuple(tuple(float(value) for value in row) for row in self.name)
            if len(filters) != 4 or len(set(map(len, filters))) != 1 or len(filters[0]) % 2:
                raise ValueError(
                    "name must be the name of a wavelet, or four filters of the same even length, got "
                    f"filters of lengths {[len(row) for row in filters]}"
                )
            object.__setattr__(self, "name", filters)
        self._bank()

    def forward(self, x: Array) -> Array:
        low, high, _, _ = self._bank()
        details = []
        for _ in range(self._levels(x.shape[-1])):
            both = self._correlate(self._extended(x, len(low)), (low[::-1], high[::-1]))
            x, detail = both[..., 0, :], both[..., 1, :]
            details.append(detail)
        return jnp.concatenate([x, *reversed(details)], axis=-1)

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        (n,) = lengths
        sizes = self._sizes(n)
        x, start = z[..., : sizes[-1]], sizes[-1]
        for size, whole in zip(reversed(sizes[1:]), reversed(sizes[:-1]), strict=True):
            detail = z[..., start : start + size]
            start += size
            x = self._merge(jnp.stack([x, detail], axis=-2), whole)
        return x

    def subbands(self, n: int) -> dict[str, slice]:
        """The positions of the coefficients of each band, for a signal of n samples: a_J, d_J ... d_1."""
        sizes = self._sizes(n)
        found, start = {}, 0
        names = [f"a{len(sizes) - 1}", *(f"d{j}" for j in range(len(sizes) - 1, 0, -1))]
        for name, size in zip(names, [sizes[-1], *reversed(sizes[1:])], strict=True):
            found[name] = slice(start, start + size)
            start += size
        return found

    def _bank(self) -> Bank:
        return _filters(self.name) if isinstance(self.name, str) else self.name

    def _levels(self, n: int) -> int:
        width = len(self._bank()[0])
        most = int(math.log2(n / (width - 1))) if n >= width else 0
        if self.level is None:
            if most < 1:
                raise ValueError(
                    f"a signal of {n} samples is too short for {self.name!r}, which has {width} taps; pass "
                    "level=1 to split it anyway"
                )
            return most
        if self.level > max(most, 1) and 2**self.level > n:
            raise ValueError(
                f"level must be <= {max(most, 1)} for a signal of {n} samples, got {self.level}"
            )
        return self.level

    def _sizes(self, n: int) -> list[int]:
        """The lengths of the low band: that of the signal, then one per level."""
        width = len(self._bank()[0])
        sizes = [n]
        for _ in range(self._levels(n)):
            more = 1 if self.mode == "periodization" else width - 1
            sizes.append((sizes[-1] + more) // 2)
        return sizes

    def _extended(self, x: Array, width: int) -> Array:
        n = x.shape[-1]
        if self.mode == "periodization":
            x = jnp.pad(x, _last(x, 0, n % 2), mode="edge")
            off = width // 2 - 1
            return jnp.pad(x, _last(x, off, width - 2 - off), mode="wrap")
        right = 2 * ((n + width - 1) // 2) - n
        return jnp.pad(x, _last(x, width - 2, right), mode=_EXTENSIONS[self.mode])

    def _merge(self, both: Array, n: int) -> Array:
        """One level of synthesis: the transposed correlation with the synthesis filters."""
        _, _, low, high = self._bank()
        width = len(low)

        def analyze(x: Array) -> Array:
            if self.mode == "periodization":
                off = width // 2 - 1
                x = jnp.pad(x, _last(x, off, width - 2 - off), mode="wrap")
            return self._correlate(x, (low, high))

        size = both.shape[-1]
        whole = 2 * size if self.mode == "periodization" else 2 * size + width - 2
        like = jax.ShapeDtypeStruct((*both.shape[:-2], whole), both.dtype)
        (x,) = jax.linear_transpose(analyze, like)(both)
        start = 0 if self.mode == "periodization" else width - 2
        return x[..., start : start + n]

    @staticmethod
    def _correlate(x: Array, filters: tuple[tuple[float, ...], ...]) -> Array:
        """(..., n) -> (..., filters, n'), at every second sample."""
        kernel = jnp.asarray(np.array(filters)[:, None, :], x.dtype)
        flat = x.reshape(-1, 1, x.shape[-1])
        out = lax.conv_general_dilated(flat, kernel, (2,), "VALID", precision="highest")
        return out.reshape(*x.shape[:-1], *out.shape[1:])


def _last(x: Array, before: int, after: int) -> list[tuple[int, int]]:
    return [(0, 0)] * (x.ndim - 1) + [(before, after)]


@functools.lru_cache
def _filters(name: str) -> Bank:
    if name in ("haar", "db1"):
        return _HAAR
    try:
        pywt: Any = importlib.import_module("pywt")
    except ImportError as error:
        raise ImportError(
            f"the wavelet {name!r} requires PyWavelets, which could not be imported; install it with: "
            'pip install "jaxlrp[wavelets]", or use "haar"'
        ) from error
    if name not in pywt.wavelist(kind="discrete"):
        raise ValueError(f"name must be 'haar' or a discrete wavelet of PyWavelets, got {name!r}")
    return tuple(tuple(row) for row in pywt.Wavelet(name).filter_bank)
