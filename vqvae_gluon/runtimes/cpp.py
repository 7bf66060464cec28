"""The deployed side: the C++ binary ``reconstruct``, run as its users run it."""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vqvae_gluon.artifacts.bundle import GraphFiles
from vqvae_gluon.artifacts.trace import Trace, TraceWriter, open_trace
from vqvae_gluon.data.images import read_images
from vqvae_gluon.errors import REJECTED, InputError, RuntimeFailure
from vqvae_gluon.runtimes.base import OUTPUT, Runtime

BINARY_VARIABLE = "VQVAE_RECONSTRUCT"
_BUILT = Path(__file__).resolve().parents[2] / "cpp_bindings" / "build" / "reconstruct"


def find_binary() -> Path:
    """Path of ``reconstruct``: ``$VQVAE_RECONSTRUCT``, or the one built in this checkout.

    Raises:
        RuntimeFailure: it is not there.
    """
    path = Path(os.environ.get(BINARY_VARIABLE, _BUILT))
    if not path.is_file():
        raise RuntimeFailure(path, f"is missing; build it with 'bash build.sh cpp', or set {BINARY_VARIABLE}")
    return path


class CppRuntime(Runtime):
    name = "cpp"

    def trace_graph(self, files: GraphFiles, inputs: dict[str, np.ndarray], stage: str, path: Path) -> Trace:
        with tempfile.TemporaryDirectory() as directory:
            arguments = ["--symbol", str(files.symbol), "--params", str(files.params), "--stage", stage]
            for number, (name, values) in enumerate(inputs.items()):
                file = Path(directory) / f"{number}.npy"
                np.save(file, values, allow_pickle=False)
                arguments += ["--input", f"{name}={file}"]
            _run([*arguments, "--trace", str(path)])
        return open_trace(path)

    def trace_bundle(self, bundle: Path, images: Sequence[Path], path: Path) -> Trace:
        with tempfile.TemporaryDirectory() as directory:
            arguments = ["--bundle", str(bundle), "--no-verify", "--trace", str(path), "--output", directory]
            written = _run([*arguments, *map(str, images)]).splitlines()
            trace = open_trace(path)
            channels = trace.get(OUTPUT, "image").shape[3]
            writer = TraceWriter.append_to(trace)
            writer.add(OUTPUT, "file", "output", read_images([Path(file) for file in written], channels))
        return writer.close()


def _run(arguments: list[str]) -> str:
    result = subprocess.run([str(find_binary()), *arguments], capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return result.stdout
    message = (result.stderr.strip().splitlines() or [f"it ended with status {result.returncode}"])[-1]
    if result.returncode == REJECTED:
        raise InputError("reconstruct", message.replace("reconstruct: error: ", ""))
    raise RuntimeFailure("reconstruct", message.replace("reconstruct: error: ", ""))
