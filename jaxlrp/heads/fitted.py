"""Heads from fitted estimators of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from jaxlrp._extras import reader_of
from jaxlrp.heads import fitted_machines as machines
from jaxlrp.heads.anomalies import kernel_density
from jaxlrp.heads.clusters import kmeans
from jaxlrp.heads.head import Head
from jaxlrp.heads.mixtures import gaussian_mixture


def fitted(estimator: Any, points: ArrayLike | None = None, kernel: str | None = None) -> Head:
    """The head of a fitted estimator of scikit-learn. Needs `jaxlrp[spray]`.

    | estimator | head |
    |---|---|
    | `KMeans`, `MiniBatchKMeans` | `kmeans` |
    | `GaussianMixture`, all covariance types | `gaussian_mixture` |
    | `KernelDensity(kernel="gaussian")`, Euclidean | `kernel_density`, equal weights or those of `fit` |
    | `OneClassSVM(kernel="rbf")` | `kernel_density` of its support vectors, with its boundary |
    | `OneClassSVM` with an additive kernel | `kernel_machine`, minus its decision function |
    | `SVC`, `NuSVC` with kernel "rbf" | `rbf_machine` |
    | `SVC`, `NuSVC`, `SVR`, `NuSVR` with an additive kernel | `kernel_machine` |
    | `LinearSVC`, `LinearSVR`, `LogisticRegression`, `Ridge`, `RidgeClassifier`, `LinearRegression`, \
`Lasso`, `SGDClassifier`, `SGDRegressor` | `kernel_machine`, linear |
    | `OneVsRestClassifier` of linear or additive ones | `kernel_machine` with an output for each class |

    Additive kernels are "linear", the functions of `heads.kernels`, and scikit-learn's
    `additive_chi2_kernel`. An SVC of more than two classes has an output for each pair (i, j), i < j, as
    its `decision_function` with `decision_function_shape="ovo"`; a positive one says i.

    Args:
      estimator: the fitted estimator. Preprocessing, such as a `StandardScaler` before it, belongs into the
        encoder.
      points: the features (N, D) that it was fitted to, where the kernel is a function or "precomputed":
        scikit-learn then keeps no support vectors.
      kernel: of an estimator with kernel="precomputed": the name of an additive one, see `kernel_machine`.

    Raises:
      ImportError: without scikit-learn.
      TypeError: if it is anything else.
      ValueError: if it is not fitted, has a kernel or metric that is not supported, or points are missing.

    Example:
      >>> import numpy as np, sklearn.cluster
      >>> from jaxlrp import heads
      >>> x = np.array([[0.0, 0.0], [0.0, 2.0], [4.0, 0.0], [4.0, 2.0]])
      >>> fit = sklearn.cluster.KMeans(2, n_init=1, random_state=0).fit(x)
      >>> result = heads.explain(heads.fitted(fit))(x[:1], target=int(fit.labels_[0]))
      >>> result.relevance.tolist()
      [[16.0, 0.0]]
    """
    otherwise = "make a head from its arrays, such as heads.kmeans(centers)"
    made = reader_of(estimator, _READERS, "heads.fitted", otherwise)
    return made(estimator, points, kernel)


def _kmeans(estimator: Any, *_: Any) -> Head:
    return kmeans(estimator.cluster_centers_)


def _mixture(estimator: Any, *_: Any) -> Head:
    covariances = np.asarray(estimator.covariances_)
    count, size = estimator.means_.shape
    if estimator.covariance_type == "tied":
        covariances = np.broadcast_to(covariances, (count, size, size))
    return gaussian_mixture(estimator.means_, covariances, estimator.weights_)


def _density(estimator: Any, *_: Any) -> Head:
    if estimator.kernel != "gaussian" or estimator.metric not in ("euclidean", "l2"):
        raise ValueError(
            "estimator must have kernel='gaussian' and the Euclidean metric, got "
            f"kernel={estimator.kernel!r} and metric={estimator.metric!r}"
        )
    points, weights = np.asarray(estimator.tree_.data), estimator.tree_.sample_weight
    return kernel_density(points, 1 / (2 * estimator.bandwidth_**2), weights)


def _one_vs_rest(estimator: Any, points: ArrayLike | None, kernel: str | None) -> Head:
    made = [fitted(one, points, kernel) for one in estimator.estimators_]
    return machines.one_vs_rest(made)


_READERS: dict[str, Callable[..., Head]] = {
    **dict.fromkeys(("KMeans", "MiniBatchKMeans"), _kmeans),
    "GaussianMixture": _mixture,
    "KernelDensity": _density,
    "OneClassSVM": machines.one_class,
    **dict.fromkeys(("SVC", "NuSVC", "SVR", "NuSVR"), machines.machine),
    **dict.fromkeys(("LinearSVC", "LinearSVR", "LogisticRegression"), machines.linear),
    **dict.fromkeys(("Ridge", "RidgeClassifier", "LinearRegression", "Lasso"), machines.linear),
    **dict.fromkeys(("SGDClassifier", "SGDRegressor"), machines.linear),
    "OneVsRestClassifier": _one_vs_rest,
}
