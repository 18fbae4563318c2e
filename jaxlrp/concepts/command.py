"""The command of concepts: `jaxlrp concepts photos/ --layer LAYER -o report/`."""

from __future__ import annotations

import argparse
import logging
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

import jaxlrp as lrp
from jaxlrp.concepts.command_search import load_embedder
from jaxlrp.dataset import command as shared
from jaxlrp.dataset import command_options as options
from jaxlrp.dataset.command_options import Chooser, Loader
from jaxlrp.dataset.command_targets import one_target_of
from jaxlrp.dataset.options import ComputeOptions, ReadOptions, StoreOptions
from jaxlrp.dataset.safe_files import printable
from jaxlrp.dataset.source import Id, Indexed


def add(commands: Any, model: Loader, composite: Chooser) -> None:
    """Adds the command to the command line.

    Args:
      commands: the subparsers of `argparse`.
      model, composite: functions that look up names.
    """
    parser = commands.add_parser(
        "concepts", help="report which concepts of a layer a model uses on a data set of images",
        description="Stores the relevance of each channel of a layer for each image, and writes a report: "
        "what the model sees, what it uses for each class, which samples are odd, and which concepts are "
        "alike. Run the same command again to continue after an interruption, or after images were added.",
    )  # fmt: skip
    options.add_source(parser)
    parser.add_argument(
        "--layer", required=True, action="append", dest="layers",
        help="the path of the layer, as `jaxlrp plan` prints it; may be repeated: each layer gets a page",
    )  # fmt: skip
    parser.add_argument(
        "--axis", type=int, default=-1,
        help="the axis of the channels (the concepts) in the output of the layer (default: %(default)s, "
        "the last axis, as in the models of this package)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", dest="folder", required=True,
        help="the folder of the report (index.html), of the scores (scores/) and of the reference "
        "samples (references/)",
    )  # fmt: skip
    options.add_model(parser)
    options.add_composite(parser)
    parser.add_argument(
        "--target", default="predicted",
        help="what is explained: predicted, given (the target of each sample in the source), or a class "
        "(its index or name) (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--strategies", type=int, metavar="N",
        help="adds the strategies by which each class is recognized, at most N, and their outliers "
        "(default: left out)",
    )  # fmt: skip
    parser.add_argument(
        "--below", action="append", default=[], metavar="LAYER",
        help="adds graphs of what the first concepts are made of in a lower layer; may be repeated "
        "(default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--circuits", type=int, metavar="N",
        help="adds the circuit of each class: the N concepts of the layer and of those of --below that "
        "carry its score, and how much of it they keep alone (default: left out)",
    )  # fmt: skip
    parser.add_argument(
        "--words", nargs="+", default=[], metavar="WORD",
        help="words by which the page can sort the concepts (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--embedder", default="minilm", metavar="NAME",
        help="what embeds --words and the references of concepts: minilm, which reads the names of files "
        "and no pixels, or module:function, which returns an object with embed(crops) and "
        "embed_text(words) (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, help="only the first LIMIT samples (default: all)")
    parser.set_defaults(run=lambda a: _run(a, model, composite))
    options.add_options(parser)


def _run(arguments: argparse.Namespace, model: Loader, composite: Chooser) -> None:
    from jaxlrp import concepts
    from jaxlrp.concepts.report_page import contents_page

    if arguments.progress in ("auto", "log"):
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    net = model(arguments.model)
    target = one_target_of(arguments.target, net.labels)
    if net.to_image is None:
        raise ValueError(
            f"the inputs of the model {arguments.model!r} are not images: call jaxlrp.concepts.report from "
            "Python"
        )
    source = shared.open_source(arguments.source)
    if not isinstance(source, Indexed):
        raise ValueError(
            f"{arguments.source!r} cannot be read twice, which a report needs: pass a folder of images, or "
            "an .npy, .npz or .h5 file"
        )

    def preprocess(image: np.ndarray) -> np.ndarray:
        return np.asarray(net.preprocess(image))[0]

    named = {"source": arguments.source, "model": arguments.model, "target": arguments.target}
    images = shared.check_model(net, source, preprocess, named, target)
    embedder = None if not arguments.words else load_embedder(arguments.embedder)
    explain = lrp.explain(net.model.apply, composite(arguments.composite, net), argnums=1)
    families = {
        layer: concepts.Channels(layer, arguments.axis) for layer in dict.fromkeys(arguments.layers)
    }
    folder = pathlib.Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        summary = concepts.collect(
            explain, families, source, folder / "scores", args=(net.variables,), target=target,
            preprocess=preprocess if images else None,
            batch_size=arguments.batch_size, limit=arguments.limit,
            progress=arguments.progress, read=ReadOptions(workers=arguments.workers),
            compute=ComputeOptions(memory_fraction=arguments.memory_fraction),
            store=StoreOptions(verify=arguments.verify, retry_failed=arguments.retry_failed),
        )  # fmt: skip
    except ValueError as error:  # in the words of the command
        message = str(error)
        for layer in families:
            message = message.replace(f"record={layer!r}", f"--layer {layer}")
        raise ValueError(message) from error
    print(printable(str(summary)))
    scores = concepts.open_scores(folder / "scores")
    below = {layer: concepts.Channels(layer, arguments.axis) for layer in arguments.below}
    search = {} if embedder is None else embedder.search(scores.ids, arguments.words)
    title, pages = f"in {arguments.model}", _pages(list(families))
    for layer, family in families.items():
        written = concepts.report(
            folder / pages[layer], explain, family, scores,
            _fetch(source, scores.ids, preprocess if images else None), axes=(0, 1),
            args=(net.variables,), labels=net.labels, to_image=net.to_image,
            strategies=arguments.strategies, below=below or None, circuits=arguments.circuits, **search,
            batch_size=arguments.batch_size or 16, keep=folder / "references",
            progress=arguments.progress, title=f"Concepts of {layer} {title}",
        )  # fmt: skip
        print(printable(f"report      {written}"))
    if len(pages) > 1:
        written = folder / "index.html"
        written.write_text(contents_page(f"Concepts {title}", pages), encoding="utf-8")
        print(printable(f"contents    {written}"))


def _pages(layers: list[str]) -> dict[str, str]:
    """The file of each layer's page.

    Raises:
      ValueError: if two layers would have the same.
    """
    if len(layers) == 1:
        return {layers[0]: "index.html"}
    found = {layer: re.sub(r"[^\w-]", ".", layer) + ".html" for layer in layers}
    if len({*found.values(), "index.html"}) <= len(layers):
        raise ValueError(
            f"--layer {layers[0]} and another layer would have the same file name: run the command "
            "once for each, with another --output"
        )
    return found


def _fetch(
    source: Indexed, ids: Any, preprocess: Callable[[Any], Any] | None
) -> Callable[[np.ndarray], np.ndarray]:
    """From rows of the scores to the inputs of the model."""
    places: dict[Id, int] = {name: i for i, name in enumerate(source.ids)}

    def fetch(rows: np.ndarray) -> np.ndarray:
        missing = [ids[row] for row in rows if ids[row] not in places]
        if missing:
            raise ValueError(
                f"the sample {missing[0]!r} has scores, but the source no longer has it: restore "
                "it, or use another --output folder"
            )
        found = source.fetch([places[ids[row]] for row in rows])
        inputs = [sample.input for sample in found]
        return np.stack(inputs if preprocess is None else [preprocess(image) for image in inputs])

    return fetch
