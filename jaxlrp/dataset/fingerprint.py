"""What a result depends on, as text and hash: composite, plan, model, target policy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jaxlrp import _compat
from jaxlrp.dataset import canonical
from jaxlrp.dataset.canonical import without_addresses
from jaxlrp.dataset.program import Call, Program
from jaxlrp.dataset.reading import Spec
from jaxlrp.errors import counted
from jaxlrp.explanation.base import find_explainer
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.explanation.plan import Plan, make_plan
from jaxlrp.network.arguments import Arguments
from jaxlrp.network.graph import Graph
from jaxlrp.network.trace import trace

_UNKNOWN = "not known"


def described(value: Any, text: str | None = None) -> dict[str, str]:
    """Text and hash of a value, from its representation and all arrays in it."""
    shown = without_addresses(repr(value) if text is None else text)
    return {"text": shown, "digest": digest([shown, *jax.tree_util.tree_leaves_with_path(value)])}


class Parameters(NamedTuple):
    """Size and hash of the arguments of a function: count of numbers, count of arrays, hash."""

    numbers: int
    arrays: int
    digest: str


def parameters(leaves: Iterable[tuple[Any, Any]]) -> Parameters:
    """The parameters in (path, leaf) pairs."""
    found = list(leaves)
    held = [(path, leaf) for path, leaf in found if hasattr(leaf, "shape")]
    rest = [without_addresses(repr(leaf)) for _, leaf in found if not hasattr(leaf, "shape")]
    numbers = sum(int(np.prod(np.shape(leaf))) for _, leaf in held)
    return Parameters(numbers, len(held), digest([*rest, *held]))


def of_arguments(call: Call) -> Parameters:
    """The parameters in all arguments but the explained one.

    Arrays distributed over processes are gathered one by one, so all processes must call this.
    """
    leaves = jax.tree_util.tree_leaves_with_path((call.args, dict(call.kwargs)))
    return parameters((path, _whole(leaf)) for path, leaf in leaves)


def _whole(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return leaf


def of_call(call: Call, batch: Spec, given: Parameters) -> dict[str, dict[str, str]]:
    """Text and hash of composite, plan and model of an explainer.

    Args:
      call: the explainer with its arguments.
      batch: the types with which the smallest batch is traced.
      given: the parameters in the arguments.

    Of a function that was not made by `jaxlrp.explain` only the program is known.
    """
    known = _explainer(call)
    if known is None:
        name = getattr(call.explain, "__qualname__", type(call.explain).__qualname__)
        text = f"{getattr(call.explain, '__module__', '')}.{name}"
        nothing = {"text": f"{_UNKNOWN}: {text}", "digest": digest([text])}
        return {"composite": nothing, "plan": nothing, "model": _model([given])}
    planned, constants, operations = _look(call, batch)
    state = jax.tree_util.tree_leaves_with_path(known.model.state)
    composite = known.composite
    name = "an edited plan" if isinstance(composite, Plan) else composite.name or "composite"
    return {
        "composite": {"text": name, "digest": described(composite)["digest"]},
        "plan": described(planned.rules, _begun(planned, known.start)),
        "model": _model([given, parameters([*state, *enumerate(constants)])], operations),
    }


def _explainer(call: Call) -> Explainer | None:
    """What `jaxlrp.explain` made, itself or inside another explainer; None for any other function."""
    found = find_explainer(call.explain)
    known = None if found is None else found[0].underlying
    return known if isinstance(known, Explainer) else None


def _begun(planned: Plan, start: str | None) -> str:
    return str(planned) if start is None else f"begins at {start!r}\n{planned}"


def of_program(planned: Program) -> dict[str, str]:
    """Text and hash of the computation, from a batch to everything that is stored of it."""
    return {"text": f"{planned.equations} equations", "digest": planned.digest}


def _look(call: Call, batch: Spec) -> tuple[Plan, list[Any], list[str]]:
    """The plan, the constants that the function closes over, and its operations."""
    known = _explainer(call)
    assert known is not None
    found: list[Any] = []

    def look(x: Any, extra: Any) -> None:
        everything = (*call.args[: call.position], x, *call.args[call.position :])
        network = trace(Arguments(known.model, everything), {**call.kwargs, **extra}).network
        graph = network.graph
        constants = [v for k, v in graph.constants.items() if k not in graph.literals]
        found.append((make_plan(network, known.composite), constants, _operations(graph)))

    jax.eval_shape(look, batch.input, batch.extra)
    planned, constants, operations = found[0]
    kept = [c for c in constants if _compat.is_array(c) and not _compat.is_traced(c)]
    return planned, kept, operations


def _operations(graph: Graph) -> list[str]:
    """The operations in order, with the literals in them."""
    return [
        f"{op.primitive} {[str(graph.constants[v]) if v in graph.literals else v for v in op.inputs]}"
        for op in graph.ops
    ]


def _model(parts: Sequence[Parameters], operations: Sequence[str] = ()) -> dict[str, str]:
    numbers, arrays = sum(p.numbers for p in parts), sum(p.arrays for p in parts)
    text = f"{counted(numbers, 'number')} in {counted(arrays, 'array')}"
    if operations:
        text = f"{counted(len(operations), 'operation')}, {text}"
    words = [without_addresses(word) for word in operations]
    return {"text": text, "digest": digest([*words, *(p.digest for p in parts)])}


def digest(parts: Iterable[Any]) -> str:
    """A hash of texts and of (path, leaf) pairs."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, str):
            found.update(part.encode("utf-8"))
            continue
        path, leaf = part
        found.update(str(path).encode())
        for piece in canonical.array(leaf):
            found.update(piece)
    return found.hexdigest()
