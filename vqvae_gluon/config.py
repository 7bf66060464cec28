"""What a run is made of: the network, its training, and the presets that name both."""

import dataclasses
from dataclasses import dataclass
from typing import Any


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
    reconstruction_weight: float = 784.0
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
            ValueError: a field is unknown, missing, of the wrong type or out of its range.
        """
        if not isinstance(values, dict) or values.keys() != {"model", "training"}:
            raise ValueError("the config has not the sections model and training")
        model = _fields(ModelConfig, values["model"])
        training = _fields(TrainingConfig, values["training"])
        if model["image_channels"] not in (1, 3):
            raise ValueError(f"image_channels is {model['image_channels']}, not 1 or 3")
        return cls(ModelConfig(**model), TrainingConfig(**training))


def _fields(kind: Any, values: Any) -> dict[str, Any]:
    """The fields of a dataclass from JSON: each there, of its type, and no number below zero."""
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    if not isinstance(values, dict) or values.keys() != defaults.keys():
        raise ValueError(f"the config's fields are not those of {kind.__name__}")
    return {name: _value(name, values[name], default) for name, default in defaults.items()}


def _value(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)) or not value:
            raise ValueError(f"{name} is no list")
        return tuple(_value(name, entry, default[0]) for entry in value)
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        raise ValueError(f"{name} is {value!r}, no {type(default).__name__}")
    if not isinstance(value, str) and not 0 <= value < 2**31:
        raise ValueError(f"{name} is {value!r}")
    if isinstance(value, int) and value == 0 and name != "seed":
        raise ValueError(f"{name} is 0")
    return value


PRESETS = {
    # The network and schedule of the project that raised the question: docs/architecture.md, "The mnist preset".
    "mnist": Config(ModelConfig(), TrainingConfig()),
}
