"""``.vq`` files: bit-packed codes that know their bundle and the size of their images (docs/architecture.md, "The
codes"). The C++ side (cpp_bindings/src/codes.cc) follows the same rules.
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from vqvae_gluon.errors import InputError
from vqvae_gluon.files import atomic_write, read_file

MAGIC = b"VQCODES1"
_HEADER = struct.Struct("<8s32s6I")
_CHECKSUM = struct.Struct("<I")
MAX_FILE_BYTES = 1 << 33
_MAX_CODES = 2**31 - 1
_MAX_EMBEDDINGS = 2**24
_AT_ONCE = 1 << 20  # codes; a multiple of 8, so that these end where a byte does


@dataclass(frozen=True)
class Codes:
    """Codes of images of one size.

    Attributes:
        values: int32 (N, h, w).
        height: of the images in pixels, before they were padded.
        width: the same.
        num_embeddings: rows of the codebook.
        bundle: ``Bundle.digest`` of the bundle that made them.
    """

    values: np.ndarray
    height: int
    width: int
    num_embeddings: int
    bundle: str


def codes_bytes(codes: Codes) -> bytes:
    """A whole file.

    Raises:
        InputError: the codes do not fit the format.
    """
    values = codes.values
    if values.dtype != np.int32 or values.ndim != 3:
        raise _unfit("they are not int32 (N, h, w)")
    count, rows, columns = values.shape
    numbers = (count, codes.height, codes.width, rows, columns, codes.num_embeddings)
    flaw = _flaw(*numbers)
    if flaw:
        raise _unfit(flaw)
    if len(codes.bundle) != 64 or set(codes.bundle) - set("0123456789abcdef"):
        raise _unfit("their bundle's digest is not 64 hexadecimal digits")
    if values.min() < 0 or values.max() >= codes.num_embeddings:
        raise _unfit("one is not in the codebook")
    flat, weights = values.reshape(-1, 1), np.arange(_bits(codes.num_embeddings), dtype=np.int32)
    parts = [_HEADER.pack(MAGIC, bytes.fromhex(codes.bundle), *numbers)]
    for start in range(0, len(flat), _AT_ONCE):
        bits = (flat[start : start + _AT_ONCE] >> weights & 1).astype(np.uint8)
        parts.append(np.packbits(bits, bitorder="little").tobytes())
    data = b"".join(parts)
    return data + _CHECKSUM.pack(zlib.crc32(data))


def parse_codes(data: bytes, name) -> Codes:
    """Parse a file's bytes.

    Args:
        name: what messages call it.

    Raises:
        InputError: the bytes are damaged or something else.
    """
    if not data.startswith(MAGIC):
        raise _unreadable(name, "it does not begin with VQCODES1")
    if len(data) < _HEADER.size:
        raise _unreadable(name, "its length does not fit its sizes")
    _, bundle, *numbers = _HEADER.unpack_from(data)
    flaw = _flaw(*numbers)
    if flaw:
        raise _unreadable(name, flaw)
    count, height, width, rows, columns, num_embeddings = numbers
    total, bits = count * rows * columns, _bits(num_embeddings)
    end = _HEADER.size + (total * bits + 7) // 8
    if len(data) != end + _CHECKSUM.size:
        raise _unreadable(name, "its length does not fit its sizes")
    if zlib.crc32(memoryview(data)[:end]) != _CHECKSUM.unpack_from(data, end)[0]:
        raise _unreadable(name, "its checksum does not fit")
    packed = np.frombuffer(data, np.uint8, end - _HEADER.size, _HEADER.size)
    values, weights = np.empty(total, np.int32), 1 << np.arange(bits, dtype=np.int32)
    for start in range(0, total, _AT_ONCE):
        part = packed[start * bits // 8 : (start + _AT_ONCE) * bits // 8]
        size = min(_AT_ONCE, total - start) * bits
        unpacked = np.unpackbits(part, bitorder="little")
        values[start : start + _AT_ONCE] = unpacked[:size].reshape(-1, bits) @ weights
    if values.max() >= num_embeddings:
        raise _unreadable(name, "a code is not in its codebook")
    if unpacked[size:].any():
        raise _unreadable(name, "bits are set behind its last code")
    return Codes(values.reshape(count, rows, columns), height, width, num_embeddings, bundle.hex())


def read_codes(path: Path) -> Codes:
    """Read a file; see :func:`parse_codes`."""
    return parse_codes(read_file(path, MAX_FILE_BYTES), path)


def write_codes(path: Path, codes: Codes) -> str:
    """Write a file, whole or not at all; see :func:`codes_bytes`. Gives its SHA-256."""
    data = codes_bytes(codes)
    with atomic_write(path) as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()


def _flaw(count: int, height: int, width: int, rows: int, columns: int, num_embeddings: int) -> Optional[str]:
    """What is wrong with the numbers of a header."""
    if not all(1 <= number < 2**32 for number in (count, height, width, rows, columns, num_embeddings)):
        return "a size of it is out of bounds"
    if rows > height or columns > width:
        return "its codes are more than its pixels"
    if num_embeddings > _MAX_EMBEDDINGS:
        return "its codebook is too large"
    return "it holds too many codes" if count * rows * columns > _MAX_CODES else None


def _bits(num_embeddings: int) -> int:
    return max(1, (num_embeddings - 1).bit_length())


def _unfit(why: str) -> InputError:
    return InputError("codes", f"fit no .vq file: {why}")


def _unreadable(name, why: str) -> InputError:
    return InputError(name, f"is not a .vq file that can be read: {why}")
