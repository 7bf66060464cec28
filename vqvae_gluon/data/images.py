"""Image files to uint8 arrays and back. The C++ side (cpp_bindings/src/image.cc) follows the same rules, which
docs/architecture.md lists ("Images").

A network of one channel gets Rec. 601 luma, ``(19595 R + 38470 G + 7471 B + 32768) >> 16``, which leaves gray images as
they are. This is Pillow's integer form.
"""

import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import PIL.Image

from vqvae_gluon.data import jpeg, png
from vqvae_gluon.data.exif import upright
from vqvae_gluon.errors import InputError
from vqvae_gluon.files import NPY_MAGIC, atomic_write, parse_npy, read_file, read_npy

SUFFIXES = (".png", ".jpg", ".jpeg")
STANDARD_INPUT = "-"
MAX_IMAGE_BYTES = 1 << 30
MAX_PIXELS = 178956970  # Pillow refuses the same number, as a decompression bomb.
_MAX_INPUT_BYTES = 1 << 33


def decode_image(data: bytes, channels: int) -> np.ndarray:
    """Decode a PNG or JPEG file's bytes.

    Args:
        channels: 1 for gray, 3 for RGB.

    Returns:
        uint8 (H, W, channels).

    Raises:
        ValueError: the bytes are damaged or of another kind.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise ValueError("it is too large")
    if data.startswith(png.SIGNATURE):
        pixels, turned = png.decode_png(data, channels, MAX_PIXELS)
    elif data.startswith(jpeg.SIGNATURE):
        pixels, turned = jpeg.decode_jpeg(data, MAX_PIXELS)
    else:
        raise ValueError("it is of no kind that is known")
    if pixels.shape[2] != channels:
        gray = pixels.shape[2] == 1
        pixels = np.repeat(pixels, 3, axis=2) if gray else _luma(pixels)
    return upright(pixels, turned)


def read_image(path: Path, channels: int) -> np.ndarray:
    """Decode one image file; see :func:`decode_image`.

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    return _decode(read_file(path, MAX_IMAGE_BYTES), channels, path)


def read_shape(path: Path) -> tuple[int, int, int]:
    """(H, W, C) of the image in a file as :func:`read_image` gives it upright, without decoding it; C is 1 if it is
    gray, 3 if it has colours.

    Raises:
        InputError: the file is missing, of another kind, or damaged otherwise than in its pixels.
    """
    data = read_file(path, MAX_IMAGE_BYTES)
    try:
        if data.startswith(png.SIGNATURE):
            shape, turned = png.png_shape(data, MAX_PIXELS)
        elif data.startswith(jpeg.SIGNATURE):
            shape, turned = jpeg.jpeg_shape(data, MAX_PIXELS)
        else:
            raise ValueError("it is of no kind that is known")
    except ValueError as error:
        raise _unreadable(path, error) from error
    height, width, channels = shape
    return (width, height, channels) if turned > 4 else shape


def fit(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image (H, W, C) in another size: the largest part around its middle that has the proportions of that size,
    resized by Pillow's Lanczos filter if it is not of that size already."""
    rows, columns = pixels.shape[:2]
    if rows * width > columns * height:
        part_rows, part_columns = max(1, columns * height // width), columns
    else:
        part_rows, part_columns = rows, max(1, rows * width // height)
    top, left = (rows - part_rows) // 2, (columns - part_columns) // 2
    part = pixels[top : top + part_rows, left : left + part_columns]
    if part.shape[:2] == (height, width):
        return part
    image = PIL.Image.fromarray(part.squeeze(2) if part.shape[2] == 1 else part)
    resized = np.asarray(image.resize((width, height), PIL.Image.Resampling.LANCZOS))
    return resized.reshape(height, width, -1)


def pad_to(images: np.ndarray, multiple: int) -> np.ndarray:
    """Images (N, H, W, C) as a stride takes them: the last row and the last column are repeated, at the bottom and at
    the right, until ``multiple`` divides both sides."""
    bottom, right = (-side % multiple for side in images.shape[1:3])
    return np.pad(images, ((0, 0), (0, bottom), (0, right), (0, 0)), mode="edge") if bottom or right else images


def crop(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """The top left part of images (N, H, W, C)."""
    return images[:, :height, :width]


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W, 1 or 3) as the bytes of a PNG file."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, format="PNG")
    return file.getvalue()


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 (H, W, 1 or 3) as a PNG file, whole or not at all."""
    with atomic_write(path) as file:
        file.write(encode_png(pixels))


def write_images(paths: Iterable[Path], images: Iterable[np.ndarray]) -> Iterator[Path]:
    """Write each as :func:`write_image` does, and name the file once it is there. Directories are made."""
    for path, image in zip(paths, images):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, image)
        yield path


class Source(NamedTuple):
    """What one argument, or one file of a directory that was given, brings.

    Attributes:
        name: of the file, ``-`` for standard input.
        place: its name below the directory for results, without a suffix.
    """

    name: str
    place: Path

    @property
    def title(self) -> str:
        """What messages call it."""
        return "standard input" if self.name == STANDARD_INPUT else self.name


def find_sources(arguments: Iterable[str], suffixes: Sequence[str] = SUFFIXES) -> list[Source]:
    """Files, standard input, and of each directory all files below it that have one of the suffixes, sorted; their
    results keep their place in it.

    Raises:
        InputError: a directory holds none.
    """
    sources = []
    for argument in arguments:
        path = Path(argument)
        if argument == STANDARD_INPUT:
            sources.append(Source(argument, Path("stdin")))
        elif argument and path.is_dir():
            files = find_files(path, suffixes)
            sources += [Source(str(file), file.relative_to(path).with_suffix("")) for file in files]
        else:
            sources.append(Source(str(argument), Path(path.stem)))
    return sources


def read_source(source: Source) -> bytes:
    """The bytes of a file or of standard input.

    Raises:
        InputError: the file is missing, or there are too many.
    """
    if source.name != STANDARD_INPUT:
        return read_file(Path(source.name), _MAX_INPUT_BYTES)
    data = sys.stdin.buffer.read(_MAX_INPUT_BYTES + 1)
    if len(data) > _MAX_INPUT_BYTES:
        raise InputError(source.title, f"is larger than the limit of {_MAX_INPUT_BYTES} bytes")
    return data


def open_source(source: Source, channels: int) -> tuple[np.ndarray, bool]:
    """Images of a source, uint8 (N, H, W, C), and whether they are a batch: of an ``.npy`` file, whose results are
    numbered. Standard input is told by its first bytes.

    Raises:
        InputError: it is missing, damaged or of another kind.
    """
    if source.name != STANDARD_INPUT:
        return read_any(Path(source.name), channels), Path(source.name).suffix == ".npy"
    data = read_source(source)
    if data.startswith(NPY_MAGIC):
        return _as_batch(parse_npy(data, source.title), source.title), True
    return _decode(data, channels, source.title)[np.newaxis], False


def read_any(path: Path, channels: int) -> np.ndarray:
    """Images of one file, uint8 (N, H, W, C): one of a PNG or JPEG file, N of an ``.npy`` file.

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    path = Path(path)
    if path.suffix != ".npy":
        return read_image(path, channels)[np.newaxis]
    return _as_batch(read_npy(path), path)


def output_paths(stem: Path, count: int, numbered: bool) -> list[Path]:
    """Where results go: ``<stem>.png``, or ``<stem>-<number>.png`` for each image of a batch."""
    if not numbered:
        return [stem.with_name(f"{stem.name}.png")]
    return [stem.with_name(f"{stem.name}-{number:05d}.png") for number in range(count)]


def find_images(directory: Path) -> list[Path]:
    """The PNG and JPEG files below a directory, sorted by path.

    Raises:
        InputError: there are none.
    """
    return find_files(directory, SUFFIXES)


def find_files(directory: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files that :func:`walk` finds, and links to files, sorted by path.

    Raises:
        InputError: there are none, or a directory cannot be read.
    """
    files = sorted(path for path in (Path(directory, name) for name in walk(directory, suffixes)) if path.is_file())
    if not files:
        kind, content = ("PNG or JPEG", "images") if suffixes == SUFFIXES else (" or ".join(suffixes), "codes")
        raise InputError(directory, f"holds no {kind} file; give a directory of {content}")
    return files


def walk(directory: Path, suffixes: Sequence[str]) -> Iterator[str]:
    """The names below a directory, but not below links to others, that have one of the suffixes, in any case.

    Raises:
        InputError: a directory cannot be read. What it holds would be left out without a word.
    """

    def refuse(error: OSError) -> NoReturn:
        why = f"cannot be read ({error.strerror}); make it readable, or move it away"
        raise InputError(error.filename, why) from error

    for place, _, names in os.walk(directory, onerror=refuse):
        below = os.path.relpath(place, directory)
        for name in names:
            if os.path.splitext(name)[1].lower() in suffixes:
                yield os.path.normpath(os.path.join(below, name))


def read_images(paths: Iterable[Path], channels: int) -> np.ndarray:
    """Images of one size as one array, uint8 (N, H, W, C), from files as :func:`read_any` takes them.

    Raises:
        InputError: a file is unreadable, or its size is not that of the first.
    """
    return _join((path, read_any(path, channels)) for path in paths)


def read_sources(sources: Iterable[Source], channels: int) -> np.ndarray:
    """The same from sources; see :func:`open_source`."""
    return _join((source.title, open_source(source, channels)[0]) for source in sources)


def check_fit(images: np.ndarray, channels: int, name: str = "images") -> None:
    """Refuse images (N, H, W, C) that a network does not take.

    Raises:
        InputError: the number of channels is wrong.
    """
    if images.shape[3] != channels:
        raise InputError(name, f"has {images.shape[3]} channels, the network takes {channels}")


def check_size(shape: Sequence[int], first: Sequence[int], name) -> None:
    """Refuse an image that is not of the size of the first, both (H, W, C).

    Raises:
        InputError: it is not.
    """
    if tuple(shape) != tuple(first):
        sizes = f"{_size(shape)}, but the images before it are {_size(first)}"
        raise InputError(name, f"is {sizes}; give images of one size")


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]} of {shape[2]} channels"


def to_tensor(images: np.ndarray) -> np.ndarray:
    """Images as a network takes them: uint8 (N, H, W, C) to float32 (N, C, H, W), still 0..255."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)


def to_images(tensor: np.ndarray) -> np.ndarray:
    """A reconstruction as images: float32 (N, C, H, W), 0..255, to uint8 (N, H, W, C), ties to the even number."""
    return np.rint(tensor).astype(np.uint8).transpose(0, 2, 3, 1)


def _decode(data: bytes, channels: int, name) -> np.ndarray:
    try:
        return decode_image(data, channels)
    except ValueError as error:
        raise _unreadable(name, error) from error


def _unreadable(name, error: ValueError) -> InputError:
    return InputError(name, f"is not a readable PNG or JPEG image ({error}); replace it, or move it away")


def _as_batch(images: np.ndarray, name) -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        raise InputError(name, "must hold uint8 images of shape (N, H, W) or (N, H, W, C)")
    return np.array(images if images.ndim == 4 else images[..., np.newaxis])


def _join(named: Iterable[tuple[Any, np.ndarray]]) -> np.ndarray:
    images: list[np.ndarray] = []
    for name, image in named:
        if images:
            check_size(image.shape[1:], images[0].shape[1:], name)
        images.append(image)
    return np.concatenate(images)


def _luma(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(PIL.Image.fromarray(pixels).convert("L"))[..., np.newaxis]
