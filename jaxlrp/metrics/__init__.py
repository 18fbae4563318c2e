"""Is this explanation right? Metrics of explanations, for every kind of data.

A metric is a value with options, called with arrays:

    metrics.PixelFlipping(step=28)(predict, inputs, attributions, targets)

It returns one number for each sample, `nan` where the score is undefined, and says what it means:
`higher_is_better`, `bounds`.
"""

from jaxlrp.metrics import features, removal
from jaxlrp.metrics.axioms import Completeness, NonSensitivity
from jaxlrp.metrics.faithfulness import Curves, PixelFlipping
from jaxlrp.metrics.invariance import InputInvariance, absorb_in_bias
from jaxlrp.metrics.meta import MetaScore, Reliability, meta_evaluate
from jaxlrp.metrics.metric import Metric
from jaxlrp.metrics.robustness import (
    AvgSensitivity,
    Consistency,
    Continuity,
    LocalLipschitz,
    MaxSensitivity,
    Ratios,
    RelativeInputStability,
    RelativeOutputStability,
    RelativeRepresentationStability,
    discretize,
    perturbation,
)

__all__ = [
    "AvgSensitivity",
    "Completeness",
    "Consistency",
    "Continuity",
    "Curves",
    "InputInvariance",
    "LocalLipschitz",
    "MaxSensitivity",
    "MetaScore",
    "Metric",
    "NonSensitivity",
    "PixelFlipping",
    "Ratios",
    "RelativeInputStability",
    "RelativeOutputStability",
    "RelativeRepresentationStability",
    "Reliability",
    "absorb_in_bias",
    "discretize",
    "features",
    "meta_evaluate",
    "perturbation",
    "removal",
]
