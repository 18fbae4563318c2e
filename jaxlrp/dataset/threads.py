"""Threads that read and write while the devices compute."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_END: Any = object()


class Prefetch(Generic[T]):
    """Iterates over items that a thread fetches at most `size` ahead.

    An exception of the iterator is raised in place of the item.
    """

    def __init__(self, items: Iterator[T], size: int) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(size)
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._items = items
        self._thread = threading.Thread(target=self._run, name="jaxlrp-prefetch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    break
        except BaseException as error:
            self._error = error
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
            self._put(_END)

    def _put(self, item: Any) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        item = self._queue.get()
        if item is not _END:
            return item
        self._queue.put(_END)  # an iterator stays at its end
        if self._error is not None:
            raise self._error
        raise StopIteration

    def close(self) -> None:
        """Stops the thread, once the current item is done."""
        self._stopped.set()
        self._thread.join()


class Background(Generic[T]):
    """A thread that calls a function of each item, in order.

    Args:
      function: what is called.
      size: number of items that may be queued before `put` blocks.
    """

    def __init__(self, function: Callable[[T], None], size: int) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(size)
        self._function = function
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="jaxlrp-background", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (item := self._queue.get()) is not _END:
            if self._error is None:
                try:
                    self._function(item)
                except BaseException as error:
                    self._error = error

    def put(self, item: T) -> None:
        """Queues an item. Raises what the function raised for an earlier one."""
        self.check()
        self._queue.put(item)

    def check(self) -> None:
        """Raises what the function raised, if it did."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Waits until all items are done. Raises what the function raised."""
        self.close()
        self.check()

    def close(self) -> None:
        """Waits until all items are done, or one has failed. Raises nothing."""
        if self._thread.is_alive():
            self._queue.put(_END)
            self._thread.join()
