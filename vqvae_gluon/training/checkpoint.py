"""One file for everything a run needs to go on: parameters, Adam's moments, the codebook's averages, where in the data
it is, what was measured. What is random is drawn from the seed and the number of the epoch or step, so that there is no
other state."""

import json
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Union

import numpy as np

from vqvae_gluon.config import Config
from vqvae_gluon.errors import InputError
from vqvae_gluon.files import atomic_write
from vqvae_gluon.model.vqvae import VQVAE
from vqvae_gluon.training.learner import set_parameters

Row = dict[str, Any]


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epoch: whole epochs that are done.
        position: steps of the next one that are done.
        step: steps that are done, of all epochs.
        sums: of the losses of these steps of the next epoch, of their perplexities and of their restarts.
        counts: how often they used each code.
        recent: sums of what steps measured since the last row of ``steps``.
        seconds: that the next epoch has taken.
        history: a row of measurements for every epoch.
        steps: a row for every hundred steps.
    """

    epoch: int = 0
    position: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    seconds: float = 0.0
    history: list[Row] = field(default_factory=list)
    steps: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        config: network and schedule.
        data: name and SHA-256 of the training images.
        progress: how far the run had come.
        arrays: the learner's state.
    """

    config: Config
    data: dict[str, str]
    progress: Progress
    arrays: dict[str, np.ndarray]

    def model(self) -> VQVAE:
        """The network."""
        model = VQVAE(self.config.model)
        model.initialize()
        set_parameters(model, self.arrays)
        return model


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        ValueError: a value is not finite; what the file held is left.
    """
    for name, array in checkpoint.arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite")
    header = {
        "config": checkpoint.config.to_json(),
        "data": checkpoint.data,
        "progress": asdict(checkpoint.progress),
    }
    with atomic_write(path) as file:
        np.savez(file, checkpoint=np.array(json.dumps(header)), **checkpoint.arrays)


def load(path: Path, source: Union[Path, IO[bytes], None] = None) -> Checkpoint:
    """Read a checkpoint.

    Args:
        source: where its bytes are, if not in the file.

    Raises:
        InputError: the file is missing or is no checkpoint of this version.
    """
    try:
        with np.load(source or path, allow_pickle=False) as archive:
            arrays = dict(archive.items())
        header = json.loads(str(arrays.pop("checkpoint")))
        checkpoint = Checkpoint(
            Config.from_json(header["config"]), header["data"], Progress(**header["progress"]), arrays
        )
        checkpoint.model()
        return checkpoint
    except FileNotFoundError as error:
        raise InputError(path, "does not exist; give a directory that 'vqvae-gluon train' wrote") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(path, f"is not a checkpoint of this version ({error}); train anew") from error
