"""Better models by their explanations.

What a model should not use is found by its explanations (`jaxlrp.spray`, `jaxlrp.concepts`). This package
describes it as a direction in a hidden layer (`pattern_cav`), removes it without training (`project`,
`reactive`), or trains the model not to use it (`penalties`). `feedback` trains with relevance in place
of the gradient.
"""

from jaxlrp.improve import penalties as penalties
from jaxlrp.improve.cavs import linear_cav, pattern_cav, tcav
from jaxlrp.improve.clarc import project, reactive, where_active
from jaxlrp.improve.feedback import feedback, relevance_weights, softmax_reward

__all__ = [
    "feedback",
    "linear_cav",
    "pattern_cav",
    "penalties",
    "project",
    "reactive",
    "relevance_weights",
    "softmax_reward",
    "tcav",
    "where_active",
]
