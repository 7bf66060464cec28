"""What a search finds, and the measures that every search shares."""

import math
from dataclasses import dataclass

import numpy as np

ACCOUNTED = 0.3  # least share of theirs that a replay must account for
_INTEGERS = 16  # values whose largest is smaller are not taken for pixels that were rounded


@dataclass(frozen=True)
class Relation:
    """What makes theirs of ours.

    Attributes:
        causes: in the order in which they were applied; more than one if the change is composed.
        detail: what exactly, with the numbers.
        error: largest absolute difference between the replay and theirs, on what the relation accounts for.
        accounted: share of theirs that the relation accounts for; the edge of a shift, or what lies behind the end of a
            buffer, is not. 0 if nothing is replayed: "resize filter" may be told by statistics alone.
    """

    causes: tuple[str, ...]
    detail: str
    error: float
    accounted: float


def comparable(ours: np.ndarray, theirs: np.ndarray, axes: int) -> bool:
    """Whether there is something to ask: batches of as many axes, as many samples and as many elements."""
    return ours.ndim == theirs.ndim == axes and len(ours) == len(theirs) and 0 < ours.size == theirs.size


def finite(*arrays: np.ndarray) -> bool:
    """Whether there is no NaN and no infinity in any of them."""
    return all(bool(np.isfinite(array).all()) for array in arrays)


def rms(values: np.ndarray) -> float:
    """Root of the mean square; 0 of nothing."""
    return math.sqrt(float(np.mean(np.square(values)))) if values.size else 0.0


def spacing(values: np.ndarray) -> float:
    """One float32 unit in the last place of the largest value."""
    return float(np.spacing(np.float32(np.max(np.abs(values), initial=0))))


def whole(values: np.ndarray) -> bool:
    """Whether these look like pixels that were rounded."""
    return bool(np.max(np.abs(values), initial=0) >= _INTEGERS and np.all(values == np.round(values)))


def ratio(x: np.ndarray, y: np.ndarray) -> float:
    """The factor of least squares from x to y; 0 if there is none."""
    square = float(x @ x)
    return float(x @ y) / square if square else 0.0


def straight_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and offset of least squares from x to y; the slope of a constant is 0."""
    slope = ratio(x - x.mean(), y - y.mean())
    return slope, float(y.mean() - slope * x.mean())
