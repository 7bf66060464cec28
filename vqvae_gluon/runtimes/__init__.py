"""Runtimes by name. To add one: docs/architecture.md, "How to add"."""

from vqvae_gluon.runtimes.base import Runtime
from vqvae_gluon.runtimes.cpp import CppRuntime
from vqvae_gluon.runtimes.gluon import GluonRuntime

RUNTIMES: dict[str, type[Runtime]] = {runtime.name: runtime for runtime in (GluonRuntime, CppRuntime)}
