"""Which devices compute which samples, and which process reads and writes them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlrp.dataset.errors import (
    DamagedError,
    DifferentRunError,
    StoreError,
    StoreFullError,
    StoreLockedError,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Placement:
    """A mesh, and the role of this process in it.

    Attributes:
      mesh: the devices that compute one batch together.
      axes: names of the mesh axes over which a batch is split.
      part, parts: this process reads and writes the `part`-th of `parts` parts of the data.
      writes: whether this process writes, where several hold the same samples.
      lockstep: whether the mesh spans processes, which must then compute every batch together.
    """

    mesh: Mesh
    axes: tuple[str, ...]
    part: int
    parts: int
    writes: bool
    lockstep: bool

    @property
    def batch(self) -> NamedSharding:
        """The sharding of the arrays of a batch, along their first axis."""
        return NamedSharding(self.mesh, PartitionSpec(self.axes))

    @property
    def shards(self) -> int:
        """Number of pieces into which the mesh splits this process's part of a batch."""
        whole = math.prod(self.mesh.shape[axis] for axis in self.axes)
        return whole // (self.parts if self.lockstep else 1)

    @property
    def explicit(self) -> bool:
        """Whether the mesh has explicit axes: shardings are part of the types that a function sees."""
        return bool(self.mesh.abstract_mesh.explicit_axes)

    def struct(self, shape: tuple[int, ...], dtype: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        """The type with which an array is traced.

        It has no sharding where axes are automatic: JAX cannot `vmap` the transpose of a grouped
        convolution whose arguments are traced with a sharding.
        """
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding if self.explicit else None)

    def structs(self, n: int, spec: Any) -> Any:
        """The types with which a batch of n samples is traced; with explicit axes, n per piece."""
        n *= self.whole(self.shards) if self.explicit else 1
        return jax.tree.map(lambda s: self.struct((n, *s.shape), s.dtype, self.batch), spec)

    def put(self, tree: Any) -> Any:
        """Moves this process's samples of a batch, (batch, ...), to the devices."""
        if self.mesh.size == 1:
            return jax.device_put(tree, self.batch)

        def one(a: np.ndarray) -> jax.Array:
            shape = (self.whole(len(a)), *a.shape[1:])
            return jax.make_array_from_process_local_data(self.batch, a, shape)

        return jax.tree.map(one, tree)

    def whole(self, size: int) -> int:
        """Samples in a batch of all processes that compute together, from those of one process."""
        return size * (self.parts if self.lockstep else 1)

    def fetch(self, array: jax.Array) -> np.ndarray:
        """This process's samples of a result, (batch, ...), on the host."""
        if array.is_fully_addressable:
            return np.asarray(array)
        pieces = {s.index[0].start or 0: s for s in array.addressable_shards}
        return np.concatenate([np.asarray(pieces[start].data) for start in sorted(pieces)])

    def parameters(self, leaves: list[Any]) -> list[Any]:
        """Parameters on the mesh: with the user's sharding, else copied to every device."""
        return [self._parameter(leaf) for leaf in leaves]

    def _parameter(self, leaf: Any) -> Any:
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.device_set == set(
            self.mesh.devices.flat
        ):
            if sharding.mesh == self.mesh:
                return leaf
            return jax.device_put(leaf, NamedSharding(self.mesh, sharding.spec))
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        if not self.lockstep:
            return jax.device_put(leaf, everywhere)
        held = np.asarray(leaf)
        return jax.make_array_from_callback(held.shape, everywhere, lambda index: held[index])

    def any(self, mine: bool, error: Exception | None = None) -> bool:
        """Whether `mine` is true in any process, and none has failed. In lockstep, all must call it.

        Args:
          mine: the value of this process.
          error: why this process cannot continue. It is raised here once the others know; they get
            False.
        """
        flags = [mine, error is not None]
        if self.lockstep:
            flags = list(np.any(multihost_utils.process_allgather(np.asarray(flags)), axis=0))
        if error is not None:
            raise error
        return bool(flags[0]) and not flags[1]


def place(mesh: Mesh | None, axes: str | Sequence[str] | None) -> Placement:
    """Finds the role of this process.

    Args:
      mesh: see `ComputeOptions`.
      axes: names of the mesh axes over which a batch is split; the first axis by default.

    Raises:
      ValueError: if the mesh has no such axes, or splits batches so that two processes hold samples
        that overlap only in part.
    """
    process, processes = jax.process_index(), jax.process_count()
    if mesh is None and jax.sharding.get_abstract_mesh().explicit_axes:
        mesh = jax.sharding.get_mesh()
    if mesh is None:
        local = Mesh(np.array(jax.local_devices()), ("batch",))
        return Placement(local, ("batch",), process, processes, True, False)
    names = (axes,) if isinstance(axes, str) else tuple(axes or mesh.axis_names[:1])
    unknown = [name for name in names if name not in mesh.axis_names]
    if unknown:
        raise ValueError(
            f"batch_axes must be axes of the mesh, {mesh.axis_names}, got {unknown[0]!r}"
        )
    if not is_current(mesh):  # its axes become automatic
        mesh = Mesh(mesh.devices, mesh.axis_names)
    owners = {device.process_index for device in mesh.devices.flat}
    if owners == {process}:
        return Placement(mesh, names, process, processes, True, False)
    if process not in owners:
        raise ValueError(
            f"the mesh has no device of process {process}: use the devices of one process, or of all"
        )
    return _spanning(mesh, names, process)


def is_current(mesh: Mesh) -> bool:
    """Whether a mesh has explicit axes and was set by `jax.set_mesh`."""
    abstract = mesh.abstract_mesh
    return bool(abstract.explicit_axes) and jax.sharding.get_abstract_mesh() == abstract


def _spanning(mesh: Mesh, names: tuple[str, ...], process: int) -> Placement:
    whole = math.prod(mesh.shape[name] for name in names)
    sharding = NamedSharding(mesh, PartitionSpec(names))
    rows: dict[int, set[int]] = {}
    for device, index in sharding.devices_indices_map((whole,)).items():
        rows.setdefault(device.process_index, set()).add(index[0].start or 0)
    groups = sorted({tuple(sorted(found)) for found in rows.values()})
    if sum(map(len, groups)) != whole or len(set(map(len, groups))) != 1:
        raise ValueError(
            "the mesh splits the batch so that some devices of two processes share samples: order its "
            "devices so that, along batch_axes, those of one process lie next to each other"
        )
    mine = tuple(sorted(rows[process]))
    writer = min(p for p, found in rows.items() if tuple(sorted(found)) == mine)
    return Placement(mesh, names, groups.index(mine), len(groups), writer == process, True)


_LENGTH = 4096  # bytes of an error message that is sent to other processes
_KNOWN = {
    kind.__name__: kind
    for kind in (
        DamagedError, DifferentRunError, FileNotFoundError, StoreError, StoreFullError,
        StoreLockedError, TypeError, ValueError,
    )
}  # fmt: skip


@contextmanager
def together(stage: str) -> Iterator[None]:
    """Lets all processes end a stage together: if one raises an error, all raise it.

    Otherwise the others would wait for the failed one until JAX ends them.

    Args:
      stage: what is done, for the error message in the other processes.

    Raises:
      StoreError: if another process failed with an error of an unknown type.
    """
    error = None
    try:
        yield
    except Exception as found:
        error = found
    mine = b"" if error is None else f"{type(error).__name__}\0{error}".encode()[:_LENGTH]
    messages = _exchange(mine)
    if error is not None:
        raise error
    for process, message in enumerate(messages):
        if message:
            name, _, text = message.decode(errors="ignore").partition("\0")
            raise _KNOWN.get(name, StoreError)(
                f"process {process} failed while {stage}: {name}: {text}"
            )


def _exchange(mine: bytes) -> list[bytes]:
    """The messages of all processes."""
    if jax.process_count() == 1:
        return [mine]
    padded = np.zeros(_LENGTH, np.uint8)
    padded[: len(mine)] = np.frombuffer(mine, np.uint8)
    return [bytes(row).rstrip(b"\0") for row in multihost_utils.process_allgather(padded)]
