"""Several processes that train together, by MXNet's parameter server on this machine."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]
from conftest import ROOT, run_cli, settings
from interruptions import differences, make_folder, start

from vqvae_gluon.data.images import read_image, write_image
from vqvae_gluon.errors import FAILED, REJECTED, USAGE
from vqvae_gluon.training import checkpoint
from vqvae_gluon.training.cluster import VARIABLES as REQUIRED
from vqvae_gluon.training.launch import reserve_port

# Restarts make much of little: one latent that is rounded otherwise, and another row restarts. So do the fused
# operators: a rounding to 16 bits is far larger than one of float32, and after an epoch some codes are others.
CALM = ("--restart-below", "0", "--operators", "mxnet")
_PATIENCE = 120  # seconds
# A process that hangs is asked by SIGABRT where it stands.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}


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


@pytest.fixture
def start_roles():
    """Starts a scheduler, a server and two workers, each by its command, or by one that is given for all."""
    started, ports = [], []

    def start_roles(*commands, **environment):
        ports.append(reserve_port())
        variables = {"DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": str(ports[-1].getsockname()[1])}
        variables.update(DMLC_NUM_SERVER="1", DMLC_NUM_WORKER="2")
        for role, command in zip(("scheduler", "server", "worker", "worker"), itertools.cycle(commands)):
            child = {**ONE_THREAD, **variables, **environment, "DMLC_ROLE": role}
            started.append(subprocess.Popen([*map(str, command)], env=child, stderr=subprocess.PIPE, text=True))
        return started[-4:]

    yield start_roles
    for process in started:
        process.kill()
    for port in ports:
        port.close()


def ends(processes):
    """What each writes on stderr until it ends."""
    try:
        return [process.communicate(timeout=_PATIENCE)[1] for process in processes]
    except subprocess.TimeoutExpired:
        pytest.fail(where_they_stand(processes))


def wait_for(path, *processes):
    """Until there is such a file, which these processes make."""
    until = time.monotonic() + _PATIENCE
    while not path.exists():
        if time.monotonic() > until or any(process.poll() is not None for process in processes):
            pytest.fail(f"{path} is not there\n{where_they_stand(processes)}")
        time.sleep(0.1)


def where_they_stand(processes):
    """The stacks of what has not ended, with their children; they are ended by it."""
    for process in processes:
        if process.poll() is None:
            for one in (*psutil.Process(process.pid).children(recursive=True), process):
                one.send_signal(signal.SIGABRT)
    return "\n".join(f"{process.args}: {process.communicate(timeout=60)[1]}" for process in processes)


@pytest.fixture(scope="module")
def together(folder, tmp_path_factory):
    """The checkpoint of two that nobody disturbed."""
    run = tmp_path_factory.mktemp("together") / "run"
    code, errors = finish(launch(folder, run, *CALM))
    assert code == 0, errors
    assert errors.count("best: epoch") + errors.count("best and newest: epoch") == 1  # One of them tells and writes.
    return run / "last.npz"


def one_and_two(folder, tmp_path, *flags):
    """The checkpoints of one process, and of two on the same batches."""
    process = start(folder, tmp_path / "one", *flags)
    _, errors = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 0, errors
    code, errors = finish(launch(folder, tmp_path / "two", *flags))
    assert code == 0, errors
    return [checkpoint.load(tmp_path / name / "last.npz") for name in ("one", "two")]


# A few steps: after more, what is rounded otherwise has grown, and how soon depends on the processor.


def test_two_workers_learn_what_one_does(folder, tmp_path):
    one, two = one_and_two(folder, tmp_path, "--steps", "12", *CALM)
    assert [len(found.progress.history) for found in (one, two)] == [2, 2]
    check_equal(one, two)


def test_rows_restart_at_latents_of_all_workers(folder, tmp_path):
    one, two = one_and_two(folder, tmp_path, "--steps", "3", "--restart-below", "0.9")
    restarted = [found.progress.history[-1]["restarted"] for found in (one, two)]
    assert restarted[0] == restarted[1] > 0
    check_equal(one, two)


def test_a_worker_that_dies_ends_the_job(folder, start_roles, tmp_path):
    run = tmp_path / "run"
    train = ["train", "--config", folder / "settings.toml", "--data", folder, "--output", run, "--epochs", "50"]
    processes = start_roles([sys.executable, "-m", "vqvae_gluon", *train, "--kvstore", "dist_sync"])
    wait_for(run / "last.npz", *processes)
    processes[3].kill()
    killed = time.monotonic()
    told = ends(processes)
    assert time.monotonic() - killed < 60
    assert [process.returncode for process in processes] == [FAILED] * 3 + [-signal.SIGKILL]
    assert "a server or worker has died; this scheduler ends, go on by --resume" in told[0]
    assert "has died; this server ends, go on by --resume" in told[1]
    assert "has died; this worker ends, go on by --resume" in told[2]
    checkpoint.load(run / "last.npz")


def test_a_launched_job_is_ended_when_a_worker_dies_and_a_resumed_one_ends_alike(folder, together, tmp_path):
    """Bit for bit: the sum of two does not depend on their order."""
    run = tmp_path / "run"
    process = launch(folder, run, *CALM)
    wait_for(run / "last.npz", process)
    children = psutil.Process(process.pid).children()
    workers = [child for child in children if child.environ()["DMLC_ROLE"] == "worker"]
    assert (len(children), len(workers)) == (4, 2)
    workers[1].kill()
    code, errors = finish(process)
    assert code == 128 + signal.SIGKILL
    assert "error: worker 1: was ended by signal 9; the job ends, go on by --resume" in errors
    assert psutil.wait_procs(children, timeout=10)[1] == []
    code, errors = finish(launch(folder, run, *CALM, "--resume"))
    assert code == 0, errors
    assert differences(together, run / "last.npz") == []


def test_a_worker_that_is_late_at_first_has_the_same_parameters(start_roles):
    """MXNet's server answers the newest request first: that of a gradient before that of the parameter, under one key.

    The engine of rank 1 stands still until its requests wait in it, and the server until they wait there.
    """
    code = """
import ctypes, dataclasses, hashlib, os, signal, sys, threading, time
import numpy as np, psutil
from vqvae_gluon.compat import mx
from vqvae_gluon.config import PRESETS
from vqvae_gluon.training.cluster import join_cluster, serve_cluster
from vqvae_gluon.training.learner import Learner

def hold():
    held.wait(3)  # Or it waits for its parameters, and asks for nothing else meanwhile.
    siblings = psutil.Process().parent().children()
    server = next(child for child in siblings if child.environ().get("DMLC_ROLE") == "server")
    server.suspend()
    release.set()
    time.sleep(1)
    server.resume()

if not serve_cluster("dist_sync"):
    with join_cluster("dist_sync") as workers:
        learner = Learner(PRESETS["mnist"], workers)
        if workers.rank == 1:
            held, release = threading.Event(), threading.Event()
            reduce, give = learner.trainer.allreduce_grads, workers.store.broadcast
            wait = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: release.wait(60))
            thread = threading.Thread(target=hold)

            def give_late(*arguments):
                if not thread.ident:
                    thread.start()
                    cpu = (ctypes.c_int * 2)(1, 0)
                    block = mx.base._LIB.MXEnginePushSyncND
                    mx.base.check_call(block(wait, None, None, cpu, None, 0, None, 0, None, 0, None))
                give(*arguments)

            workers.store.broadcast = give_late
            learner.trainer.allreduce_grads = lambda: (reduce(), held.set())
        images = np.random.default_rng(workers.rank).integers(0, 256, (8, 28, 28, 1)).astype(np.uint8)
        learner.step(images, 1, 1e-3)
        found = {name: value for name, value in learner.state().items() if name.startswith("model/")}
        for name, value in sorted(found.items()):
            print("has", name, hashlib.sha256(value.tobytes()).hexdigest(), file=sys.stderr)
"""
    processes = start_roles([sys.executable, "-c", code])
    told = ends(processes)
    assert [process.returncode for process in processes] == [0] * 4, told
    one, two = ([line for line in errors.splitlines() if line.startswith("has ")] for errors in told[2:])
    assert one
    assert one == two


def test_a_worker_that_dies_at_the_end_ends_those_that_have_come_to_theirs(start_roles):
    code = """
import os, time
from vqvae_gluon.training.cluster import join_cluster, serve_cluster
if not serve_cluster("dist_sync"):
    with join_cluster("dist_sync") as workers:
        if workers.rank == 0:
            time.sleep(3)
            os._exit(9)
"""
    processes = start_roles([sys.executable, "-c", code], PS_HEARTBEAT_TIMEOUT="5")
    told = ends(processes)
    assert sorted(process.returncode for process in processes) == [FAILED] * 3 + [9]
    assert sum("has died; this worker ends, go on by --resume" in errors for errors in told[2:]) == 1


def test_the_port_of_a_job_is_given_to_nobody_else():
    with reserve_port() as port:
        place = ("127.0.0.1", port.getsockname()[1])
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(place)
        with socket.create_server(place):  # As ZeroMQ does, it asks for SO_REUSEADDR.
            pass


def test_a_launcher_that_is_ended_ends_the_job(folder, tmp_path):
    run = tmp_path / "run"
    process = launch(folder, run, *CALM, "--epochs", "50")
    wait_for(run / "last.npz", process)
    children = psutil.Process(process.pid).children()
    process.terminate()
    assert finish(process)[0] == 128 + signal.SIGTERM
    assert psutil.wait_procs(children, timeout=20)[1] == []


@pytest.mark.parametrize("split", ["train", "test"])
def test_workers_that_see_other_images_are_refused(split, folder, digits, start_roles, tmp_path):
    other = make_folder(tmp_path / "other", digits)
    changed = sorted((other / split).iterdir())[0]
    write_image(changed, 255 - read_image(changed, 1))
    run = tmp_path / "run"
    train = [sys.executable, "-m", "vqvae_gluon", "train", "--config", folder / "settings.toml", "--output", run]
    commands = [[*train, "--data", data, "--kvstore", "dist_sync"] for data in (folder, folder, folder, other)]
    processes = start_roles(*commands)
    told = ends(processes)
    name = {"train": "training", "test": "test"}[split]
    assert sum(f"{name} data: differs from that of the worker of rank 0" in errors for errors in told) == 1
    assert not (run / "last.npz").exists()


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
