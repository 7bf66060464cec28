"""Faults, planted: a deployed program whose files, memory or deeds are not what they should be, and runtimes that
compute wrongly. They run real networks and leave what a program would leave; nothing of the product knows of them."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

import numpy as np

from vqvae_gluon.artifacts.binding import read_network, write_network
from vqvae_gluon.artifacts.bundle import GRAPH_INPUTS, MANIFEST, GraphFiles, graph_files
from vqvae_gluon.artifacts.graph import Graph, Node, Output
from vqvae_gluon.artifacts.surgery import descendants, fed_name, part
from vqvae_gluon.artifacts.trace import Trace, TraceWriter, open_trace
from vqvae_gluon.compat import mx
from vqvae_gluon.data.images import decode_image, encode_png, to_images
from vqvae_gluon.parity.specimens import Specimen
from vqvae_gluon.runtimes.base import INPUT, OUTPUT, Recorded
from vqvae_gluon.runtimes.gluon import GluonRuntime
from vqvae_gluon.temporary import temporary_directory

Change = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Tamper:
    """What is done to the output of one node before the next ones take it.

    Attributes:
        told: whether the trace holds what came of it, too; else what the node gave.
    """

    change: Change
    told: bool


@dataclass
class Loaded:
    """A network as a program has it: its graph, and its parameters by full name."""

    graph: Graph
    parameters: dict[str, np.ndarray]


def same(values: np.ndarray) -> np.ndarray:
    """No change."""
    return values


@dataclass
class Program:
    """A deployed program. It is right until something of it is changed.

    Attributes:
        disk: its files, by stage. A parameter without a prefix is one that the file holds so.
        memory: what it runs, by stage.
        misread: pixels of the image files, uint8 (N, H, W, C), to those that it has.
        feed: the input tensor to the one that its network is given.
        recode: the encoder's codes to those that the decoder is given.
        draw: the reconstruction, float32 (N, C, H, W), to images, uint8 (N, H, W, C).
        save: those images to those that its files hold.
        tampers: by stage and name of the node.
        training: whether it runs its networks as they are trained.
    """

    specimen: Specimen
    disk: dict[str, Loaded]
    memory: dict[str, Loaded]
    misread: Change = same
    feed: Change = same
    recode: Change = same
    draw: Change = to_images
    save: Change = same
    tampers: dict[tuple[str, str], Tamper] = field(default_factory=dict)
    training: bool = False

    def record(self, path: Path) -> Trace:
        """Run it on the specimen's images and record its own way from end to end."""
        # In training the library chooses other primitives, so that bits are not expected to be equal.
        writer = TraceWriter(path, "training" if self.training else GluonRuntime.name)
        pixels = self.misread(np.load(self.specimen.images))
        fed = self.feed(self.specimen.tensor(pixels))
        if self.specimen.bundle is not None:
            writer.add(INPUT, "pixels", "input", pixels)
            writer.add(INPUT, "data", "input", fed)
        results = []
        for stage in self.specimen.stages:
            name = GRAPH_INPUTS.get(stage, "data")
            writer.add(stage, name, "input", fed)
            records, outputs = self._run(stage, {name: fed})
            for recorded in records:
                writer.add(stage, *recorded)
            for recorded in outputs:
                writer.add(f"{stage}-output", *recorded)
            results.append(outputs[0][2])
            fed = self.recode(results[-1])
        if self.specimen.bundle is not None:
            image = self.draw(results[-1])
            saved = np.stack([decode_image(encode_png(picture), picture.shape[2]) for picture in self.save(image)])
            for name, values in zip(("codes", "reconstruction", "image", "file"), (*results, image, saved)):
                writer.add(OUTPUT, name, "output", values)
        self.write(path / "network")
        return writer.close()

    def write(self, directory: Path) -> None:
        """Write its files, as they lie where it runs."""
        directory.mkdir(parents=True, exist_ok=True)
        for stage, network in self.disk.items():
            files = graph_files(directory, stage)
            files.symbol.write_text(network.graph.to_json())
            arrays = {name: mx.nd.array(values, dtype=values.dtype) for name, values in network.parameters.items()}
            mx.nd.save(str(files.params), arrays)
        if self.specimen.bundle is not None:
            shutil.copyfile(self.specimen.bundle / MANIFEST, directory / MANIFEST)

    def _run(self, stage: str, inputs: Mapping[str, np.ndarray]) -> tuple[list[Recorded], list[Recorded]]:
        """What it tells of every node of a graph, and of the graph's outputs."""
        tampers = {name: tamper for (where, name), tamper in self.tampers.items() if where == stage}
        with temporary_directory() as directory:
            network = self.memory[stage]
            files = write_network(network.graph, network.parameters, directory)
            return computed(files, inputs, tampers, self.training)


Plant = Callable[[Program], None]


def deployed(specimen: Specimen) -> Program:
    """A program without a fault."""
    networks = {stage: read_network(files) for stage, files in specimen.stages.items()}
    disk, memory = (
        {stage: Loaded(network.graph, dict(network.parameters)) for stage, network in networks.items()}
        for _ in range(2)
    )
    return Program(specimen, disk, memory)


def computed(
    files: GraphFiles, inputs: Mapping[str, np.ndarray], tampers: Mapping[str, Tamper], training: bool = False
) -> tuple[list[Recorded], list[Recorded]]:
    """Every node of one run, and the graph's outputs; what comes after a tampered node is computed from it."""
    network = read_network(files)
    mode = mx.autograd.train_mode() if training else contextlib.nullcontext()
    with mode:
        records = list(GluonRuntime().outputs(files, inputs, taps=True))
        operators = {name: operator for name, operator, _ in records}
        told = {name: values for name, _, values in records}
        taken = dict(told)
        for node in network.graph.operators():
            if node.name in tampers:
                output: Output = (node.name, 0)
                tensor = network.tensor(output)
                taken[tensor] = np.ascontiguousarray(tampers[node.name].change(taken[tensor]))
                if tampers[node.name].told:
                    told[tensor] = taken[tensor]
                _compute_again(files, inputs, output, taken, told)
    outputs = [network.tensor(output) for output in network.graph.outputs]
    return (
        [(name, operators[name], values) for name, values in told.items()],
        [(name, operators[name], told[name]) for name in outputs],
    )


def _compute_again(
    files: GraphFiles,
    inputs: Mapping[str, np.ndarray],
    output: Output,
    taken: dict[str, np.ndarray],
    told: dict[str, np.ndarray],
) -> None:
    """Compute what comes after an output from the value that is taken for it."""
    network = read_network(files)
    names = descendants(network.graph, [output])
    if not names:
        return
    graph, fed = part(network.graph, names)
    values = {fed_name(source): taken[network.tensor(source)] for source in fed}
    with temporary_directory() as directory:
        rest = write_network(graph, network.parameters, directory)
        for name, _, array in GluonRuntime().outputs(rest, {**inputs, **values}, taps=True):
            taken[name] = told[name] = array


class TamperedRuntime(GluonRuntime):
    """A runtime that computes some nodes wrongly, in every graph that holds them."""

    name = "tampered"

    def __init__(self, tampers: Mapping[str, Tamper]):
        self._tampers = tampers

    def outputs(self, files: GraphFiles, inputs: Mapping[str, np.ndarray], taps: bool) -> Iterator[Recorded]:
        yield from computed(files, inputs, self._tampers)[0 if taps else 1]


# Ways of planting: each gives what changes a program that is right.


def deeds(**changes: Change) -> Plant:
    """It does something otherwise; see the attributes of :class:`Program`."""

    def plant(program: Program) -> None:
        for name, change in changes.items():
            setattr(program, name, change)

    return plant


def in_training(program: Program) -> None:
    """Its networks are run as they are trained."""
    program.training = True


def tampered(stage: str, name: str, change: Change, told: bool) -> Plant:
    """The output of a node is changed; see :class:`Tamper`."""

    def plant(program: Program) -> None:
        program.tampers[stage, name] = Tamper(change, told)

    return plant


def both(*plants: Plant) -> Plant:
    """More than one fault."""

    def plant(program: Program) -> None:
        for each in plants:
            each(program)

    return plant


def changed(stages: Sequence[str], names: Optional[Sequence[str]], change: Change, in_file: bool) -> Plant:
    """Parameters are others, in memory and perhaps in the file, too. All of them if ``names`` is None."""

    def plant(program: Program) -> None:
        for network in _networks(program, stages, in_file):
            for name in network.parameters if names is None else names:
                network.parameters[name] = np.ascontiguousarray(change(network.parameters[name]))

    return plant


def bit_flipped(stage: str, node: Node, name: str, bit: int, in_file: bool) -> Plant:
    """One bit of one value of a kernel is another: of the value that its node makes the most of, since a unit that is
    never active would not show it."""

    def plant(program: Program) -> None:
        kernel = program.memory[stage].parameters[name]
        words = kernel.copy().view(np.uint32)
        words.flat[np.abs(kernel * _activity(program.specimen, stage, node, kernel)).argmax()] ^= 1 << bit
        changed([stage], [name], lambda values: words.view(np.float32), in_file)(program)

    return plant


def _activity(specimen: Specimen, stage: str, node: Node, kernel: np.ndarray) -> np.ndarray:
    """How much the reference gives each value of a kernel to work on, in a shape that broadcasts with it."""
    fed = open_trace(specimen.reference).get(stage, node.inputs[0][0])
    channels = np.abs(fed).mean(axis=tuple(axis for axis in range(fed.ndim) if axis != 1))
    is_grouped = int(node.attributes.get("num_group", "1")) > 1
    axis = 0 if node.operator == "Deconvolution" or is_grouped else 1
    return channels.reshape([-1 if i == axis else 1 for i in range(kernel.ndim)])


def swapped(stage: str, one: str, other: str, in_file: bool) -> Plant:
    """Two parameters have each other's values."""

    def plant(program: Program) -> None:
        for network in _networks(program, [stage], in_file):
            parameters = network.parameters
            parameters[one], parameters[other] = parameters[other], parameters[one]

    return plant


def unbound(stage: str, name: str, fill: Change, lacking: bool) -> Plant:
    """A parameter holds what was there before; the file lacks it, or is right."""

    def plant(program: Program) -> None:
        changed([stage], [name], fill, False)(program)
        if lacking:
            del program.disk[stage].parameters[name]

    return plant


def misplaced(stage: str, names: Sequence[str], fill: Change, in_file: bool) -> Plant:
    """Auxiliary states hold what was there before; the file calls them arguments, or is right."""

    def plant(program: Program) -> None:
        changed([stage], names, fill, False)(program)
        if in_file:
            parameters = program.disk[stage].parameters
            program.disk[stage].parameters = {
                f"arg:{name[4:]}" if name in names else name: values for name, values in parameters.items()
            }

    return plant


def without_prefixes(stages: Sequence[str], fill: Change) -> Plant:
    """The names in the files have no prefix, so that nothing is bound."""

    def plant(program: Program) -> None:
        changed(stages, None, fill, False)(program)
        for stage in stages:
            parameters = program.disk[stage].parameters
            program.disk[stage].parameters = {name[4:]: values for name, values in parameters.items()}

    return plant


def altered(
    stage: str, name: str, attributes: Mapping[str, str], in_file: bool, operator: Optional[str] = None
) -> Plant:
    """A node has other attributes, or another operator."""

    def plant(program: Program) -> None:
        for network in _networks(program, [stage], in_file):
            nodes = tuple(
                replace(node, operator=operator or node.operator, attributes={**node.attributes, **attributes})
                if node.name == name
                else node
                for node in network.graph.nodes
            )
            network.graph = replace(network.graph, nodes=nodes)

    return plant


def left_out(stage: str, name: str, in_file: bool) -> Plant:
    """The graph lacks a node of one input: what took it takes its input."""

    def plant(program: Program) -> None:
        for network in _networks(program, [stage], in_file):
            network.graph = _without(network.graph, name)

    return plant


def _without(graph: Graph, name: str) -> Graph:
    source = graph.by_name()[name].inputs[0]

    def rewired(outputs: tuple[Output, ...]) -> tuple[Output, ...]:
        return tuple(source if output[0] == name else output for output in outputs)

    nodes = tuple(replace(node, inputs=rewired(node.inputs)) for node in graph.nodes if node.name != name)
    return replace(graph, nodes=nodes, outputs=rewired(graph.outputs))


def _networks(program: Program, stages: Sequence[str], in_file: bool) -> list[Loaded]:
    places = [program.memory, program.disk] if in_file else [program.memory]
    return [place[stage] for place in places for stage in stages]
