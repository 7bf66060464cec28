"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747) from its four official files."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Optional

import numpy as np
import platformdirs

from vqvae_gluon.data.idx import IdxFile, load_idx, read_idx
from vqvae_gluon.errors import RuntimeFailure
from vqvae_gluon.files import atomic_write

# File, number of images, and SHA-256 of what is in it: Debian packs it anew.
FILES = {
    "train": IdxFile(
        "train-images-idx3-ubyte.gz",
        (60000, 28, 28),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "test": IdxFile(
        "t10k-images-idx3-ubyte.gz",
        (10000, 28, 28),
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
}

# A package of Debian and Ubuntu that carries them. It is unpacked, not installed, unless the user has done so.
_PACKAGE = "dataset-fashion-mnist"
_FOLDER = Path("usr/share/datasets/fashion-mnist")
_INSTALLED = "/" / _FOLDER


def cache_directory() -> Path:
    """Where fetched files are kept: the user's cache, ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(platformdirs.user_cache_dir("vqvae_gluon")) / "fashion-mnist"


def load(split: str, directory: Optional[Path] = None) -> np.ndarray:
    """The pictures of one split.

    Args:
        split: ``train`` (60,000) or ``test`` (10,000).
        directory: where the official ``.gz`` files are; without it where Debian's package puts them, or the cache,
            filled from that package when empty.

    Returns:
        uint8 (N, 28, 28, 1).

    Raises:
        InputError: a file is missing from ``directory``, or damaged.
        RuntimeFailure: the files could not be fetched.
    """
    if directory is None and (_INSTALLED / FILES[split].name).exists():
        return read_idx(_INSTALLED, FILES[split], f"install Debian's package {_PACKAGE} again")
    return load_idx(FILES[split], directory, cache_directory(), fetch)


def fetch() -> None:
    """Fill the cache from Debian's package, by the user's own apt: neither root nor an installation is needed."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    print(f"Fetching Fashion-MNIST ({_PACKAGE} from Debian, 31 MB) into {cache}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as download:
        _run(["apt-get", "download", "--quiet", _PACKAGE], download)
        packages = list(Path(download).glob("*.deb"))
        if not packages:
            raise _failure("apt-get gave no file")
        _run(["dpkg-deb", "-x", str(packages[0]), "."], download)
        for name, *_ in FILES.values():
            unpacked = Path(download) / _FOLDER / name
            if not unpacked.is_file():
                raise _failure(f"{name} is not in the package")
            with atomic_write(cache / name) as file:
                file.write(unpacked.read_bytes())


def _run(command: list[str], directory: str) -> None:
    try:
        result = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise _failure(f"there is no {command[0]} here") from error
    if result.returncode != 0:
        raise _failure((result.stderr.strip().splitlines() or [f"{command[0]} failed"])[-1])


def _failure(reason: str) -> RuntimeFailure:
    names = " and ".join(name for name, *_ in FILES.values())
    source = "github.com/zalandoresearch/fashion-mnist"
    remedy = f"run apt-get update as root, or put {names} of {source} into a directory and use --data"
    return RuntimeFailure("Fashion-MNIST", f"could not be fetched ({reason}); {remedy}")
