"""Propagation rules: pure values, one formula each."""

from jaxlrp.numerics import Stabilize
from jaxlrp.rules.base import BoundLayer, Custom, Rule, Shares, rule
from jaxlrp.rules.linear import (
    LRP0,
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    WSquare,
    ZBox,
    ZPlus,
)
from jaxlrp.rules.other import (
    BetaSmooth,
    DeconvNet,
    DerivativeTimesRelevance,
    Detach,
    Gradient,
    GuidedBackprop,
    LocalTaylor,
    Norm,
    Pass,
    WinnerTakesAll,
)
from jaxlrp.rules.products import Proportional, SignalTakesAll, Uniform

__all__ = [
    "LRP0",
    "AlphaBeta",
    "BetaSmooth",
    "BoundLayer",
    "Custom",
    "DeconvNet",
    "DerivativeTimesRelevance",
    "Detach",
    "Epsilon",
    "Flat",
    "Gamma",
    "Gradient",
    "GuidedBackprop",
    "LocalTaylor",
    "Norm",
    "Pass",
    "Proportional",
    "Rule",
    "Shares",
    "SignalTakesAll",
    "Stabilize",
    "Uniform",
    "WSquare",
    "WinnerTakesAll",
    "ZBox",
    "ZPlus",
    "rule",
]
