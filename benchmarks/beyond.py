"""Memory of explanations that are not of a class: NEON, BiLRP, CovLRP, of the compiled programs.

    python benchmarks/beyond.py [--quick]

NEON: 10,000 samples and 100 clusters in one compiled call, which is also run: time, and the largest error
of its sums for the cluster that each sample is in. BiLRP and CovLRP: EfficientNet-Lite0 at 224 x 224 pixels
with random weights, compiled and not run. Printed is what the program allocates besides arguments and
results, the size of its result, and that of all pairs of pixels (NEON: of samples, pairs of clusters and
features), which it never holds.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxlrp as lrp
from jaxlrp import heads, higher_order, uncertainty
from jaxlrp.pretrained.efficientnet_lite import EfficientNetLite0

MIB = 2**20


def compiled(function: Any, *args: Any) -> tuple[Any, float, float]:
    """(the program, MiB of temporaries, MiB of the result)."""
    program = jax.jit(function).lower(*args).compile()
    memory = program.memory_analysis()
    return program, memory.temp_size_in_bytes / MIB, memory.output_size_in_bytes / MIB


def neon(table: Table, samples: int, clusters: int, features: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, features)).astype(np.float32)
    explain = heads.explain(heads.kmeans(rng.normal(size=(clusters, features))))

    def of(x: Any) -> tuple[Any, Any]:
        result = explain(x, target=lrp.targets.predicted)
        return result.relevance, result.output

    program, temporary, size = compiled(of, x)
    program(x)[0].block_until_ready()
    begin = time.perf_counter()
    relevance, output = jax.block_until_ready(program(x))
    seconds = time.perf_counter() - begin
    chosen = np.asarray(output).max(1)
    error = np.abs(np.asarray(relevance, float).sum(1) - chosen).max() / np.abs(chosen).max()
    table.add_row(
        f"NEON, {samples} samples, {clusters} clusters, {features} features", f"{temporary:.0f}",
        f"{size:.0f}", f"{samples * clusters * clusters * features * 4 / MIB:.0f}",
        f"{seconds:.1f} s, sums to {error:.0e}",
    )  # fmt: skip


def images(table: Table, size: int, outputs: int, members: int) -> None:
    model = EfficientNetLite0(outputs)
    x = jax.ShapeDtypeStruct((size, size, 3), np.float32)
    batch = jax.ShapeDtypeStruct((1, *x.shape), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), batch)
    all_pairs = f"{(size * size) ** 2 * 4 / MIB:.0f}"

    def one(variables: Any, x: Any) -> Any:
        return model.apply(variables, x[None])[0]  # pyright: ignore

    for batch_size in (1, 8):

        def factors(variables: Any, x: Any, batch_size: int = batch_size) -> Any:
            made = higher_order.factors(
                lambda x: one(variables, x),
                "epsilon_plus",
                pool=lambda r: r.sum(-1),
                batch_size=batch_size,
            )
            return made(x)

        _, temporary, result = compiled(factors, variables, x)
        table.add_row(
            f"BiLRP, factors of {outputs} outputs, {batch_size} at once", f"{temporary:.0f}",
            f"{result:.0f}", all_pairs, "",
        )  # fmt: skip

    stacked = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((members, *leaf.shape), leaf.dtype), variables
    )
    explain = lrp.explain(model.apply, "epsilon_plus", argnums=1)
    for batch_size in (1, members):

        def covariance(stacked: Any, x: Any, batch_size: int = batch_size) -> Any:
            found = uncertainty.covariance(
                lambda variables: explain(variables, x, target=jnp.zeros(1, int)).relevance.sum(-1),
                stacked, batch_size=batch_size,
            )  # fmt: skip
            return found, found.diagonal(), found.marginal(), found.components(3)

        _, temporary, result = compiled(covariance, stacked, batch)
        table.add_row(
            f"CovLRP, {members} models, {batch_size} at once", f"{temporary:.0f}",
            f"{result:.0f}", all_pairs, "",
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer samples, small images")
    quick = parser.parse_args().quick
    table = Table(title="float32, MiB")
    for column in ("", "temporary", "result", "all pairs", "measured"):
        table.add_column(column, justify="right" if column else "left")
    for features in (64,) if quick else (64, 768):
        neon(table, 200 if quick else 10_000, 10 if quick else 100, features)
    images(table, 64 if quick else 224, 8 if quick else 64, 2 if quick else 10)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
