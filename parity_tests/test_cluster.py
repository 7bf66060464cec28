"""Several processes that train together, by MXNet's parameter server on this machine."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]
from conftest import ROOT, run_cli
from interruptions import make_folder, start
from test_settings import settings

from vqvae_gluon.errors import REJECTED, USAGE
from vqvae_gluon.training import checkpoint
from vqvae_gluon.training.cluster import VARIABLES as REQUIRED

ROLES = ("scheduler", "server", "worker")
_PATIENCE = 120  # seconds
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits):
    return make_folder(tmp_path_factory.mktemp("cluster") / "images", digits)


def launch(folder, run, *flags):
    """Two workers, a server and a scheduler, in a process group of their own."""
    train = [
        "train",
        "--config",
        folder / "settings.toml",
        "--data",
        folder,
        "--num-workers",
        0,
        "--output",
        run,
        *flags,
    ]
    command = [sys.executable, "-m", "vqvae_gluon", "launch", "--workers", "2", "--", *map(str, train)]
    return subprocess.Popen(command, env=ONE_THREAD, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(process):
    try:
        _, errors = process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, errors


def check_equal(one, two):
    """Within float32 error, and the same codes."""
    for row, other in zip(one.progress.history, two.progress.history):
        for name, value in row.items():
            if "second" not in name:
                assert other[name] == pytest.approx(value, rel=1e-3, abs=1e-6), f"{name} of epoch {row['epoch']}"
    for name, values in one.arrays.items():
        if name.startswith("model/"):
            np.testing.assert_allclose(two.arrays[name], values, atol=2e-3, err_msg=name)


def processes_of(launched):
    """The processes of a job, by their roles."""
    children = psutil.Process(launched.pid).children()
    return {role: [child for child in children if child.environ()["DMLC_ROLE"] == role] for role in ROLES}


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """One process on the same batches."""
    run = tmp_path_factory.mktemp("alone") / "run"
    process = start(folder, run)
    _, errors = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 0, errors
    return checkpoint.load(run / "last.npz")


def test_two_workers_learn_what_one_does(folder, alone, tmp_path):
    run = tmp_path / "run"
    code, errors = finish(launch(folder, run))
    assert code == 0, errors
    assert errors.count("best: epoch") == 1  # One of them tells and writes.
    both = checkpoint.load(run / "last.npz")
    assert both.progress.step == alone.progress.step
    check_equal(alone, both)
    assert sum(row["restarted"] for row in both.progress.history) > 0


def test_a_worker_that_dies_ends_the_job_and_a_resumed_one_ends_alike(folder, alone, tmp_path):
    run = tmp_path / "run"
    process = launch(folder, run)
    until = time.monotonic() + _PATIENCE
    while not (run / "last.npz").exists() and time.monotonic() < until:
        time.sleep(0.1)
    processes = processes_of(process)
    assert {role: len(those) for role, those in processes.items()} == {"scheduler": 1, "server": 1, "worker": 2}
    processes["worker"][0].kill()
    killed = time.monotonic()
    code, errors = finish(process)
    assert time.monotonic() - killed < 60
    assert code != 0
    assert "has died; this worker ends, go on by --resume" in errors
    assert not any(one.is_running() for those in processes.values() for one in those)
    assert checkpoint.load(run / "last.npz").progress.step < alone.progress.step
    code, errors = finish(launch(folder, run, "--resume"))
    assert code == 0, errors
    check_equal(alone, checkpoint.load(run / "last.npz"))


def test_a_failure_of_all_workers_ends_the_job(folder, tmp_path):
    code, errors = finish(launch(folder, tmp_path / "run", "--batch-size", 33))
    assert code == REJECTED
    assert "--batch-size: is 33, which 2 workers cannot share" in errors


def test_a_remote_shell_starts_what_a_local_one_does(folder, tmp_path):
    """bash takes the part of ssh: it is given a host and a line, and runs the line in an empty environment."""
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/bash\n[ "$1" = somewhere ] && cd / && exec env -i HOME="$HOME" bash -c "$2"\n')
    shell.chmod(0o755)
    run = tmp_path / "run"
    words = ["--workers", 1, "--hosts", "somewhere", "--address", "127.0.0.1", "--remote-shell", shell]
    train = ["train", "--config", folder / "settings.toml", "--data", folder, "--output", run, "--epochs", 1]
    result = run_cli("launch", *words, "--", *train)
    assert result.returncode == 0, result.stderr
    assert checkpoint.load(run / "last.npz").progress.epoch == 1


@pytest.mark.parametrize(
    ("variables", "flags", "why"),
    [
        ({"DMLC_ROLE": "worker"}, [], "--kvstore: is needed where DMLC_ROLE is set"),
        (
            {},
            ["--kvstore", "dist_sync"],
            "DMLC_ROLE: is not set as --kvstore needs it",
        ),
        ({"DMLC_ROLE": "server"}, ["--kvstore", "dist_sync"], "DMLC_PS_ROOT_URI: is not set"),
    ],
)
def test_a_job_that_is_not_set_up_is_a_usage_error(variables, flags, why, tmp_path):
    command = [sys.executable, "-m", "vqvae_gluon", "train", "--output", str(tmp_path / "run"), *flags]
    environment = {**ONE_THREAD, **variables}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    assert result.returncode == USAGE
    assert why in result.stderr
    assert not (tmp_path / "run").exists()


def test_the_kubernetes_jobs_are_a_whole_job():
    documents = list(yaml.safe_load_all((ROOT / "docs/kubernetes.yaml").read_text()))
    (variables,) = (entry["data"] for entry in documents if entry["kind"] == "ConfigMap")
    (service,) = (entry["metadata"]["name"] for entry in documents if entry["kind"] == "Service")
    assert variables["DMLC_PS_ROOT_URI"] == service
    counts = {}
    for job in (entry for entry in documents if entry["kind"] == "Job"):
        (container,) = job["spec"]["template"]["spec"]["containers"]
        (role,) = (entry["value"] for entry in container["env"])
        assert {*variables, "DMLC_ROLE"} >= {*REQUIRED}
        assert settings(*container["command"][2:], *container["args"])[1].kvstore == "dist_sync"
        assert job["spec"]["parallelism"] == job["spec"]["completions"]
        counts[role] = job["spec"]["completions"]
    wanted = {role: int(variables[f"DMLC_NUM_{role.upper()}"]) for role in ("server", "worker")}
    assert counts == {"scheduler": 1, **wanted}


def test_a_kvstore_that_is_not_known_is_refused():
    with pytest.raises(SystemExit):
        settings("--kvstore", "dist_async")
