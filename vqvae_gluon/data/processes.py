"""A function in processes of its own, called ahead of need and answered in order."""

import atexit
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

from vqvae_gluon.workers import Worker

_AHEAD = 2  # calls of a process: one is worked on, and one is done before it is wanted


class _Call(NamedTuple):
    """Arguments, where the failure or the result goes, and whether nobody wants it any more: it is not empty then."""

    arguments: tuple
    answer: SimpleQueue
    dropped: list


class Processes:
    """Processes that share the calls of one function, to be closed.

    Each has a thread that hands it the calls. They are no :class:`concurrent.futures.ThreadPoolExecutor`: its locks are
    taken in Python, and a Ctrl-C at the wrong moment leaves one locked for ever.

    Args:
        function: what can be pickled; each process gets it once, when it is started.
        count: of processes; with 0 a thread of this one does the work.
    """

    def __init__(self, function: Callable[..., Any], count: int):
        self._calls: SimpleQueue = SimpleQueue()
        self._closed: list = []
        spread = _Spread(function)
        self._workers = [Worker(spread) for _ in range(count)]
        for worker in self._workers:
            worker.start()
        gives: list[Callable[[Any], Any]] = [worker.give for worker in self._workers] or [spread]
        self._threads = [Thread(target=self._hand_over, args=(give,), daemon=True) for give in gives]
        for thread in self._threads:
            thread.start()
        # A program that ends ends its processes. For the calls that are left, the threads would start them again.
        atexit.register(self._refuse)

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
        waiting: deque[SimpleQueue] = deque()
        dropped: list = []
        try:
            for arguments in calls:
                waiting.append(SimpleQueue())
                self._calls.put(_Call(arguments, waiting[-1], dropped))
                if len(waiting) > _AHEAD * len(self._threads):
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        finally:
            dropped.append(True)

    def close(self) -> None:
        """End the processes, once they have done what they are at."""
        atexit.unregister(self._refuse)
        self._refuse()
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()
        for worker in self._workers:
            worker.stop()

    def _refuse(self) -> None:
        self._closed.append(True)

    def _hand_over(self, give: Callable[[tuple], Any]) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            try:
                if self._closed or call.dropped:
                    raise RuntimeError("the processes are closed")
                call.answer.put((None, give(call.arguments)))
            except BaseException as error:  # It is raised where the result is wanted.
                call.answer.put((error, None))


def _result(answer: SimpleQueue) -> Any:
    error, result = answer.get()
    if error is not None:
        raise error
    return result


class _Spread:
    """A function that takes its arguments as one."""

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, arguments: tuple) -> Any:
        return self._function(*arguments)
