"""Outputs that jump: codes, argmax, topk, rounding. An honest error of what they are made of may change them.

A change is *legal* if numbers that differ from the reference's by no more than twice the honest bound would give it,
else *real*. The bound is the arbiter's, not the error that the candidate happens to have: a wrong tensor would excuse
every change that it causes.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from vqvae_gluon.artifacts.graph import Node
from vqvae_gluon.artifacts.quantize import SPLIT, nearest_bfloat16, rounds_to_bfloat16

_EXTREMES = {"argmin", "argmax", "argmax_channel", "_npi_argmin", "_npi_argmax"}
_ORDERS = {"topk", "argsort"}
_COMPARISONS = {"equal", "not_equal", "greater", "greater_equal", "lesser", "lesser_equal"}
_STEPS = {"round", "rint", "fix", "floor", "ceil", "trunc", "sign", "_mod_scalar", "broadcast_mod"}
_STEPS |= {f"{form}{name}" for form in ("_", "broadcast_") for name in _COMPARISONS}
_STEPS |= {f"_{name}_scalar" for name in _COMPARISONS}
_WHOLE = {"int8", "uint8", "int32", "int64", "bool"}
# Operators that hand on what they take, value by value, in the same order.
_PASSING = {"Cast", "cast", "_copy", "identity", "BlockGrad", "stop_gradient", "Reshape", "reshape", "Flatten"}
_PASSING |= {"expand_dims", "squeeze"}
_MARGINS_KEPT = 4096


@dataclass(frozen=True)
class Flip:
    """One value that jumped.

    Attributes:
        index: in the tensor of its batch.
        margin: how far the reference's numbers are from giving the candidate's value; None where that has no measure.
    """

    index: tuple[int, ...]
    reference: float
    candidate: float
    margin: Optional[float]
    legal: bool


@dataclass(frozen=True)
class Flips:
    """Every value that jumped at one node.

    Attributes:
        compared: how many values there are.
        bound: the margin up to which a flip is legal.
        flips: the first of them, real ones before legal ones.
    """

    compared: int
    legal: int
    real: int
    bound: float
    flips: tuple[Flip, ...]

    def merge(self, other: "Optional[Flips]") -> "Flips":
        """The same node over two batches."""
        if other is None:
            return self
        flips = tuple(sorted(self.flips + other.flips, key=lambda flip: flip.legal)[:_MARGINS_KEPT])
        return Flips(
            self.compared + other.compared,
            self.legal + other.legal,
            self.real + other.real,
            max(self.bound, other.bound),
            flips,
        )


def is_discrete(node: Node, index: int = 0) -> bool:
    """Whether a small error of what a node takes can make one of its outputs jump."""
    if node.attributes.get("ret_typ") == "both" and index == 0:
        return False  # topk's values move no further than what it takes.
    return _kind(node) != ""


def passes_on(node: Node) -> bool:
    """Whether a node hands on the values of its only input."""
    return node.operator in _PASSING


def adjudicate(
    node: Node,
    inputs: Sequence[np.ndarray],
    reference: np.ndarray,
    candidate: np.ndarray,
    bound: float,
    evaluate: Callable[[list[np.ndarray]], np.ndarray],
) -> Flips:
    """Tell legal flips from real ones.

    Args:
        node: whose output it is.
        inputs: what the reference fed it.
        reference: its output in the reference.
        candidate: its output in the candidate, of the same shape.
        bound: honest error of the inputs; 0 where bit equality is expected.
        evaluate: the node itself, from other inputs.
    """
    limit = 2 * bound
    places = np.argwhere(~((reference == candidate) | ((reference != reference) & (candidate != candidate))))
    if _kind(node) == "index":
        margins = _index_margins(node, inputs[0], reference, candidate, places)
        legal = margins <= limit
    elif _kind(node) == "step":
        margins = np.full(len(places), np.nan)
        legal = _within_envelope(inputs, candidate, places, limit, evaluate)
    elif _kind(node) == "bfloat16":
        # It takes the number that is rounded times a constant, and so does the limit.
        margins, number = np.full(len(places), np.nan), inputs[0].astype(np.float64) / SPLIT
        legal = _within_envelope([number], candidate, places, limit / SPLIT, lambda moved: nearest_bfloat16(moved[0]))
    else:
        margins, legal = np.full(len(places), np.nan), np.zeros(len(places), bool)
    order = np.argsort(legal, kind="stable")[:_MARGINS_KEPT]
    flips = tuple(
        Flip(
            tuple(int(i) for i in places[k]),
            float(reference[tuple(places[k])]),
            float(candidate[tuple(places[k])]),
            None if np.isnan(margins[k]) else float(margins[k]),
            bool(legal[k]),
        )
        for k in order
    )
    return Flips(reference.size, int(legal.sum()), int((~legal).sum()), limit, flips)


def _kind(node: Node) -> str:
    attributes = node.attributes
    if node.operator in _EXTREMES:
        return "index"
    if node.operator in _ORDERS:
        # topk's values move no further than what it takes; only its indices and its mask jump.
        return {"value": "", "mask": "other"}.get(attributes.get("ret_typ", "indices"), "index")
    if node.operator in _STEPS:
        return "step"
    if node.operator in ("Cast", "cast") and attributes.get("dtype") in _WHOLE:
        return "step"
    if rounds_to_bfloat16(node):
        return "bfloat16"
    return "other" if "quantize" in node.operator or node.operator == "_contrib_box_nms" else ""


def _index_margins(
    node: Node, values: np.ndarray, reference: np.ndarray, candidate: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """How far apart, in the reference's numbers, the element that the candidate chose is from the reference's."""
    text = node.attributes.get("axis", "1" if node.operator == "argmax_channel" else "-1")
    if node.operator not in _ORDERS and "axis" not in node.attributes and node.operator != "argmax_channel":
        text = "None"
    if text == "None":  # Over all elements at once.
        rows, positions = values.reshape(1, -1), np.zeros(len(places), int)
    else:
        axis = int(text) % values.ndim
        rows = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
        positions = _rows_of(places, reference.shape, values.shape, axis)
    ours, theirs = (side[tuple(places.T)].astype(np.int64) for side in (reference, candidate))
    whole = candidate[tuple(places.T)] == theirs
    outside = (theirs < 0) | (theirs >= rows.shape[1]) | ~whole
    theirs = np.where(outside, 0, theirs)
    margins = np.abs(rows[positions, ours].astype(np.float64) - rows[positions, theirs])
    margins[outside | np.isnan(margins)] = np.inf
    return margins


def _rows_of(places: np.ndarray, shape: tuple[int, ...], values: tuple[int, ...], axis: int) -> np.ndarray:
    """For each element of an output, the number of the row along the axis that it was chosen from."""
    others = [extent for i, extent in enumerate(values) if i != axis]
    if len(shape) == len(values):  # keepdims, and topk: the axis is still there.
        places = np.delete(places, axis, axis=1)
    if not others or places.shape[1] == 0 or len(others) != places.shape[1]:
        return np.zeros(len(places), int)
    return np.ravel_multi_index(tuple(places.T), others)


def _within_envelope(
    inputs: Sequence[np.ndarray],
    candidate: np.ndarray,
    places: np.ndarray,
    limit: float,
    evaluate: Callable[[list[np.ndarray]], np.ndarray],
) -> np.ndarray:
    """Whether the candidate's values lie between what the node gives when its inputs move by at most the limit."""
    results = []
    for signs in itertools.product((-1.0, 0.0, 1.0), repeat=len(inputs)):
        # In float64: in float32 a small limit could vanish in the sum.
        moved = [
            values.astype(np.float64) + sign * limit if values.dtype.kind == "f" else values
            for sign, values in zip(signs, inputs)
        ]
        results.append(evaluate(moved)[tuple(places.T)].astype(np.float64))
    chosen = candidate[tuple(places.T)].astype(np.float64)
    return (np.min(results, axis=0) <= chosen) & (chosen <= np.max(results, axis=0))
