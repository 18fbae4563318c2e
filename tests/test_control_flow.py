"""Loops, branches, calls and derivatives of the user's own, and what is recorded inside them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import jaxlrp as lrp
from jaxlrp import composites as C

from numeric import close

pytestmark = pytest.mark.usefixtures("x64")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def explained(fun: Any, *args: Any, target: Any = None, condition: Any = None, **options: Any):
    explain = lrp.explain(fun, C.all_epsilon(0.1), argnums=len(args) - 1, **options)
    return jax.jit(lambda *args: explain(*args, target=target, condition=condition))(*args)


X, R = normal(2, 4), normal(2, 3, seed=1)
P = {
    "stem": normal(4, 4, seed=2),
    "left": normal(4, 5, seed=3),
    "left2": normal(5, 3, seed=4),
    "right": normal(4, 3, seed=5),
}


# Branches


def left(p: Any, h: jax.Array) -> jax.Array:
    return jnp.tanh(h @ p["left"]) @ p["left2"]


def right(p: Any, h: jax.Array) -> jax.Array:
    return h @ p["right"] + 1.0


def branching(flag: Any, p: Any, x: jax.Array) -> jax.Array:
    return lax.cond(flag, left, right, p, jax.nn.relu(x @ p["stem"]))


def taken(flag: bool, p: Any, x: jax.Array) -> jax.Array:
    return (left if flag else right)(p, jax.nn.relu(x @ p["stem"]))


PATHS = {True: {"left", "tanh", "left2"}, False: {"right"}}


@pytest.mark.parametrize("flag", [True, False])
def test_a_branch_that_is_not_taken_records_zeros(flag: bool) -> None:
    expected = explained(lambda p, x: taken(flag, p, x), P, X, target=R, record="*")
    found = explained(branching, flag, P, X, target=R, record="*")
    close(found.relevance, expected.relevance)
    assert set(found.records) == {"stem", "relu"} | PATHS[True] | PATHS[False]
    for path, record in found.records.items():
        if path in PATHS[not flag]:
            assert not record.relevance.any()
            assert not record.activation.any()
        else:
            close(record.relevance, expected.records[path].relevance)
            close(record.activation, expected.records[path].activation)
            assert np.abs(record.relevance).max() > 1e-3


@pytest.mark.parametrize("flag", [True, False])
def test_conditions_and_starts_in_a_branch(flag: bool) -> None:
    mask = np.array([1.0, 0.0, 2.0, 0.0, 1.0])
    whole = explained(branching, flag, P, X, target=R).relevance
    found = explained(branching, flag, P, X, target=R, condition={"left": mask}).relevance
    if flag:
        expected = explained(
            lambda p, x: taken(True, p, x), P, X, target=R, condition={"left": mask}
        )
        close(found, expected.relevance)
        assert np.abs(found - whole).max() > 1e-3
    else:
        close(found, whole)
    begun = explained(branching, flag, P, X, target=np.ones((2, 5)), start="left").relevance
    if flag:
        hidden = lambda p, x: jax.nn.relu(x @ p["stem"]) @ p["left"]  # noqa: E731
        close(begun, explained(hidden, P, X, target=np.ones((2, 5))).relevance)
    else:
        assert not begun.any()


def test_the_ledger_of_a_branch() -> None:
    def ledger(fun: Callable, *args: Any) -> Any:
        check = lrp.ledger
        return jax.jit(
            lambda *args: check(fun, C.all_epsilon(0.1), *args, argnums=len(args) - 1, target=R)
        )(*args)

    for flag in (True, False):
        expected = ledger(lambda p, x, flag=flag: taken(flag, p, x), P, X)
        found = ledger(branching, flag, P, X)
        assert set(expected.rows) == {"stem", "relu"} | PATHS[flag]
        for path, entry in found.rows.items():
            if path in expected.rows:
                close(jax.tree.leaves(entry), jax.tree.leaves(expected.rows[path]))
            else:
                assert not any(jax.tree.leaves(entry))
        close(found.elsewhere, 0.0, 1e-9)


def test_a_switch_in_a_scan_under_vmap() -> None:
    """Of each turn and each example another branch is taken."""
    ws = normal(3, 4, 4, seed=6)
    turns = np.array([[0, 2], [1, 1]])

    def net(which: Any, w: Any, x: jax.Array) -> jax.Array:
        branches = [lambda w, h, i=i: jnp.tanh(h @ w[i]) for i in range(3)]
        return lax.scan(lambda h, i: (lax.switch(i, branches, w, h), None), x, which)[0]

    def unrolled(which: Any, w: Any, x: jax.Array) -> jax.Array:
        for i in which:
            x = jnp.tanh(x @ w[i])
        return x

    explain = lrp.explain(net, C.all_epsilon(0.1), argnums=2, record="tanh*")
    r = normal(2, 4, seed=7)
    found = jax.jit(jax.vmap(lambda i, x, r: explain(i, ws, x, target=r)))(turns, X, r)
    for n in range(2):
        expected = explained(lambda w, x, n=n: unrolled(turns[n], w, x), ws, X[n], target=r[n],
                             record="tanh*")  # fmt: skip
        close(found.relevance[n], expected.relevance)
        for turn, path in enumerate(("tanh", "tanh:1")):
            for i, branch in enumerate(("tanh", "tanh:1", "tanh:2")):
                recorded = found.records[branch].relevance[n, turn]
                is_taken = turns[n, turn] == i
                close(recorded, is_taken * np.asarray(expected.records[path].relevance))


# Loops with a fixed number of turns, and without


def step(w: Any, h: jax.Array) -> jax.Array:
    return jnp.tanh(h @ w) + h


def looped(w: Any, x: jax.Array) -> jax.Array:
    return lax.fori_loop(0, 3, lambda i, h: step(w, h), x)


def looped_over(w: Any, x: jax.Array) -> jax.Array:
    return lax.fori_loop(0, w.shape[0], lambda i, h: step(w[i], h), x)


def turned(w: Any, x: jax.Array) -> jax.Array:
    for _ in range(3):
        x = step(w, x)
    return x


def test_a_loop_with_constant_bounds_is_explained() -> None:
    w, r = normal(4, 4, seed=8), normal(2, 4, seed=9)
    expected = explained(turned, w, X, target=r, record="tanh*")
    found = explained(looped, w, X, target=r, record="tanh")
    close(found.relevance, expected.relevance)
    close(
        found.records["tanh"].relevance,
        [expected.records[p].relevance for p in ("tanh", "tanh:1", "tanh:2")],
    )
    stacked = np.stack([w, 2 * w, -w])
    expected = explained(lambda w, x: step(w[2], step(w[1], step(w[0], x))), stacked, X, target=r)
    close(explained(looped_over, stacked, X, target=r).relevance, expected.relevance)


@pytest.mark.parametrize("loop", ["while", "fori"])
def test_a_loop_without_bounds_says_what_to_write(loop: str) -> None:
    def net(n: Any, x: jax.Array) -> jax.Array:
        if loop == "fori":
            return lax.fori_loop(0, n, lambda i, h: 2 * h, x)
        return lax.while_loop(lambda h: h.sum() < n.astype(h.dtype), lambda h: 2 * h, x)

    with pytest.raises(
        lrp.UnsupportedError, match=r"explain `while` .*use `lax.scan` or a"
    ) as caught:
        explained(net, jnp.int32(3), X, target=X)
    assert "`lax.fori_loop` with constant bounds" in str(caught.value)


def test_a_loop_off_the_way_is_no_error() -> None:
    def net(x: jax.Array) -> jax.Array:
        n = lax.while_loop(lambda n: n < 5, lambda n: n + 1, jnp.argmax(x))
        return x * n.astype(x.dtype)

    close(explained(net, X, target=X).relevance, X)


# Scanned layers: one path, and its turns along a leading axis


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, _: Any) -> tuple[jax.Array, None]:
        return jnp.tanh(nn.Dense(4, param_dtype=x.dtype, name="dense")(x)) + x, None


class Stack(nn.Module):
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        block = nn.remat(Block) if self.remat else Block
        scan = nn.scan(block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return scan(name="blocks")(x, None)[0]


class NNXBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.dense = nnx.Linear(4, 4, param_dtype=jnp.float64, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(self.dense(x)) + x


class NNXStack(nnx.Module):
    def __init__(self) -> None:
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=0, out_axes=0)
        def make(rngs: nnx.Rngs) -> NNXBlock:
            return NNXBlock(rngs)

        self.blocks = make(nnx.Rngs(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def run(block: NNXBlock, x: jax.Array) -> jax.Array:
            return block(x)

        return run(self.blocks, x)


def scanned(kind: str) -> tuple[Callable, tuple[Any, ...], str, Any]:
    """(function, arguments before x, path of the dense layer, its stacked kernels and biases)."""
    if kind == "nnx":
        model = NNXStack()
        held = nnx.state(model)["blocks"]["dense"]
        return model, (), "blocks/dense", (held["kernel"][...], held["bias"][...])
    if kind == "lax":
        w, b = normal(3, 4, 4, seed=10), normal(3, 4, seed=11)

        def net(p: Any, x: jax.Array) -> jax.Array:
            return lax.scan(lambda h, p: (jnp.tanh(h @ p[0] + p[1]) + h, None), x, p)[0]

        return net, ((w, b),), "0", (w, b)
    model = Stack(remat=kind == "remat")
    variables = model.init(jax.random.key(0), jnp.asarray(X))
    held = variables["params"]["blocks"]["dense"]
    return model.apply, (variables,), "blocks/dense", (held["kernel"], held["bias"])


def stack_by_hand(p: Any, x: jax.Array) -> jax.Array:
    for w, b in zip(*p, strict=True):
        x = jnp.tanh(x @ w + b) + x
    return x


@pytest.mark.parametrize("kind", ["linen", "remat", "nnx", "lax"])
def test_turns_of_a_scanned_layer(kind: str) -> None:
    fun, before, path, weights = scanned(kind)
    p = [[np.asarray(a[i]) for i in range(3)] for a in weights]
    r = normal(2, 4, seed=12)
    paths = ["0/0", "0/1", "0/2"]
    expected = explained(stack_by_hand, p, X, target=r, record=paths)
    found = explained(fun, *before, X, target=r, record=path)
    close(found.relevance, expected.relevance)
    record = found.records[path]
    assert record.relevance.shape == (3, 2, 4)
    close(record.relevance, [expected.records[p].relevance for p in paths])
    close(record.activation, [expected.records[p].activation for p in paths])

    # one mask for all turns, and one for each
    keep = np.array([1.0, 0.0, 1.0, 0.0])
    each = np.array([[1.0, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0]])
    for mask, masks in ((keep, [keep] * 3), (each[:, None], list(each))):
        conditions = dict(zip(paths, masks, strict=True))
        expected = explained(stack_by_hand, p, X, target=r, condition=conditions)
        found = explained(fun, *before, X, target=r, condition={path: mask})
        close(found.relevance, expected.relevance)
    with pytest.raises(ValueError, match=rf"condition\['{path}'\] must broadcast to .*\(3, 2, 4\)"):
        explained(fun, *before, X, target=r, condition={path: np.ones(3)})


@pytest.mark.parametrize("biased", [False, True])
def test_jax_checkpoint_keeps_the_named_output_that_a_rule_divides_by(biased: bool) -> None:
    def layer(w: Any, h: jax.Array) -> jax.Array:
        z = checkpoint_name(h @ w, "z")
        return z + 1.0 if biased else z

    def net(**options: Any) -> Callable:
        block = jax.checkpoint(layer, **options) if options else layer
        return lambda p, x: jax.nn.relu(block(p["stem"], x)) @ p["right"]

    def products(fun: Callable) -> int:
        relevance = lambda p, x: explained(fun, p, x, target=R).relevance  # noqa: E731
        return jax.jit(relevance).lower(P, X).as_text().count("stablehlo.dot_general")

    keep = jax.checkpoint_policies.save_only_these_names("z")
    everything, nothing, named = net(), net(prevent_cse=True), net(policy=keep)
    assert products(nothing) == products(everything) + 1
    assert products(named) == products(everything)
    assert lrp.plan(named, None, P, X, argnums=1).rows[0].absorbed[0] == "name"
    expected = explained(everything, P, X, target=R).relevance
    close(explained(named, P, X, target=R).relevance, expected)
    close(explained(nothing, P, X, target=R).relevance, expected)


# Derivatives of the user's own, and calls in calls


@jax.custom_vjp
def reversed_gradient(x: jax.Array) -> jax.Array:
    return x


reversed_gradient.defvjp(lambda x: (x, None), lambda _, g: (-g,))


@jax.custom_vjp
def halved_gradient(x: jax.Array) -> jax.Array:
    return x[::-1] * 1.0


halved_gradient.defvjp(lambda x: (halved_gradient(x), None), lambda _, g: (g[::-1] / 2,))


@jax.custom_jvp
def doubled_gradient(x: jax.Array) -> jax.Array:
    return x[::-1] * 1.0


doubled_gradient.defjvps(lambda t, out, x: 2 * t[::-1])


@jax.custom_vjp
def clipped_product(x: jax.Array, w: jax.Array) -> jax.Array:
    return x @ w


clipped_product.defvjp(
    lambda x, w: (x @ w, (x, w)), lambda held, g: (jnp.clip(g, -0.1, 0.1) @ held[1].T, held[1] * 0)
)


@jax.custom_vjp
def straight_through(x: jax.Array) -> jax.Array:
    return jnp.round(4 * x) / 4


straight_through.defvjp(lambda x: (straight_through(x), None), lambda _, g: (g,))


@jax.custom_vjp
def rooted(x: jax.Array) -> jax.Array:
    return lax.linalg.cholesky(x, symmetrize_input=False)


rooted.defvjp(lambda x: (rooted(x), None), lambda _, g: (g,))

V = normal(4, 3, seed=13)
DECLARED: dict[str, tuple[Callable, Callable]] = {
    # with a derivative of its own, and the same function without
    "reversed": (lambda x: reversed_gradient(x) @ V, lambda x: x @ V),
    "reversed in jit": (jax.jit(lambda x: jax.jit(reversed_gradient)(x) * 2), lambda x: 2 * x),
    "halved": (lambda x: halved_gradient(x) @ V, lambda x: x[::-1] @ V),
    "halved in jit": (lambda x: jax.jit(halved_gradient)(x) @ V, lambda x: x[::-1] @ V),
    "doubled": (lambda x: doubled_gradient(x) @ V, lambda x: x[::-1] @ V),
    "dense": (lambda x: clipped_product(x, V) + 1.0, lambda x: x @ V + 1.0),
    "straight through": (lambda x: straight_through(x) @ V, lambda x: jnp.round(4 * x) / 4 @ V),
    "calls in calls": (
        jax.jit(lambda x: jax.jit(lambda x: jax.jit(jnp.tanh)(x @ V[:, :2]))(x) + 1),
        lambda x: jnp.tanh(x @ V[:, :2]) + 1,
    ),
}


@pytest.mark.parametrize("name", DECLARED)
@pytest.mark.parametrize("preset", [C.all_epsilon(0.1), C.by_kind("dense", lrp.LRP0())])
def test_relevance_follows_what_a_function_computes(name: str, preset: lrp.Composite) -> None:
    own, plain = DECLARED[name]
    r = normal(*jax.eval_shape(plain, X).shape, seed=14)
    expected = jax.jit(lrp.explain(plain, preset))(X, target=r).relevance
    close(jax.jit(lrp.explain(own, preset))(X, target=r).relevance, expected)
    x = jnp.asarray(X)
    assert np.array_equal(lrp.attach(own, preset)(x), own(x))


def test_a_rule_that_takes_the_gradient_takes_the_declared_one() -> None:
    found = jax.jit(lrp.explain(straight_through, C.gradient()))(X, target=X)
    close(found.relevance, X)


def test_a_declared_derivative_makes_no_operation_known() -> None:
    with pytest.raises(lrp.UnsupportedError, match=r"explain `cholesky` .*A decomposition of a"):
        lrp.plan(rooted, None, np.eye(3))
