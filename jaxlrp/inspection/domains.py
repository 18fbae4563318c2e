"""One relevance in several domains: the waveform, its spectrum, its spectrogram."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax import Array

from jaxlrp._checks import check_mapping
from jaxlrp.explanation.plan import CompositeLike
from jaxlrp.explanation.result import Explanation
from jaxlrp.inspection.layer import (
    Axes,
    Inspection,
    argument_at,
    check_transform,
    read_explanation,
    resolve,
)
from jaxlrp.inspection.transform import Transform
from jaxlrp.network.model import Function

SIGNAL = "signal"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Domains:
    """The relevance of a signal in its own domain, and in others; all have the same sum.

    `found["spectrogram"]` is the `Inspection` with this name.

    Attributes:
      explanation: of the signal, in its own domain.
      inspections: by name.
    """

    explanation: Explanation
    inspections: Mapping[str, Inspection]

    def __getitem__(self, name: str) -> Inspection:
        return self.inspections[name]

    @property
    def relevance(self) -> dict[str, Array]:
        """By name, that of the signal as "signal"."""
        own = {name: found.relevance for name, found in self.inspections.items()}
        return {SIGNAL: self.explanation.relevance, **own}

    @property
    def sums(self) -> dict[str, Array]:
        """The sum of all relevance in each domain, with what its coefficients cannot represent."""
        own = {
            name: found.relevance.sum()
            + sum(part.sum() for part in (found.residual, found.offset, found.at_zero))
            for name, found in self.inspections.items()
        }
        return {SIGNAL: self.explanation.relevance.sum(), **own}


def domains(
    fun: Function,
    transforms: Mapping[str, Transform],
    composite: CompositeLike = None,
    *,
    axis: Axes,
    dims: str | Sequence[str] | None = None,
    argnums: int | None = None,
    has_aux: bool = False,
    floor: float = 0.0,
) -> Callable[..., Domains]:
    """Explains a model of signals once, and shows the relevance in several domains.

    A waveform says when, its spectrum says at which frequencies, a spectrogram says both, less exactly.
    Each domain is a virtual inspection layer, as in `inspect`, and has the same sum of relevance. The cost
    is one explanation plus the transforms. To draw it: `jaxlrp.plot.domains`.

    Args:
      fun: as in `inspect`.
      transforms: by name; "signal" is the domain of the input.
      composite, axis, dims, argnums, has_aux, floor: as in `inspect`.

    Returns:
      A function of the arguments of `lrp.explain(fun)` that returns `Domains`.

    Raises:
      TypeError, ValueError: if an argument has the wrong type or shape; and the errors of `lrp.explain`.

    References:
      Becker et al. (2018), https://arxiv.org/abs/1807.03418, and Frommholz et al. (2023),
      https://arxiv.org/abs/2304.14019, who train a network for each domain; Vielhaben et al. (2024),
      https://doi.org/10.1016/j.patcog.2024.110309, for virtual layers, which need one network

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp.inspection import DFT, STDFT
      >>> beat = jnp.cos(jnp.arange(8) * jnp.pi / 2)
      >>> transforms = {"spectrum": DFT(), "spectrogram": STDFT(4, 2)}
      >>> found = domains(lambda x: x @ beat, transforms, axis=-1)(beat)
      >>> {name: round(float(total), 4) for name, total in found.sums.items()}
      {'signal': 4.0, 'spectrum': 4.0, 'spectrogram': 4.0}
    """
    check_mapping("transforms", transforms, '{"spectrum": DFT()}')
    held = dict(transforms)
    if not held or SIGNAL in held:
        raise ValueError(
            f'transforms must have at least one name, and not "{SIGNAL}", which is the domain of the '
            f"input, got {list(held)}"
        )
    for name, transform in held.items():
        check_transform(f"transforms[{name!r}]", transform)
    position, explained = resolve(fun, composite, argnums, has_aux)

    def found(*args: Any, **kwargs: Any) -> Domains:
        x, explanation = argument_at(position, args), explained(*args, **kwargs)
        inspections = {
            name: read_explanation(transform, x, explanation, axis, dims, floor)
            for name, transform in held.items()
        }
        return Domains(explanation, inspections)

    return found
