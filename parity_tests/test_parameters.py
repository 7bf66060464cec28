"""Parameter files in every form that MXNet 1.9.1 reads, in both languages; other files are called what they are."""

import json
import struct

import networks
import numpy as np
import pytest
from conftest import run_cli_here, run_reconstruct
from mutate import PARAMS_FORMS, params_bytes

from vqvae_gluon.artifacts.bundle import GraphFiles
from vqvae_gluon.artifacts.parameters import DTYPES, read_parameters
from vqvae_gluon.compat import mx
from vqvae_gluon.errors import DIVERGED, DONE, REJECTED, InputError

FLAGS = {dtype.name: flag for flag, dtype in DTYPES.items()}
X = np.random.default_rng(3).normal(size=(2, 6)).astype("float32")


def tensors_of(arrays):
    return [(name.encode(), FLAGS[v.dtype.name], v.shape, v.tobytes()) for name, v in arrays.items()]


@pytest.fixture
def export(tmp_path) -> GraphFiles:
    """Two layers with BatchNorm between them, so that there are auxiliary states."""
    net = mx.gluon.nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(
            mx.gluon.nn.Dense(4, in_units=6), mx.gluon.nn.BatchNorm(in_channels=4), mx.gluon.nn.Dense(3, in_units=4)
        )
    return networks.export(networks.initialized(net, X.shape), tmp_path, X.shape)


def arrays_of(files):
    return {name: array.asnumpy() for name, array in mx.nd.load(str(files.params)).items()}


def parity(files, *words, candidate="cpp"):
    """The command, in JSON."""
    given = ["--symbol", files.symbol, "--params", files.params, "--input", "data:2,6", "--candidate", candidate]
    return run_cli_here("parity", *given, "--json", *words)


def run_binary(files, tmp_path, engine="cachedop"):
    np.save(tmp_path / "x.npy", X)
    return run_reconstruct(
        "--symbol", files.symbol, "--params", files.params, "--input", f"data={tmp_path / 'x.npy'}",
        "--trace", tmp_path / f"trace-{engine}", "--engine", engine,
    )  # fmt: skip


def check_both_refuse(files, tmp_path, *words):
    """Both programs refuse the export in one line that holds the words, and does not speak of damage."""
    for result in (parity(files), run_binary(files, tmp_path)):
        assert result.returncode == REJECTED, result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert "is damaged" not in result.stderr
        for word in words:
            assert word in result.stderr


@pytest.mark.parametrize("form", PARAMS_FORMS)
@pytest.mark.parametrize("dtype", FLAGS)
def test_every_form_and_type_is_read_as_mxnet_reads_it(tmp_path, form, dtype):
    shapes = {"arg:row": (5,), "arg:matrix": (3, 4), "aux:cube": (2, 3, 2), "arg:one": (1, 1)}
    arrays = {name: (np.arange(np.prod(shape)).reshape(shape) * 3 + 1).astype(dtype) for name, shape in shapes.items()}
    path = tmp_path / "x.params"
    path.write_bytes(params_bytes(tensors_of(arrays), form))
    found = read_parameters(path)
    with mx.util.np_shape(form == "numpy"):
        theirs = {name: array.asnumpy() for name, array in mx.nd.load(str(path)).items()}
    assert found.keys() == theirs.keys() == arrays.keys()
    for name, values in arrays.items():
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape)
        np.testing.assert_array_equal(found[name], values)
        np.testing.assert_array_equal(theirs[name], values)


@pytest.mark.parametrize("engine", ["cachedop", "executor", "predict"])
@pytest.mark.parametrize("form", PARAMS_FORMS)
def test_every_form_runs(export, tmp_path, form, engine):
    block = mx.gluon.SymbolBlock.imports(str(export.symbol), ["data"], str(export.params))
    expected = block(mx.nd.array(X)).asnumpy()
    export.params.write_bytes(params_bytes(tensors_of(arrays_of(export)), form))
    result = run_binary(export, tmp_path, engine)
    assert result.returncode == DONE, result.stderr
    index = json.loads((tmp_path / f"trace-{engine}" / "trace.json").read_text())
    found = np.load(tmp_path / f"trace-{engine}" / index["nodes"][-1]["file"])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    result = parity(export)
    assert (result.returncode, json.loads(result.stdout)["verdict"]) == (DONE, "agree")


@pytest.mark.parametrize("storage", ["row_sparse", "csr"])
def test_sparse_tensors_of_mxnets_own_writer_are_made_dense(tmp_path, storage):
    """MXNet may write a shape that is older than the values, now and then."""
    for seed in range(20):
        values = np.random.default_rng(seed).integers(0, 2, (5, 3)).astype("float32") * (seed % 5 > 0)
        mx.nd.save(str(tmp_path / "x.params"), {"arg:x": mx.nd.array(values).tostype(storage)})
        np.testing.assert_array_equal(read_parameters(tmp_path / "x.params")["arg:x"], values)


def sparse_file(rows, extents, indices, values, storage=1, kept=None):
    """One float32 tensor ``arg:x``; ``indices`` are lists."""
    data = struct.pack("<QQQ", 0x112, 0, 1) + struct.pack("<Ii", 0xF993FAC9, storage)
    kept = kept or (len(rows), *extents[1:])
    for shape in (kept, extents):
        data += struct.pack(f"<i{len(shape)}q", len(shape), *shape)
    data += struct.pack("<iii", 1, 0, 0)
    for array in indices:
        data += struct.pack("<iiq", 6, 1, len(array))
    data += struct.pack(f"<{len(values)}f", *values)
    for array in indices:
        data += struct.pack(f"<{len(array)}q", *array)
    return data + struct.pack("<QQ", 1, 5) + b"arg:x"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([0, 5], "an index of arg:x is outside of its shape"),
        ([-1, 2], "an index of arg:x is outside of its shape"),
        ([2, 1, 2], "an index of arg:x occurs twice"),
        ([0, 1, 2, 3, 4, 5], "the parts of a row_sparse tensor do not fit together"),
    ],
)
def test_a_row_sparse_tensor_that_is_not_sound_is_damaged(export, tmp_path, rows, words):
    export.params.write_bytes(sparse_file(rows, (5, 2), [rows], range(2 * len(rows))))
    check_damaged(export, tmp_path, words)


@pytest.mark.parametrize(
    ("begins", "columns", "words"),
    [
        ([1, 1, 2], [0, 1], "do not begin one behind the other"),
        ([0, 2, 1], [0, 1], "do not begin one behind the other"),
        ([0, 1, 1], [0, 1], "do not begin one behind the other"),
        ([0, 1, 2, 2], [0, 1], "do not fit together"),
        ([0, 1, 2], [0, 3], "is outside of its shape"),
        ([0, 2, 2], [1, 1], "an index of arg:x occurs twice"),
    ],
)
def test_a_csr_tensor_that_is_not_sound_is_damaged(export, tmp_path, begins, columns, words):
    values = range(len(columns))
    export.params.write_bytes(sparse_file([], (2, 3), [begins, columns], values, 2, kept=(len(columns),)))
    check_damaged(export, tmp_path, words)


def unordered(shape):
    """Sparse matrices whose indices are not in order, as MXNet writes and reads them."""
    values, columns = np.array([1, 2, 3, 4], "f"), np.array([5, 1, 2, 0])
    csr = mx.nd.sparse.csr_matrix((values, columns, np.array([0, 2] + [4] * (shape[0] - 1))), shape=shape)
    rows = mx.nd.sparse.row_sparse_array((np.arange(2 * shape[1]).reshape(2, -1).astype("f"), [3, 1]), shape=shape)
    return {"csr": csr, "row_sparse": rows}


@pytest.mark.parametrize("storage", ["csr", "row_sparse"])
def test_indices_of_a_sparse_tensor_may_be_in_any_order(tmp_path, storage):
    matrix = unordered((4, 6))[storage]
    files = GraphFiles(tmp_path / "net-symbol.json", tmp_path / "net-0000.params")
    mx.sym.broadcast_add(mx.sym.var("data"), mx.sym.var("w"), name="sum").save(str(files.symbol))
    mx.nd.save(str(files.params), {"arg:w": matrix})
    expected = matrix.tostype("default").asnumpy()
    np.testing.assert_array_equal(read_parameters(files.params)["arg:w"], expected)
    np.save(tmp_path / "x.npy", np.zeros((4, 6), "f"))
    words = ["--symbol", files.symbol, "--params", files.params, "--input", f"data={tmp_path / 'x.npy'}"]
    result = run_reconstruct(*words, "--trace", tmp_path / "trace")
    assert result.returncode == DONE, result.stderr
    index = json.loads((tmp_path / "trace" / "trace.json").read_text())
    np.testing.assert_array_equal(np.load(tmp_path / "trace" / index["nodes"][-1]["file"]), expected)


def check_damaged(files, tmp_path, words):
    for result in (parity(files), run_binary(files, tmp_path)):
        assert result.returncode == REJECTED, result.stderr
        assert len(result.stderr.splitlines()) == 1
        for word in (f"{files.params.name}: is damaged: ", words, "copy the file again and compare its digest"):
            assert word in result.stderr


def test_a_sparse_tensor_may_not_claim_gigabytes(export, tmp_path):
    export.params.write_bytes(sparse_file([7], (1 << 20, 256), [[7]], range(256)))
    check_both_refuse(export, tmp_path, "holds arg:x as row_sparse", "1073741824 bytes", "tostype('default')")


def bare(arrays):
    return {name[4:]: values for name, values in arrays.items()}


def test_names_without_a_prefix_are_what_the_graph_takes(export, tmp_path):
    arrays = arrays_of(export)
    export.params.write_bytes(params_bytes(tensors_of(bare(arrays))))
    for candidate in ("cpp", "cpp-executor", "cpp-predict", "executor", "gluon-eager"):
        result = parity(export, candidate=candidate)
        assert result.returncode == DONE, result.stderr
        report = json.loads(result.stdout)
        assert report["verdict"] == "agree"
        assert any("have no prefix arg: or aux:" in note for note in report["notes"])
    some = {name if name.startswith("aux:") else name[4:]: values for name, values in arrays.items()}
    export.params.write_bytes(params_bytes(tensors_of(some)))
    assert parity(export).returncode == DONE


def test_a_candidate_whose_names_have_lost_their_prefix_diverges(export, tmp_path):
    lost = tmp_path / "lost.params"
    lost.write_bytes(params_bytes(tensors_of(bare(arrays_of(export)))))
    result = parity(export, "--candidate-params", lost)
    report = json.loads(result.stdout)
    assert (result.returncode, report["verdict"], report["cause"]["name"]) == (DIVERGED, "diverge", "prefix lost")
    assert "MXPredCreate" in report["cause"]["evidence"]


def test_a_name_with_and_without_a_prefix_is_one_twice(export, tmp_path):
    arrays = arrays_of(export)
    export.params.write_bytes(params_bytes(tensors_of(arrays | {"net_dense0_bias": arrays["arg:net_dense0_bias"]})))
    check_both_refuse(export, tmp_path, "net-0000.params", "twice, with and without the prefix")


class Gated(mx.gluon.HybridBlock):
    """A block whose own parameter has, in ``save_parameters``, a name without a dot."""

    def __init__(self):
        super().__init__(prefix="gated_")
        with self.name_scope():
            self.dense = mx.gluon.nn.Dense(4, in_units=6)
            self.gate = self.params.get("gate", shape=(1, 4))

    def hybrid_forward(self, F, x, gate):
        return F.broadcast_mul(self.dense(x), gate)


@pytest.mark.parametrize("make", [Gated, lambda: mx.gluon.nn.Dense(3, in_units=6, prefix="only_")], ids=["own", "one"])
def test_a_file_of_save_parameters_is_called_so(tmp_path, make):
    net = networks.initialized(make(), X.shape)
    files = networks.export(net, tmp_path, X.shape)
    net.save_parameters(str(tmp_path / "block.params"))
    saved = GraphFiles(files.symbol, tmp_path / "block.params")
    words = "block.params: is not of an export", "save_parameters()", "net.export(prefix)"
    check_both_refuse(saved, tmp_path, *words)
    result = parity(files, "--candidate-params", saved.params)
    assert result.returncode == REJECTED
    assert all(word in result.stderr for word in words)


OTHER_FILES = {
    "zip": (b"PK\x03\x04rest", "a zip archive"),
    "npy": (b"\x93NUMPY\x01\x00", "an .npy file"),
    "symbol": (b'{"nodes": []}', "JSON, such as a symbol file"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    "other": (b"something of another kind", "a file of another kind"),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_a_file_of_another_kind_is_called_what_it_is(export, tmp_path, kind):
    content, words = OTHER_FILES[kind]
    export.params.write_bytes(content)
    check_both_refuse(
        export, tmp_path, "net-0000.params: does not begin as a .params file", words, "net.export(prefix)"
    )


def test_a_list_without_names_is_called_so(export, tmp_path):
    mx.nd.save(str(export.params), [mx.nd.array(values) for values in arrays_of(export).values()])
    check_both_refuse(export, tmp_path, "is a list of 8 tensors without names", "net.export(prefix)")


@pytest.mark.parametrize(
    ("flag", "name", "size"), [(7, "bool", 1), (8, "int16", 2), (11, "uint64", 8), (12, "bfloat16", 2)]
)
def test_a_type_that_no_runtime_takes_is_named(export, tmp_path, flag, name, size):
    export.params.write_bytes(params_bytes([(b"arg:mask", flag, (3,), bytes(3 * size))]))
    check_both_refuse(export, tmp_path, f"holds arg:mask in {name}", "cast it to float32")


@pytest.mark.parametrize("candidate", ["cpp", "cpp-executor", "cpp-predict", "executor", "gluon-eager"])
def test_an_export_without_parameters_runs(tmp_path, candidate):
    a, b = mx.sym.var("data0"), mx.sym.var("data1")
    files = GraphFiles(tmp_path / "net-symbol.json", tmp_path / "net-0000.params")
    mx.sym.broadcast_mul(a, b, name="product").save(str(files.symbol))
    mx.nd.save(str(files.params), {})
    result = run_cli_here(
        "parity", "--symbol", files.symbol, "--params", files.params, "--input", "data0:2,3", "--input", "data1:1,3",
        "--candidate", candidate, "--json",
    )  # fmt: skip
    assert (result.returncode, json.loads(result.stdout)["verdict"]) == (DONE, "agree"), result.stderr


def numpy_export(directory) -> GraphFiles:
    """As ``npx.set_np()`` and ``export`` write it: a scalar of the data, a scalar and an empty parameter."""
    with mx.util.np_shape(True):
        data, scale, none = (mx.sym.var(name).as_np_ndarray() for name in ("data", "scale", "none"))
        ratio = data / (mx.sym.np.max(data, name="largest") + scale)
        symbol = mx.sym.np.concatenate([ratio, none], axis=0)
        files = GraphFiles(directory / "net-symbol.json", directory / "net-0000.params")
        symbol.save(str(files.symbol))
        values = {"arg:scale": mx.np.array(3.5), "arg:none": mx.np.zeros((0, 6))}
        mx.nd.save(str(files.params), {name: array.as_nd_ndarray() for name, array in values.items()})
    return files


@pytest.mark.parametrize("candidate", ["cpp", "cpp-executor", "cpp-predict", "executor", "gluon-eager", "gluon-fused"])
def test_a_network_under_numpys_rules_runs_everywhere(tmp_path, candidate):
    files = numpy_export(tmp_path)
    assert struct.pack("<I", 0xF993FACA) in files.params.read_bytes()
    result = parity(files, candidate=candidate)
    report = json.loads(result.stdout)
    assert (result.returncode, report["verdict"], report["nodes_skipped"]) == (DONE, "agree", 0), result.stderr
    assert "largest" in [node["name"] for node in report["nodes"]]


@pytest.mark.parametrize("engine", ["cachedop", "executor", "predict"])
def test_its_numbers_are_numpys(tmp_path, engine):
    assert run_binary(numpy_export(tmp_path), tmp_path, engine).returncode == DONE
    index = json.loads((tmp_path / f"trace-{engine}" / "trace.json").read_text())
    found = {row["name"]: np.load(tmp_path / f"trace-{engine}" / row["file"]) for row in index["nodes"]}
    assert found["largest"].shape == ()
    np.testing.assert_allclose(list(found.values())[-1], X / (X.max() + 3.5), rtol=1e-6)


def test_scalars_and_empty_tensors_are_read_under_numpys_rules(tmp_path):
    path = tmp_path / "x.params"
    with mx.util.np_shape(True):
        mx.nd.save(str(path), {"arg:s": mx.np.array(3.5).as_nd_ndarray(), "arg:e": mx.np.zeros((0, 3)).as_nd_ndarray()})
    found = read_parameters(path)
    assert found["arg:s"].shape == () and found["arg:s"] == 3.5
    assert found["arg:e"].shape == (0, 3)
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 0xF993FACA), struct.pack("<I", 0xF993FAC9)))
    with pytest.raises(InputError, match="is damaged"):
        read_parameters(path)
