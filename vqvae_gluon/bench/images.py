"""The images that are measured with: those that the bundle was made for."""

import contextlib
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from vqvae_gluon.artifacts.bundle import Bundle
from vqvae_gluon.data.images import find_images, read_image, to_tensor
from vqvae_gluon.data.sets import DATASETS, load_split
from vqvae_gluon.errors import InputError, RuntimeFailure

_SIDES = {"mnist": 28, "fashion-mnist": 28}  # of images of other sets: 32, as in CIFAR-10
_STEP = 8  # pixels from one piece of a photograph to the next
_CALIBRATION, _CALIBRATION_QUICK = 512, 64


class Images(NamedTuple):
    """float32 (N, C, H, W), 0..255.

    Attributes:
        test: to measure with.
        calibration: others, to quantize by.
        source: what they are, in words.
    """

    test: np.ndarray
    calibration: np.ndarray
    source: str


def load_images(bundle: Bundle, data: Optional[Path], own: bool) -> Images:
    """Images of the data set that a bundle was trained on; without it, pieces of the pictures beside the bundle.

    Args:
        data: where the data set is, if it cannot be fetched.
        own: take the pictures beside the bundle in any case.

    Raises:
        InputError: there is neither.
    """
    name = bundle.manifest["data"]["name"]
    if not own and (name in DATASETS or data is not None):
        directory = None if name in DATASETS else data
        with contextlib.suppress(RuntimeFailure):  # It cannot be fetched here.
            test, train = (load_split(name, split, bundle.channels, directory) for split in ("test", "train"))
            chosen = np.random.default_rng(0).permutation(len(train))[:_CALIBRATION]
            return Images(to_tensor(test), to_tensor(train[np.sort(chosen)]), f"test images of {name}")
    side = _SIDES.get(name, 32)
    pieces = [piece for path in find_pictures(bundle.path) for piece in _cut(read_image(path, bundle.channels), side)]
    if not pieces:
        raise InputError(bundle.path, "has no pictures beside it to measure with; give those of its data set by --data")
    order = np.random.default_rng(0).permutation(len(pieces))
    images = to_tensor(np.stack([pieces[number] for number in order]))
    return Images(
        images, images[: _CALIBRATION_QUICK if own else _CALIBRATION], "pieces of the pictures beside the bundle"
    )


def find_pictures(bundle: Path) -> list[Path]:
    """Digits or photographs that a bundle comes with."""
    return [path for name in ("digits", "photos") if (bundle / name).is_dir() for path in find_images(bundle / name)]


def _cut(image: np.ndarray, side: int) -> list[np.ndarray]:
    """Pieces of a picture, (side, side, C)."""
    rows, columns = (range(0, extent - side + 1, _STEP) for extent in image.shape[:2])
    return [image[i : i + side, j : j + side] for i in rows for j in columns]


def repeated(images: np.ndarray, count: int) -> np.ndarray:
    """So many of the images, from the first on, again where they do not suffice."""
    return np.ascontiguousarray(np.resize(images, (count, *images.shape[1:])))
