"""What all explainers have in common: which argument they explain, and compiled eager calls."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp import _compat
from jaxlrp._checks import is_number
from jaxlrp.explanation import initial_relevance
from jaxlrp.explanation.compiled import Programs
from jaxlrp.network.foreign import as_jax
from jaxlrp.network.model import Model
from jaxlrp.targets import Target


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """One call of an explainer.

    Attributes:
      args, kwargs: the arguments of the function.
      target: which relevance the output begins with.
      options: by name, other arguments of the explainer.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    target: Target = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


class BaseExplainer(abc.ABC):
    """A function of a model's arguments that gives an `Explanation`.

    Attributes:
      model: the function that is explained, and the position of the explained argument.
      jit: whether a call with concrete arrays, outside any transformation, is compiled.
    """

    __slots__ = ()
    model: Model
    jit: bool
    _programs: Programs

    @abc.abstractmethod
    def _explain(self, request: Request) -> tuple[Any, Any]:
        """The explanation, perhaps with what it is checked by, and the values at which relevance begins."""

    @property
    def argnums(self) -> int | tuple[int, ...]:
        """The position of the explained argument, or several."""
        return self.model.argnums[0] if self.model.single else self.model.argnums

    @property
    def has_aux(self) -> bool:
        """Whether the function returns (output, auxiliary)."""
        return self.model.has_aux

    @property
    def underlying(self) -> BaseExplainer | None:
        """The result of `jaxlrp.explain` on which this builds, itself if it is one; None for a baseline."""
        return None

    @property
    def conserves(self) -> bool:
        """Whether the relevance that is given back should add up to that of the output."""
        return True

    @property
    def __name__(self) -> str:
        return f"explain_{self.model.name}"

    def _call(
        self,
        what: str,
        fun: Callable[[Request], tuple[Any, Any]],
        request: Request,
        numbers: tuple[int, ...] = (),
        check: Callable[[Any], None] | None = None,
    ) -> Any:
        """The first result of `fun(request)`: compiled if it is called eagerly.

        Args:
          what: tells apart the functions of this explainer.
          fun: to (a result, the values at which relevance begins).
          request: the call.
          numbers: positions of arguments besides the explained ones in which numbers are traced.
          check: of the shapes of the second result, before anything is computed; by default whether
            the target is in range.
        """
        initial_relevance.check_type(request.target)
        self.model.check_given(request.args)  # before a list of numbers becomes one of arrays
        with _compat.on_mesh_of((self.model.state, request)):
            if self.jit and _compat.is_eager():
                check = check or functools.partial(
                    initial_relevance.check_range, target=request.target
                )
                traced = _as_arrays(request, {*self.model.argnums, *numbers})
                return self._programs.run(what, fun, traced, check)
            with _naming_static(request):
                return fun(request)[0]


def find_explainer(fun: Any) -> tuple[BaseExplainer, int] | None:
    """The explainer inside a function, and how many positional arguments are bound before the call.

    It looks through `functools.partial` and through transformations such as `jax.jit` and `jax.vmap`.
    None for any other function.
    """
    bound = 0
    while True:
        if isinstance(fun, BaseExplainer):
            return fun, bound
        if isinstance(fun, functools.partial):
            bound += len(fun.args)
            fun = fun.func
        elif callable(getattr(fun, "__wrapped__", None)):
            fun = fun.__wrapped__
        else:
            return None


def all_kwargs(kwargs: Mapping[str, Any], fun_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The function's keyword arguments, `fun_kwargs` among them.

    Raises:
      TypeError: if one of them is given twice.
    """
    more = dict(fun_kwargs or {})
    if twice := sorted(kwargs.keys() & more):
        raise TypeError(f"{twice[0]!r} is passed twice: as a keyword argument and in fun_kwargs")
    return {**kwargs, **more}


def request_of(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    fun_kwargs: Mapping[str, Any] | None,
    target: Target,
    options: dict[str, Any],
) -> Request:
    """What a user asks an explainer, with JAX arrays in place of those of other libraries.

    Raises:
      TypeError: as `all_kwargs`.
    """
    request = Request(args, all_kwargs(kwargs, fun_kwargs), target, options)
    return jax.tree.map(as_jax, request)


def _as_arrays(request: Request, numeric: set[int]) -> Request:
    """The request with arrays in place of the Python numbers that are traced."""
    args = [
        jax.tree.map(as_array, arg) if i in numeric else arg for i, arg in enumerate(request.args)
    ]
    options = dict(request.options)
    if "condition" in options:
        options["condition"] = jax.tree.map(as_array, options["condition"])
    return Request(
        tuple(args), request.kwargs, initial_relevance.as_arrays(request.target), options
    )


def as_array(leaf: Any) -> Any:
    """An array in place of a Python number; anything else as it is."""
    return jnp.asarray(leaf) if is_number(leaf) else leaf


@contextlib.contextmanager
def _naming_static(request: Request) -> Iterator[None]:
    """Names the arguments that should be static where a function branches on a traced one."""
    try:
        yield
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerIntegerConversionError,
        jax.errors.TracerArrayConversionError,
    ) as error:
        names = tuple(name for name, value in request.kwargs.items() if _is_traced_flag(value))
        places = tuple(i for i, value in enumerate(request.args) if _is_traced_flag(value))
        if not names and not places:
            raise
        options = [f"static_argnames={names!r}"] * bool(names)
        options += [f"static_argnums={places!r}"] * bool(places)
        listed = ", ".join([*map(repr, names), *(f"positional argument {i}" for i in places)])
        raise TypeError(
            f"the function branches on the value of {listed}, which jax.jit traces: write "
            f"jax.jit(explainer, {', '.join(options)}), or leave out jax.jit, since an explainer "
            "compiles its eager calls and keeps booleans and strings static"
        ) from error


def _is_traced_flag(value: Any) -> bool:
    """Whether a value is a traced boolean or integer scalar, such as `train=False` under `jax.jit`."""
    if not _compat.is_traced(value) or value.ndim:
        return False
    return jnp.issubdtype(value.dtype, jnp.bool_) or jnp.issubdtype(value.dtype, jnp.integer)
