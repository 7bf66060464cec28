"""The graphs of a bundle as other libraries want them: layer by layer, with all that is constant computed."""

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np

from vqvae_gluon.artifacts.graph import Node, read_graph
from vqvae_gluon.artifacts.parameters import read_parameters
from vqvae_gluon.errors import InputError

Shape = tuple[int, ...]
STAGES = {"encoder": "data", "decoder": "codes"}  # and what each is fed
_CONVOLUTIONS = ("Convolution", "Deconvolution")


@dataclass(frozen=True)
class Layer:
    """One operator.

    Attributes:
        name: of its output.
        operator: MXNet's name of it.
        attributes: as Python values.
        inputs: name of a layer or of the graph's input, or a constant.
    """

    name: str
    operator: str
    attributes: dict[str, Any]
    inputs: tuple[Union[str, np.ndarray], ...]

    @property
    def constants(self) -> list[np.ndarray]:
        return [value for value in self.inputs if isinstance(value, np.ndarray)]


@dataclass(frozen=True)
class Layers:
    """A graph with one input and one output, that of the last layer."""

    input: str
    layers: tuple[Layer, ...]


def read_layers(bundle: Path, stage: str) -> Layers:
    """The encoder or the decoder of a bundle.

    Raises:
        InputError: a file is missing or not sound, or an operator is none of those in our bundles.
    """
    path = bundle / f"{stage}-symbol.json"
    graph = read_graph(path)
    parameters = {name[4:]: values for name, values in read_parameters(bundle / f"{stage}-0000.params").items()}
    constants: dict[str, np.ndarray] = {}
    layers: list[Layer] = []
    for node in graph.nodes:
        if node.is_variable:
            if node.name in parameters:
                constants[node.name] = parameters[node.name]
            continue
        if node.operator not in _SHAPES:
            raise InputError(path, f"has the operator {node.operator}, which the peers cannot be given")
        attributes = _attributes(node)
        inputs = tuple(constants.get(name, name) for name, _ in node.inputs)
        if all(isinstance(value, np.ndarray) for value in inputs):
            constants[node.name] = _fold(path, node.operator, attributes, inputs)
        else:
            layers.append(Layer(node.name, node.operator, attributes, inputs))
    return Layers(STAGES[stage], tuple(layers))


def count_flops(bundle: Path, image: Shape) -> int:
    """Floating-point operations that reconstructing one image takes: two for every multiplication of a convolution,
    those with padding too. Everything else is not counted.

    Args:
        image: (C, H, W).
    """
    total, shape = 0, (1, *image)
    for stage in STAGES:
        graph = read_layers(bundle, stage)
        shapes: dict[str, Shape] = {graph.input: shape}
        for layer in graph.layers:
            given = shapes[next(value for value in layer.inputs if isinstance(value, str))]
            shape = shapes[layer.name] = _SHAPES[layer.operator](layer, given)
            if layer.operator in _CONVOLUTIONS:
                pixels = shape if layer.operator == "Convolution" else given
                kernel = layer.constants[0].shape
                total += 2 * math.prod(kernel) * math.prod(pixels[2:])
    return total


def pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _attributes(node: Node) -> dict[str, Any]:
    """Numbers, tuples and names, of what stands in a symbol file as text."""
    values: dict[str, Any] = {}
    for name, text in node.attributes.items():
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = text
    return values


def _fold(path: Path, operator: str, attributes: Mapping[str, Any], inputs) -> np.ndarray:
    """What an operator makes of constants, in the codebook's arithmetic."""
    value: np.ndarray = inputs[0]
    if operator in ("_mul_scalar", "_div_scalar", "_plus_scalar"):
        number = np.float32(attributes["scalar"])
        value = {"_mul_scalar": value * number, "_div_scalar": value / number, "_plus_scalar": value + number}[operator]
    elif operator == "Reshape":
        value = value.reshape(attributes["shape"])
    elif operator == "square":
        value = np.square(value)
    elif operator == "sum":
        value = value.sum(axis=attributes["axis"])
    else:
        raise InputError(path, f"has the operator {operator} on parameters, which the peers cannot be given")
    return np.ascontiguousarray(value, np.float32)


def geometry(layer: Layer) -> tuple[Any, Any, Any]:
    """Stride, padding and dilation of a convolution."""
    given = layer.attributes
    return given.get("stride") or 1, given.get("pad") or 0, given.get("dilate") or 1


def adjustment(layer: Layer) -> tuple[int, int]:
    """What a transposed convolution adds to its output's height and width."""
    return pair(layer.attributes.get("adj") or 0)


def _convolved(layer: Layer, given: Shape) -> Shape:
    sides = []
    how = zip(pair(layer.attributes["kernel"]), *map(pair, geometry(layer)))
    for side, (kernel, stride, pad, dilate) in zip(given[2:], how):
        sides.append((side + 2 * pad - dilate * (kernel - 1) - 1) // stride + 1)
    return (given[0], layer.attributes["num_filter"], *sides)


def _deconvolved(layer: Layer, given: Shape) -> Shape:
    sides = []
    how = zip(pair(layer.attributes["kernel"]), *map(pair, geometry(layer)), adjustment(layer))
    for side, (kernel, stride, pad, dilate, adjust) in zip(given[2:], how):
        sides.append((side - 1) * stride - 2 * pad + dilate * (kernel - 1) + 1 + adjust)
    return (given[0], layer.attributes["num_filter"], *sides)


def _same(layer: Layer, given: Shape) -> Shape:
    return given


# The operators that occur in our bundles, and the shape that each gives.
_SHAPES: dict[str, Callable[[Layer, Shape], Shape]] = {
    **dict.fromkeys(("_div_scalar", "_plus_scalar", "_mul_scalar", "Activation", "elemwise_add"), _same),
    **dict.fromkeys(("square", "sum", "Reshape", "Cast", "clip"), _same),  # The first three of constants alone.
    "Convolution": _convolved,
    "Deconvolution": _deconvolved,
    "argmin": lambda layer, given: given[: layer.attributes["axis"]] + given[layer.attributes["axis"] + 1 :],
    "Embedding": lambda layer, given: (*given, layer.constants[0].shape[1]),
    "transpose": lambda layer, given: tuple(given[axis] for axis in layer.attributes["axes"]),
}
