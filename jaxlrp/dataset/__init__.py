"""Explain every sample of a data set, on disk, on one or many devices, resumable after any interruption.

Stores are written with tensorstore, which Flax installs. Progress bars, HDF5, images and grain need the
extra: ``pip install "jaxlrp[dataset]"``.
"""

from jaxlrp.dataset.errors import (
    DamagedError,
    DifferentRunError,
    StoreError,
    StoreFullError,
    StoreLockedError,
)
from jaxlrp.dataset.options import ComputeOptions, ReadOptions, StoreOptions
from jaxlrp.dataset.policy import Given, Top
from jaxlrp.dataset.progress import Summary
from jaxlrp.dataset.readers import READERS, Reader
from jaxlrp.dataset.readers.hdf5 import hdf5
from jaxlrp.dataset.readers.images import images
from jaxlrp.dataset.relevance import LazyArray, Relevance, open_relevance
from jaxlrp.dataset.runner import attribute_dataset
from jaxlrp.dataset.source import Indexed, Sample, arrays
from jaxlrp.dataset.verification import Report, verify

__all__ = [
    "READERS",
    "ComputeOptions",
    "DamagedError",
    "DifferentRunError",
    "Given",
    "Indexed",
    "LazyArray",
    "ReadOptions",
    "Reader",
    "Relevance",
    "Report",
    "Sample",
    "StoreError",
    "StoreFullError",
    "StoreLockedError",
    "StoreOptions",
    "Summary",
    "Top",
    "arrays",
    "attribute_dataset",
    "hdf5",
    "images",
    "open_relevance",
    "verify",
]
