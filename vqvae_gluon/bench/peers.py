"""Who is measured: one row of a table for each. A further one is a further row."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from vqvae_gluon.runtimes.cpp import find_binary

EXTRA = "pip install -e '.[bench]'"
FLOAT32, REDUCED = "float32", ("bfloat16", "int8")
MXNET, FUSED = "mxnet", "fused"  # kernels of the program in C++


@dataclass(frozen=True)
class Peer:
    """A way to run a bundle.

    Attributes:
        runtime: what the option --peers calls it.
        precisions: it can run; ours the lower ones only of bundles that are exported so.
        kernels: of the program ``measure`` in C++; empty: it is served by Python.
        needs: packages of the extra ``bench``.
        ours: it runs the bundle's own files.
    """

    runtime: str
    precisions: tuple[str, ...] = (FLOAT32,)
    kernels: str = ""
    needs: tuple[str, ...] = ()
    ours: bool = False

    def lacks(self) -> Optional[str]:
        """Why it cannot be measured here, and the remedy; or None."""
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            return f"{' and '.join(missing)} not installed; install with: {EXTRA}"
        if self.kernels and not measure_binary().is_file():
            return f"{measure_binary()} is missing; build it with: bash build.sh cpp"
        return None


PEERS = (
    # MXNet's own operators compute lower precision for its results, not for its speed.
    Peer("cpp", kernels=MXNET, ours=True),
    Peer("cpp-fused", (FLOAT32, *REDUCED), kernels=FUSED, ours=True),
    Peer("gluon", ours=True),
    Peer("onnxruntime", (FLOAT32, "int8"), needs=("onnxruntime", "onnx")),
    Peer("torch", needs=("torch",)),
    Peer("torch-channels-last", needs=("torch",)),
    Peer("torch-compile", needs=("torch",)),
)


def measure_binary() -> Path:
    """The C++ program that is timed; it lies beside ``reconstruct``."""
    return find_binary().with_name("measure")
