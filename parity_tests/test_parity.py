"""The judgement, through the command line, with the real binary."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from conftest import PRETRAINED, alter_parameters, run_cli

from vqvae_gluon.artifacts.bundle import graph_files, open_bundle
from vqvae_gluon.artifacts.export import export_bundle
from vqvae_gluon.artifacts.graph import read_graph
from vqvae_gluon.compat import mx
from vqvae_gluon.config import PRESETS, Config
from vqvae_gluon.data import Images
from vqvae_gluon.data.images import write_image
from vqvae_gluon.errors import DIVERGED, DONE, REJECTED, USAGE, RuntimeFailure
from vqvae_gluon.model.vqvae import VQVAE
from vqvae_gluon.parity.harness import compare_bundles
from vqvae_gluon.parity.report import to_json
from vqvae_gluon.runtimes.cpp import CppRuntime
from vqvae_gluon.runtimes.gluon import GluonRuntime, Predictor

PARAMETERS = [
    ("encoder", "encoder_conv0_weight", "encoder_conv0_fwd"),
    ("encoder", "encoder_conv0_bias", "encoder_conv0_fwd"),
    ("encoder", "encoder_conv1_weight", "encoder_conv1_fwd"),
    ("encoder", "encoder_conv1_bias", "encoder_conv1_fwd"),
    ("encoder", "encoder_latent_weight", "encoder_latent_fwd"),
    ("encoder", "encoder_latent_bias", "encoder_latent_fwd"),
    ("encoder", "quantizer_codebook", "quantizer__mulscalar0"),
    ("decoder", "quantizer_codebook", "quantizer_rows"),
    ("decoder", "decoder_upconv0_weight", "decoder_upconv0_fwd"),
    ("decoder", "decoder_upconv0_bias", "decoder_upconv0_fwd"),
    ("decoder", "decoder_upconv1_weight", "decoder_upconv1_fwd"),
    ("decoder", "decoder_upconv1_bias", "decoder_upconv1_fwd"),
    ("decoder", "decoder_image_weight", "decoder_image_fwd"),
    ("decoder", "decoder_image_bias", "decoder_image_fwd"),
]


def judge(bundle, images: np.ndarray, candidate=None) -> dict:
    """Compare C++ on a bundle with Gluon on the pretrained one."""
    fed = Images("digits", (), images, images.shape[1:])
    return to_json(compare_bundles(GluonRuntime(), candidate or CppRuntime(), PRETRAINED, bundle, fed))


def test_a_thousand_digits_agree_bit_for_bit(digits):
    result = run_cli("parity", PRETRAINED, "--candidate", "cpp", "--count", 1000, "--json")
    report = json.loads(result.stdout)
    assert result.returncode == DONE
    assert report["verdict"] == "agree"
    assert report["codes"] == {"compared": 49000, "equal": 49000, "legal_flips": 0, "real_flips": 0}
    assert report["outputs"]["reconstruction"]["equal"]
    assert report["outputs"]["reconstruction"]["elements"] == digits.size
    operators = [
        node.name
        for stage in ("encoder", "decoder")
        for node in read_graph(graph_files(PRETRAINED, stage).symbol).nodes
        if not node.is_variable
    ]
    assert (report["nodes_compared"], report["nodes_skipped"]) == (len(operators), 0)
    assert report["cause"] is None
    assert report["first_divergent"] is None


def test_parameters_of_every_layer_are_covered():
    stored = {
        (stage, node.name)
        for stage in ("encoder", "decoder")
        for node in read_graph(graph_files(PRETRAINED, stage).symbol).nodes
        if node.is_variable
    }
    assert {(stage, name) for stage, name, _ in PARAMETERS} == stored - {("encoder", "data"), ("decoder", "codes")}


@pytest.mark.parametrize(("stage", "parameter", "node"), PARAMETERS)
def test_one_changed_weight_names_its_layer(bundle, digits, stage, parameter, node):
    def change(arrays):
        arrays[f"arg:{parameter}"].flat[0] += 0.5

    alter_parameters(graph_files(bundle, stage).params, change)
    report = judge(bundle, digits[:8])
    assert report["verdict"] == "diverge"
    assert (report["first_divergent"]["stage"], report["first_divergent"]["node"]) == (stage, node)
    assert report["cause"]["name"] == "one corrupted value"
    assert report["cause"]["evidence"].startswith(f"{parameter}: 1 of ")


def test_divergence_exits_4_and_tells_the_layer_in_words(bundle):
    def change(arrays):
        arrays["arg:encoder_conv1_weight"][3, 5, 1, 1] += 0.25

    alter_parameters(graph_files(bundle, "encoder").params, change)
    arguments = ["parity", PRETRAINED, "--candidate", "cpp", "--candidate-bundle", bundle, "--count", 16]
    result = run_cli(*arguments)
    assert result.returncode == DIVERGED
    assert result.stdout.startswith("DIVERGE")
    assert "first divergent node: encoder/encoder_conv1_fwd (Convolution)" in result.stdout
    assert "encoder_conv1_weight: 1 of 18432 values, the first at (3, 5, 1, 1)" in result.stdout


def test_a_weight_without_effect_on_these_images_is_found_all_the_same(bundle):
    black = np.zeros((2, 28, 28, 1), np.uint8)
    unused = np.setdiff1d(np.arange(64), Predictor(open_bundle(bundle)).encode(black))[0]

    def change(arrays):
        arrays["arg:quantizer_codebook"][unused, 0] += 1

    alter_parameters(graph_files(bundle, "decoder").params, change)
    report = judge(bundle, black)
    assert all(node["equal"] for node in report["nodes"])
    assert report["verdict"] == "diverge"
    assert report["first_divergent"]["node"] == "quantizer_rows"


def test_the_same_weights_saved_again_agree(bundle, digits):
    alter_parameters(graph_files(bundle, "encoder").params, lambda arrays: None)
    assert judge(bundle, digits[:8])["verdict"] == "agree"


def test_another_graph_is_found_by_its_numbers_and_its_file(bundle, digits):
    path = graph_files(bundle, "decoder").symbol
    path.write_text(path.read_text().replace('"act_type": "relu"', '"act_type": "softrelu"', 1))
    report = judge(bundle, digits[:8])
    assert report["verdict"] == "diverge"
    assert report["first_divergent"]["node"] == "decoder_relu0_fwd"
    assert report["cause"]["name"] == "operator attribute"
    assert "act_type is relu against softrelu" in report["cause"]["evidence"]


def test_the_decoder_is_judged_on_the_references_codes(bundle, digits):
    # Every code of the candidate's encoder is wrong; its decoder is right, and the report says so.
    def change(arrays):
        arrays["arg:quantizer_codebook"][:] = arrays["arg:quantizer_codebook"][::-1]

    alter_parameters(graph_files(bundle, "encoder").params, change)
    report = judge(bundle, digits[:8])
    assert report["codes"]["real_flips"] > 0
    assert not report["outputs"]["reconstruction"]["equal"]
    assert all(node["equal"] for node in report["nodes"] if node["stage"] == "decoder")


def test_an_operator_that_these_images_do_not_show_is_found_all_the_same(bundle, digits):
    path = graph_files(bundle, "decoder").symbol
    path.write_text(path.read_text().replace('"a_max": "255.0"', '"a_max": "1000.0"'))
    report = judge(bundle, digits[:4])
    assert all(node["equal"] for node in report["nodes"])
    assert report["verdict"] == "diverge"
    assert report["cause"] == {
        "name": "operator attribute",
        "evidence": "reconstruction: a_max is 255.0 against 1000.0",
    }
    assert report["first_divergent"]["node"] == "reconstruction"


def test_hints_and_the_order_of_a_file_are_no_difference(bundle, digits):
    path = graph_files(bundle, "encoder").symbol
    graph = json.loads(path.read_text())
    for node in graph["nodes"]:
        if node["op"] == "Convolution":
            node["attrs"] = dict(reversed(node["attrs"].items()), workspace="2048", __note__="mine")
    path.write_text(json.dumps(dict(reversed(graph.items())), indent=7))
    assert judge(bundle, digits[:4])["verdict"] == "agree"


def test_another_output_of_the_same_graph_is_found(bundle, digits):
    path = graph_files(bundle, "decoder").symbol
    graph = json.loads(path.read_text())
    graph["heads"] = [[len(graph["nodes"]) - 2, 0, 0]]
    path.write_text(json.dumps(graph))
    report = judge(bundle, digits[:4])
    assert report["verdict"] == "diverge"
    assert report["cause"]["name"] == "graph differs"
    assert "the graph's outputs are" in report["cause"]["evidence"]


def test_a_divergence_in_shape_is_reported_with_pictures(bundle, tmp_path):
    path = graph_files(bundle, "encoder").symbol
    path.write_text(path.read_text().replace('"stride": "(2, 2)"', '"stride": "(1, 1)"', 1))
    arguments = ["--candidate", "cpp", "--candidate-bundle", bundle, "--count", 4, "--html", tmp_path / "page"]
    result = run_cli("parity", PRETRAINED, *arguments)
    assert result.returncode == DIVERGED, result.stderr
    assert (
        "encoder/encoder_conv0_fwd (Convolution): the shape is (4, 32, 14, 14) against (4, 32, 28, 28)" in result.stdout
    )
    assert (tmp_path / "page" / "overview.png").exists()


class Tampered(CppRuntime):
    """The binary, with its traces altered afterwards: what a deployed program's own fault would look like."""

    def __init__(self, tamper):
        self._tamper = tamper

    def trace_graph(self, *arguments, **options):
        trace = super().trace_graph(*arguments, **options)
        self._tamper(trace)
        return trace


def test_a_node_that_is_not_recorded_is_no_agreement(digits):
    def drop(trace):
        trace.nodes[:] = [node for node in trace.nodes if node.name != "encoder_relu1_fwd"]

    report = judge(PRETRAINED, digits[:4], Tampered(drop))
    assert report["verdict"] == "diverge"
    assert report["skipped"] == [{"stage": "encoder", "node": "encoder_relu1_fwd"}]
    assert report["first_divergent"]["node"] == "encoder_relu1_fwd"


def test_a_file_that_was_saved_again_is_no_cause(bundle, digits):
    # The digest differs, the tensors do not; what the runtime does wrong is not explained by the file.
    alter_parameters(graph_files(bundle, "encoder").params, lambda arrays: None)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["encoder-0000.params"]["sha256"] = "0" * 64
    (bundle / "manifest.json").write_text(json.dumps(manifest))

    def drop(trace):
        trace.nodes[:] = [node for node in trace.nodes if node.name != "encoder_relu1_fwd"]

    report = judge(bundle, digits[:4], Tampered(drop))
    assert [finding["cause"] for finding in report["findings"]] == ["digest differs"]
    assert report["cause"]["name"] == "unexplained"


def test_a_candidate_that_fails_later_leaves_what_was_compared(digits):
    class Failing(CppRuntime):
        calls = 0

        def trace_bundle(self, bundle, images, path):
            self.calls += 1
            if self.calls > 1:
                raise RuntimeFailure("reconstruct", "was ended by signal 9")
            return super().trace_bundle(bundle, images, path)

    report = judge(PRETRAINED, digits[:256], Failing())
    assert (report["verdict"], report["nodes_compared"]) == ("invalid", 24)
    assert report["failure"] == "reconstruct: was ended by signal 9"


@pytest.mark.parametrize("content", [None, b"", b"nothing"])
def test_a_candidate_that_cannot_be_read_is_a_report_and_one_line(bundle, content):
    path = graph_files(bundle, "decoder").params
    path.unlink() if content is None else path.write_bytes(content)
    arguments = ["--candidate", "cpp", "--candidate-bundle", bundle, "--count", 4, "--json"]
    result = run_cli("parity", PRETRAINED, *arguments)
    assert result.returncode == REJECTED
    assert json.loads(result.stdout)["verdict"] == "invalid"
    assert re.fullmatch(
        r"vqvae-gluon: error: \S+decoder-0000.params: .+; (copy the file again .*|give the .params file that .*)\n",
        result.stderr,
    )


def test_images_of_one_name_in_several_folders(tmp_path):
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        shutil.copy(PRETRAINED / "digits" / f"0{number}.png", tmp_path / str(number) / "-a b.png")
    result = run_cli("parity", PRETRAINED, "--candidate", "cpp", "--data", tmp_path)
    assert result.stdout.startswith("AGREE: cpp against gluon on 3 images"), result.stderr


def test_a_colour_bundle_agrees_on_colour_images(tmp_path):
    config = Config(dataclasses.replace(PRESETS["mnist"].model, image_channels=3), PRESETS["mnist"].training)
    model = VQVAE(config.model)
    model.initialize(mx.init.Xavier())
    export_bundle(tmp_path / "bundle", config, model, {"name": "images", "sha256": ""}, 0, {})
    (tmp_path / "images").mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (32, 48, 3), dtype=np.uint8)
        write_image(tmp_path / "images" / f"{number}.png", noise)
    result = run_cli("parity", tmp_path / "bundle", "--candidate", "cpp", "--data", tmp_path / "images")
    assert result.stdout.startswith("AGREE: cpp against gluon on 3 images"), result.stderr


def test_a_bundle_without_a_test_set_of_its_own_asks_for_images(bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["data"]["name"] = "images"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    result = run_cli("parity", bundle, "--candidate", "cpp")
    assert result.returncode == USAGE
    assert "--data: is needed" in result.stderr


def test_a_parameter_that_is_missing_is_named(bundle):
    alter_parameters(graph_files(bundle, "encoder").params, lambda arrays: arrays.pop("arg:encoder_conv1_bias"))
    result = run_cli("parity", PRETRAINED, "--candidate", "cpp", "--candidate-bundle", bundle, "--count", 4, "--json")
    report = json.loads(result.stdout)
    assert result.returncode == REJECTED
    assert report["verdict"] == "invalid"
    assert report["cause"]["name"] == "parameter missing"
    assert "encoder_conv1_bias" in report["cause"]["evidence"]


def test_a_damaged_reference_is_refused(bundle):
    (bundle / "encoder-0000.params").write_bytes(b"nothing")
    result = run_cli("parity", bundle, "--candidate", "cpp", "--count", 4)
    assert result.returncode == REJECTED
    assert re.fullmatch(r"vqvae-gluon: error: \S+encoder-0000.params: its SHA-256 .+\n", result.stderr)


def test_image_files_are_decoded_by_each_side_itself(tmp_path):
    page = tmp_path / "report"
    result = run_cli("parity", PRETRAINED, "--candidate", "cpp", "--data", PRETRAINED / "digits", "--html", page)
    assert result.returncode == DONE
    assert result.stdout.startswith("AGREE: cpp against gluon on 64 images")
    html = (page / "index.html").read_text()
    assert "data:image/png;base64," in html
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert "encoder_conv0_fwd" in html
    assert (page / "overview.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_options_are_a_usage_error():
    result = run_cli("parity", PRETRAINED, "--candidate", "cpp", "--bogus")
    assert result.returncode == USAGE
    assert result.stderr.startswith("vqvae-gluon: error: options: ")
