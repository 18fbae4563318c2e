"""Fourier and cosine transforms."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp.inspection.transform import Transform, check_rate


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class DFT(Transform):
    r"""The discrete Fourier transform of a real signal of any length.

    R_k = h_k Re(X_k conj(C_k)) / N,   h_k = 1 at k = 0 and k = N/2, else 2

    for k = 0 ... N // 2, where X and C are the transforms of x and of c = R / x. It is the relevance of
    the amplitude of a frequency with its phase held fixed, and is invariant to circular shifts of
    x and R.

    References:
      Vielhaben et al. (2024), https://doi.org/10.1016/j.patcog.2024.110309

    Example:
      >>> abs(DFT().forward(jnp.array([1.0, -1.0, 1.0, -1.0]))).tolist()
      [0.0, 0.0, 4.0]
    """

    axes: ClassVar[tuple[str, ...]] = ("frequency",)

    def forward(self, x: Array) -> Array:
        return jnp.fft.rfft(x)

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        return jnp.fft.irfft(z, lengths[0])

    def frequencies(self, n: int, sample_rate: float) -> np.ndarray:
        check_rate(sample_rate)
        return np.fft.rfftfreq(n, 1 / sample_rate)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class DFT2(Transform):
    """The discrete Fourier transform of real images over two axes, height and width.

    The second axis keeps only the frequencies 0 ... W // 2; the others are redundant.

    Example:
      >>> DFT2().forward(jnp.ones((4, 6))).shape
      (4, 4)
    """

    axes: ClassVar[tuple[str, ...]] = ("vertical frequency", "horizontal frequency")
    reads: ClassVar[int] = 2

    def forward(self, x: Array) -> Array:
        return jnp.fft.rfft2(x)

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        return jnp.fft.irfft2(z, lengths)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class DCT(Transform):
    """The orthonormal cosine transform of type II.

    Its coefficients are real. Unlike those of the DFT, they change when the signal is shifted.

    Example:
      >>> DCT().forward(jnp.ones(4)).round(6).tolist()
      [2.0, 0.0, 0.0, 0.0]
    """

    axes: ClassVar[tuple[str, ...]] = ("frequency",)

    def forward(self, x: Array) -> Array:
        return jax.scipy.fft.dct(x, norm="ortho")

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        return jax.scipy.fft.idct(z, norm="ortho")

    def frequencies(self, n: int, sample_rate: float) -> np.ndarray:
        check_rate(sample_rate)
        return np.arange(n) * sample_rate / (2 * n)
