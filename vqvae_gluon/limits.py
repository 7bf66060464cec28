"""What the runs of networks may take, where the files are anybody's. The C++ side (cpp_bindings/src/limits.cc) has the
same bounds.
"""

import contextlib
import math
import re
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Optional

from vqvae_gluon.errors import InputError

BUNDLE_MEMORY = 512  # MiB
PLAIN_MEMORY = 4096
_BYTES_OF_PIXEL = 4096
_SPARE = 320 << 20  # for what MXNet needs itself
_SECONDS = 20
_NODES_A_SECOND = 1000
_DATA_SIZE = re.compile(r"^VmData:\s*(\d+) kB$", re.MULTILINE)


class _Bound(NamedTuple):
    memory: int
    scaled: bool


_bound: Optional[_Bound] = None


@contextlib.contextmanager
def bounding_runs(memory: Optional[int], default: int) -> Iterator[None]:
    """Bound every run of a network in this process for a while.

    A graph whose tensors ask for more is refused before it is run. What its operators take beside them is bounded by
    the system's limit of the process's data, which is lowered for the time of a run. While MXNet looks at a graph, the
    process may take some seconds of processor time, after which SIGPROF ends it: see :mod:`vqvae_gluon.isolation`.

    Args:
        memory: MiB; None for the default, and for so much beside it as the pixels that are run at once may need.
        default: MiB.
    """
    global _bound
    before, _bound = _bound, _Bound((default if memory is None else memory) << 20, memory is None)
    try:
        yield
    finally:
        _bound = before


def run_limit(pixels: int = 0) -> Optional[int]:
    """The bytes that the tensors of a run may take; None where runs are not bounded.

    Args:
        pixels: of the images that are run at once.
    """
    if _bound is None:
        return None
    return _bound.memory + (_BYTES_OF_PIXEL * pixels if _bound.scaled else 0)


def mebibytes(number: int) -> str:
    """A number of bytes, for people."""
    return f"{math.ceil(number / 2**20 * 10) / 10:g} MiB"


@contextlib.contextmanager
def bounded_memory(file: Path, pixels: int = 0) -> Iterator[None]:
    """While a network is run, the process's data may grow by what a run may take, and some for what MXNet needs itself.

    Raises:
        InputError: that was not enough; it names the file.
    """
    limit, now = run_limit(pixels), _data_size()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if limit is None or now is None or (soft != resource.RLIM_INFINITY and soft < now + limit + _SPARE):
        yield
        return
    resource.setrlimit(resource.RLIMIT_DATA, (now + limit + _SPARE, hard))
    try:
        yield
    except MemoryError as error:
        why = f"needs more memory for a run than the limit of {mebibytes(limit)}; feed smaller batches, or raise it"
        raise InputError(file, f"{why} (--memory)") from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@contextlib.contextmanager
def bounded_time(nodes: int) -> Iterator[None]:
    """While MXNet looks at a graph, the process may take some seconds of processor time, and more for a large one."""
    if _bound is None:
        yield
        return
    signal.setitimer(signal.ITIMER_PROF, _SECONDS + nodes // _NODES_A_SECOND)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _data_size() -> Optional[int]:
    """The bytes that RLIMIT_DATA counts."""
    with contextlib.suppress(OSError):
        found = _DATA_SIZE.search(Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) << 10
    return None
