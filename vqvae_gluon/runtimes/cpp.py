"""The deployed side: the C++ binary ``reconstruct``, run as its users run it."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

import numpy as np

from vqvae_gluon.artifacts.fusion import BACKEND, NO_BACKEND
from vqvae_gluon.artifacts.operators import trusted
from vqvae_gluon.artifacts.trace import TraceWriter, open_trace
from vqvae_gluon.data.images import output_paths, read_images
from vqvae_gluon.errors import REJECTED, InputError, RuntimeFailure
from vqvae_gluon.limits import run_limit
from vqvae_gluon.runtimes.base import OUTPUT, Runtime
from vqvae_gluon.runtimes.fused import fused_notes
from vqvae_gluon.temporary import temporary_directory

BINARY_VARIABLE = "VQVAE_RECONSTRUCT"
_BUILT = Path(__file__).resolve().parents[2] / "cpp_bindings" / "build" / "reconstruct"
_TIMEOUT = 1800  # seconds; a candidate that hangs is a finding, not a reason to wait for ever


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
    """The engine behind hybridized Gluon blocks, from C++.

    Args:
        settings: variables of its environment, in place of this process's.
    """

    name = "cpp"
    engine = "cachedop"
    separate = True

    def __init__(self, settings: Optional[Mapping[str, str]] = None):
        self.settings = dict(settings or {})

    def trace_graph(self, files, inputs, stage, path, taps=True, keep=None):
        with temporary_directory() as directory:
            arguments = ["--symbol", str(files.symbol), "--params", str(files.params), "--stage", stage]
            for number, (name, values) in enumerate(inputs.items()):
                file = directory / f"{number}.npy"
                np.save(file, np.asarray(values, order="C"), allow_pickle=False)  # A scalar stays one.
                arguments += ["--input", f"{name}={file}"]
            if keep is not None:
                kept = directory / "keep.txt"
                kept.write_text("".join(f"{name}\n" for name in keep))
                arguments += ["--keep", str(kept)]
            self._run([*arguments, "--taps", "all" if taps else "none", "--trace", str(path)])
        return open_trace(path)

    def trace_bundle(self, bundle, images, path):
        with temporary_directory() as directory:
            # Users' files may have any names, and the same in two folders.
            links = [directory / f"{number:06d}{file.suffix}" for number, file in enumerate(images)]
            for link, file in zip(links, images):
                link.symlink_to(file.resolve())
            output = directory / "output"
            arguments = ["--bundle", str(bundle), "--no-verify", "--taps", "none", "--trace", str(path)]
            arguments += ["--output", str(output), *map(str, links)]
            self._run(arguments, dict(zip(map(str, links), map(str, images))))
            trace = open_trace(path)
            count, _, _, channels = trace.get(OUTPUT, "image").shape
            written = [
                path for link in links for path in output_paths(output / link.stem, count, link.suffix == ".npy")
            ]
            writer = TraceWriter.append_to(trace)
            writer.add(OUTPUT, "file", "output", read_images(written, channels))
        return writer.close()

    def _run(self, arguments: list[str], names: Optional[dict[str, str]] = None) -> None:
        """Run the binary; `names` are the users' names of files that it knows by others."""
        command = [str(find_binary()), "--engine", self.engine, "--fusion", "mxnet", *arguments]
        for operator in trusted():
            command += ["--allow-operator", operator]
        limit = run_limit()
        if limit is not None:
            command += ["--memory", str(limit >> 20)]
        where = {**os.environ, **self.settings}
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT, env=where)
        except subprocess.TimeoutExpired as error:
            raise RuntimeFailure("reconstruct", f"did not end within {_TIMEOUT} seconds") from error
        if result.returncode == 0:
            return
        lines = result.stderr.strip().splitlines()
        message = lines[-1] if lines else f"ended with status {result.returncode}"
        if result.returncode < 0:
            message = f"was ended by signal {-result.returncode}"
        for link, name in (names or {}).items():
            message = message.replace(link, name)
        kind = InputError if result.returncode == REJECTED else RuntimeFailure
        raise kind("reconstruct", message.replace("reconstruct: error: ", ""))


class _FusingRuntime(CppRuntime):
    """With MXNet's defaults, also for graphs that it fuses wrongly: that is what programs other than ours run."""

    fuses = True

    def __init__(self, settings: Optional[Mapping[str, str]] = None):
        super().__init__(settings)
        self.fuses = self.settings.get(BACKEND) not in ("NONE", NO_BACKEND)

    def without_fusion(self):
        return type(self)({**self.settings, BACKEND: NO_BACKEND}) if self.fuses else None


class CppExecutorRuntime(_FusingRuntime):
    """MXNet's symbolic executor from C++, as its C++ package binds it."""

    name = "cpp-executor"
    engine = "executor"


class CppPredictRuntime(_FusingRuntime):
    """MXNet's C predict API."""

    name = "cpp-predict"
    engine = "predict"


class CppFusedRuntime(CppRuntime):
    """CachedOp from C++ with this project's fused operators."""

    name = "cpp-fused"
    engine = "fused"
    fuses = True
    taps_fused = True

    def without_fusion(self):
        return CppRuntime(self.settings)

    def notes(self, networks):
        return fused_notes(self.name, networks)
