"""Plots of relevance: heatmaps, overlays, grids, signals and their spectra, text, tables.

All functions draw with matplotlib, which is an extra: ``pip install "jaxlrp[plot]"``. Red is
evidence for the explained output, blue is evidence against it, and zero is exactly neutral, because
every color scale is symmetric about zero.

Functions that draw one panel (`heatmap`, `overlay`, `panel`, `pairs`, `spectrum`, `spectrogram`; `bar`,
`beeswarm`, `waterfall`, `scatter` of tables) return its Axes; functions that may draw several (`grid`,
`signal`, `domains`) return the Figure. Pass your own Axes or Figure to draw there. Otherwise they create a
Figure without pyplot: it needs no display and need not be closed, a notebook shows it if it is the last
value of a cell, and a script saves it with ``savefig``. To open a window, draw into a pyplot figure:
``heatmap(relevance, ax=plt.gca()); plt.show()``.
"""

try:
    import matplotlib as _matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError(
        "jaxlrp.plot requires matplotlib, which could not be imported; install it with: "
        'pip install "jaxlrp[plot]"'
    ) from error

from jaxlrp.plot.bar import bar
from jaxlrp.plot.beeswarm import beeswarm
from jaxlrp.plot.domains import domains
from jaxlrp.plot.grid import grid
from jaxlrp.plot.image import heatmap, overlay, to_rgb
from jaxlrp.plot.normalize import normalize
from jaxlrp.plot.pairs import pairs
from jaxlrp.plot.panel import panel
from jaxlrp.plot.reveal import reveal
from jaxlrp.plot.scatter import scatter
from jaxlrp.plot.signal import signal
from jaxlrp.plot.spectrum import spectrogram, spectrum
from jaxlrp.plot.text import Text, text
from jaxlrp.plot.waterfall import waterfall

__all__ = [
    "Text",
    "bar",
    "beeswarm",
    "domains",
    "grid",
    "heatmap",
    "normalize",
    "overlay",
    "pairs",
    "panel",
    "reveal",
    "scatter",
    "signal",
    "spectrogram",
    "spectrum",
    "text",
    "to_rgb",
    "waterfall",
]
