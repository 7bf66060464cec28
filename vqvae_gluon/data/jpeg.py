"""JPEG files: their segments are checked here, libjpeg-turbo decodes them, and whatever it warns of is an error. The
C++ side (cpp_bindings/src/jpeg.cc) takes the same steps."""

import re
import struct
from typing import NamedTuple

import numpy as np
import simplejpeg

from vqvae_gluon.data.exif import orientation

SIGNATURE = b"\xff\xd8\xff"
_EXIF = b"Exif\0\0"
_MAX_SCANS = 100  # What the library's own programs write at most.
_LARGEST_SIDE = 65500  # The library's own.
_SOF = (0xC0, 0xC1, 0xC2)  # Baseline, extended, progressive: those with Huffman's codes.
_OTHER_SOF = (0xC3, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_EOI, _SOS, _APP1 = 0xD9, 0xDA, 0xE1
_WITHOUT_LENGTH = (0x00, 0x01, *range(0xD0, 0xD9))
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")


class _Frame(NamedTuple):
    width: int
    height: int
    left: dict[int, list[int]]  # By component: of each of its 64 coefficients the bits that are yet to come.


def decode_jpeg(data: bytes, max_pixels: int) -> tuple[np.ndarray, int]:
    """Decode a JPEG file's bytes that begin with :data:`SIGNATURE`.

    Returns:
        uint8 (H, W, 1) of a gray image, else (H, W, 3); and its orientation, 1..8.

    Raises:
        ValueError: the bytes are damaged, or of a kind of JPEG that is not read.
    """
    frame, exif = _read_segments(data, max_pixels)
    try:
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if len(frame.left) == 1 else "RGB", strict=True)
    except ValueError as error:  # Its words differ between versions of the library.
        raise ValueError("its pixels are damaged") from error
    return pixels, orientation(exif)


def jpeg_shape(data: bytes, max_pixels: int) -> tuple[tuple[int, int, int], int]:
    """(H, W, C) of a JPEG file's image, and its orientation, from its segments alone: nothing is decoded.

    Raises:
        ValueError: the segments are damaged, or of a kind of JPEG that is not read.
    """
    frame, exif = _read_segments(data, max_pixels)
    return (frame.height, frame.width, len(frame.left)), orientation(exif)


def _read_segments(data: bytes, max_pixels: int) -> tuple[_Frame, bytes]:
    """The frame, and the TIFF data of the first EXIF segment that stands before the pixels."""
    frame, exif, scans, at = None, None, 0, 2
    while True:
        while data[at : at + 2] == b"\xff\xff":
            at += 1
        if len(data) - at < 2:
            raise ValueError("it ends early")
        if data[at] != 0xFF or data[at + 1] in _WITHOUT_LENGTH:
            raise ValueError("there is something between its segments")
        marker = data[at + 1]
        if marker == _EOI:
            break
        size = struct.unpack_from(">H", data, at + 2)[0] if len(data) - at >= 4 else 0
        if size < 2 or size > len(data) - at - 2:
            raise ValueError("it ends early")
        body, at = data[at + 4 : at + 2 + size], at + 2 + size
        if marker in _SOF:
            if frame is not None:
                raise ValueError("it has two frames")
            frame = _read_frame(body, max_pixels)
        elif marker in _OTHER_SOF:
            raise ValueError("it is of a process other than baseline, extended or progressive")
        elif marker == _APP1 and exif is None and not scans and body.startswith(_EXIF):
            exif = body[len(_EXIF) :]
        elif marker == _SOS:
            scans += 1
            if frame is None or scans > _MAX_SCANS:
                raise ValueError("it has no frame" if frame is None else f"it has more than {_MAX_SCANS} scans")
            _read_scan(body, frame)
            after = _AFTER_SCAN.search(data, at)
            if after is None:
                raise ValueError("it ends early")
            at = after.start()
    if frame is None or not scans:
        raise ValueError("it has no pixels")
    if any(map(any, frame.left.values())):  # Each version of the library guesses the rest in its own way.
        raise ValueError("its scans leave a part out")
    return frame, exif or b""


def _read_frame(body: bytes, max_pixels: int) -> _Frame:
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise ValueError("its frame is not sound")
    bits, height, width, components = struct.unpack_from(">BHHB", body)
    if components == 4:
        raise ValueError("its pixels are CMYK; save it with 8 bits a channel, gray or RGB")
    if bits != 8 or components not in (1, 3):
        raise ValueError("its pixels are not 8 bits of gray or RGB")
    if not height or not width:
        raise ValueError("its frame is not sound")
    if max(height, width) > _LARGEST_SIDE or height * width > max_pixels:
        raise ValueError("it has too many pixels")
    sampling = [(factor >> 4, factor & 15) for factor in body[7::3]]
    if components == 3 and not _is_common(*sampling):
        raise ValueError("its colours are sampled in an uncommon way")
    if len(set(body[6::3])) != components:
        raise ValueError("its frame is not sound")
    return _Frame(width, height, {name: [1] * 64 for name in body[6::3]})


def _read_scan(body: bytes, frame: _Frame) -> None:
    if not body or len(body) != 4 + 2 * body[0]:
        raise ValueError("a scan of it is not sound")
    names, (first, last, bits) = body[1:-3:2], body[-3:]
    if not frame.left.keys() >= set(names) or not first <= last <= 63:
        raise ValueError("a scan of it is not sound")
    for name in names:
        frame.left[name][first : last + 1] = [bits & 15] * (last + 1 - first)


def _is_common(luma: tuple[int, int], blue: tuple[int, int], red: tuple[int, int]) -> bool:
    """Those that TurboJPEG knows, in every version: 4:4:4, 4:2:2, 4:4:0, 4:2:0, 4:1:1, also in other words."""
    if blue != red:
        return False
    if blue == (1, 1) and luma in ((1, 1), (2, 1), (1, 2), (2, 2), (4, 1)):
        return True
    return (luma == (2, 2) and blue in ((1, 2), (2, 1))) or (luma == blue and luma in ((2, 1), (1, 2), (3, 1), (1, 3)))
