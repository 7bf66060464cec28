"""What could make the earlier project's C++ go wrong: done to its network, run in C++, judged by the harness.

Each case is what a C++ program does otherwise than the Python that it should equal. What it computes is recorded as a
trace, as any program could write one, and `vqvae-gluon parity compare` says what it makes of it. The files that the
program *read* are those of the reference, unless a case says otherwise; the harness sees the trace
alone.
"""

import ctypes
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Callable

import numpy as np

from earlier.network import EarlierVQVAE, Parameters, as_numbers, export, load, pretrained, with_batch_norm
from earlier.training import MEASURED, Training
from vqvae_gluon.artifacts.binding import read_network
from vqvae_gluon.artifacts.bundle import GraphFiles, graph_files
from vqvae_gluon.artifacts.trace import Trace, TraceWriter
from vqvae_gluon.compat import mx
from vqvae_gluon.data import load_split
from vqvae_gluon.parity.harness import compare_exports
from vqvae_gluon.parity.inputs import Feed
from vqvae_gluon.parity.recorded import compare_traces, record_export
from vqvae_gluon.parity.report import Report
from vqvae_gluon.runtimes import RUNTIMES
from vqvae_gluon.runtimes.base import Runtime
from vqvae_gluon.runtimes.executor import ExecutorRuntime

COUNT = 100  # test digits
ENGINE = "cpp-executor"  # What MXNet's C++ package, which the earlier project used, binds.
RECONSTRUCTION = "decoder_sigmoid_fwd"
EARLY, LATE = MEASURED[0], MEASURED[-1]
_SOURCE = Path(__file__).with_name("earlier_test.cc")


class Bench:
    """What the cases share.

    Args:
        bundle: of the preset ``mnist``, whose parameters the earlier network is given.
        directory: for everything that is written.

    Attributes:
        digits: uint8 (100, 28, 28, 1).
        data: float32 (100, 1, 28, 28), 0..1.
    """

    def __init__(self, bundle: Path, directory: Path):
        self._bundle, self._directory = bundle, directory
        self.digits = load_split("mnist", "test", 1)[:COUNT]
        self.data = as_numbers(self.digits)
        self.right, self.wrong = Training("right", directory), Training("wrong", directory)
        self._references: dict[str, Trace] = {}
        self._made = 0

    @cached_property
    def _program(self) -> Path:
        path = self.fresh() / _SOURCE.stem
        compiler = os.environ.get("CXX", "c++")
        subprocess.run([compiler, "-std=c++17", "-O1", "-o", str(path), str(_SOURCE)], check=True)
        return path

    def run_program(self, command: str, values: np.ndarray, dtype: str) -> np.ndarray:
        """What the earlier project's C++ test makes of some values, in one row."""
        given = np.ascontiguousarray(values).tobytes()
        result = subprocess.run([str(self._program), command], input=given, capture_output=True, check=True)
        return np.frombuffer(result.stdout, dtype)

    def network(self, name: str) -> tuple[dict[str, Any], Parameters]:
        """What a reference is made of: how its network is built, and its parameters."""
        if name == "trained":
            return {}, self.right.parameters(LATE)
        if name == "trained with the wrong sign":
            return {"wrong_sign": True}, self.wrong.parameters(LATE)
        plain = pretrained(self._bundle)
        return ({}, plain) if name == "plain" else ({"batch_norm": True}, with_batch_norm(plain, self.data))

    def reference(self, name: str) -> Trace:
        """What Gluon gives."""
        if name not in self._references:
            arguments, parameters = self.network(name)
            files = export(load(EarlierVQVAE(**arguments), parameters), self.fresh())
            runtime = RUNTIMES["gluon"]()
            self._references[name] = record_export(runtime, files, {"data": self.data}, self.fresh() / "trace")
        return self._references[name]

    def fresh(self) -> Path:
        """A new directory."""
        self._made += 1
        path = self._directory / str(self._made)
        path.mkdir()
        return path


@dataclass(frozen=True)
class Case:
    """One thing that goes wrong, or does not.

    Attributes:
        key: short name, of its picture.
        name: as the document tells it.
        cause: what the harness should call it; empty if it should find the two to agree.
        data: what the program makes of the digits.
        memory: the parameters that it computes with, made of those of the file.
        network: what is otherwise in its graph.
        reference: the network that Gluon runs; see :meth:`Bench.network`.
        runtime: what runs it.
        files: whether its files hold what it computes with, and the harness sees them.
        live: whether its numbers vary from run to run, so that the harness must run it itself.
    """

    key: str
    name: str
    cause: str
    data: Callable[[Bench], np.ndarray] = field(default=lambda bench: bench.data)
    memory: Callable[[Bench, Parameters], Parameters] = field(default=lambda bench, parameters: parameters)
    network: Mapping[str, Any] = field(default_factory=dict)
    reference: str = "plain"
    runtime: Callable[[], Runtime] = RUNTIMES[ENGINE]
    files: bool = False
    live: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        trace: every tensor of the program's run.
        data: float32 (100, 1, 28, 28), what the network was fed.
        reconstruction: float32 (100, 1, 28, 28), 0..1.
        codes_equal: share of the codes that are the reference's.
        mse: of the reconstruction against the digit, pixels as 0..1.
    """

    case: Case
    report: Report
    trace: Trace
    data: np.ndarray
    reconstruction: np.ndarray
    codes_equal: float
    mse: float

    @property
    def named(self) -> str:
        """What the harness calls it; empty if it finds the two to agree."""
        return self.report.cause.name if self.report.cause else ""


def replay(bench: Bench, case: Case) -> Outcome:
    """Run a case, and have it judged."""
    arguments, parameters = bench.network(case.reference)
    net = EarlierVQVAE(**{**arguments, **case.network})
    files = export(load(net, case.memory(bench, parameters)), bench.fresh())
    data = np.ascontiguousarray(case.data(bench), np.float32)
    ran = record_export(case.runtime(), files, {"data": data}, bench.fresh() / "trace")
    reference = bench.reference(case.reference)
    if case.live:
        feed = Feed("the digits", {"data": data}, COUNT, [])
        report = compare_exports(RUNTIMES["gluon"](), case.runtime(), files, files, feed, repeat=2)
    else:
        told = ran if case.files else _told(ran, reference, bench.fresh())
        report = compare_traces(reference.path, told.path)
    codes, expected = (np.ravel(untapped(trace, "codes")) for trace in (ran, reference))
    reconstruction = untapped(ran, RECONSTRUCTION)
    mse = mean_squared_error(reconstruction, bench.data)
    return Outcome(case, report, ran, data, reconstruction, float((codes == expected).mean()), mse)


def mean_squared_error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.astype(np.float64) - b).mean())


def untapped(trace: Trace, name: str) -> np.ndarray:
    """A result of the run without taps."""
    return np.array(trace.get("graph-output", name))


def _told(ran: Trace, reference: Trace, path: Path) -> Trace:
    """A trace as a program writes it that knows nothing of this project: what its graph should hold, and no files."""
    writer = TraceWriter(path, ran.runtime)
    known = reference.by_key()
    for node in ran.nodes:
        if node.key in known:
            writer.add(node.stage, node.name, node.operator, node.load())
    return writer.close()


def batch_of_one(bench: Bench) -> Report:
    """The network with the batch size in its reshapes, exported for 100 digits, on a single one."""
    files = export(load(EarlierVQVAE(batch_size=COUNT), bench.network("plain")[1]), bench.fresh())
    plain: GraphFiles = graph_files(bench.reference("plain").path / "network", "graph")
    one = Feed("one digit", {"data": bench.data[:1]}, 1, [])
    return compare_exports(RUNTIMES["gluon"](), RUNTIMES[ENGINE](), plain, files, one)


class Impatient(ExecutorRuntime):
    """Reads the results of the run without taps as soon as it has asked for them. What is not overwritten yet is the
    result of the batch before, whose digits came in another order, as they do from a shuffled data set."""

    def outputs(self, files, inputs, taps) -> Iterator[tuple[str, str, np.ndarray]]:
        if taps:
            yield from super().outputs(files, inputs, taps)
            return
        network = read_network(files)
        values = {name[4:]: array for name, array in network.parameters.items()} | dict(inputs)
        bound = {name: mx.nd.array(array, dtype=array.dtype) for name, array in values.items()}
        arguments = network.symbol.list_arguments()
        executor = network.symbol.bind(mx.cpu(), [bound[name] for name in arguments], grad_req="null")
        fed = {name: array for name, array in inputs.items() if name in arguments}
        before = {name: np.random.default_rng().permutation(array) for name, array in fed.items()}
        for batch in (before, fed):
            for name, array in batch.items():
                bound[name][:] = mx.nd.array(array, dtype=array.dtype)
            mx.nd.waitall()
            executor.forward(is_train=False)
            results = [_now(array) for array in executor.outputs]
            mx.nd.waitall()
        operators = {node.name: node.operator for node in network.graph.nodes}
        for output, result in zip(network.graph.outputs, results):
            yield network.tensor(output), operators[output[0]], result


def _now(array) -> np.ndarray:
    """A copy of the memory of a float32 array, whatever is still to be written to it."""
    pointer = ctypes.c_void_p()
    if mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)) != 0:
        return array.asnumpy()  # It was just being written in oneDNN's own layout, of which MXNet gives no memory away.
    floats = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float))
    return np.array(np.ctypeslib.as_array(floats, shape=array.shape))


def _as_it_read(bench: Bench) -> np.ndarray:
    return bench.run_program("read", bench.digits, "float32").reshape(bench.data.shape)


def _transposed(bench: Bench) -> np.ndarray:
    return bench.data.swapaxes(2, 3)


def _noise(*kinds: str) -> Callable[[Bench, Parameters], Parameters]:
    """Parameters of some names as MXNet's C++ package fills what it was not given: N(0, 1). The seed is ours."""

    def fill(bench: Bench, parameters: Parameters) -> Parameters:
        generator = np.random.default_rng(0)
        return {
            name: generator.standard_normal(values.shape).astype("f") if name.startswith(kinds) else values
            for name, values in parameters.items()
        }

    return fill


def _mixed(bench: Bench, parameters: Parameters) -> Parameters:
    early = bench.right.parameters(EARLY)
    return {name: early[name] if name.startswith("arg:encoder") else values for name, values in parameters.items()}


_WRONG_SIGN = {"wrong_sign": True}
_EPOCHS = f"encoder of step {EARLY}, the rest of step {LATE} of one training"

RIGHT = Case("right", "its loader and its executor, the right pixels", "")

# What its C++ and its training did.
FOUND = [
    RIGHT,
    Case("pixel-stride", "gray picture read as one of three channels", "pixel stride", data=_as_it_read),
    Case(
        "auxiliary",
        "with BatchNorm: its loader puts the auxiliary states among the arguments",
        "auxiliary unbound",
        memory=_noise("aux:"),
        reference="BatchNorm",
    ),
    Case(
        "sign-trained",
        f"estimator with the wrong sign, trained so for {LATE} steps, in both languages",
        "",
        reference="trained with the wrong sign",
    ),
    Case("sign", "estimator with the wrong sign in C++ alone", "latent sign", network=_WRONG_SIGN),
    Case("sign-files", "the same, its files visible", "latent sign", network=_WRONG_SIGN, files=True),
]

# What else would look like it.
OTHERS = [
    Case("scale", "pixels 0..255, not 0..1", "scale", data=lambda bench: bench.data * 255),
    Case("inverted", "pixels inverted", "inverted", data=lambda bench: 1 - bench.data),
    Case("transposed", "pixels column-major", "transposed input", data=_transposed),
    Case(
        "column-major",
        "pixels and latent column-major",
        "transposed input + latent layout",
        data=_transposed,
        network={"column_major": True},
    ),
    Case(
        "prefix",
        "prefix `arg:` not stripped: every parameter random",
        "prefix lost",
        memory=_noise("arg:"),
    ),
    Case("codebook", "codebook not loaded: random", "codebook unbound", memory=_noise("arg:quantizer")),
    Case("epochs", _EPOCHS, "parameters of another epoch", memory=_mixed, reference="trained"),
    Case(
        "epochs-files",
        "the same, its files visible",
        "parameters of another epoch",
        memory=_mixed,
        reference="trained",
        files=True,
    ),
    Case("race", "result read without waiting for it", "nondeterministic", runtime=Impatient, live=True),
]
