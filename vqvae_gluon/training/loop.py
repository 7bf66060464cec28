"""The training loop."""

import contextlib
import dataclasses
import hashlib
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vqvae_gluon.compat import mx
from vqvae_gluon.config import Config, RunConfig, TrainingConfig
from vqvae_gluon.data.images import to_images, to_tensor
from vqvae_gluon.data.imageset import FolderSet, ImageSet, refuse_damaged
from vqvae_gluon.data.loader import Augmentation, Loader
from vqvae_gluon.errors import InputError, RuntimeFailure
from vqvae_gluon.model.vqvae import to_pixels
from vqvae_gluon.settings import to_toml
from vqvae_gluon.training import checkpoint, plots
from vqvae_gluon.training.adapt import ADAPTED, Prepared
from vqvae_gluon.training.checkpoint import Checkpoint
from vqvae_gluon.training.cluster import Alone
from vqvae_gluon.training.learner import LOSSES, Learner, Step
from vqvae_gluon.training.log import Log
from vqvae_gluon.training.metrics import evaluate, perplexity
from vqvae_gluon.training.progress import LOGGED_STEPS, MEASURED, Progress, Row
from vqvae_gluon.training.schedule import batches_of, learning_rate, steps_of

_GRID_IMAGES = 64
_START_IMAGES = 1000
_COMPARED_IMAGES = 100
_VARIANCE_IMAGES = 50000
_HELD_OUT = 0  # of streams of random numbers, beside those of the epochs, which are numbered from 1 on
_LOWER_WEIGHTS = "lower --reconstruction-weight or --commitment-cost"


def train(options: RunConfig, prepared: Prepared, workers: Alone) -> Progress:
    """Train; or go on with a run that was stopped, from its last checkpoint on, to the same end bit for bit.

    The run's directory gets what :class:`~vqvae_gluon.training.log.Log` writes, ``last.npz``, ``best.npz`` (the epoch
    that reconstructs the validation images best), and ``reconstructions/`` with a grid of test images for every epoch.

    Args:
        options: the run's directory, and what else changes nothing of the result.
        prepared: network and schedule, and the images: of those to train on ``validation_images``, drawn by the seed,
            are held out; those for tests are measured every epoch, and never used to choose anything.
        workers: with whom the work is shared; that of rank 0 writes.

    Returns:
        What was measured.

    Raises:
        InputError: the images do not fit the network or the schedule, or the run belongs to another config.
        RuntimeFailure: a loss or a gradient is no longer finite.
    """
    with contextlib.ExitStack() as stack:
        return _Run(options, prepared, workers, stack).run()


def find_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run; it may not be there."""
    return run / "last.npz"


def check_resumed(options: RunConfig, config: Config, given: frozenset[str]) -> None:
    """Refuse, before the data set is opened, to continue a run with other settings than it was begun with.

    Args:
        given: fields that the user set, as ``section.field``; of the others the data set decides some.

    Raises:
        InputError: they differ, or the checkpoint is damaged.
    """
    path = find_checkpoint(Path(options.output))
    if path.exists():
        last = checkpoint.load(path)
        _check_config(path, last.config, _with_adapted(config, last.config, given))


def _with_adapted(config: Config, last: Config, given: frozenset[str]) -> Config:
    """A config with another's values of what a data set decides, as far as the user did not set it."""
    parts = {}
    for section, names in ADAPTED.items():
        old, new = getattr(last, section), getattr(config, section)
        left = {name: getattr(old, name) for name in names if f"{section}.{name}" not in given}
        parts[section] = dataclasses.replace(new, **left)
    return Config(**parts)


class _Run:
    def __init__(self, options: RunConfig, prepared: Prepared, workers: Alone, stack: contextlib.ExitStack):
        config, train_images, test_images, self._notes = prepared
        training = config.training
        self._config, self._options, self._workers = config, options, workers
        self._directory = Path(options.output)
        self._held_out, self._chosen = hold_out(training, len(train_images), workers.count)
        for images in (train_images, test_images):
            _check_shape(config, images)
        self._data = {"name": training.data, "sha256": _check_images(train_images, test_images, workers)}
        self._steps = steps_of(training, len(self._chosen))
        augmentation = Augmentation(training.flip, training.shift)

        def open_loader(images: ImageSet, augmentation: Augmentation) -> Loader:
            return stack.enter_context(Loader(images, augmentation, options.num_workers, training.seed))

        self._loader = open_loader(train_images, augmentation)
        plain = Augmentation()
        measured = {"validation": (train_images, self._held_out), "test": (test_images, np.arange(len(test_images)))}
        self._measured = {name: (open_loader(images, plain), which) for name, (images, which) in measured.items()}
        self._grid_images = test_images.read(_spread(len(test_images), _GRID_IMAGES))
        self._variance = pixel_variance(train_images, self._chosen)
        if not self._variance:
            raise InputError(
                "training data",
                "all values of all pixels are equal, so there is nothing to learn; give other pictures by --data",
            )
        self._learner = Learner(config, workers, options.operators)
        self._changes: list[str] = []
        self._progress = self._begin(train_images)
        self._log = stack.enter_context(
            Log(
                self._directory if workers.rank == 0 else None,
                self._progress,
                None if self._is_finished() else to_toml(config, options),
            )
        )

    def _begin(self, images: ImageSet) -> Progress:
        """Where the run stands: at its beginning, or where its last checkpoint was taken, which rank 0 reads."""
        path = find_checkpoint(self._directory)
        given = checkpoint.read_bytes(path) if self._workers.rank == 0 and path.exists() else b""
        found = self._workers.agree(given)
        if not found:
            count = max(_START_IMAGES, self._config.training.kmeans_images)
            first = images.read(self._chosen[_spread(len(self._chosen), count)])
            try:
                self._learner.start(first)
            except InputError:
                if self._workers.rank == 0:
                    for note in self._notes:  # They say why the images are as they are.
                        tqdm.write(f"{self._directory}: {note}", file=sys.stderr)
                raise
            return Progress()
        last = checkpoint.load(path, found)
        _check_same(path, last, self._config, self._data)
        try:
            self._learner.restore(last.arrays, last.progress.step)
        except ValueError as error:
            raise InputError(path, f"is not a checkpoint of this version ({error})") from error
        for name in ("learning_rate", "clip_norm"):
            before, now = (getattr(config.training, name) for config in (last.config, self._config))
            if before != now:
                self._changes.append(f"{name} {now} in place of {before}")
        return last.progress

    def run(self) -> Progress:
        progress, training = self._progress, self._config.training
        for note in self._notes:
            self._log.say(f"{self._directory}: {note}")
        self._log.say(
            f"{self._directory}: {self._data['name']} {self._data['sha256']}, {len(self._chosen)} images to train on, "
            f"{len(self._held_out)} to choose the best epoch, variance of the pixels {self._variance:.5f}, "
            f"convolutions by {'fused operators' if self._learner.is_fused else 'MXNet'}"
        )
        if self._is_finished():
            done = f"is finished (step {progress.step} of {self._steps})"
            self._log.say(f"{self._directory}: {done}; nothing is left to train")
        elif progress.step:
            changes = "".join(f", with {change}" for change in self._changes)
            self._log.say(f"{self._directory}: continues after step {progress.step} of {self._steps}{changes}")
        while not self._is_finished():
            row = self._epoch()
            for name, (loader, indices) in self._measured.items():
                # The last usage is that of the test images.
                values, counts = self._evaluate(loader, indices)
                if not np.isfinite(values["loss"]):
                    raise self._failure(f"step {progress.step}, the {name} loss is {values['loss']}")
                row.update({f"{name}_{key}": value for key, value in values.items()})
            progress.history.append(row)
            progress.epoch += 1
            progress.position, progress.seconds, progress.sums, progress.counts = 0, 0.0, [], []
            best = plots.best_of(progress.history)
            self._log.epoch(row, progress, counts)
            self._draw_grid(row, best is row)
            if best is row:
                self._save(self._directory / "best.npz")
            self._save(find_checkpoint(self._directory))
            self._log.say(
                f"epoch {row['epoch']}/{-(-self._steps // (len(self._chosen) // training.batch_size))}: MSE training "
                f"{row['train_mse']:.5f}, validation {row['validation_mse']:.5f}, test {row['test_mse']:.5f}; "
                f"{row['test_codes_used']} codes used, perplexity {row['test_perplexity']:.1f}; "
                f"{row['images_per_second']:.0f} images/s"
            )
        if self._is_stopped_early():
            self._log.say(f"no lower validation MSE for {training.patience} epochs: ends")
        newest, best = progress.history[-1], plots.best_of(progress.history)
        rows = {"best and newest": best} if best is newest else {"best": best, "newest": newest}
        for name, row in rows.items():
            self._log.say(
                f"{name}: epoch {row['epoch']}, validation MSE {row['validation_mse']:.5f}, test MSE "
                f"{row['test_mse']:.5f}, normalised {row['test_normalised_mse']:.4f}, PSNR {row['test_psnr']:.2f} dB, "
                f"SSIM {row['test_ssim']:.4f}, {row['test_codes_used']} codes used"
            )
        return progress

    def _is_finished(self) -> bool:
        return self._progress.step >= self._steps or self._is_stopped_early()

    def _is_stopped_early(self) -> bool:
        history, patience = self._progress.history, self._config.training.patience
        return bool(patience and history) and len(history) - plots.best_of(history)["epoch"] >= patience

    def _epoch(self) -> Row:
        """The steps of an epoch that are left to do."""
        progress, training = self._progress, self._config.training
        plan = [self._chosen[batch] for batch in batches_of(training, len(self._chosen), progress.epoch + 1)]
        plan = plan[: self._steps - progress.step + progress.position]
        shares = [self._workers.share(batch) for batch in plan]
        progress.sums = progress.sums or [0.0] * len(MEASURED)
        progress.counts = progress.counts or [0] * self._config.model.num_embeddings
        before, start = progress.seconds, time.perf_counter()
        quiet = None if self._workers.rank == 0 else True
        with tqdm(
            total=len(plan) * training.batch_size,
            initial=progress.position * training.batch_size,
            desc=f"epoch {progress.epoch + 1}",
            unit="image",
            leave=False,
            disable=quiet,
        ) as bar:
            for images in self._loader.batches(shares, progress.epoch + 1, progress.position):
                step = self._step(images)
                bar.set_postfix(loss=f"{step.losses[0]:.4f}", refresh=False)
                bar.update(training.batch_size)
                progress.seconds = before + time.perf_counter() - start
                self._log_step(step)
                if progress.step % self._options.checkpoint_steps == 0 and progress.position < len(plan):
                    self._save(find_checkpoint(self._directory))
        means = dict(zip(MEASURED, (np.array(progress.sums) / progress.position).tolist()))
        return {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            **{f"train_{name}": means[name] for name in LOSSES},
            "train_perplexity": perplexity(np.array(progress.counts)),
            "train_batch_perplexity": means["perplexity"],
            "restarted": round(means["restarted"] * progress.position),
            "learning_rate": learning_rate(training, progress.step, self._steps),
            "seconds": progress.seconds,
            "images_per_second": progress.position * training.batch_size / progress.seconds,
        }

    def _step(self, images: np.ndarray) -> Step:
        progress, number = self._progress, self._progress.step + 1
        try:
            step = self._learner.step(images, number, learning_rate(self._config.training, number, self._steps))
        except RuntimeFailure as error:
            raise self._failure(str(error)) from error
        progress.step += 1
        progress.position += 1
        progress.counts = (step.counts + progress.counts).tolist()
        return step

    def _failure(self, what: str) -> RuntimeFailure:
        kept = find_checkpoint(self._directory)
        good = f"{kept} is as it was last written" if kept.exists() else "there is no checkpoint yet"
        # Before the first update the learning rate has had no effect.
        remedy = "lower --learning-rate or set --clip-norm" if self._progress.step else _LOWER_WEIGHTS
        return RuntimeFailure(f"epoch {self._progress.epoch + 1}, {what}", f"{good}; {remedy}")

    def _log_step(self, step: Step) -> None:
        progress = self._progress
        measured = [*step.losses, perplexity(step.counts), step.gradient_norm, step.restarted]
        progress.sums = (np.array(progress.sums) + measured).tolist()
        progress.recent = (np.array(progress.recent or [0.0] * len(measured)) + measured).tolist()
        if progress.step % LOGGED_STEPS == 0:
            means = dict(zip(MEASURED, (np.array(progress.recent) / LOGGED_STEPS).tolist()))
            row = {
                "step": progress.step,
                **means,
                "normalised_mse": means["mse"] / self._variance,
                "learning_rate": learning_rate(self._config.training, progress.step, self._steps),
            }
            progress.steps.append(row)
            progress.recent = []
            self._log.step(row)

    def _evaluate(self, loader: Loader, indices: np.ndarray) -> tuple[Row, np.ndarray]:
        size = self._config.training.batch_size
        own = self._workers.share(indices)
        plan = [own[start : start + size] for start in range(0, len(own), size)]
        batches = loader.batches(plan, 0)
        return evaluate(self._learner.deployed(), batches, self._config, self._variance, self._workers.add_up)

    def _save(self, path: Path) -> None:
        if self._workers.rank == 0:
            self._log.flush()
            try:
                checkpoint.save(path, Checkpoint(self._config, self._data, self._progress, self._learner.state()))
            except ValueError as error:
                raise RuntimeFailure(path, f"{error}; it is as it was last written; lower --learning-rate") from error

    def _draw_grid(self, row: Row, is_best: bool) -> None:
        if self._workers.rank == 0:
            decoded = self._learner.deployed()(mx.nd.array(to_tensor(self._grid_images)))[0]
            grid = plots.pairs_grid(self._grid_images, to_images(to_pixels(mx.nd, decoded).asnumpy()))
            name = f"test_reconstruction_0_epoch{row['epoch']}_batch_size{self._config.training.batch_size}.png"
            self._log.grid(grid, name, row["step"], is_best)


def _check_images(train_images: ImageSet, test_images: ImageSet, workers: Alone) -> str:
    """The SHA-256 of the training images. All images are read once before the first step, so that none of them ends the
    run after an epoch.

    Raises:
        InputError: an image is damaged, or the workers have different ones.
    """
    sha256 = ""
    if workers.rank == 0:
        try:
            sha256 = train_images.fingerprint()
            test_images.fingerprint()
        except InputError:
            sets = (images for images in (train_images, test_images) if isinstance(images, FolderSet))
            refuse_damaged([file for images in sets for file in images.files])
            raise
    for name, images in (("training", train_images), ("test", test_images)):
        sample = _sample_hash(images) if workers.count > 1 else b""
        if workers.agree(sample) != sample:
            raise InputError(f"{name} data", "differs from that of the worker of rank 0; give all of them the same")
    return workers.agree(sha256.encode()).decode()


def _sample_hash(images: ImageSet) -> bytes:
    """Of how many images there are, and of some of them."""
    digest = hashlib.sha256(str(len(images)).encode())
    digest.update(images.read(_spread(len(images), _COMPARED_IMAGES)).tobytes())
    return digest.digest()


def hold_out(config: TrainingConfig, images: int, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the images that choose the best epoch, and, rising, of those to train on.

    Raises:
        InputError: those are too few for a batch, or the workers cannot share it.
    """
    if config.batch_size % workers:
        raise InputError("--batch-size", f"is {config.batch_size}, which {workers} workers cannot share")
    order = np.random.default_rng([config.seed, _HELD_OUT]).permutation(images)
    held_out, chosen = np.split(order, [min(config.validation_images, images)])
    if not len(chosen):
        why = f"is {config.validation_images} of {images} images, which leaves none to train on"
        raise InputError("--validation-images", f"{why}; lower it, or leave it out")
    if len(chosen) < config.batch_size:
        raise InputError(
            "training data",
            f"of {images} images {len(held_out)} are held out, and {len(chosen)} are left, fewer than a batch of "
            f"{config.batch_size}; lower --validation-images or --batch-size, or leave them out",
        )
    return held_out, np.sort(chosen)


def _check_same(path: Path, last: Checkpoint, config: Config, data: dict[str, str]) -> None:
    """Refuse to continue a run with other settings or images than it was begun with.

    Raises:
        InputError: they differ; it names each setting with both values.
    """
    _check_config(path, last.config, config)
    if last.data != data:
        digests = " and now ".join(one["sha256"][:12] for one in (last.data, data))
        raise InputError(path, f"was made on other training images: SHA-256 {digests}; give those, or another --output")


def _check_config(path: Path, last: Config, config: Config) -> None:
    changed = _differences(_comparable(last), _comparable(config))
    if changed:
        remedy = "repeat those (--resume with --output alone reads them), or give another --output"
        raise InputError(path, f"was made with other options: {', '.join(changed)}; {remedy}")


def _differences(before: Config, now: Config) -> list[str]:
    """The fields that differ between two configs, each with both values."""
    changed = []
    for part in ("model", "training"):
        old, new = (dataclasses.asdict(getattr(config, part)) for config in (before, now))
        changed += [f"{name} was {old[name]} and is {new[name]}" for name in old if old[name] != new[name]]
    return changed


def _comparable(config: Config) -> Config:
    """What must be equal for one run to go on with another: not its end, unless the learning rate depends on it, nor
    what mends a run that diverges."""
    training = dataclasses.replace(config.training, learning_rate=1.0, clip_norm=0.0)
    if training.schedule == "constant":
        training = dataclasses.replace(training, epochs=1)
    return Config(config.model, dataclasses.replace(training, patience=0))


def _check_shape(config: Config, images: ImageSet) -> None:
    height, width, channels = images.shape
    stride = config.model.stride
    if channels != config.model.image_channels:
        raise InputError(
            "data", f"has {channels} channels, the network {config.model.image_channels}; leave --image-channels out"
        )
    if height % stride or width % stride:
        remedy = "give fewer --hidden-channels, each of which halves the sides"
        raise InputError("data", f"is {width}x{height}; the network needs sides that {stride} divides; {remedy}")


def _spread(length: int, count: int) -> np.ndarray:
    """At most ``count`` of ``length`` indices, evenly spread and rising."""
    return np.linspace(0, length, min(count, length), endpoint=False).astype(int)


def pixel_variance(images: ImageSet, chosen: np.ndarray) -> float:
    """Variance of all values of the images to train on, taken as 0..1; of many images, of some of them.

    Args:
        chosen: their numbers.
    """
    indices = chosen[_spread(len(chosen), _VARIANCE_IMAGES)]
    parts = (images.read(indices[start : start + 1024]) for start in range(0, len(indices), 1024))
    counts = sum(np.bincount(part.ravel(), minlength=256) for part in parts)
    values, shares = np.arange(256) / 255, counts / np.sum(counts)
    mean = (values * shares).sum()
    return float(((values - mean) ** 2 * shares).sum())
