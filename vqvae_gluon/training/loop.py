"""The training loop."""

import csv
import io
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vqvae_gluon.compat import mx
from vqvae_gluon.config import Config
from vqvae_gluon.data import fingerprint
from vqvae_gluon.data.images import to_images, to_tensor, write_image
from vqvae_gluon.errors import InputError, RuntimeFailure
from vqvae_gluon.files import atomic_write
from vqvae_gluon.model.vqvae import VQVAE
from vqvae_gluon.training import checkpoint, plots
from vqvae_gluon.training.metrics import evaluate, perplexity

_GRID_IMAGES = 64


def train(config: Config, train_images: np.ndarray, test_images: np.ndarray, run: Path) -> None:
    """Train; or go on with a run that was stopped, from its last whole epoch on.

    The run's directory gets ``losses.csv`` and ``losses.png``, ``last.npz`` and ``best.npz`` (the epoch with the
    lowest validation error), and ``reconstructions/`` with a grid of test images for every epoch.

    Args:
        config: network and schedule.
        train_images: uint8 (N, H, W, C); the last ``validation_images`` of them are held out.
        test_images: uint8 (N, H, W, C), measured every epoch, never used to choose anything.
        run: directory of the run.

    Raises:
        InputError: the images do not fit the network or the schedule, or the run belongs to another config.
        RuntimeFailure: the loss is no longer finite.
    """
    schedule = config.training
    for images in (train_images, test_images):
        _check_shape(config, images)
    data = {"name": schedule.data, "sha256": fingerprint(train_images)}
    train_images, held_out = np.split(train_images, [max(0, len(train_images) - schedule.validation_images)])
    if len(train_images) < schedule.batch_size:
        raise InputError(
            "training data", f"{len(train_images)} images are left beside --validation-images, fewer than --batch-size"
        )

    mx.random.seed(schedule.seed)
    np.random.seed(schedule.seed)  # MXNet's initializers draw from NumPy.
    model = VQVAE(config.model)
    model.initialize(mx.init.Xavier())
    model.hybridize(static_alloc=True)
    optimizer = mx.optimizer.Adam(learning_rate=schedule.learning_rate)
    trainer = mx.gluon.Trainer(model.collect_params(), optimizer, kvstore=None)

    (run / "reconstructions").mkdir(parents=True, exist_ok=True)
    provenance = checkpoint.Provenance(config, data, [])
    if (run / "last.npz").exists():
        provenance.history.extend(checkpoint.resume(run / "last.npz", provenance, model, trainer))
        print(f"{run}: goes on after epoch {len(provenance.history)} of {schedule.epochs}", file=sys.stderr)

    history = provenance.history
    for epoch in range(len(history) + 1, schedule.epochs + 1):
        row = {"epoch": epoch, **_train_epoch(config, model, trainer, train_images, epoch)}
        if not math.isfinite(row["train_loss"]):
            raise RuntimeFailure(f"epoch {epoch}", f"the loss is {row['train_loss']}; lower --learning-rate")
        for name, images in (("validation", held_out), ("test", test_images)):
            measured = evaluate(model, images, schedule.batch_size, config.model.num_embeddings)
            row.update({f"{name}_{key}": value for key, value in measured.items()})
        history.append(row)
        _write_grid(run, config, model, test_images, epoch)
        _write_losses(run / "losses.csv", history)
        plots.loss_graph(run / "losses.png", history)
        if row["validation_mse"] == min(past["validation_mse"] for past in history):
            checkpoint.save(run / "best.npz", provenance, model, trainer)
        checkpoint.save(run / "last.npz", provenance, model, trainer)
        print(
            f"epoch {epoch}/{schedule.epochs}: MSE training {row['train_mse']:.4f}, validation "
            f"{row['validation_mse']:.4f}, test {row['test_mse']:.4f}; {row['test_codes_used']} codes used; "
            f"{row['seconds']:.0f} s",
            file=sys.stderr,
        )


def _train_epoch(config: Config, model: VQVAE, trainer, images: np.ndarray, epoch: int) -> dict[str, Any]:
    schedule = config.training
    # The order depends on nothing but the seed and the epoch, so a resumed run sees the same batches.
    order = np.random.default_rng([schedule.seed, epoch]).permutation(len(images))
    steps = len(images) // schedule.batch_size
    sums = np.zeros(4)
    counts = np.zeros(config.model.num_embeddings, dtype=np.int64)
    start = time.perf_counter()
    with tqdm(total=steps, desc=f"epoch {epoch}", unit="step", leave=False, disable=None) as bar:
        for chosen in np.split(order[: steps * schedule.batch_size], steps):
            batch = mx.nd.array(to_tensor(images[chosen]))
            with mx.autograd.record():
                _, codes, mse, codebook_loss, commitment_loss = model(batch)
                loss = (
                    schedule.reconstruction_weight * mse
                    + codebook_loss
                    + config.model.commitment_cost * commitment_loss
                )
            loss.backward()
            trainer.step(1)  # The losses are means already.
            losses = [float(part.asscalar()) for part in (loss, mse, codebook_loss, commitment_loss)]
            sums += losses
            counts += np.bincount(codes.asnumpy().ravel(), minlength=len(counts))
            bar.set_postfix(mse=f"{losses[1]:.4f}", refresh=False)
            bar.update()
    names = ("train_loss", "train_mse", "train_codebook_loss", "train_commitment_loss")
    return {
        **dict(zip(names, (sums / steps).tolist())),
        "train_perplexity": perplexity(counts),
        "seconds": time.perf_counter() - start,
    }


def _check_shape(config: Config, images: np.ndarray) -> None:
    height, width, channels = images.shape[1:]
    stride = config.model.stride
    if channels != config.model.image_channels:
        raise InputError("data", f"has {channels} channels, the network {config.model.image_channels}")
    if height % stride or width % stride:
        raise InputError("data", f"is {width}x{height}; the network needs sides that {stride} divides")


def _write_grid(run: Path, config: Config, model: VQVAE, images: np.ndarray, epoch: int) -> None:
    originals = images[:_GRID_IMAGES]
    reconstructions = model(mx.nd.array(to_tensor(originals)))[0].asnumpy() * 255
    grid = plots.pairs_grid(originals, to_images(reconstructions))
    name = f"test_reconstruction_0_epoch{epoch}_batch_size{config.training.batch_size}.png"
    write_image(run / "reconstructions" / name, grid)


def _write_losses(path: Path, history: checkpoint.History) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[0]))
    writer.writeheader()
    writer.writerows(history)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
