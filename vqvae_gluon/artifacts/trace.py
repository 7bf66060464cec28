"""Traces: every node's output of one run, on disk (docs/architecture.md, "The trace")."""

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from vqvae_gluon.artifacts.document import parse_document
from vqvae_gluon.compat import mx
from vqvae_gluon.errors import InputError, RuntimeFailure
from vqvae_gluon.files import atomic_write, read_file, read_npy, write_npy

FORMAT = 1
INDEX = "trace.json"
_MAX_INDEX_BYTES = 1 << 24  # Of 40,000 nodes.
_MAX_RANK = 32
_SHA256 = re.compile("[0-9a-f]{64}")
Key = tuple[str, str]

# MXNet's variables that change no number; all others may. cpp_bindings/src/trace.cc has the same.
_HARMLESS = {
    *("MXNET_HOME", "MXNET_LIBRARY_PATH", "MXNET_GLUON_REPO"),
    *("MXNET_SUBGRAPH_VERBOSE", "MXNET_EXEC_VERBOSE_LOGGING", "MXNET_STORAGE_FALLBACK_LOG_VERBOSE"),
    "MXNET_MKLDNN_CACHE_NUM",
    *("MXNET_PROFILER_AUTOSTART", "MXNET_PROFILER_MODE"),
}


@dataclass(frozen=True)
class TraceNode:
    """One recorded tensor.

    Attributes:
        stage: the part of the run it belongs to, such as ``encoder``.
        name: of the node; output k of a node with several is ``<node>:<k>``.
        operator: MXNet's name of it, ``input`` for what was fed.
        sha256: of the values' bytes, in C order.
        nonfinite: how many of the values are NaN or infinite.
        path: of the ``.npy`` file; None if the values were not kept.
    """

    stage: str
    name: str
    operator: str
    shape: tuple[int, ...]
    dtype: str
    sha256: str
    nonfinite: int
    path: Optional[Path]

    @property
    def key(self) -> Key:
        """What nodes of two traces are matched by."""
        return self.stage, self.name

    def to_json(self) -> dict[str, Any]:
        """The node's row in the index."""
        return {
            "stage": self.stage,
            "name": self.name,
            "operator": self.operator,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "sha256": self.sha256,
            "nonfinite": self.nonfinite,
            "file": self.path.name if self.path else None,
        }

    def load(self) -> np.ndarray:
        """The values, memory-mapped, once they are shown to be those of the index.

        Raises:
            InputError: the file is missing, damaged, or holds something else.
        """
        if self.path is None:
            raise InputError(self.name, "its values were not kept in the trace; record it again")
        if _leaves(self.path):
            raise InputError(self.path, "is a link to a file outside of its trace; put the file itself there")
        values = read_npy(self.path)
        if (values.dtype.name, values.shape) != (self.dtype, self.shape) or _digest(values) != self.sha256:
            raise InputError(self.path, f"is not what {INDEX} says; record the trace again")
        return values


class Trace:
    """A trace on disk; its nodes are in the order in which they were computed.

    Attributes:
        environment: where it was recorded: ``mxnet``, ``processor``, ``threads``, ``settings``.
    """

    def __init__(self, path: Path, runtime: str, nodes: list[TraceNode], environment: Mapping[str, str]):
        self.path = Path(path)
        self.runtime = runtime
        self.nodes = nodes
        self.environment = dict(environment)

    def by_key(self) -> dict[Key, TraceNode]:
        return {node.key: node for node in self.nodes}

    def stage(self, stage: str) -> list[TraceNode]:
        return [node for node in self.nodes if node.stage == stage]

    def get(self, stage: str, name: str) -> np.ndarray:
        """The values of one node.

        Raises:
            InputError: the trace does not hold it.
        """
        node = self.by_key().get((stage, name))
        if node is None:
            raise InputError(self.path / INDEX, f"does not hold {name} of the stage {stage}")
        return node.load()


class TraceWriter:
    """Records tensors into a directory; the index is written last.

    Args:
        keep: names of the tensors whose values are written; all when left out.
    """

    def __init__(self, path: Path, runtime: str, keep: Optional[Collection[str]] = None):
        self._path = Path(path)
        self._runtime = runtime
        self._keep = keep
        self._rows: dict[Key, dict[str, Any]] = {}
        self._environment = environment()
        self._path.mkdir(parents=True, exist_ok=True)
        (self._path / INDEX).unlink(missing_ok=True)  # Without its index a trace that is not finished is none.

    @classmethod
    def append_to(cls, trace: Trace) -> "TraceWriter":
        """Go on with a trace that is there."""
        writer = cls(trace.path, trace.runtime)
        writer._rows = {node.key: node.to_json() for node in trace.nodes}
        writer._environment = trace.environment
        return writer

    def add(self, stage: str, name: str, operator: str, values: np.ndarray) -> None:
        """Record one tensor. One that is there already, an output that is told twice, is not recorded again."""
        values = np.asarray(values, order="C")  # A scalar stays one.
        if (stage, name) in self._rows:
            if self._rows[stage, name]["sha256"] != _digest(values):
                raise RuntimeFailure(self._path, f"two tensors of the stage {stage} have the name {name}")
            return
        file = None
        if self._keep is None or name in self._keep:
            file = self._path / f"{len(self._rows):05d}.npy"
            with atomic_write(file, synced=False) as handle:
                write_npy(handle, values)
        finite = nonfinite(values)
        node = TraceNode(stage, name, operator, values.shape, values.dtype.name, _digest(values), finite, file)
        self._rows[node.key] = node.to_json()

    def close(self) -> Trace:
        """Write the index and open the trace."""
        index = {
            "format": FORMAT,
            "runtime": self._runtime,
            "environment": self._environment,
            "nodes": list(self._rows.values()),
        }
        with atomic_write(self._path / INDEX) as handle:
            handle.write(f"{json.dumps(index, indent=1)}\n".encode())
        return open_trace(self._path)


def open_trace(path: Path) -> Trace:
    """Open a trace that either language wrote.

    Raises:
        InputError: it is missing, not whole, or names a node twice.
    """
    path = Path(path)
    try:
        document = parse_document(read_file(path / INDEX, _MAX_INDEX_BYTES), path / INDEX, "record it again")
        if document["format"] != FORMAT:
            raise ValueError(f"format {str(document['format'])[:100]}, this version reads {FORMAT}")
        nodes = [_node(path, row) for row in document["nodes"]]
        runtime = _text(document, "runtime")
        said = document.get("environment", {})
        where = {key: _text(said, key) for key, _ in said.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(path / INDEX, f"is not a whole trace ({error}); record it again") from error
    except InputError as error:
        raise InputError(path / INDEX, f"is not a whole trace (it {error.args[-1]}); record it again") from error
    if len({node.key for node in nodes}) != len(nodes):
        raise InputError(path / INDEX, "names a node twice; record it again")
    return Trace(path, runtime, nodes, where)


def environment() -> dict[str, str]:
    """What decides which bits the same operators give: the library, the processor, the number of threads, and
    MXNet's variables as ``A=1 B=2``."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    names = sorted(name for name in os.environ if name.startswith("MXNET_") and name not in _HARMLESS)
    settings = " ".join(f"{name}={os.environ[name]}" for name in names if os.environ[name])
    return {"mxnet": mx.__version__, "processor": _processor(), "threads": threads, "settings": settings}


def nonfinite(values: np.ndarray) -> int:
    """How many values are NaN or infinite."""
    return int(values.size - np.isfinite(values).sum()) if values.dtype.kind == "f" else 0


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.data).hexdigest()


def _node(path: Path, row: dict[str, Any]) -> TraceNode:
    name = row["file"]
    if name is not None and (not isinstance(name, str) or Path(name).name != name):
        raise ValueError(f"{str(name)[:100]} is not a file of the trace")
    stage, node, operator, dtype, sha256 = (_text(row, key) for key in ("stage", "name", "operator", "dtype", "sha256"))
    shape, bad = row["shape"], row.get("nonfinite", 0)
    if not isinstance(shape, list) or len(shape) > _MAX_RANK or not all(map(_is_count, shape)):
        raise ValueError(f"the shape of {node[:100]} is none")
    if not _is_count(bad) or bad > math.prod(shape) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"the row of {node[:100]} makes no sense")
    return TraceNode(stage, node, operator, tuple(shape), dtype, sha256, bad, None if name is None else path / name)


def _leaves(path: Path) -> bool:
    """Whether a name in a directory is a link to elsewhere."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # Who reads it finds out why.
        return path.is_symlink() and path.resolve().parent != path.parent.resolve()
    return False


def _text(row: dict[str, Any], key: str) -> str:
    if not isinstance(row[key], str):
        raise ValueError(f"{key} is no text")
    return str(row[key])


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**40
