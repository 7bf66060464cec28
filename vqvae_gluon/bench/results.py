"""What was measured, on disk after every part of it, so that an interrupted run can go on."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from vqvae_gluon.bench.process import Times
from vqvae_gluon.errors import InputError, UsageError
from vqvae_gluon.files import atomic_write, read_file

RESULTS = "results.json"
_MAX_BYTES = 1 << 26


@dataclass(frozen=True)
class Row:
    """One measurement. What does not apply is None.

    Attributes:
        work: what was done, such as ``reconstruct cifar10``.
        milliseconds: of one repetition, the median; then the quartiles, the least and the most.
        peak_rss_mib: the most memory that the process had.
        gflop: floating-point operations of a repetition, in billions.
        codes_equal: share of the codes that are the reference's.
        pixels_off: the most that a pixel is off, of 255, in images whose codes are all the reference's.
        psnr_lost: dB that the reconstruction is worse than the reference's.
        error: why there is no time.
    """

    work: str
    batch: int
    runtime: str
    precision: str
    images_per_second: Optional[float] = None
    milliseconds: Optional[float] = None
    peak_rss_mib: Optional[float] = None
    milliseconds_low: Optional[float] = None
    milliseconds_high: Optional[float] = None
    milliseconds_min: Optional[float] = None
    milliseconds_max: Optional[float] = None
    side: Optional[int] = None
    gflop: Optional[float] = None
    codes_equal: Optional[float] = None
    pixels_off: Optional[float] = None
    psnr_lost: Optional[float] = None
    error: Optional[str] = None

    def timed(self, times: Times, peak_rss_mib: Optional[float] = None) -> "Row":
        """The row with its times; ``batch`` images are done in each repetition."""
        return dataclasses.replace(
            self,
            images_per_second=self.batch / times.median,
            milliseconds=times.median * 1e3,
            milliseconds_low=times.low * 1e3,
            milliseconds_high=times.high * 1e3,
            milliseconds_min=times.least * 1e3,
            milliseconds_max=times.most * 1e3,
            peak_rss_mib=peak_rss_mib,
        )


@dataclass
class Results:
    """All of a run.

    Attributes:
        machine: where it ran.
        settings: what was asked for; a run goes on only with the same.
        parts: rows by the part of the run that gave them, in its order.
        notes: what was left out, and why.
    """

    machine: dict[str, Any]
    settings: dict[str, Any]
    parts: dict[str, list[Row]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def rows(self, part: str = "") -> Iterator[Row]:
        """The rows of all parts whose names begin so."""
        for name, rows in self.parts.items():
            if name.startswith(part):
                yield from rows

    def find(self, work: str, batch: int, runtimes: tuple[str, ...], precision: str) -> Optional[Row]:
        """The fastest row of these runtimes; None if there is none with a time."""
        found = [
            row
            for row in self.rows()
            if (row.work, row.batch, row.precision) == (work, batch, precision)
            and row.runtime in runtimes
            and row.milliseconds is not None
            and row.side is None
        ]
        return min(found, key=lambda row: row.milliseconds or 0, default=None)

    def to_json(self) -> dict[str, Any]:
        parts = {name: [dataclasses.asdict(row) for row in rows] for name, rows in self.parts.items()}
        return {"machine": self.machine, "settings": self.settings, "parts": parts, "notes": self.notes}

    def write(self, directory: Path, more: dict[str, Any]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        with atomic_write(directory / RESULTS) as file:
            file.write((json.dumps({**self.to_json(), **more}, indent=1) + "\n").encode())

    def go_on(self, directory: Path) -> None:
        """Take the parts that an earlier run measured.

        Raises:
            InputError: there is no such run, or its file is damaged.
            UsageError: it was another machine, or was asked for something else.
        """
        path = directory / RESULTS
        text = read_file(path, _MAX_BYTES, "; leave --resume out to begin")
        try:
            document = json.loads(text)
            parts = {name: [Row(**row) for row in rows] for name, rows in document["parts"].items()}
            ours = json.loads(json.dumps({"machine": self.machine, "settings": self.settings}))  # Tuples as lists.
            same = {name: document[name] == wanted for name, wanted in ours.items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(path, f"holds no results that can be read ({error}); leave --resume out") from error
        for name, kept in same.items():
            if not kept:
                raise UsageError("--resume", f"{path} was measured with another {name}; leave it out to begin again")
        self.parts.update(parts)
