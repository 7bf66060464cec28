"""Image files of every kind give the same pixels and the same codes in both languages, or are refused by both."""

import io
import itertools
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from random import Random

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from conftest import PRETRAINED, run_cli, run_reconstruct

from vqvae_gluon.cli.judging import seeded_bundle
from vqvae_gluon.data.exif import orientation
from vqvae_gluon.data.images import crop, decode_image, pad_to, read_image
from vqvae_gluon.errors import DONE, REJECTED
from vqvae_gluon.runtimes.cpp import find_binary

PNG = b"\x89PNG\r\n\x1a\n"
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
SIZES = ((1, 1), (3, 5), (29, 31), (8, 8), (17, 2))
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def rows_of(random: Random, color: int, bits: int, width: int, height: int, interlaced: bool) -> bytes:
    """Random rows, each with a random filter."""
    rows = b""
    for x, y, dx, dy in PASSES if interlaced else ((0, 0, 1, 1),):
        columns, count = (width - x + dx - 1) // dx, (height - y + dy - 1) // dy
        for _ in range(count if columns else 0):
            rows += bytes([random.randrange(5)]) + random.randbytes((columns * bits * SAMPLES[color] + 7) // 8)
    return rows


def png(color=2, bits=8, width=3, height=5, interlaced=False, before=b"", palette=256, after=b"", rows=None, seed=0):
    """A PNG file of random pixels."""
    random = Random(seed)
    packed = zlib.compress(rows_of(random, color, bits, width, height, interlaced) if rows is None else rows)
    colors = chunk(b"PLTE", random.randbytes(3 * min(palette, 2**bits))) if color == 3 and palette else b""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced)
    return PNG + chunk(b"IHDR", header) + before + colors + chunk(b"IDAT", packed) + after + chunk(b"IEND", b"")


def tiff(turned: int, order="<", kind=3, count=1, tag=0x112) -> bytes:
    """EXIF data with two entries, the second the orientation."""
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, 2)
    return start + struct.pack(order + "HHIHHHHIHHI", 0x100, 3, 1, 9, 0, tag, kind, count, turned, 0, 0)


def picture(seed: int, width=29, height=31) -> "PIL.Image.Image":
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4 + 2, width // 4 + 2, 4), dtype=np.uint8)
    return PIL.Image.fromarray(noise).resize((width, height), PIL.Image.Resampling.BICUBIC)


def saved(image: "PIL.Image.Image", kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg(mode="RGB", exif=b"", seed=0, size=(29, 31), **options) -> bytes:
    image = picture(seed, *size).convert("RGB").convert(mode)
    return saved(image, "JPEG", **options, **({"exif": b"Exif\0\0" + exif} if exif else {}))


def kinds() -> dict[str, bytes]:
    """Every kind of file that is read, by a name."""
    files = {}
    sizes = itertools.cycle(SIZES)
    for color, interlaced in itertools.product(BITS, (False, True)):
        for bits in BITS[color]:
            width, height = next(sizes)
            files[f"png-{color}-{bits}{'-interlaced' * interlaced}"] = png(color, bits, width, height, interlaced)
    for bits in BITS[3]:  # The rest is black.
        files[f"png-short-palette-{bits}"] = png(3, bits, 9, 7, palette=2 ** (bits - 1))
    chunks = {
        "gAMA": struct.pack(">I", 100000),
        "sRGB": b"\0",
        "iCCP": b"bad profile",
        "cHRM": bytes(31),
        "tEXt": b"no zero byte",
        "sBIT": b"\5\5\5",
        "pHYs": b"",
        "bKGD": bytes(6),
        "zzZz": b"anything",
    }
    for name, body in chunks.items():
        files[f"png-with-{name}"] = png(before=chunk(name.encode(), body))
    for color, body in {0: b"\0\1", 2: bytes(6), 3: bytes(16)}.items():
        width, height = SIZES[2]
        files[f"png-tRNS-{color}"] = png(color, 8, width, height, before=chunk(b"tRNS", body))
    for mode in ("1", "L", "LA", "P", "RGB"):
        files[f"png-pillow-{mode}"] = saved(picture(1).convert("RGB").convert(mode), "PNG")
    files["png-pillow-RGBA"] = saved(picture(2), "PNG")
    files["png-palette-of-rgb"] = png(before=chunk(b"PLTE", bytes(30)))
    files["png-more-after-the-end"] = png() + b"more"
    for turned in range(10):
        order = "<>"[turned % 2]
        files[f"png-exif-{turned}"] = png(2, 8, 3, 5, before=chunk(b"eXIf", tiff(turned, order)))
        files[f"png-exif-behind-{turned}"] = png(0, 4, 7, 6, after=chunk(b"eXIf", tiff(turned, order)))
        files[f"jpeg-exif-{turned}"] = jpeg(exif=tiff(turned, order), size=(17, 9))
        files[f"jpeg-gray-exif-{turned}"] = jpeg("L", exif=tiff(turned, order), size=(5, 3))
    files["jpeg-exif-twice"] = jpeg(exif=tiff(6)).replace(b"\xff\xdb", exif_segment(tiff(3)) + b"\xff\xdb", 1)
    files["jpeg-exif-cut"] = jpeg(exif=tiff(6)[:-10])
    files["jpeg-exif-long"] = jpeg(exif=tiff(6, kind=4))
    files["jpeg-exif-two-values"] = jpeg(exif=tiff(6, count=2))
    files["jpeg-exif-far"] = jpeg(exif=b"II*\0\xff\xff\xff\xff")
    for size, subsampling, progressive in itertools.product(SIZES, (0, 1, 2), (False, True)):
        name = f"jpeg-{size[0]}x{size[1]}-{subsampling}{'-progressive' * progressive}"
        files[name] = jpeg(size=size, subsampling=subsampling, progressive=progressive, quality=80)
    for quality, progressive in itertools.product((10, 75, 100), (False, True)):
        files[f"jpeg-gray-{quality}{'-progressive' * progressive}"] = jpeg(
            "L", quality=quality, progressive=progressive, optimize=True
        )
    files["jpeg-rgb"] = jpeg(keep_rgb=True)
    files["jpeg-restarts"] = jpeg(restart_marker_blocks=2)
    files["jpeg-more-after-the-end"] = jpeg() + b"more"
    files["jpeg-fill-bytes"] = jpeg().replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1)
    for factors in ((0x41, 0x11), (0x12, 0x11), (0x22, 0x21), (0x22, 0x12), (0x21, 0x21), (0x13, 0x13)):
        files[f"jpeg-factors-{factors[0]:x}-{factors[1]:x}"] = sampled(*factors)
    return files


def exif_segment(data: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(data) + 8) + b"Exif\0\0" + data


def sampled(luma: int, chroma: int) -> bytes:
    """A JPEG file of flat gray whose luma and chroma have these factors of sampling: 64 zero coefficients a block."""
    blocks = lambda factor: (factor >> 4) * (factor & 15)  # noqa: E731
    table = lambda kind: b"\xff\xc4" + struct.pack(">HB", 20, kind) + b"\1" + bytes(15) + b"\0"  # noqa: E731
    frame = struct.pack(">BHHB", 8, 8, 8, 3) + bytes([1, luma, 0, 2, chroma, 0, 3, chroma, 0])
    # Each coefficient's code is one zero bit: two a block. The least common multiple of all blocks is one unit here.
    count = 2 * (blocks(luma) + 2 * blocks(chroma))
    entropy = int("0" * count + "1" * (-count % 8), 2).to_bytes((count + 7) // 8, "big")
    return (
        b"\xff\xd8\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([1] * 64) + b"\xff\xc0" + struct.pack(">H", 17) + frame
        + table(0) + table(0x10) + b"\xff\xda" + struct.pack(">HB", 12, 3) + bytes([1, 0, 2, 0, 3, 0, 0, 63, 0])
        + entropy + b"\xff\xd9"
    )  # fmt: skip


def short_chunks(data: bytes) -> bytes:
    """The same PNG with another chunk between two of pixels."""
    header = PNG + data[8:33]
    packed = zlib.compress(rows_of(Random(0), 2, 8, 3, 5, False))
    return (
        header + chunk(b"IDAT", packed[:9]) + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", packed[9:]) + chunk(b"IEND", b"")
    )


def refused() -> dict[str, bytes]:
    """Files that are not read, by what the message must say."""
    plain, gray = png(), jpeg("L")
    rows = rows_of(Random(0), 2, 8, 3, 5, False)
    header = lambda *fields: PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", *fields)) + plain[33:]  # noqa: E731
    progressive = jpeg(progressive=True)
    last_scan = progressive.rindex(b"\xff\xda")
    cases = {
        "it is of no kind that is known": [b"", b"GIF89a", b"\xff\xd8"],
        "it ends early": [plain[:-1], plain[:40], PNG, gray[:-1], gray[:100], b"\xff\xd8\xff"],
        "the checksum of a chunk does not fit": [plain[:20] + b"\1" + plain[21:], plain[:-1] + b"x"],
        "a chunk has no proper name": [png(before=chunk(b"a1bc", b""))],
        "its header is not its first chunk": [PNG + plain[33:], plain[:33] + plain[8:]],
        "its header is not sound": [
            *(header(3, 5, bits, color, 0, 0, 0) for bits, color in ((1, 2), (16, 3), (3, 0), (8, 1), (8, 7), (2, 4))),
            header(0, 5, 8, 2, 0, 0, 0),
            header(3, 2**31, 8, 2, 0, 0, 0),
            header(3, 5, 8, 2, 1, 0, 0),
            header(3, 5, 8, 2, 0, 1, 0),
            header(3, 5, 8, 2, 0, 0, 2),
            PNG + chunk(b"IHDR", bytes(14)) + plain[33:],
        ],
        "it has too many pixels": [
            header(13378, 13378, 8, 2, 0, 0, 0),
            gray[: gray.index(b"\xff\xc0") + 5] + b"\xff" * 4 + gray[gray.index(b"\xff\xc0") + 9 :],
        ],
        "its palette is not sound": [
            png(3, before=chunk(b"PLTE", bytes(3))),
            png(0, before=chunk(b"PLTE", bytes(3))),
            png(before=chunk(b"PLTE", bytes(4))),
            png(before=chunk(b"PLTE", b"")),
            png(before=chunk(b"PLTE", bytes(771))),
            png(after=chunk(b"PLTE", bytes(3))),
        ],
        "it has no palette": [png(3, palette=0)],
        "its pixels are in pieces": [short_chunks(plain)],
        "its end is not empty": [plain[:-12] + chunk(b"IEND", b"x")],
        "it has a chunk that is unknown and critical": [png(before=chunk(b"ABCD", b""))],
        "it has no pixels": [plain[:33] + chunk(b"IEND", b""), b"\xff\xd8\xff\xd9"],
        "its pixels end early": [png(rows=rows[:-1]), png(rows=b""), header(9999, 9999, 8, 2, 0, 0, 0)],
        "it has more pixels than it says": [png(rows=rows + b"\0"), png(rows=rows + bytes(1000))],
        "its pixels are damaged": [
            png(rows=b"\5" + rows[1:]),
            plain[:33] + chunk(b"IDAT", b"\x78\x9c\xff\xff") + chunk(b"IEND", b""),
            plain[:33] + chunk(b"IDAT", zlib.compress(rows)[:-1] + b"\0") + chunk(b"IEND", b""),
        ],
        "its pixels are CMYK": [saved(PIL.Image.new("CMYK", (8, 8)), "JPEG")],
        "its pixels are not 8 bits of gray or RGB": [
            gray.replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc0\0\x0b\x0c"),
        ],
        "its frame is not sound": [gray.replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc0\0\x0c\x08")],
        "it has two frames": [gray.replace(b"\xff\xda", segment_of(gray, b"\xff\xc0") + b"\xff\xda", 1)],
        "it is of a process other than": [
            gray.replace(b"\xff\xc0", b"\xff\xc9"),
            gray.replace(b"\xff\xc0", b"\xff\xc3"),
        ],
        "its colours are sampled in an uncommon way": [sampled(0x14, 0x11), sampled(0x22, 0x22), sampled(0x11, 0x21)],
        "there is something between its segments": [gray.replace(b"\xff\xdb", b"x\xff\xdb", 1)],
        "it has no frame": [gray.replace(segment_of(gray, b"\xff\xc0"), b"")],
        "it has more than 100 scans": [gray.replace(b"\xff\xd9", segment_of(gray, b"\xff\xda") * 100 + b"\xff\xd9")],
        "a scan of it is not sound": [gray.replace(b"\xff\xda\0\x08\1\1", b"\xff\xda\0\x08\1\2")],
        # Versions of libjpeg-turbo differ in what they make of it.
        "its scans leave a part out": [progressive[:last_scan] + b"\xff\xd9"],
    }
    return {f"{why} {number}": data for why, files in cases.items() for number, data in enumerate(files)}


def segment_of(data: bytes, marker: bytes) -> bytes:
    at = data.index(marker)
    return data[at : at + 2 + struct.unpack_from(">H", data, at + 2)[0]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("kinds")
    for number, (name, data) in enumerate(kinds().items()):
        place = path / f"{number % 3}"  # What is found below a directory keeps its place.
        place.mkdir(exist_ok=True)
        (place / f"{name}.{name.split('-')[0]}").write_bytes(data)
    return path


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> dict[int, Path]:
    return {1: PRETRAINED, 3: seeded_bundle("cifar10", tmp_path_factory.mktemp("colour"))}


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_gives_the_same_pixels_and_codes(tmp_path, folder, bundles, channels, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # Such small images gain nothing by more.
    bundle, outputs = bundles[channels], {}
    for name, run, words in (
        ("python", run_cli, ["reconstruct", bundle, folder, "--output"]),
        ("cpp", run_reconstruct, ["--bundle", bundle, folder, "--output"]),
        ("python-codes", run_cli, ["encode", bundle, folder, "--output"]),
        ("cpp-codes", run_reconstruct, ["--bundle", bundle, folder, "--codes"]),
    ):
        result = run(*words, tmp_path / name)
        assert result.returncode == DONE, result.stderr
        outputs[name] = tree(tmp_path / name)
    assert len(outputs["python"]) == len(kinds())
    assert outputs["python"].keys() == outputs["cpp"].keys()
    for name, written in outputs["python"].items():
        ours, theirs = (decode_image(data, channels) for data in (written, outputs["cpp"][name]))
        (source,) = folder.glob(f"{name[:-4]}.*")
        assert ours.shape == read_image(source, channels).shape
        np.testing.assert_array_equal(theirs, ours, err_msg=name)
    assert outputs["python-codes"] == outputs["cpp-codes"]
    # And back, in either language from the other's file.
    for name, run, words in (
        ("cpp-decoded", run_reconstruct, ["--bundle", bundle, "--output", tmp_path / "cpp-decoded", "--decode"]),
        ("python-decoded", run_cli, ["decode", bundle, "--output", tmp_path / "python-decoded"]),
    ):
        result = run(*words, tmp_path / ("python-codes" if run is run_reconstruct else "cpp-codes"))
        assert result.returncode == DONE, result.stderr
        assert tree(tmp_path / name) == outputs[name.split("-")[0]]


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_decoded_is_what_is_documented(folder, channels):
    """Pillow as the witness, of what it reads; the pixels are turned by its own function."""
    for name, data in kinds().items():
        if any(word in name for word in ("-16", "short-palette", "-with-", "exif-", "more-")):
            continue  # It has other rules, or messages, for these.
        with PIL.Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("RGB").convert({1: "L", 3: "RGB"}[channels]))
        wanted = pixels.reshape(*pixels.shape[:2], channels).astype(int)
        off = np.abs(decode_image(data, channels) - wanted).max()
        assert off <= (3 if name.startswith("jpeg") else 0), name  # Its library may be another.


def test_no_other_chunk_changes_the_pixels():
    for name, data in kinds().items():
        if "-with-" in name:
            np.testing.assert_array_equal(decode_image(data, 3), decode_image(png(), 3), err_msg=name)


@pytest.mark.parametrize("turned", range(1, 9))
def test_turned_pictures_are_shown_upright(turned):
    data = png(2, 8, 3, 5, before=chunk(b"eXIf", tiff(turned)))
    with PIL.Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode_image(data, 3), np.asarray(PIL.ImageOps.exif_transpose(image)))
    assert orientation(tiff(turned)) == orientation(tiff(turned, ">")) == turned


def test_of_sixteen_bits_the_high_ones_are_taken_and_missing_colours_are_black():
    rows = bytes([0, 0x12, 0xFF, 0x34, 0x80, 0x56, 0x00])
    np.testing.assert_array_equal(decode_image(png(2, 16, 1, 1, rows=rows), 3), [[[0x12, 0x34, 0x56]]])
    np.testing.assert_array_equal(decode_image(png(0, 16, 1, 1, rows=rows[:3]), 1), [[[0x12]]])
    np.testing.assert_array_equal(decode_image(png(4, 16, 1, 1, rows=rows[:5]), 1), [[[0x12]]])
    np.testing.assert_array_equal(decode_image(png(3, 8, 1, 1, rows=b"\0\7", palette=7), 3), [[[0, 0, 0]]])


def test_damaged_exif_data_turns_nothing():
    whole = tiff(6)
    for size in range(30):
        assert orientation(whole[:size]) == 1
    for data in (tiff(0), tiff(9), tiff(6, kind=4), tiff(6, count=2), tiff(6, tag=0x113), b"IM" + whole[2:]):
        assert orientation(data) == 1
    assert orientation(whole[:4] + b"\xff\xff\xff\xff" + whole[8:]) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_refused_is_refused_by_both_in_the_same_words(tmp_path, bundles, channels):
    for name, data in refused().items():
        why = name.rsplit(" ", 1)[0]
        with pytest.raises(ValueError, match=why):
            decode_image(data, channels)
    if channels == 1:
        for number, (name, data) in enumerate(refused().items()):
            if not name.endswith(" 0"):  # The others of a kind are for the fuzzers.
                continue
            path = tmp_path / f"{number:03d}.png"
            path.write_bytes(data)
            result = run_reconstruct(
                "--bundle", PRETRAINED, "--no-verify", "--quiet", path, "--output", tmp_path / "out"
            )
            assert result.returncode == REJECTED, name
            assert name.rsplit(" ", 1)[0] in result.stderr, name
            assert len(result.stderr.splitlines()) == 1


def test_images_of_any_size_are_padded_and_cropped_back():
    image = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(1, 3, 5, 2)
    padded = pad_to(image, 4)
    assert padded.shape == (1, 4, 8, 2)
    np.testing.assert_array_equal(padded[:, :, 5:], np.repeat(padded[:, :, 4:5], 3, axis=2))
    np.testing.assert_array_equal(padded[:, 3], padded[:, 2])
    np.testing.assert_array_equal(crop(padded, 3, 5), image)
    assert pad_to(padded, 4) is padded


@pytest.mark.parametrize("size", [(29, 31), (1, 1), (3, 5)])
def test_the_harness_agrees_on_odd_sizes(tmp_path, size):
    for seed in range(3):
        picture(seed, *size).convert("L").save(tmp_path / f"{seed}.png")
    result = run_cli("parity", PRETRAINED, "--candidate", "cpp", "--data", tmp_path, "--json")
    assert result.returncode == DONE, result.stdout + result.stderr
    assert json.loads(result.stdout)["verdict"] == "agree"


def programs(output: Path) -> dict[str, list[str]]:
    """Both programs, each with a directory of its own for results."""
    return {
        "python": [
            *(sys.executable, "-m", "vqvae_gluon", "reconstruct", str(PRETRAINED)),
            *("--output", str(output / "python")),
        ],
        "cpp": [str(find_binary()), "--bundle", str(PRETRAINED), "--output", str(output / "cpp")],
    }


@pytest.mark.parametrize("kind", ["png", "jpeg", "npy"])
def test_standard_input_is_told_by_its_first_bytes(tmp_path, kind):
    array = io.BytesIO()
    np.save(array, np.stack([np.asarray(picture(seed).convert("L")) for seed in range(2)]))
    given = {"png": png(), "jpeg": jpeg(), "npy": array.getvalue()}[kind]
    results = []
    for name, command in programs(tmp_path).items():
        result = subprocess.run([*command, "-"], input=given, capture_output=True, check=False)
        assert result.returncode == DONE, result.stderr
        results.append({file: decode_image(data, 1).tolist() for file, data in tree(tmp_path / name).items()})
    assert results[0] == results[1]
    assert list(results[0]) == (["stdin-00000.png", "stdin-00001.png"] if kind == "npy" else ["stdin.png"])


def test_standard_input_that_is_nothing_is_refused_by_both(tmp_path):
    for command in programs(tmp_path).values():
        result = subprocess.run([*command, "-"], input=b"nothing", capture_output=True, check=False)
        assert result.returncode == REJECTED
        assert b"standard input: is not a readable PNG or JPEG image (it is of no kind that is known)" in result.stderr


def test_names_of_files_may_be_any_bytes(tmp_path):
    name = b"a\xff\n\x1b[2J\xe9.png"
    path = bytes(tmp_path) + b"/" + name
    Path(path.decode(errors="surrogateescape")).write_bytes(png())
    for command in programs(tmp_path).values():
        result = subprocess.run([*command, path], capture_output=True, check=False)
        assert result.returncode == DONE, result.stderr
        assert b"a\xff\\x0a\\x1b[2J\xe9.png" in result.stdout  # Controls are shown as escapes.
        missing = path[:-4] + b"\n.png"
        result = subprocess.run([*command, missing], capture_output=True, check=False)
        assert result.returncode == REJECTED
        assert len(result.stderr.splitlines()) == 1
        assert b"\x1b" not in result.stderr
