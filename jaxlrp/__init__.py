"""Layer-wise relevance propagation for any JAX or Flax model."""

from jaxlrp import baselines, composites, higher_order, inspection, rules, targets
from jaxlrp.composites import Composite
from jaxlrp.errors import GrowthWarning, NonFiniteError, TrainingModeError, UnsupportedError
from jaxlrp.explanation.attribution import Explanation, Record
from jaxlrp.explanation.explainer import attach, explain, plan
from jaxlrp.explanation.ledger import Ledger, check_conservation
from jaxlrp.explanation.plan import Plan
from jaxlrp.rules import (
    LRP0,
    AlphaBeta,
    Custom,
    Epsilon,
    Flat,
    Gamma,
    Norm,
    Pass,
    WSquare,
    ZBox,
    ZPlus,
)

__version__ = "0.1.0"

__all__ = [
    "LRP0",
    "AlphaBeta",
    "Composite",
    "Custom",
    "Epsilon",
    "Explanation",
    "Flat",
    "Gamma",
    "GrowthWarning",
    "Ledger",
    "NonFiniteError",
    "Norm",
    "Pass",
    "Plan",
    "Record",
    "TrainingModeError",
    "UnsupportedError",
    "WSquare",
    "ZBox",
    "ZPlus",
    "__version__",
    "attach",
    "baselines",
    "check_conservation",
    "composites",
    "explain",
    "higher_order",
    "inspection",
    "plan",
    "rules",
    "targets",
]
