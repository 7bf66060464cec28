"""Traces: every node's output of one run, on disk (docs/architecture.md, "The trace")."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqvae_gluon.errors import InputError
from vqvae_gluon.files import read_npy

FORMAT = 1
INDEX = "trace.json"
Key = tuple[str, str]


@dataclass(frozen=True)
class TraceNode:
    """One recorded tensor.

    Attributes:
        stage: the part of the run it belongs to, such as ``encoder``.
        name: of the node; output k of a node with several is ``<node>:<k>``.
        operator: MXNet's name of it, ``input`` for what was fed.
        sha256: of the values' bytes, in C order.
        path: of the ``.npy`` file.
    """

    stage: str
    name: str
    operator: str
    shape: tuple[int, ...]
    dtype: str
    sha256: str
    path: Path

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
            "file": self.path.name,
        }

    def load(self) -> np.ndarray:
        """The values, memory-mapped, once they are shown to be those of the index.

        Raises:
            InputError: the file is missing, damaged, or holds something else.
        """
        values = read_npy(self.path)
        if (values.dtype.name, values.shape) != (self.dtype, self.shape) or _digest(values) != self.sha256:
            raise InputError(self.path, f"is not what {INDEX} says; record the trace again")
        return values


class Trace:
    """A trace on disk; its nodes are in the order in which they were computed."""

    def __init__(self, path: Path, runtime: str, nodes: list[TraceNode]):
        self.path = Path(path)
        self.runtime = runtime
        self.nodes = nodes

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
    """Records tensors into a directory; the index is written last."""

    def __init__(self, path: Path, runtime: str):
        self._path = Path(path)
        self._runtime = runtime
        self._rows: list[dict[str, Any]] = []
        self._path.mkdir(parents=True, exist_ok=True)
        (self._path / INDEX).unlink(missing_ok=True)  # Without its index a trace that is not finished is none.

    @classmethod
    def append_to(cls, trace: Trace) -> "TraceWriter":
        """Go on with a trace that is there."""
        writer = cls(trace.path, trace.runtime)
        writer._rows = [node.to_json() for node in trace.nodes]
        return writer

    def add(self, stage: str, name: str, operator: str, values: np.ndarray) -> None:
        """Record one tensor."""
        values = np.ascontiguousarray(values)
        file = f"{len(self._rows):05d}.npy"
        np.save(self._path / file, values, allow_pickle=False)
        node = TraceNode(stage, name, operator, values.shape, values.dtype.name, _digest(values), self._path / file)
        self._rows.append(node.to_json())

    def close(self) -> Trace:
        """Write the index and open the trace."""
        index = {"format": FORMAT, "runtime": self._runtime, "nodes": self._rows}
        (self._path / INDEX).write_text(json.dumps(index, indent=1) + "\n")
        return open_trace(self._path)


def open_trace(path: Path) -> Trace:
    """Open a trace that either language wrote.

    Raises:
        InputError: it is missing, not whole, or names a node twice.
    """
    path = Path(path)
    try:
        document = json.loads((path / INDEX).read_bytes())
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']}, this version reads {FORMAT}")
        nodes = [_node(path, row) for row in document["nodes"]]
        runtime = str(document["runtime"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(path / INDEX, f"is not a whole trace ({error}); record it again") from error
    if len({node.key for node in nodes}) != len(nodes):
        raise InputError(path / INDEX, "names a node twice; record it again")
    return Trace(path, runtime, nodes)


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.data).hexdigest()


def _node(path: Path, row: dict[str, Any]) -> TraceNode:
    file = str(row["file"])
    if Path(file).name != file:
        raise ValueError(f"{file} is not a file of the trace")
    return TraceNode(
        row["stage"], row["name"], row["operator"], tuple(row["shape"]), row["dtype"], row["sha256"], path / file
    )
