"""What concepts mean: their top samples in the space of an embedding model (SemanticLens)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlrp._checks import check_count
from jaxlrp.concepts.extras import need, one_thread
from jaxlrp.concepts.topk import TopK

Embed = Callable[[Any], Any]

_FLOOR = 1e-12  # of lengths that are divided by


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Semantics:
    r"""The embedded top samples of each unit. A pytree; `semantics` makes it, or `Semantics.of`.

    Numbers of units without a valid sample are NaN, and those of pairs need two.

    Attributes:
      vectors: (units, m, d), the embeddings V_k of the top samples of each unit; 0 where there is none.
      valid: (units, m), booleans, whether there is a sample.
    """

    vectors: Any
    valid: Any

    @classmethod
    def of(cls, vectors: ArrayLike, valid: ArrayLike | None = None) -> Semantics:
        """The semantics of units whose top samples are embedded already.

        Args:
          vectors: (units, m, d), floats.
          valid: (units, m), booleans; None if all samples are valid.

        Raises:
          ValueError: if shapes do not fit, or an embedding of a valid sample is not finite.
        """
        v = np.asarray(vectors)
        if v.ndim != 3 or not jnp.issubdtype(v.dtype, jnp.floating):
            raise ValueError(
                f"vectors must be floats of shape (units, samples, d), got {v.dtype} of shape {v.shape}"
            )
        there = np.ones(v.shape[:2], bool) if valid is None else np.asarray(valid)
        if there.shape != v.shape[:2] or there.dtype != bool:
            raise ValueError(
                f"valid must be booleans of shape {v.shape[:2]}, got {there.dtype} of shape {there.shape}"
            )
        _check_finite("vectors", v[there])
        v = v.astype(np.promote_types(v.dtype, np.float32))  # sums are formed in float32 or wider
        return cls(np.where(there[..., None], v, np.zeros((), v.dtype)), there)

    @property
    def count(self) -> Array:
        """(units,), integers, the number of valid samples."""
        return jnp.asarray(self.valid).sum(axis=-1)

    @property
    def theta(self) -> Array:
        """(units, d), the embedding of each unit: the mean of its samples."""
        return _over(jnp.asarray(self.vectors).sum(axis=1), self.count[:, None])

    @property
    def clarity(self) -> Array:
        r"""(units,), how alike the samples of a unit are: the mean cosine of two of them, in [-1, 1].

        (|mean v|^2 - 1/m) m / (m - 1),   v: embeddings divided by their lengths
        """
        m, v = self.count, _unit(jnp.asarray(self.vectors))
        pairs = jnp.square(v.sum(axis=1)).sum(axis=-1) - jnp.square(v).sum(axis=(1, 2))
        return _over(pairs, m * (m - 1))

    @property
    def similarity(self) -> Array:
        """(units, units), the cosine of each pair of units."""
        theta = _unit(self.theta)
        return theta @ theta.T

    @property
    def nearest(self) -> Array:
        """(units,), int32, the other unit most similar to each; -1 where `redundancy` is NaN."""
        found = jnp.argmax(self._others(), axis=-1).astype(jnp.int32)
        return jnp.where(jnp.isnan(self.redundancy), -1, found)

    @property
    def redundancy(self) -> Array:
        """(units,), the cosine with the most similar other unit: `max_k' cos(theta_k, theta_k')`.

        Its mean, `jnp.nanmean`, is the redundancy of the layer.
        """
        found = self._others().max(axis=-1)
        return jnp.where((self.count > 0) & jnp.isfinite(found), found, jnp.nan)

    def _others(self) -> Array:
        """Similarity with the other units that have samples."""
        similarity, there = self.similarity, self.count > 0
        other = there[None, :] & ~jnp.eye(len(there), dtype=bool)
        return jnp.where(other, similarity, -jnp.inf)

    def polysemanticity(self, *, n_init: int = 10, seed: int = 0) -> np.ndarray:
        """(units,), how far apart two meanings of a unit are: 1 - cosine of two k-means centers, in [0, 2].

        Args:
          n_init: k-means starts; the best is kept.
          seed: of these, an integer.

        Raises:
          ImportError: if scikit-learn is missing.
        """
        check_count("n_init", n_init)
        kmeans = need("sklearn.cluster", "concepts.Semantics.polysemanticity").KMeans
        found = []
        with one_thread():
            for vectors, valid in zip(
                np.asarray(self.vectors), np.asarray(self.valid), strict=True
            ):
                own = vectors[valid].astype(np.float64)
                if len(np.unique(own, axis=0)) < 2:
                    found.append(0.0 if len(own) > 1 else np.nan)
                    continue
                a, b = kmeans(2, n_init=n_init, random_state=seed).fit(own).cluster_centers_
                found.append(1 - a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), _FLOOR))
        return np.array(found)

    def probe(
        self,
        queries: Sequence[str] | ArrayLike,
        embed_text: Embed | None = None,
        *,
        templates: Sequence[str] = (),
    ) -> Array:
        r"""How well each unit fits each query: `cos(E(q), theta_k)`.

        With templates, E(q) is `mean_t [E(t(q)) - E(t(""))]`: what the templates share is taken away.

        Args:
          queries: strings, or their embeddings (queries, d).
          embed_text: from a list of n strings to (n, d), in the space of the samples.
          templates: such as "a photo of a {}"; each must contain "{}".

        Returns:
          (queries, units), in [-1, 1].

        Raises:
          TypeError: if `queries` is a single string.
          ValueError: if queries are strings and `embed_text` is missing; if a template lacks "{}"; if
            embeddings have a wrong shape or are not finite.
        """
        embedded = jnp.asarray(_embedded(queries, embed_text, templates), self.theta.dtype)
        if embedded.ndim != 2 or embedded.shape[1] != self.vectors.shape[-1]:
            raise ValueError(
                "queries must have embeddings as long as those of the samples, (queries, "
                f"{self.vectors.shape[-1]}), got {embedded.shape}"
            )
        return _unit(embedded) @ _unit(self.theta).T

    def __repr__(self) -> str:
        units, m, d = self.vectors.shape
        return f"Semantics(units={units}, samples={m}, features={d})"


def semantics(top: TopK, embed: Embed, *, batch_size: int = 64) -> Semantics:
    """Embeds the top samples of each unit: what do they have in common, which units are alike?

    Only samples in which the unit has a positive score count. A unit that is never active has none, and its
    numbers are NaN.

    Args:
      top: the top samples of each unit, (units, m), such as `open_scores(...).top(layer, k=20)`.
      embed: from an integer array of n rows to (n, d) embeddings of these samples, by any model of images,
        of text that describes them, or of anything else. Each sample is embedded once.
      batch_size: the most rows of one call, >= 1.

    Returns:
      The `Semantics`.

    Raises:
      ValueError: if `top` has an axis of classes; if no unit has a sample; if embeddings have a wrong shape
        or are not finite.

    References:
      Dreyer et al. (2025), Mechanistic understanding and validation of large AI models with SemanticLens,
      https://doi.org/10.1038/s42256-025-01084-w

    Example:
      >>> import numpy as np
      >>> from jaxlrp import concepts
      >>> scores = np.array([[1.0, 0.0], [2.0, 3.0], [0.0, 4.0]])  # of 3 samples and 2 units
      >>> table = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> found = concepts.semantics(concepts.TopK.of(scores, np.arange(3), k=2), lambda rows: table[rows])
      >>> found.clarity.tolist()
      [1.0, 0.0]
    """
    if not isinstance(top, TopK) or np.ndim(top.rows) != 2:
        raise ValueError(
            "top must be the top samples of each unit, a TopK of shape (units, k); of one for each class, "
            f"take a class by top[y]; got {top!r}"
        )
    check_count("batch_size", batch_size)
    rows = np.asarray(top.rows)
    valid = (rows >= 0) & (np.asarray(top.values) > 0)
    wanted = np.unique(rows[valid])
    if not len(wanted):
        raise ValueError("top must have at least one sample with a positive score, got none")
    parts = [
        _rows_of(embed(part), len(part), "embed")
        for part in np.split(wanted, range(batch_size, len(wanted), batch_size))
    ]
    lengths = {part.shape[1] for part in parts}
    if len(lengths) > 1:
        raise ValueError(f"embed must return embeddings of one length, got {sorted(lengths)}")
    table = np.concatenate(parts)
    place = np.searchsorted(wanted, np.where(valid, rows, wanted[0]))
    return Semantics.of(table[place], valid)


def _embedded(
    queries: Sequence[str] | ArrayLike, embed_text: Embed | None, templates: Sequence[str]
) -> np.ndarray:
    """The embeddings of queries, (queries, d)."""
    if isinstance(queries, str):
        raise TypeError(f"queries must be a sequence of strings, got one: write [{queries!r}]")
    if isinstance(templates, str):
        raise TypeError(f"templates must be a sequence of strings, got one: write [{templates!r}]")
    texts = list(queries) if isinstance(queries, Sequence) else []
    if not texts or not all(isinstance(q, str) for q in texts):
        return _rows_of(queries, len(np.asarray(queries)), "queries")
    if embed_text is None:
        raise ValueError(
            "queries are strings, so embed_text is needed: pass a function from a list of n strings to "
            "(n, d) embeddings, in the space of the samples"
        )
    for template in templates:
        if "{}" not in template:
            raise ValueError(f'each template must contain "{{}}", got {template!r}')
    if not templates:
        return _rows_of(embed_text(texts), len(texts), "embed_text")
    filled = [t.replace("{}", q) for q in ["", *texts] for t in templates]
    found = _rows_of(embed_text(filled), len(filled), "embed_text")
    by_template = found.reshape(1 + len(texts), len(templates), -1)
    return (by_template[1:] - by_template[0]).mean(axis=1)


def _rows_of(embedded: Any, count: int, name: str) -> np.ndarray:
    """Embeddings that a user's function returned, (count, d).

    Raises:
      ValueError: naming the function, if the shape is wrong or a value is not finite.
    """
    found = np.asarray(embedded)
    if found.ndim != 2 or len(found) != count or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(
            f"{name} must give floats of shape ({count}, d), one row for each of {count} inputs, got "
            f"{found.dtype} of shape {found.shape}"
        )
    _check_finite(name, found)
    return found


def _check_finite(name: str, found: np.ndarray) -> None:
    bad = ~np.isfinite(found).all(axis=-1)
    if bad.any():
        raise ValueError(
            f"{name} must give finite embeddings, but {int(bad.sum())} of {bad.size} have NaN or inf"
        )


def _unit(vectors: Array) -> Array:
    """Vectors divided by their lengths; 0 stays 0."""
    length = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / jnp.maximum(length, jnp.asarray(_FLOOR, vectors.dtype))


def _over(a: Array, count: Array) -> Array:
    """`a / count`, NaN where the count is not positive."""
    n = jnp.where(count > 0, count, 1).astype(a.dtype)
    return jnp.where(count > 0, a / n, jnp.nan)
