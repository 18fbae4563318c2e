"""Do explanations change when the model's parameters are randomized, layer by layer?"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_at_least, check_count, check_one_of
from jaxlrp.metrics import given
from jaxlrp.metrics.metric import metric
from jaxlrp.metrics.randomization.models import ExplainModel, OfModels, Trained, smoothed
from jaxlrp.metrics.randomization.randomize import ORDERS, Order, randomize
from jaxlrp.metrics.similarity import Similarity, Spearman, check_similarity


class Similarities(NamedTuple):
    """How similar explanations remain, layer by layer.

    Attributes:
      layers: the layer that was randomized last, (layers,).
      classical: similarity of the explanations of the trained and of the randomized model, (n, layers).
      forward: the similarity that the forward pass explains: that of the explanations of two models which
        share only the input and the layers that are not randomized; or, with `control`, the classical
        similarity of that explanation.
      corrected: classical - forward.
    """

    layers: tuple[str, ...]
    classical: Array
    forward: Array
    corrected: Array


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _LayerByLayer(OfModels):
    """A metric of the similarity of explanations while layers are randomized.

    Attributes:
      order: which layers are randomized; see `randomize`.
      similarity: of two explanations.
      reading: "classical" or "corrected"; see `Similarities`.
      control: an explanation that is known to depend on all parameters, a function like `explain`; None to
        compare two randomized models.
      summary: "mean" over layers, or "last" for that after the last layer.
    """

    order: Order = "top_down"
    similarity: Similarity = Spearman(absolute=True)  # noqa: RUF009, a frozen value
    reading: Literal["classical", "corrected"] = "classical"
    control: ExplainModel | None = None
    summary: Literal["mean", "last"] = "mean"
    bounds: ClassVar[tuple[float, float]] = (-2.0, 2.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_similarity(self.similarity)
        check_one_of("order", self.order, ORDERS)
        check_one_of("reading", self.reading, ("classical", "corrected"))
        check_one_of("summary", self.summary, ("mean", "last"))

    @property
    def higher_is_better(self) -> bool:
        return False

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
        """The score of each sample.

        Args:
          explain: from (variables, inputs, targets) to relevance or an `Explanation`, such as
            `lambda v, x, y: explainer(v, x, target=y)`. A sample's attributions must not depend on the
            other samples.
          variables: pytree of the trained parameters; for NNX, the state of the module.
          inputs: (n, ...). The first of them initializes a Linen module.
          targets: the class of each sample, (n,), or one for all; None for one output.
          context: further arguments of `explain` by name, (n, ...) each.
          key: a random key.

        Returns:
          (n,), `nan` where the similarity is undefined for one of the layers that count.

        Raises:
          TypeError, ValueError, KeyError: naming the argument that is wrong.
        """
        case = self._case(explain, variables, inputs, targets, context, key)
        found = self._similarities(case, corrected=self.reading == "corrected")
        values = found.corrected if self.reading == "corrected" else found.classical
        return values.mean(axis=1) if self.summary == "mean" else values[:, -1]

    def similarities(
        self,
        explain: ExplainModel,
        variables: Any,
        inputs: ArrayLike,
        targets: ArrayLike | None = None,
        *,
        context: Mapping[str, ArrayLike] | None = None,
        key: Array | None = None,
    ) -> Similarities:
        """Both readings, layer by layer; arguments as in a call."""
        case = self._case(explain, variables, inputs, targets, context, key)
        return self._similarities(case, corrected=True)

    def _similarities(self, case: Trained, corrected: bool) -> Similarities:
        keys = jax.random.split(case.key, 3)
        layers, maps = self._randomized(case, keys[0], keys[2])
        trained = self._maps(case, case.variables, keys[2])
        classical = jnp.stack([self._compared(trained, a) for a in maps], axis=1)
        if not corrected:
            nothing = jnp.full_like(classical, jnp.nan)
            return Similarities(layers, classical, nothing, nothing)
        if self.control is None:
            _, others = self._randomized(case, keys[1], keys[2])
            pairs = zip(maps, others, strict=True)
        else:
            case = case._replace(explain=self.control)
            trained = self._maps(case, case.variables, keys[2])
            pairs = ((trained, a) for a in self._randomized(case, keys[0], keys[2])[1])
        forward = jnp.stack([self._compared(a, b) for a, b in pairs], axis=1)
        return Similarities(layers, classical, forward, classical - forward)

    def _randomized(
        self, case: Trained, key: Array, noise: Array
    ) -> tuple[tuple[str, ...], list[Array]]:
        """The layers, and the explanations after each of them was randomized."""
        inputs = case.inputs[:1]
        models = randomize(
            self.model, case.variables, key, layers=self.layers, order=self.order, inputs=inputs
        )
        found = [(layer, self._maps(case, changed, noise)) for layer, changed in models]
        return tuple(layer for layer, _ in found), [a for _, a in found]

    def _compared(self, a: Array, b: Array) -> Array:
        return self._compiled("compare", lambda how, *pair: how(*pair), self.similarity, a, b)

    @abc.abstractmethod
    def _maps(self, case: Trained, variables: Any, key: Array) -> Array:
        """The explanations of a model, (n, ...)."""


@metric
class MPRT(_LayerByLayer):
    """How similar explanations stay when the parameters of layers are randomized, one after the other.

    similarity(a, a_l), where a_l is the explanation after layer l has been randomized as well; by default
    the rank correlation of |a|. An explanation that stays the same does not depend on what the model has
    learned.

    Do not rank methods by it. If a model is randomized from the top, its lower layers stay the same, and so
    does the set of large activations. Large activations contribute a lot under most weights, so even a
    correct explanation stays similar, and a map of noise, which says nothing, gets the best score.
    Therefore `similarities` also returns the similarity that the forward pass explains (`forward`), and the
    difference (`corrected`):

    * Without `control`, `forward` is the similarity between two models with independently randomized
      layers. If it equals the classical value, the similarity to the trained model comes from the kept
      layers and the input; it does not show whether the randomized layers matter for the explanation.
    * With a `control` that is known to depend on all parameters, such as input times gradient, `forward` is
      the similarity to expect from such an explanation. A corrected value well above zero means that the
      explanation depends too little on the randomized layers.

    Lower is better; from -1 to 1 for the classical reading, from -2 to 2 for the corrected one. Undefined
    (`nan`) if the similarity for one of the layers is undefined, usually because an explanation is zero, as
    after a layer that is initialized with zeros.

    Attributes:
      model: a Linen module; or a function from a random key to variables or to a new NNX module.
      layers: paths of layers from the input to the output, or a plan; None as for `randomize`.
      order: "top_down", "bottom_up" or "independent".
      similarity: of two explanations.
      reading: "classical" or "corrected".
      control: an explanation that is known to depend on all parameters, a function like `explain`.
      summary: "mean" over layers, or "last" for that after the last layer.
      batch_size: how many samples are explained at once, >= 1.

    References:
      Adebayo et al. (2018), https://arxiv.org/abs/1810.03292
      Binder et al. (2023), https://arxiv.org/abs/2211.12486

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import linen as nn
      >>> from jaxlrp import metrics
      >>> model = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)])
      >>> x = jax.random.normal(jax.random.key(0), (5, 3))
      >>> variables = model.init(jax.random.key(1), x)
      >>> def gradient(variables, x, y):
      ...     return jax.grad(lambda x: model.apply(variables, x)[:, 0].sum())(x)
      >>> test = metrics.MPRT(model=model)
      >>> found = test.similarities(gradient, variables, x, key=jax.random.key(2))
      >>> found.layers, found.classical.shape
      (('layers_2', 'layers_0'), (5, 2))
    """

    def _maps(self, case: Trained, variables: Any, key: Array) -> Array:
        return self._explained(case, variables)


@metric
class SmoothMPRT(_LayerByLayer):
    """MPRT of explanations averaged over noisy inputs, which reduces the noise in the explanations.

    a is the mean of `draws` explanations of x + noise (max(x) - min(x)) N(0, 1); the last draw has no
    noise. All models get the same noise. Layers are randomized from the input to the output, which destroys
    the activations that a top-down order keeps.

    Direction, range and undefined scores are those of `MPRT`.

    Attributes:
      model, layers, order, similarity, reading, control, summary, batch_size: as for `MPRT`.
      draws: how many noisy inputs, >= 1.
      noise: its standard deviation, in units of the range of the values of each sample, >= 0.

    References:
      Hedström et al. (2024), https://arxiv.org/abs/2401.06465
    """

    order: Order = "bottom_up"
    draws: int = 50
    noise: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("draws", self.draws)
        check_at_least("noise", self.noise, 0.0)

    def _case(
        self, explain: Any, variables: Any, inputs: Any, targets: Any, context: Any, key: Any
    ) -> Trained:
        case = super()._case(explain, variables, inputs, targets, context, key)
        if not jnp.issubdtype(case.inputs.dtype, jnp.floating):
            raise TypeError(
                f"inputs must be floats, because noise is added to them, got {case.inputs.dtype}"
            )
        return case

    def _maps(self, case: Trained, variables: Any, key: Array) -> Array:
        keys = given.as_keys(key, len(case.inputs), self.name)
        held = case.inputs, case.targets, case.context, self.batch_size
        return self._compiled(
            "smooth", smoothed, case.explain, variables, *held, keys, self.draws, self.noise
        )
