"""What holds on a mesh of eight devices; `test_shard_map.py` runs it in a process that has them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as PS

import jaxlrp as lrp
from jaxlrp import composites as C

assert jax.device_count() == 8, "run me through test_shard_map.py"


def make_mesh(kind: AxisType = AxisType.Auto) -> Mesh:
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind, kind))


MESH = make_mesh()
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(8, 6)), jnp.float32)
PARAMS = {
    "hidden": jnp.asarray(RNG.normal(size=(6, 8)), jnp.float32),
    "hidden_bias": jnp.asarray(RNG.normal(size=8), jnp.float32),
    "out": jnp.asarray(RNG.normal(size=(8, 4)), jnp.float32),
    "out_bias": jnp.asarray(RNG.normal(size=4), jnp.float32),
}
# hidden units live on the devices of "model": columns of one kernel, rows of the next
SPECS = {
    "hidden": PS(None, "model"),
    "hidden_bias": PS("model"),
    "out": PS("model"),
    "out_bias": PS(),
}


def network(p: dict, x: jax.Array, total: Callable = lambda z: z) -> jax.Array:
    h = jax.nn.relu(x @ p["hidden"] + p["hidden_bias"])
    return total(h @ p["out"]) + p["out_bias"]


def tensor_parallel(p: dict, x: jax.Array) -> jax.Array:
    return network(p, x, lambda z: lax.psum(z, "model"))


def scattered(p: dict, x: jax.Array) -> jax.Array:
    """The sum over devices by `psum_scatter` over examples, brought together again."""

    def total(z: jax.Array) -> jax.Array:
        return lax.psum_scatter(z, "model", scatter_dimension=0, tiled=True)

    return lax.all_gather(network(p, x, total), "model", axis=0, tiled=True)


def over_mesh(fun: Callable, check: bool = True) -> Callable:
    return jax.shard_map(
        fun, mesh=MESH, in_specs=(SPECS, PS("data")), out_specs=PS("data"), check_vma=check
    )


def close(actual: Any, expected: Any) -> None:
    # float32, sums in another order
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def explained(*args: Any, **options: Any) -> Callable:
    """Compiled: operation by operation, eight simulated devices are slow."""
    return jax.jit(lrp.explain(*args, **options))


COMPOSITES = {
    "lrp0": C.by_kind("dense", lrp.LRP0()),
    "epsilon": C.all_epsilon(0.1),
    "zplus": C.by_kind("dense", lrp.ZPlus()),
    "alpha_beta": C.by_kind("dense", lrp.AlphaBeta()),
    "gamma": C.by_kind("dense", lrp.Gamma(0.25)),
    "traced_gamma": C.by_kind("dense", lrp.Gamma(jnp.float32(0.25))),
    "flat": C.by_kind("dense", lrp.Flat()),
    "wsquare": C.by_kind("dense", lrp.WSquare()),
    "zbox": C.by_kind("dense", lrp.ZBox(-3.0, 3.0)),
    "attnlrp": C.attnlrp(),
}


@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("check", [True, False], ids=["typed", "untyped"])
def test_a_sharded_function_has_the_relevance_of_the_whole(name: str, check: bool) -> None:
    composite = COMPOSITES[name]
    options: dict[str, Any] = {"argnums": 1, "parameters": 0}
    plain = explained(network, composite, **options)(PARAMS, X, target=1)
    found = explained(over_mesh(tensor_parallel, check), composite, **options)(PARAMS, X, target=1)
    close(found.relevance, plain.relevance)
    close(found.output, plain.output)
    jax.tree.map(close, found.parameters, plain.parameters)


def test_a_sum_that_is_scattered_completes_its_layer_too() -> None:
    composite = COMPOSITES["zplus"]
    plain = explained(network, composite, argnums=1)(PARAMS, X, target=1)
    sharded = over_mesh(scattered, check=False)
    found = explained(sharded, composite, argnums=1)(PARAMS, X, target=1)
    close(found.relevance, plain.relevance)


def test_the_output_is_that_of_the_function() -> None:
    sharded = over_mesh(tensor_parallel)
    assert np.array_equal(lrp.attach(sharded, argnums=1)(PARAMS, X), sharded(PARAMS, X))


def test_layers_have_paths() -> None:
    plan = lrp.plan(over_mesh(tensor_parallel), None, PARAMS, X, argnums=1)
    assert [(row.path, row.kind, row.absorbed) for row in plan.rows] == [
        ("hidden", "dense", ("add",)),
        ("relu", "activation", ()),
        ("out", "dense", (plan.rows[2].absorbed[0], "add")),
    ]
    assert plan.rows[2].absorbed[0] in ("psum", "psum_invariant")
    assert ("loop", "shard_map", 1) in plan.coverage.counts


@pytest.mark.parametrize("check", [True, False], ids=["typed", "untyped"])
def test_what_is_recorded_has_the_mesh_before_its_own_axes(check: bool) -> None:
    composite = C.all_epsilon(0.1)
    plain = explained(network, composite, argnums=1, record="*")(PARAMS, X, target=1).records
    sharded = over_mesh(tensor_parallel, check)
    found = explained(sharded, composite, argnums=1, record="*")(PARAMS, X, target=1).records
    assert set(found) == set(plain) == {"hidden", "relu", "out"}

    def joined(a: jax.Array) -> jax.Array:
        # (data, model, example, unit) -> (data example, model unit)
        return a.transpose(0, 2, 1, 3).reshape(8, 8)

    for path in ("hidden", "relu"):
        assert found[path].relevance.shape == (4, 2, 2, 4)
        close(joined(found[path].relevance), plain[path].relevance)
        close(joined(found[path].activation), plain[path].activation)
    # the same on both devices along "model"; with types it is there once, without it is shared out
    assert found["out"].relevance.shape == ((4, 1, 2, 4) if check else (4, 2, 2, 4))
    close(found["out"].relevance.sum(1).reshape(8, 4), plain["out"].relevance)


def test_a_condition_inside() -> None:
    mask = (jnp.arange(8) % 3 == 0).astype(float)
    expected = explained(network, argnums=1)(PARAMS, X, target=1, condition={"hidden": mask})
    explain = explained(over_mesh(tensor_parallel), argnums=1)
    inside = mask.reshape(2, 1, 4)  # (model, example, unit)
    found = explain(PARAMS, X, target=1, condition={"hidden": inside})
    close(found.relevance, expected.relevance)


@pytest.mark.parametrize("check", [True, False], ids=["typed", "untyped"])
def test_the_ledger_closes(check: bool) -> None:

    def ledger(fun: Callable) -> Any:
        check = lrp.ledger
        return jax.jit(lambda p, x: check(fun, C.all_epsilon(0.1), p, x, argnums=1, target=1))(
            PARAMS, X
        )

    plain = ledger(network)
    found = ledger(over_mesh(tensor_parallel, check))
    for path, entry in plain.rows.items():
        for a, b in zip(jax.tree.leaves(found.rows[path]), jax.tree.leaves(entry), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


# without types JAX leaves the partial sums of a gradient through `psum` to the caller
@pytest.mark.parametrize(
    ("fun", "check"), [(network, True), (network, False), (tensor_parallel, True)]
)
def test_an_explanation_may_be_sharded_itself(fun: Callable, check: bool) -> None:
    plain = explained(network, argnums=1, record="hidden")(PARAMS, X, target=1)

    def explain(p: dict, x: jax.Array) -> jax.Array:
        return lrp.explain(fun, argnums=1, record="hidden")(p, x, target=1).relevance

    specs = SPECS if fun is tensor_parallel else PS()
    mapped = jax.shard_map(
        explain, mesh=MESH, in_specs=(specs, PS("data")), out_specs=PS("data"), check_vma=check
    )
    close(jax.jit(mapped)(PARAMS, X), plain.relevance)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_jit_with_shardings(kind: AxisType) -> None:
    mesh = make_mesh(kind)
    composite = C.by_kind("dense", lrp.Gamma(0.25))
    expected = explained(network, composite, argnums=1, record="*")(PARAMS, X, target=1)
    with jax.set_mesh(mesh):
        x = jax.device_put(X, NamedSharding(mesh, PS("data")))
        p = jax.device_put(PARAMS, NamedSharding(mesh, PS()))
        found = explained(network, composite, argnums=1, record="*")(p, x, target=1)
    close(found.relevance, expected.relevance)
    close(found.records["hidden"].relevance, expected.records["hidden"].relevance)
    assert found.relevance.sharding.spec[0] == "data"


# Collectives: each is linear in what it moves


def ring(x: jax.Array) -> jax.Array:
    return x + lax.ppermute(x, "data", [(i, (i + 1) % 4) for i in range(4)])


def gathered(x: jax.Array) -> jax.Array:
    return jnp.tanh(lax.all_gather(x, "data", axis=0, tiled=True)).sum(0, keepdims=True) + x


def exchanged(x: jax.Array) -> jax.Array:
    wide = jnp.tile(x, (2, 1))
    return lax.all_to_all(wide, "data", 0, 0, tiled=True)[:2] + x


def centered(x: jax.Array) -> jax.Array:
    return x - lax.pmean(x, "data")


def scattered_sum(x: jax.Array) -> jax.Array:
    z = jnp.tanh(lax.psum_scatter(jnp.tile(x, (2, 1)), "data", scatter_dimension=0, tiled=True))
    return jnp.tile(z, (2, 1)) + x


def synchronized(x: jax.Array) -> jax.Array:
    """A LayerNorm over the whole mesh's examples: its statistics are sums over devices."""
    mean = lax.pmean(x.mean(0), "data")
    variance = lax.pmean(((x - mean) ** 2).mean(0), "data")
    return (x - mean) * lax.rsqrt(variance + 1e-3)


def softmax(x: jax.Array) -> jax.Array:
    """Over all examples, which lie on four devices."""
    top = lax.pmax(lax.stop_gradient(x).max(0), "data")
    weights = jnp.exp(x - top)
    return weights / lax.psum(weights.sum(0), "data")


COLLECTIVES = {f.__name__: f for f in (ring, gathered, exchanged, centered, scattered_sum)}
COLLECTIVES |= {f.__name__: f for f in (synchronized, softmax)}
WHOLE: dict[str, Callable] = {
    "ring": lambda x: x + jnp.roll(x, 2, axis=0),
    "gathered": lambda x: jnp.tanh(x).sum(0, keepdims=True) + x,
    "exchanged": lambda x: exchanged_whole(x),
    "centered": lambda x: x - jnp.tile(x.reshape(4, 2, 6).mean(0), (4, 1)),
    "scattered_sum": lambda x: scattered_sum_whole(x),
    "synchronized": lambda x: (x - x.mean(0)) * lax.rsqrt(x.var(0) + 1e-3),
    "softmax": lambda x: jax.nn.softmax(x, axis=0),
}


def exchanged_whole(x: jax.Array) -> jax.Array:
    # device d sends row i of its four rows to device i, which puts it d-th
    wide = jnp.tile(x.reshape(4, 2, 6), (1, 2, 1))  # (sender, row, feature)
    return wide.transpose(1, 0, 2)[:, :2].reshape(8, 6) + x


def scattered_sum_whole(x: jax.Array) -> jax.Array:
    total = jnp.tile(x.reshape(4, 2, 6), (1, 2, 1)).sum(0)  # row i goes to device i
    return jnp.repeat(jnp.tanh(total), 2, axis=0) + x


@pytest.mark.parametrize("name", COLLECTIVES)
@pytest.mark.parametrize("check", [True, False], ids=["typed", "untyped"])
def test_collectives_are_left_to_autodiff(name: str, check: bool) -> None:
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    mapped = jax.shard_map(
        COLLECTIVES[name], mesh=mesh, in_specs=PS("data"), out_specs=PS("data"), check_vma=check
    )
    whole = WHOLE[name]
    w = jnp.asarray(np.random.default_rng(1).normal(size=(6, 3)), jnp.float32)
    r = jnp.asarray(np.random.default_rng(2).normal(size=(8, 3)), jnp.float32)
    close(jax.jit(mapped)(X), whole(X))
    expected = explained(lambda x: whole(x) @ w)(X, target=r)
    found = explained(lambda x: mapped(x) @ w)(X, target=r)
    close(found.relevance, expected.relevance)
    assert np.abs(found.relevance).max() > 1e-3


def test_a_maximum_over_devices_says_that_it_has_no_rule() -> None:
    mapped = jax.shard_map(
        lambda x: lax.pmax(x, "data"), mesh=MESH, in_specs=PS("data"), out_specs=PS()
    )
    with pytest.raises(lrp.UnsupportedError, match=r"does not know how to explain `pmax`"):
        lrp.explain(mapped)(X, target=0)


# Control flow and modules inside


def layered(p: dict, x: jax.Array) -> jax.Array:
    """A scan of rematerialized layers and a branch."""

    def step(h: jax.Array, w: jax.Array) -> tuple[jax.Array, None]:
        return h + jax.nn.tanh(h @ w), None

    h, _ = lax.scan(jax.checkpoint(step), x, p["layers"])
    h = lax.cond(p["flag"] > 0, lambda h: h @ p["one"], lambda h: h @ p["two"], h)
    return h @ p["out"]


LAYERED = {
    "layers": jnp.asarray(RNG.normal(size=(3, 6, 6)), jnp.float32),
    "one": jnp.asarray(RNG.normal(size=(6, 6)), jnp.float32),
    "two": jnp.asarray(RNG.normal(size=(6, 6)), jnp.float32),
    "out": jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32),
    "flag": jnp.float32(-1.0),
}


def test_scan_remat_and_cond_inside() -> None:
    mapped = jax.shard_map(layered, mesh=MESH, in_specs=(PS(), PS("data")), out_specs=PS("data"))
    options: dict[str, Any] = {"argnums": 1, "record": "*"}
    plain = explained(layered, **options)(LAYERED, X, target=1)
    found = explained(mapped, **options)(LAYERED, X, target=1)
    close(found.relevance, plain.relevance)
    assert set(found.records) == set(plain.records)
    for path, record in plain.records.items():
        inside = found.records[path].relevance
        assert inside.shape[:2] == (4, 1)
        scanned = inside.ndim == 5  # (data, model, turn, example, unit)
        joined = jnp.moveaxis(inside[:, 0], 1, 0) if scanned else inside[:, 0]
        close(joined.reshape(record.relevance.shape), record.relevance)


def test_second_order_through_the_mesh() -> None:
    def loss(fun: Callable) -> Callable:
        def of(gamma: jax.Array, p: dict, x: jax.Array) -> jax.Array:
            composite = C.by_kind("dense", lrp.Gamma(gamma))
            found = lrp.explain(fun, composite, argnums=1)(p, x, target=1)
            return jnp.sum(jnp.sin(found.relevance))

        return jax.jit(jax.grad(of, argnums=(0, 1, 2)))

    at = (jnp.float32(0.3), PARAMS, X)
    jax.tree.map(close, loss(over_mesh(tensor_parallel))(*at), loss(network)(*at))


def test_flax_modules_inside() -> None:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return nn.Dense(4, name="head")(nn.relu(nn.Dense(8, name="hidden")(x)))

    model = Net()
    variables = model.init(jax.random.key(0), X)
    mapped = jax.shard_map(
        model.apply, mesh=MESH, in_specs=(PS(), PS("data")), out_specs=PS("data")
    )
    assert lrp.plan(mapped, None, variables, X, argnums=1).paths == ("hidden", "relu", "head")
    expected = explained(model.apply, argnums=1)(variables, X, target=1).relevance
    close(explained(mapped, argnums=1)(variables, X, target=1).relevance, expected)

    net = nnx.Sequential(nnx.Linear(6, 4, rngs=nnx.Rngs(0)), nnx.relu)
    each = jax.shard_map(
        lambda x: lrp.explain(net)(x, target=1).relevance,
        mesh=MESH,
        in_specs=PS("data"),
        out_specs=PS("data"),
    )
    close(jax.jit(each)(X), explained(net)(X, target=1).relevance)
