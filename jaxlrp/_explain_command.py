"""The command of one image: `jaxlrp explain photo.jpg -o heatmap.png`."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import jax
import numpy as np

import jaxlrp as lrp
from jaxlrp import targets
from jaxlrp.dataset.command_options import Chooser, Loader, add_contrast
from jaxlrp.dataset.command_targets import check_classes, target_of
from jaxlrp.dataset.policy import Given, Top
from jaxlrp.errors import near

_SAMPLE = "sample:"
_SAMPLES = ("astronaut", "camera", "chelsea", "coffee", "rocket")
_INDENT = "\n" + 11 * " "


def add(commands: Any, model: Loader, composite: Chooser) -> argparse.ArgumentParser:
    """Adds the command to the command line.

    Args:
      commands: the subparsers of `argparse`.
      model, composite: functions that look up names.

    Returns:
      The parser of the command, which still lacks `--model` and `--composite`.
    """
    parser = commands.add_parser(
        "explain", help="explain a classifier's decision on an image",
        description="Explains a classifier's decision on an image and draws a heatmap: red pixels are "
        "evidence for the class, blue ones against it.",
    )  # fmt: skip
    parser.add_argument(
        "image",
        help=f"an image file, or an image of scikit-image: {', '.join(map(_SAMPLE.__add__, _SAMPLES))}",
    )
    parser.add_argument(
        "-o", "--output", type=pathlib.Path, default=pathlib.Path("heatmap.png"),
        help="the file of the heatmap, in any format of matplotlib (.png, .pdf, .svg), or .npy for the "
        "relevance of each input value as an array (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--target",
        default="predicted",
        help="what is explained: predicted, or a class (its index or name) (default: %(default)s)",
    )
    add_contrast(parser)
    parser.add_argument(
        "--ledger", action="store_true",
        help="also show which layers kept the relevance that did not reach the image (twice the time)",
    )  # fmt: skip
    parser.set_defaults(run=lambda a: _run(a, model, composite))
    return parser


def _run(arguments: argparse.Namespace, model: Loader, composite: Chooser) -> None:
    image = _read(arguments.image)
    _check_output(arguments.output)
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    with console.status("loading the model"):
        net = model(arguments.model)
        target = target_of(arguments.target, net.labels, arguments.contrast)
        if isinstance(target, Given):
            raise ValueError("--target given: an image has no target; pass predicted or one class")
        if isinstance(target, (Top, list)):
            raise ValueError(
                f"--target must be predicted or one class, got {arguments.target!r}: for several, use "
                "jaxlrp attribute"
            )
        chosen = composite(arguments.composite, net)
        inputs = net.preprocess(image)
        if not isinstance(target, targets.Predicted):
            output = jax.eval_shape(net.model.apply, net.variables, inputs)
            check_classes(arguments.target, target, output.shape)
    explain = lrp.explain(net.model.apply, chosen, argnums=1)
    with console.status("explaining"):
        run = jax.jit(lambda v, x, t: explain(v, x, target=t))
        result = run(net.variables, inputs, target)
        relevance, logits = np.asarray(result.relevance), np.asarray(result.output)
    said = _Decision(logits[0], target, net.labels)
    _write(arguments, relevance, inputs, net, said.title)
    console.print(f"class      {said.text}", markup=False)
    console.print(f"relevance  {_account(relevance, said.value, explain.conserves)}", markup=False)
    console.print(f"{'array' if _is_array(arguments.output) else 'heatmap':10} {arguments.output}")
    if arguments.ledger:
        with console.status("asking each layer what it kept"):
            ledger = jax.jit(lambda v, x, t: explain.ledger(v, x, target=t))(
                net.variables, inputs, target
            )
        console.print(f"kept by    {_kept(ledger)}", markup=False)


class _Decision:
    """What is explained, in words.

    Args:
      logits: (classes,).
      target, labels: as in `target_of`.
    """

    def __init__(self, logits: np.ndarray, target: Any, labels: Any) -> None:
        self._logits, self._labels = logits, labels
        chosen: Any = target
        against: Any = None
        if isinstance(target, targets.Contrast):
            chosen, against = target.target, target.against
        index = int(logits.argmax()) if isinstance(chosen, targets.Predicted) else int(chosen)
        probability = np.exp(logits[index] - np.logaddexp.reduce(logits))
        self.title = f"{self._name(index)} ({probability:.1%})"
        self.value = float(logits[index])
        self.text = f"{index}: {self.title}, logit {self.value:.3f}"
        if against is not None:
            self.value -= float(logits[against])
            self.title += f" rather than {self._name(against)}"
            self.text += (
                f"{_INDENT}rather than {against}: {self._name(against)}, logit {logits[against]:.3f}, "
                f"difference {self.value:.3f}"
            )

    def _name(self, index: int) -> str:
        return self._labels[index] if self._labels else f"class {index}"


def _account(relevance: np.ndarray, value: float, conserves: bool) -> str:
    """How much relevance arrived at the input, and what that means."""
    pixels = relevance.sum(-1)
    total = float(pixels.sum())
    signs = f"{pixels.clip(min=0).sum():.3f} for, {-pixels.clip(max=0).sum():.3f} against"
    if not conserves:
        return f"{signs} (gradients, which do not sum to the logit)"
    if abs(value - total) < 0.01 * abs(value):
        return f"{total:.3f} of {value:.3f} reached the pixels: {signs}"
    lines = [
        f"{total:.3f} of {value:.3f} reached the pixels: {signs}; the layers kept {value - total:.3f}.",
        "This is normal in networks with BatchNorm, whose folded biases keep most of it. The heatmap",
        "shows how the rest is distributed, in units of its own largest values. --ledger shows which",
        "layers kept relevance.",
    ]
    return _INDENT.join(lines)


def _kept(ledger: lrp.Ledger) -> str:
    """The layers that kept most, one line each."""
    rows = ledger.top(5)
    width = max(map(len, rows), default=0)
    lines = [
        f"{path:{width}}  {float(row.kept):8.3f}  (bias {float(row.bias):.3f}, stabilizer "
        f"{float(row.stabilizer):.3f}, rule {float(row.rule):.3f})"
        for path, row in rows.items()
    ]
    return _INDENT.join([*lines, *filter(None, [ledger.warning])])


def _write(
    arguments: argparse.Namespace, relevance: np.ndarray, inputs: Any, net: Any, title: str
) -> None:
    if _is_array(arguments.output):
        np.save(arguments.output, relevance[0])
        return
    from jaxlrp import plot

    shown = net.to_image(inputs) if net.to_image is not None else None
    figure = plot.grid(
        {arguments.composite: plot.normalize(relevance.sum(-1), axis=(-2, -1), percentile=99)},
        images=None if shown is None else list(shown),
        suptitle=title,
        overlay=shown is not None,
    )
    figure.savefig(arguments.output, dpi=150, bbox_inches="tight")


def _is_array(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".npy"


def _check_output(path: pathlib.Path) -> None:
    """Refuses a file that cannot be written, before anything is computed."""
    if path.is_dir():
        raise ValueError(f"--output: {str(path)!r} is a folder: pass a file, such as heatmap.png")
    if not path.parent.is_dir():
        raise ValueError(f"--output: the folder {str(path.parent)!r} does not exist")
    if _is_array(path):
        return
    from matplotlib.figure import Figure

    known = sorted(Figure().canvas.get_supported_filetypes())
    if path.suffix.lower().removeprefix(".") not in known:
        raise ValueError(
            f"--output: the extension of {path.name!r} must be .npy (the relevance) or, for the heatmap, "
            f"one of {', '.join(f'.{name}' for name in known)}"
        )


def _read(name: str) -> np.ndarray:
    if name.startswith(_SAMPLE):
        return _read_sample(name.removeprefix(_SAMPLE))
    from PIL import UnidentifiedImageError

    from jaxlrp.dataset.readers.pixels import read_image

    path = pathlib.Path(name)
    if path.is_dir():
        raise ValueError(
            f"{name!r} is a folder, but explain takes one image: use jaxlrp attribute {name} -o "
            "relevance.zarr"
        )
    if not (path.exists() or path.is_symlink()):
        raise ValueError(f"the image file {name!r} does not exist")
    try:
        return read_image(path)
    except UnidentifiedImageError:
        raise ValueError(f"{name!r} is not an image that Pillow can read") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{name!r}: {error}") from None


def _read_sample(name: str) -> np.ndarray:
    try:
        import skimage.data
    except ImportError:
        raise ValueError(
            f"{_SAMPLE}{name} requires scikit-image, which could not be imported; install it with: "
            "pip install scikit-image, or pass an image file"
        ) from None
    if name not in _SAMPLES:
        raise ValueError(f"unknown sample {name!r}: {near(name, _SAMPLES)}")
    return np.asarray(getattr(skimage.data, name)())
