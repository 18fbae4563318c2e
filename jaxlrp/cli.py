"""The command line: explain a picture or a folder of them, or show the plan of a model.

python -m jaxlrp explain photo.jpg -o heatmap.png
python -m jaxlrp plan --composite epsilon_plus
python -m jaxlrp attribute photos/ -o relevance.zarr
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
from jaxlrp.dataset import command
from jaxlrp.dataset.foreign import printable
from jaxlrp.dataset.resuming import how_to_go_on
from jaxlrp.errors import NonFiniteError, UnsupportedError, near

_SAMPLE = "sample:"
_MODELS = {"efficientnet-lite0": "jaxlrp.pretrained:efficientnet_lite0"}


class CommandError(Exception):
    """A mistake in the command, told to the user in one line."""


_TOLD = (CommandError, ImportError, ValueError, OSError, UnsupportedError, NonFiniteError)
"""What speaks to the user. All else, such as a KeyError, is a defect and keeps its traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: the words after the program's name; those of the process by default.

    Returns:
      The exit status: 0, 1 if `verify` finds damage, 2 after a mistake, or 130 after an interrupt (Ctrl-C).
      The last two are told on standard error, in one line.
    """
    parsed = _parser().parse_args(arguments)
    try:
        return parsed.run(parsed) or 0
    except _TOLD as error:
        _tell(str(error))
        return 2
    except KeyboardInterrupt:
        _tell(f"interrupted; {how_to_go_on(parsed, tuple(_MODELS))}")
        return 130  # 128 and the number of the signal, as shells count


def _tell(text: str) -> None:
    """One line on standard error, with nothing in it that a terminal obeys."""
    print(f"jaxlrp: {printable(' '.join(text.splitlines()))}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jaxlrp", description="Layer-wise relevance propagation.")
    parser.add_argument("--version", action="version", version=f"jaxlrp {lrp.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    explain = commands.add_parser("explain", help="explain a classifier's decision on a picture")
    explain.add_argument(
        "image", help=f"a picture, or {_SAMPLE}NAME of scikit-image ({_SAMPLE}coffee)"
    )
    explain.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("heatmap.png"))
    explain.add_argument("--target", default="auto", help="auto, a class index, or a class name")
    explain.set_defaults(run=_explain)

    plan = commands.add_parser("plan", help="print each layer of a model and its rule")
    plan.set_defaults(run=_plan)

    command.add(commands, _model, _composite, tuple(_MODELS))
    for picture in (explain, plan):
        picture.add_argument(
            "--model", default="efficientnet-lite0",
            help="a name, or module:function that gives a jaxlrp.pretrained.Pretrained",
        )  # fmt: skip
        picture.add_argument(
            "--composite", default="epsilon_gamma_box", help=", ".join(composites.PRESETS)
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
        target = _target(arguments.target, logits, net.class_names)
        explain = lrp.explain(net.model.apply, composite, argnums=1)
        result = jax.jit(lambda v, x: explain(v, x, target=target))(net.variables, inputs)
    relevance = np.asarray(result.relevance).sum(-1)
    probability = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
    label = f"{net.class_names[target]} ({probability[0, target]:.1%})"
    figure = plot.grid(
        {arguments.composite: plot.normalize(relevance, axis=(-2, -1), percentile=99)},
        images=list(net.to_picture(inputs)),
        suptitle=label,
        overlay=True,
    )
    figure.savefig(arguments.output, dpi=150, bbox_inches="tight")
    positive, negative = relevance.clip(min=0).sum(), relevance.clip(max=0).sum()
    console.print(f"class      {target}: {label}, logit {logits[0, target]:.3f}")
    kept = logits[0, target] - relevance.sum()
    console.print(
        f"relevance  for {positive:.3f}, against {negative:.3f}, absorbed on the way {kept:.3f}"
    )
    console.print(f"picture    {arguments.output}")


def _plan(arguments: argparse.Namespace) -> None:
    net = _model(arguments.model)
    inputs = net.preprocess(np.zeros((256, 256, 3), np.uint8))
    composite = _composite(arguments.composite, net)
    print(lrp.plan(net.model.apply, composite, net.variables, inputs, argnums=1))


def _read(name: str) -> np.ndarray:
    if name.startswith(_SAMPLE):
        return _read_sample(name.removeprefix(_SAMPLE))
    from PIL import Image, UnidentifiedImageError

    from jaxlrp.dataset.files import picture

    path = pathlib.Path(name)
    if not (path.exists() or path.is_symlink()):
        raise CommandError(f"there is no picture {name!r}")
    try:
        return picture(Image, path)
    except UnidentifiedImageError:
        raise CommandError(f"{name!r} is no picture that Pillow can read") from None
    except (ValueError, OSError) as error:
        raise CommandError(f"{name!r}: {error}") from None


def _read_sample(name: str) -> np.ndarray:
    try:
        import skimage.data
    except ImportError:
        raise CommandError(
            f"{_SAMPLE}{name} needs scikit-image: pip install 'jaxlrp[examples]', or give a file"
        ) from None
    known = ("astronaut", "camera", "chelsea", "coffee", "rocket")
    if name not in known:
        raise CommandError(f"there is no sample {name!r}: {near(name, known)}")
    return np.asarray(getattr(skimage.data, name)())


def _check_output(path: pathlib.Path) -> None:
    if not path.parent.is_dir():
        raise CommandError(f"the folder {str(path.parent)!r} of the output does not exist")


def _model(name: str) -> Any:
    place = _MODELS.get(name, name)
    module, _, function = place.partition(":")
    if not function:
        raise CommandError(
            f"there is no model {name!r}: {near(name, _MODELS)}; or give your own as module:function"
        )
    try:
        load: Callable[[], Any] = getattr(importlib.import_module(module), function)
    except AttributeError:
        raise CommandError(f"the module {module!r} has no {function!r}") from None
    return load()


def _composite(name: str, net: Any) -> lrp.Composite:
    preset = composites.PRESETS.get(name)
    if preset is None:
        raise CommandError(f"there is no composite {name!r}: {near(name, composites.PRESETS)}")
    return preset(*net.bounds) if name == "epsilon_gamma_box" else preset()


def _target(word: str, logits: np.ndarray, names: Sequence[str]) -> int:
    if word == "auto":
        return int(logits[0].argmax())
    if word.lstrip("-").isdigit():
        if not 0 <= int(word) < len(names):
            raise CommandError(
                f"target {word} is out of range: the classes are 0 to {len(names) - 1}"
            )
        return int(word)
    found = [i for i, name in enumerate(names) if name.lower() == word.lower()]
    if not found:
        raise CommandError(f"there is no class {word!r}: {near(word, names)}")
    return found[0]
