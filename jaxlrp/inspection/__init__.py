"""Virtual inspection layers: relevance of a signal in a domain that people can interpret.

They explain a model of a raw waveform by its frequencies, its time frames, wavelets, principal
components or bands. The model is not changed: `x = S z` acts as a layer before it,
and LRP-0 propagates relevance through that layer.
"""

from jaxlrp.inspection.aggregate import per_band, per_channel, per_event, per_segment
from jaxlrp.inspection.bands import EEG, Bands
from jaxlrp.inspection.chain import Chain
from jaxlrp.inspection.domains import Domains, domains
from jaxlrp.inspection.fourier import DCT, DFT, DFT2
from jaxlrp.inspection.layer import Inspection, decompose, inspect
from jaxlrp.inspection.matrices import PCA, Matrix
from jaxlrp.inspection.stdft import STDFT
from jaxlrp.inspection.streaming import stream, windows
from jaxlrp.inspection.transform import Functions, Segments, Transform
from jaxlrp.inspection.wavelets import Wavelet

__all__ = [
    "DCT",
    "DFT",
    "DFT2",
    "EEG",
    "PCA",
    "STDFT",
    "Bands",
    "Chain",
    "Domains",
    "Functions",
    "Inspection",
    "Matrix",
    "Segments",
    "Transform",
    "Wavelet",
    "decompose",
    "domains",
    "inspect",
    "per_band",
    "per_channel",
    "per_event",
    "per_segment",
    "stream",
    "windows",
]
