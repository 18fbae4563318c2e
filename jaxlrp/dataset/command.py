"""The commands of data sets: `jaxlrp attribute | resume | verify | info`."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import jaxlrp as lrp
from jaxlrp.dataset import reading, relevance, runner, verification
from jaxlrp.dataset.command_options import (
    Chooser,
    Loader,
    add_composite,
    add_contrast,
    add_model,
    add_options,
    add_source,
    log_to_terminal,
)
from jaxlrp.dataset.command_targets import check_classes, target_of
from jaxlrp.dataset.options import DTYPES, ComputeOptions, ReadOptions, StoreOptions
from jaxlrp.dataset.resolve import as_source
from jaxlrp.dataset.resuming import last_command, no_imports_from, refuse_code_inside
from jaxlrp.dataset.safe_files import printable
from jaxlrp.dataset.source import Source

_STORE = "the folder of the store, as passed to `attribute --output`"


def add(commands: Any, model: Loader, composite: Chooser, known: Sequence[str]) -> None:
    """Adds the commands of data sets to the command line.

    Args:
      commands: the subparsers of `argparse`.
      model, composite: functions that look up names.
      known: names of the models in this package; other names are code to run.
    """
    attribute = commands.add_parser(
        "attribute", help="explain every sample of a data set and store the relevance on disk"
    )
    add_source(attribute)
    attribute.add_argument(
        "-o", "--output", required=True, help="the folder in which relevance is stored"
    )
    add_model(attribute)
    add_composite(attribute)
    attribute.add_argument(
        "--target", default="predicted",
        help="what is explained: predicted, given (the target of each sample in the source), a class "
        "(its index or name), several separated by commas (3,7), or the K largest outputs (top3) "
        "(default: %(default)s)",
    )  # fmt: skip
    add_contrast(attribute)
    attribute.add_argument(
        "--limit", type=int, help="explain only the first LIMIT samples (default: all)"
    )
    attribute.set_defaults(run=lambda a: _attribute(_command(a), a, model, composite))
    add_options(attribute).add_argument(
        "--dtype", choices=DTYPES, help="dtype of the stored relevance (default: as computed)"
    )

    resume = commands.add_parser("resume", help="resume an interrupted `attribute`")
    resume.add_argument("store", help=_STORE)
    resume.add_argument(
        "--model", help="the model of the run; required if it is not one of this package, because a store "
        "cannot choose the code that is run",
    )  # fmt: skip
    resume.add_argument("--source", help="the new path of the source, if it was moved")
    resume.set_defaults(run=lambda a: _resume(a, model, composite, known))
    add_options(resume)

    verify = commands.add_parser(
        "verify", help="compare a store with its checksums; exit status 1 if it is damaged"
    )
    verify.add_argument("store", help=_STORE)
    verify.add_argument(
        "--repair",
        action="store_true",
        help="discard damaged chunks, so that `resume` computes them again",
    )
    verify.set_defaults(run=_verify)

    info = commands.add_parser("info", help="show what a store contains")
    info.add_argument("store", help=_STORE)
    info.add_argument("--plan", action="store_true", help="also print the rule of each layer")
    info.set_defaults(run=_info)


def _command(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a later `resume` must know."""
    return {
        "source": str(pathlib.Path(arguments.source).resolve()),
        "output": arguments.output,
        "model": arguments.model,
        "composite": arguments.composite,
        "target": arguments.target,
        "contrast": arguments.contrast,
        "dtype": arguments.dtype,
        "limit": arguments.limit,
    }


def _attribute(
    command: dict[str, Any], arguments: argparse.Namespace, model: Loader, composite: Chooser
) -> None:
    if arguments.progress == "log":
        log_to_terminal()
    net = model(command["model"])
    target = target_of(command["target"], net.labels, command["contrast"])
    chosen = composite(command["composite"], net)
    source = open_source(command["source"])

    def preprocess(image: np.ndarray) -> np.ndarray:
        return np.asarray(net.preprocess(image))[0]

    images = check_model(net, source, preprocess, command, target)
    summary = runner.attribute(
        explainer=lrp.explain(net.model.apply, chosen, argnums=1),
        source=source,
        output=command["output"],
        args=(net.variables,),
        target=target,
        conditions=None,
        preprocess=preprocess if images else None,
        batch_size=arguments.batch_size,
        limit=command["limit"],
        progress=arguments.progress,
        read=ReadOptions(workers=arguments.workers),
        compute=ComputeOptions(memory_fraction=arguments.memory_fraction),
        store=StoreOptions(
            dtype=command["dtype"],
            dims=("height", "width", "channel") if images else None,
            verify=arguments.verify,
            retry_failed=arguments.retry_failed,
        ),
        command=command,
    )
    print(printable(str(summary)))


def open_source(path: str) -> Source:
    try:
        return as_source(path)
    except TypeError as error:  # such as invalid ids
        raise ValueError(f"{path!r}: {error}") from error


def check_model(
    net: Any, source: Source, preprocess: Any, command: dict[str, Any], target: Any
) -> bool:
    """Whether a source holds images, which the model must preprocess.

    Raises:
      ValueError: if the model cannot be applied to the inputs, or has no such class.
    """
    images = pathlib.Path(command["source"]).is_dir()
    if not images:
        spec, _ = reading.usual(source, None, None)
        images = _is_image(spec.input)
    if images:
        spec, _ = reading.usual(source, preprocess, None)
    inputs, extra = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct((1, *s.shape), s.dtype), (spec.input, spec.extra)
    )
    try:
        output = jax.eval_shape(
            lambda v, x, more: net.model.apply(v, x, **more), net.variables, inputs, extra
        )
    except Exception as error:  # whatever a model raises on inputs that it does not accept
        found = jax.tree.map(lambda s: (s.shape, s.dtype.name), inputs)
        more = f" and {', '.join(extra)}" if extra else ""
        raise ValueError(
            f"the model {command['model']!r} cannot be applied to inputs of {found}{more}: "
            f"{type(error).__name__}: {error}"
        ) from error
    check_classes(command["target"], target, getattr(output, "shape", ()))
    return images


def _is_image(given: Any) -> bool:
    return (
        getattr(given, "dtype", None) == np.uint8 and len(given.shape) == 3 and given.shape[-1] == 3
    )


def _resume(
    arguments: argparse.Namespace, model: Loader, composite: Chooser, known: Sequence[str]
) -> None:
    store = pathlib.Path(arguments.store)
    with no_imports_from(store):
        command = last_command(store)
        if command is None:
            raise ValueError(
                f"{arguments.store!r} was not started from the command line: call attribute_dataset again "
                "with the same arguments, which resumes the run"
            )
        named = arguments.model or command["model"]
        if arguments.model is None and named not in known:
            raise ValueError(
                f"{arguments.store!r} was started with the model {named!r}. Resuming runs the code of "
                f"this model: if you trust it, pass --model {named}"
            )
        if named not in known:
            refuse_code_inside(store, named)
        source = command["source"]
        if arguments.source is not None:
            source = str(pathlib.Path(arguments.source).resolve())
        if not pathlib.Path(source).exists():
            raise ValueError(
                f"the source {source!r} of {arguments.store!r} does not exist: if it was moved, pass "
                f"its new path, jaxlrp resume {arguments.store} --source PATH"
            )
        moved = {**command, "output": arguments.store, "model": named, "source": source}
        _attribute(moved, arguments, model, composite)


def _verify(arguments: argparse.Namespace) -> int:
    with no_imports_from(pathlib.Path(arguments.store)):
        found = verification.verify(arguments.store, repair=arguments.repair)
    print(printable(str(found)))
    return 0 if found.ok else 1


def _info(arguments: argparse.Namespace) -> None:
    with no_imports_from(pathlib.Path(arguments.store)):
        opened = relevance.open_relevance(arguments.store)
    held = opened.manifest
    text = [
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
    print(printable("\n".join(text)))
