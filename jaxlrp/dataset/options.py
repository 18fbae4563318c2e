"""Options of `attribute_dataset`, grouped by stage: reading, computing, storing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from jax.sharding import Mesh

from jaxlrp._checks import check_count
from jaxlrp.dataset.readers import Reader, check_readers

DTYPES = ("float32", "float16", "bfloat16", "float64")


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How samples are read.

    Attributes:
      workers: number of threads that fetch and preprocess samples, >= 1.
      sharded: True if the source already gives each process its own samples, as a `grain` loader can;
        ids must then be unique across processes. False: every process gets the whole source and
        reads its share.
      readers: additional file types, from a file extension such as ".csv" to a `Reader`. They take
        precedence over the built-in `READERS`.

    Raises:
      TypeError, ValueError: if a value is out of range or a reader is not callable.
    """

    workers: int = 4
    sharded: bool = False
    readers: Mapping[str, Reader] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_count("workers", self.workers)
        check_readers(self.readers)
        object.__setattr__(self, "readers", MappingProxyType(dict(self.readers)))


@dataclasses.dataclass(frozen=True)
class ComputeOptions:
    """Where relevance is computed.

    Attributes:
      mesh: the devices that compute one batch together. None: the devices of this process, or the
        mesh with explicit axes that `jax.set_mesh` has set. Axes are automatic inside the run, unless
        the mesh is the one that `jax.set_mesh` has set.
      batch_axes: names of the mesh axes over which a batch is split; the first axis by default.
      memory_fraction: share of the free memory, > 0 and <= 1, that a batch may use. It only
        matters where `batch_size` is None.

    Raises:
      TypeError, ValueError: if a value has the wrong type or is out of range.
    """

    mesh: Mesh | None = None
    batch_axes: str | Sequence[str] | None = None
    memory_fraction: float = 0.5

    def __post_init__(self) -> None:
        if self.mesh is not None and not isinstance(self.mesh, Mesh):
            raise TypeError(f"mesh must be a jax.sharding.Mesh or None, got {self.mesh!r}")
        if not 0 < self.memory_fraction <= 1:
            raise ValueError(f"memory_fraction must be > 0 and <= 1, got {self.memory_fraction}")
        if self.batch_axes is not None and not isinstance(self.batch_axes, str):
            object.__setattr__(self, "batch_axes", tuple(self.batch_axes))


@dataclasses.dataclass(frozen=True)
class StoreOptions:
    """How relevance is stored, and how an existing store is treated.

    Attributes:
      dtype: "float32", "float16", "bfloat16" or "float64", in which relevance is stored; None keeps
        the dtype that was computed. The 16-bit types halve the size; `Summary.error` says what they
        cost.
      chunk_size: samples per chunk, >= 1. A chunk is the smallest unit that is read, written and
        lost to a kill. None: up to one batch, at most 16 MiB before compression.
      dims: names of the axes of one sample's relevance, such as ("height", "width", "channel").
      verify: True compares every checksum of an existing store before the run; False only compares
        file sizes.
      retry_failed: True tries again the samples that failed in an earlier run.

    Raises:
      TypeError, ValueError: if a value has the wrong type or is out of range.
    """

    dtype: str | None = None
    chunk_size: int | None = None
    dims: Sequence[str] | None = None
    verify: bool = True
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ValueError(
                f"dtype must be None or one of {', '.join(map(repr, DTYPES))}, got {self.dtype!r}"
            )
        if self.chunk_size is not None:
            check_count("chunk_size", self.chunk_size)
        if self.dims is not None:
            if isinstance(self.dims, str) or not all(isinstance(d, str) for d in self.dims):
                raise TypeError(f"dims must be a sequence of strings, got {self.dims!r}")
            object.__setattr__(self, "dims", tuple(self.dims))
