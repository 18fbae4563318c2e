r"""K-FAC: the Fisher matrix of each dense layer as a Kronecker product.

    z = a W + b,   F ~ E[a~ a~^T] (x) E[delta delta^T],   a~ = (a, 1),   delta = d log p / d z

The layers are found in the traced function: a product with a matrix of parameters and the sum with a vector
of parameters that follows it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp import _compat
from jaxlrp._checks import check_at_least
from jaxlrp.errors import counted
from jaxlrp.network.graph import Graph, Op, evaluate, flatten
from jaxlrp.training_data import given
from jaxlrp.training_data.gradients import summed
from jaxlrp.training_data.solvers import Problem, Solver


@dataclasses.dataclass(frozen=True)
class KFAC(Solver):
    r"""The Fisher matrix in place of the Hessian, as one Kronecker product for each dense layer.

    (F + damping)^-1 is exact for these products, by their eigenvectors. Layers are independent of each
    other in this approximation. All parameters must be weights (2-D) and biases (1-D) of dense layers, each
    used once; pass the other parameters as constants of the loss.

    Attributes:
      damping: > 0, in the units of F.
      outcomes: (parameters, sample) -> log p(k) of all outcomes k, (K,), such as the log-softmax of
        logits: F is then the expectation over the outcomes that the model itself predicts. None: the
        gradients of the loss of the given labels are taken, the empirical Fisher matrix.
    """

    damping: float = 1e-3
    outcomes: Callable[[Any, Any], Array] | None = None

    def __post_init__(self) -> None:
        check_at_least("damping", self.damping, 0)
        if not float(self.damping) > 0:
            raise ValueError(f"damping must be > 0, got {self.damping!r}: F is singular")

    def solve(self, problem: Problem, gradients: Array) -> Array:
        """(F + damping)^-1 g for each row g of gradients, (T, P).

        Raises:
          ValueError: if there are several terms, a regularizer, or parameters other than those of dense
            layers.
        """
        if len(problem.terms) != 1 or problem.regularizer is not None:
            raise ValueError(
                "KFAC() takes one term and no regularizer, got "
                f"{counted(len(problem.terms), 'term')} and regularizer={problem.regularizer!r}: for a "
                "squared norm lam |W|^2, add 2 lam to damping"
            )
        ((name, term),) = problem.terms.items()
        outcomes = self.outcomes or (lambda params, one: -term.loss(params, one)[None])
        factors = _factors(outcomes, problem, term.samples, name)
        scale = float(term.weight)
        leaves = jax.tree.leaves(problem.params)
        places = np.cumsum([0, *(leaf.size for leaf in leaves)])
        parts: list[Any] = [
            gradients[:, i:j].reshape(-1, *leaf.shape)
            for i, j, leaf in zip(places[:-1], places[1:], leaves, strict=True)
        ]
        for dense, (a, s) in factors:
            rows = parts[dense.weight]
            rows = rows if dense.axis == 0 else rows.swapaxes(1, 2)
            if dense.bias is not None:
                rows = jnp.concatenate([rows, parts[dense.bias][:, None]], axis=1)
            rows = _divide(rows, a, scale * s, self.damping)
            if dense.bias is not None:
                rows, parts[dense.bias] = rows[:, :-1], rows[:, -1]
            parts[dense.weight] = rows if dense.axis == 0 else rows.swapaxes(1, 2)
        return jnp.concatenate([part.reshape(len(gradients), -1) for part in parts], axis=1)


@dataclasses.dataclass(frozen=True)
class _Dense:
    """A dense layer: its product, leaves of parameters, and the axis of the weight that is summed over."""

    op: Op
    weight: int
    bias: int | None
    operand: int  # which operand of the product is the weight
    axis: int


def _divide(rows: Array, a: Array, s: Array, damping: float) -> Array:
    """(A (x) S + damping)^-1 rows, (T, in, out)."""
    values, left = jnp.linalg.eigh(a)
    others, right = jnp.linalg.eigh(s)
    product = jnp.maximum(values, 0)[:, None] * jnp.maximum(others, 0) + damping
    inner = jnp.einsum("ji,tjk,kl->til", left, rows, right, precision="highest") / product
    return jnp.einsum("ij,tjk,lk->til", left, inner, right, precision="highest")


def _factors(outcomes: Callable, problem: Problem, samples: Any, name: str) -> list:
    """Each dense layer with its two factors, means over samples."""
    leaves, tree = jax.tree.flatten(problem.params)
    one = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], samples)
    given_one, sample_tree = jax.tree.flatten(one)
    n = len(leaves)

    def flat(*values: Array) -> Array:
        return outcomes(tree.unflatten(values[:n]), sample_tree.unflatten(values[n:]))

    closed, _ = _compat.make_jaxpr(flat, *leaves, *given_one)
    graph = flatten(*_compat.open_jaxpr(closed))
    layers = _dense_layers(graph, problem.params)
    shapes = [graph.avals[layer.op.outputs[0]] for layer in layers]

    def run(added: list[Array], sample: Any) -> tuple[Array, list[Array]]:
        env = dict(graph.constants)
        env.update(zip(graph.inputs, [*leaves, *jax.tree.leaves(sample)], strict=True))
        by_op = {layer.op: i for i, layer in enumerate(layers)}
        inputs: list[Any] = [None] * len(layers)
        for op in graph.ops:
            evaluate([op], env)
            if (i := by_op.get(op)) is not None:
                inputs[i] = env[op.inputs[1 - layers[i].operand]]
                env[op.outputs[0]] = env[op.outputs[0]] + added[i]
        return env[graph.outputs[0]], inputs

    def of_sample(sample: Any) -> list[tuple[Array, Array]]:
        zeros = [jnp.zeros(aval.shape, aval.dtype) for aval in shapes]
        logs, inputs = run(zeros, sample)
        deltas = jax.jacrev(lambda added: run(added, sample)[0])(zeros)
        p = jax.nn.softmax(logs)
        return [_outer(*each, p) for each in zip(layers, inputs, deltas, strict=True)]

    def of_batch(batch: Any) -> Any:
        return jax.tree.map(lambda a: a.sum(0), jax.vmap(of_sample)(batch))

    total = jax.jit(lambda samples: summed(of_batch, samples, problem.batch_size))(samples)
    count = given.count_of(name, samples)
    return [(layer, (a / count, s / count)) for layer, (a, s) in zip(layers, total, strict=True)]


def _outer(layer: _Dense, a: Array, delta: Array, p: Array) -> tuple[Array, Array]:
    """a~ a~^T, mean over positions, and sum_k p_k delta_k delta_k^T, sum over positions."""
    dims = layer.op.params["dimension_numbers"][0]
    a = jnp.moveaxis(a, dims[1 - layer.operand][0], -1)
    a = a.reshape(-1, a.shape[-1])
    delta = delta if layer.operand == 1 else jnp.moveaxis(delta, 1, -1)
    delta = delta.reshape(len(p), -1, delta.shape[-1])
    if layer.bias is not None:
        a = jnp.concatenate([a, jnp.ones((len(a), 1), a.dtype)], axis=1)
    return (
        jnp.matmul(a.T, a, precision="highest") / len(a),
        jnp.einsum("k,kpi,kpj->ij", p, delta, delta, precision="highest"),
    )


def _dense_layers(graph: Graph, params: Any) -> list[_Dense]:
    """The dense layers whose weights and biases are all parameters.

    Raises:
      ValueError: naming a parameter that belongs to none.
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    place = {value: i for i, value in enumerate(graph.inputs[: len(paths)])}
    found, taken = [], set[int]()
    for value, i in place.items():
        op = next(iter(graph.users.get(value, ())), None)
        if len(graph.shape(value)) != 2 or op is None or not _is_dense(graph, op, value):
            continue
        operand = op.inputs.index(value)
        bias = _bias(graph, op, place)
        found.append(_Dense(op, i, bias, operand, op.params["dimension_numbers"][0][operand][0]))
        taken |= {i} if bias is None else {i, bias}
    for i, (path, leaf) in enumerate(paths):
        if i not in taken:
            raise ValueError(
                "KFAC() takes weights and biases of dense layers, each used once, got the parameter "
                f"{jax.tree_util.keystr(path)} of shape {np.shape(leaf)}: make it a constant of the loss, "
                "or take Arnoldi()"
            )
    return found


def _is_dense(graph: Graph, op: Op, weight: int) -> bool:
    if op.primitive is not lax.dot_general_p or len(graph.users[weight]) != 1:
        return False
    contracted, batch = op.params["dimension_numbers"]
    return op.inputs[0] != op.inputs[1] and len(contracted[0]) == 1 and not batch[0]


def _bias(graph: Graph, op: Op, place: dict[int, int]) -> int | None:
    """The vector of parameters that is added to a product along its last axis."""
    users = graph.users.get(op.outputs[0], ())
    if len(users) != 1 or users[0].primitive is not lax.add_p:
        return None
    (other,) = (v for v in users[0].inputs if v != op.outputs[0])
    while other not in place and other in graph.producer:
        moved = graph.producer[other]
        if moved.primitive not in (lax.broadcast_in_dim_p, lax.reshape_p):
            return None
        (other,) = moved.inputs[:1]
    shape = graph.shape(op.outputs[0])
    if other in place and graph.shape(other) == shape[-1:] and len(graph.users[other]) == 1:
        return place[other]
    return None
