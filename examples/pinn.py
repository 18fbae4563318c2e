"""Which points taught a physics-informed network its solution of the heat equation?

    python examples/pinn.py [--output DIR] [--quick]

u_t = .1 u_xx for x in [0, 1], zero at both ends, a sine at the beginning; the solution is known. A network
with two hidden layers is trained in float64 (Levenberg-Marquardt, which comes close to a minimum), and u at
x = .5 at several times is attributed to collocation, boundary and initial points (PINNfluence, exact
solve). Three seeds:

  1. Is it right? A twentieth of the points is left out, six times, and the network trained on; how well
     does the sum of their influences predict the change of u?
  2. The share of each term over time, cancellation and the share of the past. A control: the share of the
     initial condition in the network before training.
  3. The same predictions by Arnoldi's method, which keeps the largest eigenvalues: how well do they
     correlate with the exact influences?

The squared norm in the objective (1e-6) was not tuned. Writes a figure. Exits with code 1 if the share of
the initial condition does not fall with time, or the correlation of 1 is below .5.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure

from digit_networks import spread
from jaxlrp import training_data
from jaxlrp.training_data import Term, physics

NU, L2 = 0.1, 1e-6
TERMS = ("equation", "boundary", "initial")
TIMES = np.linspace(0.05, 1, 12)
AT = np.stack([np.full(12, 0.5), TIMES], axis=1)

Params = list[tuple[Array, Array]]
Points = dict[str, np.ndarray]


def u(params: Params, point: Array) -> Array:
    """The network at (x, t)."""
    h = point
    for w, b in params[:-1]:
        h = jnp.tanh(h @ w + b)
    w, b = params[-1]
    return (h @ w + b)[0]


def equation(params: Params, point: Array) -> Array:
    def along(fun: Callable[[Array], Array], direction: list[float]) -> Callable[[Array], Array]:
        return lambda p: jax.jvp(fun, (p,), (jnp.array(direction),))[1]

    of_point = functools.partial(u, params)
    u_x, u_t = along(of_point, [1.0, 0.0]), along(of_point, [0.0, 1.0])
    return u_t(point) - NU * along(u_x, [1.0, 0.0])(point)


def initial(params: Params, point: Array) -> Array:
    return u(params, point) - jnp.sin(jnp.pi * point[0])


RESIDUALS = {"equation": equation, "boundary": u, "initial": initial}
SQUARES = {n: lambda p, point, f=f: f(p, point) ** 2 for n, f in RESIDUALS.items()}


def solution(points: np.ndarray) -> np.ndarray:
    return np.exp(-NU * np.pi**2 * points[:, 1]) * np.sin(np.pi * points[:, 0])


def draw_points(seed: int) -> Points:
    rng = np.random.default_rng(seed)
    inside, ends, begin = rng.random((300, 2)), rng.random((60, 2)), rng.random((60, 2))
    ends[:, 0], begin[:, 1] = ends[:, 0].round(), 0
    return {"equation": inside, "boundary": ends, "initial": begin}


def network(key: Array, hidden: int) -> Params:
    sizes = [2, hidden, hidden, 1]
    keys = jax.random.split(key, 3)
    return [
        (jax.random.normal(k, (m, n)) / np.sqrt(m), jnp.zeros(n))
        for k, m, n in zip(keys, sizes, sizes[1:], strict=False)
    ]


def regularizer(params: Params) -> Array:
    return L2 * (ravel_pytree(params)[0] ** 2).sum()


def residuals(params: Params, points: Points, kept: Any) -> Array:
    """Whose squares sum to the objective: means over all points, of which some are left out as zero."""
    parts = [np.sqrt(L2) * ravel_pytree(params)[0]]
    for name, residual in RESIDUALS.items():
        values = jax.vmap(functools.partial(residual, params))(points[name])
        parts.append(jnp.sqrt(kept[name] / len(values)) * values)
    return jnp.concatenate(parts)


@jax.jit
def train(params: Params, points: Points, kept: Any, steps: int) -> Params:
    """Steps of Levenberg-Marquardt; those that raise the objective are not taken."""
    flat, unravel = ravel_pytree(params)

    def of(p: Array) -> Array:
        return residuals(unravel(p), points, kept)

    def step(_: int, held: Any) -> Any:
        p, mu = held
        r, j = of(p), jax.jacfwd(of)(p)
        tried = p - jnp.linalg.solve(j.T @ j + mu * jnp.eye(len(p)), j.T @ r)
        better = (of(tried) ** 2).sum() < (r**2).sum()
        return jnp.where(better, tried, p), jnp.where(better, mu / 3, jnp.minimum(mu * 4, 1e3))

    return unravel(jax.lax.fori_loop(0, steps, step, (flat, 1e-2))[0])


def influences(params: Params, points: Points, solver: training_data.Solver) -> dict[str, Array]:
    terms = {name: Term(SQUARES[name], points[name]) for name in TERMS}
    return training_data.influence_of_terms(
        terms, params, AT, score=u, regularizer=regularizer, solver=solver
    )


def left_out(
    params: Params, points: Points, tau: dict[str, Array], seed: int, groups: int, steps: int
) -> float:
    """Pearson's correlation of predicted and actual changes of u, over groups and times."""
    rng = np.random.default_rng(seed)
    whole = {name: np.ones(len(points[name])) for name in TERMS}
    at = jax.vmap(u, (None, 0))
    # trained on with all points as well: what changes by that alone does not count
    before = at(train(params, points, whole, steps), AT)
    predicted, actual = [], []
    for _ in range(groups):
        kept = {name: (rng.random(len(held)) >= 0.05) * 1.0 for name, held in points.items()}
        actual.append(at(train(params, points, kept, steps), AT) - before)
        predicted.append(-sum(tau[name] @ (1 - kept[name]) for name in TERMS))
    return float(np.corrcoef(np.ravel(predicted), np.ravel(actual))[0, 1])


def run(seed: int, quick: bool) -> dict[str, Any]:
    """All figures of one seed."""
    points = draw_points(seed)
    begun = network(jax.random.key(seed), 6 if quick else 12)
    whole = {name: np.ones(len(points[name])) for name in TERMS}
    steps = 50 if quick else 150
    params = train(begun, points, whole, steps)
    exact = training_data.Exact()
    tau = influences(params, points, exact)
    times = {name: points[name][:, 1] for name in TERMS}
    untrained = influences(begun, points, training_data.Exact())
    size = len(ravel_pytree(params)[0])
    flat = np.hstack([tau[name] for name in TERMS]).ravel()
    by_arnoldi = {}
    for rank in () if quick else (20, 50, 100, 200):
        solver = training_data.Arnoldi(rank, min(size, 4 * rank))
        found = influences(params, points, solver)
        found = np.hstack([found[name] for name in TERMS]).ravel()
        by_arnoldi[rank] = float(np.corrcoef(flat, found)[0, 1])
    grid = np.random.default_rng(99).random((500, 2))
    error = np.abs(jax.vmap(u, (None, 0))(params, grid) - solution(grid)).max()
    return {
        "parameters": size,
        "error": float(error),
        "left out": left_out(params, points, tau, seed, 2 if quick else 6, steps // 5),
        "shares": {name: np.asarray(share) for name, share in physics.shares(tau).items()},
        "untrained": np.asarray(physics.shares(untrained)["initial"]),
        "cancellation": np.asarray(physics.cancellation(tau)),
        "past": np.asarray(physics.past_share(tau, times, TIMES)),
        "arnoldi": by_arnoldi,
        "tau": tau,
        "points": points,
    }


def draw(found: dict[str, Any], path: pathlib.Path) -> None:
    """Where the influential points of an early and a late prediction are; shares over time."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axes = figure.subplots(1, 3)
    for ax, place in zip(axes, (1, 9), strict=False):
        limit = max(float(np.abs(tau[place]).max()) for tau in found["tau"].values())
        for name in TERMS:
            x, t = found["points"][name].T
            tau = np.asarray(found["tau"][name][place])
            sizes = 4 + 120 * np.sqrt(np.abs(tau) / limit)
            ax.scatter(t, x, s=sizes, c=tau, cmap="bwr", vmin=-limit, vmax=limit, lw=0.2, ec="k")
        ax.plot(*AT[place][::-1], "k*", ms=12)
        ax.set(xlabel="t", ylabel="x", title=f"influence on u(.5, {TIMES[place]:.2f})")
    axes[2].stackplot(TIMES, *found["shares"].values(), labels=TERMS, alpha=0.8)
    axes[2].plot(TIMES, found["past"], "k--", label="share of the past")
    axes[2].set(xlabel="t", ylabel="share of |influence|", ylim=(0, 1))
    axes[2].legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--quick", action="store_true", help="one seed, a small network, few steps")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_enable_x64", True)
    quick = arguments.quick

    runs = []
    for seed in range(1 if quick else 3):
        runs.append(run(seed, quick))
        print(f"seed {seed}: largest error {runs[-1]['error']:.1e}", flush=True)
    print(
        f"{runs[0]['parameters']} parameters, largest error {spread([r['error'] for r in runs], 4)}"
    )
    print(f"points left out: correlation {spread([r['left out'] for r in runs])}")
    for i in (0, 5, 11):
        shares = ", ".join(f"{n} {spread([r['shares'][n][i] for r in runs])}" for n in TERMS)
        print(f"t = {TIMES[i]:.2f}: {shares}")
        rest = {"initial, untrained": "untrained", "past": "past", "cancellation": "cancellation"}
        print("  " + ", ".join(f"{n} {spread([r[k][i] for r in runs])}" for n, k in rest.items()))
    for rank in runs[0]["arnoldi"]:
        print(f"Arnoldi, {rank} eigenvalues: {spread([r['arnoldi'][rank] for r in runs])}")
    draw(runs[0], arguments.output / "pinn.png")
    if quick:
        return 0
    falls = all(r["shares"]["initial"][0] > r["shares"]["initial"][-1] for r in runs)
    return 0 if falls and np.mean([r["left out"] for r in runs]) > 0.5 else 1


if __name__ == "__main__":
    raise SystemExit(main())
