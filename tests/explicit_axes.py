"""Functions whose types hold shardings; `test_shard_map.py` runs it in a process of eight devices."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as PS

import jaxlrp as lrp
from jaxlrp import composites as C

assert jax.device_count() == 8, "run me through test_shard_map.py"

DATA, MODEL = "data", "model"


def make_mesh(data: AxisType = AxisType.Explicit, model: AxisType = AxisType.Explicit) -> Mesh:
    return jax.make_mesh((4, 2), (DATA, MODEL), axis_types=(data, model))


MESH = make_mesh()


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def on(*axes: Any) -> dict[str, Any]:
    """The sharding that an operation is asked for; none where no mesh is around, on one device."""
    return {} if jax.sharding.get_abstract_mesh().empty else {"out_sharding": PS(*axes)}


def moved(x: jax.Array, *axes: Any) -> jax.Array:
    return x if jax.sharding.get_abstract_mesh().empty else jax.sharding.reshard(x, PS(*axes))


# Each case: a function of (parameters, x), the parameters with their specs, and x with its own.


def dense(p: dict, x: jax.Array) -> jax.Array:
    """Hidden units on the devices of "model": columns of one kernel, rows of the next."""
    h = jax.nn.relu(x @ p["hidden"] + p["hidden_bias"])
    return jnp.dot(h, p["out"], **on(DATA, None)) + p["out_bias"]


DENSE = {
    "hidden": (draw(1, 6, 8), PS(None, MODEL)),
    "hidden_bias": (draw(2, 8), PS(MODEL)),
    "out": (draw(3, 8, 4), PS(MODEL)),
    "out_bias": (draw(4, 4), PS()),
}


def resharded(p: dict, x: jax.Array) -> jax.Array:
    """A bias behind a `reshard`, an `einsum` and an activation of its own layout."""
    h = moved(x @ p["hidden"], DATA, None) + p["plain_bias"]
    h = jax.nn.silu(moved(h, None, MODEL))
    return jnp.einsum("nh,ho->no", h, p["out"], **on(DATA, None)) + p["out_bias"]


def conv(p: dict, x: jax.Array) -> jax.Array:
    """Data-parallel: convolution, BatchNorm, pools, a patch convolution and a dense layer of pixels."""
    numbers = ("NHWC", "HWIO", "NHWC")
    z = lax.conv_general_dilated(x, p["kernel"], (1, 1), "SAME", dimension_numbers=numbers)
    h = jax.nn.relu((z - p["mean"]) * lax.rsqrt(p["variance"] + 1e-3) + p["shift"])
    h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    h = lax.conv_general_dilated(h, p["patches"], (2, 2), "VALID", dimension_numbers=numbers)
    return h.max(axis=(1, 2)) @ p["out"] + h.mean(axis=(1, 2)) @ p["out"]


CONV = {
    "kernel": (draw(5, 3, 3, 2, 4), PS()),
    "mean": (draw(6, 4), PS()),
    "variance": (draw(7, 4) ** 2, PS()),
    "shift": (draw(8, 4), PS()),
    "patches": (draw(9, 2, 2, 4, 6), PS()),
    "out": (draw(10, 6, 4), PS()),
}


def attention(p: dict, x: jax.Array) -> jax.Array:
    """Heads on the devices of "model", RMSNorm before, residual and gated units behind."""
    normed = x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * p["scale"]
    q, k, v = (jnp.einsum("nte,ehd->nthd", normed, p[name]) for name in ("q", "k", "v"))
    weights = jax.nn.softmax(jnp.einsum("nthd,nshd->nhts", q, k) / 2.0, axis=-1)
    mixed = jnp.einsum("nhts,nshd->nthd", weights, v)
    h = x + jnp.einsum("nthd,hde->nte", mixed, p["o"], **on(DATA, None, None)) + p["bias"]
    gated = jax.nn.sigmoid(h @ p["gate"]) * jnp.tanh(h @ p["up"])
    return (h + jnp.dot(gated, p["down"], **on(DATA, None, None))).mean(1)


ATTENTION = {
    "scale": (draw(11, 6), PS()),
    **{n: (draw(12 + i, 6, 4, 3), PS(None, MODEL)) for i, n in enumerate("qkv")},
    "o": (draw(15, 4, 3, 6), PS(MODEL)),
    "bias": (draw(16, 6), PS()),
    "gate": (draw(17, 6, 8), PS(None, MODEL)),
    "up": (draw(18, 6, 8), PS(None, MODEL)),
    "down": (draw(19, 8, 6), PS(MODEL)),
}


def layers(p: dict, x: jax.Array) -> jax.Array:
    """A scan over rematerialised layers, each sharded, a branch, and a maximum over sharded units."""

    def step(h: jax.Array, layer: tuple) -> tuple[jax.Array, None]:
        up, down, bias = layer
        return h + jnp.dot(jnp.tanh(h @ up + bias), down, **on(DATA, None)), None

    h, _ = lax.scan(jax.checkpoint(step), x, (p["up"], p["down"], p["bias"]))
    h = lax.cond(p["flag"] > 0, lambda h: h @ p["one"], lambda h: jax.nn.relu(h) @ p["two"], h)
    return jnp.stack([h.max(axis=-1), h.sum(axis=-1), jnp.maximum(h[:, 0], h[:, 1])], axis=1)


LAYERS = {
    "up": (draw(20, 3, 6, 8), PS(None, None, MODEL)),
    "down": (draw(21, 3, 8, 6), PS(None, MODEL)),
    "bias": (draw(22, 3, 8), PS(None, MODEL)),
    "one": (draw(23, 6, 4), PS()),
    "two": (draw(24, 6, 4), PS()),
    "flag": (np.float64(-1), PS()),
}


def automatic(p: dict, x: jax.Array) -> jax.Array:
    """A part in which the compiler chooses the shardings."""

    def inside(h: jax.Array, small: jax.Array, inner: jax.Array) -> jax.Array:
        z = (h.reshape(-1, 2, 3) @ small).reshape(-1, 6)
        return jax.nn.relu(z + 0.5) @ inner

    if not jax.sharding.get_abstract_mesh().empty:
        inside = jax.sharding.auto_axes(inside, out_sharding=PS(DATA, MODEL))
    h = jax.nn.gelu(inside(x, p["small"], p["inner"]) + p["shift"])
    return jnp.dot(h, p["out"], **on(DATA, None))


AUTOMATIC = {
    "small": (draw(25, 3, 3), PS()),
    "inner": (draw(26, 6, 8), PS()),
    "shift": (draw(27, 8), PS(MODEL)),
    "out": (draw(28, 8, 4), PS(MODEL)),
}


def lookup(p: dict, tokens: jax.Array) -> jax.Array:
    h = p["table"].at[tokens].get(**on(DATA, None, MODEL)) + p["positions"]
    return jnp.einsum("nte,eo->no", jnp.tanh(h), p["out"], **on(DATA, None))


LOOKUP = {
    "table": (draw(29, 10, 6), PS(None, MODEL)),
    "positions": (draw(30, 5, 6), PS(None, MODEL)),
    "out": (draw(31, 6, 4), PS(MODEL)),
}
TOKENS = np.random.default_rng(32).integers(0, 10, (8, 5))

CASES: dict[str, tuple[Callable, dict, jax.Array, PS]] = {
    "dense": (dense, DENSE, draw(33, 8, 6), PS(DATA)),
    "dense_sharded_input": (
        dense,
        {**DENSE, "hidden": (DENSE["hidden"][0], PS(None, MODEL))},
        draw(33, 8, 6),
        PS(DATA),
    ),
    "resharded": (resharded, DENSE | {"plain_bias": (draw(2, 8), PS())}, draw(34, 8, 6), PS(DATA)),
    "conv": (conv, CONV, draw(35, 4, 9, 8, 2), PS(DATA)),
    "attention": (attention, ATTENTION, draw(36, 8, 5, 6), PS(DATA)),
    "layers": (layers, LAYERS, draw(37, 8, 6), PS(DATA)),
    "automatic": (automatic, AUTOMATIC, draw(38, 8, 6), PS(DATA)),
    "lookup": (lookup, LOOKUP, TOKENS, PS(DATA)),
}

COMPOSITES = {
    "default": None,
    "lrp0": C.by_kind("dense", lrp.LRP0()),
    "epsilon": C.all_epsilon(0.1),
    "gamma": C.by_kind(("dense", "conv"), lrp.Gamma(np.float64(0.25))),
    "attnlrp": C.attnlrp(),
    "flat": C.epsilon_plus_flat(),
}


def placed(name: str, mesh: Mesh | None) -> tuple[Callable, dict, jax.Array]:
    fun, parameters, x, spec = CASES[name]
    if mesh is None:
        return fun, {k: jnp.asarray(v) for k, (v, _) in parameters.items()}, jnp.asarray(x)
    p = {k: jax.device_put(v, NamedSharding(mesh, s)) for k, (v, s) in parameters.items()}
    return fun, p, jax.device_put(x, NamedSharding(mesh, spec))


def close(actual: Any, expected: Any) -> None:
    # float64, sums in another order
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", CASES)
def test_relevance(name: str, composite: str) -> None:
    options: dict[str, Any] = {"argnums": 1, "record": "*", "parameters": 0}
    if composite == "default":
        options.pop("parameters")
    fun, p, x = placed(name, None)
    explain = lambda p, x, t: lrp.explain(fun, COMPOSITES[composite], **options)(p, x, target=t)
    expected = jax.jit(explain)(p, x, 1)
    with jax.set_mesh(MESH):
        fun, p, x = placed(name, MESH)
        found = jax.jit(explain)(p, x, 1)
        assert jax.typeof(found.relevance).sharding == jax.typeof(x).sharding
    close(found.output, expected.output)
    close(found.relevance, expected.relevance)
    assert set(found.records) == set(expected.records)
    for path, record in expected.records.items():
        close(found.records[path].relevance, record.relevance)
    if found.parameters is not None:
        jax.tree.map(close, found.parameters, expected.parameters)
        for k, v in p.items():
            assert jax.typeof(found.parameters[k]).sharding == jax.typeof(v).sharding
