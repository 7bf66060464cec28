"""Files that are whole or absent, and their digests."""

import contextlib
import errno
import hashlib
import math
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Optional

import numpy as np

from vqvae_gluon.errors import InputError
from vqvae_gluon.temporary import UNFINISHED, lock, random_name, remove_stale

_CHUNK = 1 << 20
NPY_MAGIC = b"\x93NUMPY"
_NPY_VERSION = NPY_MAGIC + b"\1\0"
_NPY_HEADER = re.compile(rb"\s*\{'descr': '([^']{2,8})', 'fortran_order': False, 'shape': \(([0-9, ]{0,400})\), \}\s*")
_NPY_TYPES = ("<f4", "<f8", "<f2", "|u1", "<i4", "|i1", "<i8", "|b1")  # MXNet's.
_MAX_NPY_HEADER_BYTES = 4096
_MAX_NPY_RANK = 32
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


@contextlib.contextmanager
def atomic_write(path: Path, synced: bool = True, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears under its name only when it is whole and on the disk. Where the file system
    can, it has no name until then, so that nothing is left of it whenever the process is ended; elsewhere the next
    process that writes there removes what is left.

    Args:
        synced: wait for the disk; not needed for files that another one makes valid.
        mode: who may read and write it, less the umask.

    Raises:
        OSError: it cannot be written; it names the file.
    """
    path = Path(path)
    with _naming(path):
        file, name = _create(path, mode)
    try:
        with _naming(path, unless_named=True), file:
            yield file
            file.flush()
            if synced:
                os.fsync(file.fileno())
            with _naming(path):
                name = _link(file.fileno(), path) if name is None else name
        if name is not None:
            with _naming(path):
                os.replace(name, path)
    except BaseException:
        if name is not None:
            with contextlib.suppress(OSError):
                os.unlink(name)
        raise


def write_npy(file: IO[bytes], array: np.ndarray) -> None:
    """Write an array as :func:`numpy.save` does, which does not notice every error of a full disk."""
    array = np.asarray(array, order="C")
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    file.write(array.data)


def open_file(path: Path, remedy: str = "") -> IO[bytes]:
    """Open a file for reading. Whatever else has that name is not opened: to open a device may do something, and to
    open a FIFO waits for who writes it.

    Args:
        remedy: what a message says at its end.

    Raises:
        InputError: it is missing, no file, or cannot be read.
    """
    try:
        if Path(path).is_file():
            file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file
            file.close()
    except (OSError, ValueError) as error:
        raise InputError(path, _reason(error)) from error
    raise InputError(path, f"does not exist or is no file{remedy}")


def read_file(path: Path, limit: int, remedy: str = "") -> bytes:
    """The bytes of a file.

    Args:
        remedy: what a message says at its end.

    Raises:
        InputError: it is missing, no file, or longer than the limit.
    """
    with open_file(path, remedy) as file:
        try:
            data = file.read() if os.fstat(file.fileno()).st_size <= limit else None
        except OSError as error:
            raise InputError(path, _reason(error)) from error
    if data is None or len(data) > limit:
        raise InputError(path, f"is larger than the limit of {limit} bytes")
    return data


def read_npy(path: Path) -> np.ndarray:
    """The array of an ``.npy`` file, memory-mapped. The C++ side (cpp_bindings/src/npy.cc) follows the same rules:
    version 1.0, C order, little-endian, one of MXNet's types, nothing behind the values.

    Raises:
        InputError: the file is missing, damaged, or something else.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            begin = file.read(len(_NPY_VERSION) + 2 + _MAX_NPY_HEADER_BYTES)
            dtype, shape, offset = _parse_npy_header(begin, size)
            if not math.prod(shape):
                return np.zeros(shape, dtype)
            return np.memmap(file, dtype, "r", offset, shape) if shape else np.array(parse_npy(begin, path))
    except (OSError, ValueError) as error:
        raise InputError(path, f"is not an .npy file that can be read: {_reason(error)}") from error


def parse_npy(data: bytes, name) -> np.ndarray:
    """The same of a file's bytes.

    Args:
        name: what messages call it.

    Raises:
        InputError: the bytes are damaged, or something else.
    """
    try:
        dtype, shape, offset = _parse_npy_header(data, len(data))
        return np.frombuffer(data, dtype, offset=offset).reshape(shape)
    except ValueError as error:
        raise InputError(name, f"is not an .npy file that can be read: {error}") from error


def _parse_npy_header(begin: bytes, file_size: int) -> tuple[np.dtype, tuple[int, ...], int]:
    """Type, shape and place of the values of a file that begins so."""
    if not begin.startswith(_NPY_VERSION) or len(begin) < len(_NPY_VERSION) + 2:
        raise ValueError("it does not begin as version 1.0 does")
    offset = len(_NPY_VERSION) + 2
    size = int.from_bytes(begin[offset - 2 : offset], "little")
    if size > _MAX_NPY_HEADER_BYTES or size > file_size - offset:
        raise ValueError("its header is cut off")
    match = _NPY_HEADER.fullmatch(begin[offset : offset + size])
    if match is None:
        raise ValueError("its header is not that of a C-ordered array")
    descr = match[1].decode("latin-1")
    if descr not in _NPY_TYPES:
        raise ValueError("its byte order is not little-endian" if descr[0] == ">" else "its type is not supported")
    extents = re.findall(rb"[0-9]+", match[2])
    shape = tuple(map(int, extents))
    if max(map(len, extents), default=0) > 12 or len(shape) > _MAX_NPY_RANK:
        raise ValueError("its shape does not fit its size")
    if math.prod(shape) * np.dtype(descr).itemsize != file_size - offset - size:
        raise ValueError("its shape does not fit its size")
    return np.dtype(descr), shape, offset + size


def sync(path: Path) -> None:
    """Have a finished file on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file's bytes."""
    with open(path, "rb") as file:
        return _digest_of(file, algorithm)


def is_file_of(path: Path, sha256: str) -> bool:
    """Whether there is a file of this SHA-256."""
    try:
        with open_file(path) as file:
            return _digest_of(file, "sha256") == sha256
    except (InputError, OSError):
        return False


def _digest_of(file: IO[bytes], algorithm: str) -> str:
    state = hashlib.new(algorithm)
    while chunk := file.read(_CHUNK):
        state.update(chunk)
    return state.hexdigest()


@contextlib.contextmanager
def _naming(path: Path, unless_named: bool = False) -> Iterator[None]:
    """Errors of the system name this file, not what helps to write it."""
    try:
        yield
    except OSError as error:
        if unless_named and error.filename is not None:
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


def _create(path: Path, mode: int) -> tuple[IO[bytes], Optional[str]]:
    """A file to be written, and its name for now: none where the file system can do without."""
    if path.exists() and not path.is_file():
        kind = errno.EISDIR if path.is_dir() else errno.EINVAL
        raise OSError(kind, os.strerror(kind))
    remove_stale(path.parent, UNFINISHED)
    try:
        handle = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, mode)
        if os.path.exists(f"/proc/self/fd/{handle}"):
            lock(handle)  # It will have a hidden name for a moment if it replaces another.
            return os.fdopen(handle, "wb"), None
        os.close(handle)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
    while True:
        name = str(path.parent / random_name(UNFINISHED))
        handle = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        lock(handle)
        if os.path.exists(name):  # Else another process removed it before it was locked.
            return os.fdopen(handle, "wb"), name
        os.close(handle)


def _link(handle: int, path: Path) -> Optional[str]:
    """Give a nameless file its name. If another file has it: a hidden one, which is returned, to take its place."""
    hidden = str(path.parent / random_name(UNFINISHED))
    for name in (str(path), hidden):
        with contextlib.suppress(FileExistsError):
            # With a directory's handle, which is not used here, links are followed; else Python does not ask for it.
            os.link(f"/proc/self/fd/{handle}", name, src_dir_fd=handle, follow_symlinks=True)
            return None if name != hidden else hidden
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), hidden)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
