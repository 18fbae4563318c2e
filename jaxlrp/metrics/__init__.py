"""Is this explanation right? Metrics of explanations, for every kind of data.

A metric is a value with options, called with arrays:

    metrics.PixelFlipping(step=28)(predict, inputs, attributions, targets)

It returns one number for each sample, `nan` where the score is undefined, and says what it means:
`higher_is_better`, `bounds`.
"""

from jaxlrp.metrics import features, removal
from jaxlrp.metrics.faithfulness import (
    IROF,
    ROAD,
    Accuracy,
    Correlations,
    Curves,
    FaithfulnessCorrelation,
    FaithfulnessEstimate,
    Infidelity,
    Monotonicity,
    MonotonicityCorrelation,
    Pairs,
    PixelFlipping,
    RegionPerturbation,
    Selectivity,
    SensitivityN,
    Sufficiency,
)
from jaxlrp.metrics.metric import Metric

__all__ = [
    "IROF",
    "ROAD",
    "Accuracy",
    "Correlations",
    "Curves",
    "FaithfulnessCorrelation",
    "FaithfulnessEstimate",
    "Infidelity",
    "Metric",
    "Monotonicity",
    "MonotonicityCorrelation",
    "Pairs",
    "PixelFlipping",
    "RegionPerturbation",
    "Selectivity",
    "SensitivityN",
    "Sufficiency",
    "features",
    "removal",
]
