"""Image files to uint8 arrays and back. The C++ side (cpp_bindings/src/image.cc) follows the same rules.

Reading: PNG or JPEG, decoded to RGB; transparency is dropped; a network of one channel gets Rec. 601 luma, in Pillow's
integer form ``(19595 R + 38470 G + 7471 B + 32768) >> 16``, which leaves gray images as they are.
"""

import io
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from vqvae_gluon.errors import InputError
from vqvae_gluon.files import atomic_write, read_npy

SUFFIXES = (".png", ".jpg", ".jpeg")
_READABLE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_MODES = {1: "L", 3: "RGB"}


def decode_image(data: bytes, channels: int) -> np.ndarray:
    """Decode a PNG or JPEG file's bytes.

    Args:
        channels: 1 for gray, 3 for RGB.

    Returns:
        uint8 (H, W, channels).

    Raises:
        ValueError: the bytes are damaged or of another kind.
    """
    try:
        with PIL.Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.mode not in _READABLE_MODES:
                raise ValueError(f"its pixels are of mode {image.mode}; save it with 8 bits a channel, gray or RGB")
            pixels = np.asarray(image.convert("RGB").convert(_MODES[channels]))
    except (OSError, SyntaxError, EOFError, AssertionError, struct.error, PIL.Image.DecompressionBombError) as error:
        raise ValueError(_reason(error)) from error
    return pixels.reshape(*pixels.shape[:2], channels)


def read_image(path: Path, channels: int) -> np.ndarray:
    """Decode one image file; see :func:`decode_image`.

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    try:
        return decode_image(Path(path).read_bytes(), channels)
    except FileNotFoundError as error:
        raise InputError(path, "does not exist") from error
    except (OSError, ValueError) as error:
        raise InputError(path, f"is not a readable PNG or JPEG image ({error})") from error


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W, 1 or 3) as the bytes of a PNG file."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, format="PNG")
    return file.getvalue()


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 (H, W, 1 or 3) as a PNG file, whole or not at all."""
    with atomic_write(path) as file:
        file.write(encode_png(pixels))


def read_any(path: Path, channels: int) -> np.ndarray:
    """Images of one argument, uint8 (N, H, W, C): one of a PNG or JPEG file, N of an ``.npy`` file.

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    path = Path(path)
    if path.suffix != ".npy":
        return read_image(path, channels)[np.newaxis]
    images = read_npy(path)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        raise InputError(path, "must hold uint8 images of shape (N, H, W) or (N, H, W, C)")
    return np.array(images if images.ndim == 4 else images[..., np.newaxis])


def output_paths(directory: Path, source: Path, count: int) -> list[Path]:
    """Where results go: ``<name>.png``, or ``<name>-<number>.png`` for each image of an ``.npy`` file."""
    if source.suffix != ".npy":
        return [directory / f"{source.stem}.png"]
    return [directory / f"{source.stem}-{number:05d}.png" for number in range(count)]


def find_images(directory: Path) -> list[Path]:
    """The PNG and JPEG files below a directory, sorted by path.

    Raises:
        InputError: there are none.
    """
    files = sorted(path for path in Path(directory).rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(directory, "holds no PNG or JPEG file; give a directory of images")
    return files


def read_images(paths: Iterable[Path], channels: int) -> np.ndarray:
    """Images of one size as one array, uint8 (N, H, W, C), from files as :func:`read_any` takes them.

    Raises:
        InputError: a file is unreadable, or its size is not that of the first.
    """
    images: list[np.ndarray] = []
    for path in paths:
        image = read_any(path, channels)
        if images and image.shape[1:] != images[0].shape[1:]:
            sizes = f"{_size(image.shape)}, but the images before it are {_size(images[0].shape)}"
            raise InputError(path, f"is {sizes}; give images of one size")
        images.append(image)
    return np.concatenate(images)


def check_fit(images: np.ndarray, channels: int, stride: int, name: str = "images") -> None:
    """Refuse images (N, H, W, C) that a network does not take.

    Raises:
        InputError: the number of channels is wrong, or the stride does not divide the sides.
    """
    height, width, found = images.shape[1:]
    if found != channels:
        raise InputError(name, f"has {found} channels, the network takes {channels}")
    if height % stride or width % stride:
        raise InputError(name, f"is {width}x{height}; the network takes sides that {stride} divides")


def _size(shape: Sequence[int]) -> str:
    return f"{shape[2]}x{shape[1]} of {shape[3]} channels"


def to_tensor(images: np.ndarray) -> np.ndarray:
    """Images as a network takes them: uint8 (N, H, W, C) to float32 (N, C, H, W), still 0..255."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)


def to_images(tensor: np.ndarray) -> np.ndarray:
    """A reconstruction as images: float32 (N, C, H, W), 0..255, to uint8 (N, H, W, C), ties to the even number."""
    return np.rint(tensor).astype(np.uint8).transpose(0, 2, 3, 1)


def _reason(error: Exception) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return "it is of no kind that is known"
    return str(error)
