"""The folder that a divergence is reported with: run as somebody upstream would run it, without this package."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import networks
import numpy as np
import pytest
from conftest import PRETRAINED, ROOT, alter_parameters, run_cli, run_cli_here

from vqvae_gluon.artifacts.bundle import GraphFiles, graph_files
from vqvae_gluon.artifacts.graph import read_graph
from vqvae_gluon.artifacts.parameters import read_parameters
from vqvae_gluon.artifacts.trace import TraceWriter, open_trace
from vqvae_gluon.compat import mx
from vqvae_gluon.errors import DIVERGED, DONE, REJECTED
from vqvae_gluon.parity.harness import compare_exports
from vqvae_gluon.parity.inputs import Feed
from vqvae_gluon.parity.recorded import compare_traces, record_export
from vqvae_gluon.runtimes import RUNTIMES

ENGINES = ["CachedOp", "executor", "executor with MXNET_SUBGRAPH_BACKEND=NONE"]
FILES, FOUND = "CachedOp on the candidate's files", "the candidate, as it was found"
PROGRAMS = {"Makefile", "README.md", "repro.cc", "repro.py", "tolerance.txt"}
NETWORK = {"node-symbol.json", "node-0000.params", "inputs"}
OTHERS = {"candidate-symbol.json", "candidate-0000.params"}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """What somebody's environment has who has never heard of this package."""
    path = tmp_path_factory.mktemp("elsewhere")
    for name in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(name).iterdir():
            if "vqvae" not in entry.name.lower() and not (path / entry.name).exists():
                (path / entry.name).symlink_to(entry)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(path)}
    ours = subprocess.run(
        [sys.executable, "-S", "-c", "import vqvae_gluon"], cwd=path, env=environment, capture_output=True, check=False
    )
    assert b"No module named 'vqvae_gluon'" in ours.stderr
    return environment


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    return networks.residual(tmp_path_factory.mktemp("residual"))


@pytest.fixture(scope="module")
def fused(residual, tmp_path_factory):
    """By the name of the candidate: what the command said of a fault of fusion, and the folder that it wrote."""
    found = {}
    for candidate in ("executor", "cpp-executor"):
        folder = tmp_path_factory.mktemp(candidate) / "folder"
        found[candidate] = compare(residual, candidate, folder), folder
    return found


@pytest.fixture(scope="module")
def program(fused, tmp_path_factory):
    """The C++ program, which is the same in every folder; built by the folder's own Makefile."""
    _, written = fused["cpp-executor"]
    folder = shutil.copytree(written, tmp_path_factory.mktemp("program") / "folder")
    built = subprocess.run(
        ["make", "-C", folder, f"PYTHON={sys.executable}"], capture_output=True, text=True, check=False
    )
    assert (built.returncode, built.stderr) == (0, "")
    return folder / "repro"


def compare(files: GraphFiles, candidate: str, folder: Path) -> subprocess.CompletedProcess:
    subject = ["--symbol", files.symbol, "--params", files.params, "--input", "data:4,3,32,32"]
    return run_cli("parity", *subject, "--candidate", candidate, "--repro", folder)


def run_both(folder: Path, program: Path, environment: dict, directory: Path) -> tuple[int, dict[str, bool]]:
    """The exit code of both programs of a folder, and which engines they call right; they print the same. The folder is
    carried off first."""
    carried = shutil.copytree(folder, directory / "carried")
    commands = [sys.executable, "-S", "repro.py"], [str(program), "."]
    results = [
        subprocess.run(command, cwd=carried, env=environment, capture_output=True, text=True, check=False)
        for command in commands
    ]
    python, cpp = ((result.returncode, result.stdout.splitlines()) for result in results)
    assert python == cpp, results[0].stderr + results[1].stderr
    code, lines = python
    told = [
        re.fullmatch(r"(.+): largest error ([\d.e+-]+|inf), allowed ([\d.e+-]+): (right|WRONG)", text) for text in lines
    ]
    assert all(told), lines
    for line in told:
        assert line is not None
        assert (float(line[2]) <= float(line[3])) == (line[4] == "right")
    return code, {line[1]: line[4] == "right" for line in told if line is not None}


def right(wrong: list[str]) -> dict[str, bool]:
    """Every engine, and whether it is right."""
    return {**dict.fromkeys(ENGINES, True), **dict.fromkeys(wrong, False)}


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def inputs(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "inputs").iterdir()}


@pytest.mark.parametrize("candidate", ["executor", "cpp-executor"])
def test_a_fault_of_fusion_needs_the_nodes_that_are_fused_and_no_more(candidate, fused, program, elsewhere, tmp_path):
    result, folder = fused[candidate]
    assert result.returncode == DIVERGED, result.stderr
    assert f"repro: {folder}" in result.stderr
    assert contents(folder.parent) == {"folder"}
    assert contents(folder) == PROGRAMS | NETWORK | {"expected-0.npy", "actual-0.npy"}
    graph = read_graph(folder / "node-symbol.json")
    # x + conv1(relu(conv0(relu(x)))), where x is what a convolution gives.
    assert [node.operator for node in graph.operators()] == [
        *("Convolution", "Activation", "Convolution", "Activation", "Convolution", "elemwise_add")
    ]
    assert inputs(folder) == {"encoder_relu_fwd"}
    assert np.load(folder / "inputs" / "encoder_relu_fwd.npy").shape == (1, 16, 16, 16)
    assert run_both(folder, program, elsewhere, tmp_path) == (DIVERGED, right(wrong=["executor", FOUND]))
    readme = (folder / "README.md").read_text()
    assert result.stdout.splitlines()[0] in readme
    assert "`graph/encoder_block0_sum` (elemwise_add)" in readme
    assert "hold 6 nodes" in readme
    assert "MXNet: 1.9.1" in readme


def test_a_folder_that_is_mended_ends_with_0(fused, program, elsewhere, tmp_path):
    """The exit code is the programs' own judgement, of the numbers in the folder."""
    shutil.copytree(fused["cpp-executor"][1], tmp_path / "folder")
    symbol = tmp_path / "folder" / "node-symbol.json"
    document = json.loads(symbol.read_text())
    for node in document["nodes"]:
        if node["name"] == "encoder_block0_relu0_fwd":
            node.update(op="relu", attrs={})  # The same function, by an operator that is not fused.
    symbol.write_text(json.dumps(document))
    assert run_both(tmp_path / "folder", program, elsewhere, tmp_path)[0] == DONE


def test_another_weight_is_shown_by_both_files(bundle, program, elsewhere, tmp_path):
    subprocess.run([sys.executable, ROOT / "docs/change_one_weight.py", PRETRAINED, bundle], check=True)
    options = ["--candidate", "cpp", "--candidate-bundle", bundle, "--data", PRETRAINED / "digits"]
    result = run_cli("parity", PRETRAINED, *options, "--repro", tmp_path / "out" / "folder")
    assert result.returncode == DIVERGED, result.stderr
    folder = tmp_path / "out" / "folder"
    assert contents(folder) == PROGRAMS | NETWORK | OTHERS | {"expected-0.npy", "actual-0.npy"}
    assert [node.name for node in read_graph(folder / "node-symbol.json").operators()] == ["encoder_latent_fwd"]
    assert np.load(folder / "inputs" / "encoder_relu1_fwd.npy").shape[0] == 1
    ours, theirs = (read_parameters(graph_files(folder, name).params) for name in ("node", "candidate"))
    assert np.argwhere(ours["arg:encoder_latent_weight"] != theirs["arg:encoder_latent_weight"]).tolist() == [
        [3, 5, 0, 0]
    ]
    assert run_both(folder, program, elsewhere, tmp_path) == (DIVERGED, right(wrong=[FILES, FOUND]))
    assert "parameter differs: encoder_latent_weight: 1 of 1024 values" in (folder / "README.md").read_text()


def test_a_node_that_takes_parameters_alone(bundle, program, elsewhere, tmp_path):
    def change(arrays):
        arrays["arg:quantizer_codebook"][3] += 1

    alter_parameters(graph_files(bundle, "encoder").params, change)
    options = ["--candidate", "cpp", "--candidate-bundle", bundle, "--data", PRETRAINED / "digits"]
    result = run_cli("parity", PRETRAINED, *options, "--repro", tmp_path / "folder")
    assert result.returncode == DIVERGED, result.stderr
    assert inputs(tmp_path / "folder") == set()
    engines = run_both(tmp_path / "folder", program, elsewhere, tmp_path)
    assert engines == (DIVERGED, right(wrong=[FILES, FOUND]))


@pytest.fixture
def halves(tmp_path):
    """Halves of halves, an export: the axis that the second time is halved along, and the name of a node between."""

    def graph(axis: int, between: str) -> GraphFiles:
        first = mx.sym.split(mx.sym.var("data"), num_outputs=2, axis=1, name="first~half")
        twice = mx.sym.elemwise_add(first[1], first[1], name=between)
        second = mx.sym.split(twice, num_outputs=2, axis=axis, name="second:half")
        files = graph_files(tmp_path, f"{between}{axis}")
        mx.sym.Group([first[0], second[0], second[1]]).save(str(files.symbol))
        mx.nd.save(str(files.params), {})
        return files

    return graph


def compare_here(ours: GraphFiles, theirs: GraphFiles, folder: Path):
    values = np.random.default_rng(0).normal(size=(2, 4, 4, 4)).astype("f")
    feed = Feed("random numbers", {"data": values}, 2, [])
    runtimes = RUNTIMES["gluon"](), RUNTIMES["gluon-eager"]()
    report = compare_exports(*runtimes, ours, theirs, feed, repro=folder)
    assert report.verdict == "diverge", report.failure
    return folder


def test_names_are_plain_and_all_outputs_are_there(halves, program, elsewhere, tmp_path):
    folder = compare_here(halves(2, "twice"), halves(3, "twice"), tmp_path / "folder")
    assert contents(folder) >= OTHERS | {"expected-0.npy", "expected-1.npy", "actual-0.npy", "actual-1.npy"}
    (node,) = read_graph(folder / "node-symbol.json").operators()
    assert node.name == "second_half"
    assert run_both(folder, program, elsewhere, tmp_path) == (DIVERGED, right(wrong=[FILES, FOUND]))


def test_a_node_that_the_candidate_does_not_have_needs_both_graphs_whole(halves, program, elsewhere, tmp_path):
    folder = compare_here(halves(2, "twice"), halves(3, "double"), tmp_path / "folder")
    assert len(read_graph(folder / "node-symbol.json").operators()) == 3
    assert "does not have it" in (folder / "README.md").read_text()
    engines = run_both(folder, program, elsewhere, tmp_path)
    assert engines == (DIVERGED, right(wrong=[FILES, FOUND]))


def recording(files: GraphFiles, runtime: str, path: Path):
    values = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype("f")
    return record_export(RUNTIMES[runtime](), files, {"data": values}, path)


def test_what_was_recorded_elsewhere_is_one_node_and_its_values(residual, program, elsewhere, tmp_path):
    trace = recording(residual, "gluon", tmp_path / "a")
    writer = TraceWriter(tmp_path / "b", "a program of theirs")
    for node in trace.nodes:
        change = 0.5 if node.name == "encoder_stem_fwd" else 0
        writer.add(node.stage, node.name, node.operator, np.array(node.load() + np.array(change, node.dtype)))
    writer.close()
    report = compare_traces(tmp_path / "a", tmp_path / "b", repro=tmp_path / "folder")
    assert report.verdict == "diverge"
    folder = tmp_path / "folder"
    assert contents(folder) == PROGRAMS | NETWORK | {"expected-0.npy", "actual-0.npy"}
    assert [node.name for node in read_graph(folder / "node-symbol.json").operators()] == ["encoder_stem_fwd"]
    recorded = open_trace(tmp_path / "b").get("graph", "encoder_stem_fwd")
    np.testing.assert_array_equal(np.load(folder / "actual-0.npy"), recorded)
    assert run_both(folder, program, elsewhere, tmp_path) == (DONE, right(wrong=[FOUND]))
    assert "what a program of theirs gave when it was recorded" in (folder / "README.md").read_text()


def test_a_recording_of_a_runtime_that_fuses_is_run_again(residual, program, elsewhere, tmp_path):
    for name, runtime in (("a", "gluon"), ("b", "cpp-executor")):
        recording(residual, runtime, tmp_path / name)
    result = run_cli("parity", "compare", tmp_path / "a", tmp_path / "b", "--repro", tmp_path / "folder")
    assert result.returncode == DIVERGED, result.stderr
    # It was recorded without taps at its outputs alone, so it is the codes that are known to be wrong.
    assert [node.name for node in read_graph(tmp_path / "folder" / "node-symbol.json").operators()] == [
        *(f"encoder_{name}" for name in ("stem_fwd", "block0_relu0_fwd", "block0_conv0_fwd", "block0_relu1_fwd")),
        *("encoder_block0_conv1_fwd", "encoder_block0_sum", "encoder_block1_sum", "distances", "codes"),
    ]
    engines = run_both(tmp_path / "folder", program, elsewhere, tmp_path)
    assert engines == (DIVERGED, right(wrong=["executor", FOUND]))


def test_where_no_node_is_wrong_there_is_a_note_and_no_graph(residual, tmp_path):
    trace = recording(residual, "gluon", tmp_path / "a")
    writer = TraceWriter(tmp_path / "b", "gluon")
    for node in trace.nodes:
        writer.add(node.stage, node.name, node.operator, np.array(node.load()) * (2 if node.name == "data" else 1))
    writer.close()
    result = run_cli("parity", "compare", tmp_path / "a", tmp_path / "b", "--repro", tmp_path / "folder")
    assert result.returncode == DIVERGED, result.stderr
    assert contents(tmp_path / "folder") == {"README.md", "expected-0.npy", "actual-0.npy"}
    assert "The fault lies before the network" in (tmp_path / "folder" / "README.md").read_text()
    expected, actual = (np.load(tmp_path / "folder" / f"{name}-0.npy") for name in ("expected", "actual"))
    np.testing.assert_array_equal(expected * 2, actual)


def test_where_the_two_agree_nothing_is_written(residual, tmp_path):
    result = compare(residual, "cpp", tmp_path / "folder")
    assert result.returncode == DONE
    assert "repro: nothing was written, the two agree" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_taken_is_refused_before_anything_is_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    missing = GraphFiles(tmp_path / "net-symbol.json", tmp_path / "net-0000.params")
    files = ["--symbol", missing.symbol, "--params", missing.params, "--input", "data:1,1"]
    for command in (["parity", PRETRAINED, "--candidate", "cpp"], ["parity", "compare", tmp_path, tmp_path]):
        result = run_cli_here(*command, "--repro", tmp_path)
        assert (result.returncode, len(result.stderr.splitlines())) == (REJECTED, 1)
        assert "is taken; choose another directory for --repro" in result.stderr
    assert run_cli_here("parity", *files, "--candidate", "cpp", "--repro", tmp_path / "new").returncode == REJECTED
    assert contents(tmp_path) == {"notes.txt"}
