"""What a comparison with another precision says: as text, for a notebook, as JSON, and as JUnit XML."""

from pathlib import Path
from typing import Any

from vqvae_gluon.errors import one_line
from vqvae_gluon.parity.markup import summary_html
from vqvae_gluon.parity.precision_result import Cost, Difference, LayerReport, PrecisionResult
from vqvae_gluon.parity.report import head, number, write_suite
from vqvae_gluon.parity.result import AGREE, DIVERGE, INVALID
from vqvae_gluon.printed import joined


class PrecisionReport(PrecisionResult):
    """What a comparison with another precision found, to be read: ``print(report)`` gives the text of the terminal, a
    notebook shows a summary."""

    def __str__(self) -> str:
        return to_text(self)

    def __repr__(self) -> str:
        return one_line(f"<{type(self).__name__} {self.verdict.upper()}: {summary(self)}>")

    def _repr_html_(self) -> str:
        return to_html(self)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-ready values, as ``--json`` prints them; NaN and infinity are strings."""
        return to_json(self)


def to_json(report: PrecisionResult) -> dict[str, Any]:
    """The report as JSON-ready values. What is not a finite number is the string ``NaN`` or ``Infinity``."""
    worst, cost = report.worst, report.cost
    return {
        **head(report),
        "expected": "the criteria of other precisions",
        # Layers are the nodes here; what is not computed in another way is not looked at.
        "nodes_compared": len(report.compared),
        "nodes_skipped": len(report.layers) - len(report.compared),
        "outputs": {name: _output(error) for name, error in report.outputs.items()},
        "first_divergent": _divergent(report),
        # Those that differ are counted, not told apart: none of them is legal or real by float32's bounds.
        "codes": {"compared": cost.codes, "equal": cost.equal, "legal_flips": None, "real_flips": None}
        if cost.codes
        else None,
        "cause": _cause(report),
        "precision": {
            "reference": report.precisions[0],
            "candidate": report.precisions[1],
            "criteria": {
                "equal_codes_at_least": report.criteria.equal_codes,
                "psnr_lost_at_most": report.criteria.psnr_lost,
            },
            "equal_codes": number(cost.equal_codes),
            "psnr": {"reference": number(cost.reference.psnr), "candidate": number(cost.candidate.psnr)},
            "psnr_lost": number(cost.psnr_lost),
            "decoder_psnr_lost": number(report.decoder.psnr_lost),
            "nonfinite": cost.bad,
            "worst_layer": None if worst is None else worst.name,
            "leave_in_reference_precision": report.leave,
            "layer_images": report.layer_images,
            "layers": [_layer(layer) for layer in report.layers.values()],
        },
        "failure": None if report.failure is None else str(report.failure),
    }


def to_text(report: PrecisionResult) -> str:
    """The report for a terminal, the verdict first."""
    lines = [f"{report.verdict.upper()}: {summary(report)}"]
    if report.cost.codes:
        criteria = report.criteria
        lines += [
            f"  criteria: at most {criteria.psnr_lost:g} dB of PSNR lost; or at least {criteria.equal_codes:.2%} of the"
            f" codes equal, and no more lost by the decoder on equal codes ({report.decoder.psnr_lost:.3f} dB)"
        ]
    if report.worst is not None:
        worst = report.worst
        lines += [f"  worst layer: {worst.stage}/{worst.name} ({worst.operator}): {_worst(worst)}"]
    if report.verdict == DIVERGE and report.failure is None and not report.bad:
        lines += [f"  {_advice(report)}"]
    if any(layer.looked for layer in report.layers.values()):
        lines += [
            f"  layers, on {report.layer_images} of the images; signal to noise in dB, and what each costs alone:"
        ]
        lines += _table(report)
    lines += [f"  note: the comparison ended early: {report.failure}"] if report.failure else []
    return joined(lines)


def to_html(report: PrecisionResult) -> str:
    """The summary for a notebook: verdict, cause, the worst layer, and what each layer costs."""
    worst = report.worst
    head, *rows = _rows(report)
    named = None if worst is None else (one_line(f"{worst.stage}/{worst.name}"), _worst(worst))
    return summary_html(
        report.verdict, summary(report), _cause(report), [], named, ("layer", *head[1:]), rows, "Worst layer"
    )


def summary(report: PrecisionResult) -> str:
    """The comparison in one line."""
    ours, theirs = report.precisions
    sides = f"{report.candidate} in {theirs} against {report.reference} in {ours}"
    if report.verdict == INVALID:
        return f"{sides}: {report.failure or 'nothing was compared: no layer is computed in another way'}"
    cost = report.cost
    parts = [f"{cost.equal} of {cost.codes} codes equal ({cost.equal / cost.codes:.2%})"] if cost.codes else []
    parts += [f"{cost.bad} values are NaN or infinite"] if cost.bad else []
    if cost.codes and not cost.bad:
        psnr = f"PSNR {cost.candidate.psnr:.3f} dB against {cost.reference.psnr:.3f} dB"
        change = f"{cost.psnr_lost:.3f} dB lost" if cost.psnr_lost >= 0 else f"{-cost.psnr_lost:.3f} dB won"
        parts += [f"{psnr}: {change}"]
    return f"{sides} on {report.count} images of {report.data}: {'; '.join(parts)}"


def write_junit(report: PrecisionResult, path: Path) -> None:
    """Write JUnit XML: one test for every layer, which fails if it is one to be left as it was, and one for all."""
    ours, theirs = report.precisions
    left = dict.fromkeys(report.leave or (), f"leave it in {ours}")
    cases = [(f"{one.stage}/{one.name}", _bad(one) or left.get(one.name, ""), "") for one in report.layers.values()]
    write_suite(path, f"{report.candidate} in {theirs}", cases, report.verdict, summary(report), to_text(report))


def _advice(report: PrecisionResult) -> str:
    left, precision = report.leave, report.precisions[0]
    if left is None:
        return f"no layers that are left in {precision} are enough: something else differs"
    if not left:
        return f"on the {report.layer_images} images that the layers were looked into, the criteria are met"
    return f"leave in {precision}: {', '.join(left)} (export --float32 {' '.join(left)})"


def _worst(layer: LayerReport) -> str:
    return _bad(layer) or f"{layer.local.decibels:.1f} dB by itself"


def _rows(report: PrecisionResult) -> list[tuple[str, ...]]:
    """What is shown of every layer, below the names of the columns."""
    rows: list[tuple[str, ...]] = [("", "by itself", "in its run", "codes equal", "PSNR lost")]
    for layer in report.layers.values():
        alone = layer.alone
        measured = bool(alone.codes)
        rows += [
            (
                one_line(f"{layer.stage}/{layer.name}"),
                f"{layer.local.decibels:.1f}",
                f"{layer.cumulative.decibels:.1f}",
                f"{alone.equal_codes:.2%}" if measured else "-",
                f"{alone.psnr_lost:.3f}" if measured else "-",
            )
        ]
    return rows


def _table(report: PrecisionResult) -> list[str]:
    rows = _rows(report)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    marks = ["  ", *("->" if layer is report.worst else "  " for layer in report.layers.values())]
    return [
        f"  {mark} {row[0]:<{widths[0]}}  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:]))
        for mark, row in zip(marks, rows)
    ]


def _bad(layer: LayerReport) -> str:
    return f"{layer.bad} values are NaN or infinite" if layer.bad else ""


def _divergent(report: PrecisionResult) -> Any:
    """The layer to look at first, as comparisons in one precision name a node: the worst, if the verdict is one."""
    worst = report.worst
    if report.verdict != DIVERGE or worst is None:
        return None
    return {
        "node": worst.name,
        "operator": worst.operator,
        "stage": worst.stage,
        "local_max_abs": number(worst.local.max_abs),
        "cumulative_max_abs": number(worst.cumulative.max_abs),
    }


def _cause(report: PrecisionResult) -> Any:
    if report.verdict == AGREE:
        return None
    if report.bad or report.cost.bad:
        return {"name": "non-finite value", "evidence": _bad(report.bad[0]) if report.bad else summary(report)}
    if report.failure is not None:
        return {"name": "candidate failed", "evidence": str(report.failure)}
    return {"name": "precision", "evidence": _advice(report) if report.verdict == DIVERGE else summary(report)}


def _output(error: Difference) -> dict[str, Any]:
    return {"max_abs": number(error.max_abs), "max_rel": number(error.max_rel), "equal": error.equal}


def _layer(layer: LayerReport) -> dict[str, Any]:
    return {
        "stage": layer.stage,
        "name": layer.name,
        "operator": layer.operator,
        "local_snr_db": number(layer.local.decibels),
        "cumulative_snr_db": number(layer.cumulative.decibels),
        "alone": _alone(layer.alone),
        "nonfinite": layer.bad,
    }


def _alone(cost: Cost) -> Any:
    if not cost.codes:
        return None
    return {"equal_codes": number(cost.equal_codes), "psnr_lost": number(cost.psnr_lost), "finite": not cost.bad}
