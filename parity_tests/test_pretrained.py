"""The bundles that are shipped: what they reach, where they come from, and that every engine computes them alike."""

import csv
import json

import numpy as np
import pytest
from conftest import PRETRAINED, ROOT, run_cli, run_reconstruct, settings

from vqvae_gluon.artifacts.bundle import open_bundle, open_pretrained
from vqvae_gluon.config import PRESETS
from vqvae_gluon.data import fingerprint, load_split
from vqvae_gluon.data.images import find_images, read_image, read_images, to_images
from vqvae_gluon.errors import DONE, InputError
from vqvae_gluon.runtimes.gluon import load_pretrained
from vqvae_gluon.training.metrics import perplexity

CIFAR10 = ROOT / "pretrained" / "cifar10"
PHOTOS = CIFAR10 / "photos"
OTHERS = ("cpp", "cpp-executor", "cpp-predict", "executor", "gluon-eager")


def test_mnist_reaches_what_it_must_on_the_test_digits():
    digits = load_split("mnist", "test", 1)
    predictor = load_pretrained("mnist")
    codes = predictor.encode(digits)
    mse = float(np.mean(np.square(predictor.decode(codes) / 255 - digits.transpose(0, 3, 1, 2) / 255)))
    assert mse <= 0.0038
    counts = np.bincount(codes.ravel(), minlength=64)
    assert (counts > 0).all()
    metrics = open_pretrained("mnist").manifest["metrics"]
    assert metrics["test_mse"] == pytest.approx(mse, rel=1e-3)
    assert metrics["test_codes_used"] == 64
    assert metrics["test_perplexity"] == pytest.approx(perplexity(counts), rel=1e-3)


def test_cifar10_reached_what_it_must_on_the_test_images():
    """They are not ours to ship; the bundle is proved to be what it was measured of by its digests."""
    metrics = open_pretrained("cifar10").manifest["metrics"]
    assert metrics["test_normalised_mse"] <= 0.049
    assert metrics["test_codes_used"] >= 0.99 * 512


@pytest.mark.parametrize(("name", "which"), [("mnist", "best"), ("mnist-original", "best"), ("cifar10", "newest")])
def test_a_bundle_is_that_of_its_preset_and_of_the_epoch_that_is_told(name, which):
    bundle = open_pretrained(name)
    assert bundle.config == PRESETS[name]
    rows = list(csv.DictReader((bundle.path / "losses.csv").open()))
    best = min(rows, key=lambda row: float(row["validation_mse"]))
    assert bundle.manifest["epoch"] == int({"best": best, "newest": rows[-1]}[which]["epoch"])
    log = (bundle.path / "log.txt").read_text()
    assert f"$ vqvae-gluon train --preset {name} " in log
    assert bundle.manifest["data"]["sha256"] in log
    assert settings("--config", bundle.path / "settings.toml")[0] == bundle.config


def test_the_data_of_mnist_are_its_training_digits():
    manifest = open_bundle(PRETRAINED).manifest
    assert manifest["data"] == {"name": "mnist", "sha256": fingerprint(load_split("mnist", "train", 1))}


def test_a_name_that_there_is_not_is_refused():
    with pytest.raises(
        InputError,
        match="imagenet: is not the name of a pretrained network; give one of cifar10, mnist",
    ):
        load_pretrained("imagenet")


@pytest.mark.parametrize("candidate", OTHERS)
def test_every_engine_agrees_on_the_colour_network(candidate):
    result = run_cli("parity", CIFAR10, "--candidate", candidate, "--data", PHOTOS, "--json")
    report = json.loads(result.stdout)
    assert (result.returncode, report["verdict"]) == (DONE, "agree"), result.stderr
    assert report["codes"] == {**report["codes"], "compared": 4 * 24 * 24, "real_flips": 0}
    if candidate == "cpp":
        assert all(output["equal"] for output in report["outputs"].values())


def test_both_languages_write_the_same_pictures_of_photographs(tmp_path):
    assert run_cli("reconstruct", CIFAR10, PHOTOS, "--output", tmp_path / "python").returncode == DONE
    assert run_reconstruct("--bundle", CIFAR10, "--output", tmp_path / "cpp", PHOTOS).returncode == DONE
    for photo in find_images(PHOTOS):
        python, cpp = (read_image(tmp_path / language / f"{photo.stem}.png", 3) for language in ("python", "cpp"))
        np.testing.assert_array_equal(cpp, python)


def test_the_colour_network_shows_what_it_was_shown():
    photos = read_images(find_images(PHOTOS), 3)
    predictor = load_pretrained("cifar10")
    reconstructions = to_images(predictor.decode(predictor.encode(photos)))
    errors = np.square((reconstructions.astype(float) - photos) / 255).mean(axis=(1, 2, 3))
    assert (errors < 0.01).all(), errors
