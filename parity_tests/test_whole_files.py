"""Files appear whole or not at all, whatever ends a program: kill -9, SIGTERM, a full disk, a directory that cannot be
written."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest
from conftest import PRETRAINED

from vqvae_gluon.errors import DONE, FAILED
from vqvae_gluon.runtimes.cpp import find_binary

COUNT = 400
PYTHON = [sys.executable, "-m", "vqvae_gluon"]
NOBODY = 65534
WAIT = 120  # seconds, for what must end

# What is run on a file of images, and where it writes: a directory.
COMMANDS = {
    "C++ reconstruct": lambda images, out: [find_binary(), "--bundle", PRETRAINED, "--output", out, images],
    "C++ trace": lambda images, out: [
        *(find_binary(), "--bundle", PRETRAINED, "--output", out / "images", "--trace", out / "trace", images)
    ],
    "C++ codes": lambda images, out: [find_binary(), "--bundle", PRETRAINED, "--codes", out / "codes.npy", images],
    "Python reconstruct": lambda images, out: [*PYTHON, "reconstruct", PRETRAINED, images, "--output", out],
    "Python encode": lambda images, out: [*PYTHON, "encode", PRETRAINED, images, "--output", out / "codes.npy"],
}
TRACES = {name for name in COMMANDS if name.endswith("trace")}
INDEX = "trace.json"


def start(name: str, images: Path, out: Path, **options) -> subprocess.Popen:
    command = [str(word) for word in COMMANDS[name](images, out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def files(out: Path) -> dict[str, bytes]:
    """Every file below a directory, hidden ones and those in hidden directories, too."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("images") / "x.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (COUNT, 28, 28), dtype=np.uint8))
    return path


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """What a command writes when nothing ends it."""
    known: dict[str, dict[str, bytes]] = {}

    def result(name: str) -> dict[str, bytes]:
        if name not in known:
            out = tmp_path_factory.mktemp("whole")
            process = start(name, images, out)
            _, error = process.communicate(timeout=WAIT)
            assert process.returncode == DONE, error
            known[name] = files(out)
        return known[name]

    return result


def check_whole(name: str, found: dict[str, bytes], whole: dict[str, bytes], ended: bool) -> None:
    """Every file that is there is one of the whole run's, byte for byte; the index of a trace only of all the rest."""
    assert set(found) <= set(whole), "a temporary file is left"
    for file, content in found.items():
        if not file.endswith(INDEX):
            assert content == whole[file], f"{file} is not whole"
    if name in TRACES and any(file.endswith(INDEX) for file in found):
        assert ended
        assert set(found) >= {file for file in whole if file.endswith(".npy")}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_program_that_is_killed_leaves_whole_files(name, number, images, whole, tmp_path):
    random = Random(f"{name} {number}")
    wanted, interrupted = whole(name), 0
    for moment in range(8 if name.startswith("C++") else 3):
        out = tmp_path / str(moment)
        out.mkdir()
        process = start(name, images, out)
        # From the first thing that it makes, which comes late in Python, to a while after that.
        until = time.monotonic() + WAIT
        while not any(out.iterdir()) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(random.random() * 0.2)
        process.send_signal(number)
        process.communicate(timeout=WAIT)
        interrupted += process.returncode != DONE
        assert process.returncode in (DONE, -number, 128 + number)  # The last is Python's, which heeds SIGTERM.
        check_whole(name, files(out), wanted, ended=process.returncode == DONE)
    if not name.endswith(("encode", "codes")):  # Which make one file in a moment.
        assert interrupted > 0


@contextlib.contextmanager
def mounted(directory: Path, size: str):
    """A small file system in memory; gives whether this machine and this user may have one."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    may = shutil.which("mount") is not None and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield may
    finally:
        if may:
            subprocess.run(["umount", str(directory)], check=True)


def limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def check_failure(name: str, process: subprocess.Popen) -> None:
    _, error = process.communicate(timeout=WAIT)
    assert process.returncode == FAILED, error
    program = "reconstruct" if name.startswith("C++") else "vqvae-gluon"
    assert error.startswith(f"{program}: error: ")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_an_error_and_leaves_whole_files(name, images, whole, tmp_path):
    disk = tmp_path / "disk"
    with mounted(disk, "64k") as may:
        # Where no small disk may be mounted, no file may grow: the same error at another place.
        options = {} if may else {"preexec_fn": lambda: limit_files(100)}
        check_failure(name, start(name, images, disk, **options))
        check_whole(name, files(disk), whole(name), ended=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_that_may_not_grow_is_an_error_and_leaves_whole_files(name, images, whole, tmp_path):
    check_failure(name, start(name, images, tmp_path, preexec_fn=lambda: limit_files(100)))
    check_whole(name, files(tmp_path), whole(name), ended=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_directory_that_cannot_be_written_is_an_error(name, images, tmp_path):
    disk = tmp_path / "disk"
    with mounted(disk, "64k") as may:
        if may:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            check_failure(name, start(name, images, disk))
        else:
            disk.chmod(0o555)
            as_nobody = {"preexec_fn": lambda: os.setuid(NOBODY)} if os.geteuid() == 0 else {}
            check_failure(name, start(name, images, disk, **as_nobody))
        assert not files(disk)
