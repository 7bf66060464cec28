"""Sound and damaged PNG files, and EXIF data."""

import struct
import zlib
from random import Random

from mutate.raw import Mutated, damage_bytes, pick

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _split_png(data: bytes) -> list[tuple[bytes, bytes]]:
    at, chunks = 8, []
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def _join_png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return SIGNATURE + b"".join(png_chunk(*chunk) for chunk in chunks)


def exif(orientation: int, order: str = "<") -> bytes:
    """EXIF data with an orientation, as eXIf has it; a JPEG has ``Exif\\0\\0`` before it."""
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HIH", 42, 8, 1) + entry + bytes(4)


def damage_exif(random: Random) -> bytes:
    data = exif(random.randrange(10), random.choice("<>"))
    return data if random.random() < 0.5 else damage_bytes(data, data, random)[1][:1000]


def damage_png(data: bytes, random: Random) -> Mutated:
    chunks = _split_png(data)
    index = random.randrange(len(chunks))
    kind, content = chunks[index]
    what = pick(
        random,
        "header, header, header, drop, double, move, content, content, content, insert, insert, type, split, pixels, "
        "pixels, trailing, crc, length",
    )
    if what == "header":
        fields = [*struct.unpack(">II5B", chunks[0][1])]
        field = random.randrange(7)
        values = [0, 1, 2, 4, 7, 28, 1000, 13377, 13378, 2**31 - 1, 2**31, 2**32 - 1] if field < 2 else [*range(9), 16]
        fields[field] = random.choice([fields[field] + 1, fields[field] - 1 & 0xFF, *values, random.randrange(256)])
        chunks[0] = (b"IHDR", struct.pack(">II5B", *fields))
        what += f" field {field} to {fields[field]}"
    elif what == "drop":
        del chunks[index]
    elif what == "double":
        chunks.insert(index, chunks[index])
    elif what == "move":
        chunks.insert(random.randrange(len(chunks)), chunks.pop(index))
    elif what == "content":
        content = damage_bytes(content, data, random)[1] if content else b"x"
        chunks[index] = (kind, content[: 1 << 20])
    elif what == "insert":
        extra = random.choice(
            [
                (b"eXIf", damage_exif(random)),
                (b"tRNS", random.choice([bytes(2), bytes(6), bytes(300), b"\1"])),
                (b"gAMA", struct.pack(">I", random.choice([0, 1, 45455, 100000, 2**31]))),
                (b"PLTE", bytes(random.choice([0, 3, 4, 765, 768, 771]))),
                (b"iCCP", b"x\0\0" + zlib.compress(bytes(200), 0)),
                (b"acTL", struct.pack(">II", 1, 0)),
                (b"sBIT", b"\1"),
                (b"tEXt", b"k\0" + b"x" * 100),
                (b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20))),
                (b"ABCD", b"critical and unknown"),
                (b"IDAT", b""),
                (b"IEND", b""),
                (b"\0\0\0\0", b""),
            ]
        )
        chunks.insert(index, extra)
        what += f" {extra[0]!r}"
    elif what == "type":
        chunks[index] = (random.choice([b"IHDR", b"PLTE", b"IDAT", b"IEND", kind.lower(), kind.upper()]), content)
    elif what == "split":
        at = random.randrange(len(content) + 1)
        between = random.choice([[], [], [(b"tEXt", b"k\0v")]])
        chunks[index : index + 1] = [(kind, content[:at]), *between, (kind, content[at:])]
    elif what == "pixels":
        rows = bytearray(zlib.decompress(b"".join(below for name, below in chunks if name == b"IDAT")))
        change = random.choice(["filter", "bytes", "more", "fewer", "stored"])
        if change in ("filter", "bytes"):
            rows[0 if change == "filter" else random.randrange(len(rows))] = random.randrange(256)
        elif change == "more":
            rows += bytes(random.choice([1, 100, 1 << 20]))
        elif change == "fewer":
            del rows[-random.randrange(1, len(rows) + 1) :]
        first = next(at for at, chunk in enumerate(chunks) if chunk[0] == b"IDAT")
        chunks = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
        chunks.insert(first, (b"IDAT", zlib.compress(bytes(rows), 0)))
        what += f" {change}"
    joined = _join_png(chunks)
    if what == "trailing":
        joined += random.choice([b"\0", b"trailing", SIGNATURE, joined])
    elif what in ("crc", "length"):
        at = 8 + sum(12 + len(below) for _, below in chunks[:index]) + (0 if what == "length" else 8 + len(content))
        number = random.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, random.getrandbits(32)])
        joined = joined[:at] + struct.pack(">I", number) + joined[at + 4 :]
    return f"png: {what}, chunk {index} {kind.decode()}", joined


def png_bytes(width: int, height: int, bits: int, color: int, interlaced: bool, random: Random) -> bytes:
    """A PNG of noise; uncompressed, so that its bytes do not depend on a library's version."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = bytearray()
    for left, top, across, down in passes if interlaced else [(0, 0, 1, 1)]:
        columns = (width - left + across - 1) // across
        size = (columns * samples * bits + 7) // 8
        for _ in range(top, height if columns > 0 else 0, down):
            rows += bytes([random.randrange(5)]) + random.getrandbits(8 * size).to_bytes(size, "little")
    header = struct.pack(">II5B", width, height, bits, color, 0, 0, int(interlaced))
    palette = [(b"PLTE", random.getrandbits(24 * 2**bits).to_bytes(3 * 2**bits, "little"))] if color == 3 else []
    return _join_png([(b"IHDR", header), *palette, (b"IDAT", zlib.compress(bytes(rows), 0)), (b"IEND", b"")])
