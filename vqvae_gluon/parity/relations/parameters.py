"""The question about parameters: how those of a candidate were made of those of the reference."""

import math
from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Optional

import numpy as np

from vqvae_gluon.parity.relations.places import Move, chosen, read_as, reversed_along, through, written
from vqvae_gluon.parity.relations.relation import Relation, finite, ratio, rms, spacing
from vqvae_gluon.parity.relations.search import cut_short, matching_rows
from vqvae_gluon.parity.relations.values import factor_in_words, line_in_words


def relate_parameter(
    name: str,
    ours: np.ndarray,
    theirs: np.ndarray,
    tolerance: float,
    others: Mapping[str, np.ndarray],
    codebook: Optional[bool] = None,
) -> Optional[Relation]:
    """How a parameter of a candidate was made of those of the reference.

    Args:
        name: with its prefix, "arg:" or "aux:".
        ours: what the reference holds.
        theirs: what the candidate holds, known from its file, or estimated.
        tolerance: how wrong the estimate may be; 0 if it is none.
        others: all parameters of the reference, by their full names.
        codebook: whether it is the codebook; by default if its name says so.

    Returns:
        The simplest relation that holds; "parameters of another epoch" and noise are told by statistics, all others by
        replay.
    """
    if ours.size != theirs.size or not ours.size:
        return None
    question = _Parameter(name, ours, theirs, tolerance, "codebook" in name if codebook is None else codebook)
    if question.within(question.ours, question.theirs) is not None:
        return None
    return (
        question.one_value()
        or question.stored()
        or question.uninitialised()
        or question.constant()
        or question.swapped(others)
        or question.moved()
        or question.factor()
        or question.rows()
        or question.in_memory()
        or question.epoch()
        or question.noise()
    )


def parameter_changes(
    name: str, ours: np.ndarray, others: Mapping[str, np.ndarray], codebook: Optional[bool] = None
) -> Iterator[tuple[tuple[str, ...], str, np.ndarray]]:
    """What may have become of a parameter whose values the candidate does not tell: (causes, detail, values), to try.

    Only changes that leave nothing to be fitted, the likeliest first, none twice, none that changes nothing.
    """
    question = _Parameter(name, ours, ours, 0.0, "codebook" in name if codebook is None else codebook)
    seen = {question.ours.astype(ours.dtype).tobytes()}
    for causes, detail, values in question.changes(others):
        changed = values.astype(ours.dtype)
        key = changed.tobytes()
        if key not in seen:
            seen.add(key)
            yield causes, detail, changed.reshape(ours.shape)


class _Parameter:
    """One parameter on both sides, flat."""

    def __init__(self, name: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float, codebook: bool):
        self.name, self.codebook = name, codebook
        self.shape, self.target = ours.shape, theirs.shape
        self.ours = np.ascontiguousarray(ours, dtype=np.float64).ravel()
        self.theirs = np.ascontiguousarray(theirs, dtype=np.float64).ravel()
        self.tolerance = float(tolerance)
        self.size = self.ours.size
        self.spread = float(self.ours.std())
        self._negative = "latent sign" if codebook else "parameter differs"
        if codebook:
            self.unbound = "codebook unbound"
        else:
            self.unbound = "auxiliary unbound" if name.startswith("aux:") else "argument unbound"

    def within(self, replay: np.ndarray, theirs: np.ndarray) -> Optional[float]:
        """Largest error if all are within the tolerance; the same infinities are equal."""
        with np.errstate(invalid="ignore"):
            error = np.where(replay == theirs, 0, np.abs(replay - theirs))
        largest = float(np.max(error, initial=0))
        return largest if largest <= self.tolerance else None  # NaN is not

    def telling(self, values: np.ndarray, tries: int = 1) -> bool:
        """Whether it would be a wonder if so many values met their replay by chance."""
        if values.size < 2:
            return False
        kinds, counts = np.unique(values[: 1 << 16], return_counts=True)
        free = int(min(values.size, 1 << 16) - counts.max()) if kinds.size > 1 else 0
        spread = float(values.std())
        step = max(2 * self.tolerance, 1e-7 * spread, 1e-300)
        return free * math.log10(max(spread / step, 1)) - math.log10(tries) >= 6

    def one_value(self) -> Optional[Relation]:
        if self.size < 8:
            return None
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(self.theirs - self.ours) <= self.tolerance) & (self.theirs != self.ours)
        if wrong.sum() != 1:
            return None
        at = int(wrong.argmax())
        place = ", ".join(map(str, np.unravel_index(at, self.shape)))
        detail = f"[{place}] is {self.theirs[at]:.9g} in place of {self.ours[at]:.9g}"
        if self.tolerance == 0:
            bits = [int(np.float32(value[at]).view(np.uint32)) for value in (self.ours, self.theirs)]
            changed = bits[0] ^ bits[1]
            if changed and not changed & (changed - 1):
                detail += f": bit {changed.bit_length() - 1}"
        rest = float(np.max(np.abs(self.theirs - self.ours)[~wrong]))
        return Relation(("one corrupted value",), detail, rest, 1 - 1 / self.size)

    def stored(self, ours: Optional[np.ndarray] = None) -> Optional[Relation]:
        ours = self.ours if ours is None else ours
        for replay, cause, words in storages(ours):
            finite = np.isfinite(replay)
            lost = float(np.max(np.abs(replay - ours)[finite], initial=0))
            error = self.within(replay, self.theirs)
            if error is None or lost <= 8 * self.tolerance:
                continue
            # What a type keeps as it is proves nothing: enough values must have been rounded.
            if np.sum(replay != ours) >= min(8, self.size):
                return Relation((cause,), words, error, 1.0)
        return None

    def uninitialised(self) -> Optional[Relation]:
        if not finite(self.ours):
            return None
        largest = float(np.max(np.abs(self.ours)))
        with np.errstate(invalid="ignore"):
            absurd = ~(np.abs(self.theirs) <= max(1e8 * largest, 1e-30))
        if not absurd.any():
            return None
        where = int(absurd.sum())
        detail = f"uninitialised: {where} of {self.size} values are not finite, or 1e8 times the largest of ours"
        return Relation((self.unbound,), detail, 0.0, where / self.size)

    def constant(self) -> Optional[Relation]:
        for value, words in ((0.0, "all zeros"), (1.0, "all ones"), (float(np.median(self.theirs)), "")):
            if not words and self.size < 4:
                continue
            error = float(np.max(np.abs(self.theirs - value)))
            if error <= self.tolerance and np.max(np.abs(self.ours - value)) > 16 * self.tolerance:
                return Relation((self.unbound,), words or f"all {value:.6g}", error, 1.0)
        return None

    def swapped(self, others: Mapping[str, np.ndarray]) -> Optional[Relation]:
        for other, values in others.items():
            if other == self.name or values.size != self.size:
                continue
            flat = np.asarray(values, dtype=np.float64).ravel()
            error = self.within(flat, self.theirs)
            if error is not None and self.telling(flat, len(others)):
                shape = "" if values.shape == self.shape else f", of the shape {values.shape}"
                return Relation(("parameters swapped",), f"holds {other}{shape}", error, 1.0)
        return None

    def changes(self, others: Mapping[str, np.ndarray]) -> Iterator[tuple[tuple[str, ...], str, np.ndarray]]:
        """Every change of ours alone."""
        yield (self.unbound,), "all zeros", np.zeros_like(self.ours)
        yield (self.unbound,), "all ones", np.ones_like(self.ours)
        places = np.arange(self.size)
        for move in self._moves():
            yield (move.cause,), move.detail, self.ours[move(places)]
        yield (self._negative,), "theirs = -ours", -self.ours
        for other, values in others.items():
            if other != self.name and values.size == self.size:
                yield ("parameters swapped",), f"holds {other}", np.asarray(values, dtype=np.float64).ravel()
        for values, cause, detail in storages(self.ours):
            yield (cause,), detail, values

    def _moves(self) -> list[Move]:
        shape, target = self.shape, self.target
        count = len(shape)
        found = []
        if count == 4 and len(target) == 4:
            for axes, words in (((2,), "rows"), ((3,), "columns"), ((2, 3), "rows and columns")):
                how = f"{words} of the kernel in reverse"
                found.append(Move("kernel flipped", how, reversed_along(shape, axes)))
            if shape[1] == 3:
                for channels in ((2, 1, 0), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1)):
                    how = f"input channels of the kernel in the order {', '.join(map(str, channels))}"
                    found.append(Move("channel order", how, chosen(shape, 1, channels)))
        if 2 <= count <= 4:
            letters = {2: "OI", 3: "OIW", 4: "OIHW"}[count]
            for order in list(permutations(range(count)))[1:]:
                mixed = "".join(letters[axis] for axis in order)
                how = f"{mixed} read as {letters}" if shape == target else f"{mixed} in the shape {target}"
                found.append(Move("kernel transposed", how, written(shape, order)))
                if shape == target:
                    how = f"{letters} read as {mixed}"
                    found.append(Move("kernel transposed", how, read_as(shape, order)))
        return found

    def moved(self) -> Optional[Relation]:
        """Another order of the axes, turned around, or both; also in half the precision."""
        moves = self._moves()
        if not moves or self.size > 1 << 24:
            return None
        points = np.random.default_rng(0).integers(0, self.size, 64)
        wanted = self.theirs[points]
        tolerance = self.tolerance + 2.0**-7 * float(np.max(np.abs(self.ours)))  # that of bfloat16, too
        singles = [(move,) for move in moves]
        pairs = [(a, b) for a in moves for b in moves if {a.cause, b.cause} == {"kernel transposed", "kernel flipped"}]
        everywhere = np.arange(self.size)
        best: Optional[Relation] = None
        for chain in [*singles, *pairs]:
            source = through(chain, points)
            if not np.max(np.abs(self.ours[source] - wanted)) <= tolerance:
                continue
            replay = self.ours[through(chain, everywhere)]
            causes = tuple(move.cause for move in chain)
            detail = "; then ".join(move.detail for move in chain)
            error = self.within(replay, self.theirs)
            # The other order must differ from ours by more than the tolerance, which it does: ours is not within it.
            if error is not None and self.telling(self.theirs, len(singles) + len(pairs)):
                found = Relation(causes, detail, error, 1.0)
            else:
                stored = self.stored(replay)
                if stored is None:
                    continue
                found = Relation((*causes, *stored.causes), f"{detail}; then {stored.detail}", stored.error, 1.0)
            if best is None or len(found.causes) < len(best.causes):
                best = found
            if len(best.causes) == 1:
                break
        return best

    def factor(self) -> Optional[Relation]:
        error = self.within(-self.ours, self.theirs)
        if error is not None and self.telling(self.ours):
            return Relation((self._negative,), "theirs = -ours", error, 1.0)
        factor = ratio(self.ours, self.theirs)
        if not factor:
            return None
        error = float(np.max(np.abs(factor * self.ours - self.theirs)))
        rest = rms(factor * self.ours - self.theirs)
        allowed = max(self.tolerance, 16 * spacing(self.theirs))
        changed = rms(self.ours - self.theirs)
        if error > allowed or rest > 0.2 * changed or not self.telling(self.ours[1:], 4):
            return None
        if factor > 0:
            return Relation(("scale",), factor_in_words(factor), error, 1.0)
        return Relation((self._negative, "scale"), line_in_words(factor, 0), error, 1.0)

    def rows(self) -> Optional[Relation]:
        """The entries of the first axis in another order."""
        if len(self.shape) < 2 or self.shape != self.target or not 2 <= self.shape[0] <= 4096:
            return None
        count = self.shape[0]
        ours, theirs = self.ours.reshape(count, -1), self.theirs.reshape(count, -1)
        matched = matching_rows(ours, theirs, self.tolerance)
        if matched is None:
            return None
        order, error = matched
        changed = [number for number, other in enumerate(order) if number != other]
        if not changed or not self.telling(theirs[changed].ravel(), count):
            return None
        words = ", ".join(f"row {number} is row {order[number]}" for number in changed[:4])
        detail = f"{len(changed)} of {count} rows are others: {words}{', ...' if len(changed) > 4 else ''}"
        return Relation(("codebook rows permuted" if self.codebook else "parameter differs",), detail, error, 1.0)

    def in_memory(self) -> Optional[Relation]:
        """Shifted by some values, or right only up to a place."""
        for by in range(1, min(64, self.size // 4) + 1):
            for ours, theirs, words in (
                (self.ours[by:], self.theirs[:-by], f"value i is value i + {by}"),
                (self.ours[:-by], self.theirs[by:], f"value i is value i - {by}"),
            ):
                if not abs(ours[0] - theirs[0]) <= self.tolerance:
                    continue
                error = self.within(ours, theirs)
                if error is not None and self.telling(ours, 128):
                    return Relation(("reading past a buffer",), words, error, ours.size / self.size)
        cut = cut_short(self.ours[None], self.theirs[None], self.tolerance)
        if cut and self.telling(self.ours[: int(cut.accounted * self.size)], self.size):
            return Relation(cut.causes, cut.detail.replace(" of the batch", ""), cut.error, cut.accounted)
        return None

    def _correlation(self) -> float:
        a, b = self.ours - self.ours.mean(), self.theirs - self.theirs.mean()
        power = math.sqrt(float(a @ a) * float(b @ b))
        return float(a @ b) / power if power else 0.0

    def epoch(self) -> Optional[Relation]:
        """Moved a little everywhere: that is what more training does."""
        difference = self.theirs - self.ours
        if self.size < 16 or rms(difference) <= 2 * self.tolerance:
            return None
        correlation = self._correlation()
        moved = float(np.mean(np.abs(difference) > self.tolerance))
        relative = rms(difference) / max(rms(self.ours), 1e-300)
        if not max(0.5, 4 / math.sqrt(self.size)) < correlation < 0.99999 or moved < 0.5 or relative >= 1:
            return None
        detail = f"{moved:.0%} of the values moved, by {relative:.3g} of their size; correlation {correlation:.5g}"
        return Relation(("parameters of another epoch",), detail, float(np.max(np.abs(difference))), moved)

    def noise(self) -> Optional[Relation]:
        """Like numbers drawn at random, and not like ours."""
        if self.size < 16 or abs(self._correlation()) > min(0.5, 4 / math.sqrt(self.size)):
            return None
        values, ours = self.theirs[: 1 << 16], self.ours[: 1 << 16]
        n = values.size
        mean, deviation = float(values.mean()), float(values.std())
        neighbours = float((values[1:] - mean) @ (values[:-1] - mean)) / max(n * deviation**2, 1e-300)
        if not deviation or abs(neighbours) > 4 / math.sqrt(n):
            return None
        numbers = f"mean {mean:.3g}, standard deviation {deviation:.3g}"
        root = math.sqrt(n)
        if (
            abs(mean) < 4 / root
            and abs(deviation - 1) < 4 / math.sqrt(2 * n)
            and _ks(values, _normal(values)) * root < 1.95
            and (not 0.8 < self.spread < 1.25 or _ks(ours, _normal(ours)) * math.sqrt(ours.size) > 1.95)
        ):
            return Relation((self.unbound,), f"like N(0, 1): {numbers}", 0.0, 1.0)
        # Another training gives uncorrelated numbers of about the size of ours: only what is of another size is told.
        if n < 64 or 0.7 * self.spread < deviation < 1.4 * self.spread:
            return None
        if _ks(values, _normal((values - mean) / deviation)) * root < 1.0:
            return Relation((self.unbound,), f"like normally distributed noise: {numbers}", 0.0, 1.0)
        low, high = float(values.min()), float(values.max())
        if _ks(values, (values - low) / (high - low)) * root < 1.4:
            detail = f"like uniformly distributed noise from {low:.3g} to {high:.3g}"
            return Relation((self.unbound,), detail, 0.0, 1.0)
        return None


def storages(ours: np.ndarray) -> Iterator[tuple[np.ndarray, str, str]]:
    """The values through types of half the size: values, cause, words."""
    with np.errstate(over="ignore"):
        yield ours.astype(np.float16).astype(np.float64), "float16 storage", "rounded to float16"
    bits = ours.astype(np.float32).view(np.uint32)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    for words, add in (("rounded", np.uint32(0x7FFF) + even), ("truncated", np.zeros_like(bits))):
        half = ((bits + add) & np.uint32(0xFFFF0000)).view(np.float32)
        yield half.astype(np.float64), "bfloat16 storage", f"{words} to bfloat16"


def _normal(values: np.ndarray) -> np.ndarray:
    """Distribution function of N(0, 1)."""
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in values.tolist()])


def _ks(values: np.ndarray, probability: np.ndarray) -> float:
    """Largest distance between a distribution function and that of the values (Kolmogorov and Smirnov)."""
    sorted_probability = probability[np.argsort(values, kind="stable")]
    n = len(values)
    steps = np.arange(n + 1) / n
    return float(max(np.max(np.abs(sorted_probability - steps[1:])), np.max(np.abs(sorted_probability - steps[:-1]))))
