"""The comparison of two runtimes: on a bundle, on a plain export, or of a live block with its export."""

from collections.abc import Mapping
from pathlib import Path
from typing import Optional

import numpy as np
from tqdm import tqdm

from vqvae_gluon.artifacts.binding import Network, read_network
from vqvae_gluon.artifacts.bundle import GRAPH_INPUTS, STAGES, GraphFiles, open_bundle
from vqvae_gluon.artifacts.trace import Trace
from vqvae_gluon.data import Images
from vqvae_gluon.data.images import to_images
from vqvae_gluon.errors import VQVAEError
from vqvae_gluon.parity import preflight
from vqvae_gluon.parity.diagnose import diagnose, live_scene
from vqvae_gluon.parity.inputs import Feed
from vqvae_gluon.parity.judge import NOT_EQUAL
from vqvae_gluon.parity.metrics import NodeComparison, compare_nodes
from vqvae_gluon.parity.report import Report
from vqvae_gluon.parity.repro import require_free, write_first
from vqvae_gluon.parity.result import DIVERGE, Codes, NodeReport, Samples, StageReport
from vqvae_gluon.parity.side import Side
from vqvae_gluon.parity.stages import GRAPH, MAX_MEMORY, add_output, blamed, in_order, judge_stage, operators
from vqvae_gluon.runtimes.base import DECODER, ENCODER, INPUT, OUTPUT, Runtime
from vqvae_gluon.temporary import temporary_directory

_SAMPLES = 16


def compare_bundles(
    reference: Runtime,
    candidate: Runtime,
    bundle: Path,
    candidate_bundle: Path,
    images: Images,
    batch_size: int = 128,
    max_memory: int = MAX_MEMORY,
    repeat: int = 1,
    black_box: bool = False,
    repro: Optional[Path] = None,
) -> Report:
    """Run both sides on the same images and compare everything they record.

    Each graph is judged on the *reference's* inputs, the decoder on the reference's codes, so that what is wrong
    before it cannot hide what is wrong in it. The candidate's own way from end to end is compared at the outputs.

    Args:
        bundle: what the reference runs; it must be whole and undamaged.
        candidate_bundle: what the candidate runs, whatever its digests say.
        images: what is fed.
        batch_size: images that are run at once.
        max_memory: bytes of tapped tensors that are held at once.
        repeat: how often each side is run; every run must give the same bits.
        black_box: look only at the candidate's numbers, not at its files.
        repro: where the first divergence is written for a report upstream, if there is one.

    Returns:
        The report, also if the candidate failed: then with its failure and what was compared until then.

    Raises:
        InputError: the reference's bundle or the images were rejected.
        RuntimeFailure: the reference could not be run.
    """
    if repro is not None:
        require_free(repro)
    ours = open_bundle(bundle)
    subjects = (str(bundle), str(candidate_bundle))
    sides = (reference, candidate)
    report = Report(
        reference.name,
        candidate.name,
        *subjects,
        images.name,
        len(images),
        "images",
        expect_equal_bits(reference, candidate),
    )
    report.codes = Codes()
    networks = {stage: read_network(ours.graph(stage)) for stage in STAGES}
    report.operators = [key for stage, network in networks.items() for key in operators(network, stage)]
    deployed = networks
    done = 0
    with tqdm(total=len(images), desc="parity", unit="image", leave=False, disable=None) as bar:
        for files, count in images.batches(batch_size):
            with temporary_directory() as path:
                expected = reference.trace_bundle(ours.path, files, path / "reference")
                try:
                    if not done:
                        theirs = open_bundle(candidate_bundle, verify=False)
                        if theirs.path != ours.path:
                            deployed = {stage: read_network(theirs.graph(stage)) for stage in STAGES}
                        shape = (count, *images.shape)
                        if not black_box:
                            report.findings = preflight.check_bundles(ours, theirs, networks, deployed, shape)
                        report.blamed_by_file = blamed(networks, report)
                        report.notes += preflight.fusion_notes(networks if black_box else deployed)
                        report.notes += _runtime_notes(sides, (networks, deployed))
                    actual = candidate.trace_bundle(candidate_bundle, files, path / "candidate")
                    recorded = expected, actual
                    pairs = _pairs(sides, (networks, deployed), recorded, path)
                    _judge_bundle(report, sides, (networks, deployed), recorded, pairs, path, max_memory, repeat)
                    if report.verdict == DIVERGE and not report.causes:
                        scenes = [live_scene(*pair, max_memory, black_box) for pair in pairs.values()]
                        report.causes = diagnose(report, scenes, recorded)
                    if repro is not None:
                        write_first(report, pairs, recorded, repro, last=done + count >= len(images))
                except VQVAEError as error:
                    report.failure = error
                    break
            done += count
            bar.update(count)
    return in_order(report)


def compare_exports(
    reference: Runtime,
    candidate: Runtime,
    files: GraphFiles,
    candidate_files: GraphFiles,
    feed: Feed,
    max_memory: int = MAX_MEMORY,
    repeat: int = 1,
    black_box: bool = False,
    repro: Optional[Path] = None,
) -> Report:
    """The same for a plain Gluon export, whatever its graph. See :func:`compare_bundles`.

    Args:
        feed: values for the graph's inputs.
    """
    if repro is not None:
        require_free(repro)
    subjects = (str(files.symbol), str(candidate_files.symbol))
    network = deployed = read_network(files)
    report = Report(
        reference.name,
        candidate.name,
        *subjects,
        feed.name,
        len(feed),
        "samples",
        expect_equal_bits(reference, candidate),
    )
    report.operators = operators(network, GRAPH)
    report.notes = list(feed.notes)
    done = 0
    with tqdm(total=len(feed), desc="parity", unit="sample", leave=False, disable=None) as bar:
        for inputs in feed.batches():
            count = len(next(iter(inputs.values()))) if inputs else len(feed)
            with temporary_directory() as directory:
                ours = Side(reference, network, GRAPH, inputs, directory)
                try:
                    if not done:
                        shapes = {name: values.shape for name, values in inputs.items()}
                        if candidate_files != files:
                            deployed = read_network(candidate_files)
                        if not black_box:
                            report.findings = preflight.check_networks(network, deployed, shapes, GRAPH)
                        report.blamed_by_file = blamed({GRAPH: network}, report)
                        report.notes += preflight.fusion_notes({GRAPH: network if black_box else deployed})
                        report.notes += _runtime_notes((reference, candidate), ({GRAPH: network}, {GRAPH: deployed}))
                    theirs = Side(candidate, deployed, GRAPH, inputs, directory)
                    for name, output in judge_stage(report, ours, theirs, max_memory, repeat).outputs.items():
                        add_output(report, name, output)
                    if report.verdict == DIVERGE and not report.causes:
                        report.causes = diagnose(report, [live_scene(ours, theirs, max_memory, black_box)])
                    if repro is not None:
                        write_first(report, {GRAPH: (ours, theirs)}, None, repro, last=done + count >= len(feed))
                except VQVAEError as error:
                    report.failure = error
                    break
            done += count
            bar.update(count)
    return in_order(report)


def expect_equal_bits(reference: Runtime, candidate: Runtime) -> bool:
    """Whether both must give the same bits: the same operators of the same library on the same machine, set alike."""
    return not any(side.fuses or side.wide or side.settings for side in (reference, candidate))


def _runtime_notes(
    runtimes: tuple[Runtime, Runtime], networks: tuple[Mapping[str, Network], Mapping[str, Network]]
) -> list[str]:
    """What both runtimes have to say of their networks, once."""
    found = [note for runtime, own in zip(runtimes, networks) for note in runtime.notes(own.values())]
    return list(dict.fromkeys(found))


def _pairs(
    sides: tuple[Runtime, Runtime],
    networks: tuple[Mapping[str, Network], Mapping[str, Network]],
    recorded: tuple[Trace, Trace],
    path: Path,
) -> dict[str, tuple[Side, Side]]:
    """Both sides of each graph of a bundle, on the reference's inputs."""
    expected, _ = recorded
    fed = {ENCODER: expected.get(INPUT, "data"), DECODER: expected.get(OUTPUT, "codes")}
    pairs = {}
    for stage in STAGES:
        inputs = {GRAPH_INPUTS[stage]: fed[stage]}
        ours, theirs = (Side(side, network[stage], stage, inputs, path) for side, network in zip(sides, networks))
        pairs[stage] = ours, theirs
    return pairs


def _judge_bundle(
    report: Report,
    sides: tuple[Runtime, Runtime],
    networks: tuple[Mapping[str, Network], Mapping[str, Network]],
    recorded: tuple[Trace, Trace],
    pairs: Mapping[str, tuple[Side, Side]],
    path: Path,
    max_memory: int,
    repeat: int,
) -> None:
    """Judge one batch: what went in, both graphs, what came out. Of each pair the reference comes first."""
    expected, actual = recorded
    theirs = actual.by_key()
    for node in expected.stage(INPUT):
        comparison = compare_nodes(node, theirs.get(node.key))
        reason = None if comparison.equal else comparison.problem or NOT_EQUAL
        report.add(node.key, NodeReport(comparison, reason=reason))
    judged = {stage: judge_stage(report, *pair, max_memory, repeat) for stage, pair in pairs.items()}
    for node in expected.stage(OUTPUT):
        comparison = compare_nodes(node, theirs.get(node.key), any(side.wide for side in sides))
        found = NodeReport(comparison, reason=comparison.problem or (None if comparison.equal else NOT_EQUAL))
        if found.reason == NOT_EQUAL and not report.exact:
            follows = _follows(node.name, actual, sides[1], networks[1], path)
            found = _end_to_end(comparison, judged, follows)
        add_output(report, node.name, found)
    _add_codes(report, expected, actual, judged[ENCODER])
    report.samples = report.samples or _samples(expected, actual)


def _end_to_end(comparison: NodeComparison, judged: Mapping[str, StageReport], follows: bool) -> NodeReport:
    """What is to be said of a result of the whole way that is not equal where that is not expected.

    The graphs were judged one by one on the reference's inputs. The result of the whole way is right if they were, and
    if it is what they give when one is fed the other's result.
    """
    stages = [ENCODER] if comparison.name == "codes" else list(STAGES)
    outputs = [output for stage in stages for output in judged[stage].outputs.values()]
    reason = next((output.reason for output in outputs if output.reason), None)
    if reason is None and not follows:
        reason = "is not what its own graphs give on these images"
    errors = outputs[-1].errors if comparison.name == "reconstruction" else None
    return NodeReport(comparison, errors=errors, reason=reason)


def _follows(name: str, actual: Trace, candidate: Runtime, networks: Mapping[str, Network], path: Path) -> bool:
    """Whether a result of the candidate's whole way is what its parts give."""
    nodes = {node.name: node for node in actual.stage(OUTPUT)}
    if name in ("image", "file"):
        return np.array_equal(nodes[name].load(), to_images(nodes["reconstruction"].load()))
    stage = ENCODER if name == "codes" else DECODER
    value = actual.get(INPUT, "data") if stage == ENCODER else nodes["codes"].load()
    side = Side(candidate, networks[stage], stage, {GRAPH_INPUTS[stage]: value}, path)
    return [node.sha256 for node in side.outputs().values()] == [nodes[name].sha256]


def _add_codes(report: Report, expected: Trace, actual: Trace, encoder: StageReport) -> None:
    ours, theirs = expected.get(OUTPUT, "codes"), actual.get(OUTPUT, "codes")
    codes = report.codes
    assert codes is not None
    codes.compared += ours.size
    equal = int((ours == theirs).sum()) if ours.shape == theirs.shape else 0
    codes.equal += equal
    found = [node.flips for node in encoder.nodes.values() if node.flips]
    found += [output.flips for output in encoder.outputs.values() if output.flips]
    legal = min(max((flips.legal for flips in found), default=0), ours.size - equal)
    codes.legal += legal
    codes.real += ours.size - equal - legal


def _samples(expected: Trace, actual: Trace) -> Samples:
    return Samples(
        np.array(expected.get(INPUT, "pixels")[:_SAMPLES]),
        np.array(expected.get(OUTPUT, "image")[:_SAMPLES]),
        np.array(actual.get(OUTPUT, "file")[:_SAMPLES]),
        np.array(expected.get(OUTPUT, "codes")[:_SAMPLES]),
        np.array(actual.get(OUTPUT, "codes")[:_SAMPLES]),
    )
