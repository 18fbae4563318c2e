"""What it costs to train with a penalty on relevance, and to score units over a data set.

python benchmarks/improve.py [--models cnn resnet50 vgg16 vit] [--size 32] [--batch 8]

A training step is loss, gradient and update (SGD). With a penalty the loss has the share of relevance in
half of the input as well (`penalties.outside`, all_epsilon(1e-2)); its gradient is a second derivative. The
same penalty on the gradient of the input, by `jax.grad` alone, shows what of that is the price of second
derivatives. With remat, blocks are computed again on the way back. Ratios are to the plain step.

"All" is temporary memory, arguments and results. A plain step writes the parameters of a layer as soon as
it has their gradient; with a penalty each gradient is a sum of two, and all of the penalty's come first.

Scores of the units of all activations (`unit_relevance`) are compared with attribution of the same samples.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array

import jaxlrp as lrp
from jaxlrp import composites, concepts, improve
from jaxlrp.improve import penalties
from models import case
from speed import Program, build, interleave, machine, markdown, number, parser
from transformer_models import TINY, Encoder, Size, inputs

MODELS = ("cnn", "resnet50", "vgg16", "vit")
REMAT = ("resnet50", "vit")
COMPOSITE = composites.all_epsilon(1e-2)
PLAIN, GRADIENT, PENALTY = "plain step", "gradient penalty (jax.grad)", "LRP penalty"
LIMITS = {"time": 3.5, "memory": 2.5, "units": 1.15}

Apply = Callable[[Any, Array], Array]


class CNN(nn.Module):
    """Five convolutions."""

    width: int = 128

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i in range(5):
            x = nn.relu(nn.Conv(self.width, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2)) if i == 2 else x
        return nn.Dense(10)(x.mean(axis=(1, 2)))


def model_of(name: str, size: int, batch: int, tiny: bool) -> tuple[Any, Any, Array]:
    """(module, variables, inputs) on the device."""
    if name == "vit":
        small = dataclasses.replace(TINY, layers=1)
        model = Encoder(small if tiny else dataclasses.replace(Size(), image=size), pictures=True)
        x = inputs(model, batch, jax.random.key(0))
        return model, jax.jit(model.init)(jax.random.key(1), x), x
    if name == "cnn":
        small = CNN(8 if tiny else 128)
        x = jax.random.normal(jax.random.key(0), (batch, size, size, 3))
        return small, jax.jit(small.init)(jax.random.key(1), x), x
    found = case(name, size, batch, tiny=tiny)
    return found.module, *jax.device_put((found.variables, found.x))


def losses(apply: Apply) -> dict[str, Callable[..., Array]]:
    """(variables, x, labels) -> a scalar."""
    explain = lrp.explain(apply, COMPOSITE, argnums=1)

    def forbidden(x: Array) -> Array:
        return jnp.arange(x.shape[2])[:, None] < x.shape[2] // 2

    def fit(logits: Array, y: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def plain(variables: Any, x: Array, y: Array) -> Array:
        return fit(apply(variables, x), y)

    def gradient(variables: Any, x: Array, y: Array) -> Array:
        def chosen(x: Array) -> tuple[Array, Array]:
            logits = apply(variables, x)
            return jnp.take_along_axis(logits, y[:, None], axis=1).sum(), logits

        g, logits = jax.grad(chosen, has_aux=True)(x)
        return fit(logits, y) + penalties.outside(g, forbidden(x))

    def penalty(variables: Any, x: Array, y: Array) -> Array:
        found = explain(variables, x, target=y)  # one forward pass for both terms
        return fit(found.output, y) + penalties.outside(found.relevance, forbidden(x))

    return {PLAIN: plain, GRADIENT: gradient, PENALTY: penalty}


def step_of(loss: Callable[..., Array]) -> Callable[..., Any]:
    def step(variables: Any, x: Array, y: Array) -> tuple[Array, Any]:
        value, g = jax.value_and_grad(loss)(variables, x, y)
        return value, jax.tree.map(lambda p, g: p - 1e-3 * g, variables, g)

    return step


def steps(name: str, size: int, batch: int, repeats: int, tiny: bool) -> list[dict[str, Any]]:
    """One row for each kind of training step."""
    module, variables, x = model_of(name, size, batch, tiny)
    y = jnp.arange(len(x)) % module.apply(variables, x).shape[1]
    made = losses(module.apply)
    if name in REMAT and not tiny:
        again = losses(module.clone(remat=True).apply)
        made |= {f"{kind}, remat": again[kind] for kind in (PLAIN, PENALTY)}
    programs = {kind: build(step_of(loss), variables, x, y) for kind, loss in made.items()}
    seconds = interleave([lambda p=p: p.run(variables, x, y) for p in programs.values()], repeats)
    unit, rows = programs[PLAIN], []
    for (kind, program), times in zip(programs.items(), seconds, strict=True):
        value, _ = program.run(variables, x, y)
        rows.append(
            {
                "step": kind,
                "median_s": float(np.median(times)),
                "time": float(np.median(times / seconds[0])),
                "compile_s": program.trace_s + program.compile_s,
                "temp_bytes": program.temp_bytes,
                "memory": (program.temp_bytes or 0) / max(unit.temp_bytes or 0, 1),
                "all_bytes": all_bytes(program),
                "all_memory": all_bytes(program) / max(all_bytes(unit), 1),
                "flops": (program.flops or 0) / max(unit.flops or 0, 1),
                "finite": bool(jnp.isfinite(value)),
            }
        )
    return rows


def all_bytes(program: Program) -> int:
    """Temporary memory, arguments and results; 0 where the backend does not say."""
    memory = program.run.memory_analysis()
    kinds = ("temp", "argument", "output")
    return sum(getattr(memory, f"{kind}_size_in_bytes", 0) for kind in kinds)


def units(
    name: str, samples: int, size: int, batch: int, repeats: int, tiny: bool
) -> dict[str, float]:
    """Seconds for all samples: attribution, and relevance of the units of every activation."""
    module, variables, x = model_of(name, size, batch, tiny)
    explain = lrp.explain(module.apply, composites.all_epsilon())
    plan = lrp.plan(module.apply, None, variables, x)
    layers = [row.path for row in plan.rows if row.kind == "activation"]
    score = improve.unit_relevance(explain, [concepts.Channels(p, axis=-1) for p in layers])
    y = jnp.arange(len(x))
    runs: dict[str, Callable[..., Any]] = {
        "attribution": jax.jit(lambda v, x: explain(v, x, target=y).relevance),
        "units": jax.jit(lambda v, x: score(v, x, target=y)),
    }
    batches = np.random.default_rng(0).normal(size=(samples // batch, *x.shape))

    def over_data(run: Callable[..., Any]) -> None:
        for part in batches.astype(np.float32):
            jax.block_until_ready(run(variables, part))

    seconds = interleave([lambda run=run: over_data(run) for run in runs.values()], repeats)
    found = {name: float(np.median(t)) for name, t in zip(runs, seconds, strict=True)}
    return found | {"layers": len(layers), "ratio": float(np.median(seconds[1] / seconds[0]))}


def table(rows: Sequence[dict[str, Any]]) -> str:
    header = ("step", "ms", "x plain", "compile s", "temp MiB", "x plain", "all MiB", "x plain",
              "FLOPs x plain")  # fmt: skip
    body = [
        [
            row["step"] + ("" if row["finite"] else " NOT FINITE"),
            number(row["median_s"], ".1f", 1e3),
            number(row["time"]),
            number(row["compile_s"], ".1f"),
            number(row["temp_bytes"], ".1f", 2**-20),
            number(row["memory"]),
            number(row["all_bytes"], ".1f", 2**-20),
            number(row["all_memory"]),
            number(row["flops"]),
        ]
        for row in rows
    ]
    return markdown(header, body)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = parser(__doc__)
    options.set_defaults(size=32, batch=8, repeats=7)
    options.add_argument("--models", nargs="+", choices=MODELS, default=["cnn"])
    options.add_argument("--samples", type=int, default=256, help="of the data set")
    args = options.parse_args(argv)
    size, batch, repeats = (32, 2, 2) if args.quick else (args.size, args.batch, args.repeats)
    samples, models = (8, ["cnn"]) if args.quick else (args.samples, args.models)
    settings = {"size": size, "batch": batch, "repeats": repeats, "quick": args.quick}
    result: dict[str, Any] = {"machine": machine(), "settings": settings, "steps": {}}
    print(", ".join(f"{k} {v}" for k, v in (result["machine"] | settings).items()))
    for name in models:
        rows = steps(name, size, batch, repeats, args.quick)
        result["steps"][name] = rows
        print(f"\n## {name}\n\n{table(rows)}", flush=True)
    name = "vgg16" if "vgg16" in models else models[0]
    found = result["units"] = units(name, samples, size, batch, repeats, args.quick)
    print(
        f"\n{name}, {samples} samples: attribution {found['attribution']:.2f} s, relevance of the units "
        f"of {found['layers']} layers {found['units']:.2f} s: {found['ratio']:.2f} times"
    )
    worst = {
        what: max(row[what] for rows in result["steps"].values() for row in rows
                  if row["step"] == PENALTY)
        for what in ("time", "memory")
    } | {"units": found["ratio"]}  # fmt: skip
    print(
        "\nthe most, and the limit: "
        + ", ".join(f"{what} {worst[what]:.2f} ({limit})" for what, limit in LIMITS.items())
    )
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
