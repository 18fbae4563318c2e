"""What is exported of one method of explanation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from numpy.typing import ArrayLike

from jaxlrp.spray.analysis import Analysis
from jaxlrp.virelay.lazy import Rows


@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
    """The relevances that one method gave, and analyses of them.

    `relevance` and `prediction` may be anything that has a shape and can be sliced along its first axis:
    NumPy and JAX arrays, zarr and HDF5 arrays, stores that read on demand. They are read in slices.

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
    """

    relevance: Rows
    prediction: Rows
    analyses: Mapping[str, Sequence[Analysis]]
    method: str = "LRP"
    strategy: Literal["true_label", "predicted_label"] = "true_label"
    rows: ArrayLike | None = None
