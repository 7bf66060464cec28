"""Two recorded tensors compared, over all of their elements: names first, then types, then shapes, then every value."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional

import numpy as np

from vqvae_gluon.artifacts.trace import Key, TraceNode, nonfinite

QUANTILES = (0.5, 0.9, 0.99, 0.999)
_CHUNK = 1 << 20  # elements that are looked at together; it bounds the memory, not the result
_HEAT = 96  # longest side of a heat map


@dataclass(frozen=True)
class Worst:
    """The element that is furthest off.

    Attributes:
        index: in the tensor of its batch.
    """

    index: tuple[int, ...]
    reference: float
    candidate: float


@dataclass(frozen=True)
class Metrics:
    """How far two tensors are apart. Sums are over the batches that differ; the others are equal bit for bit.

    Attributes:
        differing: how many values are not equal bit for bit.
        max_abs: largest absolute difference; infinite where one side is NaN or infinite and the other is not the same.
        sum_abs: sum of the absolute differences.
        max_rel: largest ``|a - b| / max(|a|, |b|)``, between 0 and 2.
        max_ulp: largest distance in units in the last place, that is in numbers of this type that lie between.
        quantiles: of the absolute difference, at :data:`QUANTILES`; over several batches those of the worst.
        powers: sums of ``a a``, ``b b``, ``a b`` and ``(a - b)^2``.
        worst: where ``max_abs`` is.
        heat: absolute difference over the last two axes, averaged over the others and thinned out; for pictures.
    """

    differing: int
    max_abs: float
    sum_abs: float
    max_rel: float
    max_ulp: float
    quantiles: tuple[float, ...]
    powers: tuple[float, float, float, float]
    worst: Worst
    heat: np.ndarray = field(compare=False)

    @property
    def snr_db(self) -> float:
        """Power of the reference over power of the difference, in decibels."""
        signal, _, _, noise = self.powers
        return 10 * math.log10(signal / noise) if signal > 0 and 0 < noise < math.inf else math.nan

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two, as vectors."""
        ours, theirs, product, _ = self.powers
        return product / math.sqrt(ours * theirs) if 0 < ours * theirs < math.inf else math.nan

    def merge(self, other: "Metrics") -> "Metrics":
        """Both batches together."""
        worse = self if self.max_abs >= other.max_abs else other
        return Metrics(
            self.differing + other.differing,
            worse.max_abs,
            self.sum_abs + other.sum_abs,
            max(self.max_rel, other.max_rel),
            max(self.max_ulp, other.max_ulp),
            tuple(map(max, self.quantiles, other.quantiles)),
            tuple(a + b for a, b in zip(self.powers, other.powers)),  # type: ignore[arg-type]
            worse.worst,
            worse.heat,
        )


@dataclass(frozen=True)
class NodeComparison:
    """How one node differs between two runs, over all elements of all batches.

    Attributes:
        elements: how many values were compared.
        nonfinite: how many values of either side are NaN or infinite.
        metrics: how far they are apart; None if they are equal bit for bit.
        problem: why the values could not be compared; None if they were.
    """

    stage: str
    name: str
    operator: str
    shape: tuple[int, ...]
    dtype: str = ""
    elements: int = 0
    nonfinite: int = 0
    metrics: Optional[Metrics] = None
    problem: Optional[str] = None

    @property
    def key(self) -> Key:
        return self.stage, self.name

    @property
    def differing(self) -> int:
        return self.metrics.differing if self.metrics else 0

    @property
    def max_abs(self) -> float:
        return self.metrics.max_abs if self.metrics else 0.0

    @property
    def mean_abs(self) -> float:
        return self.metrics.sum_abs / self.elements if self.metrics else 0.0

    @property
    def max_rel(self) -> float:
        return self.metrics.max_rel if self.metrics else 0.0

    @property
    def equal(self) -> bool:
        """Whether every value was compared, is finite, and is equal bit for bit."""
        return self.problem is None and self.elements > 0 and self.metrics is None and self.nonfinite == 0

    def merge(self, other: "NodeComparison") -> "NodeComparison":
        """The same node over the batches of both."""
        both = self.metrics.merge(other.metrics) if self.metrics and other.metrics else self.metrics or other.metrics
        return NodeComparison(
            self.stage,
            self.name,
            self.operator,
            self.shape,
            self.dtype,
            self.elements + other.elements,
            self.nonfinite + other.nonfinite,
            both,
            self.problem or other.problem,
        )


def compare_nodes(reference: TraceNode, candidate: Optional[TraceNode], widened: bool = False) -> NodeComparison:
    """Compare one node of two traces.

    Args:
        widened: one side computes in float64, so that its types may differ.
    """

    def result(**values) -> NodeComparison:
        fields = (reference.stage, reference.name, reference.operator, reference.shape, reference.dtype)
        return NodeComparison(*fields, **values)

    if candidate is None:
        return result(problem="the candidate does not have it")
    if reference.operator != candidate.operator:
        return result(problem=f"the operator is {reference.operator} against {candidate.operator}")
    if reference.dtype != candidate.dtype and not widened:
        return result(problem=f"the type is {reference.dtype} against {candidate.dtype}")
    if reference.shape != candidate.shape:
        return result(problem=f"the shape is {reference.shape} against {candidate.shape}")
    elements = math.prod(reference.shape)
    found = reference.nonfinite + candidate.nonfinite
    # Values that are there are loaded even if the digests are the same: loading proves the digests.
    values = [node.load() for node in (reference, candidate) if node.path is not None]
    if reference.sha256 == candidate.sha256:
        return result(elements=elements, nonfinite=max(found, *map(nonfinite, values), 0))
    if len(values) < 2:
        return result(problem="the values of one side were not kept")
    return result(elements=elements, nonfinite=nonfinite(values[0]) + nonfinite(values[1]), metrics=measure(*values))


def measure(reference: np.ndarray, candidate: np.ndarray) -> Optional[Metrics]:
    """How far two arrays of one shape are apart; None if they are equal bit for bit."""
    same_type = reference.dtype == candidate.dtype
    distances: np.ndarray = np.empty(reference.size, np.float64 if reference.dtype.itemsize > 4 else np.float32)
    differing, sum_abs, max_rel, max_ulp = 0, 0.0, 0.0, 0.0
    powers = np.zeros(4)
    for start, a, b in _chunks(reference, candidate):
        unequal = _bits(a) != _bits(b) if same_type else a != b
        x, y = a.astype(np.float64), b.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            difference = np.abs(x - y)
            relative = difference / np.maximum(np.abs(x), np.abs(y))
            powers += [np.dot(x, x), np.dot(y, y), np.dot(x, y), np.dot(difference, difference)]
        # NaN against a number, infinity against a number: as far off as can be. Equal bits, 0 against 0: not at all.
        difference = np.where(unequal, np.nan_to_num(difference, nan=np.inf, posinf=np.inf), 0.0)
        relative = np.where(difference > 0, np.nan_to_num(relative, nan=2.0, posinf=2.0), 0.0)
        differing += int(unequal.sum())
        sum_abs += float(difference.sum())
        max_rel = max(max_rel, float(relative.max()))
        max_ulp = max(max_ulp, _ulps(a, b) if same_type and unequal.any() else 0.0)
        # Where only bits differ, 0.0 against -0.0, the place is still told.
        with np.errstate(over="ignore"):
            distances[start : start + a.size] = np.where(unequal, difference, -1.0)
    if not differing:
        return None
    place = np.unravel_index(int(np.argmax(distances)), reference.shape)
    worst = Worst(tuple(int(i) for i in place), float(reference[place]), float(candidate[place]))
    np.maximum(distances, 0.0, out=distances)
    max_abs = abs(worst.reference - worst.candidate)
    heat = _heat(distances.reshape(reference.shape))
    return Metrics(
        differing,
        max_abs if math.isfinite(max_abs) else math.inf,
        sum_abs,
        max_rel,
        max_ulp,
        tuple(float(value) for value in np.quantile(distances, QUANTILES, method="higher")),
        (float(powers[0]), float(powers[1]), float(powers[2]), float(powers[3])),
        worst,
        heat,
    )


def largest_error(values: np.ndarray, truth: np.ndarray) -> float:
    """Largest absolute difference; infinite if either side is not finite."""
    result = 0.0
    for _, a, b in _chunks(values, truth):
        with np.errstate(invalid="ignore", over="ignore"):
            result = max(result, float(np.nan_to_num(np.abs(a.astype(np.float64) - b), nan=np.inf).max()))
    return result


def _chunks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    a, b = np.ascontiguousarray(a).reshape(-1), np.ascontiguousarray(b).reshape(-1)
    for start in range(0, a.size, _CHUNK):
        yield start, a[start : start + _CHUNK], b[start : start + _CHUNK]


def _bits(values: np.ndarray) -> np.ndarray:
    return values.view(f"u{values.dtype.itemsize}")


def _ulps(a: np.ndarray, b: np.ndarray) -> float:
    """Largest number of steps between neighbouring numbers of the type. NaN is infinitely far from everything else."""
    if a.dtype.kind != "f":
        return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
    integer = np.dtype(f"i{a.dtype.itemsize}")
    lowest = np.iinfo(integer).min

    def ordered(values: np.ndarray) -> np.ndarray:
        bits = values.view(integer)
        return np.where(bits < 0, lowest - bits, bits).astype(np.float64)

    strange = np.isnan(a) != np.isnan(b)
    return math.inf if strange.any() else float(np.abs(ordered(a) - ordered(b)).max())


def _heat(distances: np.ndarray) -> np.ndarray:
    """A picture of a tensor's differences: (N, C, H, W) over H and W, (N, F) as it is, the rest as one line."""
    plane = distances.reshape(-1, *distances.shape[-2:]) if distances.ndim >= 2 else distances.reshape(1, 1, -1)
    picture = plane.mean(axis=0, dtype=np.float64)
    for axis in (0, 1):
        step = -(-picture.shape[axis] // _HEAT)
        starts = np.arange(0, picture.shape[axis], step)
        picture = np.maximum.reduceat(picture, starts, axis=axis)
    return picture.astype(np.float32)
