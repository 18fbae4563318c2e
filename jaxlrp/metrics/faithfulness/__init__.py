"""Does the output change as the attributions say?"""

from jaxlrp.metrics.faithfulness.flipping import Curves, PixelFlipping

__all__ = ["Curves", "PixelFlipping"]
