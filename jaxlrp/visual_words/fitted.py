"""Vocabularies from fitted estimators of scikit-learn."""

from __future__ import annotations

from typing import Any

from jaxlrp._extras import reader_of
from jaxlrp.visual_words.bag import bag_of_words
from jaxlrp.visual_words.fisher import fisher_vectors
from jaxlrp.visual_words.vocabulary import Vocabulary


def fitted(estimator: Any) -> Vocabulary:
    """The vocabulary of an estimator that was fitted to descriptors. Needs `jaxlrp[spray]` (scikit-learn).

    | estimator | vocabulary |
    |---|---|
    | `KMeans`, `MiniBatchKMeans` | `bag_of_words` |
    | `GaussianMixture(covariance_type="diag")` | `fisher_vectors` |

    Raises:
      ImportError: without scikit-learn.
      TypeError: if it is anything else.
      ValueError: if it is not fitted, or its covariances are not diagonal.

    Example:
      >>> import numpy as np, sklearn.mixture
      >>> from jaxlrp import visual_words
      >>> descriptors = np.random.default_rng(0).normal(size=(5, 30, 2))  # of five images
      >>> mixture = sklearn.mixture.GaussianMixture(3, covariance_type="diag", random_state=0)
      >>> visual_words.fitted(mixture.fit(descriptors.reshape(-1, 2)))(descriptors).shape
      (5, 12)
    """
    made = {
        "KMeans": lambda e: bag_of_words(e.cluster_centers_),
        "MiniBatchKMeans": lambda e: bag_of_words(e.cluster_centers_),
        "GaussianMixture": _mixture,
    }
    other = "make the vocabulary from its arrays, such as visual_words.bag_of_words(words)"
    return reader_of(estimator, made, "visual_words.fitted", other)(estimator)


def _mixture(estimator: Any) -> Vocabulary:
    if estimator.covariance_type != "diag":
        raise ValueError(
            "estimator must have covariance_type='diag', of which Fisher vectors are made, got "
            f"covariance_type={estimator.covariance_type!r}"
        )
    return fisher_vectors(estimator.means_, estimator.covariances_, estimator.weights_)
