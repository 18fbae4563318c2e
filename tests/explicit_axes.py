"""What holds where shardings are types; `test_shard_map.py` runs it in a process of eight devices.

The numbers are those of one device: float64, equal to 1e-9.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as PS

import jaxlrp as lrp
from explicit_cases import CASES, DATA, MODEL, Case, dense
from jaxlrp import composites as C
from jaxlrp import rules as R

assert jax.device_count() == 8, "run me through test_shard_map.py"


def make_mesh(data: AxisType = AxisType.Explicit, model: AxisType = AxisType.Explicit) -> Mesh:
    return jax.make_mesh((4, 2), (DATA, MODEL), axis_types=(data, model))


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def own(layer: R.BoundLayer, x: jax.Array, relevance: jax.Array) -> jax.Array:
    """A user's rule, which knows nothing of meshes and merges sharded dimensions."""
    s = (relevance / (layer.op(x, layer.weight) + layer.bias + 1e-3)).reshape(-1)
    return (x * layer.transpose(s.reshape(relevance.shape), x)).reshape(-1).reshape(x.shape)


WEIGHTS = ("dense", "conv")
PRODUCTS = ("attention", "gate", "product")
COMPOSITES: dict[str, C.Composite | None] = {
    "default": None,
    "lrp0": C.composite(C.by_kind(WEIGHTS, R.LRP0()), C.by_kind("normalizer", R.Gradient())),
    "epsilon": C.all_epsilon(0.1),
    "zplus": C.composite(C.by_kind(WEIGHTS, R.ZPlus()), C.by_kind(PRODUCTS, R.SignalTakesAll())),
    "gamma": C.by_kind(WEIGHTS, R.Gamma(np.float64(0.25))),
    "flat": C.epsilon_plus_flat(),
    "squares": C.composite(C.first(R.ZBox(-5.0, 5.0)), C.by_kind(WEIGHTS, R.WSquare())),
    "attnlrp": C.attnlrp(),
    "signs": C.composite(
        C.by_kind(WEIGHTS, R.AlphaBeta()),
        C.by_kind(PRODUCTS, R.Proportional()),
        C.by_kind("activation", R.DerivativeTimesRelevance()),
        C.by_kind(("sum", "pool"), R.Norm()),
    ),
    "guided": C.composite(C.by_kind("activation", R.GuidedBackprop()), C.all_epsilon(0.1)),
    "local": C.composite(C.by_kind("normalizer", R.LocalTaylor()), C.all_epsilon(0.1)),
    "own": C.by_kind(WEIGHTS, R.Custom(own)),
}
BY_TURNS = [
    ("dense", "gamma"), ("resharded", "flat"), ("wide", "squares"), ("conv", "zplus"),
    ("local", "local"), ("attention", "attnlrp"), ("attention", "signs"), ("layers", "default"),
    ("automatic", "own"), ("lookup", "lrp0"), ("mapped", "epsilon"), ("unreduced", "guided"),
]  # fmt: skip
PAIRS = [
    (case, name)
    for case in CASES for name in COMPOSITES
    if (case, name) not in BY_TURNS and name != "local"
]  # fmt: skip
REST = [
    pytest.param(*pair, marks=pytest.mark.exhaustive if i % 6 else pytest.mark.slow)
    for i, pair in enumerate(PAIRS)
]


def close(actual: Any, expected: Any) -> None:
    expected = np.asarray(expected)
    floor = 1e-11 * np.abs(expected).max(initial=0.0)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=floor)


def placed(case: Case, mesh: Mesh | None) -> tuple[dict, jax.Array]:
    """Parameters and input: on one device, or where the case wants them on a mesh."""

    def put(a: Any, spec: PS) -> jax.Array:
        return jnp.asarray(a) if mesh is None else jax.device_put(a, NamedSharding(mesh, spec))

    return {k: put(v, s) for k, (v, s) in case.parameters.items()}, put(case.x, case.spec)


def compare(case: Case | str, run: Callable, mesh: Mesh | None = None) -> tuple[Any, dict, Any]:
    """`run(function, parameters, x)`, compiled, is on a mesh what it is on one device."""
    case = CASES[case] if isinstance(case, str) else case
    compiled = jax.jit(lambda p, x: run(case.fun, p, x))
    expected = compiled(*placed(case, None))
    mesh = mesh or make_mesh()
    with jax.set_mesh(mesh):
        p, x = placed(case, mesh)
        found = compiled(p, x)
    jax.tree.map(close, found, expected)
    return found, p, x


def sharding(a: jax.Array) -> Any:
    return jax.typeof(a).sharding


@pytest.mark.parametrize(("case", "name"), BY_TURNS + REST)
def test_relevance_is_that_of_one_device(case: str, name: str) -> None:
    record = "*" if case != "mapped" else ()  # there records have the mesh ahead
    options = {} if name == "own" else {"parameters": 0}
    explain = {"composite": COMPOSITES[name], "argnums": 1, "record": record, **options}

    def run(fun: Callable, p: dict, x: jax.Array) -> tuple:
        found = lrp.explain(fun, **explain)(p, x, target=1)
        inside = {k: (r.relevance, r.activation) for k, r in found.records.items()}
        return found.output, found.relevance, found.parameters, inside

    (_, relevance, parameters, inside), p, x = compare(case, run)
    assert bool(jnp.abs(relevance).max() > 1e-6)
    assert sharding(relevance) == sharding(x)
    for key, a in (parameters or {}).items():
        assert sharding(a) == sharding(p[key])
    for r, a in inside.values():
        assert sharding(r) == sharding(a)


@pytest.mark.parametrize(
    "case",
    ["layers", "automatic", "lookup", "mapped", pytest.param("attention", marks=pytest.mark.slow)],
)
def test_the_ledger(case: str) -> None:
    def run(fun: Callable, p: dict, x: jax.Array) -> dict:
        ledger = lrp.ledger(fun, C.attnlrp(), p, x, argnums=1, target=1)
        rows = {k: (e.received, e.passed, e.bias) for k, e in ledger.rows.items()}
        return rows | {"": (ledger.output, ledger.input)}

    compare(case, run)


@pytest.mark.parametrize(
    ("case", "path", "units"), [("layers", "up", 8), ("automatic", "small", 3)]
)
def test_a_condition_and_a_start(case: str, path: str, units: int) -> None:
    def run(fun: Callable, p: dict, x: jax.Array) -> list:
        mask = (jnp.arange(units) % 3 == 0).astype(float)
        held = lrp.explain(fun, argnums=1)(p, x, target=1, condition={path: mask})
        begun = lrp.explain(fun, argnums=1, start=path)
        targets = (1, lambda z: z * mask.astype(z.dtype), lrp.targets.predicted)
        return [held.relevance, *(begun(p, x, target=target).relevance for target in targets)]

    compare(case, run)


@pytest.mark.parametrize("case", ["automatic", pytest.param("attention", marks=pytest.mark.slow)])
def test_derivatives_of_attach_and_of_an_explanation(case: str) -> None:
    def run(fun: Callable, p: dict, x: jax.Array) -> tuple:
        chosen = jax.nn.one_hot(1, fun(p, x).shape[-1])

        def attached(p: dict, x: jax.Array) -> jax.Array:
            return (lrp.attach(fun, C.attnlrp(), argnums=1)(p, x) * chosen).sum()

        def loss(p: dict, x: jax.Array) -> jax.Array:
            explain = lrp.explain(fun, COMPOSITES["gamma"], argnums=1)
            return jnp.sin(explain(p, x, target=1).relevance).sum()

        return jax.grad(attached, argnums=(0, 1))(p, x), jax.grad(loss, argnums=(0, 1))(p, x)

    compare(case, run)


def test_targets() -> None:
    labels, wanted = np.arange(8) % 4, np.random.default_rng(0).normal(size=(8, 4))

    def put(a: np.ndarray, spec: PS) -> jax.Array:
        mesh = jax.sharding.get_abstract_mesh()
        return jnp.asarray(a) if mesh.empty else jax.sharding.reshard(a, spec)

    def run(fun: Callable, p: dict, x: jax.Array) -> list:
        explain = lrp.explain(fun, COMPOSITES["epsilon"], argnums=1)
        targets = [
            put(labels, PS(DATA)), put(labels, PS(MODEL)), put(wanted, PS(MODEL, DATA)), wanted,
            lambda z: z * 2, lrp.targets.predicted, lrp.targets.LogOdds(put(labels, PS(MODEL))),
            lrp.targets.Contrast(put(labels, PS(DATA)), 1),
        ]  # fmt: skip
        each = [explain(p, x, target=target).relevance for target in targets]
        over = jax.vmap(lambda t: explain(p, x, target=t).relevance)(jnp.arange(4))
        return [*each, over, lax.map(lambda t: explain(p, x, target=t).relevance, jnp.arange(4))]

    compare("dense", run)


def relevance(fun: Callable, p: dict, x: jax.Array) -> jax.Array:
    explain = lrp.explain(fun, C.attnlrp(), argnums=1, record="*")
    return explain(p, x, target=1).relevance


@pytest.mark.parametrize("explicit", [DATA, MODEL])
def test_a_mesh_of_which_one_axis_is_explicit(explicit: str) -> None:
    kinds = [AxisType.Explicit if axis == explicit else AxisType.Auto for axis in (DATA, MODEL)]
    compare("attention", relevance, make_mesh(*kinds))


def test_an_explicit_part_of_an_automatic_function() -> None:
    def fun(p: dict, x: jax.Array) -> jax.Array:
        inner = dense
        if not jax.sharding.get_abstract_mesh().empty:
            specs = {k: s for k, (_, s) in CASES["dense"].parameters.items()}
            inner = cast(Any, jax.sharding.explicit_axes)(dense, in_sharding=(specs, PS(DATA)))
        return jnp.tanh(inner({k: p[k] for k in CASES["dense"].parameters}, x * 2)) @ p["last"]

    last = (np.random.default_rng(5).normal(size=(4, 4)), PS())
    case = Case(fun, CASES["dense"].parameters | {"last": last}, CASES["dense"].x)
    compare(case, relevance, make_mesh(AxisType.Auto, AxisType.Auto))


def test_a_bias_behind_a_constraint_belongs_to_its_layer() -> None:
    def fun(p: dict, x: jax.Array) -> jax.Array:
        z = x @ p["hidden"]
        if not jax.sharding.get_abstract_mesh().empty:
            z = lax.with_sharding_constraint(z, PS(DATA, MODEL))
        return jax.nn.relu(z + p["hidden_bias"]) @ p["out"]

    def run(fun: Callable, p: dict, x: jax.Array) -> jax.Array:
        assert [row.kind for row in lrp.plan(fun, None, p, x, argnums=1).rows] == [
            "dense",
            "activation",
            "dense",
        ]
        return lrp.explain(fun, COMPOSITES["flat"], argnums=1)(p, x, target=1).relevance

    mesh = make_mesh(AxisType.Auto, AxisType.Auto)
    compare(CASES["dense"]._replace(fun=fun), run, mesh)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("around", [True, False], ids=["mesh set", "mesh of the arguments"])
def test_without_a_mesh_around_and_without_jit(compiled: bool, around: bool) -> None:
    def fun(p: dict, x: jax.Array) -> jax.Array:
        return jax.nn.relu(x @ p["hidden"] + p["hidden_bias"]).max(axis=1)

    def run(p: dict, x: jax.Array) -> tuple:
        ledger = lrp.ledger(fun, COMPOSITES["epsilon"], p, x, argnums=1)
        return relevance(lambda p, x: fun(p, x)[:, None] * jnp.ones(2), p, x), ledger.input

    case, mesh = CASES["dense"], make_mesh()
    expected = run(*placed(case, None))
    with jax.set_mesh(mesh) if around else contextlib.nullcontext():
        p, x = placed(case, mesh)
        found = (jax.jit(run) if compiled else run)(p, x)
    jax.tree.map(close, found, expected)
    assert sharding(found[0]) == sharding(x)


def test_an_explanation_mapped_over_the_mesh() -> None:
    case = CASES["dense"]
    expected = relevance(dense, *placed(case, None))

    def local(p: dict, x: jax.Array) -> jax.Array:
        return relevance(dense, p, x)

    mesh = make_mesh()
    with jax.set_mesh(mesh):
        p, x = placed(case, None)
        x = jax.device_put(x, NamedSharding(mesh, PS(DATA)))
        mapped = jax.shard_map(local, in_specs=(PS(), PS(DATA)), out_specs=PS(DATA))
        close(jax.jit(mapped)(p, x), expected)


def test_bfloat16() -> None:
    def run(p: dict, x: jax.Array) -> tuple:
        p, x = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (p, x))
        found = lrp.explain(dense, COMPOSITES["epsilon"], argnums=1, parameters=0)(p, x, target=1)
        return found.relevance, found.parameters

    expected, mesh = jax.jit(run)(*placed(CASES["dense"], None)), make_mesh()
    with jax.set_mesh(mesh):
        found = jax.jit(run)(*placed(CASES["dense"], mesh))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == jnp.bfloat16
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-2 * np.abs(b).max())


def test_a_reduced_kernel_is_refused() -> None:
    mesh = make_mesh()
    with jax.set_mesh(mesh):
        p, x = placed(CASES["unreduced"], mesh)

        def fun(p: dict, x: jax.Array) -> jax.Array:
            w = jax.sharding.reshard(p["w"], PS(None, None, reduced=frozenset({DATA})))
            return jax.nn.relu(x @ w)

        explain = lrp.explain(fun, C.attnlrp(), argnums=1, parameters=0)
        with pytest.raises(NotImplementedError, match=r"remove `reduced=` from the PartitionSpec"):
            jax.jit(lambda p, x: explain(p, x, target=1).relevance)(p, x)
        # of the input alone, no cotangent of the kernel is needed
        found = jax.jit(lambda p, x: relevance(fun, p, x))(p, x)
        plain = jax.jit(lambda p, x: relevance(lambda p, x: jax.nn.relu(x @ p["w"]), p, x))(p, x)
        np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-6)
