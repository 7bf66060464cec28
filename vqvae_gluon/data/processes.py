"""A function in processes of its own, called ahead of need and answered in order.

Each process has a pipe to itself. With one queue for all, as in :mod:`concurrent.futures`, a process that is killed
while it writes leaves the others locked out, and those that remain outlive a parent that is killed.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from vqvae_gluon.errors import RuntimeFailure, VQVAEError

_AHEAD = 2  # calls of a process: one is worked on, and one is done before it is wanted


def processor_count() -> int:
    """Number of processors this process may run on. That of :mod:`~vqvae_gluon.compat` brings MXNet with it."""
    return len(os.sched_getaffinity(0))


class Processes:
    """Processes that share the calls of one function, to be closed.

    They are spawned: a fork would inherit MXNet's threads, which it lacks. They end when this process does, however it
    ends, and know nothing of a Ctrl-C, which is this process's to handle. A script that leads here needs its
    ``if __name__ == "__main__":``, since each of them imports it.

    Args:
        function: what can be pickled; each process gets it once, when it is started.
        count: of processes; with 0 a thread of this one does the work.
    """

    def __init__(self, function: Callable[..., Any], count: int):
        self._function = function
        self._threads = ThreadPoolExecutor(max(1, count), "data")
        self._workers: list[tuple[BaseProcess, Connection]] = []
        self._idle: queue.SimpleQueue[tuple[BaseProcess, Connection]] = queue.SimpleQueue()
        try:
            for _ in range(count):
                self._start()
        except BaseException:
            self.close()
            raise

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
        for _, connection in self._workers:
            connection.close()
        for process, _ in self._workers:
            process.join()
        self._workers.clear()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(self._function, theirs), daemon=True)
        with _without_interrupts(), theirs:
            process.start()
        self._workers.append((process, ours))
        self._idle.put((process, ours))

    def _call(self, arguments: tuple) -> Any:
        if not self._workers:
            return self._function(*arguments)
        process, connection = self._idle.get()
        try:
            connection.send(arguments)
            error, result = connection.recv()
        except (EOFError, OSError) as broken:
            process.join()
            reason = (
                f"its process ended with status {process.exitcode}; run again, with fewer of them if memory is short"
            )
            raise RuntimeFailure("data worker", reason) from broken
        finally:
            self._idle.put((process, connection))
        if error is not None:
            raise error
        return result


def _serve(function: Callable[..., Any], connection: Connection) -> None:
    with contextlib.suppress(EOFError, ConnectionError):  # The parent is gone, or wants no more.
        while True:
            arguments = connection.recv()
            try:
                answer: tuple[Any, Any] = (None, function(*arguments))
            except (VQVAEError, OSError) as error:
                answer = (error, None)
            except Exception as error:  # Whatever it is, it is told where it can be seen.
                answer = (RuntimeFailure("data worker", f"{type(error).__name__}: {error}"), None)
            connection.send(answer)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that are started meanwhile do not notice a Ctrl-C, from their first moment on."""
    resource_tracker.ensure_running()  # The first process would start it, and it lets them through again.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
