"""Does the output change as the attributions predict?"""

from jaxlrp.metrics.faithfulness.correlation import (
    FaithfulnessCorrelation,
    FaithfulnessEstimate,
    MonotonicityCorrelation,
    Pairs,
)
from jaxlrp.metrics.faithfulness.curves import Curves
from jaxlrp.metrics.faithfulness.fixed import Changes
from jaxlrp.metrics.faithfulness.flipping import PixelFlipping, RegionPerturbation, Selectivity
from jaxlrp.metrics.faithfulness.infidelity import Infidelity
from jaxlrp.metrics.faithfulness.irof import IROF
from jaxlrp.metrics.faithfulness.monotonicity import Monotonicity
from jaxlrp.metrics.faithfulness.road import ROAD, Accuracy
from jaxlrp.metrics.faithfulness.sensitivity import Correlations, SensitivityN
from jaxlrp.metrics.faithfulness.sufficiency import Sufficiency

__all__ = [
    "IROF",
    "ROAD",
    "Accuracy",
    "Changes",
    "Correlations",
    "Curves",
    "FaithfulnessCorrelation",
    "FaithfulnessEstimate",
    "Infidelity",
    "Monotonicity",
    "MonotonicityCorrelation",
    "Pairs",
    "PixelFlipping",
    "RegionPerturbation",
    "Selectivity",
    "SensitivityN",
    "Sufficiency",
]
