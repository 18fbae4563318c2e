"""What is exported of one method of explanation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike

from jaxlrp.spray.analysis import Analysis
from jaxlrp.virelay.lazy import Rows

Strategy = Literal["true_label", "predicted_label"]


class Store(Protocol):
    """What is used of a store of `jaxlrp.dataset.open_relevance`."""

    @property
    def ids(self) -> Sequence[int | str]: ...

    @property
    def relevance(self) -> Rows: ...

    def __getitem__(self, name: str, /) -> Any: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
    """The relevances that one method gave, and analyses of them.

    `relevance` and `prediction` may be anything that has a shape and can be sliced along its first axis:
    NumPy and JAX arrays, zarr and HDF5 arrays, stores that read on demand. They are read in slices. Of a
    store of `attribute_dataset` make one with `of_store`, which knows its rows.

    Attributes:
      relevance: (M, H, W), or (M, H, W, C) with the channels where `channel_axis` of `export_virelay`
        says; real, finite. The viewer shows the sum over channels. H and W are those of the pictures.
      prediction: (M, outputs) real, finite: what the model said.
      analyses: by name, each one `jaxlrp.spray.analysis.Analysis` for each class; at least one,
        without which the viewer has nothing to show. All of one name must have the same embeddings and
        clusterings. A "-" in a name is written as "_", which the viewer shows as "-".
      method: the name of the method, shown by the viewer.
      strategy: of which output these are the relevances: of the "true_label" or of the "predicted_label".
      rows: (M,) integers, each once: relevance i explains picture rows[i]. None: picture i, which the
        viewer finds faster.
      index_of: what `index` of the analyses counts: rows of the "images", or of the "relevance", as that
        of `jaxlrp.spray.analyze` does. Must be said where `rows` are not 0, 1, 2, and so on; else both
        are the same.
    """

    relevance: Rows
    prediction: Rows
    analyses: Mapping[str, Sequence[Analysis]]
    method: str = "LRP"
    strategy: Strategy = "true_label"
    rows: ArrayLike | None = None
    index_of: Literal["images", "relevance"] | None = None

    @classmethod
    def of_store(
        cls,
        opened: Store,
        analyses: Mapping[str, Sequence[Analysis]],
        *,
        ids: Sequence[int | str] | None = None,
        method: str = "LRP",
        strategy: Strategy = "true_label",
    ) -> Attribution:
        """The relevances and outputs of a store, whose rows may have any order and lack some samples.

        Args:
          opened: of `jaxlrp.dataset.open_relevance`, the one whose `relevance` was analyzed.
          analyses: by name, of `jaxlrp.spray.analyze(opened.relevance, ...)`: their `index` are rows of
            the store.
          ids: the id of each picture, in the order of `images`. None where the store's ids are rows of
            `images`, as they are of a source of arrays.
          method: as above.
          strategy: as above.

        Returns:
          An `Attribution` with `rows` by id.

        Raises:
          ValueError: if ids are names and `ids` is None, or if `ids` lacks one or has one twice.

        Example:
          >>> class Opened(dict):
          ...     ids, relevance = ["b", "a"], np.ones((2, 8, 8))
          >>> opened = Opened(output=np.ones((2, 3)))
          >>> Attribution.of_store(opened, {}, ids=["a", "b"]).rows.tolist()
          [1, 0]
        """
        rows = _rows_by_id(opened.ids, ids)
        return cls(
            opened.relevance, opened["output"], analyses, method, strategy, rows, "relevance"
        )


def _rows_by_id(stored: Sequence[int | str], pictures: Sequence[int | str] | None) -> np.ndarray:
    """(M,) the picture of each row of a store."""
    if pictures is None:
        names = [name for name in stored if not isinstance(name, (int, np.integer))]
        if names:
            raise ValueError(
                "ids must be given, the id of each picture in the order of images, for those of the "
                f"store are names, which do not tell the row of a picture, got {names[0]!r}"
            )
        largest = np.iinfo(np.int64).max
        beyond = [number for number in map(int, stored) if not 0 <= number <= largest]
        if beyond:
            raise ValueError(
                f"ids must be given, the id of each picture in the order of images, for the store's "
                f"{beyond[0]} is the row of no picture"
            )
        return np.array(stored, np.int64)
    places: dict[int | str, int] = {}
    for row, name in enumerate(pictures):
        plain = name.item() if isinstance(name, np.generic) else name
        if plain in places:
            raise ValueError(
                f"ids must differ, got {plain!r} for pictures {places[plain]} and {row}"
            )
        places[plain] = row
    missing = [name for name in stored if name not in places]
    if missing:
        raise ValueError(
            f"ids must hold every id of the store, got none of {missing[0]!r} ({len(missing)} are missing "
            f"of {len(stored)})"
        )
    return np.array([places[name] for name in stored], np.int64)
