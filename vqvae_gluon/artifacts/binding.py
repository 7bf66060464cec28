"""Whether a parameter file fits a graph: everything bound exactly once, with the right kind, shape and values."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from vqvae_gluon.artifacts.bundle import GraphFiles, graph_files
from vqvae_gluon.artifacts.graph import Graph, Node, Output, parse_graph, read_graph
from vqvae_gluon.artifacts.operators import MAX_EXTENT
from vqvae_gluon.artifacts.parameters import full_names, has_prefix, read_parameters
from vqvae_gluon.artifacts.proof import prove
from vqvae_gluon.artifacts.refusals import SHAPES, graph_refusal, shape_refusal
from vqvae_gluon.compat import forget_range_errors, mx, mxnet_reason
from vqvae_gluon.errors import InputError
from vqvae_gluon.limits import bounded_memory, bounded_time, mebibytes, run_limit

_SHAPES, _NON_FINITE = "shapes do not fit", "non-finite value"
_FLOAT32_BYTES, _FLOAT64_BYTES = 4, 8
_TYPES, _WIDE = ("dtype", "out_type"), {"float64", "int64"}
_TRIED_BATCHES = 16  # of those that Reshapes fix
# What to do about each cause that is found here.
REMEDIES = {
    "parameter missing": "deploy the parameter file that net.export(prefix) wrote with this graph; an input or a label "
    "is given by its name and shape (--input NAME:SHAPE)",
    "parameter unknown": "deploy the parameter file that net.export(prefix) wrote with this graph",
    "wrong prefix": "store arguments as arg: and auxiliary states as aux:, as net.export(prefix) does",
    "wrong shape": "deploy the parameter file that net.export(prefix) wrote with this graph, or feed inputs of the "
    "shapes that it was made for",
    _SHAPES: SHAPES,
    _NON_FINITE: "take a checkpoint of before the training diverged; if the original is finite, copy it again",
}
_RESHAPES = ("Reshape", "reshape", "_np_reshape", "_npx_reshape")
_SPLIT = -4  # In the new shape of a Reshape: the next two numbers are factors of one extent.
_Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        cause: its name, one of a fixed set of words.
        subject: the parameter, node or file it is about.
        detail: what is wrong, in a few words.
        stage: of the bundle, if it is about one.
        remedy: where it is not that of the cause.
    """

    cause: str
    subject: str
    detail: str
    stage: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.cause}: {self.subject}: {self.detail}"


@dataclass(frozen=True)
class Network:
    """A graph and its parameters, read and proved sound each, not yet that they fit.

    Attributes:
        symbol: MXNet's symbol of the graph, as MXNet reads the file.
        graph: what MXNet makes of the file: old files are brought up to date, names are unique.
        visible: how many outputs every node has, by name.
        parameters: tensors by full name, ``arg:...`` and ``aux:...``.
        lost: names in the file that lack the prefix; programs other than Gluon ignore such parameters.
    """

    files: GraphFiles
    symbol: "mx.sym.Symbol"
    graph: Graph
    visible: dict[str, int]
    parameters: dict[str, np.ndarray]
    lost: tuple[str, ...] = ()

    def tensor(self, output: Output) -> str:
        """What a trace calls an output: the node's name, or ``<node>:<k>`` where there are several."""
        name, index = output
        return name if self.visible[name] == 1 else f"{name}:{index}"

    def unbound(self) -> list[str]:
        """What the graph takes and the parameters do not hold: its inputs, and what is missing."""
        bound = {name[4:] for name in self.parameters}
        return [name for name in self.symbol.list_inputs() if name not in bound]


def read_network(files: GraphFiles) -> Network:
    """Read a symbol file and its parameters.

    Raises:
        InputError: a file is missing or not sound.
    """
    sound = read_graph(files.symbol, files.of_bundle)  # MXNet believes whatever a file says.
    stored = read_parameters(files.params)
    try:
        with mx.util.np_shape(sound.numpy):
            forget_range_errors()
            with bounded_time(len(sound.nodes)), bounded_memory(files.symbol):
                symbol = mx.sym.load_json(sound.text)
            graph = parse_graph(symbol.tojson(), files.symbol, files.of_bundle)
            with bounded_time(len(graph.nodes)):
                prove(graph)
            internals = mx.sym.load_json(graph.to_json()).get_internals()
    except mx.MXNetError as error:
        raise _refused(files, mxnet_reason(error)) from error
    except ValueError as error:
        raise _refused(files, str(error)) from error
    parameters = full_names(stored, symbol.list_arguments(), symbol.list_auxiliary_states(), files.params)
    lost = tuple(name for name in stored if not has_prefix(name))
    return Network(files, symbol, graph, Counter(output.name for output in internals), parameters, lost)


def _refused(files: GraphFiles, reason: str) -> InputError:
    return InputError(files.symbol, f"is refused by MXNet: {graph_refusal(reason)}")


def write_network(graph: Graph, parameters: Mapping[str, np.ndarray], directory: Path) -> GraphFiles:
    """Write a graph, and of the parameters those that it takes.

    Args:
        directory: it is made; the files' names are those of an export called ``graph``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = graph_files(directory, "graph")
    files.symbol.write_text(graph.to_json())
    taken = {node.name for node in graph.nodes if node.is_variable}
    bound = {name: values for name, values in parameters.items() if name[4:] in taken}
    with mx.util.np_shape(graph.numpy):
        mx.nd.save(str(files.params), {name: mx.nd.array(values, dtype=values.dtype) for name, values in bound.items()})
    return files


def check_binding(network: Network, input_shapes: Mapping[str, tuple[int, ...]]) -> list[Finding]:
    """What is wrong between the graph and the parameters when these inputs are fed; empty if nothing is.

    Args:
        input_shapes: by name; ``()`` for one that is not known yet.
    """
    findings = []
    misplaced = set()
    taken = _full_names(network.symbol)
    for full_name in taken:
        name, other = full_name[4:], _other_prefix(full_name)
        if name in input_shapes or full_name in network.parameters:
            continue
        if other in network.parameters:
            misplaced.add(other)
            detail = f"is stored as {other[:4]}, the graph takes it as {full_name[:4]}"
            findings.append(Finding("wrong prefix", name, detail))
        else:
            findings.append(Finding("parameter missing", name, "the graph takes it, the file does not hold it"))
    for full_name, values in network.parameters.items():
        if full_name not in taken and full_name not in misplaced:
            findings.append(Finding("parameter unknown", full_name, "the file holds it, the graph does not take it"))
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            findings.append(Finding(_NON_FINITE, full_name[4:], "holds NaN or infinity"))
    stored = {full_name: values.shape for full_name, values in network.parameters.items()}
    return findings + shape_findings(network.graph, network.symbol, stored, input_shapes)


def require_binding(network: Network, input_shapes: Mapping[str, tuple[int, ...]], pixels: int = 0) -> None:
    """Refuse a network whose parameters do not fit, or whose tensors are too large.

    Args:
        input_shapes: by name; ``()`` for one that is not known yet.
        pixels: of the images that are run at once, see :func:`vqvae_gluon.limits.run_limit`.

    Raises:
        InputError: names the first thing that is wrong.
    """
    with bounded_time(len(network.graph.nodes)):
        findings = check_binding(network, input_shapes)
        if not network.files.of_bundle:
            # Where a runtime is asked for the numbers of any files, they are what the files give.
            findings = [finding for finding in findings if finding.cause != _NON_FINITE]
        if findings:
            remedy = findings[0].remedy or REMEDIES[findings[0].cause]
            file = network.files.symbol if findings[0].cause == _SHAPES else network.files.params
            raise InputError(file, f"{findings[0]}; {remedy}")
        if all(input_shapes.values()):
            _require_room(network, input_shapes, pixels)


def _require_room(network: Network, input_shapes: Mapping[str, tuple[int, ...]], pixels: int) -> None:
    """Refuse tensors that MXNet cannot count, or that take more memory than a run may."""
    symbol, inputs = network.symbol.get_internals(), set(network.symbol.list_inputs())
    known = {name: shape for name, shape in input_shapes.items() if name in inputs}
    sizes = [
        math.prod(shape) if _is_known(network.graph, shape) else 0
        for output, shape in zip(symbol, output_shapes(network, symbol, known))
        if output.name not in inputs
    ]
    if max(sizes, default=0) > MAX_EXTENT:
        why = f"has a tensor of more than {MAX_EXTENT} elements, which MXNet does not take; feed smaller batches"
        raise InputError(network.files.symbol, why)
    taken, limit = sum(sizes) * _element_bytes(network), run_limit(pixels)
    if limit is not None and taken > limit:
        why = f"takes {mebibytes(taken)} for its tensors, and the memory limit is {mebibytes(limit)}"
        raise InputError(network.files.symbol, f"{why}; feed smaller batches, or raise it (--memory)")


def _element_bytes(network: Network) -> int:
    """Of the widest type that a graph may compute in."""
    stored = {array.dtype.name for array in network.parameters.values() if array.dtype.kind == "f"}
    named = {value for node in network.graph.nodes for key, value in node.attributes.items() if key in _TYPES}
    return _FLOAT64_BYTES if _WIDE & (stored | named) else _FLOAT32_BYTES


def output_shapes(
    network: Network, symbol: "mx.sym.Symbol", input_shapes: Mapping[str, tuple[int, ...]]
) -> list[tuple[int, ...]]:
    """Of a symbol of this network, for inputs of these shapes; empty ones are not known.

    Raises:
        InputError: they do not fit.
    """
    try:
        with mx.util.np_shape(network.graph.numpy):
            return list(symbol.infer_shape_partial(**input_shapes)[1] or ())
    except mx.MXNetError as error:
        raise InputError(network.files.symbol, f"{_SHAPES}: {shape_refusal(mxnet_reason(error))}; {SHAPES}") from error


def shape_findings(graph: Graph, symbol: "mx.sym.Symbol", stored: _Shapes, input_shapes: _Shapes) -> list[Finding]:
    """What does not fit between a graph, the shapes of its parameters and those of its inputs.

    Args:
        stored: of parameters by full name.
        input_shapes: by name; ``()`` for one that is not known yet.
    """
    known = {name: shape for name, shape in input_shapes.items() if shape and name in symbol.list_inputs()}
    try:
        with mx.util.np_shape(graph.numpy):
            findings = _wrong_shapes(graph, symbol, stored, known)
            if findings:
                fixing = _fixes_the_batch(graph, symbol, stored, known)
                return findings if fixing is None else [_reshape_finding(fixing, "")]
            if len(known) < len(input_shapes):
                return []
            arguments = set(symbol.list_arguments())
            bound = {name[4:]: shape for name, shape in stored.items() if name[4:] in arguments}
            return _reshape_findings(graph, symbol, {**bound, **known})
    except mx.MXNetError as error:
        if len(known) < len(input_shapes):
            return []  # Some operators cannot infer anything from an input whose shape is not known yet.
        reason = mxnet_reason(error)
        told = re.search(r"operator (\S+?):", reason)
        node = graph.by_name().get(told[1]) if told else None
        if node is not None and is_reshape(node):
            return [_reshape_finding(node, "its input")]
        subject = told[1] if told else "the graph"
        return [Finding(_SHAPES, subject, shape_refusal(reason).removeprefix(f"{subject}: "))]


def _wrong_shapes(graph: Graph, symbol: "mx.sym.Symbol", stored: _Shapes, known: _Shapes) -> list[Finding]:
    """The parameters that have another shape than the graph takes for inputs of these shapes."""
    argument_shapes, _, auxiliary_shapes = symbol.infer_shape_partial(**known)
    wanted = dict(zip(_full_names(symbol), argument_shapes + auxiliary_shapes))
    return [
        Finding("wrong shape", name[4:], f"is {shape}, the graph takes {tuple(wanted[name])}")
        for name, shape in stored.items()
        if _is_known(graph, wanted.get(name)) and tuple(wanted[name]) != shape
    ]


def _fixes_the_batch(graph: Graph, symbol: "mx.sym.Symbol", stored: _Shapes, known: _Shapes) -> Optional[Node]:
    """The Reshape with whose batch all parameters would fit, if there is one."""
    tried: set[Optional[int]] = set()
    for node in filter(is_reshape, graph.operators()):
        batch = _fixed_batch(node)
        if batch in tried or len(tried) == _TRIED_BATCHES:
            continue
        tried.add(batch)
        fitting = {name: (batch or 0, *shape[1:]) for name, shape in known.items()}
        try:
            if batch is not None and fitting != known and not _wrong_shapes(graph, symbol, stored, fitting):
                return node
        except mx.MXNetError:
            continue  # Not with this one.
    return None


def _reshape_findings(graph: Graph, symbol: "mx.sym.Symbol", known: _Shapes) -> list[Finding]:
    """The first Reshape whose output has not as many elements as its input: MXNet would go on, and read memory that is
    not there.

    Args:
        known: shapes of inputs and parameters by name.

    Raises:
        mx.MXNetError: the shapes do not fit in another way.
    """
    internals = symbol.get_internals()
    shapes = dict(zip(internals.list_outputs(), internals.infer_shape_partial(**known)[1] or ()))
    for node in filter(is_reshape, graph.operators()):
        taken, made = (shapes.get(name, shapes.get(f"{name}_output")) for name in (node.inputs[0][0], node.name))
        if taken and made and _is_known(graph, taken) and math.prod(taken) != math.prod(made):
            return [_reshape_finding(node, str(tuple(taken)))]
    return []


def _is_known(graph: Graph, shape: Optional[tuple[int, ...]]) -> bool:
    """Whether MXNet knows a shape. What it does not know is -1 under NumPy's rules, else 0, or no extent at all."""
    if graph.numpy:
        return shape is not None and -1 not in shape
    return bool(shape) and 0 not in (shape or ())


def _reshape_finding(node: Node, refused: str) -> Finding:
    """What is to be said of a Reshape that does not fit what the graph is fed.

    Args:
        refused: what it does not take; empty if it takes its input, and what it makes of it does not fit.
    """
    detail = f"is a Reshape to {_new_shape(node)}" + (f", which does not take {refused}" if refused else "")
    batch = _fixed_batch(node)
    if batch is None:
        return Finding(_SHAPES, node.name, detail)
    remedy = f"feed batches of {batch}, or write 0 or -1 in place of the {batch} in the network and export it"
    return Finding(_SHAPES, node.name, f"{detail}: it fixes the batch at {batch}", remedy=remedy)


def is_reshape(node: Node) -> bool:
    """Whether a node gives its input another shape, which an attribute names."""
    return node.operator in _RESHAPES


def _new_shape(node: Node) -> str:
    return node.attributes.get("shape", node.attributes.get("newshape", ""))


def _fixed_batch(node: Node) -> Optional[int]:
    """The batch that a Reshape takes, if its new shape begins with one: with a number, or with -4 and the two factors
    into which that splits the batch, of which one may be left open."""
    numbers = [int(number) for number in re.findall(r"-?\d{1,10}", _new_shape(node))]
    batch = numbers[0] if len(numbers) > 1 else 0
    if len(numbers) > 2 and batch == _SPLIT:
        batch = max(1, numbers[1]) * max(1, numbers[2])
    return batch if 0 < batch < 1 << 31 else None


def _full_names(symbol: "mx.sym.Symbol") -> list[str]:
    """What the graph takes, inputs too, by the names a parameter file would give them."""
    arguments = [f"arg:{name}" for name in symbol.list_arguments()]
    return arguments + [f"aux:{name}" for name in symbol.list_auxiliary_states()]


def _other_prefix(full_name: str) -> str:
    return ("aux:" if full_name.startswith("arg:") else "arg:") + full_name[4:]
