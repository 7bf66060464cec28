"""PNG files, proved before they are decoded. The C++ side (cpp_bindings/src/png.cc) takes the same steps.

The chunks are checked here, and the pixels are unpacked and counted; the decoder then gets nothing but them, so that
no ancillary chunk and no lenience of a library can change what is read or refused.
"""

import struct
import zlib
from typing import NamedTuple, Optional

import numpy as np
import PIL.Image

from vqvae_gluon.data.exif import orientation

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LARGEST_SIDE = 2**31 - 1
_DEFLATE_RATIO = 1032  # Deflate packs no more bytes than that into one.
_GRAY, _RGB, _PALETTE, _GRAY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_SAMPLES = {_GRAY: 1, _RGB: 3, _PALETTE: 1, _GRAY_ALPHA: 2, _RGBA: 4}
# Pillow's modes, and its names of what is in the file, by colour type and bits of a sample.
_MODES = {
    (_GRAY, 1): ("1", "1"),
    (_GRAY, 2): ("L", "L;2"),
    (_GRAY, 4): ("L", "L;4"),
    (_GRAY, 8): ("L", "L"),
    (_GRAY, 16): ("I;16", "I;16B"),
    (_RGB, 8): ("RGB", "RGB"),
    (_RGB, 16): ("RGB", "RGB;16B"),
    (_PALETTE, 1): ("P", "P;1"),
    (_PALETTE, 2): ("P", "P;2"),
    (_PALETTE, 4): ("P", "P;4"),
    (_PALETTE, 8): ("P", "P"),
    (_GRAY_ALPHA, 8): ("LA", "LA"),
    (_GRAY_ALPHA, 16): ("RGBA", "LA;16B"),
    (_RGBA, 8): ("RGBA", "RGBA"),
    (_RGBA, 16): ("RGBA", "RGBA;16B"),
}
# First column and row of the passes of an interlaced image, and the steps.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class _Chunks(NamedTuple):
    width: int
    height: int
    bits: int
    color: int
    interlaced: bool
    palette: Optional[bytes]
    pixels: bytes  # Of all IDAT chunks.
    turned: int

    @property
    def unpacked(self) -> int:
        """Bytes of the rows, each behind the number of its filter."""
        parts = [(self.width, self.height)]
        if self.interlaced:
            parts = [((self.width - x + dx - 1) // dx, (self.height - y + dy - 1) // dy) for x, y, dx, dy in _PASSES]
        row_bits = self.bits * _SAMPLES[self.color]
        return sum(height * (1 + (width * row_bits + 7) // 8) for width, height in parts if width and height)


def decode_png(data: bytes, channels: int, max_pixels: int) -> tuple[np.ndarray, int]:
    """Decode a PNG file's bytes that begin with :data:`SIGNATURE`. Transparency is dropped, colours are not managed,
    of 16 bits the high ones are taken, and what a palette does not have is black.

    Args:
        channels: of what is wanted: of 1, colours are given as Pillow's luma, or as they are.

    Returns:
        uint8 (H, W, 1) of a gray image, else (H, W, 1 or 3); and its orientation, 1..8.

    Raises:
        ValueError: the bytes are damaged.
    """
    chunks = _read_chunks(data, max_pixels)
    size = chunks.unpacked
    if size > len(chunks.pixels) * _DEFLATE_RATIO:
        raise ValueError("its pixels end early")
    unpacker = zlib.decompressobj()
    try:
        rows = unpacker.decompress(chunks.pixels, size + 1)
    except zlib.error as error:
        raise ValueError("its pixels are damaged") from error
    if len(rows) > size:
        raise ValueError("it has more pixels than it says")
    if len(rows) < size or not unpacker.eof:
        raise ValueError("its pixels end early")
    mode, raw = _MODES[chunks.color, chunks.bits]
    try:
        # Proved, the rows go to the decoder packed as they are, which costs little.
        image = PIL.Image.frombytes(
            mode, (chunks.width, chunks.height), zlib.compress(rows, 0), "zip", raw, int(chunks.interlaced)
        )
    except ValueError as error:
        raise ValueError("its pixels are damaged") from error
    return _samples(image, chunks, channels), chunks.turned


def png_shape(data: bytes, max_pixels: int) -> tuple[tuple[int, int, int], int]:
    """(H, W, C) of a PNG file's image, and its orientation, from its chunks alone: nothing is decoded. C is 1 of gray
    pixels, also of those by way of a palette.

    Raises:
        ValueError: the chunks are damaged.
    """
    chunks = _read_chunks(data, max_pixels)
    gray = chunks.color in (_GRAY, _GRAY_ALPHA)
    if chunks.palette is not None:
        colors = np.frombuffer(chunks.palette, np.uint8).reshape(-1, 3)
        gray = bool((colors == colors[:, :1]).all())
    return (chunks.height, chunks.width, 1 if gray else 3), chunks.turned


def _samples(image: "PIL.Image.Image", chunks: _Chunks, channels: int) -> np.ndarray:
    """uint8 (H, W, 1 or 3)."""
    if chunks.palette is not None:
        palette = np.zeros((256, 3), np.uint8)
        colors = np.frombuffer(chunks.palette, np.uint8).reshape(-1, 3)[: 2**chunks.bits]
        palette[: len(colors)] = colors
        return palette[np.asarray(image)]
    if chunks.color in (_RGB, _RGBA):
        mode = "L" if channels == 1 else "RGB"
        values = np.asarray(image if image.mode == mode else image.convert(mode))
        return values.reshape(*values.shape[:2], -1)
    if image.mode == "1":
        image = image.convert("L")
    values = np.asarray(image)
    if chunks.color == _GRAY_ALPHA:
        values = values[..., 0]
    return (values >> 8 if values.dtype == np.uint16 else values).astype(np.uint8)[..., np.newaxis]


def _read_chunks(data: bytes, max_pixels: int) -> _Chunks:
    view, at = memoryview(data), len(SIGNATURE)
    header: Optional[tuple[int, ...]] = None
    palette: Optional[bytes] = None
    exif: Optional[bytes] = None
    pixels: list[memoryview] = []
    before = b""
    while before != b"IEND":
        if len(data) - at < 12:
            raise ValueError("it ends early")
        (size,) = struct.unpack_from(">I", data, at)
        if size > len(data) - at - 12:
            raise ValueError("it ends early")
        kind, body = data[at + 4 : at + 8], view[at + 8 : at + 8 + size]
        if zlib.crc32(view[at + 4 : at + 8 + size]) != struct.unpack_from(">I", data, at + 8 + size)[0]:
            raise ValueError("the checksum of a chunk does not fit")
        if not all(65 <= byte <= 90 or 97 <= byte <= 122 for byte in kind):
            raise ValueError("a chunk has no proper name")
        if (header is None) != (kind == b"IHDR"):
            raise ValueError("its header is not its first chunk")
        if header is None:
            header = _read_header(body, max_pixels)
        elif kind == b"PLTE":
            if palette is not None or pixels or header[3] in (_GRAY, _GRAY_ALPHA) or size % 3 or not 3 <= size <= 768:
                raise ValueError("its palette is not sound")
            palette = bytes(body)
        elif kind == b"IDAT":
            if pixels and before != b"IDAT":
                raise ValueError("its pixels are in pieces")
            pixels.append(body)
        elif kind == b"IEND":
            if size:
                raise ValueError("its end is not empty")
        elif kind == b"eXIf":
            exif = bytes(body) if exif is None else exif
        elif kind[0] < 97:
            raise ValueError("it has a chunk that is unknown and critical")
        at, before = at + 12 + size, kind
    if header is None or not pixels:
        raise ValueError("it has no pixels")
    width, height, bits, color, _, _, interlaced = header
    if color == _PALETTE and palette is None:
        raise ValueError("it has no palette")
    return _Chunks(
        width,
        height,
        bits,
        color,
        bool(interlaced),
        palette if color == _PALETTE else None,
        pixels[0] if len(pixels) == 1 else b"".join(pixels),
        orientation(exif or b""),
    )


def _read_header(body: memoryview, max_pixels: int) -> tuple[int, ...]:
    if len(body) != 13:
        raise ValueError("its header is not sound")
    header = struct.unpack(">IIBBBBB", body)
    width, height, bits, color, packing, filters, interlaced = header
    if not (1 <= width <= _LARGEST_SIDE and 1 <= height <= _LARGEST_SIDE):
        raise ValueError("its header is not sound")
    if (color, bits) not in _MODES or packing or filters or interlaced > 1:
        raise ValueError("its header is not sound")
    if width * height > max_pixels:
        raise ValueError("it has too many pixels")
    return header
