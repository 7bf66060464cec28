"""Bundles: MXNet reads them, and nothing that is not one is believed, in Python and in C++ alike."""

import json
import struct

import numpy as np
import pytest
from conftest import PRETRAINED, alter_parameters, run_cli_here, run_reconstruct

from vqvae_gluon.artifacts import bundle as bundles
from vqvae_gluon.artifacts.binding import check_binding, read_network
from vqvae_gluon.artifacts.bundle import GraphFiles, graph_files, open_bundle
from vqvae_gluon.artifacts.graph import read_graph
from vqvae_gluon.artifacts.parameters import read_parameters
from vqvae_gluon.compat import mx
from vqvae_gluon.data.images import to_tensor
from vqvae_gluon.errors import REJECTED, InputError
from vqvae_gluon.files import digest
from vqvae_gluon.runtimes.gluon import GluonGraph, Predictor

DIGIT = PRETRAINED / "digits" / "00.png"


def sign(bundle):
    """Make the manifest's digests fit altered files, so that only the other checks are left."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    for name, entry in manifest["files"].items():
        entry["sha256"] = digest(bundle / name)
    path.write_text(json.dumps(manifest))


def check_both_reject(bundle, words, tmp_path):
    """Both programs reject the bundle in one line that holds the words, and write nothing."""
    for run, arguments in (
        (run_cli_here, ["reconstruct", bundle, DIGIT]),
        (run_reconstruct, ["--bundle", bundle, DIGIT]),
    ):
        output = tmp_path / "out"
        result = run(*arguments, "--output", output)
        assert result.returncode == REJECTED, result.stderr
        assert len(result.stderr.splitlines()) == 1
        for word in words:
            assert word in result.stderr
        assert not output.exists() or not any(output.iterdir())


def test_gluons_own_loader_reads_both_halves(digits):
    predictor = Predictor(open_bundle(PRETRAINED))
    codes = predictor.encode(digits[:4])
    for stage, name, values, expected in (
        ("encoder", "data", to_tensor(digits[:4]), codes),
        ("decoder", "codes", codes, predictor.decode(codes)),
    ):
        files = graph_files(PRETRAINED, stage)
        block = mx.gluon.SymbolBlock.imports(str(files.symbol), [name], str(files.params))
        np.testing.assert_array_equal(block(mx.nd.array(values, dtype=values.dtype)).asnumpy(), expected)


def test_the_graph_owns_its_preprocessing(digits):
    codes = Predictor(open_bundle(PRETRAINED)).encode(digits[:2])
    graph = GluonGraph(read_network(graph_files(PRETRAINED, "encoder")), ["data"])
    ((_, _, raw),) = graph.run({"data": digits[:2].transpose(0, 3, 1, 2).astype(np.float32)})
    np.testing.assert_array_equal(raw, codes)


def test_our_reader_and_mxnets_read_the_same():
    for stage in bundles.STAGES:
        path = graph_files(PRETRAINED, stage).params
        ours, theirs = read_parameters(path), mx.nd.load(str(path))
        assert ours.keys() == theirs.keys()
        for name, values in ours.items():
            np.testing.assert_array_equal(values, theirs[name].asnumpy())


@pytest.mark.parametrize("name", ["manifest.json", *bundles.file_names()])
def test_a_bundle_that_lacks_a_file_is_rejected(bundle, tmp_path, name):
    (bundle / name).unlink()
    check_both_reject(bundle, [str(bundle)], tmp_path)


@pytest.mark.parametrize("name", bundles.file_names())
def test_a_wrong_digest_is_rejected(bundle, tmp_path, name):
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    check_both_reject(bundle, [name, "its SHA-256 is not the manifest's", "copy the whole bundle again"], tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', '{"format": 99}', "[" * 100_000])
def test_a_manifest_that_is_not_sound_is_rejected(bundle, tmp_path, text):
    (bundle / "manifest.json").write_text(text)
    check_both_reject(bundle, ["manifest.json", "; copy the"], tmp_path)


def corrupt(offset, layout, value):
    def change(data):
        struct.pack_into(layout, data, offset, value)

    return change


PARAMETER_ATTACKS = {
    "empty": lambda data: data.clear(),
    "cut": lambda data: data.__delitem__(slice(len(data) - 1, None)),
    "longer": lambda data: data.extend(b"\0"),
    "tensors: too many": corrupt(16, "<Q", 2**63),
    "tensors: one more": corrupt(16, "<Q", 8),
    "tensor magic": corrupt(24, "<I", 0xF993FAC8),
    "sparse": corrupt(28, "<i", 1),
    "dimensions: -1": corrupt(32, "<i", -1),
    "dimensions: 0": corrupt(32, "<i", 0),
    "dimensions: huge": corrupt(32, "<i", 2**31 - 1),
    "extent: -1": corrupt(36, "<q", -1),
    "extent: 0": corrupt(36, "<q", 0),
    "extent: huge": corrupt(36, "<q", 2**62),
    "type": corrupt(76, "<i", 99),
    "type: another size": corrupt(76, "<i", 1),
}


@pytest.mark.parametrize("attack", PARAMETER_ATTACKS)
def test_a_parameter_file_that_is_not_sound_is_rejected(bundle, encoder, tmp_path, attack):
    data = bytearray(encoder.params.read_bytes())
    PARAMETER_ATTACKS[attack](data)
    encoder.params.write_bytes(data)
    sign(bundle)
    check_both_reject(
        bundle, ["encoder-0000.params", "is damaged", "copy the file again and compare its digest"], tmp_path
    )


DEPLOY = "deploy the parameter file that net.export(prefix) wrote with this graph"


@pytest.mark.parametrize(
    ("change", "words", "remedy"),
    [
        (lambda a: a.pop("arg:encoder_conv1_bias"), "parameter missing: encoder_conv1_bias", DEPLOY),
        (lambda a: a.update({"arg:stray": np.ones(3)}), "parameter unknown: arg:stray", DEPLOY),
        (lambda a: a.update({"aux:encoder_conv1_bias": np.ones(64)}), "unknown: aux:encoder_conv1_bias", DEPLOY),
        (
            lambda a: a.update({"aux:quantizer_codebook": a.pop("arg:quantizer_codebook")}),
            "wrong prefix: quantizer_codebook",
            "store arguments as arg: and auxiliary states as aux:",
        ),
        (lambda a: a.update({"arg:encoder_conv1_bias": np.ones(63)}), "wrong shape: encoder_conv1_bias", DEPLOY),
        (lambda a: a["arg:encoder_conv0_weight"].fill(np.nan), "encoder_conv0_weight", "take a checkpoint of before"),
        (
            lambda a: a.update({"encoder_conv1_bias": a["arg:encoder_conv1_bias"]}),
            "with and without the prefix",
            "net.export(prefix) writes",
        ),
    ],
    ids=["missing", "unknown", "twice", "prefix", "shape", "NaN", "twice without a prefix"],
)
def test_parameters_that_do_not_fit_the_graph_are_named(bundle, encoder, tmp_path, change, words, remedy):
    alter_parameters(encoder.params, change)
    sign(bundle)
    check_both_reject(bundle, ["encoder-0000.params", words, remedy], tmp_path)


GRAPH_ATTACKS = {
    "head that is not there": lambda graph: graph.update(heads=[[50, 0, 0]]),
    "no head": lambda graph: graph.update(heads=[]),
    "input that comes later": lambda graph: graph["nodes"][1].update(inputs=[[20, 0, 0]]),
    "input that is not there": lambda graph: graph["nodes"][4].update(inputs=[[5000, 0, 0]]),
    "input below zero": lambda graph: graph["nodes"][4].update(inputs=[[-1, 0, 0]]),
    "variable with inputs": lambda graph: graph["nodes"][2].update(inputs=[[0, 0, 0]]),
    "variable not told": lambda graph: graph["arg_nodes"].pop(),
    "two of one name": lambda graph: graph["nodes"][3].update(name="data"),
    "no nodes": lambda graph: graph.update(nodes=[]),
    "node without operator": lambda graph: graph["nodes"][4].pop("op"),
    "inputs that are no list": lambda graph: graph["nodes"][4].update(inputs={}),
    "reference of truth": lambda graph: graph["nodes"][4].update(inputs=[[True, 0, 0]]),
    "attributes that are no object": lambda graph: graph["nodes"][4].update(attrs=5),
    "attribute that is no text": lambda graph: graph["nodes"][4]["attrs"].update(num_group=1),
    "type that is none": lambda graph: graph["nodes"][2]["attrs"].update(__dtype__="-1"),
    "storage that is not dense": lambda graph: graph["nodes"][2]["attrs"].update(__storage_type__="1"),
    "variables told in fractions": lambda graph: graph.update(arg_nodes=[float(i) for i in graph["arg_nodes"]]),
}


@pytest.mark.parametrize("attack", GRAPH_ATTACKS)
def test_a_graph_that_is_not_sound_is_rejected(bundle, encoder, tmp_path, attack):
    graph = json.loads(encoder.symbol.read_text())
    GRAPH_ATTACKS[attack](graph)
    encoder.symbol.write_text(json.dumps(graph))
    sign(bundle)
    check_both_reject(
        bundle, ["encoder-symbol.json", "is not a sound MXNet graph", "give the -symbol.json that net.export"], tmp_path
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 65 + "]" * 65, "it is nested too deep"),
        ("[" + "{}," * 700_000 + "0]", "it holds too many small values"),
        ('{"nodes": [NaN]}', ""),
        ('"\\ud800"', ""),
        ("{", ""),
    ],
    ids=["deep", "small values", "NaN", "half a character", "cut"],
)
@pytest.mark.parametrize("name", ["manifest.json", "encoder-symbol.json"])
def test_text_that_no_reader_should_take_is_rejected(bundle, tmp_path, name, text, words):
    (bundle / name).write_text(text)
    if name != "manifest.json":
        sign(bundle)
    if name == "manifest.json" and len(text) > 1 << 20:
        words = "large"
    check_both_reject(bundle, [name, words], tmp_path)


def first(graph, operator):
    return next(node for node in graph["nodes"] if node["op"] == operator)


# What MXNet would follow into memory that is not there, or take for something else.
NODE_ATTACKS = {
    "output that is not there": lambda graph: graph["nodes"][5].update(inputs=[[4, 1, 0]]),
    "output far away": lambda graph: graph["nodes"][5].update(inputs=[[4, 2**31, 0]]),
    "second output of a variable": lambda graph: graph["nodes"][1].update(inputs=[[0, 1, 0]]),
    "head's output that is not there": lambda graph: graph["heads"][0].__setitem__(1, 7),
    "input too many": lambda graph: first(graph, "Activation")["inputs"].append([0, 0, 0]),
    "input too few": lambda graph: first(graph, "Convolution")["inputs"].pop(),
    "no input": lambda graph: first(graph, "Activation")["inputs"].clear(),
    "attribute of no sense": lambda graph: first(graph, "Convolution")["attrs"].update(num_filter="many"),
    "attribute that it does not have": lambda graph: first(graph, "Convolution")["attrs"].update(petals="5"),
    "attribute that is missing": lambda graph: first(graph, "Convolution")["attrs"].pop("kernel"),
    "operator that is not known": lambda graph: first(graph, "Convolution").update(op="Confusion"),
}


@pytest.mark.parametrize("attack", NODE_ATTACKS)
def test_a_node_that_mxnet_would_not_make_is_rejected(bundle, encoder, tmp_path, attack):
    graph = json.loads(encoder.symbol.read_text())
    NODE_ATTACKS[attack](graph)
    encoder.symbol.write_text(json.dumps(graph))
    sign(bundle)
    why = {
        "attribute of no sense": "is not a sound MXNet graph (encoder_conv0_fwd: num_filter is 'many': ",
        "operator that is not known": "there is no operator Confusion; MXNet 1.9.1 does not have it",
    }.get(attack, "is refused by MXNet")
    remedy = (
        "MXNet's own operators" if attack == "operator that is not known" else "give the -symbol.json that net.export"
    )
    check_both_reject(bundle, ["encoder-symbol.json: ", why, remedy], tmp_path)


def test_graphs_that_do_not_give_what_the_manifest_says_are_rejected(bundle, tmp_path):
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"stride": 4', '"stride": 2'))
    check_both_reject(bundle, ["encoder-symbol.json", "copy the whole bundle again"], tmp_path)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("", "format", 1.5),
        ("", "format", True),
        ("", "format", 2**32 + 1),
        ("input", "channels", 3),
        ("input", "channels", "1"),
        ("codes", "num_embeddings", 63),
        ("", "input", {}),
        ("", "codes", None),
        ("input", "layout", "NHWC"),
        ("input", "range", [0, 1]),
        ("input", "stride", 0),
        ("codes", "dtype", "int64"),
        ("data", "name", 5),
        ("", "data", {}),
        ("", "files", []),
    ],
)
def test_a_manifest_that_contradicts_itself_is_rejected(bundle, tmp_path, section, key, value):
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    (manifest[section] if section else manifest)[key] = value
    path.write_text(json.dumps(manifest))
    check_both_reject(bundle, ["manifest.json", "is not a sound manifest"], tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("image_channels", 5), ("num_embeddings", "64"), ("hidden_channels", "ab"), ("hidden_channels", [])],
)
def test_a_config_of_wrong_types_is_rejected(bundle, key, value):
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["config"]["model"][key] = value
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=rf"manifest.json: is not a sound manifest \(.*{key}"):
        open_bundle(bundle).config  # noqa: B018


def test_auxiliary_states_have_their_own_prefix(tmp_path):
    block = mx.gluon.nn.BatchNorm(in_channels=3, prefix="norm_")
    block.initialize()
    block.hybridize()
    block(mx.nd.ones((2, 3, 4, 4)))
    block.export(str(tmp_path / "net"))
    files = GraphFiles(tmp_path / "net-symbol.json", tmp_path / "net-0000.params")
    assert check_binding(read_network(files), {"data": (2, 3, 4, 4)}) == []

    def misplace(arrays):
        for name in ("running_mean", "running_var"):
            arrays[f"arg:norm_{name}"] = arrays.pop(f"aux:norm_{name}")

    alter_parameters(files.params, misplace)
    findings = check_binding(read_network(files), {"data": (2, 3, 4, 4)})
    assert [(finding.cause, finding.subject) for finding in findings] == [
        ("wrong prefix", "norm_running_mean"),
        ("wrong prefix", "norm_running_var"),
    ]


def test_writing_a_bundle_leaves_other_files_alone(bundle, tmp_path):
    (bundle / "notes.txt").write_text("mine")
    before = open_bundle(bundle).manifest
    graphs = {}
    for stage in bundles.STAGES:
        files = graph_files(bundle, stage)
        graphs[stage] = mx.sym.load(str(files.symbol)), mx.nd.load(str(files.params))
    description = {key: value for key, value in before.items() if key not in ("format", "files")}
    assert bundles.write_bundle(bundle, graphs, description).manifest == before
    assert (bundle / "notes.txt").read_text() == "mine"
    assert not list(bundle.glob(".*"))


def test_a_bundle_is_not_written_over_a_file(tmp_path):
    (tmp_path / "bundle").write_text("mine")
    with pytest.raises(InputError, match="is a file; choose another directory"):
        bundles.write_bundle(tmp_path / "bundle", {}, {})
    assert (tmp_path / "bundle").read_text() == "mine"


def test_graphs_are_in_topological_order_with_named_inputs():
    graph = read_graph(graph_files(PRETRAINED, "encoder").symbol)
    assert graph.nodes[0].name == "data"
    assert graph.consumers("quantizer_codebook") == ["quantizer__mulscalar0", "quantizer_square0"]
