"""The command line: explain an image or a data set, or show the plan of a model.

jaxlrp explain photo.jpg -o heatmap.png
jaxlrp plan --composite epsilon_plus
jaxlrp attribute photos/ -o relevance.zarr
jaxlrp concepts photos/ --layer block_10/add -o report/
jaxlrp evaluate photos/ --composite epsilon_plus --composite all_epsilon -o report/
"""

from __future__ import annotations

import argparse
import importlib
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import jaxlrp as lrp
from jaxlrp import composites
from jaxlrp.concepts import command as concepts_command
from jaxlrp.dataset import command
from jaxlrp.dataset.command_options import add_model
from jaxlrp.dataset.resuming import how_to_resume
from jaxlrp.dataset.safe_files import printable
from jaxlrp.errors import NonFiniteError, UnsupportedError, near
from jaxlrp.metrics import command as metrics_command

_SAMPLE = "sample:"
_MODELS = {"efficientnet-lite0": "jaxlrp.pretrained:efficientnet_lite0"}


class CommandError(Exception):
    """A mistake in the command, shown to the user as one line."""


_SHOWN = (CommandError, ImportError, ValueError, OSError, UnsupportedError, NonFiniteError)
"""Errors whose message is for the user. Anything else is a bug and keeps its traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: the words after the name of the program; by default those of the process.

    Returns:
      The exit status: 0; 1 if `verify` finds damage; 2 after an error, or 130 after an interrupt
      (Ctrl-C), both with one line on standard error.
    """
    parsed = _parser().parse_args(arguments)
    try:
        return parsed.run(parsed) or 0
    except _SHOWN as error:
        _print_error(str(error))
        return 2
    except KeyboardInterrupt:
        _print_error(f"interrupted; {how_to_resume(parsed, tuple(_MODELS))}")
        return 130  # 128 plus the number of the signal, as in shells


def _print_error(text: str) -> None:
    """Prints one line to standard error, without control characters."""
    print(f"jaxlrp: {printable(' '.join(text.splitlines()))}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jaxlrp", description="Layer-wise relevance propagation.")
    parser.add_argument("--version", action="version", version=f"jaxlrp {lrp.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    explain = commands.add_parser("explain", help="explain a classifier's decision on an image")
    explain.add_argument(
        "image",
        help=f"an image file, or {_SAMPLE}NAME, an image of scikit-image ({_SAMPLE}coffee)",
    )
    explain.add_argument(
        "-o", "--output", type=pathlib.Path, default=pathlib.Path("heatmap.png"),
        help="the file of the heatmap (default: %(default)s)",
    )  # fmt: skip
    explain.add_argument(
        "--target",
        default="predicted",
        help="what is explained: predicted, a class index, or a class name (default: %(default)s)",
    )
    explain.set_defaults(run=_explain)

    plan = commands.add_parser("plan", help="print each layer of a model and its rule")
    plan.set_defaults(run=_plan)

    command.add(commands, _model, _composite, tuple(_MODELS))
    concepts_command.add(commands, _model, _composite)
    metrics_command.add(commands, _model, _composite)
    for parser_of in (explain, plan):
        add_model(parser_of)
        parser_of.add_argument(
            "--composite",
            default="epsilon_gamma_box",
            help=f"one of {', '.join(composites.PRESETS)} (default: %(default)s)",
        )
    return parser


def _explain(arguments: argparse.Namespace) -> None:
    image = _read(arguments.image)
    _check_output(arguments.output)
    from rich.console import Console

    from jaxlrp import plot

    console = Console()
    with console.status("loading the model"):
        net = _model(arguments.model)
        composite = _composite(arguments.composite, net)
        inputs = net.preprocess(image)
    with console.status("explaining"):
        logits = np.asarray(jax.jit(net.model.apply)(net.variables, inputs))
        target = _target(arguments.target, logits, net.labels)
        explain = lrp.explain(net.model.apply, composite, argnums=1)
        result = jax.jit(lambda v, x: explain(v, x, target=target))(net.variables, inputs)
    relevance = np.asarray(result.relevance).sum(-1)
    probability = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
    label = f"{net.labels[target]} ({probability[0, target]:.1%})"
    figure = plot.grid(
        {arguments.composite: plot.normalize(relevance, axis=(-2, -1), percentile=99)},
        images=list(net.to_image(inputs)),
        suptitle=label,
        overlay=True,
    )
    figure.savefig(arguments.output, dpi=150, bbox_inches="tight")
    positive, negative = relevance.clip(min=0).sum(), relevance.clip(max=0).sum()
    console.print(f"class      {target}: {label}, logit {logits[0, target]:.3f}")
    kept = logits[0, target] - relevance.sum()
    console.print(
        f"relevance  positive {positive:.3f}, negative {negative:.3f}, not passed to the input {kept:.3f}"
    )
    console.print(f"heatmap    {arguments.output}")


def _plan(arguments: argparse.Namespace) -> None:
    net = _model(arguments.model)
    inputs = net.preprocess(np.zeros((256, 256, 3), np.uint8))
    composite = _composite(arguments.composite, net)
    print(lrp.plan(net.model.apply, composite, net.variables, inputs, argnums=1))


def _read(name: str) -> np.ndarray:
    if name.startswith(_SAMPLE):
        return _read_sample(name.removeprefix(_SAMPLE))
    from PIL import UnidentifiedImageError

    from jaxlrp.dataset.readers.pixels import read_image

    path = pathlib.Path(name)
    if not (path.exists() or path.is_symlink()):
        raise CommandError(f"the image file {name!r} does not exist")
    try:
        return read_image(path)
    except UnidentifiedImageError:
        raise CommandError(f"{name!r} is not an image that Pillow can read") from None
    except (ValueError, OSError) as error:
        raise CommandError(f"{name!r}: {error}") from None


def _read_sample(name: str) -> np.ndarray:
    try:
        import skimage.data
    except ImportError:
        raise CommandError(
            f"{_SAMPLE}{name} requires scikit-image, which could not be imported; install it with: "
            "pip install 'jaxlrp[examples]', or pass an image file"
        ) from None
    known = ("astronaut", "camera", "chelsea", "coffee", "rocket")
    if name not in known:
        raise CommandError(f"unknown sample {name!r}: {near(name, known)}")
    return np.asarray(getattr(skimage.data, name)())


def _check_output(path: pathlib.Path) -> None:
    if not path.parent.is_dir():
        raise CommandError(f"--output: the folder {str(path.parent)!r} does not exist")


def _model(name: str) -> Any:
    place = _MODELS.get(name, name)
    module, _, function = place.partition(":")
    if not function:
        raise CommandError(
            f"unknown model {name!r}: {near(name, _MODELS)}; or pass your own as module:function"
        )
    try:
        load: Callable[[], Any] = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):  # a module that it imports in turn
            raise
        raise CommandError(f"--model {name}: there is no module {module!r}") from None
    except AttributeError:
        raise CommandError(f"--model {name}: the module {module!r} has no {function!r}") from None
    found = load()
    if not all(hasattr(found, part) for part in ("model", "variables")):
        raise CommandError(
            f"--model {name} must return a jaxlrp.pretrained.Pretrained, got {type(found).__name__}"
        )
    return found


def _composite(name: str, net: Any) -> lrp.Composite:
    preset = composites.PRESETS.get(name)
    if preset is None:
        raise CommandError(f"unknown composite {name!r}: {near(name, composites.PRESETS)}")
    return preset(*net.input_range) if name == "epsilon_gamma_box" else preset()


def _target(word: str, logits: np.ndarray, names: Sequence[str]) -> int:
    if word == "predicted":
        return int(logits[0].argmax())
    if word.lstrip("-").isdigit():
        if not 0 <= int(word) < len(names):
            raise CommandError(
                f"--target {word} is out of range: the classes are 0 to {len(names) - 1}"
            )
        return int(word)
    found = [i for i, name in enumerate(names) if name.lower() == word.lower()]
    if not found:
        raise CommandError(f"unknown class {word!r}: {near(word, names)}")
    return found[0]
