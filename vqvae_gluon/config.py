"""What a run is made of: the network, its training, and the presets that name both."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from vqvae_gluon.errors import InputError


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        image_channels: C, 1 (gray) or 3 (RGB).
        hidden_channels: width of every stride-2 layer of the encoder; the decoder mirrors them.
        embedding_dim: D, channels of the latent and length of a codebook row.
        num_embeddings: K, rows of the codebook.
        commitment_cost: beta of van den Oord et al. 2017, equation 3.
    """

    image_channels: int = 1
    hidden_channels: tuple[int, ...] = (32, 64)
    embedding_dim: int = 16
    num_embeddings: int = 64
    commitment_cost: float = 0.25

    @property
    def stride(self) -> int:
        """Pixels an image side has for each latent pixel."""
        return int(2 ** len(self.hidden_channels))


@dataclass(frozen=True)
class TrainingConfig:
    """How the network is trained.

    Attributes:
        data: name of the data set.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of Adam.
        reconstruction_weight: factor of the mean squared error, pixels taken as 0..1, beside the quantizer's losses.
            The number of values in an image makes it the squared error summed over the image.
        validation_images: held out of the training images, to choose the best epoch.
        seed: of the initial parameters and of the order of the images.
    """

    data: str = "mnist"
    epochs: int = 100
    batch_size: int = 500
    learning_rate: float = 1e-4
    reconstruction_weight: float = 28 * 28
    validation_images: int = 5000
    seed: int = 0


@dataclass(frozen=True)
class Config:
    """A network and its training."""

    model: ModelConfig
    training: TrainingConfig

    def to_json(self) -> dict[str, Any]:
        """The config as JSON-ready values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> "Config":
        """The config that :meth:`to_json` wrote.

        Raises:
            InputError: a field is unknown, missing or of the wrong type.
        """
        try:
            model = {**values["model"], "hidden_channels": tuple(values["model"]["hidden_channels"])}
            return cls(ModelConfig(**model), TrainingConfig(**values["training"]))
        except (KeyError, TypeError) as error:
            raise InputError("config", f"is not one of this version's: {error}") from error


PRESETS = {
    # The network and schedule of the project that raised the question: docs/architecture.md, "The mnist preset".
    "mnist": Config(ModelConfig(), TrainingConfig()),
}
