"""The quantizers: the moving average step by step, restarts, cosine, the first codebook, and what both share."""

import numpy as np
import pytest
from test_model import check_exported_halves

from vqvae_gluon.compat import mx
from vqvae_gluon.config import PRESETS, Config, ModelConfig
from vqvae_gluon.model.quantizer import Lookup, NearestCode, make_quantizer
from vqvae_gluon.model.vqvae import VQVAE
from vqvae_gluon.training.kmeans import kmeans

K, D = 8, 4
KINDS = [{"quantizer": "codebook-loss"}, {"quantizer": "ema"}]
EVERY_KIND = [*KINDS, *({**kind, "cosine": True} for kind in KINDS)]


def make(num_embeddings=K, embedding_dim=D, rows=None, **settings):
    config = ModelConfig(num_embeddings=num_embeddings, embedding_dim=embedding_dim, **settings)
    block = make_quantizer(config, prefix="q_")
    block.initialize(mx.init.Uniform(1.0))
    if rows is not None:
        block.codebook.set_data(mx.nd.array(rows))
    return block


def latents(rows):
    """(n, D) as a latent of one image, (1, D, 1, n)."""
    return mx.nd.array(np.asarray(rows, dtype=np.float32).T[None, :, None, :])


def learn(quantizer, z_e, draw=None):
    codes = quantizer(z_e)[1]
    restarted = quantizer.update(quantizer.statistics(z_e, codes), draw)
    return codes.asnumpy().ravel().tolist(), restarted


@pytest.fixture
def z_e():
    array = mx.nd.array(np.random.default_rng(2).normal(size=(3, D, 2, 5)))
    array.attach_grad()
    return array


def test_two_steps_of_the_moving_average_computed_by_hand():
    quantizer = make(2, 1, [[0.0], [10.0]], quantizer="ema", decay=0.9, epsilon=0.1)
    assert learn(quantizer, latents([[1], [2], [9]]))[0] == [0, 0, 1]
    # N = .1 (2, 1), S = .1 (3, 9), w = .1: c = (2, 1), m = (3, 9); (c + .1) / 3.2 * 3 = (1.96875, 1.03125).
    np.testing.assert_allclose(quantizer.codebook.data().asnumpy().ravel(), [3 / 1.96875, 9 / 1.03125], rtol=1e-6)
    assert learn(quantizer, latents([[8], [8], [0], [8]]))[0] == [1, 1, 0, 1]
    # N = .9 (.2, .1) + .1 (1, 3) = (.28, .39), S = .9 (.3, .9) + .1 (0, 24) = (.27, 3.21), w = .19.
    counts, sums = np.array([0.28, 0.39]) / 0.19, np.array([0.27, 3.21]) / 0.19
    smoothed = (counts + 0.1) / (counts.sum() + 0.2) * counts.sum()
    np.testing.assert_allclose(quantizer.codebook.data().asnumpy().ravel(), sums / smoothed, rtol=1e-6)
    np.testing.assert_allclose(quantizer.state["counts"], [0.28, 0.39])
    np.testing.assert_allclose(quantizer.state["sums"].ravel(), [0.27, 3.21])
    np.testing.assert_allclose(quantizer.state["weight"], [0.19])


def test_the_first_step_is_not_biased_towards_zero():
    quantizer = make(2, 1, [[0.0], [10.0]], quantizer="ema", decay=0.999, epsilon=1e-9)
    learn(quantizer, latents([[1], [3], [12]]))
    np.testing.assert_allclose(quantizer.codebook.data().asnumpy().ravel(), [2, 12], rtol=1e-6)


def test_a_row_that_is_never_chosen_is_divided_by_epsilon_and_not_by_zero():
    quantizer = make(2, 1, [[0.0], [100.0]], quantizer="ema")
    learn(quantizer, latents([[1], [3]]))
    assert np.isfinite(quantizer.codebook.data().asnumpy()).all()


def test_quantization_comes_before_the_update(z_e):
    quantizer = make(quantizer="ema")
    before = quantizer.codebook.data().asnumpy()
    z_q, codes, *_ = quantizer(z_e)
    np.testing.assert_array_equal(z_q.asnumpy(), before[codes.asnumpy()].transpose(0, 3, 1, 2))
    learn(quantizer, z_e)
    assert (quantizer.codebook.data().asnumpy() != before).any()


def test_a_dead_row_restarts_at_a_latent_with_its_sum_and_count():
    quantizer = make(3, 1, [[0.0], [1.0], [100.0]], quantizer="ema", restart_below=0.3)
    asked = []

    def draw(count):
        asked.append(count)
        return np.array([[0.25]])

    codes, restarted = learn(quantizer, latents([[0], [0], [1], [1]]), draw)
    assert (codes, restarted, asked) == ([0, 0, 1, 1], 1, [1])
    assert quantizer.codebook.data().asnumpy()[2] == 0.25
    average = quantizer.state["weight"][0] * 4 / 3
    assert quantizer.state["counts"][2] == pytest.approx(average)
    assert quantizer.state["sums"][2] == pytest.approx(average * 0.25)
    # From then on it is chosen, and moves on as any other.
    assert learn(quantizer, latents([[0.3], [0], [1], [0.2]]), draw) == ([2, 0, 1, 2], 0)
    assert 0.2 < quantizer.codebook.data().asnumpy()[2] < 0.3


def test_a_row_in_use_is_not_restarted():
    quantizer = make(2, 1, [[0.0], [1.0]], quantizer="ema", restart_below=0.9)
    for _ in range(5):
        assert learn(quantizer, latents([[0], [1]]))[1] == 0


def test_the_average_leaves_the_codebook_without_a_gradient(z_e):
    quantizer = make(quantizer="ema")
    with mx.autograd.record():
        _, codes, codebook_loss, commitment_loss = quantizer(z_e)
    commitment_loss.backward()
    rows = quantizer.codebook.data().asnumpy()[codes.asnumpy()].transpose(0, 3, 1, 2)
    expected = 2 * (z_e.asnumpy() - rows) / rows.size
    np.testing.assert_allclose(z_e.grad.asnumpy(), expected, rtol=1e-5, atol=1e-7)
    assert codebook_loss.asscalar() == 0
    assert quantizer.codebook.grad_req == "null"


@pytest.mark.parametrize("settings", KINDS)
def test_with_cosine_the_length_of_a_latent_does_not_matter(settings, z_e):
    quantizer = make(cosine=True, **settings)
    z_q, codes, *_ = quantizer(z_e)
    rows = z_e.asnumpy().transpose(0, 2, 3, 1).reshape(-1, D)
    codebook = quantizer.codebook.data().asnumpy()
    directions = codebook / np.linalg.norm(codebook, axis=1, keepdims=True)
    np.testing.assert_array_equal(codes.asnumpy().ravel(), (rows @ directions.T).argmax(axis=1))
    np.testing.assert_array_equal(quantizer(z_e * 7)[1].asnumpy(), codes.asnumpy())
    np.testing.assert_allclose(np.linalg.norm(z_q.asnumpy(), axis=1), 1, rtol=1e-5)


def test_with_cosine_the_average_is_of_directions(z_e):
    quantizer, longer = (make(quantizer="ema", cosine=True) for _ in range(2))
    longer.codebook.set_data(quantizer.codebook.data())
    learn(quantizer, z_e)
    learn(longer, z_e * 3)
    np.testing.assert_allclose(longer.codebook.data().asnumpy(), quantizer.codebook.data().asnumpy(), rtol=1e-5)


def test_with_cosine_a_row_that_is_never_chosen_keeps_its_direction():
    """At length 0 it would be nearer than every row that lies at more than 60 degrees."""
    rows = [[1, 0], [-1, 0.1], [-1, 0], [-1, -0.1]]
    quantizer = make(4, 2, rows, quantizer="ema", cosine=True)
    assert learn(quantizer, latents([[1, 0]]))[0] == [0]
    np.testing.assert_array_equal(quantizer.codebook.data().asnumpy()[1:], np.array(rows[1:], np.float32))
    z_q, codes, *_ = quantizer(latents([[0.4, 1.0]]))
    assert codes.asnumpy().ravel() == [0]
    np.testing.assert_allclose(z_q.asnumpy().ravel(), [1, 0], atol=1e-6)


@pytest.mark.parametrize("settings", EVERY_KIND)
def test_one_interface(settings, z_e):
    quantizer = make(**settings)
    z_q, codes, codebook_loss, commitment_loss = quantizer(z_e)
    assert z_q.shape == z_e.shape
    assert (codes.shape, codes.dtype) == ((3, 2, 5), np.int32)
    assert codebook_loss.shape == commitment_loss.shape == (1,)
    learn(quantizer, z_e)
    quantizer.start(np.ones((K, D), dtype=np.float32), np.ones(K))
    np.testing.assert_array_equal(quantizer.codebook.data().asnumpy(), 1)


@pytest.mark.parametrize("settings", EVERY_KIND)
@pytest.mark.parametrize("hybrid", [False, True])
def test_a_network_of_half_precision_keeps_its_quantizer_in_float32(settings, hybrid, z_e):
    half = z_e.astype("float16")
    quantizer = make(**settings)
    quantizer.hybridize(active=hybrid)
    expected = quantizer(half.astype("float32"))
    around = mx.gluon.nn.HybridSequential()
    around.add(quantizer)
    around.cast("float16")
    assert quantizer.codebook.data().dtype == np.float32
    z_q, codes, *losses = quantizer(half)
    assert z_q.dtype == np.float16
    np.testing.assert_array_equal(codes.asnumpy(), expected[1].asnumpy())
    np.testing.assert_array_equal(z_q.asnumpy(), expected[0].astype("float16").asnumpy())
    assert [loss.asscalar() for loss in losses] == [loss.asscalar() for loss in expected[2:]]
    learn(quantizer, half)
    assert quantizer.codebook.data().dtype == np.float32
    for block in (NearestCode(K, D, False, params=quantizer.params), Lookup(K, D, False, params=quantizer.params)):
        block.cast("float16")
        assert block.codebook.data().dtype == np.float32


@pytest.mark.parametrize("settings", EVERY_KIND)
@pytest.mark.parametrize("preset", ["mnist", "cifar10"])
def test_decoding_the_codes_of_an_image_gives_its_reconstruction(settings, preset, digits):
    written = PRESETS[preset].to_json()
    config = Config.from_json({**written, "model": {**written["model"], "restart_below": 0.0, **settings}})
    model = VQVAE(config.model)
    model.initialize(mx.init.Xavier())
    images = digits[:4]
    if preset == "cifar10":
        images = np.repeat(np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))), 3, axis=3)
    check_exported_halves(model, images)


def test_sums_over_parts_of_a_batch_are_those_of_the_whole(z_e):
    quantizer = make(quantizer="ema")
    codes = quantizer(z_e)[1]
    whole = quantizer.statistics(z_e, codes)
    parts = quantizer.statistics(z_e[:1], codes[:1]) + quantizer.statistics(z_e[1:], codes[1:])
    np.testing.assert_allclose(whole, parts, rtol=1e-6)
    rows, codes = quantizer.rows_of(z_e).asnumpy(), codes.asnumpy().ravel()
    sums = np.zeros((K, D))
    np.add.at(sums, codes, rows)
    np.testing.assert_allclose(whole, [*np.bincount(codes, minlength=K), *sums.ravel()], rtol=1e-5, atol=1e-6)


def test_a_start_counts_as_much_as_all_that_came_before():
    quantizer = make(2, 1, quantizer="ema", decay=0.9, epsilon=1e-9)
    quantizer.start(np.array([[1.0], [5.0]], dtype=np.float32), np.array([2.0, 2.0]))
    learn(quantizer, latents([[2], [2], [5], [5]]))
    np.testing.assert_allclose(quantizer.codebook.data().asnumpy().ravel(), [1.1, 5.0], rtol=1e-6)


def test_kmeans_finds_clusters_that_lie_apart():
    random = np.random.default_rng(1)
    middles = np.array([[0, 0], [10, 0], [0, 10], [10, 10], [30, 30]], dtype=np.float32)
    rows = (middles[:, None] + random.normal(scale=0.1, size=(5, 40, 2))).reshape(-1, 2).astype(np.float32)
    centres, counts = kmeans(rows, 5, random)
    order = np.lexsort(centres.round().T)
    np.testing.assert_allclose(centres[order], middles[np.lexsort(middles.T)], atol=0.1)
    np.testing.assert_array_equal(counts, 40)


def test_kmeans_of_equal_rows_does_not_fail():
    centres, counts = kmeans(np.ones((10, 3), dtype=np.float32), 4, np.random.default_rng(0))
    np.testing.assert_array_equal(centres, 1)
    assert counts.sum() == 10


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"quantizer": "ema2"}, "quantizer is 'ema2'"),
        ({"decay": 1.0}, "decay is 1.0"),
        ({"quantizer": "codebook-loss", "restart_below": 0.5}, "restart_below is for the quantizer ema"),
        ({"cosine": 1}, "cosine is 1"),
    ],
)
def test_a_config_that_makes_no_quantizer_is_refused(change, why):
    written = PRESETS["mnist"].to_json()
    with pytest.raises(ValueError, match=why):
        Config.from_json({**written, "model": {**written["model"], **change}})
