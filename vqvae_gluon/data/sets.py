"""Image sets by name."""

from pathlib import Path
from typing import Optional

import numpy as np

from vqvae_gluon.data import fashion_mnist, mnist
from vqvae_gluon.data.cifar10 import open_cifar10
from vqvae_gluon.data.images import find_images
from vqvae_gluon.data.imageset import ArraySet, FolderSet, ImageSet, check_channels, read_all
from vqvae_gluon.data.records import RecordSet
from vqvae_gluon.errors import InputError

# Those that are fetched when they are not there, and those that are the user's.
DATASETS = {"mnist": mnist.load, "fashion-mnist": fashion_mnist.load}
_BROUGHT = {
    "cifar10": None,  # Says by itself what it wants.
    "images": "a folder with train/ and test/ in it",
    "records": "a folder with train.rec, train.idx, test.rec and test.idx in it",
}
NAMES = (*DATASETS, *_BROUGHT)


def open_split(name: str, split: str, channels: int, directory: Optional[Path] = None) -> ImageSet:
    """One split of a data set.

    Args:
        name: one of :data:`NAMES`.
        split: ``train`` or ``test``.
        channels: 1 or 3; how image files are read.
        directory: where the files are; those of :data:`DATASETS` are fetched when left out.

    Raises:
        InputError: the name is unknown, or a file is missing or damaged.
        RuntimeFailure: the files could not be fetched.
    """
    if name not in NAMES:
        raise InputError(name, f"is no data set; the names are {', '.join(NAMES)}")
    directory = None if directory is None else Path(directory)
    if name in DATASETS:
        images: ImageSet = ArraySet(name, DATASETS[name](split, directory))
    elif name == "cifar10":
        images = open_cifar10(split, directory)
    elif directory is None:
        raise InputError(name, f"needs --data DIR, {_BROUGHT[name]}")
    elif name == "images":
        images = FolderSet(name, find_images(directory / split), channels)
    else:
        images = RecordSet(directory, split, channels)
    check_channels(images.shape, channels, name)
    return images


def load_split(name: str, split: str, channels: int, directory: Optional[Path] = None) -> np.ndarray:
    """The same as one array, uint8 (N, H, W, C)."""
    return read_all(open_split(name, split, channels, directory))
