"""Tables, pages and plots of what was measured."""

import dataclasses
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional

from matplotlib.figure import Figure

from vqvae_gluon.bench import limit, scaling
from vqvae_gluon.bench.ratios import ratios, shares
from vqvae_gluon.bench.results import Results, Row
from vqvae_gluon.errors import one_line
from vqvae_gluon.files import atomic_write
from vqvae_gluon.printed import joined
from vqvae_gluon.training.plots import plain_log

PAGE, RATES_PLOT, SCALING_PLOT = "RESULTS.md", "rates.png", "scaling.png"
_COLUMNS = ("work", "batch", "runtime", "precision", "images/s", "ms", "min to max", "MiB", "of the limit", "quality")
_BESIDE: dict[str, Any] = {"fontsize": 8, "loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0}
_MEASURED = """\
Each row is a process of its own. All of a group are started, proved to give what Gluon gives, and warmed, and then
asked in turns, each of which begins with a run that is not timed. *ms* is the median of the turns for one batch, or
step, and *min to max* the least and the most of them; *MiB* is the most memory that the process had. Reconstruction
takes a batch of float32 pixels in memory to such a batch, by way of the codes; ONNX Runtime has encoder and decoder in
one graph. *Of the limit*: share of the rate of the machine's fastest matrix product with such numbers, where the
multiplications of convolutions are counted; more than 100 % where a library has a faster way than that product's, as
the fused operators have for float32 on AMX. *Quality*: codes that are the float32 network's, and by how much the
reconstruction is worse.
"""


def summary(results: Results) -> dict[str, Any]:
    """What the JSON of a run holds beside the parts."""
    found, share = ratios(results), shares(results)
    return {
        "rows": [{**dataclasses.asdict(row), "share_of_limit": share.get(id(row))} for row in results.rows()],
        "limits_gflops": limit.rates(list(results.rows())),
        "ratios": {one.name: one.value for one in found},
        "aims": [
            {"name": one.name, "value": one.value, "wanted": one.aim, "met": one.met}
            for one in found
            if one.wanted is not None
        ],
    }


def to_json(results: Results) -> dict[str, Any]:
    return {"machine": results.machine, **summary(results), "notes": results.notes, "settings": results.settings}


def to_text(results: Results) -> str:
    """The tables, for a terminal."""
    texts = [_aligned(_table(results)), _aligned(_ratio_table(results))]
    return "\n\n".join(text for text in texts if text)


def write_page(results: Results, directory: Path, words: list[str]) -> Path:
    """RESULTS.md and the plots.

    Args:
        words: of the command.
    """
    machine = joined(f"| {name.replace('_', ' ')} | {_plain(value)} |" for name, value in results.machine.items())
    lines = [
        "# What it costs",
        "",
        one_line(f"`vqvae-gluon {shlex.join(words)}` wrote this page."),
        "",
        "| machine | |\n| --- | --- |\n" + machine,
        "",
        _MEASURED,
    ]
    lines += [*(one_line(f"- {note}") for note in results.notes), ""] if results.notes else []
    lines += ["## Beside each other", "", _markdown(_ratio_table(results)), ""]
    for path, plot in (
        (directory / RATES_PLOT, rates_plot(results)),
        (directory / SCALING_PLOT, scaling_plot(results)),
    ):
        if plot is not None:
            with atomic_write(path) as file:
                plot.savefig(file, format="png", dpi=110)
            lines += [f"![{path.stem}]({path.name})", ""]
    lines += ["## All rows", "", _markdown(_table(results)), ""]
    with atomic_write(directory / PAGE) as file:
        file.write("\n".join(lines).encode(errors="backslashreplace"))
    return directory / PAGE


def rates_plot(results: Results) -> Optional[Figure]:
    """Images a second of every runtime by batch, one picture for each network."""
    works = list(dict.fromkeys(row.work for row in results.rows("inference") if row.images_per_second))
    if not works:
        return None
    figure = Figure(figsize=(7.5 * len(works), 4.5), layout="constrained")
    for number, work in enumerate(works):
        axes = figure.add_subplot(1, len(works), number + 1)
        curves: dict[str, list[Row]] = {}
        for row in results.rows("inference"):
            if row.work == work and row.images_per_second:
                curves.setdefault(f"{row.runtime}, {row.precision}", []).append(row)
        for name, rows in curves.items():
            axes.plot([row.batch for row in rows], [row.images_per_second or 0 for row in rows], "o-", label=name)
        axes.set(xscale="log", yscale="log", xlabel="images in a batch", ylabel="images a second", title=work)
        batches = sorted({row.batch for rows in curves.values() for row in rows})
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.minorticks_off()
        plain_log(axes.yaxis)
        axes.legend(**_BESIDE)
    return figure


def scaling_plot(results: Results) -> Optional[Figure]:
    """Milliseconds by pixels, with the straight line of each fit."""
    found = scaling.curves(results)
    if not found:
        return None
    works = list(dict.fromkeys(work for work, _ in found))
    figure = Figure(figsize=(9 * len(works), 4.5), layout="constrained")
    for number, work in enumerate(works):
        axes = figure.add_subplot(1, len(works), number + 1)
        for runtime in [runtime for one, runtime in found if one == work]:
            rows = found[work, runtime]
            pixels = [row.batch * (row.side or 0) ** 2 / 1e6 for row in rows]
            line = scaling.fit(rows)
            (points,) = axes.plot(pixels, [row.milliseconds or 0 for row in rows], "o", label=runtime)
            drawn = [line.fixed_milliseconds + line.milliseconds_per_megapixel * x for x in pixels]
            label = f"{line.fixed_milliseconds:.2f} ms + {line.milliseconds_per_megapixel:.0f} ms/Mpx, exponent"
            axes.plot(pixels, drawn, "-", color=points.get_color(), label=f"{label} {line.exponent:.2f}")
        axes.set(xscale="log", yscale="log", xlabel="megapixels", ylabel="milliseconds", title=work)
        plain_log(axes.xaxis)
        plain_log(axes.yaxis)
        axes.legend(**_BESIDE)
    return figure


def _table(results: Results) -> list[list[str]]:
    share = shares(results)
    lines = [list(_COLUMNS)]
    for row in results.rows():
        work = row.work if row.side is None else f"{row.work}, side {row.side}"
        cells = [work, str(row.batch), row.runtime, row.precision]
        if row.error is not None:
            lines.append([*cells, "", "", f"error: {row.error}", "", "", ""])
            continue
        quality = "" if row.codes_equal is None else f"{row.codes_equal:.2%}"
        quality += "" if row.psnr_lost is None else f", {row.psnr_lost:.3f} dB lost"
        ends = f"{_number(row.milliseconds_min)} to {_number(row.milliseconds_max)}" if row.milliseconds_min else ""
        numbers = [_number(row.images_per_second), _number(row.milliseconds), ends, _number(row.peak_rss_mib)]
        lines.append([*cells, *numbers, f"{share[id(row)]:.0%}" if id(row) in share else "", quality])
    return lines


def _ratio_table(results: Results) -> list[list[str]]:
    lines = [["ratio", "value", "aim", ""]]
    for one in ratios(results):
        met = "" if one.met is None else "met" if one.met else "not met"
        lines.append([one.name, f"{one.value:.3g}", one.aim, met])
    return lines if len(lines) > 1 else []


def _number(value: Optional[float]) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines)]
    return joined("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def _markdown(lines: list[list[str]]) -> str:
    rows = [_cells(line) for line in lines]
    return joined([rows[0], "| " + " | ".join(["---"] * len(lines[0])) + " |", *rows[1:]]) if rows else ""


def _cells(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
