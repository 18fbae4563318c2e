"""From a source to batches of one shape: what is left to do, this process's part of it, checked."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlrp.dataset.checking import checked
from jaxlrp.dataset.source import Elements, Failure, Id, Indexed, Sample, Source, Stream, element

_BLOCK = 32  # samples that are fetched in one go where that is cheap
_PEEK = 9  # samples that are looked at to know the usual shape
_TRIES = 32  # samples that are tried to find these; of a stream, to find any


class Spec(NamedTuple):
    """Shape and dtype of one sample: `input`, `target` and `extra` are trees of ShapeDtypeStruct."""

    input: Any
    target: Any
    extra: Any


class HostBatch(NamedTuple):
    """Samples of one shape, the last repeated to fill the batch.

    Attributes:
      ids: of the samples, without the filling.
      values: (input, target, extra), each leaf (batch, ...).
    """

    ids: tuple[Id, ...]
    values: tuple[Any, Any, Any]


@dataclasses.dataclass(frozen=True)
class Part:
    """Which of the samples that are left are this process's: every `of`-th block of `size`."""

    index: int
    of: int
    size: int

    def has(self, position: int) -> bool:
        return (position // self.size) % self.of == self.index


@dataclasses.dataclass(frozen=True)
class Reach:
    """How far into a source a run goes.

    Attributes:
      limit: how many samples count; None for all.
      owed: ids of samples that count beyond it: they were there, and their chunk was damaged.
      widest: how many samples counted in any run, so that no id of `owed` is beyond it.
    """

    limit: int | None = None
    owed: frozenset[Id] = frozenset()
    widest: int | None = None

    @property
    def end(self) -> int | None:
        """How many samples are looked at."""
        if not self.owed or self.limit is None:
            return self.limit
        return None if self.widest is None else max(self.limit, self.widest)

    def has(self, position: int, name: Id | None) -> bool:
        return self.limit is None or position < self.limit or name in self.owed


def read(
    source: Source,
    *,
    skip: Callable[[Id], bool],
    part: Part,
    prepare: Callable[[Any], Any] | None = None,
    reach: Reach = Reach(),
    workers: int = 4,
) -> Iterator[Sample | Failure]:
    """The samples of a source that are left to this process, in order.

    Args:
      source: where they come from.
      skip: whether a sample is done already.
      part: this process's share.
      prepare: from what the source gives to the input of the model, without a batch axis.
      reach: which samples of the source count at all.
      workers: threads that fetch and prepare, >= 1.
    """
    if isinstance(source, Indexed):
        tasks = _indexed_tasks(source, skip, part, prepare, reach)
    elif isinstance(source, Elements):
        tasks = _element_tasks(source.items, part, prepare, reach)
    else:
        tasks = _stream_tasks(source.items, skip, part, prepare, reach)
    slow = prepare is not None or isinstance(source, Elements) or getattr(source, "slow", False)
    done = _in_threads(tasks, workers) if slow and workers > 1 else (task() for task in tasks)
    found = itertools.chain.from_iterable(done)
    return _sifted(found, skip) if isinstance(source, Elements) else found


_Task = Callable[[], list[Sample | Failure]]


def _indexed_tasks(
    source: Indexed, skip: Callable[[Id], bool], part: Part, prepare: Any, reach: Reach
) -> Iterator[_Task]:
    counted = enumerate(source.ids[: reach.end])
    left = (i for i, name in counted if reach.has(i, name) and not skip(name))
    mine = (i for n, i in enumerate(left) if part.has(n))
    size = 1 if source.slow or prepare is not None else _BLOCK
    while block := list(itertools.islice(mine, size)):
        yield lambda block=block: _fetch(source, block, prepare)


def _fetch(source: Indexed, block: list[int], prepare: Any) -> list[Sample | Failure]:
    try:
        return [_prepared(sample, prepare) for sample in source.fetch(block)]
    except Exception as error:  # whatever a decoder raises is a sample's failure, not the run's
        if len(block) == 1:
            return [Failure(source.ids[block[0]], _reason(error))]
        return [found for i in block for found in _fetch(source, [i], prepare)]


def _element_tasks(items: Any, part: Part, prepare: Any, reach: Reach) -> Iterator[_Task]:
    again = _repeated(items)

    def fetch(position: int) -> list[Sample | Failure]:
        try:
            item = items[position]
        except Exception as error:
            found: Sample | Failure = Failure(None, _reason(error), position=position)
        else:
            if item is None:
                return []
            found = _element(item, position)
        if not reach.has(position, found.id):
            return []
        return [_again(found) if position in again else _prepared(found, prepare)]

    for position in range(min(len(items), reach.end or len(items))):
        if part.has(position):
            yield lambda position=position: fetch(position)


def _repeated(items: Any) -> frozenset[int]:
    """Where ids come again, which may be in another process's part. Only a list is in memory whole."""
    if not isinstance(items, (list, tuple)):
        return frozenset()
    seen: set[Id] = set()
    again = []
    for position, item in enumerate(items):
        name = None if item is None else _element(item, position).id
        if name is None:
            continue
        if name in seen:
            again.append(position)
        seen.add(name)
    return frozenset(again)


def _sifted(
    samples: Iterator[Sample | Failure], skip: Callable[[Id], bool]
) -> Iterator[Sample | Failure]:
    """Without what is done; an id that comes again fails."""
    seen: set[Id] = set()
    for found in samples:
        if found.id is None:
            yield found
            continue
        if skip(found.id):
            continue
        yield _again(found) if found.id in seen else found
        seen.add(found.id)


def _again(found: Sample | Failure) -> Failure:
    return Failure(found.id, "an earlier sample has the same id", again=True)


def _stream_tasks(
    items: Iterable[Any], skip: Callable[[Id], bool], part: Part, prepare: Any, reach: Reach
) -> Iterator[_Task]:
    seen: set[Id] = set()
    left = 0
    for position, item in enumerate(itertools.islice(items, reach.end)):
        if item is None:  # filtered out by a grain transformation
            continue
        found = _element(item, position)
        if not reach.has(position, found.id) or (found.id is not None and skip(found.id)):
            continue
        if found.id in seen:
            found = _again(found)
        elif found.id is not None:
            seen.add(found.id)
        left += 1
        if part.has(left - 1):
            yield lambda found=found: [_prepared(found, prepare)]


def _element(item: Any, position: int) -> Sample | Failure:
    try:
        return element(item, position)
    except (TypeError, ValueError) as error:
        return Failure(None, _reason(error), position=position)


def _prepared(found: Sample | Failure, prepare: Callable[[Any], Any] | None) -> Sample | Failure:
    if prepare is None or isinstance(found, Failure):
        return found
    try:
        return found._replace(input=prepare(found.input))
    except Exception as error:
        return Failure(found.id, f"prepare: {_reason(error)}")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]


def _in_threads(tasks: Iterator[_Task], workers: int) -> Iterator[list[Sample | Failure]]:
    """Runs tasks in threads, a bounded number ahead, and gives the results in order."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="jaxlrp-read")
    ahead: collections.deque[Future[list[Sample | Failure]]] = collections.deque()
    try:
        for task in tasks:
            ahead.append(pool.submit(task))
            if len(ahead) >= 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def usual(
    source: Source, prepare: Callable[[Any], Any] | None, limit: int | None
) -> tuple[Spec, Source]:
    """The shape that most of the first samples have, and the source, from its beginning.

    What begins with samples that cannot be read is looked through to the first that can; but of a
    stream, whose items must be kept for the run itself, only the first items are looked at.

    Raises:
      ValueError: if there is no sample that can be read, with the reason of the first.
    """
    again = source
    if isinstance(source, Stream):
        items = iter(source.items)
        first = list(itertools.islice(items, _TRIES))
        again = dataclasses.replace(source, items=itertools.chain(first, items))
        source = dataclasses.replace(source, items=first)
    specs: list[Spec] = []
    reason = ""
    samples = read(
        source, skip=lambda _: False, part=Part(0, 1, 1), prepare=prepare, reach=Reach(limit), workers=1
    )  # fmt: skip
    for tried, found in enumerate(samples, 1):
        if isinstance(found, Failure):
            reason = reason or f"; the first is {found.name}: {found.reason}"
            continue
        try:
            specs.append(spec_of(found))
        except TypeError as error:
            reason = reason or f"; the first is {found.id!r}: {error}"
        if specs and (tried >= _TRIES or len(specs) == _PEEK):
            break
    if not specs:
        among = f" among its first {_TRIES}" if isinstance(again, Stream) else ""
        raise ValueError(
            f"the source {source.text!r} has no sample that can be read{among}{reason}"
        )
    counted = collections.Counter(map(repr, specs))
    (most, _), *_ = counted.most_common(1)
    return next(spec for spec in specs if repr(spec) == most), again


def spec_of(sample: Sample) -> Spec:
    """Shape and dtype of a sample, the dtype as JAX will hold it."""
    return Spec(*jax.tree.map(_struct, (sample.input, sample.target, dict(sample.extra))))


def _struct(leaf: Any) -> jax.ShapeDtypeStruct:
    array = np.asarray(leaf)
    if array.dtype.kind in "OSUMm" or array.dtype.names is not None:
        raise TypeError(f"it holds {array.dtype}, which is no number")
    return jax.ShapeDtypeStruct(array.shape, jax.dtypes.canonicalize_dtype(array.dtype))


def batches(
    samples: Iterator[Sample | Failure], spec: Spec, size: int, classes: int | None
) -> Iterator[HostBatch | Failure]:
    """Checks samples against a spec and puts `size` of them together.

    Args:
      samples: and failures, which are passed on.
      spec: what every sample must be like.
      size: of a batch.
      classes: how many there are, where the target is one or several of them.
    """
    held: list[tuple[Id, Any]] = []
    for sample in samples:
        found = checked(sample, spec, classes) if isinstance(sample, Sample) else sample
        if isinstance(found, Failure):
            yield found
            continue
        held.append(found)
        if len(held) == size:
            yield _stack(held, size)
            held = []
    if held:
        yield _stack(held, size)


def _stack(held: list[tuple[Id, Any]], size: int) -> HostBatch:
    rows = [row for _, row in held] + [held[-1][1]] * (size - len(held))
    return HostBatch(tuple(name for name, _ in held), jax.tree.map(lambda *a: np.stack(a), *rows))
