"""Tests of jaxlrp.virelay that need no viewer: what is written, in which slices, and what is refused."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys

import h5py
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import yaml

from jaxlrp.spray.analysis import Clustering, Embedding
from jaxlrp.virelay import Attribution, LazyArray, export_virelay

import virelay_projects as projects
from virelay_projects import LABELS, PREDICTION, N, analysis, arguments, attribution


class Lazy:
    """Rows that are made when they are asked for; remembers the most that were, and when."""

    def __init__(self, shape, make, log=None, name=""):
        self.shape, self.make = shape, make
        self.largest, self.log, self.name = 0, [] if log is None else log, name

    def __getitem__(self, key):
        assert isinstance(key, slice)
        start, stop, _ = key.indices(self.shape[0])
        self.largest = max(self.largest, stop - start)
        self.log.append(self.name)
        return np.stack([self.make(i) for i in range(start, stop)])


def test_files(tmp_path):
    (file,) = export_virelay(tmp_path / "p", **arguments(name="1e3", model="yes", dataset="d: e"))
    names = [path.name for path in sorted((tmp_path / "p").iterdir())]
    assert names == [
        "analysis-other.h5", "analysis-spray_abs.h5", "attribution.h5", "dataset.h5", "label_map.json",
        "project.yaml",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    assert yaml.safe_load(file.read_text())["project"] == {
        "name": "1e3",  # a string, though YAML would take it for a number
        "model": "yes",
        "label_map": "label_map.json",
        "dataset": {"name": "d: e", "type": "hdf5", "path": "dataset.h5"},
        "attributions": {
            "attribution_method": "LRP",
            "attribution_strategy": "true_label",
            "sources": ["attribution.h5"],
        },
        "analyses": [
            {"analysis_method": "spray_abs", "sources": ["analysis-spray_abs.h5"]},
            {"analysis_method": "other", "sources": ["analysis-other.h5"]},
        ],
    }
    assert json.loads((tmp_path / "p" / "label_map.json").read_text()) == [
        {"index": 0, "word_net_id": "T-shirt_top", "name": "T-shirt/top"},
        {"index": 1, "word_net_id": "n02124075", "name": "n02124075"},
        {"index": 2, "word_net_id": "Bag", "name": "Bag"},
    ]


def test_one_analysis_has_the_plain_name(tmp_path):
    part = attribution(analyses={"spray": [analysis(1)]})
    export_virelay(tmp_path / "p", **arguments(attributions=part))
    assert (tmp_path / "p" / "analysis.h5").exists()


def test_layout(tmp_path):
    export_virelay(tmp_path / "p", **arguments())
    with h5py.File(tmp_path / "p" / "dataset.h5") as file:
        assert set(file) == {"data", "label"}
        assert (file["data"].shape, file["data"].dtype) == ((N, 3, 9, 7), np.uint8)
        assert (file["label"].shape, file["label"].dtype) == ((N,), np.uint16)
        np.testing.assert_array_equal(file["data"], np.moveaxis(projects.images(), -1, 1))
    with h5py.File(tmp_path / "p" / "attribution.h5") as file:
        assert set(file) == {"attribution", "prediction", "label"}
        assert (file["attribution"].shape, file["attribution"].dtype) == ((N, 3, 9, 7), np.float32)
        assert (file["prediction"].shape, file["prediction"].dtype) == ((N, 3), np.float32)
        assert file["label"].dtype == np.uint16
    with h5py.File(tmp_path / "p" / "analysis-spray_abs.h5") as file:
        assert list(file) == ["n02124075", "Bag", "T-shirt_top"]  # as given
        assert list(file["Bag/embedding"]) == ["tsne", "spectral"]
        assert list(file["Bag/cluster"]) == ["kmeans-2", "dbscan"]
        group = file["Bag"]
        assert group["index"].dtype == np.uint32
        spectral, tsne = group["embedding/spectral"], group["embedding/tsne"]
        assert (spectral.shape, spectral.dtype) == ((4, 4), np.float32)
        assert spectral.attrs["eigenvalue"].tolist() == [0.75, 0.5, 0.125, 0.0]
        assert dict(tsne.attrs)["embedding"] == "spectral"
        assert tsne.attrs["index"].tolist() == [0, 1, 2, 3]
        kmeans, dbscan = group["cluster/kmeans-2"], group["cluster/dbscan"]
        assert kmeans.dtype.kind == "i"
        assert (kmeans.attrs["embedding"], kmeans.attrs["k"]) == ("spectral", 2)
        assert kmeans.attrs["index"].tolist() == [0, 1]  # of four: as many as clusters
        assert dbscan[()].tolist() == [-1, 0, 1, -1]
        assert (dbscan.attrs["embedding"], "k" in dbscan.attrs) == ("tsne", False)
        assert dbscan.attrs["index"].tolist() == [0, 1]


def test_rows_in_order_need_no_index(tmp_path):
    """Which the viewer would search on each request."""
    for rows, expected in (
        (np.arange(N), False),
        (np.arange(N)[::-1], True),
    ):
        part = attribution(rows=rows, index_of="images")
        export_virelay(tmp_path / "p", **arguments(attributions=part), overwrite=True)
        with h5py.File(tmp_path / "p" / "attribution.h5") as file:
            assert ("index" in file) == expected
            np.testing.assert_array_equal(file["label"], LABELS[rows])


def test_fewer_relevances_than_pictures(tmp_path):
    part = Attribution(
        projects.relevance()[:6], PREDICTION[:6], {"a": [analysis(0, np.array([0, 3]))]}
    )
    export_virelay(tmp_path / "p", **arguments(attributions=part))
    with h5py.File(tmp_path / "p" / "attribution.h5") as file:
        assert file["attribution"].shape[0] == 6
        np.testing.assert_array_equal(file["label"], LABELS[:6])


@pytest.mark.parametrize("batch_size", [1, 3, 13, 14, 100])
def test_slices_change_nothing(tmp_path, batch_size):
    export_virelay(tmp_path / "p", **arguments(batch_size=batch_size))
    with h5py.File(tmp_path / "p" / "dataset.h5") as file:
        np.testing.assert_array_equal(file["data"], np.moveaxis(projects.images(), -1, 1))
    with h5py.File(tmp_path / "p" / "attribution.h5") as file:
        expected = np.moveaxis(projects.relevance(), -1, 1).astype(np.float32)
        np.testing.assert_array_equal(file["attribution"], expected)
        np.testing.assert_array_equal(file["prediction"], PREDICTION.astype(np.float32))


def test_reads_in_slices(tmp_path):
    n = 1000
    pictures = Lazy((n, 8, 8), lambda i: np.full((8, 8), i % 256, np.uint8))
    maps = Lazy((n, 8, 8, 1), lambda i: np.full((8, 8, 1), i + 1.0))
    logits = Lazy((n, 3), lambda i: np.full(3, float(i)))
    part = attribution(relevance=maps, prediction=logits)
    labels = np.arange(n) % 3
    export_virelay(
        tmp_path / "p",
        **arguments(images=pictures, labels=labels, attributions=part, batch_size=32),
    )
    assert (pictures.largest, maps.largest, logits.largest) == (32, 32, 32)
    with h5py.File(tmp_path / "p" / "attribution.h5") as file:
        np.testing.assert_array_equal(file["attribution"][:, 0, 3, 3], np.arange(n) + 1.0)
        np.testing.assert_array_equal(file["attribution"][:, 1:], np.zeros((n, 2, 8, 8)))
        np.testing.assert_array_equal(file["prediction"][:, 1], np.arange(n))
    with h5py.File(tmp_path / "p" / "dataset.h5") as file:
        np.testing.assert_array_equal(file["data"][:, 2, 0, 0], np.arange(n) % 256)


def test_default_slices_do_not_grow(tmp_path):
    """16 MiB of relevance: 5 maps of 512 x 512 pixels."""
    maps = Lazy((12, 512, 512), lambda i: np.ones((512, 512), np.float32))
    pictures = Lazy((12, 512, 512), lambda i: np.zeros((512, 512), np.uint8))
    part = attribution(
        relevance=maps, prediction=PREDICTION[:12], analyses={"a": [analysis(0, np.array([0, 3]))]}
    )
    export_virelay(
        tmp_path / "p", **arguments(images=pictures, labels=LABELS[:12], attributions=part)
    )
    assert (maps.largest, pictures.largest) == (5, 5)


@pytest.mark.parametrize("convert", [jnp.asarray, lambda a: a.astype(ml_dtypes.bfloat16), list])
def test_sources(tmp_path, convert):
    values = projects.relevance().astype(np.float32)
    part = attribution(relevance=convert(values))
    export_virelay(tmp_path / "p", **arguments(attributions=part))
    with h5py.File(tmp_path / "p" / "attribution.h5") as file:
        expected = np.moveaxis(np.asarray(convert(values), np.float32), -1, 1)
        np.testing.assert_array_equal(file["attribution"], expected)


def test_zarr(tmp_path):
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    store = zarr.create_array(tmp_path / "z", shape=(N, 9, 7, 3), chunks=(4, 9, 7, 3), dtype="f4")
    store[:] = projects.relevance()
    export_virelay(
        tmp_path / "p", **arguments(attributions=attribution(relevance=store), batch_size=5)
    )
    with h5py.File(tmp_path / "p" / "attribution.h5") as file:
        np.testing.assert_array_equal(file["attribution"], np.moveaxis(store[:], -1, 1))


def test_images_are_rounded_to_levels(tmp_path):
    pictures = np.zeros((N, 4, 4))
    pictures[0, 0] = [0.0, 1.0, 0.5, 0.4999 / 255]
    pictures[0, 1] = [-0.4 / 255, 1 + 0.4 / 255, 0.501 / 255, 254.49 / 255]  # within half a level
    part = attribution(relevance=np.ones((N, 4, 4)))
    export_virelay(
        tmp_path / "p", **arguments(images=pictures, attributions=part, image_range=(0, 1))
    )
    with h5py.File(tmp_path / "p" / "dataset.h5") as file:
        assert file["data"][0, 0, 0].tolist() == [0, 255, 128, 0]
        assert file["data"][0, 1, 1].tolist() == [0, 255, 1, 254]


def test_names_of_labels(tmp_path):
    def identifiers(classes, **more):
        export_virelay(tmp_path / "p", **arguments(classes=classes, **more), overwrite=True)
        rows = json.loads((tmp_path / "p" / "label_map.json").read_text())
        assert [row["name"] for row in rows] == list(
            classes if isinstance(classes, list) else dict(sorted(classes.items())).values()
        )
        return {row["index"]: row["word_net_id"] for row in rows}

    assert identifiers(["a b", "a/b", "a_b"]) == {0: "a_b", 1: "a_b_1", 2: "a_b_2"}
    assert identifiers(["..", "Öl", "c.d"]) == {0: "class_0", 1: "Öl", 2: "c.d"}
    assert identifiers({2: "z", 0: "x", 1: "y", 9: "w"}) == {0: "x", 1: "y", 2: "z", 9: "w"}
    given = {"word_net_ids": ["n1", "n2", "n 3"]}
    assert identifiers(["x", "x", "x"], **given) == {0: "n1", 1: "n2", 2: "n_3"}


# Whole or not at all


def test_an_error_leaves_nothing(tmp_path):
    maps = projects.relevance()
    maps[11] = np.nan
    with pytest.raises(ValueError, match="row 11"):
        export_virelay(
            tmp_path / "p", **arguments(attributions=attribution(relevance=maps), batch_size=4)
        )
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(tmp_path):
    def make(i):
        if i == 9:
            raise KeyboardInterrupt
        return np.ones((9, 7))

    part = attribution(relevance=Lazy((N, 9, 7), make))
    with pytest.raises(KeyboardInterrupt):
        export_virelay(tmp_path / "p", **arguments(attributions=part, batch_size=2))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_there_before_all_is(tmp_path):
    seen = []

    def make(i):
        seen.append((tmp_path / "p").exists())
        return np.ones((9, 7))

    part = attribution(relevance=Lazy((N, 9, 7), make))
    export_virelay(tmp_path / "p", **arguments(attributions=part))
    assert seen
    assert not any(seen)
    assert (tmp_path / "p").exists()


def test_replaces_only_when_told(tmp_path):
    export_virelay(tmp_path / "p", **arguments(name="first"))
    with pytest.raises(FileExistsError, match=r"must not exist yet.*pass overwrite=True"):
        export_virelay(tmp_path / "p", **arguments(name="second"))
    (file,) = export_virelay(tmp_path / "p", **arguments(name="third"), overwrite=True)
    assert "third" in file.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    maps = np.full((N, 9, 7), np.nan)
    with pytest.raises(ValueError, match="finite"):
        export_virelay(
            tmp_path / "p", **arguments(attributions=attribution(relevance=maps)), overwrite=True
        )
    assert "third" in file.read_text()  # a failure keeps what was there
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_never_replaces_what_it_did_not_write(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"earlier export.*'thesis.tex'"):
        export_virelay(folder, **arguments(), overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="must be a folder"):
        export_virelay(tmp_path / "file", **arguments(), overwrite=True)
    assert (folder / "thesis.tex").read_text() == "years of work"


def test_makes_the_folders_above(tmp_path):
    (file,) = export_virelay(tmp_path / "a" / "b", **arguments())
    assert file == tmp_path / "a" / "b" / "project.yaml"
    assert file.exists()


# What is refused


def edited(**changes):
    """One analysis, changed."""
    return attribution(analyses={"spray": [dataclasses.replace(analysis(0), **changes)]})


def one_analysis(name):
    return attribution(analyses={name: [analysis(0)]})


INDEX = analysis(0).index
FEW = len(INDEX)
MANY_EIGENVALUES = Embedding(np.zeros((FEW, 9000)), np.zeros(9000))
POINTS, CLUSTERS = analysis(0).embeddings, analysis(0).clusterings
NAN = projects.relevance()
NAN[[3, 5]] = np.inf
ZERO = projects.relevance()
ZERO[4] = 0
NEGATIVE = projects.relevance()
NEGATIVE[[4, 5]] = -np.abs(NEGATIVE[[4, 5]])
NEGATIVE[4, 0, 0] = 0  # the largest value, which the viewer divides by
CANCELED = projects.relevance()
CANCELED[6] = np.array([1.0, -2.0, 1.0])  # the sum over channels is what the viewer divides by
SMALL = {
    "images": np.ones((N, 3, 7), np.uint8),
    "attributions": attribution(relevance=np.ones((N, 3, 7))),
}

REFUSED = {
    "float images": (
        {"images": projects.images() / 255},
        "images must be uint8 unless image_range is given, got float64;",
    ),
    "range": (
        {"images": projects.images() / 255, "image_range": (0.0, 0.2)},
        r"image_range \(0\.0, 0\.2\), got 0\.\d+ in image",
    ),
    "nan pixels": ({"images": np.full((N, 9, 7), np.nan), "image_range": (0, 1)}, "got nan in image 0;"),
    "below": ({"images": np.full((N, 9, 7), -1.0), "image_range": (0, 1)}, r"got -1\.0 in image 0;"),
    "range of one": ({"image_range": (1,)}, "image_range must be"),
    "range backwards": ({"image_range": (1, 0)}, "image_range must be"),
    "channels": ({"images": np.zeros((N, 3, 9, 7), np.uint8)}, "1 or 3 channels, got 7.*channel_axis=1"),
    "alpha": ({"images": np.zeros((N, 9, 7, 4), np.uint8)}, "1 or 3 channels, got 4"),
    "small": (SMALL, "images must be at least 4 pixels high and wide, got 3 x 7"),
    "signals": ({"images": np.zeros((N, 9), np.uint8)}, "render_signals or render_tokens"),
    "axis": ({"channel_axis": 0}, "channel_axis must be 1, 2 or 3"),
    "no images": ({"images": projects.images()[:0], "labels": []}, "images must not be empty, got none"),
    "not sliceable": ({"images": {1, 2}}, "images must be an array, or an object with a shape.*got set"),
    "batch size": ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
    "name": ({"name": " "}, "name must be a nonempty string, got ' '"),
    "size": ({"attributions": attribution(relevance=np.ones((N, 7, 9)))}, r"\(9, 7\), got \(7, 9\)"),
    "nan": ({"attributions": attribution(relevance=NAN)}, "NaN or infinity in rows 3, 5; exclude"),
    "complex": (
        {"attributions": attribution(relevance=projects.relevance() + 0j)},
        "relevance must be real, got complex128",
    ),
    "zero": (
        {"attributions": attribution(relevance=ZERO)},
        "zero everywhere.*row 4: the viewer divides.*allow_zero=True",
    ),
    "negative": (
        {"attributions": attribution(relevance=NEGATIVE)},
        r"positive somewhere.*it is not in rows 4, 5: .*allow_negative=True",
    ),
    "canceled": ({"attributions": attribution(relevance=CANCELED)}, "zero everywhere.*row 6"),
    "too many": (
        {"images": projects.images()[:9], "labels": LABELS[:9]},
        "relevance must have at most 9 rows, one per image, got 14;",
    ),
    "none": ({"attributions": []}, "attributions must not be empty, got none"),
    "type": ({"attributions": [projects.relevance()]}, r"jaxlrp\.virelay\.Attribution, got ndarray"),
    "empty": (
        {"attributions": attribution(relevance=projects.relevance()[:0])},
        "prediction must have shape|at least one picture",
    ),
    "methods": (
        {"attributions": [attribution(), attribution(method="lrp")]},
        "different methods, got 'lrp' again",
    ),
    "strategy": (
        {"attributions": attribution(strategy="best")},
        "'true_label' or 'predicted_label', got 'best'",
    ),
    "method": ({"attributions": attribution(method="")}, "method must be a nonempty string"),
    "prediction": (
        {"attributions": attribution(prediction=PREDICTION[:, 0])},
        r"shape \(14, outputs\).*got \(14,\)",
    ),
    "nan prediction": (
        {"attributions": attribution(prediction=PREDICTION * np.nan)},
        "prediction must be finite.*row 0",
    ),
    "rows": ({"attributions": attribution(rows=np.arange(N) + 1)}, "rows of images, 0 to 13, got 1 to 14"),
    "rows twice": ({"attributions": attribution(rows=np.zeros(N, int))}, "must be unique, got row 0 again"),
    "rows number": (
        {"attributions": attribution(rows=np.arange(3))},
        "rows must have 14 entries, one per relevance, got 3",
    ),
    "index of which": (
        {"attributions": attribution(rows=np.arange(N)[::-1])},
        "index_of must be 'images' or 'relevance' unless rows are 0, 1, 2, .*Attribution.from_store",
    ),
    "index of": (
        {"attributions": attribution(index_of="store")},
        "index_of must be 'images' or 'relevance', got 'store'",
    ),
    "index of relevance": (
        {"attributions": attribution(
            relevance=projects.relevance()[:2], prediction=PREDICTION[:2], rows=[0, 12],
            index_of="relevance", analyses={"a": [analysis(0)]})},
        "index of .* must be rows of relevance, 0 to 1, got 0 to 12",
    ),
    "rows dtype": ({"attributions": attribution(rows=np.arange(N) / 1)}, "rows must be integers"),
    "labels": ({"labels": LABELS[:-1]}, r"labels must have shape \(14,\)"),
    "label": ({"labels": LABELS + 1}, "labels must be in classes, got 3"),
    "float labels": ({"labels": LABELS / 1}, "labels must be integers, got float64"),
    "probabilities": ({"labels": np.full((N, 3), 0.3)}, "must be True where an image has a label,"),
    "many labels": ({"labels": np.ones((N, 4), bool)}, "column 3 of labels"),
    "classes": ({"classes": "abc"}, "classes must be a sequence of names, got the single string"),
    "class": ({"classes": ["a", "", "c"]}, "classes must be nonempty strings, got '' for label 1"),
    "large label": ({"classes": {70000: "a"}}, "from 0 to 65535, got 70000"),
    "no classes": ({"classes": []}, "at least one label"),
    "few ids": ({"word_net_ids": ["a", "b"]}, "same 3 labels as classes, got 2"),
    "ids twice": ({"word_net_ids": ["a", "b", "b"]}, "must be unique, got 'b' for labels 1 and 2"),
    "no analyses": ({"attributions": attribution(analyses={})}, r'at least one entry such as \{"spray":'),
    "empty analysis": ({"attributions": attribution(analyses={"a": []})}, "at least one class"),
    "single analysis": (
        {"attributions": attribution(analyses={"a": analysis(0)})},
        "must be a sequence of Analysis",
    ),
    "other analysis": ({"attributions": attribution(analyses={"a": [{}]})}, "contain only Analysis, got"),
    "slash in method": ({"attributions": one_analysis("a/b")}, "valid in a URL, got 'a/b';"),
    "question": ({"attributions": one_analysis("a?")}, "valid in a URL,"),
    "dots": ({"attributions": one_analysis("..")}, "valid in a URL,"),
    "dash and underscore": (
        {"attributions": attribution(analyses={"a-b": [analysis(0)], "a_b": [analysis(0)]})},
        "differ in letters or digits, got 'a_b' again",
    ),
    "category": ({"attributions": edited(category=8)}, "must have labels in classes, got 8"),
    "category twice": (
        {"attributions": attribution(analyses={"a": [analysis(0)] * 2})},
        "unique labels, got 0 twice",
    ),
    "embeddings": (
        {"attributions": attribution(analyses={"a": [analysis(1), dataclasses.replace(
            analysis(0), embeddings={"spectral": POINTS["spectral"]}, clusterings=CLUSTERS)]})},
        r"same embeddings for all labels, got \['spectral'\] for label 0 and \['spectral', 'tsne'\]",
    ),
    "clusterings": (
        {"attributions": attribution(analyses={"a": [analysis(1), dataclasses.replace(
            analysis(0), clusterings={"dbscan": CLUSTERS["dbscan"]})]})},
        "same clusterings for all labels",
    ),
    "no clusterings": ({"attributions": edited(clusterings={})}, "at least one of clusterings"),
    "index": ({"attributions": edited(index=INDEX + 100)}, "index of .* must be rows of images"),
    "index negative": (
        {"attributions": edited(index=INDEX - 1)},
        "must be rows of images, 0 to 13, got -1",
    ),
    "unexplained": (
        {"attributions": attribution(
            relevance=projects.relevance()[:2], prediction=PREDICTION[:2], rows=[0, 12],
            index_of="images", analyses={"a": [analysis(0)]})},
        "must be of images that have relevance, row 3 has",
    ),
    "slash": (
        {"attributions": edited(embeddings={**POINTS, "a/b": POINTS["tsne"]})},
        "without '/'.*use 'a_b'",
    ),
    "slash in clustering": (
        {"attributions": edited(clusterings={"a/b": CLUSTERS["dbscan"]})},
        "clusterings must have names without",
    ),
    "no column": (
        {"attributions": edited(embeddings={**POINTS, "e": Embedding(np.zeros((FEW, 0)))})},
        r"d\) with d >= 1, got",
    ),
    "points": (
        {"attributions": edited(embeddings={**POINTS, "e": Embedding(np.zeros((2, 2)))})},
        rf"shape \({FEW}, d\)",
    ),
    "nan points": (
        {"attributions": edited(embeddings={**POINTS, "e": Embedding(np.full((FEW, 2), np.nan))})},
        "must be finite",
    ),
    "origin": (
        {"attributions": edited(embeddings={**POINTS, "e": Embedding(np.zeros((FEW, 2)), base="x")})},
        "got 'x'",
    ),
    "own origin": (
        {"attributions": edited(embeddings={**POINTS, "e": Embedding(np.zeros((FEW, 2)), base="e")})},
        "got 'e'",
    ),
    "eigenvalues": (
        {"attributions": edited(embeddings={**POINTS, "e": Embedding(np.zeros((FEW, 2)), np.zeros(3))})},
        "must be 2 finite numbers",
    ),
    "large eigenvalues": (
        {"attributions": edited(embeddings={**POINTS, "e": MANY_EIGENVALUES})},
        "at most 7500",
    ),
    "clusters": (
        {"attributions": edited(clusterings={"c": Clustering(np.zeros(FEW), "tsne")})},
        "integers, -1",
    ),
    "low clusters": (
        {"attributions": edited(clusterings={"c": Clustering(np.full(FEW, -2), "tsne")})},
        "integers, -1",
    ),
    "high clusters": (
        {"attributions": edited(clusterings={"c": Clustering(np.full(FEW, 2**32), "tsne")})},
        "must have cluster numbers up to 2147483647, got 4294967296;",
    ),
    "few clusters": (
        {"attributions": edited(clusterings={"c": Clustering(np.zeros(2, int), "tsne")})},
        f"must be {FEW} integers",
    ),
    "clustered": (
        {"attributions": edited(clusterings={"c": Clustering(np.zeros(FEW, int), "x")})},
        "got 'x'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(tmp_path, case):
    changes, message = REFUSED[case]
    with pytest.raises((ValueError, TypeError)) as error:
        export_virelay(tmp_path / "p", **arguments(**changes))
    assert re.search(message, str(error.value)), str(error.value)
    assert list(tmp_path.iterdir()) == []


class Opened(dict):
    """A store, as `from_store` sees it."""

    def __init__(self, ids):
        super().__init__(output=np.zeros((len(ids), 3)))
        self.ids, self.relevance = ids, projects.relevance()[: len(ids)]


def test_rows_of_a_store_are_found_by_id():
    plain = Attribution.from_store(Opened([4, 1, 0]), {}, method="z+", strategy="predicted_label")
    assert (plain.method, plain.strategy, plain.index_of) == ("z+", "predicted_label", "relevance")
    assert np.asarray(plain.rows).tolist() == [4, 1, 0]
    named = Attribution.from_store(Opened(["d", "a"]), {}, ids=np.array(["a", "b", "c", "d"]))
    assert np.asarray(named.rows).tolist() == [3, 0]
    numbered = Attribution.from_store(Opened([30, 10]), {}, ids=np.array([10, 20, 30]))
    assert np.asarray(numbered.rows).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("stored", "ids", "message"),
    [
        (["a.png"], None, r"the store are names such as 'a\.png', not rows of images; pass ids="),
        (
            ["a", "b"],
            ["a", "c"],
            r"ids must contain every id of the store, but 'b' is missing \(1 of 2 are missing\)",
        ),
        (
            [1, 2**64],
            None,
            "the id 18446744073709551616 of the store is not a row of images; pass ids=",
        ),
        (["a"], ["a", "b", "a"], "ids must be unique, got 'a' for images 0 and 2"),
    ],
)
def test_ids_that_do_not_tell_the_rows_are_refused(stored, ids, message):
    with pytest.raises(ValueError, match=message):
        Attribution.from_store(Opened(stored), {}, ids=ids)


def test_ids_that_are_no_rows_are_refused(tmp_path):
    part = Attribution.from_store(Opened([7, 1000]), {"a": [analysis(0, np.array([0, 1]))]})
    with pytest.raises(ValueError, match="rows must be rows of images, 0 to 13, got 7 to 1000"):
        export_virelay(tmp_path / "p", **arguments(attributions=part))


def test_clusters_name_the_columns_that_they_were_made_of(tmp_path):
    few = {"hdbscan": Clustering(np.zeros(FEW, int), "spectral", n_columns=3)}
    export_virelay(tmp_path / "p", **arguments(attributions=edited(clusterings=few)))
    with h5py.File(tmp_path / "p" / "analysis.h5") as file:
        written = file["T-shirt_top/cluster/hdbscan"]
        assert written.attrs["index"].tolist() == [0, 1, 2]  # of four
        assert "k" not in written.attrs


def test_a_source_that_breaks_its_promise(tmp_path):
    part = attribution(relevance=Lazy((N, 9, 7), lambda i: np.ones((9, 8 if i == 7 else 7))))
    with pytest.raises(
        ValueError, match=r"relevance\[7:8\] must have shape \(1, 9, 7\).*got \(1, 9, 8\)"
    ):
        export_virelay(tmp_path / "p", **arguments(attributions=part, batch_size=1))


def test_what_is_refused_is_refused_before_reading(tmp_path):
    log = []
    part = attribution(
        relevance=Lazy((N, 9, 7), lambda i: np.ones((9, 7)), log),
        analyses={"a": [analysis(0), analysis(0)]},
    )
    pictures = Lazy((N, 9, 7), lambda i: np.ones((9, 7), np.uint8), log)
    with pytest.raises(ValueError, match="unique labels,"):
        export_virelay(tmp_path / "p", **arguments(images=pictures, attributions=part))
    assert log == []


def test_a_rendered_array_is_sliced_in_steps_of_one():
    rows = LazyArray((4, 2), np.dtype(int), lambda start, stop: np.ones((stop - start, 2), int))
    with pytest.raises(IndexError, match="with step 1, got step 2"):
        rows[::2]
    with pytest.raises(IndexError):
        rows[4]
    assert rows[3:1].shape == (0, 2)
    assert len(rows) == 4


def test_names_the_extra_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.delitem(sys.modules, "jaxlrp.virelay")
    message = r'h5py, which could not be imported; install it with: pip install "jaxlrp\[virelay\]"'
    with pytest.raises(ImportError, match=message):
        importlib.import_module("jaxlrp.virelay")


def test_many_channels_are_read_in_smaller_slices(tmp_path):
    """16 MiB of 64 channels of 256 x 256: one row."""
    maps = Lazy((3, 256, 256, 64), lambda i: np.ones((256, 256, 64), np.float32))
    part = attribution(
        relevance=maps, prediction=PREDICTION[:3], analyses={"a": [analysis(0, np.array([0, 2]))]}
    )
    pictures = np.zeros((3, 256, 256), np.uint8)
    export_virelay(
        tmp_path / "p", **arguments(images=pictures, labels=LABELS[:3], attributions=part)
    )
    assert maps.largest == 1
