"""A bundle in ONNX Runtime; ``onnx_model.py`` wrote its two models."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from vqvae_gluon.bench.layers import STAGES
from vqvae_gluon.bench.serve import Served


def onnxruntime_session(path: Path):
    options = onnxruntime.SessionOptions()
    # Each of the two sessions has threads of its own: waiting in loops, they would take the processors from each other.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def serve(job: dict[str, Any]) -> Served:
    """Args: job: ``models``, their directory, and ``inputs``, .npy files."""
    encoder, decoder = (onnxruntime_session(Path(job["models"]) / f"{stage}.onnx") for stage in STAGES)

    def encode(images: np.ndarray) -> np.ndarray:
        return encoder.run(None, {STAGES["encoder"]: images})[0]

    def decode(codes: np.ndarray) -> np.ndarray:
        return decoder.run(None, {STAGES["decoder"]: codes})[0]

    return Served(lambda images: decode(encode(images)), [np.load(path) for path in job["inputs"]], encode, decode)
