"""Concepts: what K conditions cost, and all concepts at once against one conditional pass for each.

python benchmarks/concepts.py [--torch-python PATH] [--size 64] [--layer conv10] [--regions 50]

Where `--torch-python` has torch and zennit-crp (`pip install torch torchvision "zennit<1" tqdm matplotlib`,
`pip install --no-deps zennit-crp==0.6.0`), the same conditions are explained there, before jaxlrp runs.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxlrp as lrp
from against_zennit import difference
from jaxlrp import composites, concepts
from models import Case, case, flatten
from speed import build, cores, interleave, machine, markdown, number, parser
from torch_python import check_torch_python

WORKER = Path(__file__).with_name("_zennit_crp_worker.py")
INSTALL = (
    'pip install torch torchvision "zennit<1" tqdm matplotlib, and --no-deps zennit-crp==0.6.0'
)


def zennit_crp(case: Case, layer: str, k: int, repeats: int, python: str) -> dict[str, Any]:
    """Seconds and heat maps of K conditions in zennit-crp."""
    config = {
        "model": case.config,
        "layer": layer,
        "conditions": k,
        "repeats": repeats,
        "threads": cores(),
    }
    with tempfile.TemporaryDirectory() as folder:
        source, destination = Path(folder, "case.npz"), Path(folder, "result.npz")
        arrays = flatten(case.variables)
        np.savez(
            source, config=np.array(json.dumps(config)), x=case.x, target=case.target, **arrays
        )
        subprocess.run(
            [python, "-W", "ignore", str(WORKER), str(source), str(destination)], check=True
        )
        with np.load(destination) as file:
            return dict(file)


def programs(
    case: Case, family: concepts.Channels, k: int, regions: np.ndarray, n_channels: int
) -> dict[str, Callable[..., Any]]:
    """Functions of (variables, x)."""
    explain = lrp.explain(case.module.apply, composites.epsilon_plus())
    conditional = concepts.conditional(explain)
    chunked = concepts.conditional(explain, batch_size=64)
    local = concepts.local(explain, family)
    target = int(case.target[0])

    def naive(variables: Any, x: Any) -> Any:
        conditions = [family[i] for i in range(n_channels)]
        found = chunked(variables, x, target=target, conditions=conditions).relevance
        return jnp.einsum("kbhwc,rhw->brk", found, regions[..., 0].astype(found.dtype))

    return {
        "forward": case.module.apply,
        "explain": lambda v, x: explain(v, x, target=target).relevance,
        "conditional": lambda v, x: (
            conditional(v, x, target=target, conditions=[family[i] for i in range(k)]).relevance
        ),
        "local": lambda v, x: local(v, x, target=target, regions=regions).relevance,
        "one by one": naive,
    }


def measure(
    case: Case, layer: str, k: int, n_regions: int, repeats: int, python: str | None
) -> dict[str, Any]:
    """Seconds, FLOPs, memory, and differences between the ways to one number."""
    theirs = None if python is None else zennit_crp(case, layer, k, repeats, python)
    args = jax.device_put((case.variables, case.x[:1]))
    family = concepts.Channels(layer, axis=-1)
    plan = lrp.plan(case.module.apply, None, *args)
    shape = next(row.output_shape for row in plan.rows if row.path == layer)
    n_channels = family.count(shape)
    regions = stripes(case.x.shape[1], n_regions)
    built = {
        name: build(function, *args)
        for name, function in programs(case, family, k, regions, n_channels).items()
    }
    times = interleave([lambda p=p: p.run(*args) for p in built.values()], repeats)
    seconds = {name: float(np.median(t)) for name, t in zip(built, times, strict=True)}
    backward = built["explain"].flops - built["forward"].flops
    found: dict[str, Any] = {
        "channels": n_channels,
        "seconds": seconds,
        "compile_s": {name: p.compile_s for name, p in built.items()},
        "memory_mib": {name: (p.temp_bytes or 0) / 2**20 for name, p in built.items()},
        "flops_of_bound": built["conditional"].flops / (built["forward"].flops + k * backward),
        "local_difference": difference(
            np.asarray(built["local"].run(*args)), np.asarray(built["one by one"].run(*args))
        ),
    }
    if theirs is not None:
        maps = np.asarray(built["conditional"].run(*args))[:, 0].sum(axis=-1)
        found["zennit_crp_s"] = float(np.median(theirs["seconds"]))
        found["zennit_crp_difference"] = difference(maps, theirs["heatmaps"])
    return found


def stripes(size: int, count: int) -> np.ndarray:
    """Regions: blocks of rows and columns, (count, size, size, 1)."""
    side = int(np.ceil(np.sqrt(count)))
    rows = np.arange(size) * side // size
    number = rows[:, None] * side + rows[None, :]
    return (number[None] == np.arange(count)[:, None, None])[..., None]


def table(found: dict[str, Any], k: int, n_regions: int) -> str:
    """The results for people."""
    seconds, n = found["seconds"], found["channels"]
    rows = [
        [name, number(seconds[name], ".1f", 1e3), number(found["compile_s"][name], ".1f"),
         number(found["memory_mib"][name], ".1f"), note]
        for name, note in (
            ("forward", ""),
            ("explain", "one plain explanation"),
            ("conditional", f"{k} conditions; {found['flops_of_bound']:.2f} of the FLOPs of 1 forward and "
             f"{k} backward passes"),
            ("one by one", f"{n} channels, one conditional pass each, {n_regions} regions"),
            ("local", f"the same transposed: {seconds['one by one'] / seconds['local']:.1f} times faster, "
             f"differs by {found['local_difference']:.1e}"),
        )
    ]  # fmt: skip
    if "zennit_crp_s" in found:
        ratio = seconds["conditional"] / found["zennit_crp_s"]
        note = f"the same {k} conditions; jaxlrp takes {ratio:.2f} of it, differs by "
        note += f"{found['zennit_crp_difference']:.1e}"
        rows.append(["zennit-crp", number(found["zennit_crp_s"], ".1f", 1e3), "", "", note])
    return markdown(("what", "ms", "compile s", "temporary MiB", ""), rows)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = parser(__doc__)
    options.set_defaults(size=64, batch=1)
    options.add_argument("--model", default="vgg16", choices=("vgg16", "vgg16_bn"))
    options.add_argument("--layer", default="conv10")
    options.add_argument("--conditions", type=int, default=32)
    options.add_argument("--regions", type=int, default=50)
    options.add_argument("--torch-python", help="a Python that has torch and zennit-crp")
    args = options.parse_args(argv)
    python = args.torch_python
    if python is not None:
        python = check_torch_python(python, ("torch", "zennit", "crp"), INSTALL)
    size, repeats = (32, 2) if args.quick else (args.size, args.repeats)
    k, n_regions = (4, 4) if args.quick else (args.conditions, args.regions)
    settings = {"size": size, "layer": args.layer, "repeats": repeats, "quick": args.quick}
    result: dict[str, Any] = {"machine": machine(), "settings": settings}
    print(", ".join(f"{key} {v}" for key, v in (result["machine"] | settings).items()))
    of_model = case(args.model, size, 1, tiny=args.quick)
    result |= measure(of_model, args.layer, k, n_regions, repeats, python)
    print(f"\n{table(result, k, n_regions)}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
