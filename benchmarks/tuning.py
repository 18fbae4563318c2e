"""A search for a composite: CPU time of a candidate, with and without sharing what the model says.

    python benchmarks/tuning.py [--quick]

FaithfulnessCorrelation removes the same sets of patches for all candidates. `tuning.search` evaluates the
model at them once; here it is also made to do so for each candidate, as a metric that cannot `prepare`.
EfficientNet-Lite0 with random weights, four random images of 224 x 224 pixels, 50 sets. CPU time of the
whole process; the first call of each program, which compiles it, does not count. With --quick, a small
network, few sets and a grid alone. Exits with code 1 if scores differ.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from jaxlrp import metrics, tuning
from jaxlrp.metrics import features, removal
from jaxlrp.metrics.metric import metric
from jaxlrp.pretrained.efficientnet_lite import EfficientNetLite0
from jaxlrp.tuning import running


@metric
class Alone(metrics.FaithfulnessCorrelation):
    """The same metric, which evaluates the model in each call."""

    prepares = False


class Small(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(nn.Conv(8, (3, 3), strides=2)(x))
        return nn.Dense(10)(nn.relu(nn.Conv(8, (3, 3))(x)).mean((1, 2)))


def measured(model: Any, x: np.ndarray, measure: Any, method: Any) -> tuple[float, np.ndarray]:
    """CPU seconds of a candidate once its program is compiled, and the scores of all candidates."""
    variables = jax.jit(model.init)(jax.random.key(0), x)
    seconds: list[float] = []

    def timed(of: Any) -> Any:
        def run(self: Any, values: Any, data: Any) -> Any:
            start = time.process_time()
            found = of(self, values, data)
            count = len(values) if isinstance(values, list) else 1
            seconds.append((time.process_time() - start) / count)
            return found

        return run

    original = running.Programs.scores, running.Programs.slopes
    running.Programs.scores, running.Programs.slopes = map(timed, original)  # type: ignore[method-assign]
    try:
        found = tuning.search(
            model.apply, {"gamma": tuning.convolutional()["gamma"]}, {"faithfulness": measure},
            (x, np.zeros(len(x), int)),
            args=(variables,), method=method, key=jax.random.key(1), held_out=0, at_once=2,
        )  # fmt: skip
    finally:
        running.Programs.scores, running.Programs.slopes = original  # type: ignore[method-assign]
    scores = np.array([next(iter(c.scores.values())) for c in found.candidates])
    return float(np.median(seconds[1:])), scores


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small network, few sets")
    quick = parser.parse_args().quick
    size, patch = (32, 4) if quick else (224, 16)
    options: dict[str, Any] = {
        "features": features.Blocks((0, 1), size=patch), "removal": removal.Mean((0, 1)), "size": 16,
        "runs": 10 if quick else 50, "batch_size": 8,
    }  # fmt: skip
    model = Small() if quick else EfficientNetLite0(1000)
    x = np.random.default_rng(0).normal(size=(4, size, size, 3)).astype(np.float32)
    same = True
    methods = {"grid, two at once": tuning.Grid(2), "gradient": tuning.Gradient(3)}
    for name, method in list(methods.items())[: 1 if quick else None]:
        own, scores = measured(model, x, metrics.FaithfulnessCorrelation(**options), method)
        other, expected = measured(model, x, Alone(**options), method)
        # float32; derivatives of equal scores may differ by rounding, and so the steps along them
        same &= bool(np.allclose(scores, expected, rtol=1e-3, atol=1e-3))
        print(f"{name}: {own:.3f} s of a candidate, {other:.3f} s without sharing", flush=True)
    if not same:
        print("FAILED: scores differ")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
