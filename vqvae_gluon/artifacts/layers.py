"""Two graphs of one network in different precisions: which layers differ, and mixtures of both."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from vqvae_gluon.artifacts.binding import Network
from vqvae_gluon.artifacts.graph import Graph, Node, Output


@dataclass(frozen=True)
class Layer:
    """An operator that both graphs have by name, and compute differently.

    Attributes:
        operator: of the first graph.
        nodes: of the second graph, the layer's own last: what it computes the layer by, and the parameters of that.
        inputs: outputs of operators of both graphs that it is computed from.
    """

    name: str
    operator: str
    nodes: tuple[Node, ...]
    inputs: tuple[Output, ...]

    @property
    def operators(self) -> list[str]:
        return [node.name for node in self.nodes if not node.is_variable]


def changed_layers(ours: Network, theirs: Network) -> dict[str, Layer]:
    """The layers of the second network that are not those of the first, by name, in graph order: they are computed by
    other operators, or from parameters that are not the same bit for bit."""
    shared = {node.name for node in ours.graph.operators()} & {node.name for node in theirs.graph.operators()}
    found = {}
    for node in theirs.graph.operators():
        if node.name in shared:
            layer, other = (_layer(network, node.name, shared) for network in (theirs, ours))
            if _meaning(layer, theirs.parameters) != _meaning(other, ours.parameters):
                operator = other.nodes[-1].operator
                found[node.name] = dataclasses.replace(layer, operator=operator)
    return found


def mixed(
    ours: Network, theirs: Network, layers: Mapping[str, Layer], names: Collection[str]
) -> tuple[Graph, dict[str, np.ndarray]]:
    """The first network, in which some layers are the second's.

    Args:
        layers: what :func:`changed_layers` found.
        names: of those that are the second's.

    Returns:
        The graph, and its parameters by full name.
    """
    nodes: dict[str, Node] = {}
    parameters = dict(ours.parameters)
    for node in ours.graph.nodes:
        if node.name not in names:
            nodes[node.name] = node
            continue
        layer = layers[node.name]
        inner = {other.name: f"theirs:{other.name}" for other in layer.nodes[:-1]}
        for other in layer.nodes:
            inputs = tuple((inner.get(name, name), k) for name, k in other.inputs)
            renamed = dataclasses.replace(other, name=inner.get(other.name, other.name), inputs=inputs)
            nodes[renamed.name] = renamed
            for prefix in ("arg:", "aux:"):
                if other.is_variable and prefix + other.name in theirs.parameters:
                    parameters[prefix + renamed.name] = theirs.parameters[prefix + other.name]
    taken = {name for name, _ in ours.graph.outputs}
    for node in reversed(nodes.values()):
        if node.name in taken:
            taken.update(name for name, _ in node.inputs)
    graph = dataclasses.replace(ours.graph, nodes=tuple(node for node in nodes.values() if node.name in taken))
    return graph, {name: values for name, values in parameters.items() if name[4:] in taken}


def _layer(network: Network, name: str, shared: Collection[str]) -> Layer:
    """How a network computes a node from nodes that both have. Inputs of the graph are not its own."""
    source = network.graph.by_name()
    bound = {parameter[4:] for parameter in network.parameters}
    wanted = {name}
    inputs: list[Output] = []
    nodes: list[Node] = []
    for node in reversed(network.graph.nodes):
        if node.name not in wanted:
            continue
        nodes.insert(0, node)
        for output in node.inputs:
            before = source[output[0]]
            if before.is_variable and before.name not in bound:
                continue
            if before.name in shared:
                inputs.insert(0, output)
            else:
                wanted.add(before.name)
    return Layer(name, source[name].operator, tuple(nodes), tuple(dict.fromkeys(inputs)))


def _meaning(layer: Layer, parameters: Mapping[str, np.ndarray]) -> list:
    """What tells two layers apart: operators, attributes, where they take their inputs from, and parameters."""
    rows: list = []
    for node in layer.nodes:
        attributes = {} if node.is_variable else node.attributes
        row: list = [node.name, node.operator, attributes, node.inputs]
        for prefix in ("arg:", "aux:"):
            values = parameters.get(prefix + node.name)
            if node.is_variable and values is not None:
                row += [values.dtype.str, values.shape, values.tobytes()]
        rows.append(row)
    return rows
