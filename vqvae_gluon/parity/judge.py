"""The judgement of one graph on one batch: two sides, the arbiter, every node (docs/parity.md, "How it decides")."""

import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Optional, TypeVar

import numpy as np

from vqvae_gluon.artifacts.graph import Node, Output
from vqvae_gluon.artifacts.surgery import descendants, operator_inputs, output_bytes, segments
from vqvae_gluon.artifacts.trace import TraceNode
from vqvae_gluon.errors import RuntimeFailure
from vqvae_gluon.parity.bounds import FACTOR, Errors, errors
from vqvae_gluon.parity.discrete import Flips, adjudicate, is_discrete, passes_on
from vqvae_gluon.parity.localize import first_wrong
from vqvae_gluon.parity.metrics import NodeComparison, compare_nodes, largest_error, measure
from vqvae_gluon.parity.result import NodeReport, StageReport
from vqvae_gluon.parity.side import Side
from vqvae_gluon.runtimes.fp64 import Float64Runtime
from vqvae_gluon.runtimes.gluon import GluonRuntime

NOT_EQUAL = "not equal bit for bit, though both sides run the same operators of the same library"
BEYOND = "the error is beyond the bound"
BEYOND_LOCALLY = "the error is beyond the bound on the reference's inputs"
NONFINITE = "holds NaN or infinite values"
UNTAPPED = "wrong in the run without taps (found by bisection over truncated graphs)"
_T = TypeVar("_T")
_SIDES = ("reference", "candidate", "arbiter", "yardstick")
_SMALL = 4096  # elements; the largest error of more of them does not depend on luck
_NEIGHBOURS = 6
# While a difference is looked into, this many times the tapped bytes are held: both sides, and the arbiter's twice.
_DETAIL = 4


class Judge:
    """Compares two sides of one graph on one batch.

    Args:
        exact: whether bit equality is expected.
        max_memory: bytes of tapped tensors that are held at once.

    Attributes:
        report: it grows while :meth:`run` works, and stays if that fails.
    """

    def __init__(self, reference: Side, candidate: Side, exact: bool, max_memory: int):
        self.report = StageReport()
        self._reference, self._candidate = reference, candidate
        self._arbiter = reference.with_runtime(Float64Runtime())
        own = reference.runtime.fuses or reference.runtime.wide
        self._plain = reference.with_runtime(GluonRuntime())
        self._yardstick = self._plain if own else reference
        self._exact = exact
        self._max_memory = max_memory
        self._network = reference.network
        self._nodes = reference.graph.by_name()
        self._theirs = {node.name: node for node in candidate.graph.operators()}
        self._widened = reference.runtime.wide or candidate.runtime.wide
        self._differs = False  # Until then both sides have the same values, and `_values` holds them for both.
        # Of the run so far what is still needed: each side's own results.
        self._values: dict[str, dict[Output, np.ndarray]] = {side: {} for side in _SIDES}
        self._discrete: dict[Output, np.ndarray] = {}  # The reference's values of discrete outputs.
        self._flipped: set[Output] = set()
        self._behind: set[str] = set()  # Of a recorded candidate: what lies behind values that jumped.
        self._tapped: dict[str, dict[str, str]] = {"reference": {}, "candidate": {}}  # Digests.

    def run(self) -> StageReport:
        """Judge every node, then the outputs.

        Raises:
            InputError: a network or an input was rejected.
            RuntimeFailure: a side could not be run.
        """
        ours, theirs = self._both(self._reference.outputs, self._candidate.outputs)
        names = [node.name for node in self._reference.graph.operators()]
        shapes = {name: values.shape for name, values in self._reference.inputs.items()}
        self._sizes = output_bytes(self._network, shapes)
        budget, same = self._max_memory, self._same_graph()
        if not same:
            budget = sum(self._sizes.values())
            self.report.notes.append("the two graphs differ, so they are tapped whole, without a limit of memory")
        done: set[str] = set()
        for run in segments(names, self._sizes, budget):
            done.update(run)
            later = self._taken_later(done)
            if self._differs or not same or not self._equal_segment(run, later):
                self._differs = True
                for fine in segments(run, self._sizes, budget if budget > self._max_memory else budget // _DETAIL):
                    self._detail(fine)
            self._forget(later)
        self._extra_nodes()
        self._judge_outputs(ours, theirs)
        return self.report

    # Segments.

    def _same_graph(self) -> bool:
        ours, theirs = self._reference.graph, self._candidate.graph
        return [(node.name, node.inputs) for node in ours.nodes] == [(node.name, node.inputs) for node in theirs.nodes]

    def _both(self, ours: Callable[[], _T], theirs: Callable[[], _T]) -> tuple[_T, _T]:
        """What both sides give; at the same time if the candidate is a process of its own."""
        if not self._candidate.runtime.separate:
            return ours(), theirs()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(theirs)
            return ours(), waiting.result()

    def _taken_later(self, done: set[str]) -> set[Output]:
        return {output for node in self._nodes.values() if node.name not in done for output in node.inputs}

    def _forget(self, later: set[Output]) -> None:
        for values in self._values.values():
            for output in values.keys() - later:
                del values[output]

    def _outputs_of(self, names: Iterable[str]) -> dict[str, Output]:
        outputs = [(name, k) for name in names for k in range(self._network.visible[name])]
        return {self._network.tensor(output): output for output in outputs}

    def _equal_segment(self, names: list[str], later: set[Output]) -> bool:
        """Run a segment on both sides for its digests. If all of them are the same, that is all there is to it."""
        outputs = self._outputs_of(names)
        keep = [name for name, output in outputs.items() if output in later or self._jumps(output)]
        values = self._values["reference"]
        ours, theirs = self._both(
            lambda: self._reference.tap(names, values, keep), lambda: self._candidate.tap(names, values, keep=())
        )
        comparisons = {name: _by_digest(ours[name], theirs.get(name), self._widened) for name in outputs}
        if not all(comparison is not None and comparison.equal for comparison in comparisons.values()):
            for side in self._values:
                self._values[side] = dict(values)
            return False
        for name, output in outputs.items():
            comparison = comparisons[name]
            assert comparison is not None
            self._add(name, NodeReport(comparison, self._inputs_of(output)), ours[name], theirs[name])
            if name in keep:
                values[output] = ours[name].load()
                if self._jumps(output):
                    self._discrete[output] = values[output]
        return True

    def _detail(self, names: list[str]) -> None:
        """Run a segment on both sides and the arbiter, keep all values, and judge every node."""
        outputs = self._outputs_of(names)
        ours = self._reference.tap(names, self._values["reference"])
        theirs = self._tap_candidate(names, outputs, ours)
        jumps = {output for output in outputs.values() if self._jumps(output)}
        fed = {output: ours[name].load() for name, output in outputs.items() if output in jumps}
        self._discrete.update(fed)
        known = {output: ours[name].load() for name, output in outputs.items()}
        truth = self._arbiter.tap(names, {**self._values["arbiter"], **fed}, cut=jumps, substitute=ours)
        honest = ours
        if self._yardstick is not self._reference:
            honest = self._yardstick.tap(names, {**self._values["yardstick"], **fed}, cut=jumps)
        comparisons = {name: compare_nodes(ours[name], theirs.get(name), self._widened) for name in outputs}
        different = dict.fromkeys(output[0] for name, output in outputs.items() if not comparisons[name].equal)
        local = self._exploded(different, {**self._values["reference"], **known}, ours)
        self._values["reference"].update(known)
        for name, output in outputs.items():
            node = theirs.get(name)
            if output[0] in self._behind:
                self._add_behind(output, comparisons[name], ours, theirs)
                for side in _SIDES:
                    self._values[side][output] = known[output]
                continue
            comparable = node is not None and node.shape == ours[name].shape
            self._values["candidate"][output] = node.load() if node is not None and comparable else known[output]
            self._values["arbiter"][output] = truth[name].load() if name in truth else known[output]
            self._values["yardstick"][output] = known[output] if honest is ours else honest[name].load()
            report = NodeReport(comparisons[name], self._inputs_of(output))
            if not report.comparison.equal and not report.comparison.problem:
                report = self._judged(report, output, [found.get(name) for found in local])
            elif report.comparison.problem:
                report = replace(report, reason=report.comparison.problem)
            self._add(name, report, ours[name], node)
            if output in jumps:
                # What comes after is judged on the reference's value, whatever the others gave.
                for side in _SIDES:
                    self._values[side][output] = known[output]

    def _tap_candidate(
        self, names: list[str], outputs: Mapping[str, Output], ours: Mapping[str, TraceNode]
    ) -> dict[str, TraceNode]:
        """The candidate on its own values; behind a discrete output that jumped, on the reference's."""
        names = [name for name in names if name in self._theirs] if self._same_graph() else list(self._theirs)
        if not names:
            return {}
        cut: set[Output] = set()
        jumped: dict[str, TraceNode] = {}
        while True:
            fed = {output: ours[self._network.tensor(output)].load() for output in cut}
            found = self._candidate.tap(names, {**self._values["candidate"], **fed}, cut=cut)
            fresh = {
                name: output
                for name, output in outputs.items()
                if output not in cut
                and output[0] in self._theirs
                and self._jumps(output)
                and name in found
                and found[name].sha256 != ours[name].sha256
                and found[name].shape == ours[name].shape
                and np.dtype(found[name].dtype).kind == np.dtype(ours[name].dtype).kind
            }
            # What lies behind another jump of this run may have jumped because of it: it is asked in the next run.
            behind = descendants(self._reference.graph, set(fresh.values()))
            fresh = {name: output for name, output in fresh.items() if output[0] not in behind}
            if not fresh:
                self._flipped |= cut
                return {**found, **jumped}
            jumped.update({name: found[name] for name in fresh})
            cut.update(fresh.values())
            if not self._candidate.replays:
                self._behind |= descendants(self._reference.graph, cut)
                return found

    def _add_behind(
        self,
        output: Output,
        comparison: NodeComparison,
        ours: Mapping[str, TraceNode],
        theirs: Mapping[str, TraceNode],
    ) -> None:
        """Add a node of a recorded candidate that lies behind values that jumped. It can be judged only if it does
        nothing but hand them on, in the candidate as in the reference."""
        name = self._network.tensor(output)
        sources = self._inputs_of(output)
        judged = bool(sources) and sources[0] in self.report.nodes
        if judged and passes_on(self._nodes[output[0]]) and name in theirs and sources[0] in theirs:
            handed_on = (
                np.array_equal(run[sources[0]].load().ravel(), run[name].load().ravel()) for run in (ours, theirs)
            )
            if all(handed_on):
                source = self.report.nodes[sources[0]]
                self._add(name, replace(source, comparison=comparison, inputs=sources), ours[name], theirs[name])
                return
        self.report.unjudged.add(output[0])

    def _exploded(
        self, names: Iterable[str], known: Mapping[Output, np.ndarray], ours: Mapping[str, TraceNode]
    ) -> list[Mapping[str, TraceNode]]:
        """The candidate, the arbiter and the yardstick on the reference's inputs, each node by itself."""
        runnable = [
            name
            for name in names
            if name in self._theirs
            and all(output in known for output in operator_inputs(self._candidate.graph, name))
            and self._nodes[name].inputs == self._theirs[name].inputs
        ]
        if not runnable:
            return [{}, {}, {}]
        try:
            return [
                self._candidate.exploded(runnable, known),
                self._arbiter.exploded(runnable, known, ours),
                ours if self._yardstick is self._reference else self._yardstick.exploded(runnable, known),
            ]
        except RuntimeFailure as error:
            self.report.notes.append(f"local errors were not measured: {error}")
            return [{}, {}, {}]

    def _judged(self, report: NodeReport, output: Output, by_itself: list[Optional[TraceNode]]) -> NodeReport:
        """What is to be said of a tensor that differs.

        Args:
            by_itself: what the candidate, the arbiter and the yardstick give on the reference's inputs.
        """
        node = self._nodes[output[0]]
        ours, theirs = self._values["reference"][output], self._values["candidate"][output]
        local, local_truth, local_honest = by_itself
        if report.comparison.nonfinite:
            return replace(report, reason=NONFINITE)
        if self._jumps(output):
            bound = (
                0.0 if self._exact else max((self._errors(name).bound for name in self._measured(node)), default=0.0)
            )
            flips = self._adjudicate(node, output, ours, theirs, bound)
            reason = f"{flips.real} of {flips.compared} values jumped, and no honest error explains it"
            if flips.real == 0 and local is not None and local.shape == ours.shape:
                flips_by_itself = self._adjudicate(node, output, ours, local.load(), 0.0)
                reason = f"{flips_by_itself.real} of {flips.compared} values jumped on the reference's own inputs"
                return replace(report, flips=flips, reason=reason if flips_by_itself.real else None)
            return replace(report, flips=flips, reason=reason if flips.real else None)
        report = replace(report, errors=self._remeasured(output, ours.size, self._errors(output)))
        if local is not None and local.shape == ours.shape:
            metrics = measure(ours, local.load())
            report = replace(report, local=replace(report.comparison, elements=ours.size, metrics=metrics))
            if local_truth is not None and local_honest is not None:
                measured = errors(ours, local.load(), local_truth.load(), local_honest.load())
                if ours.size <= _SMALL and report.errors is not None:
                    measured = replace(measured, bound=max(measured.bound, report.errors.bound))
                report = replace(report, local_errors=measured)
        if self._exact:
            return replace(report, reason=NOT_EQUAL)
        if report.errors is not None and not report.errors.honest:
            return replace(report, reason=BEYOND)
        if report.local_errors is not None and not report.local_errors.honest:
            return replace(report, reason=BEYOND_LOCALLY)
        return report

    def _jumps(self, output: Output) -> bool:
        return is_discrete(self._nodes[output[0]], output[1])

    def _measured(self, node: Node) -> list[Output]:
        """The inputs of a discrete node that may be in error: what is discrete itself is the reference's."""
        inputs = operator_inputs(self._reference.graph, node.name)
        return [output for output in inputs if not self._jumps(output)]

    def _errors(self, output: Output) -> Errors:
        return errors(*(self._values[side][output] for side in _SIDES))

    def _remeasured(self, output: Output, size: int, found: Errors) -> Errors:
        """The same with a bound from more than one measurement, if the tensor is small and would be called wrong.

        The largest of few errors may be small by luck. So float32's error is measured again, on inputs and parameters
        that differ by no more than float32 can tell. It is not worth it where something before is wrong already.
        """
        if found.honest or self._exact or size > _SMALL or any(node.reason for node in self.report.nodes.values()):
            return found
        name = self._network.tensor(output)
        known = {other: values for other, values in self._discrete.items() if other != output}
        honest = 0.0
        for seed in range(_NEIGHBOURS):
            runs = [self._reference.neighbour(runtime, seed) for runtime in (GluonRuntime(), Float64Runtime())]
            values, truth = (side.truncated([output], known)[name] for side in runs)
            measured = largest_error(values, truth)
            honest = max(honest, measured if math.isfinite(measured) else 0.0)
        return replace(found, bound=max(found.bound, FACTOR * honest))

    def _adjudicate(self, node: Node, output: Output, ours: np.ndarray, theirs: np.ndarray, bound: float) -> Flips:
        """Legal and real flips of a discrete output. Its inputs are the reference's. No other shape is legal."""
        if ours.shape != theirs.shape:
            return Flips(ours.size, 0, ours.size, 2 * bound, ())
        inputs = [self._input(name) for name in node.inputs]
        fed = [name for name in node.inputs if not self._nodes[name[0]].is_variable]

        def evaluate(moved: list[np.ndarray]) -> np.ndarray:
            values = {name: array for name, array in zip(node.inputs, moved) if name in fed}
            return self._arbiter.exploded([node.name], values)[self._network.tensor(output)].load()

        return adjudicate(node, inputs, ours, theirs, bound, evaluate)

    def _input(self, output: Output) -> np.ndarray:
        name = output[0]
        if output in self._discrete:
            return self._discrete[output]
        if not self._nodes[name].is_variable:
            return self._values["reference"][output]
        if name in self._reference.inputs:
            return self._reference.inputs[name]
        found = (self._network.parameters.get(prefix + name) for prefix in ("arg:", "aux:"))
        return next(values for values in found if values is not None)

    def _inputs_of(self, output: Output) -> tuple[str, ...]:
        return tuple(self._network.tensor(name) for name in operator_inputs(self._reference.graph, output[0]))

    def _add(self, name: str, report: NodeReport, ours: TraceNode, theirs: Optional[TraceNode]) -> None:
        self.report.nodes[name] = report
        self._tapped["reference"][name] = ours.sha256
        self._tapped["candidate"][name] = theirs.sha256 if theirs else ""

    def _extra_nodes(self) -> None:
        for name, node in self._theirs.items():
            if name not in self._nodes:
                problem = "the reference does not have it"
                comparison = NodeComparison(self._reference.stage, name, node.operator, (), problem=problem)
                self.report.nodes[name] = NodeReport(comparison, reason=problem)

    # Outputs, without taps.

    def _judge_outputs(self, ours: Mapping[str, TraceNode], theirs: Mapping[str, TraceNode]) -> None:
        self._guard("reference", self._reference, ours)
        if not self._flipped:
            self._guard("candidate", self._candidate, theirs)
        for name in theirs.keys() - ours.keys():
            problem = "the reference does not have it"
            comparison = NodeComparison(self._reference.stage, name, theirs[name].operator, (), problem=problem)
            self.report.outputs[name] = NodeReport(comparison, reason=problem)
        different = []
        for output in dict.fromkeys(self._reference.graph.outputs):
            name = self._network.tensor(output)
            if name not in ours:
                continue  # An input that is handed through.
            comparison = compare_nodes(ours[name], theirs.get(name), self._widened)
            reason = comparison.problem or (NONFINITE if comparison.nonfinite else None)
            self.report.outputs[name] = NodeReport(comparison, reason=reason)
            if reason is None and not comparison.equal:
                different.append(output)
            elif reason is None and self.report.guard and not self._exact and self._jump_behind(output) is None:
                self._note_if_far(name, self._against_arbiter(output, ours[name].load(), theirs[name].load()))
        if different:
            self._judge_without_taps(different, ours, theirs)

    def _guard(self, which: str, side: Side, outputs: Mapping[str, TraceNode]) -> None:
        for name, node in outputs.items():
            tapped = self._tapped[which].get(name)
            if tapped is not None and tapped != node.sha256:
                self.report.guard.append(f"{which} ({side.runtime.name}): {name} is another with taps than without")

    def _judge_without_taps(
        self, outputs: list[Output], ours: Mapping[str, TraceNode], theirs: Mapping[str, TraceNode]
    ) -> None:
        """Outputs of the runs as they are deployed that are not equal bit for bit."""
        wrong: list[Output] = []
        pending: list[Output] = []
        for output in outputs:
            name = self._network.tensor(output)
            a, b = ours[name].load(), theirs[name].load()
            source = self._jump_behind(output)
            if source is not None:
                reason = self._judge_jumps(name, source, a, b)
            elif self._exact:
                reason = NOT_EQUAL
            else:
                found = self._against_arbiter(output, a, b)
                self.report.outputs[name] = replace(self.report.outputs[name], errors=found)
                reason = None if found.honest else BEYOND
            self.report.outputs[name] = replace(self.report.outputs[name], reason=reason)
            if reason is not None:
                (wrong if source is not None else pending).append(output if source is None else source)
        if pending:
            wrong += self._judge_behind_jumps(pending, theirs)
        if wrong and not self._exact and self._candidate.replays:
            self._bisect(wrong)

    def _against_arbiter(self, output: Output, ours: np.ndarray, theirs: np.ndarray) -> Errors:
        """Errors of what the deployed runs gave; arbiter and yardstick take the reference's values of what jumps."""
        name = self._network.tensor(output)
        truth, honest = (side.truncated([output], self._discrete)[name] for side in (self._arbiter, self._plain))
        return self._remeasured(output, ours.size, errors(ours, theirs, truth, honest))

    def _note_if_far(self, name: str, found: Errors) -> None:
        if not found.honest:
            far = f"{found.reference:.3g}, where {found.bound:.3g} would be honest"
            self.report.notes.append(f"{name}: both sides are equally far from float64: {far}")

    def _judge_jumps(self, name: str, source: Output, ours: np.ndarray, theirs: np.ndarray) -> Optional[str]:
        """An output that is a discrete node's value, handed on or not, as the deployed runs gave it."""
        node, tensor = self._nodes[source[0]], self._network.tensor(source)
        shape = self._discrete[source].shape
        bound = self._input_bound(source)
        flips = self._adjudicate(node, source, ours.reshape(shape), theirs.reshape(shape), bound)
        self.report.outputs[name] = replace(self.report.outputs[name], flips=flips)
        if self.report.nodes[tensor].flips is None:
            self.report.nodes[tensor] = replace(self.report.nodes[tensor], flips=flips)
        return (
            f"{flips.real} of {flips.compared} values jumped, and no honest error explains it" if flips.real else None
        )

    def _judge_behind_jumps(self, pending: list[Output], theirs: Mapping[str, TraceNode]) -> list[Output]:
        """Outputs that are off, but may lie behind legal jumps of the deployed run. Returns what is wrong.

        They are right if the candidate is right on the reference's values of what jumps, and if its own values of that
        give what it gave when it was deployed.
        """
        if not self._candidate.replays:
            return pending
        jumping = [output for output in self._discrete if output[0] not in self._behind]
        flips = {output: self._probe_discrete(output) for output in jumping}
        wrong = [output for output in jumping if flips[output].real]
        for output, found in flips.items():
            name = self._network.tensor(output)
            if (found.legal or found.real) and self.report.nodes[name].flips is None:
                self.report.nodes[name] = replace(self.report.nodes[name], flips=found)
        if wrong or not any(found.legal for found in flips.values()):
            return wrong + pending
        tensors = {self._network.tensor(output): output for output in jumping}
        jumped = self._candidate.truncated(jumping)
        own = {output: jumped[name] for name, output in tensors.items()}
        on_own = self._candidate.truncated(pending, own)
        for output, report in self._probe(pending).items():
            name = self._network.tensor(output)
            far = largest_error(on_own[name], theirs[name].load())
            reason = report.reason
            if reason is None and far > (0.0 if self._exact or report.errors is None else report.errors.bound):
                reason = "is not what the candidate's own values of what jumps give"
            self.report.outputs[name] = replace(self.report.outputs[name], errors=report.errors, reason=reason)
            if reason is not None:
                wrong.append(output)
        return wrong

    def _jump_behind(self, output: Output) -> Optional[Output]:
        """The discrete output that an output is, or hands on; None if it is another."""
        while True:
            node = self._nodes[output[0]]
            inputs = operator_inputs(self._reference.graph, node.name)
            if passes_on(node) and len(inputs) == 1 and self._jump_behind(inputs[0]) is not None:
                output = inputs[0]
                continue
            return output if self._jumps(output) else None

    def _bisect(self, wrong: list[Output]) -> None:
        order = {node.name: place for place, node in enumerate(self._reference.graph.nodes)}
        start = min(wrong, key=lambda output: order[output[0]])
        blamed = first_wrong(self._reference.graph, start, self._is_wrong)
        name = self._network.tensor(blamed)
        before = self.report.nodes.get(name)
        if before is not None and before.reason is not None:
            return  # The taps show it too.
        if is_discrete(self._nodes[blamed[0]]):
            report = replace(before or self.report.outputs[name], flips=self._probe_discrete(blamed))
        else:
            report = self._probe([blamed])[blamed]
        self.report.nodes[name] = replace(report, inputs=self._inputs_of(blamed), reason=UNTAPPED)

    def _is_wrong(self, output: Output) -> bool:
        if self._jumps(output):
            return self._probe_discrete(output).real > 0
        return self._probe([output])[output].reason is not None

    def _cut_runs(self, outputs: list[Output]) -> list[dict[str, np.ndarray]]:
        """All four, truncated, without taps, on the reference's values of what is discrete."""
        known = {output: values for output, values in self._discrete.items() if output not in outputs}
        runs = [side.truncated(outputs, known) for side in (self._reference, self._candidate, self._arbiter)]
        own = self._yardstick is not self._reference
        return [*runs, self._yardstick.truncated(outputs, known) if own else runs[0]]

    def _probe(self, outputs: list[Output]) -> dict[Output, NodeReport]:
        runs = self._cut_runs(outputs)
        reports = {}
        for output in outputs:
            name, node = self._network.tensor(output), self._nodes[output[0]]
            a, b, truth, honest = (run[name] for run in runs)
            comparison = NodeComparison(self._reference.stage, name, node.operator, a.shape, a.dtype.name)
            if a.shape != b.shape:
                problem = f"the shape is {a.shape} against {b.shape}"
                reports[output] = NodeReport(replace(comparison, problem=problem), reason=problem)
                continue
            bad = sum(int(side.size - np.isfinite(side).sum()) for side in (a, b) if side.dtype.kind == "f")
            comparison = replace(comparison, elements=a.size, nonfinite=bad, metrics=measure(a, b))
            found = self._remeasured(output, a.size, errors(a, b, truth, honest))
            reason = NONFINITE if bad else None
            if reason is None and comparison.metrics is not None:
                reason = NOT_EQUAL if self._exact else (None if found.honest else BEYOND)
            reports[output] = NodeReport(comparison, errors=found, reason=reason)
        return reports

    def _probe_discrete(self, output: Output) -> Flips:
        """Flips of a discrete node in the runs without taps, judged by the error of its inputs there."""
        node = self._nodes[output[0]]
        name = self._network.tensor(output)
        known = {other: values for other, values in self._discrete.items() if other != output}
        ours = self._reference.truncated([output], known)[name]
        theirs = self._candidate.truncated([output], known)[name]
        return self._adjudicate(node, output, ours, theirs, self._input_bound(output))

    def _input_bound(self, output: Output) -> float:
        """Honest error of what a discrete node takes, in runs without taps."""
        bound = 0.0
        for source in self._measured(self._nodes[output[0]]):
            values = [run[self._network.tensor(source)] for run in self._cut_runs([source])]
            self._values["reference"][source] = values[0]
            if values[1].shape != values[0].shape:
                values[1] = values[0]  # The bound is of the others.
            bound = max(bound, 0.0 if self._exact else errors(*values).bound)
        return bound


def _by_digest(ours: TraceNode, theirs: Optional[TraceNode], widened: bool) -> Optional[NodeComparison]:
    """The comparison of two nodes whose digests are the same; None if there is more to be looked at."""
    if theirs is None or (ours.sha256, ours.operator, ours.shape) != (theirs.sha256, theirs.operator, theirs.shape):
        return None
    return compare_nodes(replace(ours, path=None), replace(theirs, path=None), widened)
