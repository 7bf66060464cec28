"""Pictures of a run."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vqvae_gluon.files import atomic_write


def loss_graph(path: Path, history: list[dict[str, Any]]) -> None:
    """Reconstruction error by epoch on training, validation and test images, the best epoch marked."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    epochs = [row["epoch"] for row in history]
    for key, label in (("train_mse", "training"), ("validation_mse", "validation"), ("test_mse", "test")):
        axes.plot(epochs, [row[key] for row in history], marker=".", label=label)
    best = min(history, key=lambda row: row["validation_mse"])
    axes.axvline(best["epoch"], color="gray", linestyle=":", label=f"best epoch: {best['epoch']}")
    axes.set(xlabel="epoch", ylabel="mean squared error, pixels as 0..1", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=100)


def pairs_grid(originals: np.ndarray, reconstructions: np.ndarray, columns: int = 16, gap: int = 2) -> np.ndarray:
    """Rows of originals, each with the row of its reconstructions below it.

    Args:
        originals, reconstructions: uint8 (N, H, W, C); N is cut to whole rows, unless it is less than one.

    Returns:
        uint8 (height, width, C).
    """
    columns = min(columns, len(originals))
    rows = [
        _row(images[start : start + columns], gap)
        for start in range(0, len(originals) - columns + 1, columns)
        for images in (originals, reconstructions)
    ]
    return np.concatenate(rows)


def _row(images: np.ndarray, gap: int) -> np.ndarray:
    padded = np.pad(images, ((0, 0), (gap, gap), (gap, gap), (0, 0)), constant_values=128)
    return np.concatenate(list(padded), axis=1)
