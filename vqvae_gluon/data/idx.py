"""The format of MNIST and Fashion-MNIST: four big-endian numbers (2051, N, H, W), then the pixels, gzipped."""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np

from vqvae_gluon.errors import InputError

_IMAGES_MAGIC = 2051
_HEADER_BYTES = 16


def read_idx(path: Path, sha256: str, shape: tuple[int, int, int], remedy: str) -> np.ndarray:
    """The images of one file.

    Args:
        sha256: of the unpacked bytes: distributions pack them anew.
        shape: (N, H, W) that they must have.
        remedy: what a message says at its end.

    Returns:
        uint8 (N, H, W, 1).

    Raises:
        InputError: the file is missing, damaged, or another one.
    """
    if not path.is_file():
        raise InputError(path, f"is missing; {remedy}")
    size = _HEADER_BYTES + int(np.prod(shape))
    try:
        with gzip.open(path) as file:
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(path, f"is damaged: {error}; {remedy}") from error
    if len(data) != size or np.frombuffer(data, ">i4", 4).tolist() != [_IMAGES_MAGIC, *shape]:
        raise InputError(path, f"is damaged: it does not hold {shape[0]} images of {shape[2]}x{shape[1]}; {remedy}")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError(path, f"is damaged: the SHA-256 of what it holds is not {sha256}; {remedy}")
    return np.frombuffer(data, np.uint8, offset=_HEADER_BYTES).reshape(*shape, 1)
