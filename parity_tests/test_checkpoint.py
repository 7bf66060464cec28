"""Checkpoints: nothing but what the learner of their config wrote is read."""

import dataclasses
import io
import json
import warnings
import zipfile

import numpy as np
import pytest
from conftest import run_cli_here

from vqvae_gluon.config import Config, ModelConfig, TrainingConfig
from vqvae_gluon.errors import DONE, REJECTED, InputError
from vqvae_gluon.training import checkpoint
from vqvae_gluon.training.checkpoint import Checkpoint
from vqvae_gluon.training.cluster import Alone
from vqvae_gluon.training.learner import LOSSES, Learner
from vqvae_gluon.training.metrics import MEASURES
from vqvae_gluon.training.progress import Progress

MODEL = ModelConfig(hidden_channels=(2, 3), embedding_dim=2, num_embeddings=4, quantizer="ema")


def learned(seed: int) -> Checkpoint:
    """What a run of one epoch of one step writes."""
    config = Config(MODEL, TrainingConfig(data="images", batch_size=2, seed=seed, validation_images=2))
    learner = Learner(config, Alone())
    learner.step(np.random.default_rng(seed).integers(0, 256, (2, 8, 8, 1), dtype=np.uint8), 1, 1e-3)
    row = {"epoch": 1, "step": 1, "restarted": 0, "learning_rate": 1e-3, "seconds": 0.5, "images_per_second": 4.0}
    row.update({f"train_{name}": 0.5 for name in (*LOSSES, "perplexity", "batch_perplexity")})
    row.update({f"{part}_{name}": 1 for part in ("validation", "test") for name in MEASURES})
    progress = Progress(epoch=1, step=1, recent=[0.5] * 7, history=[row])
    return Checkpoint(config, {"name": "images", "sha256": "0" * 64}, progress, learner.state())


@pytest.fixture(scope="module")
def runs() -> list[Checkpoint]:
    return [learned(seed) for seed in (0, 1)]


@pytest.fixture
def members(runs, tmp_path) -> dict[str, bytes]:
    """Those of a checkpoint, to be altered."""
    return read_members(runs[0], tmp_path)


def read_members(run: Checkpoint, directory) -> dict[str, bytes]:
    checkpoint.save(directory / "best.npz", run)
    with zipfile.ZipFile(directory / "best.npz") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(members, method=zipfile.ZIP_STORED) -> bytes:
    """An archive; with checksums that fit, whatever its members are."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # Of two members of one name.
        for name, content in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, content)
    return file.getvalue()


def refusal(tmp_path, data: bytes) -> str:
    """Why a file is refused, by the command that reads it and by what continues a run."""
    path = tmp_path / "best.npz"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        checkpoint.load(path)
    result = run_cli_here("export", tmp_path, "--output", tmp_path / "bundle")
    assert (result.returncode, len(result.stderr.splitlines())) == (REJECTED, 1)
    assert result.stderr == f"vqvae-gluon: error: {caught.value}\n"
    assert not (tmp_path / "bundle").exists()
    return str(caught.value)


def test_a_checkpoint_is_read_as_it_was_written(runs, tmp_path):
    checkpoint.save(tmp_path / "best.npz", runs[0])
    found = checkpoint.load(tmp_path / "best.npz")
    assert (found.config, found.data, found.progress) == (runs[0].config, runs[0].data, runs[0].progress)
    assert found.arrays.keys() == runs[0].arrays.keys()
    assert all(np.array_equal(found.arrays[name], array) for name, array in runs[0].arrays.items())
    assert run_cli_here("export", tmp_path, "--output", tmp_path / "bundle").returncode == DONE
    continued = Learner(found.config, Alone())
    continued.restore(found.arrays, found.progress.step)
    assert all(np.array_equal(continued.state()[name], array) for name, array in found.arrays.items())


def test_one_from_before_the_digest_is_read(runs, members, tmp_path):
    header = npy(np.array(members["checkpoint.npy"].split(b"\n", 1)[1].decode()))
    old = {**members, "checkpoint.npy": header}
    del old["sha256.npy"]
    (tmp_path / "best.npz").write_bytes(zipped(old))
    found = checkpoint.load(tmp_path / "best.npz")
    assert found.progress == runs[0].progress
    assert all(np.array_equal(found.arrays[name], array) for name, array in runs[0].arrays.items())
    assert "does not hold adam/3/mean" in refusal(tmp_path, zipped({n: d for n, d in old.items() if "3/m" not in n}))
    assert "it does not hold sha256" in refusal(tmp_path, zipped({n: d for n, d in members.items() if "sha" not in n}))


@pytest.mark.parametrize("kind", ["model/", "adam/", "quantizer/", "checkpoint", "adam/0/mean"])
def test_what_belongs_to_another_run_is_noticed(runs, members, tmp_path, kind):
    theirs = read_members(runs[1], tmp_path)
    mixed = {name: (theirs if name.startswith(kind) else members)[name] for name in members}
    assert "its digest does not fit" in refusal(tmp_path, zipped(mixed))


def test_a_bit_that_flipped_is_noticed_whatever_the_checksum_says(members, tmp_path):
    for name in members:
        damaged = bytearray(members[name])
        damaged[-1] ^= 1
        why = refusal(tmp_path, zipped({**members, name: bytes(damaged)}))
        assert name == "checkpoint.npy" or "its digest does not fit" in why or "its shape does not fit" in why


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.pop("adam/0/mean.npy"), "it does not hold adam/0/mean"),
        (lambda m: m.pop("quantizer/sums.npy"), "it does not hold quantizer/sums"),
        (lambda m: m.update({"adam/99/mean.npy": npy(np.zeros(1, "f"))}), "it holds adam/99/mean"),
        (lambda m: m.update({"../x.npy": b""}), "its member ../x.npy is no array"),
        (lambda m: m.update({"x": b""}), "its member x is no array"),
        (lambda m: m.update({"sha256.npy": npy(np.zeros(32))}), "it does not hold sha256 as uint8"),
        (lambda m: m.update({"adam/0/mean.npy": npy(np.zeros(7, "f"))}), "adam/0/mean as float32 of shape"),
        (lambda m: m.update({"adam/0/mean.npy": npy(np.zeros(1, "d"))}), "adam/0/mean as float32 of shape"),
        (lambda m: m.update({"adam/0/mean.npy": npy(np.array([{}]))}), "adam/0/mean as float32 of shape"),
        (lambda m: m.update({"adam/0/mean.npy": npy(np.full(1, np.nan, "f"))}), "adam/0/mean is not finite"),
        (lambda m: m.update({"checkpoint.npy": npy(np.zeros(3))}), "it says nothing of a run"),
        (lambda m: m.update({"checkpoint.npy": npy(np.frombuffer(b"[" * 10**6, "u1"))}), "too many lists"),
        (lambda m: m.update({"checkpoint.npy": npy(np.frombuffer(b"[" * 1000, "u1"))}), "not a checkpoint"),
        (lambda m: m.pop("checkpoint.npy"), "it says nothing of a run"),
        (lambda m: m.clear(), "it says nothing of a run"),
    ],
)
def test_what_no_learner_of_its_config_writes_is_refused(members, tmp_path, change, told):
    change(members)
    assert told in refusal(tmp_path, zipped(members))


def signed(run: Checkpoint, tmp_path, **values) -> bytes:
    """A checkpoint with another progress, whose digest fits."""
    checkpoint.save(tmp_path / "best.npz", dataclasses.replace(run, progress=Progress(**values)))
    return (tmp_path / "best.npz").read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 2},
        {"epoch": -1},
        {"epoch": True},
        {"epoch": 1.0},
        {"step": 0},
        {"step": 2},
        {"step": 10**30},
        {"position": 1},
        {"position": "x"},
        {"sums": [0.0] * 7},
        {"counts": [1]},
        {"counts": None},
        {"recent": [0.5] * 6},
        {"recent": [0.5] * 6 + [float("nan")]},
        {"recent": []},
        {"seconds": -1.0},
        {"seconds": float("inf")},
        {"seconds": "1"},
        {"history": []},
        {"history": {}},
        {"history": [{}]},
        {"history": [[1]]},
        {"steps": [{"step": 100}]},
    ],
)
def test_progress_that_no_run_makes_is_refused(runs, tmp_path, change):
    values = {**dataclasses.asdict(runs[0].progress), **change}
    assert "is not a checkpoint of this version (" in refusal(tmp_path, signed(runs[0], tmp_path, **values))


@pytest.mark.parametrize("name", ["test_mse", "epoch", "step", "test_codes_used"])
@pytest.mark.parametrize("value", ["x", None, float("nan"), [], 10**400])
def test_a_row_of_its_history_that_no_run_writes_is_refused(runs, tmp_path, name, value):
    values = json.loads(json.dumps(dataclasses.asdict(runs[0].progress)))
    values["history"][0][name] = value
    assert "is not a checkpoint of this version (" in refusal(tmp_path, signed(runs[0], tmp_path, **values))


@pytest.mark.parametrize(
    "data",
    [
        {"name": "mnist", "sha256": "0" * 64},
        {"name": "images", "sha256": "x"},
        {"name": "images", "sha256": None},
        {"name": "\ud800", "sha256": "0" * 64},
        {},
        [],
    ],
)
def test_data_that_is_not_that_of_its_config_is_refused(runs, tmp_path, data):
    checkpoint.save(tmp_path / "best.npz", dataclasses.replace(runs[0], data=data))
    assert "it does not say what it was trained on" in refusal(tmp_path, (tmp_path / "best.npz").read_bytes())


def test_a_name_that_no_manifest_can_hold_is_refused_before_anything_is_written(runs, tmp_path):
    name = "\ud800"
    config = dataclasses.replace(runs[0].config, training=dataclasses.replace(runs[0].config.training, data=name))
    run = dataclasses.replace(runs[0], config=config, data={**runs[0].data, "name": name})
    checkpoint.save(tmp_path / "best.npz", run)
    assert "no data set's name" in refusal(tmp_path, (tmp_path / "best.npz").read_bytes())


def test_a_member_is_not_expanded_beyond_what_it_must_be(members, tmp_path):
    members["adam/0/mean.npy"] = npy(np.zeros(1 << 23, "f"))  # Of 32 KB 32 MB.
    assert "it does not hold adam/0/mean as float32 of shape" in refusal(
        tmp_path, zipped(members, zipfile.ZIP_DEFLATED)
    )
