"""Screening in several domains: what is surprising, what is not, and what it does to predictions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxlrp import spray
from jaxlrp.inspection import DFT2, inspect

pytest.importorskip("sklearn", reason="scikit-learn (extra: spray)")

KEY = jax.random.key(0)
NO_VIEWS = spray.Settings(views={})
CLASSES, SIZE = 6, 60
LABELS = np.repeat(np.arange(CLASSES), SIZE)
MARKED = np.flatnonzero(LABELS == 2)[:20]


def waves(seed, amplitude):
    """(relevance, inputs) of a linear model whose weights hold a wave; some inputs of class 2 have it."""
    rng = np.random.default_rng(seed)
    wave = np.cos(np.pi * np.arange(16))[:, None] * np.ones(16)
    x = 1 + rng.normal(size=(len(LABELS), 16, 16))
    x[MARKED] += amplitude * wave
    weights = 0.3 * wave + rng.normal(size=(CLASSES, 16, 16))
    return weights[LABELS] * x, x


@pytest.fixture(scope="module")
def found():
    r, x = waves(0, 0.5)
    logits = np.zeros((len(LABELS), CLASSES))
    logits[np.arange(len(LABELS)), LABELS] = 1.0
    logits[MARKED, 2] = 4.0
    seen = []

    def changed(candidate):
        seen.append(candidate)
        after = logits[candidate.rows].copy()
        after[:, 2] -= 3.0
        after[0, 5] = 9.0
        return after

    screening = spray.screen(
        r, LABELS, key=KEY, inputs=x, outputs=logits, changed=changed, settings=NO_VIEWS
    )
    return r, screening, seen


# --- the whole ------------------------------------------------------------------------------------


def test_a_wave_over_the_whole_image_is_found_in_the_domains_of_frequencies_alone(found):
    _, screening, seen = found
    first, second = screening.surprising
    assert (first.category, first.domain) == (2, "frequency")
    assert (second.category, second.domain) == (2, "fine")
    assert screening.classes[0] == 2
    assert sorted(first.rows.tolist()) == sorted(second.rows.tolist()) == MARKED.tolist()
    assert list(screening.analyses) == ["raw", "pooled", "spectrum", "frequency", "fine", "log"]
    assert len(screening.findings) == 6 * CLASSES
    p = spray.surprise([f.fisher for f in screening.findings if f.domain == "fine"])[
        1
    ].min()  # before the correction
    np.testing.assert_allclose(second.p_value, 6 * CLASSES * p)
    assert [c.category for c in seen] == [2, 2]  # only what is surprising is changed
    line = str(screening).splitlines()[1]
    for words in ("frequency", "*", "class output 4 (rest 1)", "class output 1, 5.0% of its"):
        assert words in line


def test_components_of_a_domain_are_those_of_each_class():
    """The points of a class are its leading principal components: as if they had been stored."""
    r, x = waves(0, 0.5)
    fine = spray.Frequency(max_cells=None, n_components=5)
    points = np.asarray(
        dataclasses.replace(fine, n_components=None)(jnp.asarray(r), jnp.asarray(x))
    ).reshape(len(r), -1)
    reduced = np.zeros((len(r), 5))
    for c in range(CLASSES):
        of_class = slice(c * SIZE, (c + 1) * SIZE)
        centered = points[of_class] - points[of_class].mean(0)
        reduced[of_class] = centered @ np.linalg.svd(centered, full_matrices=False)[2][:5].T
    kwargs = {"key": KEY, "settings": NO_VIEWS}
    told = spray.screen(r, LABELS, inputs=x, domains={"fine": fine}, **kwargs)
    domains = {"fine": lambda values, _: values}
    same = spray.screen(reduced, LABELS, domains=domains, **kwargs)
    scores = [
        [f.fisher for f in sorted(s.findings, key=lambda f: f.category)] for s in (told, same)
    ]
    np.testing.assert_allclose(*scores, rtol=1e-3)


@pytest.mark.slow
def test_controls_are_not_surprising():
    """Six classes without any pattern, in ten data sets: at most one false alarm."""
    alarms = 0
    for seed in range(1, 11):
        r, _ = waves(seed, 0.0)
        domains = {"pooled": spray.Pooled(4), "spectrum": spray.Spectrum(4)}
        screening = spray.screen(r, LABELS, key=KEY, domains=domains, settings=NO_VIEWS)
        assert len(screening.findings) == 2 * CLASSES  # they are cut, but not surprisingly
        for name in domains:
            inside = [f for f in screening.findings if f.domain == name]
            p = spray.surprise([f.fisher for f in inside])[1]
            np.testing.assert_allclose(
                [f.p_value for f in inside], np.minimum(12 * p, 1)
            )  # of 12 tests
        alarms += bool(screening.surprising)
    assert alarms <= 1


def test_stored_domains_controls_and_few_samples():
    r, x = waves(0, 0.5)
    stored = np.asarray(
        inspect(lambda x: (x * 0.5).sum(), DFT2(), axis=(1, 2))(jnp.asarray(x)).relevance
    )
    kwargs = {"domains": {"raw": spray.Raw()}, "settings": NO_VIEWS, "key": KEY}
    clean = spray.screen(*(waves(1, 0.0)[0], LABELS), stored={"dft": stored[::-1]}, **kwargs)
    rows = np.flatnonzero(LABELS < 3)
    few = spray.screen(r, LABELS, stored={"dft": stored}, rows=rows, max_samples=40, **kwargs)
    assert list(few.analyses) == ["raw", "dft"]
    assert [len(a.index) for a in few.analyses["dft"]] == [40] * 3
    assert all(np.isnan(f.p_value) for f in few.findings)  # three classes are no null distribution
    assert not few.surprising
    told = spray.screen(r, LABELS, stored={"dft": stored}, rows=rows, controls=[clean], **kwargs)
    expected = spray.surprise(
        [f.fisher for f in told.findings if f.domain == "raw"],
        [f.fisher for f in clean.findings if f.domain == "raw"],
    )[0]
    np.testing.assert_allclose([f.t for f in told.findings if f.domain == "raw"], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 1.0}, r"alpha must be in \(0, 1\), got 1\.0"),
        ({"changed": len}, "pass outputs="),
        ({"outputs": np.ones((3, 2))}, r"outputs must have shape \(24, classes\), got \(3, 2\)"),
        ({"outputs": np.ones((24, 1))}, "a column for class 1"),
        ({"inputs": np.ones((23, 4))}, "inputs must have the 24 samples of relevance.*got 23"),
        ({"inputs": np.ones((24, 5))}, r"the shape of the relevance, \(256, 4\), got \(256, 5\)"),
        ({"domains": {}}, "at least one domain"),
        ({"domains": [spray.Raw()]}, "domains must be a dictionary such as"),
        ({"domains": {"raw": spray.Raw}}, r"domains\['raw'\] must be a domain such as Raw\(\)"),
        (
            {"domains": {"f": spray.Frequency()}},
            "Frequency needs the explained inputs: pass inputs=",
        ),
        ({"stored": {"raw": np.ones((24, 2))}}, "stored must have other names than domains"),
        ({"stored": {"dft": np.ones((2, 2))}}, "must have the 24 samples of relevance, got 2"),
        ({"max_samples": 0}, "max_samples must be"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    relevance = np.random.default_rng(0).normal(size=(24, 4))
    arguments = {"relevance": relevance, "labels": np.repeat([0, 1], 12), "key": KEY}
    with pytest.raises((TypeError, ValueError), match=message):
        spray.screen(**(arguments | {"settings": NO_VIEWS} | changes))


# --- the null distribution ------------------------------------------------------------------------


def test_surprise_by_hand():
    # Logarithms 0, 1, 2, 3 have mean 3/2 and squares of 5 together; with the prior's 20 / 4, 10 of 23
    # degrees of freedom. Six is 4.5 above.
    t, p = spray.surprise(np.exp([6.0]), controls=np.exp([0.0, 1, 2, 3]))
    np.testing.assert_allclose(t, 4.5 / np.sqrt(10 / 23 * 1.25))
    np.testing.assert_allclose(p, stats.t.sf(t, 23))


@pytest.mark.parametrize("n", [5, 10, 30])
def test_one_screening_in_twenty_is_a_false_alarm(n):
    rng = np.random.default_rng(0)
    draws = np.exp(1 + 0.5 * rng.normal(size=(400, n)))
    alarms = np.mean([n * spray.surprise(scores)[1].min() <= 0.05 for scores in draws])
    assert alarms <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert alarms >= 0.01  # it is not blind


def test_classes_that_stand_out_do_not_hide_each_other():
    scores = [3.0, 4.0, 2.5, 3.5, 5.0, 2.0, 3.0, 4.5, 900.0, 1000.0]
    p = spray.surprise(scores)[1]
    assert p[8:].max() < 1e-4
    assert p[:8].min() > 0.05


def test_a_class_without_a_score_is_no_control():
    scores = np.array([3.0, 4.0, 2.5, 3.5, 5.0, 40.0])
    more = np.insert(scores, 2, np.nan)
    for a, b in zip(spray.surprise(scores), spray.surprise(more), strict=True):
        np.testing.assert_array_equal(a, np.delete(b, 2))
        assert np.isnan(b[2])
    with pytest.raises(ValueError, match="controls must contain at least 4 scores, got 2"):
        spray.surprise(scores, [1.0, 2.0, np.nan])
    with pytest.raises(ValueError, match="must be a vector of numbers >= 0"):
        spray.surprise([-1.0])


# --- domains and effects --------------------------------------------------------------------------


def test_the_frequency_domain_is_that_of_the_inspection_layer():
    rng = np.random.default_rng(0)
    x, c = rng.normal(size=(2, 2, 8, 8, 3))
    x[0, 0, 0] = 1e-5  # where c is unknown
    r = x * c
    kept = np.where(np.abs(x) > 0.01 * np.abs(x).max((1, 2, 3), keepdims=True), c, 0)
    height = np.array([1, 2, 2, 2, 1])  # of a frequency and its mirror image
    spectra = [np.fft.rfft2(values, axes=(1, 2)) for values in (x, kept)]
    relevance = np.real(spectra[0] * spectra[1].conj()) * height[:, None] / 64
    shifted = np.abs(np.fft.fftshift(relevance, axes=1))
    domain = spray.Frequency(max_cells=4)
    # Half as many cells along the last axis: five frequencies in windows of three.
    windows = np.stack([shifted[:, :, :3].sum(2), shifted[:, :, 3:].sum(2)], axis=2)
    windows = windows.reshape(2, 4, 2, 2, 3).sum(2)
    expected = np.sqrt(windows / windows.sum((1, 2, 3), keepdims=True))
    np.testing.assert_allclose(domain(jnp.asarray(r), jnp.asarray(x)), expected, rtol=1e-4)
    fine = spray.Frequency(max_cells=None)(jnp.asarray(r), jnp.asarray(x))
    magnitudes = np.abs(relevance)
    np.testing.assert_allclose(
        fine**2, magnitudes / magnitudes.sum((1, 2, 3), keepdims=True), rtol=1e-4, atol=1e-7
    )
    log = spray.Frequency(max_cells=None, log=True)(jnp.asarray(r), jnp.asarray(x))
    mean = magnitudes.mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(log, np.log(magnitudes + 0.01 * mean), rtol=1e-4, atol=1e-4)


def test_domains_of_signals_and_their_axes():
    r = jnp.asarray(np.random.default_rng(0).normal(size=(3, 20)))
    assert spray.Pooled(5)(r, None).shape == (3, 5)
    assert spray.Spectrum(6)(r, None).shape == (3, 3)
    pictures = r.reshape(3, 2, 5, 2)
    magnitudes = np.abs(np.fft.rfft(pictures, axis=2))
    expected = magnitudes / magnitudes.sum((1, 2, 3), keepdims=True)
    found = spray.Spectrum(99, axes=(2,))(pictures, None)
    np.testing.assert_allclose(found**2, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="axes must be distinct and in 1 to 1"):
        spray.Pooled(axes=(2,))(r, None)
    with pytest.raises(ValueError, match="axes must be one or two axes"):
        spray.Frequency(axes=(1, 2, 3))


def test_effect_by_hand():
    told = spray.effect(0, [[4.0, 0], [2, 3]], [[1.0, 0]], changed=[[1.0, 2], [1, 3]])
    assert (told.output, told.rest_output, told.accuracy, told.rest_accuracy) == (
        3.0,
        1.0,
        0.5,
        1.0,
    )
    assert (told.changed_output, told.changed_predictions) == (1.0, 0.5)
    with pytest.raises(ValueError, match=r"changed must have the shape .* \(2, 2\)"):
        spray.effect(0, [[4.0, 0], [2, 3]], [[1.0, 0]], changed=[[1.0, 2]])


# --- the report -----------------------------------------------------------------------------------


def test_the_report_says_which_domain_found_what(found, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib (extra: plot)")
    r, screening, _ = found
    path = tmp_path / "s.html"
    names = ["<b>a", "b", "cat", "d", "e", "f"]
    assert (
        spray.screening_report(path, screening, r, names=names, max_classes=1, max_examples=1)
        == path
    )
    source = path.read_text(encoding="utf-8")
    first = screening.findings[0]
    row = source.split("<tr>")[2]
    for words in ("cat (2)", "frequency", f"{first.p_value:.2g} *", "class output 4 (rest 1)"):
        assert words in row
    assert "<h2>cat (2), domain frequency</h2>" in source
    assert "&lt;b&gt;a" in source
    assert "<b>a" not in source
    assert "frequency: Fisher (p)" in source
    assert source.count("<img") == 1 + len(screening.rankings["frequency"].of_class(2))
