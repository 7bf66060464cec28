"""Settings that a user left to the preset, as the data set wants them. A preset is made for a data set of its own."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from vqvae_gluon.config import Config, RunConfig, TrainingConfig
from vqvae_gluon.data.imageset import ImageSet
from vqvae_gluon.data.sets import open_splits

# What the data set decides, unless the user does.
ADAPTED = {"model": ("image_channels",), "training": ("image_size", "validation_images", "batch_size", "steps")}
_HELD_OUT = 10  # At most one image of so many chooses the best epoch.
_STEPS = 8  # An epoch has at least so many, where there are images for them.


class Prepared(NamedTuple):
    """What a run is made of.

    Attributes:
        config: with what the data set decided.
        train_images, test_images: of the data set.
        notes: what was decided, a line each.
    """

    config: Config
    train_images: ImageSet
    test_images: ImageSet
    notes: list[str]


def prepare(config: Config, run: RunConfig, given: frozenset[str], workers: int) -> Prepared:
    """Open a run's data set, and adapt to it what the user did not set.

    Args:
        given: fields that the user set, as ``section.field``.
        workers: that share each batch.

    Raises:
        InputError: an image is missing or damaged, or there are none.
        RuntimeFailure: the data set could not be fetched.
    """
    channels = config.model.image_channels if "model.image_channels" in given else None
    directory = Path(run.data_directory) if run.data_directory else None
    training = config.training
    train_images, test_images, size, notes = open_splits(
        training.data, channels, directory, training.image_size, config.model.stride
    )
    channels = train_images.shape[2]
    if channels != config.model.image_channels:
        notes.append(
            f"image_channels is {channels}, not the preset's {config.model.image_channels}: the images have as many"
        )
    model = dataclasses.replace(config.model, image_channels=channels)
    config, changes = adapt(
        Config(model, dataclasses.replace(training, image_size=size)), given, len(train_images), workers
    )
    return Prepared(config, train_images, test_images, [*notes, *changes])


def adapt(config: Config, given: frozenset[str], images: int, workers: int) -> tuple[Config, list[str]]:
    """The settings for a data set of so many training images, and what was changed of them, a line each.

    Args:
        given: fields that stay as they are.
        workers: what must divide the batch.
    """
    training, notes = config.training, []

    def change(name: str, value: int, why: str) -> TrainingConfig:
        notes.append(f"{name} is {value}, not the preset's {getattr(training, name)}: {why}")
        values: dict[str, Any] = {name: value}
        return dataclasses.replace(training, **values)

    most = max(1, images // _HELD_OUT)
    if "training.validation_images" not in given and training.validation_images > most:
        training = change("validation_images", most, f"there are {images} training images")
    left = max(0, images - training.validation_images)
    if "training.batch_size" not in given and left < _STEPS * training.batch_size:
        batch = max(1, left // _STEPS // workers) * workers
        if batch < training.batch_size:
            training = change("batch_size", batch, f"an epoch has {left} images")
    steps = training.epochs * (left // training.batch_size)
    if not given & {"training.steps", "training.epochs"} and 0 < steps < training.steps:
        training = change("steps", steps, f"they are {training.epochs} epochs; --epochs or --steps set others")
    return Config(config.model, training), notes
