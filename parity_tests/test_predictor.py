"""The binary as a product: what it takes, what it writes, and how it runs."""

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module

import numpy as np
import PIL.Image
import pytest
from conftest import PRETRAINED, ROOT, run_cli_here, run_reconstruct

from vqvae_gluon.artifacts.bundle import graph_files, open_bundle
from vqvae_gluon.artifacts.codes import read_codes
from vqvae_gluon.artifacts.trace import open_trace
from vqvae_gluon.bench.machine import describe
from vqvae_gluon.cli.judging import seeded_bundle
from vqvae_gluon.compat import mx
from vqvae_gluon.data.images import read_image
from vqvae_gluon.errors import DONE, REJECTED, USAGE
from vqvae_gluon.runtimes.cpp import find_binary
from vqvae_gluon.runtimes.gluon import Predictor

sys.path.insert(0, str(ROOT / "benchmarks"))
photograph = import_module("tiles").photograph

# oneDNN's operators for AVX2 round by the width of what they are given; those for AVX-512 do not.
ROUNDS_BY_WIDTH = "avx512f" not in describe(1)["vector_instructions"]
DIGITS = sorted((PRETRAINED / "digits").glob("*.png"))


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    """A colour bundle with random weights from a seed."""
    return seeded_bundle("cifar10", tmp_path_factory.mktemp("colour") / "bundle")


def run_ok(*arguments, bundle=PRETRAINED, **settings):
    command = [str(find_binary()), "--bundle", str(bundle), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, check=False, **settings)
    assert result.returncode == DONE, result.stderr.decode()
    return result


def test_directories_keep_their_places(tmp_path):
    for place in ("a/1.png", "a/b/1.PNG", "2.png"):
        (tmp_path / "in" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DIGITS[0], tmp_path / "in" / place)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    result = run_ok(tmp_path / "in", "--output", tmp_path / "out")
    expected = [str(tmp_path / "out" / place) for place in ("2.png", "a/1.png", "a/b/1.png")]
    assert result.stdout.decode().split() == expected
    assert run_cli_here("reconstruct", PRETRAINED, tmp_path / "in", "--output", tmp_path / "py").returncode == DONE
    for place in ("2.png", "a/1.png", "a/b/1.png"):
        np.testing.assert_array_equal(read_image(tmp_path / "out" / place, 1), read_image(tmp_path / "py" / place, 1))


def test_a_directory_without_images_is_rejected(tmp_path):
    result = run_reconstruct("--bundle", PRETRAINED, tmp_path)
    assert result.returncode == REJECTED
    assert "holds no PNG or JPEG file" in result.stderr


@pytest.mark.parametrize("kind", ["png", "npy"])
def test_standard_input(tmp_path, digits, kind):
    np.save(tmp_path / "digits.npy", digits[:3])
    source = DIGITS[0] if kind == "png" else tmp_path / "digits.npy"
    run_ok("-", "--output", tmp_path / "out", stdin=source.open("rb"))
    names = ["stdin.png"] if kind == "png" else [f"stdin-{i:05d}.png" for i in range(3)]
    assert sorted(os.listdir(tmp_path / "out")) == names
    run_ok(source, "--output", tmp_path / "file")
    for a, b in zip(names, sorted(os.listdir(tmp_path / "file"))):
        assert (tmp_path / "out" / a).read_bytes() == (tmp_path / "file" / b).read_bytes()


@pytest.mark.parametrize("suffix", [".npy", ".vq", ""])
def test_codes_go_out_and_come_back(tmp_path, suffix):
    codes, decoded = tmp_path / f"codes{suffix}", tmp_path / "decoded"
    run_ok(*DIGITS[:5], "--codes", codes, "--output", tmp_path / "whole")
    run_ok("--decode", codes, "--output", decoded)
    results = sorted(decoded.iterdir())
    for path, result in zip(DIGITS[:5], results):
        assert result.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
    assert len(results) == 5


def test_codes_alone_write_no_images(tmp_path):
    result = run_ok(DIGITS[0], "--codes", tmp_path / "x.vq", cwd=tmp_path)
    assert result.stdout.decode().split() == [str(tmp_path / "x.vq")]
    assert os.listdir(tmp_path) == ["x.vq"]


def test_one_file_of_codes_is_of_images_of_one_size(tmp_path):
    PIL.Image.new("L", (32, 32)).save(tmp_path / "large.png")
    result = run_reconstruct("--bundle", PRETRAINED, DIGITS[0], tmp_path / "large.png", "--codes", tmp_path / "x.npy")
    assert result.returncode == REJECTED
    assert "large.png: is 32x32, but the images before it are 28x28" in result.stderr
    assert not (tmp_path / "x.npy").exists()


def test_codes_of_another_bundle_are_rejected(tmp_path, colour):
    run_ok(DIGITS[0], "--codes", tmp_path / "x.vq")
    for result in (
        run_reconstruct("--bundle", colour, "--decode", tmp_path / "x.vq", "--output", tmp_path / "out"),
        run_cli_here("decode", colour, tmp_path / "x.vq", "--output", tmp_path / "out"),
    ):
        assert result.returncode == REJECTED
        assert "x.vq: are codes of another bundle" in result.stderr


def test_what_came_before_a_bad_file_is_not_lost(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    result = run_reconstruct("--bundle", PRETRAINED, *DIGITS[:2], tmp_path / "bad.png", "--output", tmp_path / "out")
    assert result.returncode == REJECTED
    assert sorted(os.listdir(tmp_path / "out")) == ["00.png", "01.png"]


def test_the_sheet_shows_each_image_above_its_reconstruction(tmp_path):
    run_ok(*DIGITS[:20], "--output", tmp_path / "out", "--grid", tmp_path / "sheet.png")
    sheet = read_image(tmp_path / "sheet.png", 1)
    # 16 in a row, two rows; 6 pixels around, 2 between an image and its reconstruction.
    assert sheet.shape == (2 * (2 * 28 + 2 + 6) + 6, 16 * (28 + 6) + 6, 1)
    for number in (0, 17):
        top, left = 6 + number // 16 * 64, 6 + number % 16 * 34
        name = DIGITS[number].name
        np.testing.assert_array_equal(sheet[top : top + 28, left : left + 28], read_image(DIGITS[number], 1))
        np.testing.assert_array_equal(
            sheet[top + 30 : top + 58, left : left + 28], read_image(tmp_path / "out" / name, 1)
        )


def test_json_tells_what_was_done(tmp_path):
    result = run_ok(*DIGITS[:3], "--output", tmp_path / "out", "--json", "--repeat", "3", "--threads", "1")
    report = json.loads(result.stdout)
    assert report["digest"] == open_bundle(PRETRAINED).digest
    assert report["threads"] == 1
    assert len(report["run_seconds"]) == 3
    assert report["images_per_second"] == pytest.approx(3 / min(report["run_seconds"]))
    for path, row in zip(DIGITS, report["images"]):
        image, reconstruction = read_image(path, 1).astype(float), read_image(row["output"], 1).astype(float)
        error = np.mean((image - reconstruction) ** 2)
        assert (row["source"], row["height"], row["width"]) == (str(path), 28, 28)
        assert row["mean_squared_error"] == pytest.approx(error)
        assert row["psnr"] == pytest.approx(10 * np.log10(255**2 / error))


def test_quiet_says_nothing(tmp_path):
    result = run_ok(DIGITS[0], "--output", tmp_path / "out", "--quiet")
    assert (result.stdout, result.stderr) == (b"", b"")


def test_any_number_of_threads_and_images_at_once_gives_the_same_bytes(tmp_path, digits):
    np.save(tmp_path / "digits.npy", digits[:30])
    contents = set()
    for number, flags in enumerate(
        (["--batch", 1], ["--batch", 7], ["--batch", 64], ["--threads", 1], ["--memory", 2])
    ):
        run_ok(
            tmp_path / "digits.npy", "--codes", tmp_path / f"{number}.npy", "--output", tmp_path / str(number), *flags
        )
        files = [tmp_path / f"{number}.npy", *sorted((tmp_path / str(number)).iterdir())]
        contents.add(b"".join(file.read_bytes() for file in files))
    assert len(contents) == 1


@pytest.mark.parametrize("engine", ["cachedop", "executor"])
@pytest.mark.parametrize("name", ["gray", "colour"])
def test_a_photograph_in_tiles_is_the_photograph_at_once(tmp_path, colour, name, engine):
    bundle = PRETRAINED if name == "gray" else colour
    photograph(203, 311).save(tmp_path / "photo.jpg", quality=92)
    pixels = read_image(tmp_path / "photo.jpg", 1 if name == "gray" else 3)
    predictor = Predictor(open_bundle(bundle))
    expected = predictor.reconstruct(pixels[np.newaxis])[0]
    codes = predictor.encode(pixels[np.newaxis])
    for memory in (12, 24, 4096):
        output = tmp_path / str(memory)
        flags = ["--memory", memory, "--codes", f"{output}.vq", "--output", output, "--engine", engine]
        run_ok(tmp_path / "photo.jpg", *flags, bundle=bundle)
        np.testing.assert_array_equal(read_codes(tmp_path / f"{memory}.vq").values, codes)
        distances = np.abs(read_image(output / "photo.png", expected.shape[2]).astype(int) - expected)
        if ROUNDS_BY_WIDTH:  # A seam would be a whole line.
            assert distances.max() <= 1 and np.count_nonzero(distances) <= expected.size / 1000
        elif engine == "cachedop" or memory < 4096:  # The executor fuses operators, and may round otherwise.
            np.testing.assert_array_equal(distances, 0)


def peak(*command):
    """MiB that a program takes at most, told by a small process that starts it: a child begins with its parent's."""
    script = "import resource, subprocess, sys; status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL);"
    script += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(status)"
    whole = [sys.executable, "-c", script, *map(str, command)]
    result = subprocess.run(whole, capture_output=True, text=True, check=True)
    return int(result.stdout.split()[-1]) / 1024


def test_tiles_keep_the_memory_down(tmp_path):
    photograph(1200, 1800).save(tmp_path / "photo.jpg")
    peaks: list[float] = []
    for memory in (64, 1 << 14):
        flags = ["--bundle", PRETRAINED, "--memory", memory, "--output", tmp_path / str(memory)]
        peaks.append(peak(find_binary(), *flags, tmp_path / "photo.jpg"))
    assert peaks[0] < 400 < 800 < peaks[1]
    assert (tmp_path / "64" / "photo.png").read_bytes() == (tmp_path / str(1 << 14) / "photo.png").read_bytes()


def test_a_bundle_of_which_no_tile_keeps_the_limit_is_rejected(tmp_path, colour):
    result = run_reconstruct("--bundle", colour, DIGITS[0], "--memory", 1, "--output", tmp_path / "out")
    assert result.returncode == REJECTED
    assert "MiB for the smallest tile, and the memory limit is 0.5 MiB for each graph; raise it" in result.stderr


def test_a_bundle_without_a_manifest_is_taken_where_nothing_is_to_be_verified(tmp_path, bundle):
    run_ok(DIGITS[0], "--output", tmp_path / "with", bundle=bundle)
    (bundle / "manifest.json").unlink()
    run_ok(DIGITS[0], "--output", tmp_path / "without", "--no-verify", bundle=bundle)
    assert (tmp_path / "with" / "00.png").read_bytes() == (tmp_path / "without" / "00.png").read_bytes()
    result = run_reconstruct("--bundle", bundle, DIGITS[0])
    assert result.returncode == REJECTED
    assert "it has no manifest.json" in result.stderr


def test_a_load_takes_at_most_three_times_its_file(tmp_path):
    """Of plain exports, in every engine, beside what a small network takes, and 64 MiB."""

    def export(rows):
        block = mx.gluon.nn.Dense(rows, in_units=1 << 12, use_bias=False, prefix="dense_")
        block.initialize()
        block.hybridize()
        block(mx.nd.ones((1, 1 << 12)))
        block.export(str(tmp_path / f"net{rows}"))
        return graph_files(tmp_path, f"net{rows}")

    np.save(tmp_path / "x.npy", np.ones((1, 1 << 12), np.float32))
    small, large = export(1), export(1 << 14)
    size = large.params.stat().st_size / (1 << 20)
    assert size > 250
    for engine in ("cachedop", "executor", "predict"):
        peaks: list[float] = []
        for files in (small, large):
            flags = ["--symbol", files.symbol, "--params", files.params, "--engine", engine]
            flags += ["--input", f"data={tmp_path / 'x.npy'}", "--trace", tmp_path / f"{engine}-{len(peaks)}"]
            peaks.append(peak(find_binary(), *flags))
        assert peaks[1] - peaks[0] < 3 * size + 64, engine


def test_a_graph_that_makes_mxnet_crash_is_rejected(tmp_path):
    """Of files that no digest vouches for; MXNet crashes in a child of the program."""
    files = graph_files(PRETRAINED, "encoder")
    graph = json.loads(files.symbol.read_text())
    node = next(node for node in graph["nodes"] if node["name"] == "encoder_latent_fwd")
    node["op"] = "where"
    (tmp_path / "net-symbol.json").write_text(json.dumps(graph))
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 28, 28), np.float32))
    for _ in range(5):
        result = run_reconstruct(
            "--symbol", tmp_path / "net-symbol.json", "--params", files.params, "--input", f"data={tmp_path / 'x.npy'}",
            "--trace", tmp_path / "trace",
        )  # fmt: skip
        assert result.returncode == REJECTED
        assert "reconstruct: error: " in result.stderr.splitlines()[-1]
        assert not (tmp_path / "trace").exists()


def test_a_failed_trace_leaves_nothing(tmp_path):
    files = graph_files(PRETRAINED, "encoder")
    np.save(tmp_path / "x.npy", np.zeros((1, 2, 28, 28), np.float32))
    arguments = ["--symbol", files.symbol, "--params", files.params, "--input", f"data={tmp_path / 'x.npy'}"]
    assert run_reconstruct(*arguments, "--trace", tmp_path / "trace").returncode == REJECTED
    assert not (tmp_path / "trace").exists()


def test_odd_sizes_are_traced_with_their_padding(tmp_path):
    PIL.Image.fromarray(read_image(DIGITS[0], 1)[:27, :25, 0]).save(tmp_path / "odd.png")
    run_ok(tmp_path / "odd.png", "--output", tmp_path / "out", "--trace", tmp_path / "trace")
    trace = open_trace(tmp_path / "trace")
    assert trace.get("input", "pixels").shape == trace.get("output", "image").shape == (1, 27, 25, 1)
    assert trace.get("input", "data").shape == (1, 1, 28, 28)


@pytest.mark.parametrize(
    "flags",
    [
        ["--decode", "x.vq", "--grid", "sheet.png"],
        ["image.png", "--trace", "trace", "--json"],
        ["image.png", "--threads", "0"],
        ["image.png", "--batch", "-1"],
    ],
)
def test_words_that_do_not_go_together(flags):
    result = run_reconstruct("--bundle", PRETRAINED, *flags)
    assert result.returncode == USAGE
    assert len(result.stderr.splitlines()) == 1
