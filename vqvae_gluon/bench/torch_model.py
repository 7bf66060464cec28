"""The bundle in PyTorch. Only processes that serve PyTorch import this."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.nn import functional as F  # noqa: N812 - its usual name

from vqvae_gluon.bench.layers import Layer, adjustment, geometry, pair, read_layers

_ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
_SIMPLE = {"_div_scalar": torch.div, "_plus_scalar": torch.add, "_mul_scalar": torch.mul}
_TYPES = {"int32": torch.int32, "float32": torch.float32}


def build(bundle: Path, stage: str) -> fx.GraphModule:
    """One graph of a bundle as straight code: the encoder, float32 (N, C, H, W) to int32 (N, h, w), or the decoder, the
    other way."""
    layers = read_layers(bundle, stage)
    root, graph = torch.nn.Module(), fx.Graph()
    values = {layers.input: graph.placeholder(layers.input)}
    for layer in layers.layers:
        inputs = []
        for place, value in enumerate(layer.inputs):
            if isinstance(value, np.ndarray):
                name = f"{layer.name}_constant{place}"
                root.register_parameter(name, torch.nn.Parameter(torch.tensor(value), requires_grad=False))
                inputs.append(graph.get_attr(name))
            else:
                inputs.append(values[value])
        function, arguments = _call(layer, inputs)
        values[layer.name] = graph.call_function(function, tuple(arguments))
    graph.output(values[layers.layers[-1].name])
    return fx.GraphModule(root, graph).eval()


def _call(layer: Layer, inputs: list[fx.Node]) -> tuple[Any, list[Any]]:
    """The function that computes a layer, and its arguments."""
    kind, given, x = layer.operator, layer.attributes, inputs[0]
    if kind in ("Convolution", "Deconvolution"):
        stride, pad, dilate = map(pair, geometry(layer))
        bias, groups = inputs[2] if len(inputs) > 2 else None, given.get("num_group", 1)
        if kind == "Convolution":
            return F.conv2d, [x, inputs[1], bias, stride, pad, dilate, groups]
        return F.conv_transpose2d, [x, inputs[1], bias, stride, pad, adjustment(layer), groups, dilate]
    if kind in _SIMPLE:
        return _SIMPLE[kind], [x, given["scalar"]]
    return {
        "Activation": lambda: (_ACTIVATIONS[given["act_type"]], [x]),
        "elemwise_add": lambda: (torch.add, inputs),
        "argmin": lambda: (torch.argmin, [x, given["axis"]]),
        "Cast": lambda: (torch.Tensor.to, [x, _TYPES[given["dtype"]]]),
        "Embedding": lambda: (F.embedding, inputs),
        "transpose": lambda: (torch.permute, [x, given["axes"]]),
        "clip": lambda: (torch.clamp, [x, given["a_min"], given["a_max"]]),
    }[kind]()
