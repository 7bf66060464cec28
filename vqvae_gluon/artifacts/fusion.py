"""What MXNet 1.9.1's executor makes of a graph that it fuses wrongly, told from the graph alone.

Before it binds a graph, the executor looks for chains that oneDNN computes in one call: a convolution, its BatchNorm, a
sum and an activation; or a fully connected layer and a function of it. Only the chain's last result is left then. A
tensor within the chain that something else takes, too, ends the chain, but the search for such takers has gaps:

* A sum that the chain itself leads to would close a circle. It is crossed off the list of takers, and the search goes
  on as if it took nothing: ``x + f(relu(x))`` behind a convolution that made x.
* A taker that belongs to another chain already is not looked at.
* Outputs of the graph are no takers.
* Behind a fully connected layer, a function that is met first is fused whoever comes after it.

What takes the tensor gets the end of the chain instead, or what takes the end gets the tensor. This module repeats the
search (src/operator/subgraph of MXNet: build_subgraph.cc, mkldnn_conv_property.h, mkldnn_fc_property.h) and names who
is given another tensor. cpp_bindings/src/fusion.cc does the same.
"""

import dataclasses
from collections.abc import Collection, Iterable
from typing import Optional

from vqvae_gluon.artifacts.graph import Graph, Node, Output

# The variable that chooses what fuses, read whenever an executor is bound. NONE would do as a value, but MXNet writes a
# line about it to stderr every time; this back end of its own fuses what it is told to, and is told nothing.
BACKEND = "MXNET_SUBGRAPH_BACKEND"
NO_BACKEND = "default"

_ALIASES = {"_plus": "elemwise_add", "_Plus": "elemwise_add", "_add": "elemwise_add", "identity": "_copy"}
_ACTIVATIONS = {"relu", "sigmoid", "softrelu", "tanh"}
_FUNCTIONS = {"square", "sqrt", "exp", "abs"}
# From this number of takers on, the order in which MXNet looks at them depends on where they lie in memory.
_ANY_ORDER = 3


def misfused(graph: Graph) -> list[str]:
    """The nodes that MXNet's executors compute wrongly, or cannot bind, because they fuse operators; in graph order.

    Each takes a tensor, or is an output of the graph, that the fused operator no longer gives. It, or what takes the
    end of the same chain, is wrong. Types and shapes are not known here: float32 is taken for granted, because nothing
    else is fused.
    """
    fused, unbound = _without_identities(graph)
    search = _Search(fused)
    for node in search.nodes:
        if _operator(node) == "Convolution" and _extents(node.attributes.get("kernel", "")) in (2, 3):
            search.fuse_convolution(node)
    for node in search.nodes:
        if _operator(node) == "FullyConnected":
            search.fuse_dense(node)
    return [node.name for node in graph.nodes if node.name in search.wrong | unbound]


def _operator(node: Node) -> str:
    return _ALIASES.get(node.operator, node.operator)


def _extents(text: str) -> int:
    """How many numbers a tuple holds, such as the kernel ``(3, 3)``."""
    return sum(1 for number in text.strip("()[] ").split(",") if number.strip())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _is_activation(node: Node, leaky: Collection[str]) -> bool:
    kind = node.attributes.get("act_type", "leaky")
    operator = _operator(node)
    return (
        (operator == "Activation" and kind in _ACTIVATIONS)
        or (operator == "LeakyReLU" and kind in leaky)
        or (operator == "clip" and _number(node.attributes.get("a_min", "")) == 0)
    )


def _fuses_with_convolution(chain: list[Node], node: Node) -> bool:
    last = _operator(chain[-1])
    if _operator(node) == "BatchNorm":
        return last == "Convolution"
    if _operator(node) == "elemwise_add":
        return last in ("Convolution", "BatchNorm")
    return last in ("Convolution", "BatchNorm", "elemwise_add") and _is_activation(node, ("leaky", "gelu"))


def _fuses_with_dense(node: Node) -> bool:
    return _operator(node) in _FUNCTIONS or _is_activation(node, ("leaky", "elu", "gelu"))


def _without_identities(graph: Graph) -> tuple[Graph, set[str]]:
    """The graph without Dropout and copies behind operators, which the executor takes out before it fuses, and the
    names of those that it fails at: what stands behind one that it keeps."""
    source = graph.by_name()
    merged: set[str] = set()
    unbound: set[str] = set()
    instead: dict[str, Output] = {}

    def real(outputs: Iterable[Output]) -> tuple[Output, ...]:
        return tuple(instead.get(name, (name, k)) for name, k in outputs)

    nodes = []
    for node in _in_search_order(graph):
        dropout = _operator(node) == "Dropout" and node.attributes.get("mode", "training") == "training"
        before = source[node.inputs[0][0]] if dropout or _operator(node) == "_copy" else node
        if before is not node and not before.is_variable and before.name not in merged:
            merged |= {before.name, node.name}
            instead[node.name] = real(node.inputs)[0]
            if _operator(before) in ("Dropout", "_copy"):
                unbound.add(node.name)
        else:
            nodes.append(dataclasses.replace(node, inputs=real(node.inputs)))
    return dataclasses.replace(graph, nodes=tuple(nodes), outputs=real(graph.outputs)), unbound


def _in_search_order(graph: Graph) -> list[Node]:
    """The nodes that the outputs need, depth first: MXNet's own order, whatever that of the file is."""
    source = graph.by_name()
    found: dict[str, Node] = {}
    for head, _ in graph.outputs:
        stack = [(head, iter(source[head].inputs))]
        while stack:
            name, inputs = stack[-1]
            following = next((taken for taken, _ in inputs if taken not in found), None)
            if following is None:
                found.setdefault(name, source[name])
                stack.pop()
            else:
                stack.append((following, iter(source[following].inputs)))
    return list(found.values())


class _Search:
    """MXNet's search for chains.

    Attributes:
        nodes: in the order in which it looks at them.
        wrong: names of the nodes that are given another tensor than they take.
    """

    def __init__(self, graph: Graph):
        self.nodes = _in_search_order(graph)
        self.wrong: set[str] = set()
        self._outputs = graph.outputs
        self._place = {node.name: place for place, node in enumerate(self.nodes)}
        self._source = {node.name: node for node in self.nodes}
        self._takers: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(name for name, _ in node.inputs):
                self._takers[name].append(node)
        self._fused: set[str] = set()  # Nodes that belong to a chain.

    def fuse_convolution(self, start: Node) -> None:
        crossed_off: set[str] = set()
        while True:
            chain, reached = self._grow(start, crossed_off)
            circle = self._circle(reached)
            if circle is None:
                break
            crossed_off.add(circle)
        self._fused.update(node.name for node in chain)
        self._judge(chain)

    def fuse_dense(self, start: Node) -> None:
        takers = self._takers[start.name]
        for taker in takers if len(takers) >= _ANY_ORDER else takers[-1:]:
            if _fuses_with_dense(taker):
                self._judge([start, taker])

    def _grow(self, start: Node, crossed_off: set[str]) -> tuple[list[Node], list[Node]]:
        """The chain behind a convolution, and all nodes that the search took for a part of it on the way."""
        chain, reached = [start], [start]
        while True:
            last = chain[-1]
            # Of several takers the last one comes first.
            takers = [node for node in reversed(self._takers[last.name]) if node.name not in crossed_off | self._fused]
            if not takers or not _fuses_with_convolution(chain, takers[0]):
                return chain, reached
            reached.append(takers[0])
            if len(takers) > 1:
                return chain, reached
            chain.append(takers[0])

    def _circle(self, reached: list[Node]) -> Optional[str]:
        """The last node of a chain that closes a circle through nodes outside it; None if none does."""
        within = {node.name for node in reached}
        outside = self._fused | within  # What MXNet does not count as a neighbour.
        leaving: dict[str, Node] = {}
        entering: dict[str, Node] = {}
        for node in reached:
            leaving.update((taker.name, node) for taker in self._takers[node.name] if taker.name not in outside)
            entering.update((name, node) for name, _ in node.inputs if name not in outside)
        earliest = min((self._place[name] for name in leaving), default=len(self.nodes))
        ends = []
        for name, end in entering.items():
            met, stack = {name}, [name]
            while stack:
                current = stack.pop()
                if self._place[current] < earliest:
                    continue
                if current in leaving:
                    ends += [end, leaving[current]]
                before = {taken for taken, _ in self._source[current].inputs} - within - met
                met |= before
                stack += before
        return max(ends, key=lambda node: self._place[node.name]).name if ends else None

    def _judge(self, chain: list[Node]) -> None:
        """Note who takes what the fused operator does not give."""
        names = {node.name for node in chain}
        for node, following in zip(chain, chain[1:]):
            links = [(place, k) for place, (name, k) in enumerate(following.inputs) if name == node.name]
            if len(links) != 1 or links[0][1] or (links[0][0] and _operator(following) != "elemwise_add"):
                self.wrong.add(following.name)
            self.wrong.update(taker.name for taker in self._takers[node.name] if taker.name not in names)
            if any(name == node.name for name, _ in self._outputs):
                self.wrong.add(node.name)
        # Of the last one the first output alone is left.
        last = chain[-1].name
        hidden = {(last, k) for name, k in (*self._outputs, *_taken(self.nodes)) if name == last and k}
        if any(output in hidden for output in self._outputs):
            self.wrong.add(last)
        self.wrong.update(node.name for node in self._takers[last] if hidden & set(node.inputs))
        # The statistics of a BatchNorm are merged into the kernel, whose first axis is that of the channels.
        channels = (1, -1 - _extents(chain[0].attributes.get("kernel", "")))
        norms = [node for node in chain if _operator(node) == "BatchNorm"]
        self.wrong.update(node.name for node in norms if _number(node.attributes.get("axis", "1")) not in channels)


def _taken(nodes: Iterable[Node]) -> Iterable[Output]:
    return (output for node in nodes for output in node.inputs)
