"""Image sets by name."""

from pathlib import Path
from typing import Optional

import numpy as np

from vqvae_gluon.data import fashion_mnist, mnist
from vqvae_gluon.data.cifar10 import open_cifar10
from vqvae_gluon.data.folders import open_folder, split_files
from vqvae_gluon.data.imageset import ArraySet, FolderSet, ImageSet, check_channels, read_all
from vqvae_gluon.data.records import RecordSet
from vqvae_gluon.errors import InputError

# Those that are fetched when they are not there, and those that are the user's.
DATASETS = {"mnist": mnist.load, "fashion-mnist": fashion_mnist.load}
_BROUGHT = {
    "cifar10": None,  # Says by itself what it wants.
    "images": "a folder of pictures, or one with train/ and test/ in it",
    "records": "a folder with train.rec, train.idx, test.rec and test.idx in it",
}
NAMES = (*DATASETS, *_BROUGHT)


def open_splits(
    name: str, channels: Optional[int], directory: Optional[Path], image_size: int = 0, stride: int = 1
) -> tuple[ImageSet, ImageSet, int, list[str]]:
    """Both splits of a data set, as a network takes them.

    Args:
        channels: 1 or 3, how image files are read; None for what the data have.
        image_size, stride: of pictures of the user's own, as :func:`vqvae_gluon.data.folders.open_folder` takes them.

    Returns:
        The images to train on and those for tests; the size that all pictures were resized to, or 0; and notes for the
        user, a line each.

    Raises:
        InputError, RuntimeFailure: as :func:`open_split`.
    """
    if name == "images" and directory is not None:
        folder = open_folder(Path(directory), channels, image_size, stride)
        return folder.train, folder.test, folder.image_size, folder.notes
    if image_size:
        raise InputError("--image-size", f"is for pictures of your own (--dataset images), and the data set is {name}")
    train, test = (open_split(name, split, channels, directory) for split in ("train", "test"))
    return train, test, 0, []


def open_split(
    name: str,
    split: str,
    channels: Optional[int],
    directory: Optional[Path] = None,
    image_size: int = 0,
    stride: int = 1,
) -> ImageSet:
    """One split of a data set.

    Args:
        name: one of :data:`NAMES`.
        split: ``train`` or ``test``.
        channels: 1 or 3, how image files are read; None for what the data have, which pictures of the user's own do
            not say alone.
        directory: where the files are; those of :data:`DATASETS` are fetched when left out.
        image_size, stride: of pictures of the user's own: what each is resized to, or 0; and what must divide sides.

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
        images = FolderSet(name, split_files(directory, split), channels or 3, image_size, stride)
    else:
        images = RecordSet(directory, split, channels)
    check_channels(images.shape, channels or images.shape[2], name)
    return images


def load_split(name: str, split: str, channels: int, directory: Optional[Path] = None) -> np.ndarray:
    """The same as one array, uint8 (N, H, W, C)."""
    return read_all(open_split(name, split, channels, directory))
