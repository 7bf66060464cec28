"""What training measures: against the formulas as they are written."""

import math

import numpy as np
import pytest

from vqvae_gluon.config import PRESETS, TrainingConfig
from vqvae_gluon.training.metrics import bits_per_dimension, perplexity, psnr, ssim
from vqvae_gluon.training.schedule import batches_of, learning_rate, steps_of


def test_perplexity():
    assert perplexity(np.array([0, 5, 0])) == 1.0
    assert perplexity(np.array([3, 3, 3, 3])) == pytest.approx(4.0)
    assert perplexity(np.array([1, 1, 2])) == pytest.approx(2**1.5)


def test_psnr():
    assert psnr(0.01) == pytest.approx(20.0)
    assert psnr(0.0) == math.inf


def test_bits_per_dimension():
    # 9 bits for 4 x 4 x 3 values, and a normal distribution of variance .01 in steps of 1 / 255.
    expected = 9 / 48 + 0.5 * math.log2(2 * math.pi * math.e * 0.01 * 255**2)
    assert bits_per_dimension(0.01, PRESETS["cifar10"]) == pytest.approx(expected)


def ssim_as_written(a, b):
    """Wang et al. 2004, equation 13, one window after another."""
    height, width = a.shape
    rows, columns = min(11, height), min(11, width)
    gauss = [np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / 1.5) ** 2) for size in (rows, columns)]
    weights = np.outer(*gauss)
    weights /= weights.sum()
    values = []
    for y in range(height - rows + 1):
        for x in range(width - columns + 1):
            p, q = a[y : y + rows, x : x + columns], b[y : y + rows, x : x + columns]
            mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
            variance_p, variance_q = (weights * (p - mean_p) ** 2).sum(), (weights * (q - mean_q) ** 2).sum()
            covariance = (weights * (p - mean_p) * (q - mean_q)).sum()
            luminance = (2 * mean_p * mean_q + 1e-4) / (mean_p**2 + mean_q**2 + 1e-4)
            values.append(luminance * (2 * covariance + 9e-4) / (variance_p + variance_q + 9e-4))
    return np.mean(values)


@pytest.mark.parametrize("shape", [(3, 1, 20, 14), (2, 3, 11, 11), (1, 1, 6, 30)])
def test_ssim(shape):
    random = np.random.default_rng(1)
    a = random.random(shape, dtype=np.float32)
    b = np.clip(a + random.normal(scale=0.2, size=shape), 0, 1).astype(np.float32)
    expected = [np.mean([ssim_as_written(p.astype(float), q) for p, q in zip(x, y)]) for x, y in zip(a, b)]
    np.testing.assert_allclose(ssim(a, b), expected, rtol=1e-4)
    np.testing.assert_allclose(ssim(a, a), 1, rtol=1e-6)


def test_every_image_is_seen_once_an_epoch_in_an_order_of_its_own():
    config = TrainingConfig(batch_size=10)
    first, second = (np.concatenate(batches_of(config, 100, epoch)) for epoch in (1, 2))
    np.testing.assert_array_equal(np.sort(first), np.arange(100))
    assert (first != second).any()
    assert len(batches_of(config, 109, 1)) == 10


def test_steps():
    assert steps_of(TrainingConfig(epochs=3, batch_size=10), 109) == 30
    assert steps_of(TrainingConfig(epochs=3, batch_size=10, steps=7), 109) == 7


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1, 1, 1, 1]),
        ({"warmup_steps": 2}, [0.5, 1, 1, 1]),
        ({"schedule": "linear"}, [0.75, 0.5, 0.25, 0]),
        ({"schedule": "cosine"}, [0.5 + 0.5 * math.cos(math.pi * k / 4) for k in (1, 2, 3, 4)]),
        ({"schedule": "linear", "decay_steps": 2}, [1, 1, 0.5, 0]),
        ({"schedule": "linear", "warmup_steps": 2}, [0.5, 1, 0.5, 0]),
    ],
)
def test_the_learning_rate(settings, expected):
    config = TrainingConfig(learning_rate=1.0, **settings)
    assert [learning_rate(config, step, 4) for step in (1, 2, 3, 4)] == pytest.approx(expected)
