"""The ways in: `attach`, `explain`, `plan`."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat, targets
from jaxlrp.composites import Composite
from jaxlrp.errors import NonFiniteError, UnsupportedError, near
from jaxlrp.interpreter import Rules, interpret
from jaxlrp.layers import Layer
from jaxlrp.numerics import to_relevance
from jaxlrp.planning import Plan, make_plan
from jaxlrp.taps import Taps, blanks
from jaxlrp.trace import Source, Traced, source, trace


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
class Asked:
    """What `explain` was asked for: enough to say what its result depends on.

    Attributes:
      source: the function that is explained.
      composite: as it was given, None for the default.
      start: the layer at which relevance begins, None for the output.
    """

    source: Source
    composite: Composite | Plan | None
    start: str | None


def mark(
    explained: Callable[..., Explanation], argnums: Any, asked: Asked | None = None
) -> Callable[..., Explanation]:
    """Notes on a function which of its arguments it explains. `jit` and `vmap` keep the note."""
    explained.__dict__["__explains__"] = argnums
    explained.__dict__["__asked__"] = asked
    return explained


def asked(fun: Any) -> Asked | None:
    """What a function that explains was asked for, through `functools.partial`; None if not known."""
    if isinstance(fun, functools.partial):
        return asked(fun.func)
    return getattr(fun, "__asked__", None)


def explains(fun: Any) -> Any:
    """The `argnums` of a function that explains, through `functools.partial`; None of any other."""
    if isinstance(fun, functools.partial):
        argnums, bound = explains(fun.func), len(fun.args)
        return argnums - bound if isinstance(argnums, int) else argnums
    return getattr(fun, "__explains__", None) if callable(fun) else None


def attach(
    fun: Any,
    composite: Composite | Plan | None = None,
    *,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """The same function, with LRP as its derivative.

    Its output is that of `fun`, bit for bit where `fun` is evaluated eagerly. Its VJP is LRP in
    gradient form: for the cotangent g of a value a, `s(a) g` is the relevance of a, where s(a) is a
    kept off zero.

    Args:
      fun: a function of arrays, such as `model.apply` of a Linen module, or an NNX module.
      composite: the rules, a `Composite` or a `Plan`; `composites.default()` if None.
      argnums: the position of the explained argument, or several. What depends on it is a layer's
        input; all else is a parameter.
      has_aux: whether `fun` returns (output, auxiliary).

    Returns:
      A function of the arguments of `fun`.

    Raises:
      TypeError: if an argument is of a wrong type.

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> w = jnp.array([[2.0, -1.0], [1.0, 3.0]])
      >>> f = lrp.attach(lambda x: jax.nn.relu(x @ w).sum())
      >>> x = jnp.array([1.0, 2.0])
      >>> int(f(x)), jnp.rint(x * jax.grad(f)(x)).astype(int).tolist()
      (9, [1, 8])
    """
    held = source(fun, argnums, has_aux)

    def attached(*args: Any, **kwargs: Any) -> Any:
        traced = trace(held, args, kwargs)
        planned = make_plan(traced.network, composite)
        rules = Rules.planned(planned)
        outputs, _ = interpret(traced.network, rules, traced.values, Taps())
        return _unflatten(traced, outputs, has_aux)

    return attached


def plan(
    fun: Any,
    composite: Composite | Plan | None = None,
    *args: Any,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    **kwargs: Any,
) -> Plan:
    """What will happen: every layer of a function and its rule. Computes nothing.

    Args:
      fun, composite, has_aux: as in `attach`.
      *args, **kwargs: arguments of `fun`, arrays or `jax.ShapeDtypeStruct`s.
      argnums: as in `attach`; by default the last positional argument.

    Returns:
      A `Plan`: print it, edit it, pass it to `attach` or `explain` in place of the composite.
    """
    if not args:
        raise TypeError(
            "plan(fun, composite, *args) got no arguments of the function: the second argument is the "
            "composite, None for the default"
        )
    held = source(fun, len(args) - 1 if argnums is None else argnums, has_aux)
    found: list[Plan] = []

    def look(*args: Any) -> None:
        found.append(make_plan(trace(held, args, kwargs).network, composite))

    leaves, tree = jax.tree.flatten(args)
    dynamic = [i for i, leaf in enumerate(leaves) if hasattr(leaf, "shape")]

    def abstract(*values: Any) -> None:
        merged = list(leaves)
        for i, value in zip(dynamic, values, strict=True):
            merged[i] = value
        look(*jax.tree.unflatten(tree, merged))

    jax.eval_shape(abstract, *(leaves[i] for i in dynamic))
    return found[0]


def explain(
    fun: Any,
    composite: Composite | Plan | None = None,
    *,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    record: str | Iterable[str] = (),
    start: str | None = None,
    parameters: int | Sequence[int] = (),
    debug: bool = False,
) -> Callable[..., Explanation]:
    """A function that explains `fun`.

    Args:
      fun, composite, argnums, has_aux: as in `attach`.
      record: paths or shell patterns of layers whose relevance and activation are given back.
      start: the path of a layer at whose output relevance begins; `target` then speaks of it.
      parameters: positions of arguments whose own relevance is given back, `R_w = w g_w`.
      debug: look for NaN and infinity in arguments, activations and relevances, and raise with the
        name of the first layer. Not under `jit`.

    Returns:
      A function `(*args, target=None, condition=None, **kwargs) -> Explanation`. Positional and
      keyword arguments are those of `fun`. `target` says which relevance the output begins with:

      * an int, or integers of the shape of the output less its last axis: that logit's own value;
      * an array of the output's shape (or a pytree like the output): that relevance;
      * a function from the output to such an array;
      * `targets.predicted`, `targets.Contrast(a, b)`, `targets.LogOdds(c)`;
      * None, if the output has one value per example: that value.

      `condition` is a dictionary from layer paths to arrays that broadcast to the layer's output:
      the relevance there is multiplied by them.

    Raises:
      TypeError, ValueError, IndexError: saying which argument is wrong, and how to mend it.
      UnsupportedError: naming the operation, module path and source line that it cannot explain.

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> w = jnp.array([[2.0, -1.0], [1.0, 3.0]])
      >>> result = lrp.explain(lambda x: x @ w)(jnp.array([1.0, 2.0]), target=1)
      >>> jnp.rint(result.relevance).astype(int).tolist()
      [-1, 6]
    """
    held = source(fun, argnums, has_aux)
    patterns = (record,) if isinstance(record, str) else tuple(record)
    positions = (parameters,) if isinstance(parameters, int) else tuple(parameters)

    def explained(
        *args: Any, target: Any = None, condition: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Explanation:
        traced = trace(held, args, kwargs)
        planned = make_plan(traced.network, composite)
        setup = _Setup(held, traced, planned, patterns, start, positions, args)
        result = setup.run(target, condition or {})
        if debug:
            _check_finite(held, planned, args, kwargs, target, condition)
        return result

    return mark(explained, argnums, Asked(held, composite, start))


@dataclasses.dataclass(frozen=True, eq=False)
class _Setup:
    """One explanation: what is traced, what is planned, what is asked for."""

    source: Source
    traced: Traced
    plan: Plan
    patterns: tuple[str, ...]
    start: str | None
    parameters: tuple[int, ...]
    args: tuple[Any, ...]

    def run(self, target: Any, condition: Mapping[str, Any]) -> Explanation:
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
        return g if self.plan.readout == "gradient" else to_relevance(a, g).astype(_real(a))

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
        return relevance.sum(axis=tuple(range(tokens.ndim, relevance.ndim)))

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


def _unflatten(traced: Traced, outputs: list[Any], has_aux: bool) -> Any:
    output = jax.tree.unflatten(traced.output_tree, outputs[: traced.n_outputs])
    if not has_aux:
        return output
    return output, jax.tree.unflatten(traced.aux_tree, outputs[traced.n_outputs :])


def _check_finite(
    held: Source, planned: Plan, args: tuple, kwargs: dict, target: Any, condition: Any
) -> None:
    """Raises at the first layer whose activation or relevance is not finite.

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
    setup = _Setup(held, traced, planned, paths, None, (), args)
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
