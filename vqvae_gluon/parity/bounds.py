"""How much error is honest: measured against the float64 arbiter, not chosen (docs/parity.md, "Bounds")."""

import math
from dataclasses import dataclass
from typing import Optional

import numpy as np

from vqvae_gluon.parity.metrics import largest_error

# An honest implementation may be this many times further from the truth than the yardstick. Measured: docs/parity.md,
# "Bounds".
FACTOR = 8.0


@dataclass(frozen=True)
class Errors:
    """Both sides' largest absolute error against the arbiter, and what is honest.

    Attributes:
        bound: :data:`FACTOR` times the yardstick's error, or times one unit in the last place of the largest value,
            whichever is more. The yardstick is the graph in float32, operator by operator, as nobody has rewritten it.
    """

    reference: float
    candidate: float
    bound: float

    @property
    def honest(self) -> bool:
        larger = max(self.reference, self.candidate)
        return math.isfinite(larger) and larger <= self.bound

    @property
    def excess(self) -> float:
        """The larger error as a multiple of the bound; at most 1 is honest."""
        larger = max(self.reference, self.candidate)
        return larger / self.bound if self.bound > 0 and math.isfinite(larger) else (math.inf if larger > 0 else 0.0)

    @property
    def off(self) -> Optional[str]:
        """The side that is further from the truth than is honest; None if neither is."""
        if self.honest:
            return None
        return "candidate" if self.candidate > self.reference else "reference"

    def merge(self, other: "Optional[Errors]") -> "Errors":
        """Of two batches, the one that is further off."""
        return self if other is None or self.excess >= other.excess else other


def errors(reference: np.ndarray, candidate: np.ndarray, truth: np.ndarray, yardstick: np.ndarray) -> Errors:
    """Measure both sides against the arbiter's values. All four are of one shape."""
    finite = np.isfinite(truth) & np.isfinite(yardstick)
    if not finite.all():
        # What is honest cannot be measured there; both sides must give what the yardstick gives.
        strange = [
            not np.array_equal(side[~finite], yardstick[~finite], equal_nan=True) for side in (reference, candidate)
        ]
        measured = errors(*(side[finite] for side in (reference, candidate, truth, yardstick)))
        off = [math.inf if odd else error for odd, error in zip(strange, (measured.reference, measured.candidate))]
        return Errors(off[0], off[1], measured.bound)
    ours, theirs = largest_error(reference, truth), largest_error(candidate, truth)
    honest = ours if yardstick is reference else largest_error(yardstick, truth)
    return Errors(ours, theirs, FACTOR * max(honest, _unit(yardstick, truth)))


def _unit(values: np.ndarray, truth: np.ndarray) -> float:
    """One unit in the last place of the largest value, in the narrower of float32 and the values' own type."""
    if values.dtype.kind != "f" or not truth.size:
        return 0.0
    largest = float(np.nan_to_num(np.abs(truth), nan=0.0, posinf=0.0).max())
    kind = np.float32 if values.dtype.itemsize > 4 else values.dtype.type
    limit = min(largest, float(np.finfo(kind).max))
    return float(np.spacing(kind(limit)))
