"""Heads from fitted estimators of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxlrp._extras import need
from jaxlrp.heads.anomalies import kernel_density
from jaxlrp.heads.clusters import kmeans
from jaxlrp.heads.head import Head
from jaxlrp.heads.mixtures import gaussian_mixture


def fitted(estimator: Any) -> Head:
    """The head of a fitted estimator of scikit-learn. Needs `jaxlrp[spray]`.

    | estimator | head |
    |---|---|
    | `KMeans`, `MiniBatchKMeans` | `kmeans` |
    | `GaussianMixture`, all covariance types | `gaussian_mixture` |
    | `KernelDensity(kernel="gaussian")`, Euclidean | `kernel_density`, equal weights or those of `fit` |
    | `OneClassSVM(kernel="rbf")` | `kernel_density` of its support vectors, with its boundary |

    Args:
      estimator: the fitted estimator. Preprocessing, such as a `StandardScaler` before it, belongs into the
        encoder.

    Raises:
      ImportError: without scikit-learn.
      TypeError: if it is anything else.
      ValueError: if it is not fitted, or has a kernel or metric that is not supported.

    Example:
      >>> import numpy as np, sklearn.cluster
      >>> from jaxlrp import heads
      >>> x = np.array([[0.0, 0.0], [0.0, 2.0], [4.0, 0.0], [4.0, 2.0]])
      >>> fit = sklearn.cluster.KMeans(2, n_init=1, random_state=0).fit(x)
      >>> result = heads.explain(heads.fitted(fit))(x[:1], target=int(fit.labels_[0]))
      >>> result.relevance.tolist()
      [[16.0, 0.0]]
    """
    need("sklearn", "heads.fitted", "spray")
    made = {name: make for names, make in _READERS for name in names}
    for kind in type(estimator).__mro__:
        name = f"{kind.__module__.split('.')[0]}.{kind.__name__}"
        if name in made:
            _check_fitted(estimator)
            return made[name](estimator)
    listed = ", ".join(name.removeprefix("sklearn.") for name in made)
    raise TypeError(
        f"estimator must be a fitted {listed} of scikit-learn, got {type(estimator).__name__}: for another "
        "one make a head from its arrays, such as heads.kmeans(centers)"
    )


def _check_fitted(estimator: Any) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise ValueError(
            f"estimator must be fitted, got {estimator!r}: call its fit(features) first"
        ) from error


def _kmeans(estimator: Any) -> Head:
    return kmeans(estimator.cluster_centers_)


def _mixture(estimator: Any) -> Head:
    covariances = np.asarray(estimator.covariances_)
    count, size = estimator.means_.shape
    if estimator.covariance_type == "tied":
        covariances = np.broadcast_to(covariances, (count, size, size))
    return gaussian_mixture(estimator.means_, covariances, estimator.weights_)


def _density(estimator: Any) -> Head:
    if estimator.kernel != "gaussian" or estimator.metric not in ("euclidean", "l2"):
        raise ValueError(
            "estimator must have kernel='gaussian' and the Euclidean metric, got "
            f"kernel={estimator.kernel!r} and metric={estimator.metric!r}"
        )
    points, weights = np.asarray(estimator.tree_.data), estimator.tree_.sample_weight
    return kernel_density(points, 1 / (2 * estimator.bandwidth_**2), weights)


def _one_class(estimator: Any) -> Head:
    if estimator.kernel != "rbf":
        raise ValueError(f"estimator must have kernel='rbf', got kernel={estimator.kernel!r}")
    alpha = np.asarray(estimator.dual_coef_)[0]
    gamma = float(estimator._gamma)  # of "scale" and "auto" only here
    threshold = -float(estimator.intercept_[0])
    boundary = -np.log(threshold / alpha.sum()) / gamma if threshold > 0 else np.inf
    return kernel_density(estimator.support_vectors_, gamma, alpha, boundary)


_READERS: tuple[tuple[tuple[str, ...], Callable[[Any], Head]], ...] = (
    (("sklearn.KMeans", "sklearn.MiniBatchKMeans"), _kmeans),
    (("sklearn.GaussianMixture",), _mixture),
    (("sklearn.KernelDensity",), _density),
    (("sklearn.OneClassSVM",), _one_class),
)
