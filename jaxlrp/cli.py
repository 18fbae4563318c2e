"""The command line: explain an image or a data set, or show the plan of a model.

jaxlrp explain photo.jpg -o heatmap.png
jaxlrp plan --composite epsilon_plus
jaxlrp attribute photos/ -o relevance.zarr
jaxlrp concepts photos/ --layer block_10/add -o report/
jaxlrp evaluate photos/ --composite epsilon_plus --composite all_epsilon -o report/
jaxlrp tune photos/ -o search/
"""

from __future__ import annotations

import argparse
import importlib
import pathlib
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import jaxlrp as lrp
from jaxlrp import _explain_command as explain_command
from jaxlrp import composites
from jaxlrp.concepts import command as concepts_command
from jaxlrp.dataset import command
from jaxlrp.dataset.command_options import add_model
from jaxlrp.dataset.resuming import how_to_resume
from jaxlrp.dataset.safe_files import printable
from jaxlrp.errors import NonFiniteError, UnsupportedError, near
from jaxlrp.metrics import command as metrics_command
from jaxlrp.tuning import command as tuning_command


class CommandError(Exception):
    """A mistake in the command, shown to the user as one line."""


def _refuse_images(image: Any) -> Any:
    raise CommandError("the model has no preprocess, which converts images to its inputs")


_MODELS = {"efficientnet-lite0": "jaxlrp.pretrained:efficientnet_lite0"}
_OPTIONAL = {"preprocess": _refuse_images, "labels": (), "input_range": None, "to_image": None}
"""Parts of a `Pretrained` that the object of a user may lack, and what takes their place."""


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

    explain = explain_command.add(commands, _model, _composite)
    plan = commands.add_parser("plan", help="print each layer of a model and its rule")
    plan.set_defaults(run=_plan)

    command.add(commands, _model, _composite, tuple(_MODELS))
    concepts_command.add(commands, _model, _composite)
    metrics_command.add(commands, _model, _composite)
    tuning_command.add(commands, _model, _composite)
    for parser_of in (explain, plan):
        add_model(parser_of)
        parser_of.add_argument(
            "--composite",
            default="epsilon_gamma_box",
            help=f"one of {', '.join(composites.PRESETS)} (default: %(default)s)",
        )
    return parser


def _plan(arguments: argparse.Namespace) -> None:
    net = _model(arguments.model)
    composite = _composite(arguments.composite, net)
    inputs = net.preprocess(np.zeros((256, 256, 3), np.uint8))
    print(lrp.plan(net.model.apply, composite, net.variables, inputs, argnums=1))


def _model(name: str) -> Any:
    load = _loader(name)
    try:
        found = load()
    except _SHOWN:
        raise
    except Exception as error:  # of the user's own code, whose place they need
        raise CommandError(f"--model {name}: {_told(error)}") from error
    if not all(hasattr(found, part) for part in ("model", "variables")):
        raise CommandError(
            f"--model {name} must return a jaxlrp.pretrained.Pretrained, got {type(found).__name__}"
        )
    parts = {name: getattr(found, name, default) for name, default in _OPTIONAL.items()}
    return types.SimpleNamespace(model=found.model, variables=found.variables, **parts)


def _loader(name: str) -> Callable[[], Any]:
    """The function that `--model` names."""
    place = _MODELS.get(name, name)
    module, _, function = place.partition(":")
    if not all(map(str.isidentifier, [*module.split("."), function])):
        hint = "a file is no model, " if pathlib.Path(module).exists() else ""
        raise CommandError(
            f"unknown model {name!r}: {near(name, _MODELS)}; or pass your own as module:function "
            f"({hint}module is what you would import, function returns a jaxlrp.pretrained.Pretrained)"
        )
    try:
        load = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):  # a module that it imports in turn
            raise
        raise CommandError(f"--model {name}: there is no module {module!r}") from None
    except _SHOWN:
        raise
    except AttributeError as error:
        raise CommandError(f"--model {name}: the module {module!r} has no {function!r}") from error
    except Exception as error:
        raise CommandError(
            f"--model {name}: {module!r} cannot be imported: {_told(error)}"
        ) from error
    if not callable(load):
        raise CommandError(
            f"--model {name}: {function!r} must be a function, got {type(load).__name__}"
        )
    return load


def _told(error: Exception) -> str:
    """An error of the user's code with its place, in one line."""
    *_, last = traceback.extract_tb(error.__traceback__)
    said = f"{type(error).__name__}: {error}"
    if (
        isinstance(error, SyntaxError) or last.filename == __file__
    ):  # it says where, or was not reached
        return said
    return f"{said} ({last.filename}, line {last.lineno})"


def _composite(name: str, net: Any) -> lrp.Composite:
    preset = composites.PRESETS.get(name)
    if preset is None:
        raise CommandError(f"unknown composite {name!r}: {near(name, composites.PRESETS)}")
    if name != "epsilon_gamma_box":
        return preset()
    if net.input_range is None:
        raise CommandError(
            "epsilon_gamma_box needs the bounds of the inputs, but the model has no input_range: add it, "
            "or pass another --composite, such as epsilon_plus"
        )
    return preset(*net.input_range)
