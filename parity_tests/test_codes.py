"""Codes files: the same bytes in both languages; what is damaged, or of another bundle, is refused by both."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from conftest import PRETRAINED, run_cli, run_cli_here, run_reconstruct

from vqvae_gluon.artifacts.bundle import open_bundle
from vqvae_gluon.artifacts.codes import Codes, codes_bytes, parse_codes, read_codes, write_codes
from vqvae_gluon.data.images import read_image, write_image
from vqvae_gluon.errors import DONE, REJECTED, USAGE, InputError
from vqvae_gluon.runtimes import gluon
from vqvae_gluon.runtimes.gluon import GluonGraph, Predictor

DIGEST = "ab" * 31 + "07"


def counting(num_embeddings: int, count: int = 30) -> Codes:
    values = (np.arange(count) * 7 % num_embeddings).astype(np.int32).reshape(2, -1, 5)
    values[-1, -1, -1] = num_embeddings - 1
    return Codes(values, 4 * values.shape[1] - 1, 18, num_embeddings, DIGEST)


def sealed(data: bytes) -> bytes:
    """The checksum put right, so that what stands before it is judged."""
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


def own(values: np.ndarray, height: int, width: int) -> bytes:
    """A file of the pretrained bundle's."""
    return codes_bytes(Codes(values, height, width, 64, digest()))


def digest() -> str:
    return open_bundle(PRETRAINED).digest


@pytest.mark.parametrize(
    ("num_embeddings", "bits"), [(1, 1), (2, 1), (3, 2), (64, 6), (65, 7), (512, 9), (65536, 16), (2**24, 24)]
)
def test_codes_come_back_in_as_few_bits_as_they_need(num_embeddings, bits):
    codes = counting(num_embeddings)
    data = codes_bytes(codes)
    assert len(data) == 64 + (30 * bits + 7) // 8 + 4
    read = parse_codes(data, "x.vq")
    np.testing.assert_array_equal(read.values, codes.values)
    assert read.values.dtype == np.int32
    assert (read.height, read.width, read.num_embeddings, read.bundle) == (11, 18, num_embeddings, DIGEST)


def test_the_format_is_the_documented_one():
    values = np.array([[[1, 2, 3]]], np.int32)
    data = codes_bytes(Codes(values, 4, 12, 5, DIGEST))
    assert data[:8] == b"VQCODES1"
    assert data[8:40].hex() == DIGEST
    assert struct.unpack("<6I", data[40:64]) == (1, 4, 12, 1, 3, 5)
    assert data[64:66] == (1 | 2 << 3 | 3 << 6).to_bytes(2, "little")
    assert struct.unpack("<I", data[66:]) == (zlib.crc32(data[:66]),)


def test_many_codes_come_back(tmp_path):
    codes = counting(512, 2 * 5 * 150_001)  # More than are packed at once, and no whole byte at the end.
    write_codes(tmp_path / "x.vq", codes)
    np.testing.assert_array_equal(read_codes(tmp_path / "x.vq").values, codes.values)


def attacks() -> dict[str, bytes]:
    """Files that are no codes, by what the message must say."""
    whole = own(np.zeros((1, 7, 7), np.int32), 28, 28)
    numbers = lambda *values: sealed(whole[:40] + struct.pack("<6I", *values) + whole[64:])  # noqa: E731
    cases = {
        "it does not begin with VQCODES1": [b"", whole[:7], b"vqcodes1" + whole[8:]],
        "its length does not fit its sizes": [
            *(whole[:8], whole[:63], whole[:64], whole[:-1], whole + b"\0"),
            *(numbers(2, 28, 28, 7, 7, 64), numbers(1, 28, 28, 7, 7, 2**24), numbers(1, 28, 28, 7, 8, 64)),
        ],
        "its checksum does not fit": [whole[:10] + b"\1" + whole[11:], whole[:-1] + bytes([whole[-1] ^ 1])],
        "a size of it is out of bounds": [
            *(numbers(0, 28, 28, 7, 7, 64), numbers(1, 0, 28, 7, 7, 64), numbers(1, 28, 28, 7, 0, 64)),
            numbers(1, 28, 28, 7, 7, 0),
        ],
        "its codes are more than its pixels": [numbers(1, 6, 28, 7, 7, 64), numbers(1, 28, 6, 7, 7, 64)],
        "its codebook is too large": [numbers(1, 28, 28, 7, 7, 2**24 + 1)],
        "it holds too many codes": [
            numbers(2**31, 28, 28, 1, 1, 64),
            numbers(2**32 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1, 64),
            numbers(1, 2**32 - 1, 2**32 - 1, 2**16, 2**16, 64),
        ],
        "a code is not in its codebook": [
            sealed(codes_bytes(counting(5))[:64] + b"\xff" * 12 + bytes(4)),
        ],
        "bits are set behind its last code": [sealed(whole[:-5] + b"\x80" + whole[-4:])],
    }
    return {f"{why} {number}": data for why, files in cases.items() for number, data in enumerate(files)}


@pytest.mark.parametrize("attack", attacks())
def test_files_that_are_no_codes_are_rejected_by_both_in_the_same_words(tmp_path, attack):
    path = tmp_path / "x.vq"
    path.write_bytes(attacks()[attack])
    words = f"x.vq: is not a .vq file that can be read: {attack.rsplit(' ', 1)[0]}"
    with pytest.raises(InputError, match=words):
        read_codes(path)
    result = run_reconstruct("--bundle", PRETRAINED, "--decode", path, "--output", tmp_path / "out")
    assert result.returncode == REJECTED
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


STRANGE: dict[str, tuple[dict[str, Any], str]] = {
    "another bundle": ({"bundle": DIGEST}, "x.vq: are codes of another bundle"),
    "another codebook": ({"num_embeddings": 63}, "x.vq: are codes of another bundle"),
    "another stride": ({"height": 29}, "of an image of 28x29"),
    "fewer pixels": ({"width": 24}, "of an image of 24x28"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_codes_of_another_bundle_are_rejected_by_both(tmp_path, case):
    change, words = STRANGE[case]
    path = tmp_path / "x.vq"
    sizes: dict[str, Any] = {"height": 28, "width": 28, "num_embeddings": 64, "bundle": digest(), **change}
    write_codes(path, Codes(np.zeros((1, 7, 7), np.int32), **sizes))
    for result in (
        run_cli_here("decode", PRETRAINED, path, "--output", tmp_path / "python"),
        run_reconstruct("--bundle", PRETRAINED, "--decode", path, "--output", tmp_path / "cpp"),
    ):
        assert result.returncode == REJECTED
        assert words in result.stderr
    assert not list(tmp_path.rglob("*.png"))


def test_codes_of_a_batch_and_of_files_keep_their_names_and_sizes(tmp_path, digits):
    """Batches are numbered, single images are not; all come back as reconstruct gives them, in both languages."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    write_image(tmp_path / "in" / "a.png", digits[0][:27, :25])
    write_image(tmp_path / "in" / "sub" / "b.png", digits[1])
    np.save(tmp_path / "batch.npy", digits[:3, :26, :, 0])
    images = [tmp_path / "in", tmp_path / "batch.npy"]
    for run, encode, decode, whole in (
        (run_cli, ["encode", PRETRAINED, "--output"], ["decode", PRETRAINED], ["reconstruct", PRETRAINED]),
        (
            run_reconstruct,
            ["--bundle", PRETRAINED, "--codes"],
            ["--bundle", PRETRAINED, "--decode"],
            ["--bundle", PRETRAINED],
        ),
    ):
        place = tmp_path / run.__name__
        for words in (
            [*encode, place / "codes", *images],
            [*decode, place / "codes", "--output", place / "decoded"],
            [*whole, *images, "--output", place / "whole"],
        ):
            result = run(*words)
            assert result.returncode == DONE, result.stderr
        names = {str(path.relative_to(place / "whole")) for path in (place / "whole").rglob("*.png")}
        assert names == {"a.png", "sub/b.png", *(f"batch-0000{number}.png" for number in range(3))}
        for name in names:
            np.testing.assert_array_equal(
                read_image(place / "decoded" / name, 1), read_image(place / "whole" / name, 1)
            )
        assert read_image(place / "decoded" / "a.png", 1).shape == (27, 25, 1)
        assert {path.name for path in (place / "codes").rglob("*.vq")} == {"a.vq", "b.vq", "batch.vq"}
    for name in ("a.vq", "sub/b.vq", "batch.vq"):
        ours, theirs = ((tmp_path / run / "codes" / name).read_bytes() for run in ("run_cli", "run_reconstruct"))
        assert ours == theirs


@pytest.mark.parametrize("suffix", ["npy", "vq"])
def test_one_file_of_codes_is_the_same_in_both_languages(tmp_path, digits, suffix):
    for number in range(3):
        write_image(tmp_path / f"{number}.png", digits[number][:, :27])
    images = sorted(tmp_path.glob("*.png"))
    ours, theirs = tmp_path / f"ours.{suffix}", tmp_path / f"theirs.{suffix}"
    assert run_cli("encode", PRETRAINED, *images, "--output", ours).returncode == DONE
    assert run_reconstruct("--bundle", PRETRAINED, *images, "--codes", theirs).returncode == DONE
    assert ours.read_bytes() == theirs.read_bytes()
    result = run_cli("decode", PRETRAINED, ours, "--output", tmp_path / "out")
    assert result.stdout.split() == [str(tmp_path / "out" / f"ours-0000{number}.png") for number in range(3)]
    sizes = {read_image(path, 1).shape for path in (tmp_path / "out").iterdir()}
    assert sizes == {(28, 27 if suffix == "vq" else 28, 1)}


@pytest.mark.parametrize("suffix", ["npy", "vq"])
def test_large_images_are_decoded_and_written_a_few_at_a_time(tmp_path, digits, suffix, monkeypatch):
    """However many are in a file, no more are held."""
    predictor, output, seen = Predictor(open_bundle(PRETRAINED)), tmp_path / "out", []
    codes = predictor.encode(digits[:5])
    whole = predictor.decode(codes, 28, 28)
    if suffix == "vq":
        (tmp_path / "x.vq").write_bytes(own(codes, 28, 28))
    else:
        np.save(tmp_path / "x.npy", codes)
    run = GluonGraph.run

    def watch(self, inputs, *pixels):
        ((_, values),) = inputs.items()
        seen.append((len(values), len(list(output.glob("*")))))
        return run(self, inputs, *pixels)

    monkeypatch.setattr(GluonGraph, "run", watch)
    monkeypatch.setattr(gluon, "_PIXELS", 2 * 28 * 28 + 1)
    assert run_cli_here("decode", PRETRAINED, tmp_path / f"x.{suffix}", "--output", output).returncode == DONE
    assert seen == [(2, 0), (2, 2), (1, 4)]
    for number in range(5):
        np.testing.assert_array_equal(read_image(output / f"x-0000{number}.png", 1), whole[number])
    seen.clear()
    np.testing.assert_array_equal(predictor.encode(digits[:5]), codes)
    assert [count for count, _ in seen] == [2, 2, 1]
    codes[4] = 64
    np.save(tmp_path / "y.npy", codes)
    assert run_cli_here("decode", PRETRAINED, tmp_path / "y.npy", "--output", tmp_path / "none").returncode == REJECTED
    assert not (tmp_path / "none").exists()


def test_images_of_two_sizes_are_no_one_file(tmp_path, digits):
    write_image(tmp_path / "a.png", digits[0])
    write_image(tmp_path / "b.png", digits[1][:24])
    for run, words in (
        (run_cli, ["encode", PRETRAINED, "--output"]),
        (run_reconstruct, ["--bundle", PRETRAINED, "--codes"]),
    ):
        result = run(*words, tmp_path / "codes.vq", tmp_path / "a.png", tmp_path / "b.png")
        assert result.returncode == REJECTED
        assert "b.png" in result.stderr
        assert not (tmp_path / "codes.vq").exists()


def test_results_of_one_name_are_refused(tmp_path, digits):
    np.save(tmp_path / "x.npy", digits[:2])
    write_image(tmp_path / "x.png", digits[0])
    result = run_cli_here("encode", PRETRAINED, tmp_path / "x.npy", "--output", tmp_path / "x.npy")
    assert result.returncode == USAGE
    assert "x.npy: would be overwritten by the codes of" in result.stderr
    result = run_cli_here("encode", PRETRAINED, tmp_path / "x.npy", tmp_path / "x.png", "--output", tmp_path / "out")
    assert result.returncode == USAGE
    assert "x.vq: would be overwritten by the codes of" in result.stderr
