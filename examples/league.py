"""What the three evaluate_*.py share: the league table, and what its metrics are worth."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import Array

from jaxlrp import metrics
from jaxlrp.metrics import figures
from jaxlrp.metrics.metric import ComplexityMetric, metric


@metric
class Chance(ComplexityMetric):
    """A random number for each explanation, which measures nothing: the control of a meta-evaluation."""

    @property
    def higher_is_better(self) -> bool:
        return True

    def _compute(self, attributions: Array) -> Array:
        flat = attributions.reshape(len(attributions), -1)
        return metrics.controls.Random(shared=(0,))(flat)[:, 0]


def meta_table(
    chosen: Mapping[str, metrics.Metric],
    explainers: Mapping[str, Callable[..., Any]],
    predict: Callable[..., Any],
    variables: Any,
    data: Mapping[str, Any],
    context: Mapping[str, Any],
) -> str:
    """How reliable each metric is on these data, in Markdown, beside random numbers.

    Args:
      chosen: metrics by name.
      explainers: the results of `jaxlrp.explain`, or baselines, by name.
      predict: from (variables, inputs), and `context` by name, to outputs (n, classes).
      variables: of the model.
      data: "input", "target" and "mask", as `metrics.evaluate` takes them.
      context: further arguments of the model by name, (n, ...) each.
    """

    def with_target(explain: Callable[..., Any]) -> Callable[..., Any]:
        return lambda v, x, y, **context: explain(v, x, target=y, **context)

    wrapped = {name: with_target(explain) for name, explain in explainers.items()}
    lines = ["| metric | changed model | changed input |", "|---|---|---|"]
    for name, each in {**chosen, "random numbers": Chance()}.items():
        found = metrics.meta_evaluate(
            each, wrapped, predict, variables, data["input"], data["target"], key=jax.random.key(2),
            masks=data["mask"], context=context, noise={"model": (0.001, 0.5)}, perturbations=3,
            iterations=2,
        )  # fmt: skip
        spaces = (found.model, found.input)
        cells = [f"{s.meta_consistency:.3f} +- {s.deviation:.3f}" for s in spaces if s is not None]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def report(found: metrics.Evaluation, path: pathlib.Path, title: str) -> None:
    """Prints the table, and writes it with the scores of all samples and the figures.

    Args:
      found: the evaluation.
      path: of the files, without a suffix.
      title: of the table.
    """
    table = found.table()
    print(f"{title}\n\n{table}\n")
    text = f"# {title}\n\n{table.markdown()}\n"
    path.with_suffix(".md").write_text(text, "utf8")
    path.with_suffix(".csv").write_text(found.csv(), "utf8")
    figure = figures.bars(table, title=title)
    figure.savefig(path.with_suffix(".png"), dpi=120, bbox_inches="tight")
    print(f"written: {path}.md, .csv, .png")


def add_meta(meta: str, path: pathlib.Path) -> None:
    """Adds a meta-evaluation, in Markdown, to the table that `report` has written."""
    with path.with_suffix(".md").open("a", encoding="utf8") as file:
        file.write(f"\n## Meta-consistency of the metrics\n\n{meta}\n")


def beats_chance(found: metrics.Evaluation, explainer: str, names: tuple[str, ...]) -> bool:
    """Whether an explainer has a better mean than random attributions by each of some metrics."""
    table = found.select((explainer, "random"), names).table()
    for j, name in enumerate(names):
        if table.rank[0, j] != 1:
            own, other = table.value[:, j]
            print(f"FAILED: {name} of {explainer} is {own:.3f}, of random attributions {other:.3f}")
            return False
    return True
