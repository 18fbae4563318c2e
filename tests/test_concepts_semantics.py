"""What units mean: numbers by hand, against NumPy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jaxlrp import concepts

from numeric import close

pytestmark = pytest.mark.usefixtures("x64")


def of(*rows):
    return concepts.Semantics.of(np.array([rows], float))


@pytest.mark.parametrize(
    ("rows", "clarity"),
    [
        ([(3, 4)] * 3, 1),
        ([(1, 0, 0), (0, 1, 0), (0, 0, 1)], 0),
        ([(1, 0), (-1, 0)], -1),
        ([(1, 0), (1, 0), (0, 1), (0, 1)], 1 / 3),
        ([(9, 0), (1, 0), (0, 1), (0, 5)], 1 / 3),  # lengths do not matter
    ],
)
def test_clarity_by_hand(rows, clarity):
    close(of(*rows).clarity, [clarity], rtol=1e-12)


def test_polysemanticity_by_hand():
    close(of((1, 0), (1, 0), (0, 1), (0, 1)).polysemanticity(), [1], rtol=1e-12)
    close(of((1, 0), (-1, 0), (-2, 0)).polysemanticity(), [2], rtol=1e-12)
    assert of((1, 2), (1, 2), (1, 2)).polysemanticity().tolist() == [0]


def test_units_against_numpy():
    """Numbers of units with different numbers of samples; one has none, one has one."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 4, 3))
    valid = np.arange(4) < np.array([4, 3, 0, 1, 2])[:, None]
    found = concepts.Semantics.of(np.where(valid[..., None], vectors, np.nan), valid)
    own = [v[u] for v, u in zip(vectors, valid, strict=True)]
    theta = np.stack([v.mean(axis=0) if len(v) else np.full(3, np.nan) for v in own])
    unit = theta / np.linalg.norm(theta, axis=1, keepdims=True)
    close(found.theta[found.count > 0], theta[[0, 1, 3, 4]], rtol=1e-12)
    assert np.isnan(found.theta[2]).all()
    for i, v in enumerate(own):
        v = v / np.linalg.norm(v, axis=1, keepdims=True)
        pairs = [a @ b for j, a in enumerate(v) for k, b in enumerate(v) if j != k]
        assert len(pairs) == 0 or np.isclose(found.clarity[i], np.mean(pairs), rtol=1e-12)
        assert np.isnan(found.clarity[i]) == (len(pairs) == 0)
        others = [k for k in (0, 1, 3, 4) if k != i]
        cosines = [unit[i] @ unit[k] for k in others]
        expected = (np.nan, -1) if i == 2 else (max(cosines), others[np.argmax(cosines)])
        close([found.redundancy[i]], [expected[0]], rtol=1e-12)
        assert found.nearest[i] == expected[1]
    assert np.isnan(found.polysemanticity()).tolist() == [False, False, True, True, False]
    queries = rng.normal(size=(2, 3))
    cosine = queries @ unit.T / np.linalg.norm(queries, axis=1, keepdims=True)
    close(found.probe(queries)[:, [0, 1, 3, 4]], cosine[:, [0, 1, 3, 4]], rtol=1e-12)
    for name in ("clarity", "redundancy"):
        traced = jax.jit(lambda held, name=name: getattr(held, name))(found)
        np.testing.assert_allclose(traced, getattr(found, name), rtol=1e-12)


TEXTS = {
    "a cat": (4, 1), "a dog": (1, 3), "a ": (1, 1),
    "the cat!": (7, 2), "the dog!": (2, 5), "the !": (2, 2),
    "cat": (1, 0), "dog": (0, 1),
}  # fmt: skip


def embed_text(texts):
    return np.array([TEXTS[text] for text in texts], float)


def test_templates_stay_with_their_query():
    """Several queries and templates: cat is ((3, 0) + (5, 0)) / 2, dog ((0, 2) + (0, 3)) / 2."""
    found = concepts.Semantics.of(np.eye(2)[:, None])
    templates = ("a {}", "the {}!")
    close(found.probe(["cat", "dog"], embed_text, templates=templates), np.eye(2), rtol=1e-12)
    lone = found.probe(["dog"], embed_text, templates=templates)
    close(lone, [[0, 1]], rtol=1e-12)
    close(found.probe(["cat", "dog"], embed_text), np.eye(2), rtol=1e-12)
    one = found.probe(["dog"], embed_text, templates=["a {}"])
    close(one, [[0, 1]], rtol=1e-12)


def test_units_that_are_never_active_have_no_samples():
    """Not the last sample, nor the first ones, as if they were the most active."""
    scores = np.array([[3.0, 0.0, -1.0], [1.0, 0.0, 2.0], [2.0, 0.0, -2.0]])
    table, calls = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]]), []

    def embed(rows):
        calls.extend(rows.tolist())
        return table[rows]

    top = concepts.TopK.of(scores, np.arange(3), k=4)
    found = concepts.semantics(top, embed, batch_size=2)
    assert found.count.tolist() == [3, 0, 1]
    close(found.theta[0], table.mean(axis=0), rtol=1e-12)
    assert np.isnan(found.theta[1]).all()
    close(found.theta[2], table[1], rtol=1e-12)
    assert sorted(calls) == [0, 1, 2]  # each sample once
    assert found.nearest.tolist() == [2, -1, 0]


TOP = concepts.TopK.of(np.ones((3, 2)), np.arange(3), k=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: concepts.semantics(TOP, lambda r: np.ones((3, 4))), r"embed must give floats of shape"),
        (lambda: concepts.semantics(TOP, lambda r: np.ones(len(r))), r"of shape \(2, d\).*\(2,\)"),
        (lambda: concepts.semantics(TOP, lambda r: np.full((len(r), 2), np.nan)),
         r"embed must give finite embeddings, but 2 of 2 have NaN"),
        (lambda: concepts.semantics(TOP, lambda r: np.ones((1, r[0] + 1)), batch_size=1),
         r"embeddings of one length, got \[1, 2\]"),
        (lambda: concepts.semantics(TOP[None], lambda r: np.ones((len(r), 2))), r"top must be the top"),
        (lambda: concepts.semantics(concepts.TopK.of(-np.ones((2, 1)), np.arange(2), k=2), np.ones),
         r"at least one sample with a positive score"),
        (lambda: concepts.Semantics.of(np.ones((2, 3))), r"vectors must be floats of shape \(units"),
        (lambda: concepts.Semantics.of(np.full((1, 2, 2), np.nan)), r"vectors must give finite"),
        (lambda: concepts.Semantics.of(np.ones((1, 2, 2)), np.ones(2, bool)), r"valid must be booleans"),
        (lambda: of((1, 0)).probe(["cat"]), r"queries are strings, so embed_text is needed"),
        (lambda: of((1, 0)).probe(["cat"], embed_text, templates=["a cat"]), r"must contain \"{}\""),
        (lambda: of((1, 0)).probe(["cat"], lambda t: np.ones((2, 2))), r"embed_text must give floats"),
        (lambda: of((1, 0)).probe(["cat"], lambda t: np.full((1, 2), np.inf)), r"embed_text must give fin"),
        (lambda: of((1, 0)).probe(np.ones((1, 3))), r"queries must have embeddings as long as.*, 2\)"),
        (lambda: concepts.cosy(np.ones((2, 3)), np.ones((2, 2))), r"the same units, got 3 and 2"),
        (lambda: concepts.cosy(np.ones((0, 3)), np.ones((2, 3))), r"shown must be floats"),
        (lambda: concepts.cosy(np.ones((2, 3)), np.full((2, 3), np.nan)), r"control must be finite"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_string_is_not_a_list_of_queries():
    with pytest.raises(TypeError, match=r"write \['cat'\]"):
        of((1, 0)).probe("cat", embed_text)


def test_cosy_against_scikit_learn():
    rng = np.random.default_rng(0)
    shown, control = rng.integers(0, 6, (20, 3)) + 0.0, rng.integers(0, 5, (30, 3)) + 0.0
    found = concepts.cosy(shown, control)
    truth = np.repeat([1, 0], [20, 30])
    both = np.concatenate([shown, control])
    close(found.auc, [roc_auc_score(truth, both[:, k]) for k in range(3)], rtol=1e-12)
    expected = (shown.mean(axis=0) - control.mean(axis=0)) / control.std(axis=0)
    close(found.mean_difference, expected, rtol=1e-12)
    traced = jax.jit(concepts.cosy)(jnp.asarray(shown), jnp.asarray(control))
    close(traced.auc, found.auc, rtol=1e-12)
