"""The fused operators (cpp_bindings/kernels): convolutions and what is around them as one program.

Where there are none for the processor, MXNet's own operators run in their place, and the same must hold.
"""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import PRETRAINED, ROOT, has_fused_operators, run_cli, run_reconstruct

from vqvae_gluon.artifacts.binding import read_network
from vqvae_gluon.artifacts.bundle import GraphFiles, graph_files
from vqvae_gluon.compat import mx
from vqvae_gluon.errors import DIVERGED, DONE, FAILED
from vqvae_gluon.kernels import load_kernels
from vqvae_gluon.parity.bounds import errors
from vqvae_gluon.runtimes.fp64 import Float64Runtime
from vqvae_gluon.runtimes.fused import fuse
from vqvae_gluon.runtimes.gluon import GluonGraph

FUSED = ("gluon-fused", "cpp-fused")
RANDOM = np.random.default_rng(3)


@dataclasses.dataclass(frozen=True)
class Net:
    """A graph with random parameters, on disk."""

    files: GraphFiles
    inputs: dict

    def run(self, rewrite=None, taps=False):
        graph = GluonGraph(read_network(self.files), self.inputs, taps, rewrite)
        return {name: values for name, _, values in graph.run(self.inputs)}

    def truth(self):
        return {name: values for name, _, values in Float64Runtime().outputs(self.files, self.inputs, True)}

    def operators(self):
        fused = fuse(mx.sym.load(str(self.files.symbol)))
        return [node["op"] for node in json.loads(fused.tojson())["nodes"] if node["op"] != "null"]


def make(directory, symbol, data=(2, 3, 9, 7), **values) -> Net:
    """Parameters are drawn where none is given; the data is 0..255."""
    inputs = {"data": RANDOM.uniform(0, 255, data).astype(np.float32)}
    shapes, _, _ = symbol.infer_shape(data=data)
    parameters = {
        name: values.get(name, RANDOM.normal(0, 0.3, shape).astype(np.float32))
        for name, shape in zip(symbol.list_arguments(), shapes)
        if name != "data"
    }
    files = GraphFiles(directory / "net-symbol.json", directory / "net-0000.params")
    symbol.save(str(files.symbol))
    mx.nd.save(str(files.params), {f"arg:{name}": mx.nd.array(v, dtype=v.dtype) for name, v in parameters.items()})
    return Net(files, inputs)


def check_honest(net: Net) -> None:
    """Every node is as near to the truth as an honest float32 is, and taps change no bit."""
    plain, fused, truth, whole = net.run(taps=True), net.run(fuse, True), net.truth(), net.run(fuse)
    assert list(fused) == list(plain)
    for name, values in fused.items():
        found = errors(plain[name], values, truth[name], plain[name])
        assert found.honest, (name, found)
    for name, values in whole.items():
        assert np.array_equal(values, fused[name])


def convolution(x, number, transposed, channels, kernel, stride, pad, **more):
    layer = mx.sym.Deconvolution if transposed else mx.sym.Convolution
    sizes = {"kernel": (kernel, kernel), "stride": (stride, stride), "pad": (pad, pad)}
    return layer(x, num_filter=channels, name=f"conv{number}", no_bias=bool(number % 2), **sizes, **more)


@pytest.mark.parametrize("bundle", ["mnist", "cifar10"])
@pytest.mark.parametrize("runtime", FUSED)
def test_harness_finds_that_the_pretrained_networks_agree(bundle, runtime, tmp_path, digits):
    images = digits[:16] if bundle == "mnist" else RANDOM.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    result = run_cli(
        "parity", ROOT / "pretrained" / bundle, "--candidate", runtime, "--data", tmp_path / "images.npy", "--json"
    )
    assert result.returncode == DONE, result.stderr
    found = json.loads(result.stdout)
    assert (found["verdict"], found["nodes_skipped"], found["codes"]["real_flips"]) == ("agree", 0, 0)
    operators = [
        json.loads((ROOT / f"pretrained/{bundle}/{half}-symbol.json").read_text()) for half in ("encoder", "decoder")
    ]
    assert found["nodes_compared"] >= sum(node["op"] != "null" for graph in operators for node in graph["nodes"])


@pytest.mark.fused_operators
@pytest.mark.parametrize("bundle", ["mnist", "mnist-original", "cifar10"])
def test_each_half_of_a_preset_becomes_one_operator(bundle):
    load_kernels()
    for half in ("encoder", "decoder"):
        symbol = fuse(mx.sym.load(str(graph_files(ROOT / "pretrained" / bundle, half).symbol)))
        assert [node["op"] for node in json.loads(symbol.tojson())["nodes"] if node["op"] != "null"] == ["_vqvae_fused"]


@pytest.mark.parametrize("seed", range(40))
def test_any_convolutions_are_computed_as_honestly_as_by_mxnet(seed, tmp_path):
    random = np.random.default_rng(seed)
    x = mx.sym.var("data") * (1 / 255.0) - 0.5
    for number in range(random.integers(1, 5)):
        transposed = bool(random.integers(2))
        kernel, stride = int(random.integers(1, 6)), int(random.integers(1, 4))
        if transposed:
            kernel = max(kernel, stride)
        pad = int(random.integers(0, kernel // 2 + 1))
        channels = int(random.choice([1, 2, 3, 7, 16, 31, 32, 33, 64, 100]))
        more = {"adj": (int(random.integers(0, stride)),) * 2} if transposed else {}
        x = convolution(x, number, transposed, channels, kernel, stride, pad, **more)
        kind = random.integers(5)
        if kind < 3:
            x = mx.sym.Activation(x, act_type=("relu", "tanh", "sigmoid")[kind])
        elif kind == 3:
            x = mx.sym.elemwise_add(
                x, convolution(mx.sym.Activation(x, act_type="relu"), 10 + number, False, channels, 3, 1, 1)
            )
    sides = tuple(int(side) for side in random.integers(12, 24, 2))
    net = make(
        tmp_path, mx.sym.clip(x * 255.0, 0, 255), (int(random.integers(1, 6)), int(random.choice([1, 3, 20])), *sides)
    )
    check_honest(net)
    assert not has_fused_operators() or set(net.operators()) == {"_vqvae_fused"}


@pytest.mark.parametrize(
    "layer",
    [
        lambda x: mx.sym.Convolution(x, num_filter=8, num_group=2, kernel=(3, 3)),
        lambda x: mx.sym.Convolution(x, num_filter=8, dilate=(2, 2), kernel=(3, 3)),
        lambda x: mx.sym.Convolution(x, num_filter=8, stride=(1, 2), kernel=(3, 3)),
        lambda x: mx.sym.Deconvolution(x, num_filter=8, num_group=2, kernel=(3, 3)),
        lambda x: mx.sym.Deconvolution(x, num_filter=8, stride=(3, 3), kernel=(2, 2)),
        lambda x: mx.sym.Pooling(x, kernel=(2, 2), pool_type="max"),
        lambda x: mx.sym.broadcast_add(x, mx.sym.var("place", shape=(1, 1, 7, 5))),
        lambda x: mx.sym.argmin(x, axis=2),
        lambda x: mx.sym.LeakyReLU(x, slope=0.1),
    ],
)
def test_what_is_not_known_is_left_to_mxnet(layer, tmp_path):
    """... and what is around it is computed all the same."""
    x = mx.sym.Convolution(mx.sym.var("data") * (1 / 255.0), num_filter=4, kernel=(3, 3), name="first")
    check_honest(make(tmp_path, mx.sym.Group([layer(x), mx.sym.Activation(x, act_type="relu", name="second")])))


def test_windows_that_never_reach_the_image(tmp_path):
    for pad, stride in ((3, 9), (5, 2)):
        x = mx.sym.Convolution(mx.sym.var("data"), num_filter=4, kernel=(2, 2), pad=(pad, pad), stride=(stride, stride))
        check_honest(make(tmp_path, x, (2, 1, 1, 1)))


def test_first_of_equal_distances_is_chosen(tmp_path):
    rows = np.repeat(RANDOM.normal(size=(40, 3)), 2, axis=0).astype(np.float32)
    codebook = mx.sym.var("codebook", shape=rows.shape)
    kernel = mx.sym.Reshape(codebook * -2.0, shape=(80, 3, 1, 1))
    norms = mx.sym.sum(mx.sym.square(codebook), axis=1)
    distances = mx.sym.Convolution(mx.sym.var("data"), kernel, norms, kernel=(1, 1), num_filter=80)
    codes = mx.sym.Cast(mx.sym.argmin(distances, axis=1), dtype="int32", name="codes")
    net = make(tmp_path, codes, codebook=rows)
    (found,), (wanted,) = net.run(fuse).values(), net.run().values()
    assert found.dtype == np.int32 and np.array_equal(found, wanted) and not (found % 2).any()


def test_codes_beyond_the_codebook_are_its_nearest_row():
    files = graph_files(PRETRAINED, "decoder")
    for code, inside in ((64, 63), (-1, 0)):
        beyond, row = (
            Net(files, {"codes": np.full((1, 7, 7), value, np.int32)}).run(fuse)["reconstruction"]
            for value in (code, inside)
        )
        assert np.array_equal(beyond, row)


@pytest.mark.parametrize("bundle", ["mnist", "cifar10"])
def test_an_image_gives_the_same_bits_in_every_batch(bundle):
    shape = (1, 28, 28) if bundle == "mnist" else (3, 32, 32)
    images = RANDOM.integers(0, 256, (37, *shape)).astype(np.float32)
    encoder = GluonGraph(read_network(graph_files(ROOT / "pretrained" / bundle, "encoder")), ["data"], rewrite=fuse)
    decoder = GluonGraph(read_network(graph_files(ROOT / "pretrained" / bundle, "decoder")), ["codes"], rewrite=fuse)

    def reconstruct(part):
        ((_, _, codes),) = encoder.run({"data": part})
        ((_, _, result),) = decoder.run({"codes": codes})
        return codes, result

    codes, result = reconstruct(images)
    for size in (1, 2, 5, 16):
        part, reconstruction = reconstruct(images[:size])
        assert np.array_equal(part, codes[:size]) and np.array_equal(reconstruction, result[:size])


def test_parameters_may_change_between_runs():
    data = RANDOM.normal(size=(2, 3, 8, 8)).astype(np.float32)
    symbol = mx.sym.Convolution(mx.sym.var("data"), num_filter=4, kernel=(3, 3), name="conv")
    block = mx.gluon.SymbolBlock(fuse(symbol), [mx.sym.var("data")])
    block.initialize()
    block.hybridize(static_alloc=True, static_shape=True)
    for scale in (0.5, -2.0):
        for parameter in block.collect_params().values():
            parameter.shape = {"conv_weight": (4, 3, 3, 3), "conv_bias": (4,)}[parameter.name]
            parameter.initialize(mx.init.Constant(scale), force_reinit=True)
        inside = block(mx.nd.array(data)).asnumpy()[:, :, 1:-1, 1:-1]
        windows = np.lib.stride_tricks.sliding_window_view(data, (3, 3), axis=(2, 3)).sum((1, 4, 5))  # type: ignore[call-overload]
        assert np.allclose(inside, scale * (windows[:, None, 1:-1, 1:-1] + 1), rtol=1e-5, atol=1e-5)


def test_what_is_not_a_number_stays_so(tmp_path):
    x = mx.sym.Activation(mx.sym.Convolution(mx.sym.var("data"), num_filter=4, kernel=(1, 1)), act_type="relu")
    net = make(tmp_path, x)
    net.inputs["data"][0, 1, 2, 3] = np.nan
    (values,), (plain,) = net.run(fuse).values(), net.run().values()
    if has_fused_operators():
        assert np.isnan(values[0, :, 2, 3]).all() and np.isnan(values).sum() == 4
    else:  # MXNet's ReLU makes 0 of it.
        assert np.array_equal(values, plain, equal_nan=True)


def test_harness_finds_a_wrong_weight_behind_the_fused_operators(tmp_path, digits):
    bundle = tmp_path / "bundle"
    shutil.copytree(PRETRAINED, bundle, ignore=shutil.ignore_patterns("*.png", "digits"))
    file = graph_files(bundle, "decoder").params
    parameters = mx.nd.load(str(file))
    parameters["arg:decoder_upconv1_weight"][3, 5] += 0.5
    mx.nd.save(str(file), parameters)
    np.save(tmp_path / "digits.npy", digits[:16])
    result = run_cli(
        "parity", PRETRAINED, "--candidate", "cpp-fused", "--candidate-bundle", bundle, "--data",
        tmp_path / "digits.npy", "--json", "--black-box",
    )  # fmt: skip
    assert result.returncode == DIVERGED, result.stderr
    assert json.loads(result.stdout)["first_divergent"]["node"] == "decoder_upconv1_fwd"


def test_binary_writes_the_same_pictures_either_way(tmp_path):
    written = {}
    for engine in ("cachedop", "fused"):
        output = tmp_path / engine
        result = run_reconstruct("--bundle", PRETRAINED, "--engine", engine, "--output", output, PRETRAINED / "digits")
        assert result.returncode == DONE, result.stderr
        assert (result.stderr == "") == has_fused_operators() or engine == "cachedop"
        written[engine] = {file.name: file.read_bytes() for file in output.iterdir()}
    assert len(written["fused"]) == 64 and written["fused"] == written["cachedop"]


def test_missing_library_is_told_with_its_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("VQVAE_KERNELS", str(tmp_path / "none.so"))
    result = run_reconstruct("--bundle", PRETRAINED, "--engine", "fused", PRETRAINED / "digits")
    assert result.returncode == FAILED
    assert "none.so" in result.stderr and "VQVAE_KERNELS" in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_bundles_of_lower_precision_agree_with_themselves(precision, tmp_path, digits):
    """Whole numbers add up exactly on both sides; ties are rounded as MXNet rounds them."""
    np.save(tmp_path / "digits.npy", digits[:48])
    calibrated = ["--calibrate", "64"] if precision == "int8" else []
    export = ["export", PRETRAINED, "--precision", precision, *calibrated, "--output", tmp_path / "bundle"]
    assert run_cli(*export).returncode == DONE
    result = run_cli(
        "parity", tmp_path / "bundle", "--candidate", "cpp-fused", "--data", tmp_path / "digits.npy", "--json"
    )
    assert result.returncode == DONE, result.stderr
    found = json.loads(result.stdout)
    assert (found["verdict"], found["nodes_skipped"], found["codes"]["real_flips"]) == ("agree", 0, 0)


def test_ties_are_rounded_as_mxnet_rounds_them(tmp_path):
    x = mx.sym.clip(mx.sym.rint(mx.sym.Convolution(mx.sym.var("data"), num_filter=1, kernel=(1, 1))), -50, 50)
    net = make(
        tmp_path,
        x,
        (1, 1, 20, 20),
        **{x.list_arguments()[1]: np.ones((1, 1, 1, 1), np.float32), x.list_arguments()[2]: np.zeros(1, np.float32)},
    )
    net.inputs["data"][:] = (np.arange(400) / 2 - 100).reshape(1, 1, 20, 20)
    assert np.array_equal(*(next(iter(net.run(rewrite).values())) for rewrite in (None, fuse)))


def notes_of(runtime) -> list:
    words = ["--data", PRETRAINED / "digits", "--count", 2, "--json"]
    result = run_cli("parity", PRETRAINED, "--candidate", runtime, *words)
    assert result.returncode == DONE, result.stderr
    return json.loads(result.stdout)["notes"]


@pytest.mark.parametrize("runtime", FUSED)
def test_a_report_says_when_mxnets_operators_run_alone(runtime, monkeypatch):
    why = f"{runtime} runs MXNet's own operators alone, no fused ones"
    assert (notes_of(runtime) == []) == has_fused_operators()
    monkeypatch.setenv("VQVAE_KERNELS_ISA", "none")
    assert notes_of(runtime) == [f"{why}: VQVAE_KERNELS_ISA is none"]


@pytest.mark.fused_operators
def test_a_report_says_when_no_part_of_a_graph_is_fused(tmp_path):
    x = mx.sym.Pooling(mx.sym.var("data"), kernel=(2, 2), pool_type="max", name="pool")
    files = make(tmp_path, x).files
    words = ["--symbol", files.symbol, "--params", files.params, "--input", "data:2,3,9,7", "--json"]
    result = run_cli("parity", *words, "--candidate", "gluon-fused")
    assert "they compute no part of this graph" in " ".join(json.loads(result.stdout)["notes"]), result.stderr


def test_the_binary_says_when_the_user_turned_the_fused_operators_off(monkeypatch, tmp_path):
    monkeypatch.setenv("VQVAE_KERNELS_ISA", "none")
    words = ["--bundle", PRETRAINED, "--engine", "fused", "--output", tmp_path, PRETRAINED / "digits" / "00.png"]
    result = run_reconstruct(*words)
    assert (result.returncode, result.stderr.count("\n")) == (DONE, 1)
    assert "fused is the same as cachedop here, for VQVAE_KERNELS_ISA is none" in result.stderr


@pytest.mark.parametrize("program", [run_cli, run_reconstruct])
def test_an_unknown_instruction_set_is_refused(program, monkeypatch, tmp_path):
    monkeypatch.setenv("VQVAE_KERNELS_ISA", "sse9")
    digit = PRETRAINED / "digits" / "00.png"
    if program is run_cli:
        result = run_cli("parity", PRETRAINED, "--candidate", "gluon-fused", "--data", digit.parent, "--count", 1)
    else:
        result = run_reconstruct("--bundle", PRETRAINED, "--engine", "fused", "--output", tmp_path, digit)
    assert (result.returncode, result.stderr.count("\n")) == (FAILED, 1)
    assert "VQVAE_KERNELS_ISA is sse9, which is unknown; unset it, or set it to none" in result.stderr


def test_threads_may_load_the_operators_at_once():
    code = """
from concurrent.futures import ThreadPoolExecutor
from vqvae_gluon.kernels import load_kernels
with ThreadPoolExecutor(8) as pool:
    print(len(set(pool.map(lambda _: load_kernels(), range(8)))))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.stdout == "1\n", result.stderr


def test_a_program_may_have_loaded_the_operators_itself():
    library = ROOT / "cpp_bindings/build/libvqvae_kernels.so"
    code = f"""
from vqvae_gluon.compat import mx
from vqvae_gluon.kernels import load_kernels
mx.library.load({str(library)!r}, verbose=False)
print(load_kernels())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.stdout == f"{library}\n", result.stderr
