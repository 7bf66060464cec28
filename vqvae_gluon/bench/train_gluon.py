"""This project's training step."""

from pathlib import Path
from typing import Any

import numpy as np

from vqvae_gluon.bench.serve import Served, check_start
from vqvae_gluon.config import PRESETS
from vqvae_gluon.training.cluster import Alone
from vqvae_gluon.training.learner import Learner


def serve(job: dict[str, Any]) -> Served:
    """Who is first writes the network as it starts, and the first step's loss and norm of the gradient, to a file; all
    others must have the same.

    Args: job: ``preset``, ``operators``, ``inputs``, .npy files of uint8 (N, H, W, C), and ``start``, that .npz file.
    """
    config, start = PRESETS[job["preset"]], Path(job["start"])
    learner = Learner(config, Alone(), job["operators"])
    number = 0

    def step(images: np.ndarray):
        nonlocal number
        number += 1
        return learner.step(images, number, config.training.learning_rate)

    inputs = [np.load(path) for path in job["inputs"]]
    state = {name: value for name, value in learner.state().items() if name.startswith("model/")}
    first = step(inputs[0])
    if start.exists():
        with np.load(start) as wanted:
            check_start(job["operators"], wanted, first.losses[0], first.gradient_norm)
    else:
        np.savez(start, loss=first.losses[0], gradient_norm=first.gradient_norm, **state)
    return Served(step, inputs)
