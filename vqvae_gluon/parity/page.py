"""The report as a page, with pictures: ``index.html``, which needs no other file."""

import base64
import io
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from vqvae_gluon import __version__
from vqvae_gluon.artifacts.trace import Key
from vqvae_gluon.files import atomic_write
from vqvae_gluon.parity.bounds import FACTOR, Errors
from vqvae_gluon.parity.discrete import Flip, Flips
from vqvae_gluon.parity.markup import TERMS, json_block, templates
from vqvae_gluon.parity.metrics import QUANTILES, NodeComparison
from vqvae_gluon.parity.report import Report, describe, explain, path_to, remedies, summary, to_json
from vqvae_gluon.parity.result import NodeReport, Samples

EQUAL, WITHIN, WRONG, MISSING = "equal", "within the bounds", "wrong", "not compared"
# Beside every colour stands a word and a mark.
_MARKS = {EQUAL: "\u2713", WITHIN: "\u2248", WRONG: "\u2717", MISSING: "\u2013"}
_VERDICT_MARKS = {"agree": "\u2713", "diverge": "\u2717", "invalid": "!"}
_LONG = 40  # rows; in a longer table, runs of equal tensors are folded
_RUN = 4  # equal tensors that are worth folding
_HEATS = 8
_WORST_FLIPS = 8
_DECADES = 16  # of the scale of errors, at most
_SIDE = 128  # pixels of a sample's longest side
_CELL = 9  # pixels of one code, enough to draw a mark into
_GAP = 4  # pixels between samples
_LEGAL, _REAL = 1, 2


@dataclass(frozen=True)
class Row:
    """A tensor, as a row of the table of the graph.

    Attributes:
        anchor: the row's id. It holds no name, for names come from files.
        state: one of the keys of :data:`_MARKS`.
        first: whether it is the first divergent node.
        error: what is held against the bound: the larger of both sides' errors against float64, or where that was not
            measured the difference; None where the values are choices and not quantities.
        local_error: the same with the reference's inputs.
    """

    anchor: str
    report: NodeReport
    state: str
    first: bool
    error: Optional[float]
    local_error: Optional[float]

    @property
    def mark(self) -> str:
        return _MARKS[self.state]

    @property
    def bound(self) -> Optional[float]:
        return None if self.report.errors is None else self.report.errors.bound

    @property
    def local_bound(self) -> Optional[float]:
        return None if self.report.local_errors is None else self.report.local_errors.bound


@dataclass(frozen=True)
class Scale:
    """A logarithmic scale from ``10**low`` to ``10**high``."""

    low: int
    high: int

    def at(self, value: Optional[float]) -> float:
        """Where a value lies, in percent. What is too large, infinite or NaN lies at the end; zero at the start."""
        if value is None or value == 0:
            return 0.0
        if not math.isfinite(value):
            return 100.0
        return round(float(np.clip(100 * (math.log10(value) - self.low) / (self.high - self.low), 1, 100)), 2)


@dataclass(frozen=True)
class Picture:
    """A picture, to be shown or put into the page.

    Attributes:
        pixels: uint8 (H, W, 4).
        text: what it shows, for those who do not see it.
    """

    label: str
    pixels: np.ndarray
    text: str

    @property
    def uri(self) -> str:
        file = io.BytesIO()
        Image.fromarray(self.pixels).save(file, format="png")
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def write_html(report: Report, directory: Path) -> Path:
    """Write ``index.html``, which needs no other file, and ``overview.png``, its picture, into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    kinds = _flip_kinds(report) if report.samples else np.zeros(0)
    pictures = _pictures(report.samples, report.reference, report.candidate, kinds) if report.samples else []
    if pictures:
        with atomic_write(directory / "overview.png") as file:
            _overview(pictures).savefig(file, format="png", dpi=100, metadata={"Software": None})
    with atomic_write(directory / "index.html") as file:
        file.write(_render(report, pictures, kinds).encode())
    return directory / "index.html"


def _render(report: Report, pictures: list[Picture], kinds: np.ndarray) -> str:
    first = report.first_divergent
    rows = [_row(f"tensor-{i}", node, node is first) for i, node in enumerate(report.nodes.values())]
    outputs = {name: _row(f"output-{i}", node, node is first) for i, (name, node) in enumerate(report.outputs.items())}
    every = [*rows, *outputs.values()]
    environment = templates()
    environment.filters["short"] = _short
    environment.tests["finite"] = math.isfinite
    return environment.get_template("report.html").render(
        report=report,
        mark=_VERDICT_MARKS[report.verdict],
        summary=summary(report),
        remedies=remedies(report),
        first=next((row for row in every if row.first), None),
        facts=_facts(report, first) if first else [],
        paths=path_to(report, first.comparison.key) if first else ([], []),
        tolerance=report.tolerance(),
        states={state: sum(row.state == state for row in rows) for state in _MARKS},
        marks=_MARKS,
        rows=rows,
        runs=_runs(rows),
        outputs=outputs,
        scale=_scale(every),
        factor=FACTOR,
        pictures=pictures,
        flipped={"real": int((kinds == _REAL).sum()), "legal": int((kinds == _LEGAL).sum())},
        flips=_worst_flips(report),
        skipped=["/".join(key) for key in report.nodes_skipped],
        heats=[(row, _heat(row)) for row in _worst(every)],
        quantiles=QUANTILES,
        describe=describe,
        terms=TERMS,
        json=json_block(to_json(report)),
        version=__version__,
    )


def _facts(report: Report, first: NodeReport) -> list[tuple[str, str]]:
    """What is known of the first divergent node, by what it is; why it is wrong only where that is not said yet."""
    facts = [line.partition(": ")[::2] for line in explain(report, first)]
    return [(label, text) for label, text in facts if text != describe(first)]


def _short(value: Optional[float], digits: int = 3) -> str:
    """A number as it is read; a dash for none, and for NaN where a measure has no meaning."""
    return "\u2013" if value is None or math.isnan(value) else f"{value:.{digits}g}"


def _row(anchor: str, report: NodeReport, first: bool) -> Row:
    node = report.comparison
    choices = report.flips is not None or node.dtype.startswith("int")
    return Row(
        anchor,
        report,
        MISSING if node.problem else WRONG if report.reason else EQUAL if node.equal else WITHIN,
        first,
        None if choices or node.problem else _error(node, report.errors),
        None if choices or report.local is None else _error(report.local, report.local_errors),
    )


def _error(node: NodeComparison, errors: Optional[Errors]) -> float:
    if node.nonfinite:
        return math.inf
    return node.max_abs if errors is None else max(errors.reference, errors.candidate)


def _scale(rows: list[Row]) -> Scale:
    """Whole decades around every error and bound."""
    values = [value for row in rows for value in (row.error, row.bound, row.local_error, row.local_bound) if value]
    exponents = [math.log10(value) for value in values if math.isfinite(value)]
    high = math.floor(max(exponents, default=0)) + 1
    return Scale(max(math.floor(min(exponents, default=-8)), high - _DECADES), high)


def _runs(rows: list[Row]) -> list[tuple[bool, list[Row]]]:
    """The rows in order, cut into runs, and of each run whether it is to be folded."""
    plain = [row.state == EQUAL and not row.first for row in rows]
    lengths = [len(list(run)) for _, run in itertools.groupby(plain)]
    folded = [length >= _RUN and len(rows) > _LONG for length in lengths for _ in range(length)]
    pairs = zip((is_plain and long for is_plain, long in zip(plain, folded)), rows)
    return [(fold, [row for _, row in run]) for fold, run in itertools.groupby(pairs, lambda pair: pair[0])]


def _worst(rows: list[Row]) -> list[Row]:
    """Rows with a heat map, the first divergent one first, then those that are furthest beyond their bound."""

    def badness(row: Row) -> tuple[bool, bool, float]:
        measured = row.report.errors
        return row.first, measured is not None, measured.excess if measured else row.report.comparison.max_abs

    # How far apart two choices are says nothing, and pixels show again what the reconstruction showed.
    shown = [row for row in rows if row.first or (row.error is not None and "int" not in row.report.comparison.dtype)]
    return sorted((row for row in shown if row.report.comparison.metrics), key=badness, reverse=True)[:_HEATS]


def _worst_flips(report: Report) -> list[tuple[Key, Flips, list[Flip]]]:
    """The worst flips of every node: real before legal, wide margins first. What is only handed on is told once."""

    def badness(flip: Flip) -> tuple[bool, float]:
        return flip.legal, math.inf if flip.margin is None else -flip.margin

    seen: list[list[tuple]] = []
    found = []
    for key, flips in report.flips.items():
        places = [(flip.index, flip.reference, flip.candidate) for flip in flips.flips]
        if places not in seen:
            seen.append(places)
            found.append((key, flips, sorted(flips.flips, key=badness)[:_WORST_FLIPS]))
    return found


def _heat(row: Row) -> Picture:
    metrics = row.report.comparison.metrics
    assert metrics is not None
    heat = np.nan_to_num(metrics.heat, nan=np.inf, posinf=np.inf)
    peak = float(np.max(heat, initial=0, where=np.isfinite(heat)))
    brightest = f"{peak:.3g}" if np.isfinite(heat).all() else "infinite"
    # A line of values would be too thin to be seen.
    height, width = (max(1, math.ceil(max(heat.shape) / 6 / side)) for side in heat.shape)
    heat = heat.repeat(height, axis=0).repeat(width, axis=1)
    node = row.report.comparison
    text = f"Heat map of the difference at {node.stage}/{node.name}; the brightest is {brightest}"
    return Picture(brightest, _colours("magma", np.minimum(heat / (peak or 1), 1)), text)


def _colours(name: str, values: np.ndarray) -> np.ndarray:
    """Values in 0..1 as uint8 (..., 4)."""
    return matplotlib.colormaps[name](values, bytes=True)


def _pictures(samples: Samples, reference: str, candidate: str, kinds: np.ndarray) -> list[Picture]:
    """Originals, both reconstructions and their difference, both code maps: a strip each."""
    ours, theirs = samples.reference_images, samples.candidate_images
    both = f"reference: {reference}", f"candidate: {candidate}"
    pictures = [Picture("original", _strip(_thin(samples.images)), "The original images, side by side")]
    for side, images in zip(both, (ours, theirs)):
        pictures.append(Picture(side, _strip(_thin(images)), f"Their reconstructions by the {side}"))
    if ours.shape == theirs.shape:
        difference = np.abs(ours.astype(int) - theirs).max(axis=-1)
        peak = int(difference.max())
        label = f"difference, up to {peak} of 255" if peak else "difference: none"
        strip = _strip(_colours("magma", _shrink(difference) / (peak or 1)))
        pictures.append(Picture(label, strip, f"Absolute difference of the reconstructions; the brightest is {peak}"))
    for side, codes in zip(("reference", "candidate"), (samples.reference_codes, samples.candidate_codes)):
        flips = kinds if kinds.shape == codes.shape else np.zeros_like(codes)
        pictures.append(Picture(f"{side}'s codes", _strip(_code_maps(codes, flips)), f"Code maps of the {side}"))
    return pictures


def _thin(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, 1 or 3) as uint8 (N, h, w, 4), no side longer than is shown."""
    step = -(-max(images.shape[1:3]) // _SIDE)
    images = images[:, ::step, ::step]
    colours = np.broadcast_to(images, (*images.shape[:3], 3))
    return np.concatenate([colours, np.full_like(colours[..., :1], 255)], axis=-1)


def _shrink(values: np.ndarray) -> np.ndarray:
    """Values (N, H, W) made smaller by the largest of each block: no pixel that differs may vanish."""
    step = -(-max(values.shape[1:]) // _SIDE)
    for axis in (1, 2):
        values = np.maximum.reduceat(values, np.arange(0, values.shape[axis], step), axis=axis)
    return values


def _strip(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, 4) side by side, with gaps that let the page shine through."""
    padded = np.pad(images, ((0, 0), (0, 0), (0, max(1, images.shape[2] * _GAP // 64)), (0, 0)))
    return np.concatenate(padded, axis=1)


def _flip_kinds(report: Report) -> np.ndarray:
    """For every code of the samples: 0 where it is equal, else whether the flip is legal or real."""
    samples = report.samples
    assert samples is not None
    ours, theirs = samples.reference_codes, samples.candidate_codes
    if ours.shape != theirs.shape:
        return np.zeros(0)
    kinds = np.where(ours != theirs, _REAL, 0)
    for key, flips in report.flips.items():
        if report.nodes[key].comparison.shape[1:] != ours.shape[1:]:
            continue
        for flip in flips.flips:
            # An index is one of its batch, and the samples are of the first: the values tell which it is.
            here = flip.index[0] < len(ours) and (ours[flip.index], theirs[flip.index]) == (
                flip.reference,
                flip.candidate,
            )
            if flip.legal and here:
                kinds[flip.index] = _LEGAL
    return kinds


def _code_maps(codes: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Codes (N, h, w) as pictures: a colour for every code, a cross on a real flip, a ring on a legal one."""
    # Neighbouring codes are no more alike than others: multiples of the golden ratio give them colours far apart.
    colours = _colours("turbo", codes * 0.6180339887 % 1)

    def cells(array: np.ndarray) -> np.ndarray:
        return array.repeat(_CELL, axis=1).repeat(_CELL, axis=2)

    y, x = np.indices((_CELL, _CELL)) - _CELL // 2
    distances = {_REAL: np.minimum(abs(y - x), abs(y + x)), _LEGAL: np.abs(np.hypot(y, x) - 2.5)}
    picture = cells(colours)
    for kind, distance in distances.items():
        mark = np.tile(distance, (len(codes), *codes.shape[1:]))
        for width, shade in ((2, 0), (0.7, 255)):
            picture[(mark < width) & (cells(kinds) == kind)] = (shade, shade, shade, 255)
    return picture


def _overview(pictures: list[Picture]) -> Figure:
    """All strips in one figure."""
    width = 10.0
    ratios = [picture.pixels.shape[0] / picture.pixels.shape[1] for picture in pictures]
    figure = Figure(figsize=(width + 2, width * sum(ratios) + 0.15 * len(ratios)), layout="constrained")
    axes = figure.subplots(len(pictures), 1, squeeze=False, height_ratios=ratios)[:, 0]
    for cell, picture in zip(axes, pictures):
        cell.imshow(picture.pixels, interpolation="nearest")
        cell.set(xticks=[], yticks=[])
        cell.spines[:].set_visible(False)
        cell.set_ylabel(picture.label, rotation=0, ha="right", va="center")
    return figure
