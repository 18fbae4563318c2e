"""Quantus' side of `metrics.py`: runs in a Python that has Quantus and JAX, not PyTorch or TensorFlow.

python _quantus_worker.py '{"name": "digits", "n": 64, "draws": 50, "quick": false}'

Reads names of metrics from standard input, a line each, and answers each with a line of JSON: the seconds
of one call, the mean score, and the MiB by which the peak of resident memory has grown; or why it fails.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from typing import Any

import numpy as np

from jaxlrp.metrics import quantus as bridge
from metrics_cases import Case, case

import quantus  # isort: skip

QUIET = {"disable_warnings": True, "display_progressbar": False}


def calls(case: Case, a: np.ndarray) -> dict[str, Any]:
    """Metrics by name: how each is made, and whether it gets attributions."""
    few: dict[str, Any] = {"nr_samples": case.draws, **QUIET}
    return {
        "PixelFlipping": (
            quantus.PixelFlipping(
                features_in_step=case.x[0].size // case.steps, return_auc_per_sample=True, **QUIET
            ),
            a,
        ),
        "ROAD": (quantus.ROAD(percentages=list(case.percentages), **QUIET), a),
        "NonSensitivity": (quantus.NonSensitivity(normalise=False, **QUIET), a),
        "MaxSensitivity": (quantus.MaxSensitivity(**few), None),
        "AvgSensitivity": (quantus.AvgSensitivity(**few), None),
        "LocalLipschitz": (quantus.LocalLipschitzEstimate(normalise=False, **few), None),
        "RelativeInputStability": (quantus.RelativeInputStability(**few), None),
        "RelativeOutputStability": (quantus.RelativeOutputStability(**few), None),
        "FaithfulnessCorrelation": (
            quantus.FaithfulnessCorrelation(subset_size=min(224, case.x[0].size // 2), **QUIET),
            a,
        ),
        "Sparseness": (quantus.Sparseness(**QUIET), a),
    }


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(options: str) -> None:
    warnings.simplefilter("ignore")
    of = case(**json.loads(options))
    size = 64 if of.x.shape[1] < 100 else 8
    model = bridge.quantus_model(of.apply, of.variables, batch_size=size)
    explain = bridge.explain_func(of.explain)
    x = bridge.channels_first(of.x)
    model(x)
    a = explain(model, x, of.y)
    metrics = calls(of, a)
    print("ready", flush=True)
    for line in sys.stdin:
        metric, given = metrics[line.strip()]
        before, start, cpu = peak_mib(), time.perf_counter(), time.process_time()
        try:
            with bridge.accepted():
                found = metric(
                    model=model, x_batch=x, y_batch=of.y, a_batch=given, channel_first=True,
                    explain_func=explain,
                )  # fmt: skip
        except (AssertionError, IndexError, TypeError, ValueError) as error:
            print(json.dumps({"failed": f"{type(error).__name__}: {error}"[:100]}), flush=True)
            continue
        seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
        values = list(found.values()) if isinstance(found, dict) else found
        mean = float(np.mean(np.asarray(values, float)))
        answer = {"seconds": seconds, "cpu_s": cpu_s, "mean": mean, "mib": peak_mib() - before}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
