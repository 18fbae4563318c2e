"""The command of evaluation: `jaxlrp evaluate photos/ --composite A --composite B -o report/`."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

import jaxlrp as lrp
from jaxlrp._checks import check_count
from jaxlrp.dataset import command as shared
from jaxlrp.dataset import command_options as options
from jaxlrp.dataset.command_options import Chooser, Loader, log_to_terminal
from jaxlrp.dataset.command_targets import one_target_of
from jaxlrp.dataset.options import ComputeOptions, ReadOptions
from jaxlrp.dataset.policy import Given
from jaxlrp.dataset.safe_files import printable
from jaxlrp.dataset.source import Source
from jaxlrp.errors import near

BASELINES = ("gradient", "input-x-gradient", "integrated-gradients", "smooth-grad")
SIZE = 16  # of a patch that is removed at once, in pixels


def add(commands: Any, model: Loader, composite: Chooser) -> None:
    """Adds the command to the command line.

    Args:
      commands: the subparsers of `argparse`.
      model, composite: functions that look up names.
    """
    parser = commands.add_parser(
        "evaluate", help="evaluate explanations of a model on a data set by several metrics",
        description="Evaluates composites, baselines and controls by metrics, and writes table.md, "
        "scores.csv and figures. Run the same command again to continue after an interruption, or "
        "with more images, composites or metrics.",
    )  # fmt: skip
    options.add_source(parser)
    parser.add_argument(
        "-o", "--output", dest="folder", required=True, help="the folder of the report"
    )
    options.add_model(parser)
    parser.add_argument(
        "--composite", action="append",
        help="a composite; may be repeated (default: epsilon_gamma_box, epsilon_plus, all_epsilon)",
    )  # fmt: skip
    parser.add_argument(
        "--baseline",
        action="append",
        choices=BASELINES,
        help="a method to compare with; may be repeated (default: none)",
    )
    parser.add_argument(
        "--metric", action="append",
        help=f"a metric; may be repeated: {', '.join(METRICS)} (default: {', '.join(DEFAULT)})",
    )  # fmt: skip
    parser.add_argument(
        "--no-controls", action="store_true",
        help="leave out the controls: random attributions, input contrast and edges",
    )  # fmt: skip
    add_options(parser)
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of random numbers (default: %(default)s)"
    )
    parser.add_argument("--limit", type=int, help="only the first LIMIT samples (default: all)")
    parser.set_defaults(run=lambda a: _run(a, model, composite))
    options.add_options(parser, batch_size=16)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what is explained, and the options of the metrics that `metric_of` makes."""
    parser.add_argument(
        "--target", default="predicted",
        help="what is explained: predicted, given (by the source), or a class (its index or name) "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--patch", type=int, default=SIZE,
        help="side of the patches that faithfulness metrics remove, in pixels (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--draws", type=int, default=20,
        help="random draws of robustness metrics, for each sample (default: %(default)s)",
    )  # fmt: skip


def opened(
    arguments: argparse.Namespace, net: Any
) -> tuple[Source, Callable[[np.ndarray], np.ndarray] | None, Any]:
    """The source that a command names, its preprocessing (of images alone), and the target.

    Raises:
      ValueError: if the model cannot be applied to the inputs, or has no such class.
    """
    target = one_target_of(arguments.target, net.labels)
    source = shared.open_source(arguments.source)

    def preprocess(image: np.ndarray) -> np.ndarray:
        return np.asarray(net.preprocess(image))[0]

    named = {"source": arguments.source, "model": arguments.model, "target": arguments.target}
    images = shared.check_model(net, source, preprocess, named, target)
    return source, preprocess if images else None, target


def _patches(arguments: argparse.Namespace) -> Any:
    from jaxlrp.metrics import features

    return features.Blocks((0, 1), size=check_count("--patch", arguments.patch))


def _flipping(arguments: argparse.Namespace) -> Any:
    from jaxlrp import metrics

    return metrics.PixelFlipping(
        features=_patches(arguments), removal=metrics.removal.Mean((0, 1)), batch_size=64
    )


def _of_draws(name: str) -> Callable[[argparse.Namespace], Any]:
    def make(arguments: argparse.Namespace) -> Any:
        from jaxlrp import metrics

        return getattr(metrics, name)(draws=check_count("--draws", arguments.draws), batch_size=16)

    return make


def _plain(
    name: str, *, patches: bool = False, **options: Any
) -> Callable[[argparse.Namespace], Any]:
    def make(arguments: argparse.Namespace) -> Any:
        from jaxlrp import metrics

        more = {"features": _patches(arguments)} if patches else {}
        return getattr(metrics, name)(**more, **options)

    return make


METRICS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "pixel-flipping": _flipping,
    "faithfulness-correlation": _plain("FaithfulnessCorrelation", patches=True, size=20),
    "road": _plain("ROAD"),
    "max-sensitivity": _of_draws("MaxSensitivity"),
    "avg-sensitivity": _of_draws("AvgSensitivity"),
    "sparseness": _plain("Sparseness"),
    "complexity": _plain("Complexity"),
    "completeness": _plain("Completeness"),
}
"""What `--metric` names: from the options of the command to a metric."""
DEFAULT = ("pixel-flipping", "sparseness")


def _run(arguments: argparse.Namespace, model: Loader, composite: Chooser) -> None:
    import jax

    from jaxlrp import metrics

    if arguments.progress in ("auto", "log"):
        log_to_terminal()
    chosen = {name: metric_of(name, arguments) for name in arguments.metric or DEFAULT}
    net = model(arguments.model)
    source, preprocess, target = opened(arguments, net)
    folder = pathlib.Path(arguments.folder)
    explainers = _explainers(arguments, net, composite)
    found = metrics.evaluate(
        explainers, chosen, source, args=(net.variables,),
        target=None if isinstance(target, Given) else target,
        key=jax.random.key(arguments.seed), output=folder / "scores",
        preprocess=preprocess, batch_size=arguments.batch_size,
        limit=arguments.limit, progress=arguments.progress, read=ReadOptions(workers=arguments.workers),
        compute=ComputeOptions(memory_fraction=arguments.memory_fraction), verify=arguments.verify,
        retry_failed=arguments.retry_failed,
    )  # fmt: skip
    print(printable(str(found)))
    _write(found, folder)


def metric_of(name: str, arguments: argparse.Namespace) -> Any:
    """The metric that `--metric` names, with the options `--patch` and `--draws`."""
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}: {near(name, METRICS)}")
    return METRICS[name](arguments)


def _explainers(arguments: argparse.Namespace, net: Any, composite: Chooser) -> dict[str, Any]:
    from jaxlrp import baselines, metrics

    names = arguments.composite or ["epsilon_gamma_box", "epsilon_plus", "all_epsilon"]
    apply = net.model.apply
    found: dict[str, Any] = {
        name: lrp.explain(apply, composite(name, net), argnums=1) for name in names
    }
    for name in arguments.baseline or ():
        method = getattr(baselines, name.replace("-", "_"))
        found[name] = method(apply, argnums=1)
    if not arguments.no_controls:
        found |= metrics.controls.standard(axes=(0, 1))
    return found


def _write(found: Any, folder: pathlib.Path) -> None:
    """The table, the scores of all samples, and the figures where matplotlib is installed."""
    (folder / "table.md").write_text(found.table().markdown() + "\n", encoding="utf-8")
    (folder / "scores.csv").write_text(found.csv(), encoding="utf-8")
    written = [folder / "table.md", folder / "scores.csv"]
    try:
        from jaxlrp.metrics import figures
    except ImportError:
        figures = None
    if figures is not None:
        drawn = {"bars": figures.bars(found.table())}
        if len(found.explainers) >= 3:
            for name, metric in found.metrics.items():
                if metric.higher_is_better is not None:
                    drawn[f"ranks_{name}"] = figures.critical_difference(found.significance(name))
        for name, figure in drawn.items():
            figure.savefig(folder / f"{name}.png", dpi=150, bbox_inches="tight")
            written.append(folder / f"{name}.png")
    for path in written:
        print(printable(f"written     {path}"))
