"""A bundle in PyTorch: eager, with channels last, or compiled, with channels last, too, which is faster here."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqvae_gluon.bench.layers import STAGES
from vqvae_gluon.bench.serve import Served
from vqvae_gluon.bench.torch_model import build


def serve(job: dict[str, Any]) -> Served:
    """Args: job: ``bundle``, ``inputs``, .npy files, and ``way``: torch, torch-channels-last or torch-compile."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_grad_enabled(False)
    layout = torch.contiguous_format if job["way"] == "torch" else torch.channels_last
    graphs: list[Any] = [build(Path(job["bundle"]), stage).to(memory_format=layout) for stage in STAGES]
    if job["way"] == "torch-compile":
        graphs = [torch.compile(graph, dynamic=False) for graph in graphs]
    encoder, decoder = graphs

    def encode(images: np.ndarray) -> torch.Tensor:
        return encoder(torch.from_numpy(images).contiguous(memory_format=layout))

    def reconstruct(images: np.ndarray) -> np.ndarray:
        return decoder(encode(images)).contiguous().numpy()

    return Served(
        reconstruct,
        [np.load(path) for path in job["inputs"]],
        lambda images: encode(images).numpy(),
    )
