"""What is recorded inside a network: of embeddings, of attention heads, layer by layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxlrp as lrp
from jaxlrp import composites
from jaxlrp.plot import panel

from numeric import promoting

HEADS, SIZE, LENGTH, WIDTH, LAYERS = 2, 3, 4, 6, 2
IDS = np.array([[1, 4, 2, 4], [3, 3, 0, 5]])
EXACT = composites.by_kind("dense", lrp.LRP0())  # every relevance is value times gradient


pytestmark = pytest.mark.usefixtures("x64")


def drawn(seed, tree):
    """Parameters like those of a module, none of them zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: 0.5 * rng.normal(size=a.shape), tree)


class Block(nn.Module):
    """Attention beside the identity, without norms: relevance can be followed by hand."""

    @nn.compact
    def __call__(self, x, _=None):
        attend = nn.MultiHeadDotProductAttention(HEADS, qkv_features=HEADS * SIZE, name="attention")
        return x + attend(x), None


class Linen(nn.Module):
    scan: bool = False

    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(6, WIDTH)(ids)
        if self.scan:
            axes = {"params": 0}
            layers = nn.scan(Block, variable_axes=axes, split_rngs={"params": True}, length=LAYERS)
            x, _ = layers(name="layers")(x, None)
        else:
            for i in range(LAYERS):
                x, _ = Block(name=f"layer_{i}")(x)
        return nn.Dense(3, name="head")(x.mean(axis=1))


class NnxBlock(nnx.Module):
    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(
            HEADS, WIDTH, HEADS * SIZE, out_features=WIDTH, decode=False, rngs=rngs
        )

    @promoting  # NNX computes attention weights in float32
    def __call__(self, x):
        return x + self.attention(x)


class Nnx(nnx.Module):
    def __init__(self, scan, rngs):
        self.embed, self.scan = nnx.Embed(6, WIDTH, param_dtype=float, rngs=rngs), scan
        if scan:
            self.layers = nnx.split_rngs(splits=LAYERS)(nnx.vmap(NnxBlock))(rngs)
        else:
            self.layers = nnx.List([NnxBlock(rngs) for _ in range(LAYERS)])
        self.head = nnx.Linear(WIDTH, 3, rngs=rngs)

    def __call__(self, ids):
        x = self.embed(ids)
        if self.scan:
            axes = (nnx.Carry, 0)
            apply = nnx.scan(lambda x, la: la(x), in_axes=axes, out_axes=nnx.Carry)
            x = apply(x, self.layers)
        else:
            for layer in self.layers:
                x = layer(x)
        return self.head(x.mean(axis=1))


P = drawn(0, Linen().init(jax.random.key(0), IDS))["params"]
ATTENTION = [P[f"layer_{i}"]["attention"] for i in range(LAYERS)]


def stacked():
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *ATTENTION)


def fill(module, values):
    for name, value in values.items():
        if isinstance(value, dict):
            fill(getattr(module, name), value)
        else:
            getattr(module, name).set_value(jnp.asarray(value))


def model(flavor, scan):
    """The same network in one of four ways."""
    if flavor == "linen":
        p = {"layers": {"attention": stacked()}, "Embed_0": P["Embed_0"], "head": P["head"]}
        variables = {"params": jax.tree.map(jnp.asarray, p if scan else P)}
        return lambda ids: Linen(scan).apply(variables, ids)
    found = Nnx(scan, nnx.Rngs(0))
    found.eval()
    fill(found, {"embed": P["Embed_0"], "head": P["head"]})
    if scan:
        fill(found.layers, {"attention": stacked()})
    else:
        for layer, values in zip(found.layers, ATTENTION, strict=True):
            fill(layer, {"attention": values})
    return found


def explained(fun, composite, target, record=()):
    return jax.jit(lambda x: lrp.explain(fun, composite, record=record)(x, target=target))


WAYS = [(flavor, scan) for flavor in ("linen", "nnx") for scan in (False, True)]
RTOL = {"linen": 1e-9, "nnx": 1e-5}  # NNX attends by way of a softmax in float32


def heads_by_hand(target):
    """Output of each head times its gradient, of each layer: (layer, batch, head, size, position)."""

    def attend(p, x):
        q, k, v = (
            jnp.einsum("btf,fhd->bthd", x, p[n]["kernel"]) + p[n]["bias"]
            for n in ("query", "key", "value")
        )
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(SIZE))
        return jnp.einsum("bhqk,bkhd->bhdq", jax.lax.stop_gradient(weights), v)

    def network(added):
        x, found = P["Embed_0"]["embedding"][IDS], []
        for p, more in zip(ATTENTION, added, strict=True):
            found.append(attend(p, x))
            out = jnp.einsum("bhdq,hdf->bqf", found[-1] + more, p["out"]["kernel"])
            x = x + out + p["out"]["bias"]
        logits = x.mean(axis=1) @ P["head"]["kernel"] + P["head"]["bias"]
        return logits[:, target].sum(), found

    zeros = jnp.zeros((LAYERS, len(IDS), HEADS, SIZE, LENGTH))
    gradient, found = jax.grad(network, has_aux=True)(zeros)
    return jnp.stack(found) * gradient


def by_layer(records, scan):
    """Records of attention's outputs as (layer, batch, head, size, position)."""
    arrays = [record.relevance for record in records.values()]
    whole = arrays[0] if scan else jnp.stack(arrays)
    return whole.reshape(LAYERS, len(IDS), HEADS, SIZE, LENGTH)


@pytest.mark.parametrize(("flavor", "scan"), WAYS)
def test_relevance_of_heads_is_that_which_flows_through_them(flavor, scan):
    """CP-LRP: attention weights are constants, so that by hand it is value times gradient."""
    fun, cp = model(flavor, scan), EXACT + composites.cp_lrp()
    result = explained(fun, cp, 1, "*attention/dot_general:1")(IDS)
    assert len(result.records) == (1 if scan else LAYERS)
    shape = (
        (len(IDS), HEADS, SIZE, LENGTH) if flavor == "linen" else (len(IDS), HEADS, SIZE, 1, LENGTH)
    )
    for record in result.records.values():
        assert record.relevance.shape == ((LAYERS, *shape) if scan else shape)
    expected = jax.jit(heads_by_hand, static_argnums=0)(1)
    assert np.abs(expected.sum(axis=(1, 3, 4))).min() > 1e-3  # each head of each layer has some
    found = by_layer(result.records, scan)
    np.testing.assert_allclose(found, expected, rtol=RTOL[flavor], atol=RTOL[flavor])

    ledger = jax.jit(lambda x: lrp.ledger(fun, cp, x, target=1))(IDS)
    for path, record in result.records.items():
        received = ledger.rows[path].received
        np.testing.assert_allclose(record.relevance.sum(), received, rtol=RTOL[flavor])


@pytest.mark.parametrize(("flavor", "scan"), WAYS)
def test_relevance_of_an_embedding_feature(flavor, scan):
    """From integers: summed over features it is the token's; by hand it is value times gradient."""
    fun = model(flavor, scan)
    path = "Embed_0" if flavor == "linen" else "embed"
    result = explained(fun, EXACT + composites.attnlrp(), 2, path)(IDS)
    found = result.records[path].relevance
    assert found.shape == (*IDS.shape, WIDTH)
    assert result.relevance.shape == IDS.shape
    np.testing.assert_allclose(found.sum(axis=-1), result.relevance, rtol=1e-6)
    np.testing.assert_array_equal(result.records[path].activation, P["Embed_0"]["embedding"][IDS])

    def behind(x):
        class Behind(nn.Module):
            @nn.compact
            def __call__(self, x):
                for i in range(LAYERS):
                    x, _ = Block(name=f"layer_{i}")(x)
                return nn.Dense(3, name="head")(x.mean(axis=1))

        return Behind().apply({"params": {k: v for k, v in P.items() if k != "Embed_0"}}, x)

    embedded = P["Embed_0"]["embedding"][IDS]
    expected = explained(behind, EXACT + composites.attnlrp(), 2)(embedded).relevance
    np.testing.assert_allclose(found, expected, rtol=RTOL[flavor], atol=RTOL[flavor])


@pytest.mark.parametrize(("flavor", "scan"), WAYS)
def test_relevance_flow_by_layer(flavor, scan):
    """What leaves each block, by token, from `record=` to a picture: no biases, so it is conserved."""
    fun = model(flavor, scan)
    zero = composites.by_kind("dense", lrp.Epsilon(1e-12, bias="zero"))
    result = explained(fun, zero + composites.cp_lrp(), 0, ("*mbed*", "*add*"))(IDS)
    records = {path: result.records[path] for path in sorted(result.records)}
    embedded, *blocks = [record.relevance.sum(axis=-1) for record in records.values()]
    blocks = blocks[0] if scan else jnp.stack(blocks)
    flow = np.concatenate([embedded[None], blocks])  # (layer, batch, token)
    assert flow.shape == (1 + LAYERS, *IDS.shape)
    logits = np.broadcast_to(result.output[:, 0], (1 + LAYERS, len(IDS)))
    np.testing.assert_allclose(flow.sum(axis=2), logits, rtol=10 * RTOL[flavor])
    ax = panel(flow[:, 0], row_labels=["embedding", "1", "2"], column_labels=["a", "b", "c", "d"])
    np.testing.assert_allclose(ax.images[0].get_array(), flow[:, 0])
