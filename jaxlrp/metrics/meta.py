"""Meta-evaluation: which metric can you trust (MetaQuantus)?

A good metric ignores changes that do not matter and reacts to changes that do. Each sample's score is
computed again after a small change of the model or of the input (noise resilience, NR) and after a large
one (adversarial reactivity, AR), for several explainers:

    IAC   within one explainer: p, of a Wilcoxon signed-rank test of scores before and after, for NR;
          1 - p for AR
    IEC   among explainers: the share of ranks of explainers that stay, for NR; the share of scores that
          are worse after the change, for AR
    MC    the mean of the four, in [0, 1]; a metric of random numbers with L explainers has about
          (0.5 + 0.5 + 1 / L + 0.5) / 4

Only samples whose predicted class stays the same (NR) or changes (AR) are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp._extras import need
from jaxlrp.metrics import given
from jaxlrp.metrics.metric import Metric, RobustnessMetric

Space = Literal["model", "input"]
Floats = np.ndarray
_SPACES: tuple[Space, ...] = ("model", "input")
_SIZES: dict[Space, tuple[float, float]] = {"model": (0.001, 2.0), "input": (0.001, 5.0)}


class Reliability(NamedTuple):
    """How a metric reacted to changes of the model or of the input.

    Attributes:
      iac_nr, iac_ar: consistency within explainers under small and under large changes, (iterations,).
      iec_nr, iec_ar: consistency among explainers, (iterations,).
      kept: the share of samples that count, under small and under large changes.
    """

    iac_nr: Floats
    iac_ar: Floats
    iec_nr: Floats
    iec_ar: Floats
    kept: tuple[float, float]

    @property
    def by_iteration(self) -> Floats:
        """Meta-consistency of each iteration, (iterations,), `nan` where one of the four is undefined."""
        return np.mean([self.iac_nr, self.iac_ar, self.iec_nr, self.iec_ar], axis=0)

    @property
    def meta_consistency(self) -> float:
        """The mean over iterations, in [0, 1], higher is better."""
        return float(self.by_iteration.mean())

    @property
    def deviation(self) -> float:
        """The standard deviation over iterations."""
        return float(self.by_iteration.std())


class MetaScore(NamedTuple):
    """How far a metric can be trusted.

    Attributes:
      model: under changes of the model's parameters; None where they were not changed.
      input: under changes of the inputs.
    """

    model: Reliability | None
    input: Reliability | None

    def __str__(self) -> str:
        lines = ["space   IAC-NR  IAC-AR  IEC-NR  IEC-AR  MC"]
        for space in self._fields:
            found = getattr(self, space)
            if found is not None:
                parts = "  ".join(f"{values.mean():6.3f}" for values in found[:4])
                mean, deviation = found.meta_consistency, found.deviation
                lines.append(f"{space:6}  {parts}  {mean:.3f} +- {deviation:.3f}")
        return "\n".join(lines)


def is_parameter(path: str) -> bool:
    """Whether a leaf of the variables is changed: all but running statistics, which must stay positive."""
    return "batch_stats" not in path


def meta_evaluate(
    metric: Metric,
    explainers: Mapping[str, Callable[..., Any]],
    predict: Callable[..., Any],
    variables: Any,
    inputs: ArrayLike,
    targets: ArrayLike,
    *,
    key: Array,
    spaces: Sequence[Space] = ("model", "input"),
    noise: Mapping[Space, tuple[float, float]] | None = None,
    perturbations: int = 5,
    iterations: int = 3,
    masks: ArrayLike | None = None,
    context: Mapping[str, ArrayLike] | None = None,
    changes: Callable[[str], bool] = is_parameter,
) -> MetaScore:
    """Noise resilience and adversarial reactivity of a metric.

    Parameters are multiplied by independent normal numbers with mean 1 and standard deviation `noise`;
    uniform numbers between -`noise` and `noise` are added to inputs. The given targets are then explained
    again.

    Scores that are `nan` are not counted. A change after which no sample is counted is left out; if this is
    true of all changes of an iteration, its results are `nan`: choose a different `noise`. For large
    changes of the input, the paper's 5 suits inputs with a range of about 1.

    Args:
      metric: one that says which direction is better.
      explainers: from names to functions from (variables, inputs, targets) to relevance or an
        `Explanation`; at least two. They are compiled, with the metric: JAX must be able to trace them.
      predict: from (variables, inputs) to outputs (n, classes).
      variables: the model's parameters, a pytree.
      inputs: (n, ...); floats for the space "input".
      targets: the class that is explained, (n,), or one for all.
      key: a random key.
      spaces: what is changed.
      noise: for each space the small and the large change; by default 0.001 and 2 for the model, 0.001
        and 5 for the input.
      perturbations: changes of each kind in an iteration, >= 1.
      iterations: >= 1.
      masks: for metrics of localization.
      context: further arguments of `predict` and the explainers by name, (n, ...) each.
      changes: from the path of a leaf of the variables, such as "params/Dense_0/kernel", to whether it is
        changed; by default all but "batch_stats". Integers are never changed.

    Returns:
      A `MetaScore`; print it for a table.

    Raises:
      TypeError, ValueError: naming the argument that is wrong.

    References:
      Hedström et al. (2023), https://arxiv.org/abs/2302.07265
    """
    check_count("perturbations", perturbations)
    check_count("iterations", iterations)
    x = given.as_inputs(inputs)
    _check(metric, explainers, spaces, x, masks)
    of_metric, of_changes = given.as_keys(key, 2, "meta_evaluate")
    classes, further = given.as_targets(targets, len(x)), given.as_context(context, len(x))
    _check_classes(
        jax.eval_shape(lambda v, x: predict(v, x, **further), variables, x), classes, len(x)
    )
    arguments = {
        "targets": classes,
        "masks": None if masks is None else jnp.asarray(masks),
        "context": further,
        # a metric that changes the parameters draws one model for all samples
        "key": of_metric
        if "variables" in metric.needs
        else given.as_keys(of_metric, len(x), metric.name),
    }
    subject = _Subject(
        [jax.jit(_scoring(metric, explain, predict)) for explain in explainers.values()],
        jax.jit(lambda v, x, context: predict(v, x, **context)),
        variables,
        x,
        arguments,
        jax.jit(lambda variables, size, key: _noisy(variables, size, key, changes)),
    )
    before = subject.scores(variables, x)
    sizes = {**_SIZES, **(noise or {})}
    found = {}
    for space in spaces:
        kinds = []
        for adverse, size in zip((False, True), sizes[space], strict=True):
            drawn = jax.random.fold_in(of_changes, 2 * _SPACES.index(space) + adverse)
            reactions = [
                reaction(before, subject.changed(space, size, k), adverse, metric)
                for k in jax.random.split(drawn, perturbations * iterations)
            ]
            kinds.append(np.array(reactions).reshape(iterations, perturbations, 3))
        found[space] = reliability(*kinds)
    return MetaScore(*(found.get(space) for space in _SPACES))


class Scores(NamedTuple):
    """What a metric says of all explainers.

    Attributes:
      scores: (explainers, n).
      classes: predicted, (n,).
    """

    scores: Floats
    classes: Floats


class _Subject(NamedTuple):
    """What is evaluated again after each change.

    Attributes:
      scored: for each explainer, from (variables, inputs, arguments) to the score of each sample.
      outputs: from (variables, inputs, context) to outputs.
      variables, inputs: before any change.
      arguments: targets, masks, context and keys by name.
      noisy: from (variables, standard deviation, key) to changed variables.
    """

    scored: list[Callable[..., Array]]
    outputs: Callable[..., Array]
    variables: Any
    inputs: Array
    arguments: dict[str, Any]
    noisy: Callable[..., Any]

    def scores(self, variables: Any, inputs: Array) -> Scores:
        scores = [np.asarray(fun(variables, inputs, self.arguments)) for fun in self.scored]
        outputs = self.outputs(variables, inputs, self.arguments["context"])
        return Scores(np.stack(scores), np.asarray(outputs.argmax(axis=1)))

    def changed(self, space: Space, size: float, key: Array) -> Scores:
        """The scores after one change."""
        if space == "input":
            x = self.inputs
            drawn = jax.random.uniform(key, x.shape, x.dtype, minval=-size, maxval=size)
            return self.scores(self.variables, x + drawn)
        return self.scores(self.noisy(self.variables, size, key), self.inputs)


def _noisy(variables: Any, size: Any, key: Array, changes: Callable[[str], bool]) -> Any:
    """Variables whose floats are multiplied by normal numbers of mean 1, where `changes` says so."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(variables)
    made = []
    for i, (path, leaf) in enumerate(leaves):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) and changes(name):
            drawn = jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
            leaf = leaf * (1 + size * drawn)
        made.append(leaf)
    return jax.tree.unflatten(tree, made)


def _check(metric: Any, explainers: Any, spaces: Any, x: Array, masks: Any) -> None:
    if not isinstance(metric, Metric):
        raise TypeError(f"metric must be a Metric, got {type(metric).__name__}")
    if metric.higher_is_better is None:
        raise ValueError(
            f"{metric.name} does not say which direction is better, so no score can be worse; choose an "
            "option of it that does"
        )
    if metric.on_host:
        raise ValueError(
            f"{metric.name} runs on the host, so it cannot be compiled with explainers"
        )
    if "masks" in metric.needs and masks is None:
        raise TypeError(f"{metric.name} compares attributions with masks: pass masks")
    if not isinstance(explainers, Mapping) or len(explainers) < 2:
        raise ValueError(
            "explainers must be a dictionary from names to at least two functions, whose ranks are "
            "compared"
        )
    unknown = [space for space in spaces if space not in _SPACES]
    if unknown or not spaces:
        raise ValueError(f"spaces must be 'model', 'input' or both, got {spaces!r}")
    if "input" in spaces and not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"inputs must be floats to be changed, got {x.dtype}; use spaces=('model',)"
        )


def _check_classes(outputs: Any, targets: Array | None, n: int) -> None:
    given.check_outputs(targets, outputs, n)
    if len(outputs.shape) != 2 or outputs.shape[1] < 2:
        raise ValueError(
            f"predict must return (n, classes) with at least two classes, got {outputs.shape}"
        )


def _scoring(
    metric: Metric, explain: Callable[..., Any], predict: Callable[..., Any]
) -> Callable[[Any, Array, dict[str, Any]], Array]:
    """From (variables, inputs, arguments) to the metric's score of an explainer's explanations."""

    def score(variables: Any, inputs: Array, arguments: dict[str, Any]) -> Array:
        bound = "variables" not in metric.needs
        targets, context = arguments["targets"], arguments["context"]
        held: dict[str, Any] = {
            "predict": (lambda x, **c: predict(variables, x, **c)) if bound else predict,
            "explain": (lambda x, y, **c: explain(variables, x, y, **c)) if bound else explain,
            "variables": variables,
            "inputs": inputs,
            "targets": targets,
            "masks": arguments["masks"],
        }
        if "attributions" in metric.needs:
            found = explain(variables, inputs, targets, **context)
            held["attributions"] = given.as_attributions(found, inputs)
        options = {"key": arguments["key"]} if metric.random else {}
        if context and {"predict", "explain"} & set(metric.needs):
            options["context"] = context
        if isinstance(metric, RobustnessMetric) and metric.uses_outputs:
            options["predict"] = held["predict"]
        return metric(*(held[name] for name in metric.needs), **options)  # type: ignore[operator]

    return score


def reaction(before: Scores, after: Scores, adverse: bool, metric: Metric) -> Floats:
    """(IAC, IEC, share of samples that count) of one change; the first two `nan` where none counts."""
    counts = (after.classes == before.classes) != adverse
    finite = (np.isfinite(before.scores) & np.isfinite(after.scores)).all(axis=0)
    share, counts = counts.mean(), counts & finite
    if not counts.any():
        return np.array([np.nan, np.nan, share])
    q, r = before.scores[:, counts], after.scores[:, counts]
    p = np.mean([_p_value(a, b) for a, b in zip(q, r, strict=True)])
    if adverse:
        iec = (r < q).mean() if metric.higher_is_better else (r > q).mean()
    else:
        iec = (q.argsort(axis=0, kind="stable") == r.argsort(axis=0, kind="stable")).mean()
    return np.array([1 - p if adverse else p, iec, share])


def _p_value(before: Floats, after: Floats) -> float:
    """Of a two-sided Wilcoxon signed-rank test; zero differences are split between the two signs."""
    if len(before) == 1 or (before == after).all():
        return 1.0
    stats = need("scipy.stats", "meta_evaluate", "metrics")
    return float(stats.wilcoxon(before, after, zero_method="zsplit").pvalue)


def reliability(small: Floats, large: Floats) -> Reliability:
    """The means over changes, of reactions (iterations, changes, 3)."""

    def mean(values: Floats) -> Floats:
        known = np.isfinite(values)
        number = known.sum(axis=1)
        total = np.where(known, values, 0.0).sum(axis=1)
        return np.where(number > 0, total / np.maximum(number, 1), np.nan)

    return Reliability(
        mean(small[..., 0]), mean(large[..., 0]), mean(small[..., 1]), mean(large[..., 1]),
        (float(small[..., 2].mean()), float(large[..., 2].mean())),
    )  # fmt: skip
