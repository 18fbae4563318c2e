"""What stands around a model: callbacks, calls with rules of their own, noise, odd modules, arguments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax
from jax.experimental import io_callback

import jaxlrp as lrp
from jaxlrp import composites as C

from numeric import promoting

RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)
X = jnp.asarray(RNG.normal(size=(2, 3)), jnp.float32)


def relevance(f, *args, **kwargs):
    return lrp.explain(f, **kwargs)(*args, target=0).relevance


def plain(x):
    return jnp.tanh(x) @ W


# Operations without results


def printing(x):
    jax.debug.print("mean {m}", m=x.mean())
    return plain(x)


def calling_back(x):
    jax.debug.callback(lambda m: None, x.mean())
    return plain(x)


def calling_io(x):
    io_callback(lambda m: None, None, x.mean(), ordered=False)
    return plain(x)


def printing_in_a_scan(x):
    def step(h, _):
        jax.debug.print("{h}", h=h.sum())
        return jnp.tanh(h), None

    return lax.scan(step, x, None, length=1)[0] @ W


@pytest.mark.parametrize("f", [printing, calling_back, calling_io, printing_in_a_scan])
def test_operations_without_results_run_as_in_the_model(f, capfd):
    np.testing.assert_allclose(relevance(f, X), relevance(plain, X), rtol=1e-6)
    jax.effects_barrier()
    shown = capfd.readouterr().out
    assert bool(shown) == ("print" in f.__name__)
    coverage = lrp.plan(f, None, X).coverage
    assert sum(n for way, _, n in coverage.counts if way == "effect") == 1


# Calls that hold a program


@jax.custom_batching.custom_vmap
def batched(x):
    return jnp.tanh(x)


@batched.def_vmap
def _rule(axis_size, in_batched, x):
    return jnp.tanh(x), in_batched[0]


CALLS = {
    "custom_vmap": batched,
    "sequential_vmap": jax.custom_batching.sequential_vmap(jnp.tanh),
    "composite": lambda x: lax.composite(lambda x: jnp.tanh(x), "my.tanh")(x),
    "composite in jit": jax.jit(lambda x: lax.composite(lambda x: jnp.tanh(x), "my.tanh")(x)),
    "checkpointed custom_vmap": jax.checkpoint(batched),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_that_hold_a_program_are_looked_into(name):
    f = lambda x: CALLS[name](x) @ W  # noqa: E731
    assert np.array_equal(lrp.attach(f)(X), f(X))
    np.testing.assert_allclose(relevance(f, X), relevance(plain, X), rtol=1e-6)
    kinds = [row.kind for row in lrp.plan(f, None, X).rows]
    assert kinds == ["activation", "dense"]


def test_an_exported_function_cannot_be_looked_into():
    exported = jax.export.export(jax.jit(jnp.tanh))(X)
    with pytest.raises(lrp.UnsupportedError, match="explain the original function"):
        relevance(lambda x: exported.call(x) @ W, X)


def test_advice_for_loops_without_a_bound_can_be_followed():
    def adaptive(x):
        return (
            lax.while_loop(lambda h: h[1] < 3, lambda h: (jnp.tanh(h[0]), h[1] + 1), (x, 0))[0] @ W
        )

    with pytest.raises(
        lrp.UnsupportedError, match=r"`lax\.fori_loop` with constant bounds"
    ) as caught:
        relevance(adaptive, X)
    assert "Gradient" not in str(caught.value)
    assert "Custom" not in str(caught.value)
    followed = lambda x: lax.fori_loop(0, 3, lambda i, h: jnp.tanh(h), x) @ W  # noqa: E731
    assert np.isfinite(relevance(followed, X)).all()


def test_advice_for_operations_with_several_results_can_be_followed():
    f = lambda x: jnp.linalg.eigh(x @ x.T)[1].sum(-1)  # noqa: E731
    with pytest.raises(
        lrp.UnsupportedError, match=r"by_operation\('eigh', lrp.rules.Gradient"
    ) as caught:
        lrp.explain(f)(X)
    assert "Custom" not in str(caught.value)
    assert np.isfinite(
        lrp.explain(f, C.by_operation("eigh", lrp.rules.Gradient()))(X).relevance
    ).all()


# Noise


@pytest.mark.parametrize(
    "noise",
    [
        lambda key, m: m + jnp.exp(m) * jax.random.normal(key, m.shape),
        lambda key, m: m + 0.1 * jax.random.gumbel(key, m.shape),
        lambda key, m: m * jax.random.uniform(key, m.shape, minval=0.9, maxval=1.1),
        lambda key, m: m + jax.random.laplace(key, m.shape) * m,
        lambda key, m: m + jax.random.truncated_normal(key, -1.0, 1.0, m.shape),
    ],
)
def test_noise_that_is_added_is_no_dropout(noise):
    f = lambda x: noise(jax.random.key(0), x) @ W  # noqa: E731
    assert np.isfinite(relevance(f, X)).all()


@pytest.mark.parametrize(
    "drop",
    [
        lambda m, keep: jnp.where(keep, m / 0.5, 0),
        promoting(lambda m, keep: m * keep / 0.5),  # a user's masks are booleans
        lambda m, keep: m * (keep.astype(m.dtype) / 0.5),
        lambda m, keep: lax.select(keep, m, jnp.zeros_like(m)),
        promoting(lambda m, keep: m * keep[:, :1]),
    ],
)
def test_masks_drawn_at_random_are_dropout(drop):
    f = lambda x: drop(x, jax.random.bernoulli(jax.random.key(0), 0.5, x.shape)) @ W  # noqa: E731
    with pytest.raises(lrp.TrainingModeError, match="draw it outside of the function"):
        relevance(f, X)
    keep = jax.random.bernoulli(jax.random.key(0), 0.5, X.shape)
    assert np.isfinite(relevance(lambda x: drop(x, keep) @ W, X)).all()


# Modules


class Identity(nn.Module):
    def __init__(self):
        pass

    def __call__(self, x):
        return x


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(Identity()(nn.Dense(4)(x)))


def test_a_linen_module_whose_init_does_not_call_flax():
    model = Net()
    variables = model.init(jax.random.key(0), X)
    paths = lrp.plan(model.apply, None, variables, X).paths
    assert set(paths) == {"Dense_0", "Dense_1"}
    found = lrp.explain(model.apply, argnums=1)(variables, X, target=0)
    assert np.isfinite(found.relevance).all()


# Arguments


def test_python_and_numpy_scalars_as_arguments():
    for x in (2.0, np.float32(2.0), np.asarray(2.0), jnp.asarray(2.0)):
        found = lrp.explain(lambda x, w: (x * w).sum(), parameters=1)(x, jnp.ones(3))
        assert float(found.relevance) == 6
        assert found.parameters.tolist() == [2, 2, 2]
    found = lrp.explain(lambda w, x: (x * w).sum(), argnums=1, parameters=0)(3.0, jnp.ones(2))
    assert found.relevance.tolist() == [3, 3]
    assert float(found.parameters) == 6
    both = lrp.explain(lambda a, b, x: (a * b * x).sum(), argnums=2, parameters=(0, 1))
    assert [float(p) for p in both(2.0, np.float32(3.0), jnp.ones(2)).parameters] == [12, 12]


def test_pytrees_with_none_and_strings():
    w = {"kernel": W, "bias": None, "activation": "tanh"}
    x = {"data": X, "unused": None, "name": "a batch"}

    def f(w, x):
        return getattr(jnp, w["activation"])(x["data"]) @ w["kernel"]

    found = lrp.explain(f, argnums=1, parameters=0)(w, x, target=0)
    np.testing.assert_allclose(found.relevance["data"], relevance(plain, X), rtol=1e-6)
    assert found.relevance["unused"] is None
    assert found.relevance["name"] == "a batch"
    assert found.parameters["kernel"].shape == W.shape
    assert found.parameters["activation"] == "tanh"


def test_keyword_arguments_are_constants():
    f = lambda x, *, w, scale=1.0, mode="same": scale * (x @ w)  # noqa: E731
    found = lrp.explain(f)(X, target=0, w=W, scale=2.0, mode="other").relevance
    np.testing.assert_allclose(found, 2 * X * W[:, 0], rtol=1e-5)
    with pytest.raises(TypeError, match="argnums=0 names the argument to explain, but only 0"):
        lrp.explain(lambda x: x)(x=X)


# Targets


@pytest.mark.parametrize("target", [2**32 + 1, -(2**31) - 1, 4, -1, np.int64(2**33)])
def test_targets_are_checked_before_they_are_cast(target):
    for given in (target, np.full(2, target)):
        with pytest.raises(IndexError, match=f"target {int(target)} is out of range"):
            lrp.explain(plain)(X, target=given)
    with pytest.raises(IndexError, match="out of range"):
        jax.jit(lambda x: lrp.explain(plain)(x, target=target).relevance)(X)


@pytest.mark.parametrize("wrap", [lambda t: t, lrp.targets.Contrast, lrp.targets.LogOdds])
def test_a_traced_target_out_of_range_gives_nan(wrap):
    run = jax.jit(lambda t: lrp.explain(plain)(X, target=wrap(t)).relevance)
    assert np.isnan(run(jnp.asarray([1, 9]))[1]).all()
    assert np.isfinite(run(jnp.asarray([1, 3]))).all()
