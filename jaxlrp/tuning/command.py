"""The command of a search: `jaxlrp tune photos/ -o search/`."""

from __future__ import annotations

import argparse
import logging
import pathlib
from typing import Any

import numpy as np

import jaxlrp as lrp
from jaxlrp._checks import check_count
from jaxlrp.dataset import command_options as options
from jaxlrp.dataset import reading
from jaxlrp.dataset.command_options import Chooser, Loader, log_to_terminal
from jaxlrp.dataset.policy import Given
from jaxlrp.dataset.safe_files import printable
from jaxlrp.dataset.source import Failure, Source
from jaxlrp.metrics import command as metrics_command
from jaxlrp.targets import Predicted

METHODS = ("grid", "random", "gradient")


def add(commands: Any, model: Loader, composite: Chooser) -> None:
    """Adds the command to the command line.

    Args:
      commands: the subparsers of `argparse`.
      model, composite: functions that look up names.
    """
    parser = commands.add_parser(
        "tune", help="search for the composite that explains a model best, by a metric, on a data set",
        description="Tries families of composites that fit the architecture on one half of the samples, "
        "scores the best of each on the other half, and writes table.md and composite.py, the best "
        "composite as code. Run the same command again to continue after an interruption.",
    )  # fmt: skip
    options.add_source(parser)
    parser.add_argument(
        "-o", "--output", dest="folder", required=True, help="the folder of the search"
    )
    options.add_model(parser)
    parser.add_argument(
        "--composite", action="append",
        help="another composite to compare with; may be repeated (default: those of the families)",
    )  # fmt: skip
    parser.add_argument(
        "--canonize", nargs="+", choices=("norms", "biases", "sums"), default=[],
        help="tries each family with every way to treat BatchNorms, biases or residual sums as well, which "
        "takes as many times as long (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--metric", action="append",
        help="a metric, the first of which decides; may be repeated: "
        f"{', '.join(metrics_command.METRICS)} (default: faithfulness-correlation)",
    )  # fmt: skip
    parser.add_argument(
        "--method", choices=METHODS, default="gradient",
        help="how values are tried; gradient needs a metric that changes smoothly with the relevance, "
        "such as faithfulness-correlation (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--trials", type=int, default=8,
        help="how many candidates of each family; of a grid, values of each hyperparameter "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--held-out", type=float, default=0.5,
        help="the share of samples that reports and does not choose (default: %(default)s)",
    )  # fmt: skip
    metrics_command.add_options(parser)
    parser.add_argument(
        "--seed", type=int, default=0,
        help="seed of random numbers and of the order of samples (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, help="only the first LIMIT samples (default: all)")
    parser.add_argument(
        "--batch-size", type=int, default=8, help="samples at once (default: %(default)s)"
    )
    parser.add_argument(
        "--at-once", type=int, default=2, help="candidates at once (default: %(default)s)"
    )
    parser.set_defaults(run=lambda a: _run(a, model, composite))


def _run(arguments: argparse.Namespace, model: Loader, composite: Chooser) -> None:
    import jax

    from jaxlrp import tuning
    from jaxlrp.tuning import canonization

    log_to_terminal()
    trials = check_count("--trials", arguments.trials)
    chosen = {
        name: metrics_command.metric_of(name, arguments)
        for name in arguments.metric or ("faithfulness-correlation",)
    }
    net = model(arguments.model)
    source, preprocess, target = metrics_command.opened(arguments, net)
    data = _samples(source, preprocess, arguments, target, net)
    method = {
        "grid": lambda: tuning.Grid(trials),
        "random": lambda: tuning.Random(trials),
        "gradient": lambda: tuning.Gradient(trials),
    }[arguments.method]()
    plan = lrp.plan(net.model.apply, None, net.variables, data["input"][:1], argnums=1)
    low, high = (None, None) if net.input_range is None else net.input_range
    candidates = tuning.suggest(plan, low, high)
    candidates |= {name: composite(name, net) for name in arguments.composite or ()}
    ways = {"norms": canonization.NORMS, "biases": canonization.BIASES, "sums": canonization.SUMS}
    chosen_ways = {
        name: held if name in arguments.canonize else (canonization.GIVEN,)
        for name, held in ways.items()
    }
    candidates = tuning.canonized(candidates, plan, **chosen_ways)
    folder = pathlib.Path(arguments.folder)
    found = tuning.search(
        net.model.apply, candidates, chosen, data, args=(net.variables,), method=method,
        held_out=arguments.held_out, key=jax.random.key(arguments.seed), output=folder,
        batch_size=arguments.batch_size, at_once=arguments.at_once,
    )  # fmt: skip
    print(printable(str(found)))
    (folder / "table.md").write_text(found.table() + "\n", encoding="utf-8")
    found.save(folder / "composite.py")
    print()
    print(printable(found.code()))
    for name in ("table.md", "composite.py"):
        print(printable(f"written     {folder / name}"))


def _samples(
    source: Source, preprocess: Any, arguments: argparse.Namespace, target: Any, net: Any
) -> dict[str, np.ndarray]:
    """All samples in memory, in random order, with the class that is explained."""
    spec, source = reading.usual(source, preprocess, arguments.limit)
    fetched = reading.every_sample(source, preprocess, arguments.limit)
    batches, size = [], check_count("--batch-size", arguments.batch_size)
    for found in reading.batches(fetched, spec, size, None):
        if isinstance(found, Failure):
            logging.warning("%s is left out: %s", found.name, found.reason)
            continue
        inputs, given, extra = found.values
        n = len(found.ids)
        classes = given if isinstance(target, Given) else _classes(net, inputs, extra, target)
        batch = {"input": inputs, "target": np.asarray(classes), **extra}
        batches.append({name: np.asarray(a)[:n] for name, a in batch.items()})
    if not batches:
        raise ValueError(f"the source {source.text!r} has no readable sample")
    data = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    order = np.random.default_rng(arguments.seed).permutation(len(data["input"]))
    return {name: a[order] for name, a in data.items()}


def _classes(net: Any, inputs: Any, extra: Any, target: Any) -> np.ndarray:
    if not isinstance(target, Predicted):
        return np.full(len(inputs), target)
    context = {k: v for k, v in extra.items() if k not in ("mask", "segments")}
    return np.asarray(net.model.apply(net.variables, inputs, **context).argmax(-1))
