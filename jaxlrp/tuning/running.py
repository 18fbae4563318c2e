"""The run of a search: what is evaluated next, and what is kept of it."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from jaxlrp.tuning import journal
from jaxlrp.tuning.data import Data
from jaxlrp.tuning.families import Family
from jaxlrp.tuning.journal import Entry, Journal
from jaxlrp.tuning.methods import Method
from jaxlrp.tuning.objective import Objective, Programs
from jaxlrp.tuning.result import Candidate, best_of

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A search that is being computed.

    Attributes:
      objective: what members are scored by.
      families: by name.
      kept: what was evaluated, here or in an earlier run.
      programs: of each family.
    """

    objective: Objective
    families: Mapping[str, Family]
    kept: Journal
    programs: Mapping[str, Programs]

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """Of the metrics, whose options may be large arrays."""
        return {name: journal.of_metric(m) for name, m in self.objective.metrics.items()}

    @functools.cached_property
    def _of_families(self) -> dict[str, str]:
        return {name: journal.of_family(family) for name, family in self.families.items()}

    def check(self, data: Data) -> None:
        """Traces each family with each metric on two samples, before anything is computed."""
        two = data.take(np.arange(2) % data.size)
        for name, family in self.families.items():
            values = {n: held.at(0.5) for n, held in family.ranges.items()}
            try:
                jax.eval_shape(
                    lambda v, a, b, f=family: self.objective.scores(f, v, a, b),
                    values, self.objective.args, two,
                )  # fmt: skip
            except Exception as error:  # whatever a model, a rule or a metric raises
                raise ValueError(
                    f"candidates[{name!r}] cannot be computed: {type(error).__name__}: {error}"
                ) from error

    def family(self, name: str, method: Method, data: Data) -> list[Candidate]:
        """All members of a family that a method tries, with their scores."""
        family = self.families[name]
        proposals = method.propose(family, name, self.objective.key)
        found: list[Candidate] = []
        answer: list[dict[str, float]] | None = None
        while True:
            try:
                asked = next(proposals) if answer is None else proposals.send(answer)
            except StopIteration:
                return found
            if asked.slopes:
                entries = [self._with_slopes(name, v, data) for v in asked.values]
            else:
                entries = self._scored(name, asked.values, data, "select")
            found += [
                self._candidate(name, values, entry)
                for values, entry in zip(asked.values, entries, strict=True)
            ]
            best = best_of(found, self.objective.chosen, self._better)
            _log.info("%s: %d tried, best %s", name, len(found), best.label if best else "none")
            own = self.digests[self.objective.chosen]
            if asked.slopes and not all(own in entry.slopes for entry in entries):
                return found
            answer = [dict(entry.slopes.get(own, {})) for entry in entries]

    def report(self, found: Sequence[Candidate], data: Data) -> list[Candidate]:
        """The candidates, of which the best of each family has scores on the other samples."""
        result = list(found)
        for name in self.families:
            own = [c for c in found if c.family == name]
            best = best_of(own, self.objective.chosen, self._better)
            if best is None:
                continue
            (entry,) = self._scored(name, [best.values], data, "report")
            place = next(i for i, c in enumerate(result) if c is best)
            scores = {m: entry.scores[d] for m, d in self.digests.items()}
            result[place] = dataclasses.replace(best, held_out=scores)
        return result

    @property
    def _better(self) -> bool:
        return bool(self.objective.metrics[self.objective.chosen].higher_is_better)

    def _candidate(self, name: str, values: Mapping[str, float], entry: Entry) -> Candidate:
        scores = {m: entry.scores[d] for m, d in self.digests.items()}
        return Candidate(name, dict(values), self.families[name](values), scores)

    def _scored(
        self, name: str, values: Sequence[Mapping[str, float]], data: Data, part: str
    ) -> list[Entry]:
        """Scores of members, each kept as soon as its group is computed."""
        of, digests = self._of_families[name], self.digests
        keys = [journal.key_of(part, of, v) for v in values]
        missing = [
            i
            for i, k in enumerate(keys)
            if not set(digests.values()) <= set(self.kept.find(k).scores)
        ]
        size = self.objective.at_once
        for start in range(0, len(missing), size):
            group = missing[start : start + size]
            scored = self.programs[name].scores([values[i] for i in group], data)
            for i, scores in zip(group, scored, strict=True):
                self.kept.add(keys[i], Entry({digests[m]: s for m, s in scores.items()}))
        return [self.kept.find(k) for k in keys]

    def _with_slopes(self, name: str, values: Mapping[str, float], data: Data) -> Entry:
        """Scores of a member, and derivatives of the objective."""
        chosen, digests = self.objective.chosen, self.digests
        key = journal.key_of("select", self._of_families[name], values)
        known = self.kept.find(key)
        if digests[chosen] not in known.slopes or not set(digests.values()) <= set(known.scores):
            scores, slopes = self.programs[name].slopes(values, data)
            if not self._better:
                slopes = {n: -s for n, s in slopes.items()}
            held = {digests[chosen]: slopes} if self._useful(name, values, slopes) else {}
            self.kept.add(key, Entry({digests[m]: s for m, s in scores.items()}, held))
        return self.kept.find(key)

    def _useful(self, name: str, values: Mapping[str, float], slopes: Mapping[str, float]) -> bool:
        """Whether derivatives are finite; refuses a metric that has none."""
        where = f"family {name!r} with " + ", ".join(f"{n}={v:.3g}" for n, v in values.items())
        if not all(np.isfinite(s) for s in slopes.values()):
            _log.warning(
                "the derivative of %r is not finite in %s: no more of this family is tried; narrow "
                "its ranges, or use method Grid or Random", self.objective.chosen, where,
            )  # fmt: skip
            return False
        if not any(slopes.values()):
            raise ValueError(
                f"the derivative of {self.objective.chosen!r} is 0 in {where}: it does "
                "not change smoothly with the relevance; use method Grid or Random, or another metric as "
                "objective, such as metrics.FaithfulnessCorrelation()"
            )
        return True
