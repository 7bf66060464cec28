"""MXNet symbol files: read, proved sound, and looked at without MXNet.

``mx.sym.load`` follows any index that a file names, into memory that is not there. The C++ side
(cpp_bindings/src/graph.cc) follows the same rules.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Union

from vqvae_gluon.artifacts.document import parse_document
from vqvae_gluon.artifacts.operators import RefusedOperator, check_attributes, check_operator, takes_subgraphs
from vqvae_gluon.artifacts.refusals import SYMBOL_FILE, graph_refusal
from vqvae_gluon.errors import InputError
from vqvae_gluon.files import read_file

_MAX_NODES = 1_000_000
_MAX_BYTES = 1 << 25  # MXNet takes some ten times as much to read it.
_TYPES = tuple("01234567")  # mshadow's type flags
_WANTED = "give the -symbol.json that net.export(prefix) writes"
_NUMPY = "is_np_shape"
_VARIABLE = "null"
_ATTRIBUTES = ("param", "attr", "attrs")  # What old versions of MXNet called them first; it reads all three.
_DEVICE = "ctx"  # The one that the exporting program used; a graph runs on the processor here.
_CUSTOM = "op_type"  # The name that an operator written in Python is registered by.
_WRITTEN_AS = 10901  # The version of MXNet whose form to_json writes.

# Name of a node, and index of one of its outputs.
Output = tuple[str, int]


@dataclass(frozen=True)
class Node:
    """One node of a graph.

    Attributes:
        name: unique in its graph.
        operator: MXNet's name of it; ``null`` for a variable.
        attributes: the operator's, as the file has them.
        inputs: name of the node and index of the output that feed each input.
        subgraphs: of a control flow operator, as the file has them.
    """

    name: str
    operator: str
    attributes: dict[str, str]
    inputs: tuple[Output, ...]
    subgraphs: tuple[Any, ...] = ()

    @property
    def is_variable(self) -> bool:
        return self.operator == _VARIABLE


@dataclass(frozen=True)
class Graph:
    """A symbol file whose every reference points at an earlier node.

    Attributes:
        nodes: in topological order.
        outputs: of the graph: name of the node, and index of its output.
        text: of a file, as MXNet is to read it: nothing in it is said twice.
        numpy: whether it was made under NumPy's rules for shapes (``npx.set_np()``), where there are scalars and
            extents of 0, and must be run so.
    """

    path: Path
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]
    numpy: bool = False
    text: str = field(default="", repr=False, compare=False)

    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    def operators(self) -> list[Node]:
        """The nodes that compute something, in graph order."""
        return [node for node in self.nodes if not node.is_variable]

    def consumers(self, variable: str) -> list[str]:
        """The nodes that take a variable, in graph order."""
        return [node.name for node in self.nodes if any(name == variable for name, _ in node.inputs)]

    def to_json(self) -> str:
        """The graph as a symbol file holds it."""
        at = {node.name: index for index, node in enumerate(self.nodes)}
        rows = []
        for node in self.nodes:
            inputs = [[at[name], index, 0] for name, index in node.inputs]
            row = {"op": node.operator, "name": node.name, "attrs": node.attributes, "inputs": inputs}
            rows.append({**row, "subgraphs": node.subgraphs} if node.subgraphs else row)
        variables = [index for index, node in enumerate(self.nodes) if node.is_variable]
        heads = [[at[name], index, 0] for name, index in self.outputs]
        attributes = {"mxnet_version": ["int", _WRITTEN_AS], **({_NUMPY: ["int", 1]} if self.numpy else {})}
        document = {"nodes": rows, "arg_nodes": variables, "heads": heads, "attrs": attributes}
        return json.dumps(document, ensure_ascii=False)  # MXNet does not read the other form of these letters.


def read_graph(path: Path, of_bundle: bool = False) -> Graph:
    """Read a symbol file.

    Args:
        of_bundle: the graph is one of a bundle, which may hold fewer operators.

    Raises:
        InputError: the file is missing, is no symbol file, its references are not sound, or it holds operators or
            numbers that MXNet is not to be asked for.
    """
    return parse_graph(read_symbol(path), path, of_bundle)


def parse_subgraph(document: Any, path: Path) -> Graph:
    """A graph that lies within a node, as the node has it."""
    nodes = _nodes(document, of_bundle=False, within=True)
    return Graph(path, nodes, _outputs(document, nodes))


def read_symbol(path: Path) -> bytes:
    """What a symbol file holds, for :func:`parse_graph`.

    Raises:
        InputError: the file is missing or far too long.
    """
    return read_file(path, _MAX_BYTES, f"; {_WANTED}")


def parse_graph(text: Union[str, bytes], path: Path, of_bundle: bool = False) -> Graph:
    """The graph of a symbol file's text; the path is for messages. See :func:`read_graph`."""
    document = parse_document(text.encode() if isinstance(text, str) else text, path, _WANTED)
    try:
        nodes = _nodes(document, of_bundle)
        outputs = _outputs(document, nodes)
        return Graph(Path(path), nodes, outputs, _is_numpy(document), json.dumps(document, ensure_ascii=False))
    except RefusedOperator as error:
        raise InputError(path, graph_refusal(str(error))) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(path, f"is not a sound MXNet graph ({error}); {SYMBOL_FILE}") from error


def _outputs(document: Any, nodes: tuple[Node, ...]) -> tuple[Output, ...]:
    return tuple((nodes[head[0]].name, head[1]) for head in document["heads"])


def is_numpy(path: Path) -> bool:
    """Whether a symbol file's graph is one of NumPy's rules; see :func:`read_graph`. Quick where it is not."""
    data = read_symbol(path)
    return f'"{_NUMPY}"'.encode() in data and parse_graph(data, path).numpy


def _is_numpy(document: Any) -> bool:
    attributes = document.get("attrs")
    value = attributes.get(_NUMPY) if isinstance(attributes, dict) else None
    if not isinstance(value, list) or len(value) != 2:
        return False
    return type(value[1]) is int and value[1] in (1, 2)  # For a thread, or for all.


def _nodes(document: Any, of_bundle: bool, within: bool = False) -> tuple[Node, ...]:
    """The nodes of a graph, checked.

    Args:
        within: the graph is a subgraph of a node, whose variables are bound by their places.
    """
    rows = document["nodes"]
    if not isinstance(rows, list) or not 0 < len(rows) <= _MAX_NODES:
        raise ValueError("its list of nodes is empty or too long")
    nodes: list[Node] = []
    taken: set[str] = set()
    calls: dict[str, int] = {}
    for row in rows:
        node = _node(row, nodes, of_bundle)
        name = _unique(node.name, taken, calls, variable=node.is_variable and not within)
        taken.add(name)
        nodes.append(node if name == node.name else replace(node, name=name))
    variables = [index for index, node in enumerate(nodes) if node.is_variable]
    if any(type(index) is not int for index in document["arg_nodes"]) or sorted(document["arg_nodes"]) != variables:
        raise ValueError("arg_nodes are not its variables")
    if not isinstance(document["heads"], list) or not document["heads"]:
        raise ValueError("it has no output")
    for reference in document["heads"]:
        _check_reference(reference, len(nodes))
    return tuple(nodes)


def _node(row: Any, before: list[Node], of_bundle: bool) -> Node:
    """A node, which may refer to those before it."""
    if not all(isinstance(row[key], kind) for key, kind in (("name", str), ("op", str), ("inputs", list))):
        raise ValueError("a node has no name, operator and list of inputs")
    for reference in row["inputs"]:
        _check_reference(reference, len(before))
    inputs = tuple((before[reference[0]].name, reference[1]) for reference in row["inputs"])
    attributes = _attributes(row)
    node = Node(row["name"], row["op"], attributes, inputs, tuple(row.get("subgraphs", ())))
    if node.is_variable and inputs:
        raise ValueError(f"the variable {node.name} has inputs")
    for subgraph in node.subgraphs:
        _nodes(subgraph, of_bundle, within=True)
    try:
        check_operator(node.operator, of_bundle)
        if node.subgraphs and not takes_subgraphs(node.operator):
            raise ValueError(f"{node.operator} takes no subgraphs")
        _check_attributes(attributes)
        check_attributes(attributes, len(inputs), len(node.subgraphs))
    except RefusedOperator as error:
        of = f" ({attributes[_CUSTOM]})" if _CUSTOM in attributes else ""
        raise RefusedOperator(f"{node.name}{of}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{node.name}: {error}") from error
    if not node.is_variable:
        for held in (attributes, *(row.get(key, {}) for key in _ATTRIBUTES)):
            held.pop(_DEVICE, None)
    return node


def _unique(name: str, taken: set[str], calls: dict[str, int], variable: bool) -> str:
    """Gluon gives two calls of one block one name; the second is told apart as ``<name>~2``. Variables are bound by
    name, so theirs must be unique."""
    if name not in taken:
        return name
    if variable:
        raise ValueError(f"two nodes have the name of the variable {name}")
    calls[name] = calls.get(name, 1) + 1
    while f"{name}~{calls[name]}" in taken:
        calls[name] += 1
    return f"{name}~{calls[name]}"


def _attributes(row: Any) -> dict[str, Any]:
    """Of a node."""
    attributes: dict[str, Any] = {}
    for key in _ATTRIBUTES:
        for name, value in row.get(key, {}).items():
            if attributes.setdefault(name, value) != value:
                raise ValueError(f"the attribute {name} of {row['name']} has two values")
    return attributes


def _check_attributes(attributes: dict[str, Any]) -> None:
    """MXNet takes the numbers of types and storages as they come."""
    for name, value in attributes.items():
        if not isinstance(value, str):
            raise ValueError(f"the attribute {name} is no text")
        if (name == "__dtype__" and value not in _TYPES) or (name == "__storage_type__" and value != "0"):
            raise ValueError(f"{name} is {value}")


def _check_reference(reference: Any, limit: int) -> None:
    if not isinstance(reference, list) or len(reference) not in (2, 3):
        raise ValueError("a reference is no [node, output, version]")
    if not all(type(number) is int and number >= 0 for number in reference) or reference[0] >= limit:
        raise ValueError(f"a reference to node {reference[0]} where there are {limit}")
