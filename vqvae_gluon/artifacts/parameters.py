"""MXNet ``.params`` files, proved before they are believed.

``mx.nd.load`` trusts every count and extent in a file; one edited field costs gigabytes or a segmentation fault. Here
each length is checked against the bytes that are left, and nothing may remain at the end. The C++ side
(cpp_bindings/src/parameters.cc) follows the same rules.

Layout, little-endian: magic 0x112 and 0 (uint64 each); number of tensors (uint64); for each tensor: magic 0xF993FAC9
(uint32), storage type (int32), number of dimensions (int32), extents (int64 each), device type and id (int32 each),
type (int32), values; number of names (uint64); for each name: length (uint64), bytes. MXNet before 0.12 wrote the magic
0xF993FAC8 and no storage type.
"""

import math
import struct
from pathlib import Path

import numpy as np

from vqvae_gluon.errors import InputError
from vqvae_gluon.files import read_file

# mshadow's type flags.
DTYPES: dict[int, np.dtype] = {
    0: np.dtype("float32"),
    1: np.dtype("float64"),
    2: np.dtype("float16"),
    3: np.dtype("uint8"),
    4: np.dtype("int32"),
    5: np.dtype("int8"),
    6: np.dtype("int64"),
}

_FILE_MAGIC = 0x112
_TENSOR_MAGIC = 0xF993FAC9
_OLD_TENSOR_MAGIC = 0xF993FAC8
_DENSE = 0
_MAX_DIMENSIONS = 32
_MAX_BYTES = 1 << 36
_MAX_NAME_BYTES = 4096


def read_parameters(path: Path) -> dict[str, np.ndarray]:
    """Read a ``.params`` file.

    Returns:
        The tensors by their full names: ``arg:<name>`` for an argument, ``aux:<name>`` for an auxiliary state.

    Raises:
        InputError: the file is missing, damaged, or holds what a Gluon export never does.
    """
    try:
        return _parse(read_file(path, _MAX_BYTES, "; export the network again"))
    except ValueError as error:
        raise InputError(path, f"is damaged: {error}; export the network again") from error


def _parse(data: bytes) -> dict[str, np.ndarray]:
    reader = _Reader(data)
    if reader.take("<QQ") != (_FILE_MAGIC, 0):
        raise ValueError("it does not begin as a .params file")
    tensors = [_tensor(reader) for _ in range(reader.count(minimum_bytes=24))]
    names = [_name(reader) for _ in range(reader.count(minimum_bytes=8))]
    if reader.left:
        raise ValueError(f"{reader.left} bytes follow its end")
    if len(names) != len(tensors):
        raise ValueError(f"it has {len(tensors)} tensors and {len(names)} names")
    if len(set(names)) != len(names):
        raise ValueError("a name occurs twice")
    return dict(zip(names, tensors))


def _tensor(reader: "_Reader") -> np.ndarray:
    (magic,) = reader.take("<I")
    storage = _DENSE if magic == _OLD_TENSOR_MAGIC else reader.take("<i")[0]
    if magic not in (_TENSOR_MAGIC, _OLD_TENSOR_MAGIC) or storage != _DENSE:
        raise ValueError("a tensor is not a dense one as MXNet writes it")
    (dimensions,) = reader.take("<i")
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise ValueError(f"a tensor has {dimensions} dimensions")
    shape = reader.take(f"<{dimensions}q")
    _, _, flag = reader.take("<iii")
    if flag not in DTYPES:
        raise ValueError(f"a tensor has the unknown type {flag}")
    if min(shape) < 1:
        raise ValueError(f"a tensor has the shape {shape}")
    values = reader.bytes(math.prod(shape) * DTYPES[flag].itemsize)
    return np.frombuffer(values, dtype=DTYPES[flag]).reshape(shape)


def _name(reader: "_Reader") -> str:
    (length,) = reader.take("<Q")
    if length > _MAX_NAME_BYTES:
        raise ValueError(f"a name is {length} bytes long")
    name = bytes(reader.bytes(length)).decode("utf-8")
    if name[:4] not in ("arg:", "aux:") or len(name) == 4:
        raise ValueError(f"the name {name!r} does not begin with arg: or aux:")
    return name


class _Reader:
    """Takes values off the front of a buffer and never past its end."""

    def __init__(self, data: bytes):
        self._data = memoryview(data)

    @property
    def left(self) -> int:
        return len(self._data)

    def bytes(self, size: int) -> memoryview:
        if size > self.left:
            raise ValueError(f"it ends early: {size} bytes are wanted, {self.left} are left")
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def take(self, layout: str) -> tuple:
        return struct.unpack(layout, self.bytes(struct.calcsize(layout)))

    def count(self, minimum_bytes: int) -> int:
        """A number of things of at least so many bytes each."""
        (number,) = self.take("<Q")
        if number > self.left // minimum_bytes:
            raise ValueError(f"it claims {number} entries in {self.left} bytes")
        return number
