"""Targets: what relevance begins with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import targets

Z = jnp.array([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]])
explain = lrp.explain(lambda x: x)


def begins(target, z=Z):
    return explain(z, target=target).relevance


def test_class_index_begins_as_that_logit():
    np.testing.assert_array_equal(begins(1), [[0, -2, 0], [0, 4, 0]])
    np.testing.assert_array_equal(begins(jnp.array([2, 0])), [[0, 0, 3], [0.5, 0, 0]])
    np.testing.assert_array_equal(begins(np.int64(0)), [[1, 0, 0], [0.5, 0, 0]])


@pytest.mark.parametrize("jit", [True, False])
def test_a_list_is_an_array(jit):
    explain = lrp.explain(lambda x: x, jit=jit)
    np.testing.assert_array_equal(explain(Z, target=[2, 0]).relevance, [[0, 0, 3], [0.5, 0, 0]])
    np.testing.assert_array_equal(explain(Z, target=(2, 0)).relevance, [[0, 0, 3], [0.5, 0, 0]])
    ones = [[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]]
    np.testing.assert_allclose(explain(Z, target=ones).relevance, ones, rtol=1e-6)
    found = explain(Z, target=targets.Contrast([0, 2], [1, 1])).relevance
    np.testing.assert_array_equal(found, [[1, 2, 0], [0, -4, -1]])
    pair = lrp.explain(lambda x: [x, 2 * x], jit=jit)(Z, target=[0, 1]).relevance  # a part each
    np.testing.assert_array_equal(pair, [[1, -4, 0], [0.5, 8, 0]])
    for target, message in (
        ([2, 3], "target 3 is out of"),
        (targets.LogOdds([-1, 0]), "target -1"),
    ):
        with pytest.raises(IndexError, match=message):
            explain(Z, target=target)
    lazily = jax.jit(lambda a, b: explain(Z, target=[a, b]).relevance)
    np.testing.assert_array_equal(lazily(2, 0), [[0, 0, 3], [0.5, 0, 0]])


def test_region_of_a_segmentation():
    z = jnp.arange(1.0, 25.0).reshape(2, 2, 2, 3)  # (N, H, W, C)
    mask = jnp.array([[True, False], [True, True]])
    one = np.asarray(mask)[..., None] * np.array([0.0, 0.0, 1.0])
    np.testing.assert_array_equal(begins(targets.Region(2, mask), z), z * one)
    each = jnp.stack([mask, ~mask]).astype(jnp.float32) * 0.5
    classes = np.stack([np.eye(3)[0], np.eye(3)[2]])[:, None, None] * np.asarray(each)[..., None]
    for target in (jnp.array([0, 2]), [0, 2]):
        np.testing.assert_array_equal(begins(targets.Region(target, each), z), z * classes)
    jitted = jax.jit(lambda m: begins(targets.Region(2, m), z))(mask)
    np.testing.assert_array_equal(jitted, z * one)
    for wrong in (jnp.ones((3, 2)), jnp.ones((2, 2, 2, 3)), jnp.ones((2, 2, 2, 1))):
        with pytest.raises(ValueError, match=r"the mask, of shape .* \(2, 2, 2, 3\)"):
            begins(targets.Region(2, wrong), z)
    with pytest.raises(IndexError, match="target 3 is out of range"):
        begins(targets.Region(3, mask), z)
    with pytest.raises(ValueError, match=r"the mask, of shape \(\)"):
        begins(targets.Region(0, 1.0), z[0, 0, 0])


def test_arrays_and_functions_are_relevances():
    one_hot = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    np.testing.assert_allclose(begins(one_hot), one_hot, rtol=1e-6)
    np.testing.assert_allclose(begins(lambda z: z**2), Z**2, rtol=1e-6)
    np.testing.assert_array_equal(begins(lambda z: z.argmin(-1)), [[0, -2, 0], [0, 0, -1]])


def test_relevance_of_an_output_of_zero_is_not_lost():
    np.testing.assert_array_equal(begins(jnp.array([3.0, 5.0]), jnp.array([0.0, 1.0])), [3.0, 5.0])


def test_predicted():
    np.testing.assert_array_equal(begins(targets.predicted), [[0, 0, 3], [0, 4, 0]])


def test_contrast():
    np.testing.assert_array_equal(begins(targets.Contrast(0, 2)), [[1, 0, -3], [0.5, 0, 1]])
    rest = begins(targets.Contrast(0))
    np.testing.assert_allclose(rest, [[1, 1, -1.5], [0.5, -2, 0.5]], rtol=1e-6)


def test_log_odds():
    with jax.enable_x64(True):
        z = jnp.asarray(np.asarray(Z, np.float64))
        found = begins(targets.LogOdds(0), z).sum(-1)
        p = jax.nn.softmax(z)[:, 0]
        others = jax.nn.softmax(z[:, 1:])
        entropy = -(others * jnp.log(others)).sum(-1)
        np.testing.assert_allclose(found, jnp.log(p / (1 - p)) + entropy, rtol=1e-10)


def test_selections_are_arguments_of_jit():
    run = jax.jit(explain)
    np.testing.assert_array_equal(
        run(Z, target=targets.Contrast(0, 2)).relevance, [[1, 0, -3], [0.5, 0, 1]]
    )
    np.testing.assert_array_equal(run(Z, target=targets.predicted).relevance[1], [0, 4, 0])


def test_one_value_for_each_example_needs_no_target():
    np.testing.assert_array_equal(explain(jnp.array([2.0, 3.0])).relevance, [2.0, 3.0])
    np.testing.assert_array_equal(explain(jnp.array([[2.0], [3.0]])).relevance, [[2.0], [3.0]])


def span(x):
    """A question-answering head: scores of each position as start and as end."""
    return x + 0.0, 2.0 * x


def spans(target, x=Z):
    """Relevance that begins at the starts and at the ends: they reach different inputs."""
    result = lrp.explain(lambda pair: span(pair[0])[:1] + span(pair[1])[1:])((x, x), target=target)
    return result.relevance


def test_each_part_of_an_output_has_a_target_of_its_own():
    starts, ends = jnp.array([2, 0]), jnp.array([1, 1])
    at_start, at_end = [[0, 0, 3], [0.5, 0, 0]], [[0, -4, 0], [0, 8, 0]]
    for found in (spans((starts, ends)), jax.jit(lambda a, b: spans((a, b)))(starts, ends)):
        np.testing.assert_array_equal(found[0], at_start)
        np.testing.assert_array_equal(found[1], at_end)
    for target, first, second in [
        ((2, targets.predicted), [[0, 0, 3], [0, 0, -1]], [[0, 0, 6], [0, 8, 0]]),
        ((starts, targets.Contrast(ends, 0)), at_start, [[-2, -4, 0], [-1, 8, 0]]),
        (
            (jnp.ones((2, 3)), lambda z: z * (z > 0).astype(z.dtype)),
            np.ones((2, 3)),
            [[2, 0, 6], [1, 8, 0]],
        ),
        ((Z * 3, ends), Z * 3, at_end),
    ]:
        found = spans(target)
        np.testing.assert_allclose(found[0], first, rtol=1e-6, err_msg=str(target))
        np.testing.assert_allclose(found[1], second, rtol=1e-6, err_msg=str(target))


def test_no_relevance_begins_at_a_part_without_a_target():
    starts = jnp.array([2, 0])
    for target, begun, silent in [((starts, None), 0, 1), ((None, 0), 1, 0)]:
        found = spans(target)
        assert np.abs(found[begun]).max() > 0
        np.testing.assert_array_equal(found[silent], 0)


def test_parts_of_other_containers_and_scalars():
    def heads(x):
        return {"class": x, "box": [2 * x, x.sum()]}

    found = lrp.explain(heads)(Z, target={"class": 1, "box": [None, None]}).relevance
    np.testing.assert_array_equal(found, [[0, -2, 0], [0, 4, 0]])
    total = lrp.explain(heads)(Z, target={"class": None, "box": [None, 11.0]}).relevance
    np.testing.assert_allclose(total, 2 * Z, rtol=1e-5)  # 11 of a sum of 5.5
    counted = lrp.explain(heads)(Z, target={"class": None, "box": [None, jnp.array(11)]}).relevance
    np.testing.assert_array_equal(counted, total)


def test_parts_of_a_dictionary_may_be_left_out():
    def heads(x):
        return {"class": x, "box": 2 * x}

    for jit in (True, False):
        found = lrp.explain(heads, jit=jit)(Z, target={"box": 1}).relevance
        np.testing.assert_array_equal(found, [[0, -4, 0], [0, 8, 0]])
    for target, message in [
        ({"boxes": 1}, r"the key 'boxes', which the output does not have: the nearest are 'box'"),
        (0, r"such as target=\{'box': 0\}, whose keys may be 'box', 'class'; "),
        (targets.predicted, r"such as target=\{'box': 0\}, whose keys may be 'box', 'class'; "),
    ]:
        with pytest.raises(ValueError, match=message):
            lrp.explain(heads)(Z, target=target)


@pytest.mark.parametrize("target", [0, None, targets.predicted])
def test_a_forgotten_has_aux_is_named(target):
    def fun(x):
        return x, {"hidden": x}

    with pytest.raises((ValueError, TypeError), match=r"auxiliary, pass has_aux=True to jaxlrp"):
        lrp.explain(fun)(Z, target=target)
    with pytest.raises(TypeError, match=r"got one array: leave out has_aux"):
        lrp.explain(lambda x: x, has_aux=True)(Z, target=target)


def test_parts_in_the_ledger():
    w = jnp.array([[1.0, 2.0], [0.5, -1.0], [1.0, 1.0]])
    ledger = lrp.ledger(lambda x: (x @ w, x @ w), None, Z, target=(0, None))
    np.testing.assert_allclose(ledger.output, (Z @ w)[:, 0].sum(), rtol=1e-5)
    np.testing.assert_allclose(ledger.input, ledger.output, rtol=1e-5)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (
            (0,),
            ValueError,
            r"pass a target for each of its parts in a pytree of the same structure",
        ),
        ([0, 1], ValueError, r"the output is .*float32\[2, 3\].* which the target .* does not fit"),
        (0, ValueError, r"for each of its parts"),
        (
            targets.predicted,
            ValueError,
            r"Predicted\(\) is a target for one array, but the output is",
        ),
        ((None, None), ValueError, r"target is None for every part of the output"),
        (None, TypeError, r"target is missing: the output is \('float32\[2, 3\]"),
    ],
)
def test_errors_of_parts(target, error, message):
    with pytest.raises(error, match=message):
        spans(target)


def test_an_error_in_a_part_names_it():
    with pytest.raises(IndexError, match=r"target 3 is out of range") as caught:
        spans((0, 3))
    assert caught.value.__notes__ == ["This is about target[1]."]


@pytest.mark.parametrize("position", [-1, 1])
def test_the_next_token(position):
    """Of (B, T, V) scores one position is chosen, in the function or in the target."""
    rng = np.random.default_rng(0)
    w = jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
    x = jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32)

    def decoder(x):
        return jnp.cumsum(x, axis=1) @ w  # every position reads those before it

    def chosen(x):
        return decoder(x)[:, position]

    right, wrong = jnp.array([4, 0]), jnp.array([1, 2])
    seen = np.arange(3)[:, None] <= position % 3
    rows = np.arange(2)
    of = lambda token: np.asarray(x * w.T[token][:, None]) * seen  # noqa: E731
    exact = lrp.composites.by_kind("dense", lrp.LRP0())
    found = lrp.explain(chosen, exact)(x, target=right).relevance
    np.testing.assert_allclose(found, of(right), rtol=1e-5)
    found = lrp.explain(chosen, exact)(x, target=targets.Contrast(right, wrong)).relevance
    np.testing.assert_allclose(found, of(right) - of(wrong), rtol=1e-4, atol=1e-6)

    def contrast(z):
        at = jnp.zeros_like(z).at[rows, position, right].set(z[rows, position, right])
        return at.at[rows, position, wrong].set(-z[rows, position, wrong])

    found = lrp.explain(decoder, exact)(x, target=contrast).relevance
    np.testing.assert_allclose(found, of(right) - of(wrong), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (None, TypeError, r"target is missing: the output is float32\[2, 3\]"),
        (3, IndexError, r"target 3 is out of range: the output has 3 classes"),
        (-1, IndexError, r"target -1 is out of range"),
        (jnp.array([0, 5]), IndexError, r"target 5 is out of range"),
        (jnp.array([0, 1, 2]), ValueError, r"one class index for each of the outputs \(2,\)"),
        (jnp.ones((3, 2)), ValueError, r"must have the output's shape \(2, 3\)"),
        (True, TypeError, r"got True"),
        (
            "cat",
            TypeError,
            r"must be a class index, an array .*, got 'cat'; .* pass jaxlrp.targets",
        ),
        (["cat", 1], TypeError, r"must be a class index, an array .*, got 'cat'"),
        (targets.Contrast, TypeError, r"the class Contrast: write jaxlrp.targets.Contrast\(...\)"),
        (targets.Predicted, TypeError, r"the class Predicted: write jaxlrp.targets.predicted"),
        ({"a": 1}, ValueError, r"which the target .* does not fit"),
        (lambda z: {"a": z}, ValueError, r"must return relevance shaped like the output"),
    ],
)
def test_errors(target, error, message):
    with pytest.raises(error, match=message):
        begins(target)
