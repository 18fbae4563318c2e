"""Ships MathJax with the site, so that formulas render without a network.

The repository contains no third-party code: MathJax comes with the package django-static-mathjax of the
extra `docs`, which consists of its files and needs no Django.
"""

from __future__ import annotations

import importlib.util
import logging
import pathlib
from typing import Any

from mkdocs.structure.files import File

IN_PACKAGE = "static/mathjax/es5/tex-svg.js"  # one file, fonts included
IN_SITE = "assets/mathjax.js"

log = logging.getLogger("mkdocs.hooks.formulas")


def mathjax() -> bytes | None:
    """MathJax, None if the package is missing."""
    spec = importlib.util.find_spec("mathjax")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = pathlib.Path(folder) / IN_PACKAGE
        if path.exists():
            return path.read_bytes()
    return None


def on_files(files: Any, config: Any) -> Any:
    """Adds MathJax to the site, and to each page."""
    found = mathjax()
    if found is None:
        log.warning(
            "formulas will show as TeX, because MathJax is missing: install it with "
            'pip install -e ".[docs]"'
        )
        return files
    files.append(File.generated(config, IN_SITE, content=found))
    config.extra_javascript.append(IN_SITE)  # after its settings
    return files
