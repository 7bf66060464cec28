"""The C++ binary and its Python counterpart: the same files in, the same pixels out."""

import io
import os
import subprocess

import numpy as np
import PIL.Image
import pytest
from conftest import PRETRAINED, run_cli, run_cli_here, run_reconstruct

from vqvae_gluon.artifacts.bundle import graph_files
from vqvae_gluon.artifacts.trace import open_trace
from vqvae_gluon.data.images import read_image
from vqvae_gluon.errors import DONE, FAILED, REJECTED, USAGE
from vqvae_gluon.runtimes.cpp import find_binary

DIGITS = sorted((PRETRAINED / "digits").glob("*.png"))


def pixels(directory):
    return {path.name: read_image(path, 1) for path in sorted(directory.iterdir())}


def check_equal(tmp_path, *images):
    """Reconstruct with both, and compare every file."""
    results = []
    for run, arguments in ((run_cli, ["reconstruct", PRETRAINED]), (run_reconstruct, ["--bundle", PRETRAINED])):
        output = tmp_path / run.__name__
        result = run(*arguments, *images, "--output", output)
        assert result.returncode == DONE, result.stderr
        assert result.stdout.split() == [str(output / name) for name in sorted(os.listdir(output))]
        results.append(pixels(output))
    ours, theirs = results
    assert ours.keys() == theirs.keys()
    for name, image in ours.items():
        np.testing.assert_array_equal(theirs[name], image, err_msg=name)
    return ours


def test_sixty_four_digits(tmp_path):
    result = check_equal(tmp_path, *DIGITS)
    assert len(result) == 64
    errors = [np.mean((result[path.name] / 255.0 - read_image(path, 1) / 255.0) ** 2) for path in DIGITS]
    assert np.mean(errors) < 0.0108  # What the earlier project reached; an all-black image has 0.11.


def test_a_batch_file(tmp_path, digits):
    np.save(tmp_path / "digits.npy", digits[:150, :, :, 0])
    result = check_equal(tmp_path, tmp_path / "digits.npy")
    assert list(result)[:2] == ["digits-00000.png", "digits-00001.png"]
    assert len(result) == 150


def test_images_of_several_sizes(tmp_path, digits):
    for number, (height, width) in enumerate([(28, 28), (28, 28), (40, 16), (4, 4), (28, 28)]):
        PIL.Image.fromarray(np.resize(digits[number], (height, width))).save(tmp_path / f"{number}.png")
    check_equal(tmp_path, *sorted(tmp_path.glob("*.png")))


@pytest.mark.parametrize(
    ("mode", "suffix", "options"),
    [
        ("L", "png", {}),
        ("RGB", "png", {}),
        ("RGBA", "png", {}),
        ("LA", "png", {}),
        ("1", "png", {}),
        ("P", "png", {}),
        ("P", "png", {"transparency": 3}),
        ("L", "jpg", {"quality": 70}),
        ("RGB", "jpg", {"quality": 70, "subsampling": 0}),
        ("RGB", "jpg", {"quality": 70, "subsampling": 1}),
        ("RGB", "jpg", {"quality": 70, "subsampling": 2}),
        ("RGB", "jpg", {"quality": 95, "progressive": True}),
    ],
)
def test_kinds_of_image_files(tmp_path, mode, suffix, options):
    noise = np.random.default_rng(5).integers(0, 256, (32, 36, 4), dtype=np.uint8)
    smooth = PIL.Image.fromarray(noise).resize((52, 44), PIL.Image.Resampling.BICUBIC)
    path = tmp_path / f"image.{suffix}"
    smooth.convert("RGB").convert(mode).save(path, **options) if mode != "RGBA" else smooth.save(path)
    check_equal(tmp_path, path)


def bad_files():
    """Files that are no image of this network, by what the message must say of them."""
    digit = DIGITS[0].read_bytes()
    jpeg = io.BytesIO()
    PIL.Image.open(DIGITS[0]).save(jpeg, format="JPEG")
    return {
        "empty": (b"", "is not a readable PNG or JPEG image"),
        "text": (b"hello", "is not a readable PNG or JPEG image"),
        "png cut": (digit[: len(digit) // 2], "is not a readable PNG or JPEG image"),
        "png checksum": (digit[:50] + b"\xff\xff" + digit[52:], "is not a readable PNG or JPEG image"),
        "jpeg cut": (jpeg.getvalue()[: len(jpeg.getvalue()) // 2], "is not a readable PNG or JPEG image"),
    }


@pytest.mark.parametrize("kind", bad_files())
def test_files_that_are_no_image_of_the_network_are_rejected_by_both(tmp_path, kind):
    content, words = bad_files()[kind]
    (tmp_path / "bad.png").write_bytes(content)
    for run, arguments in ((run_cli, ["reconstruct", PRETRAINED]), (run_reconstruct, ["--bundle", PRETRAINED])):
        result = run(*arguments, tmp_path / "bad.png", "--output", tmp_path / "out")
        assert result.returncode == REJECTED
        assert len(result.stderr.splitlines()) == 1
        assert words in result.stderr
        assert "bad.png" in result.stderr
        assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_a_trace_holds_every_step_from_pixels_to_pixels(tmp_path):
    result = run_reconstruct(
        "--bundle", PRETRAINED, "--output", tmp_path / "out", "--trace", tmp_path / "trace", *DIGITS[:3]
    )
    assert result.returncode == DONE
    trace = open_trace(tmp_path / "trace")
    stages = list(dict.fromkeys(node.stage for node in trace.nodes))
    assert stages == ["input", "encoder", "decoder", "output"]
    np.testing.assert_array_equal(trace.get("input", "pixels"), [read_image(path, 1) for path in DIGITS[:3]])
    np.testing.assert_array_equal(
        trace.get("output", "image"), [read_image(tmp_path / "out" / path.name, 1) for path in DIGITS[:3]]
    )
    for node in trace.nodes:
        assert (node.load().shape, node.load().dtype.name) == (node.shape, node.dtype)


def test_a_plain_export_is_traced_on_any_input(tmp_path):
    files = graph_files(PRETRAINED, "decoder")
    np.save(tmp_path / "codes.npy", np.arange(49, dtype=np.int32).reshape(1, 7, 7))
    result = run_reconstruct(
        "--symbol", files.symbol, "--params", files.params, "--input", f"codes={tmp_path / 'codes.npy'}",
        "--stage", "decoder", "--trace", tmp_path / "trace",
    )  # fmt: skip
    assert result.returncode == DONE, result.stderr
    assert open_trace(tmp_path / "trace").get("decoder", "reconstruction").shape == (1, 1, 28, 28)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--bogus"],
        ["--bundle", PRETRAINED],
        ["--symbol", "x"],
        ["--bundle", PRETRAINED, "--symbol", "x", DIGITS[0]],
        ["--symbol", "x", "--params", "y", "--input", "data", "--trace", "z"],
    ],
)
def test_words_that_do_not_fit_are_a_usage_error(arguments):
    result = run_reconstruct(*arguments)
    assert result.returncode == USAGE
    assert result.stderr.startswith("reconstruct: error: ")
    assert len(result.stderr.splitlines()) == 1


def test_nothing_is_overwritten(tmp_path, digits):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(DIGITS[0].read_bytes())
    for run, arguments in ((run_cli, ["reconstruct", PRETRAINED]), (run_reconstruct, ["--bundle", PRETRAINED])):
        for images, output in (
            ([tmp_path / "a/x.png"], tmp_path / "a"),
            ([tmp_path / "a/x.png", tmp_path / "b/x.png"], tmp_path / run.__name__),
        ):
            result = run(*arguments, *images, "--output", output)
            assert result.returncode == USAGE
            assert "x.png: would be overwritten by the reconstruction of" in result.stderr
    assert (tmp_path / "a/x.png").read_bytes() == DIGITS[0].read_bytes()


NPY_ATTACKS = {
    "empty": lambda data: b"",
    "archive": lambda data: b"PK\x03\x04" + data,
    "cut": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "huge": lambda data: data.replace(b"(4, 28, 28), }", b"(10000000000000, 28, 28), }"),
    "negative": lambda data: data.replace(b"(4, ", b"(-4,"),
    "header": lambda data: data.replace(b"'shape': (", b"'shape': {"),
    "order": lambda data: data.replace(b"'fortran_order': False", b"'fortran_order': True "),
    "objects": lambda data: data.replace(b"|u1", b"|O8"),
}


@pytest.mark.parametrize("attack", NPY_ATTACKS)
def test_batch_files_that_are_not_sound_are_rejected_by_both(tmp_path, digits, attack):
    path = tmp_path / "x.npy"
    np.save(path, digits[:4, :, :, 0])
    path.write_bytes(NPY_ATTACKS[attack](path.read_bytes()))
    for run, arguments in ((run_cli_here, ["reconstruct", PRETRAINED]), (run_reconstruct, ["--bundle", PRETRAINED])):
        result = run(*arguments, path, "--output", tmp_path / "out")
        assert result.returncode == REJECTED
        assert "x.npy: is not an .npy file that can be read" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_help_and_version():
    for program in (run_cli, run_reconstruct):
        assert "exit codes" in program("--help").stdout
        assert program("--version").stdout.split()[1] == run_cli("--version").stdout.split()[1]


def test_a_directory_that_cannot_be_written_is_an_error():
    for run, arguments in ((run_cli, ["reconstruct", PRETRAINED]), (run_reconstruct, ["--bundle", PRETRAINED])):
        result = run(*arguments, DIGITS[0], "--output", "/proc/nowhere")
        assert result.returncode == FAILED
        assert "/proc/nowhere" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_a_library_that_is_not_there_is_named():
    environment = {**os.environ, "MXNET_LIBRARY_PATH": "/nonexistent/libmxnet.so"}
    command = [str(find_binary()), "--bundle", str(PRETRAINED), str(DIGITS[0])]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == FAILED
    assert "set MXNET_LIBRARY_PATH" in result.stderr


def test_codes_round_trip(tmp_path):
    codes, decoded, whole = tmp_path / "codes.npy", tmp_path / "decoded", tmp_path / "whole"
    assert run_cli("encode", PRETRAINED, *DIGITS[:5], "--output", codes).returncode == DONE
    values = np.load(codes)
    assert (values.shape, values.dtype) == ((5, 7, 7), np.int32)
    assert run_cli("decode", PRETRAINED, codes, "--output", decoded).returncode == DONE
    assert run_cli("reconstruct", PRETRAINED, *DIGITS[:5], "--output", whole).returncode == DONE
    for a, b in zip(pixels(decoded).values(), pixels(whole).values()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (np.full((1, 7, 7), 64, np.int32), "holds codes 64..64; the codebook has 0..63"),
        (np.full((1, 7, 7), -1, np.int32), "holds codes -1..-1; the codebook has 0..63"),
        (np.zeros((1, 7, 7), np.float32), "holds float32 (1, 7, 7); codes are int32 (N, h, w)"),
        (np.zeros((7, 7), np.int32), "holds int32 (7, 7); codes are int32 (N, h, w)"),
    ],
)
def test_codes_of_another_network_are_rejected(tmp_path, codes, words):
    np.save(tmp_path / "codes.npy", codes)
    result = run_cli("decode", PRETRAINED, tmp_path / "codes.npy", "--output", tmp_path / "out")
    assert result.returncode == REJECTED
    assert words in result.stderr
    assert "codes.npy" in result.stderr
    assert not (tmp_path / "out").exists()
