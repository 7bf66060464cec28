"""Harmless changes: what differs in how a network is run, stored or fed, and leaves it the same network."""

import dataclasses
import json
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vqvae_gluon.artifacts.binding import read_network
from vqvae_gluon.artifacts.bundle import MANIFEST, graph_files
from vqvae_gluon.artifacts.graph import Node
from vqvae_gluon.artifacts.parameters import read_parameters
from vqvae_gluon.artifacts.trace import Trace, TraceWriter, open_trace
from vqvae_gluon.compat import mx
from vqvae_gluon.errors import RuntimeFailure
from vqvae_gluon.files import digest
from vqvae_gluon.parity.recorded import compare_traces
from vqvae_gluon.parity.report import Report
from vqvae_gluon.parity.specimens import BARE, Specimen, pictures
from vqvae_gluon.runtimes import RUNTIMES
from vqvae_gluon.runtimes.base import Runtime
from vqvae_gluon.runtimes.cpp import CppExecutorRuntime, CppPredictRuntime, CppRuntime
from vqvae_gluon.runtimes.gluon import GluonGraph, GluonRuntime

_OLD_TENSOR_MAGIC = 0xF993FAC8  # MXNet before 0.12
_SEEDS = (1, 2, 3)
_FLOAT32 = 0  # mshadow's number of it


@dataclass(frozen=True)
class Control:
    """One run that must agree.

    Attributes:
        run: judges it in a directory of its own, as a black box or not.
    """

    name: str
    model: str
    run: Callable[[Path, bool], Report]


def controls(specimen: Specimen) -> list[Control]:
    """Every control of a specimen."""
    fused = specimen.name.startswith("residual")  # MXNet's executors compute it wrongly.
    if specimen.name == BARE:
        return []
    found: dict[str, Callable] = {"cpp": _live("cpp"), "gluon-eager": _live("gluon-eager"), "fp64": _live("fp64")}
    found["cpp, run twice"] = _live("cpp", repeat=2)
    for name in ("executor", "cpp-executor", "cpp-predict"):
        if not fused:
            found[name] = _live(name)
    unfused = {"MXNET_SUBGRAPH_BACKEND": "NONE"}
    found["cpp-executor, no graph fusion"] = _with_settings(CppExecutorRuntime, unfused)
    found["cpp-predict, no graph fusion"] = _with_settings(CppPredictRuntime, unfused)
    found["oneDNN off"] = _with_settings(CppRuntime, {"MXNET_MKLDNN_ENABLED": "0"})
    for threads in ("1", "2"):
        found[f"threads: {threads}"] = _with_settings(CppRuntime, {"OMP_NUM_THREADS": threads})
    for static in (True, False):
        found[f"static allocation {'on' if static else 'off'}"] = partial(_recorded, runtime=Allocating(static))
    found["recorded by cpp"] = partial(_recorded, runtime=CppRuntime())
    found["another batch split"] = _split
    for name, rewrite in _REWRITES.items():
        found[name] = partial(_rewritten, rewrite=rewrite)
    for seed in _SEEDS:
        found[f"other pictures, seed {seed}"] = partial(_other_pictures, seed=seed)
    if any(name.endswith("codebook") for files in specimen.stages.values() for name in read_parameters(files.params)):
        found["near-ties in fp64"] = partial(_near_ties, candidate=RUNTIMES["fp64"]())
    return [Control(name, specimen.name, partial(run, specimen)) for name, run in found.items()]


class Allocating(GluonRuntime):
    """Gluon with its memory planned ahead, or taken anew for every node."""

    def __init__(self, static: bool):
        self._static = static

    def outputs(self, files, inputs, taps):
        graph = _Graph(read_network(files), inputs, taps)
        graph.allocate(self._static)
        yield from graph.run(inputs)


class _Graph(GluonGraph):
    def allocate(self, static: bool) -> None:
        self._block.hybridize(static_alloc=static, static_shape=static)


def _live(name: str, repeat: int = 1) -> Callable[[Specimen, Path, bool], Report]:
    def run(specimen: Specimen, directory: Path, black_box: bool) -> Report:
        return specimen.compare(RUNTIMES[name](), repeat=repeat, black_box=black_box)

    return run


def _with_settings(runtime: type[CppRuntime], settings: Mapping[str, str]) -> Callable[[Specimen, Path, bool], Report]:
    def run(specimen: Specimen, directory: Path, black_box: bool) -> Report:
        return specimen.compare(runtime(settings=settings), black_box=black_box)

    return run


def _recorded(specimen: Specimen, directory: Path, black_box: bool, runtime: Runtime) -> Report:
    specimen.record(runtime, directory / "candidate")
    return compare_traces(specimen.reference, directory / "candidate", black_box=black_box)


def _other_pictures(specimen: Specimen, directory: Path, black_box: bool, seed: int) -> Report:
    count, height, _, channels = np.load(specimen.images).shape
    np.save(directory / "images.npy", pictures(count, height, channels, seed))
    return specimen.compare(CppRuntime(), images=directory / "images.npy", black_box=black_box)


def _split(specimen: Specimen, directory: Path, black_box: bool) -> Report:
    """The images one by one, and their tensors put together again."""
    images = np.load(specimen.images)
    traces = []
    for i in range(len(images)):
        np.save(directory / f"{i}.npy", images[i : i + 1])
        traces.append(specimen.record(GluonRuntime(), directory / f"trace{i}", directory / f"{i}.npy"))
    _join(traces, specimen, directory / "candidate")
    return compare_traces(specimen.reference, directory / "candidate", black_box=black_box)


def _join(traces: list[Trace], specimen: Specimen, path: Path) -> None:
    shapes = {node.key: node.shape for node in open_trace(specimen.reference).nodes}
    writer = TraceWriter(path, "split")
    for node in traces[0].nodes:
        parts = [trace.get(*node.key) for trace in traces]
        whole = parts[0] if parts[0].shape == shapes[node.key] else np.concatenate(parts)
        writer.add(node.stage, node.name, node.operator, whole)
    shutil.copytree(traces[0].path / "network", path / "network")
    writer.close()


# The same network in other files.


def _rewritten(specimen: Specimen, directory: Path, black_box: bool, rewrite: Callable[[Path, Path], None]) -> Report:
    deployed = directory / "deployed"
    deployed.mkdir()
    for stage, files in specimen.stages.items():
        target = graph_files(deployed, stage)
        shutil.copyfile(files.symbol, target.symbol)
        shutil.copyfile(files.params, target.params)
        rewrite(target.symbol, target.params)
    if specimen.bundle is not None:
        shutil.copyfile(specimen.bundle / MANIFEST, deployed / MANIFEST)
    return specimen.compare(CppRuntime(), deployed, black_box=black_box)


def _save_again(symbol: Path, params: Path) -> None:
    parameters = read_parameters(params)
    mx.nd.save(str(params), {name: mx.nd.array(parameters[name].copy()) for name in sorted(parameters)})


def _save_as_before(symbol: Path, params: Path) -> None:
    """In the format of MXNet before 0.12."""
    parameters = read_parameters(params)
    data = struct.pack("<QQQ", 0x112, 0, len(parameters))
    for values in parameters.values():
        data += struct.pack(f"<Ii{values.ndim}q", _OLD_TENSOR_MAGIC, values.ndim, *values.shape)
        data += struct.pack("<iii", 1, 0, _FLOAT32) + np.ascontiguousarray(values, np.float32).tobytes()
    data += struct.pack("<Q", len(parameters))
    for name in parameters:
        data += struct.pack("<Q", len(name)) + name.encode()
    params.write_bytes(data)


def _sort_keys(symbol: Path, params: Path) -> None:
    symbol.write_text(json.dumps(json.loads(symbol.read_text()), sort_keys=True))


def _old_attributes(symbol: Path, params: Path) -> None:
    """The key of MXNet before 1.0."""
    document = json.loads(symbol.read_text())
    for node in document["nodes"]:
        if "attrs" in node:
            node["attr"] = node.pop("attrs")
    symbol.write_text(json.dumps(document))


def _another_order(symbol: Path, params: Path) -> None:
    """The nodes in another order that is one of computing them: all parameters first."""
    graph = read_network(dataclasses.replace(graph_files(symbol.parent, ""), symbol=symbol, params=params)).graph

    def inputs_first(node: Node) -> bool:
        return not node.is_variable

    symbol.write_text(dataclasses.replace(graph, nodes=tuple(sorted(graph.nodes, key=inputs_first))).to_json())


_REWRITES: dict[str, Callable[[Path, Path], None]] = {
    "weights saved again": _save_again,
    "weights in the old format": _save_as_before,
    "JSON with its keys sorted": _sort_keys,
    "JSON with attr for attrs": _old_attributes,
    "JSON with the parameters first": _another_order,
}


def _near_ties(specimen: Specimen, directory: Path, black_box: bool, candidate: Runtime) -> Report:
    """A codebook in which every second row is as near to the one before it as float32 can tell."""
    tied = directory / "tied"
    tied.mkdir()
    stages = {}
    for stage, files in specimen.stages.items():
        stages[stage] = graph_files(tied, stage)
        shutil.copyfile(files.symbol, stages[stage].symbol)
        parameters = read_parameters(files.params)
        for name in [name for name in parameters if name.endswith("codebook")]:
            rows = parameters[name].copy()
            rows[1::2] = np.nextafter(rows[0:-1:2], np.float32(np.inf))
            parameters[name] = rows
        mx.nd.save(str(stages[stage].params), {name: mx.nd.array(values) for name, values in parameters.items()})
    bundle = specimen.bundle
    if bundle is not None:
        manifest = json.loads((bundle / MANIFEST).read_text())
        manifest["files"] = {name: {"sha256": digest(tied / name)} for name in manifest["files"]}
        (tied / MANIFEST).write_text(json.dumps(manifest))
        bundle = tied
    changed = dataclasses.replace(specimen, stages=stages, bundle=bundle)
    report = changed.compare(candidate, black_box=black_box)
    if not any(flips.legal for flips in report.flips.values()):
        raise RuntimeFailure(specimen.name, "no code jumped between rows that are as near as float32 can tell")
    return report
