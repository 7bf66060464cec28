"""What quantized graphs are calibrated by: which numbers the layers of a network take and give on real images."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from vqvae_gluon.artifacts.binding import read_network, write_network
from vqvae_gluon.artifacts.bundle import GraphFiles, named
from vqvae_gluon.artifacts.graph import Graph, Node, Output
from vqvae_gluon.artifacts.quantize import Quantized, in_int8, limits, output_axis, quantizable
from vqvae_gluon.artifacts.surgery import ancestors, part
from vqvae_gluon.runtimes.gluon import GluonGraph
from vqvae_gluon.temporary import temporary_directory

_BINS = 8192  # of a histogram; some 30 to a step
_STEPS = 96  # step sizes that are tried
_SMALLEST = 0.2  # of them, as a share of the one that cuts nothing off

# Values of a graph's inputs, batch by batch; they are gone through several times.
Batches = Iterable[Mapping[str, np.ndarray]]


class Outputs:
    """Some tensors of a graph, run by Gluon.

    Args:
        parameters: by full name.
        outputs: which tensors. What they do not need is not computed.
    """

    def __init__(self, graph: Graph, parameters: Mapping[str, np.ndarray], outputs: Collection[Output]):
        variables = {node.name for node in graph.nodes if node.is_variable}
        self._fed = [output for output in outputs if output[0] in variables]
        self._computed = [output for output in outputs if output[0] not in variables]
        cut, _ = part(graph, ancestors(graph, self._computed), outputs=self._computed)
        whole = GraphFiles(graph.path, graph.path)  # What errors name.
        with temporary_directory() as directory:
            files = write_network(cut, parameters, directory)
            with named(files, whole):
                network = replace(read_network(files), files=whole)
            self._graph = GluonGraph(network, network.unbound())

    def run(self, inputs: Mapping[str, np.ndarray]) -> Iterator[tuple[Output, np.ndarray]]:
        """The tensors that one batch gives, one at a time."""
        yield from ((output, inputs[output[0]]) for output in self._fed)
        for output, (_, _, values) in zip(self._computed, self._graph.run(inputs)):
            yield output, values

    def only(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The same, of the first tensor alone."""
        return next(values for _, values in self.run(inputs))


@dataclass
class Seen:
    """What was seen of one tensor.

    Attributes:
        highest: largest magnitude.
        histogram: how many magnitudes lie in each of equal parts of 0..highest.
        total: sum over all but the channels.
        values: how many values there were for each channel.
    """

    highest: float = 0.0
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    total: np.ndarray = field(default_factory=lambda: np.zeros(1))
    values: int = 0

    @property
    def mean(self) -> np.ndarray:
        """Of each channel, float64 (C,)."""
        return self.total / max(1, self.values)

    def add_mean(self, values: np.ndarray) -> None:
        """Values (N, C, H, W)."""
        self.total = self.total + values.sum(axis=(0, 2, 3), dtype=np.float64)
        self.values += values.size // values.shape[1]

    def add_histogram(self, values: np.ndarray) -> None:
        if self.highest > 0:
            self.histogram += np.histogram(np.abs(values), _BINS, (0.0, self.highest))[0]


def calibrated(
    graph: Graph, parameters: Mapping[str, np.ndarray], batches: Batches, names: Collection[str]
) -> dict[str, Quantized]:
    """How some layers of a graph are quantized to int8.

    The step of a layer's input is that of the least mean squared error over all values that were seen, and so is the
    step of the weights of each output channel. Each bias is then moved by the mean error that its output has, layer
    after layer, behind those that are quantized already (bias correction: Nagel et al. 2019, arXiv:1906.04721).

    Args:
        parameters: by full name.
        batches: of the graph's inputs.
        names: of the layers.

    Returns:
        By name, what :func:`~vqvae_gluon.artifacts.quantize.in_int8` takes.
    """
    layers = {name: node for name, node in quantizable(graph, parameters).items() if name in names}
    seen = _look(graph, parameters, batches, layers)
    result: dict[str, Quantized] = {}
    for name, node in layers.items():
        weights = parameters[f"arg:{node.inputs[1][0]}"]
        axis = output_axis(node)
        within = limits(graph, node.inputs[0])
        integers, scales = quantized_weights(weights, axis)
        bias = parameters[f"arg:{node.inputs[2][0]}"] if len(node.inputs) > 2 else np.zeros(weights.shape[axis])
        step = input_step(seen[node.inputs[0]], within)
        result[name] = Quantized(step, within, integers, scales, bias.astype(np.float32))
        given = _means(*in_int8(graph, parameters, result), batches, name)
        corrected = result[name].bias + seen[name, 0].mean - given
        result[name] = replace(result[name], bias=corrected.astype(np.float32))
    return result


def input_step(seen: Seen, within: tuple[int, int]) -> float:
    """The step of an input: that of the least mean squared error. Its inverse is a float32 number."""
    high = within[1]
    if seen.highest == 0:
        return 1.0
    width = seen.highest / _BINS
    magnitudes = (np.arange(_BINS) + 0.5) * width
    steps = np.linspace(_SMALLEST, 1.0, _STEPS) * seen.highest / high
    errors = [
        float(np.dot(seen.histogram, (np.minimum(np.rint(magnitudes / step), high) * step - magnitudes) ** 2))
        for step in steps
    ]
    return 1.0 / float(np.float32(1.0 / steps[int(np.argmin(errors))]))


def quantized_weights(weights: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights as int8 in -127..127, and the step of each output channel, float32 (C,), of the least squared error."""
    rows = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1).astype(np.float64)
    highest = np.maximum(np.abs(rows).max(axis=1), np.finfo(np.float32).tiny * 127)
    best, least = np.ones(len(rows)), np.full(len(rows), np.inf)
    for share in np.linspace(_SMALLEST, 1.0, _STEPS):
        steps = (share * highest / 127).astype(np.float32).astype(np.float64)
        errors = ((np.clip(np.rint(rows / steps[:, None]), -127, 127) * steps[:, None] - rows) ** 2).sum(axis=1)
        best = np.where(errors < least, steps, best)
        least = np.minimum(errors, least)
    integers = np.clip(np.rint(rows / best[:, None]), -127, 127).astype(np.int8)
    shape = (weights.shape[axis], *np.delete(weights.shape, axis))
    return np.ascontiguousarray(np.moveaxis(integers.reshape(shape), 0, axis)), best.astype(np.float32)


def _look(
    graph: Graph, parameters: Mapping[str, np.ndarray], batches: Batches, layers: Mapping[str, Node]
) -> dict[Output, Seen]:
    """What the layers take and give. Two runs, because a histogram needs to know where it ends."""
    taken = list(dict.fromkeys(node.inputs[0] for node in layers.values()))
    given = [(name, 0) for name in layers]
    seen = {output: Seen() for output in (*taken, *given)}
    if not layers:
        return seen
    outputs = Outputs(graph, parameters, list(seen))
    for inputs in batches:
        for output, values in outputs.run(inputs):
            seen[output].highest = max(seen[output].highest, float(np.abs(values).max()))
            seen[output].add_mean(values)
    outputs = Outputs(graph, parameters, taken)
    for inputs in batches:
        for output, values in outputs.run(inputs):
            seen[output].add_histogram(values)
    return seen


def _means(graph: Graph, parameters: Mapping[str, np.ndarray], batches: Batches, name: str) -> np.ndarray:
    """What a layer gives on average, float64 (C,)."""
    seen = Seen()
    outputs = Outputs(graph, parameters, [(name, 0)])
    for inputs in batches:
        seen.add_mean(outputs.only(inputs))
    return seen.mean
