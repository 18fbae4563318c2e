"""What an explanation gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax import Array
from jax.tree_util import DictKey, GetAttrKey

from jaxlrp._described import shapes
from jaxlrp._html import table
from jaxlrp.explanation import frames


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Record:
    """What was recorded at a layer's output.

    Attributes:
      relevance: of the output, same shape; layers inside a scan have its length as leading axis.
      activation: the output itself.
    """

    relevance: Array
    activation: Array

    def __repr__(self) -> str:
        return f"Record({shapes(self.relevance)})"


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The result of an explanation. A pytree, printed with shapes instead of numbers.

    `jaxlrp.save` writes it to a file, and `flax.serialization` knows it.

    Attributes:
      output: of the function.
      relevance: of the explained argument, of its structure and shapes; of an integer input, one
        number for each token. A tuple where `argnums` is one.
      aux: the auxiliary output, with `has_aux`.
      records: the layers named by `record=`, by path, in the order of evaluation.
      parameters: with `parameters=`, the relevance of those arguments, of their structure.
      gains: with `debug=True`, the sum of |R| at the output of each layer in units of that at the output
        of the function, by path; of a layer in a scan, in the step where it is greatest.

    Example:
      >>> import jax.numpy as jnp, jaxlrp as lrp
      >>> w = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
      >>> lrp.explain(lambda x: x @ w, record="dot_general")(jnp.ones((5, 3)), target=1)
      Explanation(output=float32[5,2], relevance=float32[5,3], records=['dot_general'])
    """

    output: Any
    relevance: Any
    aux: Any = None
    records: dict[str, Record] = dataclasses.field(default_factory=dict)
    parameters: Any = None
    gains: dict[str, float] = dataclasses.field(default_factory=dict)

    def plot(
        self,
        input: Any = None,
        *,
        tokens: Sequence[Any] | None = None,
        kind: str | None = None,
        **options: Any,
    ) -> Any:
        """Draws the relevance: as an image, as a text or as a series. Needs the extra `jaxlrp[plot]`.

        Args:
          input: what was explained, to draw the relevance over it: images as uint8 or floats in [0, 1],
            or the signals of a series, which needs them.
          tokens: the tokens of a text, or of several. Of embedded tokens, (..., tokens, features), the
            features are summed.
          kind: "image" (`plot.heatmap`, `plot.overlay`, or `plot.grid` for several), "text"
            (`plot.text`) or "series" (`plot.signal`). None: a text if tokens are given, images if
            relevance has four axes, a series if it is one-dimensional and `input` is given.
          **options: of that function of `jaxlrp.plot`, such as `title`, `limit`, `channel_axis`.

        Returns:
          What that function returns: Axes, a Figure or a `plot.Text`. A notebook shows it.

        Raises:
          ImportError: without matplotlib.
          TypeError, ValueError: if the kind is ambiguous, or what it needs is missing.

        Example:
          >>> import jax.numpy as jnp, jaxlrp as lrp
          >>> w = jnp.ones((3, 2))
          >>> result = lrp.explain(lambda x: (x @ w).mean((1, 2)))(jnp.ones((1, 4, 5, 3)), target=0)
          >>> result.plot(title="class 0").get_title()
          'class 0'
        """
        from jaxlrp.plot.explanation import draw  # matplotlib is an extra

        return draw(self, input, tokens, kind, options)

    def to_pandas(
        self,
        columns: Sequence[str] | None = None,
        *,
        tokens: Any = None,
        index: Sequence[Any] | None = None,
    ) -> Any:
        """The relevance of a table, or of tokens, as a `pandas.DataFrame`. Needs `jaxlrp[pandas]`.

        Args:
          columns: names of the features; None: numbers, or the paths in a pytree.
          tokens: the tokens of one sentence, or of several: the table then has a row for each token.
          index: labels of the samples.

        Returns:
          A row for each sample and a column for each feature, for relevance (samples, features) or
          (features,), or a pytree of such, one below the other in columns; a part (samples,) of a pytree
          is one column. With `tokens`, the columns sentence, position, token and relevance.

        Raises:
          ImportError: without pandas.
          ValueError: if relevance has other axes, or numbers of names do not fit.

        Example:
          >>> import jax.numpy as jnp, jaxlrp as lrp
          >>> w = jnp.array([[1.0], [2.0]])
          >>> result = lrp.explain(lambda x: x @ w, lrp.LRP0())(jnp.ones((2, 2)))
          >>> result.to_pandas(["age", "height"]).mean().to_dict()
          {'age': 1.0, 'height': 2.0}
        """
        return frames.to_pandas(self.relevance, columns, tokens, index)

    def to_xarray(
        self, dims: Sequence[str] | None = None, coords: Mapping[str, Any] | None = None
    ) -> Any:
        """The relevance, of one array, as an `xarray.DataArray`. Needs `jaxlrp[xarray]`.

        Args:
          dims: names of the axes; None: those of xarray, dim_0 and so on.
          coords: labels along the axes, by name, as in `xarray.DataArray`.

        Raises:
          ImportError: without xarray.
          TypeError: if relevance is a pytree.
          ValueError: if there are not as many names as axes.
        """
        return frames.to_xarray(self.relevance, dims, coords)

    def _repr_html_(self) -> str:
        """What a notebook shows: a row for each part."""
        parts = [(name, getattr(self, name)) for name in _PARTS]
        rows = [(name, shapes(value)) for name, value in parts if value is not None]
        rows += [(f"records[{path!r}]", shapes(r.relevance)) for path, r in self.records.items()]
        rows += [(f"gains[{path!r}]", f"{gain:.3g}") for path, gain in self.gains.items()]
        return table(("", "Explanation"), rows)

    def __repr__(self) -> str:
        parts = [(name, getattr(self, name)) for name in _PARTS]
        shown = [f"{name}={shapes(value)}" for name, value in parts if value is not None]
        for name in _BY_PATH:
            if paths := list(getattr(self, name)):
                shown.append(f"{name}={paths if len(paths) <= 8 else f'<{len(paths)} layers>'}")
        return f"Explanation({', '.join(shown)})"


_PARTS = ("output", "relevance", "aux", "parameters")
_BY_PATH = ("records", "gains")


def _flatten(explanation: Explanation) -> tuple[list[tuple[Any, Any]], Any]:
    parts = [(GetAttrKey(name), getattr(explanation, name)) for name in _PARTS]
    held = [getattr(explanation, name) for name in _BY_PATH]
    by_path = [(DictKey(path), value) for values in held for path, value in values.items()]
    return parts + by_path, tuple(map(tuple, held))


def _unflatten(paths: Any, parts: Any) -> Explanation:
    output, relevance, aux, parameters, *rest = parts
    records, gains = paths
    return Explanation(
        output=output,
        relevance=relevance,
        aux=aux,
        records=dict(zip(records, rest, strict=False)),
        parameters=parameters,
        gains=dict(zip(gains, rest[len(records) :], strict=True)),
    )


# Not as a dataclass, whose dictionaries JAX would sort by path.
jax.tree_util.register_pytree_with_keys(Explanation, _flatten, _unflatten)
