"""Whole data sets: every sample explained, on disk, on one device or many, after any interruption.

Relevances are written with tensorstore, which comes with Flax; progress bars, HDF5, pictures and grain
need the extra: ``pip install "jaxlrp[dataset]"``.
"""

from jaxlrp.dataset.errors import (
    DamagedError,
    DifferentRunError,
    StoreError,
    StoreFullError,
    StoreLockedError,
)
from jaxlrp.dataset.files import hdf5, images
from jaxlrp.dataset.policy import Given, Top
from jaxlrp.dataset.progress import Summary
from jaxlrp.dataset.relevance import LazyArray, Relevance, open_relevance
from jaxlrp.dataset.runner import attribute_dataset
from jaxlrp.dataset.source import Sample, arrays
from jaxlrp.dataset.verification import Report, verify

__all__ = [
    "DamagedError",
    "DifferentRunError",
    "Given",
    "LazyArray",
    "Relevance",
    "Report",
    "Sample",
    "StoreError",
    "StoreFullError",
    "StoreLockedError",
    "Summary",
    "Top",
    "arrays",
    "attribute_dataset",
    "hdf5",
    "images",
    "open_relevance",
    "verify",
]
