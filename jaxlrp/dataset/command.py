"""`python -m jaxlrp attribute | resume | verify | info`."""

from __future__ import annotations

import argparse
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import jaxlrp as lrp
from jaxlrp.dataset.foreign import printable
from jaxlrp.dataset.resuming import begun, outside, refuse_code_inside

Loader = Callable[[str], Any]
"""From the name of a model to a `jaxlrp.pretrained.Pretrained`."""
Chooser = Callable[[str, Any], lrp.Composite]
"""From the name of a composite and such a model to the composite."""


def add(commands: Any, model: Loader, composite: Chooser, known: Sequence[str]) -> None:
    """Adds the commands of data sets to those of the command line.

    Args:
      commands: what `argparse` gives for subcommands.
      model, composite: how names are looked up.
      known: names of models that come with the package; any other names code.
    """
    attribute = commands.add_parser(
        "attribute", help="explain every picture of a folder, onto disk"
    )
    attribute.add_argument("source", help="a folder of pictures, or a file .h5, .npy, .npz")
    attribute.add_argument("-o", "--output", required=True, help="the folder of the store")
    attribute.add_argument("--model", default="efficientnet-lite0")
    attribute.add_argument("--composite", default="epsilon_gamma_box")
    attribute.add_argument(
        "--target", default="predicted",
        help="predicted, given (by the source), a class index, several with commas, or topK",
    )  # fmt: skip
    attribute.add_argument("--dtype", choices=("float32", "float16", "bfloat16"))
    attribute.add_argument("--limit", type=int, help="the first so many samples only")
    attribute.set_defaults(run=lambda a: _attribute(_asked(a), a, model, composite))

    resume = commands.add_parser("resume", help="go on with a store that `attribute` has begun")
    resume.add_argument("store")
    resume.add_argument(
        "--model", help="the store's model, where it is none of this package: a store does not say what "
        "code to run",
    )  # fmt: skip
    resume.add_argument("--source", help="where the source is now, if it was moved")
    resume.add_argument("--retry", action="store_true", help="try samples again that failed")
    resume.set_defaults(run=lambda a: _resume(a, model, composite, known))

    for command in (attribute, resume):
        command.add_argument("--batch-size", type=int, help="by default chosen by memory")
        command.add_argument("--quiet", action="store_true", help="a line now and then, for logs")
        command.add_argument(
            "--verify", action=argparse.BooleanOptionalAction, default=True,
            help="compare all checksums of what is there first; else sizes of files alone",
        )  # fmt: skip

    verify = commands.add_parser(
        "verify", help="compare a store with its checksums; status 1 if damaged"
    )
    verify.add_argument("store")
    verify.add_argument(
        "--mend", action="store_true", help="let `resume` compute damaged chunks again"
    )
    verify.set_defaults(run=_verify)

    info = commands.add_parser("info", help="what a store holds")
    info.add_argument("store")
    info.add_argument("--plan", action="store_true", help="print the rule of each layer as well")
    info.set_defaults(run=_info)


def _asked(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a later `resume` must know."""
    return {
        "source": str(pathlib.Path(arguments.source).resolve()),
        "output": arguments.output,
        "model": arguments.model,
        "composite": arguments.composite,
        "target": arguments.target,
        "dtype": arguments.dtype,
        "limit": arguments.limit,
    }


def _attribute(
    asked: dict[str, Any],
    arguments: argparse.Namespace,
    model: Loader,
    composite: Chooser,
    **more: Any,
) -> None:
    from jaxlrp import dataset

    if arguments.quiet:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    target = _target(asked["target"])
    net = model(asked["model"])
    chosen = composite(asked["composite"], net)
    source = _source(asked["source"])

    def prepare(image: np.ndarray) -> np.ndarray:
        return np.asarray(net.preprocess(image))[0]

    pictures = _check(net, source, prepare, asked, target)
    summary = dataset.attribute_dataset(
        lrp.explain(net.model.apply, chosen, argnums=1),
        source,
        asked["output"],
        args=(net.variables,),
        target=target,
        prepare=prepare if pictures else None,
        dims=("height", "width", "channel") if pictures else None,
        dtype=asked["dtype"],
        limit=asked["limit"],
        batch_size=arguments.batch_size,
        progress="log" if arguments.quiet else "auto",
        verify=arguments.verify,
        command=asked,
        **more,
    )
    print(printable(str(summary)))


def _source(place: str) -> Any:
    from jaxlrp.dataset.source import as_source

    try:
        return as_source(place)
    except TypeError as error:  # such as ids that are no ids
        raise ValueError(f"{place!r}: {error}") from error


def _check(net: Any, source: Any, prepare: Any, asked: dict[str, Any], target: Any) -> bool:
    """Whether a source holds pictures, which the model must prepare.

    Raises:
      ValueError: if the model takes no such inputs, or has no such class.
    """
    from jaxlrp.dataset import reading

    pictures = pathlib.Path(asked["source"]).is_dir()
    if not pictures:
        spec, _ = reading.usual(source, None, None)
        pictures = _is_picture(spec.input)
    if pictures:
        spec, _ = reading.usual(source, prepare, None)
    inputs, extra = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct((1, *s.shape), s.dtype), (spec.input, spec.extra)
    )
    try:
        output = jax.eval_shape(
            lambda v, x, more: net.model.apply(v, x, **more), net.variables, inputs, extra
        )
    except Exception as error:  # whatever a model says to inputs that it does not fit
        found = jax.tree.map(lambda s: (s.shape, s.dtype.name), inputs)
        more = f" and {', '.join(extra)}" if extra else ""
        raise ValueError(
            f"the model {asked['model']!r} cannot be applied to inputs of {found}{more}: "
            f"{type(error).__name__}: {error}"
        ) from error
    _check_classes(asked["target"], target, getattr(output, "shape", ()))
    return pictures


def _is_picture(given: Any) -> bool:
    return (
        getattr(given, "dtype", None) == np.uint8 and len(given.shape) == 3 and given.shape[-1] == 3
    )


def _check_classes(word: str, target: Any, shape: tuple[int, ...]) -> None:
    from jaxlrp import dataset

    classes = shape[-1] if len(shape) > 1 else None
    if classes is None:
        return
    if isinstance(target, dataset.Top) and target.k > classes:
        raise ValueError(f"--target {word}: the model has {classes} classes only")
    asked = target if isinstance(target, list) else [target]
    wrong = [t for t in asked if isinstance(t, int) and not 0 <= t < classes]
    if wrong:
        raise ValueError(
            f"--target {wrong[0]} is out of range: the model has {classes} classes, 0 to {classes - 1}"
        )


def _target(word: str) -> Any:
    from jaxlrp import dataset

    if word in ("predicted", "auto"):
        return lrp.targets.predicted
    if word == "given":
        return dataset.Given()
    if word.startswith("top") and word[3:].isdigit():
        return dataset.Top(int(word[3:]))
    try:
        classes = [int(part) for part in word.split(",")]
    except ValueError:
        raise ValueError(
            f"--target must be predicted, given, topK such as top3, or class indices, got {word!r}"
        ) from None
    return classes[0] if len(classes) == 1 else classes


def _resume(
    arguments: argparse.Namespace, model: Loader, composite: Chooser, known: Sequence[str]
) -> None:
    store = pathlib.Path(arguments.store)
    with outside(store):
        asked = begun(store)
        if asked is None:
            raise ValueError(
                f"{arguments.store!r} was not begun from the command line: call attribute_dataset again "
                "with the same arguments, which goes on where it ended"
            )
        named = arguments.model or asked["model"]
        if arguments.model is None and named not in known:
            raise ValueError(
                f"{arguments.store!r} was begun with the model {named!r}, which is code to be run, and a "
                "store may come from anyone: if you know this code, name it yourself with --model"
            )
        if named not in known:
            refuse_code_inside(store, named)
        source = asked["source"]
        if arguments.source is not None:
            source = str(pathlib.Path(arguments.source).resolve())
        if not pathlib.Path(source).exists():
            raise ValueError(
                f"there is no file or folder {source!r}, the source of {arguments.store!r}: if it was "
                f"moved, give its new place, jaxlrp resume {arguments.store} --source PLACE"
            )
        moved = {**asked, "output": arguments.store, "model": named, "source": source}
        _attribute(moved, arguments, model, composite, retry=arguments.retry)


def _verify(arguments: argparse.Namespace) -> int:
    from jaxlrp import dataset

    with outside(pathlib.Path(arguments.store)):
        found = dataset.verify(arguments.store, mend=arguments.mend)
    print(printable(str(found)))
    return 0 if found.ok else 1


def _info(arguments: argparse.Namespace) -> None:
    from jaxlrp import dataset

    with outside(pathlib.Path(arguments.store)):
        opened = dataset.open_relevance(arguments.store)
    held = opened.manifest
    said = [
        repr(opened),
        f"composite  {held.composite['text']}",
        f"target     {held.target['text']}",
        f"model      {held.model['text']} ({held.model['digest'][:8]})",
        f"source     {held.source}",
        f"created    {held.created}, " + ", ".join(f"{k} {v}" for k, v in held.versions.items()),
        f"failed     {len(opened.failed)}",
        *(f"  {name!r}: {why}" for name, why in list(opened.failed.items())[:10]),
        *([held.plan["text"]] if arguments.plan else []),
    ]
    print(printable("\n".join(said)))
