"""Pictures of a run."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from vqvae_gluon.files import atomic_write


def best_of(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The epoch with the lowest reconstruction loss on the validation images, the first of equal ones.

    Not that of the lowest sum of all losses: the commitment loss grows with the latents, whose length nothing bounds.
    """
    return min(history, key=lambda row: row["validation_mse"])


def loss_graph(path: Path, history: list[dict[str, Any]]) -> None:
    """Loss and reconstruction error by epoch on training, validation and test images, the best epoch marked."""
    figure = Figure(figsize=(14, 4.5), layout="constrained")
    epochs = [row["epoch"] for row in history]
    best = best_of(history)
    titles = {
        "loss": (
            "loss",
            "loss = reconstruction_weight · mean squared error\n+ codebook loss + commitment_cost · commitment loss",
        ),
        "mse": ("mean squared error", "mean squared error of the reconstruction, pixels as 0..1"),
    }
    for axes, (name, (label, title)) in zip(figure.subplots(1, len(titles)), titles.items()):
        for part, images in (("train", "training"), ("validation", "validation"), ("test", "test")):
            values = np.array([row[f"{part}_{name}"] for row in history], dtype=float)
            axes.plot(epochs, np.where(values > 0, values, np.nan), marker=".", label=f"{images} images")
        axes.axvline(best["epoch"], color="gray", linestyle=":", label=f"best epoch: {best['epoch']}")
        axes.set(xlabel="epoch", ylabel=label, yscale="log")
        axes.set_title(title, fontsize="medium")
        axes.grid(alpha=0.3)
        whole_epochs(axes)
        plain_log(axes.yaxis)
    legend_beside(figure, axes)
    _save(figure, path)


def whole_epochs(axes) -> None:
    """Tick an axis of epochs at whole numbers alone."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def plain_log(axis) -> None:
    """Label a logarithmic axis with plain numbers, after its curves are drawn: round ones where it spans less than a
    factor of 10, else 1, 2 and 5 of each power."""
    low, high = axis.get_view_interval()
    narrow = high < 10 * low
    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]) if narrow else LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def legend_beside(figure: Figure, axes, **words) -> None:
    """Name the curves of axes to the right of all pictures, where no curve is."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", **words)


def codebook_usage(path: Path, counts: np.ndarray, history: list[dict[str, Any]]) -> None:
    """How often each code was used, the most frequent first, and the perplexity by epoch.

    Args:
        counts: (K,), on the test images after the last epoch.
    """
    figure = Figure(figsize=(14, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.bar(np.arange(len(counts)), np.sort(counts)[::-1] / counts.sum(), width=1.0)
    used = int((counts > 0).sum())
    left.axhline(1 / len(counts), color="gray", linestyle=":")
    left.set(
        xlabel="codes, by use",
        ylabel="share of the test latents",
        title=f"{used} of {len(counts)} codes are used; dotted: 1 / {len(counts)}",
    )
    epochs = [row["epoch"] for row in history]
    for key, label in (
        ("test_perplexity", "test images"),
        ("train_perplexity", "training images"),
        ("train_batch_perplexity", "training images,\nmean of the batches"),
    ):
        right.plot(epochs, [row[key] for row in history], marker=".", label=label)
    right.set(xlabel="epoch", ylabel="perplexity")
    right.grid(alpha=0.3)
    whole_epochs(right)
    legend_beside(figure, right)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
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
