r"""The spectral embedding of a graph, and the number of clusters that its eigenvalues indicate.

    A^ = D^-1/2 A D^-1/2,   L = I - A^,   L u_j = l_j u_j,   0 = l_1 <= l_2 <= ... <= 2

Points that belong together have nearly equal entries in D^-1/2 u_j for the smallest l_j. Each connected
component of the graph has an eigenvalue of zero with a known eigenvector: D^1/2 1 on the component. It need
not be computed. The other eigenpairs are computed component by component.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jax import Array
from numpy.typing import ArrayLike
from scipy import linalg, sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import ArpackNoConvergence, aslinearoperator, eigsh

from jaxlrp._checks import check_count
from jaxlrp.spray.analysis import Embedding
from jaxlrp.spray.seeds import generator

_DENSE = 600  # up to this many points, LAPACK computes all eigenpairs
_TINY = 1e-6  # of the relative eigengap: much smaller values count as zero


class _Pair(NamedTuple):
    """An eigenvalue of L, and its eigenvector on the rows where it is nonzero."""

    eigenvalue: float
    rows: np.ndarray
    vector: np.ndarray


class _Deflated:
    """The product with I + A^ - 3 c c^T, in the form that scipy requires."""

    dtype = np.dtype(np.float64)

    def __init__(self, a_hat: Any, constant: np.ndarray) -> None:
        self.shape, self._a_hat, self._constant = a_hat.shape, a_hat, constant

    def matvec(self, v: np.ndarray) -> np.ndarray:
        return v + self._a_hat @ v - 3 * self._constant * (self._constant @ v)


def spectral(affinity: sparse.csr_array, n_components: int = 32, *, key: Array) -> Embedding:
    r"""The spectral embedding of a graph: eigenvectors of its normalized Laplacian, smallest first.

        values = sqrt(sum d) D^-1/2 U,    L U = U diag(l)

    The mean square of a column, weighted by degree, is one. The first columns belong to the connected
    components, largest first: each is constant on its component and zero elsewhere. The sign of a
    column is such that its entry of largest magnitude is positive.

    Args:
      affinity: (n, n), sparse, symmetric, non-negative; see `graph`.
      n_components: number of columns, >= 1 and at most n. If the graph has at least as many connected
        components, one more column than components is computed, so that the first nonzero eigenvalue is
        known.
      key: a `jax.random.key`, for the initial vector of the iteration.

    Returns:
      `Embedding` with values (n, d) and eigenvalues (d,), ascending, in [0, 2], float64.

    Raises:
      ValueError: if `affinity` is not square or not symmetric, or has an entry that is negative or not
        finite.
      RuntimeError: if the iteration does not converge.

    References:
      von Luxburg (2007), https://doi.org/10.1007/s11222-007-9033-z (L_rw)
      Lapuschkin et al. (2019), https://doi.org/10.1038/s41467-019-08987-4

    Example:
      >>> import jax
      >>> two_pairs = sparse.csr_array(np.kron(np.eye(2), [[0.0, 1.0], [1.0, 0.0]]))
      >>> spectral(two_pairs, key=jax.random.key(0)).eigenvalues.round(6).tolist()
      [0.0, 0.0, 2.0, 2.0]
    """
    check_count("n_components", n_components)
    a = _checked(affinity)
    n = a.shape[0]
    degree = np.asarray(a.sum(axis=1), np.float64)
    degree = np.where(degree > 0, degree, 1.0)  # a point without neighbors is a component
    pairs = _smallest(a, degree, n_components, generator(key))
    values = np.zeros((n, len(pairs)))
    for j, (_, rows, vector) in enumerate(pairs):
        column = vector * np.sqrt(degree.sum() / degree[rows])
        values[rows, j] = column * np.sign(column[np.argmax(np.abs(column))])
    return Embedding(values, np.array([pair.eigenvalue for pair in pairs]))


def eigengap(eigenvalues: ArrayLike, *, min_clusters: int = 1) -> int:
    r"""The number of clusters: the position of the widest relative gap between eigenvalues.

        k* = argmax_i (l_{i+1} - l_i) / (l_{i+1} + 1e-6),    i = min_clusters, min_clusters + 1, ...

    The first eigenvalue is always zero. For a connected graph the first gap is therefore one, the widest
    possible, and k* is 1 even if the graph almost falls apart; ``min_clusters=2`` returns its best split.
    For a graph with several connected components, both settings return the number of components.

    Args:
      eigenvalues: (d,), ascending, >= 0, of a normalized Laplacian. There must be more eigenvalues than
        connected components.
      min_clusters: the smallest number of clusters to return, >= 1.

    Returns:
      k*, in [min(min_clusters, d), d - 1]; d for d = 1.

    Raises:
      ValueError: if `eigenvalues` is not an ascending vector, or all are zero.

    Example:
      >>> eigengap([0.0, 0.0, 0.927, 1.0])
      2
      >>> eigengap([0.0, 0.01, 0.8, 0.9]), eigengap([0.0, 0.01, 0.8, 0.9], min_clusters=2)
      (1, 2)
    """
    check_count("min_clusters", min_clusters)
    values = np.asarray(eigenvalues, np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(
            f"eigenvalues must be a vector of finite numbers, got shape {values.shape}: {values}"
        )
    if (np.diff(values) < -_TINY).any() or values[0] < -_TINY:
        raise ValueError(f"eigenvalues must be ascending and >= 0, got {values}")
    if len(values) == 1:
        return 1
    if values[-1] < _TINY:
        raise ValueError(
            f"all {len(values)} eigenvalues are zero: the graph has at least as many connected components, "
            "so there is no gap; compute more eigenvalues"
        )
    # Rounded, so that the first of several equal gaps is chosen whatever the last digits are.
    gaps = np.round(np.diff(values) / (values[1:] + _TINY), 9)
    least = min(min_clusters, len(gaps))
    return least + int(np.argmax(gaps[least - 1 :]))


def _checked(affinity: sparse.csr_array) -> Any:
    a: Any = sparse.csr_array(affinity, dtype=np.float64)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or not a.shape[0]:
        raise ValueError(f"affinity must have shape (n, n), got {a.shape}")
    if not np.isfinite(a.data).all() or (a.data < 0).any():
        raise ValueError(
            "affinity must be finite and >= 0; convert distances d to affinities, for example exp(-d)"
        )
    if abs(a - a.T).max() > 1e-12 * max(abs(a).max(), 1e-300):
        raise ValueError("affinity must be symmetric: pass (affinity + affinity.T) / 2")
    a.eliminate_zeros()
    return a


def _smallest(a: Any, degree: np.ndarray, count: int, random: np.random.Generator) -> list[_Pair]:
    """The smallest eigenpairs, ascending; those of eigenvalue zero are sorted by component size."""
    scale = sparse.diags_array(1 / np.sqrt(degree))
    a_hat: Any = sparse.csr_array(scale @ a @ scale)
    components, label = csgraph.connected_components(a, directed=False)
    parts = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label))[:-1])
    parts.sort(key=len, reverse=True)
    count = min(a.shape[0], max(count, components + 1))
    zeros = [_Pair(0.0, rows, np.sqrt(degree[rows] / degree[rows].sum())) for rows in parts]
    others = []
    for _, rows, constant in zeros:
        wanted = min(len(rows) - 1, count - components)
        if wanted > 0:
            found = _above_zero(a_hat[rows][:, rows], constant, wanted, random)
            others += [_Pair(float(v), rows, u) for v, u in zip(*found, strict=True)]
    return (zeros + sorted(others, key=lambda pair: pair.eigenvalue))[:count]


def _above_zero(
    a_hat: Any, constant: np.ndarray, count: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(eigenvalues, eigenvectors as rows) of a connected part of L, ascending, without the first.

    They are 2 minus the largest eigenvalues of I + A^ - 3 c c^T: all eigenvalues of I + A^ are in [0, 2],
    and the known vector c is moved below them, to -1. Largest, not largest in magnitude: A^ itself has
    eigenvalues close to -1, which belong to the other end of L.
    """
    n = a_hat.shape[0]
    if n <= _DENSE:
        dense = np.eye(n) + a_hat.toarray() - 3 * np.outer(constant, constant)
        largest, vectors = linalg.eigh(dense, subset_by_index=[n - count, n - 1])
    else:
        operator = aslinearoperator(_Deflated(a_hat, constant))
        # Full precision: a looser tolerance may miss one of two equal eigenvalues.
        try:
            largest, vectors = eigsh(
                operator,
                count,
                which="LA",
                v0=random.normal(size=n),
                ncv=min(n, max(2 * count + 1, 64)),
                maxiter=10_000,
                tol=0,
            )
        except ArpackNoConvergence as error:
            raise RuntimeError(
                f"the iteration for the {count} smallest eigenvalues of a graph of {n} points did not "
                f"converge (only {len(error.eigenvalues)} did); use a smaller n_components"
            ) from error
    order = np.argsort(-largest, kind="stable")
    return np.clip(2 - largest[order], 0.0, 2.0), vectors[:, order].T
