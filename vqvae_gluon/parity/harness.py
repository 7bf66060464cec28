"""The judgement: two runtimes on the same bundle and the same images (docs/architecture.md, "How it is decided")."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np
from tqdm import tqdm

from vqvae_gluon.artifacts.binding import Finding
from vqvae_gluon.artifacts.bundle import STAGES, Bundle, graph_files, open_bundle
from vqvae_gluon.artifacts.graph import read_graph
from vqvae_gluon.artifacts.trace import Key, Trace
from vqvae_gluon.data import Images
from vqvae_gluon.errors import VQVAEError
from vqvae_gluon.parity import preflight
from vqvae_gluon.parity.compare import NodeComparison, compare_stages
from vqvae_gluon.runtimes.base import DECODER, ENCODER, INPUT, OUTPUT, Runtime

AGREE, DIVERGE, INVALID = "agree", "diverge", "invalid"
_DIVERGENCES = (preflight.PARAMETER_DIFFERS, preflight.GRAPH_DIFFERS)
_SAMPLES = 16


@dataclass(frozen=True)
class Cause:
    """Why the two diverge.

    Attributes:
        name: of the cause; ``unexplained`` if none was found.
        evidence: what shows it.
    """

    name: str
    evidence: str


@dataclass
class Samples:
    """The first images of a comparison, to be looked at: uint8 (N, H, W, C) and int32 (N, h, w)."""

    images: np.ndarray
    reference_images: np.ndarray
    candidate_images: np.ndarray
    reference_codes: np.ndarray
    candidate_codes: np.ndarray


@dataclass
class Report:
    """What was found.

    Attributes:
        nodes: every comparison, in the order of the data.
        nodes_skipped: nodes of the graphs, by stage and name, that were not compared.
        codes_compared: how many codes were compared.
        codes_equal: how many of them are equal.
        findings: about the files, before anything was run.
        guard: where a run with taps gave other results than the run without, by side and stage.
        failure: why the candidate could not be run to the end, if it could not.
        blamed_by_file: stage and name of the first node that the findings are about.
        samples: the first images; None if none were run.
    """

    reference: str
    candidate: str
    bundle: Path
    candidate_bundle: Path
    data: str
    count: int
    nodes: list[NodeComparison] = field(default_factory=list)
    nodes_skipped: list[Key] = field(default_factory=list)
    codes_compared: int = 0
    codes_equal: int = 0
    findings: list[Finding] = field(default_factory=list)
    guard: list[str] = field(default_factory=list)
    failure: Optional[VQVAEError] = None
    blamed_by_file: Optional[Key] = None
    samples: Optional[Samples] = None

    @property
    def nodes_compared(self) -> int:
        """Operators whose values were compared; what is fed and what comes out are told beside them."""
        return sum(node.stage in STAGES and node.operator != "input" and not node.problem for node in self.nodes)

    @property
    def first_divergent(self) -> Optional[NodeComparison]:
        """The first node, in the order of the data, that is wrong although everything before it is right.

        Where only the files differ and no number does, the first node that takes what differs.
        """
        for node in self.nodes:
            if not node.equal:
                return node
        return next((node for node in self.nodes if node.key == self.blamed_by_file), None)

    @property
    def verdict(self) -> str:
        if not all(node.equal for node in self.nodes):
            return DIVERGE
        if self.failure is not None or self.nodes_compared == 0:
            return INVALID
        differs = any(finding.cause in _DIVERGENCES for finding in self.findings)
        return DIVERGE if differs or self.nodes_skipped or self.guard else AGREE

    @property
    def cause(self) -> Optional[Cause]:
        """The named reason; None if the two agree."""
        if self.verdict == AGREE:
            return None
        for finding in self.findings:
            if finding.cause != preflight.DIGEST_DIFFERS:
                return Cause(finding.cause, f"{finding.subject}: {finding.detail}")
        if self.failure is not None:
            return Cause("candidate failed", str(self.failure))
        if self.guard and all(node.equal for node in self.nodes):
            return Cause("taps change the result", "; ".join(self.guard))
        return Cause("unexplained", "graphs and parameters of both sides are the same, the numbers are not")


def compare_bundles(
    reference: Runtime,
    candidate: Runtime,
    bundle: Path,
    candidate_bundle: Path,
    images: Images,
    batch_size: int = 128,
) -> Report:
    """Run both sides on the same images and compare everything they recorded.

    The candidate's decoder is compared when it is fed the *reference's* codes, so that codes that differ cannot hide
    what the decoder does; its own way from end to end is compared at the outputs.

    Args:
        bundle: what the reference runs; it must be whole and undamaged.
        candidate_bundle: what the candidate runs, whatever its digests say.
        images: what is fed.
        batch_size: images that are run at once.

    Returns:
        The report, also if the candidate failed: then with its failure and what was compared until then.

    Raises:
        InputError: the reference's bundle or the images were rejected.
        RuntimeFailure: the reference could not be run.
    """
    ours = open_bundle(bundle)
    report = Report(reference.name, candidate.name, bundle, candidate_bundle, images.name, len(images))
    nodes: dict[Key, NodeComparison] = {}
    with tqdm(total=len(images), desc="parity", unit="image", leave=False, disable=None) as bar:
        for files, count in images.batches(batch_size):
            with tempfile.TemporaryDirectory(prefix="vqvae-parity.") as directory:
                path = Path(directory)
                expected = reference.trace_bundle(ours.path, files, path / "reference")
                try:
                    if not bar.n:
                        theirs = open_bundle(candidate_bundle, verify=False)
                        report.findings = preflight.check_sides(ours, theirs, (count, *images.shape))
                    actual = candidate.trace_bundle(candidate_bundle, files, path / "candidate")
                    codes = {"codes": np.array(expected.get(OUTPUT, "codes"))}
                    fed = candidate.trace_graph(graph_files(candidate_bundle, DECODER), codes, DECODER, path / "fed")
                    comparisons = _compare(expected, actual, fed)
                    _add_codes(report, expected, actual)
                    report.samples = report.samples or _samples(expected, actual)
                except VQVAEError as error:
                    report.failure = error
                    break
            for comparison in comparisons:
                past = nodes.get(comparison.key)
                nodes[comparison.key] = past.merge(comparison) if past else comparison
            report.guard = report.guard or _guard(expected) + _guard(actual)
            bar.update(count)
    report.nodes = list(nodes.values())
    report.nodes_skipped = _skipped(ours, report.nodes)
    report.blamed_by_file = _blamed(ours, report.findings)
    return report


def _compare(expected: Trace, actual: Trace, fed: Trace) -> list[NodeComparison]:
    return [
        *compare_stages(expected.nodes, actual.by_key(), (INPUT, ENCODER)),
        *compare_stages(expected.nodes, fed.by_key(), (DECODER,)),
        *compare_stages(expected.nodes, actual.by_key(), (OUTPUT,)),
    ]


def _add_codes(report: Report, expected: Trace, actual: Trace) -> None:
    ours, theirs = expected.get(OUTPUT, "codes"), actual.get(OUTPUT, "codes")
    report.codes_compared += ours.size
    if ours.shape == theirs.shape:
        report.codes_equal += int((ours == theirs).sum())


def _guard(trace: Trace) -> list[str]:
    """Where the last node of a tapped graph is not what the graph gave without taps."""
    digests = {node.name: node.sha256 for node in trace.stage(OUTPUT)}
    return [
        f"{trace.runtime} {stage}: {name} is another with taps than without"
        for stage, name in ((ENCODER, "codes"), (DECODER, "reconstruction"))
        for last in trace.stage(stage)[-1:]
        if last.sha256 != digests.get(name)
    ]


def _samples(expected: Trace, actual: Trace) -> Samples:
    return Samples(
        np.array(expected.get(INPUT, "pixels")[:_SAMPLES]),
        np.array(expected.get(OUTPUT, "image")[:_SAMPLES]),
        np.array(actual.get(OUTPUT, "file")[:_SAMPLES]),
        np.array(expected.get(OUTPUT, "codes")[:_SAMPLES]),
        np.array(actual.get(OUTPUT, "codes")[:_SAMPLES]),
    )


def _skipped(bundle: Bundle, nodes: list[NodeComparison]) -> list[Key]:
    """Operators of the bundle's graphs that were not compared; output k of a node is recorded as ``<node>:<k>``."""
    compared = {
        (node.stage, name) for node in nodes if not node.problem for name in (node.name, node.name.split(":")[0])
    }
    return [
        (stage, node.name)
        for stage in STAGES
        for node in read_graph(bundle.graph(stage).symbol).nodes
        if not node.is_variable and (stage, node.name) not in compared
    ]


def _blamed(bundle: Bundle, findings: list[Finding]) -> Optional[Key]:
    """The first node that differs by itself, or takes a parameter that differs."""
    for finding in findings:
        if finding.cause == preflight.GRAPH_DIFFERS:
            return finding.stage, finding.subject
        if finding.cause == preflight.PARAMETER_DIFFERS:
            return finding.stage, read_graph(bundle.graph(finding.stage).symbol).consumers(finding.subject)[0]
    return None
