"""One file for everything a run needs to go on: parameters, Adam's moments, the history."""

import dataclasses
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqvae_gluon.compat import mx
from vqvae_gluon.config import Config
from vqvae_gluon.errors import InputError
from vqvae_gluon.files import atomic_write
from vqvae_gluon.model.vqvae import VQVAE

_MOMENTS = ("mean", "variance")  # Adam's, in the order of MXNet's state.

History = list[dict[str, Any]]


@dataclass(frozen=True)
class Provenance:
    """Where a checkpoint comes from.

    Attributes:
        config: network and schedule.
        data: name and SHA-256 of the training images.
        history: a row of measurements for every epoch; the last one is the epoch it was taken after.
    """

    config: Config
    data: dict[str, str]
    history: History


def save(path: Path, provenance: Provenance, model: VQVAE, trainer: mx.gluon.Trainer) -> None:
    """Write a checkpoint, whole or not at all."""
    arrays = {f"model/{name}": parameter.data().asnumpy() for name, parameter in model.collect_params().items()}
    for index, moments in trainer._updaters[0].states.items():
        for which, moment in zip(_MOMENTS, moments):
            arrays[f"adam/{index}/{which}"] = moment.asnumpy()
    header = {
        "config": provenance.config.to_json(),
        "data": provenance.data,
        "history": provenance.history,
        "steps": trainer._optimizer.num_update,
    }
    with atomic_write(path) as file:
        np.savez(file, checkpoint=np.array(json.dumps(header)), **arrays)


def load(path: Path) -> tuple[Provenance, VQVAE]:
    """Read a checkpoint for use.

    Raises:
        InputError: the file is missing or is no checkpoint of this version.
    """
    arrays, header = _read(path)
    model = VQVAE(header["config"].model)
    model.initialize()
    _set_parameters(path, model, arrays)
    return Provenance(header["config"], header["data"], header["history"]), model


def resume(path: Path, wanted: Provenance, model: VQVAE, trainer: mx.gluon.Trainer) -> History:
    """Put a model and its trainer back to where a checkpoint was taken.

    Returns:
        The history until then.

    Raises:
        InputError: the checkpoint is unreadable, or was made with another config (only ``epochs`` may differ) or on
            other data than wanted.
    """
    arrays, header = _read(path)
    was = header["config"]
    schedule = dataclasses.replace(was.training, epochs=wanted.config.training.epochs)
    if (Config(was.model, schedule), header["data"]) != (wanted.config, wanted.data):
        raise InputError(path, "was made with other options or on other data; repeat those, or give another --output")
    _set_parameters(path, model, arrays)
    updater = trainer._updaters[0]
    for index in range(len(model.collect_params().keys())):
        updater.states[index] = tuple(mx.nd.array(arrays[f"adam/{index}/{which}"]) for which in _MOMENTS)
        updater.states_synced[index] = True
        trainer._optimizer._index_update_count[index] = header["steps"]
    trainer._optimizer.num_update = header["steps"]
    return header["history"]


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive.items())
        header = json.loads(str(arrays.pop("checkpoint")))
        header["config"] = Config.from_json(header["config"])
        return arrays, {key: header[key] for key in ("config", "data", "history", "steps")}
    except FileNotFoundError as error:
        raise InputError(path, "does not exist; give a directory that 'vqvae-gluon train' wrote") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(path, f"is not a checkpoint of this version ({error})") from error


def _set_parameters(path: Path, model: VQVAE, arrays: dict[str, np.ndarray]) -> None:
    for name, parameter in model.collect_params().items():
        value = arrays.get(f"model/{name}")
        if value is None or value.shape != parameter.shape:
            raise InputError(path, f"does not hold {name} of shape {parameter.shape}")
        parameter.set_data(mx.nd.array(value))
