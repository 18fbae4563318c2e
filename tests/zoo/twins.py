"""The same networks written in two ways, with the same weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

from zoo import generative, graphs, recurrent, transformers_linen, transformers_nnx, vision_linen
from zoo.entries import linen, linen_variables, normal, tokens

from numeric import promoting


class Twins(NamedTuple):
    """Functions that are one and the same, and an input.

    Attributes:
      funs: the first is what the others are compared with.
      x: of all of them.
      rtol: how equal they are.
      same_sums: whether their linear layers add up the same products. If not, only rules that are
        linear in the contributions give the same relevance: epsilon does, gamma does not.
    """

    funs: Sequence[Any]
    x: jax.Array
    rtol: float = 1e-8
    same_sums: bool = True


TWINS: dict[str, Callable[[np.random.Generator], Twins]] = {}


def twins(build: Callable[[np.random.Generator], Twins]) -> Callable:
    TWINS[build.__name__] = build
    return build


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@twins
def layers_in_a_loop_scanned_rematerialized(rng: np.random.Generator) -> Twins:
    x = vision_linen.picture(rng)
    v = linen_variables(rng, vision_linen.ViT(), x)
    p = v["params"]
    rest = {key: value for key, value in p.items() if not key.startswith("layer_")}
    stacked = {"params": {**rest, "layers": _stack([p["layer_0"], p["layer_1"]])}}
    bind = lambda kind, v: functools.partial(promoting(vision_linen.ViT(kind).apply), v)  # noqa: E731
    funs = [bind("loop", v), bind("remat", v), bind("scan", stacked), bind("scan_remat", stacked)]
    return Twins(funs, x)


def _copy(module: nnx.Module, values: Any) -> None:
    """Sets the parameters of an NNX module to those of a Linen module of the same names."""
    for name, value in values.items():
        if isinstance(value, dict):
            _copy(getattr(module, name), value)
        else:
            getattr(module, name).set_value(value)


@twins
def vit_in_linen_and_nnx(rng: np.random.Generator) -> Twins:
    x = vision_linen.picture(rng)
    v = linen_variables(rng, vision_linen.ViT(), x)
    p = v["params"]
    models = []
    for kind in ("loop", "scan"):
        rngs = nnx.Rngs(0)
        model = transformers_nnx.ViT(rngs, kind)
        model.eval()
        names = {
            "norm1": "LayerNorm_0", "norm2": "LayerNorm_1", "up": "Dense_1", "down": "Dense_0",
            "attention": "MultiHeadDotProductAttention_0",
        }  # fmt: skip
        layers = [{new: p[f"layer_{i}"][old] for new, old in names.items()} for i in range(2)]
        _copy(model, {key: p[key] for key in ("token", "position")})
        for new, old in {"patches": "patches", "norm": "LayerNorm_0", "head": "head"}.items():
            _copy(getattr(model, new), p[old])
        if kind == "scan":
            _copy(model.layers, _stack(layers))
        else:
            for layer, values in zip(model.layers, layers, strict=True):
                _copy(layer, values)
        models.append(model)
    return Twins([functools.partial(promoting(vision_linen.ViT().apply), v), *models], x, 1e-6)


def _in_evaluation(module: nnx.Module) -> nnx.Module:
    module.eval()
    return module


@twins
def llama_in_linen_and_nnx(rng: np.random.Generator) -> Twins:
    """Attention by hand and fused, halves and neighbors rotated, gate and up apart and in one."""
    ids = tokens(rng, 2, transformers_nnx.LENGTH)
    model = transformers_linen.Decoder()
    v = linen_variables(rng, model, ids)
    p = v["params"]
    other = transformers_nnx.Llama(nnx.Rngs(0))
    width = transformers_nnx.WIDTH
    # in Linen features turn with those half a head on, in NNX with their neighbors
    neighbors = np.array([0, 2, 1, 3])
    for i, layer in enumerate(other.layers):
        attention = p[f"GroupedAttention_{i}"]
        q, k, values = (attention[f"{name}_proj"]["kernel"] for name in "qkv")
        values = {
            "norm1": p[f"RMSNorm_{2 * i}"],
            "norm2": p[f"RMSNorm_{2 * i + 1}"],
            "q": {"kernel": q[..., neighbors].reshape(width, -1)},
            "k": {"kernel": k[..., neighbors].reshape(width, -1)},
            "v": {"kernel": values.reshape(width, -1)},
            "o": {"kernel": attention["o_proj"]["kernel"].reshape(-1, width)},
            "gate_up": {
                "kernel": jnp.concatenate([p[f"{n}_{i}"]["kernel"] for n in ("gate", "up")], axis=1)
            },
            "down": p[f"down_{i}"],
        }
        _copy(layer, values)
    _copy(other, {"embed": p["Embed_0"], "norm": p["RMSNorm_4"], "head": p["lm_head"]})
    # `jax.nn.dot_product_attention` computes its softmax in float32
    return Twins([functools.partial(promoting(model.apply), v), _in_evaluation(other)], ids, 1e-6)


def _recurrent_twins(rng: np.random.Generator, cell: Any, other: Any, rename: Any) -> Twins:
    """A recurrent layer in Linen, and in NNX with its weights under other names."""
    x = recurrent.sequence(rng)
    model = recurrent.Classifier(cell(recurrent.HIDDEN, param_dtype=recurrent.DTYPE))
    v = linen_variables(rng, model, x)
    p = v["params"]
    (key,) = (key for key in p if key != "Dense_0")
    twin = recurrent.NnxClassifier(other, nnx.Rngs(0))
    _copy(twin.rnn.cell, rename(p[key]))
    _copy(twin.head, p["Dense_0"])
    return Twins([functools.partial(promoting(model.apply), v), _in_evaluation(twin)], x)


@twins
def lstm_in_linen_and_nnx(rng: np.random.Generator) -> Twins:
    def rename(p):
        return {"if_" if name == "if" else name: values for name, values in p.items()}

    return _recurrent_twins(rng, nn.LSTMCell, nnx.LSTMCell, rename)


@twins
def gru_in_linen_and_nnx(rng: np.random.Generator) -> Twins:
    """Gates apart, and from one fused kernel, which has no bias of the state."""

    def rename(p):
        p["hn"]["bias"] = jnp.zeros_like(p["hn"]["bias"])  # of the Linen module as well
        join = lambda side, leaf: jnp.concatenate([p[side + g][leaf] for g in "rzn"], -1)  # noqa: E731
        return {
            "dense_i": {"kernel": join("i", "kernel"), "bias": join("i", "bias")},
            "dense_h": {"kernel": join("h", "kernel")},
        }

    return _recurrent_twins(rng, nn.GRUCell, nnx.GRUCell, rename)


@twins
def lstm_fused_and_apart(rng: np.random.Generator) -> Twins:
    fused = nn.OptimizedLSTMCell(recurrent.HIDDEN, param_dtype=recurrent.DTYPE)
    apart = nn.LSTMCell(recurrent.HIDDEN, param_dtype=recurrent.DTYPE, name="OptimizedLSTMCell_0")
    x = recurrent.sequence(rng)
    one, other = recurrent.Classifier(fused), recurrent.Classifier(apart)
    v = linen_variables(rng, one, x)
    (key,) = (k for k in v["params"] if "LSTM" in k or k == "cell")
    (new,) = (k for k in linen_variables(rng, other, x)["params"] if "LSTM" in k or k == "cell")
    renamed = {"params": {new: v["params"][key], "Dense_0": v["params"]["Dense_0"]}}
    return Twins([functools.partial(one.apply, v), functools.partial(other.apply, renamed)], x)


@twins
def steps_scanned_and_written_out(rng: np.random.Generator) -> Twins:
    p = recurrent.elman_parameters(rng)
    funs = [functools.partial(recurrent.elman, p, unrolled=unrolled) for unrolled in (False, True)]
    return Twins(funs, recurrent.sequence(rng))


@twins
def experts_mixed_and_gathered(rng: np.random.Generator) -> Twins:
    x = normal(rng, 2, 5, 4)
    mixed, gathered = generative.TopExperts(), generative.TopExperts(gathered=True)
    v = linen_variables(rng, mixed, x)
    # one sum over experts and hidden units, or a sum for each expert
    return Twins([functools.partial(m.apply, v) for m in (mixed, gathered)], x, same_sums=False)


@twins
def attention_from_libraries_and_by_hand(rng: np.random.Generator) -> Twins:
    k_q, k_k, k_v = (normal(rng, 8, 2, 4, scale=0.3) for _ in range(3))
    head = normal(rng, 2, 4, 3)
    causal = np.tril(np.ones((5, 5), bool))

    def by_hand(q, k, v):
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(4.0)
        scores = jnp.where(causal, scores, -jnp.inf)
        weights = jnp.exp(scores - scores.max(-1, keepdims=True))
        weights = weights / weights.sum(-1, keepdims=True)
        return jnp.einsum("bhqk,bkhd->bqhd", weights, v)

    def from_linen(q, k, v):
        return nn.dot_product_attention(q, k, v, mask=causal[None, None])

    @promoting  # scores in float32
    def from_jax(q, k, v):
        return jax.nn.dot_product_attention(q, k, v, is_causal=True)

    def by_matmul(q, k, v):
        q, k, v = (a.transpose(0, 2, 1, 3) for a in (q, k, v))
        scores = q * 0.5 @ k.swapaxes(-1, -2) + jnp.where(causal, 0.0, -1e9)
        return (jax.nn.softmax(scores, axis=-1) @ v).transpose(0, 2, 1, 3)

    def network(attend, x):
        q, k, v = (jnp.einsum("btd,dhe->bthe", x, w) for w in (k_q, k_k, k_v))
        return jnp.einsum("bthe,hek->btk", attend(q, k, v), head)

    ways = (by_hand, from_linen, from_jax, by_matmul)
    # `jax.nn.dot_product_attention` computes its softmax in float32
    return Twins([functools.partial(network, way) for way in ways], normal(rng, 2, 5, 8), 2e-6)


@twins
def norms_and_activations_from_flax_and_by_hand(rng: np.random.Generator) -> Twins:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.LayerNorm()(nn.gelu(nn.Dense(8)(x)))
            x = nn.silu(nn.Dense(8)(x))
            x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Dense(8)(x)))
            return nn.softplus(nn.Dense(3)(nn.RMSNorm()(x)))

    x = normal(rng, 3, 5)
    fun, _ = linen(rng, Net(), x)
    (v,) = fun.args

    def by_hand(x):
        p, s = v["params"], v["batch_stats"]["BatchNorm_0"]
        dense = lambda i, x: jnp.dot(x, p[f"Dense_{i}"]["kernel"]) + p[f"Dense_{i}"]["bias"]  # noqa: E731
        scaled = lambda name, x: x * p[name]["scale"] + p[name]["bias"]  # noqa: E731
        x = dense(0, x)
        x = 0.5 * x * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        x = x - x.mean(-1, keepdims=True)
        x = scaled("LayerNorm_0", x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6))
        x = dense(1, x)
        x = dense(2, x / (1 + jnp.exp(-x)))
        x = scaled("BatchNorm_0", (x - s["mean"]) / jnp.sqrt(s["var"] + 1e-5))
        x = jnp.where(x > 0, x, 0)
        x = p["RMSNorm_0"]["scale"] * x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)
        return jnp.log1p(jnp.exp(dense(3, x)))

    return Twins([fun, by_hand], x)


@twins
def group_norm_from_flax_and_by_hand(rng: np.random.Generator) -> Twins:
    w, head = normal(rng, 5, 8), normal(rng, 8, 3)
    v = {"params": {"scale": normal(rng, 8), "bias": normal(rng, 8)}}

    def by_hand(x):
        x = x.reshape(-1, 2, 4)
        x = x - x.mean(-1, keepdims=True)
        x = x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)
        return x.reshape(-1, 8) * v["params"]["scale"] + v["params"]["bias"]

    norms = (promoting(functools.partial(nn.GroupNorm(2).apply, v)), by_hand)
    funs = [lambda x, norm=norm: jnp.tanh(norm(x @ w)) @ head for norm in norms]
    return Twins(funs, normal(rng, 3, 5))


@twins
def messages_by_segments_and_by_matrix(rng: np.random.Generator) -> Twins:
    w, v, head = normal(rng, graphs.WIDTH, 6), normal(rng, 6, 6), normal(rng, 6, 3)
    near = np.zeros((graphs.NODES, graphs.NODES))
    near[graphs.RECEIVERS, graphs.SENDERS] = 1.0

    def network(gather, x):
        for kernel in (w, v):
            x = jnp.tanh(gather(x @ kernel))
        return x @ head

    segments = lambda h: graphs.gather_sum(h[graphs.SENDERS])  # noqa: E731
    matrix = lambda h: jnp.asarray(near) @ h  # noqa: E731
    funs = [functools.partial(network, gather) for gather in (segments, matrix)]
    # the matrix is a dense layer, segments are added up without one
    return Twins(funs, normal(rng, graphs.NODES, graphs.WIDTH), same_sums=False)


@twins
def softmax_over_segments_and_axis(rng: np.random.Generator) -> Twins:
    """Two groups of two: the attention of a graph network, and that of a dense one."""
    w, v = normal(rng, 4, 3), normal(rng, 4, 3)
    segment = np.array([0, 0, 1, 1])

    def over_axis(s):
        return jax.nn.softmax(s.reshape(2, 2, 3), axis=1).reshape(4, 3)

    def over_segments(s):
        top = jax.lax.stop_gradient(jax.ops.segment_max(s, segment, 2))
        e = jnp.exp(s - top[segment])
        return e / jax.ops.segment_sum(e, segment, 2)[segment]

    funs = [lambda x, f=f: f(x @ w) * jnp.tanh(x @ v) for f in (over_axis, over_segments)]
    return Twins(funs, normal(rng, 4, 4))


@twins
def linear_recurrence_scanned_and_associative(rng: np.random.Generator) -> Twins:
    decay, b, c = (
        0.9 * jnp.exp(1j * jnp.arange(1.0, 4.0, dtype=complex)),
        normal(rng, 4, 3),
        normal(rng, 3, 3),
    )

    def combine(left, right):
        return left[0] * right[0], right[0] * left[1] + right[1]

    def associative(u):
        a = jnp.broadcast_to(decay, u.shape)
        return jax.lax.associative_scan(combine, (a, u.astype(a.dtype)), axis=1)[1]

    def scanned(u):
        def step(h, u):
            h = decay * h + u.astype(h.dtype)
            return h, h

        h = jnp.zeros((u.shape[0], 3), decay.dtype)
        return jax.lax.scan(step, h, u.swapaxes(0, 1))[1].swapaxes(0, 1)

    def network(states, x):
        return jnp.tanh(states(x @ b).real) @ c

    return Twins(
        [functools.partial(network, s) for s in (scanned, associative)], normal(rng, 2, 6, 4)
    )
