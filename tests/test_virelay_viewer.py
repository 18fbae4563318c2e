"""Exported projects, opened by ViRelAy itself, through the test client of its server."""

from __future__ import annotations

import io
import json

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxlrp as lrp
from jaxlrp import dataset, spray
from jaxlrp.virelay import Attribution, export_virelay, render_signals, render_tokens

import virelay_projects as projects
from virelay_projects import CLASSES, LABELS, PREDICTION, N, analysis, arguments, attribution

model = pytest.importorskip("virelay.model", reason="ViRelAy is not installed (extra: test)")
server = pytest.importorskip("virelay.server")


@pytest.fixture
def open_viewer():
    """Opens project files; gives back the workspace and a client of the server."""
    opened = []

    def viewer(*files):
        workspace = model.Workspace()
        opened.append(workspace)
        for file in files:
            workspace.add_project(str(file))
        return workspace, server.Server(workspace).app.test_client()

    yield viewer
    for workspace in opened:
        workspace.close()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export_virelay(tmp_path_factory.mktemp("exports") / "project", **arguments())


COLOR_MAPS = [
    "gray-red", "black-green", "black-fire-red", "black-yellow",
    "blue-white-red", "afm-hot", "jet", "seismic",
]  # fmt: skip


def heatmap(client, row: int, colors: str, over_image: bool):
    query = f"colorMap={colors}&superimpose={over_image}"
    return client.get(f"/api/projects/0/attributions/{row}/heatmap?{query}")


def pixels(response) -> np.ndarray:
    assert response.status_code == 200
    assert response.mimetype == "image/jpeg"
    return np.asarray(Image.open(io.BytesIO(response.data)), int)


def test_project(exported, open_viewer):
    _, client = open_viewer(*exported)
    assert client.get("/api/projects").json == [
        {"id": 0, "name": "relevance", "model": "model", "dataset": "dataset"}
    ]
    found = client.get("/api/projects/0").json["analysisMethods"]
    assert [method["name"] for method in found] == ["spray-abs", "other"]
    # In the order that was given, though HDF5 sorts by name unless told not to.
    assert found[0]["categories"] == [
        {"name": "n02124075", "humanReadableName": "n02124075"},
        {"name": "Bag", "humanReadableName": "Bag"},
        {"name": "T-shirt_top", "humanReadableName": "T-shirt/top"},
    ]
    assert found[0]["embeddings"] == ["tsne", "spectral"]
    assert found[0]["clusterings"] == ["kmeans-2", "dbscan"]


@pytest.mark.parametrize("category", [0, 1, 2])
@pytest.mark.parametrize("embedding", ["spectral", "tsne"])
@pytest.mark.parametrize("clustering", ["kmeans-2", "dbscan"])
def test_analysis(exported, open_viewer, category, embedding, clustering):
    _, client = open_viewer(*exported)
    name = ["T-shirt_top", "n02124075", "Bag"][category]
    query = {"category": name, "embedding": embedding, "clustering": clustering}
    response = client.get("/api/projects/0/analyses/spray-abs", query_string=query)
    assert response.status_code == 200
    expected, found = analysis(category), response.json["embedding"]
    assert [p["attributionIndex"] for p in found] == expected.index.tolist()
    assert [p["cluster"] for p in found] == expected.clusterings[clustering].labels.tolist()
    np.testing.assert_array_equal(
        np.array([p["value"] for p in found]).astype(np.float32),
        expected.embeddings[embedding].values.astype(np.float32),
    )
    if embedding == "spectral":
        # The viewer's page draws entry j of d at d - 1 - j: the smallest comes out first.
        assert response.json["eigenvalues"] == [0.75, 0.5, 0.125, 0.0]
    else:
        assert "eigenvalues" not in response.json


def test_samples(exported, open_viewer):
    workspace, client = open_viewer(*exported)
    for row in range(N):
        np.testing.assert_array_equal(
            workspace.projects[0].get_sample(row).data, projects.images()[row]
        )
        # JPEG of quality 70, with half the resolution in color.
        served = pixels(client.get(f"/api/projects/0/dataset/{row}/image"))
        assert np.abs(served - projects.images()[row]).mean() < 12
        label = client.get(f"/api/projects/0/dataset/{row}").json["labels"]
        assert [one["index"] for one in label] == [LABELS[row]]
        assert [one["name"] for one in label] == [CLASSES[LABELS[row]]]


def test_attributions(exported, open_viewer):
    workspace, client = open_viewer(*exported)
    rows = ",".join(map(str, range(N)))
    for mode in ("input", "overlay", "attribution"):
        response = client.get(f"/api/projects/0/attributions?indices={rows}&imageMode={mode}")
        assert response.status_code == 200
        for row, found in enumerate(response.json):
            assert found["index"] == row
            assert found["labels"][0]["index"] == LABELS[row]
            np.testing.assert_allclose(found["prediction"], PREDICTION[row], rtol=1e-6)
            assert client.get(found["urls"]["jet"]).status_code == 200
    for row in range(N):
        data = workspace.projects[0].get_attribution(row).data
        np.testing.assert_array_equal(data, projects.relevance()[row].astype(np.float32))


@pytest.mark.parametrize("over_image", [False, True])
@pytest.mark.parametrize("colors", COLOR_MAPS)
def test_heatmaps(exported, open_viewer, colors, over_image):
    _, client = open_viewer(*exported)
    assert {c["name"] for c in client.get("/api/color-maps").json} == set(COLOR_MAPS)
    for row in (0, N - 1):
        assert pixels(heatmap(client, row, colors, over_image)).shape == (
            projects.H,
            projects.W,
            3,
        )
    assert client.get(f"/api/color-maps/{colors}").status_code == 200


def test_a_heatmap_is_red_where_relevance_is(tmp_path, open_viewer):
    maps = np.zeros((N, 16, 16))
    maps[:, :8] = 1.0
    maps[:, 8:] = -1.0
    pictures = np.full((N, 16, 16), 128, np.uint8)
    files = export_virelay(
        tmp_path / "p", **arguments(images=pictures, attributions=attribution(relevance=maps))
    )
    _, client = open_viewer(*files)
    found = pixels(heatmap(client, 3, "blue-white-red", False))
    np.testing.assert_allclose(found[2, 8], [255, 0, 0], atol=12)  # JPEG
    np.testing.assert_allclose(found[13, 8], [0, 0, 255], atol=12)


@pytest.mark.parametrize("channels", [0, 1, 2, 5])
def test_sums_over_other_channels(tmp_path, open_viewer, channels):
    relevance = projects.relevance(channels) if channels else projects.relevance(1)[..., 0]
    files = export_virelay(
        tmp_path / "p", **arguments(attributions=attribution(relevance=relevance))
    )
    workspace, client = open_viewer(*files)
    expected = relevance if not channels else relevance.sum(axis=-1)
    for row in (0, N - 1):
        data = workspace.projects[0].get_attribution(row).data
        np.testing.assert_array_equal(data.sum(axis=2), expected[row].astype(np.float32))
        for colors in COLOR_MAPS:
            assert heatmap(client, row, colors, True).status_code == 200


@pytest.mark.parametrize("shape", [(N, 9, 7), (N, 9, 7, 1)])
def test_gray_images(tmp_path, open_viewer, shape):
    gray = projects.images(1).reshape(shape)
    workspace, client = open_viewer(*export_virelay(tmp_path / "p", **arguments(images=gray)))
    found = workspace.projects[0].get_sample(4).data
    np.testing.assert_array_equal(found, np.repeat(gray[4].reshape(9, 7, 1), 3, axis=2))
    assert client.get("/api/projects/0/dataset/4/image").status_code == 200


def test_float_images(tmp_path, open_viewer):
    pictures = projects.images() / 127.5 - 1.0
    files = export_virelay(tmp_path / "p", **arguments(images=pictures, image_range=(-1.0, 1.0)))
    workspace, _ = open_viewer(*files)
    for row in range(N):
        np.testing.assert_array_equal(
            workspace.projects[0].get_sample(row).data, projects.images()[row]
        )


def test_channels_first(tmp_path, open_viewer):
    files = export_virelay(
        tmp_path / "p",
        **arguments(
            images=np.moveaxis(projects.images(), -1, 1),
            attributions=attribution(relevance=np.moveaxis(projects.relevance(), -1, 1)),
            channel_axis=1,
        ),
    )
    workspace, _ = open_viewer(*files)
    found = workspace.projects[0]
    np.testing.assert_array_equal(found.get_sample(1).data, projects.images()[1])
    np.testing.assert_array_equal(
        found.get_attribution(1).data, projects.relevance()[1].astype(np.float32)
    )


def test_rows_of_the_data_set(tmp_path, open_viewer):
    """Some pictures are explained, not in order."""
    rows = np.array([9, 3, 12, 0])
    part = attribution(
        relevance=projects.relevance()[rows],
        prediction=PREDICTION[rows],
        rows=rows,
        index_of="images",
        analyses={"spray": [analysis(0, np.array([9, 12, 0, 3]))]},
    )
    workspace, client = open_viewer(*export_virelay(tmp_path / "p", **arguments(attributions=part)))
    for row in rows:
        found = workspace.projects[0].get_attribution(int(row))
        np.testing.assert_array_equal(found.data, projects.relevance()[row].astype(np.float32))
        np.testing.assert_array_equal(found.prediction, PREDICTION[row].astype(np.float32))
        assert [label.index for label in found.labels] == [LABELS[row]]
        assert heatmap(client, row, "jet", True).status_code == 200
    assert client.get("/api/projects/0/attributions/1").status_code == 404


def shown(client, category: str) -> list[dict]:
    """The points of a class, with the spectral embedding and k-means."""
    query = {"category": category, "embedding": "spectral", "clustering": "kmeans"}
    response = client.get("/api/projects/0/analyses/spray", query_string=query)
    assert response.status_code == 200
    return response.json["embedding"]


@pytest.mark.parametrize("named", [False, True])
def test_a_store_in_another_order(tmp_path, open_viewer, named):
    """Points show their own pictures, though the store is in another order and lacks a picture."""
    pictures, labels = np.zeros((30, 8, 8), np.uint8), np.arange(30) % 2
    pictures[:] = 3 * np.arange(1, 31)[:, None, None]
    order = np.random.default_rng(0).permutation(30)
    names = [f"{row}.png" for row in range(30)]
    x = pictures.astype(np.float32) / 255
    x[order[4]] = np.nan  # fails
    items = [(names[i] if named else int(i), x[i], labels[i]) for i in order]
    w = jnp.asarray(np.random.default_rng(1).uniform(0.5, 1, (64, 2)), jnp.float32)
    dataset.attribute_dataset(
        lrp.explain(lambda w, x: x.reshape(len(x), -1) @ w, argnums=1), items, tmp_path / "store",
        args=(w,), batch_size=8, progress="none",
    )  # fmt: skip
    opened = dataset.open_relevance(tmp_path / "store")
    assert len(opened.ids) == 29
    found = spray.analyze(
        opened.relevance, opened["label"][:], key=jax.random.key(0),
        settings=spray.Settings(n_neighbors=4, views={}),
    )  # fmt: skip
    part = Attribution.from_store(opened, {"spray": found}, ids=names if named else None)
    files = export_virelay(
        tmp_path / "p", images=pictures, labels=labels, classes=["even", "odd"], attributions=part
    )
    workspace, client = open_viewer(*files)
    seen = []
    for label, (category, analyzed) in enumerate(zip(["even", "odd"], found, strict=True)):
        points = shown(client, category)
        for point, row_of_store in zip(points, analyzed.index, strict=True):
            row = point["attributionIndex"]
            name = opened.ids[row_of_store]
            assert name == (names[row] if named else row)
            attribution = workspace.projects[0].get_attribution(row)
            expected = x[row] * np.asarray(w)[:, label].reshape(8, 8)  # of a linear model
            np.testing.assert_allclose(attribution.data.sum(axis=2), expected, rtol=1e-4)
            np.testing.assert_array_equal(
                workspace.projects[0].get_sample(row).data[..., 0], pictures[row]
            )
            seen.append(row)
    assert sorted(seen) == sorted(set(range(30)) - {int(order[4])})


@pytest.mark.parametrize("few", [1, 2, 3])
def test_a_class_of_few_samples(tmp_path, open_viewer, few):
    labels = (np.arange(N) < few).astype(int)
    found = spray.analyze(
        projects.relevance(1)[..., 0], labels, key=jax.random.key(0),
        settings=spray.Settings(views={"pca": spray.PCA(), "tsne": spray.TSNE(max_iter=250)}),
    )  # fmt: skip
    part = attribution(relevance=projects.relevance(1), analyses={"spray": found})
    _, client = open_viewer(
        *export_virelay(tmp_path / "p", **arguments(labels=labels, attributions=part))
    )
    for category, size in (("n02124075", few), ("T-shirt_top", N - few)):
        points = shown(client, category)
        if category == "n02124075":
            assert [point["cluster"] for point in points] == [0] * few
        assert np.shape([point["value"] for point in points])[1] >= 2
        assert len(points) == size
        for view in ("pca", "tsne"):
            query = {"category": category, "embedding": view, "clustering": "kmeans"}
            response = client.get("/api/projects/0/analyses/spray", query_string=query)
            assert len(response.json["embedding"]) == size
            # The page divides by the largest coordinate.
            assert np.any([point["value"][:2] for point in response.json["embedding"]])


def test_several_labels(tmp_path, open_viewer):
    labels = np.random.default_rng(5).random((N, 3)) < 0.5
    _, client = open_viewer(*export_virelay(tmp_path / "p", **arguments(labels=labels)))
    for row in range(N):
        for part in ("dataset", "attributions"):
            found = client.get(f"/api/projects/0/{part}/{row}").json["labels"]
            assert [label["index"] for label in found] == np.flatnonzero(labels[row]).tolist()


def test_several_methods(tmp_path, open_viewer):
    parts = [
        attribution(method="z+"),
        attribution(method="gradient", relevance=projects.relevance(seed=11),
                    strategy="predicted_label", analyses={"spray": [analysis(1)]}),
    ]  # fmt: skip
    files = export_virelay(tmp_path / "p", **arguments(attributions=parts, name="Fashion"))
    assert [file.name for file in files] == ["project-z_.yaml", "project-gradient.yaml"]
    workspace, client = open_viewer(*files)
    assert [p["name"] for p in client.get("/api/projects").json] == [
        "Fashion (z+)",
        "Fashion (gradient)",
    ]
    for project, seed in zip(workspace.projects, (2, 11), strict=True):
        data = project.get_attribution(0).data
        np.testing.assert_array_equal(data, projects.relevance(seed=seed)[0].astype(np.float32))
    assert [p.attribution_method for p in workspace.projects] == ["z+", "gradient"]
    assert [p.attribution_strategy for p in workspace.projects] == ["true_label", "predicted_label"]
    found = client.get("/api/projects/1").json["analysisMethods"]
    assert [method["name"] for method in found] == ["spray"]


def test_signals_and_text(tmp_path, open_viewer):
    rng = np.random.default_rng(0)
    signals, words = rng.normal(size=(N, 50)), [["good", "film", str(i)] for i in range(N)]
    for name, pictures in {
        "signals": render_signals(signals, signals**3, height=40, width=60),
        "text": render_tokens(words, rng.normal(size=(N, 5))),
    }.items():
        part = attribution(relevance=pictures.relevance)
        files = export_virelay(
            tmp_path / name,
            **arguments(
                images=pictures.images, attributions=part, batch_size=4, allow_negative=True
            ),
        )
        workspace, client = open_viewer(*files)
        for row in (0, 5, N - 1):
            found = workspace.projects[0]
            np.testing.assert_array_equal(found.get_sample(row).data[..., 1], pictures.images[row])
            np.testing.assert_array_equal(
                found.get_attribution(row).data.sum(axis=2), pictures.relevance[row]
            )
            assert heatmap(client, row, "jet", True).status_code == 200


def test_zero_relevance_is_shown_black(tmp_path, open_viewer):
    zero = projects.relevance()
    zero[4] = 0
    files = export_virelay(
        tmp_path / "p", **arguments(attributions=attribution(relevance=zero), allow_zero=True)
    )
    _, client = open_viewer(*files)
    for colors in COLOR_MAPS:
        with pytest.warns(RuntimeWarning, match="invalid value"):
            found = heatmap(client, 4, colors, False)
        assert pixels(found).max() <= 2  # JPEG


def negative() -> np.ndarray:
    maps = -np.abs(projects.relevance())
    maps[:, 0, 0] = 0
    return maps


def test_relevance_that_is_never_positive_is_right_in_five_color_maps(tmp_path, open_viewer):
    part = attribution(relevance=negative())
    files = export_virelay(tmp_path / "p", **arguments(attributions=part, allow_negative=True))
    _, client = open_viewer(*files)
    for colors in COLOR_MAPS:
        if colors in ("gray-red", "black-green", "black-yellow"):
            with pytest.warns(RuntimeWarning, match="divide by zero|invalid value"):
                heatmap(client, 4, colors, False)
        else:
            assert pixels(heatmap(client, 4, colors, False)).shape == (projects.H, projects.W, 3)


# What is refused is refused for a reason: each of these breaks the viewer.


def broken(exported, tmp_path, file: str, change) -> str:
    """A copy of a project in which a file was changed."""
    for path in exported[0].parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with h5py.File(tmp_path / file, "r+") as opened:
        change(opened)
    return str(tmp_path / "project.yaml")


def replace(name: str, values: np.ndarray):
    def change(file):
        del file[name]
        file[name] = values

    return change


@pytest.mark.parametrize("size", [(2, 9), (9, 2), (1, 9)])
def test_the_viewer_fails_at_small_pictures(exported, tmp_path, open_viewer, size):
    change = replace("data", np.zeros((N, 3, *size), np.uint8))
    _, client = open_viewer(broken(exported, tmp_path, "dataset.h5", change))
    assert client.get("/api/projects/0/dataset/0/image").status_code == 500


def test_the_viewer_fails_at_gray_pictures(exported, tmp_path, open_viewer):
    change = replace("data", np.zeros((N, 1, 9, 7), np.uint8))
    _, client = open_viewer(broken(exported, tmp_path, "dataset.h5", change))
    assert client.get("/api/projects/0/dataset/0/image").status_code == 500


def test_the_viewer_garbles_float_pictures(exported, tmp_path, open_viewer):
    dark = np.full((N, 3, 9, 7), 0.4, np.float32)
    dark[:, :, 0, 0] = 0.0  # of [0, 1]: black
    workspace, _ = open_viewer(broken(exported, tmp_path, "dataset.h5", replace("data", dark)))
    assert workspace.projects[0].get_sample(0).data[0, 0, 0] == 127  # taken for [-1, 1]


def test_the_viewer_fails_at_maps_of_one_channel(exported, tmp_path, open_viewer):
    change = replace("attribution", np.ones((N, 1, 9, 7), np.float32))
    _, client = open_viewer(broken(exported, tmp_path, "attribution.h5", change))
    assert heatmap(client, 0, "jet", False).status_code == 500


def test_the_viewer_does_not_find_a_dash(exported, tmp_path, open_viewer):
    path = broken(exported, tmp_path, "analysis-other.h5", lambda file: None)
    project = (tmp_path / "project.yaml").read_text().replace("method: other", "method: the-other")
    (tmp_path / "project.yaml").write_text(project)
    _, client = open_viewer(path)
    query = {"category": "T-shirt_top", "embedding": "tsne", "clustering": "dbscan"}
    for name in ("the-other", "the_other"):
        response = client.get(f"/api/projects/0/analyses/{name}", query_string=query)
        assert response.status_code == 404


def test_the_viewer_fails_at_a_slash_in_an_embedding(exported, tmp_path, open_viewer):
    def change(file):
        file["T-shirt_top/embedding/a/b"] = np.zeros((5, 2))

    _, client = open_viewer(broken(exported, tmp_path, "analysis-other.h5", change))
    (method,) = [
        m for m in client.get("/api/projects/0").json["analysisMethods"] if m["name"] == "other"
    ]
    assert "a" in method["embeddings"]  # offered, but a group
    query = {"category": "T-shirt_top", "embedding": "a", "clustering": "dbscan"}
    response = client.get("/api/projects/0/analyses/other", query_string=query)
    assert response.status_code == 500


def test_the_viewer_sends_no_json_of_a_nan(exported, tmp_path, open_viewer):
    change = replace("T-shirt_top/embedding/tsne", np.full((5, 2), np.nan))
    _, client = open_viewer(broken(exported, tmp_path, "analysis-other.h5", change))
    query = {"category": "T-shirt_top", "embedding": "tsne", "clustering": "dbscan"}
    response = client.get("/api/projects/0/analyses/other", query_string=query)

    def strict(constant):
        raise ValueError(constant)

    with pytest.raises(ValueError, match="NaN"):
        json.loads(response.data, parse_constant=strict)


def test_the_viewer_fails_at_a_label_without_a_name(exported, tmp_path, open_viewer):
    change = replace("label", np.full(N, 7, np.uint16))
    _, client = open_viewer(broken(exported, tmp_path, "dataset.h5", change))
    assert client.get("/api/projects/0/dataset/0").status_code == 404
