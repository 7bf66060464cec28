"""What a run is made of: the network, its training, and the presets that name both."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

# Of a field that bundles and checkpoints from before it came do not hold; they mean its default.
_LATER = {"later": True}
# More than any network that is of use, and as much as a machine may have memory for: a number in a file allocates
# nothing. "most" and "longest" of a field bound its value or each of its values, and how many of them there are.
_MAX_PARAMETERS = 2**28
_WIDTH = {"most": 2**16}


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        image_channels: C, 1 (gray) or 3 (RGB); if it is not given, what the data set has.
        hidden_channels: width of every stride-2 layer of the encoder; the decoder mirrors them.
        residual_blocks: residual blocks in the encoder and in the decoder; 0: none.
        residual_channels: hidden channels of such a block.
        embedding_dim: D, channels of the latent and length of a codebook row.
        num_embeddings: K, rows of the codebook.
        commitment_cost: beta of van den Oord et al. 2017, equation 3.
        quantizer: how the codebook learns: codebook-loss (its equation 3), or ema, a moving average (its appendix A.1).
        decay: decay of the moving average (ema).
        epsilon: of its Laplace smoothing.
        restart_below: a row that is used less often than so many times the average row restarts at a latent of the
            batch; 0 for never.
        cosine: whether latents and rows are compared by their direction alone.
    """

    image_channels: int = 1
    hidden_channels: tuple[int, ...] = field(default=(32, 64), metadata={**_WIDTH, "longest": 16})
    embedding_dim: int = field(default=16, metadata=_WIDTH)
    num_embeddings: int = field(default=64, metadata={"most": 2**24})
    commitment_cost: float = 0.25
    residual_blocks: int = field(default=0, metadata={**_LATER, "most": 256})
    residual_channels: int = field(default=0, metadata={**_LATER, **_WIDTH})
    quantizer: str = field(default="codebook-loss", metadata={**_LATER, "choices": ("codebook-loss", "ema")})
    decay: float = field(default=0.99, metadata=_LATER)
    epsilon: float = field(default=1e-5, metadata=_LATER)
    restart_below: float = field(default=0.0, metadata=_LATER)
    cosine: bool = field(default=False, metadata=_LATER)

    @property
    def stride(self) -> int:
        """Pixels an image side has for each latent pixel."""
        return int(2 ** len(self.hidden_channels))

    @property
    def parameters(self) -> int:
        """How many numbers the network learns (model/vqvae.py), its codebook among them."""
        last, blocks, dim = self.hidden_channels[-1], self.residual_blocks, self.embedding_dim
        layers = [(last, dim, 1)]  # Of each: channels it takes, channels it gives, and the area of its kernel.
        widths = [self.image_channels, *self.hidden_channels]
        layers += [(*pair, 16 if blocks else 9) for pair in zip(widths, widths[1:])]
        if blocks:
            layers += [(last, last, 9), (dim, last, 9)]
            layers += [(last, self.residual_channels, 9), (self.residual_channels, last, 1)] * (2 * blocks)
            widths = [*self.hidden_channels[::-1], self.image_channels]
        else:
            layers += [(self.hidden_channels[0], self.image_channels, 9)]
            widths = [dim, *self.hidden_channels[::-1]]
        layers += [(*pair, 16) for pair in zip(widths, widths[1:])]
        return self.num_embeddings * dim + sum((takes * area + 1) * gives for takes, gives, area in layers)


@dataclass(frozen=True)
class TrainingConfig:
    """How the network is trained. What is here decides the result, to the last bit.

    Attributes:
        data: name of the data set.
        epochs: passes over the training images.
        steps: end after so many, in the midst of an epoch; 0: after the last epoch. Those of a preset are left out
            where epochs are given, and where a small data set would need more than the preset's epochs for them.
        batch_size: images a step, on all machines together; if it is not given, fewer than the preset's where an epoch
            would have less than 8 steps.
        learning_rate: of Adam, the highest.
        schedule: of the learning rate: constant, or after a time falling to 0 along a line or a cosine.
        warmup_steps: that the learning rate takes to rise from 0.
        decay_steps: that it takes to fall, the last ones; 0: all after the warm-up.
        clip_norm: gradients whose norm, of all parameters together, is above it are scaled down to it; 0: never.
        reconstruction_weight: factor of the mean squared error, pixels taken as 0..1, beside the quantizer's losses.
            The number of values in an image makes it the squared error summed over the image, 1 / the pixels' variance
            a share of that.
        validation_images: held out of the training images, to choose the best epoch; if it is not given, at most a
            tenth of them.
        patience: end after so many epochs without a lower mean squared error on the validation images; 0: never.
        mean_start: whether the untrained network gives pixels of the mean of the training images. Where most pixels are
            black, a network that has to find that out first may saturate and never see more.
        kmeans_images: training images whose latents are clustered for the first codebook; 0: it starts at random.
        flip: whether an image is turned left to right half of the times.
        shift: pixels by which an image is moved at most, at random.
        image_size: of pictures of your own, the side of the square that each is cut and resized to; 0: as they are if
            they have one size, else the shortest side that is found, at most 128.
        seed: of the initial parameters, the order of the images and all else that is random.
    """

    data: str = "mnist"
    epochs: int = 100
    batch_size: int = 500
    learning_rate: float = 1e-4
    reconstruction_weight: float = 784.0
    validation_images: int = 5000
    seed: int = 0
    steps: int = field(default=0, metadata=_LATER)
    schedule: str = field(default="constant", metadata={**_LATER, "choices": ("constant", "linear", "cosine")})
    warmup_steps: int = field(default=0, metadata=_LATER)
    decay_steps: int = field(default=0, metadata=_LATER)
    clip_norm: float = field(default=0.0, metadata=_LATER)
    patience: int = field(default=0, metadata=_LATER)
    mean_start: bool = field(default=False, metadata=_LATER)
    kmeans_images: int = field(default=0, metadata=_LATER)
    flip: bool = field(default=False, metadata=_LATER)
    shift: int = field(default=0, metadata=_LATER)
    image_size: int = field(default=0, metadata={**_LATER, "most": 2**14})


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
        if not training["data"].isprintable():  # A manifest could not hold half of a surrogate pair.
            raise ValueError(f"data is {shown(training['data'])}, no data set's name")
        if model["image_channels"] not in (1, 3):
            raise ValueError(f"image_channels is {model['image_channels']}, not 1 or 3")
        if bool(model["residual_blocks"]) != bool(model["residual_channels"]):
            raise ValueError("of residual_blocks and residual_channels one is 0 and the other is not")
        if model["decay"] >= 1:
            raise ValueError(f"decay is {model['decay']}, not below 1")
        if model["restart_below"] >= 1:
            raise ValueError(f"restart_below is {model['restart_below']}, not below 1")
        if model["quantizer"] == "ema" and not model["epsilon"]:
            raise ValueError("epsilon is 0; it is what a row that is never used divides by")
        if training["decay_steps"] and training["schedule"] == "constant":
            raise ValueError("decay_steps is for a schedule that falls")
        if model["restart_below"] and model["quantizer"] != "ema":
            raise ValueError("restart_below is for the quantizer ema alone")
        config = cls(ModelConfig(**model), TrainingConfig(**training))
        if config.model.parameters > _MAX_PARAMETERS:
            count = config.model.parameters
            raise ValueError(f"the network would have {count} parameters, more than {_MAX_PARAMETERS}; make it smaller")
        size, stride = config.training.image_size, config.model.stride
        if size % stride:
            fitting = max(1, size // stride) * stride
            why = f"image_size is {size}, which the network's stride of {stride} does not divide"
            raise ValueError(f"{why}; give {fitting} or {fitting + stride}")
        return config


@dataclass(frozen=True)
class RunConfig:
    """How a training run is carried out. Nothing here changes its result, but for rounding.

    Attributes:
        output: the run's directory; empty: runs/PRESET.
        data_directory: where the data set is; empty: it is fetched, if it can be.
        num_workers: processes that read and augment images ahead; 0: this one does.
        checkpoint_steps: a checkpoint is written after so many steps, and after every epoch.
        operators: that train the convolutions: this project's own (fused) or MXNet's (mxnet); auto: its own, where the
            processor has AMX and they are built. They differ in rounding alone: docs/training.md.
        kvstore: MXNet's, through which several machines train together: dist_sync; empty: one machine.
    """

    output: str = ""
    data_directory: str = ""
    num_workers: int = field(default=0, metadata={"most": 1024})
    checkpoint_steps: int = 500
    operators: str = field(default="auto", metadata={"choices": ("auto", "fused", "mxnet")})
    kvstore: str = field(default="", metadata={"choices": ("", "dist_sync")})


def _fields(kind: Any, values: Any) -> dict[str, Any]:
    """The fields of a dataclass from JSON: each there but for those that came later, and sound."""
    entries = {entry.name: entry for entry in dataclasses.fields(kind)}
    later = {name for name, entry in entries.items() if "later" in entry.metadata}
    if not isinstance(values, dict) or not entries.keys() - later <= values.keys() <= entries.keys():
        raise ValueError(f"the config's fields are not those of {kind.__name__}")
    return {name: check_field(entry, values.get(name, entry.default)) for name, entry in entries.items()}


def check_field(entry: dataclasses.Field, value: Any) -> Any:
    """The value of a dataclass' field, of its default's type, one of its choices, and no number below zero.

    Raises:
        ValueError: it is not.
    """
    value = _value(entry, value, entry.default)
    choices = entry.metadata.get("choices", [value])
    if value not in choices:
        raise ValueError(f"{entry.name} is {shown(value)}; it may be {' or '.join(map(repr, choices))}")
    return value


def _value(entry: dataclasses.Field, value: Any, default: Any) -> Any:
    name = entry.name
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)) or not value:
            raise ValueError(f"{name} is no list")
        longest = entry.metadata["longest"]
        if len(value) > longest:
            raise ValueError(f"{name} has {len(value)} values, more than {longest}")
        return tuple(_value(entry, one, default[0]) for one in value)
    if isinstance(default, float) and type(value) is int and abs(value) < 2**63:
        value = float(value)
    if type(value) is not type(default):
        raise ValueError(f"{name} is {shown(value)}, no {type(default).__name__}")
    if not isinstance(value, str) and not 0 <= value < (math.inf if isinstance(value, float) else 2**31):
        raise ValueError(f"{name} is {shown(value)}")
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"{name} is {shown(value)}, which no file's name can be")
    most = entry.metadata.get("most", value)
    if value > most:
        raise ValueError(f"{name} is {value}, more than {most}")
    if isinstance(value, int) and value == 0 and default != 0:
        raise ValueError(f"{name} is 0")
    return value


def shown(value: Any) -> str:
    """A value as messages tell it: the first of many characters."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


_CIFAR10_VARIANCE = 0.06327  # of the training pixels, taken as 0..1

_CIFAR10 = ModelConfig(
    image_channels=3,
    hidden_channels=(64, 128),
    embedding_dim=64,
    num_embeddings=512,
    residual_blocks=2,
    residual_channels=32,
    quantizer="ema",
)

PRESETS = {
    # The network of the project that raised the question, trained as is done today.
    "mnist": Config(
        ModelConfig(quantizer="ema", restart_below=0.05),
        TrainingConfig(
            learning_rate=1e-3,
            schedule="cosine",
            reconstruction_weight=1.0,
            mean_start=True,
            kmeans_images=1000,
        ),
    ),
    # The same network and that project's schedule: docs/architecture.md, "The mnist presets".
    "mnist-original": Config(ModelConfig(), TrainingConfig()),
    # The network of van den Oord et al. 2017, section 4.1, at its best: docs/architecture.md, "The cifar10 presets".
    "cifar10": Config(
        dataclasses.replace(_CIFAR10, restart_below=0.05),
        TrainingConfig(
            data="cifar10",
            steps=40000,
            batch_size=32,
            learning_rate=1e-3,
            schedule="cosine",
            reconstruction_weight=round(1 / _CIFAR10_VARIANCE, 1),
        ),
    ),
    # The same network with the settings of Sonnet's example.
    "cifar10-sonnet": Config(
        _CIFAR10,
        TrainingConfig(
            data="cifar10",
            steps=10000,
            batch_size=32,
            learning_rate=3e-4,
            reconstruction_weight=round(1 / _CIFAR10_VARIANCE, 1),
        ),
    ),
}
