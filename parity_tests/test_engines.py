"""The engines of the C++ binary: what Gluon runs on, what symbols are bound to, and the predict API."""

import hashlib
import json
import os
import struct
import subprocess

import networks
import numpy as np
import pytest
from conftest import PRETRAINED, run_reconstruct

from vqvae_gluon.artifacts.bundle import GraphFiles
from vqvae_gluon.artifacts.trace import environment
from vqvae_gluon.compat import mx
from vqvae_gluon.errors import DONE, FAILED, REJECTED, USAGE
from vqvae_gluon.runtimes.cpp import CppRuntime, find_binary

ENGINES = {"cachedop": "cpp", "executor": "cpp-executor", "predict": "cpp-predict"}
DTYPES = ["float32", "float64", "float16", "uint8", "int32", "int8", "int64"]
RANDOM = np.random.default_rng(7)

engines = pytest.mark.parametrize("engine", ENGINES)


class Case:
    """A graph with its parameters on disk, to be run on inputs."""

    def __init__(self, directory, symbol, parameters=None):
        self.directory = directory
        self.symbol, self.params = directory / "net-symbol.json", directory / "net-0000.params"
        symbol.save(str(self.symbol))
        arrays = {name: mx.nd.array(array, dtype=array.dtype) for name, array in (parameters or {}).items()}
        mx.nd.save(str(self.params), arrays)

    def start(self, inputs, *arguments):
        """Run the binary; gives its process."""
        feeds = []
        for name, values in inputs.items():
            np.save(self.directory / f"{name}.npy", values)
            feeds += ["--input", f"{name}={self.directory / name}.npy"]
        return run_reconstruct(
            "--symbol", self.symbol, "--params", self.params, *feeds, "--trace", self.directory / "trace", *arguments
        )  # fmt: skip

    def index(self):
        return json.loads((self.directory / "trace/trace.json").read_text())

    def run(self, inputs, *arguments):
        """Run the binary; gives the tensors of the trace by name, in order."""
        result = self.start(inputs, *arguments)
        assert result.returncode == DONE, result.stderr
        rows = self.index()["nodes"]
        assert len({row["name"] for row in rows}) == len(rows)
        return {row["name"]: np.load(self.directory / "trace" / row["file"]) for row in rows}


def check_failed(result, status, *words):
    assert result.returncode == status, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("reconstruct: error: ")
    for word in words:
        assert word in result.stderr


def float32(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def check_equal(results, expected):
    assert list(results) == list(expected)
    for name, values in expected.items():
        assert results[name].dtype == values.dtype, name
        np.testing.assert_array_equal(results[name], values, err_msg=name)


@pytest.fixture(scope="module")
def bundle_runs(tmp_path_factory, digits):
    """Of every engine: the index and the tensors of a trace of the pretrained bundle, by stage and name."""
    directory = tmp_path_factory.mktemp("bundle")
    np.save(directory / "digits.npy", digits[:20, :, :, 0])
    runs = {}
    for engine in ENGINES:
        trace = directory / engine
        result = run_reconstruct(
            "--bundle", PRETRAINED, "--engine", engine, "--taps", "none",
            "--trace", trace, "--output", directory / "out", directory / "digits.npy",
        )  # fmt: skip
        assert result.returncode == DONE, result.stderr
        index = json.loads((trace / "trace.json").read_text())
        runs[engine] = index, {(row["stage"], row["name"]): np.load(trace / row["file"]) for row in index["nodes"]}
    return runs


@engines
def test_a_bundle_runs_on_every_engine(bundle_runs, digits, engine):
    tensors = bundle_runs[engine][1]
    assert list(tensors) == [
        ("input", "pixels"), ("input", "data"), ("output", "codes"), ("output", "reconstruction"), ("output", "image"),
    ]  # fmt: skip
    data = tensors["input", "data"]
    np.testing.assert_array_equal(data, digits[:20].transpose(0, 3, 1, 2).astype("float32"))
    codes = data
    outputs = []
    for stage, name in (("encoder", "data"), ("decoder", "codes")):
        files = str(PRETRAINED / f"{stage}-symbol.json"), [name], str(PRETRAINED / f"{stage}-0000.params")
        codes = mx.gluon.SymbolBlock.imports(*files)(mx.nd.array(codes, dtype=codes.dtype)).asnumpy()
        outputs.append(codes)
    np.testing.assert_array_equal(tensors["output", "codes"], outputs[0])
    assert tensors["output", "codes"].dtype == np.int32
    np.testing.assert_allclose(tensors["output", "reconstruction"], outputs[1], rtol=0, atol=1e-3)


@engines
def test_a_trace_tells_where_it_was_made(bundle_runs, engine):
    index, _ = bundle_runs[engine]
    assert (index["format"], index["runtime"]) == (1, ENGINES[engine])
    assert index["environment"]["mxnet"] == mx.__version__ == "1.9.1"
    assert index["environment"]["threads"].isdigit()
    assert isinstance(index["environment"]["processor"], str)


def test_both_languages_tell_the_same_settings(tmp_path, monkeypatch):
    values = {
        "MXNET_SAFE_ACCUMULATION": "1",
        "MXNET_B2": "x y",
        "MXNET_B": "2",
        "MXNET_EMPTY": "",
        "MXNET_HOME": str(tmp_path),
        "MXNET_SUBGRAPH_VERBOSE": "1",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    case = Case(tmp_path, mx.sym.tanh(mx.sym.var("x")))
    case.run({"x": float32(2, 3)})
    assert case.index()["environment"] == environment()
    assert environment()["settings"] == "MXNET_B=2 MXNET_B2=x y MXNET_SAFE_ACCUMULATION=1"


def test_a_runtime_takes_settings(tmp_path):
    case = Case(tmp_path, mx.sym.tanh(mx.sym.var("x")))
    files, values = GraphFiles(case.symbol, case.params), {"x": float32(2, 3)}
    runtime = CppRuntime(settings={"MXNET_SAFE_ACCUMULATION": "1", "OMP_NUM_THREADS": "1"})
    where = runtime.trace_graph(files, values, "graph", tmp_path / "with").environment
    assert (where["threads"], where["settings"]) == ("1", "MXNET_SAFE_ACCUMULATION=1")
    where = CppRuntime().trace_graph(files, values, "graph", tmp_path / "without").environment
    assert where == environment()


def test_executor_and_predict_fuse_as_mxnet_does(bundle_runs):
    fused = [bundle_runs[engine][1]["output", "reconstruction"] for engine in ("executor", "predict")]
    np.testing.assert_array_equal(*fused)
    assert (fused[0] != bundle_runs["cachedop"][1]["output", "reconstruction"]).any()


def test_images_of_several_sizes_are_bound_again(tmp_path, digits):
    names = []
    for number, (height, width) in enumerate([(28, 28), (40, 16), (28, 28)]):
        names.append(tmp_path / f"{number}.npy")
        np.save(names[-1], np.resize(digits[number], (1, height, width)))
    for engine in ENGINES:
        result = run_reconstruct("--bundle", PRETRAINED, "--engine", engine, "--output", tmp_path / engine, *names)
        assert result.returncode == DONE, result.stderr
    for path in (tmp_path / "cachedop").iterdir():
        assert path.read_bytes() == (tmp_path / "executor" / path.name).read_bytes()
        assert path.read_bytes() == (tmp_path / "predict" / path.name).read_bytes()


def test_the_engines_are_bit_equal_where_nothing_is_fused(tmp_path):
    x, codebook = mx.sym.var("x"), mx.sym.var("codebook")
    y = mx.sym.BatchNorm(mx.sym.dot(x, codebook, name="dot"), fix_gamma=False, name="bn")
    y = mx.sym.softmax(mx.sym.broadcast_sub(y, mx.sym.var("shift"), name="difference"), name="softmax")
    parameters = {"arg:codebook": float32(9, 5), "arg:shift": float32(1, 5), "aux:bn_moving_mean": float32(5)}
    parameters |= {name: np.abs(float32(5)) for name in ("arg:bn_gamma", "arg:bn_beta", "aux:bn_moving_var")}
    case = Case(tmp_path, y, parameters)
    runs = [case.run({"x": float32(64, 9) if not i else np.load(tmp_path / "x.npy")}, "--engine", engine)
            for i, engine in enumerate(ENGINES)]  # fmt: skip
    assert list(runs[0]) == ["x", "dot", "bn", "difference", "softmax"]
    for other in runs[1:]:
        check_equal(other, runs[0])


@engines
def test_every_type_goes_in_and_comes_out(tmp_path, engine):
    outputs = []
    inputs: dict[str, np.ndarray] = {}
    expected: dict[str, np.ndarray] = {}
    for number, dtype in enumerate(DTYPES):
        other = DTYPES[number - 1]
        x = mx.sym.var(f"x_{dtype}")
        outputs += [mx.sym.elemwise_add(x, x, name=f"sum_{dtype}"), mx.sym.cast(x, dtype=other, name=f"cast_{dtype}")]
        inputs[f"x_{dtype}"] = values = np.arange(15).reshape(3, 5).astype(dtype)
        expected |= {f"sum_{dtype}": values + values, f"cast_{dtype}": values.astype(other)}
    case = Case(tmp_path, mx.sym.Group(outputs))
    check_equal(case.run(inputs, "--engine", engine, "--taps", "none"), expected)


@engines
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_parameters_of_other_types(tmp_path, engine, dtype):
    x, weight = float32(4, 3).astype(dtype), float32(4, 3).astype(dtype)
    case = Case(tmp_path, mx.sym.elemwise_add(mx.sym.var("x"), mx.sym.var("w"), name="sum"), {"arg:w": weight})
    check_equal(case.run({"x": x}, "--engine", engine, "--taps", "none"), {"sum": x + weight})


@engines
def test_several_inputs_and_outputs(tmp_path, engine):
    a, b = mx.sym.var("a"), mx.sym.var("b")
    total, product = mx.sym.elemwise_add(a, b, name="sum"), mx.sym.elemwise_mul(a, b, name="product")
    case = Case(tmp_path, mx.sym.Group([product, total, product, mx.sym.tanh(total, name="unused") * 0 + total]))
    inputs = {"b": float32(4, 3), "a": float32(4, 3)}
    results = case.run(inputs, "--engine", engine, "--taps", "none")
    assert list(results)[:2] == ["product", "sum"]  # An output that occurs twice is recorded once.
    assert len(results) == 3
    np.testing.assert_array_equal(results["product"], inputs["a"] * inputs["b"])
    np.testing.assert_array_equal(results["sum"], inputs["a"] + inputs["b"])
    assert [row["operator"] for row in case.index()["nodes"]][:2] == ["elemwise_mul", "elemwise_add"]

    taps = case.run(inputs, "--engine", engine)
    assert list(taps)[:4] == ["b", "a", "product", "sum"]
    np.testing.assert_allclose(taps["unused"], np.tanh(results["sum"]), rtol=1e-5)


@engines
def test_outputs_are_called_by_their_node(tmp_path, engine):
    x = mx.sym.var("x")
    bn = mx.sym.BatchNorm(x, output_mean_var=True, name="bn")
    top = mx.sym.topk(bn[0], ret_typ="both", k=2, name="top")
    halves = mx.sym.split(x, num_outputs=2, name="my_output")  # Splitting names at "_output" would go wrong.
    mask = mx.sym.topk(x, ret_typ="mask", k=2, name="mask")
    ones = np.ones(4, "float32")
    parameters = dict.fromkeys(["arg:bn_gamma", "arg:bn_beta", "aux:bn_moving_mean", "aux:bn_moving_var"], ones)
    case = Case(tmp_path, mx.sym.Group([top[1], halves[1], bn[1], mask]), parameters)
    values = float32(2, 4)
    results = case.run({"x": values}, "--engine", engine)
    assert list(results) == [
        "x", "bn:0", "bn:1", "bn:2", "top:0", "top:1", "my_output:0", "my_output:1", "mask",
    ]  # fmt: skip
    assert {row["name"]: row["operator"] for row in case.index()["nodes"]} == {
        "x": "input", "bn:0": "BatchNorm", "bn:1": "BatchNorm", "bn:2": "BatchNorm", "top:0": "topk", "top:1": "topk",
        "my_output:0": "SliceChannel", "my_output:1": "SliceChannel", "mask": "topk",
    }  # fmt: skip
    np.testing.assert_array_equal(results["my_output:1"], values[:, 2:])
    outputs = case.run({"x": values}, "--engine", engine, "--taps", "none")
    check_equal(outputs, {name: results[name] for name in ["top:1", "my_output:1", "bn:1", "mask"]})


def test_keep_writes_the_tensors_that_are_named(tmp_path):
    x = mx.sym.var("x")
    case = Case(tmp_path, mx.sym.tanh(mx.sym.relu(x, name="relu"), name="tanh"))
    (tmp_path / "names").write_text("tanh\n\nnowhere\r\nx\r\n")
    values = float32(3, 4)
    assert case.start({"x": values}, "--keep", tmp_path / "names").returncode == DONE
    rows = {row["name"]: row for row in case.index()["nodes"]}
    assert {name: row["file"] for name, row in rows.items()} == {"x": "00000.npy", "relu": None, "tanh": "00002.npy"}
    assert {path.name for path in (tmp_path / "trace").iterdir()} == {"trace.json", "00000.npy", "00002.npy"}
    assert rows["relu"]["sha256"] == hashlib.sha256(np.maximum(values, 0).tobytes()).hexdigest()
    assert (rows["relu"]["shape"], rows["relu"]["dtype"]) == ([3, 4], "float32")


def test_what_cannot_be_kept(tmp_path):
    case = Case(tmp_path, mx.sym.tanh(mx.sym.var("x")))
    for path in (tmp_path / "nowhere", tmp_path):
        check_failed(case.start({"x": float32(1, 1)}, "--keep", path), REJECTED, str(path))
    check_failed(run_reconstruct("--bundle", PRETRAINED, "--keep", "names", "digit.png"), USAGE, "--keep")


@pytest.mark.parametrize("option", ["--engine", "--fusion", "--taps"])
def test_what_is_no_engine_and_no_taps(option):
    check_failed(run_reconstruct("--bundle", PRETRAINED, option, "bogus", "digit.png"), USAGE, option, "bogus")


@engines
def test_inputs_that_the_graph_does_not_take(tmp_path, engine):
    x, y = float32(2, 3), float32(5)
    case = Case(tmp_path, mx.sym.tanh(mx.sym.var("x"), name="tanh"))
    expected = {"x": x, "y": y, "tanh": np.tanh(x)}
    results = case.run({"x": x, "y": y}, "--engine", engine)
    assert list(results) == list(expected)
    np.testing.assert_array_equal(results["y"], y)
    np.testing.assert_allclose(results["tanh"], expected["tanh"], rtol=1e-6)
    check_failed(case.start({"y": y}, "--engine", engine), REJECTED, "parameter missing: x")


@engines
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), ()])
def test_inputs_without_elements_or_extents(tmp_path, engine, shape):
    case = Case(tmp_path, mx.sym.tanh(mx.sym.var("x")))
    check_failed(
        case.start({"x": np.zeros(shape, "float32")}, "--engine", engine), REJECTED, "the input x has the shape"
    )


@engines
def test_graphs_whose_output_is_a_variable(tmp_path, engine):
    x, weight = mx.sym.var("x"), mx.sym.var("w")
    case = Case(tmp_path, mx.sym.Group([x, weight]), {"arg:w": float32(3)})
    values = float32(2, 3)
    check_equal(case.run({"x": values}, "--engine", engine), {"x": values})
    outputs = case.run({"x": values}, "--engine", engine, "--taps", "none")
    check_equal(outputs, {"x": values, "w": mx.nd.load(str(case.params))["arg:w"].asnumpy()})


def convolution(x, name, activation):
    y = mx.sym.Convolution(x, kernel=(3, 3), pad=(1, 1), num_filter=4, name=name)
    return mx.sym.Activation(y, act_type="relu", name=f"relu_{name}") if activation else y


@engines
def test_fused_operators_have_their_own_parameters(tmp_path, engine):
    """Fusing moves the parameters of a graph about; each must still get its own."""
    y = mx.sym.BatchNorm(convolution(mx.sym.var("x"), "c0", False), fix_gamma=False, name="bn")
    y = convolution(convolution(mx.sym.tanh(y), "c1", True), "c2", True)
    shapes = {"c0_weight": (4, 4, 3, 3), "c0_bias": (4,), "bn_gamma": (4,), "bn_beta": (4,)}
    shapes |= {"c1_weight": (4, 4, 3, 3), "c1_bias": (4,), "c2_weight": (4, 4, 3, 3), "c2_bias": (4,)}
    parameters = {f"arg:{name}": float32(*shape) for name, shape in shapes.items()}
    parameters |= {"aux:bn_moving_mean": float32(4), "aux:bn_moving_var": np.abs(float32(4)) + 1}
    case = Case(tmp_path, y, parameters)
    x = float32(2, 4, 8, 8)
    (expected,) = case.run({"x": x}, "--taps", "none").values()
    (result,) = case.run({"x": x}, "--taps", "none", "--engine", engine).values()
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("tapped", [False, True])
def test_what_is_fused_is_what_mxnet_gives_in_python_as_well(tmp_path, tapped):
    """Bit for bit, with its fault too: an activation is left out when it is fused and both nodes are outputs."""
    symbol = convolution(mx.sym.var("x"), "c0", True)
    parameters = {"c0_weight": float32(4, 4, 3, 3), "c0_bias": float32(4)}
    case = Case(tmp_path, symbol, {f"arg:{name}": array for name, array in parameters.items()})
    inputs = {"x": float32(2, 4, 8, 8)}
    if tapped:
        symbol = mx.sym.Group([symbol.get_internals()[f"{name}_output"] for name in ("c0", "relu_c0")])
    executor = symbol.simple_bind(mx.cpu(), grad_req="null", x=inputs["x"].shape)
    executor.copy_params_from({name: mx.nd.array(array) for name, array in parameters.items()})
    expected = [output.asnumpy() for output in executor.forward(x=mx.nd.array(inputs["x"]))]
    for engine in ("executor", "predict"):
        results = case.run(inputs, "--engine", engine, "--fusion", "mxnet", "--taps", "all" if tapped else "none")
        for result, values in zip(list(results.values())[-len(expected) :], expected):
            np.testing.assert_array_equal(result, values)


def test_predict_cannot_feed_auxiliary_states(tmp_path):
    inputs = {"x": float32(4, 3), "bn_gamma": float32(3), "bn_beta": float32(3)}
    inputs |= {"bn_moving_mean": float32(3), "bn_moving_var": np.ones(3, "float32")}
    case = Case(tmp_path, mx.sym.BatchNorm(mx.sym.var("x"), name="bn"))
    results = [case.run(inputs, "--engine", engine, "--taps", "none") for engine in ("cachedop", "executor")]
    check_equal(*results)
    check_failed(case.start(inputs, "--engine", "predict"), REJECTED, "bn_moving_mean is an auxiliary state")


def test_a_name_is_not_fed_twice(tmp_path):
    case = Case(tmp_path, mx.sym.tanh(mx.sym.var("x")))
    check_failed(case.start({"x": float32(1, 1)}, "--input", f"x={tmp_path / 'x.npy'}"), USAGE, "x twice")


@pytest.mark.parametrize("engine", ["executor", "predict"])
def test_what_mxnet_cannot_bind_is_told(tmp_path, engine):
    """Its default fusion takes a residual block for a chain, and fails when every node is an output."""
    x = mx.sym.var("x")
    y = x + convolution(convolution(mx.sym.relu(x, name="relu"), "c0", True), "c1", False)
    shapes = {"c0_weight": (4, 4, 3, 3), "c0_bias": (4,), "c1_weight": (4, 4, 3, 3), "c1_bias": (4,)}
    case = Case(tmp_path, y, {f"arg:{name}": float32(*shape) for name, shape in shapes.items()})
    result = case.start({"x": float32(1, 4, 8, 8)}, "--engine", engine, "--fusion", "mxnet")
    check_failed(result, FAILED, "input_nodes().size() == in_shapes->size()")


def test_taps_fuse_nothing_unless_that_is_asked_for(tmp_path):
    """Fused, the convolution and its activation are one result."""
    shapes = {"arg:c0_weight": (4, 4, 3, 3), "arg:c0_bias": (4,)}
    parameters = {name: float32(*shape) for name, shape in shapes.items()}
    case = Case(tmp_path, convolution(mx.sym.var("x"), "c0", True), parameters)
    values = float32(1, 4, 8, 8)
    expected = case.run({"x": values})
    convolved, activated = list(expected)[1:]
    for engine in ("executor", "predict"):
        check_equal(case.run({"x": values}, "--engine", engine), expected)
        fused = case.run({"x": values}, "--engine", engine, "--fusion", "mxnet")
        np.testing.assert_array_equal(fused[convolved], fused[activated])


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    directory = tmp_path_factory.mktemp("residual")
    np.save(directory / "data.npy", float32(2, 3, 32, 32))
    return networks.residual(directory / "net"), directory / "data.npy"


def run_residual(residual, directory, *arguments, **settings):
    """Run the residual network; gives standard error and the outputs."""
    files, values = residual
    result = subprocess.run(
        [find_binary(), "--symbol", files.symbol, "--params", files.params, "--input", f"data={values}",
         "--trace", directory / "trace", "--taps", "none", *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, **settings},
    )  # fmt: skip
    assert result.returncode == DONE, result.stderr
    rows = json.loads((directory / "trace/trace.json").read_text())["nodes"]
    return result.stderr, [np.load(directory / "trace" / row["file"]) for row in rows]


@pytest.mark.parametrize("engine", ["executor", "predict"])
def test_a_graph_that_mxnet_fuses_wrongly_is_not_fused(residual, tmp_path, engine):
    quiet, expected = run_residual(residual, tmp_path)
    assert quiet == ""
    said, safe = run_residual(residual, tmp_path, "--engine", engine)
    symbol = residual[0].symbol
    why = f"fusion is off, for MXNet would compute encoder_block0_sum of {symbol} and 1 more wrongly"
    assert said == f"reconstruct: note: {why}\n"
    for ours, theirs in zip(expected, safe):
        np.testing.assert_array_equal(ours, theirs)
    quiet, fused = run_residual(residual, tmp_path, "--engine", engine, "--fusion", "mxnet")
    assert quiet == ""
    assert np.abs(fused[1] - expected[1]).max() > 1


@pytest.mark.parametrize("engine", ["executor", "predict"])
def test_what_the_user_chose_to_fuse_stays(residual, tmp_path, engine):
    _, expected = run_residual(residual, tmp_path)
    said, fused = run_residual(residual, tmp_path, "--engine", engine, MXNET_SUBGRAPH_BACKEND="MKLDNN")
    assert said.startswith("reconstruct: note: MXNET_SUBGRAPH_BACKEND=MKLDNN may compute encoder_block0_sum of ")
    assert said.endswith("wrongly; unset it\n")
    assert np.abs(fused[1] - expected[1]).max() > 1
    said, plain = run_residual(residual, tmp_path, "--engine", engine, MXNET_SUBGRAPH_BACKEND="NONE")
    assert "note" not in said
    np.testing.assert_array_equal(plain[1], expected[1])


@engines
def test_the_shipped_network_needs_no_note(tmp_path, engine):
    result = run_reconstruct(
        "--bundle", PRETRAINED, "--engine", engine, "--output", tmp_path, PRETRAINED / "digits/00.png"
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (DONE, "")


def old_parameters(arrays):
    """A .params file as MXNet before 1.0 wrote it."""
    data = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for array in arrays.values():
        flag = DTYPES.index(array.dtype.name)
        data += struct.pack(f"<Ii{array.ndim}qiii", 0xF993FAC8, array.ndim, *array.shape, 1, 0, flag) + array.tobytes()
    data += struct.pack("<Q", len(arrays))
    for name in arrays:
        data += struct.pack("<Q", len(name)) + name.encode()
    return data


@engines
@pytest.mark.parametrize("key", ["attr", "param"])
def test_files_of_old_versions(tmp_path, engine, key):
    nodes = [
        {"op": "null", "name": "data", "inputs": []},
        {"op": "null", "name": "fc_weight", "inputs": []},
        {"op": "null", "name": "fc_bias", "inputs": []},
        {"op": "FullyConnected", "name": "fc", key: {"num_hidden": "4"}, "inputs": [[0, 0], [1, 0], [2, 0]]},
        {"op": "null", "name": "bn_gamma", "inputs": []},
        {"op": "null", "name": "bn_beta", "inputs": []},
        {"op": "BatchNorm", "name": "bn", key: {"fix_gamma": "False"}, "inputs": [[3, 0], [4, 0], [5, 0]]},
    ]  # fmt: skip
    case = Case(tmp_path, mx.sym.var("x"))
    case.symbol.write_text(json.dumps({"nodes": nodes, "arg_nodes": [0, 1, 2, 4, 5], "heads": [[6, 0]]}))
    arrays = {"arg:fc_weight": float32(4, 3), "arg:fc_bias": float32(4), "arg:bn_gamma": float32(4)}
    arrays |= {"arg:bn_beta": float32(4), "aux:bn_moving_mean": float32(4), "aux:bn_moving_var": np.abs(float32(4))}
    case.params.write_bytes(old_parameters(arrays))
    x = float32(5, 3)
    results = case.run({"data": x}, "--engine", engine)
    assert list(results) == ["data", "fc", "bn"]
    fc = x @ arrays["arg:fc_weight"].T + arrays["arg:fc_bias"]
    np.testing.assert_allclose(results["fc"], fc, rtol=1e-4, atol=1e-5)
    expected = (fc - arrays["aux:bn_moving_mean"]) / np.sqrt(arrays["aux:bn_moving_var"] + 1e-3)
    expected = expected * arrays["arg:bn_gamma"] + arrays["arg:bn_beta"]
    np.testing.assert_allclose(results["bn"], expected, rtol=1e-3, atol=1e-4)

    case.params.write_bytes(old_parameters(arrays)[:-30])
    check_failed(case.start({"data": x}, "--engine", engine), REJECTED, "net-0000.params", "is damaged")
