"""Which composite, with which hyperparameters: a search on a user's own model and data.

found = tuning.search(
        model.apply, tuning.convolutional(), metrics.PixelFlipping(), data, args=(variables,)
    )
print(found)         # the best of each family, on samples that took no part in the choice
print(found.code())  # the composite as Python code
"""

from jaxlrp.tuning.canonization import canonized
from jaxlrp.tuning.families import Family, Range, family
from jaxlrp.tuning.methods import Gradient, Grid, Random
from jaxlrp.tuning.presets import convolutional, dense, recurrent, relative, suggest, transformer
from jaxlrp.tuning.result import Candidate, Search
from jaxlrp.tuning.search import search

__all__ = [
    "Candidate",
    "Family",
    "Gradient",
    "Grid",
    "Random",
    "Range",
    "Search",
    "canonized",
    "convolutional",
    "dense",
    "family",
    "recurrent",
    "relative",
    "search",
    "suggest",
    "transformer",
]
