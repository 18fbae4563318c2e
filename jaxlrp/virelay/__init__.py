"""Projects for ViRelAy, a browser for analyzed explanations (https://github.com/virelay/virelay).

`export_virelay` writes a folder that ViRelAy 0.6 opens, with images, relevance, embeddings and clusters.
Writing does not need ViRelAy. To view a project, install it with ``pip install virelay==0.6.1``, if
necessary in a separate environment, and run ``python -m virelay FOLDER/project.yaml``.

The files are HDF5, which needs an extra: ``pip install "jaxlrp[virelay]"``.
"""

try:
    import h5py as _h5py  # noqa: F401
except ImportError as error:
    raise ImportError(
        "jaxlrp.virelay requires h5py, which could not be imported; install it with: "
        'pip install "jaxlrp[virelay]"'
    ) from error

from jaxlrp.virelay.attribution import Attribution
from jaxlrp.virelay.export import export_virelay
from jaxlrp.virelay.lazy import LazyArray, RenderedImages
from jaxlrp.virelay.signals import render_signals
from jaxlrp.virelay.tokens import render_tokens

__all__ = [
    "Attribution",
    "LazyArray",
    "RenderedImages",
    "export_virelay",
    "render_signals",
    "render_tokens",
]
