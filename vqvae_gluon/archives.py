"""``.npz`` files: arrays by name. What a file holds is read from its directory, and checked, before any of it is
expanded: a file of 4 MB may say that it is one of 16 GB."""

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from vqvae_gluon.errors import InputError
from vqvae_gluon.files import parse_npy

_SUFFIX = ".npy"
_END = struct.Struct("<4s4H2IH")  # the record at the end of a zip file,
_END64 = struct.Struct("<4sQ2H2I4Q")  # that of a large one,
_LOCATOR = struct.Struct("<4sIQI")  # and what lies between them.
# The directory's. zipfile makes an object of each of its entries, of which there are 20,000 then at most.
_MAX_DIRECTORY_BYTES = 1 << 20
_METHODS = (
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
)  # What NumPy writes. Others ask for memory by numbers in the file.
# zipfile, zlib and struct raise what they like on a damaged archive.
_DAMAGED = (OSError, EOFError, ValueError, RuntimeError, OverflowError, zipfile.BadZipFile, zlib.error, struct.error)


class Archive:
    """The members of an ``.npz`` file.

    Args:
        file: open for reading, and for seeking.
        name: what messages call it.

    Attributes:
        sizes: bytes of each member when it is expanded, its header with them, by the name of its array.

    Raises:
        InputError: it is no such file.
    """

    def __init__(self, file: IO[bytes], name: Any):
        self._name = name
        with self._reading():
            size = _directory_bytes(file)
            if size > _MAX_DIRECTORY_BYTES:
                raise ValueError(f"its directory has {size} bytes")
            self._archive = zipfile.ZipFile(file)
            self._members = {_array_name(member): member for member in self._archive.infolist()}
            if len(self._members) != len(self._archive.infolist()):
                raise ValueError("it holds two arrays of one name")
        self.sizes = {array: member.file_size for array, member in self._members.items()}

    def read(self, array: str) -> bytes:
        """A member, of as many bytes as :attr:`sizes` says.

        Raises:
            InputError: it is damaged.
        """
        size = self.sizes[array]
        with self._reading(), self._archive.open(self._members[array]) as member:
            data = member.read(size)  # With the size, zipfile expands no more, and checks the checksum.
            if len(data) != size:
                raise ValueError(f"{array} is cut off")
        return data

    def array(self, array: str) -> np.ndarray:
        """The array of that name.

        Raises:
            InputError: it is damaged, or no array that :func:`~vqvae_gluon.files.parse_npy` reads.
        """
        return parse_npy(self.read(array), f"{self._name}: {array}")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except _DAMAGED as error:
            why = getattr(error, "strerror", None) or str(error) or "it ends early"
            raise InputError(self._name, f"is not an .npz file that can be read: {why}") from error


def _directory_bytes(file: IO[bytes]) -> int:
    """Length of the directory, as :mod:`zipfile` will find it. A file with a comment at its end is none of NumPy's."""
    end = file.seek(0, 2)
    file.seek(max(0, end - _END.size - _LOCATOR.size - _END64.size))
    tail = file.read()
    if len(tail) < _END.size or tail[-_END.size :][:4] != b"PK\5\6" or tail[-2:] != b"\0\0":
        raise ValueError("it does not end as a zip file does")
    size = int(_END.unpack(tail[-_END.size :])[5])
    before = tail[: -_END.size]
    if len(before) == _END64.size + _LOCATOR.size and before[_END64.size :][:4] == b"PK\6\7":
        size = max(size, int(_END64.unpack(before[: _END64.size])[8]))
    return size


def _array_name(member: zipfile.ZipInfo) -> str:
    name = member.filename
    if not name.endswith(_SUFFIX) or name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"its member {name[:100]} is no array")
    if member.compress_type not in _METHODS:
        raise ValueError(f"its member {name[:100]} is compressed in another way than NumPy's")
    return name[: -len(_SUFFIX)]
