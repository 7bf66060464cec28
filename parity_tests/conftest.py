"""What the tests share: the real binary, the real bundle, real digits, and the programs as users start them."""

import argparse
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vqvae_gluon.artifacts.bundle import GraphFiles, graph_files
from vqvae_gluon.cli import main
from vqvae_gluon.compat import mx
from vqvae_gluon.config import Config, RunConfig
from vqvae_gluon.data import load_split
from vqvae_gluon.kernels import why_not_fused
from vqvae_gluon.runtimes.cpp import find_binary
from vqvae_gluon.settings import add_flags, read_settings

ROOT = Path(__file__).resolve().parents[1]
PRETRAINED = ROOT / "pretrained" / "mnist"

if sys.version_info < (3, 12):
    # MXNet's import of distutils loads setuptools otherwise, a seventh of the start of each process.
    os.environ.setdefault("SETUPTOOLS_USE_DISTUTILS", "stdlib")
COMMANDS = [
    "train",
    "launch",
    "pack",
    "export",
    "encode",
    "encode-folder",
    "decode",
    "reconstruct",
    "parity",
    "faults",
    "bench",
]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Bring the C++ side up to date: no test is skipped for want of it, none runs an old one."""
    if hasattr(session.config, "workerinput"):
        return  # One of several processes; the one that started them has done it.
    build = ROOT / "cpp_bindings" / "build"
    configure = ["cmake", "-S", str(build.parent), "-B", str(build), f"-DPython3_EXECUTABLE={sys.executable}"]
    try:
        if not (build / "CMakeCache.txt").exists():
            subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build), "--parallel"], check=True, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.exit(f"the C++ side could not be built ({error}); run 'bash build.sh cpp'", returncode=1)


def has_fused_operators() -> bool:
    """Whether this project's own operators run here. Where they do not, MXNet's do in their place."""
    return not why_not_fused()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """``@pytest.mark.fused_operators`` is for tests of what this project's own operators compute."""
    if item.get_closest_marker("fused_operators") and not has_fused_operators():
        pytest.skip(f"no fused operators: {why_not_fused()}")


def run_cli(*arguments) -> subprocess.CompletedProcess:
    """Run vqvae-gluon in a process of its own."""
    command = [sys.executable, "-m", "vqvae_gluon", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run_cli_here(*arguments) -> subprocess.CompletedProcess:
    """Run vqvae-gluon in this process: quicker, for what ends before MXNet is given anything."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([*map(str, arguments)])
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def run_reconstruct(*arguments) -> subprocess.CompletedProcess:
    """Run the C++ binary."""
    return subprocess.run([find_binary(), *map(str, arguments)], capture_output=True, text=True, check=False)


def settings(*words) -> tuple[Config, RunConfig]:
    """The settings that these words of ``vqvae-gluon train`` ask for."""
    parser = argparse.ArgumentParser()
    add_flags(parser)
    config, run, _ = read_settings(parser.parse_args([*map(str, words)]))
    return config, run


@pytest.fixture(scope="session")
def digits() -> np.ndarray:
    """The first 1000 test digits, uint8 (1000, 28, 28, 1)."""
    return load_split("mnist", "test", 1)[:1000]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the pretrained bundle, to be altered."""
    path = tmp_path / "bundle"
    shutil.copytree(PRETRAINED, path, ignore=shutil.ignore_patterns("*.png", "*.npz", "digits"))
    return path


@pytest.fixture
def encoder(bundle: Path) -> GraphFiles:
    return graph_files(bundle, "encoder")


def alter_parameters(path: Path, change) -> None:
    """Rewrite a .params file through MXNet's own functions, after `change` was called with its tensors."""
    arrays = {name: array.asnumpy() for name, array in mx.nd.load(str(path)).items()}
    change(arrays)
    mx.nd.save(str(path), {name: mx.nd.array(array, dtype=array.dtype) for name, array in arrays.items()})


def bash_blocks(document: str) -> list[tuple[list[str], str]]:
    """Commands of every bash block, and the text block that follows it at once: what the last of them prints."""
    found = re.findall(r"```bash\n(.*?)```\n+(?:```text\n(.*?)```)?", (ROOT / document).read_text(), re.DOTALL)
    return [(block.splitlines(), text) for block, text in found]


def run_shell(command: str, directory: Path) -> subprocess.CompletedProcess:
    """Run a command as a user would in the activated environment."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    arguments = ["bash", "-c", command]
    return subprocess.run(arguments, cwd=directory, env=environment, capture_output=True, text=True, check=False)
