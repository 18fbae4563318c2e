"""Projects for ViRelAy, the browser of analyzed explanations (https://github.com/virelay/virelay).

`export_virelay` writes a folder that ViRelAy 0.6 opens: pictures, relevances, embeddings and clusters. Here
nothing of ViRelAy is needed; to look at a project, install that too: ``pip install virelay==0.6.1``, in an
environment of its own if you like, and ``python -m virelay FOLDER/project.yaml``.

The files are HDF5, whose library is an extra: ``pip install "jaxlrp[virelay]"``.
"""

try:
    import h5py as _h5py  # noqa: F401
except ImportError as error:
    raise ImportError(
        "jaxlrp.virelay writes HDF5 with h5py, which could not be imported; "
        'install the extra: pip install "jaxlrp[virelay]"'
    ) from error

from jaxlrp.virelay.attribution import Attribution
from jaxlrp.virelay.export import export_virelay
from jaxlrp.virelay.lazy import Pictures, Rendered
from jaxlrp.virelay.signals import render_signals
from jaxlrp.virelay.tokens import render_tokens

__all__ = [
    "Attribution",
    "Pictures",
    "Rendered",
    "export_virelay",
    "render_signals",
    "render_tokens",
]
