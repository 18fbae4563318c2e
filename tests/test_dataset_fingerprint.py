"""What is refused as another run, and what is the same run in another process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from dataset_runs import LRP0, attribute, network, samples, weights
from jaxlrp import baselines, dataset
from jaxlrp.dataset import canonical

ROOT = Path(__file__).parents[1]


def before(change: Any) -> Any:
    """An explanation of a network that sees `change` of its input."""
    return lrp.explain(lambda w, x: network(w, change(x)), LRP0, argnums=1)


def repeated(factor: float, length: int) -> Any:
    return lambda x: jax.lax.scan(lambda c, _: (c * factor, None), x, None, length=length)[0]


def wrapped(w: Any) -> Any:
    explain = lrp.explain(network, LRP0, argnums=1)
    return lambda x, target=None: explain(w, x, target=target)


OTHERS = {
    "a power": (before(lambda x: x**2), before(lambda x: x**3)),
    "an axis": (before(lambda x: jnp.flip(x, 1)), before(lambda x: jnp.flip(x, 2))),
    "a sum along": (before(lambda x: jnp.cumsum(x, 1)), before(lambda x: jnp.cumsum(x, 2))),
    "a length": (before(repeated(2.0, 2)), before(repeated(2.0, 3))),
    "a body": (before(repeated(2.0, 2)), before(repeated(3.0, 2))),
    "a baseline's steps": tuple(
        baselines.integrated_gradients(network, argnums=1, n_steps=n) for n in (4, 2)
    ),
    "a stabilizer": tuple(
        lrp.explain(network, lrp.composites.epsilon_plus(epsilon=stabilizer), argnums=1)
        for stabilizer in (lambda z: z + 1.0, lambda z: z + 2.0)
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_computation_is_refused(tmp_path: Path, case: str) -> None:
    first, second = OTHERS[case]
    attribute(tmp_path / "store", 16, explainer=first)
    with pytest.raises(dataset.DifferentRunError, match=r"different run; (computation|plan): "):
        attribute(tmp_path / "store", 24, explainer=second)
    assert attribute(tmp_path / "store", 24, explainer=first).new == 8


def test_weights_inside_a_function_around_count(tmp_path: Path) -> None:
    attribute(tmp_path / "store", 16, explainer=wrapped(weights()), args=())
    with pytest.raises(dataset.DifferentRunError, match="different run; computation: "):
        attribute(tmp_path / "store", 16, explainer=wrapped(weights(1)), args=())
    assert attribute(tmp_path / "store", 24, explainer=wrapped(weights()), args=()).new == 8


def test_where_relevance_begins_counts(tmp_path: Path) -> None:
    def begun(start: str | None) -> dict[str, Any]:
        explain = lrp.explain(network, LRP0, argnums=1, start=start)
        return {"explainer": explain, "source": samples(16)[0], "target": 1}

    attribute(tmp_path / "store", **begun("hidden"))
    with pytest.raises(dataset.DifferentRunError, match="different run; plan: begins at 'relu'"):
        attribute(tmp_path / "store", **begun("relu"))


RUN = """
import sys
import jaxlrp as lrp
from jaxlrp import dataset, targets
from dataset_runs import attribute, network
padding = [object() for _ in range(int(sys.argv[3]))]  # functions lie elsewhere in memory
explain = lrp.explain(
    network, lrp.composites.by_kind("dense", lrp.rules.Epsilon(lambda z: z + 1e-3)), argnums=1
)
target = {
    "function": lambda z: z.at[:, 1:].set(0.0),
    "several": [targets.predicted, lambda z: z],
    "given": dataset.Given(lambda t: targets.Contrast(t)),
}[sys.argv[2]]
print(attribute(sys.argv[1], int(sys.argv[4]), explainer=explain, target=target).new)
"""


@pytest.mark.slow
@pytest.mark.parametrize("target", ["function", "several", "given"])
def test_functions_are_the_same_in_another_process(tmp_path: Path, target: str) -> None:
    news = []
    for seed, count in ((0, 16), (7, 24)):
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(tmp_path / "store"), target, str(seed * 1000), str(count)],
            env=os.environ | {"PYTHONHASHSEED": str(seed), "PYTHONPATH": path},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        news.append(int(done.stdout))
    assert news == [16, 8]


def test_a_program_has_one_hash() -> None:
    def hashed(fun: Any, *args: Any) -> str:
        return canonical.program(jax.make_jaxpr(fun)(*args))

    x, w = jnp.ones(4), np.arange(4.0)
    once = hashed(lambda x: jax.nn.relu(x) * w, x)
    assert once == hashed(lambda x: jax.nn.relu(x) * w.copy(), x)
    others = [
        hashed(lambda x: jax.nn.relu(x) * (w + 1), x),
        hashed(lambda x: w * jax.nn.relu(x), x),
        hashed(lambda x: jax.nn.relu(x) * w, jnp.ones(4, jnp.bfloat16)),
        hashed(lambda x: jnp.where(x > 0, x, 0.0) * w, x),
        hashed(lambda x: (jax.nn.relu(x) * w, x), x),
    ]
    assert len({once, *others}) == 1 + len(others)
