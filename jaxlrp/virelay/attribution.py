"""The relevance of one explanation method, with its analyses, as it is exported."""

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
    """The part of a store of `jaxlrp.dataset.open_relevance` that is used here."""

    @property
    def ids(self) -> Sequence[int | str]: ...

    @property
    def relevance(self) -> Rows: ...

    def __getitem__(self, name: str, /) -> Any: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
    """The relevance from one method, and analyses of it.

    `relevance` and `prediction` accept anything that has a shape and can be sliced along its first axis:
    NumPy, JAX, Zarr and HDF5 arrays, or stores that read on demand. They are read in slices. For a store of
    `attribute_dataset`, use `from_store`, which matches rows by id.

    Attributes:
      relevance: (M, H, W), or (M, H, W, C) with channels at the `channel_axis` of `export_virelay`; real,
        finite. The viewer shows the sum over channels. H and W are those of the images.
      prediction: (M, outputs) real, finite: the outputs of the model.
      analyses: by name, a sequence with one `jaxlrp.spray.analysis.Analysis` per class. There must be at
        least one, because the viewer opens no project without. All classes of one name must have the same
        embeddings and clusterings. A "-" in a name is written as "_", which the viewer shows as "-".
      method: name of the method, shown by the viewer.
      strategy: the explained output: that of the "true_label" or of the "predicted_label".
      rows: (M,) unique integers: relevance i explains image rows[i]. None: relevance i explains image i,
        which the viewer finds faster.
      index_of: what `index` of the analyses refers to: rows of the "images", or of the "relevance", as in
        `jaxlrp.spray.analyze`. Required unless `rows` are 0, 1, 2, ..., where both are the same.
    """

    relevance: Rows
    prediction: Rows
    analyses: Mapping[str, Sequence[Analysis]]
    method: str = "LRP"
    strategy: Strategy = "true_label"
    rows: ArrayLike | None = None
    index_of: Literal["images", "relevance"] | None = None

    @classmethod
    def from_store(
        cls,
        opened: Store,
        analyses: Mapping[str, Sequence[Analysis]],
        *,
        ids: Sequence[int | str] | None = None,
        method: str = "LRP",
        strategy: Strategy = "true_label",
    ) -> Attribution:
        """The relevance and outputs of a store, whose rows may be in any order and omit samples.

        Args:
          opened: returned by `jaxlrp.dataset.open_relevance`; the store whose `relevance` was analyzed.
          analyses: by name, returned by `jaxlrp.spray.analyze(opened.relevance, ...)`. Their `index` holds
            rows of the store.
          ids: the id of each image, in the order of `images`. None if the ids of the store are rows of
            `images`, as for data from arrays.
          method: as above.
          strategy: as above.

        Returns:
          An `Attribution` whose `rows` are matched by id.

        Raises:
          ValueError: if the ids are names and `ids` is None, or if `ids` misses or repeats one.

        Example:
          >>> class Opened(dict):
          ...     ids, relevance = ["b", "a"], np.ones((2, 8, 8))
          >>> opened = Opened(output=np.ones((2, 3)))
          >>> Attribution.from_store(opened, {}, ids=["a", "b"]).rows.tolist()
          [1, 0]
        """
        rows = _rows_by_id(opened.ids, ids)
        return cls(
            opened.relevance, opened["output"], analyses, method, strategy, rows, "relevance"
        )


def _rows_by_id(stored: Sequence[int | str], pictures: Sequence[int | str] | None) -> np.ndarray:
    """(M,) the image of each row of a store."""
    if pictures is None:
        names = [name for name in stored if not isinstance(name, (int, np.integer))]
        if names:
            raise ValueError(
                f"ids is missing: the ids of the store are names such as {names[0]!r}, not rows of images; "
                "pass ids=, the id of each image in the order of images"
            )
        largest = np.iinfo(np.int64).max
        beyond = [number for number in map(int, stored) if not 0 <= number <= largest]
        if beyond:
            raise ValueError(
                f"ids is missing: the id {beyond[0]} of the store is not a row of images; pass ids=, the "
                "id of each image in the order of images"
            )
        return np.array(stored, np.int64)
    places: dict[int | str, int] = {}
    for row, name in enumerate(pictures):
        plain = name.item() if isinstance(name, np.generic) else name
        if plain in places:
            raise ValueError(
                f"ids must be unique, got {plain!r} for images {places[plain]} and {row}"
            )
        places[plain] = row
    missing = [name for name in stored if name not in places]
    if missing:
        raise ValueError(
            f"ids must contain every id of the store, but {missing[0]!r} is missing ({len(missing)} of "
            f"{len(stored)} are missing)"
        )
    return np.array([places[name] for name in stored], np.int64)
