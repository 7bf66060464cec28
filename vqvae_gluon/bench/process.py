"""Processes that are measured: one for each peer, which does what it is asked on a pipe, and nothing else.

A request is a line of words with tabs between them, and so is its answer; ``serve.py`` and ``measure.cc`` say which
there are. All of them are started first, then asked in turns, so that whatever else the machine does meets all alike.
"""

import contextlib
import os
import random
import selectors
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Optional

from vqvae_gluon.errors import RuntimeFailure

_LOAD_SECONDS = 900  # torch.compile takes minutes on a slow machine.
_ANSWER_SECONDS = 600
_MAX_COUNT = 2000


@dataclass(frozen=True)
class Effort:
    """How long is measured.

    Attributes:
        rounds: turns of every peer.
        seconds: of each turn, about.
        pause: seconds before each, until the threads of the peer before sleep.
        threads: of each peer.
    """

    rounds: int
    seconds: float
    pause: float
    threads: int


@dataclass(frozen=True)
class Times:
    """Seconds of one repetition: the median of the turns, the quartiles, the least and the most."""

    median: float
    low: float
    high: float
    least: float
    most: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Times":
        low, _, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
        return cls(statistics.median(seconds), low, high, min(seconds), max(seconds))


def environment(threads: int) -> dict[str, str]:
    """A peer's variables. The number of threads must be there before a library is loaded."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads))}


class Process:
    """One peer.

    Args:
        name: for messages.
        command: that serves it.
    """

    def __init__(self, name: str, command: list[str], threads: int):
        self.name = name
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - close() does it
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(threads),
            start_new_session=True,  # A Ctrl-C is for the command, which ends them.
        )

    def wait(self) -> None:
        """Until it is ready.

        Raises:
            RuntimeFailure: it ended, or does not get ready.
        """
        self._answer(_LOAD_SECONDS)

    def ask(self, *words: object) -> str:
        """The answer to a request.

        Raises:
            RuntimeFailure: it ended, or does not answer.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(("\t".join(map(str, words)) + "\n").encode())
            self._process.stdin.flush()
        except OSError:
            raise self._failure() from None
        return self._answer(_ANSWER_SECONDS)

    def peak_mib(self) -> float:
        """The most memory that it has had, in MiB."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        raise self._failure()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):
                file.close()  # type: ignore[union-attr]

    def _answer(self, seconds: float) -> str:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                raise RuntimeFailure(self.name, f"did not answer within {seconds:.0f} seconds")
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._failure()
        return line.decode().strip()

    def _failure(self) -> RuntimeFailure:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return RuntimeFailure(self.name, lines[-1] if lines else f"ended with status {self._process.returncode}")


@contextlib.contextmanager
def started(commands: Mapping[str, list[str]], threads: int) -> Iterator[dict[str, Process]]:
    """Processes by name, ended afterwards."""
    processes: dict[str, Process] = {}
    try:
        for name, command in commands.items():
            processes[name] = Process(name, command, threads)
        yield processes
    finally:
        for process in processes.values():
            process.close()


def take_turns(
    tasks: Mapping[str, Callable[[int], float]], effort: Effort, tick: Optional[Callable[[], object]] = None
) -> dict[str, Times]:
    """Times of tasks that are measured in turns, each a function of how often to repeat it, which gives the seconds of
    the whole. Every one is warm: it is run until it takes a turn's time before that counts.

    Args:
        tick: is called after each turn.
    """
    counts: dict[str, int] = {}
    seconds: dict[str, list[float]] = {}
    for name, task in tasks.items():
        task(1)
        counts[name] = _count(effort, task(1))
        seconds[name] = []
    order, chance = list(tasks), random.Random(0)
    for _ in range(effort.rounds):
        chance.shuffle(order)  # So that nobody is always behind the same one.
        for name in order:
            time.sleep(effort.pause)
            seconds[name].append(tasks[name](counts[name]) / counts[name])
            counts[name] = _count(effort, seconds[name][-1])
            if tick is not None:
                tick()
    return {name: Times.of(values) for name, values in seconds.items()}


def _count(effort: Effort, seconds: float) -> int:
    """How often to repeat in a turn what took so long the last time."""
    return min(_MAX_COUNT, max(1, round(effort.seconds / max(seconds, 1e-6))))
