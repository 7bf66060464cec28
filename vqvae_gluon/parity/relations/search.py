"""Screen, fit, replay: which chain of moves, and which change of values behind it, makes theirs of ours.

Candidates are *screened* on a few hundred elements, all of them at once: does some straight line lead from what the
candidate would read to what is there? Those that remain are *fitted* (a factor, a mean, an exponent) and *replayed* on
all elements, and only what equals the other tensor within the tolerance is returned.
"""

from collections.abc import Iterator, Sequence
from typing import Optional

import numpy as np

from vqvae_gluon.parity.relations.places import PROBE, Move, image_strides, through
from vqvae_gluon.parity.relations.relation import ACCOUNTED, Relation, rms
from vqvae_gluon.parity.relations.values import Fit, Values, as_signed, to_linear, to_srgb, white

_POINTS = 192  # elements on which candidates are screened
_SAMPLES = 4  # that the elements are taken of
_CANDIDATES = 64  # at most that many are fitted, the simplest first
LARGE = 1 << 21  # elements; of more, some samples are asked first


class Search:
    """Two batches of the same number of elements, element by element in memory order.

    Args:
        target: shape of a sample of theirs.
        exact: tolerance of what is only moved.
        loose: tolerance of what is computed.
        values: whether values may be changed, too; if not, only their sign.
    """

    def __init__(
        self,
        ours: np.ndarray,
        theirs: np.ndarray,
        target: Sequence[int],
        exact: float,
        loose: float,
        values: bool = True,
    ):
        count = len(ours)
        self.ours = np.ascontiguousarray(ours, dtype=np.float64).reshape(count, -1)
        self.theirs = np.ascontiguousarray(theirs, dtype=np.float64).reshape(count, -1)
        self.exact, self.loose, self.values = exact, loose, values
        self.size = self.ours.shape[1]
        self.plane = self.size // target[0]
        self.by_channel = values and 2 <= target[0] <= 4
        draw = np.random.default_rng(0)
        spread = self.theirs[:16].std(axis=1)
        chosen = np.argsort(-spread, kind="stable")[:_SAMPLES]
        samples, places = [], []
        each = _POINTS // len(chosen)
        for sample in chosen:
            kinds, counts = np.unique(self.theirs[sample], return_counts=True)
            telling = np.flatnonzero(self.theirs[sample] != kinds[counts.argmax()])
            anywhere = draw.integers(0, self.size, each // 2)
            places.append(
                np.concatenate([anywhere, draw.choice(telling if telling.size else anywhere, each - each // 2)])
            )
            samples.append(np.full(each, sample))
        self.samples, self.places = np.concatenate(samples), np.concatenate(places)
        self.probe = draw.integers(0, count, PROBE), draw.integers(0, self.size, PROBE)
        self._features = list(self._make_features())

    def _make_features(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, float]]:
        """What a straight line may lead from and to: (ours, theirs at the points, weights, tolerance)."""
        used = np.unique(self.samples)
        x = self.ours[used]
        self._at = np.searchsorted(used, self.samples)
        y = self.theirs[self.samples, self.places]
        everywhere = np.ones(len(y))
        yield x, y, everywhere, self.loose
        if not self.values:
            return
        signed = as_signed(x)
        if signed is not None and y.min() < 0:
            yield signed, y, everywhere, self.loose
        if x.min() >= 0 and y.min() >= 0 and y.max() > 0:
            full = white(x)
            yield to_linear(x / full), y, everywhere, self.loose
            yield to_srgb(x / full), y, everywhere, self.loose
            strong = y > 0.1 * y.max()
            tolerance = self.loose / (0.1 * y.max())
            yield np.log(np.maximum(x / full, 1e-6)), np.log(np.where(strong, y, 1)), strong.astype(float), tolerance

    def screen(self, places: np.ndarray, plain: bool = False) -> np.ndarray:
        """Numbers of the rows of ``places`` (candidates, points) from which some straight line leads to theirs."""
        known = (places >= 0).astype(np.float64)
        enough = known.mean(axis=1) >= 0.8 * ACCOUNTED
        kept = np.zeros(len(places), bool)
        channel = self.places // self.plane if self.by_channel else np.zeros(len(self.places), int)
        groups = [np.flatnonzero(channel == number) for number in np.unique(channel)]
        for x, y, weight, tolerance in self._features[: 1 if plain else None]:
            here = x[self._at, places]
            rest = np.zeros(len(places))
            total = np.zeros(len(places))
            for group in groups:
                w = known[:, group] * weight[group]
                n = np.maximum(w.sum(axis=1), 1e-9)
                a, b = here[:, group], y[group]
                a = a - ((w * a).sum(axis=1) / n)[:, None]
                b = b - ((w * b).sum(axis=1) / n)[:, None]
                aa, ab, bb = (w * a * a).sum(axis=1), (w * a * b).sum(axis=1), (w * b * b).sum(axis=1)
                flat = aa <= 1e-20
                rest += np.maximum(bb - np.where(flat, 0, ab * ab / np.where(flat, 1, aa)), 0)
                total += n
            limit = (2 * tolerance) ** 2 + 1e-13 * float(np.var(y))
            kept |= enough & (rest <= limit * np.maximum(total, 1))
        return np.flatnonzero(kept)

    def prove(self, moves: Sequence[Move]) -> Optional[Relation]:
        """Fit and replay what these moves, and a change of values after them, make."""
        samples, places = self.probe
        if self._explain(moves, samples, places) is None:
            return None
        everywhere = np.arange(self.size)
        source = through(moves, everywhere)
        known = source >= 0
        count = len(self.ours)
        accounted = float(known.mean())
        if accounted < ACCOUNTED:
            return None
        if known.all():
            x, y, places = self.ours[:, source], self.theirs, everywhere
        else:
            x, y, places = self.ours[:, source[known]], self.theirs[:, known], everywhere[known]
        fit = self._fit(x.ravel(), y.ravel(), np.tile(places // self.plane, count), bool(moves))
        if fit is None:
            return None
        # Rounding, which may be as large as the tolerance, is no proof: the moves must have explained most.
        if not fit.causes and rms(y - x) > 0.3 * rms(y - self.ours[:, places]):
            return None
        causes = tuple(dict.fromkeys([move.cause for move in moves] + list(fit.causes)))
        detail = "; then ".join([move.detail for move in moves] + ([fit.detail] if fit.detail else []))
        return Relation(causes, detail, fit.error, accounted)

    def _explain(self, moves: Sequence[Move], samples: np.ndarray, places: np.ndarray) -> Optional[Fit]:
        source = through(moves, places)
        known = source >= 0
        x, y = self.ours[samples[known], source[known]], self.theirs[samples[known], places[known]]
        return self._fit(x, y, places[known] // self.plane, bool(moves))

    def _fit(self, x: np.ndarray, y: np.ndarray, channel: np.ndarray, moved: bool) -> Optional[Fit]:
        if not x.size:
            return None
        values = Values(x, y, channel, self.exact, self.loose)
        error = values.moved() if moved else None
        if error is not None:
            return Fit((), "", error)
        return values.changed() if self.values else self._sign(values)

    def _sign(self, values: Values) -> Optional[Fit]:
        error = float(np.max(np.abs(values.x + values.y), initial=0))
        if error <= self.exact and values.telling >= 8:
            return Fit(("latent sign",), "theirs = -ours", error)
        return None

    def best(self, candidates: Sequence[Sequence[Move]]) -> Optional[Relation]:
        """That of the fewest causes; of those, the first, or one of the same causes that accounts for more."""
        found: Optional[Relation] = None
        for moves in candidates[:_CANDIDATES]:
            relation = self.prove(moves)
            if relation is None:
                continue
            if (
                found is None
                or len(relation.causes) < len(found.causes)
                or (relation.causes == found.causes and relation.accounted > found.accounted)
            ):
                found = relation
            if len(found.causes) == 1 and found.accounted == 1:
                break
        return found


def search_moves(
    search: Search, first: Sequence[Move], second: Sequence[Move], shape: Sequence[int], same: bool, strides: bool
) -> Optional[Relation]:
    """Nothing moved, one move, two moves; each with a change of values behind it.

    Args:
        first, second: moves to be tried alone or first, and those that may follow one.
        shape: of a sample of theirs.
        same: whether ours have it, too.
        strides: whether steps through the memory of an image are tried.
    """
    points = search.places
    singles: list[tuple[Move, ...]] = [()] if same else []
    singles += [(move,) for move in first]
    if not singles:
        return None
    screened = search.screen(np.stack([through(moves, points) for moves in singles]))
    candidates = [singles[number] for number in screened]
    if same and strides:
        for family in image_strides(shape, few=False):
            numbers = search.screen(family.places(points, np.arange(len(family))), plain=True)
            candidates += [(family.move(int(number)),) for number in numbers]
    found = search.best(candidates)
    if found:
        return found
    candidates = pairs(search, first, second)
    if same and strides:
        for family in image_strides(shape, few=True):
            candidates += [(family.move(int(i)),) for i in search.screen(family.places(points, np.arange(len(family))))]
        candidates += _stride_pairs(search, second, shape)
    return search.best(candidates)


def pairs(search: Search, first: Sequence[Move], second: Sequence[Move]) -> list[tuple[Move, ...]]:
    """Every one of the first moves with every one of the second behind it."""
    if not first or not second:
        return []
    behind = np.stack([move(search.places) for move in second])
    places = np.stack([move(behind) for move in first]).reshape(-1, len(search.places))
    return [(first[number // len(second)], second[number % len(second)]) for number in search.screen(places)]


def _stride_pairs(search: Search, moves: Sequence[Move], shape: Sequence[int]) -> list[tuple[Move, ...]]:
    """Likely steps through memory, before or after another move."""
    found: list[tuple[Move, ...]] = []
    points = search.places
    for family in image_strides(shape, few=True):
        numbers = np.arange(len(family))
        read = family.places(points, numbers)
        for move in moves:
            found += [(move, family.move(int(number))) for number in search.screen(move(read), plain=True)]
            numbers_first = search.screen(family.places(move(points), numbers), plain=True)
            found += [(family.move(int(number)), move) for number in numbers_first]
    return found


def few_samples(ours: np.ndarray, theirs: np.ndarray) -> Optional[np.ndarray]:
    """Of what is large: numbers of some samples that differ. What does not hold of them does not hold of all."""
    if ours.size <= LARGE or len(ours) == 1:
        return None
    differ = np.arange(len(ours))
    if ours.shape == theirs.shape:
        differ = np.flatnonzero((ours != theirs).reshape(len(ours), -1).any(axis=1))
    count = max(1, LARGE * len(ours) // (4 * ours.size))
    return differ[:count] if count < len(ours) else None


def cut_short(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> Optional[Relation]:
    """The first part in memory order is right, per sample or over the batch, and what follows is other."""
    count = len(ours)
    for rows, what in ((1, "the batch"), (count, "each sample")):
        if rows == 1 and what == "each sample":
            break
        a, b = ours.reshape(rows, -1), theirs.reshape(rows, -1)
        wrong = ~(np.abs(a - b) <= tolerance)  # NaN is wrong
        size = a.shape[1]
        first = np.where(wrong.any(axis=1), wrong.argmax(axis=1), size)
        cut = int(first.min())
        if not ACCOUNTED * size <= cut <= size - 8:
            continue
        kinds, counts = np.unique(a[:, :cut], return_counts=True)
        common = kinds[counts.argmax()]
        tail, tail_wrong = a[:, cut:], wrong[:, cut:]
        # Background that happens to be equal says nothing, as little as one that was not copied.
        telling = (tail != common) | (b[:, cut:] != common)
        quarter = max(1, tail.shape[1] // 4)
        if telling.sum() < 8 or (a[:, :cut] != common).sum() < 8:
            continue
        end = telling[:, -quarter:]
        if tail_wrong.sum() < 0.8 * telling.sum() or tail_wrong[:, -quarter:].sum() < 0.7 * end.sum():
            continue
        error = float(np.max(np.abs(a[:, :cut] - b[:, :cut])))
        detail = f"the first {cut} of {size} values of {what} are right, what follows is not"
        if not np.any(b[:, cut:]):
            detail = f"the first {cut} of {size} values of {what} are right, what follows is zero"
        return Relation(("reading past a buffer",), detail, error, cut / size)
    return None


def matching_rows(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> Optional[tuple[list[int], float]]:
    """Which row of ours each row of theirs is, that of its own number if it may be, and the largest error."""
    places = np.argsort(-ours.std(axis=0), kind="stable")[:16]
    some = ours[:, places]
    order: list[int] = []
    largest = 0.0
    for number, row in enumerate(theirs):
        near = np.flatnonzero(np.all(np.abs(some - row[places]) <= tolerance, axis=1)).tolist()
        for other in sorted(near, key=lambda candidate: candidate != number):
            error = float(np.max(np.abs(ours[other] - row)))
            if error <= tolerance:
                order.append(other)
                largest = max(largest, error)
                break
        else:
            return None
    return order, largest
