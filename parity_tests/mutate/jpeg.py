"""Damaged JPEG files."""

import struct
from random import Random

from mutate.png import damage_exif
from mutate.raw import BLOCK, Mutated, damage_bytes, pick


def _split_jpeg(data: bytes) -> tuple[list[bytes], bytes]:
    """The segments up to and with the first start of scan; the rest."""
    at, segments = 2, []
    while True:
        (length,) = struct.unpack_from(">H", data, at + 2)
        segments.append(data[at : at + 2 + length])
        at += 2 + length
        if segments[-1][1] == 0xDA:
            return segments, data[at:]


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def damage_jpeg(data: bytes, random: Random) -> Mutated:
    segments, rest = _split_jpeg(data)
    index = random.randrange(len(segments))
    segment = segments[index]
    what = pick(
        random,
        "frame, frame, drop, double, move, content, content, content, marker, insert, insert, scan, scan, end, fill",
    )
    if what == "frame":
        index = next(at for at, one in enumerate(segments) if 0xC0 <= one[1] <= 0xC2)
        frame, field = bytearray(segments[index]), random.choice(["height", "width", "byte"])
        if field == "byte":
            frame[random.randrange(4, len(frame))] = random.choice([0, 1, 2, 4, 0x11, 0x22, 0x44, 0xFF])
        else:
            size = random.choice([0, 1, 2, 8, 28, 63, 1000, 13000, 65500, 65535])
            frame[5 if field == "height" else 7 : 7 if field == "height" else 9] = struct.pack(">H", size)
        segments[index] = bytes(frame)
        what += f" {field}"
    elif what == "drop":
        del segments[index]
    elif what == "double":
        segments.insert(index, segment)
    elif what == "move":
        segments.insert(random.randrange(len(segments)), segments.pop(index))
    elif what == "content":
        segments[index] = segment[:4] + damage_bytes(segment[4:], data, random)[1][: BLOCK - 100]
        if random.random() < 0.7:
            segments[index] = _segment(segment[1], segments[index][4:])
    elif what == "marker":
        segments[index] = b"\xff" + bytes([random.choice([0, 1, *range(0xC0, 256)])]) + segment[2:]
    elif what == "insert":
        extra = random.choice(
            [
                _segment(0xE1, b"Exif\0\0" + damage_exif(random)),
                _segment(0xEE, b"Adobe\0\x64" + bytes(4) + bytes([random.randrange(4)])),
                _segment(0xDD, struct.pack(">H", random.choice([0, 1, 2, 65535]))),
                _segment(0xFE, b"x" * 65000),
                _segment(0xE0, b"JFIF\0" + bytes(9)),
                _segment(0xC4, bytes([random.choice([0, 1, 16, 17, 255]), *[random.randrange(3) for _ in range(16)]])),
                b"\xff\xd8",
                b"\xff\xff\xff",
            ]
        )
        segments.insert(index, extra)
        what += f" {extra[1]:#x}"
    elif what == "scan":
        rest = damage_bytes(rest, data, random)[1]
    elif what == "end":
        rest = random.choice([rest[:-2], rest[:-2] + b"\xff\xd9" * 2, rest + b"trailing", rest + data])
    else:
        segments[index] = b"\xff" * random.randrange(1, 9) + segment
    return f"jpeg: {what}, segment {index} {segment[1]:#x}", data[:2] + b"".join(segments) + rest
