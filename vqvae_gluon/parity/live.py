"""The comparison of a live block with its export."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Union

import numpy as np

from vqvae_gluon.artifacts.binding import is_reshape, read_network, shape_findings, write_network
from vqvae_gluon.artifacts.bundle import find_export
from vqvae_gluon.artifacts.graph import Graph, parse_graph
from vqvae_gluon.artifacts.operators import trusting
from vqvae_gluon.artifacts.parameters import DTYPES
from vqvae_gluon.artifacts.refusals import SHAPES, run_refusal
from vqvae_gluon.artifacts.surgery import rename
from vqvae_gluon.compat import mx, mxnet_reason
from vqvae_gluon.errors import InputError, UsageError
from vqvae_gluon.parity.harness import compare_exports
from vqvae_gluon.parity.inputs import Feed
from vqvae_gluon.parity.report import Report
from vqvae_gluon.parity.side import Side
from vqvae_gluon.parity.stages import GRAPH, MAX_MEMORY
from vqvae_gluon.runtimes import RUNTIMES
from vqvae_gluon.runtimes.base import Runtime
from vqvae_gluon.temporary import temporary_directory

# What a block takes: an array, or arrays and lists of them, one for each argument.
Inputs = Union[np.ndarray, "mx.nd.NDArray", Sequence[Any]]


def compare(
    net: "mx.gluon.HybridBlock",
    target: Union[str, Path],
    inputs: Inputs,
    candidate: Union[str, Runtime] = "cpp",
    max_memory: int = MAX_MEMORY,
    repeat: int = 1,
) -> Report:
    """Compare a live block with its export, as a runtime runs it.

    Args:
        net: with its parameters set. It is not changed, and need not be hybridized.
        target: prefix of a plain export (``net`` for ``net-symbol.json`` and ``net-0000.params``), its symbol file, or
            a bundle, of which that graph is taken whose inputs are the block's.
        inputs: one batch: an array for each argument of the block, of NumPy or MXNet; a list where the block takes one.
        candidate: the runtime that runs the export, or its name.
        max_memory: bytes of tensors that are held at once.
        repeat: how often both sides run, to see whether they give the same each time.

    Raises:
        InputError: the export or an input was rejected.
        RuntimeFailure: the block could not be run.
        UsageError: there is no runtime of that name, or another argument is of no use.
    """
    if not isinstance(net, mx.gluon.Block):
        raise UsageError("net", f"is {type(net).__name__}; give a Gluon block")
    if not isinstance(target, (str, Path)):
        raise UsageError("target", f"is {type(target).__name__}; give the prefix of an export, or a bundle")
    for name, number in (("max_memory", max_memory), ("repeat", repeat)):
        if not isinstance(number, int) or number < 1:
            raise UsageError(name, f"is {number!r}; give a whole number of at least 1")
    runtime = _runtime(candidate)
    reference = RUNTIMES["gluon"]()
    arguments = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    arrays = [_array(value) for value in _flat(arguments)]
    if not arrays:
        raise InputError("inputs", "are none; give an array for each argument of the block")
    try:
        symbol, names = _trace(net, arguments)
    except InputError:
        _run_block(net, arguments, arrays)  # If it does not take the inputs, that is what there is to be said.
        raise
    # What the user's own block calls may be called where its export does, such as operators written in Python.
    with trusting({node["op"] for node in json.loads(symbol.tojson())["nodes"]}):
        graph = parse_graph(symbol.tojson(), Path(net.name))
        _check_reshapes(net, graph, symbol, dict(zip(names, arrays)))
        expected = _run_block(net, arguments, arrays)
        parameters = _parameters_of(net, symbol)
        # The runtimes set NumPy's semantics themselves where a graph needs them.
        with (
            temporary_directory() as directory,
            mx.util.np_array(False),
            mx.util.np_shape(False),
        ):
            theirs = find_export(target, names)
            renamed = _names_of(graph, read_network(theirs).graph)
            graph = rename(graph, renamed)
            parameters = {name[:4] + renamed.get(name[4:], name[4:]): values for name, values in parameters.items()}
            feed = Feed("the inputs given", {renamed.get(name, name): a for name, a in zip(names, arrays)}, None, [])
            files = write_network(graph, parameters, directory / "live")
            report = compare_exports(reference, runtime, files, theirs, feed, max_memory, repeat)
            report.subject = f"the live block {net.name}"
            exported = Side(reference, read_network(files), GRAPH, next(feed.batches()), directory).outputs()
            for (name, node), values in zip(exported.items(), expected):
                if name in report.outputs and not np.array_equal(node.load(), values, equal_nan=True):
                    reason = "the live block gives other numbers than the graph that it exports"
                    report.outputs[name] = replace(report.outputs[name], reason=reason)
        return report


def _runtime(candidate: Union[str, Runtime]) -> Runtime:
    if isinstance(candidate, Runtime):
        return candidate
    if not isinstance(candidate, str) or candidate not in RUNTIMES:
        raise UsageError("candidate", f"is {candidate!r}, which is no runtime; give one of {', '.join(RUNTIMES)}")
    return RUNTIMES[candidate]()


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    """The arrays in arguments that may be lists, in Gluon's order."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def _like(values: Iterable[Any], flat: Iterator[Any]) -> list[Any]:
    """What `flat` gives, in lists as those of some arguments."""
    return [_like(value, flat) if isinstance(value, (list, tuple)) else next(flat) for value in values]


def _array(value: Any) -> np.ndarray:
    array = value.asnumpy() if isinstance(value, mx.nd.NDArray) else np.asarray(value)
    if array.dtype not in DTYPES.values() or array.ndim == 0 or array.size == 0:
        known = ", ".join(dtype.name for dtype in DTYPES.values())
        raise InputError("inputs", f"hold {array.dtype} of shape {array.shape}; give arrays of {known}, a batch each")
    return array


def _run_block(net: "mx.gluon.Block", arguments: Sequence[Any], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What a live block gives."""
    block = f"the block {net.name}"
    for name, parameter in net.collect_params().items():
        try:
            parameter.list_data()
        except mx.gluon.parameter.DeferredInitializationError:
            continue  # The first call decides its shape.
        except RuntimeError as error:
            raise InputError(
                block, f"its parameter {name} has no values; call net.initialize() or net.load_parameters(FILE) first"
            ) from error
    make = mx.np.array if mx.util.is_np_array() else mx.nd.array
    try:
        outputs = list(_flat([net(*_like(arguments, (make(array, dtype=array.dtype) for array in arrays)))]))
        if all(isinstance(output, mx.nd.NDArray) for output in outputs):
            return [output.asnumpy() for output in outputs]
    except Exception as error:  # It is the user's code.
        given = ", ".join(f"{array.dtype} {array.shape}" for array in arrays)
        types = {array.dtype.name for array in arrays}
        stored = {name: np.dtype(parameter.dtype).name for name, parameter in net.collect_params().items()}
        reason = mxnet_reason(error)
        why = run_refusal(reason, types, stored) if isinstance(error, mx.MXNetError) else reason
        raise InputError("inputs", f"{block} refuses {given}: {why}") from error
    kinds = ", ".join(sorted({type(output).__name__ for output in outputs}))
    raise InputError(block, f"gives {kinds}; only arrays, and lists of them, can be exported and compared")


def _trace(net: "mx.gluon.Block", arguments: Sequence[Any]) -> tuple["mx.sym.Symbol", list[str]]:
    """The graph that a block would export, without changing the block, and the names of its inputs."""
    count = len(list(_flat(arguments)))
    names = ["data"] if count == 1 else [f"data{i}" for i in range(count)]
    variables = [mx.sym.var(name) for name in names]
    if mx.util.is_np_array():
        variables = [variable.as_np_ndarray() for variable in variables]
    try:
        with mx.name.NameManager():
            outputs = list(_flat([net(*_like(arguments, iter(variables)))]))
        symbol = mx.sym.Group(outputs) if len(outputs) > 1 else outputs[0]
        nodes = json.loads(symbol.tojson())["nodes"]
    except Exception as error:  # It is the user's code.
        why = f"cannot be exported ({mxnet_reason(error)}); it must compute by F and its layers alone"
        raise InputError(f"the block {net.name}", why) from error
    if all(node["op"] == "null" for node in nodes):
        raise InputError(f"the block {net.name}", "has no operators, so that there is nothing to compare")
    return symbol, names


def _check_reshapes(
    net: "mx.gluon.Block", graph: Graph, symbol: "mx.sym.Symbol", inputs: Mapping[str, np.ndarray]
) -> None:
    """Refuse inputs that a Reshape of the block does not take: MXNet would write over memory that is not its own."""
    stored = {f"arg:{name}": tuple(parameter.shape or ()) for name, parameter in net.collect_params().items()}
    known = {
        name: shape for name, shape in stored.items() if shape and min(shape) > 0
    }  # The first call decides others.
    reshapes = {node.name for node in graph.operators() if is_reshape(node)}
    for finding in shape_findings(graph, symbol, known, {name: array.shape for name, array in inputs.items()}):
        if finding.subject in reshapes:
            raise InputError(f"the block {net.name}", f"{finding}; {finding.remedy or SHAPES}")


def _parameters_of(net: "mx.gluon.Block", symbol: "mx.sym.Symbol") -> dict[str, np.ndarray]:
    """What a block would export beside its graph, by full name."""
    auxiliary, taken = set(symbol.list_auxiliary_states()), set(symbol.list_inputs())
    return {
        f"{'aux' if name in auxiliary else 'arg'}:{name}": parameter.data().asnumpy()
        for name, parameter in net.collect_params().items()
        if name in taken
    }


def _names_of(graph: Graph, other: Graph) -> dict[str, str]:
    """New names for the nodes of a graph: those of another one of the same structure. Gluon counts blocks and operators
    anew in every process, so that the same network has other names elsewhere."""
    if len(graph.nodes) != len(other.nodes):
        return {}
    names = {node.name: twin.name for node, twin in zip(graph.nodes, other.nodes)}
    alike = all(
        node.operator == twin.operator and twin.inputs == tuple((names[name], k) for name, k in node.inputs)
        for node, twin in zip(graph.nodes, other.nodes)
    )
    return names if alike else {}
