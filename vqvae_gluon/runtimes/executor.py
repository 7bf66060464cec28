"""MXNet's symbolic executor in Python, as ``Module`` binds it: with MXNet's own defaults, graph fusion included."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from vqvae_gluon.artifacts.binding import read_network, require_binding
from vqvae_gluon.artifacts.bundle import GraphFiles
from vqvae_gluon.artifacts.fusion import BACKEND, NO_BACKEND
from vqvae_gluon.compat import mx
from vqvae_gluon.errors import RuntimeFailure
from vqvae_gluon.limits import bounded_memory
from vqvae_gluon.runtimes.base import PythonRuntime, Recorded, why_not_run
from vqvae_gluon.runtimes.gluon import outputs_of, to_numpy


class ExecutorRuntime(PythonRuntime):
    """See the module.

    Args:
        fuse: leave graph fusion as it is; else take it away while the graph is bound.
    """

    name = "executor"
    fuses = True

    def __init__(self, fuse: bool = True):
        self.fuses = fuse

    def without_fusion(self):
        return ExecutorRuntime(fuse=False) if self.fuses else None

    def outputs(self, files: GraphFiles, inputs: Mapping[str, np.ndarray], taps: bool) -> Iterator[Recorded]:
        network = read_network(files)
        fed = {name: inputs[name] for name in network.unbound() if name in inputs}
        require_binding(network, {name: values.shape for name, values in fed.items()})
        symbol, names = outputs_of(network, taps)
        bound = {**{name[4:]: values for name, values in network.parameters.items()}, **fed}
        shapes = {name: values.shape for name, values in bound.items()}
        types = {name: values.dtype for name, values in bound.items()}
        try:
            with _fusion(self.fuses):
                executor = symbol.simple_bind(mx.cpu(), grad_req="null", type_dict=types, **shapes)
            for name, array in [*executor.arg_dict.items(), *executor.aux_dict.items()]:
                array[:] = mx.nd.array(bound[name], dtype=bound[name].dtype)
            with bounded_memory(files.symbol):
                outputs = to_numpy(list(executor.forward(is_train=False)))
        except (mx.MXNetError, RuntimeError) as error:  # simple_bind raises the latter.
            raise RuntimeFailure(files.symbol, f"cannot be run: {why_not_run(error, inputs, network)}") from error
        for name, operator in names:
            yield name, operator, outputs.pop(0)


@contextmanager
def _fusion(wanted: bool) -> Iterator[None]:
    """What is bound meanwhile is fused as MXNet's defaults and the user have it, or not at all."""
    before = os.environ.get(BACKEND)
    try:
        if not wanted:
            os.environ[BACKEND] = NO_BACKEND
        yield
    finally:
        if before is not None:
            os.environ[BACKEND] = before
        elif not wanted:
            os.environ.pop(BACKEND, None)
