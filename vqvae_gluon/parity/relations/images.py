"""The questions about images: how what was fed was made of what should have been."""

import dataclasses
from typing import Optional

import numpy as np

from vqvae_gluon.parity.relations.filters import mixed_neighbours, other_filter, resized_twice
from vqvae_gluon.parity.relations.places import image_moves, read_as, written
from vqvae_gluon.parity.relations.relation import Relation, comparable, finite, spacing, whole
from vqvae_gluon.parity.relations.search import (
    Search,
    cut_short,
    few_samples,
    matching_rows,
    pairs,
    search_moves,
)
from vqvae_gluon.parity.relations.values import white

# (factor, offset, words): what makes whole pixels of those that were scaled before they were fed.
_STEPS = (
    (255.0, 0.0, "1/255"),
    (256.0, 0.0, "1/256"),
    (127.5, 127.5, "1/127.5 from -1"),
    (128.0, 128.0, "1/128 from -1"),
)


def relate_images(ours: np.ndarray, theirs: np.ndarray, tolerance: Optional[float] = None) -> Optional[Relation]:
    """How the images that were fed were made of those that should have been.

    Args:
        ours: (N, C, H, W), usually 0..255.
        theirs: the same, or the same number of elements a sample in another shape (N, ?, ?, ?).
        tolerance: by how much a value may differ that is only moved; by default 4 float32 units in the last place of
            the largest value. What is computed may differ by 16, or by 1 if theirs are pixels that were rounded; by
            default, pixels are known that were rounded and then scaled, such as to 0..1.

    Returns:
        The change of the fewest causes that was replayed, or of several filters that which statistics tell; None if
        nothing was changed, or none was found.
    """
    if not comparable(ours, theirs, 4):
        return None
    same = ours.shape == theirs.shape
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    steps = _in_steps(ours, theirs) if tolerance is None else None
    if tolerance is None:
        tolerance = 4 * spacing(theirs[np.isfinite(theirs)])
    if not finite(ours, theirs):
        return cut_short(ours, theirs, tolerance) if same and finite(ours) else None
    if same and np.max(np.abs(ours - theirs)) <= tolerance:
        return None
    found = _constant(ours, theirs)
    if found is None and same:
        found = _other_samples(ours, theirs, tolerance)
    if found:
        return found
    few = few_samples(ours, theirs)
    if few is None or _related(ours[few], theirs[few], tolerance):
        found = _related(ours, theirs, tolerance)
    if found is None and steps:
        step, words, pixels, changed = steps
        found = relate_images(pixels, changed, tolerance=1.0)
        return found and dataclasses.replace(
            found, detail=f"{found.detail}; of pixels in steps of {words}", error=found.error * step
        )
    if found is None and same:
        # Behind the others: of exchanged channels, the first may be where it was.
        found = cut_short(ours, theirs, tolerance) or _column_major_batch(ours, theirs, tolerance)
        found = found or other_filter(ours, theirs, tolerance)
    return found


def relate_pixels(ours: np.ndarray, theirs: np.ndarray) -> Optional[Relation]:
    """How decoded pixels were made of those that should have been: uint8 (N, H, W, C). Rounding, by 1, is no change."""
    if not comparable(ours, theirs, 4):
        return None
    return relate_images(ours.transpose(0, 3, 1, 2), theirs.transpose(0, 3, 1, 2), tolerance=1.0)


def _related(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> Optional[Relation]:
    """What is done to every sample, in the order of how simple it is."""
    shape, target = ours.shape[1:], theirs.shape[1:]
    same = shape == target
    loose = max(tolerance, 16 * spacing(theirs), 1.0 if whole(theirs) else 0.0)
    first, second = image_moves(shape, target)
    search = Search(ours, theirs, target, tolerance, loose)
    found = search_moves(search, first, second, target, same, strides=True)
    if not same:
        return found or search.best(pairs(search, image_moves(shape, shape)[0], first))
    found = found or _alpha(ours, theirs, loose)
    return found or resized_twice(ours, theirs, loose) or mixed_neighbours(ours, theirs, loose)


def _in_steps(ours: np.ndarray, theirs: np.ndarray) -> Optional[tuple[float, str, np.ndarray, np.ndarray]]:
    """If both are whole pixels times one unit, as a network without a scale of its own is fed: unit, words, pixels."""
    if not finite(ours, theirs) or np.max(np.abs(ours)) > 2:
        return None
    for factor, offset, words in _STEPS:
        pixels, changed = (np.rint(side * factor + offset) for side in (ours, theirs))
        rests = [
            float(np.max(np.abs(side * factor + offset - rounded)))
            for side, rounded in ((ours, pixels), (theirs, changed))
        ]
        if max(rests) < 1e-3 and whole(pixels) and pixels.min() >= 0:
            return 1 / factor, words, pixels, changed
    return None


def _alpha(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> Optional[Relation]:
    """Colours blended on white or black, or no longer blended: one factor a pixel, shared by the three channels."""
    if ours.shape[1] != 3:
        return None
    full = white(ours)
    for ground, name in ((full, "white"), (0.0, "black")):
        for pure, mixed, words in (
            (ours, theirs, f"blended on {name}"),
            (theirs, ours, f"not blended on {name}, as ours is"),
        ):
            x, y = pure - ground, mixed - ground
            square = np.sum(x * x, axis=1)
            seen = square > (16 * tolerance) ** 2
            part = np.sum(x * y, axis=1) / np.where(seen, square, 1)
            error = float(np.max(np.abs(np.where(seen[:, None], part[:, None] * x, x) - y)))
            slack = tolerance / np.sqrt(np.where(seen, square, 1))
            if error > tolerance or np.any(seen & ((part < -slack) | (part > 1 + slack))):
                continue
            # A gray pixel fits whatever it becomes. One that tells has differing channels, and was changed.
            apart = x.max(axis=1) - x.min(axis=1)
            tells = seen & (apart * np.minimum(1 - part, part) > 4 * tolerance)
            changed = seen & (np.max(np.abs(y - x), axis=1) > 2 * tolerance)
            if tells.sum() < max(64, 0.3 * changed.sum()) or part[tells].std() < 1e-3:
                continue
            low, high = float(part[tells].min()), float(part[tells].max())
            detail = f"{words}, with an alpha of {low:.3g} to {high:.3g} where it is seen"
            return Relation(("alpha",), detail, error, 1.0)
    return None


def _constant(ours: np.ndarray, theirs: np.ndarray) -> Optional[Relation]:
    if theirs.min() == theirs.max() and ours.min() != ours.max() and theirs.size >= 8:
        value = float(theirs.flat[0])
        return Relation(("input not set",), "all zeros" if value == 0 else f"all {value:.6g}", 0.0, 1.0)
    return None


def _other_samples(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> Optional[Relation]:
    """Every sample of theirs is one of ours, but not that of its number."""
    count = len(ours)
    if count < 2 or count > 1024:
        return None
    ours, theirs = ours.reshape(count, -1), theirs.reshape(count, -1)
    if np.max(ours.std(axis=0)) <= 4 * tolerance:
        return None
    matched = matching_rows(ours, theirs, tolerance)
    if matched is None:
        return None
    order, error = matched
    changed = [number for number, other in enumerate(order) if number != other]
    # A blank sample is like every other blank one.
    if not changed or any(np.ptp(theirs[number]) <= 4 * tolerance for number in changed):
        return None
    if len(set(order)) == 1:
        detail = f"every sample is sample {order[0]}"
    else:
        detail = f"samples in the order {', '.join(map(str, order[:16]))}{', ...' if count > 16 else ''}"
    return Relation(("batch dependence",), detail, error, 1.0)


def _column_major_batch(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> Optional[Relation]:
    """The batch, with the number of the sample, in column-major order."""
    if len(ours) == 1:
        return None
    axes = tuple(range(ours.ndim))[::-1]
    places = np.random.default_rng(4).integers(0, ours.size, 64)
    for source, what in ((written(ours.shape, axes), "written"), (read_as(theirs.shape, axes), "read")):
        if np.max(np.abs(ours.flat[source(places)] - theirs.flat[places])) > tolerance:
            continue
        error = float(np.max(np.abs(ours.ravel()[source(np.arange(ours.size))] - theirs.ravel())))
        if error <= tolerance and np.unique(theirs.flat[places]).size > 2:
            return Relation(("column-major input",), f"the whole batch was {what} in column-major order", error, 1.0)
    return None
