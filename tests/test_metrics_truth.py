"""Benchmarks with known truth: hashes, exact masks, obedience, and failures that score at chance."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from mlxtend.data import make_multiplexer_dataset
from scipy.stats import spearmanr

import jaxlrp as lrp
from jaxlrp import metrics
from jaxlrp.metrics import features, truth
from jaxlrp.metrics.truth.creatures import CODE
from jaxlrp.metrics.truth.draws import Draws

PICTURES = (Draws(12, 9).below(17, 8, 8, 1) / 16).astype(np.float32)
MAKE = {
    "scenes": truth.scenes,
    "artefacts": truth.artefacts,
    "creatures": truth.creatures,
    "mosaics": lambda number, seed: truth.mosaics(PICTURES, np.arange(12) // 2, number, seed),
    "events": truth.events,
    "frequencies": truth.frequencies,
    "multiplexer": truth.multiplexer,
    "arithmetic": truth.arithmetic,
}
# Of 30 samples with seed 3, on Python 3.11 and 3.12.
HASHES = {
    "scenes": "5584ab0bf3889e49ae67cfcd782756bf78fd48ec2471f196d61f43d0310af888",
    "artefacts": "51208b0d6490937316b6e0706a31f51c5407193b9a0089a740f2bf1f4fc887a3",
    "creatures": "a725859fccf692925a2444ce412cb020180bf1b1004f394a3c6d836815848232",
    "mosaics": "33bdda4031e492746748ea679e8b72c29451287ca58923e2337ddaef31bd137b",
    "events": "ec6163f7d1fb2a87d50d7c007c231d0c713c11f1be7361525a6d6525e083cc0d",
    "frequencies": "e225ef9d13474ff20ef967c5fc938c73d3682652811cd742a5169fa85ad21ebc",
    "multiplexer": "1b7b2911a72ef73e681f476d0b1c4e01dbe7310dcf42623ee7e6e125e7fe58f4",
    "arithmetic": "f44fe5a7be7de40ea9a3696592d2a6bbf59ced0fa78b262e15dbcbe8678e5461",
}


@pytest.fixture(scope="module")
def made():
    return {name: make(60, 3) for name, make in MAKE.items()}


@pytest.mark.entire
@pytest.mark.parametrize("name", MAKE)
def test_hash(name):
    found = MAKE[name](30, 3)
    assert found.hash == HASHES[name]
    assert MAKE[name](30, 4).hash != found.hash


def test_hash_sees_every_array(made):
    scenes = made["scenes"]
    change = scenes.changed("target")
    other = dataclasses.replace(change, answers=change.answers + 1)
    for field, value in (
        ("inputs", scenes.inputs + np.float32(1)),
        ("masks", scenes.masks | {"all": ~scenes.mask("all")}),
        ("context", {"question": scenes.context["question"][::-1]}),
        ("changes", scenes.changes | {"target": other}),
    ):
        assert dataclasses.replace(scenes, **{field: value}).hash != scenes.hash


def test_draws_are_raw_bits():
    """What NumPy guarantees for a seed; the first numbers of PCG64."""
    raw = np.random.PCG64(5).random_raw(4)
    assert Draws(2, 5).below(1000, 2).ravel().tolist() == [int(r) % 1000 for r in raw]
    order = Draws(50, 0).orders(6)
    assert (np.sort(order, axis=1) == np.arange(6)).all()
    assert len({tuple(o) for o in order}) > 40
    than = Draws(400, 1).below(4)
    other = Draws(400, 2).others(than, 4)
    assert set(zip(than, other, strict=True)) == {
        (a, b) for a in range(4) for b in range(4) if a != b
    }


@pytest.mark.entire
@pytest.mark.parametrize("name", MAKE)
def test_a_change_is_only_where_its_mask_is(made, name):
    """Masks against the pictures themselves: what differs after a change. Events have noise on top."""
    benchmark = made[name]
    if name == "frequencies":  # whose masks are of frequencies
        amplitude = np.abs(np.fft.rfft(benchmark.inputs, axis=1))
        assert (
            amplitude[benchmark.mask("tones")].min() > 2 * amplitude[~benchmark.mask("tones")].max()
        )
        return
    true = np.broadcast_to(benchmark.mask(), benchmark.inputs.shape)
    for change, held in benchmark.changes.items():
        differs = held.inputs != benchmark.inputs
        if change in ("target", "without head"):
            assert differs.any()
            assert not differs[~true].any()
        elif change == "distractor" or (change == "background" and name != "events"):
            assert differs.any()
            assert not differs[true].any()
    targets = benchmark.changed("target")
    distracted = benchmark.changed("distractor")
    rows = np.arange(len(benchmark))
    if name == "mosaics":  # of the class that is explained
        assert benchmark.answers[rows, benchmark.targets].all()
        assert not targets.answers[rows, benchmark.targets].any()
        assert distracted.answers[rows, benchmark.targets].all()
        assert not benchmark.answers[rows, benchmark.wrong.targets].any()
    elif name == "arithmetic":
        assert (targets.answers != benchmark.answers).mean() > 0.9
        np.testing.assert_array_equal(distracted.answers, benchmark.answers)
    else:
        assert (targets.answers != benchmark.answers).all()
        np.testing.assert_array_equal(distracted.answers, benchmark.answers)


@pytest.mark.entire
@pytest.mark.parametrize("name", MAKE)
def test_the_other_mask_is_of_the_same_kind(made, name):
    benchmark = made[name]
    true, other = benchmark.mask(), benchmark.mask("other")
    axes = tuple(range(1, true.ndim))
    assert not (true & other).any()
    assert true.any(axis=axes).all()
    if name == "scenes":  # squares, pluses and crosses of two sizes: equal on average
        assert set(true.sum(axis=axes)) <= {25, 9, 5}
        assert abs(true.mean() - other.mean()) < 0.3 * true.mean()
    else:
        np.testing.assert_array_equal(true.sum(axis=axes), other.sum(axis=axes))
    assert len(np.unique(benchmark.inputs * 64 % 1)) == 1 or name == "mosaics"


def test_scenes_by_eye(made):
    """The color that is asked for, read off the picture and the question."""
    scenes = made["scenes"]
    unique = scenes.mask("unique")[..., 0]
    mean = np.array([x[m].mean(axis=0) for x, m in zip(scenes.inputs, unique, strict=True)])
    signs = [(True, False, False), (False, True, False), (False, False, True), (True, True, False)]
    seen = [signs.index(tuple((m > 0).tolist())) for m in mean]  # red, green, blue, yellow
    np.testing.assert_array_equal(seen, scenes.answers)
    kind = scenes.context["question"].argmax(axis=1)
    area = unique.sum(axis=(1, 2))
    for shape, sizes in enumerate(({9, 25}, {5, 9}, {5, 9})):
        assert set(area[kind // 2 == shape]) <= sizes
    big = kind % 2 == 1  # "the big one" has small ones beside it
    assert (area[big] >= 9).all()
    larger = (scenes.mask("union") & ~scenes.mask("unique")).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(larger, big)
    np.testing.assert_array_equal(scenes.mask("single").any(axis=(1, 2, 3)), ~big)
    assert not (scenes.mask("union") & ~scenes.mask("all")).any()
    assert not (scenes.mask("other") & scenes.mask("union")).any()


def test_background_is_centered(made):
    """Noise of at most 6/64; 60 pictures have more than 10,000 background pixels."""
    scenes = made["scenes"]
    background = scenes.inputs[~np.broadcast_to(scenes.mask("all"), scenes.inputs.shape)]
    assert np.abs(background).max() == 6 / 64
    assert abs(background.mean()) < 0.001


def test_a_removed_part_is_zero(made):
    creatures = made["creatures"]
    for i, part in enumerate(creatures.parts[:5]):
        after = creatures.changed(f"without {part}").inputs
        inside = creatures.segments == i
        expected = np.where(inside, 0, creatures.inputs)
        np.testing.assert_array_equal(after, expected)
        assert inside.sum(axis=(1, 2, 3)).tolist() == [9] * len(creatures)
    agree = (CODE[:, None] == CODE).sum(axis=-1)
    assert agree[~np.eye(9, dtype=bool)].max() == 2


def test_the_multiplexer_is_that_of_mlxtend(made):
    x, y = make_multiplexer_dataset(
        address_bits=2, sample_size=400, positive_class_ratio=0.5, random_seed=0
    )
    known = {tuple(row): label for row, label in zip(x, y, strict=True)}
    assert len(known) == 64
    rows = made["multiplexer"]
    for change in (rows, *rows.changes.values(), rows.wrong):
        bits = ((change.inputs[:, :6] + 1) / 2).astype(int)
        assert [known[tuple(b)] for b in bits] == change.answers.tolist()


def test_arithmetic_by_hand():
    for operation, sign in (("add", 1), ("subtract", -1)):
        found = truth.arithmetic(20, 1, operation=operation)
        for held in (found, found.wrong, *found.changes.values()):
            for x, answer in zip(held.inputs, held.answers, strict=True):
                a, b = x[x[:, 1] == 1, 0]
                assert answer == a + sign * b


@pytest.fixture(scope="module")
def trained():
    """The network of the multiplexer, the samples on which it obeys, and how it is explained."""
    with jax.numpy_dtype_promotion("strict"):
        net = truth.train(truth.multiplexer(3000, 0), jax.random.key(0), steps=400)
        kept, shares = truth.keep(net, truth.multiplexer(300, 1))
    return net, kept, shares, {"LRP": lrp.explain(net.model)}


POOLED = ("sum,abs",)


def lifted(explainers, kept, samples, net):
    attributions = truth.attribute(explainers, samples, net)
    found = truth.lift(truth.score(attributions, kept, pools=POOLED), kept)
    return np.nanmean(found.scores, axis=2)


def test_a_trained_network_obeys_and_is_explained(trained):
    net, kept, shares, explainers = trained
    assert shares["kept"] > 0.9
    assert shares["kept"] == len(kept) / 300
    assert lifted(explainers, kept, kept, net).min() > 0.2


def test_planted_failures_score_at_chance(trained):
    """The standard error of a mean lift of 300 rows is below .03; of three networks, .02."""
    net, kept, _, explainers = trained
    assert abs(lifted(explainers, kept, kept.wrong, net)).max() < 0.06
    shuffled = truth.shuffled(kept, seed=1)
    assert abs(lifted(explainers, shuffled, kept, net)).max() < 0.08
    random = [
        lifted(explainers, kept, kept, truth.untrained(kept, jax.random.key(i))) for i in (1, 2, 3)
    ]
    assert abs(np.mean(random, axis=0)).max() < 0.06
    controls = metrics.controls.standard()
    assert abs(lifted(controls, kept, kept, net)).max() < 0.08


def test_a_network_that_follows_the_distractor_is_not_kept(trained):
    net, kept, _, _ = trained
    changes = dict(kept.changes)
    followed = dataclasses.replace(changes["distractor"], answers=1 - changes["distractor"].answers)
    with pytest.raises(ValueError, match=r"never obeys on multiplexer .*unchanged 1\.00"):
        truth.keep(net, dataclasses.replace(kept, changes=changes | {"distractor": followed}))


def test_scores_are_those_of_the_metrics(made):
    """Explainers and masks are scored together; each must get its own."""
    scenes = made["scenes"].select(slice(0, 7))
    rng = np.random.default_rng(0)
    a = {name: rng.normal(size=scenes.inputs.shape).astype(np.float32) for name in "ab"}
    found = truth.score(a, scenes, masks=["all", "unique"], pools=("sum,pos", "l2-norm"))
    for mask, evaluation in found.items():
        for name in a:
            for pool in ("sum,pos", "l2-norm"):
                metric = metrics.RelevanceMass(pool=pool, channels=-1)
                expected = metric(a[name], scenes.mask(mask))
                got = evaluation.of(name, f"mass, {pool}")
                np.testing.assert_allclose(got, expected, rtol=1e-6)  # float32, sums of 576


def test_attributions_do_not_depend_on_batches(trained):
    """Up to the order of float32 sums."""
    net, kept, _, explainers = trained
    some = kept.select(slice(0, 10))
    found = [truth.attribute(explainers, some, net, batch_size=b)["LRP"] for b in (4, 64)]
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)
    assert net.outputs(some).shape == (10, 2)
    np.testing.assert_allclose(net.outputs(some), net(some.inputs), rtol=1e-5, atol=1e-5)


def test_single_part_drops():
    """A linear function: drops are sums of w x, some of which the attributions get wrong."""
    rng = np.random.default_rng(0)
    x, w, a = (rng.normal(size=(1, 12)).astype(np.float32) for _ in range(3))
    labels = np.array([[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, -1, -1]])
    drops = truth.SinglePartDrops(features=features.Segments(labels))
    found = drops(lambda x: x @ w[0], x, a)
    parts = [[v[0, labels[0] == i].sum() for i in range(5)] for v in (a, w * x)]
    assert float(found[0]) == pytest.approx(spearmanr(*parts).statistic)
    assert abs(float(found[0])) < 0.95


def test_contrastivity_and_relevance_of_parts(made):
    creatures = made["creatures"]

    def perfect(x, y):
        has = (CODE[y] == CODE[creatures.answers]).astype(np.float32)
        at = np.minimum(np.maximum(creatures.segments, 0), 4)
        value = np.take_along_axis(has, at.reshape(len(x), -1), axis=1).reshape(at.shape)
        return np.where(creatures.segments < 5, value, 9.0) * np.ones_like(x)

    assert np.nanmin(truth.contrastivity(creatures, perfect)) == 1
    assert np.nanmax(truth.contrastivity(creatures, lambda x, y: -perfect(x, y))) == 0
    assert np.nanmean(truth.contrastivity(creatures, lambda x, y: x)) == 0.5
    found = truth.part_relevance(creatures, np.ones_like(creatures.inputs))
    np.testing.assert_array_equal(found, np.full((60, 15), 27.0))


def test_agreement(made):
    sums = made["arithmetic"]
    exact = np.where(sums.mask("numbers"), sums.inputs, 0)
    assert truth.agreement(sums, exact) == pytest.approx((1, 1))
    differences = truth.arithmetic(60, 3, operation="subtract")
    a, b = truth.agreement(
        differences, np.where(differences.mask("numbers"), differences.inputs, 0)
    )
    assert (a, b) == pytest.approx((1, -1))


def test_real_pictures():
    found = truth.artefacts(20, 0, pictures=PICTURES[..., 0] - 0.5)
    assert found.inputs.shape == (20, 8, 8, 3)
    marks = found.mask("marks")
    assert set(np.unique(np.abs(found.inputs[marks]))) == {0.5}
    shown = np.moveaxis(found.inputs, -1, 1)[:, :, None]
    same = (shown == PICTURES[..., 0] - 0.5) | np.moveaxis(marks, -1, 1)[:, :, None]
    assert same.all(axis=(3, 4)).any(axis=2).all()


@pytest.mark.entire
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: truth.scenes(0), ValueError, "number must be an integer >= 1, got 0"),
        (lambda m: truth.scenes(3, -1), ValueError, "seed must be an integer >= 0, got -1"),
        (
            lambda m: truth.multiplexer(3, address=5),
            ValueError,
            "address must be from 2 to 4, got 5",
        ),
        (lambda m: truth.arithmetic(3, length=4), ValueError, "length must be >= 6"),
        (lambda m: truth.arithmetic(3, operation="times"), ValueError, "operation must be one of"),
        (lambda m: truth.artefacts(3, pictures=np.ones((2, 4, 4))), ValueError, "at least 8 x 8"),
        (
            lambda m: truth.mosaics(PICTURES, np.zeros(12, int), 3),
            ValueError,
            "at least four classes",
        ),
        (
            lambda m: m["scenes"].mask("uniqe"),
            KeyError,
            "no mask 'uniqe': the nearest are 'unique'",
        ),
        (lambda m: m["scenes"].changed("targets"), KeyError, "no change 'targets'"),
        (lambda m: m["scenes"].correct(np.ones((3, 4))), ValueError, r"must have shape \(60, 4\)"),
        (lambda m: truth.train(m, jax.random.key(0)), TypeError, "benchmark must be a Benchmark"),
        (
            lambda m: truth.attribute([], m["events"], None),
            TypeError,
            "explainers must be a dictionary",
        ),
        (lambda m: truth.score({}, m["events"]), ValueError, "attributions is empty"),
        (
            lambda m: truth.score({"a": np.ones((2, 64, 3))}, m["events"]),
            ValueError,
            r"attributions\['a'\] must have the 60 samples",
        ),
        (lambda m: truth.lift({}, m["events"]), ValueError, "got those of no mask"),
        (lambda m: truth.shuffled(m["events"].select([0])), ValueError, "one sample only"),
        (lambda m: truth.agreement(m["events"], 0), ValueError, "must be of truth.arithmetic"),
        (
            lambda m: truth.contrastivity(m["events"], None),
            ValueError,
            "must be of truth.creatures",
        ),
        (lambda m: truth.part_relevance(m["events"], 0), ValueError, "must have segments"),
    ],
)
def test_bad_input(made, call, error, message):
    with pytest.raises(error, match=message):
        call(made)
