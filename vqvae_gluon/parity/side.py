"""One runtime on one exported network: run whole, tapped in parts, cut, truncated or exploded."""

import dataclasses
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Optional

import numpy as np

from vqvae_gluon.artifacts.binding import Network, write_network
from vqvae_gluon.artifacts.bundle import named
from vqvae_gluon.artifacts.graph import Graph, Output
from vqvae_gluon.artifacts.surgery import ancestors, fed_name, observed, operator_inputs, part
from vqvae_gluon.artifacts.trace import TraceNode
from vqvae_gluon.errors import RuntimeFailure
from vqvae_gluon.runtimes.base import Runtime

# What a part is fed, by the node and the index of the output that it stands for.
Values = Mapping[Output, np.ndarray]


class Side:
    """One runtime on one network.

    Args:
        network: the exported network. Two sides may share it.
        stage: what traces call it.
        inputs: of the whole graph, by name.
        directory: where traces are written. It must outlast what was loaded from them.

    Attributes:
        replays: whether it can be run on other values than its own.
    """

    replays = True

    def __init__(
        self, runtime: Runtime, network: Network, stage: str, inputs: Mapping[str, np.ndarray], directory: Path
    ):
        self.runtime = runtime
        self.stage = stage
        self.inputs = dict(inputs)
        self.network = network
        self.directory = directory

    def with_runtime(self, runtime: Runtime) -> "Side":
        """Another runtime on the same network and inputs."""
        return Side(runtime, self.network, self.stage, self.inputs, self.directory)

    def neighbour(self, runtime: Runtime, seed: int) -> "Side":
        """A runtime on inputs and parameters that are off by at most one unit in the last place of float32."""
        generator = np.random.default_rng(seed)

        def moved(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            unit = float(np.finfo(np.float32).eps)
            return {
                name: (array * (1 + unit * generator.uniform(-1, 1, array.shape))).astype(array.dtype)
                if array.dtype.kind == "f"
                else array
                for name, array in values.items()
            }

        network = dataclasses.replace(self.network, parameters=moved(self.network.parameters))
        return Side(runtime, network, self.stage, moved(self.inputs), self.directory)

    @property
    def graph(self) -> Graph:
        return self.network.graph

    def outputs(self) -> dict[str, TraceNode]:
        """The whole graph as it is deployed: its own files, no taps. Its outputs by the name of the tensor."""
        trace = self.runtime.trace_graph(self.network.files, self.inputs, self.stage, self._fresh(), taps=False)
        return {node.name: node for node in trace.nodes if node.operator not in ("input", "null")}

    def rewritten(self, graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, TraceNode]:
        """Another graph with the same parameters, whole and without taps."""
        directory = self._fresh()
        files = write_network(graph, self.network.parameters, directory / "rewritten")
        with named(files, self.network.files):
            trace = self.runtime.trace_graph(files, inputs, self.stage, directory / "trace", taps=False)
        return {node.name: node for node in trace.nodes if node.operator not in ("input", "null")}

    def truncated(self, outputs: Iterable[Output], values: Optional[Values] = None) -> dict[str, np.ndarray]:
        """The graph cut off behind some outputs, run without taps; ``values`` are fed in place of what they name."""
        wanted = list(outputs)
        cut = set(values or ()) - set(wanted)
        graph, fed = part(self.graph, ancestors(self.graph, wanted, cut), cut, wanted)
        found = self._run(graph, {output: (values or {})[output] for output in fed}, taps=False, keep=None)
        return {name: node.load() for name, node in found.items()}

    def tap(
        self,
        names: Collection[str],
        values: Values,
        keep: Optional[Collection[str]] = None,
        cut: Collection[Output] = (),
        substitute: Optional[Mapping[str, TraceNode]] = None,
    ) -> dict[str, TraceNode]:
        """Every output of some operators, from one run of the part of the graph that they are.

        A runtime that fuses operators is given a part with a copy behind every output, unless it can be tapped all the
        same. What cannot be run at once is run in halves.

        Args:
            names: of the operators.
            values: what the part takes from outside it, and what is cut.
            keep: names of the tensors whose values are wanted, not only their digests; all when left out.
            cut: outputs of the part that are fed from ``values`` all the same.
            substitute: what is taken for an operator that this runtime cannot run; without it that is an error.

        Raises:
            InputError: the network was rejected.
            RuntimeFailure: it could not be run, not even operator by operator.
        """
        if not names:
            return {}
        try:
            graph, fed = part(self.graph, names, cut)
            return self._run(graph, {output: values[output] for output in fed}, taps=True, keep=keep)
        except RuntimeFailure:
            if len(names) > 1:
                return self._tap_halves(names, values, keep, cut, substitute)
            if substitute is None:
                raise
            (name,) = names
            tensors = [self.network.tensor((name, k)) for k in range(self.network.visible[name])]
            return {tensor: substitute[tensor] for tensor in tensors if tensor in substitute}

    def _tap_halves(self, names, values, keep, cut, substitute) -> dict[str, TraceNode]:
        ordered = [node.name for node in self.graph.operators() if node.name in set(names)]
        first, second = ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]
        between = {output for name in second for output in operator_inputs(self.graph, name) if output[0] in first}
        between -= set(cut)
        wanted = None if keep is None else {*keep, *map(self.network.tensor, between)}
        found = self.tap(first, values, wanted, cut, substitute)
        passed = {output: found[self.network.tensor(output)].load() for output in between}
        return {**found, **self.tap(second, {**values, **passed}, keep, cut, substitute)}

    def exploded(
        self, names: Collection[str], values: Values, substitute: Optional[Mapping[str, TraceNode]] = None
    ) -> dict[str, TraceNode]:
        """Every output of some operators when each of them is fed the same values, none another's result."""
        cut = {output for name in names for output in operator_inputs(self.graph, name)}
        return self.tap(names, values, cut=cut, substitute=substitute)

    def _run(self, graph: Graph, fed: Values, taps: bool, keep: Optional[Collection[str]]) -> dict[str, TraceNode]:
        names = {node.name for node in graph.nodes if node.is_variable}
        inputs = {name: values for name, values in self.inputs.items() if name in names}
        inputs.update({fed_name(output): values for output, values in fed.items()})
        copies: dict[str, Output] = {}
        if taps and self.runtime.fuses and not self.runtime.taps_fused:
            graph, copies = observed(graph, self.network.visible)
            keep = (
                None
                if keep is None
                else [name for name, output in copies.items() if self.network.tensor(output) in keep]
            )
        directory = self._fresh()
        files = write_network(graph, self.network.parameters, directory / "part")
        try:
            with named(files, self.network.files):
                taps = taps and not copies
                trace = self.runtime.trace_graph(files, inputs, self.stage, directory / "trace", taps, keep)
        finally:
            shutil.rmtree(directory / "part")
        operators = {node.name: node.operator for node in graph.nodes}
        found = {}
        for node in trace.nodes:
            if node.operator == "input":
                continue
            if node.name in copies:
                output = copies[node.name]
                node = dataclasses.replace(node, name=self.network.tensor(output), operator=operators[output[0]])
            found[node.name] = node
        return found

    def _fresh(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.directory))
