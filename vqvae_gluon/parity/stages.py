"""One graph within a comparison: judged, run again, walked through under a limit of memory."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Optional, TypeVar

import numpy as np

from vqvae_gluon.artifacts.binding import Network
from vqvae_gluon.artifacts.graph import Output
from vqvae_gluon.artifacts.surgery import operator_inputs, output_bytes, segments
from vqvae_gluon.artifacts.trace import Key, TraceNode
from vqvae_gluon.parity import preflight
from vqvae_gluon.parity.judge import Judge
from vqvae_gluon.parity.result import NodeReport, Result, StageReport
from vqvae_gluon.parity.side import Side
from vqvae_gluon.runtimes.base import DECODER, ENCODER, INPUT

MAX_MEMORY = 1536 << 20
GRAPH = "graph"  # The stage of a plain export.
_ORDER = {INPUT: 0, GRAPH: 1, ENCODER: 1, DECODER: 2}

Found = TypeVar("Found", bound=Result)


def judge_stage(report: Result, reference: Side, candidate: Side, max_memory: int, repeat: int = 1) -> StageReport:
    """Judge one graph on one batch and add what was found, also if it fails on the way.

    Args:
        repeat: how often each side is run; every run must give the same bits.

    Raises:
        InputError: a network or an input was rejected.
        RuntimeFailure: a side could not be run.
    """
    stage, graph = reference.stage, candidate.graph
    for node in graph.operators():
        inputs = operator_inputs(graph, node.name)
        report.candidate_inputs[stage, node.name] = tuple(candidate.network.tensor(output) for output in inputs)
    judge = Judge(reference, candidate, report.exact, max_memory)
    try:
        judge.run()
        for side, which in ((reference, "reference"), (candidate, "candidate")):
            _add_new(report.nondeterministic, _changes(side, which, repeat, max_memory))
    finally:
        for name, node_report in judge.report.nodes.items():
            report.add((stage, name), node_report)
        _add_new(report.guard, [f"{stage}: {text}" for text in judge.report.guard])
        _add_new(report.notes, judge.report.notes)
    return judge.report


def walk(side: Side, max_memory: int, keep: Optional[Collection[str]] = None) -> Iterator[TraceNode]:
    """Every tensor of one run on the side's own values, tapped in segments; see :meth:`Side.tap`."""
    names = [node.name for node in side.graph.operators()]
    sizes = output_bytes(side.network, {name: values.shape for name, values in side.inputs.items()})
    values: dict[Output, np.ndarray] = {}
    done: set[str] = set()
    for run in segments(names, sizes, max_memory):
        done.update(run)
        later = {output for node in side.graph.nodes if node.name not in done for output in node.inputs}
        passed = {(name, k) for name in run for k in range(side.network.visible[name])} & later
        kept = None if keep is None else {*keep, *map(side.network.tensor, passed)}
        found = side.tap(run, values, kept)
        yield from found.values()
        values.update({output: found[side.network.tensor(output)].load() for output in passed})
        values = {output: array for output, array in values.items() if output in later}


def operators(network: Network, stage: str) -> list[Key]:
    """The operators of a graph, in its order."""
    return [(stage, node.name) for node in network.graph.operators()]


def blamed(networks: Mapping[str, Network], report: Result) -> Optional[Key]:
    """Of the reference's graphs the first node that differs by itself, or takes a parameter that differs."""
    for finding in report.findings:
        if finding.cause == preflight.GRAPH_DIFFERS:
            return finding.stage, finding.subject
        if finding.cause == preflight.PARAMETER_DIFFERS:
            consumers = networks[finding.stage].graph.consumers(finding.subject)
            return (finding.stage, consumers[0]) if consumers else None
    return None


def in_order(report: Found) -> Found:
    """The report with its tensors in the order of the data: what bisection found may have come late."""
    order = {key: place for place, key in enumerate(report.operators)}

    def place(key: Key) -> tuple[int, int]:
        stage, name = key
        if report.nodes[key].comparison.operator == "input":
            return _ORDER[stage], -1
        return _ORDER[stage], order.get(key, order.get((stage, name.rpartition(":")[0]), len(order)))

    report.nodes = {key: report.nodes[key] for key in sorted(report.nodes, key=place)}
    return report


def add_output(report: Result, name: str, found: NodeReport) -> None:
    """Add what was found at an output in one more batch."""
    past = report.outputs.get(name)
    report.outputs[name] = past.merge(found) if past else found


def _changes(side: Side, which: str, repeat: int, max_memory: int) -> list[str]:
    """Where a side gives other bits when it is run again: every node, and the outputs of the run without taps."""
    runs = [_digests(side, max_memory) for _ in range(repeat if repeat > 1 else 0)]
    changed = [name for run in runs[1:] for name in run if run[name] != runs[0].get(name)]
    return [f"{side.stage}: {which} ({side.runtime.name}): {name} changes from run to run" for name in changed[:1]]


def _digests(side: Side, max_memory: int) -> dict[str, str]:
    tapped = {node.name: node.sha256 for node in walk(side, max_memory, keep=())}
    return {**tapped, **{f"{name} without taps": node.sha256 for name, node in side.outputs().items()}}


def _add_new(texts: list[str], more: Sequence[str]) -> None:
    texts.extend(text for text in dict.fromkeys(more) if text not in texts)
