"""The machines, or processes, that share a run: one, until :mod:`vqvae_gluon.training.cluster` finds more."""

from typing import Any

import numpy as np


class Alone:
    """One process that does everything.

    Attributes:
        rank: of this process, from 0 on. That of rank 0 writes.
        count: of processes.
        store: MXNet's kvstore, which sums gradients, or None.
    """

    rank = 0
    count = 1
    store: Any = None

    def share(self, indices: np.ndarray) -> np.ndarray:
        """This process's part of what all do together."""
        return np.array_split(indices, self.count)[self.rank]

    def add_up(self, vector: np.ndarray) -> np.ndarray:
        """The sum over all processes; each gives a vector of the same length."""
        return vector

    def agree(self, data: bytes) -> bytes:
        """What rank 0 gives."""
        return data
