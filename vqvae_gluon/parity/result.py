"""What a comparison found, and the verdict that follows from it."""

import math
from dataclasses import dataclass, field
from typing import Optional

import numpy as np

from vqvae_gluon.artifacts.binding import Finding
from vqvae_gluon.artifacts.trace import Key
from vqvae_gluon.errors import VQVAEError
from vqvae_gluon.parity import preflight
from vqvae_gluon.parity.bounds import Errors
from vqvae_gluon.parity.discrete import Flips
from vqvae_gluon.parity.metrics import NodeComparison

AGREE, DIVERGE, INVALID = "agree", "diverge", "invalid"
NONDETERMINISTIC, UNEXPLAINED = "nondeterministic", "unexplained"
_DIVERGENCES = (preflight.PARAMETER_DIFFERS, preflight.GRAPH_DIFFERS, preflight.PREFIX_LOST)
_PLACES = 4  # of causes without a name that are told


@dataclass(frozen=True)
class NodeReport:
    """What was found at one tensor.

    Attributes:
        comparison: of the two sides, each fed its own results: the cumulative error.
        inputs: names of the nodes that it takes.
        errors: of both sides against the arbiter, and the bound; None where bit equality was found or expected.
        local: the candidate's when it is fed the reference's inputs; None if it was not measured.
        local_errors: of both sides against the arbiter then.
        flips: of a discrete output.
        reason: why it is wrong; None if it is right.
    """

    comparison: NodeComparison
    inputs: tuple[str, ...] = ()
    errors: Optional[Errors] = None
    local: Optional[NodeComparison] = None
    local_errors: Optional[Errors] = None
    flips: Optional[Flips] = None
    reason: Optional[str] = None

    @property
    def rounded(self) -> bool:
        """Whether it is not equal bit for bit, but no further off than float32 honestly may be."""
        if self.comparison.problem or self.comparison.nonfinite:
            return False
        measured = self.local_errors or self.errors
        return measured is not None and measured.honest

    def merge(self, other: "NodeReport") -> "NodeReport":
        """The same tensor over the batches of both."""
        return NodeReport(
            self.comparison.merge(other.comparison),
            self.inputs,
            self.errors.merge(other.errors) if self.errors else other.errors,
            self.local.merge(other.local) if self.local and other.local else self.local or other.local,
            self.local_errors.merge(other.local_errors) if self.local_errors else other.local_errors,
            self.flips.merge(other.flips) if self.flips else other.flips,
            self.reason or other.reason,
        )


@dataclass
class StageReport:
    """What was found in one graph.

    Attributes:
        nodes: by the name of the tensor, in graph order.
        outputs: the graph's own outputs, of the runs without taps.
        guard: where taps change what a side computes.
        notes: what a reader should know beside that.
        unjudged: nodes of a recorded candidate that lie behind values that jumped: they were computed from others than
            the reference's.
    """

    nodes: dict[str, NodeReport] = field(default_factory=dict)
    outputs: dict[str, NodeReport] = field(default_factory=dict)
    guard: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unjudged: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Cause:
    """Why the two diverge.

    Attributes:
        name: of the cause; ``unexplained`` if none was found.
        evidence: what shows it.
        place: stage and name of the node where it acts first, and ``subjects`` the nodes and parameters it is about.
        places: at how many nodes it acts.
    """

    name: str
    evidence: str
    place: Optional[Key] = None
    subjects: tuple[str, ...] = ()
    places: int = 1


@dataclass
class Samples:
    """The first images of a comparison, to be looked at: uint8 (N, H, W, C) and int32 (N, h, w)."""

    images: np.ndarray
    reference_images: np.ndarray
    candidate_images: np.ndarray
    reference_codes: np.ndarray
    candidate_codes: np.ndarray


@dataclass
class Codes:
    """Latent codes of a bundle, over all images, from end to end."""

    compared: int = 0
    equal: int = 0
    legal: int = 0
    real: int = 0


@dataclass
class Result:
    """What was found. :class:`~vqvae_gluon.parity.report.Report` is the same, to be read.

    Attributes:
        reference, candidate: names of the runtimes.
        subject, candidate_subject: what they ran: a bundle, a symbol file, a trace.
        data: what they were fed, and ``count`` how many of it, called ``unit``.
        exact: whether bit equality was expected.
        operators: of the reference's graphs, by stage and name of the node.
        paths: for every tensor the names of the nodes before it, by stage and name.
        nodes: what was found at every tensor, in the order of the data.
        outputs: the last ones of them, by the name a user knows.
        codes: of a bundle.
        findings: about the files, before anything was run.
        guard: where a run with taps gave other results than the run without.
        notes: what else a reader should know.
        nondeterministic: where one side gave two results for one input.
        failure: why the candidate could not be run to the end, if it could not.
        causes: what the diagnosis found, in the order of the data; one without a name where it found nothing.
        blamed_by_file: stage and name of the first node that the findings are about.
        samples: the first images; None if there are none.
        candidate_inputs: the inputs of every node in the candidate's graph, by stage and name.
    """

    reference: str
    candidate: str
    subject: str
    candidate_subject: str
    data: str
    count: int
    unit: str
    exact: bool
    operators: list[Key] = field(default_factory=list)
    candidate_inputs: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    nodes: dict[Key, NodeReport] = field(default_factory=dict)
    outputs: dict[str, NodeReport] = field(default_factory=dict)
    codes: Optional[Codes] = None
    findings: list[Finding] = field(default_factory=list)
    guard: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    nondeterministic: list[str] = field(default_factory=list)
    failure: Optional[VQVAEError] = None
    causes: list[Cause] = field(default_factory=list)
    blamed_by_file: Optional[Key] = None
    samples: Optional[Samples] = None

    @property
    def nodes_skipped(self) -> list[Key]:
        """Operators of the reference's graphs that were not compared. Output k of a node is ``<node>:<k>``."""
        compared = {
            (stage, part)
            for (stage, name), report in self.nodes.items()
            if not report.comparison.problem
            for part in (name, name.rpartition(":")[0])
        }
        return [key for key in self.operators if key not in compared]

    @property
    def nodes_compared(self) -> int:
        """Operators whose values were compared; what is fed and what comes out are told beside them."""
        return len(self.operators) - len(self.nodes_skipped)

    def wrong(self) -> list[NodeReport]:
        """Every tensor that is not as it should be, in the order of the data, the outputs last."""
        return [report for report in [*self.nodes.values(), *self.outputs.values()] if report.reason]

    @property
    def first_divergent(self) -> Optional[NodeReport]:
        """The first node, in the order of the data, that is wrong although everything before it is right.

        Where bit equality was expected, one that is wrong beyond what is honest in float32 comes before those that
        are only rounded otherwise. Where only the files differ and no number does, it is the first node that takes what
        differs.
        """
        blamed = self.nodes.get(self.blamed_by_file) if self.blamed_by_file else None
        wrong = self.wrong()
        return next((report for report in wrong if not report.rounded), next(iter(wrong), blamed))

    @property
    def flips(self) -> dict[Key, Flips]:
        """What jumped at the nodes, by stage and name."""
        return {key: report.flips for key, report in self.nodes.items() if report.flips is not None}

    @property
    def verdict(self) -> str:
        if self.wrong() or self.nondeterministic:
            return DIVERGE
        if self.failure is not None or self.nodes_compared == 0:
            return INVALID
        differs = any(finding.cause in _DIVERGENCES for finding in self.findings)
        return DIVERGE if differs or self.nodes_skipped or (self.exact and self.guard) else AGREE

    @property
    def cause(self) -> Optional[Cause]:
        """The named reason, or the reasons, joined by ``+``; None if the two agree."""
        if self.verdict == AGREE:
            return None
        named = [cause for cause in self.causes if cause.name]
        if self.nondeterministic:
            return Cause(NONDETERMINISTIC, "; ".join(self.nondeterministic))
        if named and self.verdict == DIVERGE:
            evidence = [_told(cause) for cause in named]
            left = [
                f"{stage}/{name}"
                for cause in self.causes
                if not cause.name
                for stage, name in [cause.place or ("", "")]
            ]
            evidence += [f"unexplained besides: {', '.join(left[:_PLACES])}"] if left else []
            name = " + ".join(cause.name for cause in named)
            return Cause(name, "; ".join(evidence) + self._arbitration(), named[0].place)
        for finding in self.findings:
            if finding.cause != preflight.DIGEST_DIFFERS:
                return Cause(finding.cause, f"{finding.subject}: {finding.detail}")
        if self.failure is not None and not self.wrong():
            return Cause("candidate failed", str(self.failure))
        if self.guard and not self.wrong():
            return Cause("taps change the result", "; ".join(self.guard))
        return Cause(UNEXPLAINED, "no change that was tried gives the candidate's numbers" + self._arbitration())

    def _arbitration(self) -> str:
        """What the arbiter says of the first divergent node, as the end of a sentence."""
        first = self.first_divergent
        off = first.errors.off if first is not None and first.errors is not None else None
        return f"; by the arbiter the {off} is off" if off else ""

    def tolerance(self) -> Optional[float]:
        """The absolute tolerance that would have passed, at every tensor; None if nothing differs by a number, or none
        would have: where a shape is another, or a value is NaN or infinite."""
        found = [report.comparison for report in [*self.nodes.values(), *self.outputs.values()]]
        largest = max((comparison.max_abs for comparison in found), default=0.0)
        return (
            None if any(comparison.problem for comparison in found) or not math.isfinite(largest) else largest or None
        )

    def add(self, key: Key, report: NodeReport) -> None:
        """Add what was found in one more batch."""
        past = self.nodes.get(key)
        self.nodes[key] = past.merge(report) if past else report


def _told(cause: Cause) -> str:
    return f"{cause.evidence} (and at {cause.places - 1} more)" if cause.places > 1 else cause.evidence
