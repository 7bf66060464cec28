"""Bundles in int8 and bfloat16: what is in them, that they are computed so, and how what they lose is judged."""

import json
import shutil
import xml.etree.ElementTree as ElementTree
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from conftest import PRETRAINED, alter_parameters, run_cli, run_cli_here

from vqvae_gluon.artifacts.binding import Network, read_network, write_network
from vqvae_gluon.artifacts.bundle import STAGES, Bundle, GraphFiles, graph_files, open_bundle
from vqvae_gluon.artifacts.layers import changed_layers, mixed
from vqvae_gluon.artifacts.quantize import (
    PRECISIONS,
    SPLIT,
    Criteria,
    nearest_bfloat16,
    quantizable,
    round_to_bfloat16,
)
from vqvae_gluon.cli import words
from vqvae_gluon.data import ArraySet, Images
from vqvae_gluon.data.images import to_tensor
from vqvae_gluon.errors import DIVERGED, DONE, REJECTED, USAGE
from vqvae_gluon.parity.harness import compare_bundles
from vqvae_gluon.parity.precision import compare_precisions
from vqvae_gluon.parity.precision_report import PrecisionReport, to_json, to_text, write_junit
from vqvae_gluon.runtimes import RUNTIMES
from vqvae_gluon.runtimes.calibrate import Outputs
from vqvae_gluon.runtimes.gluon import GluonRuntime, Predictor
from vqvae_gluon.runtimes.quantization import quantize_bundle

LAYERS = {
    "encoder": ["encoder_conv0_fwd", "encoder_conv1_fwd", "encoder_latent_fwd"],
    "decoder": ["decoder_upconv0_fwd", "decoder_upconv1_fwd", "decoder_image_fwd"],
}
PLACES = [(stage, name) for stage, names in LAYERS.items() for name in names]
KEPT = ["encoder_conv0_fwd", "decoder_upconv0_fwd"]
FIRST, SECOND = LAYERS["encoder"][:2]
CALIBRATED = 128


@pytest.fixture(scope="module")
def calibration(digits) -> ArraySet:
    return ArraySet("digits", digits[-CALIBRATED:])


@pytest.fixture(scope="module")
def made(calibration, tmp_path_factory) -> dict[str, Bundle]:
    """The pretrained bundle in other precisions, by name."""
    path = tmp_path_factory.mktemp("quantized")
    float32 = open_bundle(PRETRAINED)
    return {
        "int8": quantize_bundle(float32, path / "int8", "int8", calibration, CALIBRATED),
        "bfloat16": quantize_bundle(float32, path / "bfloat16", "bfloat16"),
        "mixed": quantize_bundle(float32, path / "mixed", "int8", calibration, CALIBRATED, KEPT),
    }


@pytest.fixture
def altered(made, tmp_path) -> Path:
    """A copy of the int8 bundle, to be altered."""
    return shutil.copytree(made["int8"].path, tmp_path / "altered")


def network(bundle: Bundle, stage: str) -> Network:
    return read_network(bundle.graph(stage))


def fed(images: np.ndarray) -> Images:
    return Images("digits", (), images, images.shape[1:])


def judge(bundle: Path, images: np.ndarray, candidate="gluon", **options) -> PrecisionReport:
    """Compare a bundle in another precision with the pretrained one."""
    sides = RUNTIMES["gluon"](), RUNTIMES[candidate]()
    return compare_precisions(*sides, PRETRAINED, bundle, fed(images), **options)


def tensors(bundle: Bundle, stage: str, names: list[str], values: np.ndarray) -> list[np.ndarray]:
    """Some tensors of one graph."""
    found = network(bundle, stage)
    outputs = Outputs(found.graph, found.parameters, [(name, 0) for name in names])
    (given,) = (name for name in found.graph.by_name() if name in ("data", "codes"))
    by_name = {name: array for (name, _), array in outputs.run({given: values})}
    return [by_name[name] for name in names]


# What is in the bundles.


@pytest.mark.parametrize("name", ["int8", "bfloat16", "mixed"])
def test_the_manifest_tells_the_precision_and_where_it_comes_from(made, name):
    told = made[name].manifest["quantization"]
    assert made[name].precision == ("int8" if name == "mixed" else name)
    assert told["source"] == open_bundle(PRETRAINED).digest
    assert told["float32"] == (KEPT if name == "mixed" else [])
    if name != "bfloat16":
        assert told["data"]["images"] == CALIBRATED
        assert list(told["layers"]) == [layer for _, layer in PLACES if layer not in told["float32"]]
        assert told["measured"]["psnr_lost"] <= Criteria().psnr_lost


def test_a_float32_bundle_says_nothing_of_it():
    assert open_bundle(PRETRAINED).precision == "float32"
    assert not {"precision", "quantization"} & set(open_bundle(PRETRAINED).manifest)


@pytest.mark.parametrize(("stage", "layer"), PLACES)
def test_an_int8_layer_is_eight_operators_in_the_order_of_the_data(made, stage, layer):
    before, after = network(open_bundle(PRETRAINED), stage), network(made["int8"], stage)
    original, nodes = before.graph.by_name()[layer], after.graph.by_name()
    names = [node.name for node in after.graph.operators()]
    steps = ["steps", "rounded", "input", "weights", "sums", "scaled"]
    at = names.index(f"{layer}_steps")
    assert names[at : at + 7] == [*(f"{layer}_{step}" for step in steps), layer]
    operators = [nodes[name].operator for name in names[at : at + 7]]
    assert operators == ["_mul_scalar", "rint", "clip", "Cast", original.operator, "broadcast_mul", "broadcast_add"]
    told = made["int8"].manifest["quantization"]["layers"][layer]
    clip = nodes[f"{layer}_input"].attributes
    assert [float(clip["a_min"]), float(clip["a_max"])] == told["input_range"]
    assert float(nodes[f"{layer}_steps"].attributes["scalar"]) == np.float32(1 / told["input_scale"])
    assert nodes[f"{layer}_steps"].inputs == original.inputs[:1]
    for key in set(original.attributes) - {"no_bias"}:
        assert nodes[f"{layer}_sums"].attributes[key] == original.attributes[key]
    channels = (1, after.parameters[f"arg:{layer}_scale"].size, 1, 1)
    assert after.parameters[f"arg:{layer}_scale"].shape == channels
    assert after.parameters[f"arg:{original.inputs[2][0]}"].shape == channels


@pytest.mark.parametrize(("stage", "layer"), PLACES)
def test_weights_are_stored_as_int8_and_stand_for_the_float32_ones(made, stage, layer):
    before, after = network(open_bundle(PRETRAINED), stage), network(made["int8"], stage)
    node = before.graph.by_name()[layer]
    name = f"arg:{node.inputs[1][0]}"
    integers, weights = after.parameters[name], before.parameters[name]
    assert integers.dtype == np.int8
    assert integers.shape == weights.shape
    assert integers.min() >= -127
    step = (
        after.parameters[f"arg:{layer}_scale"] / made["int8"].manifest["quantization"]["layers"][layer]["input_scale"]
    )
    shape = (1, -1, 1, 1) if node.operator == "Deconvolution" else (-1, 1, 1, 1)
    error = np.abs(integers * step.reshape(shape) - weights)
    assert np.square(error).sum() < 1e-3 * np.square(weights).sum()


def test_an_int8_bundle_is_a_quarter_in_size(made):
    def size(path: Path, stage: str) -> int:
        return graph_files(path, stage).params.stat().st_size

    assert size(made["int8"].path, "decoder") < 0.3 * size(PRETRAINED, "decoder")


def test_layers_that_are_left_in_float32_are_the_same_bit_for_bit(made):
    for stage, layers in LAYERS.items():
        changed = changed_layers(network(open_bundle(PRETRAINED), stage), network(made["mixed"], stage))
        assert list(changed) == [layer for layer in layers if layer not in KEPT]


def test_the_same_bundle_comes_out_again(made, calibration, tmp_path):
    again = quantize_bundle(open_bundle(PRETRAINED), tmp_path / "again", "int8", calibration, CALIBRATED)
    assert again.digest == made["int8"].digest


# That they are computed so.


def test_what_a_layer_takes_are_whole_numbers_in_its_range(made, digits):
    names = [f"{layer}_input" for layer in LAYERS["encoder"]]
    told = made["int8"].manifest["quantization"]["layers"]
    for layer, values in zip(LAYERS["encoder"], tensors(made["int8"], "encoder", names, to_tensor(digits[:64]))):
        low, high = told[layer]["input_range"]
        np.testing.assert_array_equal(values, np.rint(values))
        assert low <= values.min() <= values.max() <= high
        assert values.max() > 100


def down_on_ties(steps: np.ndarray) -> np.ndarray:
    """MXNet's rint, which is not NumPy's: half a step goes to the lower number, not to the even one."""
    return np.ceil(steps - np.float32(0.5))


def test_half_a_step_goes_down(made):
    found = network(made["int8"], "encoder")
    wanted = (np.arange(28 * 28) / 2 - 100).astype(np.float32).reshape(1, 1, 28, 28)
    node = found.graph.by_name()[f"{FIRST}_steps"]
    outputs = Outputs(found.graph, found.parameters, [(f"{FIRST}_steps", 0), (f"{FIRST}_rounded", 0)])
    (_, steps), (_, rounded) = outputs.run({"data": wanted * np.float32(255 / float(node.attributes["scalar"]))})
    halves = np.abs(steps - np.trunc(steps)) == 0.5
    np.testing.assert_array_equal(rounded, down_on_ties(steps))
    assert halves.sum() > 50


def test_numpy_computes_a_layer_in_integers_to_the_same_bits(made, digits):
    found = network(made["int8"], "encoder")
    node = found.graph.by_name()[f"{SECOND}_sums"]
    before = found.graph.by_name()[f"{SECOND}_steps"].inputs[0][0]
    taken, given = tensors(made["int8"], "encoder", [before, SECOND], to_tensor(digits[:8]))
    told = made["int8"].manifest["quantization"]["layers"][SECOND]
    steps = down_on_ties(taken * np.float32(1 / told["input_scale"]))
    integers = np.clip(steps, *told["input_range"]).astype(np.int32)
    padded = np.pad(integers, ((0, 0), (0, 0), (1, 1), (1, 1)))
    weights = found.parameters["arg:encoder_conv1_weight"].astype(np.int32)
    assert (node.attributes["kernel"], node.attributes["stride"], node.attributes["pad"]) == (
        "(3, 3)",
        "(2, 2)",
        "(1, 1)",
    )
    size = given.shape[2]
    sums = np.zeros(given.shape, np.int32)
    for row in range(3):
        for column in range(3):
            seen = padded[:, :, row : row + 2 * size : 2, column : column + 2 * size : 2][:, :, :size, :size]
            sums += np.einsum("nchw,oc->nohw", seen, weights[:, :, row, column])
    scale, bias = (found.parameters[f"arg:{name}"] for name in (f"{SECOND}_scale", "encoder_conv1_bias"))
    np.testing.assert_array_equal(given, sums.astype(np.float32) * scale + bias)


def test_rounding_to_bfloat16_is_to_the_nearest_and_of_two_to_the_even():
    rng = np.random.default_rng(0)
    exponents = rng.integers(1, 238, 200_000).astype(np.uint32) << 23
    ties = (exponents | (rng.integers(0, 128, 200_000).astype(np.uint32) << 16) | 0x8000).view(np.float32)
    other = (exponents | rng.integers(0, 2**23, 200_000).astype(np.uint32)).view(np.float32)
    for values in (ties, other, -ties, -other, np.zeros(1, np.float32)):
        spread = values * np.float32(SPLIT)
        rounded = spread - (spread - values)
        np.testing.assert_array_equal(rounded, round_to_bfloat16(values))
        np.testing.assert_array_equal(rounded, nearest_bfloat16(values.astype(np.float64)))
        assert not (rounded.view(np.uint32) & 0xFFFF).any()
        assert (np.abs(rounded - values) <= np.abs(values) * 2.0**-8).all()


def test_a_bfloat16_layer_takes_what_bfloat16_holds(made, digits):
    found = network(made["bfloat16"], "encoder")
    names = [f"{layer}_half" for layer in LAYERS["encoder"]]
    sources = [found.graph.by_name()[f"{layer}_spread"].inputs[0][0] for layer in LAYERS["encoder"]]
    for layer, half, source in zip(
        LAYERS["encoder"],
        *(tensors(made["bfloat16"], "encoder", some, to_tensor(digits[:8])) for some in (names, sources)),
    ):
        np.testing.assert_array_equal(half, round_to_bfloat16(source))
        weights = found.parameters[f"arg:{found.graph.by_name()[layer].inputs[1][0]}"]
        np.testing.assert_array_equal(weights, round_to_bfloat16(weights))


def test_cpp_gives_gluons_codes_of_an_int8_bundle(made, digits):
    report = compare_bundles(
        RUNTIMES["gluon"](), RUNTIMES["cpp"](), made["int8"].path, made["int8"].path, fed(digits[:100])
    )
    assert report.verdict == "agree"
    assert report.codes is not None
    assert report.codes.equal == report.codes.compared == 4900
    assert report.outputs["reconstruction"].comparison.equal
    assert not report.nodes_skipped


@pytest.mark.parametrize(("name", "candidate"), [("bfloat16", "fp64"), ("mixed", "executor")])
def test_each_precision_agrees_with_itself_where_roundings_differ(made, digits, name, candidate):
    path = made[name].path
    report = compare_bundles(RUNTIMES["gluon"](), RUNTIMES[candidate](), path, path, fed(digits[:4]))
    assert report.verdict == "agree"


# How what they lose is judged.


@pytest.mark.parametrize("name", ["int8", "bfloat16", "mixed"])
def test_the_pretrained_network_meets_the_criteria(made, digits, name):
    report = judge(made[name].path, digits[:120])
    assert report.verdict == "agree"
    assert report.cost.codes == 49 * 120
    assert report.cost.equal_codes >= 0.98
    assert report.cost.psnr_lost <= 0.05
    assert report.leave == []
    left = [layer.name for layer in report.layers.values()]
    assert left == [layer for _, layer in PLACES if name != "mixed" or layer not in KEPT]
    for layer in report.layers.values():
        assert layer.local.decibels > 35
        assert layer.cumulative.decibels > 30
        assert layer.alone.equal_codes >= 0.98
        assert layer.stage == "encoder" or layer.alone.equal_codes == 1


def test_a_runtime_that_is_another_program_is_judged_as_well(made, digits):
    report = judge(made["int8"].path, digits[:64], "cpp")
    here = judge(made["int8"].path, digits[:64])
    assert (report.cost, report.verdict) == (here.cost, "agree")
    ours, theirs = ([layer.local for layer in found.layers.values()] for found in (report, here))
    assert ours == theirs


@pytest.mark.parametrize(("stage", "layer"), PLACES)
def test_a_wrong_scale_is_found_and_its_layer_named(altered, digits, stage, layer):
    def change(arrays):
        arrays[f"arg:{layer}_scale"] *= 1.5

    alter_parameters(graph_files(altered, stage).params, change)
    report = judge(altered, digits[:64])
    assert report.verdict == "diverge"
    assert report.worst is not None
    assert (report.worst.stage, report.worst.name) == (stage, layer)
    assert report.leave == [layer]
    others = [other for other in report.layers.values() if other.name != layer]
    assert all(other.local.decibels > 30 for other in others)
    assert all(other.alone.psnr_lost < 0.1 for other in others)


def test_the_json_has_the_keys_of_every_comparison(made, altered, digits):
    keys = {"verdict", "reference", "candidate", "nodes_compared", "nodes_skipped", "outputs", "first_divergent"}
    right = to_json(judge(made["int8"].path, digits[:16]))
    assert keys | {"codes", "cause", "precision"} <= set(right)
    assert (right["nodes_compared"], right["nodes_skipped"]) == (len(PLACES), 0)
    assert (right["first_divergent"], right["cause"]) == (None, None)
    assert set(right["outputs"]) == {"codes", "reconstruction", "image", "file"}
    assert 0 < right["outputs"]["reconstruction"]["max_abs"] <= 255
    assert right["codes"]["compared"] == 49 * 16

    def change(arrays):
        arrays[f"arg:{SECOND}_scale"] *= 2

    alter_parameters(graph_files(altered, "encoder").params, change)
    wrong = to_json(judge(altered, digits[:16]))
    named = wrong["first_divergent"]
    assert (named["node"], named["operator"], named["stage"]) == (SECOND, "Convolution", "encoder")
    assert named["local_max_abs"] > 0
    assert wrong["cause"]["name"] == "precision"
    assert SECOND in wrong["cause"]["evidence"]


def test_two_wrong_layers_are_both_to_be_left(altered, digits):
    for stage, layer in (("encoder", SECOND), ("decoder", "decoder_image_fwd")):

        def change(arrays, name=f"arg:{layer}_scale"):
            arrays[name] *= 2

        alter_parameters(graph_files(altered, stage).params, change)
    assert judge(altered, digits[:64]).leave == [SECOND, "decoder_image_fwd"]


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_what_is_no_number_is_wrong_and_its_layer_named(altered, digits):
    def change(arrays):
        arrays["arg:decoder_upconv1_fwd_scale"][0, 3] = 3e38

    alter_parameters(graph_files(altered, "decoder").params, change)
    report = judge(altered, digits[:16], criteria=Criteria(0, 1e9))
    assert report.verdict == "diverge"
    assert report.worst is not None
    assert report.worst.name == "decoder_upconv1_fwd"
    assert "NaN" in to_text(report)
    json.dumps(to_json(report), allow_nan=False)


def test_a_network_that_is_not_quantized_at_all_proves_nothing(bundle, digits):
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "precision": "int8"}))
    report = judge(bundle, digits[:8])
    assert report.verdict == "invalid"
    assert "no layer is computed in another way" in to_text(report)


def test_little_lost_is_enough_and_so_are_equal_codes_of_a_decoder_that_loses_little():
    met = Criteria().met
    assert met(0, 0.1, 9)
    assert met(0.97, 9, 0.1)
    assert not met(0.97, 9, 0.11)
    assert not met(0.969, 0.11, 0)
    assert not met(np.nan, np.nan, np.nan)


@pytest.mark.parametrize("stage", STAGES)
def test_a_mixture_of_all_layers_is_the_other_network_and_of_none_the_first(made, digits, tmp_path, stage):
    ours, theirs = (network(bundle, stage) for bundle in (open_bundle(PRETRAINED), made["int8"]))
    layers = changed_layers(ours, theirs)
    codes = Predictor(open_bundle(PRETRAINED)).encode(digits[:8])
    inputs = {"encoder": {"data": to_tensor(digits[:8])}, "decoder": {"codes": codes}}[stage]

    def run(files: GraphFiles) -> np.ndarray:
        ((_, _, values),) = GluonRuntime().outputs(files, inputs, False)
        return values

    for names, bundle in ((list(layers), made["int8"]), ([], open_bundle(PRETRAINED))):
        files = write_network(*mixed(ours, theirs, layers, names), tmp_path / str(len(names)))
        np.testing.assert_array_equal(run(files), run(bundle.graph(stage)))


def test_junit_has_a_test_for_every_layer(altered, digits, tmp_path):
    def change(arrays):
        arrays[f"arg:{SECOND}_scale"] *= 2

    alter_parameters(graph_files(altered, "encoder").params, change)
    write_junit(judge(altered, digits[:32]), tmp_path / "junit.xml")
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    failed = [case.get("name") for case in suite if case.find("failure") is not None]
    assert failed == [f"encoder/{SECOND}", "verdict"]
    assert (suite.get("tests"), suite.get("failures")) == (str(len(PLACES) + 1), "2")


# The command line.


def test_export_and_parity_as_a_user_runs_them(digits, tmp_path):
    np.save(tmp_path / "digits.npy", digits[:64])
    arguments = ["--precision", "int8", "--calibrate", 32, "--data", tmp_path / "digits.npy", "--output"]
    result = run_cli("export", PRETRAINED, *arguments, tmp_path / "int8", "--float32", FIRST)
    assert (result.returncode, result.stdout.strip()) == (DONE, str(tmp_path / "int8"))
    assert "on the 32 images of the calibration: " in result.stderr
    assert f"left in float32: {FIRST}" in result.stderr
    judged = ["parity", PRETRAINED, "--candidate-bundle", tmp_path / "int8", "--data", tmp_path / "digits.npy"]
    result = run_cli(*judged, "--candidate", "cpp", "--json")
    report = json.loads(result.stdout)
    assert (result.returncode, report["verdict"]) == (DONE, "agree")
    found = report["precision"]
    assert (found["reference"], found["candidate"]) == ("float32", "int8")
    assert found["criteria"] == {"equal_codes_at_least": 0.97, "psnr_lost_at_most": 0.1}
    assert report["codes"]["equal"] / report["codes"]["compared"] == found["equal_codes"]
    assert found["psnr"]["reference"] - found["psnr"]["candidate"] == found["psnr_lost"]
    assert [layer["name"] for layer in found["layers"]] == [name for _, name in PLACES if name != FIRST]
    result = run_cli(*judged, "--equal-codes", 1, "--psnr-lost", -1)
    assert result.returncode == DIVERGED
    assert result.stdout.startswith("DIVERGE: gluon in int8 against gluon in float32 on 64 images")
    assert "criteria: at most -1 dB of PSNR lost; or at least 100.00% of the codes equal" in result.stdout
    assert "worst layer: " in result.stdout


def test_the_command_line_knows_the_precisions_and_the_criteria():
    assert words.PRECISION_NAMES == PRECISIONS
    assert Criteria(words.EQUAL_CODES, words.PSNR_LOST) == Criteria()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--precision", "int4"], "int4"),
        (["--precision", "int8", "--calibrate", "0"], "calibrate"),
        (["--calibrate", "8"], "--calibrate"),
        (["--data", "x.npy"], "--data"),
        (["--float32", FIRST], "--float32"),
        (["--precision", "bfloat16", "--calibrate", "8"], "--calibrate"),
        (["--precision", "bfloat16", "--data", "x.npy"], "--data"),
        (["--precision", "bfloat16", "--float32", "encoder_conv9_fwd"], "there is no layer encoder_conv9_fwd"),
        (["--precision", "bfloat16", "--float32", *(name for _, name in PLACES)], "leaves no layer"),
        (["--precision", "bfloat16", "--record"], "--record"),
        (["--precision", "bfloat16", "--checkpoint", "last"], "--checkpoint"),
        ([], "--precision"),
    ],
)
def test_words_that_do_not_fit_end_with_2(tmp_path, arguments, word):
    try:
        result = run_cli_here("export", PRETRAINED, "--output", tmp_path / "out", *arguments)
    except SystemExit as end:
        assert end.code == USAGE
    else:
        assert result.returncode == USAGE
        assert word in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_bundle_is_not_written_over_itself(bundle):
    result = run_cli_here("export", bundle, "--precision", "bfloat16", "--output", bundle)
    assert result.returncode == USAGE
    assert open_bundle(bundle).precision == "float32"


@pytest.mark.parametrize(
    "arguments", [["--black-box"], ["--html", "page"], ["--repro", "repro"], ["--repeat", "2"], ["--equal-codes", "2"]]
)
def test_parity_of_precisions_refuses_what_is_for_equal_ones(made, tmp_path, arguments, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        result = run_cli_here("parity", PRETRAINED, "--candidate-bundle", made["int8"].path, *arguments)
    except SystemExit as end:
        assert end.code == USAGE
    else:
        assert result.returncode == USAGE


def test_parity_of_one_precision_needs_a_candidate_and_no_criteria():
    assert run_cli_here("parity", PRETRAINED).returncode == USAGE
    assert run_cli_here("parity", PRETRAINED, "--candidate", "cpp", "--psnr-lost", "1").returncode == USAGE


@pytest.mark.parametrize("command", ["export", "parity"])
def test_a_precision_that_is_not_known_is_rejected(bundle, tmp_path, command):
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "precision": "int4"}))
    arguments = {
        "export": [bundle, "--precision", "bfloat16", "--output", tmp_path / "out"],
        "parity": [PRETRAINED, "--candidate-bundle", bundle, "--candidate", "cpp"],
    }[command]
    result = run_cli_here(command, *arguments)
    assert result.returncode == REJECTED
    assert "int4" in result.stderr


def test_a_quantized_bundle_is_not_quantized_again(made, tmp_path):
    arguments = ["--precision", "bfloat16", "--output", tmp_path / "out"]
    assert run_cli_here("export", made["int8"].path, *arguments).returncode == REJECTED


def test_the_distances_to_the_codebook_are_no_layer():
    found = {stage: network(open_bundle(PRETRAINED), stage) for stage in STAGES}
    names = chain.from_iterable(quantizable(net.graph, net.parameters) for net in found.values())
    assert [*names] == [name for _, name in PLACES]
