"""Another resize filter: replayed where theirs is a function of ours, told by statistics where it is not."""

import math
from itertools import product
from typing import Optional

import numpy as np
from PIL import Image

from vqvae_gluon.parity.relations.relation import Relation, rms, spacing, whole

_FILTERS = ("NEAREST", "BOX", "BILINEAR", "HAMMING", "BICUBIC", "LANCZOS")
_EDGE = 2  # half the width of a fitted kernel
_SHIFTS = [(dj, dk) for dj, dk in product(range(-_EDGE, _EDGE + 1), range(-_EDGE, _EDGE + 1)) if (dj, dk) != (0, 0)]
_KERNEL_POINTS = 6000
_MOMENT_POINTS = 40000

# What other_filter asks for, and what was measured on drawn pictures, photographs and digits of 28 to 225 pixels:
# bilinear in place of Lanczos, or the reverse, has a share of at least .82 and a variance of .10 to .22; of what is
# like it and is not, with such a variance, the median of 3x3 has the largest share, .51, JPEG .40.
_SMOOTHER = 0.09, 0.27  # of a bilinear filter's kernel at half the size the variance is 3/16 of a square pixel
_SMOOTHER_SHARE = 0.7
_SMOOTHER_SHIFT = 0.1
# Nearest has a share of at least .30, and .08 between quarters. Only a shift of a quarter of a pixel is like it; turned
# or zoomed pictures come near, with .3 and more between quarters and a share below 0.
_AHEAD = 0.17, 0.29  # the second of two pixels lies a quarter of a pixel behind their middle, in rows and columns
_AHEAD_SHARE = 0.2
_QUARTERS = 0.12


def resized_twice(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> Optional[Relation]:
    """Up to twice the size with one filter, and down again with another; or down to the half and up."""
    bytes_only = whole(ours) and whole(theirs) and ours.min() >= 0 and ours.max() <= 255
    dtype = np.uint8 if bytes_only else np.float32
    height, width = ours.shape[2:]
    if min(height, width) < 8:
        return None
    tolerance = max(tolerance, 16 * spacing(theirs))
    start = int(np.argmax(theirs.reshape(len(theirs), -1).std(axis=1)))
    # Of a large image a part is tried first; what its cut edges change is left out.
    part = (slice(0, min(height, 48) // 2 * 2), slice(0, min(width, 48) // 2 * 2))
    crop, seen = ours[start, 0][part].astype(dtype), theirs[start, 0][part]
    inner = tuple(slice(0, None if full <= 48 else -8) for full in (height, width))
    apart = rms(seen[inner] - crop[inner])
    if apart <= tolerance / 4:
        return None

    def between(plane: np.ndarray, up: bool, first: str) -> np.ndarray:
        rows, columns = plane.shape
        return _resized(plane, (rows * 2, columns * 2) if up else (rows // 2, columns // 2), first)

    for up, words in ((True, "resized to twice the size"), (False, "resized to half the size")):
        tried = {first: between(crop, up, first) for first in _FILTERS}
        for first, second in product(_FILTERS, _FILTERS):
            rest = (_resized(tried[first], crop.shape, second).astype(np.float64) - seen)[inner]
            if np.max(np.abs(rest)) > tolerance or rms(rest) > 0.3 * apart:
                continue
            planes = ours.reshape(-1, height, width).astype(dtype)
            replay = np.stack([_resized(between(plane, up, first), (height, width), second) for plane in planes])
            error = float(np.max(np.abs(replay.astype(np.float64).reshape(theirs.shape) - theirs)))
            if error <= tolerance:
                detail = f"{words} with {first.lower()} and back with {second.lower()}"
                return Relation(("resize filter",), detail, error, 1.0)
    return None


def _resized(plane: np.ndarray, size: tuple[int, ...], name: str) -> np.ndarray:
    image = Image.fromarray(plane)
    return np.asarray(image.resize((size[1], size[0]), getattr(Image.Resampling, name)))


def mixed_neighbours(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> Optional[Relation]:
    """Every pixel is the same mix of its neighbours: a kernel of the sum 1, fitted, then replayed on all pixels."""
    tolerance = max(tolerance, 16 * spacing(theirs))
    centre = _inner(ours)
    wanted = _inner(theirs) - centre
    apart = rms(wanted)
    if min(ours.shape[2:]) < 4 * _EDGE + 1 or centre.size < 20 * len(_SHIFTS) or apart <= tolerance / 4:
        return None
    columns, aims, _ = _mixes(ours, theirs, _KERNEL_POINTS)
    weights, *_ = np.linalg.lstsq(columns.T @ columns, columns.T @ aims, rcond=1e-14)
    rest = columns @ weights - aims
    # Most of the difference must be gone, by weights that a filter may have.
    if np.max(np.abs(rest)) > tolerance or rms(rest) > 0.3 * apart or np.max(np.abs(weights)) > 2:
        return None
    replay = sum(weight * (_inner(ours, shift) - centre) for shift, weight in zip(_SHIFTS, weights))
    error = float(np.max(np.abs(replay - wanted)))
    if error > tolerance or rms(replay - wanted) > 0.3 * apart:
        return None
    table = dict(zip(_SHIFTS, weights))
    table[(0, 0)] = 1 - float(np.sum(weights))
    strongest = sorted(table, key=lambda shift: -abs(table[shift]))[:5]
    words = ", ".join(f"{table[shift]:.3g} at ({shift[0]}, {shift[1]})" for shift in strongest)
    detail = f"every pixel mixed with its neighbours by one kernel of the sum 1: {words}, ..."
    return Relation(("resize filter",), detail, error, centre.size / theirs.size)


def other_filter(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> Optional[Relation]:
    """Both were made of one larger picture, one of them by a softer filter or by taking the nearest pixel.

    Then theirs is no function of ours, but what is to be expected of it is one: a kernel of the sum 1. The kernel's
    first and second moments hardly depend on the picture, and say by which filters it was made. It is fitted to three
    quarters of the picture and judged by the share of the difference that it accounts for in the fourth, each in turn.
    Not told: filters that are about as sharp (box, bicubic, Hamming, Lanczos), and the nearest of other sizes than
    twice as many pixels. Told with them: a shift by a quarter of a pixel in rows and columns.
    """
    if min(ours.shape[2:]) < 4 * _EDGE + 1 or rms(theirs - ours) <= max(tolerance, 16 * spacing(theirs)) / 4:
        return None
    columns, aims, places = _mixes(ours, theirs, _MOMENT_POINTS)
    height, width = (extent - 2 * _EDGE for extent in ours.shape[2:])
    numbers = places[2] * 2 // height * 2 + places[3] * 2 // width
    quarters = [(columns[numbers == number], aims[numbers == number]) for number in range(4)]
    square = float(aims @ aims)
    if min(len(part) for part, _ in quarters) < 10 * len(_SHIFTS) or not square or abs(aims.mean()) > 0.3 * rms(aims):
        return None
    matrices = [part.T @ part for part, _ in quarters]
    vectors = [part.T @ aim for part, aim in quarters]
    matrix, vector = sum(matrices), sum(vectors)
    rests = [
        part @ _kernel(matrix - matrices[number], vector - vectors[number]) - aim
        for number, (part, aim) in enumerate(quarters)
    ]
    share = 1 - sum(float(rest @ rest) for rest in rests) / square
    shift, variance = _moments(_kernel(matrix, vector))
    found = [_moments(_kernel(*pair))[0] for pair in zip(matrices, vectors)]
    between = float(np.max(np.abs(np.stack(found) - shift)))
    smoother = _within(variance, _SMOOTHER) and abs(variance[0] - variance[1]) < 0.07
    ahead = _within(shift, _AHEAD)
    if between > _QUARTERS:
        return None
    if smoother and np.max(np.abs(shift)) < _SMOOTHER_SHIFT and share >= _SMOOTHER_SHARE:
        if 1 - _by_value(ours, places, aims) < 1.5 * (1 - share):
            return None
        blurred, sharp = ("theirs", "ours") if variance[0] > 0 else ("ours", "theirs")
        which = f"{sharp} by a sharp filter, {blurred} by a softer one, such as bilinear"
    elif ahead and share >= _AHEAD_SHARE:
        which = f"{'theirs' if shift[0] > 0 else 'ours'} by the nearest of twice as many pixels"
    else:
        return None
    detail = (
        f"as if both were made of one larger picture, {which}; told by statistics, not by replay: a kernel of the "
        f"sum 1 accounts for {share:.0%} of the squared difference where it was not fitted to it; its centre lies "
        f"{shift[0]:.2f} rows and {shift[1]:.2f} columns ahead, in every quarter to within {between:.2f}, and "
        f"its variance is {variance[0]:.2f} and {variance[1]:.2f} square pixels"
    )
    return Relation(("resize filter",), detail, max(float(np.max(np.abs(rest))) for rest in rests), 0.0)


def _inner(values: np.ndarray, shift: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Without the edges, moved by some pixels."""
    height, width = values.shape[2:]
    rows, columns = (slice(_EDGE + by, full - _EDGE + by) for by, full in zip(shift, (height, width)))
    return values[..., rows, columns]


def _mixes(ours: np.ndarray, theirs: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    """At some inner pixels: what the neighbours differ by, what theirs differs by, and their places."""
    shape = _inner(ours).shape
    count = math.prod(shape)
    chosen = np.random.default_rng(3).choice(count, min(count, most), replace=False)
    places = np.unravel_index(chosen, shape)
    n, c, j, k = places
    middle = _inner(ours)[places]
    columns = [ours[n, c, j + _EDGE + dj, k + _EDGE + dk] - middle for dj, dk in _SHIFTS]
    return np.stack(columns, axis=1), _inner(theirs)[places] - middle, places


def _kernel(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Weights of the neighbours; a little regularised, as those of a smooth picture are alike."""
    ridge = 1e-5 * float(np.trace(matrix)) / len(matrix) + 1e-30
    return np.linalg.solve(matrix + ridge * np.eye(len(matrix)), vector)


def _moments(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A kernel's centre and its variance, in rows and columns."""
    shifts = np.array(_SHIFTS, dtype=np.float64)
    centre = weights @ shifts
    return centre, weights @ shifts**2 - centre**2


def _within(pair: np.ndarray, limits: tuple[float, float]) -> bool:
    """Both between the limits, or both between their negatives."""
    low, high = limits
    return bool(np.all((low < pair) & (pair < high)) or np.all((low < -pair) & (-pair < high)))


def _by_value(ours: np.ndarray, places: tuple[np.ndarray, ...], aims: np.ndarray) -> float:
    """Share of the difference that a function of the pixel alone accounts for: what a change of contrast is."""
    x = _inner(ours)[places]
    bins = ((x - x.min()) / max(float(np.ptp(x)), 1e-300) * 31.99).astype(np.int64)
    counts = np.maximum(np.bincount(bins, minlength=32), 1)
    rest = aims - (np.bincount(bins, aims, minlength=32) / counts)[bins]
    return 1 - float(rest @ rest) / float(aims @ aims)
