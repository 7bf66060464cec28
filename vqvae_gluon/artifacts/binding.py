"""Whether a parameter file fits a graph: everything bound exactly once, with the right kind, shape and values."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vqvae_gluon.artifacts.bundle import GraphFiles, graph_files
from vqvae_gluon.artifacts.graph import Graph, Output, parse_graph, read_graph
from vqvae_gluon.artifacts.parameters import full_names, has_prefix, read_parameters
from vqvae_gluon.artifacts.proof import prove
from vqvae_gluon.compat import mx, mxnet_reason
from vqvae_gluon.errors import InputError


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        cause: its name, one of a fixed set of words.
        subject: the parameter, node or file it is about.
        detail: what is wrong, in a few words.
        stage: of the bundle, if it is about one.
    """

    cause: str
    subject: str
    detail: str
    stage: str = ""

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
    read_graph(files.symbol)  # MXNet follows references into memory that is not there.
    stored = read_parameters(files.params)
    try:
        symbol = mx.sym.load(str(files.symbol))
        graph = parse_graph(symbol.tojson(), files.symbol)
        prove(graph)
        internals = mx.sym.load_json(graph.to_json()).get_internals()
    except mx.MXNetError as error:
        raise InputError(
            files.symbol, f"is refused by MXNet ({mxnet_reason(error)}); export the network again"
        ) from error
    except ValueError as error:
        raise InputError(files.symbol, f"is refused by MXNet ({error}); export the network again") from error
    parameters = full_names(stored, symbol.list_arguments(), symbol.list_auxiliary_states(), files.params)
    lost = tuple(name for name in stored if not has_prefix(name))
    return Network(files, symbol, graph, Counter(output.name for output in internals), parameters, lost)


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
            findings.append(Finding("non-finite value", full_name[4:], "holds NaN or infinity"))
    return findings + _shape_findings(network, input_shapes)


def require_binding(network: Network, input_shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a network whose parameters do not fit.

    Raises:
        InputError: names the first thing that is wrong.
    """
    findings = check_binding(network, input_shapes)
    if findings:
        raise InputError(network.files.params, f"{findings[0]}; export the network again")


def output_shapes(
    network: Network, symbol: "mx.sym.Symbol", input_shapes: Mapping[str, tuple[int, ...]]
) -> list[tuple[int, ...]]:
    """Of a symbol of this network, for inputs of these shapes; empty ones are not known.

    Raises:
        InputError: they do not fit.
    """
    try:
        return list(symbol.infer_shape_partial(**input_shapes)[1] or ())
    except mx.MXNetError as error:
        raise InputError(network.files.symbol, f"shapes do not fit: {mxnet_reason(error)}") from error


def _shape_findings(network: Network, input_shapes: Mapping[str, tuple[int, ...]]) -> list[Finding]:
    symbol = network.symbol
    known = {name: shape for name, shape in input_shapes.items() if shape and name in symbol.list_inputs()}
    try:
        argument_shapes, _, auxiliary_shapes = symbol.infer_shape_partial(**known)
    except mx.MXNetError as error:
        if len(known) < len(input_shapes):
            return []  # Some operators cannot infer anything from an input whose shape is not known yet.
        return [Finding("shapes do not fit", str(network.files.symbol), mxnet_reason(error))]
    wanted = dict(zip(_full_names(symbol), argument_shapes + auxiliary_shapes))
    return [
        Finding("wrong shape", name[4:], f"is {values.shape}, the graph takes {tuple(wanted[name])}")
        for name, values in network.parameters.items()
        if wanted.get(name) and 0 not in wanted[name] and tuple(wanted[name]) != values.shape
    ]


def _full_names(symbol: "mx.sym.Symbol") -> list[str]:
    """What the graph takes, inputs too, by the names a parameter file would give them."""
    arguments = [f"arg:{name}" for name in symbol.list_arguments()]
    return arguments + [f"aux:{name}" for name in symbol.list_auxiliary_states()]


def _other_prefix(full_name: str) -> str:
    return ("aux:" if full_name.startswith("arg:") else "arg:") + full_name[4:]
