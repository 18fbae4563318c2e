"""Is this explanation right? Metrics of explanations, for every kind of data.

A metric is a value with options, called with arrays:

    metrics.PixelFlipping(step=28)(predict, inputs, attributions, targets)

It returns one number for each sample, `nan` where the score is undefined, and says what it means:
`higher_is_better`, `bounds`.
"""

from jaxlrp.metrics import controls, features, quantus, removal, similarity, truth
from jaxlrp.metrics.axioms import Completeness, NonSensitivity
from jaxlrp.metrics.calling import call_by_name
from jaxlrp.metrics.complexity import Coherence, Complexity, EffectiveComplexity, Sparseness
from jaxlrp.metrics.context import ContextRatio, box_masks
from jaxlrp.metrics.evaluation import Comparison, Evaluation, Table, curves, evaluate
from jaxlrp.metrics.faithfulness import (
    IROF,
    ROAD,
    Accuracy,
    Changes,
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
from jaxlrp.metrics.localization import (
    AttributionLocalization,
    Focus,
    LocalizationAUC,
    PointingGame,
    RelevanceMass,
    RelevanceRank,
    TopKIntersection,
)
from jaxlrp.metrics.meta import MetaScore, Reliability, meta_evaluate
from jaxlrp.metrics.metric import Metric
from jaxlrp.metrics.mosaics import Mosaics, mosaics
from jaxlrp.metrics.randomization import (
    MPRT,
    EfficientMPRT,
    Entropies,
    RandomLogit,
    Similarities,
    SmoothMPRT,
    evaluation_order,
    randomize,
)
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
from jaxlrp.metrics.variation import TotalVariation

__all__ = [
    "IROF",
    "MPRT",
    "ROAD",
    "Accuracy",
    "AttributionLocalization",
    "AvgSensitivity",
    "Changes",
    "Coherence",
    "Comparison",
    "Completeness",
    "Complexity",
    "Consistency",
    "ContextRatio",
    "Continuity",
    "Correlations",
    "Curves",
    "EffectiveComplexity",
    "EfficientMPRT",
    "Entropies",
    "Evaluation",
    "FaithfulnessCorrelation",
    "FaithfulnessEstimate",
    "Focus",
    "Infidelity",
    "InputInvariance",
    "LocalLipschitz",
    "LocalizationAUC",
    "MaxSensitivity",
    "MetaScore",
    "Metric",
    "Monotonicity",
    "MonotonicityCorrelation",
    "Mosaics",
    "NonSensitivity",
    "Pairs",
    "PixelFlipping",
    "PointingGame",
    "RandomLogit",
    "Ratios",
    "RegionPerturbation",
    "RelativeInputStability",
    "RelativeOutputStability",
    "RelativeRepresentationStability",
    "RelevanceMass",
    "RelevanceRank",
    "Reliability",
    "Selectivity",
    "SensitivityN",
    "Similarities",
    "SmoothMPRT",
    "Sparseness",
    "Sufficiency",
    "Table",
    "TopKIntersection",
    "TotalVariation",
    "absorb_in_bias",
    "box_masks",
    "call_by_name",
    "controls",
    "curves",
    "discretize",
    "evaluate",
    "evaluation_order",
    "features",
    "meta_evaluate",
    "mosaics",
    "perturbation",
    "quantus",
    "randomize",
    "removal",
    "similarity",
    "truth",
]
