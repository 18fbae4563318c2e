"""attach, explain and plan: records, conditions, starts, parameters, several targets, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxlrp as lrp
from jaxlrp import composites as C

# numbers.md, case 17 (RelevancePropagation.jl): two dense layers, linear

W1, B1 = jnp.array([[1.0, 3.0], [4.0, 2.0]]), jnp.array([0.0, 1.0])
W2, B2 = jnp.array([[2.0, 4.0], [3.0, 1.0]]), jnp.array([1.0, 2.0])
X = jnp.array([1.0, 2.0])
PARAMS = {"first": {"w": W1, "b": B1}, "second": {"w": W2, "b": B2}}


def two_layers(params, x):
    for name in ("first", "second"):
        x = params[name]["w"] @ x + params[name]["b"]
    return x


def relevance_of_one(z):
    """Relevance one at the first output."""
    return jnp.zeros_like(z).at[0].set(1.0)


def test_record_at_a_hidden_layer():
    result = lrp.explain(two_layers, argnums=1, record="first/*")(
        PARAMS, X, target=relevance_of_one
    )
    record = result.records["first/w"]
    np.testing.assert_allclose(record.relevance, [14 / 51, 36 / 51], rtol=1e-6)
    np.testing.assert_array_equal(record.activation, W1 @ X + B1)
    np.testing.assert_allclose(result.relevance, [18 / 51, 28 / 51], rtol=1e-6)


def test_condition_keeps_one_concept():
    explain = lrp.explain(two_layers, argnums=1)
    result = explain(
        PARAMS, X, target=relevance_of_one, condition={"first/w": jnp.array([0.0, 1.0])}
    )
    np.testing.assert_allclose(result.relevance, [16 / 51, 16 / 51], rtol=1e-6)


def test_conditions_share_one_forward_pass():
    """All one-hot conditions by vmap: they add up to the whole, and equal a loop over them."""
    explain = lrp.explain(two_layers, argnums=1)

    def conditional(mask):
        return explain(PARAMS, X, target=0, condition={"first/w": mask}).relevance

    each = jax.vmap(conditional)(jnp.eye(2))
    np.testing.assert_allclose(each, jnp.stack([conditional(m) for m in jnp.eye(2)]), rtol=1e-6)
    np.testing.assert_allclose(each.sum(0), explain(PARAMS, X, target=0).relevance, rtol=1e-6)


def test_many_targets_cost_one_forward_pass():
    """FLOPs of K targets grow by one backward pass each, for a layer-rich function."""
    w = jnp.ones((64, 64)) / 64

    def deep(x):
        for _ in range(6):
            x = jax.nn.relu(x @ w)
        return x

    def flops(k):
        run = jax.vmap(lambda t: lrp.explain(deep, C.all_epsilon())(X64, target=t).relevance)
        return jax.jit(run).lower(jnp.arange(k)).compile().cost_analysis()["flops"]

    one_pass = 6 * 2 * 64 * 64 * 8
    growth = (flops(8) - flops(4)) / 4
    assert growth < 1.2 * one_pass  # the elementwise work comes on top of the matrix products
    assert flops(8) < 1.2 * one_pass * 9


X64 = jnp.ones((8, 64))


def test_start_at_a_hidden_layer():
    result = lrp.explain(two_layers, argnums=1, start="first/w")(
        PARAMS, X, target=jnp.array([1.0, 0.0])
    )
    np.testing.assert_allclose(result.relevance, [1 / 7, 6 / 7], rtol=1e-6)
    np.testing.assert_array_equal(result.output, two_layers(PARAMS, X))


def test_parameters_have_relevance():
    """Weights and biases share what the output has: R_w = w g_w of LRP-0."""
    explain = lrp.explain(two_layers, argnums=1, parameters=0)
    result = explain(PARAMS, X, target=1)
    z = two_layers(PARAMS, X)[1]
    second = result.parameters["second"]
    np.testing.assert_allclose(second["w"].sum() + second["b"].sum(), z, rtol=1e-6)
    np.testing.assert_allclose(second["w"][1], W2[1] * (W1 @ X + B1), rtol=1e-6)


@pytest.mark.parametrize("rule", [lrp.Epsilon(0.1), lrp.ZPlus(), lrp.Gamma(0.5), lrp.WSquare()])
def test_weights_and_bias_of_a_layer_share_what_its_inputs_and_bias_share(rule):
    """Every contribution is one of x_j w_jk: counted by weight or by input, the sum is the same."""
    key = jax.random.split(jax.random.key(0), 3)
    w, b, x = (jax.random.normal(k, s) for k, s in zip(key, [(4, 3), (3,), (4,)], strict=True))
    explain = lrp.explain(lambda p, x: x @ p["w"] + p["b"], C.by_kind("dense", rule), argnums=1)
    both = lrp.explain(
        lambda p, x: x @ p["w"] + p["b"], C.by_kind("dense", rule), argnums=1, parameters=0
    )
    seed = jnp.array([1.0, -2.0, 0.5])
    by_input = explain({"w": w, "b": b}, x, target=seed).relevance
    by_weight = both({"w": w, "b": b}, x, target=seed).parameters["w"]
    np.testing.assert_allclose(by_weight.sum(1), by_input, rtol=1e-5, atol=1e-6)


def test_a_rule_that_says_nothing_of_parameters():
    rule = lrp.Custom(lambda layer, x, r: x * layer.transpose(r, x))
    explain = lrp.explain(two_layers, C.by_kind("dense", rule), argnums=1, parameters=0)
    with pytest.raises(ValueError, match=r"relevance of parameters, which the rule Custom"):
        explain(PARAMS, X, target=0)


def test_pytree_inputs_and_outputs():
    def fun(inputs):
        return {"sum": inputs["a"] + 2 * inputs["b"], "first": inputs["a"]}

    inputs = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0, -1.0])}
    target = {"sum": jnp.array([7.0, 0.0]), "first": jnp.array([0.0, 2.0])}
    relevance = lrp.explain(fun)(inputs, target=target).relevance
    np.testing.assert_allclose(relevance["a"], [1.0, 2.0])
    np.testing.assert_allclose(relevance["b"], [6.0, 0.0])


def test_several_explained_arguments():
    explain = lrp.explain(lambda x, y: x * 2 + y, argnums=(0, 1))
    x, y = explain(jnp.array([1.0]), jnp.array([3.0])).relevance
    np.testing.assert_allclose([x, y], [[2.0], [3.0]])


def test_has_aux():
    result = lrp.explain(lambda x: (x * 2, {"seen": x}), has_aux=True)(jnp.array([1.0]))
    np.testing.assert_array_equal(result.aux["seen"], [1.0])
    output, aux = lrp.attach(lambda x: (x * 2, 3), has_aux=True)(jnp.array([1.0]))
    np.testing.assert_array_equal(output, [2.0])
    assert aux == 3


class Net(nn.Module):
    """All that a front end must see through: BatchNorm, Dropout, a module called twice."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        twice = nn.Conv(3, (3, 3), name="twice")
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(twice(x)))
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(twice(x)))
        return nn.Dense(4, name="head")(x.mean((1, 2)))


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.twice = nnx.Conv(3, 3, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(3, 4, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.twice(x)))
        x = self.dropout(nnx.relu(self.twice(x)))
        return self.head(x.mean((1, 2)))


IMAGE = jax.random.normal(jax.random.key(5), (2, 5, 5, 3))


@pytest.fixture(scope="module")
def linen():
    return Net(), Net().init(jax.random.key(0), IMAGE)


def test_linen_paths_and_modules(linen):
    model, variables = linen
    plan = lrp.plan(model.apply, C.epsilon_plus(), variables, IMAGE)
    found = [(row.path, row.module) for row in plan.rows if row.kind in ("conv", "dense")]
    assert found == [("twice", "Conv"), ("twice:1", "Conv"), ("head", "Dense")]
    assert plan.rows[0].absorbed == ("add", "sub", "mul", "add")
    assert isinstance(plan["twice"], lrp.ZPlus)
    assert isinstance(plan.tree["head"], lrp.Epsilon)
    assert "twice:1" in str(plan)


def test_nnx_equals_linen_and_is_left_alone(linen):
    model, variables = linen
    module = NNXNet(nnx.Rngs(0))
    params, stats = variables["params"], variables["batch_stats"]["BatchNorm_0"]
    module.twice.kernel.set_value(params["twice"]["kernel"])
    module.twice.bias.set_value(params["twice"]["bias"])
    module.head.kernel.set_value(params["head"]["kernel"])
    module.head.bias.set_value(params["head"]["bias"])
    module.norm.mean.set_value(stats["mean"])
    module.norm.var.set_value(stats["var"])
    module.eval()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(module, nnx.Param)))
    composite = C.composite(C.by_module(nnx.Linear, lrp.Epsilon(0.1)), C.epsilon_plus())
    result = lrp.explain(module, composite, record="twice*", jit=False)(IMAGE, target=2)
    expected = lrp.explain(
        model.apply,
        C.composite(C.by_module("Dense", lrp.Epsilon(0.1)), C.epsilon_plus()),
        argnums=1,
    )(variables, IMAGE, target=2)
    np.testing.assert_allclose(result.relevance, expected.relevance, rtol=1e-5, atol=1e-7)
    # one unit in the last place: with JAX 0.10.0 one of eight logits differs by it
    np.testing.assert_allclose(result.output, module(IMAGE), rtol=2**-22)
    assert list(result.records) == ["twice", "twice:1"]
    after = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert type(module) is NNXNet


def test_output_is_bit_for_bit_that_of_the_model(linen):
    model, variables = linen
    attached = lrp.attach(model.apply, C.epsilon_gamma_box(-3.0, 3.0), argnums=1)
    np.testing.assert_array_equal(attached(variables, IMAGE), model.apply(variables, IMAGE))


def test_training_mode_is_refused(linen):
    model, variables = linen
    explain = lrp.explain(model.apply, argnums=1, has_aux=True)
    with pytest.raises(lrp.TrainingModeError, match=r"statistics of the batch at 'BatchNorm_0'"):
        explain(
            variables, IMAGE, target=0, train=True, mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )  # fmt: skip
    module = NNXNet(nnx.Rngs(0))
    module.norm.use_running_average = True
    with pytest.raises(lrp.TrainingModeError, match=r"masks values at random at 'dropout'"):
        lrp.explain(module)(IMAGE, target=0)


def test_an_edited_plan_is_taken_in_place_of_a_composite(linen):
    model, variables = linen
    plan = lrp.plan(model.apply, C.epsilon_plus(), variables, IMAGE)
    edited = plan.replace({"twice": lrp.Flat()})
    by_plan = lrp.explain(model.apply, edited, argnums=1)(variables, IMAGE, target=1)
    composite = C.composite(C.by_path("twice", lrp.Flat()), C.epsilon_plus())
    by_composite = lrp.explain(model.apply, composite, argnums=1)(variables, IMAGE, target=1)
    np.testing.assert_array_equal(by_plan.relevance, by_composite.relevance)
    with pytest.raises(ValueError, match="this plan was made for a different function"):
        lrp.explain(two_layers, edited, argnums=1)(PARAMS, X, target=0)
    with pytest.raises(KeyError, match=r"no layer of the plan matches 'twise'.*'twice'"):
        plan.replace({"twise": lrp.Flat()})


def softmax_by_hand(z):
    e = jnp.exp(z)
    return e / e.sum()


PROBABILITIES = {
    "softmax": (lambda z: jax.nn.softmax(z), "the output is a softmax", "first"),
    "one class": (lambda z: jax.nn.softmax(z)[1], "the output is a softmax", "first"),
    "cast": (lambda z: jax.nn.softmax(z).astype(jnp.bfloat16), "the output is a softmax", "first"),
    "by hand": (softmax_by_hand, "the output is a softmax", "first"),
    "of two layers": (
        lambda z: jax.nn.softmax(jnp.concatenate([jnp.tanh(z), jax.nn.relu(z)])),
        "the output is a softmax",
        None,
    ),
    "sigmoid": (lambda z: jax.nn.sigmoid(z), "the output is a sigmoid", "first"),
    "two": (lambda z: (z, jax.nn.softmax(z)), "an output is a softmax", "first"),
    "log": (lambda z: jax.nn.log_softmax(z), None, None),
    "weights": (lambda z: jax.nn.softmax(z) @ W1, None, None),
    "gate": (lambda z: z * jax.nn.sigmoid(z), None, None),
}


@pytest.mark.parametrize("name", PROBABILITIES)
def test_a_plan_notes_that_the_output_is_a_probability(name):
    end, said, start = PROBABILITIES[name]

    def model(params, x):
        return end(params["first"] @ x)

    plan = lrp.plan(model, None, {"first": W1}, X, argnums=1)
    assert plan.note == str(plan).partition("All are explained.")[2].strip()
    if said is None:
        assert plan.note == ""
        return
    assert plan.note.startswith(f"note: {said}, so relevance is that of a probability")
    assert ("pass start=" in plan.note) == (start is not None)
    if start:
        assert f"pass start={start!r}" in plan.note
        found = lrp.explain(model, lrp.LRP0(), argnums=1, start=start)({"first": W1}, X, target=0)
        np.testing.assert_allclose(found.relevance, W1[0] * X, rtol=1e-6)


def test_an_auxiliary_probability_is_not_noted():
    plan = lrp.plan(lambda x: (W1 @ x, jax.nn.softmax(W1 @ x)), None, X, has_aux=True)
    assert plan.note == ""


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_float64_from_numpy_is_explained_in_float32_without_warnings(jit):
    """Warnings are errors here. JAX warns of a dtype that it does not have only where it is asked for."""
    assert not jax.config.jax_enable_x64
    x, params = np.asarray(IMAGE, np.float64), {"w": np.ones((75, 4)), "table": np.ones((5, 3))}

    def fun(params, x):
        return jax.nn.relu(x.reshape(len(x), -1) @ params["w"])

    def of(what, *args, **kwargs):
        explain = lrp.explain(what, lrp.ZBox(np.full(75, -9.0), 9.0), argnums=1, jit=jit)
        pullback = explain.replace(parameters=(), record=("*",)).vjp(*args, condition="relu")
        last = pullback(**kwargs, condition={"relu": np.ones(4)})
        return explain(*args, **kwargs), explain.ledger(*args, **kwargs).input, last

    narrow = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (params, x))
    for target in (np.ones((2, 4)), lrp.targets.Contrast(np.array([0, 1]), 2)):
        for found, same in zip(
            jax.tree.leaves(of(fun, params, x, target=target)),
            jax.tree.leaves(of(fun, *narrow, target=target)),
            strict=True,
        ):
            assert found.dtype == jnp.float32
            np.testing.assert_allclose(found, same, rtol=1e-5, atol=1e-5)
    for method in (lrp.baselines.input_x_gradient, lrp.baselines.integrated_gradients):
        assert method(fun, argnums=1, jit=jit)(params, x, target=1).relevance.dtype == jnp.float32
    looked_up = lrp.explain(lambda p, i: p["table"][i].sum(1), argnums=1, jit=jit)
    assert looked_up(params, np.array([[1, 2]]), target=1).relevance.dtype == jnp.float32
    assert lrp.explain(fun, argnums=1, debug=True)(params, x, target=1).gains
    assert lrp.attach(fun, argnums=1)(params, x).dtype == jnp.float32


BOX = C.first(lrp.ZBox(0.0, 2.0))
CHANNELS = C.first(lrp.ZBox(jnp.array([0.0, 0.0]), jnp.array([1.0, 2.0])))


@pytest.mark.parametrize(
    ("fun", "composite", "x", "message"),
    [
        (lambda x: x @ W1, BOX, X, None),
        (
            lambda x: x @ W1,
            BOX,
            X + 1,
            r"'dot_general' has values from 2 to 3, .*low=0 and high=2:",
        ),
        (
            lambda x: x @ W1,
            BOX,
            np.asarray(X - 3),
            r"has values from -2 to -1, outside of its z-box",
        ),
        (
            lambda x: x.reshape(2).astype(jnp.float32) @ W1,
            BOX,
            np.array([[3], [0]], np.uint8),
            "0 to 3",
        ),
        (lambda x: (x / 2) @ W1, BOX, 2 * X, None),  # the layer does not read x itself
        (lambda x: x @ W1, CHANNELS, X, None),
        (lambda x: x @ W1, CHANNELS, X[::-1], r"high=1 to 2"),
        (lambda x: x @ W1, BOX, X * (1 + 2**-23), None),  # rounded preprocessing
    ],
)
def test_inputs_outside_of_a_z_box_are_reported(fun, composite, x, message):
    for jit in (True, False):
        explain = lrp.explain(fun, composite, jit=jit)
        for _ in range(2):  # each call looks at its own input
            if message is None:
                explain(x, target=0)
                continue
            with pytest.warns(UserWarning, match=message) as caught:
                explain(x, target=0)
            assert caught[0].filename == __file__
    jax.jit(lrp.explain(fun, composite))(x, target=0)


ERRORS = {
    "no function": (
        lambda: lrp.explain(3),
        TypeError,
        r"fun must be a function, a Linen module or",
    ),
    "no composite": (lambda: lrp.explain(two_layers, 3), TypeError, r"must be a Composite .*got 3"),
    "has_aux": (lambda: lrp.explain(sum, has_aux=1), TypeError, r"has_aux must be True or False"),
    "debug": (lambda: lrp.explain(sum, debug="x"), TypeError, r"debug must be True .*got 'x'"),
    "jit": (lambda: lrp.explain(sum, jit=None), TypeError, r"jit must be True .*got None"),
    "zero_bias": (
        lambda: lrp.ledger(two_layers, None, PARAMS, X, zero_bias="no"),
        TypeError,
        r"zero_bias must be True or False, got 'no'",
    ),
    "parameters": (
        lambda: lrp.explain(sum, parameters="w"),
        TypeError,
        r"parameters must be the pos",
    ),
    "parameters too large": (
        lambda: lrp.explain(two_layers, argnums=1, parameters=2)(PARAMS, X, target=0),
        TypeError,
        r"parameters=\(2,\) .* argument 2, but only 2 positional",
    ),
    "a rule's class": (lambda: lrp.explain(sum, lrp.Epsilon), TypeError, r"write Epsilon\(...\)"),
    "argnums": (lambda: lrp.explain(two_layers, argnums="x"), TypeError, r"argnums must be"),
    "argnums too large": (
        lambda: lrp.explain(two_layers, argnums=2)(PARAMS, X),
        TypeError,
        r"argnums=2 .* only 2 positional arguments",
    ),
    "not an array": (
        lambda: lrp.explain(lambda x: x)("text"),
        TypeError,
        r"must be a numeric array or a pytree of numeric arrays",
    ),
    "a list of numbers": (
        lambda: lrp.explain(two_layers, argnums=1)(PARAMS, X.tolist()),
        TypeError,
        rf"\(argnums=1\) is a list of {X.size} numbers: pass an array, numpy\.asarray\(x\)",
    ),
    "integers": (
        lambda: lrp.explain(lambda x: x)(jnp.arange(3)),
        TypeError,
        r"output has dtype int32: relevance needs a floating-point output",
    ),
    "independent": (
        lambda: lrp.explain(lambda x: jnp.ones(2))(X),
        ValueError,
        r"does not depend on the explained argument",
    ),
    "record": (
        lambda: lrp.explain(two_layers, argnums=1, record="frist/w")(PARAMS, X, target=0),
        ValueError,
        r"record='frist/w' matches no layer: the nearest are 'first/w'",
    ),
    "condition": (
        lambda: lrp.explain(two_layers, argnums=1)(PARAMS, X, target=0, condition={"f": 1.0}),
        ValueError,
        r"condition\['f'\] matches no layer: there are 'first/w', 'second/w'",
    ),
    "condition of a wrong type": (
        lambda: lrp.explain(two_layers, argnums=1)(PARAMS, X, target=0, condition="first/w"),
        TypeError,
        r"condition must be a dictionary such as .*got 'first/w'",
    ),
    "mask of a wrong type": (
        lambda: lrp.explain(two_layers, argnums=1)(PARAMS, X, condition={"first/w": "all"}),
        TypeError,
        r"condition\['first/w'\] must be a number or an array .*got 'all'",
    ),
    "plan without arguments": (
        lambda: lrp.plan(two_layers, X),
        TypeError,
        r"second argument is the composite",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error(name):
    call, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        call()


def test_debug_names_the_first_layer():
    explain = lrp.explain(two_layers, argnums=1, debug=True)
    explain(PARAMS, X, target=0)
    broken = {**PARAMS, "second": {"w": W2.at[0, 0].set(jnp.nan), "b": B2}}
    with pytest.raises(lrp.NonFiniteError, match=r"argument \[0\]\['second'\]\['w'\] contains NaN"):
        explain(broken, X, target=0)
    large = {**PARAMS, "first": {"w": W1 * 5e37, "b": B1}}
    with pytest.raises(lrp.NonFiniteError, match=r"output of layer 'first/w' is the first"):
        explain(large, X, target=0)
    zero = C.by_kind("dense", lrp.Epsilon(0.0))
    with pytest.raises(lrp.NonFiniteError, match=r"first appears at the input of layer 'w'"):
        lrp.explain(lambda w, x: x @ w, zero, argnums=1, debug=True)(W1 * 0, X, target=0)
    with pytest.raises(TypeError, match=r"cannot run under jax\.jit"):
        jax.jit(explain, static_argnames="target")(PARAMS, X, target=0)


def test_under_checkpoint_scan_and_vmap_of_the_user():
    w = jnp.array([[1.0, -2.0], [0.5, 1.5]])
    plain = lrp.explain(lambda x: jax.nn.relu(x @ w) @ w, C.epsilon_plus())
    inside = lrp.explain(
        lambda x: jax.checkpoint(lambda x: jax.nn.relu(x @ w))(x) @ w, C.epsilon_plus()
    )
    expected = plain(X, target=1).relevance
    np.testing.assert_allclose(inside(X, target=1).relevance, expected, rtol=1e-6)
    around = jax.checkpoint(lambda x: plain(x, target=1).relevance)
    np.testing.assert_allclose(around(X), expected, rtol=1e-6)
    batched = jax.vmap(lambda x: plain(x, target=1).relevance)(jnp.stack([X, 2 * X]))
    np.testing.assert_allclose(batched[0], expected, rtol=1e-6)


def test_what_is_printed_is_short_and_escaped():
    explain = lrp.explain(two_layers, argnums=1, parameters=0, record="*")
    result = explain(PARAMS, X, target=0)
    assert repr(result) == (
        "Explanation(output=float32[2], relevance=float32[2], parameters={'first': {'b': float32[2], "
        "'w': float32[2,2]}, 'second': {'b': float32[2], 'w': float32[2,2]}}, "
        "records=['first/w', 'second/w'])"
    )
    assert repr(result.records["first/w"]) == "Record(float32[2])"
    many = dict.fromkeys(map(str, range(20)), result.records["first/w"])
    found = lrp.Explanation(0.0, tuple(jnp.ones(9)), records=many)
    assert repr(found) == "Explanation(output=0.0, relevance=<9 arrays>, records=<20 layers>)"
    assert "float32[2]" in repr(jax.eval_shape(lambda x: explain(PARAMS, x, target=0), X))
    for shown in (explain.plan(PARAMS, X), explain.ledger(PARAMS, X, target=0)):
        html = shown._repr_html_()
        assert html.startswith("<pre")
        assert "first/w" in html
    assert "(2) -&gt; (2)" in explain.plan(PARAMS, X)._repr_html_()
