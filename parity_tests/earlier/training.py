"""The earlier project's training, a few hundred steps of it, with its straight-through estimator or the right one.

``python -m earlier.training right|wrong FILE.npz`` trains and keeps the parameters of some steps.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from earlier.network import EarlierVQVAE, Parameters, as_numbers
from vqvae_gluon.compat import mx
from vqvae_gluon.data import load_split

MEASURED = (100, 200, 300)  # steps
BATCH_SIZE, LEARNING_RATE, COMMITMENT_COST = 8, 1e-3, 0.25
SEED = 1


class Training:
    """A training in a process of its own, of one thread: two of them share a machine well, and their result does not
    depend on the number of its processors."""

    def __init__(self, sign: str, directory: Path):
        self._file = directory / f"{sign}.npz"
        command = [sys.executable, "-m", "earlier.training", sign, str(self._file)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, cwd=Path(__file__).parents[1], env=environment)

    def parameters(self, step: int) -> Parameters:
        """The parameters after a step, one of those that are kept."""
        if self._process.wait() != 0:
            raise RuntimeError(f"the training of {self._file.stem} failed")
        with np.load(self._file) as kept:
            return {name.partition("/")[2]: kept[name] for name in kept.files if name.startswith(f"{step}/")}


def train(wrong_sign: bool) -> dict[str, np.ndarray]:
    """Train, and keep the parameters of some steps, by ``<step>/<name in a .params file>``.

    In float64: rounding then does not reach a digit that is printed, on whatever processor this is.
    """
    mx.random.seed(SEED)
    np.random.seed(SEED)  # MXNet's initializers draw from NumPy.
    net = EarlierVQVAE(wrong_sign=wrong_sign)
    net.initialize(mx.init.Xavier())
    net.cast("float64")
    net.hybridize()
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": LEARNING_RATE}, kvstore=None)
    images = as_numbers(load_split("mnist", "train", 1)[: MEASURED[-1] * BATCH_SIZE])
    kept = {}
    for step in range(1, MEASURED[-1] + 1):
        batch = mx.nd.array(images[(step - 1) * BATCH_SIZE : step * BATCH_SIZE], dtype="float64")
        with mx.autograd.record():
            _, reconstruction, latent, rows = net(batch)
            error = mx.nd.square(reconstruction - batch).sum() / BATCH_SIZE
            codebook_loss = mx.nd.square(rows - latent.detach()).mean()
            commitment_loss = mx.nd.square(latent - rows.detach()).mean()
            loss = error + codebook_loss + COMMITMENT_COST * commitment_loss
        loss.backward()
        trainer.step(1)
        if step in MEASURED:
            for name, parameter in net.collect_params().items():
                kept[f"{step}/arg:{name}"] = parameter.data().asnumpy().astype("f")
    return kept


if __name__ == "__main__":
    np.savez(sys.argv[2], **train(sys.argv[1] == "wrong"))
