"""Training, from the command line to the bundle, on a few real digits."""

import csv
import json

import numpy as np
import pytest
from conftest import PRETRAINED, run_cli, run_reconstruct

from vqvae_gluon.artifacts.bundle import open_bundle
from vqvae_gluon.compat import mx
from vqvae_gluon.config import PRESETS
from vqvae_gluon.data import fingerprint, load_split
from vqvae_gluon.data.images import write_image
from vqvae_gluon.errors import DONE, FAILED, REJECTED, USAGE
from vqvae_gluon.model.vqvae import VQVAE
from vqvae_gluon.training import checkpoint
from vqvae_gluon.training.metrics import evaluate, perplexity
from vqvae_gluon.training.plots import pairs_grid

FLAGS = ["--batch-size", 32, "--validation-images", 64, "--learning-rate", 1e-3, "--reconstruction-weight", 1]


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
    assert (run / "losses.png").read_bytes().startswith(b"\x89PNG")
    pictures = sorted(path.name for path in (run / "reconstructions").iterdir())
    assert pictures == [f"test_reconstruction_0_epoch{epoch}_batch_size32.png" for epoch in (1, 2, 3)]
    best = min(rows, key=lambda row: float(row["validation_mse"]))
    provenance, _ = checkpoint.load(run / "best.npz")
    assert provenance.history[-1]["epoch"] == int(best["epoch"])
    provenance, _ = checkpoint.load(run / "last.npz")
    assert provenance.history[-1]["epoch"] == 3


def test_a_run_that_was_stopped_goes_on_to_the_same_end(folder, run, tmp_path):
    path = tmp_path / "stopped"
    assert train(folder, path, 1).returncode == DONE
    result = train(folder, path, 3)
    assert result.returncode == DONE
    assert "goes on after epoch 1 of 3" in result.stderr
    expected, actual = parameters(run / "last.npz"), parameters(path / "last.npz")
    assert expected.keys() == actual.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(actual[name], values, err_msg=name)


def test_a_finished_run_is_not_done_twice(folder, run):
    before = (run / "last.npz").stat().st_mtime_ns
    assert train(folder, run, 3).returncode == DONE
    assert (run / "last.npz").stat().st_mtime_ns == before


def test_a_run_is_not_mixed_with_another(folder, run):
    result = train(folder, run, 4, "--seed", 9)
    assert result.returncode == REJECTED
    assert "last.npz: was made with other options or on other data" in result.stderr


def test_a_loss_that_is_not_finite_stops_the_run(folder, tmp_path):
    run = tmp_path / "run"
    result = train(folder, run, 2, "--learning-rate", 1e30)
    assert result.returncode == FAILED
    assert "the loss is nan; lower --learning-rate" in result.stderr
    assert not (run / "last.npz").exists()


def test_an_export_tells_where_it_comes_from_and_runs_in_cpp(run, tmp_path):
    path = tmp_path / "bundle"
    assert run_cli("export", run, "--output", path, "--checkpoint", "last").returncode == DONE
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["epoch"] == 3
    assert manifest["metrics"]["test_mse"] > 0
    assert manifest["config"]["training"]["learning_rate"] == 1e-3
    digit = PRETRAINED / "digits" / "00.png"
    assert run_reconstruct("--bundle", path, "--output", tmp_path, digit).returncode == DONE


def test_an_export_is_the_same_every_time(run, tmp_path):
    for name in ("a", "b"):
        assert run_cli("export", run, "--output", tmp_path / name).returncode == DONE
    assert open_bundle(tmp_path / "a").manifest == open_bundle(tmp_path / "b").manifest


def test_the_fingerprint_is_of_the_training_images(run, digits):
    provenance, _ = checkpoint.load(run / "last.npz")
    assert provenance.data == {"name": "images", "sha256": fingerprint(digits[:256])}


def test_a_checkpoint_that_is_damaged_is_refused(run, tmp_path):
    (tmp_path / "best.npz").write_bytes((run / "best.npz").read_bytes()[:1000])
    result = run_cli("export", tmp_path, "--output", tmp_path / "bundle")
    assert result.returncode == REJECTED
    assert "best.npz: is not a checkpoint" in result.stderr
    assert not (tmp_path / "bundle").exists()


def test_the_measured_error_is_that_of_all_images(digits):
    model = VQVAE(PRESETS["mnist"].model)
    model.initialize(mx.init.Xavier())
    whole = evaluate(model, digits[:50], 50, 64)
    parts = evaluate(model, digits[:50], 16, 64)
    assert parts["mse"] == pytest.approx(whole["mse"], rel=1e-5)
    assert parts["codes_used"] == whole["codes_used"]


def test_a_few_test_images_are_enough_for_a_grid(digits):
    assert pairs_grid(digits[:3], digits[3:6]).shape == (64, 96, 1)
    assert pairs_grid(digits[:64], digits[:64]).shape == (256, 512, 1)


@pytest.mark.parametrize("flag", [["--seed", -1], ["--learning-rate", "nan"], ["--epochs", 0], ["--batch-size", 1.5]])
def test_numbers_out_of_range_are_a_usage_error(flag):
    result = run_cli("train", *flag)
    assert result.returncode == USAGE
    assert f"options: argument {flag[0]}: invalid " in result.stderr


def test_perplexity():
    assert perplexity(np.array([0, 5, 0])) == 1.0
    assert perplexity(np.array([3, 3, 3, 3])) == pytest.approx(4.0)


def test_the_pretrained_bundle_was_trained_on_mnist():
    manifest = open_bundle(PRETRAINED).manifest
    assert manifest["data"] == {"name": "mnist", "sha256": fingerprint(load_split("mnist", "train", 1))}
