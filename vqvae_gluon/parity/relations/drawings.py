"""The question about drawings: how a picture was made of a tensor."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Optional

import numpy as np

from vqvae_gluon.parity.relations.images import relate_images
from vqvae_gluon.parity.relations.places import PROBE, Move, image_moves, through, written
from vqvae_gluon.parity.relations.relation import Relation, comparable, finite, rms, straight_line
from vqvae_gluon.parity.relations.values import line_in_words

_DRAWN = [
    (255.0, 0.0, "scaled by 255"),
    (1 / 255, 0.0, "divided by 255"),
    (127.5, 127.5, "127.5 * e + 127.5"),
    (-125.5, 251.0, "(2 - e) * 125.5"),
    (-1.0, 255.0, "inverted: 255 - e"),
    (-255.0, 255.0, "inverted: 255 * (1 - e)"),
]


def relate_drawing(tensor: np.ndarray, image: np.ndarray) -> Optional[Relation]:
    """How a picture was drawn of a tensor, if not as its values rounded and clipped to 0..255.

    Args:
        tensor: (N, C, H, W), 0..255.
        image: uint8 (N, H, W, C), or of another shape with as many elements a sample.

    Returns:
        A relation whose cause is "renderer"; None if it is drawn right, or how is not found.
    """
    if not comparable(tensor, image, 4):
        return None
    x = np.asarray(tensor, dtype=np.float64)
    y = np.asarray(image, dtype=np.float64).transpose(0, 3, 1, 2)
    if not finite(x):
        return None
    shape, target = x.shape[1:], y.shape[1:]
    same = shape == target

    def drawn(words: str, error: float = 0.0, accounted: float = 1.0) -> Relation:
        return Relation(("renderer",), words, error, accounted)

    right = np.clip(np.rint(x), 0, 255)
    if same:
        if np.max(np.abs(np.clip(x, 0, 255) - y)) <= 0.501:
            return None
        for replay, words, allowed in _drawings(x):
            error = float(np.max(np.abs(np.mod(replay - y + 128, 256) - 128)))
            if error <= allowed and replay.min() != replay.max():
                return drawn(words, error)
    if y.min() == y.max() and x.min() != x.max():
        return drawn(f"all {y.flat[0]:g}") if right.min() != right.max() else None
    if same:
        for axes, what in (((1, 2, 3), "image"), ((2, 3), "channel"), ((0, 1, 2, 3), "batch")):
            low, high = x.min(axis=axes, keepdims=True), x.max(axis=axes, keepdims=True)
            replay = (x - low) / np.where(high > low, high - low, 1) * 255
            error = float(np.max(np.abs(replay - y)))
            if error <= 1 and np.unique(y).size >= 4:
                return drawn(f"every {what} stretched from its minimum and maximum to 0..255", error)
    # Places first, with a line fitted to what is not clipped.
    first = image_moves(shape, target)[0]
    candidates: list[tuple[Move, ...]] = [()] if same else []
    candidates += [(move,) for move in first]
    if not same:  # the picture of a latent: its planes side by side
        candidates += [(Move("renderer", "planes side by side", written(shape, (1, 0, 2))),)]
    draw = np.random.default_rng(6)
    samples, places = draw.integers(0, len(x), 2 * PROBE), draw.integers(0, x[0].size, 2 * PROBE)
    everywhere = np.arange(x[0].size)
    flat, other = x.reshape(len(x), -1), y.reshape(len(y), -1)
    for chain in candidates:
        source = through(chain, places)
        known = source >= 0
        if not _draw_line(flat[samples, source][known], other[samples, places][known], chain):
            continue
        source = through(chain, everywhere)
        known = source >= 0
        found = _draw_line(flat[:, source[known]].ravel(), other[:, known].ravel(), chain)
        if found:
            return dataclasses.replace(found, accounted=float(known.mean()))
    if same:
        relation = relate_images(right, y, tolerance=1.0)
        if relation:
            return drawn(relation.detail, relation.error, relation.accounted)
    return None


def _drawings(x: np.ndarray) -> Iterator[tuple[np.ndarray, str, int]]:
    """What becomes of values that are not rounded, not clipped, or scaled once too often: pixels, words, and by how
    much they may be wrong, modulo 256: that of a product in another precision."""
    large = np.clip(x, -(2**31), 2**31)
    clipped = np.clip(x, 0, 255)
    yield np.trunc(clipped), "truncated instead of rounded", 0
    yield np.mod(np.rint(x), 256), "wrap-around instead of clipping", 0
    yield np.mod(np.trunc(large), 256), "wrap-around instead of clipping, and truncated instead of rounded", 0
    yield np.minimum(np.rint(np.abs(x)), 255), "the absolute value", 0
    for pixel in (np.rint, np.trunc):
        yield pixel(clipped / 255), "0..1 not scaled to 0..255, almost black", 0
        for values in (clipped, large):
            for by in (128, -128):  # the same of whole numbers
                yield np.mod(pixel(values + by), 256), "128 added or subtracted, with wrap-around", 0
            for factor in (255, 256):
                words = f"multiplied by {factor} once more, with wrap-around"
                yield np.mod(pixel(values * factor), 256), words, 1
                yield np.mod(pixel(values) * factor, 256), words, 0


def _draw_line(a: np.ndarray, b: np.ndarray, moves: Sequence[Move]) -> Optional[Relation]:
    """A straight line from a to b, rounded or truncated and clipped to 0..255, behind these moves."""
    inner = (b >= 1) & (b <= 254)
    tries = [(1.0, 0.0, "")] if moves else []
    tries += _DRAWN
    if inner.sum() >= 16 and np.unique(a[inner][:4096]).size >= 4:
        factor, offset = straight_line(a[inner], b[inner])
        if abs(factor) * a[inner].std() > 2:
            # The shortest numbers that are as good: of rounded values, more digits are no knowledge.
            for digits in range(1, 7):
                short = [float(f"{value:.{digits}g}") for value in (factor, offset)]
                if np.max(np.abs(np.clip(short[0] * a + short[1], 0, 255) - b)) <= (0.501 if digits < 6 else 1):
                    factor, offset = short
                    break
            tries.append(
                (factor, offset, line_in_words(factor, offset).replace("theirs", "pixel").replace("ours", "e"))
            )
    kinds = np.unique(b[:: max(1, b.size >> 16)]).size
    apart = rms(np.clip(a, 0, 255) - b)
    for factor, offset, words in tries:
        line = factor * a + offset
        replay = np.clip(line, 0, 255)
        error = float(np.max(np.abs(replay - b)))
        clipped = " and clipped" if np.any(replay != line) else ""
        wrapped = np.mod(np.trunc(line), 256)
        if error > 1 and np.array_equal(wrapped, b) and kinds >= 4:
            error, clipped = 0.0, ", with wrap-around instead of clipping"
        if error > 1 or kinds < 3 or (not moves and apart and rms(np.clip(line, 0, 255) - b) > 0.2 * apart and error):
            continue
        parts = [move.detail for move in moves] + ([words + clipped] if words else [])
        return Relation(("renderer",), "; then ".join(parts), error, 1.0)
    return None
