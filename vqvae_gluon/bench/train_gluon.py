"""This project's training step."""

from pathlib import Path
from typing import Any

import numpy as np

from vqvae_gluon.bench.serve import Served
from vqvae_gluon.config import PRESETS
from vqvae_gluon.training.cluster import Alone
from vqvae_gluon.training.learner import Learner


def serve(job: dict[str, Any]) -> Served:
    """The network as it starts, and the first step's loss and norm of the gradient, go to a file for the others.

    Args: job: ``preset``, ``inputs``, .npy files of uint8 (N, H, W, C), and ``start``, that .npz file.
    """
    config = PRESETS[job["preset"]]
    learner = Learner(config, Alone())
    number = 0

    def step(images: np.ndarray):
        nonlocal number
        number += 1
        return learner.step(images, number, config.training.learning_rate)

    inputs = [np.load(path) for path in job["inputs"]]
    state = {name: value for name, value in learner.state().items() if name.startswith("model/")}
    first = step(inputs[0])
    np.savez(Path(job["start"]), loss=first.losses[0], gradient_norm=first.gradient_norm, **state)
    return Served(step, inputs)
