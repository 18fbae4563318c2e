"""What is left of a forward pass: a function from targets and conditions to explanations."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp.explanation import initial_relevance
from jaxlrp.explanation.base import as_array
from jaxlrp.explanation.compiled import Programs
from jaxlrp.explanation.patterns import as_conditions, by_layer
from jaxlrp.explanation.result import Explanation, Record
from jaxlrp.network.arguments import Template
from jaxlrp.network.discrete import is_discrete
from jaxlrp.network.foreign import as_jax
from jaxlrp.numerics import to_relevance, widen
from jaxlrp.targets import Target


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a pullback knows without arrays.

    Attributes:
      readout: of the plan, "relevance" or "gradient".
      paths: of the layers that may be conditioned, in the order of evaluation.
      record: of the layers that are recorded, in that order.
      explained, parameters: the arguments whose relevance is given back.
      single: whether one argument is explained, rather than a sequence of them.
      programs: compiled programs, None where eager calls are not compiled.
    """

    readout: str
    paths: tuple[str, ...]
    record: tuple[str, ...]
    explained: tuple[Template, ...]
    parameters: tuple[Template, ...]
    single: bool
    programs: Programs | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Pullback:
    """One forward pass, kept: it gives any number of explanations. `Explainer.vjp` makes it.

    A pytree. Each call is one pass of relevance, without another forward pass. It may be `vmap`ped over
    targets and conditions, and transposed where the rules are linear in relevance.

    Attributes:
      output: of the function.
      aux: its auxiliary output, with `has_aux`.
      activations: the outputs of the recorded layers, by path.
    """

    output: Any
    aux: Any
    activations: dict[str, Array]
    _begun: Any
    _values: dict[int, Any]
    _blanks: dict[str, Array]
    _pull: Callable[..., Any]
    _known: Signature = dataclasses.field(metadata={"static": True})

    def __call__(
        self, *, target: Target = None, condition: Mapping[str, ArrayLike] | None = None
    ) -> Explanation:
        """One explanation.

        Args:
          target, condition: as in `jaxlrp.explain`; conditions on the layers that `Explainer.vjp` was
            given as `condition`.
        """
        condition, target = as_conditions(condition), jax.tree.map(as_jax, target)
        initial_relevance.check_type(target)
        programs = self._known.programs
        with _compat.on_mesh_of((self, target, condition)):
            if programs is None or not _compat.is_eager():
                return self.explain(target, condition)[0]
            condition = {key: as_array(mask) for key, mask in condition.items()}
            inputs = (self, initial_relevance.as_arrays(target), condition)
            check = functools.partial(initial_relevance.check_range, target=target)
            return programs.run(
                "pullback", lambda given: given[0].explain(*given[1:]), inputs, check
            )

    def __repr__(self) -> str:
        shape = jax.tree.map(jnp.shape, self.output)
        known = self._known
        return f"Pullback(output of shape {shape}, record={known.record}, condition={known.paths})"

    def explain(
        self, target: Target, condition: Mapping[str, ArrayLike]
    ) -> tuple[Explanation, Any]:
        """The explanation, and the values at which relevance begins."""
        known = self._known
        masks = self._masks(condition)
        (g,) = self._pull((initial_relevance.cotangent(self._begun, target, known.readout), masks))
        explanation = Explanation(
            output=self.output,
            relevance=self._relevance(g["explained"]),
            aux=self.aux,
            records={
                path: Record(
                    self._read(self.activations[path], g["taps"][path]), self.activations[path]
                )
                for path in known.record
            },
            parameters=self._parameter_relevance(g["parameters"]),
        )
        return explanation, self._begun

    def _masks(self, condition: Mapping[str, ArrayLike]) -> dict[str, Array]:
        """The factor of the relevance at each layer that may be conditioned; 1 unless it is given."""
        given = by_layer("condition", condition, self._known.paths)
        ones = {path: (path, jnp.ones((), blank.dtype)) for path, blank in self._blanks.items()}
        return {
            path: _mask(key, path, mask, self._blanks[path])
            for path, (key, mask) in (ones | given).items()
        }

    def _read(self, a: Array, g: Array) -> Array:
        if self._known.readout == "gradient":
            return g

        def read(a: Array, g: Array) -> Array:
            return (
                to_relevance(widen(a), g) if is_discrete(a) else to_relevance(a, g).astype(_real(a))
            )

        return _compat.placed_as(_compat.freely(read, jnp.asarray(a), g), a)

    def _relevance(self, g: Mapping[int, Array]) -> Any:
        read = {n: self._read(self._values[n], c) for n, c in g.items()}
        found = tuple(template.filled(read) for template in self._known.explained)
        return found[0] if self._known.single else found

    def _parameter_relevance(self, g: Mapping[int, Array]) -> Any:
        templates = self._known.parameters
        if not templates:
            return None
        read = {
            n: self._values[n] * g[n] if n in g else jnp.zeros(jnp.shape(self._values[n]))
            for template in templates
            for n in template.places
            if n is not None
        }
        found = tuple(template.filled(read) for template in templates)
        return found[0] if len(found) == 1 else found


def _mask(key: str, path: str, mask: ArrayLike, blank: Array) -> Array:
    mask, shape = jnp.asarray(mask), blank.shape
    try:
        fits = jnp.broadcast_shapes(mask.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"condition[{key!r}] must broadcast to the output of layer {path!r}, of shape {shape}, got "
            f"shape {mask.shape}"
        )
    whole = _compat.freely(lambda mask: jnp.broadcast_to(mask, shape).astype(blank.dtype), mask)
    return _compat.typed_as(whole, blank)


def _real(a: Array) -> Any:
    return jnp.real(a).dtype
