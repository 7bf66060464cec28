"""Two recorded tensors, or two traces, compared: names first, then types, then shapes, then every value."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

import numpy as np

from vqvae_gluon.artifacts.trace import Key, TraceNode


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
class NodeComparison:
    """How one node differs between two runs, over all elements of all batches.

    Attributes:
        elements: how many values were compared.
        differing: how many of them are not equal bit for bit.
        max_abs: largest absolute difference; infinite where one side is NaN or infinite and the other is not the same.
        sum_abs: sum of the absolute differences.
        max_rel: largest ``|a - b| / max(|a|, |b|)``, between 0 and 2.
        nonfinite: how many values of either side are NaN or infinite.
        worst: where ``max_abs`` is; None if nothing differs.
        problem: why the values could not be compared; None if they were.
    """

    stage: str
    name: str
    operator: str
    shape: tuple[int, ...]
    elements: int = 0
    differing: int = 0
    max_abs: float = 0.0
    sum_abs: float = 0.0
    max_rel: float = 0.0
    nonfinite: int = 0
    worst: Optional[Worst] = None
    problem: Optional[str] = None

    @property
    def key(self) -> Key:
        return self.stage, self.name

    @property
    def mean_abs(self) -> float:
        return self.sum_abs / self.elements if self.elements else 0.0

    @property
    def equal(self) -> bool:
        """Whether every value was compared, is finite, and is equal bit for bit."""
        return self.problem is None and self.elements > 0 and self.differing == 0 and self.nonfinite == 0

    def merge(self, other: "NodeComparison") -> "NodeComparison":
        """The same node over the batches of both."""
        worse = self if self.max_abs >= other.max_abs else other
        return NodeComparison(
            self.stage,
            self.name,
            self.operator,
            self.shape,
            self.elements + other.elements,
            self.differing + other.differing,
            worse.max_abs,
            self.sum_abs + other.sum_abs,
            max(self.max_rel, other.max_rel),
            self.nonfinite + other.nonfinite,
            worse.worst or self.worst or other.worst,
            self.problem or other.problem,
        )


def compare_nodes(reference: TraceNode, candidate: Optional[TraceNode]) -> NodeComparison:
    """Compare one node of two traces."""

    def result(**values) -> NodeComparison:
        return NodeComparison(reference.stage, reference.name, reference.operator, reference.shape, **values)

    if candidate is None:
        return result(problem="the candidate does not have it")
    if reference.operator != candidate.operator:
        return result(problem=f"the operator is {reference.operator} against {candidate.operator}")
    if reference.dtype != candidate.dtype:
        return result(problem=f"the type is {reference.dtype} against {candidate.dtype}")
    if reference.shape != candidate.shape:
        return result(problem=f"the shape is {reference.shape} against {candidate.shape}")
    # Both are loaded even if their digests are the same: loading proves the digests.
    expected, actual = reference.load(), candidate.load()
    if reference.sha256 == candidate.sha256:
        return result(elements=expected.size, nonfinite=_nonfinite(expected))
    return result(**_differences(expected, actual))


def compare_stages(
    reference: Iterable[TraceNode], candidate: dict[Key, TraceNode], stages: tuple[str, ...]
) -> list[NodeComparison]:
    """Compare stages of two traces, in the reference's order. Nodes are matched by stage and name, never by position.

    A node that only the candidate has comes last, with a problem.
    """
    wanted = [node for node in reference if node.stage in stages]
    comparisons = [compare_nodes(node, candidate.get(node.key)) for node in wanted]
    known = {node.key for node in wanted}
    for key, node in candidate.items():
        if node.stage in stages and key not in known:
            extra = NodeComparison(*key, node.operator, node.shape, problem="the reference does not have it")
            comparisons.append(extra)
    return comparisons


def _differences(expected: np.ndarray, actual: np.ndarray) -> dict:
    expected, actual = np.ascontiguousarray(expected), np.ascontiguousarray(actual)
    unequal = _bits(expected) != _bits(actual)
    a, b = expected.astype(np.float64), actual.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        difference = np.abs(a - b)
        relative = difference / np.maximum(np.abs(a), np.abs(b))
    # NaN against a number, infinity against a number: as far off as can be. Equal bits and 0 against 0: not at all.
    difference = np.where(unequal, np.nan_to_num(difference, nan=np.inf, posinf=np.inf), 0.0)
    relative = np.where(difference > 0, np.nan_to_num(relative, nan=2.0, posinf=2.0), 0.0)
    # Where only bits differ, 0.0 against -0.0, the place is still told.
    place = np.unravel_index(int(np.argmax(np.where(unequal, difference, -1.0))), expected.shape)
    worst = Worst(tuple(int(i) for i in place), float(a[place]), float(b[place])) if unequal.any() else None
    return {
        "elements": expected.size,
        "differing": int(unequal.sum()),
        "max_abs": float(difference.max()),
        "sum_abs": float(difference.sum()),
        "max_rel": float(relative.max()),
        "nonfinite": _nonfinite(expected) + _nonfinite(actual),
        "worst": worst,
    }


def _bits(values: np.ndarray) -> np.ndarray:
    return values.view(f"u{values.dtype.itemsize}")


def _nonfinite(values: np.ndarray) -> int:
    if values.dtype.kind != "f":
        return 0
    return int(values.size - np.isfinite(values).sum())
