"""The short-time Fourier transform."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._checks import check_count, check_one_of
from jaxlrp.inspection.transform import Transform, check_rate

_WINDOWS = {
    "rectangle": lambda t: np.ones_like(t),
    "half-sine": lambda t: np.sin(np.pi * t),
    "hann": lambda t: np.sin(np.pi * t) ** 2,
    "hamming": lambda t: 0.54 - 0.46 * np.cos(2 * np.pi * t),
}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class STDFT(Transform):
    r"""The short-time discrete Fourier transform: frames of a signal, and their frequencies.

    With a window w, a synthesis window g, frames that start at n_0 = m hop, and
    W(n) = sum_m w(n - n_0) g(n - n_0), the "local" form is

    V_m = rfft(w x),   G_m = rfft(g c / W),   R_mk = h_k Re(V_mk conj(G_mk)) / H

    where H is the length, and h_k = 1 at k = 0 and k = H/2, else 2. A frame gets relevance only from its
    own samples. The "global" form of the paper transforms each windowed frame at the full
    length of the signal with g = 1; relevance then leaks into frames without any.

    Attributes:
      length: H, frame length in samples, >= 1.
      hop: samples from frame to frame, 1 <= hop <= length.
      window: w, "half-sine", "hann", "hamming", "rectangle", or H numbers. The named ones are
        sampled at (n + 1/2) / H and are zero nowhere.
      synthesis: g, "window" for g = w, "ones", or H numbers. None means "window" in the local form and
        "ones" in the global form, which allows no other.
      form: "local" or "global".
      pad: "both" starts with a frame that ends at the first hop, so that every sample is in the same
        number of frames; "end" starts at the first sample. Frames are padded with zeros, which get no
        relevance.

    Raises:
      ValueError: if an attribute is out of range, or a sample is in no frame.

    References:
      Vielhaben et al. (2024), https://doi.org/10.1016/j.patcog.2024.110309

    Example:
      >>> STDFT(length=4, hop=2).forward(jnp.ones(8)).shape
      (5, 3)
    """

    axes: ClassVar[tuple[str, ...]] = ("frame", "frequency")

    length: int
    hop: int
    window: Any = "half-sine"
    synthesis: Any = None
    form: Literal["local", "global"] = "local"
    pad: Literal["both", "end"] = "both"

    def __post_init__(self) -> None:
        check_count("length", self.length)
        check_count("hop", self.hop)
        if self.hop > self.length:
            raise ValueError(
                f"hop must be <= length, {self.length}, got {self.hop}: samples between frames "
                "would be skipped"
            )
        check_one_of("form", self.form, ("local", "global"))
        check_one_of("pad", self.pad, ("both", "end"))
        if self.synthesis is None:
            whole = "ones" if self.form == "global" else "window"
            object.__setattr__(self, "synthesis", whole)
        if self.form == "global" and self.synthesis != "ones":
            raise ValueError(f'synthesis must be "ones" in the global form, got {self.synthesis!r}')
        for name in ("window", "synthesis"):
            given = getattr(self, name)
            if not isinstance(given, str):
                # A tuple is hashable, so the transform can be a static argument of compiled functions.
                object.__setattr__(self, name, tuple(np.asarray(given, float).tolist()))
        self._windows()

    def forward(self, x: Array) -> Array:
        w, _ = self._windows()
        framed = self._frames(self._padded(x)) * jnp.asarray(w, x.dtype)
        if self.form == "global":
            framed = self._place(framed, x.shape[-1])
        return jnp.fft.rfft(framed)

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        (n,) = lengths
        left, total = self._extent(n)
        if self.form == "global":
            x = jnp.fft.irfft(z, total).sum(axis=-2)
        else:
            _, g = self._windows()
            framed = jnp.fft.irfft(z, self.length)
            framed = framed * jnp.asarray(g, framed.dtype)
            x = self._overlap_add(framed, total)
        return x[..., left : left + n] / jnp.asarray(self._weight(n), x.dtype)

    def frame_relevance(self, x: Array, c: Array) -> Array:
        """Relevance of the frames in a section of a long signal, in the local form.

        Args:
          x, c: (..., (count - 1) hop + length), the section and R / x there. It starts with a frame, and
            there are frames before and after it: W is periodic.

        Returns:
          (..., count, length // 2 + 1).
        """
        w, g = (jnp.asarray(window, x.dtype) for window in self._windows())
        period = np.zeros(-(-self.length // self.hop) * self.hop)
        period[: self.length] = np.prod(self._windows(), axis=0)
        period = period.reshape(-1, self.hop).sum(axis=0)
        weight = np.resize(period, c.shape[-1])
        z = jnp.fft.rfft(self._frames(x) * w)
        like = jax.ShapeDtypeStruct(z.shape, z.dtype)
        back = jax.linear_transpose(lambda z: jnp.fft.irfft(z, self.length), like)
        (cotangent,) = back(self._frames(c / jnp.asarray(weight, c.dtype)) * g)
        return jnp.real(z * cotangent)

    def frequencies(self, n: int, sample_rate: float) -> np.ndarray:
        check_rate(sample_rate)
        length = self._extent(n)[1] if self.form == "global" else self.length
        return np.fft.rfftfreq(length, 1 / sample_rate)

    def times(self, n: int, sample_rate: float) -> np.ndarray:
        check_rate(sample_rate)
        left, total = self._extent(n)
        starts = np.arange(self._count(total)) * self.hop - left
        return (starts + (self.length - 1) / 2) / sample_rate

    def _windows(self) -> tuple[np.ndarray, np.ndarray]:
        w = self._sampled("window", self.window)
        if self.synthesis == "window":
            return w, w
        if self.synthesis == "ones":
            return w, np.ones(self.length)
        return w, self._sampled("synthesis", self.synthesis)

    def _sampled(self, name: str, given: str | tuple[float, ...]) -> np.ndarray:
        if isinstance(given, str):
            known = _WINDOWS if name == "window" else {**_WINDOWS, "ones": 0, "window": 0}
            check_one_of(name, given, tuple(known))
            return _WINDOWS[given]((np.arange(self.length) + 0.5) / self.length)
        if len(given) != self.length:
            raise ValueError(f"{name} must have length={self.length} numbers, got {len(given)}")
        return np.array(given)

    def _extent(self, n: int) -> tuple[int, int]:
        """The number of zeros before the signal, and the length with all padding."""
        left = self.length - self.hop if self.pad == "both" else 0
        # the last frame that contains a sample ends at or after it; with "both" it is the last such frame
        last = n - 1 if self.pad == "both" else max(n - self.length, 0)
        steps = (last + left) // self.hop if self.pad == "both" else -(-last // self.hop)
        return left, steps * self.hop + self.length

    def _count(self, total: int) -> int:
        return (total - self.length) // self.hop + 1

    def _padded(self, x: Array) -> Array:
        n = x.shape[-1]
        left, total = self._extent(n)
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(left, total - left - n)])

    def _frames(self, x: Array) -> Array:
        """(..., total) -> (..., frames, length), in rows of one hop, without gathering single samples."""
        count = self._count(x.shape[-1])
        per_frame = -(-self.length // self.hop)
        missing = (count - 1 + per_frame) * self.hop - x.shape[-1]
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
        rows = x.reshape(*x.shape[:-1], -1, self.hop)
        index = np.arange(count)[:, None] + np.arange(per_frame)
        framed = rows[..., index, :].reshape(*x.shape[:-1], count, per_frame * self.hop)
        return framed[..., : self.length]

    def _overlap_add(self, framed: Array, total: int) -> Array:
        like = jax.ShapeDtypeStruct((*framed.shape[:-2], total), framed.dtype)
        (x,) = jax.linear_transpose(self._frames, like)(framed)
        return x

    def _place(self, framed: Array, n: int) -> Array:
        """Each frame at its position in a signal of full length: (..., frames, total)."""
        _, total = self._extent(n)
        count = self._count(total)
        rows = jnp.pad(framed, [(0, 0)] * (framed.ndim - 1) + [(0, total + self.hop - self.length)])
        # Rows that are `hop` longer than the signal, written consecutively, shift by one hop each.
        flat = rows.reshape(*framed.shape[:-2], -1)[..., : count * total]
        return flat.reshape(*framed.shape[:-2], count, total)

    def _weight(self, n: int) -> np.ndarray:
        """W(n) at the samples of the signal."""
        w, g = self._windows()
        left, total = self._extent(n)
        weight = np.zeros(total + self.length)
        per_frame = -(-self.length // self.hop)
        product = np.zeros(per_frame * self.hop)
        product[: self.length] = w * g
        count = self._count(total)
        for i, piece in enumerate(product.reshape(per_frame, self.hop)):
            start = i * self.hop
            weight[start : start + count * self.hop] += np.tile(piece, count)
        weight = weight[left : left + n]
        (uncovered,) = np.nonzero(np.abs(weight) <= 1e-12 * np.abs(weight).max())
        if len(uncovered):
            raise ValueError(
                f"the windows sum to zero at sample {uncovered[0]} (and {len(uncovered) - 1} more), "
                'so its relevance is undefined; pass pad="both", a smaller hop, or a window without '
                "zeros"
            )
        return weight
