"""What a run is made of: the network, its training, and the presets that name both."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

# Of a field that bundles and checkpoints from before it came do not hold; they mean its default.
_LATER = {"later": True}


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        image_channels: C, 1 (gray) or 3 (RGB).
        hidden_channels: width of every stride-2 layer of the encoder; the decoder mirrors them.
        residual_blocks: of each half, 0 for a plain network: docs/architecture.md, "The cifar10 preset".
        residual_channels: hidden channels of such a block.
        embedding_dim: D, channels of the latent and length of a codebook row.
        num_embeddings: K, rows of the codebook.
        commitment_cost: beta of van den Oord et al. 2017, equation 3.
    """

    image_channels: int = 1
    hidden_channels: tuple[int, ...] = (32, 64)
    embedding_dim: int = 16
    num_embeddings: int = 64
    commitment_cost: float = 0.25
    residual_blocks: int = field(default=0, metadata=_LATER)
    residual_channels: int = field(default=0, metadata=_LATER)

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
        if bool(model["residual_blocks"]) != bool(model["residual_channels"]):
            raise ValueError("of residual_blocks and residual_channels one is 0 and the other is not")
        return cls(ModelConfig(**model), TrainingConfig(**training))


def _fields(kind: Any, values: Any) -> dict[str, Any]:
    """The fields of a dataclass from JSON: each there but for those that came later, of its type, and no number below
    zero."""
    defaults = {entry.name: entry.default for entry in dataclasses.fields(kind)}
    later = {entry.name for entry in dataclasses.fields(kind) if entry.metadata == _LATER}
    if not isinstance(values, dict) or not defaults.keys() - later <= values.keys() <= defaults.keys():
        raise ValueError(f"the config's fields are not those of {kind.__name__}")
    return {name: _value(name, values.get(name, default), default) for name, default in defaults.items()}


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
    if isinstance(value, int) and value == 0 and default != 0:
        raise ValueError(f"{name} is 0")
    return value


PRESETS = {
    # The network and schedule of the project that raised the question: docs/architecture.md, "The mnist preset".
    "mnist": Config(ModelConfig(), TrainingConfig()),
    # The network of van den Oord et al. 2017, section 4.1, with the numbers of Sonnet's example for CIFAR-10.
    "cifar10": Config(
        ModelConfig(
            image_channels=3,
            hidden_channels=(64, 128),
            embedding_dim=64,
            num_embeddings=512,
            residual_blocks=2,
            residual_channels=32,
        ),
        # The weight is 1 / the variance of CIFAR-10's pixels, which makes the error a share of it.
        TrainingConfig(data="images", epochs=20, batch_size=32, learning_rate=3e-4, reconstruction_weight=15.8),
    ),
}
