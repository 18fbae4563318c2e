"""Influence in physics-informed networks: leaving one out, sums by hand, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import training_data as td
from jaxlrp.training_data import physics

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(0)
WEIGHTS, BIASES = RNG.normal(size=(120, 2)) * [4, 2], RNG.normal(size=120) * 2
LAM, NU = 1e-4, 0.1


def solution(c, point):
    """A network with fixed random features of (x, t)."""
    return jnp.tanh(WEIGHTS @ point + BIASES) @ c


def residual(c, point):
    """u_t - nu u_xx."""

    def along(fun, direction):
        return lambda p: jax.jvp(fun, (p,), (jnp.asarray(direction),))[1]

    u_x, u_t = (along(lambda p: solution(c, p), d) for d in ([1.0, 0.0], [0.0, 1.0]))
    return u_t(point) - NU * along(u_x, [1.0, 0.0])(point)


def start(c, point):
    return (solution(c, point) - jnp.sin(jnp.pi * point[0])) ** 2


def terms():
    inside, edges, begin = RNG.random((150, 2)), RNG.random((40, 2)), RNG.random((30, 2))
    edges[:, 0], begin[:, 1] = edges[:, 0].round(), 0
    return {
        "equation": td.Term(lambda c, p: residual(c, p) ** 2, inside),
        "boundary": td.Term(lambda c, p: solution(c, p) ** 2, edges, weight=5.0),
        "start": td.Term(start, begin, weight=3.0),
    }


def rows(points):
    """The features, and what the equation makes of them, in NumPy."""
    h = np.tanh(points @ WEIGHTS.T + BIASES)
    slope = 1 - h**2
    return h, slope * WEIGHTS[:, 1] - NU * (-2 * h * slope) * WEIGHTS[:, 0] ** 2


def test_influence_in_a_heat_equation_is_leaving_one_out():
    """All terms are quadratic in the last layer: influence / (1 - h) is the change itself."""
    problem = terms()
    a, b, scale, owner = [], [], [], []
    for name, term in problem.items():
        h, equation = rows(term.samples)
        a.append(equation if name == "equation" else h)
        b.append(np.sin(np.pi * term.samples[:, 0]) * (name == "start"))
        scale.append(np.full(len(h), term.weight / len(h)))
        owner += [(name, i) for i in range(len(h))]
    a, b, scale = np.vstack(a), np.concatenate(b), np.concatenate(scale)
    normal = (a * scale[:, None]).T @ a + LAM * np.eye(120)

    def fit(keep):
        part = (a * (scale * keep)[:, None]).T
        return np.linalg.solve(part @ a + LAM * np.eye(120), part @ b)

    c, at = fit(np.ones(len(a))), np.array([[0.3, 0.2], [0.5, 0.9]])
    found = td.influence_of_terms(
        problem, c, at, score=solution, regularizer=lambda c: LAM * (c**2).sum(), batch_size=64
    )
    assert {name: tau.shape for name, tau in found.items()} == {
        "equation": (2, 150), "boundary": (2, 40), "start": (2, 30)
    }  # fmt: skip
    leverage = scale * np.einsum("nd,nd->n", a, np.linalg.solve(normal, a.T).T)
    for i in (3, 80, 149, 160, 195, 219):
        keep = np.arange(len(a)) != i
        change = rows(at)[0] @ (fit(keep) - c)
        name, place = owner[i]
        # 1e-8: the normal matrix has a condition of 1e7
        np.testing.assert_allclose(
            -np.asarray(found[name])[:, place] / (1 - leverage[i]), change, rtol=1e-8, atol=1e-10
        )
    of_residual = td.influence_of_terms(
        problem, c, at, score=residual, regularizer=lambda c: LAM * (c**2).sum()
    )
    change = rows(at)[1] @ (fit(np.arange(len(a)) != 3) - c)
    tau = -np.asarray(of_residual["equation"])[:, 3] / (1 - leverage[3])
    np.testing.assert_allclose(tau, change, rtol=1e-8, atol=1e-9)


INFLUENCES = {
    "equation": np.array([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0]]),
    "start": np.array([[-4.0], [0.0]]),
}


def test_summaries_by_hand():
    shares = physics.shares(INFLUENCES)
    np.testing.assert_allclose(shares["equation"], [0.6, np.nan])
    np.testing.assert_allclose(shares["start"], [0.4, np.nan])
    np.testing.assert_allclose(physics.cancellation(INFLUENCES), [0.8, np.nan])
    times = {"equation": [0.1, 0.5, 0.9], "start": [0.0]}
    np.testing.assert_allclose(physics.past_share(INFLUENCES, times, [0.5, 0.5]), [0.7, np.nan])
    inside = {"equation": [True, False, True]}
    np.testing.assert_allclose(physics.region_fraction(INFLUENCES, inside), [0.4, np.nan])


def test_errors_of_summaries():
    with pytest.raises(
        ValueError, match=r"times\['start'\] and at must have shapes \(1,\) and \(2,\)"
    ):
        physics.past_share(INFLUENCES, {"equation": np.zeros(3)}, [0.0, 1.0])
    with pytest.raises(
        ValueError, match="inside names 'begin', influences are of 'equation', 'start'"
    ):
        physics.region_fraction(INFLUENCES, {"begin": [True]})
    with pytest.raises(ValueError, match=r"inside\['start'\] must be booleans of shape \(1,\)"):
        physics.region_fraction(INFLUENCES, {"start": [True, False]})
    with pytest.raises(ValueError, match="influences must be arrays"):
        physics.shares({"equation": np.zeros((2, 3)), "start": np.zeros((1, 3))})
    with pytest.raises(TypeError, match="influences must be a dictionary"):
        physics.shares(np.zeros((2, 3)))
