"""Attribution to training samples by the dual variables of an SVM, and the pair's heat maps."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._described import described
from jaxlrp.explanation.explainer import Explainer
from jaxlrp.explanation.result import Explanation
from jaxlrp.training_data import given


class OverSamples(abc.ABC):
    """Scores that are sums over training samples: w_c . phi(x) = sum_i alpha_ic <phi_i, phi(x)>."""

    features: Array
    labels: Array
    alpha: Array
    weights: Array

    def __call__(self, features: ArrayLike) -> Array:
        """The scores w_c . phi(x), (T, K)."""
        return jnp.matmul(self._features(features), self.weights.T, precision="highest")

    def attribute(self, features: ArrayLike, targets: ArrayLike) -> Array:
        """What each training sample adds to the score of a class: tau_ti = alpha_ic <phi_i, phi(x_t)>.

        Args:
          features: phi(x), (T, D).
          targets: classes c, integers (T,).

        Returns:
          tau, (T, N); larger = supports. Each row sums to w_c . phi(x).
        """
        phi = self._features(features)
        c = given.as_labels("targets", targets, len(phi), self.alpha.shape[1])
        return self.alpha[:, c].T * jnp.matmul(phi, self.features.T, precision="highest")

    def self_influence(self) -> Array:
        """What each training sample adds to the score of its own label: alpha_iy |phi_i|^2, (N,), >= 0.

        Large for samples that are hard to fit, such as mislabeled ones.
        """
        own = jnp.take_along_axis(self.alpha, self.labels[:, None], axis=1)[:, 0]
        return own * (self.features**2).sum(-1)

    def agreement(self, features: ArrayLike, predictions: ArrayLike) -> Array:
        """The share of samples to which the SVM gives the same class as the network.

        Args:
          features: (T, D).
          predictions: classes of the network, integers (T,).
        """
        scores = self(features)
        c = given.as_labels("predictions", predictions, len(scores), self.alpha.shape[1])
        return (scores.argmax(-1) == c).mean()

    def _features(self, features: ArrayLike) -> Array:
        phi = given.as_features("features", features, self.features.shape[1])
        return phi.astype(self.features.dtype)


@described
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class DualView(OverSamples):
    r"""A fitted multiclass SVM; `fit_svm` makes it.

    Attributes:
      features: phi_i, (N, D).
      labels: (N,).
      alpha: dual variables, (N, K). A row sums to zero; a row of zeros is a sample that has no part in any
        prediction.
      weights: w, (K, D).
      C: as given.
      gap: relative duality gap that was reached.
      epochs: how often the solver went over all samples.
    """

    features: Array
    labels: Array
    alpha: Array
    weights: Array
    C: Array
    gap: Array
    epochs: Array


class PairMaps(NamedTuple):
    """What makes a training sample support a prediction, in both inputs.

    Attributes:
      test: relevance of the explained inputs, an `Explanation`.
      train: relevance of the training inputs, an `Explanation`.
      contribution: tau, (P,), the sum of either relevance, up to what rules absorb.
    """

    test: Explanation
    train: Explanation
    contribution: Array


def pair_maps(
    view: OverSamples,
    encoder: Explainer,
    test: Sequence[Any],
    train: Sequence[Any],
    *,
    rows: ArrayLike,
    targets: ArrayLike,
) -> PairMaps:
    r"""Heat maps of pairs of an explained and a training sample: what in one meets what in the other.

    tau = alpha_ic sum_d phi_d(x) phi_d(x_i)

    is shared by LRP among the inputs of either sample; relevance begins at the features, with
    alpha_ic phi(x) * phi(x_i). Both maps sum to tau, up to what rules absorb: where the
    encoder conserves relevance, they are the sums over rows and columns of `higher_order.pairs`, times
    alpha_ic.

    Args:
      view: from `fit_svm` or `fit_representer`.
      encoder: the result of `jaxlrp.explain` for a function that computes features (P, D), with its
        rules and `argnums`.
      test: the arguments of the encoder for P explained samples, such as `(variables, x)`.
      train: the arguments for P training samples, one for each explained one.
      rows: which training samples these are, integers (P,).
      targets: classes c, integers (P,).

    Returns:
      `PairMaps`.

    Raises:
      TypeError: if the encoder is no explainer.
      ValueError: if its relevance does not begin at its output, or its features of the training inputs are
        not those of the given rows.

    References:
      Yolcu et al. (2025), https://arxiv.org/abs/2402.12118. They begin with the features of the other
      sample alone, and their maps do not sum to tau.

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> from jaxlrp import training_data
      >>> x = jnp.array([[1.0, 0.0], [2.0, 0.5], [0.0, 1.0], [0.5, 2.0]])
      >>> encoder = lrp.explain(lambda x: x @ jnp.array([[1.0, 2.0], [3.0, 1.0]]))
      >>> view = training_data.fit_svm(encoder.model.fun(x), jnp.array([0, 0, 1, 1]))
      >>> maps = training_data.pair_maps(view, encoder, (x[:1],), (x[1:2],), rows=[1], targets=[0])
      >>> bool(jnp.allclose(maps.test.relevance.sum(1), maps.contribution, rtol=1e-4))
      True
    """
    if not isinstance(encoder, Explainer):
        raise TypeError(f"encoder must be the result of jaxlrp.explain(...), got {encoder!r}")
    if not encoder.conserves:
        raise ValueError(
            "the encoder's relevance must begin at its output and not be a gradient: leave out start, and "
            "take another composite than gradient()"
        )
    index = np.asarray(rows)
    index = given.as_labels("rows", index, index.size, len(view.features))
    c = given.as_labels("targets", targets, index.size, view.alpha.shape[1])
    alpha, features = view.alpha[index, c][:, None], view.features[index]

    def seed(out: Array, other: Array) -> Array:
        if out.shape != features.shape:
            raise ValueError(
                f"the encoder must compute features of shape {features.shape}, one row for each of rows, "
                f"got {out.shape}"
            )
        dtype = jnp.promote_types(out.dtype, other.dtype)
        return (alpha.astype(dtype) * out.astype(dtype) * other.astype(dtype)).astype(out.dtype)

    of_test = encoder(*test, target=lambda out: seed(out, features))
    of_train = encoder(*train, target=lambda out: seed(out, of_test.output))
    _check_rows(of_train.output, features)
    outputs = of_test.output.astype(features.dtype)
    return PairMaps(of_test, of_train, (alpha * features * outputs).sum(-1))


def _check_rows(computed: Array, features: Array) -> None:
    scale = jnp.abs(features).max()
    off = jnp.abs(computed.astype(features.dtype) - features).max()
    if not bool(off <= 1e-2 * scale):
        raise ValueError(
            "train must be the inputs of the training samples that rows names: their features differ by up "
            f"to {float(off):.3g} from those that the view was fitted to"
        )
