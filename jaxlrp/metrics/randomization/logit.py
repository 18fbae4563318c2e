"""Do explanations of two classes differ?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp._compat import is_traced
from jaxlrp.metrics import given
from jaxlrp.metrics.metric import Explain, Explained, Metric, metric
from jaxlrp.metrics.similarity import Similarity, Spearman, check_similarity
from jaxlrp.metrics.work import in_batches


@metric
class RandomLogit(Metric):
    """How similar the explanation of the target is to that of another class, drawn at random.

    similarity(a(c), a(c')), c' != c; by default the rank correlation, with signs. An explanation that is
    the same for all classes, or only flips its sign, says nothing about the class: look at the magnitude of
    the similarity. Two classes that look alike may rightly have similar explanations, though.

    Lower is better, from -1 to 1. Undefined (`nan`) where the similarity is, and where attributions are not
    finite.

    Attributes:
      classes: how many there are, >= 2; c' is one of them.
      similarity: of two explanations.
      batch_size: how many samples are explained at once, >= 1.

    References:
      Sixt et al. (2020), https://arxiv.org/abs/1912.09818

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import metrics
      >>> w = jnp.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
      >>> explain = lambda x, y: x * w.T[y]
      >>> test = metrics.RandomLogit(classes=2)
      >>> test(explain, jnp.ones((2, 3)), jnp.array([0, 1]), key=jax.random.key(0)).round(3).tolist()
      [-1.0, -1.0]
    """

    classes: int
    similarity: Similarity = Spearman()
    batch_size: int = 128
    needs: ClassVar[tuple[str, ...]] = ("explain", "inputs", "targets")
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        if check_count("classes", self.classes) < 2:
            raise ValueError("classes must be an integer >= 2, got 1: there is no other class")
        check_similarity(self.similarity)
        check_count("batch_size", self.batch_size)

    @property
    def higher_is_better(self) -> bool:
        return False

    @property
    def random(self) -> bool:
        return True

    def __call__(
        self,
        explain: Explain,
        inputs: ArrayLike,
        targets: ArrayLike,
        *,
        context: Mapping[str, ArrayLike] | None = None,
        key: Array | None = None,
    ) -> Array:
        """The score of each sample.

        Args:
          explain: from (inputs, targets) to relevance or an `Explanation`. A sample's attributions must not
            depend on the other samples.
          inputs: (n, ...).
          targets: the class of each sample, (n,), or one for all.
          context: further arguments of `explain` by name, (n, ...) each.
          key: a random key, or one for each sample.

        Returns:
          (n,).

        Raises:
          TypeError, ValueError, IndexError: naming the argument that is wrong.
        """
        if not callable(explain):
            raise TypeError(
                f"explain must be a function of (inputs, targets), got {type(explain).__name__}"
            )
        x = given.as_inputs(inputs)
        y = given.as_targets(targets, len(x))
        if y is None:
            raise TypeError("targets is missing: pass one class for each sample")
        if not is_traced(y) and not np.all((np.asarray(y) >= 0) & (np.asarray(y) < self.classes)):
            raise IndexError(f"targets must be in [0, {self.classes - 1}], got {np.asarray(y)}")
        keys = given.as_keys(key, len(x), self.name)
        case = Explained(explain, None, x, y, given.as_context(context, len(x)), keys)
        return self._run("score", type(self)._scored, case)

    def _scored(self, case: Explained) -> tuple[Array, Any]:
        assert case.keys is not None
        assert case.targets is not None
        # Small types of targets, such as uint8, may not hold every class.
        targets = case.targets.astype(int)
        drawn = jax.vmap(lambda key: jax.random.randint(key, (), 0, self.classes - 1))(case.keys)
        other = drawn.astype(targets.dtype)
        other = other + (other >= targets).astype(other.dtype)

        def compared(items: Any) -> Array:
            x, first, second, named = items
            found = [given.as_attributions(case.explain(x, y, **named), x) for y in (first, second)]
            return self.similarity(*found)

        items = case.inputs, targets, other, case.context
        return in_batches(compared, items, self.batch_size), None
