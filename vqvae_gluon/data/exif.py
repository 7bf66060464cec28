"""How a picture is turned, by its EXIF data. The C++ side (cpp_bindings/src/exif.cc) takes the same steps."""

import struct

import numpy as np

_ORIENTATION, _SHORT = 0x0112, 3


def orientation(tiff: bytes) -> int:
    """The orientation 1..8 of the EXIF data that begins with a TIFF header; 1, not turned, if it tells none.

    It is the first entry 0x0112 of the first directory, one SHORT. Damaged data tells none.
    """
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    magic, start = struct.unpack_from(order + "HI", tiff, 2)
    if magic != 42 or start + 2 > len(tiff):
        return 1
    (count,) = struct.unpack_from(order + "H", tiff, start)
    for at in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, values, value = struct.unpack_from(order + "HHIH", tiff, at)
        if tag == _ORIENTATION:
            return value if kind == _SHORT and values == 1 and 1 <= value <= 8 else 1
    return 1


def upright(pixels: np.ndarray, turned: int) -> np.ndarray:
    """Pixels (H, W, C) as they are to be seen: orientations above 4 swap rows and columns, then each is mirrored."""
    if turned > 4:
        pixels = pixels.transpose(1, 0, 2)
    if turned in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turned in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
