"""Both programs under the limits of a system: too little memory, closed and full streams, and what ends them early."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest
from conftest import PRETRAINED, run_cli_here

from vqvae_gluon import cli
from vqvae_gluon.cli.signals import TERMINATED
from vqvae_gluon.compat import mx, mxnet_reason
from vqvae_gluon.errors import DONE, FAILED, is_lack_of_memory
from vqvae_gluon.runtimes.cpp import find_binary

DIGIT = PRETRAINED / "digits" / "00.png"
PYTHON = [sys.executable, "-m", "vqvae_gluon"]
PROGRAMS: dict[str, list] = {"C++": [find_binary()], "Python": PYTHON}
RECONSTRUCT = {
    "C++": lambda out: [find_binary(), "--bundle", PRETRAINED, "--output", out, DIGIT],
    "Python": lambda out: [*PYTHON, "reconstruct", PRETRAINED, DIGIT, "--output", out],
}
WAIT = 120  # seconds


def run(command: Sequence[object], **options) -> subprocess.CompletedProcess:
    words = [*map(str, command)]
    return subprocess.run(words, stderr=subprocess.PIPE, text=True, check=False, timeout=WAIT, **options)


# Memory.


def limit_addresses(mebibytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (mebibytes << 20, mebibytes << 20))


@pytest.mark.parametrize("mebibytes", [200, 300, 400, 500])
@pytest.mark.parametrize("language", RECONSTRUCT)
def test_too_few_addresses_are_told_before_mxnet_crashes_for_them(language, mebibytes, tmp_path):
    result = run(RECONSTRUCT[language](tmp_path), stdout=subprocess.PIPE, preexec_fn=lambda: limit_addresses(mebibytes))
    assert (result.returncode, result.stdout) == (FAILED, "")
    assert "memory: there is not enough of it: to start, MXNet takes " in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("mebibytes", [600, 700, 850])
def test_where_there_are_enough_the_program_runs(mebibytes, tmp_path):
    """With a heap of addresses for each thread it crashed under 850 MiB and not under 550."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = RECONSTRUCT["C++"](tmp_path)
    result = run(command, stdout=subprocess.PIPE, env=environment, preexec_fn=lambda: limit_addresses(mebibytes))
    assert (result.returncode, result.stderr) == (DONE, "")


@pytest.mark.parametrize(
    "text",
    ["std: :bad_alloc", "[06:31:17] ../src/storage/./cpu_device_storage.h:72: Failed to allocate CPU Memory"],
)
def test_mxnet_s_lack_of_memory_is_one(text):
    with pytest.raises(MemoryError):
        mxnet_reason(mx.MXNetError(f"Traceback (most recent call last):\n  File x\nMXNetError: {text}"))
    assert mxnet_reason(mx.MXNetError(f"Error in operator {text}2: shapes")) == f"Error in operator {text}2: shapes"


def test_a_library_that_cannot_be_mapped_is_a_lack_of_memory(monkeypatch):
    def lacking(_):
        raise ImportError("libx.so: failed to map segment from shared object")

    monkeypatch.setattr(cli.judging, "_parity", lacking)
    result = run_cli_here("parity", "bundle", "--candidate", "cpp")
    assert result.returncode == FAILED and "error: out of memory: libx.so: failed to map" in result.stderr
    assert is_lack_of_memory(OSError(12, "Cannot allocate memory")) and not is_lack_of_memory("bad_alloc: is refused")


# Streams.


@pytest.mark.parametrize("language", PROGRAMS)
def test_what_cannot_be_printed_is_one_line(language):
    with open("/dev/full", "w") as full:
        result = run([*PROGRAMS[language], "--help"], stdout=full)
    assert result.returncode == FAILED and "error: standard output: " in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("language", PROGRAMS)
def test_a_standard_output_that_is_closed_is_one_line(language):
    result = run([*PROGRAMS[language], "--help"], preexec_fn=lambda: os.close(1))
    assert result.returncode == FAILED and "error: standard output: " in result.stderr


@pytest.mark.parametrize("language", RECONSTRUCT)
def test_with_all_streams_closed_nothing_is_written_into_another_file(language, tmp_path):
    def close() -> None:
        for number in range(3):
            os.close(number)

    command = [*map(str, RECONSTRUCT[language](tmp_path / "out"))]
    process = subprocess.Popen(command, preexec_fn=close)
    assert process.wait(WAIT) == FAILED  # The names of files could not be printed.
    assert (tmp_path / "out" / "00.png").read_bytes().startswith(b"\x89PNG")


def test_a_reader_that_has_enough_ends_the_program_quietly():
    for language, words in (("C++", ["--help"]), ("Python", ["parity", "--help"])):
        there, mine = os.pipe()
        os.close(there)
        with os.fdopen(mine, "w") as closed:
            result = run([*PROGRAMS[language], *words], stdout=closed)
        assert result.stderr == ""
        assert result.returncode in (-signal.SIGPIPE, 128 + signal.SIGPIPE)


# Ends.


def test_sigterm_ends_a_command_as_ctrl_c_does(tmp_path):
    """The candidate takes long, and its images are temporary."""
    command = [*PYTHON, "parity", PRETRAINED, "--candidate", "gluon-eager", "--data", "mnist", "--batch-size", "8"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [*map(str, command)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + WAIT
    while not any(tmp_path.glob("*/*")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.terminate()
    process.send_signal(signal.SIGTERM)  # As timeout(1) does, which sends it to the group, too.
    out, error = process.communicate(timeout=WAIT)
    assert (process.returncode, out) == (TERMINATED, "")
    assert error == "vqvae-gluon: error: terminated: nothing half-written is left\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "told"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")])
def test_a_signal_that_comes_while_an_object_is_freed_is_not_lost(number, told, monkeypatch):
    class Interrupting:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def work(_):
        Interrupting()
        time.sleep(WAIT)

    monkeypatch.setattr(cli.judging, "_parity", work)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Where tests run in parallel it is ignored.
    try:
        result = run_cli_here("parity", "bundle", "--candidate", "cpp")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.returncode == (TERMINATED if number == signal.SIGTERM else FAILED)
    assert result.stderr == f"vqvae-gluon: error: {told}: nothing half-written is left\n"
