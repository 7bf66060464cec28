"""The reference: Gluon in Python, by way of ``SymbolBlock`` and its CachedOp."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from vqvae_gluon.artifacts.binding import Network, read_network, require_binding
from vqvae_gluon.artifacts.bundle import Bundle, GraphFiles, open_bundle
from vqvae_gluon.artifacts.trace import Trace, TraceWriter
from vqvae_gluon.compat import mx, mxnet_reason
from vqvae_gluon.data.images import decode_image, encode_png, read_images, to_images, to_tensor
from vqvae_gluon.errors import InputError, RuntimeFailure
from vqvae_gluon.runtimes.base import DECODER, ENCODER, INPUT, OUTPUT, Runtime


class GluonGraph:
    """An exported network in Gluon.

    Args:
        network: the graph and its parameters.
        inputs: names of what will be fed.
        tapped: give the output of every node instead of the graph's own outputs.

    Raises:
        InputError: the parameters do not fit the graph.
    """

    def __init__(self, network: Network, inputs: Iterable[str], tapped: bool = False):
        self._network = network
        self._inputs = list(inputs)
        self._checked: dict[str, tuple[int, ...]] = dict.fromkeys(self._inputs, ())
        require_binding(network, self._checked)
        symbol = network.symbol
        if tapped:
            internals = symbol.get_internals()
            variables = set(symbol.list_inputs())
            symbol = mx.sym.Group([internals[name] for name in internals.list_outputs() if name not in variables])
        self.names: list[str] = symbol.list_outputs()
        with warnings.catch_warnings():
            # The inputs' types are those of the arrays that are fed; nothing needs to be decided here.
            warnings.filterwarnings("ignore", message="Cannot decide type")
            self._block = mx.gluon.SymbolBlock(symbol, [mx.sym.var(name) for name in self._inputs])
        self._block.collect_params().load(str(network.files.params), cast_dtype=True, dtype_source="saved")
        self._block.hybridize(static_alloc=True, static_shape=True)

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs in the order of ``names``.

        Raises:
            InputError: the parameters do not fit the shapes of the inputs.
            RuntimeFailure: MXNet failed.
        """
        shapes = {name: values.shape for name, values in inputs.items()}
        if shapes != self._checked:
            require_binding(self._network, shapes)
            self._checked = shapes
        arrays = [mx.nd.array(inputs[name], dtype=inputs[name].dtype) for name in self._inputs]
        try:
            outputs = self._block(*arrays)
            outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
            return [output.asnumpy() for output in outputs]
        except mx.MXNetError as error:
            raise RuntimeFailure(self._network.files.symbol, mxnet_reason(error)) from error

    def taps(self, inputs: dict[str, np.ndarray]) -> list[tuple[str, str, np.ndarray]]:
        """Name, operator and value of every output. The suffix ``_output`` of a node's only output is dropped."""
        operators = self._network.operators
        result = []
        for name, values in zip(self.names, self.run(inputs)):
            node, found, number = name.rpartition("_output")
            node = node if found else name
            result.append((f"{node}:{number}" if found and number else node, operators.get(node, ""), values))
        return result


class Predictor:
    """A bundle, ready to encode and decode.

    Args:
        bundle: an open bundle.
        batch_size: images that are run at once.

    Raises:
        InputError: the files of the bundle do not fit together.
    """

    def __init__(self, bundle: Bundle, batch_size: int = 256):
        self._batch_size = batch_size
        self.channels = bundle.config.model.image_channels
        self._stride = bundle.config.model.stride
        self._num_embeddings = bundle.config.model.num_embeddings
        self._encoder = GluonGraph(read_network(bundle.graph(ENCODER)), ["data"])
        self._decoder = GluonGraph(read_network(bundle.graph(DECODER)), ["codes"])

    def encode(self, images: np.ndarray, name: str = "images") -> np.ndarray:
        """uint8 (N, H, W, C) to codes int32 (N, h, w).

        Args:
            name: what messages call the images.

        Raises:
            InputError: the number of channels is wrong, or the stride does not divide the sides.
        """
        height, width, channels = images.shape[1:]
        if channels != self.channels:
            raise InputError(name, f"has {channels} channels, the network takes {self.channels}")
        if height % self._stride or width % self._stride:
            raise InputError(name, f"is {width}x{height}; the network takes sides that {self._stride} divides")
        return self._batched(self._encoder, "data", images, to_tensor)

    def decode(self, codes: np.ndarray, name: str = "codes") -> np.ndarray:
        """Codes int32 (N, h, w) to a reconstruction float32 (N, C, H, W), 0..255.

        Args:
            name: what messages call the codes.

        Raises:
            InputError: these are no codes of this network.
        """
        if codes.dtype != np.int32 or codes.ndim != 3 or codes.size == 0:
            raise InputError(name, f"holds {codes.dtype} {codes.shape}; codes are int32 (N, h, w)")
        if codes.min() < 0 or codes.max() >= self._num_embeddings:
            highest = self._num_embeddings - 1
            raise InputError(name, f"holds codes {codes.min()}..{codes.max()}; the codebook has 0..{highest}")
        return self._batched(self._decoder, "codes", codes, np.ascontiguousarray)

    def reconstruct(self, images: np.ndarray, name: str = "images") -> np.ndarray:
        """uint8 (N, H, W, C) to uint8 (N, H, W, C); see :meth:`encode`."""
        return to_images(self.decode(self.encode(images, name)))

    def _batched(self, graph: GluonGraph, name: str, values: np.ndarray, prepare) -> np.ndarray:
        starts = range(0, len(values), self._batch_size)
        return np.concatenate([graph.run({name: prepare(values[i : i + self._batch_size])})[0] for i in starts])


class GluonRuntime(Runtime):
    name = "gluon"

    def trace_graph(self, files: GraphFiles, inputs: dict[str, np.ndarray], stage: str, path: Path) -> Trace:
        writer = TraceWriter(path, self.name)
        _record(writer, stage, GluonGraph(read_network(files), inputs, tapped=True), inputs)
        return writer.close()

    def trace_bundle(self, bundle: Path, images: Sequence[Path], path: Path) -> Trace:
        opened = open_bundle(bundle, verify=False)
        predictor = Predictor(opened)
        pixels = read_images(images, predictor.channels)
        writer = TraceWriter(path, self.name)
        writer.add(INPUT, "pixels", "input", pixels)
        codes = predictor.encode(pixels, str(images[0]))
        reconstruction = predictor.decode(codes)
        for stage, inputs in ((ENCODER, {"data": to_tensor(pixels)}), (DECODER, {"codes": codes})):
            _record(writer, stage, GluonGraph(read_network(opened.graph(stage)), inputs, tapped=True), inputs)
        writer.add(OUTPUT, "codes", "output", codes)
        writer.add(OUTPUT, "reconstruction", "output", reconstruction)
        writer.add(OUTPUT, "image", "output", to_images(reconstruction))
        writer.add(OUTPUT, "file", "output", _written(to_images(reconstruction)))
        return writer.close()


def _record(writer: TraceWriter, stage: str, graph: GluonGraph, inputs: dict[str, np.ndarray]) -> None:
    for name, values in inputs.items():
        writer.add(stage, name, "input", values)
    for name, operator, values in graph.taps(inputs):
        writer.add(stage, name, operator, values)


def _written(images: np.ndarray) -> np.ndarray:
    """The images as they come back from PNG files."""
    return np.stack([decode_image(encode_png(image), image.shape[2]) for image in images])
