"""Runtimes by name. To add one: docs/architecture.md, "How to add"."""

from vqvae_gluon.runtimes.base import Runtime
from vqvae_gluon.runtimes.cpp import CppExecutorRuntime, CppFusedRuntime, CppPredictRuntime, CppRuntime
from vqvae_gluon.runtimes.eager import EagerRuntime
from vqvae_gluon.runtimes.executor import ExecutorRuntime
from vqvae_gluon.runtimes.fp64 import Float64Runtime
from vqvae_gluon.runtimes.fused import GluonFusedRuntime
from vqvae_gluon.runtimes.gluon import GluonRuntime

_ALL: tuple[type[Runtime], ...] = (
    GluonRuntime,
    EagerRuntime,
    ExecutorRuntime,
    CppRuntime,
    CppExecutorRuntime,
    CppPredictRuntime,
    GluonFusedRuntime,
    CppFusedRuntime,
    Float64Runtime,
)
RUNTIMES: dict[str, type[Runtime]] = {runtime.name: runtime for runtime in _ALL}
