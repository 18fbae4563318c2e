r"""A network in which exposures can only raise a risk (CoOL).

    o(x) = R_b + sum_j H_j,   H_j = relu(sum_i x_i w_ij + b_j),   w_ij >= 0, b_j <= 0

A hidden unit whose bias is larger than each of its weights needs several exposures at once: a combined
cause. LRP shares H_j among the exposures that are present, R_i = sum_j x_i w_ij / (sum_k x_k w_kj) H_j.
The bias takes nothing, so R_b + sum_i R_i = o.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp._checks import check_count
from jaxlrp._described import described
from jaxlrp.causes.exposures import Exposures, as_exposures


@described
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class RiskNetwork:
    """A risk as a sum of a baseline and of combined causes; `fit` makes it.

    Attributes:
      weights: w, (D, H), >= 0.
      biases: b, (H,), <= 0.
      baseline: R_b, a number, >= 0: the risk of nobody in particular.
      losses: mean squared errors during training, (steps,).
      names: of the columns of exposures.
      factors: the factor of each column.
    """

    weights: Array
    biases: Array
    baseline: Array
    losses: Array
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    factors: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    def __call__(self, exposures: Exposures | ArrayLike) -> Array:
        """The risk of each person, (N,)."""
        return self.baseline + self._hidden(self._values(exposures)).sum(-1)

    def contributions(self, exposures: Exposures | ArrayLike) -> Array:
        r"""What each exposure adds to the risk, by LRP: (N, D). Plus the baseline they sum to the risk.

        R_i = sum_j x_i w_ij / (sum_k x_k w_kj) H_j
        """
        x = self._values(exposures)
        z = jnp.dot(x, self.weights, precision="highest")
        per_unit = jnp.where(z > 0, self._hidden(x) / jnp.where(z > 0, z, 1), 0)
        return x * jnp.dot(per_unit, self.weights.T, precision="highest")

    def alone(self, exposures: Exposures | ArrayLike) -> Array:
        r"""What each exposure would add if it were the only one: x_i sum_j relu(w_ij + b_j), (N, D)."""
        return self._values(exposures) * jax.nn.relu(self.weights + self.biases).sum(-1)

    def synergy(self, exposures: Exposures | ArrayLike) -> Array:
        r"""What exposures add only together, (N,): the risk, less the baseline and all `alone`; >= 0."""
        return self(exposures) - self.baseline - self.alone(exposures).sum(-1)

    def _hidden(self, x: Array) -> Array:
        return jax.nn.relu(jnp.dot(x, self.weights, precision="highest") + self.biases)

    def _values(self, exposures: Exposures | ArrayLike) -> Array:
        if _compat.is_traced(exposures):
            return jnp.asarray(exposures, self.weights.dtype)  # pyright: ignore[reportArgumentType]
        if isinstance(exposures, Exposures) and exposures.names != self.names:
            raise ValueError(
                f"exposures must have the columns of the network, {', '.join(self.names)}, got "
                f"{', '.join(exposures.names)}"
            )
        return jnp.asarray(as_exposures(exposures, self.factors).values, self.weights.dtype)


def fit(
    exposures: Exposures | ArrayLike,
    outcomes: ArrayLike,
    *,
    hidden: int = 10,
    n_init: int = 5,
    l1: float = 1e-3,
    steps: int = 5000,
    rate: float = 1e-3,
    key: Array | None = None,
    factors: Sequence[str] | None = None,
) -> RiskNetwork:
    r"""Trains the monotone network of causes of outcome learning (CoOL).

    1/N sum_n (o(x_n) - y_n)^2 + l1 sum_ij w_ij

    by Adam on all persons at once; w, b and R_b are projected after each step. Persons with the same
    exposures are one row with a weight, so that a million of them cost no more than a few.

    Nothing in it knows what causes what: a factor that is missing, such as one that drives both an
    exposure and the outcome, makes others look causal. The choice of exposures is yours, by a causal graph.

    Args:
      exposures: `one_hot(...)`, or an array (N, D) with `factors`.
      outcomes: y, (N,), 0 or 1: who fell ill.
      hidden: H, at least as many as combined causes are expected.
      n_init: how many networks are trained; the one of the smallest objective is returned. A single one
        may miss a combination of exposures.
      l1: >= 0, in units of squared risk. It removes exposures without an effect, and lowers risks: with
        the default, those of groups of a tenth of all people by about .01.
      steps: of Adam.
      rate: its learning rate, > 0, in units of risk. Faster training often ends in a worse minimum.
      key: of the first weights, `jax.random.key(0)` if None.
      factors: the factor of each column, if exposures are an array.

    Returns:
      A `RiskNetwork`.

    Raises:
      ValueError: if exposures are not one-hot, outcomes are not 0 or 1 or all the same, or an option is out
        of range.

    References:
      Rieckmann et al. (2022), "Causes of Outcome Learning: a causal inference-inspired machine learning
      approach to disentangling common combinations of potential causes of a health outcome",
      https://doi.org/10.1093/ije/dyac078

    Example:
      >>> import numpy as np
      >>> from jaxlrp import causes
      >>> drug, sex = np.arange(400) % 2, np.arange(400) // 2 % 2
      >>> y = (drug * sex == 1) & (np.arange(400) % 5 > 0)  # both together: a risk of .8
      >>> exposures = causes.one_hot({"drug": drug, "sex": sex})
      >>> network = causes.fit(exposures, y, l1=1e-4, rate=3e-3, steps=2000)
      >>> bool(abs(network(exposures)[3] - 0.8) < 0.05)
      True
      >>> r = network.contributions(exposures)
      >>> bool(np.allclose(network.baseline + r.sum(1), network(exposures), atol=1e-5))
      True
    """
    held = as_exposures(exposures, factors)
    y = np.asarray(outcomes)
    if y.shape != (len(held.values),) or not np.isin(y, (0, 1)).all():
        raise ValueError(
            f"outcomes must be 0 or 1 for each of {len(held.values)} persons, got {y.dtype} of shape "
            f"{y.shape}"
        )
    if y.min() == y.max():
        raise ValueError(f"outcomes must have both 0 and 1, got only {y[0]}")
    for name, value, least in (("l1", l1, 0), ("rate", rate, 1e-12)):
        if isinstance(value, str) or not least <= float(value) < np.inf:
            raise ValueError(f"{name} must be {'>= 0' if least == 0 else '> 0'}, got {value!r}")
    units, count = check_count("hidden", hidden), check_count("steps", steps)
    inits = check_count("n_init", n_init)
    rows, which, counts = np.unique(held.values, axis=0, return_inverse=True, return_counts=True)
    means = np.bincount(which.ravel(), weights=y.astype(float)) / counts
    dtype = jnp.zeros(()).dtype
    data = [jnp.asarray(a, dtype) for a in (rows, means, counts / counts.sum())]
    key = jax.random.key(0) if key is None else key
    first, last = jax.random.split(key)
    begun = (
        jax.random.uniform(first, (inits, rows.shape[1], units), dtype) * 0.1,
        -jax.random.uniform(last, (inits, units), dtype) * 0.1,
        jnp.full(inits, y.mean(), dtype),
    )
    train = jax.vmap(partial(_train, steps=count), (0, *[None] * 5))
    with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers
        trained = train(begun, *data, l1, rate)
    best = int(jnp.argmin(trained[2]))
    (w, b, baseline), losses, _ = jax.tree.map(lambda a: a[best], trained)
    return RiskNetwork(w, b, baseline, losses, held.names, held.factors)


@partial(jax.jit, static_argnames="steps")
def _train(
    params: Any, x: Array, means: Array, shares: Array, l1: float, rate: float, *, steps: int
) -> Any:
    optimizer = optax.adam(rate)
    noise = (shares * means * (1 - means)).sum()  # within rows, which no network can explain

    def loss(params: Any) -> tuple[Array, Array]:
        w, b, baseline = params
        o = baseline + jax.nn.relu(jnp.dot(x, w, precision="highest") + b).sum(-1)
        error = (shares * (o - means) ** 2).sum()
        return error + l1 * w.sum(), error + noise

    def step(held: Any, _: None) -> tuple[Any, Array]:
        params, state = held
        g, error = jax.grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(g, state, params)
        moved: Any = optax.apply_updates(params, updates)
        w, b, baseline = moved
        return ((jnp.maximum(w, 0), jnp.minimum(b, 0), jnp.maximum(baseline, 0)), state), error

    (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), None, steps)
    return params, losses, loss(params)[0]
