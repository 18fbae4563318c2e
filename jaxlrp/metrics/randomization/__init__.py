"""Do explanations depend on what the model has learned?"""

from jaxlrp.metrics.randomization.efficient import EfficientMPRT, Entropies
from jaxlrp.metrics.randomization.logit import RandomLogit
from jaxlrp.metrics.randomization.mprt import MPRT, Similarities, SmoothMPRT
from jaxlrp.metrics.randomization.order import evaluation_order
from jaxlrp.metrics.randomization.randomize import randomize

__all__ = [
    "MPRT",
    "EfficientMPRT",
    "Entropies",
    "RandomLogit",
    "Similarities",
    "SmoothMPRT",
    "evaluation_order",
    "randomize",
]
