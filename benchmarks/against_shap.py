"""Relevance and Shapley values by shap of one network: time and agreement.

The network is that of docs/tutorials/tables.md, which this script trains by running the page. Its seven
features are nine columns, three of them one-hot.

pip install shap "jaxlrp[examples]" && python benchmarks/against_shap.py
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import pathlib
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import shap

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "tutorials" / "tables.md"
UNTIL = "## Where they must agree"


def names_of_page() -> dict[str, Any]:
    """What the code of the tutorial computes before it leaves the network."""
    text = PAGE.read_text("utf-8").split(UNTIL)[0]
    names: dict[str, Any] = {"__name__": "tables"}
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    return names


def median_time(call: Callable[[], Any], repeats: int) -> float:
    """Seconds, after one call that compiles."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def methods(names: dict[str, Any]) -> dict[str, tuple[Callable[[], Any], int]]:
    """(a call that explains all cars of the test set, repeats) by name; shap's get a compiled network."""
    hot, train, test = names["hot"], names["train"], names["test"]
    network = jax.jit(names["one_hot"])

    def predict(x: np.ndarray) -> np.ndarray:
        return np.asarray(network(x))

    zero = shap.maskers.Independent(np.zeros((1, hot.shape[1]), hot.dtype))
    cars = shap.maskers.Independent(hot[train][:100])
    exact, exact_cars = shap.explainers.Exact(predict, zero), shap.explainers.Exact(predict, cars)
    permutation = shap.explainers.Permutation(predict, zero, seed=0)
    gradient = jax.jit(jax.grad(lambda x: network(x).sum()))
    kernel = shap.KernelExplainer(predict, np.zeros((1, hot.shape[1]), hot.dtype))
    x = hot[test]
    return {
        "gradient": (lambda: gradient(x), 20),
        "LRP, gamma": (lambda: names["explain"](names["x"][test]).relevance, 20),
        "LRP, epsilon": (lambda: names["of_epsilon"](names["x"][test]).relevance, 20),
        "exact by the tutorial, absent is zero": (
            lambda: names["shapley"](names["one_hot"], x, names["groups"]),
            5,
        ),
        "shap Exact, absent is zero": (lambda: exact(x).values, 3),
        "shap Permutation, absent is zero": (lambda: permutation(x, silent=True).values, 3),
        "shap Kernel, absent is zero": (lambda: kernel.shap_values(x, silent=True), 3),
        "shap Exact, absent from 100 cars": (lambda: exact_cars(x).values, 1),
    }


def main() -> None:
    names = names_of_page()
    groups, exact = names["groups"], names["exact"]
    print(f"shap {importlib.metadata.version('shap')}, {len(exact)} samples, ms for all, compiled")
    print("| method | ms | correlation with exact Shapley values | largest difference |")
    print("|---|---:|---:|---:|")
    for name, (call, repeats) in methods(names).items():
        with contextlib.redirect_stderr(io.StringIO()):  # progress
            values, spent = np.asarray(call()), median_time(call, repeats)
        if values.shape != exact.shape:
            values = np.asarray(names["tables"].sum_groups(values, groups))
        if name == "gradient":
            print(f"| {name} | {1e3 * spent:.3g} | | |")
            continue
        correlation = np.corrcoef(values.ravel(), exact.ravel())[0, 1]
        apart = np.abs(values - exact).max()
        print(f"| {name} | {1e3 * spent:.3g} | {correlation:.2f} | {apart:.2g} |")


if __name__ == "__main__":
    main()
