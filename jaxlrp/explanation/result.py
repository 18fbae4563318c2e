"""What an explanation gives back."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax import Array
from jax.tree_util import DictKey, GetAttrKey


class _Unquoted(str):
    """Text whose `repr` has no quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _described(value: Any, most: int = 8) -> str:
    """A pytree with dtypes and shapes in place of its arrays, or their number if there are many."""

    def described(leaf: Any) -> Any:
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            return leaf
        return _Unquoted(f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]")

    leaves = jax.tree.leaves(value)
    if len(leaves) > most:
        return f"<{len(leaves)} arrays>"
    return repr(jax.tree.map(described, value))


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

    def __repr__(self) -> str:
        return f"Record({_described(self.relevance)})"


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The result of an explanation. A pytree, printed with shapes instead of numbers.

    Attributes:
      output: of the function.
      relevance: of the explained argument, of its structure and shapes; of an integer input, one
        number for each token. A tuple where `argnums` is one.
      aux: the auxiliary output, with `has_aux`.
      records: the layers named by `record=`, by path, in the order of evaluation.
      parameters: with `parameters=`, the relevance of those arguments, of their structure.
      gains: with `debug=True`, the sum of |R| at the output of each layer in units of that at the output
        of the function, by path; of a layer in a scan, in the step where it is greatest.

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> w = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
      >>> lrp.explain(lambda x: x @ w, record="dot_general")(jnp.ones((5, 3)), target=1)
      Explanation(output=float32[5,2], relevance=float32[5,3], records=['dot_general'])
    """

    output: Any
    relevance: Any
    aux: Any = None
    records: dict[str, Record] = dataclasses.field(default_factory=dict)
    parameters: Any = None
    gains: dict[str, float] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        parts = [(name, getattr(self, name)) for name in _PARTS]
        shown = [f"{name}={_described(value)}" for name, value in parts if value is not None]
        for name in _BY_PATH:
            if paths := list(getattr(self, name)):
                shown.append(f"{name}={paths if len(paths) <= 8 else f'<{len(paths)} layers>'}")
        return f"Explanation({', '.join(shown)})"


_PARTS = ("output", "relevance", "aux", "parameters")
_BY_PATH = ("records", "gains")


def _flatten(explanation: Explanation) -> tuple[list[tuple[Any, Any]], Any]:
    parts = [(GetAttrKey(name), getattr(explanation, name)) for name in _PARTS]
    held = [getattr(explanation, name) for name in _BY_PATH]
    by_path = [(DictKey(path), value) for values in held for path, value in values.items()]
    return parts + by_path, tuple(map(tuple, held))


def _unflatten(paths: Any, parts: Any) -> Explanation:
    output, relevance, aux, parameters, *rest = parts
    records, gains = paths
    return Explanation(
        output=output,
        relevance=relevance,
        aux=aux,
        records=dict(zip(records, rest, strict=False)),
        parameters=parameters,
        gains=dict(zip(gains, rest[len(records) :], strict=True)),
    )


# Not as a dataclass, whose dictionaries JAX would sort by path.
jax.tree_util.register_pytree_with_keys(Explanation, _flatten, _unflatten)
