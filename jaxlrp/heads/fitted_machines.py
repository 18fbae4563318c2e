"""Heads from fitted support vector machines and linear models of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.typing import ArrayLike

from jaxlrp.heads import kernels
from jaxlrp.heads.anomalies import kernel_density
from jaxlrp.heads.head import Head
from jaxlrp.heads.machines import KernelMachine, kernel_machine
from jaxlrp.heads.rbf import rbf_machine


def linear(estimator: Any, *_: Any) -> Head:
    """Of `coef_` and `intercept_`: one output, or one for each class."""
    weights = np.atleast_2d(estimator.coef_)
    intercept = np.broadcast_to(np.asarray(estimator.intercept_), (len(weights),))
    return kernel_machine(weights, np.eye(len(weights)), intercept, "linear")


def machine(estimator: Any, points: ArrayLike | None, kernel: str | None) -> Head:
    """Of SVC, NuSVC, SVR or NuSVR."""
    coefficients, intercept = _pairs(estimator)
    found = _kernel_of(estimator, kernel)
    u = _support(estimator, points)
    if found != "rbf":
        return kernel_machine(u, coefficients, intercept, found)
    if not hasattr(estimator, "classes_"):
        raise ValueError(
            "estimator is a regression with kernel='rbf', whose relevance depends on a reference value: "
            "heads.rbf_machine(estimator.support_vectors_, estimator.dual_coef_[0], estimator.intercept_, "
            "gamma=..., level=reference)"
        )
    return rbf_machine(u, coefficients, intercept, gamma=float(estimator._gamma))


def one_class(estimator: Any, points: ArrayLike | None, kernel: str | None) -> Head:
    """The distance of a Gaussian one, and minus the decision function of an additive one."""
    alpha = np.asarray(estimator.dual_coef_)[0]
    threshold = -float(estimator.intercept_[0])
    found = _kernel_of(estimator, kernel)
    u = _support(estimator, points)
    if found != "rbf":
        return kernel_machine(u, -alpha, threshold, found)
    gamma = float(estimator._gamma)  # of "scale" and "auto" only here
    boundary = -np.log(threshold / alpha.sum()) / gamma if threshold > 0 else np.inf
    return kernel_density(u, gamma, alpha, boundary)


def one_vs_rest(made: list[Head]) -> Head:
    """The machines of all classes as one, with an output for each; two classes have a single one.

    Raises:
      ValueError: if they are no additive machines of one kernel.
    """
    machines = [m for m in made if isinstance(m, KernelMachine)]
    if len(machines) < len(made) or len({m.kernel for m in machines}) > 1:
        raise ValueError(
            "estimator must be a OneVsRestClassifier of linear or additive machines; explain those of "
            "other kernels one by one: heads.fitted(estimator.estimators_[k])"
        )
    u = np.concatenate([m.points for m in machines])
    coefficients = np.zeros((len(u), len(machines)))
    begin = 0
    for k, m in enumerate(machines):
        coefficients[begin : begin + len(m.points), k] = m.coefficients[:, 0]
        begin += len(m.points)
    intercept = np.concatenate([m.intercept for m in machines])
    return kernel_machine(u, coefficients, intercept, machines[0].kernel)


def _kernel_of(estimator: Any, given: str | None) -> str:
    """The name of the kernel: "rbf" or an additive one.

    Raises:
      ValueError: if it is none of them, or unknown.
    """
    from sklearn.metrics.pairwise import additive_chi2_kernel

    callables = {getattr(kernels, name): name for name in kernels.__all__}
    callables[additive_chi2_kernel] = "additive_chi2"
    own = estimator.kernel
    known = callables.get(own) if callable(own) else own if own in ("linear", "rbf") else None
    if known is not None:
        return known
    if own == "precomputed" and given is not None:
        return kernels.check_kernel("kernel", given)
    what = getattr(own, "__name__", own)
    raise ValueError(
        "estimator must have kernel='rbf', 'linear', heads.kernels.intersection, .chi2 or .hellinger, "
        "scikit-learn's additive_chi2_kernel, or 'precomputed' with the argument kernel= that names one of "
        f"{', '.join(map(repr, kernels.NAMES))}, got kernel={what!r}"
    )


def _support(estimator: Any, points: ArrayLike | None) -> np.ndarray:
    """Support vectors, which scikit-learn does not keep for kernels that are functions or matrices."""
    if estimator.kernel in ("linear", "rbf"):
        return _dense(estimator.support_vectors_)
    if points is None:
        raise ValueError(
            "points must be the features that the estimator was fitted to, since scikit-learn keeps no "
            "support vectors for this kernel: heads.fitted(estimator, points=x_train)"
        )
    held = np.asarray(points)
    count = estimator.shape_fit_[0]
    if held.ndim != 2 or len(held) != count:
        raise ValueError(
            f"points must be the {count} samples that the estimator was fitted to, (N, D), got shape "
            f"{held.shape}"
        )
    return held[estimator.support_]


def _pairs(estimator: Any) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (P, K) and intercepts (K,): one output, or one for each pair of classes.

    The coefficient of a support vector of class i against class j is in row j - 1 for i < j, else in row j.
    A positive output of the pair (i, j), i < j, says i; of two classes it says the second one.
    """
    dual = _dense(estimator.dual_coef_)
    intercept = np.atleast_1d(_dense(estimator.intercept_))
    classes = len(getattr(estimator, "classes_", ())) or 2
    if classes == 2:
        return dual.T, intercept
    ends = np.cumsum(estimator.n_support_)
    of_class = [slice(end - n, end) for end, n in zip(ends, estimator.n_support_, strict=True)]
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    coefficients = np.zeros((dual.shape[1], len(pairs)))
    for p, (i, j) in enumerate(pairs):
        coefficients[of_class[i], p] = dual[j - 1, of_class[i]]
        coefficients[of_class[j], p] = dual[i, of_class[j]]
    return coefficients, intercept


def _dense(array: Any) -> np.ndarray:
    return np.asarray(array.toarray() if hasattr(array, "toarray") else array)
