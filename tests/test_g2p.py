"""Tests of the network from letters to phonemes: against its package, by hand, and its relevance."""

import doctest
import importlib.machinery
import importlib.util
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxlrp as lrp
from jaxlrp import composites
from jaxlrp.pretrained.g2p import (
    LETTERS,
    MAX_PHONEMES,
    PHONEMES,
    LettersToPhonemes,
    g2p,
    letters,
    predict,
    pronunciation,
)

PACKAGE = "g2p_en"
INSTALL = r"pip install --no-deps g2p-en==2\.1\.0"

# What `predict` of g2p-en 2.1.0, which is NumPy alone, says of words.
SPOKEN = {
    "photograph": "F OW1 T AH0 G R AE2 F",
    "knight": "N AY1 T",
    "bat": "B AE1 T",
    "cat": "K AE1 T",
    "through": "TH R UW1",
    "enough": "IH0 N AW1",
    "psychology": "S AY0 K AA1 L AH0 JH IY0",
    "queue": "K Y UW1",
    "colonel": "K AA1 L AH0 N AH0 L",
    "activationist": "AE2 K T IH0 V EY1 SH AH0 N IH0 S T",
    "xylophone": "Z AY1 L AH0 F OW2 N",
    "strength": "S T R EH1 NG K TH",
    "gradient": "G R EY1 D IY0 AH0 N T",
    "relevance": "R EH1 L AH0 V AH0 N S",
    "don't": "D AA1 N T",
    "naïve": "N EY1 V",
}
# and the largest logit of each phoneme of "photograph" there, `</s>` included.
LOGITS = [18.8296, 14.3799, 17.7125, 12.5814, 18.9405, 24.6394, 16.7877, 20.1652, 15.515]


@pytest.fixture(scope="module")
def net():
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip(f"{PACKAGE} is not installed ({INSTALL})".replace("\\", ""))
    return g2p()


def forced(spoken):
    """(ids of phonemes, ids of those before each) of one word, `</s>` included."""
    ids = np.array([[PHONEMES.index(name) for name in [*spoken.split(), "</s>"]]], np.int32)
    return ids, np.concatenate([[[PHONEMES.index("<s>")]], ids[:, :-1]], axis=1)


# The network.


@pytest.mark.parametrize("word", SPOKEN)
def test_phonemes_equal_those_of_the_package(net, word):
    assert predict(net, word) == SPOKEN[word].split()


def test_logits_equal_those_of_the_package(net):
    chosen, previous = forced(SPOKEN["photograph"])
    logits = jax.jit(net.model.apply)(net.variables, *net.preprocess(["photograph"]), previous)
    assert logits.shape == (1, 9, len(PHONEMES))
    assert logits.dtype == jnp.float32
    assert np.isfinite(logits).all()
    np.testing.assert_array_equal(logits.argmax(-1), chosen)
    np.testing.assert_allclose(logits.max(-1)[0], LOGITS, rtol=0, atol=2e-4)


def test_words_of_a_batch_are_spoken_as_alone(net):
    spelled = net.preprocess(list(SPOKEN), length=20)
    chosen = jax.jit(lambda v, *a: net.model.apply(v, *a, method="write"))(net.variables, *spelled)
    assert chosen.shape == (len(SPOKEN), MAX_PHONEMES)
    assert [" ".join(pronunciation(row)) for row in chosen] == list(SPOKEN.values())


def test_one_letter_changes_one_phoneme(net):
    assert predict(net, "bat")[1:] == predict(net, "cat")[1:]
    assert predict(net, "Cat") == predict(net, "cat")


def test_parameters(net):
    leaves = jax.tree.leaves(net.variables)
    assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}
    # Of 834,890, two gates of two cells have one bias in place of two.
    assert sum(leaf.size for leaf in leaves) == 834_890 - 4 * 256
    assert net.labels == PHONEMES
    assert len(repr(net)) < 200  # without the arrays
    assert PACKAGE not in sys.modules  # nothing of it was run


def test_the_example_of_the_docstring(net):
    test = doctest.DocTestParser().get_doctest(g2p.__doc__, {}, "g2p", None, None)
    for example in test.examples:
        example.options.clear()  # skipped elsewhere, for want of the weights
    assert doctest.DocTestRunner().run(test) == (0, len(test.examples))


def test_names():
    assert len(LETTERS) == 29
    assert len(PHONEMES) == len(set(PHONEMES)) == 74
    assert PHONEMES[2:6] == ("<s>", "</s>", "AA0", "AA1")
    assert PHONEMES[-10:] == ("UH1", "UH2", "UW", "UW0", "UW1", "UW2", "V", "W", "Y", "Z", "ZH")[1:]


def test_letters():
    ids, lengths = letters(["Cab", "é"], length=5)
    assert ids.dtype == lengths.dtype == np.int32
    assert ids.tolist() == [[5, 3, 4, 2, 0], [1, 2, 0, 0, 0]]
    assert lengths.tolist() == [4, 2]
    assert letters(["a", "bcd"]).ids.shape == (2, 4)


def test_a_pronunciation_ends_where_the_network_says():
    assert pronunciation([22, 3, 22]) == ["B"]
    assert pronunciation(jnp.array([22, 22])) == ["B", "B"]


@pytest.mark.parametrize(
    ("words", "length", "error", "message"),
    [
        (
            "cat",
            None,
            TypeError,
            r"words must be a sequence of strings, got a single one: write \['cat'\]",
        ),
        ([], None, ValueError, "have at least one word, got none"),
        (["cat"], 3, ValueError, "length must be >= 4, the longest word including </s>, got 3"),
    ],
)
def test_what_are_no_words_is_refused(words, length, error, message):
    with pytest.raises(error, match=message):
        letters(words, length)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=rf"weights of g2p .* not installed: {INSTALL}$"):
        g2p()


def test_a_folder_that_is_no_package_is_not_the_package(monkeypatch):
    spec = importlib.machinery.ModuleSpec(PACKAGE, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(ImportError, match=INSTALL):
        g2p()


def test_weights_of_another_network_are_refused(tmp_path, monkeypatch):
    tables = dict.fromkeys(("enc_emb", "dec_emb", "fc_w", "fc_b"), np.zeros((2, 2), np.float32))
    parts = ("w_ih", "w_hh", "b_ih", "b_hh")
    gates = {f"{n}_{p}": np.zeros((6, 2), np.float32) for n in ("enc", "dec") for p in parts}
    np.savez(tmp_path / "checkpoint20.npz", **tables, **gates)
    spec = importlib.machinery.ModuleSpec(PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(ValueError, match="does not contain the weights of g2p"):
        g2p()


# Its relevance. The weights are random, so that these tests need none.


WORDS, FEATURES, STEPS = ["knee", "axe", "photo"], 7, 4


def random_network():
    """(model, logits of the last of four phonemes, variables, ids, lengths, previous); float64."""
    rng = np.random.default_rng(0)
    model = LettersToPhonemes(FEATURES)
    ids, lengths = letters(WORDS)
    previous = rng.integers(2, len(PHONEMES), (len(WORDS), STEPS))
    shapes = jax.eval_shape(model.init, jax.random.key(0), ids, lengths, previous)
    variables = jax.tree.map(lambda leaf: 0.7 * rng.normal(size=leaf.shape), shapes)

    def logits(variables, ids, lengths, previous):
        return model.apply(variables, ids, lengths, previous)[:, -1]

    return model, logits, variables, ids, lengths, previous


ALL = composites.default()
HALF = composites.by_kind("gate", lrp.rules.Uniform()) + ALL
COMPOSITES = {"all": ALL, "half": HALF, "attnlrp": composites.attnlrp()}
TARGET = np.array([18, 40, 73])


@pytest.fixture(params=COMPOSITES)
def composite(request):
    return COMPOSITES[request.param]


def explain(logits, composite, *arguments):
    return lrp.explain(logits, composite, argnums=1)(*arguments, target=TARGET)


def cell(name, variables, hidden, x):
    """One step of one of the two GRUs."""
    params = {"params": variables["params"][name]["cell"]}
    return nn.GRUCell(FEATURES).apply(params, hidden, x)[0]


def test_scan_equals_a_loop(x64, composite):
    model, _, variables, ids, lengths, previous = random_network()
    variables = jax.tree.map(jnp.asarray, variables)
    p = variables["params"]

    def scanned(variables, x):
        return model.apply(variables, x, lengths, previous, method="read")[:, -1]

    def looped(variables, x):
        p = variables["params"]
        # Zeros that are no constant, as in a scan, whose carry is a value in every step.
        hidden, states = 0.0 * x[:, 0], []
        for t in range(x.shape[1]):
            hidden = cell("encoder", variables, hidden, x[:, t])
            states.append(hidden)
        hidden = jnp.stack([states[n - 1][i] for i, n in enumerate(lengths)])
        for t in range(STEPS):
            y = p["phoneme"]["embedding"][previous[:, t]]
            hidden = cell("decoder", variables, hidden, y)
        return hidden @ p["classifier"]["kernel"] + p["classifier"]["bias"]

    x = p["letter"]["embedding"][ids]
    a, b = (explain(f, composite, variables, x) for f in (scanned, looped))
    np.testing.assert_allclose(a.output, b.output, rtol=1e-12, atol=1e-12)
    scale = np.abs(b.relevance).max()
    np.testing.assert_allclose(a.relevance, b.relevance, rtol=1e-9, atol=1e-12 * scale)


@pytest.mark.parametrize("share", [0.0, 0.5], ids=["all", "half"])
def test_relevance_equals_that_of_a_second_derivation(x64, share):
    # With LRP-0 in dense layers, LRP is the gradient times the input of a network of the same
    # outputs, some of whose gradients are stopped or halved: here it is once more.
    constant = jax.lax.stop_gradient
    _, logits, variables, ids, lengths, previous = random_network()
    p = variables["params"]

    def part(x, share):
        return share * x + constant((1 - share) * x)

    def activation(f, a):
        return a * constant(f(a) / a)

    def gated(gate, signal):
        return part(gate, share) * part(signal, 1 - share)

    def step(cell, hidden, x):
        def from_input(gate):
            return x @ cell[f"i{gate}"]["kernel"] + cell[f"i{gate}"]["bias"]

        r, z = (
            activation(jax.nn.sigmoid, from_input(gate) + hidden @ cell[f"h{gate}"]["kernel"])
            for gate in "rz"
        )
        again = hidden @ cell["hn"]["kernel"] + cell["hn"]["bias"]
        n = activation(jnp.tanh, from_input("n") + gated(r, again))
        return gated(1 - z, n) + gated(z, hidden)

    def logit(x):  # of one word
        hidden = jnp.zeros(FEATURES)
        for letter in x:
            hidden = step(p["encoder"]["cell"], hidden, letter)
        for y in p["phoneme"]["embedding"][previous[word]]:
            hidden = step(p["decoder"]["cell"], hidden, y)
        head = p["classifier"]
        return hidden @ head["kernel"][:, TARGET[word]] + head["bias"][TARGET[word]]

    zero = composites.by_kind("dense", lrp.LRP0()) + (HALF if share else ALL)
    found = explain(logits, zero, variables, ids, lengths, previous)
    for word, length in enumerate(lengths):
        x = p["letter"]["embedding"][ids[word, :length]]
        value, slope = jax.value_and_grad(logit)(x)
        np.testing.assert_allclose(value, found.output[word, TARGET[word]], rtol=1e-10)
        expected = (x * slope).sum(-1)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            found.relevance[word, :length], expected, rtol=1e-9, atol=1e-12 * scale
        )


def test_jit_equals_eager(x64, composite):
    _, logits, *arguments = random_network()
    eager = explain(logits, composite, *arguments)
    found = jax.jit(lrp.explain(logits, composite, argnums=1))(*arguments, target=TARGET)
    np.testing.assert_array_equal(eager.output, logits(*arguments))
    np.testing.assert_allclose(found.relevance, eager.relevance, rtol=1e-9)


def test_padding_has_no_relevance_and_no_influence(x64, composite):
    _, logits, variables, ids, lengths, previous = random_network()
    found = explain(logits, composite, variables, ids, lengths, previous).relevance
    inside = np.arange(ids.shape[1]) < lengths[:, None]
    assert (found[~inside] == 0).all()
    assert (found[inside] != 0).all()
    other = np.where(inside, ids, 7)
    filled = explain(logits, composite, variables, other, lengths, previous).relevance
    np.testing.assert_array_equal(filled, found)


def test_relevance_of_real_words(net, composite):
    def logits(variables, ids, lengths, previous):
        return net.model.apply(variables, ids, lengths, previous)[:, -1]

    explained = jax.jit(lrp.explain(logits, composite, argnums=1))
    for word, letter in {"photograph": "p", "knight": "n"}.items():
        spelled = net.preprocess([word])
        first = forced(SPOKEN[word])[0][:, 0]
        found = explained(net.variables, *spelled, forced("")[1], target=first)
        assert np.isfinite(found.relevance).all()
        if composite is ALL:  # F is read from the first letter, N from the second
            assert word[int(found.relevance[0].argmax())] == letter
