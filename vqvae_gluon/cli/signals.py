"""SIGTERM ends a command as Ctrl-C does: what is temporary is removed, and one line is told."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Optional

TERMINATED = 128 + signal.SIGTERM  # The exit code that a shell gives for it.
_TWICE = 1  # second: timeout(1) sends it to a program and once more to its group


class Termination(KeyboardInterrupt):
    """SIGTERM came."""

    def __str__(self) -> str:
        return "terminated"


class Heeded:
    """Whether SIGTERM came, and when first."""

    def __init__(self) -> None:
        self.since: Optional[float] = None

    def __call__(self, *_: object) -> None:
        before, self.since = self.since, self.since or time.monotonic()
        if before is None or time.monotonic() - before > _TWICE:  # The first may be lost in an import.
            raise Termination


@contextlib.contextmanager
def heed_termination() -> Iterator[Heeded]:
    """Raise :class:`Termination` where SIGTERM comes, unless it is ignored or caught already."""
    heeded = Heeded()
    mine = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        and "DMLC_ROLE" not in os.environ  # A server of a job waits in MXNet, where no signal is heeded.
    )
    if mine:
        signal.signal(signal.SIGTERM, heeded)
    try:
        yield heeded
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
