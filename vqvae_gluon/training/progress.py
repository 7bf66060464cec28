"""How far a training run has come, and whether what a checkpoint says of that can be."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from vqvae_gluon.config import Config
from vqvae_gluon.training.learner import LOSSES
from vqvae_gluon.training.metrics import MEASURES

Row = dict[str, Any]
LOGGED_STEPS = 100
# What is summed of every step, and what the rows of epochs and of every hundred steps hold.
MEASURED = (*LOSSES, "perplexity", "gradient_norm", "restarted")
_STEP_ROW = {"step", *MEASURED, "normalised_mse", "learning_rate"}
_EPOCH_ROW = {
    *("epoch", "step", "restarted", "learning_rate", "seconds", "images_per_second"),
    *(f"train_{name}" for name in (*LOSSES, "perplexity", "batch_perplexity")),
    *(f"{part}_{name}" for part in ("validation", "test") for name in MEASURES),
}


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epoch: whole epochs that are done.
        position: steps of the next one that are done.
        step: steps that are done, of all epochs.
        sums: of the losses of these steps of the next epoch, of their perplexities and of their restarts.
        counts: how often they used each code.
        recent: sums of what steps measured since the last row of ``steps``.
        seconds: that the next epoch has taken.
        history: a row of measurements for every epoch.
        steps: a row for every hundred steps.
    """

    epoch: int = 0
    position: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    seconds: float = 0.0
    history: list[Row] = field(default_factory=list)
    steps: list[Row] = field(default_factory=list)


def check_progress(values: Any, config: Config) -> Progress:
    """The progress that a checkpoint of this config says.

    Raises:
        ValueError: no run of this config can have come so far.
    """
    if not isinstance(values, dict) or values.keys() != {entry.name for entry in fields(Progress)}:
        raise ValueError("it does not say how far it has come")
    progress = Progress(**values)
    epoch, position, step = (_whole(values[name], name) for name in ("epoch", "position", "step"))
    end, done = (config.training.steps, step) if config.training.steps else (config.training.epochs, epoch)
    if done > end:
        raise ValueError(f"it has done {done} of {end}")
    _check_rows(progress.history, _EPOCH_ROW, "history")
    _check_rows(progress.steps, _STEP_ROW, "steps")
    if [row["epoch"] for row in progress.history] != list(range(1, epoch + 1)):
        raise ValueError(f"its history is not that of {epoch} epochs")
    ends = [0, *(row["step"] for row in progress.history)]
    if not step or step - ends[-1] != position or any(after <= before for before, after in zip(ends, ends[1:])):
        raise ValueError(f"its step {step} is not number {position} after those of {epoch} epochs")
    if [row["step"] for row in progress.steps] != list(range(LOGGED_STEPS, step + 1, LOGGED_STEPS)):
        raise ValueError(f"its rows are not those of {step} steps")
    _check_numbers(progress.sums, len(MEASURED) if position else 0, "sums")
    _check_numbers(progress.recent, len(MEASURED) if step % LOGGED_STEPS else 0, "recent")
    _check_numbers(progress.counts, config.model.num_embeddings if position else 0, "counts")
    for count in progress.counts:
        _whole(count, "counts")
    _check_numbers([progress.seconds], 1, "seconds")
    if progress.seconds < 0:
        raise ValueError("its seconds are below 0")
    return progress


def _whole(value: Any, name: str) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError(f"its {name} is no number of things")
    return value


def _check_numbers(values: Any, count: int, name: str) -> None:
    if not isinstance(values, list) or len(values) != count or not all(map(_is_number, values)):
        raise ValueError(f"its {name} is no list of {count} numbers")
    if not all(map(math.isfinite, values)):
        raise ValueError(f"its {name} is not finite")


def _check_rows(rows: Any, keys: set[str], name: str) -> None:
    """Rows of numbers. An infinity may be one: an error of 0 has that peak signal-to-noise ratio."""
    if not isinstance(rows, list):
        raise ValueError(f"its {name} is no list")
    for row in rows:
        if not isinstance(row, dict) or row.keys() != keys or not all(map(_is_number, row.values())):
            raise ValueError(f"its {name} has a row that no run writes")
        for key in ("epoch", "step", "validation_codes_used", "test_codes_used"):
            if key in row:
                _whole(row[key], key)


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 2**63
    return type(value) is float and not math.isnan(value)
