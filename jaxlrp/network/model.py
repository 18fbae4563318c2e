"""A user's function or Flax module as a pure function, and which of its arguments is explained."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import linen as nn
from flax import nnx

from jaxlrp._checks import check_flag
from jaxlrp.network.flax_models import Modules, NNXFunction
from jaxlrp.network.foreign import ForeignModel, refuse_unconverted
from jaxlrp.network.keras_models import is_keras, keras_model

Function = Callable[..., Any] | nn.Module | nnx.Module
"""What can be explained: a function of arrays, a Linen module or its `apply`, an NNX, Equinox or Penzai
module, a Keras model, a model that was converted from another framework or its `apply`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A user's function, made ready once.

    Attributes:
      fun: a pure function; for an NNX module, of its state and the user's arguments.
      call: the function of the user's arguments, as it was given.
      state: the state of an NNX module, the variables of a converted model, else None.
      argnums: the positions, among the user's arguments, of what is explained.
      single: whether one argument is explained, rather than a sequence of them.
      by_default: whether `argnums` was left out.
      has_aux: whether the function returns (output, auxiliary).
      modules: the types of NNX modules by path.
      name: the function's name, for messages.
    """

    fun: Callable[..., Any]
    call: Callable[..., Any]
    state: Any
    argnums: tuple[int, ...]
    single: bool
    by_default: bool
    has_aux: bool
    modules: Modules
    name: str

    def split(self, result: Any) -> tuple[Any, Any]:
        """(output, auxiliary) of what the function returned; None for the latter where it has none.

        Raises:
          TypeError: if `has_aux` is set and the result is not a pair.
        """
        if not self.has_aux:
            return result, None
        if not (isinstance(result, tuple) and len(result) == 2):
            found = "one array" if hasattr(result, "shape") else str(jax.tree.structure(result))
            raise TypeError(
                f"with has_aux=True the function must return (output, auxiliary), got {found}: leave out "
                "has_aux, or return a pair"
            )
        return result

    def check_given(self, args: Sequence[Any]) -> None:
        """Checks that the explained arguments are among the positional ones.

        Raises:
          TypeError: naming the first that is missing, or is a list of numbers; or if the position was
            left out and would be that of the variables of a Linen module.
        """
        for i in self.argnums:
            if i >= len(args):
                raise TypeError(
                    f"argnums={i} names the argument to explain, but only {len(args)} positional arguments "
                    "were given: pass the explained argument by position"
                )
            _refuse_numbers(args[i], i)
        if self.by_default and self.argnums == (0,) and len(args) > 1 and _are_variables(args[0]):
            raise TypeError(
                "the first argument looks like the variables of a Linen module: pass argnums=1 to "
                "explain the argument after them, or argnums=0 to explain the variables"
            )


def _refuse_numbers(value: Any, position: int) -> None:
    """Refuses a list of numbers, which JAX takes for as many arguments; and tables."""
    if hasattr(value, "to_numpy"):
        raise TypeError(
            f"the explained argument (argnums={position}) must be an array, got {type(value).__name__}: "
            "pass its to_numpy()"
        )
    if isinstance(value, list) and value:
        leaves = jax.tree.leaves(value)
        if all(isinstance(leaf, int | float) for leaf in leaves):
            raise TypeError(
                f"the explained argument (argnums={position}) is a list of {len(leaves)} numbers: pass "
                "an array, numpy.asarray(x)"
            )


def model_of(fun: Function, argnums: int | Sequence[int] | None, has_aux: bool) -> Model:
    """Makes a user's function or Flax module ready to be traced.

    Args:
      fun: a function, an NNX module, or a Linen module, which stands for its `apply`.
      argnums: the position of the explained argument, or several. None: the first one, but for the
        `apply` of a Linen module the first one after the variables.
      has_aux: whether `fun` returns (output, auxiliary).

    Raises:
      TypeError: if `fun` is neither, or `argnums` is not an integer or a sequence of integers.
    """
    if isinstance(fun, nn.Module) and getattr(fun, "scope", None) is None:
        fun = fun.apply
    if is_keras(fun):
        fun = keras_model(fun)
    if not callable(fun):
        raise TypeError(
            f"fun must be a function, a Linen module or an NNX module, got {fun!r} of type "
            f"{type(fun).__name__}"
        )
    refuse_unconverted(fun)
    name, first = _name(fun), _first_argument(fun)
    check_flag("has_aux", has_aux)
    positions = positions_of(
        "argnums", "the position of the explained argument", first if argnums is None else argnums
    )
    single, default = argnums is None or isinstance(argnums, int), argnums is None
    if isinstance(fun, nnx.Module):
        held = NNXFunction(fun)
        call = functools.partial(held, held.state)
        return Model(
            held, call, held.state, positions, single, default, has_aux, held.modules, name
        )
    if isinstance(fun, ForeignModel):
        state = fun.variables
        return Model(fun.fun, fun, state, positions, single, default, has_aux, {}, name)
    # under a jit of the user's, a cached trace would not know of modules
    inner = getattr(fun, "__wrapped__", fun) if isinstance(fun, _JITTED) else fun
    return Model(inner, fun, None, positions, single, default, has_aux, {}, name)


_JITTED = type(jax.jit(lambda x: x))


def positions_of(name: str, what: str, given: Any, least: int = 1) -> tuple[int, ...]:
    """Positions of arguments, given as one or a sequence.

    Args:
      name, what: of the argument that holds them, for the message.
      given: what a user gave.
      least: how many there must be at least.

    Raises:
      TypeError: if they are anything but integers >= 0, or too few.
    """
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    positions: tuple[Any, ...] = tuple(given) if listed else (given,)
    if len(positions) < least or not all(
        isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in positions
    ):
        raise TypeError(
            f"{name} must be {what}, an integer >= 0, or a sequence of such positions; got {given!r}"
        )
    return positions


def _first_argument(fun: Any) -> int:
    """The position of the first argument that is not the variables of a Linen or converted module."""
    bound = 0
    while True:
        if isinstance(fun, functools.partial):
            bound += len(fun.args)
            fun = fun.func
        elif inspect.ismethod(fun):
            owner = fun.__self__
            is_apply = isinstance(owner, nn.Module | ForeignModel) and fun == owner.apply
            return max(1 - bound, 0) if is_apply else 0
        elif callable(getattr(fun, "__wrapped__", None)):  # a transformation, such as `jax.jit`
            fun = fun.__wrapped__
        else:
            return 0


def _are_variables(argument: Any) -> bool:
    return isinstance(argument, Mapping) and "params" in argument


def _name(fun: Any) -> str:
    if isinstance(fun, functools.partial):
        return f"partial({_name(fun.func)})"
    owner = getattr(fun, "__self__", None)
    name = getattr(fun, "__name__", type(fun).__name__)
    return name if owner is None or inspect.ismodule(owner) else f"{type(owner).__name__}.{name}"
