"""Gluon with this project's fused operators (``cpp_bindings/kernels``): the same CachedOp, of a faster graph."""

from collections.abc import Iterator, Mapping

import numpy as np

from vqvae_gluon.artifacts.binding import read_network
from vqvae_gluon.artifacts.bundle import GraphFiles
from vqvae_gluon.compat import mx
from vqvae_gluon.kernels import INFERENCE, load_kernels
from vqvae_gluon.runtimes.base import PythonRuntime, Recorded
from vqvae_gluon.runtimes.eager import EagerRuntime
from vqvae_gluon.runtimes.gluon import GluonGraph, GluonRuntime


def fuse(symbol: "mx.sym.Symbol") -> "mx.sym.Symbol":
    """The same graph with fused operators in it; on a processor without AMX, the graph as it is.

    Raises:
        RuntimeFailure: as :func:`vqvae_gluon.kernels.load_kernels`.
    """
    load_kernels()
    return symbol.optimize_for(INFERENCE)


class GluonFusedRuntime(PythonRuntime):
    name = "gluon-fused"
    fuses = True
    taps_fused = True

    def without_fusion(self):
        return GluonRuntime()

    def outputs(self, files: GraphFiles, inputs: Mapping[str, np.ndarray], taps: bool) -> Iterator[Recorded]:
        network = read_network(files)
        if set(network.unbound()) & set(inputs):
            yield from GluonGraph(network, inputs, taps, rewrite=fuse).run(inputs)
        else:
            yield from EagerRuntime().outputs(files, inputs, taps)
