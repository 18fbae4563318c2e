"""A corrected model as a value: what is removed, for which classes, the parameters; and as a file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp._checks import check_mapping
from jaxlrp.explanation.editing import edit
from jaxlrp.explanation.files import load, save
from jaxlrp.explanation.result import Explanation
from jaxlrp.improve.clarc import Projection, reactive
from jaxlrp.network.model import Function

_FORMAT = "jaxlrp correction"


@dataclasses.dataclass(frozen=True, eq=False)
class Correction:
    """What ClArC changes in a model: all that has to be stored to have the corrected model again.

    Attributes:
      edits: by path of the layer, a `Projection`, what `project` returns.
      when: classes for which the model is corrected (`reactive`); None for all samples.
      parameters: of the model, any pytree of dictionaries, lists and tuples of arrays; None to store
        them elsewhere. Of an NNX module: `nnx.to_pure_dict(nnx.state(model))`.

    Raises:
      TypeError: if an edit is not a `Projection`, or `when` has other than integers.

    Example:
      >>> import tempfile, jax, jax.numpy as jnp
      >>> from jaxlrp import improve
      >>> f = lambda params, x: jax.nn.relu(x * params["w"])
      >>> made = improve.Correction(
      ...     {"relu": improve.project([0.0, 1.0], jnp.zeros(2))}, parameters={"w": jnp.ones(2)}
      ... )
      >>> with tempfile.NamedTemporaryFile(suffix=".npz") as file:
      ...     improve.save_correction(file.name, made)
      ...     loaded = improve.load_correction(file.name)
      >>> loaded.apply(f, argnums=1)(loaded.parameters, jnp.array([[1.0, 9.0]])).tolist()
      [[1.0, 0.0]]
    """

    edits: Mapping[str, Projection]
    when: tuple[int, ...] | None = None
    parameters: Any = None

    def __post_init__(self) -> None:
        check_mapping("edits", self.edits, '{"layer": improve.project(v, z)}')
        for path, change in self.edits.items():
            if not isinstance(change, Projection):
                raise TypeError(
                    f"edits[{path!r}] must be the result of improve.project(...), got {change!r}: other "
                    "functions cannot be stored"
                )
        if self.when is not None:
            if isinstance(self.when, str) or not all(isinstance(c, int) for c in self.when):
                raise TypeError(f"when must be class indices such as (3, 5), got {self.when!r}")
            object.__setattr__(self, "when", tuple(self.when))

    def apply(
        self, fun: Function, *, argnums: int | Sequence[int] | None = None
    ) -> Callable[..., Any]:
        """The corrected function: `jaxlrp.edit`, or `reactive` with the classes of `when`.

        Args:
          fun, argnums: as in `jaxlrp.edit`.
        """
        if self.when is None:
            return edit(fun, self.edits, argnums=argnums)
        return reactive(fun, self.edits, self.when, argnums=argnums)


def save_correction(path: str | os.PathLike[str], correction: Correction) -> None:
    """Writes a correction to a file that `load_correction` reads: an `.npz` without pickle.

    An existing file is replaced once the new one is complete.

    Args:
      path: of the file, by convention `*.npz`.
      correction: what to store.

    Raises:
      TypeError: if it is no `Correction`, or a part of the parameters cannot be stored.
      OSError: if the file cannot be written.
    """
    if not isinstance(correction, Correction):
        raise TypeError(f"correction must be an improve.Correction, got {correction!r}")
    edits = {
        layer: {"directions": p.directions, "reference": p.reference, "pool": p.pool}
        for layer, p in correction.edits.items()
    }
    parts = {
        "format": _FORMAT,
        "edits": edits,
        "when": correction.when,
        "parameters": correction.parameters,
    }
    save(path, Explanation(None, None, aux=parts))


def load_correction(path: str | os.PathLike[str]) -> Correction:
    """Reads what `save_correction` wrote, also from an untrusted source: nothing in it is executed.

    Args:
      path: of the file.

    Returns:
      A `Correction`, with JAX arrays.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is something else or damaged.
    """
    parts = load(path).aux
    try:
        if parts["format"] != _FORMAT:
            raise ValueError(f"its format is {parts['format']!r}")
        edits = {
            layer: Projection(jnp.asarray(p["directions"]), jnp.asarray(p["reference"]), p["pool"])
            for layer, p in parts["edits"].items()
        }
        return Correction(edits, parts["when"], jax.tree.map(jnp.asarray, parts["parameters"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{os.fspath(path)!r} is not a file of save_correction: {type(error).__name__}: {error}"
        ) from error
