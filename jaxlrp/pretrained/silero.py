"""Silero VAD, a speech detector for raw waveforms, with trained weights.

A convolution turns each frame of 32 ms, with some context, into a spectrogram; four more give
128 features. An LSTM runs over the frames, and a dense layer gives the logit of
speech. The weights come from the package `silero-vad` (MIT). None of its code is run: PyTorch is
not needed. The package has several checkpoints; this is the one that its `load_silero_vad()`
loads by default, `silero_vad.jit`.

References:
  Silero Team (2021), "Silero VAD", https://github.com/snakers4/silero-vad; Hochreiter and
  Schmidhuber (1997), LSTM, https://doi.org/10.1162/neco.1997.9.8.1735
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from numpy.typing import ArrayLike

from jaxlrp.pretrained import _weights
from jaxlrp.pretrained._container import Pretrained
from jaxlrp.pretrained._torchscript import read_torchscript

SAMPLE_RATES = (16000, 8000)
"""Supported sample rates, in Hz."""

_PACKAGE = "silero_vad"
_INSTALL = "pip install --no-deps silero-vad==6.2.3"
_FEATURES = 128
# Output channels and strides of the convolutions after the spectrogram.
_ENCODER = ((128, 1), (64, 2), (64, 2), (128, 1))
_SCOPES = {
    "stft.forward_basis_buffer": "stft.weight",
    **{f"encoder.{i}.reparam_conv": f"conv_{i + 1}" for i in range(4)},
    "decoder.decoder.2": "classifier",
}


class SileroVad(nn.Module):
    """Silero VAD without training-time dropout and without the sigmoid after its logits.

    Attributes:
      sample_rate: of the sound, 16000 or 8000 Hz. A frame has 512 or 256 samples (32 ms).
    """

    sample_rate: int = 16000

    @property
    def frame(self) -> int:
        """Length of a frame, in samples."""
        return self.sample_rate * 32 // 1000

    @nn.compact
    def __call__(self, audio: jax.Array) -> jax.Array:
        """Computes the logit of speech in each frame, given all previous frames.

        Args:
          audio: (B, T), floating, in -1 .. 1, T a multiple of `frame`; see `preprocess`.

        Returns:
          Logits, (B, T / frame). Apply a sigmoid to get probabilities.

        Raises:
          ValueError: if the shape of `audio` is wrong.
        """
        if audio.ndim != 2 or audio.shape[1] % self.frame or not audio.shape[1]:
            raise ValueError(
                f"audio must have shape (B, T) with T a multiple of {self.frame}, got "
                f"{audio.shape}; preprocess pads it with silence"
            )
        batch, window = audio.shape[0], self.frame // 2
        x = _with_context(audio, self.frame).reshape(-1, self.frame * 10 // 8, 1)
        basis = nn.Conv(
            window + 2, (window,), window // 2, padding="VALID", use_bias=False, name="stft"
        )(x)
        x = jnp.abs(jax.lax.complex(*jnp.split(basis, 2, axis=-1)))
        for i, (features, stride) in enumerate(_ENCODER, 1):
            x = nn.Conv(features, (3,), stride, padding=1, name=f"conv_{i}")(x)
            x = nn.relu(x)
        x = x.reshape(batch, -1, _FEATURES)
        # Zeros of the dtype of the sound; Flax would use float32.
        start = jnp.zeros((batch, _FEATURES), x.dtype)
        lstm = nn.RNN(nn.OptimizedLSTMCell(_FEATURES, name="lstm"))
        hidden = jnp.asarray(lstm(x, initial_carry=(start, start)))
        return nn.Dense(1, name="classifier")(nn.relu(hidden))[..., 0]


def _with_context(audio: jax.Array, frame: int) -> jax.Array:
    """(B, T) to (B, T / frame, 10 / 8 frame): the last end, the frame, its reversed end."""
    frames = audio.reshape(audio.shape[0], -1, frame)
    size = frame // 8
    before = jnp.pad(frames[:, :-1, -size:], ((0, 0), (1, 0), (0, 0)))
    behind = frames[..., -2 : -size - 2 : -1]
    return jnp.concatenate([before, frames, behind], axis=-1)


def silero_vad(sample_rate: int = 16000) -> Pretrained:
    """Loads Silero VAD with its trained weights.

    To explain the output at one frame, pass a target that selects the frame, here frame 30:

        target = lambda logits: logits * (jnp.arange(logits.shape[1]) == 30)
        jaxlrp.explain(net.model.apply, argnums=1)(net.variables, audio, target=target)

    Args:
      sample_rate: of the sound, 16000 or 8000 Hz; there is a separate network for each.

    Returns:
      The network. Its `preprocess` converts sound to inputs, see `preprocess`. Its module paths are `stft`,
      `conv_1` to `conv_4`, `lstm` and `classifier`.

    Raises:
      ImportError: if the package with the weights is not installed.
      ValueError: if there is no network for this sample rate.

    Example:
      >>> import numpy as np
      >>> from jaxlrp.pretrained import silero_vad
      >>> net = silero_vad()  # doctest: +SKIP
      >>> silence = net.preprocess(np.zeros(16000))  # doctest: +SKIP
      >>> logits = net.model.apply(net.variables, silence)  # doctest: +SKIP
      >>> logits.shape, bool((logits < -2).all())  # doctest: +SKIP
      ((1, 32), True)
    """
    if sample_rate not in SAMPLE_RATES:
        rates = " or ".join(map(str, SAMPLE_RATES))
        raise ValueError(f"sample_rate must be {rates} Hz, got {sample_rate!r}")
    model = SileroVad(sample_rate)
    prefix = "_model." if sample_rate == 16000 else "_model_8k."
    tensors = {
        name.removeprefix(prefix): value
        for name, value in read_torchscript(_folder() / "silero_vad.jit").items()
        if name.startswith(prefix)
    }
    flat = _variables(tensors)
    audio = jax.ShapeDtypeStruct((1, 2 * model.frame), np.float32)
    if not _weights.matches(flat, _weights.signature(model, audio)):
        raise ValueError(f"silero_vad.jit of {_PACKAGE} does not contain the weights of Silero VAD")

    padded = functools.partial(preprocess, frame=model.frame)
    return Pretrained(model, _weights.nested(flat), padded)


def preprocess(audio: ArrayLike, frame: int = 512) -> np.ndarray:
    """Converts sound to inputs of the network.

    Args:
      audio: (T,) or (B, T), T >= 1, at the sample rate of the network: 16-bit integers, or floats in -1 ..
        1.
      frame: length of a frame, in samples.

    Returns:
      Inputs, (B, T'), float32, padded with silence so that T' is a multiple of `frame`.

    Raises:
      ValueError: if the shape of `audio` is wrong, or it holds integers of other than 16 bits.
    """
    audio = np.asarray(audio)
    if audio.ndim not in (1, 2) or 0 in audio.shape:
        raise ValueError(
            f"audio must have shape (T,) or (B, T) and must not be empty, got {audio.shape}"
        )
    if audio.dtype.kind != "f" and audio.dtype != np.int16:
        raise ValueError(f"audio must be floats or 16-bit integers, got {audio.dtype}")
    scale = 1.0 if audio.dtype.kind == "f" else 2.0**-15
    audio = np.atleast_2d(audio).astype(np.float32) * np.float32(scale)
    return np.pad(audio, ((0, 0), (0, -audio.shape[1] % frame)))


def _folder() -> Path:
    return _weights.package_folder(_PACKAGE, "Silero VAD", _INSTALL) / "data"


def _variables(checkpoint: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames the arrays of the checkpoint: splits the gates i, f, g and o, and transposes kernels.

    The checkpoint has one bias for the input and one for the hidden state; only their sum matters.
    """
    renamed, cell = {}, {}
    for name, value in checkpoint.items():
        if name.startswith("decoder.rnn."):
            cell[name.removeprefix("decoder.rnn.")] = value
        else:
            module, _, leaf = name.rpartition(".")
            renamed[_SCOPES.get(name, f"{_SCOPES.get(module, module)}.{leaf}")] = value
    renamed["classifier.weight"] = renamed["classifier.weight"][..., 0]
    flat = _weights.to_linen(renamed, lambda module: module)
    path = "params/lstm"
    for source, letter in (("ih", "i"), ("hh", "h")):
        for gate, kernel in zip("ifgo", np.split(cell[f"weight_{source}"], 4), strict=True):
            flat[f"{path}/{letter}{gate}/kernel"] = kernel.T
    for gate, bias in zip("ifgo", np.split(cell["bias_ih"] + cell["bias_hh"], 4), strict=True):
        flat[f"{path}/h{gate}/bias"] = bias
    return flat
