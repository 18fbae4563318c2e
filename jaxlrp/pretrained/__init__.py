"""Networks with real trained weights, for trying an explanation on something that was learned.

Nothing here is imported by the rest of the library. The weights come from packages of the Python
package index; each loader names its own when that is missing.
"""

from jaxlrp.pretrained.admet import PropertyPredictor, admet
from jaxlrp.pretrained.crepe import PitchTracker, crepe
from jaxlrp.pretrained.efficientnet_lite import Pretrained, efficientnet_lite0
from jaxlrp.pretrained.g2p import Pronouncer, g2p
from jaxlrp.pretrained.minilm import SentenceEncoder, minilm
from jaxlrp.pretrained.silero import SpeechDetector, silero_vad

__all__ = [
    "PitchTracker",
    "Pretrained",
    "Pronouncer",
    "PropertyPredictor",
    "SentenceEncoder",
    "SpeechDetector",
    "admet",
    "crepe",
    "efficientnet_lite0",
    "g2p",
    "minilm",
    "silero_vad",
]
