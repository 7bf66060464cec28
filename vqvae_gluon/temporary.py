"""Temporary directories and files that the user alone can read, under names that cannot be guessed, and of which the
next run removes what a killed one left.

Who writes one holds a shared lock on it, which ends with the process however that ends. What nobody holds is left over.
The C++ side (cpp_bindings/src/files.cc) follows the same rules.
"""

import atexit
import contextlib
import fcntl
import functools
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Optional, Union

PREFIX = "vqvae-gluon-"  # In the system's directory for temporary files.
UNFINISHED = ".vqvae."  # Beside what is being written, on its file system.
_RANDOM_BYTES = 16
_notes: Optional[int] = None
_made: set[Path] = set()  # By this process, and not removed yet.
_RANDOM = re.compile(f"[0-9a-f]{{{2 * _RANDOM_BYTES}}}")


@contextlib.contextmanager
def temporary_directory(within: Optional[Union[str, Path]] = None) -> Iterator[Path]:
    """A directory that is removed at the end, with all that is in it. What killed processes of this user left there is
    removed, too, before the first one is made.

    Args:
        within: the directory in which it is made, hidden; the system's directory for temporary files when left out.

    Raises:
        OSError: it cannot be made.
    """
    prefix = PREFIX if within is None else UNFINISHED
    where = Path(tempfile.gettempdir() if within is None else within)
    remove_stale(where, prefix)
    path, handle = _make(where, prefix)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _made.discard(path)
        os.close(handle)


@atexit.register
def _remove_made() -> None:
    """What a signal left that came while a directory was made or removed."""
    for path in _made:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Keep a temporary directory that another process made from being taken for left over, if that process dies."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        lock(handle)
        yield
    finally:
        os.close(handle)


def note_paths(file: int) -> None:
    """Write the path of every temporary directory that this process makes from now on into an open file."""
    global _notes
    _notes = file


def remove_noted(file: int) -> None:
    """Remove what is left of the directories whose paths are in a file that a process wrote which is dead."""
    os.lseek(file, 0, os.SEEK_SET)
    with os.fdopen(os.dup(file), "rb") as notes:
        for path in filter(None, notes.read().split(b"\0")):
            shutil.rmtree(os.fsdecode(path), ignore_errors=True)


def lock(handle: int) -> None:
    """Mark an open file or directory as in use, for as long as it is open. Where the file system has no locks, nothing
    can be taken for left over either."""
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_SH)


def random_name(prefix: str) -> str:
    """A name that no other process gives and that :func:`remove_stale` knows."""
    return prefix + secrets.token_hex(_RANDOM_BYTES)


@functools.lru_cache(maxsize=1024)
def remove_stale(where: Path, prefix: str) -> None:
    """Remove what killed processes of this user left in a directory; once in a process, as it looks at every name."""
    with contextlib.suppress(OSError), os.scandir(where) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and _RANDOM.fullmatch(entry.name[len(prefix) :]):
                with contextlib.suppress(OSError):
                    _remove_unheld(entry.path)


def _remove_unheld(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(handle)
        if found.st_uid == os.geteuid():
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISDIR(found.st_mode):
                shutil.rmtree(path, ignore_errors=True)
            elif stat.S_ISREG(found.st_mode):
                os.unlink(path)
    finally:
        os.close(handle)


def _make(where: Path, prefix: str) -> tuple[Path, int]:
    """A new directory and the handle that holds it."""
    while True:
        path = where / random_name(prefix)
        _made.add(path)
        if _notes is not None:
            os.write(_notes, os.fsencode(path.absolute()) + b"\0")
        path.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):  # Another process removed it before it was held.
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            lock(handle)
            if path.exists():
                return path, handle
            os.close(handle)
