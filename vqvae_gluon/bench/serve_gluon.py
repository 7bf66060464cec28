"""A bundle in Gluon, as its users run it: hybridized blocks of the exported files, arrays of NumPy in and out."""

from pathlib import Path
from typing import Any

import numpy as np

from vqvae_gluon.artifacts.bundle import graph_files
from vqvae_gluon.bench.layers import STAGES
from vqvae_gluon.bench.serve import Served
from vqvae_gluon.compat import mx


def serve(job: dict[str, Any]) -> Served:
    """Args: job: ``bundle``, and ``inputs``, .npy files."""
    blocks = []
    for stage, name in STAGES.items():
        files = graph_files(Path(job["bundle"]), stage)
        block = mx.gluon.SymbolBlock.imports(str(files.symbol), [name], str(files.params))
        block.hybridize(static_alloc=True, static_shape=True)
        blocks.append(block)
    encoder, decoder = blocks
    return Served(
        lambda images: decoder(encoder(mx.nd.array(images))).asnumpy(),
        [np.load(path) for path in job["inputs"]],
        lambda images: encoder(mx.nd.array(images)).asnumpy(),
    )
