"""The fused operators in training: gradients as true as their 16 bits allow, the same bits every time, and no number
that is lost."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import run_cli

from vqvae_gluon.compat import mx
from vqvae_gluon.config import PRESETS
from vqvae_gluon.data.images import write_images
from vqvae_gluon.errors import DONE, FAILED
from vqvae_gluon.kernels import INFERENCE, KERNELS_VARIABLE, TRAINING, load_kernels
from vqvae_gluon.training.adam import Adam
from vqvae_gluon.training.cluster import Alone
from vqvae_gluon.training.learner import Learner

FORWARD, BACKWARD = 2e-5, 3e-5  # relative error that is allowed, of the length of a tensor
KEPT = 2.0**-16  # of what is multiplied


def train(symbol, values, dtype, heads=None):
    """Outputs and gradients of one way forward and back."""
    arrays = {name: mx.nd.array(value, dtype=dtype) for name, value in values.items()}
    gradients = {name: mx.nd.zeros(value.shape, dtype=dtype) for name, value in arrays.items()}
    executor = symbol.bind(mx.cpu(), arrays, args_grad=gradients)
    outputs = executor.forward(is_train=True)
    heads = heads or [np.random.default_rng(5).normal(0, 1, output.shape) for output in outputs]
    executor.backward([mx.nd.array(head, dtype=dtype) for head in heads])
    return [output.asnumpy() for output in outputs], {name: value.asnumpy() for name, value in gradients.items()}


def drawn(symbol, data, random):
    shapes, _, _ = symbol.infer_shape(data=data)
    return {
        name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in zip(symbol.list_arguments(), shapes)
    }


def operators(symbol):
    return [node["op"] for node in json.loads(symbol.tojson())["nodes"] if node["op"] != "null"]


def off(found, truth) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - truth) / max(float(np.linalg.norm(truth)), 1e-30))


def check(symbol, data, random):
    load_kernels()
    values = drawn(symbol, data, random)
    fused = symbol.optimize_for(TRAINING)
    assert operators(fused).count("_vqvae_trained") >= 1
    outputs, gradients = train(fused, values, np.float32)
    truth, true_gradients = train(symbol, values, np.float64)
    for found, true in zip(outputs, truth):
        assert off(found, true) <= FORWARD
    # Where a sum is small beside what it is the sum of, it cannot be told better than what it is made of.
    moved: dict[str, float] = dict.fromkeys(values, 0.0)
    for _ in range(3):
        kept = {name: value * (1 + KEPT * random.uniform(-1, 1, value.shape)) for name, value in values.items()}
        _, kept_gradients = train(symbol, kept, np.float64)
        moved = {name: max(moved[name], off(kept_gradients[name], true)) for name, true in true_gradients.items()}
    for name, true in true_gradients.items():
        assert off(gradients[name], true) <= max(BACKWARD, 4 * moved[name]), name
    again, same = train(fused, values, np.float32)
    assert all(np.array_equal(a, b) for a, b in zip(outputs, again))
    assert all(np.array_equal(gradients[name], same[name]) for name in gradients)


def layer(x, name, random, channels=None, kernel=None, stride=None):
    transposed = bool(random.integers(2))
    kernel, stride = kernel or int(random.integers(1, 5)), stride or int(random.integers(1, 3))
    kernel = max(kernel, stride) if transposed else kernel
    kind = mx.sym.Deconvolution if transposed else mx.sym.Convolution
    pad = int(random.integers(0, kernel // 2 + 1))
    channels = channels or int(random.choice([1, 3, 8, 9, 31, 32, 33, 64, 70]))
    sizes = {"kernel": (kernel, kernel), "stride": (stride, stride), "pad": (pad, pad)}
    return kind(x, num_filter=channels, name=name, no_bias=bool(random.integers(2)), **sizes)


@pytest.mark.fused_operators
@pytest.mark.parametrize("seed", range(30))
def test_gradients_of_any_convolutions_are_true(seed):
    random = np.random.default_rng(seed)
    x = mx.sym.var("data")
    ends = []
    for number in range(random.integers(1, 5)):
        x = layer(x, f"layer{number}", random)
        kind = random.choice(["relu", "tanh", "sigmoid", "scalars", "sum", "none"])
        if kind in ("relu", "tanh", "sigmoid"):
            x = mx.sym.Activation(x, act_type=kind)
        elif kind == "scalars":
            x = (x * 0.5 + 0.25) / 3.0 - 0.125
        elif kind == "sum":  # a residual block
            inner = mx.sym.Convolution(mx.sym.relu(x), kernel=(1, 1), num_filter=8, name=f"inner{number}")
            inner = mx.sym.Activation(inner, act_type="relu")
            channels = x.infer_shape_partial(data=(2, 3, 9, 7))[1][0][1]
            y = mx.sym.Activation(x, act_type="tanh")
            x = y + mx.sym.Convolution(inner, kernel=(1, 1), num_filter=channels, name=f"outer{number}") + y
        ends.append(x)
    images = int(random.choice([1, 5, 32, 33, 70]))
    check(
        mx.sym.Group(ends if random.integers(2) else ends[-1:]),
        (images, int(random.choice([1, 3, 16, 40])), 9, 7),
        random,
    )


@pytest.mark.fused_operators
@pytest.mark.parametrize("preset", ["mnist", "cifar10", "cifar10-sonnet"])
def test_a_learner_learns_what_it_learns_by_mxnets_operators(preset):
    config = PRESETS[preset]
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, batch_size=48))
    side, channels = (28, 1) if preset == "mnist" else (32, 3)
    images = np.random.default_rng(1).integers(0, 256, (4, 48, side, side, channels)).astype(np.uint8)
    fused, plain = Learner(config, Alone(), "fused"), Learner(config, Alone(), "mxnet")
    assert (fused.is_fused, plain.is_fused) == (True, False)
    for number, batch in enumerate(images, 1):
        found, expected = (one.step(batch, number, 1e-3) for one in (fused, plain))
        # Adam's first steps are nearly the signs of gradients, and some of these are near 0: from then on codes and
        # gradients of two learners differ, also of two that MXNet's operators teach and that begin 1e-6 apart.
        np.testing.assert_allclose(found.losses[:2], expected.losses[:2], rtol=1e-4)
        if number == 1:
            assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-4)
            assert np.abs(found.counts - expected.counts).sum() <= 2
    found = operators(fused.model._cached_graph[1])
    assert (found.count("_vqvae_trained"), found.count("_vqvae_searching")) == (2, 1)
    assert not {"Convolution", "Deconvolution", "argmin"} & set(found)


def test_adam_of_all_parameters_at_a_time_is_mxnets_on_any_processor():
    load_kernels()
    found = []
    for fused in (True, False):
        random = np.random.default_rng(3)
        adam = Adam(fused, learning_rate=0.01)
        weights = [mx.nd.array(random.normal(size=shape)) for shape in ((3, 4), (5,), (2, 1, 3, 3))]
        states = [adam.create_state(i, weight) for i, weight in enumerate(weights)]
        for _ in range(4):
            adam.update(range(3), weights, [mx.nd.array(random.normal(size=one.shape)) for one in weights], states)
        changed = [*weights, *(moment for state in states for moment in state)]
        found.append(np.concatenate([one.asnumpy().ravel() for one in changed]))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=2e-6)


@pytest.mark.fused_operators
def test_what_is_trained_is_seen_by_the_search():
    """MXNet does not tell when it has changed an array of its own: the codebook, behind what stops gradients."""
    load_kernels()
    config = PRESETS["mnist"]
    learner = Learner(config, Alone(), "fused")
    batch = mx.nd.array(np.random.default_rng(2).integers(0, 256, (8, 1, 28, 28)))
    before = learner.model(batch)[2].asnumpy()
    codebook = learner.model.quantizer.codebook
    codebook.set_data(codebook.data()[::-1])
    after = learner.model(batch)[2].asnumpy()
    np.testing.assert_array_equal(after, config.model.num_embeddings - 1 - before)


@pytest.mark.fused_operators
@pytest.mark.parametrize("function", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("backend", [INFERENCE, TRAINING])
def test_what_is_not_a_number_stays_so(function, backend):
    load_kernels()
    x = mx.sym.Convolution(mx.sym.var("data"), kernel=(1, 1), num_filter=5, name="layer")
    symbol = mx.sym.Activation(x, act_type=function)
    values = drawn(symbol, (2, 3, 4, 4), np.random.default_rng(0))
    values["data"][1, 2, 3, 3] = np.nan
    executor = symbol.optimize_for(backend).bind(mx.cpu(), {name: mx.nd.array(v) for name, v in values.items()})
    found = np.isnan(executor.forward()[0].asnumpy())
    assert found[1, :, 3, 3].all()
    assert found.sum() == 5


@pytest.mark.fused_operators
def test_threads_change_in_what_order_is_summed_and_no_more(tmp_path):
    code = """
import sys, numpy as np
from vqvae_gluon.config import PRESETS
from vqvae_gluon.training.cluster import Alone
from vqvae_gluon.training.learner import Learner
images = np.random.default_rng(1).integers(0, 256, (96, 28, 28, 1)).astype(np.uint8)
learner = Learner(PRESETS["mnist"], Alone(), "fused")
learner.step(images, 1, 1e-3)
np.savez(sys.argv[1], **{str(number): gradient.asnumpy() for number, gradient in enumerate(learner._gradients)})
"""
    found = []
    for threads in ("1", "2", "5"):  # Of 3 groups of images: one after the other, side by side, each by all together.
        path = tmp_path / f"{threads}.npz"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", code, path], env=environment, check=True)
        found.append(np.load(path))
    for one in found[1:]:
        assert set(one) == set(found[0])
        for name in one:
            assert off(one[name], found[0][name].astype(np.float64)) <= BACKWARD


def test_operators_that_cannot_be_had_are_told(monkeypatch, tmp_path, digits):
    paths = [tmp_path / f"images/{split}/{number}.png" for split in ("train", "test") for number in range(8)]
    list(write_images(paths, digits[:16]))
    words = ["train", "--dataset", "images", "--data", tmp_path / "images", "--epochs", 1, "--batch-size", 4]
    words += ["--validation-images", 2, "--output", tmp_path / "run"]
    monkeypatch.setenv(KERNELS_VARIABLE, str(tmp_path / "missing.so"))
    result = run_cli(*words, "--operators", "fused")
    assert result.returncode == FAILED
    assert f"{tmp_path / 'missing.so'}: is missing; build it with 'bash build.sh cpp'" in result.stderr
    result = run_cli(*words)
    assert (result.returncode, "convolutions by MXNet" in result.stderr) == (DONE, True)
