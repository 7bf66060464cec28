"""Graphs in int8 and bfloat16, made of float32 ones (docs/architecture.md, "Precisions").

All operators are MXNet's portable ones, in the manner of ONNX's QuantizeLinear and DequantizeLinear: what is stored is
small, what is computed is float32 arithmetic on numbers that int8, or bfloat16, can hold. So every runtime runs such a
graph; one that knows the patterns can run it in integers. MXNet's own int8 operators are not used: they begin with the
fusion that is wrong (:mod:`vqvae_gluon.artifacts.fusion`).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vqvae_gluon.artifacts.graph import Graph, Node, Output

FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
PRECISIONS = (FLOAT32, BFLOAT16, INT8)
UNSIGNED, SIGNED = (0, 255), (-127, 127)

_OPERATORS = ("Convolution", "Deconvolution")
_INT8_FLAG = "5"  # mshadow's number of the type.
# Operators that give nothing below 0, and those that do so if what they take does not.
_NONNEGATIVE = {"relu", "sigmoid", "square", "abs", "softmax"}
_NONNEGATIVE_ACTIVATIONS = {"relu", "sigmoid", "softrelu"}
_KEEPING = {"Pooling", "BlockGrad", "_copy", "identity", "Reshape", "transpose", "Dropout", "Flatten", "Concat"}
# c = x (2^16 + 1), then c - (c - x): x rounded to the 8 significant bits of bfloat16, ties to even, exactly (Veltkamp
# 1968; Boldo 2006). MXNet's Cast to bfloat16 cuts off instead, and amp_cast is taken out when a symbol is saved.
SPLIT, _WIDE_SPLIT = 2**16 + 1, 2**45 + 1  # of float32, of float64
# A note on the last node of a rounding, which MXNet ignores.
_ROUNDING = "__rounding__"


@dataclass(frozen=True)
class Quantized:
    """One layer in int8.

    Attributes:
        input_scale: one step of the input.
        limits: lowest and highest number of steps of the input.
        weights: int8, of the shape of the layer's weights.
        weight_scales: one step of the weights of each output channel, float32 (C,).
        bias: float32 (C,).
    """

    input_scale: float
    limits: tuple[int, int]
    weights: np.ndarray
    weight_scales: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Criteria:
    """What a network of lower precision may lose against the float32 one; one of the two is enough
    (:meth:`met`).

    Attributes:
        equal_codes: the least share of equal codes.
        psnr_lost: the most that is lost of the reconstructions' PSNR, dB.
    """

    equal_codes: float = 0.97
    psnr_lost: float = 0.1

    def met(self, equal_codes: float, psnr_lost: float, decoder_psnr_lost: float) -> bool:
        """Whether they are met. NaN meets none. Equal codes say nothing of the decoder: they count if it loses little
        on codes that are equal."""
        enough = equal_codes >= self.equal_codes and decoder_psnr_lost <= self.psnr_lost
        return enough or psnr_lost <= self.psnr_lost

    def part(self, share: float) -> "Criteria":
        """Those of one layer that may use up a share of what the network may lose."""
        return Criteria(1 - share * (1 - self.equal_codes), share * self.psnr_lost)


def quantizable(graph: Graph, parameters: Mapping[str, np.ndarray]) -> dict[str, Node]:
    """The layers of a graph that can be quantized, by name, in graph order: convolutions over two axes, plain and
    transposed, whose weights are parameters that nothing else takes. The distances to a codebook are none: their
    weights are computed.

    Args:
        parameters: by full name, ``arg:...``.
    """
    source = graph.by_name()

    def stored(output: Output, dimensions: int) -> bool:
        name = output[0]
        values = parameters.get(f"arg:{name}")
        alone = source[name].is_variable and graph.consumers(name) == [node.name]
        return alone and values is not None and values.ndim == dimensions and values.dtype == np.float32

    found = {}
    for node in graph.operators():
        if node.operator not in _OPERATORS or node.attributes.get("layout", "NCHW") not in ("NCHW", "None"):
            continue
        grouped = node.operator == "Deconvolution" and node.attributes.get("num_group", "1") != "1"
        if not grouped and stored(node.inputs[1], 4) and all(stored(bias, 1) for bias in node.inputs[2:]):
            found[node.name] = node
    return found


def output_axis(node: Node) -> int:
    """The axis of a layer's weights that counts its output channels."""
    return 1 if node.operator == "Deconvolution" else 0


def limits(graph: Graph, output: Output) -> tuple[int, int]:
    """Lowest and highest number of steps of a tensor: 0..255 where nothing in it is below 0, else -127..127."""
    return UNSIGNED if _nonnegative(graph.by_name(), output) else SIGNED


def _nonnegative(source: Mapping[str, Node], output: Output) -> bool:
    node = source[output[0]]
    if node.operator in _NONNEGATIVE:
        return True
    if node.operator == "Activation":
        return node.attributes.get("act_type") in _NONNEGATIVE_ACTIVATIONS
    if node.operator == "clip":
        return float(node.attributes["a_min"]) >= 0
    taken = node.inputs if node.operator in _KEEPING else ()
    return bool(taken) and all(_nonnegative(source, before) for before in taken)


def in_int8(
    graph: Graph, parameters: Mapping[str, np.ndarray], layers: Mapping[str, Quantized]
) -> tuple[Graph, dict[str, np.ndarray]]:
    """The same graph with some layers in int8.

    For a layer N with input x, weights W and bias b::

        N_steps   = x * (1 / input_scale)
        N_rounded = rint(N_steps)                    MXNet's: a half goes down
        N_input   = clip(N_rounded, lowest, highest)
        N_weights = Cast(W, float32)                 W stored as int8
        N_sums    = Convolution(N_input, N_weights)  or Deconvolution; without a bias
        N_scaled  = N_sums * N_scale                 input_scale * weight_scales, (1, C, 1, 1)
        N         = N_scaled + b                     (1, C, 1, 1)

    Args:
        parameters: by full name.
        layers: by name; of :func:`quantizable`.

    Returns:
        The graph, and its parameters. A layer without a bias gets one, called ``N_offset``.
    """
    values = dict(parameters)
    replaced: dict[str, list[Node]] = {}
    changed: dict[str, Node] = {}
    source = graph.by_name()
    for node in graph.operators():
        if node.name not in layers:
            continue
        layer, name = layers[node.name], node.name
        channels = (1, len(layer.bias), 1, 1)
        weights = source[node.inputs[1][0]]
        bias = source[node.inputs[2][0]] if len(node.inputs) > 2 else Node(f"{name}_offset", "null", {}, ())
        scale = Node(f"{name}_scale", "null", {"__dtype__": "0", "__shape__": str(channels)}, ())
        changed[weights.name] = _typed(weights, __dtype__=_INT8_FLAG)
        changed[bias.name] = _typed(bias, __dtype__="0", __shape__=str(channels))
        values[f"arg:{weights.name}"] = layer.weights
        values[f"arg:{bias.name}"] = layer.bias.reshape(channels).astype(np.float32)
        values[f"arg:{scale.name}"] = (layer.input_scale * layer.weight_scales).reshape(channels).astype(np.float32)
        low, high = layer.limits
        inverse = repr(float(np.float32(1 / layer.input_scale)))
        replaced[name] = [
            Node(f"{name}_steps", "_mul_scalar", {"scalar": inverse}, (node.inputs[0],)),
            Node(f"{name}_rounded", "rint", {}, ((f"{name}_steps", 0),)),
            Node(
                f"{name}_input",
                "clip",
                {"a_min": str(float(low)), "a_max": str(float(high))},
                ((f"{name}_rounded", 0),),
            ),
            Node(f"{name}_weights", "Cast", {"dtype": "float32"}, ((weights.name, 0),)),
            Node(
                f"{name}_sums",
                node.operator,
                {**node.attributes, "no_bias": "True"},
                ((f"{name}_input", 0), (f"{name}_weights", 0)),
            ),
            scale,
            Node(f"{name}_scaled", "broadcast_mul", {}, ((f"{name}_sums", 0), (scale.name, 0))),
            *([changed[bias.name]] if bias.name not in source else []),
            Node(name, "broadcast_add", {}, ((f"{name}_scaled", 0), (bias.name, 0))),
        ]
    return _rebuilt(graph, replaced, changed), values


def in_bfloat16(
    graph: Graph, parameters: Mapping[str, np.ndarray], layers: Mapping[str, Node]
) -> tuple[Graph, dict[str, np.ndarray]]:
    """The same graph with some layers in bfloat16: a layer N takes its input and its weights rounded to bfloat16, and
    sums in float32::

        N_spread = x * 65537
        N_rest   = N_spread - x
        N_half   = N_spread - N_rest     x rounded to bfloat16, half to even, for |x| below 2^111
        N        = Convolution(N_half, W, b)

    W is stored as float32 numbers that bfloat16 holds exactly. See :func:`in_int8`.
    """
    values = dict(parameters)
    replaced: dict[str, list[Node]] = {}
    for name, node in layers.items():
        weights = f"arg:{node.inputs[1][0]}"
        values[weights] = round_to_bfloat16(parameters[weights])
        spread = Node(f"{name}_spread", "_mul_scalar", {"scalar": str(SPLIT)}, (node.inputs[0],))
        rest = Node(f"{name}_rest", "elemwise_sub", {}, ((spread.name, 0), node.inputs[0]))
        half = Node(f"{name}_half", "elemwise_sub", {_ROUNDING: BFLOAT16}, ((spread.name, 0), (rest.name, 0)))
        replaced[name] = [spread, rest, half, dataclasses.replace(node, inputs=((half.name, 0), *node.inputs[1:]))]
    return _rebuilt(graph, replaced, {}), values


def widened_rounding(node: Node) -> list[Node]:
    """The last node of a rounding to bfloat16 for float64 arithmetic, where it would not round: by the same three steps
    with a constant for float64. The last of them has its name. Others are as they are."""
    if not rounds_to_bfloat16(node):
        return [node]
    exact, spread, rest = (f"{node.name}:{step}" for step in ("exact", "spread", "rest"))
    return [
        Node(exact, "elemwise_sub", {}, node.inputs),
        Node(spread, "_mul_scalar", {"scalar": str(_WIDE_SPLIT)}, ((exact, 0),)),
        Node(rest, "elemwise_sub", {}, ((spread, 0), (exact, 0))),
        Node(node.name, "elemwise_sub", {}, ((spread, 0), (rest, 0))),
    ]


def rounds_to_bfloat16(node: Node) -> bool:
    """Whether this is the last node of a rounding, whose output jumps."""
    return node.attributes.get(_ROUNDING) == BFLOAT16 and node.operator == "elemwise_sub"


def nearest_bfloat16(values: np.ndarray) -> np.ndarray:
    """float64 to the nearest numbers of 8 significant bits, ties to even, as float64."""
    spread = values * float(_WIDE_SPLIT)
    return spread - (spread - values)


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 to the nearest numbers that bfloat16 holds, ties to even, as float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32).reshape(values.shape)


def _typed(variable: Node, **attributes: str) -> Node:
    """A variable of another type or shape. What it was initialized by is dropped: it may not fit."""
    kept = {key: value for key, value in variable.attributes.items() if key != "__init__"}
    return dataclasses.replace(variable, attributes={**kept, **attributes})


def _rebuilt(graph: Graph, replaced: Mapping[str, list[Node]], changed: Mapping[str, Node]) -> Graph:
    """A graph in which some operators are other nodes, the last of which has its name, and some variables changed."""
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes += replaced.get(node.name, [changed.get(node.name, node)])
    names = [node.name for node in nodes]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has a node called {twice}, which a quantized layer would be called, too")
    return dataclasses.replace(graph, nodes=tuple(nodes))
