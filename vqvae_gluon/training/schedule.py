"""What is decided before a run begins: which images each step sees, and how fast it learns."""

import math

import numpy as np

from vqvae_gluon.config import TrainingConfig


def steps_of(config: TrainingConfig, images: int) -> int:
    """How many steps a run of so many training images has."""
    return config.steps or config.epochs * (images // config.batch_size)


def batches_of(config: TrainingConfig, images: int, epoch: int) -> list[np.ndarray]:
    """Indices of the training images of each step of an epoch, ``batch_size`` each; what is left over is not used.

    The order depends on nothing but the seed and the epoch, so a run that is resumed sees the same batches.
    """
    steps = images // config.batch_size
    order = np.random.default_rng([config.seed, epoch]).permutation(images)
    return list(order[: steps * config.batch_size].reshape(steps, config.batch_size))


def learning_rate(config: TrainingConfig, step: int, steps: int) -> float:
    """Of step ``step``, the first being 1, of ``steps``."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    begin = max(config.warmup_steps, steps - config.decay_steps) if config.decay_steps else config.warmup_steps
    if config.schedule == "constant" or step <= begin:
        return config.learning_rate
    left = max(0.0, (steps - step) / (steps - begin))
    return config.learning_rate * (left if config.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left))
