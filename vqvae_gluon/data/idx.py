"""The format of MNIST and Fashion-MNIST: four big-endian numbers (2051, N, H, W), then the pixels, gzipped."""

import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
import platformdirs

from vqvae_gluon.errors import InputError, RuntimeFailure
from vqvae_gluon.files import atomic_write
from vqvae_gluon.temporary import temporary_directory

_IMAGES_MAGIC = 2051
_HEADER_BYTES = 16


class IdxFile(NamedTuple):
    """One of a data set's files.

    Attributes:
        name: that it has.
        shape: (N, H, W) of its images.
        sha256: of the unpacked bytes: distributions pack them anew.
    """

    name: str
    shape: tuple[int, int, int]
    sha256: str


def cache_directory(name: str) -> Path:
    """Where the files of a data set are kept: in the user's cache, ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(platformdirs.user_cache_dir("vqvae_gluon")) / name


def load_idx(
    name: str, file: IdxFile, directory: Optional[Path], fetch: Callable[[Path], Iterable[tuple[str, bytes]]]
) -> np.ndarray:
    """The images of a file in the user's directory, or else in the cache, which is filled when it is empty.

    Args:
        name: of the data set.
        fetch: is given an empty directory to work in, and gives names and contents of all files of the data set.

    Raises:
        InputError: the file is missing, damaged, or another one.
        RuntimeFailure: it could not be fetched, or others can write into the cache.
    """
    if directory is not None:
        return read_idx(
            Path(directory),
            file,
            "put the official file there, leave --data out to fetch it, or give --dataset images for your own pictures",
        )
    cache = _open_cache(name)
    if not (cache / file.name).exists():
        with temporary_directory() as download:
            for fetched, data in fetch(download):
                with atomic_write(cache / fetched, mode=0o600) as kept:
                    kept.write(data)
    return read_idx(cache, file, "delete it and run again to fetch it anew")


def _open_cache(name: str) -> Path:
    """The directory of a data set in the cache. It is the user's alone: a file that another one puts there would be
    trusted.

    Raises:
        RuntimeFailure: it is another user's, or others can write into it.
    """
    cache = cache_directory(name)
    cache.parent.parent.mkdir(parents=True, exist_ok=True)
    for directory in (cache.parent, cache):
        directory.mkdir(mode=0o700, exist_ok=True)
        # A link has an owner of its own, who may let it lead elsewhere.
        if not {directory.stat().st_uid, directory.lstat().st_uid} <= {os.geteuid(), 0}:
            why = "belongs to another user"
        elif directory.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            why = "can be written by other users"
        else:
            continue
        remedy = "remove it, for it can be filled anew, or set XDG_CACHE_HOME to a directory of your own"
        raise RuntimeFailure(directory, f"{why}, whose files would be trusted; {remedy}")
    return cache


def read_idx(directory: Path, file: IdxFile, remedy: str) -> np.ndarray:
    """The images of one file.

    Args:
        remedy: what a message says at its end.

    Returns:
        uint8 (N, H, W, 1).

    Raises:
        InputError: the file is missing, damaged, or another one.
    """
    path, shape = directory / file.name, file.shape
    if not path.is_file():
        raise InputError(path, f"is missing; {remedy}")
    size = _HEADER_BYTES + int(np.prod(shape))
    try:
        with gzip.open(path) as packed:
            data = packed.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(path, f"is damaged: {error}; {remedy}") from error
    if len(data) != size or np.frombuffer(data, ">i4", 4).tolist() != [_IMAGES_MAGIC, *shape]:
        raise InputError(path, f"is damaged: it does not hold {shape[0]} images of {shape[2]}x{shape[1]}; {remedy}")
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise InputError(path, f"is damaged: the SHA-256 of what it holds is not {file.sha256}; {remedy}")
    return np.frombuffer(data, np.uint8, offset=_HEADER_BYTES).reshape(*shape, 1)
