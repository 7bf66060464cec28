"""Work in processes of its own, one of which may crash or hang without ending the rest."""

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any, Optional

from vqvae_gluon.errors import RuntimeFailure, VQVAEError, internal_error
from vqvae_gluon.isolation import is_crash

_TIMEOUT = 300  # seconds
_STARTING = threading.Lock()
_TASKS = 50  # of one process: MXNet keeps the memory of every network that it has run


def processor_count() -> int:
    """Number of processors this process may run on."""
    return len(os.sched_getaffinity(0))


def run(
    function: Callable[[Any], Any], tasks: Sequence[Any], jobs: int, limited: bool = True
) -> Generator[tuple[Any, Any], None, None]:
    """Tasks and what a function gives for them, or its failure, in the order in which they are done.

    Every process has one thread, so that ``jobs`` of them share the machine and all compute the same bits. They end
    with the process that started them.

    Args:
        function: of a module, that a new process can import it. A :class:`VQVAEError` or an ``OSError`` that it raises
            is given as it is; whatever else happens to it, as a :class:`RuntimeFailure`.
        limited: a task may take minutes alone, and a process is replaced after some tasks.
    """
    waiting: queue.SimpleQueue = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    done: queue.SimpleQueue = queue.SimpleQueue()
    stopped = threading.Event()

    def work() -> None:
        worker = Worker(function, _TIMEOUT, _TASKS) if limited else Worker(function)
        while not stopped.is_set():
            try:
                task = waiting.get_nowait()
            except queue.Empty:
                break
            try:
                done.put((task, worker.give(task)))
            except (VQVAEError, OSError) as error:
                done.put((task, error))
        worker.stop()

    threads = [threading.Thread(target=work) for _ in range(min(jobs, len(tasks)))]
    with _one_thread():
        for thread in threads:
            thread.start()
        try:
            for _ in tasks:
                yield done.get()
        finally:
            stopped.set()
            for thread in threads:
                thread.join()


class Crash(RuntimeFailure):
    """A process died of what files may bring about, where MXNet runs them."""


class Worker:
    """A process that calls one function. It is started when it is needed, and again after it has died; it ends when the
    process that started it does, however that ends, and leaves a Ctrl-C to it.

    Each has a pipe to itself. With one queue for all, as in :mod:`concurrent.futures`, a process that is killed while
    it writes leaves the others locked out.

    Args:
        function: what can be pickled.
        timeout: seconds that a call may take.
        calls: after which the process is replaced.
    """

    def __init__(self, function: Callable[[Any], Any], timeout: Optional[int] = None, calls: Optional[int] = None):
        self._function = function
        self._timeout = timeout
        self._calls = calls
        self._process: Optional[Any] = None
        self._given = 0

    def start(self) -> None:
        """Start the process, if there is none."""
        if self._process is None:
            self._given = 0
            context = multiprocessing.get_context("spawn")  # A fork would inherit MXNet's threads, which it lacks.
            self._connection, theirs = context.Pipe()
            resource_tracker.ensure_running()  # When that starts, it lets Ctrl-C through again.
            self._process = context.Process(target=_serve, args=(self._function, theirs), daemon=True)
            with _without_interrupts(), _without_main(), theirs:
                self._process.start()

    def give(self, task: Any) -> Any:
        """What the function gives for a task.

        Raises:
            VQVAEError, OSError: the function raised it.
            RuntimeFailure: it raised another error, the process died, or was ended because it took too long.
        """
        if self._given == self._calls:
            self.stop()
        self.start()
        self._given += 1
        try:
            self._connection.send(task)
            if not self._connection.poll(self._timeout):
                self.stop(kill=True)
                raise RuntimeFailure("worker", f"did not end within {self._timeout} seconds")
            failure, result = self._connection.recv()
        except (EOFError, OSError) as error:  # The latter where it ended in the middle of its answer.
            status = self._end()
            why = f"its process ended with status {status}; run again, with fewer of them if memory is short"
            raise (Crash if is_crash(status) else RuntimeFailure)("worker", why) from error
        if failure is not None:
            raise failure
        return result

    def stop(self, kill: bool = False) -> None:
        """End the process, if there is one, once it has done what it is at."""
        if self._process is not None:
            if kill:
                self._process.kill()
            self._end()

    def _end(self) -> int:
        process: Any = self._process
        self._process = None
        self._connection.close()
        process.join()
        return int(process.exitcode)


def _serve(function: Callable[[Any], Any], connection) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Progress and warnings of a worker would lie across the progress of all.
    if sys.stderr is not None:  # Where it was closed, its number may be that of a pipe to the parent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    with contextlib.suppress(EOFError, ConnectionError):  # No more is wanted.
        while True:
            task = connection.recv()
            try:
                answer: tuple[Optional[Exception], Any] = (None, function(task))
            except (VQVAEError, OSError) as error:
                answer = (error, None)
            except Exception as error:
                answer = (RuntimeFailure("worker", internal_error(error)), None)
            connection.send(answer)


def _end_with_parent() -> None:
    """A process whose parent was killed would work on, beside those that the next run starts."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that are started meanwhile do not notice a Ctrl-C, from their first moment on."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Processes that are started meanwhile do not run the user's script again, which may start processes itself. They
    need nothing of it: what they call is of a module."""
    main = sys.modules["__main__"].__dict__
    with _STARTING:
        kept = {name: main[name] for name in ("__spec__", "__file__") if name in main}
        main.update(dict.fromkeys(kept))
        try:
            yield
        finally:
            main.update(kept)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that are started meanwhile compute with one thread."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
