"""Parts of graphs, as graphs of their own: cut, truncated, exploded, split into segments, widened to float64.

Where a part needs a tensor that it does not compute, it takes a variable instead (:func:`fed_name`).
"""

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from vqvae_gluon.artifacts.binding import Network, output_shapes
from vqvae_gluon.artifacts.graph import Graph, Node, Output
from vqvae_gluon.artifacts.quantize import widened_rounding

# Operators that make numbers of their own, float32 where nothing is said.
_FLOAT32_BY_DEFAULT = {
    *("_zeros", "_ones", "_full", "_arange", "_eye", "_linspace"),
    *("one_hot", "topk", "argsort", "Embedding", "_contrib_arange_like"),
}
_NARROW = {"float16": "float64", "bfloat16": "float64", "float32": "float64"}
_NARROW_FLAGS = {"0": "1", "2": "1", "12": "1"}  # mshadow's numbers of float32, float16, bfloat16; float64 is 1.


def fed_name(output: Output) -> str:
    """What a part calls the variable that stands for another node's output."""
    return f"fed:{output[0]}:{output[1]}"


def tap_name(output: Output) -> str:
    """What an observed graph calls the copy of an output."""
    return f"tap:{output[0]}:{output[1]}"


def part(
    graph: Graph, names: Collection[str], cut: Collection[Output] = (), outputs: Iterable[Output] = ()
) -> tuple[Graph, set[Output]]:
    """Some operators of a graph as a graph.

    Args:
        names: of the operators.
        cut: what is fed although the part computes it.
        outputs: of the part; when left out, those that no node of the part takes.

    Returns:
        The part, and what it must be fed beside the inputs of the whole.
    """
    names = set(names)
    nodes: dict[str, Node] = {}
    fed: set[Output] = set()
    taken: set[str] = set()
    source = graph.by_name()

    def take(output: Output) -> Output:
        name = output[0]
        if source[name].is_variable:
            nodes.setdefault(name, source[name])
            return output
        if name in names and output not in cut:
            taken.add(name)
            return output
        fed.add(output)
        nodes.setdefault(fed_name(output), Node(fed_name(output), "null", {}, ()))
        return fed_name(output), 0

    for node in graph.nodes:
        if node.name in names:
            inputs = tuple(take(output) for output in node.inputs)
            nodes[node.name] = dataclasses.replace(node, inputs=inputs)
    ends = names - taken
    heads = tuple(outputs) or tuple((node.name, 0) for node in graph.operators() if node.name in ends)
    return Graph(graph.path, tuple(nodes.values()), heads, graph.numpy), fed


def observed(graph: Graph, visible: Mapping[str, int]) -> tuple[Graph, dict[str, Output]]:
    """The same graph with a copy behind every output, and the copies as its outputs.

    An executor that fuses operators cannot bind a graph whose outputs are those of every node: the patterns that it
    fuses lie across them. Nothing is fused across a copy.

    Returns:
        The graph, and for the name of each copy what it is a copy of.
    """
    copies: dict[str, Output] = {}
    nodes = []
    variables = {node.name for node in graph.nodes if node.is_variable}
    for node in graph.nodes:
        inputs = tuple(output if output[0] in variables else (tap_name(output), 0) for output in node.inputs)
        nodes.append(dataclasses.replace(node, inputs=inputs))
        for k in range(0 if node.is_variable else visible[node.name]):
            copies[tap_name((node.name, k))] = (node.name, k)
            nodes.append(Node(tap_name((node.name, k)), "BlockGrad", {}, ((node.name, k),)))
    return dataclasses.replace(graph, nodes=tuple(nodes), outputs=tuple((name, 0) for name in copies)), copies


def ancestors(graph: Graph, outputs: Iterable[Output], cut: Collection[Output] = ()) -> list[str]:
    """The operators that outputs come from, in graph order, the outputs' own among them. What lies behind a cut
    tensor does not count."""
    wanted = {name for name, _ in outputs}
    for node in reversed(graph.nodes):
        if node.name in wanted:
            wanted.update(name for name, index in node.inputs if (name, index) not in cut)
    return [node.name for node in graph.operators() if node.name in wanted]


def descendants(graph: Graph, outputs: Collection[Output]) -> set[str]:
    """The nodes that take some outputs, directly or through others."""
    found: set[str] = set()
    for node in graph.nodes:
        if any(output in outputs or output[0] in found for output in node.inputs):
            found.add(node.name)
    return found


def operator_inputs(graph: Graph, name: str) -> list[Output]:
    """The outputs of operators that a node takes."""
    source = graph.by_name()
    return [output for output in source[name].inputs if not source[output[0]].is_variable]


def rename(graph: Graph, names: Mapping[str, str]) -> Graph:
    """The same graph with other names for some of its nodes."""

    def renamed(outputs: Iterable[Output]) -> tuple[Output, ...]:
        return tuple((names.get(name, name), k) for name, k in outputs)

    nodes = (
        dataclasses.replace(node, name=names.get(node.name, node.name), inputs=renamed(node.inputs))
        for node in graph.nodes
    )
    return dataclasses.replace(graph, nodes=tuple(nodes), outputs=renamed(graph.outputs))


def output_bytes(network: Network, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """How much the outputs of every node take in float32, by its name; 0 where that cannot be told.

    Args:
        shapes: of the graph's inputs.
    """
    internals = network.symbol.get_internals()
    known = {name: shape for name, shape in shapes.items() if name in network.symbol.list_inputs()}
    found = output_shapes(network, internals, known)
    owners = [node.name for node in network.graph.nodes for _ in range(network.visible[node.name])]
    sizes = dict.fromkeys(owners, 0)
    for name, shape in zip(owners, found):
        sizes[name] += max(0, math.prod(shape)) * np.dtype(np.float32).itemsize if shape else 0
    return sizes


def segments(names: Iterable[str], sizes: Mapping[str, int], max_bytes: int) -> list[list[str]]:
    """Operators in runs, in their order, that take no more than a budget together, if a single one does not."""
    result: list[list[str]] = [[]]
    filled = 0
    for name in names:
        if result[-1] and filled + sizes[name] > max_bytes:
            result.append([])
            filled = 0
        result[-1].append(name)
        filled += sizes[name]
    return result


def widen(graph: Graph) -> Graph:
    """The same graph in float64: every type that a node or a variable names is one. What rounds to fewer digits still
    does, with the help of nodes that the graph does not have."""
    nodes = (_widened(wide) for node in graph.nodes for wide in widened_rounding(node))
    return dataclasses.replace(graph, nodes=tuple(nodes))


def widen_values(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same numbers, the floating ones in float64."""
    return {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in values.items()}


def _widened(node: Node) -> Node:
    attributes = dict(node.attributes)
    if node.operator in _FLOAT32_BY_DEFAULT:
        attributes.setdefault("dtype", "float32")
    for key, wider in (("dtype", _NARROW), ("__dtype__", _NARROW_FLAGS)):
        if key in attributes:
            attributes[key] = wider.get(attributes[key], attributes[key])
    return dataclasses.replace(node, attributes=attributes)
