"""The arbiter: the same graph in float64, so exact that float32's own error can be measured against it."""

from collections.abc import Iterator, Mapping

import numpy as np

from vqvae_gluon.artifacts.binding import read_network, write_network
from vqvae_gluon.artifacts.bundle import GraphFiles, named
from vqvae_gluon.artifacts.surgery import widen, widen_values
from vqvae_gluon.runtimes.base import PythonRuntime, Recorded
from vqvae_gluon.runtimes.eager import EagerRuntime
from vqvae_gluon.temporary import temporary_directory


class Float64Runtime(PythonRuntime):
    name = "fp64"
    wide = True

    def outputs(self, files: GraphFiles, inputs: Mapping[str, np.ndarray], taps: bool) -> Iterator[Recorded]:
        network = read_network(files)
        with temporary_directory() as directory:
            wide = write_network(widen(network.graph), widen_values(network.parameters), directory)
            known = {
                network.tensor((node.name, k))
                for node in network.graph.operators()
                for k in range(network.visible[node.name])
            }
            with named(wide, files):
                for recorded in EagerRuntime().outputs(wide, widen_values(inputs), taps):
                    if recorded[0] in known:
                        yield recorded
