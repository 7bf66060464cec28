"""k-means, for the first codebook."""

import numpy as np

_ROUNDS = 25


def kmeans(rows: np.ndarray, count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lloyd's algorithm from a start by k-means++ (Arthur and Vassilvitskii 2007).

    Args:
        rows: float32 (n, D), at least ``count`` of them.
        count: K.

    Returns:
        Centres float32 (K, D), and for each how many rows are nearest to it (K,).
    """
    centres = _spread(rows, count, random)
    for _ in range(_ROUNDS):
        nearest = _nearest(rows, centres)
        order = np.argsort(nearest, kind="stable")
        used, begins, sizes = np.unique(nearest[order], return_index=True, return_counts=True)
        centres[used] = np.add.reduceat(rows[order], begins, axis=0) / sizes[:, None]
    return centres, np.bincount(_nearest(rows, centres), minlength=count)


def _spread(rows: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Rows that lie apart: each is drawn with a chance in proportion to its squared distance to those before it."""
    chosen = [int(random.integers(len(rows)))]
    distances = np.full(len(rows), np.inf)
    for _ in range(count - 1):
        distances = np.minimum(distances, np.square(rows - rows[chosen[-1]]).sum(axis=1, dtype=np.float64))
        total = distances.sum()
        shares = distances / total if total > 0 else None  # Of equal rows any will do.
        chosen.append(int(random.choice(len(rows), p=shares)))
    return rows[chosen]


def _nearest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.argmin(np.square(centres).sum(axis=1) - 2 * (rows @ centres.T), axis=1)
