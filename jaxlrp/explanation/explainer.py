"""The ways in: `explain`, `plan` and `ledger`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp._checks import check_flag
from jaxlrp.composites import Composite
from jaxlrp.composites.given import as_composite
from jaxlrp.explanation.base import BaseExplainer, Request, all_kwargs, request_of
from jaxlrp.explanation.boxes import Boxes, boxes_of
from jaxlrp.explanation.compiled import Programs, key_of_value
from jaxlrp.explanation.debug import check_finite
from jaxlrp.explanation.ledger import Ledger, compute_ledger
from jaxlrp.explanation.patterns import as_conditions, as_patterns
from jaxlrp.explanation.plan import CompositeLike, Plan, make_plan
from jaxlrp.explanation.probability import probability_note
from jaxlrp.explanation.pullback import Pullback
from jaxlrp.explanation.relevance_pass import RelevancePass
from jaxlrp.explanation.result import Explanation
from jaxlrp.network.arguments import Arguments
from jaxlrp.network.foreign import as_jax
from jaxlrp.network.model import Function, Model, model_of, positions_of
from jaxlrp.network.trace import trace
from jaxlrp.targets import Target


@dataclasses.dataclass(frozen=True, eq=False, repr=False, slots=True, weakref_slot=True)
class Explainer(BaseExplainer):
    """A function that explains another one; `lrp.explain` makes it.

    It may be `jit`ted, `vmap`ped and differentiated. Called with concrete arrays it compiles itself.

    Attributes:
      model: the function that is explained, and the position of the explained argument.
      composite: which rule each layer gets, a `Composite` or a `Plan`.
      record: paths or shell patterns of layers whose relevance and activation are returned.
      start: the layer at which relevance begins, None for the output.
      parameters: positions of arguments whose own relevance is returned.
      debug: whether all values are checked for NaN and infinity.
      jit: whether eager calls are compiled.
    """

    model: Model
    composite: Composite | Plan
    record: tuple[str, ...] = ()
    start: str | None = None
    parameters: tuple[int, ...] = ()
    debug: bool = False
    jit: bool = True
    _programs: Programs = dataclasses.field(default_factory=Programs)

    @property
    def underlying(self) -> Explainer:
        """This explainer."""
        return self

    @property
    def conserves(self) -> bool:
        """Whether it begins at the output and reads relevance rather than gradients."""
        return self.start is None and self.composite.readout == "relevance"

    def __repr__(self) -> str:
        rules = "an edited plan" if isinstance(self.composite, Plan) else self.composite.name
        shown = [self.model.name, rules or "a composite", f"argnums={self.argnums}"]
        for name in ("has_aux", "record", "start", "parameters", "debug"):
            if value := getattr(self, name):
                shown.append(f"{name}={value!r}")
        if not self.jit and not self.debug:
            shown.append("jit=False")
        return f"Explainer({', '.join(shown)})"

    def __call__(
        self,
        *args: Any,
        target: Target = None,
        condition: Mapping[str, ArrayLike] | None = None,
        fun_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Explanation:
        """Explains the function at these arguments; see `jaxlrp.explain`."""
        options = {"condition": as_conditions(condition)}
        request = request_of(args, kwargs, fun_kwargs, target, options)
        result, boxes = self._call("explain", self._explain, request, self.parameters)
        if boxes.each and _compat.is_eager():
            given = Arguments(self.model, request.args, self.parameters)
            boxes.warn(given.values, stacklevel=2)
        return result

    def replace(self, **changes: Any) -> Explainer:
        """The same explainer with other attributes, such as `record` or `start`.

        Args:
          **changes: attributes and their new values.
        """
        return dataclasses.replace(self, **changes, _programs=Programs())

    def vjp(
        self,
        *args: Any,
        condition: str | Iterable[str] = (),
        fun_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Pullback:
        """One forward pass, kept for any number of explanations, as `jax.vjp` keeps one for cotangents.

        Args:
          *args, **kwargs, fun_kwargs: the arguments of the function, as for explaining it.
          condition: paths or shell patterns of the layers on whose relevance later calls may put
            conditions.

        Returns:
          A `Pullback`, a function `(*, target=None, condition=None) -> Explanation`, with the output of
          the function and the activations of the recorded layers.

        Raises:
          As `jaxlrp.explain`.

        Example:
          >>> import jax.numpy as jnp, jaxlrp as lrp
          >>> w = jnp.array([[2.0, -1.0], [1.0, 3.0]])
          >>> pullback = lrp.explain(lambda x: x @ w).vjp(jnp.array([1.0, 2.0]))
          >>> [jnp.rint(pullback(target=c).relevance).astype(int).tolist() for c in (0, 1)]
          [[2, 2], [-1, 6]]
        """
        options = {"layers": as_patterns("condition", condition)}
        request = request_of(args, kwargs, fun_kwargs, None, options)
        return self._call("vjp", self._vjp, request, self.parameters)

    def plan(self, *args: Any, fun_kwargs: Mapping[str, Any] | None = None, **kwargs: Any) -> Plan:
        """Every layer of the function and its rule; computes nothing. See `jaxlrp.plan`."""
        args, kwargs = jax.tree.map(as_jax, (args, all_kwargs(kwargs, fun_kwargs)))
        traced = trace(Arguments(self.model, args, self.parameters), kwargs)
        plan = make_plan(traced.network, self.composite)
        return dataclasses.replace(plan, note=probability_note(traced))

    def ledger(
        self,
        *args: Any,
        target: Target = None,
        zero_bias: bool = False,
        fun_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Ledger:
        """Where relevance is absorbed, layer by layer and between layers. See `jaxlrp.ledger`."""
        if self.start is not None:
            raise ValueError(
                f"a ledger begins at the output, but this explainer has start={self.start!r}: make one "
                "without start"
            )
        check_flag("zero_bias", zero_bias)
        options = {"zero_bias": zero_bias}
        request = request_of(args, kwargs, fun_kwargs, target, options)
        return self._call("ledger", self._ledger, request)

    def _explain(self, request: Request) -> tuple[tuple[Explanation, Boxes], Any]:
        traced = trace(Arguments(self.model, request.args, self.parameters), request.kwargs)
        plan = make_plan(traced.network, self.composite)
        condition = request.options["condition"]
        run = RelevancePass(traced, plan, self.record, self.start)
        result, begun = run.run(request.target, condition)
        if self.debug:
            gains = check_finite(traced, plan, self.start, request.target, condition)
            result = dataclasses.replace(result, gains=gains)
        return (result, boxes_of(traced, plan)), begun

    def _vjp(self, request: Request) -> tuple[Pullback, Any]:
        traced = trace(Arguments(self.model, request.args, self.parameters), request.kwargs)
        run = RelevancePass(
            traced, make_plan(traced.network, self.composite), self.record, self.start
        )
        programs = self._programs if self.jit else None
        return run.forward(request.options["layers"], programs), None

    def _ledger(self, request: Request) -> tuple[Ledger, Any]:
        traced = trace(Arguments(self.model, request.args), request.kwargs)
        plan = make_plan(traced.network, self.composite)
        return compute_ledger(traced, plan, request.target, request.options["zero_bias"])


def explain(
    fun: Function,
    composite: CompositeLike = None,
    *,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    record: str | Iterable[str] = (),
    start: str | None = None,
    parameters: int | Sequence[int] = (),
    debug: bool = False,
    jit: bool = True,
) -> Explainer:
    """A function that explains `fun`.

    Args:
      fun: a function of arrays; a Linen module or its `apply`; or an NNX module, whose state is read
        once, here.
      composite: which rule each layer gets: a `Composite`, a preset or its name ("epsilon_plus"), a
        `Plan`, one `Rule` for all layers that it applies to, a function from a `Layer` to its rule
        (None: the default rule of its kind), or a list of these, of which the first that has a rule for
        a layer decides; by default `composites.default()`.
      argnums: the position of the explained argument, or several. Values computed from it
        are inputs of layers; all other values, other arguments included, are parameters. By default the
        first argument; for a Linen module and its `apply` the first after the variables.
      has_aux: whether `fun` returns (output, auxiliary).
      record: paths or shell patterns of layers whose relevance and activation are returned.
      start: the path, or a pattern for it, of one layer at whose output relevance begins; `target`
        then refers to that output.
      parameters: positions of arguments whose own relevance is returned, `R_w = w g_w`.
      debug: look for NaN and infinity in arguments, activations and relevances, and raise with the
        name of the first layer; report the gain of each layer, and warn where relevance grows a
        hundredfold. Not under `jit`.
      jit: compile calls with concrete arrays, outside any transformation. The last 32 programs are kept;
        there is one for each structure, shapes, dtypes and values of what is not an array (numbers in
        arguments that are not explained, booleans, strings). As with `jax.jit`, `fun` is traced once
        for each: later changes of other state that it captures are not seen. False, and `debug`:
        evaluate each operation on its own, as is done for a function that cannot be traced because it
        branches on values.

    Returns:
      An `Explainer`, a function `(*args, target=None, condition=None, **kwargs) -> Explanation` with
      the methods `plan(*args, **kwargs)` and `ledger(*args, target=None, **kwargs)`. Positional and
      keyword arguments are those of `fun`; `fun_kwargs={"target": ...}` passes keyword arguments of
      `fun` whose names the explainer uses itself. `target` chooses the initial relevance:

      * a class index, or one for each example (the shape of the output without its last axis; an array or
        a list): the value of that logit;
      * an array of the output's shape (or a pytree like the output): that relevance;
      * a function from the output to such an array;
      * `targets.predicted`, `targets.Contrast(a, b)`, `targets.LogOdds(c)`, `targets.Region(c, mask)`;
      * None, if the output has one value per example: that value;
      * of an output that is a pytree, a pytree of the same structure with one of these for each
        array, and None where no relevance begins; keys of a dictionary may be left out.

      `condition` is a dictionary from paths or shell patterns of layers to arrays that broadcast to
      the layer's output: the relevance there is multiplied by them. An exact path takes
      precedence over patterns. Two patterns must not match the same layer.

    Raises:
      TypeError, ValueError, IndexError: naming the argument that is wrong, and how to fix it.
      UnsupportedError: naming the operation, module path and source line that it cannot explain.

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> w = jnp.array([[2.0, -1.0], [1.0, 3.0]])
      >>> result = lrp.explain(lambda x: x @ w)(jnp.array([1.0, 2.0]), target=1)
      >>> jnp.rint(result.relevance).astype(int).tolist()
      [-1, 6]
    """
    if not isinstance(start, str | None):
        raise TypeError(f"start must be the path of a layer (a string) or None, got {start!r}")
    check_flag("debug", debug)
    check_flag("jit", jit)
    return Explainer(
        model=model_of(fun, argnums, has_aux),
        composite=composite if isinstance(composite, Plan) else as_composite(composite),
        record=as_patterns("record", record),
        start=start,
        parameters=positions_of(
            "parameters", "the position of an argument of the function", parameters, least=0
        ),
        debug=debug,
        jit=jit and not debug,
    )


def plan(
    fun: Function,
    composite: CompositeLike = None,
    /,
    *args: Any,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    fun_kwargs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Plan:
    """Every layer of a function and its rule. Computes nothing.

    Args:
      fun, composite, argnums, has_aux: as in `explain`.
      *args, **kwargs: arguments of `fun`; the positional ones arrays or `jax.ShapeDtypeStruct`s.
      fun_kwargs: keyword arguments of `fun` whose names are used here.

    Returns:
      A `Plan`: print it, edit it, pass it to `attach` or `explain` in place of the composite.

    Raises:
      As `explain`.

    Example:
      >>> import jax, jax.numpy as jnp, jaxlrp as lrp
      >>> w = jnp.array([[2.0, -1.0], [1.0, 3.0]])
      >>> lrp.plan(lambda x: jax.nn.relu(x @ w), lrp.Epsilon(), jnp.ones(2)).paths
      ('dot_general', 'relu')
    """
    if not args:
        raise TypeError(
            "plan(fun, composite, *args) got no arguments of the function: the second argument is the "
            "composite, None for the default"
        )
    explainer = explain(fun, composite, argnums=argnums, has_aux=has_aux)
    return explainer.plan(*args, fun_kwargs=fun_kwargs, **kwargs)


_LEDGERS = Programs(
    holds_arrays=False
)  # of the function `ledger`, whose explainers live for one call


def ledger(
    fun: Function,
    composite: CompositeLike = None,
    /,
    *args: Any,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    target: Target = None,
    zero_bias: bool = False,
    jit: bool = True,
    fun_kwargs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Ledger:
    """Where relevance is absorbed, layer by layer and between layers.

    Args:
      fun, composite, argnums, has_aux: as in `explain`.
      jit: as in `explain`: compile a call with concrete arrays. The last 32 programs of functions that
        read no arrays but their arguments are kept. For any other function, and for an NNX module, make
        an explainer and call its method `ledger`: each call here compiles again.
      *args, **kwargs: arguments of `fun`.
      target: as in `explain`; without it the whole output is the initial relevance.
      zero_bias: give biases and added constants no relevance. What layers then absorb is due to
        stabilizers and rules alone. This makes sense where no sum nearly cancels without its bias: for
        rules that weigh by sign (z+, alpha-beta), or networks whose biases are small. With LRP-0,
        epsilon and gamma, networks with folded BatchNorm explode: `warning` names the layer.
      fun_kwargs: keyword arguments of `fun` whose names are used here.

    Returns:
      A `Ledger`. Runs under `jit` too.

    Raises:
      As `explain`.

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> w, b = jnp.array([[2.0, -1.0], [1.0, 3.0]]), jnp.array([1.0, 0.0])
      >>> found = lrp.ledger(lambda x: x @ w + b, None, jnp.array([1.0, 2.0]))
      >>> float(found.output), round(float(found.input), 3)
      (10.0, 9.0)
    """
    if not args:
        raise TypeError(
            "ledger(fun, composite, *args) got no arguments of the function: the second argument is "
            "the composite, None for the default"
        )
    explainer = explain(fun, composite, argnums=argnums, has_aux=has_aux, jit=jit)
    if explainer.model.state is None:
        with contextlib.suppress(TypeError):
            owner = key_of_value(
                (explainer.model.call, explainer.composite, explainer.argnums, has_aux)
            )
            explainer = dataclasses.replace(explainer, _programs=_LEDGERS.of(owner))
    return explainer.ledger(
        *args, target=target, zero_bias=zero_bias, fun_kwargs=fun_kwargs, **kwargs
    )
