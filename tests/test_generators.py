"""Directions of largest change of generators: SVD of NumPy, properties, several layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import generators

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(6, 20)), RNG.normal(size=(6, 3, 5))


def test_a_kernel_is_factorized_as_by_svd():
    found = generators.factorize(A)
    left, values, _ = np.linalg.svd(A)
    np.testing.assert_allclose(found.changes, values**2, rtol=1e-10)
    np.testing.assert_allclose(np.abs(found.vectors @ left), np.eye(6), atol=1e-9)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(6), atol=1e-12)
    assert float(found.total) == pytest.approx((A**2).sum())
    largest = np.abs(found.vectors).argmax(1)
    assert (np.asarray(found.vectors)[np.arange(6), largest] > 0).all()


def test_no_direction_changes_a_layer_more():
    found = generators.factorize(A, 1)
    others = RNG.normal(size=(1000, 6))
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    change = ((found.vectors[0] @ A) ** 2).sum()
    assert change == pytest.approx(float(found.changes[0]))
    assert change > ((others @ A) ** 2).sum(1).max()


def test_several_layers_count_as_one():
    both = np.hstack([A, B.reshape(6, 15)])
    found, expected = generators.factorize([A, B], 3), generators.factorize(both, 3)
    np.testing.assert_allclose(found.changes, expected.changes, rtol=1e-10)
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-9)
    unit = generators.factorize(A, normalize=True)
    rows = A / np.linalg.norm(A, axis=0)
    np.testing.assert_allclose(unit.changes, np.linalg.svd(rows)[1] ** 2, rtol=1e-10)
    assert float(unit.total) == pytest.approx(20)


def test_directions_of_a_function():
    """Of a linear layer the same at any code; of others the mean of J^T J by jacrev."""
    z = RNG.normal(size=(5, 6))
    found, expected = generators.directions(lambda z: z @ A + 1, z), generators.factorize(A)
    np.testing.assert_allclose(found.changes, expected.changes, rtol=1e-10)
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-9)

    def fun(z):
        return jnp.tanh(z @ A).reshape(4, 5)

    jacobians = np.asarray(jax.vmap(jax.jacrev(fun))(jnp.asarray(z))).reshape(5, 20, 6)
    mean = np.einsum("nij,nik->jk", jacobians, jacobians) / 5
    found = generators.directions(fun, z, 2)
    values, vectors = np.linalg.eigh(mean)
    np.testing.assert_allclose(found.changes, values[::-1][:2], rtol=1e-9)
    np.testing.assert_allclose(np.abs(found.vectors @ vectors[:, ::-1]), np.eye(2, 6), atol=1e-8)


def test_traverse():
    z = RNG.normal(size=(3, 6))
    found = generators.traverse(z, A[:, 0], np.array([-1.0, 0.5]))
    np.testing.assert_allclose(found[:, 0], z - A[:, 0])
    np.testing.assert_allclose(found[:, 1], z + 0.5 * A[:, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: generators.factorize(A[0]), r"kernels must have shape \(D, ...\)"),
        (
            lambda: generators.factorize([A, B[:5]]),
            r"of one length, got \[\(6, 20\), \(5, 3, 5\)\]",
        ),
        (lambda: generators.factorize(A * np.nan), "kernels must be finite"),
        (lambda: generators.factorize(A, 7), "count must be at most 6"),
        (lambda: generators.factorize(A, 0), "count must be an integer >= 1"),
        (lambda: generators.directions(lambda z: z, A[0]), r"latents must have shape \(N, D\)"),
        (
            lambda: generators.directions(lambda z: jnp.log(z - z), A),
            "must have finite derivatives",
        ),
        (lambda: generators.traverse(A, A[0, :3], [0.0]), "must have shapes"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
