"""Gluon with this project's fused operators (``cpp_bindings/kernels``): the same CachedOp, of a faster graph."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from vqvae_gluon.artifacts.binding import Network, read_network
from vqvae_gluon.artifacts.bundle import GraphFiles
from vqvae_gluon.compat import mx
from vqvae_gluon.errors import RuntimeFailure
from vqvae_gluon.kernels import FUSED_OPERATOR, INFERENCE, MXNET_ALONE, load_kernels, why_not_fused
from vqvae_gluon.runtimes.base import PythonRuntime, Recorded
from vqvae_gluon.runtimes.eager import EagerRuntime
from vqvae_gluon.runtimes.gluon import GluonGraph, GluonRuntime


def fuse(symbol: "mx.sym.Symbol") -> "mx.sym.Symbol":
    """The same graph with fused operators in it; where there are none for this processor, the graph as it is.

    Raises:
        RuntimeFailure: as :func:`vqvae_gluon.kernels.load_kernels`.
    """
    load_kernels()
    return symbol.optimize_for(INFERENCE)


def fused_notes(name: str, networks: Iterable[Network]) -> list[str]:
    """Whether a runtime of fused operators runs MXNet's alone on these networks, and why."""
    try:
        if any(f'"op": "{FUSED_OPERATOR}"' in fuse(network.symbol).tojson() for network in networks):
            return []
        why = why_not_fused() or "they compute no part of this graph"
    except RuntimeFailure as error:
        return [f"{name}: whether fused operators run is not known: {error}"]
    return [MXNET_ALONE.format(name, why)]


class GluonFusedRuntime(PythonRuntime):
    name = "gluon-fused"
    fuses = True
    taps_fused = True

    def without_fusion(self):
        return GluonRuntime()

    def notes(self, networks):
        return fused_notes(self.name, networks)

    def outputs(self, files: GraphFiles, inputs: Mapping[str, np.ndarray], taps: bool) -> Iterator[Recorded]:
        network = read_network(files)
        if set(network.unbound()) & set(inputs):
            yield from GluonGraph(network, inputs, taps, rewrite=fuse).run(inputs)
        else:
            yield from EagerRuntime().outputs(files, inputs, taps)
