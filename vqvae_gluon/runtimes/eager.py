"""Gluon without hybridization: one operator at a time, each called imperatively."""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from vqvae_gluon.artifacts.binding import read_network, require_binding
from vqvae_gluon.artifacts.bundle import GraphFiles
from vqvae_gluon.artifacts.graph import Node, Output
from vqvae_gluon.compat import call_operator, mx
from vqvae_gluon.errors import GraphFailure, RuntimeFailure
from vqvae_gluon.limits import bounded_memory
from vqvae_gluon.runtimes.base import PythonRuntime, Recorded, why_not_run


class EagerRuntime(PythonRuntime):
    name = "gluon-eager"

    def outputs(self, files: GraphFiles, inputs: Mapping[str, np.ndarray], taps: bool) -> Iterator[Recorded]:
        network = read_network(files)
        fed = {name: inputs[name] for name in network.unbound() if name in inputs}
        require_binding(network, {name: values.shape for name, values in fed.items()})
        values: dict[Output, mx.nd.NDArray] = {}
        for name, array in [*fed.items(), *((name[4:], array) for name, array in network.parameters.items())]:
            values[name, 0] = mx.nd.array(array, dtype=array.dtype)
        # A value is dropped as soon as nobody takes it any more.
        uses = Counter(output for node in network.graph.nodes for output in node.inputs)
        uses.update(network.graph.outputs)
        try:
            for node in network.graph.operators():
                with bounded_memory(files.symbol):
                    results = invoke(node, [values[output] for output in node.inputs])
                    for result in results:
                        result.wait_to_read()
                    tapped = results[: network.visible[node.name]] if taps else []
                    copies = [result.asnumpy() for result in tapped]
                for k, copy in enumerate(copies):
                    yield network.tensor((node.name, k)), node.operator, copy
                for k, result in enumerate(results):
                    if uses[node.name, k]:
                        values[node.name, k] = result
                for output in node.inputs:
                    uses[output] -= 1
                    if not uses[output]:
                        values.pop(output, None)
            if not taps:
                operators = {node.name: node.operator for node in network.graph.nodes}
                for output in network.graph.outputs:
                    yield network.tensor(output), operators[output[0]], values[output].asnumpy()
        except mx.MXNetError as error:
            raise GraphFailure(files.symbol, f"cannot be run: {why_not_run(error, inputs, network)}") from error


def invoke(node: Node, inputs: list["mx.nd.NDArray"]) -> list["mx.nd.NDArray"]:
    if node.subgraphs:
        raise RuntimeFailure(node.name, f"{node.operator} is control flow, which is not run eagerly")
    attributes = {key: value for key, value in node.attributes.items() if not key.startswith("__")}
    return call_operator(node.operator, inputs, attributes)
