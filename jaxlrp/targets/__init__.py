"""Targets: which relevance the output begins with."""

from jaxlrp.targets.classes import (
    Contrast,
    LogOdds,
    Predicted,
    Region,
    Selection,
    Target,
    predicted,
)
from jaxlrp.targets.scenes import Detection, Segmentation

__all__ = [
    "Contrast",
    "Detection",
    "LogOdds",
    "Predicted",
    "Region",
    "Segmentation",
    "Selection",
    "Target",
    "predicted",
]
