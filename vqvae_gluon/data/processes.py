"""A function in processes of its own, called ahead of need and answered in order."""

import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from vqvae_gluon.workers import Worker

_AHEAD = 2  # calls of a process: one is worked on, and one is done before it is wanted


class Processes:
    """Processes that share the calls of one function, to be closed.

    Args:
        function: what can be pickled; each process gets it once, when it is started.
        count: of processes; with 0 a thread of this one does the work.
    """

    def __init__(self, function: Callable[..., Any], count: int):
        self._function = function
        self._threads = ThreadPoolExecutor(max(1, count), "data")
        self._workers = [Worker(_Spread(function)) for _ in range(count)]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            worker.start()
            self._idle.put(worker)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def in_order(self, calls: Iterable[tuple]) -> Iterator[Any]:
        """What the function gives for each call's arguments, in their order; a few calls are made ahead.

        Raises:
            RuntimeFailure: a process died, or the function failed.
            VQVAEError: the function raised it; OSError likewise.
        """
        waiting: deque[Future] = deque()
        try:
            for arguments in calls:
                waiting.append(self._threads.submit(self._call, arguments))
                if len(waiting) > _AHEAD * max(1, len(self._workers)):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """End the processes, once they have done what they are at."""
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.stop()

    def _call(self, arguments: tuple) -> Any:
        if not self._workers:
            return self._function(*arguments)
        worker = self._idle.get()
        try:
            return worker.give(arguments)
        finally:
            self._idle.put(worker)


class _Spread:
    """A function that takes its arguments as one."""

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, arguments: tuple) -> Any:
        return self._function(*arguments)
