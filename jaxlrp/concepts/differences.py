"""How a sample differs from its prototype: which concepts it uses more and less than usual."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

Names = Mapping[int, str] | Sequence[str] | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Difference:
    """Samples against their prototypes, `nu - mu`. A pytree. `Prototypes.difference` makes it.

    Attributes:
      relevance: (samples, concepts), normalized concept relevance.
      prototype: (samples, concepts), the mean of the component that each sample is compared with.
      classes: (samples,), integers, the class of each sample.
      component: (samples,), integers, the component of that class.
    """

    relevance: Any
    prototype: Any
    classes: Any
    component: Any

    @property
    def delta(self) -> Any:
        """(samples, concepts), positive for concepts that a sample overuses."""
        return self.relevance - self.prototype

    def shown(self, sample: int, n: int = 3, n_different: int = 2) -> list[int]:
        """The concepts to show: those that matter most, then those that differ most of the rest.

        Args:
          sample: its index.
          n: how many with the largest `max(|nu|, |mu|)`, >= 0.
          n_different: how many of the others with the largest `|nu - mu|`, >= 0.

        Returns:
          Concepts, at most `n + n_different`.
        """
        relevance, prototype = np.asarray(self.relevance), np.asarray(self.prototype)
        return notable(relevance[sample], prototype[sample], n, n_different)

    def describe(
        self, sample: int, n: int = 3, n_different: int = 2, *, names: Names = None
    ) -> str:
        """The difference in words, one line for each concept of `shown`.

        A concept counts as overused or underused if it differs by more than a tenth of the largest share
        of the sample and its prototype.

        Args:
          sample, n, n_different: as in `shown`.
          names: of concepts; a concept without a name is shown by its number.
        """
        nu, mu = (np.asarray(a)[sample] for a in (self.relevance, self.prototype))
        least = 0.1 * max(np.abs(nu).max(), np.abs(mu).max())
        lines = [
            f"sample {sample} against prototype {int(np.asarray(self.component)[sample])} of class "
            f"{int(np.asarray(self.classes)[sample])}:"
        ]
        for c in self.shown(sample, n, n_different):
            apart = nu[c] - mu[c]
            verdict = "as usual"
            if abs(apart) > least:
                verdict = "overused" if apart > 0 else "underused"
            lines.append(
                f"  {verdict:<9} {_name(names, c)}: {100 * nu[c]:+.1f} % of relevance, usually "
                f"{100 * mu[c]:+.1f} %"
            )
        return "\n".join(lines)


def notable(sample: np.ndarray, prototype: np.ndarray, n: int, n_different: int) -> list[int]:
    """The `n` concepts of the largest relevance in either, then those that differ most of the rest."""
    size = np.maximum(np.abs(sample), np.abs(prototype))
    first = np.argsort(-size, kind="stable")[:n].tolist()
    differ = np.argsort(-np.abs(sample - prototype), kind="stable").tolist()
    return first + [c for c in differ if c not in first][:n_different]


def _name(names: Names, concept: int) -> str:
    if isinstance(names, Mapping):
        return names.get(concept, f"concept {concept}")
    return f"concept {concept}" if names is None else str(names[concept])
