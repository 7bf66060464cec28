"""Damaged ``.npy`` and ``.vq`` files."""

import struct
import zlib
from random import Random

from mutate.raw import NUMBERS, Mutated, damage_bytes, pick


def damage_npy(data: bytes, random: Random) -> Mutated:
    (length,) = struct.unpack_from("<H", data, 8)
    header, values = data[10 : 10 + length].decode("latin-1"), data[10 + length :]
    start, end = header.index("("), header.index(")") + 1
    what = pick(random, "shape, shape, type, order, text, version, length, values, bytes")
    shapes = [
        "()",
        "(0,)",
        "(-1, 28, 28)",
        "(1, 28, 28, 1)",
        "(1, 28, 28, 3)",
        "(28, 28)",
        "(2147483648, 28, 28)",
        "(1,)",
    ]
    shapes += [
        "(4294967296, 4294967296)",
        "(1, 28, 28, 1, 1)",
        "(1, 28, 28",
        "1, 28, 28)",
        "(1, 784, 1)",
        "(1, 1, 784)",
    ]
    shapes += ["(True, 28, 28)", "(1,28,28)", "(1, 28, 28,)", "(01, 28, 28)", "(1, 28.0, 28)", "(" + "1, " * 99 + ")"]
    if what == "shape":
        header = header[:start] + random.choice(shapes) + header[end:]
    elif what == "type":
        types = ["|i1", "<u1", "=u1", ">u1", "u1", "|b1", "<f4", ">i4", "|O8", "|V1", "<U1", "<c8", "|u1'", "x", ""]
        header = header.replace("|u1", random.choice(types))
    elif what == "order":
        header = header.replace("False", random.choice(["True", "0", "None", "false", "1"]))
    elif what == "text":
        texts = [
            "{}",
            "",
            "[" * 3000,
            "{'descr': '|u1'}",
            "__import__('os')",
            "(" * 200 + ")" * 200,
            "\0",
            "{" + header,
        ]
        header = random.choice(texts)
    elif what == "bytes":
        header = damage_bytes(header.encode("latin-1"), data, random)[1][:60000].decode("latin-1")
    elif what == "values":
        values = damage_bytes(values, data, random)[1]
    size = len(header) if what != "length" else random.choice([0, 1, length - 1, length + 1, 4096, 65535])
    version = b"\1\0" if what != "version" else random.choice([b"\0\0", b"\2\0", b"\3\0", b"\1\1", b"\xff\xff"])
    return f"npy: {what}", b"\x93NUMPY" + version + struct.pack("<H", size) + header.encode("latin-1") + values


_VQ_HEADER = "<8s32s6I"


def vq_bytes(bundle: bytes, sizes: tuple[int, int, int, int, int, int], codes: list[int]) -> bytes:
    """A .vq file by the table of its format; the sizes are N, H, W, h, w, K."""
    width = max(1, (sizes[5] - 1).bit_length())
    stream = sum(code << index * width for index, code in enumerate(codes))
    packed = stream.to_bytes((len(codes) * width + 7) // 8, "little")
    return fit_vq(struct.pack(_VQ_HEADER, b"VQCODES1", bundle, *sizes) + packed + bytes(4))


def fit_vq(data: bytes) -> bytes:
    """The file with a checksum that fits."""
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


def damage_vq(data: bytes, random: Random) -> Mutated:
    fields = [*struct.unpack_from(_VQ_HEADER, data)]
    codes = data[64:-4]
    what = pick(random, "size, size, size, bundle, codes, codes, longer, magic")
    if what == "size":
        field = random.randrange(2, 8)
        fields[field] = random.choice([*(n for n in NUMBERS if 0 <= n < 2**32), fields[field] + 1, fields[field] - 1])
        what += f" {field - 2} to {fields[field]}"
    elif what == "bundle":
        fields[1] = bytes(32)
    elif what == "codes":
        at = random.randrange(len(codes))
        codes = codes[:at] + bytes([random.randrange(256)]) + codes[at + 1 :]
    elif what == "longer":
        codes += bytes(random.choice([1, 4, 1000]))
    else:
        fields[0] = random.choice([b"VQCODES2", b"vqcodes1", bytes(8)])
    return f"vq: {what}", struct.pack(_VQ_HEADER, *fields) + codes + data[-4:]
