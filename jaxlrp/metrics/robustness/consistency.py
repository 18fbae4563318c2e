"""Consistency: samples with the same explanation should have the same prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.metrics import given
from jaxlrp.metrics.features import Elements, Features
from jaxlrp.metrics.metric import Case, Metric, Predict, metric
from jaxlrp.metrics.robustness.discretize import Top
from jaxlrp.metrics.work import in_batches


@metric
class Consistency(Metric):
    r"""The share of the samples with the same explanation that have the same predicted class.

    `discretize` turns attributions into discrete codes. For sample i, with E_i the other samples with its
    code:

        |{j in E_i : class(x_j) = class(x_i)}| / |E_i|

    Higher is better, in [0, 1]. The score of a sample depends on the other samples: call it once with the
    whole set, of hundreds of samples or more. A code that is too coarse is shared by samples of all
    classes, one that is too fine by none; report the share of samples that are not `nan` together with the
    mean.

    Undefined (`nan`) if no other sample has the same code, or attributions are not finite.

    Attributes:
      discretize: from attributions of features (n, features) to codes (n, k); two explanations are the same
        where all k codes are equal. See `jaxlrp.metrics.discretize`.
      features: whose attributions are discretized.
      batch_size: how many inputs are evaluated at once, >= 1.

    References:
      Dasgupta et al. (2022), https://arxiv.org/abs/2202.00734

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> same = metrics.Consistency(discretize=metrics.discretize.Signs())
      >>> x = jnp.array([[1.0, 0.0], [2.0, 0.0], [1.0, 3.0], [0.0, 1.0]])
      >>> a = jnp.array([[1.0, 2.0], [2.0, 3.0], [1.0, 1.0], [-1.0, 1.0]])
      >>> same(lambda x: x, x, a).tolist()
      [0.5, 0.5, 0.0, nan]
    """

    discretize: Callable[[Array], Array] = Top(5)
    features: Features = Elements()
    batch_size: int = 1024
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs: ClassVar[tuple[str, ...]] = ("predict", "inputs", "attributions")
    compares_samples: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size)
        if isinstance(self.discretize, type) or not callable(self.discretize):
            raise TypeError(
                "discretize must be a function of attributions (n, features), such as "
                f"metrics.discretize.Top(5), got {self.discretize!r}"
            )

    @property
    def higher_is_better(self) -> bool:
        return True

    def __call__(
        self,
        predict: Predict,
        inputs: ArrayLike,
        attributions: Any,
        *,
        context: Mapping[str, ArrayLike] | None = None,
    ) -> Array:
        """The score of each sample.

        Args:
          predict: from inputs (n, ...) to outputs (n, classes); the class is that of the largest.
          inputs: (n, ...), of the whole set.
          attributions: (n, ...) of the shape of the inputs, up to axes of length 1; or an `Explanation`.
          context: further arguments of `predict` by name, (n, ...) each.

        Returns:
          (n,), `nan` where no other sample has the same explanation.

        Raises:
          TypeError, ValueError: naming the argument that is wrong.
        """
        given.check_predict(predict)
        x = given.as_inputs(inputs)
        a = given.as_attributions(attributions, x)
        case = Case(predict, x, a, None, given.as_context(context, len(x)), None)
        return self._run("score", type(self)._scored, case)

    def _check(self, arguments: Any, shapes: Any) -> None:
        shape = getattr(shapes, "shape", None)
        if shape is None or len(shape) != 2 or shape[1] < 2:
            got = type(shapes).__name__ if shape is None else shape
            raise ValueError(
                f"predict must return (n, classes) with at least two classes, got {got}"
            )

    def _scored(self, case: Case) -> tuple[Array, Any]:
        shapes = case.shapes()
        self._check(case, shapes)
        everyone = jnp.arange(len(case.inputs))
        classes = in_batches(
            lambda i: case.outputs(case.inputs[i], i).argmax(axis=1), everyone, self.batch_size
        )
        finite = given.finite(case.attributions)
        words = self.discretize(self.features.total(case.attributions, case.inputs.shape))

        def one(i: Array) -> Array:
            alike = (words == words[i]).all(axis=1) & finite & (everyone != i)
            agree = alike & (classes == classes[i])
            return agree.sum() / alike.sum()

        return jnp.where(finite, lax.map(one, everyone), jnp.nan), shapes
