"""Changes of places: what is read from elsewhere. A move maps places of theirs to places of ours.

Places are numbers of elements within a sample, in memory order; -1 is a place that cannot be known.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Callable

import numpy as np

PROBE = 2048  # elements on which candidates are tried before all are looked at

Source = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Move:
    """A change of places. ``source`` maps flat places of theirs to flat places of ours; -1 if it cannot be known."""

    cause: str
    detail: str
    source: Source

    def __call__(self, places: np.ndarray) -> np.ndarray:
        known = places >= 0
        return np.where(known, self.source(np.where(known, places, 0)), -1)


def through(moves: Sequence[Move], places: np.ndarray) -> np.ndarray:
    """Where these places come from: the last move of a chain is asked first."""
    for move in reversed(moves):
        places = move(places)
    return places


def written(shape: Sequence[int], order: Sequence[int]) -> Source:
    """The tensor was written with its axes in this order, and that memory was read as it is."""
    extents = [shape[axis] for axis in order]
    inverse = np.argsort(order)

    def source(places: np.ndarray) -> np.ndarray:
        at = np.unravel_index(places, extents)
        return np.ravel_multi_index([at[axis] for axis in inverse], tuple(shape))

    return source


def read_as(shape: Sequence[int], order: Sequence[int]) -> Source:
    """The memory was right, but it was read as if its axes were in this order. ``shape`` is that of the result."""
    extents = tuple(shape[axis] for axis in order)

    def source(places: np.ndarray) -> np.ndarray:
        at = np.unravel_index(places, shape)
        return np.ravel_multi_index([at[axis] for axis in order], extents)

    return source


def reversed_along(shape: Sequence[int], axes: Sequence[int]) -> Source:
    """From the last to the first along these axes."""

    def source(places: np.ndarray) -> np.ndarray:
        at = list(np.unravel_index(places, shape))
        for axis in axes:
            at[axis] = shape[axis] - 1 - at[axis]
        return np.ravel_multi_index(at, tuple(shape))

    return source


def shifted(shape: Sequence[int], axis: int, by: int) -> Source:
    """Entry i along an axis is entry i + by; what lies outside cannot be known."""

    def source(places: np.ndarray) -> np.ndarray:
        at = list(np.unravel_index(places, shape))
        moved = at[axis] + by
        at[axis] = np.clip(moved, 0, shape[axis] - 1)
        return np.where(at[axis] == moved, np.ravel_multi_index(at, tuple(shape)), -1)

    return source


def chosen(shape: Sequence[int], axis: int, order: Sequence[int]) -> Source:
    """Along one axis the entries are in another order."""

    def source(places: np.ndarray) -> np.ndarray:
        at = list(np.unravel_index(places, shape))
        at[axis] = np.asarray(order)[at[axis]]
        return np.ravel_multi_index(at, tuple(shape))

    return source


def _extents(order: Sequence[int]) -> str:
    return "".join("CHW"[axis] for axis in order)


def layout_moves(shape: Sequence[int], target: Sequence[int]) -> Iterator[Move]:
    """Memory in another order of the axes than it is read in. ``shape`` is that of ours, ``target`` that of theirs."""
    channels, height, width = shape
    exchanged = tuple(target) == (channels, width, height)

    def cause(order: Sequence[int]) -> str:
        if order == (0, 2, 1) and exchanged:
            return "transposed input"
        return "HWC read as CHW" if order.index(1) < order.index(2) else "column-major input"

    orders = [(1, 2, 0), (0, 2, 1), (2, 1, 0), (1, 0, 2), (2, 0, 1)]
    if tuple(shape) != tuple(target):
        name = "transposed input" if exchanged else "HWC read as CHW"
        yield Move(name, f"the same memory with the shape {tuple(target)} in place of {tuple(shape)}", lambda i: i)
    for order in orders:
        if channels > 1 or order == (0, 2, 1):
            name = cause(order)
            how = "rows and columns exchanged" if name == "transposed input" else f"{_extents(order)} read as CHW"
            yield Move(name, how, written(shape, order))
    for order in orders:
        if channels > 1 or order == (0, 2, 1):
            yield Move(cause(order), f"CHW read as {_extents(order)}", read_as(target, order))
    if channels > 1 and tuple(shape) == tuple(target):
        for first, second in (((1, 2, 0), (2, 1, 0)), ((2, 1, 0), (1, 2, 0))):
            how = f"{_extents(first)} read as {_extents(second)}"
            chain = [Move("", "", written(shape, first)), Move("", "", read_as(shape, second))]
            yield Move("column-major input", how, partial(through, chain))


def image_moves(shape: Sequence[int], target: Sequence[int]) -> tuple[list[Move], list[Move]]:
    """Moves that may come first (of ours to the shape of theirs), and moves within the shape of theirs."""
    channels = target[0]
    within = []
    if channels > 1:
        orders = list(permutations(range(channels)))[1:] if channels <= 4 else [tuple(range(channels))[::-1]]
        orders.sort(key=lambda order: order != tuple(range(channels))[::-1])
        for order in orders:
            how = f"channels in the order {', '.join(map(str, order))}"
            within.append(Move("channel order", how, chosen(target, 0, order)))
    same = tuple(shape) == tuple(target)
    layouts = list(layout_moves(target if same else shape, target))
    moved = [
        Move("flipped input", "rows from bottom to top", reversed_along(target, (1,))),
        Move("flipped input", "columns from right to left", reversed_along(target, (2,))),
        Move("flipped input", "rows from bottom to top and columns from right to left", reversed_along(target, (1, 2))),
    ]
    for axis, what in ((1, "row"), (2, "column")):
        for by, side in ((1, "ahead"), (-1, "behind")):
            how = f"one {what} {side}: {what} i holds {what} i {'+' if by > 0 else '-'} 1"
            moved.append(Move("shifted by a pixel", how, shifted(target, axis, by)))
    if not same:
        return layouts, distinct_moves(within + moved, target)
    within = distinct_moves(within + layouts + moved, target)
    return within, within


def distinct_moves(moves: Sequence[Move], shape: Sequence[int]) -> list[Move]:
    """Without those that move nothing in this shape, or the same as an earlier one."""
    size = math.prod(shape)
    places = np.arange(size) if size <= PROBE else np.random.default_rng(1).integers(0, size, PROBE)
    seen = {places.tobytes()}
    kept = []
    for move in moves:
        key = move(places).astype(places.dtype).tobytes()
        if key not in seen:
            seen.add(key)
            kept.append(move)
    return kept


@dataclass(frozen=True)
class Strides:
    """Reads of one image's memory with other steps than it was written with.

    Memory holds rows of ``rows`` and pixels of ``pixels`` elements. It is read with the steps ``row`` and ``pixel``.
    """

    shape: tuple[int, int, int]
    planes: bool  # the memory is CHW, and every channel begins where it should
    rows: np.ndarray
    pixels: np.ndarray
    row: np.ndarray
    pixel: np.ndarray
    start: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def places(self, places: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Where theirs at ``places`` comes from, for each of those of the number ``which``."""
        channels, height, width = self.shape
        known = places >= 0
        channel, j, k = np.unravel_index(np.where(known, places, 0), self.shape)
        row, pixel, start, rows, pixels = (
            values[which, None] for values in (self.row, self.pixel, self.start, self.rows, self.pixels)
        )
        if self.planes:
            address = row * j + pixel * k + start + channel * (height * width)
            inside = (address >= 0) & (address < channels * height * width)
            return np.where(inside & known, address, -1)
        address = row * j + pixel * k + start + channel
        j, rest = np.divmod(address, rows)
        k, part = np.divmod(rest, pixels)
        if channels == 1:  # a gray pixel is the same in all of its bytes
            part = np.zeros_like(part)
        inside = (address >= 0) & (j < height) & (k < width) & (part < channels)
        return np.where(inside & known, part * (height * width) + j * width + k, -1)

    def move(self, which: int) -> Move:
        """The one of this number."""
        row, pixel, start = int(self.row[which]), int(self.pixel[which]), int(self.start[which])
        channels, _, width = self.shape
        number = np.array([which])
        at = f"{row} * j + {pixel} * k" + (f" {'+' if start > 0 else '-'} {abs(start)}" if start else "")
        if self.planes:
            how = f"{at} in each plane" if channels > 1 else at
        else:
            how = f"{at} + c" if channels > 1 else at
            if (self.rows[which], self.pixels[which]) != (channels * width, channels):
                how += f", where memory has {self.pixels[which]} * k and {self.rows[which]} * j"
        return Move("pixel stride", how, lambda places: self.places(np.ravel(places), number)[0].reshape(places.shape))


def image_strides(shape: Sequence[int], few: bool) -> Iterator[Strides]:
    """Steps to try. ``few``: those that are likely, for compositions."""
    channels, _, width = (int(extent) for extent in shape)
    extents = (channels, int(shape[1]), width)

    def padded(row: int) -> set[int]:
        return {-(-row // 4) * 4, row + 1} - {row}

    def steps(pixel: int, *others: int) -> list[int]:
        found = {width, pixel * width, *others, *padded(pixel * width), *padded(width)}
        return sorted(found if few else found.union(range(1, 4 * width + 9)))

    def made(planes: bool, entries: Sequence[tuple[int, int, int, int, int]]) -> Strides:
        return Strides(extents, planes, *np.array(entries, dtype=np.int64).reshape(-1, 5).T)

    starts = (1, -1, 2, -2, 3, -3, 4, -4)
    rows = width * channels
    memory = []  # entries are (rows, pixels, row, pixel, start)
    for pixel in (1, 2, 3, 4):
        memory += [(rows, channels, row, pixel, 0) for row in steps(pixel, rows, pixel * (width - 1))]
    memory = [entry for entry in memory if entry[2:4] != (rows, channels)]  # as it is
    memory += [(rows, channels, rows, channels, start) for start in starts]
    # Steps of whole pixels and rows first: of two that fit, the more likely one is taken.
    likely = {width, rows, *padded(rows), *(pixel * width for pixel in (1, 2, 3, 4))}
    memory.sort(key=lambda entry: (entry[2] not in likely, entry[4] != 0))
    # Memory that is wider than what is read: RGBA as RGB, gray in three bytes, rows with padding.
    memory += [(width * pixel, pixel, rows, channels, 0) for pixel in (2, 3, 4) if pixel > channels]
    padding = padded(rows) if few else padded(rows) | set(range(rows + 1, rows + 9))
    memory += [(row, channels, rows, channels, 0) for row in sorted(padding)]
    yield made(False, memory)
    if channels > 1:
        planes = [(width, 1, row, pixel, 0) for pixel in (1, 2, 3, 4) for row in steps(pixel)]
        planes.remove((width, 1, width, 1, 0))
        yield made(True, planes + [(width, 1, width, 1, start) for start in starts])
