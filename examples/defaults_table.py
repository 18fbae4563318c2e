"""What defaults.py chooses from scores, and how that compares, as tables in Markdown."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

DEFAULT = "default"


class Scores(NamedTuple):
    """What each candidate scores on one network.

    Attributes:
      network, family: names.
      of: scores of each sample by candidate and measure; higher is better, `nan` where undefined.
    """

    network: str
    family: str
    of: Mapping[str, Mapping[str, np.ndarray]]

    def write(self, path: pathlib.Path) -> None:
        """Writes a JSON file."""
        of = {c: {m: list(map(float, s)) for m, s in held.items()} for c, held in self.of.items()}
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps([self.network, self.family, of]), encoding="utf-8")
        partial.replace(path)

    @classmethod
    def read(cls, path: pathlib.Path) -> Scores:
        """The scores that `write` has written."""
        network, family, of = json.loads(path.read_text(encoding="utf-8"))
        arrays = {c: {m: np.array(s) for m, s in held.items()} for c, held in of.items()}
        return cls(network, family, arrays)


Half = Mapping[tuple[str, str], tuple[list[str], np.ndarray]]
"""By network and measure: candidates, and their scores, (candidates, samples), of half of the samples."""


def half_of(found: Sequence[Scores], second: bool) -> Half:
    """One half of the samples. A candidate without a score gets the lowest of that sample."""
    result = {}
    for one in found:
        names = list(one.of)
        for measure in one.of[names[0]]:
            held = np.stack([one.of[name][measure] for name in names])
            middle = held.shape[1] // 2
            held = held[:, middle:] if second else held[:, :middle]
            held = held[:, np.isfinite(held).any(axis=0)]
            lowest = np.nanmin(held, axis=0)
            result[one.network, measure] = names, np.where(np.isfinite(held), held, lowest)
    return result


def common(half: Half, networks: Sequence[str]) -> list[str]:
    """The candidates that all of some networks have."""
    held = [names for (network, _), (names, _) in half.items() if network in networks]
    return [name for name in held[0] if all(name in names for names in held)]


def mean_ranks(half: Half, networks: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """The mean rank of candidates over some networks and all measures; 1 is the best."""
    ranks = []
    for (network, _), (held, scores) in half.items():
        if network in networks:
            means = scores[[held.index(name) for name in names]].mean(axis=1)
            ranks.append(rankdata(-means.round(6)))
    return dict(zip(names, np.mean(ranks, axis=0).tolist(), strict=True))


def choose(half: Half, networks: Sequence[str], names: Sequence[str]) -> str:
    """The candidate with the best mean rank, the first of several."""
    ranks = mean_ranks(half, networks, names)
    return min(ranks, key=ranks.__getitem__)


def presets(names: Sequence[str]) -> list[str]:
    """Candidates without a hyperparameter that was varied."""
    return [name for name in names if "(" not in name]


def compare(half: Half, network: str, chosen: str, other: str) -> dict[str, tuple[float, float]]:
    """By measure, the mean difference of two candidates and half of its 95 % interval."""
    found = {}
    for (held, measure), (names, scores) in half.items():
        if held == network and other in names:
            gap = scores[names.index(chosen)] - scores[names.index(other)]
            error = 1.96 * gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else np.inf
            found[measure] = float(gap.mean()), float(error)
    return found


def report(found: Sequence[Scores]) -> tuple[str, bool]:
    """All tables in Markdown, and whether the chosen ones lose to the default on most pairs."""
    first, second = half_of(found, False), half_of(found, True)
    families: dict[str, list[str]] = {}
    for one in found:
        families.setdefault(one.family, []).append(one.network)
    parts, wins, pairs = [], 0, 0
    for family, networks in families.items():
        held = [list(one.of) for one in found if one.family == family]
        names = list(dict.fromkeys(name for each in held for name in each))
        shared = common(first, networks)
        left_out = {n: [m for m in networks if m != n] or [n] for n in networks}
        chosen = {n: choose(first, others, shared) for n, others in left_out.items()}
        parts += [f"## {family}", _left_out(second, chosen)]
        counts = _counts(second, chosen, presets(names))
        parts.append(_counted("Chosen on the other networks", counts))
        final = choose(first, networks, shared)
        of_all = _counts(second, dict.fromkeys(networks, final), presets(names))
        parts.append(_counted(f"`{final}`, chosen on all networks", of_all))
        parts.append(_whole(second, networks, names, mean_ranks(first, networks, shared)))
        least, _, total = counts[DEFAULT]
        wins, pairs = wins + least, pairs + total
    verdict = f"Chosen on other networks: at least as good as `default` on {wins} of {pairs} pairs."
    return "\n\n".join([*parts, verdict]) + "\n", 2 * wins < pairs


def _counts(
    half: Half, chosen: Mapping[str, str], others: Sequence[str]
) -> dict[str, tuple[int, int, int]]:
    """By preset: on how many pairs it is no better, on how many better beyond chance; of how many."""
    found = {}
    for other in others:
        gaps = [g for n, c in chosen.items() for g in compare(half, n, c, other).values()]
        least = sum(gap >= -1e-6 for gap, _ in gaps)
        found[other] = least, sum(gap < -max(error, 1e-6) for gap, error in gaps), len(gaps)
    return found


def _counted(title: str, counts: Mapping[str, tuple[int, int, int]]) -> str:
    lines = [f"{title}, other half of the samples:", ""]
    lines += ["| compared with | at least as good | worse beyond chance |", "|---|---|---|"]
    for name, (least, worse, total) in counts.items():
        lines.append(f"| {name} | {least} of {total} | {worse} |")
    return "\n".join(lines)


def _left_out(half: Half, chosen: Mapping[str, str]) -> str:
    head = "network left out", "chosen on the others", "measure", "chosen", "default", "difference"
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for network, name in chosen.items():
        for measure, (gap, error) in compare(half, network, name, DEFAULT).items():
            names, scores = half[network, measure]
            own, default = (scores[names.index(n)].mean() for n in (name, DEFAULT))
            lines.append(
                f"| {network} | {name} | {measure} | {own:.3f} | {default:.3f} | {gap:+.3f} ± {error:.3f} |"
            )
    return "\n".join(lines)


def _whole(
    half: Half, networks: Sequence[str], names: Sequence[str], ranks: Mapping[str, float]
) -> str:
    """Means of all candidates on the other half, by their mean rank on the first one."""
    columns = [pair for pair in half if pair[0] in networks]
    lines = [
        "| candidate | mean rank, first half | "
        + " | ".join(f"{n}, {m}" for n, m in columns)
        + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for name in sorted(names, key=lambda name: ranks.get(name, np.inf)):
        cells = [
            f"{scores[held.index(name)].mean():.3f}" if name in held else ""
            for held, scores in (half[pair] for pair in columns)
        ]
        rank = f"{ranks[name]:.1f}" if name in ranks else ""
        lines.append(f"| {name} | {rank} | {' | '.join(cells)} |")
    return "\n".join(lines)
