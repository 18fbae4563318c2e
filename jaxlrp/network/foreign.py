"""Models of other frameworks as pure functions of their variables, and arrays of other libraries."""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlrp.network.flax_models import Modules
from jaxlrp.network.paths import tag


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ForeignModel:
    """A model of another framework as a pure function, with its variables.

    It can be explained like any other model: `lrp.explain(model)(x)` with the variables it was made
    with, `lrp.explain(model.apply)(variables, x)` with others. Calling it, `model(x)`, gives its output.

    Attributes:
      fun: the pure function `(variables, *args, **kwargs) -> output`, traceable by JAX.
      variables: its parameters and buffers, arrays by name.
      name: what messages call it.
    """

    fun: Callable[..., Any]
    variables: Mapping[str, jax.Array]
    name: str

    @property
    def __name__(self) -> str:
        return self.name

    def apply(self, variables: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The output for other variables of the same names and shapes."""
        args, kwargs = jax.tree.map(as_jax, (args, kwargs))
        return self.fun(variables, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The output for the model's own variables; arguments may be arrays of other libraries."""
        return self.apply(self.variables, *args, **kwargs)

    def then(self, function: Callable[[Any], Any]) -> ForeignModel:
        """The same model with a function of its output, which may choose a part of it.

        In contrast to a function around the model, its variables stay arguments, and its layers keep
        the names that come from these.

        Args:
          function: from the output to a pytree of arrays.
        """

        def fun(variables: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
            return function(self.fun(variables, *args, **kwargs))

        return dataclasses.replace(self, fun=fun)

    def __repr__(self) -> str:
        count = sum(array.size for array in self.variables.values())
        return f"ForeignModel({self.name}, {count:,} numbers in {len(self.variables)} variables)"


_noted: contextvars.ContextVar[Modules | None] = contextvars.ContextVar("noted", default=None)


@contextmanager
def foreign_modules(modules: Modules) -> Iterator[None]:
    """While a function is traced: notes the type of each module of another framework."""
    token = _noted.set(modules)
    try:
        yield
    finally:
        _noted.reset(token)


def note(modules: Modules) -> None:
    """While a function is traced: notes the types of modules."""
    noted = _noted.get()
    if noted is None:
        return
    for path, kind in modules.items():
        noted.setdefault(path, kind)


def in_module(path: str, kind: type, call: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a module whose operations are marked, while traced, with the module's path.

    Args:
      path: of the module, the same in each trace.
      kind: the type of the module.
      call: the method.
    """

    @functools.wraps(call)
    def marked(*args: Any, **kwargs: Any) -> Any:
        note({path: kind})
        try:
            with jax.named_scope(tag([path])):
                return call(*args, **kwargs)
        except Exception as error:
            if not hasattr(error, "__notes__"):  # the innermost module
                error.add_note(f"in module {path!r} ({kind.__name__})")
            raise

    return marked


def refuse_unconverted(fun: Any) -> None:
    """Refuses what is callable but explained otherwise: a PyTorch module, or a head, which says how.

    Raises:
      TypeError: saying what to write.
    """
    otherwise = getattr(type(fun), "explained_by", None)
    if isinstance(otherwise, str):
        raise TypeError(
            f"fun is a {type(fun).__name__}, whose relevance is known: write {otherwise}"
        )
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(fun, getattr(getattr(torch, "nn", None), "Module", ())):
        raise TypeError(
            f"fun is a PyTorch module ({type(fun).__name__}): convert it first, with "
            "jaxlrp.pytorch.convert(module)"
        )


def as_jax(leaf: Any) -> Any:
    """A JAX array in place of an array of another library (a torch.Tensor); anything else as it is.

    Whatever has DLPack's `__dlpack__` is copied, without its history of gradients. As everywhere in
    JAX, 64-bit numbers become 32-bit ones unless `jax_enable_x64` is set.
    """
    if isinstance(leaf, (jax.Array, np.ndarray, np.generic)) or not hasattr(
        type(leaf), "__dlpack__"
    ):
        return leaf
    detach = getattr(leaf, "detach", None)
    leaf = leaf if detach is None else detach()
    try:
        return jnp.array(np.from_dlpack(leaf))
    except (BufferError, RuntimeError):  # bfloat16, or not in the memory of the CPU
        return jnp.from_dlpack(leaf, copy=True)
