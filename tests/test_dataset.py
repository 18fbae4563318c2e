"""Whole data sets: what is computed, from which sources, with which targets."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import zarr
from PIL import Image

import jaxlrp as lrp
from dataset_runs import (
    CLASSES,
    LRP0,
    SHAPE,
    attribute,
    check,
    network,
    relevance,
    samples,
    weights,
)
from jaxlrp import baselines, dataset
from jaxlrp.cli import main
from jaxlrp.dataset import (
    fetching,
    manifest,
    memory,
    placement,
    policy,
    program,
    progress,
    reading,
    resolve,
    store,
    threads,
)

ROOT = Path(__file__).parent.parent


@pytest.fixture
def out(tmp_path):
    return tmp_path / "store"


def by_id(path, name="relevance"):
    """The rows of a member in the order of their integer ids."""
    opened = dataset.open_relevance(path)
    return opened[name][:][np.argsort(opened.ids)]


# What is computed


def test_the_relevances_are_those_of_the_formula(out):
    summary = attribute(out, 60)
    check(out, 60)
    assert (summary.samples, summary.new, summary.failed) == (60, 60, {})
    assert summary.batch_size == 16  # 60 = 3 * 16 + 12: the last batch is filled
    assert summary.residual is not None
    assert "60 (60 new)" in str(summary)


def test_one_compilation_for_all_batches(out):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: compiled.append(name) if "backend_compile" in name else None
    )
    try:
        summary = attribute(out, 60)
        first = len(compiled)
        attribute(out.with_name("more"), 600)
    finally:
        jax.monitoring.clear_event_listeners()
    assert (summary.traces, summary.compilations) == (1, 1)
    assert first > 0
    # Ten times the batches compile no more programs: whatever a run compiles, it compiles once.
    assert len(compiled) - first <= first


def test_nothing_is_left_to_do(out):
    attribute(out, 60)
    summary = attribute(out, 60)
    assert (summary.new, summary.samples, summary.compilations) == (0, 60, 0)
    check(out, 60)


def test_more_samples_are_added(out):
    attribute(out, 30)
    x, labels = samples(60)
    assert attribute(out, source=(x, labels)).new == 30
    # samples(30) are not the first 30 of samples(60): those of the first run are left alone
    assert sorted(dataset.open_relevance(out).ids) == list(range(60))


def test_output_prediction_target_label_and_residual(out):
    x, labels = samples(20)
    attribute(out, source=(x, labels), target=lrp.targets.predicted)
    opened = dataset.open_relevance(out)
    z = np.asarray(network(weights(), x))
    np.testing.assert_allclose(opened["output"][:], z, rtol=1e-5, atol=1e-5)
    assert (opened["prediction"][:] == z.argmax(1)).all()
    assert (opened["target"][:] == z.argmax(1)).all()
    assert (opened["label"][:] == labels).all()
    chosen = z.max(1)
    arrived = relevance(weights(), x, z.argmax(1)).sum((1, 2))
    np.testing.assert_allclose(
        opened["residual"][:], np.abs(chosen - arrived) / np.abs(chosen), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("target", [3, [3, 0, 1]])
def test_targets_for_all_samples(out, target):
    x, _ = samples(20)
    attribute(out, source=x, target=target)
    classes = np.atleast_1d(target)
    wanted = np.stack([relevance(weights(), x, np.full(20, c)) for c in classes], axis=1)
    opened = dataset.open_relevance(out)
    if target == 3:
        wanted = wanted[:, 0]
    else:
        assert opened.dims == ("sample", "target", "dim_0", "dim_1")
    np.testing.assert_allclose(opened.relevance[:], wanted, rtol=1e-5, atol=1e-5)
    assert (opened["target"][:] == np.asarray(target)).all()


def test_the_top_classes(out):
    x, _ = samples(20)
    attribute(out, source=x, target=dataset.Top(2))
    opened = dataset.open_relevance(out)
    order = np.argsort(-np.asarray(network(weights(), x)), axis=1)[:, :2]
    assert (opened["target"][:] == order).all()
    for rank in range(2):
        wanted = relevance(weights(), x, order[:, rank])
        np.testing.assert_allclose(opened.relevance[:, rank], wanted, rtol=1e-5, atol=1e-5)


def test_several_targets_of_each_sample(out):
    x, labels = samples(20)
    many = np.stack([labels, (labels + 1) % CLASSES], axis=1)
    attribute(out, source=(x, many))
    found = by_id(out)
    for k in range(2):
        wanted = relevance(weights(), x, many[:, k])
        np.testing.assert_allclose(found[:, k], wanted, rtol=1e-5, atol=1e-5)


def test_targets_of_different_kinds(out):
    x, labels = samples(20)
    kinds = [lrp.targets.predicted, lrp.targets.Contrast(0, 1), lambda z: z]
    attribute(out, source=(x, labels), target=kinds)
    found = dataset.open_relevance(out)
    z = np.asarray(network(weights(), x))
    every = np.stack([relevance(weights(), x, np.full(20, c)) for c in range(CLASSES)])
    np.testing.assert_allclose(
        found.relevance[:, 0], every[z.argmax(1), np.arange(20)], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(found.relevance[:, 1], every[0] - every[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.relevance[:, 2], every.sum(0), rtol=1e-4, atol=1e-4)
    assert "target" not in found


def test_targets_made_of_the_sources(out):
    x, labels = samples(20)
    attribute(out, source=(x, labels), target=dataset.Given(lrp.targets.Contrast))
    every = np.stack([relevance(weights(), x, np.full(20, c)) for c in range(CLASSES)])
    chosen = every[labels, np.arange(20)]
    wanted = chosen - (every.sum(0) - chosen) / (CLASSES - 1)
    np.testing.assert_allclose(by_id(out), wanted, rtol=1e-4, atol=1e-4)


def test_conditions_and_records(out):
    x, labels = samples(20)
    mask = (np.arange(16) < 4).astype(np.float32)
    explain = lrp.explain(network, LRP0, argnums=1, record="hidden")
    conditions = {"some": {"hidden": mask}, "rest": {"hidden": 1 - mask}}
    attribute(out, source=(x, labels), explainer=explain, conditions=conditions)
    opened = dataset.open_relevance(out)
    assert opened.dims == ("sample", "condition", "dim_0", "dim_1")
    assert opened.conditions == ("some", "rest")
    whole = relevance(weights(), x, labels)
    np.testing.assert_allclose(opened.relevance[:].sum(1), whole, rtol=1e-4, atol=1e-4)
    direct = explain(weights(), x, target=labels, condition=conditions["rest"])
    np.testing.assert_allclose(
        opened["record.hidden"][:, 1], direct.records["hidden"].relevance, rtol=1e-5, atol=1e-5
    )
    assert "residual" not in opened  # a condition does not conserve


def test_conditions_on_different_layers(out):
    x, labels = samples(8)
    conditions = [{"hidden": np.zeros(16)}, {"out": np.ones(CLASSES)}]
    attribute(out, source=(x, labels), conditions=conditions)
    found = by_id(out)
    assert not found[:, 0].any()
    np.testing.assert_allclose(found[:, 1], relevance(weights(), x, labels), rtol=1e-5, atol=1e-5)


def test_a_record_inside_a_scan_has_its_sample_first(out):
    w = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)

    def scanned(w, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, w)[0]

    explain = lrp.explain(scanned, argnums=1, record="tanh")
    x = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    dataset.attribute_dataset(explain, x, out, args=(w,), target=1, batch_size=4, progress="none")
    found = by_id(out, "record.tanh")
    wanted = np.moveaxis(np.asarray(explain(w, x, target=1).records["tanh"].relevance), 1, 0)
    assert found.shape == (6, 3, 4)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_tree_of_inputs_and_a_baseline(out):
    def fun(x):
        return jnp.stack([x["a"].sum(-1), 2 * x["b"].sum(-1)], axis=-1)

    a, b = samples(6)[0], samples(6, 2)[0]
    source = {"input": {"a": a.sum(-1), "b": b.sum(-1)}, "id": [f"s{i}" for i in range(6)]}
    explain = baselines.input_x_gradient(fun)
    dataset.attribute_dataset(explain, source, out, target=1, batch_size=4, progress="none")
    opened = dataset.open_relevance(out)
    assert opened.ids == [f"s{i}" for i in range(6)]
    assert not opened["relevance.a"][:].any()
    np.testing.assert_allclose(opened["relevance.b"][:], 2 * b.sum(-1), rtol=1e-6)
    assert "not known" in opened.manifest.composite["text"]


def test_further_arguments_of_each_sample(out):
    def fun(w, x, mask):
        return (x * mask) @ w

    w = np.eye(3, 2, dtype=np.float32)
    x, mask = np.ones((5, 3), np.float32), np.arange(15).reshape(5, 3).astype(np.float32)
    explain = lrp.explain(fun, argnums=1)
    source = {"input": x, "target": np.ones(5, int), "mask": mask}
    dataset.attribute_dataset(explain, source, out, args=(w,), batch_size=2, progress="none")
    np.testing.assert_allclose(by_id(out)[:, 1], mask[:, 1], rtol=1e-5)


def test_arguments_bound_by_partial(out):
    """Those by position come before `args` and are parameters as well, those by keyword are static."""

    def fun(w, v, x, scale):
        return (scale * x.reshape(len(x), -1)) @ w @ v

    x, _ = samples(6)
    rng = np.random.default_rng(0)
    w, v = (rng.normal(size=shape).astype(np.float32) for shape in ((12, 2), (2, 3)))
    explain = lrp.explain(fun, LRP0, argnums=2)
    bound = functools.partial(explain, w, scale=2.0)
    attribute(out, source=x, explainer=bound, args=(v,), target=1)
    wanted = 2 * x.reshape(6, -1) * (w @ v)[:, 1]
    np.testing.assert_allclose(by_id(out).reshape(6, -1), wanted, rtol=1e-4, atol=1e-5)
    same = {"source": x, "args": (w, v), "target": 1}
    with pytest.raises(dataset.DifferentRunError, match="model: "):
        attribute(out, explainer=functools.partial(explain, scale=3.0), **same)
    assert attribute(out, explainer=functools.partial(explain, scale=2.0), **same).new == 0


@pytest.mark.parametrize(("dtype", "unit"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_half_the_space_with_its_error(out, dtype, unit):
    x, labels = samples(60)
    summary = attribute(out, dtype=dtype)
    found, wanted = by_id(out), relevance(weights(), x, labels)
    assert found.dtype == (np.float16 if dtype == "float16" else ml_dtypes.bfloat16)
    worst = np.abs(found.astype(float) - wanted).max((1, 2)) / np.abs(wanted).max((1, 2))
    assert summary.error == pytest.approx(worst.max(), rel=1e-2)
    assert 0 < summary.error <= unit
    assert "rounding" in str(summary)


def test_a_store_states_its_error(out):
    summary = attribute(out, dtype="bfloat16")
    opened = dataset.open_relevance(out)
    assert opened.error == summary.error > 0
    assert f"rounding: at most {opened.error:.2g} of a sample's largest" in repr(opened)
    attribute(out.with_name("whole"))
    whole = dataset.open_relevance(out.with_name("whole"))
    assert whole.error is None
    assert "rounding" not in repr(whole)
    # against the store that was not rounded, in units of each sample's largest relevance
    exact, found = whole.relevance[:], opened.relevance[:].astype(np.float32)
    worst = (np.abs(exact - found).max((1, 2)) / np.abs(exact).max((1, 2))).max()
    np.testing.assert_allclose(opened.error, worst, rtol=1e-3)


def test_a_relevance_beyond_float16_fails_alone(out):
    x, labels = samples(10)
    x[4] *= 1e6
    summary = attribute(out, source=(x, labels), dtype="float16")
    assert summary.failed == {4: "the relevance is outside the range of float16"}
    assert summary.samples == 9


# Sources


def elements(x, labels):
    return [(f"n{i}", a, t) for i, (a, t) in enumerate(zip(x, labels, strict=True))]


def sources(x, labels, tmp_path):
    import grain

    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["input"], file["target"] = x, labels
        file["id"] = [f"n{i}" for i in range(len(x))]
    np.savez(tmp_path / "d.npz", input=x, target=labels)
    items = elements(x, labels)
    dicts = [{"id": i, "input": a, "target": t} for i, a, t in items]
    loader = grain.DataLoader(
        data_source=dicts,
        sampler=grain.samplers.IndexSampler(len(x), grain.sharding.NoSharding(), num_epochs=1),
        worker_count=0,
    )
    return {
        "arrays": (x, labels),
        "jax arrays": (jnp.asarray(x), jnp.asarray(labels)),
        "mapping": {"input": x, "target": labels, "id": [f"n{i}" for i in range(len(x))]},
        "list": items,
        "generator": (item for item in items),
        "dictionaries": iter(dicts),
        "grain MapDataset": grain.MapDataset.source(dicts),
        "grain IterDataset": grain.MapDataset.source(dicts).to_iter_dataset(),
        "grain DataLoader": loader,
        "HDF5": tmp_path / "d.h5",
        "npz": tmp_path / "d.npz",
    }


@pytest.mark.parametrize(
    "name",
    [
        "arrays", "jax arrays", "mapping", "list", "generator", "dictionaries", "grain MapDataset",
        "grain IterDataset", "grain DataLoader", "HDF5", "npz",
    ],
)  # fmt: skip
def test_sources(out, tmp_path, name):
    x, labels = samples(21)
    summary = attribute(out, source=sources(x, labels, tmp_path)[name])
    opened = dataset.open_relevance(out)
    assert summary.samples == 21
    order = [int(str(i).removeprefix("n")) for i in opened.ids]
    assert order == list(range(21))
    again = attribute(out, source=sources(x, labels, tmp_path)[name])  # resumes by id
    assert (again.new, again.samples) == (0, 21)
    wanted = relevance(weights(), x, labels)
    np.testing.assert_allclose(opened.relevance[:], wanted, rtol=1e-5, atol=1e-5)


def test_hdf5_with_other_names_and_missing_data_sets(tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["images"], file["labels"] = samples(5)
        source = dataset.hdf5(file, input="images", target="labels")
        assert [s.target for s in source.fetch([1, 2])] == samples(5)[1][1:3].tolist()
    with pytest.raises(KeyError, match=r"no data set 'input', only \['images', 'labels'\]"):
        dataset.hdf5(tmp_path / "d.h5")


def images(folder):
    rng = np.random.default_rng(0)
    for name, size in (("b.png", (4, 3)), ("cat/a.png", (4, 3)), ("cat/c.jpg", (8, 8))):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(path)
    (folder / "broken.png").write_bytes(b"not an image")
    (folder / "notes.txt").write_text("not an image either")


def test_a_folder_of_images(out, tmp_path):
    images(tmp_path / "photos")
    source = dataset.images(tmp_path / "photos", labels=lambda name: int(name.startswith("cat/")))
    summary = attribute(
        out, source=source, preprocess=lambda image: image.mean(-1).astype(np.float32)
    )
    opened = dataset.open_relevance(out)
    assert opened.ids == ["b.png", "cat/a.png"]
    assert opened["label"][:].tolist() == [0, 1]
    assert set(summary.failed) == {"broken.png", "cat/c.jpg"}
    assert "cannot identify image file" in summary.failed["broken.png"]
    assert "shape (8, 8)" in summary.failed["cat/c.jpg"]
    with pytest.raises(FileNotFoundError, match="contains no images"):
        dataset.images(out)


def gradient(mode):
    """Gray pixels from black to white, as Pillow holds them."""
    steps = np.array([[0, 128, 257, 1000, 32768, 65535]] * 4)
    dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    return Image.fromarray(steps.astype(dtype))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.ppm"])
def test_16_bits_are_scaled_to_8(tmp_path, name):
    gradient("I;16").convert("I" if name == "a.ppm" else "I;16").save(tmp_path / name)
    (sample,) = dataset.images(tmp_path).fetch([0])
    assert sample.input.dtype == np.uint8
    assert sample.input.shape == (4, 6, 3)
    wanted = [0, 0, 1, 4, 128, 255]  # rint(v / 257), by hand
    assert sample.input[1].tolist() == [[v] * 3 for v in wanted]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_unknown_range_fail_with_a_reason(out, tmp_path, mode):
    gradient(mode).save(tmp_path / "a.tif")
    Image.new("RGB", (6, 4)).save(tmp_path / "b.png")
    source = dataset.images(tmp_path, labels=lambda _: 0)
    preprocess = lambda image: image[:, :3, 0].astype(np.float32)  # noqa: E731
    failed = attribute(out, source=source, preprocess=preprocess).failed
    assert failed["a.tif"].startswith(
        f"ValueError: the range of pixel values is unknown for mode '{mode}'"
    )


def test_bytes_are_explained_like_the_floats_that_they_are(out, tmp_path):
    x, labels = samples(20)
    pixels = (40 * np.abs(x)).astype(np.uint8)
    attribute(out, source=(pixels, labels))
    attribute(
        tmp_path / "floats", source=(pixels, labels), preprocess=lambda a: a.astype(np.float32)
    )
    np.testing.assert_allclose(by_id(out), by_id(tmp_path / "floats"), rtol=1e-5, atol=1e-6)


class Broken:
    """A random-access source whose first 50 samples cannot be read."""

    def __len__(self):
        return 60

    def __getitem__(self, i):
        if i < 50:
            raise OSError("torn")
        return i, samples(60)[0][i], samples(60)[1][i]


def test_broken_samples_at_the_start_are_skipped(out, tmp_path):
    summary = attribute(out, source=Broken())
    assert (summary.samples, len(summary.failed)) == (10, 50)
    for i in range(40):
        (tmp_path / f"{i:03}.png").write_bytes(b"not an image")
    Image.new("RGB", (3, 4), "red").save(tmp_path / "photo.png")
    source = dataset.images(tmp_path, labels=lambda _: 0)
    preprocess = lambda image: image[..., 0].astype(np.float32)  # noqa: E731
    summary = attribute(tmp_path / "pictures", source=source, preprocess=preprocess)
    assert (summary.samples, len(summary.failed)) == (1, 40)
    items = (Broken()[i] if i >= 50 else None for i in range(60))  # None: filtered by grain
    assert attribute(tmp_path / "filtered", source=Broken(), limit=55).samples == 5
    with pytest.raises(ValueError, match="no readable sample among its first 32"):
        attribute(tmp_path / "stream", source=items)


def test_failed_samples_are_listed_and_the_others_are_explained(out):
    x, labels = samples(30)
    items = [list(e) for e in elements(x, labels)]
    items[3][1] = np.full(SHAPE, np.nan, np.float32)
    items[5][1] = np.zeros((2, 2), np.float32)
    items[7][1] = np.full(SHAPE, 3e38, np.float32)
    items[9][2] = CLASSES
    items[11][0] = "n10"
    items[13] = [b"bytes"]
    items[15][1] = np.zeros(SHAPE, np.complex64)
    items[17][2] = None
    failed = attribute(out, source=[tuple(item) for item in items]).failed
    opened = dataset.open_relevance(out)
    assert len(opened.ids) == 30 - 8
    assert opened.failed == failed
    good = [int(name[1:]) for name in opened.ids]
    wanted = relevance(weights(), x, labels)[good]
    np.testing.assert_allclose(opened.relevance[:], wanted, rtol=1e-5, atol=1e-5)
    reasons = failed
    assert reasons["n3"] == "the input contains NaN or infinity"
    assert reasons["n5"] == "input has shape (2, 2) and dtype float32, expected (4, 3) and float32"
    assert reasons["n7"] == "the output or the relevance contains NaN or infinity"
    assert reasons["n9"] == "target 5 is out of range: the output has 5 classes, 0 to 4"
    assert "complex64" in reasons["n15"]
    assert "target is" in reasons["n17"]


def test_an_id_that_comes_twice(out):
    x, labels = samples(4)
    items = elements(x, labels)
    items[2] = ("n1", *items[2][1:])
    failed = attribute(out, source=iter(items)).failed
    assert failed == {"n1 (duplicate)": "an earlier sample has the same id"}
    with pytest.raises(ValueError, match="ids must be unique: 'a' is repeated"):
        dataset.arrays(x, ids=["a", "b", "a", "c"])


def test_failed_samples_are_retried_on_request_only(out):
    x, labels = samples(20)
    broken = x.copy()
    broken[4] = np.nan
    attribute(out, source=(broken, labels))
    assert attribute(out, source=(x, labels)).failed.keys() == {4}
    summary = attribute(out, source=(x, labels), retry_failed=True)
    assert (summary.new, summary.failed) == (1, {})
    check(out, 20)


def test_the_usual_shape_is_that_of_most(out):
    x, labels = samples(20)
    items = elements(x, labels)
    items[0] = ("n0", np.zeros((9, 9), np.float32), 0)
    assert attribute(out, source=iter(items)).failed.keys() == {"n0"}


def test_limit(out):
    assert attribute(out, 60, limit=10).samples == 10
    assert attribute(out, 60, limit=25).new == 15


# Reading


def test_lazy_arrays(out):
    attribute(out, 60)
    opened = dataset.open_relevance(out)
    array, whole = opened.relevance, opened.relevance[:]
    assert (array.shape, array.ndim, array.size, len(array)) == ((60, *SHAPE), 3, 720, 60)
    assert array.dims == opened.dims == ("sample", "dim_0", "dim_1")
    for key in (
        3, -1, slice(5, 40), slice(None, None, -7), slice(50, 10, -3), [4, 2, 2], np.arange(0, 60, 9),
        np.arange(60) % 3 == 0, (slice(2, 5), 1), (7, slice(None), 0), Ellipsis, (..., 1), (),
        slice(4, 4), [],
    ):  # fmt: skip
        np.testing.assert_array_equal(array[key], whole[key])
    np.testing.assert_array_equal(np.asarray(array), whole)
    np.testing.assert_array_equal(np.stack(list(array)), whole)
    assert np.asarray(array, np.float64).dtype == np.float64
    assert opened.find([7, 3]).tolist() == [opened.ids.index(7), opened.ids.index(3)]
    assert "relevance (sample: 60, dim_0: 4, dim_1: 3) float32" in repr(opened)
    with pytest.raises(
        IndexError, match="sample 60 is out of range: there are 60 samples, 0 to 59"
    ):
        array[60]
    with pytest.raises(KeyError, match="no relevance for 60"):
        opened.find([60])
    with pytest.raises(KeyError, match="no array 'relevanc': the nearest are 'relevance'"):
        opened["relevanc"]


def test_zarr_reads_the_same(out):
    attribute(out, 60, dims=("height", "width"))
    opened = dataset.open_relevance(out)
    group = zarr.open_group(out, mode="r")
    for name in opened:
        np.testing.assert_array_equal(group[name][:], opened[name][:])
        assert group[name].metadata.dimension_names == opened[name].dims
    assert opened.dims == ("sample", "height", "width")
    assert group["relevance"].chunks == (8, *SHAPE)
    assert [c.to_dict()["name"] for c in group["relevance"].metadata.codecs] == [
        "bytes", "zstd", "crc32c"
    ]  # fmt: skip


def test_a_store_can_be_a_source(out, tmp_path):
    attribute(out, 60)
    opened = dataset.open_relevance(out)
    source = dataset.arrays(opened.relevance, opened["target"], opened.ids)
    attribute(tmp_path / "second", source=source)
    x, labels = samples(60)
    wanted = relevance(weights(), relevance(weights(), x, labels).astype(np.float32), labels)
    np.testing.assert_allclose(by_id(tmp_path / "second"), wanted, rtol=1e-3, atol=1e-3)


def test_the_contents_of_the_manifest(out):
    attribute(out, 20)
    held = json.loads((out / "manifest.json").read_text())
    assert held["composite"]["text"] == "lrp0"
    assert "hidden" in held["plan"]["text"]
    assert held["versions"]["jaxlrp"] == lrp.__version__
    assert held["target"]["text"] == "None"
    lines = [
        json.loads(line.partition(" ")[2])
        for path in (out / "journal").iterdir()
        for line in path.read_text().splitlines()
    ]
    chunks = [line for line in lines if line["kind"] == "chunk"]
    assert sorted(i for line in chunks for i in line["ids"]) == list(range(20))
    assert all(len(digest) == 32 for line in chunks for _, digest in line["files"].values())


# Batches and memory


def test_the_batch_size_is_chosen_by_memory():
    def needs(batch):
        return 1_000 + 10 * batch

    assert memory.choose(needs, 3_000, 1_000, fraction=1.0) == 128
    assert memory.choose(needs, 1_700, 1_000, fraction=1.0) == 64
    assert memory.choose(needs, 500, 1_000, fraction=1.0) == 1  # too small for any: the least
    assert memory.choose(needs, 10**9, 1_000) == 256
    assert memory.choose(needs, 10**9, 1_000, step=3) == 192
    assert memory.choose(lambda _: None, 10**9, 0, step=2) == 8
    assert memory.available(jax.devices()[0]) > 2**20


def test_a_run_chooses_its_batch_by_memory(out, monkeypatch):
    """With less memory, a smaller batch."""
    assert attribute(out, 600, batch_size=None).batch_size == 256
    monkeypatch.setattr(memory, "available", lambda _: 20_000)
    small = attribute(out.with_name("small"), 20, batch_size=None)
    assert 1 <= small.batch_size < 256
    check(out.with_name("small"), 20)


def test_a_run_of_few_samples_takes_a_small_batch_and_the_store_keeps_its_own(out):
    sizes = []
    for count, limit in [(20, 3), (20, None), (600, None)]:
        summary = attribute(out, count, limit=limit, batch_size=None)
        assert (summary.traces, summary.compilations) == (1, 1)
        sizes.append(summary.batch_size)
        assert manifest.read(out).batch_size == 256
    assert sizes == [4, 32, 256]  # 3, 17 and 580 samples
    check(out, 600)


def test_the_program_whose_memory_was_measured_is_not_compiled_again(out, monkeypatch):
    compiled, plain = [], jax.stages.Lowered.compile

    def count(self, *args, **kwargs):
        compiled.append(self)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(jax.stages.Lowered, "compile", count)
    attribute(out, 3, batch_size=None)
    assert len(compiled) == 1


def test_the_size_of_a_batch_is_capped_by_what_is_left():
    found = [memory.capped(64, left, step) for left, step in [(0, 1), (5, 1), (64, 1), (65, 1)]]
    assert found == [4, 8, 64, 64]
    assert memory.capped(192, 13, 3) == 24
    assert memory.capped(64, None) == 64


def test_a_store_is_resumed_with_another_batch_size(out):
    attribute(out, 60, limit=20)
    assert attribute(out, 60, batch_size=5).batch_size == 5
    check(out, 60)


def test_the_limit_of_a_container(tmp_path):
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert memory._cgroup(tmp_path) == 2000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._cgroup(tmp_path) is None


def test_prefetch_is_bounded_and_raises_errors():
    read = []

    def items():
        for i in range(50):
            read.append(i)
            yield i
        raise OSError("gone")

    ahead = threads.Prefetch(items(), 2)
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    assert len(read) <= 6 + 1
    with pytest.raises(OSError, match="gone"):
        list(ahead)
    ahead.close()


def test_errors_in_the_background_are_raised():
    def fail(item):
        raise OSError(f"no room for {item}")

    behind = threads.Background(fail, 2)
    behind.put(1)
    with pytest.raises(OSError, match="no room for 1"):
        behind.finish()


def test_reading_computing_and_writing_overlap(out, monkeypatch):
    """By events, not by time: a batch is computed once the next is read, written once that is computed."""
    x, labels = samples(80)
    batches = 5
    read = [threading.Event() for _ in range(batches)]
    computed = [threading.Event() for _ in range(batches)]

    def items():
        for i in range(80):
            if i % 16 == 15:
                read[i // 16].set()
            yield i, x[i], labels[i]

    put, add = placement.Placement.put, store.Writer.add
    begun, written = iter(range(batches)), iter(range(batches))
    seen = []

    def put_late(self, tree):
        number = next(begun)
        computed[number].set()
        if number + 1 < batches:
            seen.append(read[number + 1].wait(20))
        return put(self, tree)

    def add_late(self, *rows):
        following = next(written) + 1
        if following < batches:
            seen.append(computed[following].wait(20))
        add(self, *rows)

    monkeypatch.setattr(placement.Placement, "put", put_late)
    monkeypatch.setattr(store.Writer, "add", add_late)
    attribute(out, source=items())
    assert seen == [True] * 2 * (batches - 1)
    monkeypatch.undo()
    assert sorted(dataset.open_relevance(out).ids) == list(range(80))


def test_the_batch_is_donated():
    """Relevance has the input's shape: the program may write it where the input was."""
    x, labels = samples(16)
    w = weights()
    called = program.call(lrp.explain(network, LRP0, argnums=1), (w,))
    spec = reading.spec_of(dataset.Sample(0, x[0], labels[0]))
    given = jax.ShapeDtypeStruct((2,), np.int32)
    chosen = policy.policy(None, given, lambda: None)
    placed = placement.place(jax.sharding.Mesh(jax.devices()[:1], ("batch",)), None)
    planned = program.Program(
        called, chosen, None, spec, placed, None, None, placed.parameters(called.parameters)
    )
    planned.look()
    compiled = planned.compile(16)
    assert "input_output_alias" in compiled.as_text().split("\n")[0]
    assert compiled.memory_analysis().alias_size_in_bytes == x.nbytes
    batch, *rest = placed.put((x, labels.astype(np.int32), {}))
    result = compiled(planned.parameters, batch, tuple(rest))
    assert batch.is_deleted()
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((planned.parameters, rest)))
    wanted = relevance(w, x, labels)
    np.testing.assert_allclose(result["relevance"], wanted, rtol=1e-5, atol=1e-5)


def test_threads_keep_the_order(out):
    x, labels = samples(40)
    import time

    def preprocess(a):
        time.sleep(0.002 * float(abs(a[0, 0]) % 1))
        return a

    attribute(out, source=(x, labels), preprocess=preprocess, workers=4)
    assert dataset.open_relevance(out).ids == list(range(40))


def test_part_of_several():
    parts = [fetching.Part(i, 3, 4) for i in range(3)]
    owners = [[p.index for p in parts if p.has(i)] for i in range(30)]
    assert all(len(owner) == 1 for owner in owners)
    assert [owner for (owner,) in owners[:13]] == [0] * 4 + [1] * 4 + [2] * 4 + [0]


def parts(items, count):
    """What each of several processes reads of a source."""
    return [
        list(
            fetching.fetch(
                resolve.as_source(items),
                skip=lambda _: False,
                part=fetching.Part(p, count, 4),
            )
        )
        for p in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_id_that_comes_twice_in_a_list_is_read_by_one_process(count):
    x, labels = samples(24)
    items = [(i % 20, x[i], labels[i]) for i in range(24)]  # 0 to 3 come again, in another part
    found = [sample for part in parts(items, count) for sample in part]
    good = [sample for sample in found if isinstance(sample, dataset.Sample)]
    assert sorted(sample.id for sample in good) == list(range(20))
    assert all((sample.input == x[sample.id]).all() for sample in good)
    failed = sorted(sample.id for sample in found if not isinstance(sample, dataset.Sample))
    assert failed == list(range(4))


# Errors, progress, the command line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"explainer": 3}, "explainer must be callable"),
        ({"explainer": lambda x: x}, "or a function with the keyword argument target"),
        ({"args": 3}, "args must be a sequence such as (variables,), got 3"),
        ({"preprocess": "resize"}, "preprocess must be a function of one input, got 'resize'"),
        ({"out": 3}, "output must be a path, got 3"),
        ({"source": np.float32(3)}, "must have the samples along axis 0"),
        (
            {"explainer": lrp.explain(network, argnums=(0, 1))},
            "a data set has one explained argument",
        ),
        ({"args": ()}, "args must contain the 1 arguments before"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        (
            {"dtype": "int8"},
            "dtype must be None or one of 'float32', 'float16', 'bfloat16', 'float64', got 'int8'",
        ),
        ({"progress": "yes"}, "progress must be one of 'auto', 'bar', 'log', 'none', got 'yes'"),
        ({"memory_fraction": 2}, "memory_fraction must be > 0 and <= 1, got 2"),
        ({"source": 3}, "source must be an array"),
        ({"source": []}, "has no readable sample: it is empty"),
        (
            {"source": [(1, 2)]},
            "the first is 'item 0': ValueError: a tuple must be",
        ),
        ({"source": {"x": 1}}, 'must have the key "input"'),
        ({"source": (np.ones((3, 2)), np.ones(2))}, "got the shapes inputs (3, 2), targets (2,)"),
        ({"source": "nowhere"}, "the file or folder 'nowhere' does not exist"),
        ({"target": np.arange(60)}, "pass one target per sample in the source"),
        ({"target": []}, "target is an empty list"),
        ({"target": dataset.Top(9)}, "needs at least 9 classes along the last axis"),
        ({"source": samples(4)[0], "target": 9}, "target 9 is out of range: the output has 5"),
        ({"source": samples(4)[0], "target": None}, "target is missing"),
        ({"source": samples(4)[0], "target": dataset.Given()}, "but the source has none"),
        ({"conditions": {"hidden": np.ones(16)}}, "conditions must be a list of conditions"),
        ({"dims": ("a",)}, "dims must name the 2 axes"),
        (
            {"explainer": lrp.explain(lambda w, x: x.sum(), argnums=1), "target": lambda z: z},
            "'output' has no batch axis",
        ),
        ({"mesh": 3}, "mesh must be a jax.sharding.Mesh or None"),
        ({"chunk_size": 0}, "chunk_size must be an integer >= 1, got 0"),
        ({"dims": "height"}, "dims must be a sequence of strings, got 'height'"),
        ({"workers": 0}, "workers must be an integer >= 1, got 0"),
        ({"readers": {"csv": len}}, 'file extensions such as ".csv" to functions, got the key'),
        ({"readers": {".CSV": len}}, "write '.csv'"),
        ({"readers": {".csv": 3}}, "the reader of '.csv' must be a function of a path, got 3"),
    ],
)
def test_mistakes(out, changes, message):
    with pytest.raises(
        (TypeError, ValueError, OSError, IndexError, NotImplementedError),
        match=message.replace("(", r"\(").replace(")", r"\)"),
    ):
        attribute(**{"out": out} | changes)


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'h5py.*pip install "jaxlrp\[dataset\]"'):
        dataset.hdf5(tmp_path / "d.h5")


def test_progress_in_words(caplog, capsys):
    shown = progress.Progress("log", 10)
    with caplog.at_level("INFO", "jaxlrp.dataset"):
        shown.advance(4, 1)
        shown.close()
    assert "5 of 10 samples, 1 failed" in caplog.text
    assert "s left" in caplog.text
    bar = progress.Progress("bar", 10)
    bar.advance(10)
    bar.close()
    assert "10/10" in capsys.readouterr().err


def test_quiet_says_nothing(out, capsys):
    attribute(out, 20)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


class Tiny:
    """A model for the command line, small enough to be a test."""

    class model:
        @staticmethod
        def apply(w, x):
            return x.mean((1, 2)) @ w

    variables = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    input_range = (0.0, 255.0)
    labels = ("a", "b", "c", "d")

    @staticmethod
    def preprocess(image):
        return image[None, :4, :3].astype(np.float32)


def tiny():
    return Tiny


def test_the_command_line(out, tmp_path, capsys):
    images(tmp_path / "photos")
    words = ["--model", "test_dataset:tiny", "--composite", "all_epsilon", "--batch-size", "2"]
    begin = ["attribute", str(tmp_path / "photos"), "-o", str(out), *words, "--target", "top2"]
    assert main([*begin, "--limit", "2"]) == 0
    assert "samples     1 (1 new)" in capsys.readouterr().out
    assert main(begin) == 0  # a larger limit goes on
    assert main(["verify", str(out)]) == 0
    assert main(["info", str(out), "--plan"]) == 0
    said = capsys.readouterr().out
    assert "<relevance of 3 samples" in said
    assert "Top(k=2)" in said
    assert "Epsilon(" in said
    damaged = next(p for p in (out / "relevance" / "c").rglob("*") if p.is_file())
    damaged.write_bytes(damaged.read_bytes()[:-3])
    assert main(["verify", str(out)]) == 1
    assert "damaged 1" in capsys.readouterr().out
    assert main(["resume", str(out), *words[:2], "--progress", "log", "--batch-size", "2"]) == 0
    assert "repaired    1 damaged chunk" in capsys.readouterr().out
    assert main(["verify", str(out)]) == 0
    assert main([*begin[:-1], "1"]) == 2
    assert "target policy: 1 (" in capsys.readouterr().err
    assert main(["info", str(tmp_path)]) == 2
    assert main([*begin[:-1], "best"]) == 2
    assert "--target: unknown class 'best'" in capsys.readouterr().err


def test_resume_of_a_run_from_python(out, capsys):
    attribute(out, 20)
    assert main(["resume", str(out)]) == 2
    assert "was not started from the command line" in capsys.readouterr().err


def test_importing_needs_no_extra():
    blocked = "import sys; sys.modules.update(dict.fromkeys(('h5py','grain','zarr','PIL')));"
    code = f"{blocked} import jaxlrp.dataset"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
