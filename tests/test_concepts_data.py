"""Concepts over data sets: the largest of each, statistics, and the files of zennit-crp."""

import functools
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxlrp as lrp
from concept_runs import EXPLAIN, FAMILIES, SAMPLES, WAYS, collect, states
from dataset_runs import CLASSES, LRP0, network, samples, weights
from jaxlrp import concepts, dataset
from jaxlrp.concepts import opened as opening

ROOT = Path(__file__).parent.parent


def run(*words, devices=1):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "tests/concept_runs.py", *map(str, words)], cwd=ROOT, text=True,
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": paths}, capture_output=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


# The state


def by_hand(scores, rows, k):
    """Largest first, of equal ones the lowest row, without NaN: rows of each concept."""
    found = []
    for column in scores.T:
        there = [i for i in range(len(rows)) if not np.isnan(column[i])]
        best = sorted(there, key=lambda i: (-column[i], rows[i]))[:k]
        found.append([rows[i] for i in best] + [-1] * (k - len(best)))
    return found


# few values, so that many are equal
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, 2.0, -1.0, float("nan"), float("inf"), float("-inf")])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_split_gives_the_same_state(data):
    count, k = data.draw(st.integers(0, 12)), data.draw(st.integers(1, 5))
    numbers = data.draw(st.lists(NUMBERS, min_size=2 * count, max_size=2 * count))
    scores = np.array(numbers, np.float32).reshape(count, 2)
    rows = np.array(data.draw(st.permutations(range(3, 3 + count))), np.int64)
    positions = np.arange(2 * count, dtype=np.int32).reshape(count, 2)
    whole = concepts.TopK.of(scores, rows, k, positions=positions)
    assert whole.rows.tolist() == by_hand(scores, rows.tolist(), k)
    assert ((whole.values == -np.inf) | (whole.rows >= 0)).all()

    group = np.array(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)), int)
    parts = [
        concepts.TopK.of(scores[m], rows[m], k, positions=positions[m])
        for m in (group == g for g in data.draw(st.permutations(range(4))))
    ]
    left = functools.reduce(lambda a, b: a.merge(b), parts)
    right = functools.reduce(lambda a, b: b.merge(a), reversed(parts))
    for found in (left, right):
        for name in ("values", "rows", "positions"):
            assert getattr(found, name).tobytes() == getattr(whole, name).tobytes(), name


def test_the_state_is_traced_as_it_is_computed():
    rng = np.random.default_rng(0)
    scores = rng.integers(-3, 3, (20, 4)).astype(np.float32)
    scores[3] = np.nan
    rows = np.r_[np.arange(18), -1, -1]  # two of padding
    expected = concepts.TopK.of(scores[:18], rows[:18], 25)
    assert not np.isnan(expected.values).any()

    @jax.jit
    def merged(scores, rows):
        first, second = (concepts.TopK.of(scores[s], rows[s], 25) for s in (slice(9), slice(9, 20)))
        return second.merge(first)

    same(merged(scores, rows), expected)


def test_relevance_and_activation_by_hand(tmp_path):
    """Activations 3, 2, 1, .5 of one unit, with weights +1 and -1 for the classes 0 and 1."""
    explain = lrp.explain(lambda x: jax.nn.relu(x) @ jnp.array([[1.0, -1.0]]))
    x, labels = np.array([[3.0], [2.0], [1.0], [0.5]], np.float32), np.array([1, 0, 0, 1])
    units = concepts.Channels("relu", axis=-1)
    concepts.collect(explain, units, (x, labels), tmp_path / "out", progress="none")
    opened = concepts.open_scores(tmp_path / "out")
    found = opened.top("relu", k=4, normalized=False)
    assert found.rows.tolist() == [[1, 2, 3, 0]]
    np.testing.assert_allclose(found.values, [[2, 1, -0.5, -3]], rtol=1e-5)
    assert opened.top("relu", k=4, by="activation", normalized=False).rows.tolist() == [
        [0, 1, 2, 3]
    ]
    assert opened.top("relu", k=2, normalized=False, per_class=True).rows.tolist() == [
        [[1, 2]],
        [[3, 0]],
    ]


# A data set


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    out = tmp_path_factory.mktemp("scores") / "store"
    summary = collect(out)
    assert (summary.samples, summary.failed, summary.traces) == (SAMPLES, {}, 1)
    assert summary.residual is None  # scores are not the relevance of the input
    return out


@pytest.fixture(scope="module")
def expected():
    x, labels = samples(SAMPLES)
    return concepts.scores(EXPLAIN, FAMILIES)(weights(), x, target=jnp.asarray(labels))


def test_scores_are_stored(store, expected):
    opened = concepts.open_scores(store)
    assert list(opened) == ["hidden", "pairs"]
    assert (opened.ids, opened.classes) == (list(range(SAMPLES)), CLASSES)
    np.testing.assert_array_equal(opened.targets, samples(SAMPLES)[1])
    for name in opened:
        found = opened[name][:]
        assert found.position.dtype == found.activation_position.dtype == np.int32
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5),
            found,
            expected[name],
        )
    assert opened["hidden"].concepts == 16
    assert "hidden: 16 concepts" in repr(opened)


def test_what_was_explained_is_in_the_manifest(store):
    held = json.loads((store / "manifest.json").read_text())
    assert held["composite"]["text"] == "epsilon_plus"
    assert "not known" not in held["plan"]["text"]
    assert "residual" not in held["members"]
    explain = EXPLAIN.replace(composite=LRP0)
    with pytest.raises(dataset.DifferentRunError, match="composite: lrp0"):
        concepts.collect(
            explain, FAMILIES, samples(SAMPLES), store, args=(weights(),), progress="none",
            store=dataset.StoreOptions(chunk_size=8),
        )  # fmt: skip


@pytest.mark.parametrize(("by", "normalized"), WAYS)
def test_the_largest_of_each_concept(store, by, normalized, monkeypatch):
    monkeypatch.setattr(opening, "_BLOCK", 2000)  # several blocks
    opened = concepts.open_scores(store)
    scores, labels = getattr(opened["hidden"], by)[:], samples(SAMPLES)[1]
    if normalized:
        scores = np.asarray(concepts.normalize(scores))
    found = opened.top("hidden", k=30, by=by, normalized=normalized, per_class=True)
    assert found.rows.shape == (CLASSES, 16, 30)
    for c in range(CLASSES):
        (rows,) = np.nonzero(labels == c)
        assert found[c].rows.tolist() == by_hand(scores[rows], rows.tolist(), 30)
    whole = opened.top("hidden", k=30, by=by, normalized=normalized)
    assert whole.rows.tolist() == by_hand(scores, list(range(SAMPLES)), 30)
    place = "activation_position" if by.startswith("activation") else "position"
    places = getattr(opened["hidden"], place)[:]
    np.testing.assert_array_equal(whole.positions, places[whole.rows, np.arange(16)[:, None]])
    chosen = opened.top("hidden", k=30, by=by, normalized=normalized, per_class=[3, 1])
    same(chosen, found[[3, 1]])


def test_statistics_of_classes(store, expected, monkeypatch):
    monkeypatch.setattr(opening, "_BLOCK", 2000)
    opened, labels = concepts.open_scores(store), samples(SAMPLES)[1]
    found = opened.statistics("hidden")
    scores = expected["hidden"]
    assert found.count.tolist() == np.bincount(labels, minlength=CLASSES).tolist()
    for c in range(CLASSES):
        for moments, values in [
            (found.relevance, scores.relevance),
            (found.activation, scores.activation),
            (found.normalized, scores.normalized),
        ]:
            of = np.asarray(values, np.float64)[labels == c]
            np.testing.assert_allclose(moments.mean[c], of.mean(axis=0), rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(moments.variance[c], of.var(axis=0), rtol=1e-4, atol=1e-6)
    whole = opened.statistics("hidden", per_class=False)
    np.testing.assert_allclose(
        whole.prototypes, np.mean(scores.normalized, axis=0), rtol=1e-5, atol=1e-6
    )


def test_statistics_merge_up_to_rounding():
    rng = np.random.default_rng(0)
    values = 1e6 + rng.normal(size=(50, 3))  # where a sum of squares would lose the variance
    parts = [concepts.Moments.of(values[a:b]) for a, b in itertools.pairwise([0, 0, 1, 20, 50])]
    for order in itertools.permutations(parts):
        found = functools.reduce(lambda a, b: a.merge(b), order)
        assert found.count == 50
        np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-15)
        np.testing.assert_allclose(found.variance, values.var(axis=0), rtol=1e-9)
    none = concepts.Statistics.of(values[:0], values[:0])
    assert np.isnan(none.prototypes).all()


def test_chunks_and_batches_do_not_matter(store, tmp_path):
    collect(tmp_path / "out", 50, chunk_size=5, batch_size=16)
    collect(tmp_path / "out", chunk_size=5, batch_size=16)  # widened
    same(states(tmp_path / "out"), states(store))


def test_rows_are_in_the_order_of_ids(store, tmp_path):
    """Whatever the order in which samples come: here backwards, with a damaged chunk computed again."""
    x, labels = samples(SAMPLES)
    backwards = [(i, x[i], labels[i]) for i in reversed(range(SAMPLES))]
    out = tmp_path / "out"
    collect(out, source=backwards)
    damaged = next(p for p in sorted(out.glob("relevance.hidden.position/c/**/*")) if p.is_file())
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    assert collect(out, source=backwards).repaired == 1
    opened = concepts.open_scores(out)
    assert opened.ids == list(range(SAMPLES))
    np.testing.assert_array_equal(opened.targets, labels)
    same(opened["hidden"][5:9], concepts.open_scores(store)["hidden"][5:9])
    same(states(out), states(store))


def test_targets_that_are_predicted(tmp_path):
    x, _ = samples(20)
    collect(tmp_path / "out", source=x, target=lrp.targets.predicted)
    opened = concepts.open_scores(tmp_path / "out")
    predicted = np.asarray(network(weights(), x)).argmax(axis=-1)
    np.testing.assert_array_equal(opened.targets, predicted)
    wanted = concepts.scores(EXPLAIN, FAMILIES)(weights(), x, target=jnp.asarray(predicted))
    np.testing.assert_allclose(
        opened["hidden"].relevance[:], wanted["hidden"].relevance, rtol=1e-5, atol=1e-5
    )


def test_scores_in_fewer_bits(tmp_path, expected):
    out, options = tmp_path / "out", dataset.StoreOptions(dtype="float16")
    collect(out, store=options)
    found = concepts.open_scores(out)["hidden"]
    assert (found.relevance.dtype, found.position.dtype) == (np.float16, np.int32)
    np.testing.assert_allclose(
        found.relevance[:], expected["hidden"].relevance, rtol=1e-2, atol=1e-2
    )
    assert concepts.open_scores(out).top("hidden", k=3).values.dtype == np.float32


def test_errors(store, tmp_path):
    opened = concepts.open_scores(store)
    with pytest.raises(
        ValueError, match=r"k must be <= 120, the number of samples in the store, got 121"
    ):
        opened.top("hidden", k=121)
    with pytest.raises(KeyError, match=r"no concepts 'hiden': the nearest are 'hidden'"):
        opened.top("hiden")
    with pytest.raises(ValueError, match=r"by must be one of 'relevance', .* got 'gradient'"):
        opened.top("hidden", by="gradient")  # pyright: ignore
    with pytest.raises(
        ValueError, match=r"per_class must be classes with samples, 0, 1, 2, 3, 4, got 7"
    ):
        opened.statistics("hidden", per_class=[1, 7])
    with pytest.raises(
        TypeError, match="per_class must be True, False or a list of classes, got 3"
    ):
        opened.top("hidden", per_class=3)  # pyright: ignore
    with pytest.raises(TypeError, match="one target for each sample"):
        collect(tmp_path / "out", target=dataset.Top(2))
    with pytest.raises(ValueError, match="batch=None"):
        concepts.collect(
            EXPLAIN,
            concepts.Units("relu", batch=None),
            samples(9),
            tmp_path / "out",
            args=(weights(),),
        )
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="same classes, concepts and k"):
        opened.top("hidden", k=3).merge(opened.top("hidden", k=4))
    with pytest.raises(ValueError, match=r"scores must have shape \(samples, concepts\)"):
        concepts.TopK.of(np.ones((3, 2)), np.arange(2), 1)
    dataset.attribute_dataset(
        EXPLAIN, samples(9), tmp_path / "heat", args=(weights(),), progress="none"
    )
    with pytest.raises(
        dataset.StoreError, match="contains relevance of inputs, not scores of concepts"
    ):
        concepts.open_scores(tmp_path / "heat")
    collect(tmp_path / "none", source=samples(9)[0], target=lambda z: z)
    with pytest.raises(ValueError, match="per_class needs one class for each sample"):
        concepts.open_scores(tmp_path / "none").statistics("hidden")


# Faults and devices


def test_a_killed_run_gives_the_same_states(tmp_path):
    assert "2 kills of runs" in run("kill", tmp_path, "--kills", 2, "--seed", 0)


@pytest.mark.exhaustive
def test_many_kills(tmp_path):
    assert "30 kills of runs" in run("kill", tmp_path, "--kills", 30)


def test_eight_devices_are_equal_to_one(store, tmp_path):
    """States of the same scores are the same bits. The scores themselves agree up to the rounding of
    matrix products, whose order of sums XLA may choose by the size of the batch on each device.
    """
    run("run", tmp_path / "eight", devices=8)
    eight, one = concepts.open_scores(tmp_path / "eight"), concepts.open_scores(store)
    assert eight.ids == one.ids
    np.testing.assert_array_equal(eight.targets, one.targets)
    for name in one:
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5),
            eight[name][:], one[name][:],
        )  # fmt: skip
    for a, b in zip(states(tmp_path / "eight"), states(store), strict=True):
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        else:
            assert (a == b).mean() > 0.99  # two samples whose scores are almost equal may swap


# zennit-crp's files


@pytest.mark.parametrize("normalized", [True, False])
def test_files_of_zennit_crp(store, tmp_path, normalized):
    opened = concepts.open_scores(store)
    by = ("relevance", "activation_max")
    concepts.write_zennit(
        tmp_path, opened, layers={"hidden": "features.1"}, by=by, normalized=normalized
    )
    word = "normed" if normalized else "unnormed"
    assert {p.name for p in tmp_path.iterdir()} == {
        f"{mode}{kind}_{how}_{word}" for mode, how in (("Rel", "sum"), ("Act", "max"))
        for kind in ("Max", "Stats")
    }  # fmt: skip
    folder = tmp_path / f"RelMax_sum_{word}"
    held = [np.load(folder / f"features.1_{part}.npy") for part in ("data", "rel", "rf")]
    assert [(a.shape, a.dtype.name) for a in held] == [
        ((40, 16), "int64"), ((40, 16), "float32"), ((40, 16), "int64")
    ]  # fmt: skip
    targets = np.load(tmp_path / f"RelStats_sum_{word}" / "targets.npy")
    assert targets.astype(int).tolist() == list(range(CLASSES))
    for one in by:
        found = concepts.read_zennit(tmp_path, "features.1", by=one, normalized=normalized)
        same(found, opened.top("hidden", by=one, normalized=normalized))
        expected = opened.top("hidden", by=one, normalized=normalized, per_class=[2])[0]
        read = concepts.read_zennit(tmp_path, "features.1", by=one, normalized=normalized, target=2)
        same(read, jax.tree.map(lambda a, k=read.k: a[:, :k], expected))
        assert (expected.rows[:, read.k :] == -1).all()
    with pytest.raises(FileNotFoundError, match=r"no layer 'features\.2': .*'features\.1'"):
        concepts.read_zennit(tmp_path, "features.2", normalized=normalized)
    with pytest.raises(FileNotFoundError, match=r"no class of the layer 'features\.1' '9'"):
        concepts.read_zennit(tmp_path, "features.1", normalized=normalized, target=9)
