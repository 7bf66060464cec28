"""Batches for training, read and augmented ahead of need in processes of their own.

Gluon's ``DataLoader`` would fork a process that runs MXNet's threads, and nobody mends it any more.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from vqvae_gluon.data.imageset import ImageSet
from vqvae_gluon.data.processes import Processes

_STREAM = 1  # Tells these random numbers from those of the order, which come of seed and epoch alone.


@dataclass(frozen=True)
class Augmentation:
    """Random changes of images that leave them what they are.

    Attributes:
        flip: turn half of them left to right.
        shift: move them by at most so many pixels in each direction; the edge is repeated.
    """

    flip: bool = False
    shift: int = 0

    def apply(self, images: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Images (n, H, W, C), each changed in its own way.

        Args:
            draws: (n, 3) in 0..1, what decides of each: down, right, turned.
        """
        _, height, width, _ = images.shape
        down, right = np.floor(draws[:, :2] * (2 * self.shift + 1)).astype(int).T - self.shift
        rows = np.clip(np.arange(height) + down[:, None], 0, height - 1)
        columns = np.clip(np.arange(width) + right[:, None], 0, width - 1)
        if self.flip:
            turned = draws[:, 2] < 0.5
            columns[turned] = columns[turned, ::-1]
        return images[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


class Loader:
    """Batches of a set of images, to be closed; its processes are kept from epoch to epoch.

    Args:
        augmentation: of every batch; none when left out.
        workers: processes that read and augment; with 0 a thread of this one does.
        seed: of the augmentation.
    """

    def __init__(self, images: ImageSet, augmentation: Optional[Augmentation], workers: int, seed: int):
        images = images.shared() if workers else images
        self._processes = Processes(functools.partial(_batch, images, augmentation, seed), workers)

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def batches(self, plan: Sequence[np.ndarray], epoch: int, start: int = 0) -> Iterator[np.ndarray]:
        """The images of each step, uint8 (n, H, W, C), in order. How an image is changed depends on the seed, the epoch
        and its number alone: not on ``workers``, nor on where an epoch is taken up again, nor on who else is in its
        batch, so that machines may share one.

        Args:
            plan: of each step of the epoch, the numbers of its images.
            start: the first step that is wanted.

        Raises:
            InputError: a file is missing or damaged, or its image is of another size.
            RuntimeFailure: a process died.
        """
        return self._processes.in_order((indices, epoch) for indices in plan[start:])

    def close(self) -> None:
        """End the processes."""
        self._processes.close()


def _batch(
    images: ImageSet, augmentation: Optional[Augmentation], seed: int, indices: np.ndarray, epoch: int
) -> np.ndarray:
    batch = images.read(indices)
    if augmentation is None or augmentation == Augmentation():
        return batch
    return augmentation.apply(batch, _draws(len(images), seed, epoch)[indices])


@functools.lru_cache(maxsize=1)
def _draws(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, _STREAM]).random((count, 3), dtype=np.float32)
