"""MXNet ``.params`` files, proved before they are believed.

``mx.nd.load`` trusts every count and extent in a file; one edited field costs gigabytes or a segmentation fault. Here
each length is checked against the bytes that are left, and nothing may remain at the end. The C++ side
(cpp_bindings/src/parameters.cc) follows the same rules.

Layout, little-endian: magic 0x112 and 0 (uint64 each); number of tensors (uint64); the tensors; number of names
(uint64); for each name: length (uint64), bytes. A shape is a number of dimensions (int32) and extents (int64 each). A
tensor, as MXNet 0.12 and later write it: magic 0xF993FAC9 (uint32), storage type (int32), shape, device type and id
(int32 each), type (int32), values. The other forms that MXNet 1.9.1 reads:

* 0xF993FACA, under NumPy's rules for shapes: dense, and there may be no dimension and extents of 0;
* 0xF993FAC8, before 0.12: no storage type;
* no magic, in 2015 and 2016: number of dimensions and extents are uint32;
* sparse ones: the shape of the stored values before the shape; behind the type, type (int32) and shape of each array of
  indices; behind the values, these arrays, in any order. They are made dense.
"""

import math
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vqvae_gluon.artifacts.document import file_kind
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
# Types that MXNet knows and no runtime here takes: name and bytes of a value.
_OTHER_TYPES = {
    7: ("bool", 1),
    8: ("int16", 2),
    9: ("uint16", 2),
    10: ("uint32", 4),
    11: ("uint64", 8),
    12: ("bfloat16", 2),
}
_INDEX_TYPES = (4, 6)

_FILE_MAGIC = struct.pack("<QQ", 0x112, 0)
_NUMPY_MAGIC = 0xF993FACA
_TENSOR_MAGIC = 0xF993FAC9
_OLD_TENSOR_MAGIC = 0xF993FAC8
_DENSE, _ROW_SPARSE, _CSR = 0, 1, 2
_STORAGES = {_DENSE: "dense", _ROW_SPARSE: "row_sparse", _CSR: "csr"}
_INDEX_ARRAYS = {_DENSE: 0, _ROW_SPARSE: 1, _CSR: 2}
_MAX_DIMENSIONS = 32
_MAX_ELEMENTS = (1 << 31) - 1  # MXNet counts them in 31 bits.
_MAX_BYTES = 1 << 36
_MAX_NAME_BYTES = 4096
_MIN_TENSOR_BYTES = 20
# What the dense forms of all sparse tensors of a file may take: so many times the file, and so many bytes.
_DENSE_FACTOR, _DENSE_SPARE = 16, 32 << 20

_PREFIXES = ("arg:", "aux:")
_DAMAGED = "copy the file again and compare its digest"
_WANTED = "give the .params file that net.export(prefix) writes"


def read_parameters(path: Path) -> dict[str, np.ndarray]:
    """Read a ``.params`` file.

    Returns:
        The tensors, dense, by the names that the file has for them. MXNet writes ``arg:<name>`` for an argument and
        ``aux:<name>`` for an auxiliary state; see :func:`full_names`.

    Raises:
        InputError: the file is missing, damaged, or holds what is no network's parameters.
    """
    try:
        return _parse(read_file(path, _MAX_BYTES, f"; {_WANTED}"), path)
    except ValueError as error:
        raise InputError(path, f"is damaged: {error}; {_DAMAGED}") from error


def has_prefix(name: str) -> bool:
    """Whether a parameter's name says what it is, an argument or an auxiliary state."""
    return name.startswith(_PREFIXES)


def full_names(
    parameters: Mapping[str, np.ndarray], arguments: Collection[str], auxiliaries: Collection[str], path: Path
) -> dict[str, np.ndarray]:
    """The parameters with a prefix before every name. One without is what the graph takes by this name, as Gluon's own
    loaders have it; if the graph takes none, it is called an argument.

    Args:
        arguments: names that the graph takes.
        auxiliaries: names of its auxiliary states.
        path: of the file, for messages.

    Raises:
        InputError: the names are those of ``save_parameters``, or two are the same.
    """
    states = set(auxiliaries)
    strange = sorted(name for name in parameters if not has_prefix(name) and name not in states.union(arguments))
    if strange and (any("." in name for name in strange) or len(strange) == len(parameters)):
        raise InputError(
            path,
            f"is not of an export: it has '{strange[0]}', and the graph takes no parameter of this name; "
            "net.save_parameters() writes such files, for load_parameters() alone: "
            "deploy the file that net.export(prefix) writes",
        )
    full = {name if has_prefix(name) else f"{'aux' if name in states else 'arg'}:{name}": name for name in parameters}
    if len(full) != len(parameters):
        raise InputError(path, f"has a parameter twice, with and without the prefix arg: or aux:; {_WANTED}")
    return {name: parameters[stored] for name, stored in full.items()}


def _parse(data: bytes, path: Path) -> dict[str, np.ndarray]:
    reader = _Reader(data)
    if not _FILE_MAGIC.startswith(data[: len(_FILE_MAGIC)]):
        kind = "JSON, such as a symbol file" if data.startswith(b"{") else file_kind(data) or "a file of another kind"
        raise InputError(path, f"does not begin as a .params file of MXNet does: it is {kind}; {_WANTED}")
    reader.bytes(len(_FILE_MAGIC))
    tensors = [_tensor(reader) for _ in range(reader.count(_MIN_TENSOR_BYTES))]
    names = [_name(reader) for _ in range(reader.count(minimum_bytes=8))]
    if reader.left:
        raise ValueError(f"{reader.left} bytes follow its end")
    if tensors and not names:
        raise InputError(path, f"is a list of {len(tensors)} tensors without names, which fit no graph; {_WANTED}")
    if len(names) != len(tensors):
        raise ValueError(f"it has {len(tensors)} tensors and {len(names)} names")
    if len(set(names)) != len(names):
        raise ValueError("a name occurs twice")
    allowance = _DENSE_FACTOR * len(data) + _DENSE_SPARE
    parameters = {}
    for name, tensor in zip(names, tensors):
        tensor.require_usable(name, allowance, path)
        allowance -= tensor.dense_bytes if tensor.storage != _DENSE else 0
        parameters[name] = tensor.dense(name)
    return parameters


@dataclass(frozen=True)
class _Stored:
    """A tensor as the file has it.

    Attributes:
        kept: shape of the values that are stored.
        indices: of a sparse one; rows of row_sparse, beginnings of rows and columns of csr.
    """

    storage: int
    shape: tuple[int, ...]
    flag: int
    kept: tuple[int, ...]
    values: memoryview
    indices: list[np.ndarray]

    @property
    def dense_bytes(self) -> int:
        return math.prod(self.shape) * _item_size(self.flag)

    def require_usable(self, name: str, allowance: int, path: Path) -> None:
        """Refuse a type that no runtime takes, and a sparse tensor whose dense form takes more bytes than that."""
        if self.flag not in DTYPES:
            kind = _OTHER_TYPES[self.flag][0]
            raise InputError(
                path, f"holds {name} in {kind}, which is not supported; cast it to float32 before net.export(prefix)"
            )
        if self.storage != _DENSE and self.dense_bytes > allowance:
            raise InputError(
                path,
                f"holds {name} as {_STORAGES[self.storage]} of the shape {self.shape}, whose dense form takes "
                f"{self.dense_bytes} bytes, more than {_DENSE_FACTOR} times the file and {_DENSE_SPARE >> 20} MiB; "
                "store it dense, by tostype('default')",
            )

    def dense(self, name: str) -> np.ndarray:
        values = np.frombuffer(self.values, dtype=DTYPES[self.flag]).reshape(self.kept)
        if self.storage == _DENSE:
            return values
        result = np.zeros(self.shape, values.dtype)
        if self.storage == _ROW_SPARSE:
            (rows,) = self.indices
            _require_places(rows, self.shape[0], name)
            result[rows] = values
            return result
        begins, columns = self.indices
        if begins[0] != 0 or begins[-1] != len(columns) or (np.diff(begins) < 0).any():
            raise ValueError(f"the rows of {name} do not begin one behind the other")
        if len(columns) and not 0 <= columns.min() <= columns.max() < self.shape[1]:
            raise ValueError(f"an index of {name} is outside of its shape")
        rows = np.repeat(np.arange(self.shape[0]), np.diff(begins))
        _require_places(rows * self.shape[1] + columns, math.prod(self.shape), name)
        result[rows, columns] = values
        return result


def _require_places(indices: np.ndarray, limit: int, name: str) -> None:
    """MXNet takes indices in any order. Of two that are equal, its operators take the last or the sum."""
    if len(indices) and not 0 <= indices.min() <= indices.max() < limit:
        raise ValueError(f"an index of {name} is outside of its shape")
    if len(np.unique(indices)) != len(indices):
        raise ValueError(f"an index of {name} occurs twice")


def _tensor(reader: "_Reader") -> _Stored:
    (magic,) = reader.take("<I")
    storage = _DENSE
    kept: tuple[int, ...] = ()
    if magic in (_TENSOR_MAGIC, _NUMPY_MAGIC):
        (storage,) = reader.take("<i")
        if storage not in _STORAGES or (magic == _NUMPY_MAGIC and storage != _DENSE):
            raise ValueError(f"a tensor has the unknown storage type {storage}")
        kept = _shape(reader, lowest=0) if storage != _DENSE else ()
        shape = _shape(reader, lowest=0 if magic == _NUMPY_MAGIC else 1, scalars=magic == _NUMPY_MAGIC)
    elif magic == _OLD_TENSOR_MAGIC:
        shape = _shape(reader)
    else:
        shape = _extents(reader, magic, "I", lowest=1)
    _, _, flag = reader.take("<iii")
    size = _item_size(flag)
    arrays = [_index_layout(reader) for _ in range(_INDEX_ARRAYS[storage])]
    kept = shape if storage == _DENSE else _kept(storage, shape, kept, [length for _, length in arrays])
    values = reader.bytes(math.prod(kept) * size)
    indices = [np.frombuffer(reader.bytes(length * dtype.itemsize), dtype).astype(np.int64) for dtype, length in arrays]
    return _Stored(storage, shape, flag, kept, values, indices)


def _kept(storage: int, shape: tuple[int, ...], told: tuple[int, ...], lengths: list[int]) -> tuple[int, ...]:
    """Shape of the values that a sparse tensor stores. The number of indices says how many rows there are: the first
    extent that MXNet writes may be older than the values."""
    kept = (lengths[-1], *shape[1:]) if storage == _ROW_SPARSE else (lengths[-1],)
    fits = len(told) == len(kept) and told[1:] == kept[1:] and lengths[-1] <= math.prod(shape)
    if storage == _ROW_SPARSE:
        fits = fits and lengths[0] <= shape[0]
    else:
        fits = fits and len(shape) == 2 and lengths[0] == shape[0] + 1
    if not fits:
        raise ValueError(f"the parts of a {_STORAGES[storage]} tensor do not fit together")
    return kept


def _index_layout(reader: "_Reader") -> tuple[np.dtype, int]:
    """Type and length of an array of indices."""
    (flag,) = reader.take("<i")
    shape = _shape(reader, lowest=0)
    if flag not in _INDEX_TYPES or len(shape) != 1:
        raise ValueError(f"the indices of a tensor have the type {flag} and the shape {shape}")
    return DTYPES[flag], shape[0]


def _shape(reader: "_Reader", lowest: int = 1, scalars: bool = False) -> tuple[int, ...]:
    (dimensions,) = reader.take("<i")
    return () if scalars and dimensions == 0 else _extents(reader, dimensions, "q", lowest)


def _extents(reader: "_Reader", dimensions: int, form: str, lowest: int) -> tuple[int, ...]:
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise ValueError(f"a tensor has {dimensions} dimensions")
    shape = reader.take(f"<{dimensions}{form}")
    if min(shape) < lowest or math.prod(max(extent, 1) for extent in shape) > _MAX_ELEMENTS:
        raise ValueError(f"a tensor has the shape {shape}")
    return shape


def _item_size(flag: int) -> int:
    if flag not in DTYPES and flag not in _OTHER_TYPES:
        raise ValueError(f"a tensor has the unknown type {flag}")
    return DTYPES[flag].itemsize if flag in DTYPES else _OTHER_TYPES[flag][1]


def _name(reader: "_Reader") -> str:
    (length,) = reader.take("<Q")
    if length > _MAX_NAME_BYTES:
        raise ValueError(f"a name is {length} bytes long")
    try:
        return bytes(reader.bytes(length)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("a name is no UTF-8") from error


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
