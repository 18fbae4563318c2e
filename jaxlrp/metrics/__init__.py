"""Is this explanation right? Metrics of explanations, for every kind of data.

A metric is a value with options, called with arrays:

    metrics.PixelFlipping(step=28)(predict, inputs, attributions, targets)

It returns one number for each sample, `nan` where the score is undefined, and says what it means:
`higher_is_better`, `bounds`.
"""

from jaxlrp.metrics import controls, features, removal
from jaxlrp.metrics.evaluation import Comparison, Evaluation, Table, curves, evaluate
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
    "Comparison",
    "Correlations",
    "Curves",
    "Evaluation",
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
    "Table",
    "controls",
    "curves",
    "evaluate",
    "features",
    "removal",
]
