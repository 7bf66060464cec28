"""MXNet symbol files: read, proved sound, and looked at without MXNet.

``mx.sym.load`` follows any index that a file names, into memory that is not there. The C++ side
(cpp_bindings/src/graph.cc) follows the same rules.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqvae_gluon.errors import InputError

_MAX_NODES = 1_000_000


@dataclass(frozen=True)
class Node:
    """One node of a graph.

    Attributes:
        name: unique in its graph.
        operator: MXNet's name of it; ``null`` for a variable.
        attributes: the operator's, as the file has them.
        inputs: name of the node and index of the output that feed each input.
    """

    name: str
    operator: str
    attributes: dict[str, str]
    inputs: tuple[tuple[str, int], ...]

    @property
    def is_variable(self) -> bool:
        return self.operator == "null"


@dataclass(frozen=True)
class Graph:
    """A symbol file whose every reference points at an earlier node.

    Attributes:
        nodes: in topological order.
        outputs: of the graph: name of the node, and index of its output.
    """

    path: Path
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[str, int], ...]

    def consumers(self, variable: str) -> list[str]:
        """The nodes that take a variable, in graph order."""
        return [node.name for node in self.nodes if any(name == variable for name, _ in node.inputs)]


def read_graph(path: Path) -> Graph:
    """Read a symbol file.

    Raises:
        InputError: the file is missing, is no symbol file, or its references are not sound.
    """
    try:
        document = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror}); export the network again") from error
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is not JSON ({error}); export the network again") from error
    try:
        nodes = _nodes(document)
        return Graph(Path(path), nodes, tuple((nodes[head[0]].name, head[1]) for head in document["heads"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(path, f"is not a sound MXNet graph ({error}); export the network again") from error


def _nodes(document: Any) -> tuple[Node, ...]:
    rows = document["nodes"]
    if not isinstance(rows, list) or not 0 < len(rows) <= _MAX_NODES:
        raise ValueError("its list of nodes is empty or too long")
    nodes: list[Node] = []
    for row in rows:
        if not all(isinstance(row[key], kind) for key, kind in (("name", str), ("op", str), ("inputs", list))):
            raise ValueError("a node has no name, operator and list of inputs")
        for reference in row["inputs"]:
            _check_reference(reference, len(nodes))
        inputs = tuple((nodes[reference[0]].name, reference[1]) for reference in row["inputs"])
        node = Node(row["name"], row["op"], dict(row.get("attrs", {})), inputs)
        if node.is_variable and inputs:
            raise ValueError(f"the variable {node.name} has inputs")
        nodes.append(node)
    if len({node.name for node in nodes}) != len(nodes):
        raise ValueError("two nodes have one name")
    variables = [index for index, node in enumerate(nodes) if node.is_variable]
    if sorted(document["arg_nodes"]) != variables:
        raise ValueError("arg_nodes are not its variables")
    if not isinstance(document["heads"], list) or not document["heads"]:
        raise ValueError("it has no output")
    for reference in document["heads"]:
        _check_reference(reference, len(nodes))
    return tuple(nodes)


def _check_reference(reference: Any, limit: int) -> None:
    if not isinstance(reference, list) or len(reference) not in (2, 3):
        raise ValueError("a reference is no [node, output, version]")
    if not all(type(number) is int and number >= 0 for number in reference) or reference[0] >= limit:
        raise ValueError(f"a reference to node {reference[0]} where there are {limit}")
