"""The parts of a project, and its project file."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import yaml

from jaxlrp.spray.analysis import Analysis
from jaxlrp.virelay.attribution import Attribution
from jaxlrp.virelay.labels import valid_identifier
from jaxlrp.virelay.lazy import Rows


class Part(NamedTuple):
    """One validated attribution, and what is written for it."""

    attribution: Attribution
    relevance: Rows
    prediction: Rows
    rows: np.ndarray | None
    analyses: dict[str, list[Analysis]]
    suffix: str


def analysis_files(part: Part) -> list[str]:
    """The file names of the analyses of a part."""
    alone = len(part.analyses) == 1
    return [
        f"analysis{part.suffix}{'' if alone else f'-{valid_identifier(name)}'}.h5"
        for name in part.analyses
    ]


def project_file(part: Part, names: dict[str, str], several: bool) -> str:
    """A project file. The viewer finds projects by name, so names must be unique."""
    method = part.attribution.method
    project: dict[str, Any] = {
        "name": f"{names['name']} ({method})" if several else names["name"],
        "model": names["model"],
        "label_map": "label_map.json",
        "dataset": {"name": names["dataset"], "type": "hdf5", "path": "dataset.h5"},
        "attributions": {
            "attribution_method": method,
            "attribution_strategy": part.attribution.strategy,
            "sources": [f"attribution{part.suffix}.h5"],
        },
    }
    files = analysis_files(part)
    project["analyses"] = [
        {"analysis_method": name, "sources": [file]}
        for name, file in zip(part.analyses, files, strict=True)
    ]
    return yaml.safe_dump({"project": project}, sort_keys=False, allow_unicode=True)
