"""Recording on one machine, comparing on another."""

import json
import os

import networks
import numpy as np
import pytest
from conftest import PRETRAINED, alter_parameters, run_cli, run_cli_here

from vqvae_gluon.artifacts.bundle import graph_files
from vqvae_gluon.artifacts.trace import TraceWriter, open_trace
from vqvae_gluon.data import load_split
from vqvae_gluon.errors import DIVERGED, DONE, REJECTED, InputError
from vqvae_gluon.parity.recorded import compare_traces, record_export
from vqvae_gluon.parity.report import to_json
from vqvae_gluon.runtimes import RUNTIMES


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A recording of the reference on the pretrained bundle."""
    path = tmp_path_factory.mktemp("recorded") / "trained"
    result = run_cli("parity", "record", PRETRAINED, "--runtime", "gluon", "--count", 8, "--output", path)
    assert result.returncode == DONE, result.stderr
    return path


@pytest.mark.parametrize("runtime", ["cpp", "cpp-executor"])
def test_a_deployment_that_is_right_agrees(trained, tmp_path, runtime):
    deployed = tmp_path / "deployed"
    result = run_cli("parity", "record", PRETRAINED, "--runtime", runtime, "--data", trained, "--output", deployed)
    assert result.returncode == DONE, result.stderr
    result = run_cli("parity", "compare", trained, deployed, "--json")
    report = json.loads(result.stdout)
    assert (result.returncode, report["verdict"]) == (DONE, "agree"), report["cause"]
    assert (report["nodes_compared"], report["nodes_skipped"]) == (24, 0)
    assert report["codes"] == {"compared": 392, "equal": 392, "legal_flips": 0, "real_flips": 0}
    assert report["expected"] == ("bit equality" if runtime == "cpp" else "the bounds of the arbiter")


def test_a_deployment_with_another_weight_names_it(trained, bundle, tmp_path):
    def change(arrays):
        arrays["arg:encoder_conv1_weight"][3, 5, 1, 1] += 0.25

    alter_parameters(graph_files(bundle, "encoder").params, change)
    run_cli("parity", "record", bundle, "--runtime", "cpp", "--data", trained, "--output", tmp_path / "deployed")
    result = run_cli("parity", "compare", trained, tmp_path / "deployed", "--json")
    report = json.loads(result.stdout)
    assert result.returncode == DIVERGED
    assert report["first_divergent"]["node"] == "encoder_conv1_fwd"
    assert report["cause"]["name"] == "one corrupted value"
    # Its decoder was fed the codes of the other recording.
    assert all(node["equal"] for node in report["nodes"] if node["stage"] == "decoder")


def test_other_images_are_no_agreement(trained, tmp_path):
    np.save(tmp_path / "others.npy", load_split("mnist", "test", 1)[8:16])
    others = ["--data", tmp_path / "others.npy", "--output", tmp_path / "b"]
    assert run_cli("parity", "record", PRETRAINED, "--runtime", "cpp", *others).returncode == DONE
    report = compare_traces(trained, tmp_path / "b")
    assert report.verdict == "diverge"
    assert report.first_divergent is not None
    assert report.first_divergent.comparison.key == ("input", "pixels")


def changed(trace, path, change, runtime="a deployed program"):
    """A copy of a trace with other values, as a foreign program might have written it: without its network."""
    writer = TraceWriter(path, runtime)
    for node in trace.nodes:
        values = change(node, np.array(node.load()))
        if values is not None:
            writer.add(node.stage, node.name, node.operator, values)
    return writer.close()


def test_values_that_are_not_those_of_the_index_are_refused(trained, tmp_path):
    trace = changed(open_trace(trained), tmp_path / "b", lambda node, values: values)
    node = next(node for node in trace.nodes if node.name == "encoder_conv1_fwd")
    np.save(node.path, np.zeros(node.shape, node.dtype))
    with pytest.raises(InputError, match=r"is not what trace\.json says"):
        compare_traces(trained, tmp_path / "b")


def test_results_of_the_whole_way_are_judged(trained, tmp_path):
    changed(open_trace(trained), tmp_path / "b", lambda node, values: values * 0 if node.stage == "output" else values)
    report = to_json(compare_traces(trained, tmp_path / "b"))
    assert report["verdict"] == "diverge"
    assert report["first_divergent"]["node"] == "codes"


def test_a_runtime_that_fuses_is_not_judged_by_its_taps_alone(trained, tmp_path):
    tapped = lambda node, values: None if node.stage.endswith("-output") else values  # noqa: E731
    changed(open_trace(trained), tmp_path / "fused", tapped, runtime="cpp-executor")
    report = to_json(compare_traces(trained, tmp_path / "fused"))
    assert report["verdict"] == "invalid"
    assert "holds no results of the stage decoder without taps" in report["failure"]
    changed(open_trace(trained), tmp_path / "foreign", tapped)
    report = to_json(compare_traces(trained, tmp_path / "foreign"))
    assert report["verdict"] == "agree", report["cause"]
    assert any("without taps" in note for note in report["notes"])


def test_another_byte_order_is_refused(trained, tmp_path):
    trace = changed(open_trace(trained), tmp_path / "b", lambda node, values: values)
    node = next(node for node in trace.nodes if node.name == "encoder_conv1_fwd")
    assert node.path is not None
    node.path.write_bytes(node.path.read_bytes().replace(b"'<f4'", b"'>f4'", 1))
    with pytest.raises(InputError, match="byte order"):
        compare_traces(trained, tmp_path / "b")


def test_a_node_that_is_missing_is_no_agreement(trained, tmp_path):
    drop = lambda node, values: None if node.name == "encoder_relu1_fwd" else values  # noqa: E731
    changed(open_trace(trained), tmp_path / "b", drop)
    report = to_json(compare_traces(trained, tmp_path / "b"))
    assert (report["verdict"], report["nodes_skipped"]) == ("diverge", 1)
    assert report["first_divergent"]["node"] == "encoder_relu1_fwd"


def test_another_machine_is_held_to_the_bounds_and_not_to_the_bits(trained, tmp_path):
    def rounded_otherwise(node, values):
        if node.name in ("encoder_latent_fwd", "encoder_tanh_fwd"):
            values += np.float32(2e-7) * np.sign(values)
        return values

    changed(open_trace(trained), tmp_path / "b", rounded_otherwise, runtime="cpp")
    assert compare_traces(trained, tmp_path / "b").verdict == "diverge", "on one machine the bits are the same"
    index = json.loads((tmp_path / "b" / "trace.json").read_text())
    index["environment"]["processor"] = "another"
    (tmp_path / "b" / "trace.json").write_text(json.dumps(index))
    report = compare_traces(trained, tmp_path / "b")
    assert report.verdict == "agree", report.cause


def test_a_plain_export_whose_codes_flip_in_the_middle_cannot_be_judged_behind_them(tmp_path):
    net = networks.initialized(networks.ResidualVQVAE(prefix=""), (2, 3, 16, 16))
    net.codebook.set_data(net.codebook.data() * 0 + 0.1)  # Every row is the same: each code is a tie.
    files = networks.export(net, tmp_path, (2, 3, 16, 16))
    images = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype("f")
    trace = record_export(RUNTIMES["gluon"](), files, {"data": images}, tmp_path / "a")
    assert compare_traces(tmp_path / "a", tmp_path / "a").verdict == "agree"
    changed(trace, tmp_path / "b", lambda node, values: (values + 1) % 32 if node.name == "codes" else values)
    report = to_json(compare_traces(tmp_path / "a", tmp_path / "b"))
    assert report["verdict"] == "invalid"
    assert "lie behind values that jumped" in report["failure"]


def test_traces_are_whole_or_absent(trained, tmp_path):
    result = run_cli("parity", "record", PRETRAINED, "--runtime", "cpp", "--output", trained)
    assert result.returncode == REJECTED
    assert "is taken" in result.stderr
    result = run_cli("parity", "record", tmp_path, "--runtime", "cpp", "--output", tmp_path / "new")
    assert result.returncode == REJECTED
    assert list(tmp_path.iterdir()) == []


def test_a_reference_without_its_network_is_refused(trained, tmp_path):
    changed(open_trace(trained), tmp_path / "b", lambda node, values: values)
    result = run_cli("parity", "compare", tmp_path / "b", trained)
    assert (result.returncode, len(result.stderr.splitlines())) == (REJECTED, 1)
    assert "holds no network" in result.stderr


@pytest.fixture
def small(tmp_path):
    """A trace of one tensor, and its index, to be altered."""
    writer = TraceWriter(tmp_path / "small", "gluon")
    writer.add("graph", "data", "input", np.arange(3, dtype=np.float32))
    writer.close()
    return tmp_path / "small", json.loads((tmp_path / "small" / "trace.json").read_text())


@pytest.mark.parametrize(
    "name", ["fifo", "/dev/zero", "../elsewhere.npy", "..", ".", "", "directory", "link", "x\0", 3]
)
def test_a_trace_reads_no_file_but_its_own(small, tmp_path, name):
    directory, index = small
    (directory / "00000.npy").rename(tmp_path / "elsewhere.npy")
    os.mkfifo(directory / "fifo")
    (directory / "link").symlink_to(tmp_path / "elsewhere.npy")
    index["nodes"][0]["file"] = name
    (directory / "trace.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"is not a file of the trace|is no file|outside of its trace") as caught:
        open_trace(directory).get("graph", "data")
    result = run_cli_here("parity", "compare", directory, directory)
    assert (result.returncode, len(result.stderr.splitlines())) == (REJECTED, 1), caught


@pytest.mark.parametrize("kind", ["fifo", "/dev/zero", "nothing"])
def test_an_index_that_is_no_file_is_not_opened(small, kind):
    directory, _ = small
    (directory / "trace.json").unlink()
    if kind == "fifo":
        os.mkfifo(directory / "trace.json")
    elif kind == "/dev/zero":
        (directory / "trace.json").symlink_to(kind)
    with pytest.raises(InputError, match=r"is not a whole trace .it does not exist or is no file"):
        open_trace(directory)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 10**400},
        {"runtime": 3},
        {"nodes": None},
        {"nodes": [[]] * 9},
        {"nodes": [{}]},
        {"environment": {"mxnet": 3}},
        {"environment": []},
        {"shape": [3.0]},
        {"shape": [True]},
        {"shape": [-1]},
        {"shape": [10**30]},
        {"shape": [1] * 33},
        {"shape": "3"},
        {"nonfinite": 4},
        {"nonfinite": -1},
        {"sha256": "x"},
        {"dtype": None},
        {"name": ["data"]},
    ],
)
def test_an_index_that_makes_no_sense_is_refused(small, change):
    directory, index = small
    for key, value in change.items():
        (index if key in index else index["nodes"][0])[key] = value
    (directory / "trace.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="is not a whole trace"):
        open_trace(directory)


def test_an_index_is_bounded_before_it_is_read(small):
    directory, _ = small
    for content, why in ((b"[" * 10**5, "nested too deep"), (b" " * (1 << 24) + b" ", "is larger than the limit")):
        (directory / "trace.json").write_bytes(content)
        with pytest.raises(InputError, match=why):
            open_trace(directory)


def test_a_tensor_is_of_the_type_and_shape_that_the_index_says(small):
    directory, index = small
    for change in ({"shape": [1, 3]}, {"dtype": "int32"}, {"sha256": "0" * 64}):
        changed_row = {**index["nodes"][0], **change}
        (directory / "trace.json").write_text(json.dumps({**index, "nodes": [changed_row]}))
        with pytest.raises(InputError, match=r"is not what trace.json says"):
            open_trace(directory).get("graph", "data")
