"""What keeps relevance between layers stands in the ledger, by path, kind and amount."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxlrp as lrp
from jaxlrp import composites as C
from jaxlrp.propagation import ledger_rows

RNG = np.random.default_rng(0)
W, V = RNG.normal(size=(4, 3)), RNG.normal(size=(3, 2))
X = RNG.normal(size=(5, 4))
EXACT = C.by_kind("dense", lrp.LRP0())


pytestmark = pytest.mark.usefixtures("x64")


def check(fun: Any, composite: Any = None, x: Any = X, **options: Any) -> lrp.Ledger:
    """The ledger, which must close; rounding in float64 through a handful of operations."""
    ledger = lrp.ledger(fun, composite, jnp.asarray(x), **options)
    scale = max(abs(float(e.received)) for e in ledger.rows.values())
    assert abs(float(ledger.elsewhere)) < 1e-10 * scale
    return ledger


def only(ledger: lrp.Ledger, kind: str) -> tuple[str, Any]:
    ((path, entry),) = [(p, e) for p, e in ledger.rows.items() if e.kind == kind]
    return path, entry


def close(entry: Any, received: float, passed: float, bias: float = 0.0) -> None:
    found = [entry.received, entry.passed, entry.bias, entry.stabilizer]
    np.testing.assert_allclose(found, [received, passed, bias, 0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(entry.rule, received - passed - bias, atol=1e-12)


SOFTMAX: dict[str, Callable] = {
    "jax.nn": jax.nn.softmax,
    "where": lambda z: jax.nn.softmax(z, where=jnp.ones(z.shape, bool)),
    "maximum": lambda z: (lambda e: e / e.sum(-1, keepdims=True))(
        jnp.exp(z - z.max(-1, keepdims=True))
    ),
    "held maximum": lambda z: (lambda e: e / e.sum(-1, keepdims=True))(
        jnp.exp(z - jax.lax.stop_gradient(z.max(-1, keepdims=True)))
    ),
    "in a function of its own": jax.jit(lambda z: 1.0 * jax.nn.softmax(z)),
    "scanned": lambda z: jax.lax.map(jax.nn.softmax, z),
    "in remat": jax.checkpoint(jax.nn.softmax),
}


@pytest.mark.parametrize("spelling", SOFTMAX)
def test_softmax_is_one_row(spelling: str) -> None:
    """Prop. 3.1 of AttnLRP, in NumPy: what comes to the scores is x (R - s sum R)."""
    z = X @ W
    s = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    r = s * V[:, 1]  # the relevance of the weights, where the output s V begins with itself
    passed = np.sum(z * (r - s * r.sum(-1, keepdims=True)))
    ledger = check(
        lambda x: jnp.sum(SOFTMAX[spelling](x @ W) * V[:, 1], -1, keepdims=True), EXACT, target=0
    )
    path, entry = only(ledger, "softmax")
    assert path == "softmax"
    close(entry, r.sum(), passed)
    assert abs(float(entry.rule)) > 0.1
    np.testing.assert_allclose(ledger.input, passed, rtol=1e-12)
    assert all(abs(float(e.rule)) < 1e-10 for p, e in ledger.rows.items() if p != path)


LOG_SUMS: dict[str, Callable] = {
    "jax.nn": lambda z: jax.nn.logsumexp(z, axis=-1),
    "by hand": lambda z: jnp.log(jnp.exp(z).sum(-1)),
    "held maximum": lambda z: (lambda m: jnp.log(jnp.exp(z - m).sum(-1, keepdims=True)) + m)(
        jax.lax.stop_gradient(z.max(-1, keepdims=True))
    ),
}


@pytest.mark.parametrize("spelling", LOG_SUMS)
def test_logsumexp_is_one_row(spelling: str) -> None:
    z = X @ W
    s = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    total = np.log(np.exp(z).sum(-1)).sum()
    ledger = check(lambda x: LOG_SUMS[spelling](x @ W).sum(), EXACT)
    path, entry = only(ledger, "softmax")
    assert path == "logsumexp"
    close(entry, total, np.sum(z * s))


def test_softmax_after_softmax_is_two_rows() -> None:
    ledger = check(lambda x: jax.nn.softmax(jax.nn.softmax(x @ W)) @ V, EXACT, target=1)
    rows = [path for path, e in ledger.rows.items() if e.kind == "softmax"]
    assert rows == ["softmax", "softmax:1"]


def test_rows_stand_in_the_scope_of_their_module() -> None:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.MultiHeadDotProductAttention(2, param_dtype=jnp.float64, name="heads")(x)

    x = RNG.normal(size=(1, 5, 4))
    variables = Net().init(jax.random.key(0), jnp.asarray(x))
    ledger = lrp.ledger(Net().apply, None, variables, jnp.asarray(x))
    paths = list(ledger.rows)
    assert paths.index("heads/query") < paths.index("heads/softmax") < paths.index("heads/out")
    entry = ledger.rows["heads/softmax"]
    assert entry.kind == "softmax"
    assert "AttnLRP" in entry.reason
    assert entry.reason == ledger_rows.KINDS["softmax"]


C1 = RNG.normal(size=(5, 2))
JOINS: dict[str, tuple[Callable, str, np.ndarray]] = {
    # how a constant is joined, the row, and what is joined to x as the network sees it
    "token": (lambda x: jnp.concatenate([jnp.asarray(C1), x], 1), "concatenate", C1),
    "padding": (
        lambda x: jnp.pad(x, ((0, 0), (2, 0)), constant_values=0.7), "pad", np.full((5, 2), 0.7),
    ),
    "update": (
        lambda x: jax.lax.dynamic_update_slice(jnp.full((5, 6), 0.3), x, (0, 2)),
        "dynamic_update_slice",
        np.full((5, 2), 0.3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", JOINS)
def test_joined_constants_keep_their_share(how: str) -> None:
    """LRP-0 in NumPy: c w is the constant's, x w goes on."""
    join, name, constant = JOINS[how]
    w = RNG.normal(size=(6, 1))
    ledger = check(lambda x: join(x) @ w, EXACT)
    kept, passed = float(np.sum(constant @ w[:2])), float(np.sum(X @ w[2:]))
    path, entry = only(ledger, "constant")
    assert path == name
    close(entry, kept + passed, passed, kept)


def test_a_constant_across_new_axes() -> None:
    """x - c_k for several k: what c takes is a bias."""
    center = RNG.normal(size=(3, 4))
    ledger = check(lambda x: (x[:, None] - center).sum(), EXACT)
    path, entry = only(ledger, "shift")
    assert path == "shift"
    close(entry, np.sum(X[:, None] - center), 3 * X.sum(), -5 * center.sum())


def test_zeros_that_are_written_out_make_no_row_unless_they_can_take_relevance() -> None:
    w = RNG.normal(size=(6, 1))

    def padded(x):
        return jnp.pad(x, ((0, 0), (2, 0))) @ w

    assert list(check(padded, EXACT).rows) == ["dot_general"]
    _, entry = only(check(padded, C.by_kind("dense", lrp.Flat())), "constant")
    # flat: a third of the relevance, two of six inputs, goes to zeros
    np.testing.assert_allclose(entry.bias / entry.received, 1 / 3, rtol=1e-5)


def test_stopped() -> None:
    """What `stop_gradient` gives is a constant, and keeps what an uncut value would have been given."""
    ledger = check(lambda x: x.sum() + 3 * jax.lax.stop_gradient(x[:, :2]).sum(), EXACT)
    _path, entry = only(ledger, "shift")
    total, kept = X.sum(), 3 * X[:, :2].sum()
    close(entry, total + kept, total, kept)
    joined = check(lambda x: jnp.concatenate([x, jax.lax.stop_gradient(x[:1])]).sum(), EXACT)
    close(only(joined, "stopped")[1], total + X[0].sum(), total, X[0].sum())
    np.testing.assert_allclose(ledger.input, X.sum())


@jax.custom_vjp
def reversed_gradient(x):
    return jnp.flip(x)


reversed_gradient.defvjp(lambda x: (jnp.flip(x), None), lambda _, g: (-2 * jnp.flip(g),))


def test_a_derivative_of_its_own() -> None:
    """Relevance follows what a function computes, which here loses nothing."""
    ledger = check(lambda x: reversed_gradient(x).sum(), EXACT)
    assert not [e for e in ledger.rows.values() if e.kind in ledger_rows.KINDS]
    np.testing.assert_allclose(ledger.input, X.sum())


def test_outputs_that_the_input_does_not_reach() -> None:
    ledger = check(lambda x: (x.sum(), jnp.full((2,), 4.0)), EXACT)
    path, entry = only(ledger, "constant")
    assert path == "output"
    close(entry, 8.0, 0.0, 8.0)


@pytest.mark.parametrize("taken", [0, 1])
def test_branches(taken: int) -> None:
    """Of the branch that is not taken all rows are zero, and a constant result keeps everything."""

    def fun(x):
        y = jax.lax.cond(taken, lambda x: jax.nn.softmax(x @ W), lambda x: jnp.full((5, 3), 0.2), x)
        return y @ V

    ledger = check(fun, EXACT, target=0)
    constant = ledger.rows["cond/output"]
    softmax = ledger.rows["softmax"]
    assert (float(constant.received) != 0, float(softmax.received) != 0) == (not taken, bool(taken))
    assert (float(ledger.input) != 0) == bool(taken)


def test_a_normalizer_that_is_left_to_autodiff() -> None:
    """Then relevance flows through the statistic as well, whose square doubles it."""

    def fun(x):
        h = x @ W
        return (h / jnp.sqrt(jnp.square(h).mean(-1, keepdims=True) + 1e-3)) @ V

    free = C.by_kind("normalizer", lrp.rules.Gradient()) + EXACT
    ledger = check(fun, free, target=0)
    squared = ledger.rows["square"]
    assert squared.kind == ledger.rows["sqrt"].kind == "autodiff"
    np.testing.assert_allclose(squared.passed, 2 * squared.received)
    expected = X * jax.grad(lambda x: fun(x)[:, 0].sum())(jnp.asarray(X))
    np.testing.assert_allclose(ledger.input, expected.sum(), rtol=1e-9)
    held = check(fun, EXACT, target=0)
    assert not [e for e in held.rows.values() if e.kind == "autodiff"]


def test_an_operation_with_several_outputs() -> None:
    matrix = X.T @ X + np.eye(4)
    gradient = C.by_operation("eigh", lrp.rules.Gradient()) + EXACT

    def fun(x):
        values, vectors = jnp.linalg.eigh(x, symmetrize_input=False)
        return values.sum() + vectors[0].sum()

    ledger = check(fun, gradient, matrix)
    assert ledger.rows["eigh"].kind == "unsupported"
    expected = np.sum(matrix * jax.grad(fun)(jnp.asarray(matrix)))
    np.testing.assert_allclose(ledger.input, expected, rtol=1e-9)


def block(x):
    """Everything at once, as a loop's body: constants, a softmax, a cut, a normalizer."""
    joined = jnp.concatenate([x, jnp.full((5, 1), 0.4)], axis=1)
    h = joined @ np.concatenate([W, W[:1]])
    h = h / jnp.sqrt(jnp.square(h).mean(-1, keepdims=True) + 1e-3) + jax.lax.stop_gradient(h)
    return jax.nn.softmax(h) @ np.concatenate([V, V], axis=1) + x


def test_a_scan_books_the_sum_of_its_turns() -> None:
    def loop(x):
        for _ in range(3):
            x = block(x)
        return x

    def scanned(x):
        return jax.lax.scan(lambda x, _: (jax.checkpoint(block)(x), None), x, None, length=3)[0]

    unrolled, rolled = check(loop, EXACT, target=1), check(scanned, EXACT, target=1)
    assert len(unrolled.rows) == 3 * len(rolled.rows)
    every, n = list(unrolled.rows.values()), len(rolled.rows)
    for i, entry in enumerate(rolled.rows.values()):
        parts = every[i::n]
        assert {part.kind for part in parts} == {entry.kind}
        for column in ("received", "passed", "bias"):
            expected = sum(float(getattr(part, column)) for part in parts)
            np.testing.assert_allclose(getattr(entry, column), expected, rtol=1e-10, atol=1e-12)


def test_under_jit_the_rows_keep_their_order() -> None:
    eager = check(block, EXACT, target=0)
    compiled = jax.jit(lambda x: lrp.ledger(block, EXACT, x, target=0))(X)
    assert list(compiled.rows) == list(eager.rows)
    assert list(eager.rows) != sorted(eager.rows)
    for path, entry in eager.rows.items():
        np.testing.assert_allclose(compiled.rows[path].rule, entry.rule, atol=1e-12)
        assert compiled.rows[path].kind == entry.kind


def test_a_ledger_is_a_pytree() -> None:
    ledger = check(block, EXACT, target=0)
    doubled = jax.tree.map(lambda a: 2 * a, ledger)
    assert list(doubled.rows) == list(ledger.rows)
    np.testing.assert_allclose(doubled.absorbed, 2 * ledger.absorbed)
    names = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(ledger)]
    assert names[:4] == [".output", ".input", ".magnitude", "['concatenate'].received"]


def test_printed() -> None:
    text = str(check(block, EXACT, target=0))
    lines = text.splitlines()
    assert lines[0].split() == ["path", "kind", "received", "passed", "bias", "stabilizer", "rule"]
    kinds = [line.split()[1] for line in lines if line.startswith("softmax ")]
    assert kinds == ["softmax"]
    for kind in ("softmax", "constant"):
        assert f"{kind}: {ledger_rows.KINDS[kind]}" in lines
    assert "autodiff" not in text
    assert lines[-2].startswith("output ")
    assert lines[-1].startswith("most absorbed: ")


def test_rows_that_kept_nothing_are_not_printed() -> None:
    def masked(x):
        scores = jnp.where(jnp.tri(5, dtype=bool), x @ X.T, -1e30)
        return jax.nn.softmax(scores) @ X @ W

    ledger = check(masked, EXACT, target=0)
    path, entry = only(ledger, "constant")
    close(entry, float(entry.passed), float(entry.passed))
    assert f"\n{path} " not in str(ledger)


def test_an_explanation_keeps_no_books(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the ledger needs is neither looked for nor evaluated unless it is asked for."""

    def refuse(*args: Any) -> None:
        raise AssertionError("an explanation must not get here")

    explain = lrp.explain(block, EXACT)
    expected = explain(jnp.asarray(X), target=0).relevance
    for module, name in (
        (ledger_rows, "audit"),
        (ledger_rows, "evaluate_booked"),
        (ledger_rows, "book"),
    ):
        monkeypatch.setattr(module, name, refuse)
    np.testing.assert_array_equal(explain(jnp.asarray(X), target=0).relevance, expected)
    with pytest.raises(AssertionError, match="must not get here"):
        lrp.ledger(block, EXACT, jnp.asarray(X), target=0)


def test_float32() -> None:
    """Sums of rounding errors: 2^-24 times a few hundred terms."""
    with jax.enable_x64(False):
        x = jnp.asarray(X, jnp.float32)
        ledger = lrp.ledger(block, EXACT, x, target=0)
        scale = max(abs(float(e.received)) for e in ledger.rows.values())
        assert abs(float(ledger.elsewhere)) < 1e-5 * scale
