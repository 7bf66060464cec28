"""SIGTERM ends a command as Ctrl-C does: temporary files are removed, and one line is printed."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Optional

TERMINATED = 128 + signal.SIGTERM  # The exit code that a shell gives for it.
_TWICE = 1  # second: timeout(1) sends it to a program and once more to its group
_SOON = 0.05  # seconds


class Termination(KeyboardInterrupt):
    """SIGTERM came."""

    def __str__(self) -> str:
        return "terminated"


class Heeded:
    """Whether SIGTERM came, and when first."""

    def __init__(self) -> None:
        self.since: Optional[float] = None
        self._is_lost = False
        self._is_interrupted = False

    def interrupt(self, *_: object) -> None:
        """Ctrl-C came."""
        self._is_interrupted = True
        raise KeyboardInterrupt

    def terminate(self, *_: object) -> None:
        """SIGTERM came."""
        self._is_interrupted = True
        before, self.since = self.since, self.since or time.monotonic()
        if before is None or self._is_lost or time.monotonic() - before > _TWICE:  # The first may be lost in an import.
            self._is_lost = False
            raise Termination

    def send_again(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Python drops what is raised while an object is freed, or in a callback of a library, and goes on: an
        interrupt that is lost there comes again, when that is over."""
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            if not self._is_interrupted:  # Else an object is freed that was half made.
                sys.__unraisablehook__(unraisable)
            return
        self._is_lost = True
        number = signal.SIGTERM if issubclass(unraisable.exc_type, Termination) else signal.SIGINT
        again = threading.Timer(_SOON, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()


@contextlib.contextmanager
def heed_termination() -> Iterator[Heeded]:
    """Raise :class:`Termination` where SIGTERM comes, unless it is ignored or caught already; and of Ctrl-C nothing is
    told but that it came."""
    heeded = Heeded()
    mine = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        and "DMLC_ROLE" not in os.environ  # A server of a job waits in MXNet, where no signal is heeded.
    )
    hook, ctrl_c = sys.unraisablehook, signal.getsignal(signal.SIGINT)
    if mine:
        signal.signal(signal.SIGTERM, heeded.terminate)
        if ctrl_c is signal.default_int_handler:
            signal.signal(signal.SIGINT, heeded.interrupt)
        sys.unraisablehook = heeded.send_again
    try:
        yield heeded
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, ctrl_c)
            sys.unraisablehook = hook
