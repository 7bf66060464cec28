"""What is measured of a model on a set of images."""

import numpy as np

from vqvae_gluon.compat import mx
from vqvae_gluon.data.images import to_tensor
from vqvae_gluon.model.vqvae import VQVAE


def perplexity(counts: np.ndarray) -> float:
    """Exponential of the entropy of the codes' distribution: 1 if one code is ever used, K if all are equally often.

    Args:
        counts: (K,), how often each code was used.
    """
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def evaluate(model: VQVAE, images: np.ndarray, batch_size: int, num_embeddings: int) -> dict[str, float]:
    """Reconstruction error and use of the codebook.

    Args:
        images: uint8 (N, H, W, C).

    Returns:
        ``mse`` (mean squared error, pixels as 0..1), ``perplexity`` and ``codes_used``, over all the images.
    """
    total = 0.0
    counts = np.zeros(num_embeddings, dtype=np.int64)
    for start in range(0, len(images), batch_size):
        batch = mx.nd.array(to_tensor(images[start : start + batch_size]))
        _, codes, mse, _, _ = model(batch)
        total += float(mse.asscalar()) * len(batch)
        counts += np.bincount(codes.asnumpy().ravel(), minlength=num_embeddings)
    return {"mse": total / len(images), "perplexity": perplexity(counts), "codes_used": int((counts > 0).sum())}
