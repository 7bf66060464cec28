"""Data sets as uint8 images (N, H, W, C), by name, directory or file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from vqvae_gluon.data.images import find_images, read_any, read_image
from vqvae_gluon.data.imageset import ArraySet, FolderSet, ImageSet, fingerprint
from vqvae_gluon.data.loader import Augmentation, Loader
from vqvae_gluon.data.sets import DATASETS, NAMES, load_split, open_split
from vqvae_gluon.errors import InputError
from vqvae_gluon.temporary import temporary_directory

__all__ = [
    "DATASETS",
    "NAMES",
    "ArraySet",
    "Augmentation",
    "FolderSet",
    "ImageSet",
    "Images",
    "Loader",
    "fingerprint",
    "load_split",
    "open_images",
    "open_split",
]


class Images:
    """Images to feed to runtimes, as files that every runtime reads for itself.

    Attributes:
        name: what the user called them.
        shape: (H, W, C) of each.
    """

    def __init__(self, name: str, files: Sequence[Path], array: Optional[np.ndarray], shape: tuple[int, ...]):
        self.name = name
        self.shape = shape
        self._files = files
        self._array = array

    def __len__(self) -> int:
        return len(self._files) if self._array is None else len(self._array)

    def batches(self, size: int) -> Iterator[tuple[list[Path], int]]:
        """Files of at most ``size`` images, and how many there are in them: image files, or one ``.npy`` file that
        lasts until the next batch is taken."""
        for start in range(0, len(self), size):
            if self._array is None:
                files = list(self._files[start : start + size])
                yield files, len(files)
            else:
                part = self._array[start : start + size]
                with temporary_directory() as directory:
                    path = directory / "images.npy"
                    np.save(path, np.ascontiguousarray(part), allow_pickle=False)
                    yield [path], len(part)


def open_images(source: str, channels: int, count: Optional[int] = None) -> Images:
    """Images from wherever a user points: a data set's name (its test split), a directory, or an ``.npy`` file.

    Args:
        channels: of the network that will take them.
        count: how many to take, from the first on; all when left out.

    Raises:
        InputError: there are none there, or they are of another kind.
    """
    path = Path(source)
    if source not in DATASETS and path.is_dir():
        files = find_images(path)[:count]
        return Images(source, files, None, read_image(files[0], channels).shape)
    if source in DATASETS:
        array = load_split(source, "test", channels)[:count]
    elif path.suffix == ".npy":
        array = read_any(path, channels)[:count]
    else:
        raise InputError(source, f"is no data set ({', '.join(DATASETS)}), directory or .npy file")
    if array.shape[3] != channels or not array.size:
        raise InputError(source, f"is of shape {array.shape}; the network takes images of {channels} channels")
    return Images(source, (), array, array.shape[1:])
