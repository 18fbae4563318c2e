"""Is this explanation right? Metrics of explanations, for every kind of data.

A metric is a value with options, called with arrays:

    metrics.PixelFlipping(step=28)(predict, inputs, attributions, targets)

It returns one number for each sample, `nan` where the score is undefined, and says what it means:
`higher_is_better`, `bounds`.
"""

from jaxlrp.metrics import features, quantus, removal
from jaxlrp.metrics.faithfulness import Curves, PixelFlipping
from jaxlrp.metrics.metric import Metric

__all__ = ["Curves", "Metric", "PixelFlipping", "features", "quantus", "removal"]
