"""Gluon with this project's fused operators (``cpp_bindings/kernels``): the same CachedOp, of a faster graph."""

import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from vqvae_gluon.artifacts.binding import read_network
from vqvae_gluon.artifacts.bundle import GraphFiles
from vqvae_gluon.compat import mx
from vqvae_gluon.errors import RuntimeFailure
from vqvae_gluon.runtimes.base import PythonRuntime, Recorded
from vqvae_gluon.runtimes.eager import EagerRuntime
from vqvae_gluon.runtimes.gluon import GluonGraph, GluonRuntime

KERNELS_VARIABLE = "VQVAE_KERNELS"
BACKEND = "vqvae"
_BUILT = Path(__file__).resolve().parents[2] / "cpp_bindings" / "build" / "libvqvae_kernels.so"


@cache
def load_kernels() -> Path:
    """Have MXNet load the library of operators: ``$VQVAE_KERNELS``, or the one built in this checkout.

    Raises:
        RuntimeFailure: it is not there, or MXNet does not take it.
    """
    path = Path(os.environ.get(KERNELS_VARIABLE, _BUILT)).absolute()
    if not path.is_file():
        raise RuntimeFailure(path, f"is missing; build it with 'bash build.sh cpp', or set {KERNELS_VARIABLE}")
    try:
        mx.library.load(str(path), verbose=False)
    except mx.MXNetError as error:
        raise RuntimeFailure(path, f"could not be loaded ({error})") from error
    return path


def fuse(symbol: "mx.sym.Symbol") -> "mx.sym.Symbol":
    """The same graph with fused operators in it; on a processor without AMX, the graph as it is.

    Raises:
        RuntimeFailure: as :func:`load_kernels`.
    """
    load_kernels()
    return symbol.optimize_for(BACKEND)


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
