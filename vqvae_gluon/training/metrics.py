"""What is measured of a model on a set of images, and the formulas."""

import math
from collections.abc import Iterable
from typing import Callable

import numpy as np

from vqvae_gluon.compat import mx
from vqvae_gluon.config import Config
from vqvae_gluon.data.images import to_tensor
from vqvae_gluon.model.vqvae import VQVAE, to_pixels

# Of a set of images; a checkpoint's rows hold all of them.
MEASURES = ("loss", "mse", "normalised_mse", "psnr", "ssim", "perplexity", "codes_used", "bits_per_dimension")
_WINDOW, _SIGMA = 11, 1.5
_LUMINANCE, _CONTRAST = 0.01**2, 0.03**2


def perplexity(counts: np.ndarray) -> float:
    """Exponential of the entropy of the codes' distribution: 1 if one code is ever used, K if all are equally often.

    Args:
        counts: (K,), how often each code was used.
    """
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB: ``-10 log10 MSE``, pixels as 0..1; of a set of images it is that of the mean
    over all of their pixels."""
    return -10 * math.log10(mse) if mse else math.inf


def bits_per_dimension(mse: float, config: Config) -> float:
    """Bits for each value of a pixel when an image is told by its codes and what they leave::

        log2(K) / (stride^2 C) + 1/2 log2(2 pi e 255^2 MSE)

    The first term is the codes' share, each told in log2 K bits. The second is the cross entropy of the values, of 1 /
    255 apart, under a normal distribution around the reconstruction whose variance is the MSE (pixels as 0..1); it is
    the upper bound of van den Oord et al. 2017, section 4.1, for that decoder and a uniform prior, as long as the
    error is not small against 1 / 255.
    """
    model = config.model
    rate = math.log2(model.num_embeddings) / (model.stride**2 * model.image_channels)
    return rate + 0.5 * math.log2(2 * math.pi * math.e * 255**2 * mse) if mse else -math.inf


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004, equation 13) with its Gaussian window of 11x11 and sigma 1.5, the mean
    over all places where the window lies within the image, and over channels. Of an image that is smaller than the
    window, the window is cut to its sides.

    Args:
        a, b: float32 (N, C, H, W), pixels as 0..1.

    Returns:
        float64 (N,).
    """
    rows, columns = (_window(side) for side in a.shape[2:])

    def blur(x: np.ndarray) -> np.ndarray:
        return np.matmul(np.matmul(rows.T, x), columns)

    mean_a, mean_b = blur(a), blur(b)
    variance_a, variance_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _LUMINANCE) / (mean_a**2 + mean_b**2 + _LUMINANCE)
    structure = (2 * covariance + _CONTRAST) / (variance_a + variance_b + _CONTRAST)
    return np.asarray((luminance * structure).mean(axis=(1, 2, 3), dtype=np.float64))


def _window(side: int) -> np.ndarray:
    """(side, places): the Gaussian at every place where it fits, to be multiplied with."""
    size = min(_WINDOW, side)
    weights = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / _SIGMA) ** 2)
    window = np.zeros((side, side - size + 1), dtype=np.float32)
    for place in range(window.shape[1]):
        window[place : place + size, place] = weights / weights.sum()
    return window


def evaluate(
    model: VQVAE,
    batches: Iterable[np.ndarray],
    config: Config,
    variance: float,
    add_up: Callable[[np.ndarray], np.ndarray] = lambda sums: sums,
) -> tuple[dict[str, float], np.ndarray]:
    """Measure a model on images. What is compared with them is what its exported graphs give, clipped to 0..255; only
    the loss is that of the values as training sees them, unclipped.

    Args:
        model: as it is exported: not one with ``training``, whose rounding is another.
        batches: uint8 (N, H, W, C) each.
        variance: of the training pixels, taken as 0..1.
        add_up: sums a vector over all machines, where each has a part of the images.

    Returns:
        ``loss`` (what training minimizes), ``mse`` (mean squared error, pixels as 0..1), ``normalised_mse`` (that
        divided by the variance), ``psnr``, ``ssim``, ``perplexity``, ``codes_used`` and ``bits_per_dimension``, over
        all the images; and how often each code was used, (K,).
    """
    sums, counts = np.zeros(4), np.zeros(config.model.num_embeddings)
    for images in batches:
        batch = mx.nd.array(to_tensor(images))
        decoded, _, codes, *terms = model(batch)
        original, reconstruction = (pixels.asnumpy() / 255 for pixels in (batch, to_pixels(mx.nd, decoded)))
        mse = np.square(reconstruction - original).mean(dtype=np.float64)
        loss = objective(config, *(float(term.asscalar()) for term in terms))
        similarity = ssim(original, reconstruction).mean()
        sums += [len(images), *(len(images) * mean for mean in (similarity, mse, loss))]
        counts += np.bincount(codes.asnumpy().ravel(), minlength=len(counts))
    totals = add_up(np.concatenate([sums, counts]))
    similarity, mse, loss = (totals[1:4] / totals[0]).tolist()
    counts = totals[4:]
    return {
        "loss": loss,
        "mse": mse,
        "normalised_mse": mse / variance,
        "psnr": psnr(mse),
        "ssim": similarity,
        "perplexity": perplexity(counts),
        "codes_used": int((counts > 0).sum()),
        "bits_per_dimension": bits_per_dimension(mse, config),
    }, counts.astype(np.int64)


def objective(config: Config, mse, codebook_loss, commitment_loss):
    """What training minimizes (van den Oord et al. 2017, equation 3), of its three terms: numbers or tensors."""
    commitment = config.model.commitment_cost * commitment_loss
    return config.training.reconstruction_weight * mse + codebook_loss + commitment
