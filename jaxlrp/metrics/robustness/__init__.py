"""Do attributions change little when inputs change little?"""

from jaxlrp.metrics.robustness.consistency import Consistency
from jaxlrp.metrics.robustness.continuity import Continuity
from jaxlrp.metrics.robustness.relative import (
    RelativeInputStability,
    RelativeOutputStability,
    RelativeRepresentationStability,
)
from jaxlrp.metrics.robustness.stability import (
    AvgSensitivity,
    LocalLipschitz,
    MaxSensitivity,
    Ratios,
)

__all__ = [
    "AvgSensitivity",
    "Consistency",
    "Continuity",
    "LocalLipschitz",
    "MaxSensitivity",
    "Ratios",
    "RelativeInputStability",
    "RelativeOutputStability",
    "RelativeRepresentationStability",
]
