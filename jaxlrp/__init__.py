"""Layer-wise relevance propagation for any JAX or Flax model."""

# `_interrupt` is imported first, before anything that takes time.
from jaxlrp import (  # noqa: F401
    _interrupt,
    baselines,
    composites,
    higher_order,
    inspection,
    rules,
    targets,
)
from jaxlrp.composites import Composite
from jaxlrp.errors import GrowthWarning, NonFiniteError, TrainingModeError, UnsupportedError
from jaxlrp.explanation.attaching import attach
from jaxlrp.explanation.editing import edit
from jaxlrp.explanation.explainer import Explainer, explain, ledger, plan
from jaxlrp.explanation.files import load, save
from jaxlrp.explanation.ledger import Ledger
from jaxlrp.explanation.plan import Plan
from jaxlrp.explanation.pullback import Pullback
from jaxlrp.explanation.result import Explanation, Record
from jaxlrp.network.detect import KINDS
from jaxlrp.network.layers import Layer
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
    "KINDS",
    "LRP0",
    "AlphaBeta",
    "Composite",
    "Custom",
    "Epsilon",
    "Explainer",
    "Explanation",
    "Flat",
    "Gamma",
    "GrowthWarning",
    "Layer",
    "Ledger",
    "NonFiniteError",
    "Norm",
    "Pass",
    "Plan",
    "Pullback",
    "Record",
    "TrainingModeError",
    "UnsupportedError",
    "WSquare",
    "ZBox",
    "ZPlus",
    "__version__",
    "attach",
    "baselines",
    "composites",
    "edit",
    "explain",
    "higher_order",
    "inspection",
    "ledger",
    "load",
    "plan",
    "rules",
    "save",
    "targets",
]
