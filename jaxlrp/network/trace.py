"""From a user's function and its arguments to a network of layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from jaxlrp import _compat
from jaxlrp.network.arguments import Arguments
from jaxlrp.network.assemble import network
from jaxlrp.network.flax_models import linen_scopes
from jaxlrp.network.foreign import foreign_modules
from jaxlrp.network.graph import flatten
from jaxlrp.network.haiku_models import haiku_scopes
from jaxlrp.network.module_trees import marked
from jaxlrp.network.nodes import Network
from jaxlrp.network.paths import Namer


@dataclasses.dataclass(frozen=True, eq=False)
class Traced:
    """A traced function with the values it was traced on.

    Attributes:
      arguments: those of the call; `arguments.values` are the values of the graph's inputs.
      network: its layers.
      output_tree: the tree of the output.
      n_outputs: how many leaves the output has; the auxiliary leaves follow.
      aux_tree: the tree of the auxiliary output, or None.
    """

    arguments: Arguments
    network: Network
    output_tree: Any
    n_outputs: int
    aux_tree: Any


def trace(arguments: Arguments, kwargs: Mapping[str, Any]) -> Traced:
    """Traces a function once and finds its layers.

    Args:
      arguments: the function and its positional arguments.
      kwargs: its keyword arguments.

    Raises:
      TypeError: if an explained argument is missing or holds no array.
      TrainingModeError: if the model is in training mode.
    """
    arguments.check()
    model = arguments.model

    def flat(*values: Any) -> Any:
        fun, *given = (marked(one, modules) for one in (model.fun, *arguments.merged(values)))
        return model.split(fun(*given, **kwargs))

    modules = dict(model.modules)
    with linen_scopes(modules), haiku_scopes(modules), foreign_modules(modules):
        closed, (output, aux) = _compat.make_jaxpr(flat, *arguments.values)
    jaxpr, consts = _compat.open_jaxpr(closed)
    graph = flatten(jaxpr, consts)
    n_outputs = len(jax.tree.leaves(output))
    return Traced(
        arguments=arguments,
        network=network(
            graph,
            [graph.inputs[n] for n in arguments.explained],
            Namer(modules),
            {graph.inputs[n]: label for n, label in arguments.labels().items()},
            outputs=graph.outputs[:n_outputs],
        ),
        output_tree=jax.tree.structure(output),
        n_outputs=n_outputs,
        aux_tree=jax.tree.structure(aux) if model.has_aux else None,
    )
