"""A command that runs the files of strangers, in a process of its own that this one watches.

MXNet believes what a graph says of its operators, and no check of ours knows all of them. The C++ side
(cpp_bindings/tools/isolation.cc) does the same.
"""

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Callable

from vqvae_gluon.errors import FAILED, REJECTED
from vqvae_gluon.temporary import note_paths, remove_noted

CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT, signal.SIGILL)
TIME_IS_UP = signal.SIGPROF  # See vqvae_gluon.limits.
_MXNET_CRASHED = 255  # What libmxnet's own handler of crashes ends with.
_WATCHED = {signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_BY_SIGNAL = 128  # A shell gives this and the number of the signal for an exit code.
_MEMORY = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
_ROOMY = 8 << 30  # Bytes that a process has enough of.
CRASHED = (
    "makes MXNet crash; compare the digests of its files with those of the originals; if they are equal, MXNet cannot "
    "run this network"
)
_PR_SET_PDEATHSIG = 1  # sys/prctl.h
_SENT_BY_A_PROCESS = 0  # and below; signals of the terminal are above, and go to both processes


def is_crash(status: int) -> bool:
    """Whether a process died of what files may bring about, where MXNet runs them.

    Args:
        status: its exit code, or less than 0 the signal that ended it.
    """
    return status == _MXNET_CRASHED or -status in (*CRASHES, TIME_IS_UP)


def isolated(work: Callable[[], int], tell: Callable[[int, str], int]) -> int:
    """Do the work in a child of this process, which must not have loaded MXNet yet.

    The child returns from here, too, with what the work gives; it ends with its parent, and gets the signals that are
    sent to it.

    Args:
        work: gives an exit code.
        tell: of an exit code and a message makes the line of an error, and gives the code.

    Returns:
        The exit code of the work. If MXNet crashed, the error is reported and the code is that of a rejection.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    parent = os.getpid()
    notes = os.memfd_create("temporary")
    child = os.fork()
    if child == 0:
        note_paths(notes)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(FAILED)  # It ended before that.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # A crash is reported; no core file is needed.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return work()
    status = _wait_for(child)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if status >= 0 and status != _MXNET_CRASHED:
        return status
    remove_noted(notes)
    if -status == TIME_IS_UP:
        return tell(REJECTED, "MXNet takes too long to look at its graphs; they are not run")
    if not is_crash(status):
        with contextlib.suppress(OSError):  # SIGKILL cannot be set.
            signal.signal(-status, signal.SIG_DFL)  # As if it had met this process.
        os.kill(parent, -status)
        return _BY_SIGNAL - status
    if any(0 <= resource.getrlimit(kind)[0] < _ROOMY for kind in _MEMORY):
        return tell(FAILED, "MXNet crashed, perhaps for want of memory; raise the limit that 'ulimit -v' sets")
    return tell(REJECTED, CRASHED)


def _wait_for(child: int) -> int:
    """The exit code of a child, or less than 0 the signal that ended it; signals that come meanwhile are passed on."""
    while True:
        info = signal.sigwaitinfo(_WATCHED)
        if info.si_signo == signal.SIGCHLD:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid == child:
                return os.waitstatus_to_exitcode(status)
        elif info.si_code <= _SENT_BY_A_PROCESS:
            os.kill(child, info.si_signo)
