"""Can people tell what is in a photograph from what the network found relevant?

    python examples/ask_people.py [--answers FILE] [--output DIR] [--port PORT] [--quick]

EfficientNet-Lite0 classifies photographs of scikit-image. The most relevant part of each is shown, by LRP,
by input x gradient and, as a control, by random numbers; the rest is gray. A web page on this machine
asks what it is, and records answers to a file. Each participant sees each photograph once, so conditions
take turns. Five photographs are enough to try the tool, not to conclude anything: pass your own to
`jaxlrp.study`.

Writes the stimuli as a figure. Ctrl-C ends the study and prints the share of right answers by condition;
run the same command again to continue. With --quick, nobody is asked: a program guesses two photographs
through the server. Exits with code 1 if its answers are not those in the file.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
import urllib.request
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import jaxlrp as lrp
from jaxlrp import baselines, plot, study
from jaxlrp.pretrained import efficientnet_lite0
from photographs import CLASSES, photograph

# With as little as .05 of its contrast, the rest shows the outline of a cup under every condition.
FRACTION, PATCH, DIM = 0.1, 8, 0.0
OPTIONS = {
    "chelsea": "a cat",
    "coffee": "a cup",
    "rocket": "a rocket",
    "camera": "a tripod",
    "motorcycle": "a motorcycle",
}


def stimuli(quick: bool) -> list[study.Stimulus]:
    """Each photograph under three conditions."""
    net = efficientnet_lite0()
    explainers = {
        "LRP": lrp.explain(net.model.apply, "epsilon_plus_flat", argnums=1),
        "input x gradient": baselines.input_x_gradient(net.model.apply, argnums=1),
    }
    rng, found = np.random.default_rng(0), []
    for name in list(CLASSES)[: 2 if quick else None]:
        x = net.preprocess(photograph(name))
        logits = np.asarray(net.model.apply(net.variables, x))[0]
        target = max(CLASSES[name], key=lambda c: logits[c])
        maps = {
            condition: np.asarray(explain(net.variables, x, target=target).relevance)[0].sum(-1)
            for condition, explain in explainers.items()
        }
        maps["random"] = rng.normal(size=x.shape[1:3])
        image = net.to_image(x)[0]
        for condition, relevance in maps.items():
            shown = plot.reveal(relevance, image, fraction=FRACTION, dim=DIM, pool=PATCH)
            found.append(
                study.Stimulus(shown, list(OPTIONS.values()), OPTIONS[name], condition, group=name)
            )
    return found


def draw(held: list[study.Stimulus], path: pathlib.Path) -> None:
    """All stimuli, one row for each photograph."""
    rows = len(held) // 3
    figure = Figure(figsize=(7, 2.4 * rows), layout="constrained")
    for ax, each in zip(figure.subplots(rows, 3).flat, held, strict=True):
        ax.imshow(each.image)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{each.correct}: {each.condition}", fontsize=9)
    figure.savefig(path, dpi=100)


def ask(server: study.Server, path: str, **body: Any) -> dict[str, Any]:
    """A request as the page sends it."""
    kind = {"Content-Type": "application/json"}
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), kind)
    with urllib.request.urlopen(request) as reply:
        return json.loads(reply.read())


def guess(held: study.Study, path: pathlib.Path) -> bool:
    """Answers at random through the server; whether these are the answers in the file."""
    rng, said = np.random.default_rng(0), []
    with study.serve(held, path) as server:
        for who in ("p1", "p2", "p3"):
            while (at := ask(server, "next", participant=who))["stimulus"] is not None:
                said.append((who, at["stimulus"], str(rng.choice(at["options"]))))
                sent = {"stimulus": at["stimulus"], "answer": said[-1][2], "seconds": 1.0}
                ask(server, "answer", participant=who, **sent)
    answers = study.read(path)
    print(study.summary(answers))
    return [(a.participant, a.stimulus, a.answer) for a in answers] == said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=pathlib.Path, default=pathlib.Path("answers.jsonl"))
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument("--port", type=int, default=0, help="of the page (default: any free one)")
    parser.add_argument("--quick", action="store_true", help="two photographs; a program answers")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    found = stimuli(arguments.quick)
    draw(found, arguments.output / "ask_people.png")
    held = study.Study(found, title="What is it?")
    if arguments.quick:
        with tempfile.TemporaryDirectory() as folder:
            return 0 if guess(held, pathlib.Path(folder) / "answers.jsonl") else 1
    with study.serve(held, arguments.answers, port=arguments.port, resume=True) as server:
        print(f"open {server.url}; Ctrl-C ends the study", flush=True)
        server.wait()
    answers = study.read(arguments.answers)
    print(study.summary(answers) if answers else "nobody has answered")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
