"""Models that get better because they were explained: smaller ones."""

from jaxlrp.improve.parameters import Wiring, mask_parameters, shrink
from jaxlrp.improve.pruning import PruningCurve, masks, pruning_curve, switch_off
from jaxlrp.improve.quantization import (
    Quantized,
    centroids,
    ecq,
    layer_strengths,
    relevance_momentum,
    straight_through,
)
from jaxlrp.improve.unit_scores import (
    unit_gradient,
    unit_magnitude,
    unit_random,
    unit_relevance,
    unit_taylor,
)

__all__ = [
    "PruningCurve",
    "Quantized",
    "Wiring",
    "centroids",
    "ecq",
    "layer_strengths",
    "mask_parameters",
    "masks",
    "pruning_curve",
    "relevance_momentum",
    "shrink",
    "straight_through",
    "switch_off",
    "unit_gradient",
    "unit_magnitude",
    "unit_random",
    "unit_relevance",
    "unit_taylor",
]
