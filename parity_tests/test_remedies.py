"""What cannot be read or run is refused in one line with the remedy of its cause, by every runtime."""

import json
import re
import subprocess
import sys

import networks
import numpy as np
import pytest
from conftest import ROOT, run_cli_here, run_reconstruct

from vqvae_gluon.artifacts.bundle import GraphFiles, find_export
from vqvae_gluon.compat import mx
from vqvae_gluon.errors import DONE, REJECTED, USAGE, InputError, VQVAEError
from vqvae_gluon.runtimes import RUNTIMES

EVERY = ["gluon", "gluon-eager", "executor", "cpp", "cpp-executor", "cpp-predict"]
every_runtime = pytest.mark.parametrize("runtime", EVERY)


def saved(directory, symbol, parameters=None) -> GraphFiles:
    files = GraphFiles(directory / "net-symbol.json", directory / "net-0000.params")
    symbol.save(str(files.symbol))
    mx.nd.save(str(files.params), {name: mx.nd.array(v, dtype=v.dtype) for name, v in (parameters or {}).items()})
    return files


def why_not(runtime, files, tmp_path, **inputs) -> str:
    """The line that a runtime refuses these inputs with."""
    with pytest.raises(VQVAEError) as caught:
        RUNTIMES[runtime]().trace_graph(files, inputs, "graph", tmp_path / "trace", taps=False)
    line = str(caught.value)
    assert not re.search(r"MXNetError|Stack trace|\.cc:\d|export the network again", line)
    return line


def dense(tmp_path, dtype="float32") -> GraphFiles:
    """A convolution and a layer whose parameters have a type."""
    net = mx.gluon.nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(mx.gluon.nn.Conv2D(2, 3, in_channels=1), mx.gluon.nn.Dense(3, in_units=8))
    files = networks.export(networks.initialized(net, (1, 1, 4, 4)), tmp_path, (1, 1, 4, 4))
    arrays = mx.nd.load(str(files.params))
    mx.nd.save(str(files.params), {name: array.astype(dtype) for name, array in arrays.items()})
    files.symbol.write_text(files.symbol.read_text().replace('"__dtype__": "0"', f'"__dtype__": "{FLAGS[dtype]}"'))
    return files


FLAGS = {"float32": 0, "float64": 1, "float16": 2}


def images(count, dtype="float32"):
    return np.random.default_rng(0).normal(size=(count, 1, 4, 4)).astype(dtype)


@every_runtime
def test_an_input_of_another_type_than_the_parameters(tmp_path, runtime):
    files = dense(tmp_path, "float64")
    line = why_not(runtime, files, tmp_path, data=images(2))
    assert "feed float64, the type of the parameters" in line
    RUNTIMES[runtime]().trace_graph(files, {"data": images(2, "float64")}, "graph", tmp_path / "right", taps=False)


@every_runtime
def test_pixels_of_bytes_where_a_graph_computes_in_float32(tmp_path, runtime):
    mean = mx.sym.var("mean")
    files = saved(tmp_path, mx.sym.broadcast_sub(mx.sym.var("data"), mean, name="less"), {"arg:mean": images(1)})
    line = why_not(runtime, files, tmp_path, data=np.ones((2, 1, 4, 4), np.uint8))
    assert "feed float32, the type of the parameters" in line


@every_runtime
@pytest.mark.parametrize("fed", ["float16", "float32"])
def test_float16_is_cast_before_the_export(tmp_path, runtime, fed):
    line = why_not(runtime, dense(tmp_path, "float16"), tmp_path, data=images(2, fed))
    assert "net.cast('float32') before net.export(prefix)" in line
    assert ("float16 products" if fed == "float16" else "the parameters are float16") in line


def reshaping(tmp_path) -> GraphFiles:
    """A graph that was traced with a batch of 4, which it keeps."""
    conv = mx.sym.Convolution(mx.sym.var("data"), kernel=(3, 3), pad=(1, 1), num_filter=4, name="conv")
    rows = mx.sym.reshape(conv, shape=(4, -1, 64), name="rows")
    less = mx.sym.broadcast_sub(rows, mx.sym.mean(rows, axis=1, keepdims=True, name="mean"), name="less")
    weights = {"arg:conv_weight": np.ones((4, 1, 3, 3), "f"), "arg:conv_bias": np.zeros(4, "f")}
    return saved(tmp_path, mx.sym.reshape(less, shape=(-1, 64), name="flat"), weights)


@every_runtime
@pytest.mark.parametrize("batch", [1, 3, 6])
def test_a_reshape_that_fixes_the_batch_is_named(tmp_path, runtime, batch):
    line = why_not(runtime, reshaping(tmp_path), tmp_path, data=images(batch))
    assert "net-symbol.json: shapes do not fit: rows: is a Reshape to (4, -1, 64), which does not take (" in line
    assert "): it fixes the batch at 4" in line
    assert "; feed batches of 4, or write 0 or -1 in place of the 4" in line
    RUNTIMES[runtime]().trace_graph(reshaping(tmp_path), {"data": images(4)}, "graph", tmp_path / "right", taps=False)


FIXED = {
    "rows": lambda x: mx.sym.reshape(x, shape=(4, -1), name="rows"),
    "flattened first": lambda x: mx.sym.reshape(mx.sym.reshape(x, shape=(-1,)), shape=(4, -1), name="rows"),
    "from the right": lambda x: mx.sym.flatten(mx.sym.reshape(x, shape=(4, -1, 0), reverse=True, name="rows")),
    "split": lambda x: mx.sym.reshape(mx.sym.reshape(x, shape=(-4, 2, 2, -2), name="rows"), shape=(-3, -1)),
    "split after a join": lambda x: mx.sym.flatten(
        mx.sym.reshape(mx.sym.reshape(x, shape=(-3, -2)), shape=(-4, 4, -1, -2), name="rows")
    ),
}


@every_runtime
@pytest.mark.parametrize("how", FIXED)
def test_a_reshape_whose_result_does_not_fit_the_parameters_is_named(tmp_path, runtime, how):
    """Its input has as many elements as its output, but only with one batch are they what the parameters want."""
    layer = mx.sym.FullyConnected(FIXED[how](mx.sym.var("data")), num_hidden=3, name="layer")
    files = saved(tmp_path, layer, {"arg:layer_weight": np.ones((3, 16), "f"), "arg:layer_bias": np.zeros(3, "f")})
    for batch in (1, 8):
        line = why_not(runtime, files, tmp_path, data=images(batch))
        assert "net-symbol.json: shapes do not fit: rows: is a Reshape to (" in line
        assert ": it fixes the batch at 4; feed batches of 4, or write 0 or -1 in place of the 4" in line
    RUNTIMES[runtime]().trace_graph(files, {"data": images(4)}, "graph", tmp_path / "right", taps=False)


@every_runtime
def test_a_parameter_of_another_shape_is_not_blamed_on_a_reshape(tmp_path, runtime):
    rows = mx.sym.reshape(mx.sym.var("data"), shape=(4, -1), name="rows")
    weights = {"arg:layer_weight": np.ones((3, 17), "f"), "arg:layer_bias": np.zeros(3, "f")}
    files = saved(tmp_path, mx.sym.FullyConnected(rows, num_hidden=3, name="layer"), weights)
    assert "wrong shape: layer_weight: is (3, 17)" in why_not(runtime, files, tmp_path, data=images(8))


def test_an_input_that_the_graph_does_not_take_is_noted(tmp_path):
    """It may be a name that is misspelt."""
    for name in ("data", "date"):
        np.save(tmp_path / f"{name}.npy", images(1))
    files, inputs = dense(tmp_path), [f"--input={name}={tmp_path / name}.npy" for name in ("data", "date")]
    words = ["--symbol", files.symbol, "--params", files.params, *inputs, "--trace", tmp_path / "trace"]
    result = run_reconstruct(*words)
    assert (result.returncode, result.stderr) == (DONE, "reconstruct: note: the graph does not take the input date\n")


def test_the_command_says_it_in_one_line(tmp_path):
    files = reshaping(tmp_path)
    words = ["--symbol", files.symbol, "--params", files.params, "--input", "data:1,1,4,4", "--candidate", "cpp"]
    command = [sys.executable, "-m", "vqvae_gluon", "parity", *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == REJECTED
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "rows: is a Reshape" in result.stderr
    assert "\n    remedy: feed batches of 4, or write" in result.stdout


def test_an_operator_that_failed_is_not_reported_again_at_exit(tmp_path):
    """MXNet remembers what nobody has waited for, and Python's exit would print it as a traceback."""
    files = reshaping(tmp_path)
    code = f"""
from vqvae_gluon.compat import mx
symbol = mx.sym.load({str(files.symbol)!r})
taps = mx.sym.Group([output for output in symbol.get_internals() if output.name not in symbol.list_inputs()])
block = mx.gluon.SymbolBlock(taps, [mx.sym.var("data")])
block.collect_params().load({str(files.params)!r}, cast_dtype=True, dtype_source="saved")
block.hybridize(static_alloc=True, static_shape=True)
block(mx.nd.ones((1, 1, 4, 4)))[-1].asnumpy()
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (result.returncode, result.stderr) == (DONE, "")


@every_runtime
def test_inputs_of_another_shape(tmp_path, runtime):
    files = saved(tmp_path, mx.sym.broadcast_add(mx.sym.var("data"), mx.sym.var("b"), name="sum"), {"arg:b": images(1)})
    line = why_not(runtime, files, tmp_path, data=np.ones((2, 1, 3, 4), "f"))
    assert "net-symbol.json: shapes do not fit: " in line
    assert "feed inputs of the shapes that the graph was made for" in line


@every_runtime
def test_an_input_of_another_rank(tmp_path, runtime):
    files = dense(tmp_path)
    line = why_not(runtime, files, tmp_path, data=np.ones((1, 4, 4), "f"))
    assert f"{files.symbol}: shapes do not fit: net_conv0_fwd: Input data should be 4D" in line
    assert "; feed inputs of the shapes that the graph was made for" in line


@every_runtime
@pytest.mark.parametrize("kind", ["uint8", "int64", "float16"])
def test_a_single_parameter_of_another_type_is_named(tmp_path, runtime, kind):
    files = dense(tmp_path)
    arrays = mx.nd.load(str(files.params))
    arrays["arg:net_dense0_bias"] = arrays["arg:net_dense0_bias"].astype(kind)
    mx.nd.save(str(files.params), arrays)
    files.symbol.write_text(files.symbol.read_text().replace('"__dtype__": "0"', '"__hint__": "0"'))
    line = why_not(runtime, files, tmp_path, data=images(1))
    assert f"; the parameter net_dense0_bias is {kind}: cast it to float32 before net.export(prefix)" in line


@every_runtime
def test_a_network_of_float16_but_for_its_normalisation_is_cast(tmp_path, runtime):
    """What casts parameter files often leaves BatchNorm in float32, so that there are as many of each."""
    net = mx.gluon.nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(mx.gluon.nn.Conv2D(2, 3, in_channels=1), mx.gluon.nn.BatchNorm(in_channels=2), mx.gluon.nn.Dense(3))
    files = networks.export(networks.initialized(net, (1, 1, 4, 4)), tmp_path, (1, 1, 4, 4))
    arrays = mx.nd.load(str(files.params))
    halved = {name: array if "batchnorm" in name else array.astype("float16") for name, array in arrays.items()}
    mx.nd.save(str(files.params), halved)
    line = why_not(runtime, files, tmp_path, data=images(2))
    assert re.search(
        r"4 parameters are not float32, net_\w+ is float16: cast the network by net.cast\('float32'\)", line
    )


@every_runtime
def test_a_layer_that_infers_its_type_is_fed_that_of_its_parameter(tmp_path, runtime):
    layer = mx.sym.LeakyReLU(mx.sym.var("data"), mx.sym.var("slope"), act_type="prelu", name="layer")
    line = why_not(runtime, saved(tmp_path, layer, {"arg:slope": np.ones(1, "float64")}), tmp_path, data=images(2))
    assert "feed float64, the type of the parameters" in line


@every_runtime
def test_a_product_of_float16_says_so(tmp_path, runtime):
    product = mx.sym.dot(
        mx.sym.cast(mx.sym.var("data"), dtype="float16"), mx.sym.cast(mx.sym.var("w"), dtype="float16")
    )
    files = saved(tmp_path, product, {"arg:w": np.ones((4, 3), "f")})
    assert "MXNet computes no float16 products on a CPU" in why_not(runtime, files, tmp_path, data=images(2))


@pytest.mark.parametrize("engine", ["cachedop", "executor", "predict"])
def test_a_mask_is_fed_as_float32(tmp_path, engine):
    """MXNet has no name for the type of bool."""
    files = dense(tmp_path)
    np.save(tmp_path / "x.npy", images(1) > 0)
    result = run_reconstruct(
        "--symbol", files.symbol, "--params", files.params, "--input", f"data={tmp_path / 'x.npy'}",
        "--trace", tmp_path / "trace", "--engine", engine,
    )  # fmt: skip
    assert result.returncode == REJECTED
    assert result.stderr.rstrip().endswith("; feed float32, the type of the parameters")


@every_runtime
def test_float16_layers_run_on_a_gpu_alone(tmp_path, runtime):
    net = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=3, name="fc")
    halves = {"arg:fc_weight": np.ones((3, 2), np.float16), "arg:fc_bias": np.zeros(3, np.float16)}
    line = why_not(runtime, saved(tmp_path, net, halves), tmp_path, data=np.ones((1, 2), np.float16))
    assert "MXNet computes no float16 products on a CPU: cast the network" in line


@every_runtime
@pytest.mark.parametrize("kind", ["uint8", "int32"])
@pytest.mark.parametrize("operator", ["FullyConnected", "softmax", "LRN"])
def test_integers_that_an_operator_does_not_take_are_fed_as_float32(tmp_path, runtime, operator, kind):
    if operator == "FullyConnected":
        net = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=3, no_bias=True, name="fc")
        files = saved(tmp_path, net, {"arg:fc_weight": np.ones((3, 4), kind)})
    else:
        settings = {"nsize": 3} if operator == "LRN" else {}
        files = saved(tmp_path, getattr(mx.sym, operator)(mx.sym.var("data"), name="act", **settings))
    line = why_not(
        runtime, files, tmp_path, data=np.ones((1, 4) if operator == "FullyConnected" else (1, 4, 2, 2), kind)
    )
    assert "; MXNet does not compute this type here: feed float32, or cast the network" in line


@pytest.mark.parametrize(
    ("begin", "kind"),
    [
        (b"PK\x03\x04", "a zip archive"),
        (b"\x93NUMPY", "an .npy file"),
        (b"version https://git-lfs", "a pointer of Git"),
    ],
)
@pytest.mark.parametrize("runtime", ["gluon", "cpp"])
def test_a_symbol_file_of_another_kind_is_called_what_it_is(tmp_path, runtime, begin, kind):
    files = dense(tmp_path)
    files.symbol.write_bytes(begin + b"rest")
    assert f"net-symbol.json: is no JSON: it is {kind}" in why_not(runtime, files, tmp_path, data=images(1))


@pytest.mark.parametrize("runtime", ["gluon", "cpp"])
def test_files_that_are_given_for_each_other(tmp_path, runtime):
    files = dense(tmp_path)
    line = why_not(runtime, GraphFiles(files.params, files.symbol), tmp_path, data=images(1))
    assert "net-0000.params: is no JSON: it is a .params file; give the -symbol.json that net.export(prefix)" in line


def test_an_input_is_given_once(tmp_path):
    files = dense(tmp_path)
    words = ["--symbol", files.symbol, "--params", files.params, "--input", "data:1,1,4,4", "--candidate", "cpp"]
    result = run_cli_here("parity", *words, "--input", "data:2,1,4,4")
    assert result.returncode == USAGE
    assert "--input: names data twice; give each input once" in result.stderr


def test_a_prefix_is_asked_for_where_a_file_was_given(tmp_path):
    files = dense(tmp_path)
    with pytest.raises(InputError, match=r"is missing; give the prefix that net\.export\(prefix\) had"):
        find_export(files.params)


@every_runtime
def test_an_operator_in_python_exists_in_python_alone(tmp_path, runtime):
    graph = {
        "nodes": [
            {"op": "null", "name": "data", "inputs": []},
            {"op": "Custom", "name": "clip", "attrs": {"op_type": "of_a_user"}, "inputs": [[0, 0, 0]]},
        ],
        "arg_nodes": [0],
        "heads": [[1, 0, 0]],
    }
    files = saved(tmp_path, mx.sym.var("data"))
    files.symbol.write_text(json.dumps(graph))
    line = why_not(runtime, files, tmp_path, data=images(1))
    assert "clip (of_a_user): the operator Custom is refused: it calls a function of the program" in line
    assert "; the operator is written in Python" in line


@every_runtime
def test_an_operator_that_nobody_knows(tmp_path, runtime):
    files = saved(tmp_path, mx.sym.relu(mx.sym.var("data"), name="act"))
    files.symbol.write_text(files.symbol.read_text().replace('"relu"', '"swish_of_2030"'))
    line = why_not(runtime, files, tmp_path, data=images(1))
    assert "swish_of_2030" in line
    assert "MXNet 1.9.1 does not have it" in line


@every_runtime
def test_a_label_that_is_not_fed_is_asked_for(tmp_path, runtime):
    files = saved(tmp_path, mx.sym.SoftmaxOutput(mx.sym.var("data"), name="softmax"))
    line = why_not(runtime, files, tmp_path, data=np.ones((2, 3), "f"))
    assert "parameter missing: softmax_label" in line
    assert "an input or a label is " in line


@pytest.mark.parametrize("runtime", ["gluon", "cpp"])
def test_a_symbol_file_that_is_cut_is_copied_again(tmp_path, runtime):
    files = dense(tmp_path)
    files.symbol.write_text(files.symbol.read_text()[:-20])
    assert "copy the file again" in why_not(runtime, files, tmp_path, data=images(1))


def test_a_missing_file_says_which_one_is_wanted(tmp_path):
    files = dense(tmp_path)
    files.symbol.unlink()
    words = ["--symbol", files.symbol, "--params", files.params, "--input", "data:1,1,4,4", "--candidate", "cpp"]
    result = run_cli_here("parity", *words)
    assert result.returncode == REJECTED
    assert result.stderr.rstrip().endswith("give the -symbol.json that net.export(prefix) writes")


def test_a_graph_that_crashes_mxnet_is_refused_in_one_line(tmp_path):
    files = saved(tmp_path, mx.sym.Convolution(mx.sym.var("data"), kernel=(1, 1), num_filter=1, no_bias=True, name="c"))
    mx.nd.save(str(files.params), {"arg:c_weight": mx.nd.ones((1, 1, 1, 1))})
    files.symbol.write_text(
        files.symbol.read_text().replace('"num_filter": "1"', '"num_filter": "1", "num_group": "0"')
    )
    np.save(tmp_path / "x.npy", images(1))
    result = run_reconstruct(
        "--symbol", files.symbol, "--params", files.params, "--input", f"data={tmp_path / 'x.npy'}",
        "--trace", tmp_path / "trace",
    )  # fmt: skip
    assert result.returncode == REJECTED
    assert result.stderr.splitlines()[-1].startswith("reconstruct: error: ")
