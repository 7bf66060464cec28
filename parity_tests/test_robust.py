"""What goes wrong is one line, never a traceback; and what is printed does not depend on where it is printed."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import PRETRAINED, run_cli, run_cli_here
from networks import residual

from vqvae_gluon import cli
from vqvae_gluon.artifacts.bundle import GraphFiles
from vqvae_gluon.compat import mx
from vqvae_gluon.errors import DIVERGED, DONE, FAILED, InputError, UsageError
from vqvae_gluon.parity import compare, harness
from vqvae_gluon.runtimes.gluon import load_pretrained

THREE_BATCHES = ["--input", "data:2,3,32,32", "--count", "6"]


def export(symbol, directory, seed=0, **shapes) -> GraphFiles:
    """A symbol and seeded parameters, on disk."""
    random = np.random.default_rng(seed)
    found = zip(symbol.list_arguments(), symbol.infer_shape(**shapes)[0])
    parameters = {f"arg:{name}": mx.nd.array(random.normal(0, 0.3, s)) for name, s in found if name not in shapes}
    files = GraphFiles(directory / "net-symbol.json", directory / "net-0000.params")
    symbol.save(str(files.symbol))
    mx.nd.save(str(files.params), parameters)
    return files


def words(files: GraphFiles, candidate: str, *more) -> list:
    return ["parity", "--symbol", files.symbol, "--params", files.params, "--candidate", candidate, *more]


def one_line(error: str) -> bool:
    return error.count("\n") == 1 and error.startswith("vqvae-gluon: error: ") and "Traceback" not in error


# A progress bar is drawn on terminals alone. Here standard error is a pipe.


def test_notes_are_printed_once_whatever_the_number_of_batches(tmp_path):
    files = residual(tmp_path / "residual")
    result = run_cli(*words(files, "cpp-fused", *THREE_BATCHES))
    notes = [line for line in result.stdout.splitlines() if line.startswith("  note: ")]
    assert (result.returncode, "on 6 samples" in result.stdout) == (DONE, True), result.stderr
    assert any("MXNet's executors compute" in note for note in notes)
    assert len(notes) == len(set(notes))


def test_a_fault_that_is_in_the_files_alone_is_written_after_the_last_batch(tmp_path):
    files = residual(tmp_path / "residual")
    parameters = mx.nd.load(str(files.params))
    moved = next(name for name in parameters if name.endswith("bias"))
    parameters[moved] += 0.0
    parameters[moved][:] = -0.0  # Another file, the same numbers.
    other = tmp_path / "other.params"
    mx.nd.save(str(other), parameters)
    more = ["--candidate-params", other, "--repro", tmp_path / "repro", *THREE_BATCHES]
    result = run_cli(*words(files, "gluon", *more))
    assert result.returncode == DIVERGED, result.stderr
    assert (tmp_path / "repro" / "README.md").exists()


# A candidate whose shapes are others, in front of what jumps.

JUMPS = {
    "argmin": lambda x: mx.sym.argmin(mx.sym.softmax(x, axis=1), axis=1, name="jump"),
    "topk": lambda x: mx.sym.topk(x, axis=1, k=2, name="jump"),
    "round": lambda x: mx.sym.round(x, name="jump"),
    "cast": lambda x: mx.sym.Cast(x * 9, dtype="int32", name="jump"),
    "compare": lambda x: mx.sym.broadcast_greater(x, mx.sym.mean(x, axis=(2, 3), keepdims=True), name="jump"),
}


@pytest.mark.parametrize("behind", ["output", "layer"])
@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("candidate", ["gluon-eager", "cpp-predict"])
def test_another_shape_in_front_of_a_jump_is_named(candidate, jump, behind, tmp_path):
    stem = mx.sym.Convolution(mx.sym.var("data"), kernel=(3, 3), pad=(1, 1), num_filter=8, name="stem")
    pooled = mx.sym.Pooling(
        stem, kernel=(3, 3), stride=(2, 2), pool_type="max", pooling_convention="full", name="pooled"
    )
    jumped = JUMPS[jump](pooled)
    if behind == "layer":
        jumped = mx.sym.sum(mx.sym.Cast(jumped, dtype="float32"), axis=1, name="behind")
    mean = mx.sym.Pooling(pooled, global_pool=True, pool_type="avg", kernel=(1, 1), name="mean")
    files = export(
        mx.sym.Group([jumped, mx.sym.FullyConnected(mean, num_hidden=5, name="fc")]), tmp_path, data=(2, 3, 16, 16)
    )
    other = tmp_path / "other-symbol.json"
    other.write_text(files.symbol.read_text().replace('"pooling_convention": "full"', '"pooling_convention": "valid"'))
    result = run_cli_here(*words(files, candidate, "--input", "data:2,3,16,16", "--candidate-symbol", other, "--json"))
    assert result.returncode == DIVERGED, result.stderr
    found = json.loads(result.stdout)
    assert (found["first_divergent"]["node"], found["cause"]["name"]) == ("pooled", "padding or output shape")
    assert found["tolerance"] is None, "no tolerance passes another shape"


# Errors.


def test_a_fault_of_our_own_is_one_line_and_its_traceback_a_file(monkeypatch, tmp_path):
    def fail(_):
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(cli.judging, "_parity", fail)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    result = run_cli_here("parity", "bundle", "--candidate", "cpp")
    assert result.returncode == FAILED and one_line(result.stderr)
    assert "internal error: ZeroDivisionError: division\\x0aby zero; the traceback is in " in result.stderr
    (kept,) = tmp_path.iterdir()
    assert str(kept) in result.stderr and "raise ZeroDivisionError" in kept.read_text()


def test_a_script_that_starts_workers_is_not_run_by_them(tmp_path):
    """It lacks the guard that Python's processes otherwise need."""
    script = tmp_path / "script.py"
    script.write_text(
        "from vqvae_gluon.workers import run\nprint(sorted(found for _, found in run(len, ['a', 'bb', 'ccc'], 2)))\n"
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=120)
    assert (result.stdout, result.stderr) == ("[1, 2, 3]\n", "")


@pytest.mark.parametrize("module", ["vqvae_gluon.cli.training", "numpy"])
def test_ctrl_c_while_modules_are_imported_ends_the_program_without_a_word(module):
    code = f"""
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupting())
from vqvae_gluon.__main__ import main
sys.exit(main())
"""
    result = subprocess.run([sys.executable, "-c", code, "parity"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGINT, "", "")


def test_a_lack_of_memory_is_no_internal_error(monkeypatch):
    def lacking(*_, **__):
        raise MemoryError("Unable to allocate 47.7 GiB for an array")

    monkeypatch.setattr(harness, "compare_bundles", lacking)
    result = run_cli_here("parity", PRETRAINED, "--data", PRETRAINED / "digits", "--candidate", "cpp")
    assert result.returncode == FAILED and one_line(result.stderr)
    assert "out of memory: Unable to allocate 47.7 GiB for an array; give smaller sizes" in result.stderr


def test_numpy_2_is_named_with_its_remedy():
    code = (
        "import numpy, sys; numpy.__version__ = '2.1.0'; from vqvae_gluon.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "reconstruct", "pretrained/mnist", "pretrained/mnist/digits/00.png"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == FAILED and one_line(result.stderr)
    assert "numpy: 2.1.0 does not work with MXNet; run: pip install 'numpy<2'" in result.stderr


def test_a_pretrained_network_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(
        InputError, match="cifar11: is not the name of a pretrained network; give one of cifar10, mnist"
    ):
        load_pretrained("cifar11")


# Comparing a live block.


@pytest.fixture
def block(tmp_path):
    """A block with a convolution, and the prefix of its export."""
    net = mx.gluon.nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(mx.gluon.nn.Conv2D(4, 3, in_channels=3), mx.gluon.nn.Dense(2, in_units=4 * 6 * 6))
    net.initialize(mx.init.Xavier())
    net.hybridize()
    net(mx.nd.zeros((1, 3, 8, 8)))
    net.export(str(tmp_path / "net"))
    return net, tmp_path / "net"


IMAGES = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("kind", [lambda x: x, mx.nd.array, lambda x: [x], lambda x: (mx.nd.array(x),)])
def test_inputs_may_be_of_numpy_or_mxnet(kind, block):
    net, prefix = block
    assert compare(net, prefix, kind(IMAGES), candidate="gluon-eager").verdict == "agree"


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        (IMAGES.astype(np.float64), r"refuses float64 \(2, 3, 8, 8\): .*; feed float32"),
        (IMAGES[:, :2], r"refuses float32 \(2, 2, 8, 8\): "),
        ([IMAGES, IMAGES], r"refuses float32 \(2, 3, 8, 8\), float32 \(2, 3, 8, 8\): "),
        ([], "are none; give an array for each argument of the block"),
        (np.array(["text"]), "give arrays of float32, "),
        (IMAGES.astype(np.uint16), "hold uint16 of shape .*; give arrays of float32, "),
        (np.float32(1), "give arrays of float32, "),
        (IMAGES[:0], "give arrays of float32, "),
    ],
)
def test_inputs_that_a_block_cannot_take_are_named(inputs, why, block):
    net, prefix = block
    with pytest.raises(InputError, match=f"inputs: .*{why}") as found:
        compare(net, prefix, inputs, candidate="gluon-eager")
    assert "MXNetError" not in str(found.value) and "src/operator" not in str(found.value)


def test_a_runtime_that_does_not_exist_is_told_with_those_that_do(block):
    net, prefix = block
    with pytest.raises(UsageError, match=r"candidate: is 'c\+\+', which is no runtime; give one of gluon, gluon-eager"):
        compare(net, prefix, IMAGES, candidate="c++")


class FixedBatch(mx.gluon.HybridBlock):
    """Made for batches of 4. What MXNet does with others ends in a crash, if it is run."""

    def hybrid_forward(self, F, x):
        return F.reshape(F.tanh(x), (4, 64), name="rows")


@pytest.mark.parametrize("batch", [1, 3, 8, 64])
def test_a_reshape_of_a_live_block_that_fixes_the_batch_is_named_before_it_is_run(batch, tmp_path):
    net = FixedBatch(prefix="net_")
    net.hybridize()
    net(mx.nd.ones((4, 64)))
    net.export(str(tmp_path / "net"))
    assert compare(net, tmp_path / "net", np.ones((4, 4, 16), "f")).verdict == "agree"
    with pytest.raises(
        InputError, match=r"the block net: .*net_rows: is a Reshape to \(4, 64\), .* fixes the batch at 4"
    ):
        compare(net, tmp_path / "net", np.ones((batch, 4, 16), "f"))


class ByShape(mx.gluon.HybridBlock):
    """Computes what no export can hold."""

    def hybrid_forward(self, F, x):
        return x.reshape((x.shape[0], -1)) * 2


class GivesDict(mx.gluon.HybridBlock):
    def hybrid_forward(self, F, x):
        return {"result": x * 2}


class Identity(mx.gluon.HybridBlock):
    def hybrid_forward(self, F, x):
        return x


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (mx.gluon.nn.Dense(3, in_units=192), "its parameter dense.*_weight has no values; call net.initialize"),
        (ByShape(), "cannot be exported .*; it must compute by F and its layers alone"),
        (GivesDict(), "gives dict; only arrays, and lists of them, can be exported"),
        (Identity(), "has no operators"),
        (mx.gluon.nn.HybridSequential(), "has no operators"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_block_that_cannot_be_compared_is_named(net, why, block):
    with pytest.raises(InputError, match=f"the block {net.name}: .*{why}"):
        compare(net, block[1], IMAGES, candidate="gluon-eager")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"net": len}, "net: is builtin_function_or_method; give a Gluon block"),
        ({"target": None}, "target: is NoneType; give the prefix of an export"),
        ({"candidate": ["cpp"]}, "candidate: is .*, which is no runtime"),
        ({"repeat": 0}, "repeat: is 0; give a whole number of at least 1"),
        ({"max_memory": "1G"}, "max_memory: is '1G'; give a whole number"),
    ],
)
def test_arguments_of_another_kind_are_named(words, why, block):
    net, prefix = block
    with pytest.raises(UsageError, match=why):
        compare(**{"net": net, "target": prefix, "inputs": IMAGES, **words})


class Scaled(mx.gluon.HybridBlock):
    """No parameters; its arguments are lists of arrays."""

    def hybrid_forward(self, F, x, scales):
        return [F.broadcast_mul(x, scales[0]), F.broadcast_add(x, scales[1][0])]


def test_arguments_may_be_lists_and_parameters_none(tmp_path):
    net = Scaled(prefix="scaled_")
    net.hybridize()
    x, scale, shift = (np.full((1, 2), value, np.float32) for value in (1, 2, 3))
    net(*map(mx.nd.array, [x]), [mx.nd.array(scale), [mx.nd.array(shift)]])
    net.export(str(tmp_path / "scaled"))
    report = compare(net, tmp_path / "scaled", (x, [scale, [shift]]), candidate="cpp")
    assert (report.verdict, report.nodes_compared) == ("agree", 2)


def test_a_block_under_numpys_semantics_is_compared(tmp_path):
    """In a process of its own: the semantics hold for all of it."""
    script = tmp_path / "script.py"
    script.write_text(
        """
import sys
from vqvae_gluon.compat import mx
from vqvae_gluon.parity import compare
mx.npx.set_np()
net = mx.gluon.nn.HybridSequential(prefix="net_")
with net.name_scope():
    net.add(mx.gluon.nn.Dense(4, in_units=6, activation="relu"), mx.gluon.nn.Dense(3, in_units=4))
net.initialize(mx.init.Xavier())
net.hybridize()
x = mx.np.arange(12).reshape(2, 6).astype("float32")
net(x)
net.export(sys.argv[1])
print(*(compare(net, sys.argv[1], value, candidate="cpp").verdict for value in (x, x.asnumpy())), mx.util.is_np_array())
"""
    )
    result = subprocess.run([sys.executable, script, tmp_path / "net"], capture_output=True, text=True, check=False)
    assert result.stdout == "agree agree True\n", result.stderr
