"""The bundle as two ONNX models, float32 or int8, written by a process of its own before ONNX Runtime is timed.

    python -m vqvae_gluon.bench.onnx_model BUNDLE DIR [CALIBRATION.npy]

With calibration images, float32 (N, C, H, W), the models are quantized.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vqvae_gluon.bench.layers import STAGES, Layer, adjustment, geometry, pair, read_layers

_OPSET = 17
_IR = 10  # The newest that every ONNX Runtime since 1.19 reads.
_SIMPLE = {"elemwise_add": "Add", "_div_scalar": "Div", "_plus_scalar": "Add", "_mul_scalar": "Mul"}
_ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}
_TYPES = {"int32": TensorProto.INT32, "float32": TensorProto.FLOAT}
_PART = 32  # images that calibration runs at once


def write_model(bundle: Path, stage: str, path: Path) -> None:
    """Write the encoder or the decoder, for any batch and size."""
    graph = read_layers(bundle, stage)
    nodes: list[Any] = []
    constants: dict[str, np.ndarray] = {}
    for layer in graph.layers:
        names = []
        for place, value in enumerate(layer.inputs):
            names.append(value if isinstance(value, str) else f"{layer.name}_constant{place}")
            if isinstance(value, np.ndarray):
                constants[names[-1]] = value
        nodes += _nodes(layer, names, constants)
    images, codes = ["N", None, "H", "W"], ["N", "h", "w"]
    ends = [(TensorProto.FLOAT, images), (TensorProto.INT32, codes)]
    taken, given = ends if stage == "encoder" else reversed(ends)
    model = helper.make_model(
        helper.make_graph(
            nodes,
            stage,
            [helper.make_tensor_value_info(graph.input, *taken)],
            [helper.make_tensor_value_info(graph.layers[-1].name, *given)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR,
    )
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _nodes(layer: Layer, names: list[str], constants: dict[str, np.ndarray]) -> list[Any]:
    """What ONNX has for a layer; further constants are added."""
    kind, given, out = layer.operator, layer.attributes, layer.name

    def constant(name: str, value: Any, dtype: Any = np.float32) -> str:
        constants[f"{out}_{name}"] = np.array(value, dtype)
        return f"{out}_{name}"

    def node(operator: str, inputs: list[str], output: str = out, **attributes: Any) -> Any:
        return helper.make_node(operator, inputs, [output], output, **attributes)

    if kind in ("Convolution", "Deconvolution"):
        stride, pad, dilate = map(pair, geometry(layer))
        more: dict[str, Any] = {
            "strides": stride,
            "pads": pad * 2,
            "dilations": dilate,
            "kernel_shape": pair(given["kernel"]),
        }
        more["group"] = given.get("num_group", 1)
        if kind == "Deconvolution":
            more["output_padding"] = adjustment(layer)
        return [node("Conv" if kind == "Convolution" else "ConvTranspose", names, **more)]
    if kind == "argmin":  # Its result is int64; of equal ones the first, as in MXNet.
        return [node("ArgMin", names, axis=given["axis"], keepdims=0)]
    if kind == "Embedding":
        return [node("Gather", [names[1], names[0]], axis=0)]
    if kind == "Activation":
        return [node(_ACTIVATIONS[given["act_type"]], names)]
    if kind == "Cast":
        return [node("Cast", names, to=_TYPES[given["dtype"]])]
    if kind == "transpose":
        return [node("Transpose", names, perm=given["axes"])]
    if kind == "clip":
        return [node("Clip", [names[0], constant("low", given["a_min"]), constant("high", given["a_max"])])]
    inputs = names if kind == "elemwise_add" else [names[0], constant("scalar", given["scalar"])]
    return [node(_SIMPLE[kind], inputs)]


def quantize(directory: Path, bundle: Path, images: np.ndarray) -> None:
    """Turn both models into int8, by what they compute of these images.

    What was measured to be best: convolutions, activations and sums, with a scale for each channel of a weight.
    Distances stay float32, since in int8 half of the codes are others; and so do transposed convolutions, for which
    ONNX Runtime has no int8 on processors, and would convert back and forth.
    """
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self, name: str, values: np.ndarray):
            self._parts = iter([{name: part} for part in _parts(values)])

        def get_next(self) -> Any:
            return next(self._parts, None)

    values = images
    for stage, name in STAGES.items():
        path, prepared = directory / f"{stage}.onnx", directory / f"{stage}-prepared.onnx"
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        after = np.concatenate([session.run(None, {name: part})[0] for part in _parts(values)])
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(path),
            Reader(name, values),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Relu", "Add"],
            nodes_to_exclude=_distances(bundle, stage),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        values = after


def _parts(values: np.ndarray) -> list[np.ndarray]:
    return np.array_split(values, -(-len(values) // _PART))


def _distances(bundle: Path, stage: str) -> list[str]:
    """What an index is chosen by."""
    return [str(layer.inputs[0]) for layer in read_layers(bundle, stage).layers if layer.operator == "argmin"]


def main(words: list[str]) -> int:
    bundle, directory = Path(words[0]), Path(words[1])
    for stage in STAGES:
        write_model(bundle, stage, directory / f"{stage}.onnx")
    if len(words) > 2:
        warnings.simplefilter("ignore")
        quantize(directory, bundle, np.load(words[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
