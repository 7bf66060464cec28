"""One file for everything a run needs to go on: parameters, Adam's moments, the codebook's averages, where in the data
it is, what was measured. What is random is drawn from the seed and the number of the epoch or step, so that there is no
other state.

It is an ``.npz`` file of the learner's arrays, of ``checkpoint``, JSON as uint8, and of ``sha256``, the digest of that
and of all arrays: the arrays of two runs have the same names and shapes, and the checksum of each fits in either file.
Files from before the digest hold ``checkpoint`` as text; what they hold is checked in the same way, but for that."""

import hashlib
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from vqvae_gluon.archives import Archive
from vqvae_gluon.config import Config
from vqvae_gluon.errors import InputError
from vqvae_gluon.files import atomic_write, parse_npy, read_file
from vqvae_gluon.model.vqvae import VQVAE
from vqvae_gluon.training.learner import set_parameters, state_layout
from vqvae_gluon.training.progress import Progress, check_progress

_HEADER, _DIGEST = "checkpoint", "sha256"
_MAX_FILE_BYTES = 1 << 32  # Three times the largest network is less.
_MAX_HEADER_BYTES = 1 << 28
_HEADER_BYTES_A_ROW = 64  # at least, of the rows that it lists
_NPY_HEADER_BYTES = 128  # of every array whose name and shape NumPy writes into so many
_SHA256 = re.compile("[0-9a-f]{64}")
_OLD_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '<U\d{1,9}', 'fortran_order': False, 'shape': \(\), \} *\n", re.DOTALL
)


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        config: network and schedule.
        data: name and SHA-256 of the training images.
        progress: how far the run had come.
        arrays: the learner's state.
    """

    config: Config
    data: dict[str, str]
    progress: Progress
    arrays: dict[str, np.ndarray]

    def model(self) -> VQVAE:
        """The network."""
        model = VQVAE(self.config.model)
        model.initialize()
        set_parameters(model, self.arrays)
        return model


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        ValueError: a value is not finite; what the file held is left.
    """
    _check_finite(checkpoint.arrays)
    header = {
        "config": checkpoint.config.to_json(),
        "data": checkpoint.data,
        "progress": asdict(checkpoint.progress),
    }
    text = json.dumps(header).encode()
    own = {_HEADER: np.frombuffer(text, np.uint8), _DIGEST: np.frombuffer(_digest(text, checkpoint.arrays), np.uint8)}
    with atomic_write(path) as file:
        np.savez(file, **own, **checkpoint.arrays)


def load(path: Path, data: Optional[bytes] = None) -> Checkpoint:
    """Read a checkpoint.

    Args:
        data: its bytes, if they were read already.

    Raises:
        InputError: the file is missing or is no checkpoint of this version.
    """
    if not path.exists() and data is None:
        raise InputError(path, "does not exist; give a directory that 'vqvae-gluon train' wrote")
    data = read_bytes(path) if data is None else data
    try:
        return _read(Archive(io.BytesIO(data), path))
    except InputError as error:
        raise _unreadable(path, error.args[-1]) from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error


def read_bytes(path: Path) -> bytes:
    """The bytes of a checkpoint's file.

    Raises:
        InputError: it is no file, or too large for a checkpoint.
    """
    return read_file(path, _MAX_FILE_BYTES)


def _read(archive: Archive) -> Checkpoint:
    """What an archive holds, if it is exactly what a learner of its config writes."""
    if archive.sizes.get(_HEADER, _MAX_HEADER_BYTES) >= _MAX_HEADER_BYTES:
        raise ValueError("it says nothing of a run")
    text, is_old = _header(archive.read(_HEADER))
    # Few bytes that are many lists would take many times as much memory.
    if (text.count(b"[") + text.count(b"{")) * _HEADER_BYTES_A_ROW > len(text) + (1 << 16):
        raise ValueError("it holds too many lists")
    header = json.loads(text.decode())
    if not isinstance(header, dict) or header.keys() != {"config", "data", "progress"}:
        raise ValueError("it says not what a run writes")
    config = Config.from_json(header["config"])
    _check_data(header["data"], config)
    progress = check_progress(header["progress"], config)
    layout = state_layout(VQVAE(config.model))
    names = layout.keys() | ({_HEADER} if is_old else {_HEADER, _DIGEST})
    for name in sorted(names ^ archive.sizes.keys()):
        raise ValueError(f"it holds {name[:100]}" if name in archive.sizes else f"it does not hold {name}")
    arrays = {}
    for name, (kind, shape) in layout.items():
        arrays[name] = _array(archive, name, np.dtype(kind), shape)
    _check_finite(arrays)
    if not is_old and _array(archive, _DIGEST, np.dtype("u1"), (32,)).tobytes() != _digest(text, arrays):
        raise ValueError("its digest does not fit: it is not as it was written")
    return Checkpoint(config, header["data"], progress, arrays)


def _header(member: bytes) -> tuple[bytes, bool]:
    """The JSON of a checkpoint, and whether it is one from before the digest."""
    old = _OLD_HEADER.match(member)
    if old:
        return member[old.end() :].decode("utf-32-le").rstrip("\0").encode(), True
    array = parse_npy(member, _HEADER)
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError("it says nothing of a run")
    return array.tobytes(), False


def _array(archive: Archive, name: str, kind: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """An array of the archive; it is not expanded if it cannot be of this type and shape."""
    array = None
    if archive.sizes[name] <= math.prod(shape) * kind.itemsize + _NPY_HEADER_BYTES:
        array = archive.array(name)
    if array is None or (array.dtype, array.shape) != (kind, shape):
        raise ValueError(f"it does not hold {name} as {kind} of shape {shape}")
    return array


def _check_data(data: Any, config: Config) -> None:
    if not isinstance(data, dict) or data.keys() != {"name", "sha256"} or data["name"] != config.training.data:
        raise ValueError("it does not say what it was trained on")
    if not isinstance(data["sha256"], str) or not _SHA256.fullmatch(data["sha256"]):
        raise ValueError("it does not say what it was trained on")


def _check_finite(arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite")


def _digest(text: bytes, arrays: Mapping[str, np.ndarray]) -> bytes:
    """SHA-256 of what a checkpoint says of its run, and of the names, types, shapes and values of its arrays."""
    state = hashlib.sha256(text)
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        state.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        state.update(array.data)
    return state.digest()


def _unreadable(path: Path, why: str) -> InputError:
    return InputError(path, f"is not a checkpoint of this version ({why}); train anew")
