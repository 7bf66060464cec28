"""Record a runtime on one machine, compare on another (docs/parity.md, "Two machines")."""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Optional

import numpy as np

from vqvae_gluon.artifacts.binding import Network, read_network
from vqvae_gluon.artifacts.bundle import GRAPH_INPUTS, STAGES, GraphFiles, graph_files
from vqvae_gluon.artifacts.trace import Trace, TraceNode, TraceWriter, open_trace
from vqvae_gluon.data.images import to_images
from vqvae_gluon.errors import InputError, RuntimeFailure
from vqvae_gluon.parity import preflight
from vqvae_gluon.parity.diagnose import Scene, diagnose
from vqvae_gluon.parity.judge import NOT_EQUAL
from vqvae_gluon.parity.metrics import compare_nodes
from vqvae_gluon.parity.report import Report
from vqvae_gluon.parity.repro import require_free, write_first
from vqvae_gluon.parity.result import DIVERGE, Codes, NodeReport
from vqvae_gluon.parity.side import Side
from vqvae_gluon.parity.stages import GRAPH, MAX_MEMORY, add_output, blamed, in_order, judge_stage, operators, walk
from vqvae_gluon.runtimes import RUNTIMES
from vqvae_gluon.runtimes.base import DECODER, ENCODER, INPUT, OUTPUT, Runtime
from vqvae_gluon.temporary import temporary_directory

_NETWORK = "network"  # Directory in a trace: the exported networks that it is of.
_OUTPUTS = {ENCODER: "codes", DECODER: "reconstruction"}  # What a bundle calls the outputs of its graphs.
_UNTAPPED = "-output"  # Suffix of a stage: what its graph gave in a run without taps.


def record_bundle(
    runtime: Runtime,
    bundle: Path,
    images: Sequence[Path],
    path: Path,
    replayed: Optional[Trace] = None,
    max_memory: int = MAX_MEMORY,
) -> Trace:
    """Record a bundle's whole way on one batch of images: every node, and what both graphs give without taps.

    Args:
        images: files of one batch.
        path: directory of the trace. There must be nothing yet.
        replayed: a trace whose inputs each graph is fed, so that the two can be compared node by node whatever the
            codes are.

    Raises:
        InputError: the bundle or an image was rejected, or the directory is taken.
        RuntimeFailure: it could not be run.
    """
    with _recording(runtime, path) as recording:
        whole = runtime.trace_bundle(bundle, images, recording.scratch / "whole")
        recording.add(whole.nodes)
        source = replayed or whole
        fed = {ENCODER: source.get(INPUT, "data"), DECODER: source.get(OUTPUT, "codes")}
        for stage in STAGES:
            inputs = {GRAPH_INPUTS[stage]: fed[stage]}
            network = read_network(graph_files(bundle, stage))
            recording.add_stage(Side(runtime, network, stage, inputs, recording.scratch), max_memory)
    return open_trace(path)


def record_export(
    runtime: Runtime, files: GraphFiles, inputs: Mapping[str, np.ndarray], path: Path, max_memory: int = MAX_MEMORY
) -> Trace:
    """The same for a plain export, on one batch."""
    with _recording(runtime, path) as recording:
        recording.add_stage(Side(runtime, read_network(files), GRAPH, inputs, recording.scratch), max_memory)
    return open_trace(path)


def compare_traces(
    reference: Path,
    candidate: Path,
    max_memory: int = MAX_MEMORY,
    black_box: bool = False,
    repro: Optional[Path] = None,
) -> Report:
    """Compare two recorded traces, node by node.

    The reference's trace must hold its network, as ``parity record`` writes it: the arbiter runs it here. The
    candidate's may come from anywhere. Bit equality is expected if library, processor and number of threads are the
    same on both sides and neither runtime rewrites graphs; otherwise the arbiter's bounds.

    Args:
        black_box: do not look at the candidate's files, if its trace holds them.
        repro: where the first divergence is written for a report upstream, if there is one.

    Raises:
        InputError: a trace is not whole, or the reference's holds no network.
    """
    if repro is not None:
        require_free(repro)
    ours, theirs = open_trace(reference), open_trace(candidate)
    stages = [stage for stage in (*STAGES, GRAPH) if _network(ours, stage).symbol.exists()]
    if not stages:
        raise InputError(reference, "holds no network; record the reference with 'vqvae-gluon parity record'")
    count = next((node.shape[0] for node in ours.nodes if node.operator == "input" and node.shape), 0)
    names = (ours.runtime, theirs.runtime, str(reference), str(candidate))
    report = Report(*names, "the recorded inputs", count, "samples", _expect_equal_bits(ours, theirs))
    networks = {stage: read_network(_network(ours, stage)) for stage in stages}
    report.operators = [key for stage in stages for key in operators(networks[stage], stage)]
    report.notes = [] if report.exact else [f"recorded: {ours.environment} against {theirs.environment}"]
    known = theirs.by_key()
    for node in ours.stage(INPUT):
        comparison = compare_nodes(node, known.get(node.key))
        reason = None if comparison.equal else comparison.problem or "the two were not fed the same"
        report.add(node.key, NodeReport(comparison, reason=reason))
    with temporary_directory() as directory:
        scenes = [
            _compare_stage(report, ours, theirs, networks[stage], stage, directory, max_memory, black_box)
            for stage in stages
        ]
        if ENCODER in stages:
            report.codes = _codes(report, ours, theirs)
            for node in ours.stage(OUTPUT):
                comparison = compare_nodes(node, known.get(node.key), _wide(ours, theirs))
                reason = comparison.problem or (None if comparison.equal else _whole_way(report, node.name, theirs))
                report.outputs[node.name] = replace(
                    report.outputs.get(node.name, NodeReport(comparison)), comparison=comparison, reason=reason
                )
        if report.verdict == DIVERGE:
            report.causes = diagnose(report, scenes, (ours, theirs) if ours.stage(INPUT) else None)
        if repro is not None:
            pairs = {}
            for scene in scenes:
                deployed = RecordedSide(theirs, scene.deployed or scene.network, scene.stage, directory)
                pairs[scene.stage] = pairs[scene.stage + _UNTAPPED] = scene.reference, deployed
            write_first(report, pairs, (ours, theirs), repro)
    return in_order(report)


def _whole_way(report: Report, name: str, theirs: Trace) -> Optional[str]:
    """Why a result of the candidate's whole way that is not the reference's is wrong; None if its graphs give it."""
    if report.exact:
        return NOT_EQUAL
    nodes = {node.name: node for node in theirs.stage(OUTPUT)}
    if name == "codes":
        return "codes jumped, and no honest error explains it" if report.codes is None or report.codes.real else None
    if name in ("image", "file"):
        follows = np.array_equal(nodes[name].load(), to_images(nodes["reconstruction"].load()))
        return None if follows else "is not the reconstruction that was recorded beside it"
    judged = report.outputs.get(name)
    if judged is not None and judged.reason:
        return judged.reason
    alone = theirs.stage(DECODER + _UNTAPPED)
    if report.codes is not None and report.codes.equal == report.codes.compared and alone:
        return None if alone[-1].sha256 == nodes[name].sha256 else "is not what its own decoder gives on these codes"
    return None


def _wide(ours: Trace, theirs: Trace) -> bool:
    return any(trace.runtime in RUNTIMES and RUNTIMES[trace.runtime].wide for trace in (ours, theirs))


class RecordedSide(Side):
    """A stage of a trace, in the place of a runtime: what was recorded, whatever is asked."""

    replays = False

    def __init__(self, trace: Trace, network: Network, stage: str, directory: Path):
        self._tensors = {node.name: node for node in trace.stage(stage)}
        self._untapped = {node.name: node for node in trace.stage(stage + _UNTAPPED)}
        inputs = {name: node.load() for name, node in self._tensors.items() if node.operator == "input"}
        runtime = RUNTIMES.get(trace.runtime, RUNTIMES["gluon"])()
        super().__init__(runtime, network, stage, inputs, directory)

    def wanted(self) -> list[str]:
        """Every tensor that a trace of this graph holds."""
        names = [node.name for node in self.graph.operators()]
        return [self.network.tensor((name, k)) for name in names for k in range(self.network.visible[name])]

    def outputs(self) -> dict[str, TraceNode]:
        """Of the run without taps if that was recorded, else of the tapped one."""
        found = {**self._tensors, **self._untapped}
        heads = [self.network.tensor(output) for output in self.graph.outputs]
        return {name: found[name] for name in heads if name in found}

    def tap(self, names, values, keep=None, cut=(), substitute=None) -> dict[str, TraceNode]:
        tensors = [self.network.tensor((name, k)) for name in names for k in range(self.network.visible[name])]
        found = {name: self._tensors[name] for name in tensors if name in self._tensors}
        for node in found.values():
            node.load()  # Proves that the values are those of the index, which judges by its digests.
        return found

    def exploded(self, names, values, substitute=None) -> dict[str, TraceNode]:
        raise RuntimeFailure(self.stage, "a recorded trace cannot be run on other inputs")

    def truncated(self, outputs, values=None) -> dict[str, np.ndarray]:
        found = {**self._tensors, **self._untapped}
        tensors = [self.network.tensor(output) for output in outputs]
        return {name: found[name].load() for name in tensors if name in found}


def _network(trace: Trace, stage: str) -> GraphFiles:
    return graph_files(trace.path / _NETWORK, stage)


def _expect_equal_bits(ours: Trace, theirs: Trace) -> bool:
    known = [RUNTIMES.get(trace.runtime) for trace in (ours, theirs)]
    plain = all(runtime is not None and not runtime.fuses and not runtime.wide for runtime in known)
    return plain and bool(ours.environment) and ours.environment == theirs.environment


def _compare_stage(
    report: Report,
    ours: Trace,
    theirs: Trace,
    network: Network,
    stage: str,
    directory: Path,
    max_memory: int,
    black_box: bool,
) -> Scene:
    """Compare one graph of two traces. What a foreign trace does not tell of its network is taken for the same."""
    deployed = network if black_box else _deployed(report, theirs, network, stage)
    reference = RecordedSide(ours, network, stage, directory)
    missing = [name for name in (*reference.wanted(), *network.unbound()) if (stage, name) not in ours.by_key()]
    if missing:
        raise InputError(ours.path, f"does not hold {missing[0]} of the stage {stage}; record the reference again")
    shapes = {name: values.shape for name, values in reference.inputs.items()}
    report.findings += preflight.check_networks(network, deployed, shapes, stage)
    report.blamed_by_file = report.blamed_by_file or blamed({stage: network}, report)
    report.notes += preflight.fusion_notes({stage: deployed})
    known = theirs.by_key()
    for name in reference.inputs:
        fed = compare_nodes(ours.by_key()[stage, name], known.get((stage, name)))
        if not fed.equal:
            reason = fed.problem or "the two were not fed the same; record the candidate with --data and this trace"
            report.add((stage, name), NodeReport(fed, reason=reason))
    candidate = RecordedSide(theirs, deployed, stage, directory)
    found = judge_stage(report, reference, candidate, max_memory)
    for name, output in found.outputs.items():
        add_output(report, _OUTPUTS.get(stage, name), output)
    if not theirs.stage(stage + _UNTAPPED):
        why = f"holds no results of the stage {stage} without taps; record it with 'vqvae-gluon parity record'"
        runtime = RUNTIMES.get(theirs.runtime)
        if runtime is not None and runtime.fuses:  # What it gives with taps is another program's.
            report.failure = InputError(theirs.path, why)
        else:
            report.notes.append(f"{theirs.path} {why}")
    if found.unjudged:
        why = f"{len(found.unjudged)} nodes lie behind values that jumped; compare both runtimes on one machine"
        report.failure = InputError(theirs.path, why)
    tensors = {node.name: node for node in theirs.stage(stage)}
    fed_to_it = {name: node.load() for name, node in tensors.items() if node.operator == "input"}
    outputs = {node.name: node for node in theirs.stage(stage + _UNTAPPED)}
    return Scene(reference, fed_to_it, tensors, outputs, deployed if deployed is not network else None)


def _deployed(report: Report, theirs: Trace, network: Network, stage: str) -> Network:
    """The network of the candidate's files; the reference's if the trace has none, or none that can be read."""
    own = _network(theirs, stage)
    if not own.symbol.exists():
        return network
    try:
        return read_network(own)
    except InputError as error:
        report.findings.append(preflight.unreadable(own, error, stage))
        return network


def _codes(report: Report, ours: Trace, theirs: Trace) -> Optional[Codes]:
    expected, actual = (trace.by_key().get((OUTPUT, "codes")) for trace in (ours, theirs))
    if expected is None or actual is None or expected.shape != actual.shape:
        return None
    a, b = expected.load(), actual.load()
    legal = max((flips.legal for (stage, _), flips in report.flips.items() if stage == ENCODER), default=0)
    equal = int((a == b).sum())
    return Codes(a.size, equal, min(legal, a.size - equal), a.size - equal - min(legal, a.size - equal))


class _Recording:
    """A trace that is being written, with its networks.

    Attributes:
        scratch: directory for what is needed on the way.
    """

    def __init__(self, runtime: Runtime, directory: Path):
        self.scratch = directory / "scratch"
        self.trace = directory / "trace"
        self.scratch.mkdir()
        self._writer = TraceWriter(self.trace, runtime.name)

    def add(self, nodes: Iterable[TraceNode]) -> None:
        for node in nodes:
            self._writer.add(node.stage, node.name, node.operator, node.load())

    def add_stage(self, side: Side, max_memory: int) -> None:
        """Every node of a graph, what it gives without taps, and its files."""
        for name, values in side.inputs.items():
            self._writer.add(side.stage, name, "input", values)
        self.add(walk(side, max_memory))
        self.add(replace(node, stage=side.stage + _UNTAPPED) for node in side.outputs().values())
        target = graph_files(self.trace / _NETWORK, side.stage)
        target.symbol.parent.mkdir(exist_ok=True)
        shutil.copyfile(side.network.files.symbol, target.symbol)
        shutil.copyfile(side.network.files.params, target.params)

    def close(self) -> None:
        self._writer.close()


@contextmanager
def _recording(runtime: Runtime, path: Path) -> Iterator[_Recording]:
    """A trace that appears under its name only when it is whole."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(path, "is taken; choose another directory for the trace")
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_directory(path.parent) as directory:
        recording = _Recording(runtime, directory)
        yield recording
        recording.close()
        recording.trace.replace(path)
