"""Images as sets of local descriptors: bags of visual words and Fisher vectors, explained.

A vocabulary turns the descriptors of an image into one vector of features. `jaxlrp.heads` says how relevant
each feature is to a support vector machine; the vocabulary shares that among the descriptors, `to_pixels`
among the pixels below them. The sum is kept in every step.
"""

from jaxlrp.visual_words.bag import BagOfWords, bag_of_words
from jaxlrp.visual_words.fisher import FisherVectors, fisher_vectors
from jaxlrp.visual_words.fitted import fitted
from jaxlrp.visual_words.patches import Patches, patches, to_pixels
from jaxlrp.visual_words.vocabulary import Vocabulary

__all__ = [
    "BagOfWords",
    "FisherVectors",
    "Patches",
    "Vocabulary",
    "bag_of_words",
    "fisher_vectors",
    "fitted",
    "patches",
    "to_pixels",
]
