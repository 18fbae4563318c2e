"""Tables: columns summed into features, averages over a data set, and columns that hold categories."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import tables

from numeric import close

pytestmark = pytest.mark.usefixtures("x64")
COLUMNS = ["age", "color_blue", "color_red", "rooms", "color_code_a", "color_code_b"]


def test_groups_by_the_longest_feature():
    found = tables.groups(COLUMNS, ["color", "color_code"])
    assert found == {"age": (0,), "color": (1, 2), "rooms": (3,), "color_code": (4, 5)}
    assert list(found) == ["age", "color", "rooms", "color_code"]
    assert tables.groups(["c=1", "c=2"], ["c"], separator="=") == {"c": (0, 1)}
    assert tables.groups(["mean_area", "mean_size"], []) == {"mean_area": (0,), "mean_size": (1,)}


def test_groups_are_summed_by_hand():
    r = jnp.array([[1.0, 2.0, -5.0, 3.0, 7.0, 1.0], [0.0, 1.0, 1.0, 2.0, 0.0, -4.0]])
    summed = tables.sum_groups(r, tables.groups(COLUMNS, ["color", "color_code"]))
    assert summed.tolist() == [[1.0, -3.0, 3.0, 8.0], [0.0, 2.0, 2.0, -4.0]]
    jitted = jax.jit(lambda r: tables.sum_groups(r, {"all": range(6)}))(r[0])
    assert jitted.tolist() == [9.0]
    assert tables.sum_groups(r.astype(jnp.bfloat16), {"all": range(6)}).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tables.groups(COLUMNS, "color"), TypeError, r'features must be.*\["color"\]'),
        (lambda: tables.groups(COLUMNS, ["sex"]), ValueError, "no column begins with 'sex_'; the"),
        (lambda: tables.groups(["a", "a"], []), ValueError, "names must be unique, got 'a' more"),
        (lambda: tables.sum_groups(jnp.ones(3), [0]), TypeError, "groups must be a dictionary"),
        (
            lambda: tables.sum_groups(jnp.ones(3), {"a": [0], "b": [2]}),
            ValueError,
            "groups must contain each column once; column 1 of 3 is in none",
        ),
        (
            lambda: tables.sum_groups(jnp.ones(3), {"a": [0, 1], "b": [1, 2]}),
            ValueError,
            "each column once, got column 1 in 'a' and in 'b'",
        ),
        (
            lambda: tables.sum_groups(jnp.ones(3), {"a": [0, 1, 3]}),
            ValueError,
            r"groups\['a'\] must contain positions from 0 to 2, got 3",
        ),
        (
            lambda: tables.summarize(jnp.ones((3, 2)), by=[1, 2]),
            ValueError,
            r"by must have one label for each of the 3 samples, got shape \(2,\)",
        ),
        (
            lambda: tables.summarize(jnp.ones(3)),
            ValueError,
            r"shape \(N, F\) with N >= 1, got \(3,",
        ),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_summary_by_hand():
    r = jnp.array([[1.0, 2.0], [5.0, 0.0], [3.0, -2.0], [6.0, -4.0]])
    found = tables.summarize(r, by=["cat", "dog", "cat", "dog"])
    assert found.classes == ("cat", "dog")
    assert found.count.tolist() == [2, 2]
    assert found.mean.tolist() == [[2.0, 0.0], [5.5, -2.0]]
    assert found.magnitude.tolist() == [[2.0, 2.0], [5.5, 2.0]]
    assert found.spread.tolist() == [[1.0, 2.0], [0.5, 2.0]]
    whole = tables.summarize(r)
    assert whole.classes == ("all",)
    assert whole.mean.tolist() == [[3.75, -1.0]]
    assert jax.tree.map(jnp.shape, found).mean == (2, 2)


# --- categories: whichever way they enter, the same relevance ---------------------------------------


def weights():
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((3, 4), (6, 32), (32, 1))  # embedding of 3 categories, 2 numbers and 4 dimensions
    return [jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]


NUMBERS = np.random.default_rng(0).normal(size=(5, 2))
CODES = np.array([0, 2, 1, 2, 0])


def after_embedding(numbers, embedded):
    _, hidden, head = weights()
    h = jnp.concatenate([numbers, embedded], axis=1)
    return (jax.nn.relu(h @ hidden) @ head)[:, 0]


def by_code(x):
    """A code in a table of floats, cast and looked up."""
    return after_embedding(x[:, :2], weights()[0][x[:, 2].astype(int)])


def by_integer(numbers, codes):
    return after_embedding(numbers, weights()[0][codes])


def by_one_hot(x):
    return after_embedding(x[:, :2], x[:, 2:] @ weights()[0])


def by_encoded_code(x):
    return by_one_hot(jnp.c_[x[:, :2], jax.nn.one_hot(x[:, 2].astype(int), 3)])


def test_a_category_has_the_same_relevance_by_code_by_integer_and_by_one_hot():
    composite = lrp.composites.all_epsilon(1e-12)
    coded = lrp.explain(by_code, composite)(jnp.c_[NUMBERS, CODES * 1.0])
    given = lrp.explain(by_integer, composite, argnums=(0, 1))(jnp.array(NUMBERS), jnp.array(CODES))
    hot = lrp.explain(by_one_hot, composite)(jnp.c_[NUMBERS, np.eye(3)[CODES]])
    encoded = lrp.explain(by_encoded_code, composite)(jnp.c_[NUMBERS, CODES * 1.0])
    columns = tables.groups(["a", "b", "kind_x", "kind_y", "kind_z"], ["kind"])
    summed = tables.sum_groups(hot.relevance, columns)

    assert (abs(coded.relevance[:, 2]) > 1e-3).all()
    close(coded.relevance.sum(axis=1), coded.output, rtol=1e-9)
    close(jnp.c_[given.relevance[0], given.relevance[1]], coded.relevance, rtol=1e-9)
    close(summed, coded.relevance, rtol=1e-9)
    close(encoded.relevance, coded.relevance, rtol=1e-9)
    # of one-hot columns, the one that is set has it all
    close(hot.relevance[:, 2:][np.arange(5), CODES], coded.relevance[:, 2], rtol=1e-9)
