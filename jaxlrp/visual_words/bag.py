"""Bags of visual words: how often each word occurs among the descriptors of an image."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._described import described
from jaxlrp.heads.head import as_array, as_positive, head, squared_distances
from jaxlrp.visual_words.vocabulary import Vocabulary


@described
@head
class BagOfWords(Vocabulary):
    """A histogram of visual words; `bag_of_words` makes it.

    Attributes:
      words: c, (K, D).
      beta: softness of assignments; infinite if each descriptor has one word.
    """

    words: Array
    beta: Array

    @property
    def size(self) -> int:
        return self.words.shape[1]

    def terms(self, descriptors: Array) -> Array:
        """The share of each descriptor (L, D) in each word, (L, K)."""
        distances = squared_distances(descriptors, self.words)
        hard = jax.nn.one_hot(distances.argmin(1), distances.shape[1], dtype=distances.dtype)
        beta = self.beta.astype(distances.dtype)
        soft = jax.nn.softmax(-jnp.where(jnp.isfinite(beta), beta, 1) * distances, axis=1)
        return jnp.where(jnp.isfinite(beta), soft, hard)


def bag_of_words(words: ArrayLike, beta: float | None = None) -> BagOfWords:
    r"""A histogram of visual words, which sums to 1.

    z_k = 1/L sum_l m_k(l),   m_k(l) = 1[k = argmin_j |x_l - c_j|^2]

    or, with beta, m_k(l) = exp(-beta |x_l - c_k|^2) / sum_j exp(-beta |x_l - c_j|^2).

    Args:
      words: c, (K, D), such as centers of k-means of descriptors.
      beta: > 0, in units of one over a squared distance: each descriptor is shared by words. None: it has
        the nearest one.

    Returns:
      A vocabulary with K features.

    Raises:
      ValueError: if words are not finite, or beta is not positive.

    References:
      Bach et al. (2015), section "Bag of words models revisited",
      https://doi.org/10.1371/journal.pone.0130140; van Gemert et al. (2010),
      https://doi.org/10.1109/TPAMI.2009.132

    Example:
      >>> import numpy as np
      >>> from jaxlrp import visual_words
      >>> bag = visual_words.bag_of_words([[0.0], [10.0], [99.0]])
      >>> descriptors = np.array([[[1.0], [9.0]]])  # an image with two descriptors of length one
      >>> bag(descriptors).tolist()
      [[0.5, 0.5, 0.0]]
      >>> bag.relevance(descriptors, [[4.0, 1.0, 3.0]]).tolist()  # nobody has the third word
      [[5.5, 2.5]]
    """
    found = as_array("words", words, 2, "(words, length of a descriptor)")
    softness = jnp.asarray(np.inf) if beta is None else as_positive("beta", beta)
    return BagOfWords(found, softness)
