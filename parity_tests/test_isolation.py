"""Files that make MXNet crash, take too long or ask for too much: both programs end with 3 and one line."""

import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import PRETRAINED, ROOT, run_cli, run_cli_here, run_reconstruct

from vqvae_gluon.artifacts.trace import open_trace
from vqvae_gluon.runtimes.cpp import find_binary

INPUT = np.ones((3, 2, 4), np.float32)


@pytest.fixture
def export(tmp_path, monkeypatch):
    """Writes a plain export without parameters, whose last node takes the input and one that fills a tensor, and gives
    the words for each program."""
    monkeypatch.chdir(tmp_path)
    np.save("data.npy", INPUT)

    def write(operator: str, attributes: dict[str, str], filled: tuple[str, str] = ("(2,)", "1"), inputs=(0, 1)):
        nodes = [
            {"op": "null", "name": "data", "inputs": []},
            {"op": "_full", "name": "lengths", "attrs": dict(zip(("shape", "value"), filled)), "inputs": []},
            {"op": operator, "name": "node", "attrs": attributes, "inputs": [[k, 0, 0] for k in inputs]},
        ]
        graph = {"nodes": nodes, "arg_nodes": [0], "heads": [[2, 0, 0]], "attrs": {"mxnet_version": ["int", 10901]}}
        (tmp_path / "net-symbol.json").write_text(json.dumps(graph))
        (tmp_path / "net-0000.params").write_bytes(struct.pack("<4Q", 0x112, 0, 0, 0))
        files = ["--symbol", "net-symbol.json", "--params", "net-0000.params"]
        python = ["parity", "record", *files, "--input", "data:3,2,4", "--runtime", "gluon", "--output", "out"]
        return [*files, "--input", "data=data.npy", "--trace", "out"], python

    return write


def crashing(export):
    """MXNet does not check what lengths it is given."""
    return export("SequenceMask", {"use_sequence_length": "True"}, ("(2,)", "-1073741824"))


def check_rejected(result, words: str) -> None:
    assert result.returncode == 3, result.stderr
    (line,) = result.stderr.splitlines()
    assert words in line


def test_a_crash_in_mxnet_is_a_rejection(export, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    cpp, python = crashing(export)
    before = sorted(tmp_path.rglob("*"))
    for result in (run_reconstruct(*cpp), run_cli(*python)):
        check_rejected(result, "error: net-symbol.json: makes MXNet crash; compare the digests of its files")
        assert sorted(tmp_path.rglob("*")) == before


def test_tensors_that_are_too_large_are_not_computed(export, tmp_path):
    cpp, python = export("repeat", {"repeats": "1000000"}, inputs=(0,))
    words = "net-symbol.json: takes 91.6 MiB for its tensors, and the memory limit is 64 MiB; feed smaller batches"
    for result in (run_reconstruct(*cpp, "--memory", 64), run_cli_here(*python, "--memory", 64)):
        check_rejected(result, words)
    assert not (tmp_path / "out").exists()
    assert run_cli_here(*python, "--memory", 128).returncode == 0


def test_copies_of_tensors_count(export):
    """The tensor takes less than the limit; the tensor, and its copy that is recorded, more than the limit and 320 MiB,
    which is what MXNet may take beside. Errors name the file of the user, of whatever part of it they are."""
    cpp, python = export("repeat", {"repeats": "5000000"}, inputs=(0,))
    words = "net-symbol.json: needs more memory for a run than the limit of 460 MiB; feed smaller batches"
    for result in (run_reconstruct(*cpp, "--memory", 460), run_cli(*python, "--memory", 460)):
        check_rejected(result, words)


def test_one_tensor_at_a_time_is_copied(export):
    """Ten of 38 MiB: with a copy of each at once they would not fit into the limit and what MXNet may take beside."""
    cpp, python = export("repeat", {"repeats": "416667"}, inputs=(0,))
    symbol = Path("net-symbol.json")
    graph = json.loads(symbol.read_text())
    for k in range(9):
        graph["nodes"].append({"op": "tanh", "name": f"tanh{k}", "inputs": [[2 + k, 0, 0]]})
    graph["heads"] = [[11, 0, 0]]
    symbol.write_text(json.dumps(graph))
    for run, words in ((run_reconstruct, cpp), (run_cli, python)):
        result = run(*words, "--memory", 400)
        assert result.returncode == 0, result.stderr
        shutil.rmtree("out")


def test_a_tensor_that_mxnet_cannot_count_is_not_computed(export):
    cpp, python = export("tile", {"reps": "(1000, 1000, 1000)"}, inputs=(0,))
    for result in (run_reconstruct(*cpp), run_cli_here(*python)):
        check_rejected(result, "has a tensor of more than 2147483647 elements, which MXNet does not take")


def test_memory_that_shapes_do_not_tell_is_bounded(export):
    """As many counts as the largest number, which no shape tells."""
    cpp, python = export("_npi_bincount", {}, ("(2,)", "1000000000"), inputs=(1,))
    symbol = Path("net-symbol.json")
    symbol.write_text(symbol.read_text().replace('"value"', '"dtype": "int32", "value"'))
    for result in (run_reconstruct(*cpp), run_cli(*python)):
        assert result.returncode == 3, result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_an_attribute_of_many_numbers_takes_no_more_memory_than_its_file(export):
    cpp, python = export("reshape", {"shape": "(" + "1," * 5_000_000 + ")"}, inputs=(0,))
    # By a small process, because Linux counts the memory of whoever starts a program as the program's.
    starter = "import resource, subprocess, sys; print(subprocess.run(sys.argv[1:]).returncode)"
    starter += "; print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for command in ([find_binary(), *cpp], [sys.executable, "-m", "vqvae_gluon", *python]):
        words = [sys.executable, "-c", starter, *map(str, command)]
        result = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        status, kilobytes = map(int, result.stdout.split())
        assert status == 3
        assert kilobytes < 300 << 10, "three times 10 MB, and what the program itself takes"


def test_sparse_results_are_recorded_with_their_zeros(export):
    for stype in ("csr", "row_sparse"):
        shutil.rmtree("out", ignore_errors=True)
        np.save("data.npy", np.array([[1, 0, 2], [0, 0, 0]], np.float32))
        cpp, _ = export("cast_storage", {"stype": stype}, inputs=(0,))
        np.save("data.npy", np.array([[1, 0, 2], [0, 0, 0]], np.float32))
        result = run_reconstruct(*cpp)
        assert result.returncode == 0, result.stderr
        assert open_trace(Path("out")).by_key()["graph", "node"].load().tolist() == [[1, 0, 2], [0, 0, 0]]


def signed_bundle(path: Path, rows: list[tuple[str, dict[str, str], list[int]]]) -> Path:
    """The digits' bundle, with nodes behind its codes: operators, attributes and inputs, counted from their places. The
    sum of what the last one gives is added to the codes."""
    shutil.copytree(PRETRAINED, path, ignore=shutil.ignore_patterns("digits", "*.csv", "*.png"))
    symbol = path / "encoder-symbol.json"
    document = json.loads(symbol.read_text())
    codes = document["heads"][0][0]
    nodes = document["nodes"]
    for operator, attributes, inputs in [*rows, ("sum", {}, [-1]), ("Cast", {"dtype": "int32"}, [-1])]:
        places = [[len(nodes) + place, 0, 0] for place in inputs]
        nodes.append({"op": operator, "name": f"added{len(nodes)}", "attrs": attributes, "inputs": places})
    nodes.append({"op": "broadcast_add", "name": "sum", "inputs": [[codes, 0, 0], [len(nodes) - 1, 0, 0]]})
    document["heads"] = [[len(nodes) - 1, 0, 0]]
    symbol.write_text(json.dumps(document))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][symbol.name]["sha256"] = hashlib.sha256(symbol.read_bytes()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def test_a_bundle_is_quantized_and_its_folders_are_encoded_within_limits(tmp_path):
    """A tensor of a gigabyte, and a crash; see also test_bulk."""
    np.save(tmp_path / "images.npy", np.zeros((2, 28, 28), np.uint8))
    (tmp_path / "images").mkdir()
    shutil.copy(PRETRAINED / "digits" / "00.png", tmp_path / "images")
    large = signed_bundle(tmp_path / "large", [("_zeros", {"shape": "(1100000000,)"}, [])])
    beyond = [  # MXNet does not check the lengths that softmax is given.
        ("Cast", {"dtype": "float32"}, [-1]),
        ("mean", {"axis": "2"}, [-1]),
        ("_mul_scalar", {"scalar": "0"}, [-1]),
        ("_plus_scalar", {"scalar": "1e9"}, [-1]),
        ("Cast", {"dtype": "int32"}, [-1]),
        ("softmax", {"use_length": "True", "axis": "-1"}, [-5, -1]),
    ]
    crash = signed_bundle(tmp_path / "crash", beyond)
    quantize = ("--precision", "int8", "--data", tmp_path / "images.npy", "--output", tmp_path / "out")
    for bundle, words in ((large, "MiB for its tensors, and the memory limit is"), (crash, "makes MXNet crash")):
        encode = (tmp_path / "images", "--output", tmp_path / f"codes of {bundle.name}", "--jobs", 1)
        for command in (("export", bundle, *quantize), ("encode-folder", bundle, *encode)):
            check_rejected(run_cli(*command), words)
            assert not (tmp_path / "out").exists()


def test_a_limit_of_the_user_is_not_the_files_fault(export):
    cpp, _ = crashing(export)
    command = 'ulimit -v 4000000; exec "$@"'
    binary = find_binary()
    result = subprocess.run(["sh", "-c", command, "sh", str(binary), *cpp], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "MXNet crashed, perhaps for want of memory; raise the limit that 'ulimit -v' sets" in result.stderr


def isolated(work: str) -> subprocess.Popen:
    """A process in which some Python is isolated."""
    script = f"""
import os, signal, sys, time
from vqvae_gluon.isolation import isolated

def work():
{chr(10).join("    " + line for line in work.splitlines())}

def tell(code, message):
    print(message, file=sys.stderr)
    return code

sys.exit(isolated(work, tell))
"""
    return subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("work", "status", "told"),
    [
        ("return 4", 4, ""),
        ("sys.exit(2)", 2, ""),
        ("os.abort()", 3, "makes MXNet crash"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 3, "makes MXNet crash"),
        ("os._exit(255)", 3, "makes MXNet crash"),
        ("signal.setitimer(signal.ITIMER_PROF, 0.01)\nwhile True: pass", 3, "takes too long"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
    ],
)
def test_how_the_child_ends_is_how_the_program_ends(work, status, told):
    process = isolated(work)
    _, error = process.communicate(timeout=60)
    assert process.returncode == status
    assert told in error and bool(told) == bool(error)


def test_signals_are_passed_on():
    # Not by print(): the signal may come while that writes what is waited for here.
    process = isolated(
        "def heed(*_):\n    os.write(1, b'heeded\\n')\n    os._exit(7)\n"
        "signal.signal(signal.SIGTERM, heed)\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.communicate(timeout=60)[0] == "heeded\n"
    assert process.returncode == 7


def test_the_child_ends_with_the_program():
    process = isolated("print(os.getpid(), flush=True)\ntime.sleep(60)")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait(timeout=60)
    for _ in range(100):
        if not os.path.exists(f"/proc/{child}"):
            return
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            return  # Nobody has waited for it yet.
        time.sleep(0.05)
    pytest.fail("the child goes on")
