"""Draws the pictures of the documentation: one photograph, explained with each rule, and signals.

    python docs/make_pictures.py [--quick] [--only NAME ...]

Writes `docs/_pictures/NAME.png`, which git ignores: the photograph is not ours to distribute, and
what is generated cannot grow old. Run it before `mkdocs build --strict`. With `--quick` the network
sees the photograph at 96 instead of 224 pixels, a channel of its fourth block is explained, and the
pictures that pages draw by their own code are left out: tests/test_docs.py draws these.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import tempfile
from collections.abc import Callable
from typing import Any

# Each picture compiles one program that runs once: compile fast. Must be set before JAX is imported.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)

import concept_pictures
import jax
import jax.numpy as jnp
import numpy as np
import skimage.data
from matplotlib.figure import Figure
from page_pictures import PAGES
from rich.progress import track

import jaxlrp as lrp
from jaxlrp import composites, plot, rules
from jaxlrp.composites import by_kind, first
from jaxlrp.plot import Text
from jaxlrp.pretrained import Pretrained, efficientnet_lite0

ESPRESSO = 967
OUTPUT = pathlib.Path(__file__).parent / "_pictures"
SIZE, QUICK_SIZE = 224, 96
QUICK_START = "block_3/project"

Function = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class Panel:
    """One heatmap: a title, a composite, and what is computed before the network, if anything."""

    title: str
    composite: lrp.Composite
    before: Callable[[jax.Array], jax.Array] | None = None


def linear(rule: lrp.rules.Rule) -> lrp.Composite:
    """One rule in all convolutions and dense layers."""
    return by_kind(("conv", "dense"), rule)


def above(part: lrp.Composite) -> lrp.Composite:
    """A composite put before the default: where a picture is about one kind of layer."""
    return part + composites.default()


def by_magnitude(layer: rules.BoundLayer, x: jax.Array, R: jax.Array) -> jax.Array:
    """R_j = sum_k |x_j w_jk| / sum_j |x_j w_jk| R_k: the rule of our own in docs/rules/custom.md."""
    x, w = jnp.abs(x), jnp.abs(layer.weight)
    return x * layer.transpose(R / (layer.op(x, w) + 1e-6), x, w)


def standardize(x: jax.Array) -> jax.Array:
    """Each picture to mean 0 and deviation 1/2: a normalizer before the network."""
    d = x - x.mean((1, 2, 3), keepdims=True)
    return 0.5 * d * jax.lax.rsqrt((d * d).mean((1, 2, 3), keepdims=True) + 1e-6)


def gate(x: jax.Array) -> jax.Array:
    """Each pixel times a gate that opens with its brightness."""
    return 1.2 * x * jax.nn.sigmoid(8 * x.mean(-1, keepdims=True) + 3)


def attend(x: jax.Array) -> jax.Array:
    """Each row of pixels becomes a mean of the rows like it: attention before the network."""
    rows = x.reshape(x.shape[1], -1)
    return (jax.nn.softmax(30 * rows @ rows.T / rows.shape[1]) @ rows).reshape(x.shape)


def normalize_locally(x: jax.Array) -> jax.Array:
    """Each pixel divided by a power of the mean square around it."""
    s = jax.lax.reduce_window(x * x, 0.0, jax.lax.add, (1, 5, 5, 1), (1, 1, 1, 1), "SAME")
    return x * (0.7 + s / 25) ** -0.75


def thicken(x: jax.Array) -> jax.Array:
    """Each pixel becomes the maximum of a window of 3 x 3."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")


def posterize(x: jax.Array) -> jax.Array:
    """Each color looked up in a table of eight, as in an image with a palette."""
    return jnp.linspace(-1.0, 1.0, 8)[jnp.clip(4 * (x + 1), 0, 7).astype(int)]


def plain_panels() -> dict[str, tuple[Panel, ...]]:
    """Each rule whose page shows a picture, wherever the rule applies."""
    found = {}
    for name in rules.__all__:
        page = pathlib.Path(__file__).parent / "rules" / f"{name.lower()}.md"
        if name == "Custom" or not page.exists():
            continue
        if f"_pictures/{name}.png" in page.read_text("utf-8"):
            rule = getattr(rules, name)
            found[name] = (Panel(name, above(by_kind(rule.kinds, rule()))),)
    return found


def panels(net: Pretrained) -> dict[str, tuple[Panel, ...]]:
    """The pictures by name, each with its heatmaps."""
    relative = functools.partial(rules.Stabilize, norm_scale=True)
    gamma = Panel("Gamma(0.25)", composites.default())
    box = Panel("ZBox in the first layer", composites.epsilon_gamma_box(*net.input_range))
    product = functools.partial(by_kind, ("gate", "product"))
    normalizer = functools.partial(by_kind, "normalizer")
    return plain_panels() | {
        "LRP0": (Panel("LRP0", linear(rules.LRP0())),),
        "Epsilon": (
            Panel("0.1 RMS of z", linear(rules.Epsilon(relative(0.1)))),
            Panel("1.0 RMS of z", linear(rules.Epsilon(relative(1.0)))),
        ),
        "Gamma": (gamma,),
        "ZPlus": (Panel("ZPlus", composites.epsilon_plus()),),
        "AlphaBeta": (Panel("AlphaBeta(2, 1)", composites.epsilon_alpha2_beta1()),),
        "WSquare": (Panel("WSquare in the first layer", above(first(rules.WSquare()))),),
        "Flat": (Panel("Flat in the first layer", above(first(rules.Flat()))),),
        "ZBox": (box, gamma),
        "Unfolded": (
            Panel("Unfolded(Gamma(0.25))", linear(rules.Unfolded(rules.Gamma()))),
            Panel("Gamma(0.25)", linear(rules.Gamma())),
        ),
        "Pass": (
            Panel("Pass", composites.default()),
            Panel("Gradient", above(by_kind("activation", rules.Gradient()))),
        ),
        "Norm": (
            Panel("LRP0 in sums", composites.default()),
            Panel("Norm in sums", above(by_kind("sum", rules.Norm(relative(0.3))))),
        ),
        "Gradient": (Panel("gradient", composites.gradient()),),
        "GuidedBackprop": (Panel("guided backpropagation", composites.guided_backprop()),),
        "DeconvNet": (Panel("DeconvNet", composites.deconvnet()),),
        "BetaSmooth": (Panel("BetaSmooth(10)", composites.beta_smooth(10.0)),),
        "DerivativeTimesRelevance": (
            Panel("excitation backpropagation", composites.excitation_backprop()),
        ),
        "WinnerTakesAll": (Panel("WinnerTakesAll", composites.default(), thicken),),
        "LookUp": (Panel("LookUp", composites.default(), posterize),),
        "Uniform": (
            Panel("Uniform", above(product(rules.Uniform())), gate),
            Panel("SignalTakesAll", above(product(rules.SignalTakesAll())), gate),
        ),
        "Proportional": (
            Panel("Proportional", above(product(rules.Proportional())), gate),
            Panel("SignalTakesAll", above(product(rules.SignalTakesAll())), gate),
        ),
        "Tempered": (
            Panel("Tempered(2)", above(by_kind("attention", rules.Tempered())), attend),
            Panel("Uniform", composites.default(), attend),
        ),
        "Detach": (
            Panel("Detach", composites.default(), standardize),
            Panel("Gradient", above(normalizer(rules.Gradient())), standardize),
        ),
        "LocalTaylor": (
            Panel("LocalTaylor", above(normalizer(rules.LocalTaylor())), normalize_locally),
            Panel("Detach", composites.default(), normalize_locally),
        ),
        "Custom": (Panel("by magnitude", linear(rules.Custom(by_magnitude))),),
        "home": (Panel("espresso", box.composite),),
        "composites": (
            gamma,
            Panel("epsilon_gamma_box", composites.epsilon_gamma_box(*net.input_range)),
            Panel("epsilon_plus", composites.epsilon_plus()),
            Panel("epsilon_alpha2_beta1", composites.epsilon_alpha2_beta1()),
        ),
    }


def explained(net: Pretrained, panel: Panel, x: np.ndarray, quick: bool = False) -> np.ndarray:
    """The relevance of each pixel for "espresso", (H, W), in [-1, 1] for display."""
    before = panel.before or (lambda x: x)
    explain = lrp.explain(lambda v, x: net.model.apply(v, before(x)), panel.composite, argnums=1)
    target = ESPRESSO
    if quick:
        explain, target = explain.replace(start=QUICK_START), 0
    run = jax.jit(lambda v, x: explain(v, x, target=target).relevance.sum(-1))
    return plot.normalize(np.asarray(run(net.variables, x))[0], percentile=99)


@functools.cache
def names_of_page(name: str) -> dict[str, Any]:
    """What the code of a page has computed, once all its pictures are drawn."""
    page = pathlib.Path(__file__).parent / f"{name}.md"
    blocks = re.findall(
        r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    names: dict[str, Any] = {"__name__": name}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # of what it writes
        for block in blocks:
            exec(compile(block, str(page), "exec"), names)
            if all(drawn in names for drawn in PAGES[name].values()):
                break
    return names


def of_page(name: str, names: dict[str, Any]) -> dict[str, Figure | Text]:
    """The pictures of a page, drawn by its own code."""
    drawn = {picture: names[value] for picture, value in PAGES[name].items()}
    return {p: d if isinstance(d, Figure | Text) else d.figure for p, d in drawn.items()}


def save(name: str, picture: Figure | Text) -> None:
    """Writes NAME.png, or NAME.html of colored text."""
    if isinstance(picture, Text):
        (OUTPUT / f"{name}.html").write_text(picture.html, encoding="utf-8")
    else:
        picture.savefig(OUTPUT / f"{name}.png", dpi=100, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="96 pixels, four blocks of the network, no pages"
    )
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these pictures alone")
    arguments = parser.parse_args()
    OUTPUT.mkdir(exist_ok=True)
    net = efficientnet_lite0()
    size = QUICK_SIZE if arguments.quick else SIZE
    inputs = net.preprocess(skimage.data.coffee())
    inputs = np.asarray(jax.image.resize(inputs, (1, size, size, 3), "linear"))
    photograph = net.to_image(inputs)[0]
    pictures = panels(net)
    in_pages = [picture for held in PAGES.values() for picture in held]
    in_pages += concept_pictures.PICTURES
    chosen = arguments.only or [*pictures, *([] if arguments.quick else in_pages)]
    for page, held in PAGES.items():
        if not held.keys().isdisjoint(chosen):
            for name, picture in of_page(page, names_of_page(page)).items():
                save(name, picture)
            chosen = [name for name in chosen if name not in held]
    for name in concept_pictures.PICTURES.keys() & chosen:
        save(name, concept_pictures.draw(name, names_of_page("tutorials/concepts")))
    chosen = [name for name in chosen if name not in concept_pictures.PICTURES]
    known: dict[tuple, np.ndarray] = {}
    for name in track(chosen, description="pictures"):
        maps = []
        for panel in pictures[name]:
            key = panel.composite, panel.before
            if key not in known:
                known[key] = explained(net, panel, inputs, arguments.quick)
            maps.append(known[key])
        figure = plot.grid(
            maps,
            images=photograph,
            titles=[panel.title for panel in pictures[name]],
            overlay=True,
        )
        save(name, figure)


if __name__ == "__main__":
    main()
