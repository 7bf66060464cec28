"""Which parameter a node had, told from what went in and what came out.

Convolution, transposed convolution and full connection are linear in weight and bias, BatchNorm is affine in every
channel, a lookup shows the rows that it was asked for: with enough samples the parameters follow from the values. So a
deployed program can be diagnosed by its trace alone.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

import numpy as np

from vqvae_gluon.artifacts.graph import Node
from vqvae_gluon.compat import mx

_LINEAR = {"Convolution", "Deconvolution", "FullyConnected"}
_MAX_ROWS = 8192  # of a system of equations, or three times as many as unknowns; more tell no more
_MAX_UNKNOWNS = 3000  # of one output channel; its system is solved in less than a second
_CONDITION = 1e-9  # smallest eigenvalue of the normal equations, as a share of the largest, that is no zero


@dataclass(frozen=True)
class Estimate:
    """A parameter that reproduces what a node gave.

    Attributes:
        position: which input of the node it is.
        tolerance: how far the values may be from what they were; they follow from rounded numbers.
        shown: which of them some sample showed; the others are the reference's. None if all were.
    """

    position: int
    values: np.ndarray
    tolerance: float
    shown: Optional[np.ndarray] = None


def estimates(node: Node, inputs: list[np.ndarray], actual: np.ndarray, tolerance: float) -> Iterator[list[Estimate]]:
    """Parameters with which the node gives ``actual``, as far as they can be told; each list explains it by itself.

    Args:
        inputs: data first, then the parameters that it should have had.
        actual: the node's first output.
        tolerance: largest error of ``actual``.
    """
    if not np.isfinite(actual).all() or not all(np.isfinite(array).all() for array in inputs):
        return
    if node.operator in _LINEAR:
        found = _linear(node, *_telling(node, inputs, actual), tolerance)
        if found and _reproduces(node, inputs, found, actual, tolerance):
            yield found
    elif node.operator == "BatchNorm":
        yield from _batch_norm(node, inputs, actual, tolerance)
    elif node.operator == "Embedding":
        rows, table = inputs[0].astype(np.int64).ravel(), inputs[1].astype(np.float64)
        table[rows] = actual.reshape(len(rows), -1)
        shown = np.zeros(table.shape, bool)
        shown[rows] = True
        yield [Estimate(1, table, tolerance, shown)]
    elif node.operator == "_mul_scalar" and float(node.attributes["scalar"]):
        scalar = float(node.attributes["scalar"])
        yield [Estimate(0, actual.astype(np.float64) / scalar, tolerance / abs(scalar))]


def is_like_noise(node: Node, inputs: list[np.ndarray], actual: np.ndarray) -> Optional[str]:
    """Whether the outputs are what a weight of independent N(0, 1) numbers gives, where too few samples are there to
    tell the weight itself.

    For one place of the data, with values x under the kernel, the output of every channel is then a number from
    N(0, |x|^2), the same for all channels.
    """
    if node.operator not in ("Convolution", "FullyConnected") or int(node.attributes.get("num_group", "1")) > 1:
        return None
    places, unknowns = actual.size // actual.shape[1], inputs[1][0].size
    if places > unknowns or 0.8 < float(inputs[1].std()) < 1.25:
        return None  # It could have been told, or looks so in the first place.
    ones = np.ones_like(inputs[1][:1])
    energy = _call(node, [np.square(inputs[0]), ones], num_outputs=1).astype(np.float64)
    bias = inputs[2].astype(np.float64) if len(inputs) > 2 else np.zeros(actual.shape[1])
    moved = actual.astype(np.float64) - bias.reshape(1, -1, *[1] * (actual.ndim - 2))
    scaled = moved / np.sqrt(np.maximum(energy, 1e-30))
    scaled = np.moveaxis(scaled, 1, -1).reshape(-1, actual.shape[1])
    scaled = scaled[energy.ravel() > energy.max() * 1e-3]
    if scaled.size < 64 or actual.shape[1] < 8:
        return None
    # Neighbouring places share values; how many numbers there are is at least the number of channels.
    spread, far = math.sqrt(float(np.square(scaled).mean())), 4 / math.sqrt(2 * actual.shape[1])
    if abs(spread - 1) > far or abs(float(scaled.mean())) > 4 / math.sqrt(actual.shape[1]):
        return None
    expected = _call(node, inputs, int(actual.shape[1])).astype(np.float64)
    if abs(float(np.corrcoef(expected.ravel(), actual.ravel())[0, 1])) > 0.5:
        return None
    return f"like N(0, 1): a standard deviation of {spread:.3g}"


def _call(node: Node, inputs: list[np.ndarray], num_outputs: int, groups: int = 1) -> np.ndarray:
    """A linear node without its bias, or with it, as MXNet computes it."""
    known = {key: value for key, value in node.attributes.items() if not key.startswith("__")}
    known["num_hidden" if node.operator == "FullyConnected" else "num_filter"] = str(num_outputs)
    known["no_bias"] = str(len(inputs) < 3)
    if node.operator != "FullyConnected":
        known["num_group"] = str(groups)
    operator = getattr(mx.nd, node.operator)
    return operator(*(mx.nd.array(array, dtype=array.dtype) for array in inputs), **known).asnumpy()


def _telling(node: Node, inputs: list[np.ndarray], actual: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """As many samples as are needed, those that are furthest off."""
    unknowns = inputs[1].size // (actual.shape[1] if node.operator != "Deconvolution" else inputs[1].shape[1])
    wanted = math.ceil(max(_MAX_ROWS, 3 * unknowns) / max(1, actual[0].size // actual.shape[1]))
    expected = _call(node, inputs, actual.shape[1], int(node.attributes.get("num_group", "1")))
    if wanted >= len(actual) or len(inputs[0]) != len(actual) or expected.shape != actual.shape:
        return inputs, actual
    off = np.abs(actual - expected).reshape(len(actual), -1).max(axis=1)
    chosen = np.sort(np.argsort(-off, kind="stable")[:wanted])
    return [np.ascontiguousarray(inputs[0][chosen]), *inputs[1:]], actual[chosen]


def _reproduces(
    node: Node, inputs: list[np.ndarray], found: list[Estimate], actual: np.ndarray, tolerance: float
) -> bool:
    """Whether a node with these parameters gives what it gave, for all samples."""
    replaced = list(inputs)
    for estimate in found:
        old = inputs[estimate.position]
        replaced[estimate.position] = estimate.values.reshape(old.shape).astype(old.dtype)
    results = _call(node, replaced, actual.shape[1], int(node.attributes.get("num_group", "1")))
    return results.shape == actual.shape and bool(np.abs(results - actual).max() <= 8 * tolerance)


def _linear(node: Node, inputs: list[np.ndarray], actual: np.ndarray, tolerance: float) -> Optional[list[Estimate]]:
    """Weight and bias of a linear node. Only channels that are off are looked at."""
    groups = int(node.attributes.get("num_group", "1"))
    data, weight = inputs[0], inputs[1]
    channels = actual.shape[1]
    expected = _call(node, inputs, channels, groups)
    if expected.shape != actual.shape:
        return None
    difference = np.moveaxis(actual.astype(np.float64) - expected, 1, 0).reshape(channels, -1)
    off = np.abs(difference).max(axis=1) > tolerance
    if not off.any():
        return None
    new_weight = weight.astype(np.float64).copy()
    new_bias = inputs[2].astype(np.float64).copy() if len(inputs) > 2 else None
    worst = np.zeros(2)
    shown = np.ones(weight.shape)
    for group in range(groups):
        members = np.arange(channels // groups) + group * (channels // groups)
        members = members[off[members]]
        if not len(members):
            continue
        columns = _columns(node, data, weight, group, groups)
        if columns is None:
            return None
        solved = _solve(columns, difference[members], new_bias is not None, tolerance)
        if solved is None:
            return None
        change, shift, uncertainty, used = solved
        _add_to_weight(node, new_weight, members, group, groups, change)
        _add_to_weight(node, shown, members, group, groups, np.tile(used - 1.0, (len(members), 1)))
        if new_bias is not None:
            new_bias[members] += shift
        worst = np.maximum(worst, uncertainty)
    found = [Estimate(1, new_weight, float(worst[0]), None if shown.all() else shown > 0)]
    if new_bias is not None:
        found.append(Estimate(2, new_bias, float(worst[1])))
    expectations = (weight, inputs[2] if len(inputs) > 2 else None)
    return [
        each
        for each, ours in zip(found, expectations)
        if ours is not None and np.abs(each.values - ours).max() > each.tolerance
    ] or None


def _columns(node: Node, data: np.ndarray, weight: np.ndarray, group: int, groups: int) -> Optional[np.ndarray]:
    """What every element of one output channel's weight is multiplied with, (elements, places): the node itself tells,
    with a weight that has a single 1 for every output channel."""
    if node.operator == "FullyConnected":
        flat = data.reshape(len(data), -1) if node.attributes.get("flatten", "True") in ("True", "1") else data
        return flat.reshape(-1, flat.shape[-1]).T.astype(np.float64)
    if groups > 1:
        width = data.shape[1] // groups
        data = data[:, group * width : (group + 1) * width]
    kernel = weight.shape[2:]
    width = data.shape[1]
    size = width * math.prod(kernel)
    if size > _MAX_UNKNOWNS:
        return None
    unit = np.eye(size, dtype=np.float32).reshape(size, width, *kernel)
    if node.operator == "Deconvolution":
        unit = np.moveaxis(unit, 0, 1)
    found = _call(node, [data.astype(np.float32), np.ascontiguousarray(unit)], size)
    return np.moveaxis(found, 1, 0).reshape(size, -1).astype(np.float64)


def _add_to_weight(
    node: Node, weight: np.ndarray, members: np.ndarray, group: int, groups: int, change: np.ndarray
) -> None:
    if node.operator != "Deconvolution":
        weight[members] += change.reshape(len(members), *weight.shape[1:])
        return
    width = weight.shape[0] // groups
    rows = slice(group * width, (group + 1) * width)
    inner = members - group * weight.shape[1]
    blocks = change.reshape(len(members), width, *weight.shape[2:])
    weight[rows, inner] += np.moveaxis(blocks, 0, 1)


def _solve(
    columns: np.ndarray, difference: np.ndarray, with_bias: bool, tolerance: float
) -> Optional[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Changes of weights (channels, elements) and biases (channels,) that make the differences, how uncertain both are,
    and which elements some sample shows; None if the values do not determine them, or nothing linear makes them."""
    system = np.concatenate([columns, np.ones((1, columns.shape[1]))]) if with_bias else columns
    unknowns, places = system.shape
    single = _single_column(system, difference, tolerance)
    used = np.abs(system).max(axis=1) > 0
    if single is not None:
        solution, doubt = single
        uncertainty = np.full(unknowns, doubt)
    else:
        if places < unknowns:
            return None
        part = system[used]
        normal = part @ part.T
        scale = np.sqrt(np.diag(normal))
        values, vectors = np.linalg.eigh(normal / np.outer(scale, scale))
        if values[0] < _CONDITION * values[-1]:
            return None
        inverse = (vectors / values) @ vectors.T / np.outer(scale, scale)
        solution = np.zeros((len(difference), unknowns))
        solution[:, used] = difference @ part.T @ inverse
        uncertainty = np.zeros(unknowns)
        uncertainty[used] = 4 * tolerance * np.sqrt(np.diag(inverse))
        if np.abs(solution @ system - difference).max() > 4 * tolerance:
            return None
        # What no sample showed keeps its value.
    elements = len(columns)
    bias = solution[:, elements] if with_bias else np.zeros(len(difference))
    largest = np.array([uncertainty[:elements].max(), uncertainty[elements] if with_bias else 0.0])
    return solution[:, :elements], bias, largest, used[:elements]


def _single_column(system: np.ndarray, difference: np.ndarray, tolerance: float) -> Optional[tuple[np.ndarray, float]]:
    """The change of a single element, in a single channel, that makes the difference, and how uncertain it is. This
    needs few samples."""
    if len(difference) != 1:
        return None
    powers = np.square(system).sum(axis=1)
    usable = powers > 0
    amounts = np.zeros(len(system))
    amounts[usable] = (system[usable] @ difference[0]) / powers[usable]
    left = np.square(difference[0]).sum() - np.square(amounts) * powers
    left[~usable] = np.inf
    best = int(np.argmin(left))
    if np.abs(difference[0] - amounts[best] * system[best]).max() > 4 * tolerance:
        return None
    solution = np.zeros((1, len(system)))
    solution[0, best] = amounts[best]
    return solution, 4 * tolerance / math.sqrt(powers[best])


def _batch_norm(node: Node, inputs: list[np.ndarray], actual: np.ndarray, tolerance: float) -> Iterator[list[Estimate]]:
    """Every channel is ``a x + b``. One of the four parameters is solved for, and the other number must fit."""
    axis = int(node.attributes.get("axis", "1")) % actual.ndim
    data, gamma, beta, mean, variance = (array.astype(np.float64) for array in inputs[:5])
    if node.attributes.get("fix_gamma", "True") in ("True", "1"):
        gamma = np.ones_like(gamma)
    eps = float(node.attributes.get("eps", "0.001"))
    x = np.moveaxis(data, axis, 0).reshape(len(gamma), -1)
    y = np.moveaxis(actual.astype(np.float64), axis, 0).reshape(len(gamma), -1)
    middle, level = x.mean(axis=1), y.mean(axis=1)
    spread = np.square(x - middle[:, None]).sum(axis=1)
    usable = spread > 0
    slope = gamma / np.sqrt(variance + eps)
    fitted = slope.copy()
    fitted[usable] = ((x - middle[:, None]) * (y - level[:, None])).sum(axis=1)[usable] / spread[usable]
    offset = level - fitted * middle
    reach = np.maximum(np.abs(x).max(axis=1), 1e-30)
    doubt = 4 * tolerance / np.maximum(np.sqrt(spread), 1e-30) * np.sqrt(x.shape[1])  # of the slopes
    if np.abs(fitted[:, None] * x + offset[:, None] - y).max() > 4 * tolerance:
        return
    same = np.abs(fitted - slope) <= doubt
    slack = 8 * tolerance + 4 * doubt * reach  # of the offsets
    with np.errstate(all="ignore"):
        if same.all():
            yield [Estimate(2, offset + slope * mean, float(slack.max()))]
            nonzero = np.abs(slope) > doubt
            if nonzero.all():
                yield [Estimate(3, (beta - offset) / slope, float((slack / np.abs(slope)).max()))]
        if (np.abs(offset - (beta - fitted * mean)) <= slack + doubt * np.abs(mean)).all():
            scale = np.sqrt(variance + eps)
            yield [Estimate(1, fitted * scale, float((doubt * scale).max()))]
            if (fitted * gamma > 0).all():
                solved = np.square(gamma / fitted) - eps
                yield [Estimate(4, solved, float((4 * doubt / np.abs(fitted) * (np.abs(solved) + eps)).max()))]
