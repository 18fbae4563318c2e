"""Strategies of a model as a value: a Gaussian mixture of concept relevance for each class (PCX)."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from jaxlrp import _compat
from jaxlrp._checks import as_path
from jaxlrp.concepts.differences import Difference
from jaxlrp.concepts.mixtures import log_density

_BATCH = 16  # samples whose densities are computed together: bounds the memory of full covariances
_FORMAT, _VERSION = "jaxlrp.concepts.prototypes", 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Prototypes:
    r"""A Gaussian mixture of concept relevance for each class. A pytree; `prototypes` makes it.

        p(nu | y) = sum_k lambda_k N(nu; mu_k, Sigma_k)

    Each component is a strategy by which the model recognizes the class; its mean is the prototype. Classes
    may have different numbers of components: those that are missing have the weight 0.

    Its methods may be traced (`jax.jit`). A class that was not fitted raises an error, or gives NaN (and
    the component -1) if it is traced.

    Attributes:
      classes: (Y,), integers, ascending.
      weights: (Y, K), lambda, 0 for components that are missing.
      means: (Y, K, concepts), mu.
      whitening: (Y, K, concepts), one over the standard deviations; or (Y, K, concepts, concepts), W with
        `W W^T` the inverse of the covariance.
      samples: (Y, K), integers, the row of the sample nearest to each mean; -1 for missing components.
      coverage: (Y, K), the share of the samples of a class that is assigned to a component.
      count: (Y,), integers, the number of samples of each class.
      bic: (Y, candidates), the Bayesian information criterion of one component, two, ...; lower is better;
        NaN for numbers that were not tried.

    References:
      Dreyer et al. (2024), https://arxiv.org/abs/2311.16681
    """

    classes: Any
    weights: Any
    means: Any
    whitening: Any
    samples: Any
    coverage: Any
    count: Any
    bic: Any

    @property
    def n_components(self) -> np.ndarray:
        """(Y,), the number of components of each class."""
        return (np.asarray(self.weights) > 0).sum(axis=-1)

    def log_density(self, relevance: ArrayLike, classes: ArrayLike) -> Array:
        """`log N(nu; mu_k, Sigma_k)` of each component, without its weight.

        Args:
          relevance: (samples, concepts), normalized.
          classes: (samples,), or one class for all.

        Returns:
          (samples, K), -inf for components that are missing.

        Raises:
          ValueError: if a shape does not fit, or a class was not fitted.
        """
        return _densities(self, *self._of_class(relevance, classes))

    def outlier_score(self, relevance: ArrayLike, classes: ArrayLike | None = None) -> Array:
        r"""How unusual the use of concepts is, in nats: `-log p(nu | y)`.

        Without classes it is class-agnostic, to detect samples out of distribution:
        `-log sum_y p(y) p(nu | y)`, where p(y) is the share of the class in the samples that were fitted.

        Args:
          relevance: (samples, concepts), normalized.
          classes: (samples,), or one class for all, usually the predicted ones; None for class-agnostic.

        Returns:
          (samples,), larger for more unusual samples. It is a density's logarithm and may be negative.

        Raises:
          ValueError: if a shape does not fit, or a class was not fitted.
        """
        if classes is None:
            return _score_of_any(self, self._relevance(relevance))
        return _score(self, *self._of_class(relevance, classes))

    def assign(self, relevance: ArrayLike, classes: ArrayLike) -> Array:
        """The strategy of each sample: the component of its class with the largest `log N(nu; mu, Sigma)`.

        Weights are left out, so that rare strategies are found.

        Args:
          relevance, classes: as in `log_density`.

        Returns:
          (samples,), int32.
        """
        return _assign(self, *self._of_class(relevance, classes))

    def difference(
        self, relevance: ArrayLike, classes: ArrayLike, component: ArrayLike | None = None
    ) -> Difference:
        """Which concepts samples use more and less than their prototype, `nu - mu`.

        Args:
          relevance, classes: as in `log_density`.
          component: (samples,), the component to compare with; None for that of `assign`.
        """
        x, row = self._of_class(relevance, classes)
        chosen = _assign(self, x, row) if component is None else jnp.asarray(component)
        chosen = jnp.broadcast_to(chosen, row.shape)
        mean = jnp.take_along_axis(_take(self.means, row), chosen[:, None, None], axis=1)[:, 0]
        return Difference(x, mean, jnp.broadcast_to(jnp.asarray(classes), row.shape), chosen)

    def save(self, path: Any) -> None:
        """Writes a file that `Prototypes.load` reads: an .npz of plain arrays, without pickle.

        Args:
          path: of the file, by convention `*.npz`.
        """
        arrays = {f.name: np.asarray(getattr(self, f.name)) for f in dataclasses.fields(self)}
        header = np.array(json.dumps({"format": _FORMAT, "version": _VERSION}))
        data = io.BytesIO()
        np.savez(data, allow_pickle=False, header=header, **arrays)
        as_path("path", path).write_bytes(data.getvalue())

    @classmethod
    def load(cls, path: Any) -> Prototypes:
        """Reads what `save` wrote, also from an untrusted source: nothing in it is executed.

        Raises:
          FileNotFoundError: if there is no such file.
          ValueError: if it is something else.
        """
        path = as_path("path", path)
        data = path.read_bytes()
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                header = json.loads(str(file["header"]))
                if header["format"] != _FORMAT or header["version"] > _VERSION:
                    raise ValueError(f"its header is {header}")
                return _checked(cls(**{f.name: file[f.name] for f in dataclasses.fields(cls)}))
        except (
            zipfile.BadZipFile,
            KeyError,
            TypeError,
            AttributeError,
            ValueError,
            EOFError,
        ) as error:
            raise ValueError(
                f"{str(path)!r} is not a complete file of Prototypes.save: {type(error).__name__}: {error}"
            ) from error

    def __repr__(self) -> str:
        per_class = ", ".join(
            f"{y}: {k}" for y, k in zip(np.asarray(self.classes).tolist(), self.n_components, strict=True)
        )  # fmt: skip
        return f"Prototypes(components by class {{{per_class}}}, concepts={self.means.shape[-1]})"

    def _relevance(self, relevance: ArrayLike) -> Array:
        x, d = jnp.asarray(relevance), self.means.shape[-1]
        if x.ndim != 2 or x.shape[1] != d:
            raise ValueError(f"relevance must have shape (samples, {d}), got {x.shape}")
        return x.astype(jnp.asarray(self.means).dtype)

    def _of_class(self, relevance: ArrayLike, classes: ArrayLike) -> tuple[Array, Array]:
        """Relevance, and the row of the class of each sample; -1 for traced classes without mixture."""
        x, y = self._relevance(relevance), jnp.asarray(classes)
        if not jnp.issubdtype(y.dtype, jnp.integer) or y.shape not in ((), x.shape[:1]):
            raise ValueError(
                f"classes must be an integer, or integers of shape {x.shape[:1]}, one for each sample, got "
                f"{y.dtype} of shape {y.shape}"
            )
        y = jnp.broadcast_to(y, x.shape[:1]).astype(jnp.int32)
        row = _row(jnp.asarray(self.classes, jnp.int32), y)
        if not _compat.is_traced(row) and bool((row < 0).any()):
            missing = sorted(set(np.asarray(y)[np.asarray(row) < 0].tolist()))
            raise ValueError(
                f"classes contains {missing}, for which there was no sample when the prototypes were "
                f"fitted; fitted were the classes {np.asarray(self.classes).tolist()}"
            )
        return x, row


@jax.jit
def _row(known: Array, y: Array) -> Array:
    """The row of each class in `known`; -1 if it is not there."""
    row = jnp.clip(jnp.searchsorted(known, y), 0, len(known) - 1).astype(jnp.int32)
    return jnp.where(known[row] == y, row, -1)


@jax.jit
def _densities(held: Prototypes, x: Array, row: Array) -> Array:
    """`log N` of the components of the class of each sample, (samples, K); NaN where there is no class."""

    def one(item: tuple[Array, Array]) -> Array:
        x, row = item
        found = log_density(x, _take(held.means, row), _take(held.whitening, row))
        return jnp.where(_take(held.weights, row) == 0, -jnp.inf, found)

    return jax.lax.map(one, (x, row), batch_size=_BATCH)


@jax.jit
def _score(held: Prototypes, x: Array, row: Array) -> Array:
    return -logsumexp(_densities(held, x, row) + jnp.log(_take(held.weights, row)), axis=-1)


@jax.jit
def _score_of_any(held: Prototypes, x: Array) -> Array:
    def of(row: Array) -> Array:
        return _score(held, x, jnp.full(len(x), row, jnp.int32))

    count = jnp.asarray(held.count).astype(x.dtype)
    by_class = jax.lax.map(of, jnp.arange(len(count), dtype=jnp.int32))
    return -logsumexp(jnp.log(count / count.sum())[:, None] - by_class, axis=0)


@jax.jit
def _assign(held: Prototypes, x: Array, row: Array) -> Array:
    found = jnp.argmax(_densities(held, x, row), axis=-1).astype(jnp.int32)
    return jnp.where(row < 0, -1, found)


def _take(held: Any, row: Array) -> Array:
    """The arrays of the class of each sample, NaN where the class was not fitted."""
    found = jnp.asarray(held)[jnp.maximum(row, 0)]
    return jnp.where(row.reshape(row.shape + (1,) * (found.ndim - row.ndim)) < 0, jnp.nan, found)


def _checked(found: Prototypes) -> Prototypes:
    """Refuses arrays of a file whose shapes do not fit."""
    y, k, d = found.means.shape
    shapes = {
        "classes": (y,), "weights": (y, k), "samples": (y, k), "coverage": (y, k), "count": (y,),
        "bic": (y, *found.bic.shape[1:]),
    }  # fmt: skip
    for name, shape in shapes.items():
        if getattr(found, name).shape != shape:
            raise ValueError(f"{name} has shape {getattr(found, name).shape}, not {shape}")
    if found.whitening.shape not in ((y, k, d), (y, k, d, d)):
        raise ValueError(f"whitening has shape {found.whitening.shape}")
    return found
