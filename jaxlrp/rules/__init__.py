"""Propagation rules: pure values, one formula each."""

from jaxlrp.numerics import Stabilize
from jaxlrp.rules.base import BoundLayer, Custom, Rule, Shares, option, rule
from jaxlrp.rules.elementwise import (
    BetaSmooth,
    DeconvNet,
    DerivativeTimesRelevance,
    Gradient,
    GuidedBackprop,
    Pass,
)
from jaxlrp.rules.inputs import Flat, WSquare, ZBox
from jaxlrp.rules.linear import LRP0, Epsilon, Gamma, Pattern
from jaxlrp.rules.lookup import LookUp
from jaxlrp.rules.normalizers import Detach, LocalTaylor
from jaxlrp.rules.pooling import Magnitude, Norm, WinnerTakesAll
from jaxlrp.rules.products import Proportional, SignalTakesAll, Tempered, Uniform
from jaxlrp.rules.signed import AlphaBeta, ZPlus
from jaxlrp.rules.unfolded import Unfolded

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
    "LookUp",
    "Magnitude",
    "Norm",
    "Pass",
    "Pattern",
    "Proportional",
    "Rule",
    "Shares",
    "SignalTakesAll",
    "Stabilize",
    "Tempered",
    "Unfolded",
    "Uniform",
    "WSquare",
    "WinnerTakesAll",
    "ZBox",
    "ZPlus",
    "option",
    "rule",
]
