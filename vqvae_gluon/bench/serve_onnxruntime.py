"""A bundle in ONNX Runtime: one graph, which ``onnx_model.py`` wrote."""

import os
from typing import Any

import numpy as np
import onnxruntime

from vqvae_gluon.bench.serve import Served


def serve(job: dict[str, Any]) -> Served:
    """Args: job: ``model``, an .onnx file, and ``inputs``, .npy files."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
    (images,), (codes, result) = session.get_inputs(), session.get_outputs()
    return Served(
        lambda values: session.run([result.name], {images.name: values})[0],
        [np.load(path) for path in job["inputs"]],
        lambda values: session.run([codes.name], {images.name: values})[0],
    )
