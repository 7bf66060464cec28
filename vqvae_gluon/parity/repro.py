"""A folder from which a divergence can be reported where it belongs: the smallest graph that still shows it, what it is
fed, and two programs that need MXNet alone (docs/parity.md, "Report it upstream")."""

import math
import platform
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import jinja2
import numpy as np

from vqvae_gluon.artifacts.binding import Finding, Network, read_network, write_network
from vqvae_gluon.artifacts.bundle import GraphFiles, graph_files
from vqvae_gluon.artifacts.graph import Graph, Output
from vqvae_gluon.artifacts.surgery import ancestors, fed_name, operator_inputs, part, rename
from vqvae_gluon.artifacts.trace import Trace, environment
from vqvae_gluon.errors import InputError, RuntimeFailure, VQVAEError
from vqvae_gluon.parity import preflight
from vqvae_gluon.parity.bounds import FACTOR, Errors, errors
from vqvae_gluon.parity.discrete import adjudicate, is_discrete
from vqvae_gluon.parity.judge import BEYOND_LOCALLY
from vqvae_gluon.parity.report import Report, describe, summary
from vqvae_gluon.parity.result import DIVERGE, NodeReport
from vqvae_gluon.parity.side import Side
from vqvae_gluon.parity.stages import in_order
from vqvae_gluon.printed import plain
from vqvae_gluon.runtimes import RUNTIMES
from vqvae_gluon.runtimes.base import INPUT, Runtime
from vqvae_gluon.runtimes.fp64 import Float64Runtime
from vqvae_gluon.runtimes.gluon import GluonRuntime
from vqvae_gluon.temporary import temporary_directory

_TEMPLATES = Path(__file__).parent / "templates"
_PROGRAMS = {"repro.py": "repro_main.py.txt", "repro.cc": "repro_main.cc.txt", "Makefile": "repro_Makefile.txt"}
_DIFFERENT_FILES = (preflight.PARAMETER_DIFFERS, preflight.GRAPH_DIFFERS)
_EVERY_DEPTH = 8  # So many levels of ancestors are tried one by one; beyond, each step is half as far again.
_PRUNED = 24  # nodes; of a larger part it is not tried whether it shows the fault without this node or that


def is_taken(directory: Path) -> bool:
    """Whether there is something already."""
    return directory.exists() and (not directory.is_dir() or any(directory.iterdir()))


def require_free(directory: Path) -> None:
    """Refuse a directory that holds something.

    Raises:
        InputError: it does.
    """
    if is_taken(directory):
        raise InputError(directory, "is taken; choose another directory for --repro")


def write_first(
    report: Report,
    sides: Mapping[str, tuple[Side, Side]],
    traces: Optional[tuple[Trace, Trace]],
    directory: Path,
    last: bool = True,
) -> None:
    """Write the folder of what diverges first, unless nothing does, or an earlier batch wrote it. What goes wrong on
    the way becomes a note.

    Args:
        sides: reference and candidate of every graph, by stage, on the batch that was judged.
        traces: of the whole way of a bundle; None of a plain export.
        last: whether no batch follows. Where only files differ so far, a later one may show it in numbers.
    """
    first = in_order(report).first_divergent
    if report.verdict != DIVERGE or first is None or is_taken(directory) or not (last or first.reason):
        return
    stage, name = first.comparison.key
    try:
        if stage in sides:
            write_repro(report, *sides[stage], directory)
        elif traces is not None:
            nodes = [trace.by_key().get((stage, name)) for trace in traces]
            expected, actual = (None if node is None else node.load() for node in nodes)
            write_arrays(report, expected, actual, directory)
    except VQVAEError as error:
        report.notes.append(f"no repro was written: {error}")


def write_repro(report: Report, reference: Side, candidate: Side, directory: Path) -> Path:
    """Write the folder of the first divergent node; it appears whole or not at all.

    Args:
        report: of a comparison that diverged at a node of this stage.
        reference, candidate: of the stage, on the batch that diverged.
        directory: of the folder. There must be nothing yet.

    Returns:
        The directory.

    Raises:
        InputError: the directory is taken.
        RuntimeFailure: the reference could not be run on the part.
    """
    first = report.first_divergent
    assert first is not None
    name = first.comparison.name
    if name in reference.inputs:
        return write_arrays(report, reference.inputs[name], candidate.inputs.get(name), directory)
    with _folder(directory) as folder, temporary_directory() as scratch:
        case = _Search(report, first, reference, candidate, scratch).smallest()
        (folder / "inputs").mkdir()
        for name, values in case.part.inputs.items():
            np.save(folder / "inputs" / f"{name}.npy", values, allow_pickle=False)
        _write_arrays(folder, "expected", case.expected)
        _write_arrays(folder, "actual", case.actual)
        (folder / "tolerance.txt").write_text("".join(f"{bound!r}\n" for bound in case.tolerances))
        _copy(case.part.ours, graph_files(folder, "node"))
        if case.findings:
            _copy(case.part.theirs, graph_files(folder, "candidate"))
        for target, template in _PROGRAMS.items():
            shutil.copyfile(_TEMPLATES / template, folder / target)
        _write_readme(folder, report, first, _told(report, case, reference, candidate))
    return directory


def write_arrays(report: Report, expected: Optional[np.ndarray], actual: Optional[np.ndarray], directory: Path) -> Path:
    """The same where no node is wrong, but what is fed or what is made of the result: a note and the two arrays.

    Args:
        expected, actual: the reference's and the candidate's; None if a side does not have it.

    Raises:
        InputError: the directory is taken.
    """
    first = report.first_divergent
    assert first is not None
    before = first.comparison.stage == INPUT or first.comparison.operator == "input"
    place = "before the network: the two are not fed the same" if before else "behind the network: its nodes are right"
    with _folder(directory) as folder:
        written = {"expected": expected, "actual": actual}
        for name, array in written.items():
            _write_arrays(folder, name, [] if array is None else [array])
        told = {
            "graph": False,
            "extent": f"The fault lies {place}.",
            "arrays": [f"{name}-0.npy" for name, array in written.items() if array is not None],
        }
        _write_readme(folder, report, first, told)
    return directory


@dataclass(frozen=True)
class _Part:
    """A part of the graph that ends in the blamed node.

    Attributes:
        names: of its operators in the reference's graph.
        operators: the same by the names that the folder gives them, with their kinds.
        ours, theirs: it in the reference's and in the candidate's files.
        inputs: what it is fed, by name.
        directory: for what is run.
    """

    names: frozenset[str]
    operators: tuple[tuple[str, str], ...]
    ours: GraphFiles
    theirs: GraphFiles
    inputs: Mapping[str, np.ndarray]
    directory: Path


@dataclass(frozen=True)
class _Case:
    """A part, as both sides compute it.

    Attributes:
        expected, actual: outputs of both sides; of the candidate none if it could not be run.
        tolerances: the largest error of each output that is right.
        findings: how the files of both sides differ in the part.
        shows: whether the candidate is wrong on it.
        whole: whether it is the whole graph, because the blamed node is not in both.
    """

    part: _Part
    expected: list[np.ndarray]
    actual: list[np.ndarray]
    tolerances: list[float]
    findings: list[Finding]
    shows: bool
    whole: bool


class _Search:
    """The smallest part of a graph that ends in a node and that the candidate still computes wrongly.

    Args:
        scratch: directory for what is run on the way; it must outlast the case.
    """

    def __init__(self, report: Report, first: NodeReport, reference: Side, candidate: Side, scratch: Path):
        self._report, self._first, self._scratch = report, first, scratch
        self._reference, self._candidate = reference, candidate
        # A recording by a runtime that fuses is worth running again: in one node there is nothing to fuse.
        self._run_again = candidate.replays or (report.candidate in RUNTIMES and candidate.runtime.fuses)
        network = reference.network
        owners = {
            network.tensor((node.name, k)): node.name
            for node in network.graph.operators()
            for k in range(network.visible[node.name])
        }
        blamed = owners.get(first.comparison.name)
        self._node = blamed if blamed in candidate.graph.by_name() else None
        self._heads: tuple[Output, ...] = tuple(dict.fromkeys(network.graph.outputs))
        if self._node is not None:
            self._heads = tuple((self._node, k) for k in range(network.visible[self._node]))

    def smallest(self) -> _Case:
        """The single node if it shows the fault; else so many levels of its ancestors as do; else all of them."""
        if self._node is None:
            return self._required(frozenset(ancestors(self._reference.graph, self._heads)), self._reference)
        levels = self._levels()
        alone, everything = levels[0], levels[-1]
        if self._first.reason is None or not self._run_again:
            return self._required(alone, self._reference)
        side = self._fewest_samples(everything)
        found = self._grown(levels, side)
        if found is not None:
            return self._pruned(found, side)
        if not self._candidate.replays:
            self._run_again = False
            return self._required(alone, side)
        case = self._required(alone, side)
        return case if case.findings else self._required(everything, side)

    def _levels(self) -> list[frozenset[str]]:
        """The node alone, then with one level of its ancestors more each time, up to all of them.

        What is discrete is never computed on the way, but fed: that a code may jump must not hide anything.
        """
        graph, nodes = self._reference.graph, self._reference.graph.by_name()
        last = {name for name, _ in self._heads}
        levels, names = [], frozenset(last)
        while last:
            names |= last
            levels.append(names)
            inputs = {output for name in last for output in operator_inputs(graph, name)}
            last = {name for name, k in inputs if not is_discrete(nodes[name], k)} - names
        return levels

    def _grown(self, levels: list[frozenset[str]], side: Side) -> Optional[_Case]:
        right, depth = -1, 0
        while True:
            case = self._trial(levels[depth], side)
            if case is not None:
                break
            if depth == len(levels) - 1:
                return None
            right, depth = depth, min(len(levels) - 1, depth + 1 if depth < _EVERY_DEPTH else depth + depth // 2)
        while depth - right > 1:
            middle = (depth + right) // 2
            smaller = self._trial(levels[middle], side)
            if smaller is not None:
                case, depth = smaller, middle
            else:
                right = middle
        return case

    def _pruned(self, case: _Case, side: Side) -> _Case:
        """The case without the ancestors that it does not need."""
        if len(case.part.names) > _PRUNED:
            return case
        for node in self._reference.graph.operators():
            if node.name in case.part.names and node.name != self._node:
                names = _reaching(self._reference.graph, self._heads, case.part.names - {node.name})
                smaller = self._trial(names, side)
                if smaller is not None:
                    case = smaller
        return case

    def _fewest_samples(self, names: frozenset[str]) -> Side:
        """The reference on one sample if that shows the fault: the first, or the one that is furthest off."""
        side = self._reference
        counts = {values.shape[0] if values.ndim else 0 for values in side.inputs.values()}
        if len(counts) != 1 or max(counts) < 2 or not (side.replays and self._candidate.replays):
            return side
        metrics = self._first.comparison.metrics
        worst = metrics.worst.index[0] if metrics is not None and metrics.worst.index else 0
        for sample in dict.fromkeys((0, worst if worst < max(counts) else 0)):
            inputs = {name: values[sample : sample + 1] for name, values in side.inputs.items()}
            one = Side(side.runtime, side.network, side.stage, inputs, side.directory)
            case = self._trial(names, one)
            if case is not None:
                return one
        return side

    def _required(self, names: frozenset[str], side: Side) -> _Case:
        """A case that must be, whether the candidate can be run on it or not."""
        found = self._part(names, side)
        expected = self._expected(found, side)
        try:
            actual = self._actual(found)
        except VQVAEError:
            actual = []
        return self._judged(found, side, expected, actual)

    def _trial(self, names: frozenset[str], side: Side) -> Optional[_Case]:
        """The part of some operators, run by both sides; None if it does not show the fault or could not be run."""
        try:
            found = self._part(names, side)
            expected, actual = self._expected(found, side), self._actual(found)
            if len(expected) == len(actual) and all(map(_same, expected, actual)):
                return None
            case = self._judged(found, side, expected, actual)
        except VQVAEError:
            return None
        return case if case.shows else None

    def _part(self, names: frozenset[str], side: Side) -> _Part:
        network, deployed = side.network, self._candidate.network
        graph, fed = part(network.graph, names, outputs=self._heads)
        other = graph
        if deployed is not network:
            if self._node is None:
                everything = {node.name for node in deployed.graph.operators()}
                other, more = part(deployed.graph, everything, outputs=dict.fromkeys(deployed.graph.outputs))
            else:
                other, more = part(deployed.graph, _reaching(deployed.graph, self._heads, names), outputs=self._heads)
            fed |= more
        if any(k >= network.visible.get(name, 0) for name, k in fed):
            raise RuntimeFailure(self._node, "takes in the candidate what the reference does not have")
        values = side.truncated(fed) if fed else {}
        plain = _plain_names(node.name for node in (*graph.nodes, *other.nodes))
        inputs = {plain[fed_name(output)]: np.array(values[network.tensor(output)]) for output in sorted(fed)}
        inputs.update({plain[name]: np.array(array) for name, array in side.inputs.items() if name in plain})
        directory = Path(tempfile.mkdtemp(dir=self._scratch))
        ours = _write_part(graph, network, plain, directory / "reference")
        theirs = ours if deployed is network else _write_part(other, deployed, plain, directory / "candidate")
        operators = tuple((plain[node.name], node.operator) for node in graph.operators())
        return _Part(names, operators, ours, theirs, inputs, directory)

    def _expected(self, found: _Part, side: Side) -> list[np.ndarray]:
        if side.replays:
            return _outputs(side.runtime, found.ours, found.inputs, found.directory / "expected")
        recorded = side.truncated(self._heads)
        return [np.array(recorded[side.network.tensor(head)]) for head in self._heads]

    def _actual(self, found: _Part) -> list[np.ndarray]:
        if self._run_again:
            return _outputs(self._candidate.runtime, found.theirs, found.inputs, found.directory / "actual")
        recorded = self._candidate.truncated(self._heads)
        tensors = map(self._candidate.network.tensor, self._heads)
        return [np.array(recorded[tensor]) for tensor in tensors if tensor in recorded]

    def _judged(self, found: _Part, side: Side, expected: list[np.ndarray], actual: list[np.ndarray]) -> _Case:
        complete = len(actual) == len(expected)
        theirs = actual if complete else expected
        bounds = self._bounds(side, found, expected, theirs)
        sides = list(zip(self._heads, expected, theirs, bounds))
        wrong = [self._is_wrong(side, *one) for one in sides]
        findings: list[Finding] = []
        if found.theirs is not found.ours:
            shapes = {name: array.shape for name, array in found.inputs.items()}
            networks = read_network(found.ours), read_network(found.theirs)
            findings = preflight.check_networks(*networks, shapes, side.stage)
        return _Case(
            found,
            expected,
            actual,
            [self._tolerance(*one) for one in sides],
            [finding for finding in findings if finding.cause in _DIFFERENT_FILES],
            bool(actual) and (any(wrong) or not complete),
            self._node is None,
        )

    def _bounds(self, side: Side, found: _Part, expected: list[np.ndarray], actual: list[np.ndarray]) -> list[Errors]:
        """Of every output: both sides' errors against the arbiter, and what is honest."""
        honest = expected
        if side.runtime.fuses or side.runtime.wide:
            honest = _outputs(GluonRuntime(), found.ours, found.inputs, found.directory / "honest")
        try:
            truth = _outputs(Float64Runtime(), found.ours, found.inputs, found.directory / "truth")
        except VQVAEError:
            truth = expected  # What the arbiter cannot run is held to the reference's own values.
        alike = [theirs if theirs.shape == ours.shape else ours for ours, theirs in zip(expected, actual)]
        return [errors(*four) for four in zip(expected, alike, truth, honest)]

    def _is_wrong(self, side: Side, head: Output, ours: np.ndarray, theirs: np.ndarray, found: Errors) -> bool:
        """Whether the candidate is wrong by what the report expected: the bits, or the arbiter's bounds."""
        if ours.shape != theirs.shape:
            return True
        if _same(ours, theirs):
            return False
        if self._report.exact:
            return True
        node = side.graph.by_name()[head[0]]
        if not is_discrete(node, head[1]):
            known = self._first.local_errors if self._first.reason == BEYOND_LOCALLY else self._first.errors
            return not replace(found, bound=max(found.bound, known.bound if known else 0.0)).honest
        outputs = operator_inputs(side.graph, node.name)
        values = side.truncated(outputs)
        fed = {output: values[side.network.tensor(output)] for output in outputs}
        stored = {name[4:]: array for name, array in side.network.parameters.items()}
        arbiter = side.with_runtime(Float64Runtime())

        def evaluate(moved: list[np.ndarray]) -> np.ndarray:
            of_operators = {output: array for output, array in zip(node.inputs, moved) if output in fed}
            return arbiter.exploded([node.name], of_operators)[side.network.tensor(head)].load()

        inputs = [fed[output] if output in fed else {**stored, **side.inputs}[output[0]] for output in node.inputs]
        bound = self._first.flips.bound / 2 if self._first.flips else 0.0
        return adjudicate(node, inputs, ours, theirs, bound, evaluate).real > 0

    def _tolerance(self, head: Output, ours: np.ndarray, theirs: np.ndarray, found: Errors) -> float:
        """What upstream may be off by: what is honest; nothing if the candidate's whole error is less than that."""
        if is_discrete(self._reference.graph.by_name()[head[0]], head[1]) or not math.isfinite(found.bound):
            return 0.0
        hidden = self._report.exact and ours.shape == theirs.shape and found.candidate <= found.bound
        return 0.0 if hidden and not _same(ours, theirs) else found.bound


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f" and b.dtype.kind == "f")


def _reaching(graph: Graph, heads: Iterable[Output], names: Collection[str]) -> frozenset[str]:
    """Of some operators those that the outputs come from by way of these operators alone."""
    wanted = {name for name, _ in heads}
    for node in reversed(graph.nodes):
        if node.name in wanted:
            wanted.update(name for name, _ in node.inputs if name in names)
    return frozenset(wanted)


def _plain_names(names: Iterable[str]) -> dict[str, str]:
    """Names of letters, digits and underscores alone, for tools that take no others; what is fed has the name of what
    it stands for."""
    plain: dict[str, str] = {}
    for name in dict.fromkeys(names):
        text = name[len("fed:") :] if name.startswith("fed:") else name
        text = re.sub(r"\W", "_", re.sub(r":0$", "", text), flags=re.ASCII)
        other = 2
        unique = text
        while unique in plain.values():
            unique, other = f"{text}_{other}", other + 1
        plain[name] = unique
    return plain


def _write_part(graph: Graph, network: Network, plain: Mapping[str, str], directory: Path) -> GraphFiles:
    parameters = {
        name[:4] + plain[name[4:]]: values for name, values in network.parameters.items() if name[4:] in plain
    }
    return write_network(rename(graph, plain), parameters, directory)


def _outputs(runtime: Runtime, files: GraphFiles, inputs: Mapping[str, np.ndarray], path: Path) -> list[np.ndarray]:
    """What a runtime gives as it is deployed, without taps."""
    trace = runtime.trace_graph(files, inputs, "part", path, taps=False)
    return [np.array(node.load()) for node in trace.nodes if node.operator != "input"]


def _told(report: Report, case: _Case, reference: Side, candidate: Side) -> dict[str, Any]:
    """What the folder's README says of the case."""
    sizes = {values.shape[0] for values in case.part.inputs.values() if values.ndim}
    cut = reference.replays and report.count > 1 and sizes == {1}
    if case.whole:
        extent = "The blamed node is not in both graphs, so both are here whole."
    elif case.shows and not candidate.replays and case.actual and len(case.part.names) == 1:
        extent = f"The candidate was recorded: `actual-K.npy` is what {report.candidate} gave then."
    elif case.shows and len(case.part.names) == 1:
        extent = "It is enough to show the fault."
    elif case.shows:
        extent = "It is the smallest part that was found to show the fault; the blamed node alone does not."
    elif case.findings and case.actual:
        extent = "On these inputs the numbers of both sides are the same; the files are not."
    elif len(case.part.names) == 1:
        extent = "The candidate's own way to this node is not known; on its own inputs it may have been right."
    else:
        extent = "No smaller part shows the fault, and this one may not either: the candidate was right when run again."
    if max(case.tolerances) > 0:
        tolerance = f"It is measured: {FACTOR:g} times the error that float32 has against float64 here."
    else:
        tolerance = (
            "Here every bit counts, so it holds on one machine only." if report.exact else "Here no jump is right."
        )
    if not case.actual:
        actual = ""
    elif candidate.replays or (case.shows and len(case.part.names) > 1):
        actual = f"what {report.candidate} gave on this part, run without taps."
    else:
        actual = f"what {report.candidate} gave when it was recorded."
    first = report.first_divergent
    if first is not None and first.errors is not None and first.errors.off == "reference":
        extent += f" By float64 it is {report.reference} that is off: `expected-K.npy` is what is wrong."
    return {
        "graph": True,
        "nodes": case.part.operators,
        "extent": extent,
        "samples": ", of one sample" if cut else "",
        "tolerance": tolerance,
        "actual": actual,
        "findings": [str(finding) for finding in case.findings],
    }


def _write_readme(folder: Path, report: Report, first: NodeReport, told: Mapping[str, Any]) -> None:
    jinja = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: plain(value) if isinstance(value, str) else value,
    )
    comparison, cause, here = first.comparison, report.cause, environment()
    versions = [("MXNet", here["mxnet"]), ("NumPy", np.__version__), ("Python", platform.python_version())]
    versions += [("processor", here["processor"]), ("threads", here["threads"])]
    text = jinja.get_template("repro_README.md.txt").render(
        title=f"{comparison.operator} {comparison.name}: {report.candidate} against {report.reference}",
        verdict=f"{report.verdict.upper()}: {summary(report)}",
        cause=f"{cause.name}: {cause.evidence}" if cause else "unknown",
        node=f"{comparison.stage}/{comparison.name}",
        operator=comparison.operator,
        numbers=describe(first),
        reference=report.reference,
        versions=[(name, version) for name, version in versions if version],
        **told,
    )
    (folder / "README.md").write_text(re.sub(r"\n{3,}", "\n\n", text) + "\n")


def _write_arrays(folder: Path, name: str, arrays: Iterable[np.ndarray]) -> None:
    for k, array in enumerate(arrays):
        np.save(folder / f"{name}-{k}.npy", np.ascontiguousarray(array), allow_pickle=False)


def _copy(source: GraphFiles, target: GraphFiles) -> None:
    shutil.copyfile(source.symbol, target.symbol)
    shutil.copyfile(source.params, target.params)


@contextmanager
def _folder(directory: Path) -> Iterator[Path]:
    """A directory that appears under its name only when it is whole."""
    require_free(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with temporary_directory(directory.parent) as temporary:
        folder = temporary / "repro"
        folder.mkdir()
        yield folder
        folder.replace(directory)
