"""What a run tells: files that people look at while it goes on."""

import csv
import fcntl
import io
import shlex
import sys
import time
from pathlib import Path
from typing import Any, Optional

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tqdm import tqdm

from vqvae_gluon.data.images import write_image
from vqvae_gluon.errors import InputError, one_line
from vqvae_gluon.files import atomic_write
from vqvae_gluon.training import plots
from vqvae_gluon.training.progress import Progress, Row

RECORD = (
    "log.txt",
    "settings.toml",
    "losses.csv",
    "losses.png",
    "steps.csv",
    "codebook_usage.png",
    "reconstruction_best.png",
    "reconstruction_newest.png",
)
_BINS = 64  # of the histogram of codes


class Log:
    """Writes, into a run's directory:

    - ``log.txt``: what was said, with the time, and the command; ``settings.toml``: all settings;
    - ``losses.csv`` and ``losses.png``: every epoch; ``steps.csv``: the means of every hundred steps;
    - ``codebook_usage.png``: how often each code was used on the test images, and the perplexity by epoch;
    - ``reconstructions/``: a grid of test images for every epoch; ``reconstruction_best.png`` and
      ``reconstruction_newest.png``;
    - ``tensorboard/``: all of it as TensorBoard's event files.

    Args:
        directory: None to write nothing and say nothing, on all machines but one.
        progress: where the run begins; what comes after it is written anew.
        settings: as TOML; None to leave those that are there.

    Raises:
        InputError: another process writes there.
    """

    def __init__(self, directory: Optional[Path], progress: Progress, settings: Optional[str]):
        self._writes = directory is not None
        self._directory = directory or Path()
        if directory is None:
            return
        for name in ("reconstructions", "tensorboard"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        self._text = (directory / "log.txt").open("a", buffering=1, errors="backslashreplace")
        try:
            fcntl.flock(self._text, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(directory, "is where another process trains; wait, or give another --output") from error
        # The writer itself, without tensorboardX's thread around it: what a checkpoint counts as done is on disk.
        self._board = EventsWriter(str(directory / "tensorboard" / "events"))
        self._board.write_event(Event(step=progress.step + 1, session_log=SessionLog(status=SessionLog.START)))
        if settings is not None:
            with atomic_write(directory / "settings.toml") as file:
                file.write(settings.encode(errors="backslashreplace"))
        self._write(f"$ vqvae-gluon {shlex.join(sys.argv[1:])}")

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._writes:
            self._board.close()
            self._text.close()

    def flush(self) -> None:
        """Have on the disk all that was told."""
        if self._writes:
            self._board.flush()

    def say(self, line: str) -> None:
        """Tell it on standard error, and keep it."""
        if self._writes:
            tqdm.write(one_line(line), file=sys.stderr)
            self._write(line)

    def step(self, row: Row) -> None:
        """The means of some steps."""
        if self._writes:
            self._scalars("steps", row)

    def epoch(self, row: Row, progress: Progress, counts: np.ndarray) -> None:
        """What was measured after an epoch.

        Args:
            counts: (K,), how often each code was used on the test images.
        """
        if not self._writes:
            return
        self._scalars("epochs", row)
        codes = np.repeat(np.arange(len(counts)), counts)
        self._show(summary.histogram("epochs/test_codes", codes, bins=min(len(counts), _BINS)), row["step"])
        self._table("losses.csv", progress.history)
        self._table("steps.csv", progress.steps)
        plots.loss_graph(self._directory / "losses.png", progress.history)
        plots.codebook_usage(self._directory / "codebook_usage.png", counts, progress.history)

    def grid(self, grid: np.ndarray, name: str, step: int, is_best: bool) -> None:
        """A picture of reconstructions, uint8 (height, width, C)."""
        if not self._writes:
            return
        self._show(summary.image("test_reconstruction", grid, dataformats="HWC"), step)
        write_image(self._directory / "reconstructions" / name, grid)
        write_image(self._directory / "reconstruction_newest.png", grid)
        if is_best:
            write_image(self._directory / "reconstruction_best.png", grid)

    def _scalars(self, group: str, row: Row) -> None:
        for name, value in row.items():
            self._show(summary.scalar(f"{group}/{name}", value), row["step"])

    def _show(self, shown, step: int) -> None:
        self._board.write_event(Event(wall_time=time.time(), step=step, summary=shown))

    def _table(self, name: str, rows: list[Row]) -> None:
        if rows:
            text = io.StringIO()
            writer = csv.DictWriter(text, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
            with atomic_write(self._directory / name) as file:
                file.write(text.getvalue().encode())

    def _write(self, line: str) -> None:
        self._text.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {one_line(line)}\n")


def copy_record(run: Path, directory: Path) -> None:
    """Copy what tells how a run went: what is made anew at every epoch, not the checkpoints."""
    for name in RECORD:
        if (run / name).is_file():
            with atomic_write(directory / name) as file:
                file.write((run / name).read_bytes())
