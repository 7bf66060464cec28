"""Training, from the command line to the bundle, on a few real digits."""

import csv
import dataclasses
import fcntl
import json
import math
import random
import re
import shlex
import shutil
import signal
import sys
import time

import numpy as np
import pytest
from conftest import PRETRAINED, run_cli, run_reconstruct
from interruptions import LONG, differences, finish, interrupt, interruptible, make_folder, shown, start
from matplotlib.figure import Figure
from tensorboardX.proto.summary_pb2 import Summary

from vqvae_gluon.artifacts.bundle import MANIFEST, file_names, open_bundle
from vqvae_gluon.compat import mx
from vqvae_gluon.config import PRESETS, TrainingConfig
from vqvae_gluon.data import fingerprint
from vqvae_gluon.data.images import find_images, read_image, read_images, to_tensor, write_image
from vqvae_gluon.errors import DONE, FAILED, REJECTED, USAGE
from vqvae_gluon.model.vqvae import VQVAE
from vqvae_gluon.training import checkpoint, plots
from vqvae_gluon.training.cluster import Alone
from vqvae_gluon.training.learner import Learner
from vqvae_gluon.training.log import RECORD, Log
from vqvae_gluon.training.metrics import evaluate
from vqvae_gluon.training.plots import pairs_grid
from vqvae_gluon.training.progress import Progress

FLAGS = [
    *("--preset", "mnist-original", "--batch-size", 32, "--validation-images", 64),
    *("--learning-rate", 1e-3, "--reconstruction-weight", 1),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits):
    """An image folder: 256 digits to train on, 64 to test."""
    path = tmp_path_factory.mktemp("images")
    for split, images in (("train", digits[:256]), ("test", digits[256:320])):
        (path / split).mkdir()
        for number, image in enumerate(images):
            write_image(path / split / f"{number:04d}.png", image)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, folder):
    """A run of three epochs."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    result = train(folder, path, 3)
    assert result.returncode == DONE, result.stderr
    return path


def train(data, run, epochs, *flags):
    arguments = ["--dataset", "images", "--data", data, "--output", run, "--epochs", epochs, *FLAGS, *flags]
    return run_cli("train", *arguments)


def parameters(path):
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files if name.startswith("model/")}


def test_a_run_leaves_losses_pictures_and_both_checkpoints(run):
    rows = list(csv.DictReader((run / "losses.csv").open()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert float(rows[-1]["train_mse"]) < float(rows[0]["train_mse"])
    for name in ("losses.png", "codebook_usage.png", "reconstruction_best.png", "reconstruction_newest.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG"), name
    pictures = sorted(path.name for path in (run / "reconstructions").iterdir())
    assert pictures == [f"test_reconstruction_0_epoch{epoch}_batch_size32.png" for epoch in (1, 2, 3)]
    assert checkpoint.load(run / "last.npz").progress.epoch == 3


def test_the_best_epoch_is_that_of_the_lowest_validation_error(run):
    rows = list(csv.DictReader((run / "losses.csv").open()))
    best = min(rows, key=lambda row: float(row["validation_mse"]))
    assert checkpoint.load(run / "best.npz").progress.epoch == int(best["epoch"])
    log = (run / "log.txt").read_text()
    if best["epoch"] == "3":
        assert "best and newest: epoch 3, " in log
        assert " newest: epoch" not in log.replace("best and newest", "")
    else:
        assert f"best: epoch {best['epoch']}, " in log
        assert " newest: epoch 3, " in log


def test_the_log_tells_the_command_and_the_data(run, digits):
    log = (run / "log.txt").read_text()
    assert "$ vqvae-gluon train --dataset images " in log
    assert fingerprint(digits[:256]) in log
    settings = (run / "settings.toml").read_text()
    assert "batch_size = 32" in settings


def test_tensorboard_reads_what_a_run_tells(run):
    found: dict = {}
    for (tag, step), value in shown(run).items():
        found.setdefault(tag, {})[step] = Summary.Value.FromString(value)
    rows = list(csv.DictReader((run / "losses.csv").open()))
    told = {step: value.simple_value for step, value in found["epochs/test_mse"].items()}
    assert told == pytest.approx({int(row["step"]): float(row["test_mse"]) for row in rows})
    assert list(found["test_reconstruction"]) == [int(row["step"]) for row in rows]
    assert found["test_reconstruction"][int(rows[-1]["step"])].image.encoded_image_string.startswith(b"\x89PNG")
    assert "epochs/test_codes" in found


def test_a_run_that_was_stopped_goes_on_to_the_same_end(folder, run, tmp_path):
    path = tmp_path / "stopped"
    assert train(folder, path, 1).returncode == DONE
    result = train(folder, path, 3)
    assert result.returncode == DONE
    assert "continues after step 6 of 18" in result.stderr
    expected, actual = parameters(run / "last.npz"), parameters(path / "last.npz")
    assert expected.keys() == actual.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(actual[name], values, err_msg=name)


def test_a_finished_run_is_not_done_twice(folder, run):
    before = (run / "last.npz").stat().st_mtime_ns
    settings = (run / "settings.toml").read_bytes()
    result = train(folder, run, 3, "--learning-rate", 5e-4)
    assert result.returncode == DONE
    assert f"{run}: is finished (step 18 of 18); nothing is left to train" in result.stderr
    assert "continues" not in result.stderr
    assert (run / "last.npz").stat().st_mtime_ns == before
    assert (run / "settings.toml").read_bytes() == settings


def test_a_run_is_not_mixed_with_another(folder, run):
    result = train(folder, run, 4, "--seed", 9)
    assert result.returncode == REJECTED
    assert "last.npz: was made with other options: seed was 0 and is 9; repeat those" in result.stderr


def test_resume_wants_something_to_go_on_with(folder, run, tmp_path):
    result = train(folder, tmp_path / "new", 3, "--resume")
    assert result.returncode == REJECTED
    assert "last.npz: does not exist; leave --resume out to begin" in result.stderr
    result = run_cli("train", "--resume", "--output", tmp_path / "new")
    assert result.returncode == REJECTED
    assert "settings.toml: does not exist; give the run's directory by --output, or leave --resume out" in result.stderr
    assert train(folder, run, 3, "--resume").returncode == DONE


def test_resume_needs_no_other_words_than_the_run(folder, run, tmp_path):
    path = tmp_path / "stopped"
    first = train(folder, path, 1)
    assert first.returncode == DONE
    assert "\nbest and newest: epoch 1, " in first.stderr
    assert "\nnewest: " not in first.stderr
    result = run_cli("train", "--resume", "--output", path, "--epochs", 3)
    assert result.returncode == DONE, result.stderr
    assert "continues after step 6 of 18" in result.stderr
    assert differences(run / "last.npz", path / "last.npz") == []


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--batch-size", 16, "--flip"], "batch_size was 32 and is 16, flip was False and is True"),
        (["--num-embeddings", 32], "num_embeddings was 64 and is 32"),
        (["--dataset", "cifar10", "--data", "/nowhere"], "data was images and is cifar10"),
    ],
)
def test_what_differs_from_the_run_is_named_with_both_values(run, flags, told):
    result = run_cli("train", "--resume", "--output", run, *flags)
    assert result.returncode == REJECTED
    assert f"last.npz: was made with other options: {told}; repeat those (--resume with --output alone" in result.stderr


def test_another_preset_is_named_before_its_data_set_is_opened(run):
    result = run_cli("train", "--preset", "cifar10", "--data", "/nowhere", "--resume", "--output", run)
    assert result.returncode == REJECTED
    assert "last.npz: was made with other options: image_channels" not in result.stderr
    assert "last.npz: was made with other options: " in result.stderr
    assert "data was images and is cifar10" in result.stderr


def test_validation_images_that_leave_none_are_named_alone(folder, tmp_path):
    result = train(folder, tmp_path / "run", 1, "--validation-images", 256)
    assert result.returncode == REJECTED
    told = "--validation-images: is 256 of 256 images, which leaves none to train on; lower it, or leave it out\n"
    assert result.stderr.endswith(told)
    assert "--batch-size" not in result.stderr


def test_other_training_images_are_named_by_their_hash(folder, run, tmp_path, digits):
    shutil.copytree(folder, tmp_path / "images")
    write_image(tmp_path / "images" / "train" / "0000.png", digits[999])
    result = run_cli("train", "--resume", "--output", run, "--data", tmp_path / "images")
    assert result.returncode == REJECTED
    before = fingerprint(digits[:256])[:12]
    assert f"last.npz: was made on other training images: SHA-256 {before} and now " in result.stderr


def test_ctrl_c_says_how_to_continue_and_that_ends_as_if_nothing_was(uninterrupted, tmp_path):
    folder, whole, _ = uninterrupted
    path = tmp_path / "a run"
    process = start(folder, path, *LONG)
    until = time.monotonic() + 300
    while not (path / "last.npz").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == FAILED
    line = errors.splitlines()[-1]
    assert line.startswith("vqvae-gluon: error: interrupted: the run is kept up to its last checkpoint; continue by: ")
    words = shlex.split(line.split("continue by: ")[1])
    assert words == ["vqvae-gluon", "train", "--resume", "--output", str(path)]
    assert run_cli(*words[1:]).returncode == DONE
    assert differences(whole / "last.npz", path / "last.npz") == []


def test_ctrl_c_before_the_first_checkpoint_says_so(folder, tmp_path):
    flags = ["--dataset", "images", "--data", str(folder), "--output", str(tmp_path / "run"), *map(str, FLAGS)]
    command = [sys.executable, "-m", "vqvae_gluon", "train", *flags, "--epochs", "100"]
    process = interruptible(command)
    until = time.monotonic() + 300
    while not (tmp_path / "run" / "log.txt").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == FAILED
    assert errors.splitlines()[-1].startswith("vqvae-gluon: error: interrupted: ")


def test_a_schedule_that_depends_on_the_end_is_not_prolonged(folder, tmp_path):
    path = tmp_path / "run"
    assert train(folder, path, 1, "--schedule", "cosine").returncode == DONE
    assert train(folder, path, 2, "--schedule", "cosine").returncode == REJECTED


@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_was_killed_ends_as_one_that_was_not(seed, digits, tmp_path, uninterrupted):
    folder, whole, duration = uninterrupted
    path = tmp_path / "killed"
    random_moments = random.Random(seed)
    while not interrupt(folder, path, random_moments.uniform(0.3, 0.95) * duration):
        shutil.rmtree(path)  # It had come to its end before.
    assert shown(path) == shown(whole)
    for name in ("last.npz", "best.npz"):
        assert differences(whole / name, path / name) == []


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, digits):
    """A folder, a run on it, and how long that took."""
    path = tmp_path_factory.mktemp("uninterrupted")
    folder = make_folder(path / "images", digits)
    begin = time.monotonic()
    finish(start(folder, path / "whole", *LONG))
    return folder, path / "whole", time.monotonic() - begin


def test_a_run_that_ends_within_an_epoch_is_measured_there_and_not_prolonged(uninterrupted, tmp_path):
    folder, _, _ = uninterrupted
    path = tmp_path / "run"
    finish(start(folder, path, "--steps", "4"))
    progress = checkpoint.load(path / "last.npz").progress
    assert (progress.step, progress.history[-1]["step"]) == (4, 4)
    with pytest.raises(RuntimeError, match="was made with other options"):
        finish(start(folder, path, "--steps", "12", "--resume"))


def test_a_loss_that_is_not_finite_stops_the_run(folder, tmp_path):
    run = tmp_path / "run"
    result = train(folder, run, 2, "--learning-rate", 1e30)
    assert result.returncode == FAILED
    assert "error: epoch 1, step 2: the loss is nan, and first of all the output of encoder_" in result.stderr
    assert "there is no checkpoint yet; lower --learning-rate or set --clip-norm" in result.stderr
    assert not (run / "last.npz").exists()


def test_a_validation_loss_that_is_not_finite_stops_the_run_before_anything_is_kept(folder, tmp_path):
    run = tmp_path / "run"
    result = train(folder, run, 1, "--learning-rate", 1e30, "--steps", 1)
    assert result.returncode == FAILED
    assert "error: epoch 1, step 1, the validation loss is " in result.stderr
    assert not list(run.glob("*.npz"))


def test_what_is_told_is_on_disk_when_a_checkpoint_is(tmp_path):
    with Log(tmp_path, Progress(), "") as log:
        log.step({"step": 1, "loss": 0.5})
        log.grid(np.zeros((4, 4, 1), np.uint8), "grid.png", 2, True)
        log.flush()
        assert [*shown(tmp_path)] == [("steps/step", 1), ("steps/loss", 1), ("test_reconstruction", 2)]


def test_two_processes_do_not_train_in_one_directory(folder, run):
    with (run / "log.txt").open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        result = train(folder, run, 3)
    assert result.returncode == REJECTED
    assert f"{run}: is where another process trains; wait, or give another --output" in result.stderr


def test_a_run_may_go_on_with_another_learning_rate(folder, tmp_path):
    run = tmp_path / "run"
    assert train(folder, run, 1).returncode == DONE
    result = train(folder, run, 2, "--learning-rate", 5e-4, "--clip-norm", 1)
    assert result.returncode == DONE
    changes = "with learning_rate 0.0005 in place of 0.001, with clip_norm 1.0 in place of 0.0"
    assert f"continues after step 6 of 12, {changes}" in result.stderr
    assert checkpoint.load(run / "last.npz").config.training.learning_rate == 5e-4


def test_the_first_codebook_is_of_images_from_all_of_the_data(monkeypatch):
    learner = Learner(dataclasses.replace(PRESETS["mnist"], training=TrainingConfig(kmeans_images=10)), Alone())
    given: list[np.ndarray] = []
    monkeypatch.setattr(learner, "_start_codebook", given.append)
    learner.start(np.arange(100))
    np.testing.assert_array_equal(given, [np.arange(0, 100, 10)])


def test_the_last_good_checkpoint_is_kept(folder, tmp_path):
    run = tmp_path / "run"
    result = train(folder, run, 1, "--learning-rate", 1e30, "--checkpoint-steps", 1)
    assert result.returncode == FAILED
    kept = checkpoint.load(run / "last.npz")
    assert kept.progress.step >= 1
    assert f"step {kept.progress.step + 1}: the loss is nan" in result.stderr
    assert f"{run / 'last.npz'} is as it was last written" in result.stderr
    assert all(np.isfinite(values).all() for values in kept.arrays.values())
    assert "UserWarning" not in result.stderr
    refused = run_cli("export", run, "--output", tmp_path / "bundle", "--checkpoint", "last")
    assert refused.returncode == REJECTED
    assert "last.npz: is within epoch 1, of which nothing is measured; finish the run" in refused.stderr
    assert not (tmp_path / "bundle").exists()


def test_a_run_ends_early_when_the_validation_error_no_longer_falls(folder, tmp_path):
    run = tmp_path / "run"
    result = train(folder, run, 50, "--patience", 2, "--learning-rate", 0.05)
    assert result.returncode == DONE
    assert "no lower validation MSE for 2 epochs: ends" in result.stderr
    progress = checkpoint.load(run / "last.npz").progress
    assert progress.epoch == checkpoint.load(run / "best.npz").progress.epoch + 2
    assert progress.epoch < 50
    assert train(folder, run, 50, "--patience", 2, "--learning-rate", 0.05).returncode == DONE
    assert checkpoint.load(run / "last.npz").progress.epoch == progress.epoch


def test_an_export_tells_where_it_comes_from_and_runs_in_cpp(run, tmp_path):
    path = tmp_path / "bundle"
    assert run_cli("export", run, "--output", path, "--checkpoint", "last").returncode == DONE
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["epoch"] == 3
    assert manifest["metrics"]["test_mse"] > 0
    assert manifest["config"]["training"]["learning_rate"] == 1e-3
    digit = PRETRAINED / "digits" / "00.png"
    assert run_reconstruct("--bundle", path, "--output", tmp_path, digit).returncode == DONE


def test_an_export_may_bring_the_record_of_the_run(run, tmp_path):
    assert run_cli("export", run, "--output", tmp_path, "--record").returncode == DONE
    record = {*RECORD} - {"steps.csv"}  # There were fewer than a hundred.
    assert {path.name for path in tmp_path.iterdir()} == {MANIFEST, *file_names(), *record}
    for name in record:
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes()


def test_an_export_is_the_same_every_time(run, tmp_path):
    for name in ("a", "b"):
        assert run_cli("export", run, "--output", tmp_path / name).returncode == DONE
    assert open_bundle(tmp_path / "a").manifest == open_bundle(tmp_path / "b").manifest


def test_the_fingerprint_is_of_the_training_images(run, digits):
    assert checkpoint.load(run / "last.npz").data == {"name": "images", "sha256": fingerprint(digits[:256])}


def test_a_checkpoint_that_is_damaged_is_refused(run, tmp_path):
    (tmp_path / "best.npz").write_bytes((run / "best.npz").read_bytes()[:1000])
    result = run_cli("export", tmp_path, "--output", tmp_path / "bundle")
    assert result.returncode == REJECTED
    assert "best.npz: is not a checkpoint" in result.stderr
    assert not (tmp_path / "bundle").exists()


def test_the_measured_error_is_that_of_all_images(digits):
    config = PRESETS["mnist"]
    model = VQVAE(config.model)
    model.initialize(mx.init.Xavier())
    whole, counts = evaluate(model, [digits[:50]], config, 0.1)
    parts, others = evaluate(model, [digits[:16], digits[16:32], digits[32:50]], config, 0.1)
    assert parts == pytest.approx(whole, rel=1e-5)
    np.testing.assert_array_equal(counts, others)
    assert counts.sum() == 50 * 49
    assert whole["normalised_mse"] == pytest.approx(whole["mse"] / 0.1)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """Black and white patches, 64 pictures to train on and 32 to test: a linear last layer misses both colours."""
    path = tmp_path_factory.mktemp("patches")
    random = np.random.default_rng(0)
    for split, count in (("train", 64), ("test", 32)):
        (path / split).mkdir()
        for number in range(count):
            patch = random.integers(0, 2, (2, 2, 1), dtype=np.uint8).repeat(3, 2) * 255
            write_image(path / split / f"{number:02d}.png", patch.repeat(16, 0).repeat(16, 1))
    return path


SMALL = [
    *("--preset", "cifar10", "--hidden-channels", 8, 8, "--residual-channels", 4, "--num-embeddings", 16),
    *("--batch-size", 2, "--validation-images", 8),
]


@pytest.fixture(scope="module")
def linear(tmp_path_factory, patches):
    """A run of a small network whose last layer is linear."""
    path = tmp_path_factory.mktemp("linear") / "run"
    words = [
        "--dataset",
        "images",
        "--data",
        patches,
        "--output",
        path,
        "--epochs",
        4,
        "--learning-rate",
        0.003,
        "--batch-size",
        1,
    ]
    result = run_cli("train", *SMALL, *words)
    assert result.returncode == DONE, result.stderr
    return path


@pytest.mark.parametrize("language", ["Python", "C++"])
def test_the_grid_of_a_run_is_what_the_exported_bundle_gives_byte_for_byte(language, linear, patches, tmp_path):
    originals = read_images(find_images(patches / "test"), 3)
    decoded = checkpoint.load(linear / "last.npz").model()(mx.nd.array(to_tensor(originals)))[0].asnumpy()
    assert (decoded < 0).any(), "nothing to clip"
    assert (decoded > 1).any(), "nothing to clip"
    assert run_cli("export", linear, "--output", tmp_path / "b", "--checkpoint", "last").returncode == DONE
    out = ["--output", tmp_path / "out", patches / "test"]
    if language == "Python":
        assert run_cli("reconstruct", tmp_path / "b", *out).returncode == DONE
    else:
        assert run_reconstruct("--bundle", tmp_path / "b", *out).returncode == DONE
    expected = pairs_grid(originals, read_images(find_images(tmp_path / "out"), 3))
    np.testing.assert_array_equal(read_image(linear / "reconstruction_newest.png", 3), expected)


def test_what_is_measured_is_measured_of_clipped_pixels_and_the_loss_is_not(linear, patches):
    originals = read_images(find_images(patches / "test"), 3)
    found = checkpoint.load(linear / "last.npz")
    decoded, _, _, reconstruction_loss, *_ = found.model()(mx.nd.array(to_tensor(originals)))
    clipped = np.clip(decoded.asnumpy(), 0, 1)
    row = found.progress.history[-1]
    assert row["test_mse"] == pytest.approx(np.square(clipped - to_tensor(originals) / 255).mean(), rel=1e-5)
    assert row["test_mse"] < 0.999 * reconstruction_loss.asscalar()
    assert row["test_loss"] > found.config.training.reconstruction_weight * reconstruction_loss.asscalar()


def constant_pictures(path, values):
    for split, count in (("train", 24), ("test", 4)):
        (path / split).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((16, 16, 3), values[number % len(values)], np.uint8)
            write_image(path / split / f"{number:02d}.png", pixels)
    return path


@pytest.mark.parametrize("value", [0, 255, 77])
def test_pictures_without_any_variance_are_refused_in_one_line(value, tmp_path):
    data = constant_pictures(tmp_path / "data", [value])
    result = run_cli("train", *SMALL, "--dataset", "images", "--data", data, "--output", tmp_path / "run")
    assert result.returncode == REJECTED
    assert result.stderr == (
        "vqvae-gluon: error: training data: all values of all pixels are equal, so there is nothing to learn; give"
        " other pictures by --data\n"
    )


def test_pictures_each_of_one_colour_are_learned_and_exported(tmp_path):
    data = constant_pictures(tmp_path / "data", [0, 255])
    words = ["--dataset", "images", "--data", data, "--output", tmp_path / "run", "--epochs", 1]
    result = run_cli("train", *SMALL, *words)
    assert result.returncode == DONE, result.stderr
    assert run_cli("export", tmp_path / "run", "--output", tmp_path / "bundle").returncode == DONE
    assert open_bundle(tmp_path / "bundle").manifest["epoch"] == 1


def test_an_error_of_zero_has_no_psnr_in_a_manifest(run, tmp_path):
    found = checkpoint.load(run / "best.npz")
    found.progress.history[-1].update(test_mse=0.0, test_psnr=math.inf, test_bits_per_dimension=-math.inf)
    checkpoint.save(tmp_path / "best.npz", found)
    assert run_cli("export", tmp_path, "--output", tmp_path / "bundle").returncode == DONE
    metrics = open_bundle(tmp_path / "bundle").manifest["metrics"]
    assert (metrics["test_mse"], metrics["test_psnr"], metrics["test_bits_per_dimension"]) == (0.0, None, None)
    digit = PRETRAINED / "digits" / "00.png"
    assert run_reconstruct("--bundle", tmp_path / "bundle", "--output", tmp_path, digit).returncode == DONE


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--kmeans-images", 2, "--num-embeddings", 4096], "give at least 64 images, at most --num-embeddings 128"),
        (["--kmeans-images", 1, "--num-embeddings", 65], "give at least 2 images, at most --num-embeddings 64"),
    ],
)
def test_fewer_latents_than_rows_are_refused_with_the_numbers(patches, flags, told, tmp_path):
    words = ["--dataset", "images", "--data", patches, "--output", tmp_path / "run", *flags]
    result = run_cli("train", *SMALL, *words)
    assert result.returncode == REJECTED
    assert f"latents, too few for the {flags[3]} rows of the codebook; {told}, or --kmeans-images 0" in result.stderr


def test_a_loss_that_is_not_finite_from_the_start_is_one_line(patches, tmp_path):
    words = ["--dataset", "images", "--data", patches, "--output", tmp_path / "run", "--learning-rate", 1e6]
    result = run_cli("train", *SMALL, *words)
    assert result.returncode == FAILED
    told = [line for line in result.stderr.splitlines() if not line.startswith(str(tmp_path))]
    assert len(told) == 1, told
    assert told[0].endswith("there is no checkpoint yet; lower --learning-rate or set --clip-norm")


def test_a_first_loss_that_is_not_finite_is_not_put_down_to_the_learning_rate(patches, tmp_path):
    words = ["--dataset", "images", "--data", patches, "--output", tmp_path / "run", "--reconstruction-weight", 1e39]
    result = run_cli("train", *SMALL, *words)
    assert result.returncode == FAILED
    assert "error: epoch 1, step 1: the loss is inf" in result.stderr
    assert result.stderr.endswith("no checkpoint yet; lower --reconstruction-weight or --commitment-cost\n")


@pytest.mark.parametrize("low_high", [(0.0029, 0.0061), (0.08, 0.118), (7, 140), (0.0001, 0.3), (1, 20000)])
def test_a_logarithmic_axis_has_plain_numbers_that_do_not_overlap(low_high):
    figure = Figure(figsize=(6, 4))
    axes = figure.add_subplot()
    axes.plot([1, 2], low_high)
    axes.set_yscale("log")
    plots.plain_log(axes.yaxis)
    figure.draw_without_rendering()
    low, high = axes.get_ylim()
    labels = [label for label in axes.get_yticklabels(which="both") if low <= label.get_position()[1] <= high]
    assert len(labels) >= 3
    assert all(re.fullmatch(r"\d+(\.\d+)?", label.get_text()) for label in labels)
    boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.y0)
    assert all(lower.y1 < upper.y0 for lower, upper in zip(boxes, boxes[1:]))


@pytest.mark.parametrize("epochs", [1, 2, 3, 29])
def test_the_pictures_of_a_run_have_whole_epochs_and_the_curves_free(epochs, monkeypatch, tmp_path):
    keys = ("loss", "mse", "perplexity", "batch_perplexity")
    row = {f"{part}_{key}": 0.5 for part in ("train", "validation", "test") for key in keys}
    drawn = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append(figure))
    history = [{"epoch": epoch, **row} for epoch in range(1, epochs + 1)]
    plots.loss_graph(tmp_path / "losses.png", history)
    plots.codebook_usage(tmp_path / "usage.png", np.arange(8), history)
    for figure in drawn:
        figure.draw_without_rendering()
        (legend,) = figure.legends
        for axes in figure.axes:
            assert axes.get_legend() is None
            assert axes.get_window_extent().x1 <= legend.get_window_extent().x0
            if axes.get_xlabel() == "epoch":
                assert all(float(tick).is_integer() for tick in axes.get_xticks())
    title = drawn[0].axes[0].get_title()
    assert title == (
        "loss = reconstruction_weight · mean squared error\n+ codebook loss + commitment_cost · commitment loss"
    )


def test_a_few_test_images_are_enough_for_a_grid(digits):
    assert pairs_grid(digits[:3], digits[3:6]).shape == (64, 96, 1)
    assert pairs_grid(digits[:64], digits[:64]).shape == (256, 512, 1)


@pytest.mark.parametrize("flag", [["--seed", -1], ["--learning-rate", "nan"], ["--epochs", 0], ["--batch-size", 1.5]])
def test_numbers_out_of_range_are_a_usage_error(flag):
    result = run_cli("train", *flag)
    assert result.returncode == USAGE
    assert f"options: argument {flag[0]}: invalid " in result.stderr
