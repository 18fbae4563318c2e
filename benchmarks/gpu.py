"""Time and memory of every preset on an accelerator, in units of `jax.grad`, in less than eight minutes.

    python benchmarks/gpu.py --output results [--budget 460] [--models vit bert] [--quick]

ResNet50, VGG16 and ViT-B/16 at 224 pixels, and a 12-layer BERT over 128 tokens; float32 and bfloat16;
batches of 1 and 64. The most important presets of all cases come first, then a profile of the slowest of
them, then the other presets. `gpu.json` and `gpu.md` are written after each case: a time limit loses
nothing, and a second run with the same `--output` goes on where the first ended.

Each case is a process of its own, since a device never forgets its peak of memory. In it programs run in
the order of the memory that XLA has planned for them, so that each peak is that of the last one.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MODELS = {
    "resnet50": "epsilon_plus",
    "vit": "attnlrp",
    "vgg16": "epsilon_gamma_box",
    "bert": "attnlrp",
}
"""And of each the preset that matters most."""
DTYPES, BATCHES = ("bfloat16", "float32"), (64, 1)
RESERVE_S = 20  # what a case takes at least


def worker(name: str, dtype: str, batch: int, presets: Sequence[str], args: Any) -> dict[str, Any]:
    """One case: `jax.grad` and presets, in this process."""
    import jax
    import numpy as np

    from speed import UNIT, interleave, machine

    functions, inputs = programs_of(name, dtype, batch, presets, args.quick)
    lowered = {method: jax.jit(f).lower(*inputs) for method, f in functions.items()}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = dict(
            zip(lowered, pool.map(lambda one: one.compile(), lowered.values()), strict=True)
        )
    rows = {method: memory_of(program) for method, program in compiled.items()}
    for method in sorted(rows, key=lambda m: rows[m]["temp_bytes"]):
        rows[method] |= peak_of(lambda m=method: compiled[m](*inputs))
    calls = [lambda p=p: p(*inputs) for p in compiled.values()]
    seconds = interleave(calls, args.repeats)
    base = seconds[list(compiled).index(UNIT)]
    for row, times in zip(rows.values(), seconds, strict=True):
        low, median, high = np.percentile(times, (25, 50, 75))
        row |= {"median_s": median, "iqr_s": high - low, "ratio": float(np.median(times / base))}
    if args.profile:
        rows[presets[0]]["profile"] = profile(lambda: compiled[presets[0]](*inputs))
    return {"machine": machine(), "rows": rows}


def programs_of(
    name: str, dtype: str, batch: int, presets: Sequence[str], quick: bool
) -> tuple[dict[str, Callable], tuple[Any, ...]]:
    """(functions of (variables, x), their arguments on the device)."""
    import jax
    import jax.numpy as jnp

    import jaxlrp as lrp
    from models import case
    from speed import UNIT, composite_of
    from transformer_models import TINY, Encoder, Size
    from transformer_models import inputs as encoded

    if name in ("vit", "bert"):
        module: Any = Encoder(TINY if quick else Size(), pictures=name == "vit")
        x = encoded(module, batch, jax.random.key(0))
        variables = jax.jit(module.init)(jax.random.key(1), x)
    else:
        made = case(name, 32 if quick else 224, batch, tiny=quick)
        module, x, variables = made.module, made.x, made.variables
    variables, x = jax.tree.map(lambda a: jnp.asarray(a, dtype), (variables, x))

    def score(x: Any, variables: Any) -> Any:
        return module.apply(variables, x)[:, 1].sum()

    def relevance(preset: str) -> Callable:
        explain = lrp.explain(module.apply, composite_of(preset))
        return lambda variables, x: explain(variables, x, target=1).relevance

    functions = {UNIT: lambda variables, x: jax.grad(score)(x, variables)}
    return functions | {preset: relevance(preset) for preset in presets}, (variables, x)


def memory_of(program: Any) -> dict[str, Any]:
    """What XLA has planned."""
    memory = program.memory_analysis()
    return {"temp_bytes": getattr(memory, "temp_size_in_bytes", 0)}


def peak_of(call: Callable[[], Any]) -> dict[str, Any]:
    """The device's peak of memory; None where it has no statistics, or an earlier peak was higher."""
    import jax

    def stats() -> dict[str, int]:
        return jax.local_devices()[0].memory_stats() or {}

    before = stats().get("peak_bytes_in_use")
    finite = bool(jax.numpy.isfinite(call()).all())
    after = stats().get("peak_bytes_in_use")
    return {"finite": finite, "peak_bytes": None if after == before else after}


def profile(call: Callable[[], Any], most: int = 15) -> list[dict[str, Any]]:
    """Where the time of one call goes: operations of the device, those that take longest first."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(call())
        (file,) = Path(folder).rglob("*.xplane.pb")
        planes = list(jax.profiler.ProfileData.from_file(str(file)).planes)
    planes = [p for p in planes if "/device:" in p.name and list(p.lines)] or planes
    total: dict[str, float] = {}
    for line in (line for plane in planes for line in plane.lines):
        for event in line.events:
            key = f"{line.name.split('(')[0].strip()}: {event.name}"
            total[key] = total.get(key, 0.0) + event.duration_ns / 1e6
    return [
        {"operation": key, "ms": ms}
        for key, ms in sorted(total.items(), key=lambda kv: -kv[1])[:most]
    ]


def cases(models: Sequence[str], every: Sequence[str]) -> list[tuple[str, str, int, list[str]]]:
    """(model, dtype, batch, presets) in the order in which they are measured."""
    found = []
    for main in (True, False):
        for batch in BATCHES:
            for dtype in DTYPES:
                for name in models:
                    rest = [preset for preset in every if preset != MODELS[name]]
                    found.append((name, dtype, batch, [MODELS[name]] if main else rest))
    return found


def run(name: str, dtype: str, batch: int, presets: Sequence[str], args: Any, left: float) -> dict:
    """A case in a process of its own; its error, or that time ran out, is a result too."""
    words = [sys.executable, __file__, "--worker", name, dtype, str(batch), *presets]
    words += ["--repeats", str(args.repeats), *(["--quick"] if args.quick else [])]
    words += ["--profile"] if args.profile else []
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=max(left, 1))
    except subprocess.TimeoutExpired:
        return {"error": "time ran out"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def markdown_of(result: dict[str, Any]) -> str:
    """The results for people."""
    from speed import markdown, number

    header = ("case", "method", "median ms", "IQR ms", "x grad", "temp MiB", "peak MiB", "finite")
    body, profiles = [], []
    for key, found in result["cases"].items():
        if "error" in found:
            body.append([key, found["error"], *[""] * 6])
        for method, row in found.get("rows", {}).items():
            numbers = [number(row["median_s"], ".2f", 1e3), number(row["iqr_s"], ".2f", 1e3)]
            numbers += [number(row["ratio"]), number(row["temp_bytes"], ".0f", 2**-20)]
            numbers += [number(row["peak_bytes"], ".0f", 2**-20), "yes" if row["finite"] else "NO"]
            body.append([key, method, *numbers])
            if "profile" in row:
                lines = [f"{entry['ms']:9.3f} ms  {entry['operation']}" for entry in row["profile"]]
                profiles.append(f"\n\n{key}, {method}:\n\n```text\n" + "\n".join(lines) + "\n```")
    return f"{result['machine']}\n\n{markdown(header, body)}" + "".join(profiles) + "\n"


def slowest(result: dict[str, Any]) -> tuple[str, str, int, list[str]] | None:
    """The main preset that takes longest in units of the gradient."""
    rows = [
        (row["ratio"], key, method)
        for key, found in result["cases"].items()
        for method, row in found.get("rows", {}).items()
        if method != "jax.grad"
    ]
    if not rows:
        return None
    _, key, method = max(rows)
    name, dtype, batch, *_ = key.split(", ")
    return name, dtype, int(batch), [method]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("."), help="folder of both files")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--presets", nargs="+", help="instead of all")
    parser.add_argument("--budget", type=float, default=460, help="seconds; no case begins later")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="tiny models, to try the script")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--profile", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        name, dtype, batch, *presets = args.worker
        print(json.dumps(worker(name, dtype, int(batch), presets, args)))
        return 0
    return measure_all(args)


def measure_all(args: Any) -> int:
    """All cases that fit the budget."""
    from jaxlrp.composites import PRESETS

    begin = time.monotonic()
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / "gpu.json"
    result = json.loads(file.read_text()) if file.exists() else {"machine": None, "cases": {}}
    batches = cases(args.models, args.presets or list(PRESETS))
    planned: list[tuple[str, str, int, list[str]] | None] = list(batches)
    planned.insert(len(batches) // 2, None)  # the profile
    for one in planned:
        args.profile = one is None
        chosen = slowest(result) if one is None else one
        if chosen is None or not chosen[3]:
            continue
        name, dtype, batch, presets = chosen
        kind = "profile" if args.profile else "main" if presets == [MODELS[name]] else "others"
        key = f"{name}, {dtype}, {batch}, {kind}"
        left = args.budget - (time.monotonic() - begin)
        if "rows" in result["cases"].get(key, {}):
            continue
        if left < RESERVE_S:
            print(f"{key}: no time left; run again with the same --output")
            break
        found = run(name, dtype, batch, presets, args, left)
        result["machine"] = found.pop("machine", result["machine"])
        result["cases"][key] = found
        file.write_text(json.dumps(result, indent=1) + "\n")
        (args.output / "gpu.md").write_text(markdown_of(result), encoding="utf-8")
        told = {m: round(row["ratio"], 2) for m, row in found.get("rows", {}).items()}
        print(f"{time.monotonic() - begin:5.0f} s  {key}: {found.get('error') or told}", flush=True)
    return int(any("error" in found for found in result["cases"].values()))


if __name__ == "__main__":
    sys.exit(main())
