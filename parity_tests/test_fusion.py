"""The detector of wrong fusion against the executor itself: it names a node if, and only if, the executor is wrong."""

import dataclasses
import os
import random
from functools import partial
from pathlib import Path
from typing import Any, Callable

import networks
import numpy as np
import pytest
from conftest import PRETRAINED, run_reconstruct

from vqvae_gluon.artifacts.bundle import STAGES, GraphFiles, graph_files
from vqvae_gluon.artifacts.export import export_bundle
from vqvae_gluon.artifacts.fusion import BACKEND, misfused
from vqvae_gluon.artifacts.graph import parse_graph, read_graph
from vqvae_gluon.compat import mx
from vqvae_gluon.config import PRESETS
from vqvae_gluon.data import open_images
from vqvae_gluon.errors import DONE, RuntimeFailure
from vqvae_gluon.model.vqvae import VQVAE
from vqvae_gluon.parity.harness import compare_bundles, compare_exports
from vqvae_gluon.parity.inputs import Feed
from vqvae_gluon.runtimes import RUNTIMES
from vqvae_gluon.runtimes.executor import ExecutorRuntime

F: Any = mx.sym
IMAGES, ROWS, VOLUMES = (2, 8, 8, 8), (4, 8), (2, 8, 4, 4, 4)
data = F.var("data")


def conv(x, name, side=3, kernel=None, **attributes):
    kernel = kernel or (side, side)
    attributes.setdefault("pad", tuple(extent // 2 for extent in kernel))
    return F.Convolution(x, num_filter=8, kernel=kernel, name=name, **attributes)


def dense(x, name="dense", **attributes):
    return F.FullyConnected(x, num_hidden=8, name=name, **attributes)


def norm(x, name="norm", **attributes):
    return F.BatchNorm(x, fix_gamma=False, name=name, **attributes)


def act(x, name="act", kind="relu"):
    return F.Activation(x, act_type=kind, name=name)


def add(x, y, name="sum"):
    return F.elemwise_add(x, y, name=name)


def tanh(x, name="tanh"):
    return F.tanh(x, name=name)


def stem():
    return conv(data, "stem")


def branch(x, name="branch", kind="relu"):
    """conv(act(conv(act(x))))"""
    inner = conv(act(x, f"{name}_act0", kind), f"{name}_conv0")
    return conv(act(inner, f"{name}_act1", kind), f"{name}_conv1", side=1)


def block(x, name="sum"):
    return add(x, branch(x, f"{name}_branch"), name)


def both(x, *functions):
    """Several functions of one tensor, as one output; the order is that of the functions."""
    return F.concat(*(function(x) for function in functions), dim=1, name="both")


def leaky(kind):
    return lambda x: F.LeakyReLU(x, act_type=kind, name="leaky")


def clip(low):
    return lambda x: F.clip(x, low, 6, name="clip")


def through(function):
    """x + conv(function(x)) behind a convolution."""
    x = stem()
    return add(x, conv(function(x), "conv"))


def behind(between):
    """A residual block behind a convolution and something else."""
    return block(between(stem()))


def of(x, function):
    return function(x)


def two_branches(function):
    return function(conv(data, "a"), conv(data, "b"))


def behind_tanh(function):
    return both(dense(data), tanh, function)


# Each is built anew for a test, because names must not be taken.
STRUCTURES: dict[str, Callable[[], Any]] = {
    # The residual block, and what x is.
    "x + f": lambda: block(stem()),
    "f + x": lambda: of(stem(), lambda x: add(branch(x), x)),
    "behind BatchNorm": lambda: behind(norm),
    "behind BatchNorm, f + x": lambda: of(norm(stem()), lambda x: add(branch(x), x)),
    "behind an activation": lambda: behind(act),
    "behind BatchNorm and an activation": lambda: behind(lambda x: act(norm(x))),
    "behind Dropout": lambda: behind(lambda x: F.Dropout(x, name="drop")),
    "behind Dropout that always drops": lambda: behind(lambda x: F.Dropout(x, p=1e-9, mode="always", name="drop")),
    "behind two Dropouts": lambda: behind(lambda x: F.Dropout(F.Dropout(x, name="one"), name="two")),
    "behind a copy": lambda: behind(lambda x: F.identity(x, name="copy")),
    "behind BlockGrad": lambda: behind(lambda x: F.BlockGrad(x, name="copy")),
    "behind pooling": lambda: behind(lambda x: F.Pooling(x, kernel=(2, 2), stride=(2, 2), name="pool")),
    "behind a transposed convolution": lambda: block(
        F.Deconvolution(data, kernel=(3, 3), pad=(1, 1), num_filter=8, name="stem")
    ),
    "behind the input": lambda: block(data),
    "groups": lambda: block(conv(data, "stem", num_group=8)),
    "no bias": lambda: block(conv(data, "stem", no_bias=True)),
    "1x1": lambda: block(conv(data, "stem", side=1)),
    "dilated": lambda: block(conv(data, "stem", dilate=(2, 2), pad=(2, 2))),
    "Dropout in the branch": lambda: of(stem(), lambda x: add(x, branch(F.Dropout(x, name="drop")))),
    "Dropout on the skip": lambda: of(stem(), lambda x: add(F.Dropout(x, name="drop"), branch(x))),
    "two blocks": lambda: block(block(stem()), "sum2"),
    "two blocks behind an activation": lambda: block(block(act(stem())), "sum2"),
    "activation behind the sum": lambda: act(block(act(stem(), "first"))),
    "a branch that splits again": lambda: of(
        stem(), lambda x: add(x, of(conv(act(x), "mid"), lambda y: block(y, "inner")), "outer")
    ),
    # What is summed, and how.
    "broadcast_add": lambda: of(stem(), lambda x: F.broadcast_add(x, branch(x), name="sum")),
    "add_n": lambda: of(stem(), lambda x: F.add_n(x, branch(x), name="sum")),
    "difference": lambda: of(stem(), lambda x: F.elemwise_sub(x, branch(x), name="difference")),
    "product": lambda: of(stem(), lambda x: F.elemwise_mul(x, branch(x), name="product")),
    "scaled skip": lambda: of(stem(), lambda x: add(x * 0.5, branch(x))),
    "x + relu(x)": lambda: of(stem(), lambda x: add(x, act(x))),
    "relu(x) + x": lambda: of(stem(), lambda x: add(act(x), x)),
    "x + BatchNorm(x)": lambda: of(stem(), lambda x: add(x, norm(x))),
    "x + conv(x)": lambda: of(stem(), lambda x: add(x, conv(x, "conv"))),
    "x + x": lambda: of(stem(), lambda x: add(x, x)),
    "x * sigmoid(x)": lambda: of(stem(), lambda x: F.elemwise_mul(x, act(x, kind="sigmoid"), name="swish")),
    "pre-activation": lambda: of(stem(), lambda x: add(conv(act(norm(x)), "conv"), x)),
    "sum of two convolutions": lambda: two_branches(add),
    "projection": lambda: of(
        act(norm(stem())),
        lambda x: act(add(norm(conv(x, "c"), "c_norm"), norm(conv(x, "down"), "down_norm")), "end"),
    ),
    # The first function of the branch.
    **{
        f"Activation {kind}": partial(through, partial(act, kind=kind))
        for kind in ("sigmoid", "tanh", "softrelu", "softsign")
    },
    **{f"LeakyReLU {kind}": partial(through, leaky(kind)) for kind in ("leaky", "gelu", "elu", "selu")},
    "clip from 0": lambda: through(clip(0)),
    "clip from -1": lambda: through(clip(-1)),
    "operator relu": lambda: through(lambda x: F.relu(x, name="relu")),
    # Who else takes x.
    "also concatenated": lambda: both(stem(), block, lambda x: x),
    "also convolved": lambda: both(stem(), block, lambda x: conv(x, "other")),
    "also activated": lambda: both(stem(), block, lambda x: act(x, "other")),
    "summed twice": lambda: of(stem(), lambda x: add(x, tanh(block(x)), "sum2")),
    "concatenated with its relu": lambda: both(stem(), lambda x: x, act),
    # Sums that belong to another convolution.
    "b + a, relu(a)": lambda: two_branches(lambda a, b: F.Group([add(b, a), act(a)])),
    "relu(a), b + a": lambda: two_branches(lambda a, b: F.Group([act(a), add(b, a)])),
    "a + b, relu(b)": lambda: two_branches(lambda a, b: F.Group([add(a, b), act(b)])),
    "a + p, a + f(a + p)": lambda: of(conv(data, "a"), lambda a: add(a, tanh(add(a, data, "sum1")), "sum2")),
    "dense + a, relu(dense)": lambda: of(
        dense(data, flatten=False), lambda x: F.Group([add(conv(data, "a"), x), act(x)])
    ),
    "relu(dense), dense + a": lambda: of(
        dense(data, flatten=False), lambda x: F.Group([act(x), add(conv(data, "a"), x)])
    ),
    # Outputs within a chain.
    "outputs x, relu(x)": lambda: of(stem(), lambda x: F.Group([x, act(x)])),
    "outputs relu(x), x": lambda: of(stem(), lambda x: F.Group([act(x), x])),
    "outputs x, BatchNorm(x)": lambda: of(stem(), lambda x: F.Group([x, norm(x)])),
    "outputs x, conv(x)": lambda: of(stem(), lambda x: F.Group([x, conv(x, "conv")])),
    "output BatchNorm": lambda: norm(stem()),
    "outputs of BatchNorm": lambda: of(norm(stem(), output_mean_var=True), lambda y: F.Group([y[0], y[1]])),
    "BatchNorm that could tell more": lambda: norm(stem(), output_mean_var=True)[0],
    "BatchNorm over columns": lambda: norm(stem(), axis=3),
    "BatchNorm counted from behind": lambda: norm(stem(), axis=-3),
    # Copies.
    "copy of a copy": lambda: F.identity(F.identity(data, name="one"), name="two"),
    "three copies": lambda: of(stem(), lambda x: F.Dropout(F.identity(F.Dropout(x, name="a"), name="b"), name="c")),
}
DENSE: dict[str, Callable[[], Any]] = {
    "dense: x + f": lambda: of(dense(data), lambda x: add(x, dense(act(x), "other"))),
    "dense: f + x": lambda: of(dense(data), lambda x: add(dense(act(x), "other"), x)),
    "dense: x, relu": lambda: both(dense(data), lambda x: x, act),
    "dense: relu, x": lambda: both(dense(data), act, lambda x: x),
    "dense: tanh, relu": lambda: both(dense(data), tanh, act),
    "dense: relu, tanh": lambda: both(dense(data), act, tanh),
    "dense: sigmoid, relu": lambda: both(dense(data), lambda x: act(x, "one", "sigmoid"), act),
    "dense: outputs x, relu": lambda: of(dense(data), lambda x: F.Group([x, act(x)])),
    "dense: outputs x, tanh": lambda: of(dense(data), lambda x: F.Group([x, tanh(x)])),
    "dense: x * sigmoid(x)": lambda: of(dense(data), lambda x: F.elemwise_mul(x, act(x, kind="sigmoid"), name="m")),
    "dense: Dropout": lambda: both(F.Dropout(dense(data), name="drop"), tanh, act),
    "dense: softsign": lambda: both(dense(data), tanh, lambda x: act(x, kind="softsign")),
    "dense: operator relu": lambda: both(dense(data), tanh, lambda x: F.relu(x, name="relu")),
    "dense: clip from 0": lambda: both(dense(data), tanh, clip(0)),
    "dense: clip from -1": lambda: both(dense(data), tanh, clip(-1)),
    "dense: one after the other": lambda: dense(act(dense(act(dense(data), "a"), "one"), "b", "tanh"), "two"),
    **{f"dense: LeakyReLU {kind}": partial(behind_tanh, leaky(kind)) for kind in ("leaky", "elu", "gelu", "selu")},
    **{
        f"dense: {kind}": partial(behind_tanh, partial(getattr(F, kind), name=kind))
        for kind in ("square", "sqrt", "exp", "abs", "sin")
    },
}
CASES = [
    *((name, build, IMAGES) for name, build in STRUCTURES.items()),
    *((name, build, ROWS) for name, build in DENSE.items()),
    ("one axis", lambda: block_of_rows(conv(data, "stem", kernel=(3,))), (2, 8, 6)),
    ("three axes", lambda: block_of_rows(conv(data, "stem", kernel=(3, 3, 3))), VOLUMES),
]
cases = pytest.mark.parametrize(("build", "shape"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])


def block_of_rows(x):
    return add(x, tanh(act(x)))


class Case:
    """A graph with random parameters on disk, and what it is fed."""

    def __init__(self, directory, symbol, shape, seed=3):
        generator = np.random.default_rng(seed)
        self.files = GraphFiles(directory / "net-symbol.json", directory / "net-0000.params")
        symbol.save(str(self.files.symbol))
        arguments, _, auxiliaries = symbol.infer_shape(data=shape)
        parameters = {}
        for name, extents in zip(symbol.list_arguments(), arguments):
            spread = 0.3 if name.endswith("weight") else 0.5
            parameters[f"arg:{name}"] = generator.normal(name.endswith("gamma"), spread, extents)
        for name, extents in zip(symbol.list_auxiliary_states(), auxiliaries):
            parameters[f"aux:{name}"] = generator.uniform(0.5, 2.0, extents)
        parameters.pop("arg:data", None)
        mx.nd.save(str(self.files.params), {name: mx.nd.array(array) for name, array in parameters.items()})
        self.inputs = {"data": generator.normal(size=shape).astype("float32")}
        self.named = misfused(read_graph(self.files.symbol))

    def run(self, runtime):
        return [values for _, _, values in runtime.outputs(self.files, self.inputs, False)]

    def is_faulty(self):
        """Whether the executor gives other numbers than Gluon, or none."""
        expected = self.run(RUNTIMES["gluon"]())
        try:
            actual = self.run(RUNTIMES["executor"]())
        except RuntimeFailure:
            return True
        return not all(close(*pair) for pair in zip(actual, expected))


def close(actual, expected):
    scale = 1e-4 * (1e-2 + np.abs(np.nan_to_num(expected)).max())
    return actual.shape == expected.shape and np.allclose(actual, expected, rtol=0, atol=scale, equal_nan=True)


@cases
def test_a_node_is_named_if_the_executor_is_wrong_and_only_then(tmp_path, build, shape):
    case = Case(tmp_path, build(), shape)
    assert bool(case.named) == case.is_faulty(), case.named


@cases
def test_reconstruct_knows_the_same_and_is_right(tmp_path, build, shape):
    """The C++ twin of the detector, and what it is for."""
    case = Case(tmp_path, build(), shape)
    np.save(tmp_path / "data.npy", case.inputs["data"])
    result = run_reconstruct(
        "--symbol", case.files.symbol, "--params", case.files.params, "--input", f"data={tmp_path / 'data.npy'}",
        "--trace", tmp_path / "trace", "--engine", "executor", "--taps", "none",
    )  # fmt: skip
    assert result.returncode == DONE, result.stderr
    more = f" and {len(case.named) - 1} more" if len(case.named) > 1 else ""
    note = f"reconstruct: note: fusion is off, for MXNet would compute {{}} of {case.files.symbol}{more} wrongly\n"
    assert result.stderr == (note.format(case.named[0]) if case.named else "")
    for number, expected in enumerate(case.run(RUNTIMES["gluon"]())):
        assert close(np.load(tmp_path / "trace" / f"{number:05d}.npy"), expected)


def test_what_is_named_takes_what_is_fused_away():
    def named(symbol):
        return misfused(parse_graph(symbol.tojson(), Path("x")))

    assert named(block(block(stem()), "sum2")) == ["sum"]
    assert named(STRUCTURES["summed twice"]()) == ["sum", "sum2"]
    assert named(STRUCTURES["outputs x, relu(x)"]()) == ["stem"]
    assert named(DENSE["dense: tanh, relu"]()) == ["tanh"]


@pytest.mark.parametrize("place", range(3))
def test_a_dense_layer_that_three_take_is_named_in_any_order(place):
    """Which one MXNet fuses depends on addresses: the same graph is right in one process and wrong in the next."""
    functions = [lambda x: F.sin(x, name="one"), lambda x: F.cos(x, name="two")]
    functions.insert(place, act)
    assert misfused(parse_graph(both(dense(data), *functions).tojson(), Path("x"))) == ["one", "two"]


def random_graph(generator):
    """A graph of up to twelve operators, of those that fuse and some that do not."""
    rows = generator.random() < 0.3
    nodes = [data]
    for number in range(generator.randint(4, 12)):
        name = f"node{number}"
        x, y = (nodes[-min(len(nodes), generator.choice([1, 1, 1, 2, 2, 3, 4, 5]))] for _ in range(2))
        layer = dense(x, name) if rows else conv(x, name, side=generator.choice([1, 3]))
        kind = generator.choice(["relu", "tanh", "softsign"])
        functions = [act(x, name, kind), leaky("leaky")(x), clip(0)(x), F.abs(x, name=name), tanh(x, name)]
        others = [F.elemwise_mul(tanh(x, f"{name}_tanh"), y, name=name), F.broadcast_add(x, y, name=name)]
        copies = [F.Dropout(x, name=name), F.identity(x, name=name)]
        normed = tanh(x, name) if rows else norm(x, name)
        kinds = [layer, layer, layer, generator.choice(functions), generator.choice(functions), normed]
        kinds += [add(x, y, name), add(x, y, name), generator.choice(others), generator.choice(copies)]
        nodes.append(generator.choice(kinds))
    heads = [nodes[-1], *([generator.choice(nodes[1:])] if generator.random() < 0.3 else [])]
    return F.Group(heads), ROWS if rows else IMAGES


def test_random_graphs(tmp_path):
    faulty = alarms = 0
    for seed in range(200):
        symbol, shape = random_graph(random.Random(seed))
        case = Case(tmp_path, symbol, shape, seed)
        if case.is_faulty():
            faulty += 1
            assert case.named, f"seed {seed}: the detector is silent"
        elif case.named:
            alarms += 1
            graph = read_graph(case.files.symbol)
            layers = [node.name for node in graph.nodes if node.operator == "FullyConnected"]
            assert any(len(graph.consumers(name)) > 2 for name in layers), f"seed {seed}: a false alarm"
    assert faulty > 10
    assert alarms < 5


def test_the_order_of_the_file_does_not_matter():
    graph = parse_graph(STRUCTURES["f + x"]().tojson(), Path("x"))
    variables = [node for node in graph.nodes if node.is_variable]
    moved = dataclasses.replace(graph, nodes=(*variables, *graph.operators()))
    assert moved.nodes != graph.nodes
    assert misfused(moved) == misfused(graph) == ["sum"]


@pytest.mark.parametrize("name", [*networks.ZOO, "resnet50_v2", "resnet152_v1", "densenet201"])
def test_the_model_zoo_is_not_named(name):
    """Its networks are right in the executors: test_exports.py runs them."""
    net = mx.gluon.model_zoo.vision.get_model(name)
    assert misfused(parse_graph(net(F.var("data")).tojson(), Path(name))) == []


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    return networks.residual(tmp_path_factory.mktemp("residual"))


@pytest.mark.parametrize("name", ["executor", "cpp-executor", "cpp-predict"])
def test_without_fusion_a_runtime_gives_what_gluon_gives(residual, tmp_path, name):
    values = {"data": np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype("float32")}
    fused = RUNTIMES[name]()
    plain = fused.without_fusion()
    assert plain is not None
    runs = {}
    for number, runtime in enumerate([RUNTIMES["gluon"](), fused, plain]):
        before = dict(os.environ)
        trace = runtime.trace_graph(residual, values, "graph", tmp_path / str(number), taps=False)
        assert dict(os.environ) == before
        runs[number] = [node.sha256 for node in trace.nodes if node.operator != "input"]
    assert runs[0] == runs[2] != runs[1]
    assert fused.fuses
    assert not plain.fuses
    assert plain.without_fusion() is None


def test_what_does_not_fuse_has_nothing_to_leave_out():
    assert all(RUNTIMES[name]().without_fusion() is None for name in ("gluon", "gluon-eager", "cpp", "fp64"))


def test_the_users_choice_stays(monkeypatch, residual):
    monkeypatch.setenv(BACKEND, "NONE")
    values = {"data": np.zeros((1, 3, 32, 32), "float32")}
    for runtime in (ExecutorRuntime(), ExecutorRuntime(fuse=False)):
        list(runtime.outputs(residual, values, False))
        assert os.environ[BACKEND] == "NONE"


@pytest.mark.parametrize("candidate", ["cpp", "cpp-executor"])
def test_a_comparison_warns_of_the_pattern_and_judges_as_before(residual, candidate):
    values = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype("float32")
    sides = RUNTIMES["gluon"](), RUNTIMES[candidate]()
    report = compare_exports(*sides, residual, residual, Feed("random", {"data": values}, 2, []))
    assert report.verdict == ("agree" if candidate == "cpp" else "diverge")
    (note,) = [note for note in report.notes if "executors" in note]
    assert note.startswith("graph: MXNet's executors compute encoder_block0_sum and 1 more wrongly")
    assert BACKEND in note


@pytest.fixture(scope="module", params=["shipped", *PRESETS])
def own(request, tmp_path_factory):
    """The shipped bundle, and of every preset one with random weights; each with images."""
    directory = tmp_path_factory.mktemp("own")
    preset = PRESETS["mnist" if request.param == "shipped" else request.param]
    side, channels = (28, 1) if preset.model.image_channels == 1 else (32, 3)
    images = np.random.default_rng(1).integers(0, 256, (6, side, side, channels), dtype="uint8")
    np.save(directory / "images.npy", images)
    path = PRETRAINED
    if request.param != "shipped":
        model = networks.initialized(VQVAE(preset.model), (1, channels, side, side))
        path = export_bundle(directory / "bundle", preset, model, {"name": "x", "sha256": "0" * 64}, 1, {}).path
    return path, open_images(str(directory / "images.npy"), channels)


def test_the_shipped_model_and_every_preset_are_safe_in_every_engine(own):
    bundle, images = own
    for stage in STAGES:
        assert misfused(read_graph(graph_files(bundle, stage).symbol)) == []
    for candidate in ("executor", "cpp-executor", "cpp-predict"):
        report = compare_bundles(RUNTIMES["gluon"](), RUNTIMES[candidate](), bundle, bundle, images)
        assert report.verdict == "agree", candidate
        assert report.codes is not None
        assert report.codes.real == 0
        assert not any("executors" in note for note in report.notes)


def test_the_blocks_of_a_preset_do_not_hide_in_its_other_layers(tmp_path):
    """What makes cifar10 safe is the activation before the blocks: without it the detector and the executor object."""
    graph = read_graph(preset_files(tmp_path, "cifar10").symbol)
    (between,) = [node for node in graph.nodes if node.name.endswith("stem_relu_fwd")]
    without = {between.name: between.inputs[0]}
    nodes = tuple(
        dataclasses.replace(node, inputs=tuple(without.get(name, (name, k)) for name, k in node.inputs))
        for node in graph.nodes
        if node is not between
    )
    assert misfused(dataclasses.replace(graph, nodes=nodes)) == [
        next(node.name for node in graph.nodes if node.operator == "elemwise_add")
    ]


def preset_files(directory, name):
    model = networks.initialized(VQVAE(PRESETS[name].model), (1, 3, 32, 32))
    bundle = export_bundle(directory / "bundle", PRESETS[name], model, {"name": "x", "sha256": "0" * 64}, 1, {})
    return graph_files(bundle.path, STAGES[0])
