"""`jaxlrp.metrics.evaluate`: the same scores however it runs, tables by hand, and what is refused."""

from __future__ import annotations

import functools
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from PIL import Image

import evaluate_runs as runs
import jaxlrp as lrp
from jaxlrp import baselines, dataset, metrics
from jaxlrp.cli import main
from jaxlrp.metrics import controls, figures
from jaxlrp.metrics.metric import ComplexityMetric, FaithfulnessMetric, LocalizationMetric, metric

ROOT = Path(__file__).parent.parent


def evaluate(explainers=None, chosen=None, data=None, **more):
    x, y = runs.samples()
    given = {"args": (runs.weights(),), "batch_size": 4, "progress": "none"} | more
    return metrics.evaluate(
        runs.explainers() if explainers is None else explainers,
        runs.chosen() if chosen is None else chosen,
        (x, y) if data is None else data,
        **given,
    )


@metric
class Total(ComplexityMetric):
    """The sum of attributions; not finite for some."""

    @property
    def higher_is_better(self):
        return None

    def _compute(self, attributions):
        found = attributions.reshape(len(attributions), -1).sum(axis=1)
        found = jnp.where(found > 100, jnp.nan, found)
        return jnp.where(found < -100, -jnp.inf, found)


@metric
class Inside(LocalizationMetric):
    """The sum of attributions inside the mask."""

    @property
    def higher_is_better(self):
        return True

    def _compute(self, attributions, masks):
        return jnp.where(masks, attributions, 0).reshape(len(masks), -1).sum(axis=1)


@metric
class Drawn(FaithfulnessMetric):
    """A random number, and the logit."""

    @property
    def higher_is_better(self):
        return True

    @property
    def random(self):
        return True

    def _compute(self, case):
        logits = case.outputs(case.inputs, jnp.arange(len(case.inputs)))
        drawn = jax.vmap(lambda key: jax.random.uniform(key))(case.keys)
        return drawn + jnp.take_along_axis(logits, case.targets[:, None], axis=1)[:, 0]


# The same scores however it runs


def test_scores_are_those_of_direct_calls(tmp_path):
    x, y = runs.samples()
    weights = runs.weights()
    dataset.attribute_dataset(
        runs.EXPLAIN, (x, y), tmp_path, args=(weights,), batch_size=8, progress="none"
    )
    relevance = runs.EXPLAIN(weights, x, target=y).relevance
    explainers = {
        "LRP": runs.EXPLAIN,
        "jit": jax.jit(runs.EXPLAIN),
        "partial": functools.partial(runs.EXPLAIN, weights),
        "function": lambda x, y: runs.EXPLAIN(weights, x, target=y),
        "array": np.asarray(relevance),
        "store": tmp_path,
        "opened": dataset.open_relevance(tmp_path),
    }
    flip = metrics.PixelFlipping(step=2)
    direct = flip(lambda x: runs.network(weights, x), x, relevance, y)
    partial = {"partial": explainers.pop("partial")}
    found = evaluate(explainers, [flip])
    for name in explainers:
        np.testing.assert_allclose(found.of(name, "PixelFlipping"), direct, rtol=1e-5, atol=1e-6)
    found = evaluate(partial, [flip], args=())
    np.testing.assert_allclose(found.scores[0, 0], direct, rtol=1e-5, atol=1e-6)
    assert found.ids == tuple(range(len(x)))


def test_scores_do_not_depend_on_batches_or_order():
    x, y = runs.samples()
    explainers = {
        "LRP": runs.EXPLAIN,
        "smooth": baselines.smooth_grad(runs.network, argnums=1, n_samples=2),
        "random": controls.Random(),
    }
    data = {"input": x, "target": y, "id": [f"s{i}" for i in range(len(x))]}
    whole = evaluate(explainers, [Drawn()], data, key=jax.random.key(1), batch_size=len(x))
    mixed = {k: np.asarray(v)[::-1] for k, v in data.items()}
    other = evaluate(explainers, [Drawn()], mixed, key=jax.random.key(1), batch_size=3)
    assert other.ids == whole.ids[::-1]
    np.testing.assert_allclose(other.scores[..., ::-1], whole.scores, rtol=1e-5)
    logits = np.asarray(runs.network(runs.weights(), x))[np.arange(len(x)), y]
    drawn = whole.scores[0, 0] - logits
    assert len(np.unique(drawn.round(3))) == len(x)
    assert drawn.min() > -1e-4
    assert drawn.max() < 1 + 1e-4
    again = evaluate(explainers, [Drawn()], data, key=jax.random.key(2), batch_size=len(x))
    assert not np.allclose(again.scores, whole.scores)


def test_a_killed_run_on_four_devices_is_resumed_on_one(tmp_path):
    environment = {
        **os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }  # fmt: skip
    script = Path(runs.__file__)
    child = subprocess.run(
        [sys.executable, script, tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    stored = len(dataset.open_relevance(tmp_path / "part0").ids)
    assert 0 < stored < runs.COUNT
    found = evaluate(output=tmp_path, key=jax.random.key(0))
    np.testing.assert_allclose(
        found.scores, evaluate(key=jax.random.key(0)).scores, rtol=1e-5, atol=1e-6
    )
    assert len(dataset.open_relevance(tmp_path / "part0").ids) == runs.COUNT
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "part0").rglob("c/*")}
    assert evaluate(output=tmp_path, key=jax.random.key(0)).scores.tolist() == found.scores.tolist()
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "part0").rglob("c/*")}


def test_what_is_new_is_added(tmp_path):
    sparse, total = metrics.PixelFlipping(step=4), Total()
    first = evaluate({"a": runs.EXPLAIN}, {"flip": sparse}, output=tmp_path, limit=5)
    explainers = {"b": controls.Contrast(), "a": runs.EXPLAIN}
    both = evaluate(explainers, {"total": total, "flip": sparse}, output=tmp_path)
    assert both.scores.shape == (2, 2, runs.COUNT)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["part0", "part1"]
    assert both.of("a", "flip")[:5].tolist() == first.of("a", "flip").tolist()
    opened = dataset.open_relevance(tmp_path / "part1")
    assert {n.rpartition(".")[0] for n in opened if "_target" not in n} == {
        "relevance.b.total", "relevance.b.flip", "relevance.a.total",
    }  # fmt: skip
    with pytest.raises(dataset.DifferentRunError, match="computation"):
        evaluate({"a": runs.EXPLAIN}, {"flip": metrics.PixelFlipping(step=3)}, output=tmp_path)


def test_undefined_and_infinite_scores_are_kept():
    x, y = runs.samples()
    a = np.ones_like(x)
    a[0], a[1], a[2, 0] = 1000, -1000, np.nan
    found = evaluate({"given": a}, [Total()], (x, y), args=())
    assert np.isnan(found.scores[0, 0, [0, 2]]).all()
    assert found.scores[0, 0, 1] == -np.inf
    assert found.scores[0, 0, 3] == a[3].sum()
    assert found.undefined.tolist() == [[2 / runs.COUNT]]
    assert not found.failed


def test_samples_that_fail_are_named():
    x, y = runs.samples()
    y = y.copy()
    y[3] = 7
    found = evaluate({"LRP": runs.EXPLAIN}, [Total()], (x, y))
    assert found.failed == {
        3: "ValueError: target 7 is out of range: the model has 3 classes, 0 to 2"
    }
    assert np.isnan(found.scores[0, 0, 3])
    assert "1 sample failed, such as 3" in str(found)


def test_masks_context_and_classes_reach_where_they_belong():
    x, y = runs.samples()

    def scaled(w, x, scale):
        return runs.network(w, x) * scale[:, None]

    scale = np.linspace(1, 2, len(x)).astype(np.float32)
    mask = x > 0
    data = {"input": x, "mask": mask, "scale": scale, "target": y}
    explain = lrp.explain(scaled, runs.LRP0, argnums=1)
    found = evaluate(
        {"LRP": explain}, {"in": Inside(), "flip": metrics.PixelFlipping(step=4)}, data
    )
    relevance = explain(runs.weights(), x, scale, target=y).relevance
    expected = np.where(mask, relevance, 0).reshape(len(x), -1).sum(axis=1)
    np.testing.assert_allclose(found.of("LRP", "in"), expected, rtol=1e-4, atol=1e-5)
    outputs = np.asarray(scaled(runs.weights(), x, scale))
    predicted = evaluate({"LRP": explain}, [Total()], data, target=lrp.targets.predicted)
    assert predicted.targets is not None
    assert predicted.targets[0].tolist() == outputs.argmax(axis=1).tolist()
    one = evaluate({"LRP": explain}, [Total()], data, target=2)
    expected = explain(runs.weights(), x, scale, target=2).relevance.reshape(len(x), -1).sum(axis=1)
    np.testing.assert_allclose(one.scores[0, 0], expected, rtol=1e-4, atol=1e-5)


def test_segments_come_with_the_samples():
    x, y = runs.samples()
    labels = np.random.default_rng(0).integers(0, 3, x.shape)
    flip = metrics.PixelFlipping(features=metrics.features.Segments(labels))
    data = {"input": x, "target": y, "segments": labels}
    found = evaluate({"LRP": runs.EXPLAIN}, [flip], data)
    relevance = runs.EXPLAIN(runs.weights(), x, target=y).relevance
    direct = flip(lambda x: runs.network(runs.weights(), x), x, relevance, y)
    np.testing.assert_allclose(found.scores[0, 0], direct, rtol=1e-5, atol=1e-6)


def test_metrics_that_compare_samples_see_the_whole_set():
    x, y = runs.samples()
    found = evaluate({"LRP": runs.EXPLAIN, "random": controls.Random()}, [metrics.Sufficiency()])
    weights = runs.weights()
    relevance = runs.EXPLAIN(weights, x, target=y).relevance
    direct = metrics.Sufficiency()(lambda x: runs.network(weights, x), x, relevance, y)
    np.testing.assert_allclose(found.of("LRP", "Sufficiency"), direct, rtol=1e-5)


def test_robustness_metrics_share_a_pass():
    calls = []

    def explain(x, y):
        calls.append(len(x))
        return x**2

    own = {"draws": 3, "batch_size": 64}
    chosen = [
        metrics.MaxSensitivity(**own), metrics.AvgSensitivity(**own),
        metrics.RelativeInputStability(perturbation=metrics.MaxSensitivity().perturbation, **own),
    ]  # fmt: skip
    more = {
        "args": (),
        "key": jax.random.key(0),
        "predict": lambda x: runs.network(runs.weights(), x),
    }
    apart = [evaluate({"f": explain}, [one], **more) for one in chosen]
    alone, calls[:] = len(calls), []
    found = evaluate({"f": explain}, chosen, **more)
    assert len(calls) < alone
    for j, one in enumerate(apart):
        np.testing.assert_allclose(found.scores[0, j], one.scores[0, 0], rtol=1e-5)
    assert (found.scores[0, 0] > found.scores[0, 1]).all()


def test_explainers_share_what_the_model_says_of_changed_inputs():
    """Batches of 7 changed inputs: 4 samples x 20 sets in each of four batches of samples."""
    calls, w = [], runs.weights()

    def predict(x):
        if len(x) == 7:
            jax.debug.callback(lambda: calls.append(1))
        return runs.network(w, x)

    def evaluated(explainers):
        calls.clear()
        measure = metrics.FaithfulnessCorrelation(size=3, runs=20, batch_size=7)
        more = {"key": jax.random.key(0), "predict": predict, "args": ()}
        found = evaluate(explainers, measure, **more)
        jax.effects_barrier()
        return found, len(calls)

    some = {"square": lambda x, y: x**2, "cube": lambda x, y: x**3, "minus": lambda x, y: -x}
    found, count = evaluated(some)
    apart = [evaluated({name: fun}) for name, fun in some.items()]
    assert [count, *(n for _, n in apart)] == [4 * math.ceil(4 * 20 / 7)] * 4
    expected = [one.scores[0] for one, _ in apart]
    np.testing.assert_allclose(found.scores, expected, rtol=1e-5, atol=1e-6)  # float32
    assert np.ptp(found.scores, axis=0).min() > 1e-3


def test_curves_are_those_of_the_metric():
    x, y = runs.samples()
    weights, flip = runs.weights(), metrics.PixelFlipping(step=3)
    found = metrics.curves(
        {"LRP": runs.EXPLAIN, "random": controls.Random()}, flip, (x, y), args=(weights,), batch_size=5,
        progress="none",
    )["LRP"]  # fmt: skip
    relevance = runs.EXPLAIN(weights, x, target=y).relevance
    direct = flip.curves(lambda x: runs.network(weights, x), x, relevance, y)
    for one, other in zip(found, direct, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_classes_choose_nothing_of_one_number_for_each_sample():
    x, y = runs.samples()
    explain = lrp.explain(lambda x: jnp.tanh(x.reshape(len(x), -1)).sum(1))
    found = evaluate({"f": explain}, [metrics.Sparseness()], (x, y), args=())
    expected = metrics.Sparseness()(explain(x).relevance)
    np.testing.assert_allclose(found.scores[0, 0], expected, rtol=1e-5)


# What is refused, before anything is computed

X, Y = runs.samples()
FLIP = metrics.PixelFlipping()
ONLY = {"LRP": runs.EXPLAIN}
REFUSED = {
    "no explainer": ({"explainers": {}}, ValueError, "explainers is empty"),
    "a list": ({"explainers": [runs.EXPLAIN]}, TypeError, "explainers must be a dictionary"),
    "no explainer at all": ({"explainers": {"a": 3}}, TypeError, r"explainers\['a'\] must be"),
    "no metric": ({"chosen": []}, ValueError, "metrics is empty"),
    "a class": ({"chosen": [metrics.PixelFlipping]}, TypeError, r"write PixelFlipping\(\)"),
    "twice": ({"chosen": [FLIP, FLIP]}, ValueError, "several PixelFlipping: pass a dictionary"),
    "alike": ({"chosen": {"a b": FLIP, "a-b": FLIP}}, ValueError, "'a b' and 'a-b', which would"),
    "no masks": ({"chosen": [Inside()]}, ValueError, "'Inside' needs masks, but data has none"),
    "masks of numbers": (
        {"chosen": [Inside()], "data": {"input": X, "target": Y, "mask": X}},
        ValueError, "the metric 'Inside' of 'LRP' cannot be computed: TypeError: masks must be booleans",
    ),
    "no key": ({"chosen": [Drawn()]}, TypeError, "'Drawn' draws random numbers: pass key="),
    "a key that is none": ({"chosen": [Drawn()], "key": 3}, TypeError, "key must be one random key"),
    "no targets": ({"data": X}, ValueError, "data has no targets, but the model of 'LRP' has 3"),
    "a class too many": ({"target": 3}, IndexError, "target 3 is out of range: the model has 3"),
    "no class": ({"target": lrp.targets.Contrast(0)}, TypeError, "target must be None, a class"),
    "no model": (
        {"explainers": {"f": controls.Random()}}, ValueError, "needs the model, which 'f' does not",
    ),
    "given attributions": (
        {"explainers": {"a": X}, "chosen": [metrics.MaxSensitivity()], "key": jax.random.key(0)},
        ValueError, "'MaxSensitivity' explains changed inputs, but 'a' is given as attributions",
    ),
    "attributions of another shape": (
        {"explainers": {"a": X[:, :2], **ONLY}}, ValueError, "explainer 'a' .* attributions must have",
    ),
    "fewer attributions": (
        {"explainers": {"a": X[:5], **ONLY}}, ValueError,
        rf"explainers\['a'\] has attributions of 5 samples, but data has {len(X)}",
    ),
    "more attributions": (
        {"explainers": {"a": np.concatenate([X, X])}, "chosen": [metrics.Sparseness()]}, ValueError,
        rf"has attributions of {2 * len(X)} samples",
    ),
    "a composite": (
        {"explainers": {"a": "epsilon_plus"}}, TypeError, r'write jaxlrp\.explain\(model, "epsilon_plus"\)',
    ),
    "no arguments": ({"args": ()}, TypeError, "args must contain the 1 arguments before"),
    "another model": (
        {"data": (X[:, :2], Y)}, ValueError, "the model of 'LRP' cannot be computed: TypeError",
    ),
    "no images": (
        {"chosen": [metrics.PixelFlipping(features=metrics.features.Blocks((0, 5)))]},
        ValueError, "'PixelFlipping' of 'LRP' cannot be computed: ValueError: axis 5 of features.Blocks",
    ),
    "segments apart": (
        {"chosen": [metrics.PixelFlipping(features=metrics.features.Segments(np.zeros(X.shape, int)))]},
        ValueError, 'pass data as a dictionary with "segments"',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name, tmp_path):
    changes, error, message = REFUSED[name]
    given = {"explainers": ONLY, "chosen": [FLIP], **changes}
    with pytest.raises(error, match=message):
        evaluate(**given, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Tables and tests by hand


def by_hand(scores, better=(True, False)):
    held = {f"m{j}": _Directed(better=b) for j, b in enumerate(better)}
    names = tuple("abcdefghij"[: len(scores)])
    return metrics.Evaluation(names, held, scores, tuple(range(scores.shape[2])))


@metric
class _Directed(ComplexityMetric):
    better: bool | None = True

    @property
    def higher_is_better(self):
        return self.better

    def _compute(self, attributions):
        return attributions


def test_a_table_by_hand():
    nan = np.nan
    scores = np.array([
        [[1.0, 2.0, 9.0], [1.0, 1.0, 1.0]],
        [[4.0, nan, 4.0], [3.0, 3.0, 3.0]],
        [[0.0, 0.0, 0.0], [nan, nan, nan]],
    ])  # fmt: skip
    table = by_hand(scores).table({"m0": "median"}, confidence=0.9)
    assert table.value[:, 0].tolist() == [2.0, 4.0, 0.0]
    assert table.rank[:, 0].tolist() == [2.0, 1.0, 3.0]
    assert table.rank[:2, 1].tolist() == [1.0, 2.0]
    assert np.isnan(table.rank[2, 1])
    assert table.mean_rank[:2].tolist() == [1.5, 1.5]
    assert table.undefined.tolist() == [[0, 0], [1 / 3, 0], [0, 1]]
    assert (table.low[1, 0], table.high[1, 0]) == (4.0, 4.0)
    assert by_hand(scores).table().value[0, 0] == 4.0
    lines = str(table).splitlines()
    assert lines[0].split() == ["m0", "↑", "(median)", "m1", "↓", "mean", "rank"]
    assert lines[2] == "b  4 [4, 4] (1) 33% undefined  3 [3, 3] (2)  1.50"
    assert lines[3].endswith("undefined     -")
    assert "| b | **4** [4, 4] (1) 33% undefined | 3 [3, 3] (2) | 1.50 |" in table.markdown()
    assert "a" in by_hand(scores).select(explainers=["a"]).csv()
    with pytest.raises(KeyError, match="no metric 'm2'"):
        by_hand(scores).table({"m2": "median"})


def test_equal_explainers_share_a_rank_and_no_direction_has_none():
    scores = np.array([[[2.0], [1.0]], [[2.0], [2.0]], [[1.0], [3.0]]])
    table = by_hand(scores, (True, None)).table()
    assert table.rank[:, 0].tolist() == [1.5, 1.5, 3.0]
    assert np.isnan(table.rank[:, 1]).all()
    assert table.mean_rank.tolist() == [1.5, 1.5, 3.0]


def test_intervals_cover_the_mean():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(1, 1, 400))
    table = by_hand(scores, (True,)).table(resamples=4000)
    error = scores[0, 0].std() / np.sqrt(400)
    np.testing.assert_allclose(
        [table.low[0, 0], table.high[0, 0]],
        scores.mean() + np.array([-1.96, 1.96]) * error,
        atol=0.01,
    )


@pytest.mark.parametrize("decimals", [8, 0])
def test_friedman_is_that_of_scipy(decimals):
    scores = np.random.default_rng(1).normal(size=(4, 1, 30)).round(decimals)
    scores[0, 0, 0] = np.nan
    found = by_hand(scores, (True,)).significance("m0")
    statistic, p = scipy.stats.friedmanchisquare(*scores[:, 0, 1:])
    np.testing.assert_allclose([found.statistic, found.p], [statistic, p], rtol=1e-8)
    placed = scipy.stats.rankdata(-scores[:, 0, 1:], axis=0).mean(axis=1)
    np.testing.assert_allclose(found.mean_ranks, placed)
    assert found.samples == 29


def test_nemenyi_is_that_of_the_paper():
    """Demšar (2006), section 3.2.2: four classifiers on 14 data sets have a critical difference of 1.25."""
    scores = np.random.default_rng(1).normal(size=(4, 1, 14))
    found = by_hand(scores, (False,)).significance("m0")
    assert round(found.critical_difference, 2) == 1.25
    beyond = np.abs(found.mean_ranks[:, None] - found.mean_ranks) > found.critical_difference
    assert (beyond == (found.pairs < 0.05)).all()
    with pytest.raises(ValueError, match="at least 3 explainers"):
        by_hand(scores[:2], (False,)).significance("m0")
    with pytest.raises(ValueError, match="no better direction"):
        by_hand(scores, (None,)).significance("m0")


# Controls


def test_edges_are_those_of_scipy():
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype(np.float32)
    parts = [scipy.ndimage.sobel(x[0, ..., 1], axis, mode="nearest") / 8 for axis in (0, 1)]
    np.testing.assert_allclose(
        controls.Edges()(x)[0, ..., 1], np.hypot(*parts), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32, np.uint8])
def test_random_attributions_belong_to_the_sample(dtype):
    x = (np.random.default_rng(0).normal(size=(6, 3, 2)) * 50).astype(dtype)
    draw = controls.Random(seed=3, shared=(1,))
    found = np.asarray(draw(x))
    assert found.shape == (6, 3, 1)
    assert np.asarray(draw(x[2:4])).tolist() == found[2:4].tolist()
    changed = x.copy()
    changed[0, 0, 0] += 1
    assert (np.asarray(draw(changed))[0] != found[0]).all()
    assert not np.allclose(controls.Random(seed=4, shared=(1,))(x), found)


def test_contrast_and_edges_refuse_tokens():
    for control in (controls.Contrast(), controls.Edges(0)):
        with pytest.raises(TypeError, match="needs inputs that are floats, got int32"):
            control(np.zeros((2, 3), np.int32))
    assert list(controls.standard()) == ["random", "input contrast"]


# Figures and the command line


def test_tables_in_pandas():
    pytest.importorskip("pandas")
    scores = np.random.default_rng(0).normal(size=(3, 2, 5))
    scores[1, 0, 2] = np.nan
    found = by_hand(scores)
    table, rows = found.table().pandas(), found.pandas()
    assert list(table.index) == ["a", "b", "c"]
    assert table.loc["b", ("m0", "value")] == pytest.approx(np.nanmean(scores[1, 0]))
    assert table.loc["b", ("m0", "undefined")] == pytest.approx(0.2)
    best = table["m1"]["rank"].idxmin()  # lower is better
    assert best == table["m1"]["value"].idxmin()
    assert list(rows.columns) == ["explainer", "metric", "id", "score"]
    wide = rows.pivot_table(index="id", columns=["explainer", "metric"], values="score")
    np.testing.assert_array_equal(wide["c"]["m1"], scores[2, 1])
    assert rows.score.isna().sum() == 1


def test_figures_show_all_explainers():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5, 3, 20))
    scores[2, 1] = np.nan
    found = by_hand(scores, (True, False, True))
    bars = figures.bars(found.table())
    assert [t.get_text() for t in bars.axes[0].get_yticklabels()] == list("abcde")
    assert "undefined" in [t.get_text().strip() for t in bars.axes[1].texts]
    radar = figures.radar(found.table())
    assert len(radar.axes[0].lines) == 4  # one has no score by a metric
    best = np.argmin(found.table().value[[0, 1, 3, 4], 1])  # lower is better: the outer end
    assert radar.axes[0].lines[best].get_ydata()[1] == 1.0
    text = [
        t.get_text() for t in figures.critical_difference(found.significance("m0")).axes[0].texts
    ]
    assert all(any(name in t for t in text) for name in "abcde")
    curve = metrics.Curves(rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), np.arange(3))
    drawn = figures.curves({"a": curve, "b": curve})
    np.testing.assert_allclose(drawn.axes[0].lines[1].get_ydata(), curve.morf.mean(axis=0))
    for figure in (bars, radar, drawn):
        figure.canvas.draw()
    with pytest.raises(ValueError, match="at least 3 metrics"):
        figures.radar(found.select(metrics=["m0"]).table())


def test_a_bar_much_longer_than_all_others_is_cut():
    scores = np.array([[120.0, 5.0], [1.0, 1.0], [0.5, 2.0], [-0.1, -1.0]])[..., None]
    panels = figures.bars(by_hand(scores, (False, True)).table()).axes
    assert panels[0].get_xlim()[1] == pytest.approx(1.3)
    assert [t.get_text() for t in panels[0].texts] == ["120"]
    assert panels[1].get_xlim()[1] > 5
    assert not panels[1].texts


def test_the_command_line(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        image = rng.integers(0, 255, (6, 6, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    words = [
        "evaluate", str(tmp_path / "photos"), "-o", str(tmp_path / "report"),
        "--model", "test_dataset:tiny",
        "--composite", "all_epsilon", "--patch", "2", "--batch-size", "2", "--progress", "none",
        "--metric", "sparseness",
    ]  # fmt: skip
    assert main(words) == 0
    assert "<4 explainers, 1 metric, 3 samples>" in capsys.readouterr().out
    table = (tmp_path / "report" / "table.md").read_text()
    assert "| all_epsilon |" in table
    assert len((tmp_path / "report" / "scores.csv").read_text().splitlines()) == 13
    assert (tmp_path / "report" / "bars.png").exists()
    assert main([*words, "--metric", "sparse"]) == 2
    assert "the nearest are 'sparseness'" in capsys.readouterr().err


def test_a_sample_with_more_segments_than_the_metric_knows_fails():
    x, y = runs.samples()
    labels = np.zeros(x.shape, int)
    labels[..., 0], labels[2] = 1, 5
    flip = metrics.PixelFlipping(features=metrics.features.Segments(labels[:2]))
    found = evaluate({"LRP": runs.EXPLAIN}, [flip], {"input": x, "target": y, "segments": labels})
    reason = "ValueError: segment 5 is out of range: a metric has Segments with number=2"
    assert found.failed == {2: reason}


def test_curves_of_samples_that_fail_or_have_no_order_are_nan():
    x, y = runs.samples()
    relevance = np.array(runs.EXPLAIN(runs.weights(), x, target=y).relevance)
    relevance[1] = 1.0
    y = y.copy()
    y[0] = 7
    both = metrics.curves(
        {"given": relevance, "input": x}, metrics.PixelFlipping(step=3), (x, y), progress="none",
        predict=lambda x: runs.network(runs.weights(), x),
    )  # fmt: skip
    found = both["given"]
    assert np.isnan(both["input"].morf).any(axis=1).tolist() == [True] + [False] * (len(x) - 1)
    for curve in (found.morf, found.lerf):
        assert np.isnan(curve).all(axis=1).tolist() == [True, True] + [False] * (len(x) - 2)
    assert found.removed[-1] == x[0].size
    figures.curves({"given": found})
    with pytest.raises(ValueError, match="must contain at least one finite curve"):
        figures.curves({"given": found._replace(morf=found.morf[:2])})
