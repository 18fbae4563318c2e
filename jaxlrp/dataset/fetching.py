"""Samples of a source that are left for this process, fetched and preprocessed in threads, in order."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from jaxlrp.dataset.source import Elements, Failure, Id, Indexed, Sample, Source, element

_BLOCK = 32  # samples fetched at once where fetching is cheap


@dataclasses.dataclass(frozen=True)
class Part:
    """This process's share of the remaining samples: every `of`-th block of `size` samples."""

    index: int
    of: int
    size: int

    def has(self, position: int) -> bool:
        return (position // self.size) % self.of == self.index


@dataclasses.dataclass(frozen=True)
class Range:
    """Which samples of a source a run covers.

    Attributes:
      limit: number of samples from the start of the source; None for all.
      pending: ids that are also covered beyond the limit: they were stored, and their chunk was damaged.
      widest: the largest limit of any run, beyond which no id of `pending` lies; None if there was none.
    """

    limit: int | None = None
    pending: frozenset[Id] = frozenset()
    widest: int | None = None

    @property
    def end(self) -> int | None:
        """Number of samples that must be looked at; None for all."""
        if not self.pending or self.limit is None:
            return self.limit
        return None if self.widest is None else max(self.limit, self.widest)

    def has(self, position: int, name: Id | None) -> bool:
        return self.limit is None or position < self.limit or name in self.pending


_Skip = Callable[[Id], bool]
_Preprocess = Callable[[Any], Any] | None
_Task = Callable[[], list[Sample | Failure]]


def fetch(
    source: Source,
    *,
    skip: _Skip,
    part: Part,
    preprocess: _Preprocess = None,
    covered: Range = Range(),
    workers: int = 4,
) -> Iterator[Sample | Failure]:
    """The samples that are left for this process, in order.

    Args:
      source: where they come from.
      skip: from an id to whether the sample is already done.
      part: this process's share.
      preprocess: from an input of the source to an input of the model, both without the batch axis.
      covered: which samples of the source the run covers.
      workers: number of threads that fetch and preprocess, >= 1.
    """
    if isinstance(source, Indexed):
        tasks = _indexed_tasks(source, skip, part, preprocess, covered)
    elif isinstance(source, Elements):
        tasks = _element_tasks(source.items, part, preprocess, covered)
    else:
        tasks = _stream_tasks(source.items, skip, part, preprocess, covered)
    slow = (
        preprocess is not None
        or isinstance(source, Elements)
        or (isinstance(source, Indexed) and source.slow)
    )
    done = _in_threads(tasks, workers) if slow and workers > 1 else (task() for task in tasks)
    found = itertools.chain.from_iterable(done)
    return _without_done(found, skip) if isinstance(source, Elements) else found


def _indexed_tasks(
    source: Indexed, skip: _Skip, part: Part, preprocess: _Preprocess, covered: Range
) -> Iterator[_Task]:
    numbered = enumerate(source.ids[: covered.end])
    left = (i for i, name in numbered if covered.has(i, name) and not skip(name))
    mine = (i for n, i in enumerate(left) if part.has(n))
    size = 1 if source.slow or preprocess is not None else _BLOCK
    while block := list(itertools.islice(mine, size)):
        yield lambda block=block: _fetch_block(source, block, preprocess)


def _fetch_block(
    source: Indexed, block: list[int], preprocess: _Preprocess
) -> list[Sample | Failure]:
    try:
        return [_preprocessed(sample, preprocess) for sample in source.fetch(block)]
    except Exception as error:  # whatever a decoder raises fails the sample, not the run
        if len(block) == 1:
            return [Failure(source.ids[block[0]], _reason(error))]
        return [found for i in block for found in _fetch_block(source, [i], preprocess)]


def _element_tasks(
    items: Any, part: Part, preprocess: _Preprocess, covered: Range
) -> Iterator[_Task]:
    repeated = _repeated(items)

    def fetch_one(position: int) -> list[Sample | Failure]:
        try:
            item = items[position]
        except Exception as error:
            found: Sample | Failure = Failure(None, _reason(error), position=position)
        else:
            if item is None:
                return []
            found = _element(item, position)
        if not covered.has(position, found.id):
            return []
        return [_duplicate(found) if position in repeated else _preprocessed(found, preprocess)]

    for position in range(min(len(items), covered.end or len(items))):
        if part.has(position):
            yield lambda position=position: fetch_one(position)


def _repeated(items: Any) -> frozenset[int]:
    """Positions whose id came earlier, perhaps in another process's part. Only for lists, in memory."""
    if not isinstance(items, (list, tuple)):
        return frozenset()
    seen: set[Id] = set()
    repeated = []
    for position, item in enumerate(items):
        name = None if item is None else _element(item, position).id
        if name is None:
            continue
        if name in seen:
            repeated.append(position)
        seen.add(name)
    return frozenset(repeated)


def _without_done(samples: Iterator[Sample | Failure], skip: _Skip) -> Iterator[Sample | Failure]:
    """Leaves out what is done; samples whose id is repeated fail."""
    seen: set[Id] = set()
    for found in samples:
        if found.id is None:
            yield found
            continue
        if skip(found.id):
            continue
        yield _duplicate(found) if found.id in seen else found
        seen.add(found.id)


def _duplicate(found: Sample | Failure) -> Failure:
    return Failure(found.id, "an earlier sample has the same id", duplicate=True)


def _stream_tasks(
    items: Iterable[Any], skip: _Skip, part: Part, preprocess: _Preprocess, covered: Range
) -> Iterator[_Task]:
    seen: set[Id] = set()
    left = 0
    for position, item in enumerate(itertools.islice(items, covered.end)):
        if item is None:  # filtered out by a grain transformation
            continue
        found = _element(item, position)
        if not covered.has(position, found.id) or (found.id is not None and skip(found.id)):
            continue
        if found.id in seen:
            found = _duplicate(found)
        elif found.id is not None:
            seen.add(found.id)
        left += 1
        if part.has(left - 1):
            yield lambda found=found: [_preprocessed(found, preprocess)]


def _element(item: Any, position: int) -> Sample | Failure:
    try:
        return element(item, position)
    except (TypeError, ValueError) as error:
        return Failure(None, _reason(error), position=position)


def _preprocessed(found: Sample | Failure, preprocess: _Preprocess) -> Sample | Failure:
    if preprocess is None or isinstance(found, Failure):
        return found
    try:
        return found._replace(input=preprocess(found.input))
    except Exception as error:
        return Failure(found.id, f"preprocess: {_reason(error)}")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]


def _in_threads(tasks: Iterator[_Task], workers: int) -> Iterator[list[Sample | Failure]]:
    """Runs tasks in threads, a bounded number ahead, and yields the results in order."""
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
