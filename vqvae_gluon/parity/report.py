"""A report for people and programs: terminal, JSON, HTML."""

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from vqvae_gluon import __version__
from vqvae_gluon.files import atomic_write
from vqvae_gluon.parity.compare import NodeComparison
from vqvae_gluon.parity.harness import AGREE, INVALID, Report, Samples
from vqvae_gluon.runtimes.base import OUTPUT

_NEIGHBOURHOOD = 3
_COLUMNS = 12
_NOTES = 10


def to_json(report: Report) -> dict[str, Any]:
    """The report as JSON-ready values. Infinite differences are the string ``Infinity``."""
    first, cause = report.first_divergent, report.cause
    return {
        "verdict": report.verdict,
        "reference": report.reference,
        "candidate": report.candidate,
        "bundle": str(report.bundle),
        "candidate_bundle": str(report.candidate_bundle),
        "data": report.data,
        "count": report.count,
        "nodes_compared": report.nodes_compared,
        "nodes_skipped": len(report.nodes_skipped),
        "skipped": [{"stage": stage, "node": name} for stage, name in report.nodes_skipped],
        "outputs": {node.name: _values(node) for node in report.nodes if node.stage == OUTPUT},
        "first_divergent": None
        if first is None
        else {
            "node": first.name,
            "operator": first.operator,
            "stage": first.stage,
            # Everything before the first divergent node is equal, so its own error is all of its error.
            "local_max_abs": _number(first.max_abs),
            "cumulative_max_abs": _number(first.max_abs),
        },
        "codes": {
            "compared": report.codes_compared,
            "equal": report.codes_equal,
            # Both sides run the same operators of the same library: no tie can be broken differently.
            "legal_flips": 0,
            "real_flips": report.codes_compared - report.codes_equal,
        },
        "cause": None if cause is None else {"name": cause.name, "evidence": cause.evidence},
        "findings": [
            {"cause": finding.cause, "stage": finding.stage, "subject": finding.subject, "detail": finding.detail}
            for finding in report.findings
        ],
        "guard": report.guard,
        "failure": None if report.failure is None else str(report.failure),
        "nodes": [{"stage": node.stage, "name": node.name, **_values(node)} for node in report.nodes],
    }


def to_text(report: Report) -> str:
    """The report for a terminal, the verdict first."""
    lines = [f"{report.verdict.upper()}: {_summary(report)}"]
    cause, first = report.cause, report.first_divergent
    if cause is not None:
        lines += [f"  cause: {cause.name}: {cause.evidence}"]
    if first is not None:
        lines += [f"  first divergent node: {first.stage}/{first.name} ({first.operator}): {describe(first)}"]
        lines += ["  its neighbourhood:", *_neighbourhood(report, first)]
    told = None if cause is None else next((f for f in report.findings if f.cause == cause.name), None)
    notes = [f"  note: {finding}" for finding in report.findings if finding is not told]
    lines += notes[:_NOTES]
    lines += [f"  note: and {len(notes) - _NOTES} more, all of them with --json"] if len(notes) > _NOTES else []
    lines += [f"  note: {text}" for text in report.guard]
    lines += [f"  note: the comparison ended early: {report.failure}"] if report.failure else []
    lines += [f"  skipped: {stage}/{name}" for stage, name in report.nodes_skipped]
    return "\n".join(lines)


def write_html(report: Report, directory: Path) -> Path:
    """Write ``index.html``, which needs no other file, and ``overview.png``, its picture, into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    picture = _overview(report.samples, report.reference, report.candidate) if report.samples else None
    if picture is not None:
        with atomic_write(directory / "overview.png") as file:
            file.write(picture)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        report=report,
        summary=_summary(report),
        describe=describe,
        bar=_bar,
        picture=base64.b64encode(picture).decode() if picture else None,
        json=json.dumps(to_json(report), indent=1),
        version=__version__,
        agree=AGREE,
    )
    with atomic_write(directory / "index.html") as file:
        file.write(page.encode())
    return directory / "index.html"


def describe(node: NodeComparison) -> str:
    """What is wrong with a node, in one line."""
    if node.problem:
        return node.problem
    if node.equal:
        return "equal bit for bit"
    text = f"max {node.max_abs:.3g}, mean {node.mean_abs:.3g}, {node.differing} of {node.elements} values differ"
    if node.worst:
        text += f", worst at {node.worst.index}: {node.worst.reference:.9g} against {node.worst.candidate:.9g}"
    if node.nonfinite:
        text += f", {node.nonfinite} values are NaN or infinite"
    return text


def _summary(report: Report) -> str:
    if report.verdict == INVALID:
        return f"{report.candidate} could not be compared with {report.reference}: {report.failure}"
    sides = f"{report.candidate} against {report.reference} on {report.count} images of {report.data}"
    return (
        f"{sides}: {report.nodes_compared} nodes compared, {len(report.nodes_skipped)} skipped; "
        f"{report.codes_equal} of {report.codes_compared} codes equal; "
        f"reconstruction {_reconstruction(report)}"
    )


def _reconstruction(report: Report) -> str:
    node = next((node for node in report.nodes if (node.stage, node.name) == (OUTPUT, "reconstruction")), None)
    if node is None:
        return "not compared"
    return "equal bit for bit" if node.equal else node.problem or f"off by at most {node.max_abs:.3g} of 255"


def _neighbourhood(report: Report, first: NodeComparison) -> list[str]:
    at = report.nodes.index(first)
    rows = report.nodes[max(0, at - _NEIGHBOURHOOD) : at + _NEIGHBOURHOOD + 1]
    width = max(len(f"{node.stage}/{node.name}") for node in rows)
    return [
        f"  {'->' if node is first else '  '} {node.stage + '/' + node.name:<{width}}  "
        f"{node.problem or ('equal' if node.equal else f'max {node.max_abs:.3g}, mean {node.mean_abs:.3g}')}"
        for node in rows
    ]


def _values(node: NodeComparison) -> dict[str, Any]:
    worst = node.worst
    return {
        "operator": node.operator,
        "shape": list(node.shape),
        "equal": node.equal,
        "elements": node.elements,
        "differing": node.differing,
        "max_abs": _number(node.max_abs),
        "mean_abs": _number(node.mean_abs),
        "max_rel": _number(node.max_rel),
        "nonfinite": node.nonfinite,
        "worst": None
        if worst is None
        else {
            "index": list(worst.index),
            "reference": _number(worst.reference),
            "candidate": _number(worst.candidate),
        },
        "problem": node.problem,
    }


def _number(value: float) -> Any:
    """JSON has no NaN and no infinity."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _bar(node: NodeComparison) -> float:
    """Length of a node's error bar, 0..100: ten decades, from 1e-8 to 1e2."""
    if node.equal:
        return 0.0
    if node.problem or not math.isfinite(node.max_abs):
        return 100.0
    return float(np.clip(10 * (math.log10(max(node.max_abs, 1e-45)) + 8), 2, 100))


def _where_same_shape(function, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """What a function makes of both; nothing, zeros, where their shapes do not allow it."""
    return function(ours, theirs) if ours.shape == theirs.shape else np.zeros_like(theirs)


def _overview(samples: Samples, reference: str, candidate: str) -> bytes:
    """One picture: images, both reconstructions and their difference, both code maps. Returns a PNG file."""
    difference = _where_same_shape(
        lambda a, b: np.abs(a.astype(int) - b), samples.reference_images, samples.candidate_images
    )
    flips = _where_same_shape(np.not_equal, samples.reference_codes, samples.candidate_codes)
    rows = [
        ("original", samples.images, None),
        (f"{reference}: image", samples.reference_images, None),
        (f"{candidate}: image", samples.candidate_images, None),
        ("difference", difference, "magma"),
        (f"{reference}: codes", samples.reference_codes, "turbo"),
        (f"{candidate}: codes", samples.candidate_codes, "turbo"),
    ]
    columns = min(_COLUMNS, len(samples.images))
    highest = max(int(samples.reference_codes.max()), int(samples.candidate_codes.max()), 1)
    figure = Figure(figsize=(0.8 * columns + 1.6, 0.8 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (label, pictures, colours) in zip(axes, rows):
        for i, cell in enumerate(line):
            cell.set(xticks=[], yticks=[])
            limit = highest if colours == "turbo" else 255
            cell.imshow(pictures[i].squeeze(), cmap=colours or "gray", vmin=0, vmax=limit, interpolation="nearest")
            if label.startswith(candidate) and colours and flips[i].any():
                for y, x in np.argwhere(flips[i]):
                    cell.plot(x, y, marker="x", color="white", markersize=4)
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()
