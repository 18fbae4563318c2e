"""Better models by their explanations.

What a model should not use is found by its explanations (`jaxlrp.spray`, `jaxlrp.concepts`). This package
describes it as a direction in a hidden layer (`pattern_cav`), removes it without training (`project`,
`reactive`), or trains the model not to use it (`penalties`). `feedback` trains with relevance in place
of the gradient. Relevance also says what a model can do without: units (`unit_relevance`, `masks`) and
bits (`ecq`).
"""

from jaxlrp.improve import penalties as penalties
from jaxlrp.improve.cavs import linear_cav, pattern_cav, tcav
from jaxlrp.improve.clarc import Projection, project, reactive, where_active
from jaxlrp.improve.composite_search import CompositeSearch, search_composite
from jaxlrp.improve.corrections import Correction, load_correction, save_correction
from jaxlrp.improve.feedback import feedback, relevance_weights, softmax_reward
from jaxlrp.improve.loop import Artifact, Revision, assess, locate, reveal_to_revise
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
from jaxlrp.improve.training import log_odds, plasticity, protect, relevance_drop
from jaxlrp.improve.unit_scores import (
    unit_gradient,
    unit_magnitude,
    unit_random,
    unit_relevance,
    unit_taylor,
)
from jaxlrp.improve.weights import (
    mask_weights,
    weight_masks,
    weight_relevance,
)

__all__ = [
    "Artifact",
    "CompositeSearch",
    "Correction",
    "Projection",
    "PruningCurve",
    "Quantized",
    "Revision",
    "Wiring",
    "assess",
    "centroids",
    "ecq",
    "feedback",
    "layer_strengths",
    "linear_cav",
    "load_correction",
    "locate",
    "log_odds",
    "mask_parameters",
    "mask_weights",
    "masks",
    "pattern_cav",
    "penalties",
    "plasticity",
    "project",
    "protect",
    "pruning_curve",
    "reactive",
    "relevance_drop",
    "relevance_momentum",
    "relevance_weights",
    "reveal_to_revise",
    "save_correction",
    "search_composite",
    "shrink",
    "softmax_reward",
    "straight_through",
    "switch_off",
    "tcav",
    "unit_gradient",
    "unit_magnitude",
    "unit_random",
    "unit_relevance",
    "unit_taylor",
    "weight_masks",
    "weight_relevance",
    "where_active",
]
