"""The product of two square matrices: what the processor can do at most with numbers of a kind."""

import os
from typing import Any

import numpy as np

from vqvae_gluon.bench.serve import Served


def serve(job: dict[str, Any]) -> Served:
    """Args: job: ``side`` of the matrices, ``precision``, and ``library``: torch or numpy."""
    side, precision = job["side"], job["precision"]
    left, right = np.random.default_rng(0).random((2, side, side), np.float32)
    if job["library"] == "numpy":
        return Served(lambda _: left @ right, [None])
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}[precision]
    a, b = (torch.from_numpy(matrix * 100).to(kind) for matrix in (left, right))
    product: Any = torch._int_mm if precision == "int8" else torch.mm
    return Served(lambda _: product(a, b), [None])
