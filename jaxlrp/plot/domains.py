"""One relevance in two domains: a waveform above its spectrum or its spectrogram."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from jaxlrp.inspection import Inspection, Transform
from jaxlrp.plot.figures import NotebookFigure
from jaxlrp.plot.given import without_batch
from jaxlrp.plot.normalize import as_real
from jaxlrp.plot.signal import signal as draw_signal
from jaxlrp.plot.spectrum import spectrogram, spectrum


def domains(
    found: Inspection,
    signal: ArrayLike,
    transform: Transform,
    *,
    sample_rate: float,
    title: str | None = None,
) -> Figure:
    """Draws the relevance of a waveform above that of its spectrum or spectrogram.

    Both panels show the same explanation, and their titles its sum. A spectrogram has the time axis of the
    waveform. Each panel has its own color scale, because single samples and single coefficients have
    relevance of different size.

    Args:
      found: from `inspection.inspect` or `inspection.domains(...)["name"]`, of one signal: relevance of
        frequencies, (K,), or of frames and frequencies, (M, K); a batch of one is its only signal.
      signal: the explained signal, (T,) or (1, T). Not modified.
      transform: the one that `found` is of, for the axes.
      sample_rate: samples per second (Hz), > 0.
      title: above both panels.

    Returns:
      The Figure; its first two axes are the panels.

    Raises:
      TypeError: if `found` is no `Inspection`, or an array is traced or not real.
      ValueError: if shapes do not match, or there are several signals or channels.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import inspection
      >>> beat, dft = jnp.cos(jnp.arange(8) * jnp.pi / 2), inspection.DFT()
      >>> found = inspection.inspect(lambda x: x @ beat, dft, axis=-1)(beat)
      >>> figure = domains(found, beat, dft, sample_rate=8.0)
      >>> figure.axes[0].get_title(), figure.axes[1].get_title()
      ('waveform, sum of relevance 4', 'frequencies, sum of relevance 4')
    """
    if not isinstance(found, Inspection):
        raise TypeError(
            f"found must be an inspection.Inspection, such as of inspection.inspect, got "
            f"{type(found).__name__}"
        )
    wave = without_batch(as_real(signal, "signal"), 1)
    of_wave = without_batch(as_real(found.explanation.relevance, "relevance"), 1)
    framed = len(transform.axes) == 2
    of_bins = without_batch(as_real(found.relevance, "relevance"), 1 + framed)
    if wave.ndim != 1 or of_wave.shape != wave.shape or of_bins.ndim != 1 + framed:
        raise ValueError(
            f"signal and relevance must be of one signal without channels, got {wave.shape}, "
            f"{of_wave.shape} and {of_bins.shape}; select one sample of a batch"
        )
    size = np.asarray(abs(found.coefficients)).reshape(of_bins.shape)
    figure = NotebookFigure(figsize=(8.8, 5.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=framed, height_ratios=(2, 3))
    draw_signal(
        of_wave, wave, sample_rate=sample_rate, ax=upper, title=_titled("waveform", of_wave)
    )
    hertz = transform.frequencies(len(wave), sample_rate)
    if framed:
        spectrogram(
            of_bins, size, times=transform.times(len(wave), sample_rate), frequencies=hertz, ax=lower,
            title=_titled("frames and frequencies", of_bins),
        )  # fmt: skip
        upper.set_xlim(0, (len(wave) - 1) / sample_rate)
        upper.set_xlabel("")
    else:
        spectrum(of_bins, size, frequencies=hertz, ax=lower, title=_titled("frequencies", of_bins))
    if title is not None:
        figure.suptitle(title)
    return figure


def _titled(domain: str, relevance: np.ndarray) -> str:
    return f"{domain}, sum of relevance {relevance.sum():.4g}"
