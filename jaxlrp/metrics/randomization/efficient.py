"""Is the explanation of a trained model less random than that of a random one?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.metrics.metric import metric
from jaxlrp.metrics.randomization.models import ExplainModel, OfModels
from jaxlrp.metrics.randomization.order import leaf_layers, ordered
from jaxlrp.metrics.randomization.randomize import initialized, replaced


class Entropies(NamedTuple):
    """Entropies of explanations, in nats.

    Attributes:
      trained, randomized: of the two models, (n,).
    """

    trained: Array
    randomized: Array


def histogram_entropy(values: Array, bins: int) -> Array:
    """The entropy of the histogram of each row, (n,), in nats; 0 where all its values are equal.

    Args:
      values: floats (n, m).
      bins: how many bins of equal width lie between the least and the largest value of the row.
    """

    def one(row: Array) -> Array:
        edges = jnp.linspace(row.min(), row.max(), bins + 1)
        # The last bin holds the largest value, too.
        place = jnp.clip(jnp.searchsorted(edges, row, side="right") - 1, 0, bins - 1)
        count = jax.ops.segment_sum(jnp.ones_like(row), place, bins)
        p = count / row.size
        entropy = jnp.where(p > 0, -p * jnp.log(jnp.where(p > 0, p, 1)), 0).sum()
        return jnp.where(row.max() > row.min(), entropy, 0)

    return jax.vmap(one)(values)


@metric
class EfficientMPRT(OfModels):
    """How much the entropy of explanations rises when all parameters are randomized (eMPRT).

    (H(a_random) - H(a)) / H(a), where H is the entropy of the histogram of the attributions of a sample,
    with their signs. It takes two explanations of each sample. It does not compare positions, so it does
    not detect whether both explanations mark the same ones. A method that smooths the explanation of a
    random model gets a low score, whatever it shows for a trained model.

    Higher is better, from -1 upward; 0 for an explanation that does not depend on parameters. Undefined
    (`nan`) where attributions of the trained model are all equal, and where attributions are not finite.

    Attributes:
      model: a Linen module; or a function from a random key to variables or to a new NNX module.
      layers: those to randomize, None for all; their order does not matter.
      batch_size: how many samples are explained at once, >= 1.
      bins: of the histograms, >= 2.

    References:
      Hedström et al. (2024), https://arxiv.org/abs/2401.06465

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import linen as nn
      >>> from jaxlrp import metrics
      >>> model = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)])
      >>> x = jax.random.normal(jax.random.key(0), (5, 30))
      >>> variables = model.init(jax.random.key(1), x)
      >>> of_input = lambda variables, x, y: x  # ignores the model
      >>> metrics.EfficientMPRT(model=model)(of_input, variables, x, key=jax.random.key(2)).tolist()
      [0.0, 0.0, 0.0, 0.0, 0.0]
    """

    bins: int = 100
    bounds: ClassVar[tuple[float, float]] = (-1.0, float("inf"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if check_count("bins", self.bins) < 2:
            raise ValueError("bins must be an integer >= 2, got 1")

    @property
    def higher_is_better(self) -> bool:
        return True

    def __call__(
        self,
        explain: ExplainModel,
        variables: Any,
        inputs: ArrayLike,
        targets: ArrayLike | None = None,
        *,
        context: Mapping[str, ArrayLike] | None = None,
        key: Array | None = None,
    ) -> Array:
        """The score of each sample, (n,); arguments as for `MPRT`."""
        found = self.entropies(explain, variables, inputs, targets, context=context, key=key)
        defined = found.trained > 0
        rise = (found.randomized - found.trained) / jnp.where(defined, found.trained, 1)
        return jnp.where(defined, rise, jnp.nan)

    def entropies(
        self,
        explain: ExplainModel,
        variables: Any,
        inputs: ArrayLike,
        targets: ArrayLike | None = None,
        *,
        context: Mapping[str, ArrayLike] | None = None,
        key: Array | None = None,
    ) -> Entropies:
        """Both entropies of each sample; arguments as in a call."""
        case = self._case(explain, variables, inputs, targets, context, key)
        layers = leaf_layers(variables) if self.layers is None else ordered(self.layers, variables)
        fresh = initialized(self.model, case.key, case.inputs[:1])
        changed = replaced(variables, fresh, {layer for layer in layers if layer})
        maps = [self._explained(case, v) for v in (variables, changed)]
        return Entropies(*(self._compiled("entropy", _entropy, a, self.bins) for a in maps))


def _entropy(attributions: Array, bins: int) -> Array:
    flat = attributions.reshape(len(attributions), -1)
    return jnp.where(jnp.isfinite(flat).all(axis=1), histogram_entropy(flat, bins), jnp.nan)
