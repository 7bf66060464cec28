"""Sets of images of one size, in memory or on disk, that are read by index."""

import abc
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any, Union

import numpy as np
from tqdm import tqdm

from vqvae_gluon.data.images import MAX_IMAGE_BYTES, check_size, decode_image, encode_png, fit, pad_to, read_image
from vqvae_gluon.data.processes import Processes
from vqvae_gluon.errors import InputError
from vqvae_gluon.files import read_file
from vqvae_gluon.workers import processor_count

_PIECE_BYTES = 1 << 20  # of pixels that are read at once
_PIECE_NUMBERS = 256  # of files that are looked at together
_LISTED = 5
_FEW = 2000  # images that are read before processes are started


class ImageSet(abc.ABC):
    """Images of one size.

    Attributes:
        name: what the user calls them.
        shape: (H, W, C) of each.
    """

    name: str
    shape: tuple[int, ...]

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def read(self, indices: np.ndarray) -> np.ndarray:
        """The images of these numbers, uint8 (n, H, W, C).

        Raises:
            InputError: a file is missing or damaged, or its image is of another size.
        """

    def encoded(self, index: int) -> bytes:
        """One image as the bytes of a PNG or JPEG file that holds the same pixels."""
        return encode_png(self.read(np.array([index]))[0])

    def shared(self) -> "ImageSet":
        """The same images, of which processes that are spawned with them make no copy."""
        return self

    def fingerprint(self) -> str:
        """SHA-256 of the images' shape and pixels; see :func:`fingerprint`."""
        return fingerprint_of(self.pieces("checking"), len(self), self.shape)

    def pieces(self, title: str) -> Iterator[np.ndarray]:
        """All images in order, uint8 (n, H, W, C) each, as :func:`each_piece` gives them."""
        return each_piece(self, self.read, title)


class ArraySet(ImageSet):
    """Images in memory.

    Args:
        array: uint8 (N, H, W, C).
    """

    def __init__(self, name: str, array: np.ndarray):
        self.name = name
        self.array = array
        self.shape = array.shape[1:]

    def __len__(self) -> int:
        return len(self.array)

    def read(self, indices: np.ndarray) -> np.ndarray:
        return self.array[indices]

    def shared(self) -> ImageSet:
        copy = _SharedSet(self.name, RawArray("B", self.array.nbytes), self.array.shape)
        copy.array[...] = self.array
        return copy

    def pieces(self, title: str) -> Iterator[np.ndarray]:
        yield self.array


class _SharedSet(ArraySet):
    """Images in memory that a process gets when it is spawned. No file is left of it, however the processes end."""

    def __init__(self, name: str, memory, shape: tuple[int, ...]):
        super().__init__(name, np.frombuffer(memory, np.uint8).reshape(shape))
        self._memory = memory

    def __reduce__(self):
        return _SharedSet, (self.name, self._memory, self.array.shape)


class FolderSet(ImageSet):
    """Image files, read when they are asked for.

    Args:
        channels: 1 or 3; how they are read.
        size: of the side of the square that each is cut and resized to (:func:`vqvae_gluon.data.images.fit`); 0: all
            have one size already.
        multiple: what must divide the sides: the last row and column are repeated until it does.

    Raises:
        InputError: the first file is missing or damaged.
    """

    def __init__(self, name: str, files: Sequence[Path], channels: int, size: int = 0, multiple: int = 1):
        self.name = name
        self.files = [str(file) for file in files]
        self._channels, self._size, self._multiple = channels, size, multiple
        self._first = self._read(0).shape
        self.shape = self._padded(self._read(0)).shape

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: np.ndarray) -> np.ndarray:
        images = np.empty((len(indices), *self.shape), np.uint8)
        for image, index in zip(images, indices):
            pixels = self._read(index)
            check_size(pixels.shape, self._first, self.files[index])
            image[...] = self._padded(pixels)
        return images

    def encoded(self, index: int) -> bytes:
        if self._size or self.shape != self._first:
            return super().encoded(index)
        return read_file(Path(self.files[index]), MAX_IMAGE_BYTES)

    def _read(self, index: int) -> np.ndarray:
        pixels = read_image(Path(self.files[index]), self._channels)
        return fit(pixels, self._size, self._size) if self._size else pixels

    def _padded(self, pixels: np.ndarray) -> np.ndarray:
        return pad_to(pixels[np.newaxis], self._multiple)[0]


def refuse_damaged(files: Sequence[Union[str, Path]]) -> None:
    """Read all of these pictures after one of them could not be read, so that one message names every such file.

    Raises:
        InputError: there are several. Of a single one there is a message already.
    """
    faults = each_number(functools.partial(_faults, files), len(files), "looking for damaged pictures")
    if len(faults) < 2:
        return
    directory = os.path.commonpath([os.path.dirname(file) for file in files])
    named = ", ".join(f"{os.path.relpath(file, directory)} ({why})" for file, why in faults[:_LISTED])
    more = f" and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
    raise InputError(
        directory,
        f"{len(faults)} of {len(files)} pictures cannot be read: {named}{more}; replace them, or move them away",
    )


def _faults(files: Sequence[Union[str, Path]], numbers: Iterable[int]) -> list[tuple[str, str]]:
    """Which of these files cannot be read, each with the reason."""
    faults = []
    for number in numbers:
        try:
            decode_image(read_file(Path(files[number]), MAX_IMAGE_BYTES), 3)
        except ValueError as error:
            faults.append((str(files[number]), str(error)))
        except InputError as error:
            faults.append((str(files[number]), str(error.args[-1])))
    return faults


def check_channels(shape: Sequence[int], channels: int, name) -> None:
    """Refuse images (H, W, C) of another number of channels.

    Raises:
        InputError: it is another one.
    """
    if shape[2] != channels:
        remedy = f"train without --image-channels, or pack them with --channels {shape[2]}"
        raise InputError(name, f"has {shape[2]} channels, not {channels}; {remedy}")


def each_piece(images: ImageSet, function: Callable[[np.ndarray], Any], title: str) -> Iterator[Any]:
    """What a function gives for the numbers of some images at a time, of all in order: by every processor if they are
    many, with a progress bar if standard error is a terminal.

    Args:
        function: what can be pickled.
        title: what the bar says.
    """
    return _in_pieces(function, len(images), max(1, _PIECE_BYTES // int(np.prod(images.shape))), title)


def each_number(function: Callable[[np.ndarray], list], count: int, title: str) -> list:
    """What a function gives for all numbers below ``count``, in order, in the same way; it gives a list for some of
    them at a time."""
    return [one for piece in _in_pieces(function, count, _PIECE_NUMBERS, title) for one in piece]


def _in_pieces(function: Callable[[np.ndarray], Any], count: int, size: int, title: str) -> Iterator[Any]:
    pieces = [np.arange(start, min(start + size, count)) for start in range(0, count, size)]
    bar = tqdm(total=count, desc=title, unit="image", leave=False, disable=None)
    with bar, Processes(function, processor_count() if count > _FEW else 0) as processes:
        for piece, result in zip(pieces, processes.in_order((piece,) for piece in pieces)):
            bar.update(len(piece))
            yield result


def read_all(images: ImageSet) -> np.ndarray:
    """All images, uint8 (N, H, W, C)."""
    if isinstance(images, ArraySet):
        return images.array
    array = np.empty((len(images), *images.shape), np.uint8)
    start = 0
    for piece in images.pieces(f"reading {images.name}"):
        array[start : start + len(piece)] = piece
        start += len(piece)
    return array


def fingerprint(images: np.ndarray) -> str:
    """SHA-256 of the shape and pixels of images, uint8 (N, H, W, C)."""
    return fingerprint_of([images], len(images), images.shape[1:])


def fingerprint_of(pieces: Iterable[np.ndarray], count: int, shape: Sequence[int]) -> str:
    """The same of images that come one after another."""
    state = hashlib.sha256(repr((count, *shape)).encode())
    for piece in pieces:
        state.update(np.ascontiguousarray(piece).reshape(-1).data)
    return state.hexdigest()
