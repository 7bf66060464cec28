"""Image sets as MXNet's RecordIO: ``<split>.rec`` with the images, ``<split>.idx`` with their places, ``<split>.json``.

A record is an ``IRHeader`` and the bytes of an image file, as ``im2rec`` writes it: the file that the image came from,
else a PNG. Raw pixels would be read eight times as fast, but a PNG of 32x32 takes 0.1 ms, some hundredths of what a
network takes to learn from it, and a quarter less room; it has a checksum, and MXNet's other tools expect it.

They are written by MXNet and read here: its reader takes a damaged length at its word, and workers need not load MXNet.
"""

import contextlib
import dataclasses
import functools
import json
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from vqvae_gluon.data.images import MAX_IMAGE_BYTES, check_size, decode_image
from vqvae_gluon.data.imageset import ImageSet, check_channels, each_piece, fingerprint_of
from vqvae_gluon.errors import InputError, RuntimeFailure
from vqvae_gluon.files import atomic_write, read_file

FORMAT = 1
_MAGIC = struct.pack("<I", 0xCED7230A)
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_LENGTH_BITS = 29
_HEADER_BYTES = struct.calcsize("<IfQQ")  # mxnet.recordio.IRHeader: number of labels, a label, two numbers
_INDEX = re.compile(rb"(?:[0-9]{1,18}\t[0-9]{1,18}\n)+")
_MAX_INDEX_BYTES = 1 << 31
_MAX_RECORD_BYTES = MAX_IMAGE_BYTES + (1 << 20)
_MAX_ABOUT_BYTES = 4096
_REMEDY = "write the records anew with 'vqvae-gluon pack'"


@dataclass(frozen=True)
class _About:
    """What is kept beside the records."""

    shape: tuple[int, ...]
    images: int
    sha256: str
    bytes: int  # of the .rec file


class RecordSet(ImageSet):
    """The images of one split of a directory of records, read when they are asked for. Without a ``.json``, as other
    tools leave them, the first image tells the size.

    Args:
        channels: 1 or 3; how they are read. None for what the ``.json`` says, else for colours.

    Raises:
        InputError: a file is missing or damaged, or has another number of channels.
    """

    def __init__(self, directory: Path, split: str, channels: Optional[int]):
        self.name = "records"
        self._path = directory / f"{split}.rec"
        self._places = _read_index(directory / f"{split}.idx", self._path)
        self._about = _read_about(directory / f"{split}.json")
        channels = channels or (3 if self._about is None else self._about.shape[2])
        self._channels = channels
        if self._about is None:
            self.shape = self._decode(0).shape
            return
        self.shape = self._about.shape
        if (self._about.images, self._about.bytes) != (len(self), int(self._places[-1])):
            raise InputError(self._path, f"is damaged: {split}.json tells of other records; {_REMEDY}")
        check_channels(self.shape, channels, self._path)
        if self._decode(0).shape != self.shape:  # Room is made for images of this shape before they are read.
            raise InputError(self._path, f"is damaged: {split}.json tells of another size of images; {_REMEDY}")

    def __len__(self) -> int:
        return len(self._places) - 1

    def read(self, indices: np.ndarray) -> np.ndarray:
        images = np.empty((len(indices), *self.shape), np.uint8)
        for image, index in zip(images, indices):
            pixels = self._decode(index)
            check_size(pixels.shape, self.shape, self._title(index))
            image[...] = pixels
        return images

    def encoded(self, index: int) -> bytes:
        """The image file that a record holds.

        Raises:
            InputError: the record is damaged.
        """
        try:
            payload = _read_record(self._path, *self._places[index : index + 2].tolist())
        except ValueError as error:
            raise InputError(self._title(index), f"is damaged: {error}; {_REMEDY}") from error
        return payload[_HEADER_BYTES + 4 * _labels(payload) :]

    def fingerprint(self) -> str:
        """That which was written beside the records; computed where there is none."""
        return super().fingerprint() if self._about is None else self._about.sha256

    def _decode(self, index: int) -> np.ndarray:
        try:
            return decode_image(self.encoded(index), self._channels)
        except ValueError as error:
            reason = f"is not a readable PNG or JPEG image ({error})"
            raise InputError(self._title(index), f"{reason}; {_REMEDY}") from error

    def _title(self, index: int) -> str:
        return f"{self._path}, record {index}"


def write_records(images: ImageSet, directory: Path, split: str) -> str:
    """Write images as one split of a directory of records, whole or not at all.

    Returns:
        The images' fingerprint.

    Raises:
        InputError: an image is missing or damaged.
        RuntimeFailure, OSError: a file cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    records, index, about = (directory / f"{split}.{suffix}" for suffix in ("rec", "idx", "json"))
    with atomic_write(index) as index_file, atomic_write(records) as records_file:
        # MXNet opens files by name, and these have none yet.
        nameless = Path(f"/proc/self/fd/{index_file.fileno()}"), Path(f"/proc/self/fd/{records_file.fileno()}")
        sha256 = fingerprint_of(_write(images, nameless, records), len(images), images.shape)
        _check_written(nameless, records, len(images))
        size = os.fstat(records_file.fileno()).st_size
        for path in (about, index):  # The old ones, by way of which records are found.
            path.unlink(missing_ok=True)
    with atomic_write(about) as file:
        content = {"format": FORMAT, **dataclasses.asdict(_About(images.shape, len(images), sha256, size))}
        file.write(json.dumps(content, indent=2).encode() + b"\n")
    return sha256


def _write(images: ImageSet, files: tuple[Path, Path], name: Path) -> Iterator[np.ndarray]:
    """Write the records, and give the pixels on the way."""
    from vqvae_gluon.compat import mx, mxnet_reason  # Who only reads does without.

    images = images.shared()
    try:
        with contextlib.closing(mx.recordio.MXIndexedRecordIO(*map(str, files), "w")) as writer:
            number = 0
            for pixels, encoded in each_piece(images, functools.partial(_encode, images), f"packing {name.name}"):
                for image in encoded:
                    writer.write_idx(number, mx.recordio.pack(mx.recordio.IRHeader(0, 0.0, number, 0), image))
                    number += 1
                yield pixels
    except mx.MXNetError as error:
        raise RuntimeFailure(name, f"cannot be written ({mxnet_reason(error)}); is the disk full?") from error


def _check_written(files: tuple[Path, Path], name: Path, count: int) -> None:
    """MXNet's writer does not notice every error of a full disk."""
    try:
        places = _read_index(*files)
        for start, end in zip(places.tolist(), places[1:].tolist()):
            _read_record(files[1], start, end)
    except (InputError, ValueError) as error:
        raise RuntimeFailure(name, "was not written whole; is the disk full?") from error
    if len(places) != count + 1:
        raise RuntimeFailure(name, "was not written whole; is the disk full?")


def _encode(images: ImageSet, indices: np.ndarray) -> tuple[np.ndarray, list[bytes]]:
    return images.read(indices), [images.encoded(int(index)) for index in indices]


def _read_index(path: Path, records: Path) -> np.ndarray:
    """Where each record begins, in the order of the file, and where the last one ends."""
    data = read_file(path, _MAX_INDEX_BYTES, f"; {_REMEDY}")
    if not records.is_file():
        raise InputError(records, f"does not exist or is no file; {_REMEDY}")
    if not _INDEX.fullmatch(data):
        raise InputError(path, f"is damaged: its lines are not a number and a place each; {_REMEDY}")
    places = np.append(np.array(data.split()[1::2]).astype(np.int64), records.stat().st_size)
    if places[0] or (np.diff(places) <= 0).any():
        raise InputError(path, f"is damaged: its records are not one behind the other in {records.name}; {_REMEDY}")
    return places


def _read_record(path: Path, start: int, end: int) -> bytes:
    """What the record between two places holds, with its header. MXNet leaves out its own mark where it would stand
    within, and breaks the record there.

    Raises:
        ValueError: the record is damaged.
    """
    size = end - start
    if size > _MAX_RECORD_BYTES:
        raise ValueError("it is too large")
    with open(path, "rb", buffering=0) as file:
        data = os.pread(file.fileno(), size, start)
    if len(data) != size:
        raise ValueError("it is cut off")
    parts: list[bytes] = []
    at = 0
    while at < size:
        if size - at < 8 or data[at : at + 4] != _MAGIC:
            raise ValueError("it does not begin as a record does")
        (word,) = struct.unpack_from("<I", data, at + 4)
        kind, length = word >> _LENGTH_BITS, word & ((1 << _LENGTH_BITS) - 1)
        end = at + 8 + length
        at = end + -length % 4
        if at > size:
            raise ValueError("it is longer than its place")
        expected = (_MIDDLE, _LAST) if parts else (_WHOLE, _FIRST)
        if kind not in expected or (kind in (_WHOLE, _LAST)) != (at == size):
            raise ValueError("its parts do not fit together")
        parts.append(data[end - length : end])
    payload = _MAGIC.join(parts)
    if len(payload) < _HEADER_BYTES or _labels(payload) * 4 > len(payload) - _HEADER_BYTES:
        raise ValueError("its header is cut off")
    return payload


def _labels(payload: bytes) -> int:
    """How many labels stand behind the header."""
    return struct.unpack_from("<I", payload)[0]


def _read_about(path: Path) -> Optional[_About]:
    if not path.exists():
        return None
    try:
        content = json.loads(read_file(path, _MAX_ABOUT_BYTES))
        form = content.pop("format")
        about = _About(**{**content, "shape": tuple(content["shape"])})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(path, f"is damaged: it does not tell of records; {_REMEDY}") from error
    numbers = (*about.shape, about.images, about.bytes)
    sound = len(about.shape) == 3 and all(type(number) is int and number > 0 for number in numbers)
    if form != FORMAT or not sound or not re.fullmatch("[0-9a-f]{64}", str(about.sha256)):
        raise InputError(path, f"is damaged: it does not tell of records of format {FORMAT}; {_REMEDY}")
    return about
