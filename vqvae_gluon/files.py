"""Files that are whole or absent, and their digests."""

import contextlib
import errno
import hashlib
import os
import tempfile
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from vqvae_gluon.errors import InputError

_CHUNK = 1 << 20


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears under its name only when it is whole and on the disk."""
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        if path.is_dir():
            os.unlink(temporary)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_npy(path: Path) -> np.ndarray:
    """The array of an ``.npy`` file, memory-mapped. The C++ side (cpp_bindings/src/npy.cc) follows the same rules.

    Raises:
        InputError: the file is missing, damaged, longer than its array, or not in C order.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        offset = array.offset if isinstance(array, np.memmap) else 0
        if min(array.shape, default=0) < 0 or offset + array.nbytes != os.path.getsize(path):
            raise ValueError("its shape does not fit its size")
        if not array.dtype.isnative:
            raise ValueError("its byte order is not little-endian")
        if not array.flags.c_contiguous:
            raise ValueError("its values are not in C order")
    except FileNotFoundError as error:
        raise InputError(path, "does not exist") from error
    except (OSError, ValueError, EOFError, TypeError, SyntaxError, OverflowError, tokenize.TokenError) as error:
        raise InputError(path, f"is not an .npy file that can be read: {error}") from error
    return array


def move_synced(source: Path, target: Path) -> None:
    """Give a finished file its name, once it is on the disk. Both paths are on one file system."""
    with open(source, "rb") as file:
        os.fsync(file.fileno())
    os.replace(source, target)


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file's bytes."""
    state = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
