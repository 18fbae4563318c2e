"""One explanation: relevance from a target to the input, and to what else was asked for."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat, targets
from jaxlrp.errors import NonFiniteError, UnsupportedError, near
from jaxlrp.interpreter import Rules, interpret
from jaxlrp.layers import Layer
from jaxlrp.numerics import to_relevance
from jaxlrp.planning import Plan
from jaxlrp.taps import Taps, blanks
from jaxlrp.trace import Source, Traced, trace


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Record:
    """What was recorded at a layer's output.

    Attributes:
      relevance: of the output, same shape; layers inside a scan have its length as leading axis.
      activation: the output itself.
    """

    relevance: Array
    activation: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Explanation:
    """What an explanation gives.

    Attributes:
      output: of the function.
      relevance: of the explained argument, of its structure and shapes; of an integer input, one
        number for each token. A tuple where `argnums` is one.
      aux: the auxiliary output, with `has_aux`.
      records: what `record=` asked for, by layer path.
      parameters: with `parameters=`, the relevance of those arguments, of their structure.
    """

    output: Any
    relevance: Any
    aux: Any = None
    records: dict[str, Record] = dataclasses.field(default_factory=dict)
    parameters: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
    """One explanation: what is traced, what is planned, what is asked for.

    Attributes:
      source, traced, plan: the function, its trace, the rule of each layer.
      patterns: `record=` of `explain`; paths or shell patterns.
      start: the path of the layer at which relevance begins, None for the output.
      parameters: positions of arguments whose own relevance is asked for.
      args: the positional arguments.
    """

    source: Source
    traced: Traced
    plan: Plan
    patterns: tuple[str, ...]
    start: str | None
    parameters: tuple[int, ...]
    args: tuple[Any, ...]

    def run(self, target: Any, condition: Mapping[str, Any]) -> Explanation:
        """One forward pass and one pass of relevance; see `explain` for target and condition."""
        traced = self.traced
        embeddings = self._embeddings()
        self._check_depends()
        recorded = self._recorded()
        masks = {path: self._mask(path, m) for path, m in condition.items()}
        floats = [n for n in traced.explained if jnp.issubdtype(_dtype(traced, n), jnp.inexact)]
        weights = self._parameter_values()
        tapped = dict.fromkeys([*recorded, *(layer.path for layer in embeddings)])
        if self.start is not None:
            tapped[self._known(self.start)] = None
        blank = blanks(traced.network)
        deltas = {path: blank[path].output for path in tapped}
        rules = Rules.planned(self.plan, self.start)

        def forward(variables: dict[str, Any]) -> tuple[Any, Any]:
            values = list(traced.values)
            for n, value in (variables["explained"] | variables["parameters"]).items():
                values[n] = value
            taps = Taps(outputs=variables["taps"], masks=masks)
            outputs, activations = interpret(traced.network, rules, values, taps)
            output = jax.tree.unflatten(traced.output_tree, outputs[: traced.n_outputs])
            held = activations.outputs
            rest = (output, outputs[traced.n_outputs :], held)
            return (output if self.start is None else held[self.start]), rest

        variables = {
            "explained": {n: traced.values[n] for n in floats},
            "parameters": {n: traced.values[n] for n in weights},
            "taps": deltas,
        }
        begun, pull, (output, aux, activations) = jax.vjp(forward, variables, has_aux=True)
        (g,) = pull(targets.initial(begun, target, self.plan.readout))
        return Explanation(
            output=output,
            relevance=self._relevance(g, embeddings, activations),
            aux=None if traced.aux_tree is None else jax.tree.unflatten(traced.aux_tree, aux),
            records={
                path: Record(self._read(activations[path], g["taps"][path]), activations[path])
                for path in recorded
            },
            parameters=self._parameter_relevance(g["parameters"]),
        )

    def _read(self, a: Array, g: Array) -> Array:
        if self.plan.readout == "gradient":
            return g

        def read(a: Array, g: Array) -> Array:
            return to_relevance(a, g).astype(_real(a))

        return _compat.placed_as(_compat.freely(read, jnp.asarray(a), g), a)

    def _relevance(self, g: Any, embeddings: list[Layer], activations: Mapping[str, Array]) -> Any:
        traced = self.traced
        found: list[Array] = []
        for n in traced.explained:
            if n in g["explained"]:
                found.append(self._read(traced.values[n], g["explained"][n]))
                continue
            token = traced.network.graph.inputs[n]
            parts = [
                self._per_token(layer, traced.values[n], activations, g)
                for layer in embeddings
                if traced.network.roots[layer.output] == token
            ]
            found.append(sum(parts[1:], parts[0]))
        relevance = jax.tree.unflatten(traced.argument_tree, found)
        return relevance[0] if self.source.single else relevance

    def _per_token(
        self, layer: Layer, tokens: Array, activations: Mapping[str, Array], g: Any
    ) -> Array:
        relevance = self._read(activations[layer.path], g["taps"][layer.path])
        if relevance.shape[: tokens.ndim] != tokens.shape:
            raise UnsupportedError(
                f"the embedding at {layer.path!r} has shape {relevance.shape}, which does not begin "
                f"with that of the integer input, {tokens.shape}: explain the function of the "
                "embedded input instead"
            )
        axes = tuple(range(tokens.ndim, relevance.ndim))
        return _compat.placed_as(_compat.freely(lambda r: r.sum(axis=axes), relevance), tokens)

    def _embeddings(self) -> list[Layer]:
        traced = self.traced
        layers = [la for la in traced.network.layers() if la.kind == "embedding"]
        reached = {traced.network.roots[layer.output] for layer in layers}
        for n in traced.explained:
            value = traced.network.graph.inputs[n]
            if not jnp.issubdtype(_dtype(traced, n), jnp.inexact) and value not in reached:
                raise TypeError(
                    f"the explained argument has dtype {_dtype(traced, n)} and is looked up in no "
                    "embedding: relevance needs a floating-point input; pass x.astype('float32')"
                )
        return layers

    def _check_depends(self) -> None:
        network = self.traced.network
        if not any(v in network.live for v in network.graph.outputs[: self.traced.n_outputs]):
            raise ValueError(
                f"the output does not depend on the explained argument (argnums="
                f"{self.source.argnums}): name the argument that holds the input"
            )

    def _known(self, path: str) -> str:
        paths = self.plan.paths
        if path not in paths:
            raise ValueError(f"there is no layer {path!r}: {near(path, paths)}")
        return path

    def _recorded(self) -> list[str]:
        found: dict[str, None] = {}
        for pattern in self.patterns:
            paths = self.plan.paths
            matched = [p for p in paths if p == pattern or fnmatch.fnmatchcase(p, pattern)]
            if not matched:
                raise ValueError(
                    f"record={pattern!r} matches no layer: {near(pattern, self.plan.paths)}"
                )
            found.update(dict.fromkeys(map(self._known, matched)))
        return list(found)

    def _mask(self, path: str, mask: Any) -> Array:
        shape = blanks(self.traced.network)[self._known(path)].shape
        mask = jnp.asarray(mask)
        try:
            fits = jnp.broadcast_shapes(mask.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"condition[{path!r}] must broadcast to the output of that layer, of shape {shape}, got "
                f"shape {mask.shape}"
            )
        return jnp.broadcast_to(mask, shape)

    def _parameter_values(self) -> list[int]:
        """Which traced values are parameters whose relevance is asked for."""
        starts, n = [], len(jax.tree.leaves(self.source.state))
        for arg in self.args:
            size = sum(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(arg))
            starts.append(range(n, n + size))
            n += size
        if not self.parameters:
            return []
        for rule, row in zip(self.plan.rules, self.plan.rows, strict=True):
            if row.kind in ("dense", "conv") and not rule.splits_parameters:
                raise ValueError(
                    f"parameters={self.parameters} asks for the relevance of parameters, of which the "
                    f"rule {rule!r} at {row.path!r} says nothing"
                )
        wanted = [n for i in self.parameters for n in starts[i]]
        return [n for n in wanted if jnp.issubdtype(_dtype(self.traced, n), jnp.inexact)]

    def _parameter_relevance(self, g: Mapping[int, Array]) -> Any:
        if not self.parameters:
            return None
        n = len(jax.tree.leaves(self.source.state))
        found = []
        for i, arg in enumerate(self.args):
            leaves, tree = jax.tree.flatten(arg)
            read = []
            for leaf in leaves:
                if not hasattr(leaf, "dtype"):
                    read.append(leaf)
                    continue
                read.append(leaf * g[n] if n in g else jnp.zeros(jnp.shape(leaf)))
                n += 1
            if i in self.parameters:
                found.append(jax.tree.unflatten(tree, read))
        return found[0] if len(found) == 1 else tuple(found)


def _dtype(traced: Traced, n: int) -> Any:
    return jnp.result_type(traced.values[n])


def _real(a: Array) -> Any:
    return jnp.real(a).dtype


def check_finite(
    held: Source, planned: Plan, args: tuple, kwargs: dict, target: Any, condition: Any
) -> None:
    """Raises at the first layer whose activation or relevance is not finite. For `debug=True`.

    Raises:
      NonFiniteError: naming the layer.
      TypeError: under `jit`, where values cannot be looked at.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(args):
        if _compat.is_traced(leaf):
            raise TypeError("debug=True looks at values and cannot run under jit: call it outside")
        if hasattr(leaf, "dtype") and not _is_finite(leaf):
            raise NonFiniteError(f"argument{jax.tree_util.keystr(path)} holds NaN or infinity")
    traced = trace(held, args, kwargs)
    paths = planned.paths
    setup = Attribution(held, traced, planned, paths, None, (), args)
    result = setup.run(target, condition or {})
    records = result.records
    for path in paths:
        if not _is_finite(records[path].activation):
            raise NonFiniteError(f"the output of layer {path!r} is the first with NaN or infinity")
    for path in reversed(paths):
        if not _is_finite(records[path].relevance):
            raise NonFiniteError(
                f"the relevance at the output of layer {path!r} is the first, from the output on, "
                f"with NaN or infinity; the layers behind it have {planned[path]!r} and the like: a "
                "stabiliser of zero, or an initial relevance that is not finite?"
            )
    if not all(map(_is_finite, jax.tree.leaves(result.relevance))):
        raise NonFiniteError(
            "the relevance of the explained argument holds NaN or infinity, though that of every "
            f"layer's output is finite: it is made by the first layer, {paths[0]!r} with "
            f"{planned[paths[0]]!r}"
        )


def _is_finite(a: Any) -> bool:
    a = jnp.asarray(a)
    return not jnp.issubdtype(a.dtype, jnp.inexact) or bool(jnp.all(jnp.isfinite(a)))
