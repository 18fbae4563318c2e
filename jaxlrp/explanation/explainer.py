"""The ways in: `attach`, `explain`, `plan`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

from jaxlrp import _compat
from jaxlrp.composites import Composite
from jaxlrp.explanation.attribution import Attribution, Explanation, check_finite
from jaxlrp.explanation.plan import Plan, make_plan
from jaxlrp.network.control_flow import Taps
from jaxlrp.network.discrete import raw
from jaxlrp.network.trace import Source, Traced, source, trace
from jaxlrp.propagation.interpreter import Rules, interpret


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
        return _unflatten(traced, list(map(raw, outputs)), has_aux)

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
        name of the first layer; report the gain of each layer, and warn where relevance grows a
        hundredfold. Not under `jit`.

    Returns:
      A function `(*args, target=None, condition=None, **kwargs) -> Explanation`. Positional and
      keyword arguments are those of `fun`. `target` says which relevance the output begins with:

      * an int, or integers of the shape of the output less its last axis: that logit's own value;
      * an array of the output's shape (or a pytree like the output): that relevance;
      * a function from the output to such an array;
      * `targets.predicted`, `targets.Contrast(a, b)`, `targets.LogOdds(c)`;
      * None, if the output has one value per example: that value;
      * of an output that is a pytree, a pytree of the same structure with one of these for each
        array, and None where no relevance begins.

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
        with _compat.on_mesh_of((held.state, args, kwargs)):
            traced = trace(held, args, kwargs, positions)
            planned = make_plan(traced.network, composite)
            setup = Attribution(held, traced, planned, patterns, start, positions, args)
            result = setup.run(target, condition or {})
            if debug:
                gains = check_finite(held, planned, args, kwargs, target, condition)
                result = dataclasses.replace(result, gains=gains)
            return result

    return mark(explained, argnums, Asked(held, composite, start))


def _unflatten(traced: Traced, outputs: list[Any], has_aux: bool) -> Any:
    output = jax.tree.unflatten(traced.output_tree, outputs[: traced.n_outputs])
    if not has_aux:
        return output
    return output, jax.tree.unflatten(traced.aux_tree, outputs[traced.n_outputs :])
