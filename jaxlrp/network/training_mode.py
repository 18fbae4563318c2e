"""Models in training mode cannot be explained: dropout, and statistics of the batch."""

from __future__ import annotations

from jaxlrp.errors import TrainingModeError, where
from jaxlrp.network import primitives as P
from jaxlrp.network.analysis import Structure
from jaxlrp.network.flax_models import is_batch_norm
from jaxlrp.network.graph import Value
from jaxlrp.network.paths import Namer


def refuse_training_mode(structure: Structure, namer: Namer) -> None:
    """Raises where values are dropped at random or normalized by statistics of the batch.

    Raises:
      TrainingModeError: naming the module and the line, and how to get evaluation mode.
    """
    for op in structure.graph.ops:
        if not any(v in structure.live for v in op.outputs):
            continue
        place = where(namer.module(op)[0] or "", op.source)
        masks = op.inputs[:1] if op.primitive is P.SELECT else op.inputs
        if op.primitive in (P.SELECT, P.MUL, P.DIV) and any(
            _drops_at_random(structure, v) for v in masks
        ):
            raise TrainingModeError(
                f"the function masks values at random {place}, as dropout does in training mode; "
                "an explanation needs the model in evaluation mode: pass `deterministic=True` or "
                "`train=False` as your model spells it, or call `model.eval()` on an NNX module. If the "
                "mask is intended, draw it outside of the function and pass it in"
            )
        module, divides = namer.module_type(op), any((op, i) in structure.cuts for i in (0, 1))
        if module is not None and is_batch_norm(module) and divides:
            raise TrainingModeError(
                f"BatchNorm normalizes by the statistics of the batch {place}, as in training mode; "
                "an explanation needs the running ones: pass `use_running_average=True` or "
                "`train=False` as your model spells it, or call `model.eval()` on an NNX module"
            )


def _drops_at_random(structure: Structure, value: Value) -> bool:
    """Whether a value is a random boolean mask, perhaps scaled. Other noise is not dropout."""
    graph = structure.graph
    while value in structure.random:
        if graph.avals[value].dtype == bool:
            # one draw for all that is masked chooses a way through the network, and drops nothing
            return bool(graph.shape(value))
        op = graph.producer.get(value)
        if op is None or op.primitive not in P.SHAPE | {P.BROADCAST, P.MUL, P.DIV}:
            return False
        (value,) = [v for v in op.inputs if v in structure.random][:1]
    return False
