"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747) from its four official files."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import numpy as np

from vqvae_gluon.data.idx import IdxFile, cache_directory, load_idx, read_idx
from vqvae_gluon.errors import RuntimeFailure

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
    return load_idx("fashion-mnist", FILES[split], directory, _fetch)


def _fetch(download: Path) -> Iterator[tuple[str, bytes]]:
    """From Debian's package, by the user's own apt: neither root nor an installation is needed."""
    kept = cache_directory("fashion-mnist")
    print(f"Fetching Fashion-MNIST ({_PACKAGE} from Debian, 31 MB) into {kept}", file=sys.stderr)
    _run(["apt-get", "download", "--quiet", _PACKAGE], download)
    packages = list(download.glob("*.deb"))
    if not packages:
        raise _failure("apt-get gave no file")
    _run(["dpkg-deb", "-x", str(packages[0]), "."], download)
    for name, *_ in FILES.values():
        unpacked = download / _FOLDER / name
        if not unpacked.is_file():
            raise _failure(f"{name} is not in the package")
        yield name, unpacked.read_bytes()


def _run(command: list[str], directory: Path) -> None:
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
