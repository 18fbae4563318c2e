"""Is this explanation right? Metrics of explanations, for every kind of data.

A metric is a value with options, called with arrays:

    metrics.PixelFlipping(step=28)(predict, inputs, attributions, targets)

It returns one number for each sample, `nan` where the score is undefined, and says what it means:
`higher_is_better`, `bounds`.
"""

from jaxlrp.metrics import controls, features, removal
from jaxlrp.metrics.axioms import Completeness, NonSensitivity
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
    "IROF",
    "ROAD",
    "Accuracy",
    "AvgSensitivity",
    "Comparison",
    "Completeness",
    "Consistency",
    "Continuity",
    "Correlations",
    "Curves",
    "Evaluation",
    "FaithfulnessCorrelation",
    "FaithfulnessEstimate",
    "Infidelity",
    "InputInvariance",
    "LocalLipschitz",
    "MaxSensitivity",
    "MetaScore",
    "Metric",
    "Monotonicity",
    "MonotonicityCorrelation",
    "NonSensitivity",
    "Pairs",
    "PixelFlipping",
    "Ratios",
    "RegionPerturbation",
    "RelativeInputStability",
    "RelativeOutputStability",
    "RelativeRepresentationStability",
    "Reliability",
    "Selectivity",
    "SensitivityN",
    "Sufficiency",
    "Table",
    "absorb_in_bias",
    "controls",
    "curves",
    "discretize",
    "evaluate",
    "features",
    "meta_evaluate",
    "perturbation",
    "removal",
]
