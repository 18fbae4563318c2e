"""Tests of the speech detector: against PyTorch, by hand, and its relevance."""

import doctest
import importlib.machinery
import importlib.util
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import composites
from jaxlrp.pretrained import silero
from jaxlrp.pretrained._torchscript import read_torchscript
from jaxlrp.pretrained.silero import SileroVad, preprocess, silero_vad

PACKAGE = "silero_vad"
INSTALL = r"pip install --no-deps silero-vad==6\.2\.3"
GOLDENS = Path(__file__).parent / "parity" / "silero.npz"  # made by make_silero.py


@pytest.fixture(scope="module")
def net():
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip(f"{PACKAGE} is not installed ({INSTALL})".replace("\\", ""))
    return silero_vad()


# The network.


@pytest.mark.parametrize("rate", silero.SAMPLE_RATES)
def test_probabilities_equal_those_of_pytorch(net, rate):
    net = silero_vad(rate)
    with np.load(GOLDENS) as file:
        sounds, expected = file[f"sounds_{rate}"], file[f"speech_{rate}"]
    logits = jax.jit(net.model.apply)(net.variables, net.preprocess(sounds))
    assert logits.shape == expected.shape == (3, 12)
    assert logits.dtype == jnp.float32
    assert expected.min() < 0.05
    assert expected.max() > 0.9
    np.testing.assert_allclose(jax.nn.sigmoid(logits), expected, rtol=0, atol=1e-5)
    # A probability near 1, rounded to float32, says its logit to 1e-4 only.
    np.testing.assert_allclose(logits, np.log(expected / (1 - expected)), rtol=0, atol=1e-4)


def test_parameters(net):
    leaves = jax.tree.leaves(net.variables)
    assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}
    # Of two biases of the LSTM's four gates there is one.
    assert sum(leaf.size for leaf in leaves) == 309_633 - 4 * 128
    assert len(repr(net)) < 200  # without the arrays
    assert PACKAGE not in sys.modules  # nothing of it was run


def test_the_example_of_the_docstring(net):
    test = doctest.DocTestParser().get_doctest(silero_vad.__doc__, {}, "silero", None, None)
    for example in test.examples:
        example.options.clear()  # skipped elsewhere, for want of the weights
    assert doctest.DocTestRunner().run(test) == (0, len(test.examples))


def test_no_frame_hears_what_comes_after_it(net):
    """But what came before it, it does; and so, of a batch, each alone."""
    with np.load(GOLDENS) as file:
        sounds = file["sounds_16000"]
    cut = sounds.copy()
    cut[:, 6 * 512 :] = 0
    apply = jax.jit(net.model.apply)
    whole, first = apply(net.variables, sounds), apply(net.variables, cut)
    np.testing.assert_allclose(first[:, :6], whole[:, :6], rtol=0, atol=1e-5)
    assert np.abs(first[:, 6:] - whole[:, 6:]).min(axis=1).max() > 1e-2
    late = sounds.copy()
    late[:, : 6 * 512] = 0
    assert np.abs(apply(net.variables, late)[:, 6:] - whole[:, 6:]).max() > 0.1
    alone = apply(net.variables, sounds[1:2])
    np.testing.assert_allclose(alone[0], whole[1], rtol=0, atol=1e-5)


def test_context_by_hand():
    # Frames of 16 samples: 2 before, the frame, and the last but one and the one before that behind.
    found = silero._with_context(jnp.arange(32.0)[None], 16)
    assert found.shape == (1, 2, 20)
    np.testing.assert_array_equal(found[0, 0], [0, 0, *range(16), 14, 13])
    np.testing.assert_array_equal(found[0, 1], [14, 15, *range(16, 32), 30, 29])


# Relevance.


def test_relevance_is_accounted_for(net, x64):
    """In float64, of one frame's logit: what does not arrive at the waveform is booked in a layer."""
    with np.load(GOLDENS) as file:
        sound = jnp.asarray(file["sounds_16000"][1:2, 4 * 512 : 6 * 512], jnp.float64)
    variables = jax.tree.map(lambda a: a.astype(jnp.float64), net.variables)
    composite = composites.by_path("stft", lrp.LRP0()) + composites.recurrent(epsilon=0.1)

    @jax.jit
    def account(sound):
        return lrp.ledger(net.model.apply, composite, variables, sound, argnums=1, target=last)

    def last(logits):
        return logits * (jnp.arange(logits.shape[1]) == logits.shape[1] - 1)

    ledger = account(sound)
    largest = max(abs(float(e.received)) for e in ledger.rows.values())
    assert abs(float(ledger.elsewhere)) < 1e-10 * largest
    assert "lstm/carry" not in ledger.rows  # it begins with zeros
    assert abs(float(ledger.input)) > 0.1


def test_digital_silence_has_no_relevance(net):
    """Where the magnitude of the spectrum is zero it has no derivative, and none is asked for."""
    with np.load(GOLDENS) as file:
        sound = file["sounds_16000"][1:2, : 4 * 512].copy()
    sound[:, :1024] = 0
    explain = jax.jit(lrp.explain(net.model.apply, composites.recurrent(), argnums=1))
    relevance = np.asarray(explain(net.variables, sound, target=3).relevance)
    assert np.isfinite(relevance).all()
    np.testing.assert_allclose(relevance[:, :1024], 0, atol=1e-15)
    assert np.abs(relevance[:, 1024:]).max() > 1e-3


# What goes in.


def test_preprocess():
    found = preprocess(np.array([16384, -32768], np.int16), frame=4)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[0.5, -1.0, 0, 0]])
    assert preprocess(np.ones((2, 512))).shape == (2, 512)
    assert preprocess(np.ones((2, 513))).shape == (2, 1024)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: preprocess(np.zeros((1, 1, 4))), r"\(T,\) or \(B, T\).*got shape \(1, 1, 4\)"),
        (lambda: preprocess(np.zeros(0)), r"not empty, got shape \(0,\)"),
        (lambda: preprocess(np.zeros(4, np.int32)), "floats or 16-bit integers, got int32"),
        (lambda: silero_vad(44100), "sample_rate must be 16000 or 8000 Hz, got 44100"),
        (
            lambda: jax.eval_shape(SileroVad().init, jax.random.key(0), jnp.zeros((1, 500))),
            r"T a multiple of 512, got shape \(1, 500\): preprocess pads",
        ),
    ],
)
def test_what_is_no_sound_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_package_that_is_not_there(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=INSTALL):
        silero_vad()


def test_another_checkpoint_is_refused(net, monkeypatch):
    tensors = read_torchscript(silero._folder() / "silero_vad.jit")
    tensors["_model.decoder.decoder.2.bias"] = np.zeros(2, np.float32)
    monkeypatch.setattr(silero, "read_torchscript", lambda path: tensors)
    with pytest.raises(
        ValueError, match=r"silero_vad\.jit of silero_vad does not hold the weights"
    ):
        silero_vad()


# The archive.


def archive(path, pickled):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data.pkl", pickled)
        file.writestr("m/byteorder", b"little")
    return path


HEAD = b"\x80\x02c__torch__.a.b\nModule\n)\x81"


def test_reader_gives_every_tensor(net):
    tensors = read_torchscript(silero._folder() / "silero_vad.jit")
    assert len(tensors) == 32
    basis = tensors["_model.stft.forward_basis_buffer"]
    assert basis.shape == (258, 1, 256)
    assert basis.flags.writeable
    # The window is Hann's: the first row sums it, the row of the highest imaginary part is zero.
    np.testing.assert_allclose(basis[0, 0].sum(), 128, rtol=1e-5)


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "refused to load os.system"),
        (b"\x80\x02}.", "expected a module, got <class 'dict'>"),
        (HEAD + b".", r"module '\(the whole\)' has no attributes"),
        (HEAD + b"]b.", r"module '\(the whole\)' has no attributes"),
        (HEAD + b"}K\x01K\x02sb.", "an attribute of module '' is called 1"),
        (HEAD + b"q\x00}X\x01\x00\x00\x00ah\x00sb.", "recursion"),
        (HEAD, "cannot read the archive"),
    ],
)
def test_reader_refuses(tmp_path, pickled, message):
    with pytest.raises(ValueError, match=message):
        read_torchscript(archive(tmp_path / "hostile.jit", pickled))


def test_reader_refuses_what_is_no_archive(tmp_path):
    (tmp_path / "no.jit").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="cannot read the archive"):
        read_torchscript(tmp_path / "no.jit")
    with pytest.raises(FileNotFoundError):
        read_torchscript(tmp_path / "none.jit")
