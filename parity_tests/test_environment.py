"""The variables of MXNet and OpenMP: both programs take the same values, and refuse the others in the same
line before MXNet is loaded, which would end the process."""

import os
import re
import subprocess
import sys

import pytest
from conftest import PRETRAINED, ROOT

from vqvae_gluon.environment import RULES, THREADS, check_environment
from vqvae_gluon.errors import DONE, USAGE, UsageError
from vqvae_gluon.runtimes.cpp import find_binary

DIGIT = PRETRAINED / "digits" / "00.png"
BAD = {THREADS: ["abc", "0", "-1", "99999999999", "1025", "2,", "2,0", "1.5", "0x2", "9" * 2000]}


def told_by_python(name: str, value: str) -> str:
    with pytest.raises(UsageError) as told:
        check_environment({name: value})
    return str(told.value)


def reconstruct(name: str, value: str, output) -> subprocess.CompletedProcess:
    command = [find_binary(), "--bundle", PRETRAINED, "--output", output, DIGIT]
    environment = {**os.environ, name: value}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", RULES)
def test_a_value_that_mxnet_cannot_read_is_one_line_and_the_same_one(name, tmp_path):
    for value in BAD.get(name, ["x\ny"]):
        result = reconstruct(name, value, tmp_path)
        assert (result.returncode, result.stdout) == (USAGE, "")
        assert result.stderr == f"reconstruct: error: {told_by_python(name, value)}\n"


def test_both_languages_know_the_same_variables():
    source = (ROOT / "cpp_bindings/src/environment.cc").read_text()
    assert set(re.findall('{"((?:OMP|MXNET)_[A-Z_0-9]+)"', source)) == set(RULES)


@pytest.mark.parametrize(("name", "value"), [(THREADS, "2,1"), (THREADS, ""), ("MXNET_EXEC_BULK_EXEC_TRAIN", "True")])
def test_what_is_valid_is_taken(name, value, tmp_path):
    result = reconstruct(name, value, tmp_path)
    assert (result.returncode, result.stderr) == (DONE, "")


def test_the_first_of_several_levels_of_threads_is_for_mxnet():
    variables = {THREADS: " 3 ,2", "MXNET_ENGINE_TYPE": ""}
    check_environment(variables)
    assert variables == {THREADS: "3"}


@pytest.mark.parametrize(("threads", "status"), [("2,1", DONE), ("abc", USAGE)])
def test_python_checks_them_before_it_imports_mxnet(threads, status, tmp_path):
    command = [sys.executable, "-m", "vqvae_gluon", "encode", PRETRAINED, DIGIT, "--output", tmp_path / "x.vq"]
    environment = {**os.environ, THREADS: threads}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == status
    assert result.stderr == ("" if not status else f"vqvae-gluon: error: {told_by_python(THREADS, threads)}\n")


def test_help_needs_no_mxnet_and_none_of_its_variables():
    command = [sys.executable, "-m", "vqvae_gluon", "--help"]
    environment = {**os.environ, THREADS: "abc"}
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == DONE
