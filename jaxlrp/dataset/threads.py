"""Reading ahead and writing behind, while the devices compute."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_END: Any = object()


class Ahead(Generic[T]):
    """An iterator that a thread runs ahead of, by at most `size` items.

    What the iterator raises is raised where the item would have come.
    """

    def __init__(self, items: Iterator[T], size: int) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(size)
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._items = items
        self._thread = threading.Thread(target=self._run, name="jaxlrp-ahead", daemon=True)
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
        """Stops the thread; an item that it is at is finished."""
        self._stopped.set()
        self._thread.join()


class Behind(Generic[T]):
    """A thread that does something with each item, at most `size` behind.

    Args:
      function: what is done.
      size: how many items may wait before `put` does.
    """

    def __init__(self, function: Callable[[T], None], size: int) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(size)
        self._function = function
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="jaxlrp-behind", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (item := self._queue.get()) is not _END:
            if self._error is None:
                try:
                    self._function(item)
                except BaseException as error:
                    self._error = error

    def put(self, item: T) -> None:
        """Hands an item over; raises what an earlier one raised."""
        self.check()
        self._queue.put(item)

    def check(self) -> None:
        """Raises what an item raised."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Waits until all items are done; raises what one of them raised."""
        self.close()
        self.check()

    def close(self) -> None:
        """Waits until all items are done, or one has failed; raises nothing."""
        if self._thread.is_alive():
            self._queue.put(_END)
            self._thread.join()
