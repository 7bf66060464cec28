"""The questions about codes and latents: other numbers, other places, another sign."""

from itertools import permutations, product
from typing import Optional, Union

import numpy as np

from vqvae_gluon.parity.relations.places import (
    PROBE,
    Move,
    distinct_moves,
    image_moves,
    layout_moves,
    read_as,
    reversed_along,
    shifted,
    through,
    written,
)
from vqvae_gluon.parity.relations.relation import ACCOUNTED, Relation, comparable, finite
from vqvae_gluon.parity.relations.search import Search, few_samples, search_moves


def relate_codes(ours: np.ndarray, theirs: np.ndarray) -> Optional[Relation]:
    """How codes (N, h, w) were made of those that should have been; flips are called "codes transposed", too."""
    if not comparable(ours, theirs, 3):
        return None
    same = ours.shape == theirs.shape
    ours, theirs = np.asarray(ours).astype(np.int64), np.asarray(theirs).astype(np.int64)
    if same and np.array_equal(ours, theirs):
        return None
    count, shape, target = len(ours), (1, *ours.shape[1:]), (1, *theirs.shape[1:])
    first = image_moves(shape, target)[0]
    moves: list[tuple[Move, ...]] = [()] if same else []
    moves += [(move,) for move in first]
    moves += product(first if same else layout_moves(shape, target), image_moves(target, target)[0])
    everywhere = np.arange(ours[0].size)
    flat, other = ours.reshape(count, -1), theirs.reshape(count, -1)
    few = slice(None, None, max(1, count // 4))
    best: Optional[Relation] = None
    for chain in moves:
        source = through(chain, everywhere)
        known = source >= 0
        if not _one_to_one(flat[few][:, source[known]].ravel(), other[few][:, known].ravel()):
            continue
        x, y = flat[:, source[known]].ravel(), other[:, known].ravel()
        kinds = np.unique(x).size
        if known.mean() < ACCOUNTED or kinds < 3 or x.size < 12:
            continue
        causes = ["codes transposed"] if chain else []
        detail = [move.detail for move in chain]
        steps = np.unique(y - x)
        if steps.size == 1 and abs(int(steps[0])) == 1:
            causes.append("codes off by one")
            detail.append(f"theirs = ours {'+' if steps[0] > 0 else '-'} 1")
        elif steps.size != 1 or steps[0]:
            words = _renumbered(x, y) if len(chain) < 2 else None
            if words is None:
                continue
            causes.append("codebook rows permuted")
            detail.append(words)
        if causes and (best is None or len(causes) < len(best.causes)):
            best = Relation(tuple(causes), "; then ".join(detail), 0.0, float(known.mean()))
            if len(causes) == 1:
                break
    return best


def _one_to_one(x: np.ndarray, y: np.ndarray) -> bool:
    x, y = x[:PROBE], y[:PROBE]
    pairs = np.unique((x - x.min()) * (int(np.ptp(y)) + 1) + (y - y.min())).size if x.size else 0
    return 0 < pairs == np.unique(x).size == np.unique(y).size


def _renumbered(x: np.ndarray, y: np.ndarray) -> Optional[str]:
    """theirs = p[ours] for one p that gives no number twice, is no offset, and is seen more often than it is long."""
    pairs = np.unique(np.stack([x, y]), axis=1)
    before, after = pairs
    if np.unique(before).size != before.size or np.unique(after).size != after.size:
        return None
    changed = int(np.sum(before != after))
    if before.size < 4 or changed < 2 or np.unique(after - before).size == 1:
        return None
    if x.size - before.size < max(16, before.size):
        return None
    words = ", ".join(f"{a} for {b}" for b, a in zip(before[before != after][:4], after[before != after][:4]))
    return f"{changed} of {before.size} codes have another number: {words}{', ...' if changed > 4 else ''}"


def relate_latent(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> Optional[Relation]:
    """How a latent, (N, D, h, w) or (N, h, w, D), was made of what it should be: its sign, its layout, or both."""
    if not comparable(ours, theirs, 4):
        return None
    shape, target = ours.shape[1:], theirs.shape[1:]
    same = shape == target
    if not finite(ours, theirs) or (same and np.max(np.abs(ours - theirs)) <= tolerance):
        return None
    axes = range(3)
    orders = [order for order in permutations(axes) if order != (0, 1, 2)]
    orders.sort(key=lambda order: order not in ((1, 2, 0), (2, 0, 1), (0, 2, 1)))
    layouts = []
    if not same:
        layouts.append(Move("latent layout", f"the same memory with the shape {tuple(target)}", lambda i: i))
    for order in orders:
        words = ", ".join(str(axis + 1) for axis in order)
        layouts.append(Move("latent layout", f"memory with the axes 0, {words} read as it is", written(shape, order)))
        if same:
            words = f"memory read as if its axes were 0, {words}"
            layouts.append(Move("latent layout", words, read_as(target, order)))
    within = []
    for count in (1, 2, 3):
        for flipped in ([a for a in axes if mask >> a & 1] for mask in range(1, 8)):
            if len(flipped) == count:
                words = f"reversed along axis {' and '.join(str(axis + 1) for axis in flipped)}"
                within.append(Move("latent layout", words, reversed_along(target, flipped)))
    for axis, by in product((2, 1, 0), (1, -1)):
        words = f"shifted by {by} along axis {axis + 1}"
        within.append(Move("latent layout", words, shifted(target, axis, by)))
    if same:
        first = second = distinct_moves(layouts + within, target)
    else:
        first, second = layouts, distinct_moves(within, target)

    def searched(numbers: Union[slice, np.ndarray]) -> Optional[Relation]:
        search = Search(ours[numbers], theirs[numbers], target, tolerance, tolerance, values=False)
        return search_moves(search, first, second, target, same, strides=False)

    few = few_samples(ours, theirs)
    return searched(slice(None)) if few is None or searched(few) else None
