"""The bundle as one ONNX model, float32 or int8, written by a process of its own before ONNX Runtime is timed.

    python -m vqvae_gluon.bench.onnx_model BUNDLE MODEL.onnx [CALIBRATION.npy]

With calibration images, float32 (N, C, H, W), the model is quantized.
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


def write_model(bundle: Path, path: Path) -> None:
    """Write the encoder and behind it the decoder, for any batch and size: images in, codes and images out."""
    encoder, decoder = (read_layers(bundle, stage) for stage in STAGES)
    codes = encoder.layers[-1].name
    nodes: list[Any] = []
    constants: dict[str, np.ndarray] = {}
    for layer in encoder.layers + decoder.layers:
        names = []
        for place, value in enumerate(layer.inputs):
            if isinstance(value, np.ndarray):
                names.append(f"{layer.name}_constant{place}")
                constants[names[-1]] = value
            else:
                names.append(codes if value == decoder.input else value)
        nodes += _nodes(layer, names, constants)
    images = TensorProto.FLOAT, ["N", None, "H", "W"]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "vqvae",
            [helper.make_tensor_value_info(encoder.input, *images)],
            [
                helper.make_tensor_value_info(codes, TensorProto.INT32, ["N", "h", "w"]),
                helper.make_tensor_value_info(decoder.layers[-1].name, *images),
            ],
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


def write_quantized(bundle: Path, path: Path, images: np.ndarray) -> None:
    """Write the same in int8, by what it computes of these images.

    What was measured to be best: convolutions, activations and sums, with a scale for each channel of a weight.
    Distances stay float32, since in int8 half of the codes are others; and so do transposed convolutions, for which
    ONNX Runtime has no int8 on processors, and would convert back and forth.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            parts = np.array_split(images, -(-len(images) // _PART))
            self._parts = iter([{encoder.input: part} for part in parts])

        def get_next(self) -> Any:
            return next(self._parts, None)

    encoder = read_layers(bundle, "encoder")
    exact, prepared = path.with_suffix(".float32.onnx"), path.with_suffix(".prepared.onnx")
    write_model(bundle, exact)
    quant_pre_process(str(exact), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Relu", "Add"],
        nodes_to_exclude=[str(layer.inputs[0]) for layer in encoder.layers if layer.operator == "argmin"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def main(words: list[str]) -> int:
    bundle, path = Path(words[0]), Path(words[1])
    if len(words) > 2:
        warnings.simplefilter("ignore")
        write_quantized(bundle, path, np.load(words[2]))
    else:
        write_model(bundle, path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
