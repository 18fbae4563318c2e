"""Sums over bands of frequencies, as a partition of unity."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from jaxlrp.inspection.transform import Transform

EEG = {
    "delta": (0.5, 4.0),
    "theta": (4.0, 8.0),
    "alpha": (8.0, 13.0),
    "beta": (13.0, 30.0),
    "gamma": (30.0, 80.0),
}
"""The usual bands of an electroencephalogram, in hertz; 80 Hz is the end of gamma."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Bands(Transform):
    r"""Bands of coefficients, the last part of a chain: `Chain(DFT(), Bands.mel(...))`.

    R_b = sum_k m_bk R_k,   sum_b m_bk = 1

    The last band, "uncovered", takes the rest, so that nothing is lost.

    Attributes:
      weights: m, (B, K), the share of each coefficient in each band, >= 0, with
        "uncovered" as the last row.
      names: names of the bands.

    Raises:
      ValueError: if the weights do not sum to one, or the number of names is wrong.

    Example:
      >>> bands = Bands.between({"low": (0.0, 2.0)}, frequencies=np.array([0.0, 1.0, 2.0]))
      >>> bands.names, bands.weights.tolist()
      (('low', 'uncovered'), [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    """

    axes: ClassVar[tuple[str, ...]] = ("band",)

    weights: Any
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    def __post_init__(self) -> None:
        if not isinstance(self.weights, np.ndarray):
            return  # traced, or a pytree that is being rebuilt
        if self.weights.ndim != 2 or len(self.names) != len(self.weights):
            raise ValueError(
                f"weights must have one row for each of the {len(self.names)} names, got shape "
                f"{self.weights.shape}"
            )
        total = self.weights.sum(axis=0)
        if (self.weights < 0).any() or not np.allclose(total, 1.0, atol=1e-9):
            raise ValueError(
                "weights must be >= 0 and sum to 1 for each coefficient, got sums from "
                f"{total.min():.4g} to {total.max():.4g} and a smallest weight of "
                f"{self.weights.min():.4g}; Bands.of(weights, names) adds a band for the rest"
            )

    @classmethod
    def of(cls, weights: ArrayLike, names: Sequence[str] | None = None) -> Bands:
        """Bands with any weights, plus the uncovered one.

        Args:
          weights: (B, K), >= 0. If bands overlap to a sum above 1, they are scaled down to 1.
          names: names of the bands; None for "band 0", "band 1", ...
        """
        m = np.asarray(weights, np.float64)
        if m.ndim != 2 or (m < 0).any() or not np.isfinite(m).all():
            raise ValueError(f"weights must be a matrix of numbers >= 0, got shape {m.shape}")
        m = m / np.maximum(m.sum(axis=0), 1.0)
        names = [f"band {b}" for b in range(len(m))] if names is None else list(names)
        rest = np.maximum(1.0 - m.sum(axis=0), 0.0)
        return cls(np.concatenate([m, rest[None]]), (*names, "uncovered"))

    @classmethod
    def between(cls, edges: Mapping[str, tuple[float, float]], *, frequencies: ArrayLike) -> Bands:
        """Bands with sharp edges: `low <= frequency < high`.

        Args:
          edges: mapping from names to (low, high), in the units of `frequencies`.
          frequencies: (K,), of the coefficients, in hertz, as returned by `transform.frequencies`.

        Raises:
          ValueError: if a band is empty, or two bands overlap.
        """
        f = np.asarray(frequencies, np.float64)
        rows = []
        for name, (low, high) in edges.items():
            row = (f >= low) & (f < high)
            if not row.any():
                raise ValueError(
                    f"the band {name!r} from {low:g} to {high:g} contains none of the {len(f)} "
                    f"frequencies from {f.min():g} to {f.max():g}"
                )
            rows.append(row)
        m = np.array(rows, np.float64)
        if (m.sum(axis=0) > 1).any():
            (twice,) = np.nonzero(m.sum(axis=0) > 1)
            shared = [name for name, row in zip(edges, rows, strict=True) if row[twice[0]]]
            raise ValueError(f"the bands {shared} overlap at {f[twice[0]]:g}; use disjoint edges")
        return cls.of(m, tuple(edges))

    @classmethod
    def eeg(cls, *, frequencies: ArrayLike) -> Bands:
        """Delta, theta, alpha, beta and gamma; arguments as in `between`."""
        return cls.between(EEG, frequencies=frequencies)

    @classmethod
    def mel(
        cls, n_bands: int, *, frequencies: ArrayLike, low: float = 0.0, high: float | None = None
    ) -> Bands:
        """Triangles on the mel scale that sum to one between the first and the last center.

        Args:
          n_bands: number of bands, >= 1.
          frequencies: (K,), of the coefficients, in hertz.
          low, high: ends of the first and of the last triangle, in hertz; None for the highest
            frequency.

        Raises:
          ValueError: if an argument is out of range, or a band contains no frequency.

        References:
          O'Shaughnessy (1987), Speech Communication: mel = 2595 log10(1 + f / 700).
        """
        f = np.asarray(frequencies, np.float64)
        high = float(f.max()) if high is None else high
        if n_bands < 1 or not 0 <= low < high:
            raise ValueError(
                f"mel needs n_bands >= 1 and 0 <= low < high, got n_bands={n_bands}, low={low}, high={high}"
            )
        points = _from_mel(np.linspace(_to_mel(low), _to_mel(high), n_bands + 2))
        rise = (f - points[:-2, None]) / (points[1:-1] - points[:-2])[:, None]
        fall = (points[2:, None] - f) / (points[2:] - points[1:-1])[:, None]
        m = np.maximum(np.minimum(rise, fall), 0.0)
        empty = np.flatnonzero(m.sum(axis=1) == 0)
        if len(empty):
            raise ValueError(
                f"{len(empty)} of {n_bands} mel bands contain none of the {len(f)} frequencies, the first "
                f"at {points[empty[0] + 1]:.4g} Hz; use fewer bands or longer frames"
            )
        return cls.of(m, tuple(f"{hertz:.0f} Hz" for hertz in points[1:-1]))

    def forward(self, x: Array) -> Array:
        m = jnp.asarray(self.weights)
        if x.shape[-1] != m.shape[1]:
            raise ValueError(
                f"bands are for {m.shape[1]} coefficients, got {x.shape[-1]}; create them from "
                "the frequencies of the previous transform"
            )
        return x[..., None, :] * m.astype(x.dtype)

    def inverse(self, z: Array, lengths: tuple[int, ...]) -> Array:
        return z.sum(axis=-2)

    def pool(self, relevance: Array) -> Array:
        return relevance.sum(axis=-1)


def _to_mel(hertz: float) -> float:
    return 2595 * np.log10(1 + hertz / 700)


def _from_mel(mel: np.ndarray) -> np.ndarray:
    return 700 * (10 ** (mel / 2595) - 1)
