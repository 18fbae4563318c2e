"""The explainer itself: which argument it explains, how it compiles, what it takes."""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxlrp as lrp
from jaxlrp import baselines, targets
from jaxlrp import composites as C
from jaxlrp.explanation.base import find_explainer
from jaxlrp.explanation.compiled import LIMIT, Programs

W = jnp.array([[2.0, -1.0, 0.5], [1.0, 3.0, -2.0]])
V = jnp.array([[1.0, -1.0], [0.5, 2.0], [3.0, 1.0]])
X = jnp.array([[1.0, 2.0], [0.5, -1.0]])
EXPECTED = lrp.explain(lambda x: jax.nn.relu(x @ W) @ V, jit=False)(X, target=1).relevance


def network(x):
    return jax.nn.relu(x @ W.astype(x.dtype)) @ V.astype(x.dtype)


def of_parameters(w, x):
    return jax.nn.relu(x @ w) @ V


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def counted(fun=network):
    """A function, and the list of its traces."""
    traces = []

    def counts(*args, **kwargs):
        traces.append(args)
        return fun(*args, **kwargs)

    return counts, traces


class Net(nn.Module):
    """Twice its input in training, else its input, through a dense layer."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        return nn.Dense(2, use_bias=False)(2 * x if train else x)


@pytest.fixture(scope="module")
def linen():
    model = Net()
    return model, model.init(jax.random.key(0), X)


# Which argument


def test_a_linen_model_explains_what_comes_after_its_variables(linen):
    model, variables = linen
    expected = lrp.explain(model.apply, argnums=1, jit=False)(variables, X, target=0).relevance
    for fun in (
        model,
        model.apply,
        jax.jit(model.apply),
        functools.partial(model.apply, train=False),
    ):
        explain = lrp.explain(fun)
        assert explain.argnums == 1
        close(explain(variables, X, target=0).relevance, expected)
        assert explain.plan(variables, X).paths == ("Dense_0",)
    bound = lrp.explain(functools.partial(model.apply, variables))
    assert bound.argnums == 0
    close(bound(X, target=0).relevance, expected)
    close(lrp.explain(model.bind(variables))(X, target=0).relevance, expected)
    close(lrp.ledger(model, None, variables, X, target=0).input, expected.sum())
    assert lrp.plan(model.apply, None, variables, X).paths == ("Dense_0",)
    attached = jax.vjp(lrp.attach(model), variables, X)[1](jnp.ones((2, 2)))[1]
    close(attached, jax.grad(lambda x: model.apply(variables, x).sum())(X))
    close(baselines.input_x_gradient(model)(variables, X, target=0).relevance, expected)


def test_the_variables_are_explained_only_if_named(linen):
    model, variables = linen
    found = lrp.explain(model.apply, argnums=0)(variables, X, target=0).relevance
    assert jax.tree.structure(found) == jax.tree.structure(variables)
    wrapper = lambda v, x: model.apply(v, x)  # noqa: E731
    with pytest.raises(
        TypeError, match=r"looks like the variables of a Linen module: pass argnums=1"
    ):
        lrp.explain(wrapper)(variables, X, target=0)
    assert lrp.explain(wrapper, argnums=0)(variables, X, target=0).relevance is not None


def test_all_ways_have_one_default():
    explain = lrp.explain(lambda x, w: x @ w)
    assert explain.argnums == 0
    close(explain.ledger(X, W, target=0).input, explain(X, W, target=0).relevance.sum())
    assert explain.plan(X, W).rows[0].input_shapes == ((2, 2),)
    assert lrp.explain(nnx.Linear(2, 2, rngs=nnx.Rngs(0))).argnums == 0


# As a function


def test_an_explainer_under_transformations():
    explain = lrp.explain(network)
    close(explain(X, target=1).relevance, EXPECTED)
    close(jax.jit(explain, static_argnames="target")(X, target=1).relevance, EXPECTED)
    close(jax.jit(explain)(X, target=jnp.array([1, 1])).relevance, EXPECTED)
    each = jax.vmap(functools.partial(explain, target=1))
    close(each(X).relevance, EXPECTED)
    total = lambda x: explain(x, target=1).relevance.sum()  # noqa: E731
    assert np.isfinite(jax.grad(total)(X)).all()
    by_weights = functools.partial(lrp.explain(of_parameters, argnums=1), W)
    close(by_weights(X, target=1).relevance, EXPECTED)


def test_an_explainer_is_found_inside_functions():
    explain = lrp.explain(of_parameters, argnums=1)
    assert find_explainer(jax.jit(functools.partial(explain, W))) == (explain, 1)
    assert find_explainer(jax.vmap(explain)) == (explain, 0)
    assert find_explainer(network) is None
    gradient = baselines.gradient(network)
    assert find_explainer(jax.jit(gradient)) == (gradient, 0)


def test_it_says_what_it_is(linen):
    model, _ = linen
    found = repr(lrp.explain(model, C.epsilon_plus(), record="Dense_*"))
    assert found == "Explainer(Net.apply, epsilon_plus, argnums=1, record=('Dense_*',))"
    assert (
        repr(lrp.explain(network, jit=False)) == "Explainer(network, default, argnums=0, jit=False)"
    )
    assert repr(baselines.gradient(network)) == "baselines.gradient(network, argnums=0)"


# Compiled


def test_eager_calls_are_compiled_once_for_each_kind_of_input():
    fun, traces = counted()
    explain = lrp.explain(fun)
    for target in (0, 1, np.int32(1), 1):
        found = explain(X, target=target)
    close(found.relevance, EXPECTED)
    assert len(traces) == 2  # a Python number and NumPy's are of two types
    explain(2 * X, target=jnp.array([0, 1]))
    explain(X, target=jnp.array([1, 1]))
    assert len(traces) == 3
    explain(X.astype(jnp.bfloat16), target=1)
    explain(X[:1], target=1)
    assert len(traces) == 5
    with jax.default_matmul_precision("highest"):
        explain(X, target=1)
    assert len(traces) == 6
    explain.ledger(X, target=1)
    explain.ledger(2 * X, target=0)
    assert len(traces) == 7


class Traces:
    """Counts calls. Unlike a list it has a hash, so that a function which reads it stays one function."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1


def test_ledgers_are_compiled_once():
    traces = Traces()

    def fun(w, x, scale=1.0):
        traces()
        return scale * (x @ w)

    def total(composite, target, **kwargs):
        found = lrp.ledger(fun, composite, W, X, argnums=1, target=target, **kwargs)
        close(found.output, kwargs.get("scale", 1.0) * (X @ W)[:, target].sum())

    for target in (0, 1):
        total(None, target)
        total(lrp.Epsilon(0.1), target)
    assert traces.count == 2
    total(None, 0, scale=2.0)
    total(lrp.Epsilon(0.2), 0)
    lrp.ledger(fun, None, W, X)
    assert traces.count == 5
    for _ in range(2):
        total(None, 0, jit=False)
        lrp.explain(fun, argnums=1, jit=False).ledger(W, X, target=1)
    assert traces.count == 9


def test_ledgers_of_a_linen_model_are_compiled_once():
    traces = Traces()

    class Counted(nn.Module):
        features: int

        @nn.compact
        def __call__(self, x):
            traces()
            return nn.Dense(self.features, use_bias=False)(x)

    variables = {"params": {"Dense_0": {"kernel": W[:, :2]}}}
    for factor in (1, 2):  # of the variables, which are arguments
        scaled = jax.tree.map(lambda w: factor * w, variables)  # noqa: B023
        found = lrp.ledger(Counted(2), None, scaled, X, target=0)
        close(found.output, factor * (X @ W)[:, 0].sum())
        lrp.ledger(Counted(2).apply, None, scaled, X, target=1)
    assert traces.count == 1


def test_ledgers_see_what_a_function_captured_and_was_changed():
    """No program is kept of a function that reads arrays or a dictionary."""
    held = {"w": W, "factor": 1.0}
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))

    def fun(x):
        return held["factor"] * (x @ held["w"])

    for factor in (1.0, 2.0):
        held["factor"] = factor
        close(lrp.ledger(fun, None, X).output, factor * (X @ W).sum())
        model.kernel[...] = factor * W[:, :2]
        close(lrp.ledger(model, None, X).output, factor * (X @ W[:, :2]).sum())

    class Dense:  # which has a hash, unlike the dictionary
        def __call__(self, x):
            return x @ self.w

    dense = Dense()
    for dense.w in (W, 2 * W):
        close(lrp.ledger(dense, None, X).output, (X @ dense.w).sum())


@pytest.mark.promotes("a number of another type makes another program")
def test_functions_written_down_again_are_one_program():
    fun, traces = counted()
    explain = lrp.explain(fun)
    for factor in (1.0, 1.0, 2.0, True):
        explain(X, target=lambda z: factor * z)  # noqa: B023
    assert len(traces) == 3
    explain(X, target=lambda z: z**2)
    assert len(traces) == 4


def test_a_partial_function_of_what_has_no_hash_is_one_program():
    programs, traces = Programs(), []

    def fun(held):
        traces.append(1)
        model, x = held
        return model(x), x

    model = functools.partial(lambda weights, x: x @ weights["w"], {"w": W})
    for _ in range(2):
        close(programs.run("", fun, (model, X), lambda shapes: None), X @ W)
    assert len(traces) == 1


def test_old_programs_are_dropped():
    fun, traces = counted(lambda x, shift=0: x + shift)
    explain = dataclasses.replace(lrp.explain(fun), _programs=Programs(2))
    for shift in (0, 1, 0, 2):
        close(explain(X, shift=shift, target=0).output, X + shift)
    assert len(traces) == 3
    assert len(explain._programs) == 2
    explain(X, shift=0, target=0)
    assert len(traces) == 3
    explain(X, shift=1, target=0)  # that of 1 was not used for the longest time
    assert len(traces) == 4
    assert LIMIT == 32


def test_without_jit_nothing_is_compiled():
    fun, traces = counted()
    explain = lrp.explain(fun, jit=False)
    for _ in range(2):
        close(explain(X, target=1).relevance, EXPECTED)
    assert len(traces) == 2
    assert len(explain._programs) == 0
    assert np.array_equal(explain(X, target=1).output, network(X))


def test_captured_arrays_are_arguments_of_the_program():
    explain = lrp.explain(network)
    explain(X, target=1)
    (program,) = explain._programs._held.values()
    assert {id(W), id(V)} <= set(map(id, program.constants))


def test_static_arguments_are_told_apart(linen):
    model, variables = linen
    explain = lrp.explain(model)
    evaluated = explain(variables, X, target=0, train=False).output
    close(explain(variables, X, target=0, train=True).output, 2 * evaluated)
    close(explain(variables, X, False, target=0).output, evaluated)
    modes = lrp.explain(lambda x, mode, scale: x * (float(scale) if mode == "scaled" else 1))
    close(modes(X, "scaled", 1.0, target=0).output, X)
    close(modes(X, "scaled", True, target=0).output, X)
    close(modes(X, "plain", 3.0, target=0).output, X)
    close(modes(X, "scaled", 3.0, target=0).output, 3 * X)


def test_flags_under_a_jit_of_the_user(linen):
    model, variables = linen
    explain = lrp.explain(model)
    with pytest.raises(TypeError, match=r"value of 'train'.*static_argnames=\('train',\)"):
        jax.jit(explain)(variables, X, target=0, train=False)
    with pytest.raises(TypeError, match=r"value of positional argument 2.*static_argnums=\(2,\)"):
        jax.jit(explain)(variables, X, False, target=0)
    jax.jit(explain, static_argnames="train")(variables, X, target=0, train=False)


def test_what_looks_at_values_is_evaluated_as_it_is():
    explain = lrp.explain(lambda x, lengths: x[:, : int(lengths.max())])
    found = explain(X, target=lambda z: z, lengths=np.array([1, 0]))  # pyright: ignore
    close(found.output, X[:, :1])
    close(explain(X, target=0, lengths=np.array([1, 0])).output, X[:, :1])  # pyright: ignore
    by_value = lambda z: jnp.zeros_like(z).at[:, int(z[0].argmax())].set(1.0)  # noqa: E731
    close(lrp.explain(network)(X, target=by_value).relevance.shape, (2, 2))
    unhashable = lrp.explain(lambda x, names: x)
    close(unhashable(X, np.array(["a", "b"]), target=0).output, X)


def test_numbers_text_and_none_among_arguments_come_back():
    def fun(given):
        return given["x"] * given["factor"] + 0 * given["rest"][0]

    given = {"x": X, "factor": 3.0, "rest": (np.ones(2, np.float32), "text", None)}
    found = lrp.explain(fun)(given, target=lambda z: z)
    assert found.relevance["rest"][1:] == ("text", None)
    assert found.relevance["factor"].shape == ()
    assert isinstance(found.relevance["rest"][0], jax.Array)


def test_the_state_of_an_nnx_module_is_that_of_its_making():
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    explain = lrp.explain(model)
    before = explain(X, target=0).output
    model.kernel.set_value(2 * model.kernel.get_value())
    close(explain(X, target=0).output, before)
    close(lrp.explain(model)(X, target=0).output, model(X))


def test_a_target_that_reads_another_global_is_another_program():
    """As in a notebook whose cell runs again."""
    explain, scope = lrp.explain(network), {"factor": 1.0}
    cell = "target = lambda z: factor * z"
    exec(cell, scope)
    once = explain(X, target=scope["target"]).relevance
    scope["factor"] = 2.0
    exec(cell, scope)
    close(explain(X, target=scope["target"]).relevance, 2 * once)
    scope["factor"] = jnp.full((), 3.0)
    exec(cell, scope)
    close(explain(X, target=scope["target"]).relevance, 3 * once)


# Targets


@pytest.mark.parametrize("label", [2, -1, np.int64(2), np.array([0, 2]), jnp.array([2, 0])])
@pytest.mark.parametrize(
    "of", [lambda t: t, targets.Contrast, targets.LogOdds], ids=["plain", "contrast", "log-odds"]
)
def test_targets_out_of_range(label, of):
    explain = lrp.explain(network)
    explain(X, target=of(0 * label))  # the same program
    for call in (explain, explain.ledger, baselines.gradient(network)):
        with pytest.raises(IndexError, match=r"target (2|-1) is out of range: .* has 2 classes"):
            call(X, target=of(label))
    if isinstance(label, int):
        with pytest.raises(IndexError, match="is out of range"):
            jax.jit(lambda x: explain(x, target=of(label)).relevance)(X)
    else:
        found = jax.jit(explain)(X, target=of(jnp.asarray(label))).relevance
        assert np.isnan(found[np.broadcast_to(np.asarray(label) == 2, 2)]).all()


def test_labels_of_small_integers():
    wide = lrp.explain(lambda x: x)
    z = jnp.ones((1, 600))
    found = wide(z, target=np.array([3], np.uint8)).relevance
    assert found.sum() == found[0, 3] == 1


# Names of the model's own arguments


def test_keyword_arguments_of_the_model_named_like_those_of_the_explainer():
    def fun(x, target, condition=1.0, argnums=0):
        return x * target * condition + argnums

    own = {"target": jnp.array([1.0, 3.0]), "condition": 2.0, "argnums": 5}
    expected = fun(X, **own)
    close(lrp.explain(fun)(X, target=0, fun_kwargs=own).output, expected)
    close(baselines.gradient(fun)(X, target=0, fun_kwargs=own).output, expected)
    close(lrp.ledger(fun, None, X, fun_kwargs=own).output, expected.sum())
    assert len(lrp.plan(fun, None, X, fun_kwargs=own)) == len(
        lrp.explain(fun).plan(X, fun_kwargs=own)
    )
    with pytest.raises(TypeError, match="'argnums' is passed twice"):
        lrp.explain(fun)(X, argnums=1, fun_kwargs=own)


# Composites


def test_a_rule_in_place_of_a_composite():
    plan = lrp.plan(network, lrp.Epsilon(0.1), X)
    assert plan.rules == (lrp.Epsilon(0.1), lrp.Pass(), lrp.Epsilon(0.1))
    with pytest.raises(ValueError, match=r"Norm.* applies to .* but the composite matches only"):
        lrp.plan(network, lrp.Norm(0.1), X)


def test_a_function_in_place_of_a_composite():
    seen = []

    def choose(layer):
        seen.append((layer.kind, layer.path, layer.output_shape, layer.first, layer.last))
        return lrp.ZPlus() if layer.last else None

    plan = lrp.plan(network, choose, X)
    assert plan.rules == (lrp.LRP0(), lrp.Pass(), lrp.ZPlus())
    assert seen[0] == ("dense", "dot_general", (2, 3), True, False)
    assert {kind for kind, *_ in seen} <= set(lrp.KINDS)
    explained = lrp.explain(network, choose)(X, target=1).relevance
    close(explained, lrp.explain(network, plan)(X, target=1).relevance)
    with pytest.raises(TypeError, match=r"must return a Rule or None for each layer, got 'z\+'"):
        lrp.plan(network, lambda layer: "z+", X)
    with pytest.raises(ValueError, match=r"Flat.* but the composite matches only activation"):
        lrp.plan(network, lambda la: lrp.Flat() if la.kind == "activation" else None, X)


def test_the_first_match_wins_in_replace():
    plan = lrp.plan(network, None, X)
    found = plan.replace({"dot_general": lrp.Flat(), "dot*": lrp.ZPlus()})
    assert found.rules == (lrp.Flat(), lrp.Pass(), lrp.ZPlus())
    reverse = plan.replace({"dot*": lrp.ZPlus(), "dot_general": lrp.Flat()})
    assert reverse.rules == (lrp.ZPlus(), lrp.Pass(), lrp.ZPlus())


# Patterns


def test_start_and_condition_take_patterns():
    named = lrp.explain(network, start="dot_general")(X, target=0).relevance
    close(lrp.explain(network, start="rel*")(X, target=0).relevance, named)
    with pytest.raises(
        ValueError, match=r"start='dot\*' must match one layer, but matches 2: 'dot_general'"
    ):
        lrp.explain(network, start="dot*")(X, target=0)
    with pytest.raises(ValueError, match="start='nothing' matches no layer"):
        lrp.explain(network, start="nothing")(X, target=0)
    for wrong in (3, [3]):
        with pytest.raises(TypeError, match=r"record must be a path .* got \[?3"):
            lrp.explain(network, record=wrong)  # pyright: ignore
    with pytest.raises(TypeError, match=r"start must be the path of a layer .* got 3"):
        lrp.explain(network, start=3)  # pyright: ignore
    explain = lrp.explain(network)
    with pytest.raises(TypeError, match=r"the keys of condition must be a path .* got {3:"):
        explain(X, target=1, condition={3: 0.0})  # pyright: ignore
    mask = jnp.array([1.0, 0.0, 1.0])
    masked = explain(X, target=1, condition={"relu": mask}).relevance
    close(explain(X, target=1, condition={"r*u": mask}).relevance, masked)
    assert np.abs(masked - EXPECTED).max() > 0.1
    close(explain(X, target=1, condition={"*": 0.0, "relu": 1.0}).relevance, 0 * X)
    own = {"dot*": 0.0, "dot_general": mask, "dot_general:1": 1.0}
    close(explain(X, target=1, condition=own).relevance, masked)
    with pytest.raises(
        ValueError, match=r"two patterns that match the layer 'relu', '\*u' and 'r\*'"
    ):
        explain(X, target=1, condition={"r*": 0.0, "*u": 1.0})


def test_records_come_in_the_order_of_evaluation():
    found = lrp.explain(network, record=("relu", "*"))(X, target=1)
    assert list(found.records) == ["dot_general", "relu", "dot_general:1"]
    assert list(
        jax.jit(lambda x: lrp.explain(network, record="*")(x, target=1))(X).records
    ) == list(found.records)
    assert jax.tree.structure(copy.copy(found)) == jax.tree.structure(found)
