"""`attach`: a function whose derivative is LRP."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxlrp.composites import Composite
from jaxlrp.composites.given import as_composite
from jaxlrp.explanation.plan import CompositeLike, Plan, make_plan
from jaxlrp.network.arguments import Arguments
from jaxlrp.network.control_flow import Taps
from jaxlrp.network.discrete import raw
from jaxlrp.network.model import Function, Model, model_of
from jaxlrp.network.trace import trace
from jaxlrp.propagation.interpreter import Edits, interpret


def attach(
    fun: Function,
    composite: CompositeLike = None,
    *,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """The same function, with LRP as its derivative.

    Its output is that of `fun`, bit for bit where `fun` is evaluated eagerly. Its VJP is LRP in
    gradient form: for the cotangent g of a value a, `s(a) g` is the relevance of a, where s(a) is `a`
    nudged away from zero.

    Args:
      fun, composite, argnums, has_aux: as in `explain`.

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
    rules = composite if isinstance(composite, Plan) else as_composite(composite)
    return functools.partial(_attached, model_of(fun, argnums, has_aux), rules)


def _attached(model: Model, composite: Composite | Plan, /, *args: Any, **kwargs: Any) -> Any:
    return run(model, composite, args, kwargs)


def run(
    model: Model,
    composite: Composite | Plan,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    changes: Callable[[Sequence[str]], Edits] = lambda paths: {},
) -> Any:
    """What a function returns, evaluated with rules.

    Args:
      model: the function.
      composite: its rules.
      args, kwargs: its arguments.
      changes: from the paths of all layers to the functions that replace the outputs of some.
    """
    traced = trace(Arguments(model, args), kwargs)
    plan = make_plan(traced.network, composite)
    edits = changes(plan.paths)
    values = traced.arguments.values
    found, _ = interpret(traced.network, plan.rules_for(), values, Taps(), edits)
    outputs = list(map(raw, found))
    output = jax.tree.unflatten(traced.output_tree, outputs[: traced.n_outputs])
    if not model.has_aux:
        return output
    return output, jax.tree.unflatten(traced.aux_tree, outputs[traced.n_outputs :])
