"""What MXNet itself says of every node of a graph, asked before the graph is used: MXNet follows a number of an output
or a missing input of a file into memory that is not there. The C++ side (cpp_bindings/src/network.cc) does the same."""

import ctypes
from collections.abc import Iterable
from functools import lru_cache

from vqvae_gluon.artifacts.graph import Graph, Node, Output, parse_subgraph
from vqvae_gluon.compat import forget_range_errors, mx, mxnet_reason

MAX_OUTPUTS = 100_000
_TRUE = ("True", "true", "1")
_QUANTIZED_OUTPUTS = 3  # The values, the least and the most of them.


def prove(graph: Graph, before: int = 0) -> int:
    """Prove that every operator is known, has attributes that it can read and as many inputs as it takes, and that no
    reference points at an output that its node does not have; in the graphs within nodes, too.

    Args:
        before: outputs of the graph that it lies in.

    Returns:
        How many outputs there are in all.

    Raises:
        ValueError: says which node is wrong.
    """
    counts: dict[str, int] = {}
    total = before

    def check(outputs: Iterable[Output]) -> None:
        for name, number in outputs:
            if number >= counts[name]:
                raise ValueError(f"{name} has no output {number}")

    for node in graph.nodes:
        check(node.inputs)
        counts[node.name] = 1 if node.is_variable else _outputs(node)
        total += counts[node.name]
        if total > MAX_OUTPUTS:
            raise ValueError(f"{node.name}: the graph has more than {MAX_OUTPUTS} outputs of nodes")
        for document in node.subgraphs:
            total = prove(parse_subgraph(document, graph.path), total)
    check(graph.outputs)
    return total


def _outputs(node: Node) -> int:
    if node.subgraphs:  # MXNet makes none of such a node without them.
        if node.operator.startswith("_sg_mkldnn_"):
            quantized = node.attributes.get("quantized") in _TRUE
            return _QUANTIZED_OUTPUTS if quantized and node.attributes.get("enable_float_output") not in _TRUE else 1
        return int(node.attributes.get("num_outputs", "0"))
    try:
        outputs, inputs = _alone(node.operator, tuple(node.attributes.items()))
    except mx.MXNetError as error:
        raise ValueError(f"{node.name}: {mxnet_reason(error)}") from error
    if inputs != len(node.inputs):
        raise ValueError(f"{node.name}: {node.operator} takes {inputs} inputs, not {len(node.inputs)}")
    return outputs


@lru_cache(maxsize=4096)
def _alone(operator: str, attributes: tuple[tuple[str, str], ...]) -> tuple[int, int]:
    """How many outputs and inputs an operator has. Without inputs it is given a variable for each that it takes."""
    library, check = mx.base._LIB, mx.base.check_call
    handle, symbol = ctypes.c_void_p(), ctypes.c_void_p()
    forget_range_errors()
    check(library.NNGetOpHandle(operator.encode(), ctypes.byref(handle)))
    texts = ctypes.c_char_p * len(attributes)
    keys = texts(*(key.encode() for key, _ in attributes))
    values = texts(*(value.encode() for _, value in attributes))
    check(library.MXSymbolCreateAtomicSymbol(handle, len(attributes), keys, values, ctypes.byref(symbol)))
    try:
        outputs, inputs, names = ctypes.c_uint(), ctypes.c_uint(), ctypes.POINTER(ctypes.c_char_p)()
        check(library.MXSymbolGetNumOutputs(symbol, ctypes.byref(outputs)))
        check(library.MXSymbolCompose(symbol, b"node", 0, None, None))
        check(library.NNSymbolListInputNames(symbol, 0, ctypes.byref(inputs), ctypes.byref(names)))
    finally:
        library.MXSymbolFree(symbol)
    return outputs.value, inputs.value


def describe_operator(operator: str) -> dict[str, str]:
    """What an operator of MXNet's registry takes, inputs and attributes, and MXNet's words for the type of each."""
    library, check = mx.base._LIB, mx.base.check_call
    handle, count = ctypes.c_void_p(), ctypes.c_uint()
    check(library.NNGetOpHandle(operator.encode(), ctypes.byref(handle)))
    texts = [ctypes.c_char_p() for _ in range(4)]
    names, kinds, more = (ctypes.POINTER(ctypes.c_char_p)() for _ in range(3))
    info = (*texts[:2], count, names, kinds, more, *texts[2:])
    check(library.MXSymbolGetAtomicSymbolInfo(handle, *map(ctypes.byref, info)))
    return {names[i].decode(): kinds[i].decode() for i in range(count.value)}
