"""The diagnosis: parameters told from numbers, steps that follow, causes that are named only if a replay shows them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from conftest import PRETRAINED, alter_parameters

from vqvae_gluon.artifacts.bundle import graph_files
from vqvae_gluon.artifacts.graph import Node
from vqvae_gluon.artifacts.trace import TraceWriter
from vqvae_gluon.parity.causes import REMEDIES
from vqvae_gluon.parity.identify import estimates, is_like_noise
from vqvae_gluon.parity.recorded import compare_traces, record_bundle
from vqvae_gluon.parity.replay import Step, compute, explain
from vqvae_gluon.parity.report import Report
from vqvae_gluon.parity.result import Cause
from vqvae_gluon.runtimes.gluon import GluonRuntime


def computed(node: Node, inputs: Sequence[np.ndarray]) -> np.ndarray:
    results = compute(node, tuple(inputs))
    assert results is not None
    return results[0]


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return np.abs(numbers(*shape, seed=7)) + np.float32(0.1)


CONVOLUTION = Node("conv", "Convolution", {"kernel": "(3, 3)", "pad": "(1, 1)", "num_filter": "8"}, ())
NODES = {
    "convolution": (CONVOLUTION, [numbers(8, 4, 9, 9), numbers(8, 4, 3, 3, seed=1), numbers(8, seed=2)]),
    "strided": (
        Node("conv", "Convolution", {"kernel": "(3, 3)", "stride": "(2, 2)", "num_filter": "8"}, ()),
        [numbers(8, 4, 11, 11), numbers(8, 4, 3, 3, seed=1), numbers(8, seed=2)],
    ),
    "depthwise": (
        Node("conv", "Convolution", {"kernel": "(3, 3)", "num_filter": "8", "num_group": "8", "no_bias": "True"}, ()),
        [numbers(8, 8, 9, 9), numbers(8, 1, 3, 3, seed=1)],
    ),
    "transposed": (
        Node(
            "up",
            "Deconvolution",
            {"kernel": "(4, 4)", "stride": "(2, 2)", "pad": "(1, 1)", "num_filter": "6", "no_bias": "False"},
            (),
        ),
        [numbers(8, 4, 7, 7), numbers(4, 6, 4, 4, seed=1), numbers(6, seed=2)],
    ),
    "dense": (
        Node("dense", "FullyConnected", {"num_hidden": "6"}, ()),
        [numbers(40, 12), numbers(6, 12, seed=1), numbers(6, seed=2)],
    ),
    "normalisation": (
        Node("norm", "BatchNorm", {"eps": "1e-05", "fix_gamma": "False"}, ()),
        [numbers(8, 6, 5, 5), positive(6), numbers(6, seed=3), numbers(6, seed=4), positive(6)],
    ),
    "lookup": (
        Node("rows", "Embedding", {"input_dim": "5", "output_dim": "3"}, ()),
        [np.arange(10, dtype=np.int32).reshape(2, 5) % 5, numbers(5, 3, seed=1)],
    ),
}
PARAMETERS = [(name, position) for name, (_, inputs) in NODES.items() for position in range(1, len(inputs))]


@pytest.mark.parametrize(("name", "position"), PARAMETERS)
def test_a_parameter_is_told_from_what_its_node_gives(name, position):
    node, inputs = NODES[name]
    changed = [*inputs]
    changed[position] = positive(*inputs[position].shape)[::-1].copy()
    actual = computed(node, changed)
    tolerance = 1e-6 * float(np.abs(actual).max())
    told = [
        estimate
        for found in estimates(node, inputs, actual, tolerance)
        for estimate in found
        if estimate.position == position
    ]
    assert told, "nothing was found"
    worst = np.abs(told[0].values.reshape(changed[position].shape) - changed[position]).max()
    assert worst <= told[0].tolerance < 0.01 * float(np.abs(changed[position]).max())


def test_what_no_parameter_makes_is_not_explained_by_one():
    for name, (node, inputs) in NODES.items():
        if name == "lookup":
            continue  # Any rows can be looked up; which they are is for the relations to say.
        actual = computed(node, inputs)
        assert not list(estimates(node, inputs, numbers(*actual.shape, seed=9), 1e-5)), name


def test_samples_that_do_not_determine_a_weight_tell_none_but_show_noise():
    inputs = [numbers(1, 64, 3, 3), 0.05 * numbers(32, 64, 3, 3, seed=1), numbers(32, seed=2)]
    node = dataclasses.replace(CONVOLUTION, attributes={**CONVOLUTION.attributes, "num_filter": "32"})
    noise = computed(node, (inputs[0], numbers(32, 64, 3, 3, seed=5), inputs[2]))
    other = computed(node, (inputs[0], 0.05 * numbers(32, 64, 3, 3, seed=6), inputs[2]))
    assert not list(estimates(node, inputs, noise, 1e-4))
    assert is_like_noise(node, inputs, noise)
    assert not is_like_noise(node, inputs, other)


def cause_of(report: Report) -> Cause:
    assert report.cause is not None
    return report.cause


def first_of(report: Report) -> str:
    """Name of the first divergent node."""
    assert report.first_divergent is not None
    return report.first_divergent.comparison.name


def step_of(node: Node, inputs, actual: np.ndarray) -> Step:
    names = {position: f"arg:{['weight', 'bias'][position - 1]}" for position in range(1, len(inputs))}
    return Step("graph", node, tuple(inputs), names, (actual,), (computed(node, inputs),))


@pytest.mark.parametrize("seed", range(8))
def test_numbers_that_follow_from_nothing_are_not_explained(seed):
    node, inputs = NODES["convolution"]
    expected = computed(node, inputs)
    for actual in (
        numbers(*expected.shape, seed=100 + seed) * expected.std(),
        expected + numbers(*expected.shape, seed=seed) * np.float32(0.3),
        np.maximum(expected, 0) + np.abs(numbers(*expected.shape, seed=seed)),
    ):
        assert explain(step_of(node, inputs, actual), {"arg:weight": inputs[1], "arg:bias": inputs[2]}, {}) is None


def test_rounding_is_no_fault():
    node, inputs = NODES["convolution"]
    expected = computed(node, inputs)
    assert step_of(node, inputs, expected * np.float32(1 + 3e-7)).follows
    assert not step_of(node, inputs, expected * np.float32(1.001)).follows


@pytest.fixture(scope="module")
def reference(tmp_path_factory, digits):
    directory = tmp_path_factory.mktemp("reference")
    np.save(directory / "digits.npy", digits[:8])
    return record_bundle(GluonRuntime(), PRETRAINED, [directory / "digits.npy"], directory / "trace")


def altered(trace, path, change):
    """A copy of a trace in which `change` has had its way with the arrays, by stage and name."""
    arrays = {node.key: np.array(node.load()) for node in trace.nodes}
    change(arrays)
    writer = TraceWriter(path, trace.runtime)
    for node in trace.nodes:
        writer.add(node.stage, node.name, node.operator, arrays[node.key])
    writer.close()
    return path


def test_values_of_no_origin_stay_unexplained(reference, tmp_path):
    def change(arrays):
        arrays["encoder", "encoder_conv1_fwd"] = numbers(*arrays["encoder", "encoder_conv1_fwd"].shape)

    report = compare_traces(reference.path, altered(reference, tmp_path / "trace", change))
    assert report.verdict == "diverge"
    assert first_of(report) == "encoder_conv1_fwd"
    assert cause_of(report).name == "unexplained"


def test_two_faults_at_one_place_are_both_named(reference, tmp_path):
    def change(arrays):
        for key in (("input", "data"), ("encoder", "data")):
            arrays[key] = np.ascontiguousarray(255 - arrays[key].swapaxes(2, 3))

    report = compare_traces(reference.path, altered(reference, tmp_path / "trace", change), black_box=True)
    # The nodes behind it are those of the right input: they do not follow from this one, and that is said, too.
    assert cause_of(report).name.startswith("transposed input + inverted")
    assert "unexplained besides: encoder/_divscalar0" in cause_of(report).evidence


@pytest.mark.parametrize("black_box", [False, True])
def test_faults_at_two_places_are_found_one_by_one(reference, bundle, tmp_path, black_box):
    def flip(arrays):
        arrays["arg:encoder_conv1_weight"] = np.ascontiguousarray(arrays["arg:encoder_conv1_weight"][..., ::-1, ::-1])

    def permute(arrays):
        arrays["arg:quantizer_codebook"] = np.roll(arrays["arg:quantizer_codebook"], 5, axis=0)

    alter_parameters(graph_files(bundle, "encoder").params, flip)
    alter_parameters(graph_files(bundle, "decoder").params, permute)
    pixels = next(node.path for node in reference.stage("input") if node.name == "pixels")
    record_bundle(GluonRuntime(), bundle, [pixels], tmp_path / "trace", reference)
    report = compare_traces(reference.path, tmp_path / "trace", black_box=black_box)
    assert cause_of(report).name == "kernel flipped + codebook rows permuted"
    assert first_of(report) == "encoder_conv1_fwd"
    assert [(cause.place, cause.places) for cause in report.causes] == [
        (("encoder", "encoder_conv1_fwd"), 1),
        (("decoder", "quantizer_rows"), 1),
    ]


def test_a_black_box_does_not_look_at_files(reference, bundle, tmp_path):
    """Files that differ are no divergence as long as the numbers are right."""

    def change(arrays):
        arrays["arg:encoder_conv0_bias"][0] += 1

    trace = tmp_path / "trace"
    altered(reference, trace, lambda arrays: None)
    alter_parameters(graph_files(bundle, "encoder").params, change)
    (trace / "network").mkdir()
    for stage in ("encoder", "decoder"):
        files = graph_files(bundle, stage)
        for file in (files.symbol, files.params):
            (trace / "network" / file.name).write_bytes(file.read_bytes())
    seen = compare_traces(reference.path, trace)
    assert (seen.verdict, cause_of(seen).name) == ("diverge", "one corrupted value")
    assert compare_traces(reference.path, trace, black_box=True).verdict == "agree"


def test_a_diagnosis_that_fails_leaves_the_verdict(reference, tmp_path, monkeypatch):
    def change(arrays):
        arrays["input", "data"] = 255 - arrays["input", "data"]

    def fail(*arguments):
        raise ArithmeticError("out of numbers")

    monkeypatch.setattr("vqvae_gluon.parity.diagnose.relate_images", fail)
    report = compare_traces(reference.path, altered(reference, tmp_path / "trace", change))
    assert (report.verdict, cause_of(report).name) == ("diverge", "unexplained")
    assert "ArithmeticError: out of numbers" in report.notes[-1]


def test_every_cause_has_its_remedy():
    assert all(remedy and not remedy.endswith(".") for remedy in REMEDIES.values())
    assert all(name == name.strip() and " + " not in name for name in REMEDIES)
