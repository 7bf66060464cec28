"""The report: as text, for a notebook, as JSON and as JUnit XML. The page is in :mod:`vqvae_gluon.parity.page`."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional

from vqvae_gluon.artifacts.trace import Key
from vqvae_gluon.errors import one_line
from vqvae_gluon.files import atomic_write
from vqvae_gluon.parity.bounds import Errors
from vqvae_gluon.parity.causes import REMEDIES
from vqvae_gluon.parity.discrete import Flips
from vqvae_gluon.parity.markup import summary_html
from vqvae_gluon.parity.metrics import QUANTILES, NodeComparison
from vqvae_gluon.parity.result import AGREE, INVALID, UNEXPLAINED, NodeReport, Result
from vqvae_gluon.printed import joined, plain

_NEIGHBOURHOOD = 3
_NOTES = 10
_STEPS = 6


class Report(Result):
    """What a comparison found, to be read: ``print(report)`` gives the text of the terminal, a notebook shows the
    summary of the page."""

    def __str__(self) -> str:
        return to_text(self)

    def __repr__(self) -> str:
        return one_line(f"<{type(self).__name__} {self.verdict.upper()}: {summary(self)}>")

    def _repr_html_(self) -> str:
        return to_html(self)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-ready values, as ``--json`` prints them; NaN and infinity are strings."""
        return to_json(self)


def to_json(report: Result) -> dict[str, Any]:
    """The report as JSON-ready values. What is not a finite number is the string ``NaN`` or ``Infinity``."""
    cause = report.cause
    return {
        **head(report),
        "expected": "bit equality" if report.exact else "the bounds of the arbiter",
        "nodes_compared": report.nodes_compared,
        "nodes_skipped": len(report.nodes_skipped),
        "skipped": [{"stage": stage, "node": name} for stage, name in report.nodes_skipped],
        "outputs": {name: node_values(node) for name, node in report.outputs.items()},
        "tolerance": None if report.tolerance() is None else number(report.tolerance() or 0.0),
        "first_divergent": _first_divergent(report),
        "codes": None
        if report.codes is None
        else {
            "compared": report.codes.compared,
            "equal": report.codes.equal,
            "legal_flips": report.codes.legal,
            "real_flips": report.codes.real,
        },
        "cause": None if cause is None else {"name": cause.name, "evidence": cause.evidence},
        "causes": [
            {
                "name": found.name or UNEXPLAINED,
                "evidence": found.evidence,
                "stage": found.place[0] if found.place else None,
                "node": found.place[1] if found.place else None,
                "places": found.places,
                "remedy": REMEDIES.get(found.name),
            }
            for found in report.causes
        ],
        "findings": [
            {"cause": finding.cause, "stage": finding.stage, "subject": finding.subject, "detail": finding.detail}
            for finding in report.findings
        ],
        "guard": report.guard,
        "notes": report.notes,
        "nondeterministic": report.nondeterministic,
        "failure": None if report.failure is None else str(report.failure),
        "nodes": [{"stage": stage, "name": name, **node_values(node)} for (stage, name), node in report.nodes.items()],
    }


def head(report: Any) -> dict[str, Any]:
    """What the JSON of every comparison begins with, whatever it is judged by."""
    names = ("verdict", "reference", "candidate", "subject", "candidate_subject", "data", "count")
    return {name: getattr(report, name) for name in names}


def to_text(report: Result) -> str:
    """The report for a terminal, the verdict first."""
    lines = [f"{report.verdict.upper()}: {summary(report)}"]
    cause, first, tolerance = report.cause, report.first_divergent, report.tolerance()
    if tolerance is not None and first is not None:
        lines += [f"  would have passed with an absolute tolerance of {tolerance:.3g} everywhere"]
    if cause is not None:
        lines += [f"  cause: {cause.name}: {cause.evidence}"]
        lines += [f"    remedy: {remedy}" for remedy in remedies(report)]
    if first is not None:
        node = first.comparison
        kind = "output" if any(first is output for output in report.outputs.values()) else "node"
        lines += [f"  first divergent {kind}: {node.stage}/{node.name} ({node.operator}): {describe(first)}"]
        lines += [f"    {text}" for text in explain(report, first)]
        if kind == "node":
            lines += ["  its neighbourhood:", *_neighbourhood(report, node.key)]
    left = [finding for finding in report.findings if cause is None or finding.subject not in cause.evidence]
    notes = [str(finding) for finding in left] + report.guard + report.notes
    lines += [f"  note: {text}" for text in notes[:_NOTES]]
    lines += [f"  note: and {len(notes) - _NOTES} more, all of them with --json"] if len(notes) > _NOTES else []
    if report.failure and report.verdict != INVALID:  # Of an invalid one the first line says it.
        lines += [f"  note: the comparison ended early: {report.failure}"]
    lines += [f"  skipped: {stage}/{name}" for stage, name in report.nodes_skipped[:_NOTES]]
    return joined(lines)


def to_html(report: Result) -> str:
    """The summary for a notebook: verdict, cause, remedy, the first divergence and what surrounds it, the outputs."""
    first, cause = report.first_divergent, report.cause
    outputs = [(f"output/{name}", node) for name, node in report.outputs.items()]
    rows = outputs[:_NOTES]
    named = None
    if first is not None:
        node = first.comparison
        name = next((name for name, output in outputs if output is first), "/".join(node.key))
        named = name, f"{node.operator}: {describe(first)}"
        rows = [*([] if name.startswith("output/") else _neighbours(report, node.key)), *rows]
    return summary_html(
        report.verdict,
        summary(report),
        None if cause is None else {"name": cause.name, "evidence": cause.evidence},
        remedies(report),
        named,
        ("tensor", "operator", "difference"),
        [(name, node.comparison.operator, _state(node)) for name, node in rows],
    )


def remedies(report: Result) -> list[str]:
    """What to do about the causes that were named: of a finding its own, if it has one."""
    cause = report.cause
    names = cause.name.split(" + ") if cause else []
    own = {finding.cause: finding.remedy for finding in reversed(report.findings) if finding.remedy}
    return [own.get(name, REMEDIES[name]) for name in names if name in REMEDIES]


def write_junit(report: Result, path: Path) -> None:
    """Write JUnit XML: one test for every tensor and output, one for the whole."""
    nodes = [(f"{stage}/{name}", node) for (stage, name), node in report.nodes.items()]
    nodes += [(f"output/{name}", node) for name, node in report.outputs.items()]
    cases = [(name, node.reason or "", describe(node)) for name, node in nodes]
    cases += [(f"{stage}/{name}", "was not compared", "") for stage, name in report.nodes_skipped]
    name, cause = f"parity of {report.candidate} with {report.reference}", report.cause
    write_suite(path, name, cases, report.verdict, cause.name if cause else "", to_text(report))


def write_suite(
    path: Path, name: str, cases: Iterable[tuple[str, str, str]], verdict: str, message: str, text: str
) -> None:
    """Write JUnit XML of a comparison.

    Args:
        cases: of each test its name, why it fails, which is empty if it does not, and more about that.
        message, text: the same of the last test, the verdict.
    """
    suite = ElementTree.Element("testsuite", name=plain(name))
    for case_name, reason, more in cases:
        case = ElementTree.SubElement(suite, "testcase", classname="parity", name=plain(case_name))
        if reason:
            ElementTree.SubElement(case, "failure", message=plain(reason)).text = plain(more)
    last = ElementTree.SubElement(suite, "testcase", classname="parity", name="verdict")
    if verdict != AGREE:
        failure = ElementTree.SubElement(last, "error" if verdict == INVALID else "failure", message=plain(message))
        failure.text = "\n".join(map(plain, text.split("\n")))
    suite.set("tests", str(len(suite)))
    for kind, plural in (("failure", "failures"), ("error", "errors")):
        suite.set(plural, str(sum(case.find(kind) is not None for case in suite)))
    with atomic_write(path) as file:
        ElementTree.ElementTree(suite).write(file, encoding="utf-8", xml_declaration=True)


def summary(report: Result) -> str:
    """The comparison in one line."""
    if report.verdict == INVALID:
        why = report.failure or "no node was compared"
        return f"{report.candidate} could not be compared with {report.reference}: {why}"
    sides = f"{report.candidate} against {report.reference} on {report.count} {report.unit} of {report.data}"
    parts = [f"{report.nodes_compared} nodes compared, {len(report.nodes_skipped)} skipped"]
    codes = report.codes
    if codes is not None:
        flips = f" ({codes.legal} legal flips)" if codes.legal else ""
        parts += [f"{codes.equal} of {codes.compared} codes equal{flips}"]
    if codes is not None and "reconstruction" in report.outputs:
        parts += [f"reconstruction {_output(report.outputs['reconstruction'], ' of 255')}"]
    elif codes is None:
        parts += [f"output {name} {_output(node)}" for name, node in list(report.outputs.items())[:_NOTES]]
    return f"{sides}: {'; '.join(parts)}"


def describe(report: NodeReport) -> str:
    """How far off a node is, in one line."""
    node = report.comparison
    if node.problem:
        return node.problem
    if node.metrics is None and not node.nonfinite:
        return "equal bit for bit"
    text = "equal bit for bit"
    if node.metrics is not None:
        worst = node.metrics.worst
        text = f"max {node.max_abs:.3g}, mean {node.mean_abs:.3g}, {node.differing} of {node.elements} values differ"
        text += f", worst at {worst.index}: {worst.reference:.9g} against {worst.candidate:.9g}"
    if node.nonfinite:
        text += f", {node.nonfinite} values are NaN or infinite"
    return text


def explain(report: Result, node: NodeReport) -> list[str]:
    """What else is known of a node: why it is wrong, against the arbiter, by itself, and the way to it."""
    lines = [f"why: {node.reason}"] if node.reason else []
    if node.errors is not None:
        lines += [f"error against float64: {_errors(node.errors)}"]
    if node.local is not None:
        by_itself = "equal bit for bit" if node.local.metrics is None else f"max {node.local.max_abs:.3g}"
        if node.local_errors is not None and node.local.metrics is not None:
            by_itself += f" ({_errors(node.local_errors)})"
        lines += [f"on the reference's inputs: {by_itself}"]
    if node.flips is not None:
        lines += [_flips(node.flips)]
    ours, theirs = path_to(report, node.comparison.key)
    if ours:
        lines += [f"path: {_steps(ours)}"]
    if theirs and theirs != ours:
        lines += [f"path in the candidate's graph: {_steps(theirs)}"]
    return lines


def path_to(report: Result, key: Key) -> tuple[list[str], list[str]]:
    """The nodes before a node, the nearest last, by the first operator that each takes: in the reference's graph, and
    in the candidate's."""
    stage = key[0]
    theirs = {(stage, name): inputs for (stage, name), inputs in report.candidate_inputs.items()}
    ours = {found: node.inputs for found, node in report.nodes.items()}
    return _walk(stage, key[1], ours), _walk(stage, key[1], theirs)


def _walk(stage: str, name: str, inputs: dict[Key, tuple[str, ...]]) -> list[str]:
    path: list[str] = []
    while (stage, name) in inputs and name not in path:
        path.append(name)
        before = inputs[stage, name]
        if not before:
            break
        name = before[0] if (stage, before[0]) in inputs else before[0].rpartition(":")[0]
    return path[::-1]


def _steps(path: list[str]) -> str:
    left_out = len(path) - _STEPS
    return " > ".join([f"({left_out} more)"] * (left_out > 0) + path[-_STEPS:])


def _errors(errors: Errors) -> str:
    text = f"reference {errors.reference:.3g}, candidate {errors.candidate:.3g}, bound {errors.bound:.3g}"
    return f"{text}: the {errors.off} is off" if errors.off else text


def _flips(flips: Flips) -> str:
    text = f"jumps: {flips.legal} legal, {flips.real} real, of {flips.compared} values"
    if flips.flips and flips.flips[0].margin is not None:
        flip = flips.flips[0]
        text += f"; at {flip.index} {flip.reference:g} against {flip.candidate:g}, margin {flip.margin:.3g}"
        text += f", legal up to {flips.bound:.3g}"
    return text


def _output(node: NodeReport, unit: str = "") -> str:
    if node.comparison.equal:
        return "equal bit for bit"
    if node.comparison.problem:
        return node.comparison.problem
    far = f"off by at most {node.comparison.max_abs:.3g}{unit}"
    return far if node.reason else f"within the bounds ({far})"


def _neighbours(report: Result, key: Key) -> list[tuple[str, NodeReport]]:
    """A node and those before and behind it, by name."""
    at = list(report.nodes).index(key)
    rows = list(report.nodes.items())[max(0, at - _NEIGHBOURHOOD) : at + _NEIGHBOURHOOD + 1]
    return [("/".join(name), node) for name, node in rows]


def _neighbourhood(report: Result, key: Key) -> list[str]:
    here = one_line("/".join(key))
    rows = [(one_line(name), node) for name, node in _neighbours(report, key)]
    width = max(len(name) for name, _ in rows)
    return [f"  {'->' if name == here else '  '} {name:<{width}}  {_state(node)}" for name, node in rows]


def _state(report: NodeReport) -> str:
    node = report.comparison
    if node.problem or node.equal:
        return node.problem or "equal"
    text = f"max {node.max_abs:.3g}, mean {node.mean_abs:.3g}"
    if report.errors is not None:
        text += f", bound {report.errors.bound:.3g}"
    return text if report.reason else f"{text}: within the bounds"


def _first_divergent(report: Result) -> Optional[dict[str, Any]]:
    first = report.first_divergent
    if first is None:
        return None
    node = first.comparison
    ours, theirs = path_to(report, node.key)
    return {
        "node": node.name,
        "operator": node.operator,
        "stage": node.stage,
        "reason": first.reason,
        # Where it was not measured, everything before is right, so that all of the error is the node's own.
        "local_max_abs": number(first.local.max_abs if first.local else node.max_abs),
        "cumulative_max_abs": number(node.max_abs),
        "path": ours,
        "candidate_path": theirs,
    }


def node_values(report: NodeReport) -> dict[str, Any]:
    """A node's row in the JSON."""
    return {
        **_comparison(report.comparison),
        "reason": report.reason,
        "errors": _errors_json(report.errors),
        "local": None if report.local is None else _comparison(report.local),
        "local_errors": _errors_json(report.local_errors),
        "flips": None
        if report.flips is None
        else {"compared": report.flips.compared, "legal": report.flips.legal, "real": report.flips.real},
        "inputs": list(report.inputs),
    }


def _comparison(node: NodeComparison) -> dict[str, Any]:
    metrics = node.metrics
    values = {
        "operator": node.operator,
        "shape": list(node.shape),
        "dtype": node.dtype,
        "equal": node.equal,
        "elements": node.elements,
        "differing": node.differing,
        "max_abs": number(node.max_abs),
        "mean_abs": number(node.mean_abs),
        "max_rel": number(node.max_rel),
        "nonfinite": node.nonfinite,
        "worst": None,
        "problem": node.problem,
    }
    if metrics is not None:
        worst = metrics.worst
        values |= {
            "max_ulp": number(metrics.max_ulp),
            "snr_db": number(metrics.snr_db),
            "cosine": number(metrics.cosine),
            "quantiles": {f"{q:g}": number(value) for q, value in zip(QUANTILES, metrics.quantiles)},
            "worst": {
                "index": list(worst.index),
                "reference": number(worst.reference),
                "candidate": number(worst.candidate),
            },
        }
    return values


def _errors_json(errors: Optional[Errors]) -> Optional[dict[str, Any]]:
    if errors is None:
        return None
    names = ("reference", "candidate", "bound", "excess")
    return {**{name: number(getattr(errors, name)) for name in names}, "off": errors.off}


def number(value: float) -> Any:
    """JSON has no NaN and no infinity."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
