"""The reference: Gluon in Python, by way of ``SymbolBlock`` and its CachedOp."""

import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Optional

import numpy as np

from vqvae_gluon.artifacts.binding import Network, output_shapes, read_network, require_binding
from vqvae_gluon.artifacts.bundle import COPY_BUNDLE, Bundle, GraphFiles, open_pretrained
from vqvae_gluon.artifacts.codes import Codes
from vqvae_gluon.compat import mx
from vqvae_gluon.data.images import check_fit, crop, pad_to, to_images, to_tensor
from vqvae_gluon.errors import InputError, RuntimeFailure
from vqvae_gluon.limits import bounded_memory, bounded_time
from vqvae_gluon.runtimes.base import DECODER, ENCODER, PythonRuntime, Recorded, why_not_run
from vqvae_gluon.runtimes.eager import EagerRuntime


class GluonGraph:
    """An exported network in Gluon.

    Args:
        network: the graph and its parameters.
        inputs: names of what will be fed.
        taps: give the output of every node instead of the graph's own outputs.
        rewrite: makes of the graph the one that is run, with the same inputs and outputs.

    Raises:
        InputError: the parameters do not fit the graph.
    """

    def __init__(
        self,
        network: Network,
        inputs: Collection[str],
        taps: bool = False,
        rewrite: Optional[Callable[["mx.sym.Symbol"], "mx.sym.Symbol"]] = None,
    ):
        self._network = network
        self._inputs = [name for name in network.unbound() if name in inputs]
        self._checked: dict[str, tuple[int, ...]] = dict.fromkeys(self._inputs, ())
        require_binding(network, self._checked)
        symbol, self._names = outputs_of(network, taps)
        symbol = rewrite(symbol) if rewrite else symbol
        with warnings.catch_warnings():
            # The inputs' types are those of the arrays that are fed; nothing needs to be decided here.
            warnings.filterwarnings("ignore", message="Cannot decide type")
            with bounded_time(len(network.graph.nodes)):
                self._block = mx.gluon.SymbolBlock(symbol, [mx.sym.var(name) for name in self._inputs])
        bound = {name: mx.nd.array(values, dtype=values.dtype) for name, values in network.parameters.items()}
        if bound:
            self._block.collect_params().load_dict(bound, cast_dtype=True, dtype_source="saved")
        self._block.hybridize(static_alloc=True, static_shape=True)
        self._proved = False

    def run(self, inputs: Mapping[str, np.ndarray], pixels: int = 0) -> Iterator[Recorded]:
        """Run it; one output at a time.

        Args:
            pixels: of the images that are run at once, see :func:`vqvae_gluon.limits.run_limit`.

        Raises:
            InputError: the parameters do not fit the shapes of the inputs.
            RuntimeFailure: MXNet failed.
        """
        shapes = {name: inputs[name].shape for name in self._inputs}
        if shapes != self._checked:
            require_binding(self._network, shapes, pixels)
            self._checked = shapes
        outputs = self._outputs(inputs, pixels)
        for name, operator in self._names:
            yield name, operator, outputs.pop(0)
        self._proved = True

    def _outputs(self, inputs: Mapping[str, np.ndarray], pixels: int) -> list[np.ndarray]:
        """All outputs, computed."""
        arrays = [mx.nd.array(inputs[name], dtype=inputs[name].dtype) for name in self._inputs]
        with bounded_memory(self._network.files.symbol, pixels):
            try:
                if self._block._cached_op is None:  # Else it is made in the first run, which may take its time.
                    with bounded_time(len(self._network.graph.nodes)):
                        self._block._build_cache(*arrays)
                outputs = self._block(*arrays)
                outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
                return to_numpy(outputs)
            except mx.MXNetError as error:
                why = why_not_run(error, inputs, self._network)
                # The first run of a graph is a part of its proof: what MXNet refuses there is the file's fault.
                if self._proved:
                    raise RuntimeFailure(self._network.files.symbol, why) from error
                raise InputError(self._network.files.symbol, f"cannot be run: {why}") from error

    def output_shapes(self, inputs: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Of the graph's outputs, for inputs of these shapes.

        Raises:
            InputError: they do not fit.
        """
        return output_shapes(self._network, self._network.symbol, inputs)


def to_numpy(arrays: list["mx.nd.NDArray"]) -> list[np.ndarray]:
    """The values of arrays, each of which is let go when it has been copied."""
    return [arrays.pop(0).asnumpy() for _ in range(len(arrays))]


def outputs_of(network: Network, taps: bool) -> tuple["mx.sym.Symbol", list[tuple[str, str]]]:
    """The symbol to run, and for each of its outputs what a trace calls it, and its operator."""
    source = network.graph.by_name()
    outputs, symbol = network.graph.outputs, network.symbol
    if taps:
        outputs = tuple((node.name, k) for node in network.graph.operators() for k in range(network.visible[node.name]))
        variables = set(symbol.list_inputs())
        symbol = mx.sym.Group([output for output in symbol.get_internals() if output.name not in variables])
    return symbol, [(network.tensor(output), source[output[0]].operator) for output in outputs]


# Pixels that are run at once, each of which takes half a kilobyte and more: those of 256 pictures of CIFAR-10.
_PIXELS = 1 << 18


class Predictor:
    """A bundle, ready to encode and decode.

    Args:
        bundle: an open bundle.
        batch_size: images that are run at once at most; of large ones, fewer are.

    Attributes:
        channels: of an image, 1 or 3.
        stride: pixels for each code and side.
        num_embeddings: rows of the codebook.
        digest: of the bundle.

    Raises:
        InputError: the files of the bundle do not fit together.
    """

    def __init__(self, bundle: Bundle, batch_size: int = 256):
        self._batch_size = batch_size
        self.channels = bundle.channels
        self.stride = bundle.stride
        self.num_embeddings = bundle.num_embeddings
        self.digest = bundle.digest
        self._encoder = GluonGraph(read_network(bundle.graph(ENCODER)), ["data"])
        self._decoder = GluonGraph(read_network(bundle.graph(DECODER)), ["codes"])
        # Paddings rely on the shapes, so they are proved, at sides that are not equal.
        images, codes = (2, self.channels, 2 * self.stride, 3 * self.stride), (2, 2, 3)
        for stage, graph, given, wanted in (
            (ENCODER, self._encoder, {"data": images}, codes),
            (DECODER, self._decoder, {"codes": codes}, images),
        ):
            if graph.output_shapes(given) != [wanted]:
                raise InputError(bundle.graph(stage).symbol, f"does not give {wanted} for {given}; {COPY_BUNDLE}")

    def encode(self, images: np.ndarray, name: str = "images") -> np.ndarray:
        """uint8 (N, H, W, C) of any size to codes int32 (N, h, w), those of the padded images
        (:func:`~vqvae_gluon.data.images.pad_to`).

        Args:
            name: what messages call the images.

        Raises:
            InputError: the number of channels is wrong.
        """
        check_fit(images, self.channels, name)
        return np.concatenate(
            list(self._batches(self._encoder, "data", images, 1, lambda part: to_tensor(pad_to(part, self.stride))))
        )

    def decode(
        self, codes: np.ndarray, height: Optional[int] = None, width: Optional[int] = None, name: str = "codes"
    ) -> np.ndarray:
        """Codes int32 (N, h, w) to a reconstruction float32 (N, C, H, W), 0..255; or, where the size of the images is
        given, to images of that size, uint8 (N, height, width, C).

        Args:
            name: what messages call the codes.

        Raises:
            InputError: these are no codes of this network, or not of images of that size.
        """
        return np.concatenate(list(self.decode_batches(codes, height, width, name)))

    def decode_batches(
        self, codes: np.ndarray, height: Optional[int] = None, width: Optional[int] = None, name: str = "codes"
    ) -> Iterator[np.ndarray]:
        """The same, as many at a time as are run at once. All are checked before the first is run."""
        if codes.dtype != np.int32 or codes.ndim != 3 or codes.size == 0:
            raise InputError(name, f"holds {codes.dtype} {codes.shape}; codes are int32 (N, h, w)")
        if codes.min() < 0 or codes.max() >= self.num_embeddings:
            highest = self.num_embeddings - 1
            raise InputError(name, f"holds codes {codes.min()}..{codes.max()}; the codebook has 0..{highest}")
        batches = self._batches(self._decoder, "codes", codes, self.stride**2, np.ascontiguousarray)
        if height is None or width is None:
            return batches
        if codes.shape[1:] != (-(-height // self.stride), -(-width // self.stride)):
            sizes = f"{codes.shape[2]}x{codes.shape[1]} codes of an image of {width}x{height}"
            raise InputError(name, f"holds {sizes}; the network has one for {self.stride}x{self.stride} pixels")
        return (crop(to_images(batch), height, width) for batch in batches)

    def decode_file(self, codes: Codes, name: str = "codes") -> np.ndarray:
        """What a ``.vq`` file holds to images, uint8 (N, H, W, C).

        Raises:
            InputError: these are codes of another bundle.
        """
        return np.concatenate(list(self.decode_file_batches(codes, name)))

    def decode_file_batches(self, codes: Codes, name: str = "codes") -> Iterator[np.ndarray]:
        """The same, as many at a time as are run at once."""
        if codes.bundle != self.digest or codes.num_embeddings != self.num_embeddings:
            raise InputError(name, "are codes of another bundle; decode them with the one that made them")
        return self.decode_batches(codes.values, codes.height, codes.width, name)

    def reconstruct(self, images: np.ndarray, name: str = "images") -> np.ndarray:
        """uint8 (N, H, W, C) to uint8 (N, H, W, C), of the same size; see :meth:`encode`."""
        return self.decode(self.encode(images, name), images.shape[1], images.shape[2])

    def _batches(
        self, graph: GluonGraph, name: str, values: np.ndarray, pixels: int, prepare: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[np.ndarray]:
        """What a graph gives for values (N, h, w[, C]), each of which stands for so many pixels."""
        size = min(self._batch_size, max(1, _PIXELS // (values.shape[1] * values.shape[2] * pixels)))
        for start in range(0, len(values), size):
            part = prepare(values[start : start + size])
            ((_, _, result),) = graph.run({name: part}, len(part) * math.prod(values.shape[1:3]) * pixels)
            yield result


def load_pretrained(name: str) -> Predictor:
    """A network that comes with this project, such as ``mnist`` or ``cifar10``, ready to encode and decode.

    Raises:
        InputError: there is none of this name.
    """
    return Predictor(open_pretrained(name))


class GluonRuntime(PythonRuntime):
    name = "gluon"

    def outputs(self, files: GraphFiles, inputs: Mapping[str, np.ndarray], taps: bool) -> Iterator[Recorded]:
        network = read_network(files)
        if set(network.unbound()) & set(inputs):
            yield from GluonGraph(network, inputs, taps).run(inputs)
        else:  # A part that takes parameters alone, which no SymbolBlock can be made of.
            yield from EagerRuntime().outputs(files, inputs, taps)
