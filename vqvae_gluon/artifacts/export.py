"""A trained model as a bundle."""

import platform
from pathlib import Path
from typing import Any

import numpy as np

from vqvae_gluon import __version__
from vqvae_gluon.artifacts.bundle import Bundle, interface, write_bundle
from vqvae_gluon.compat import mx
from vqvae_gluon.config import Config
from vqvae_gluon.model.vqvae import VQVAE, CodesToImages, ImagesToCodes


def export_bundle(
    path: Path, config: Config, model: VQVAE, data: dict[str, str], epoch: int, metrics: dict[str, Any]
) -> Bundle:
    """Write the encoder and the decoder graph of a model with their parameters and the manifest.

    Args:
        path: directory of the bundle.
        data: name and SHA-256 of what it was trained on.
        epoch: how many epochs the model was trained for.
        metrics: what was measured of it, JSON-ready.

    Raises:
        InputError: the path is a file.
    """
    graphs = {
        "encoder": _export(ImagesToCodes(model), "data"),
        "decoder": _export(CodesToImages(model), "codes"),
    }
    description = {
        "config": config.to_json(),
        **interface(config.model),
        "data": data,
        "epoch": epoch,
        "metrics": metrics,
        "versions": {
            "vqvae_gluon": __version__,
            "mxnet": mx.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    return write_bundle(path, graphs, description)


def _export(block: mx.gluon.HybridBlock, input_name: str):
    # A fresh name manager: node names do not depend on what was traced before.
    with mx.name.NameManager():
        symbol = block(mx.sym.var(input_name))
    used = set(symbol.list_arguments())
    parameters = {f"arg:{name}": value.data() for name, value in block.collect_params().items() if name in used}
    return symbol, parameters
