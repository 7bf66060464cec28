"""Changes of values: straight lines, gamma, signed pixels; fitted to two sides, element by element."""

import math
from dataclasses import dataclass
from typing import Optional

import numpy as np

from vqvae_gluon.parity.relations.relation import ratio, rms, spacing, straight_line

_SRGB = 0.04045, 12.92, 0.055, 2.4  # IEC 61966-2-1

# (factor, offset, causes, words) that are tried with exactly these numbers.
_KNOWN = [
    (1 / 127.5, -1, ("scale",), "theirs = ours / 127.5 - 1"),
    (1 / 128, -1, ("scale",), "theirs = ours / 128 - 1"),
    (1 / 128, -127.5 / 128, ("scale",), "theirs = (ours - 127.5) / 128"),
    (2, -1, ("scale",), "theirs = 2 * ours - 1"),
    (127.5, 127.5, ("scale",), "theirs = 127.5 * ours + 127.5"),
    (128, 128, ("scale",), "theirs = 128 * ours + 128"),
    (0.5, 0.5, ("scale",), "theirs = 0.5 * ours + 0.5"),
    (-1, 255, ("inverted",), "theirs = 255 - ours"),
    (-1, 1, ("inverted",), "theirs = 1 - ours"),
    (-1, 0, ("inverted",), "theirs = -ours"),
    (-1 / 255, 1, ("inverted", "scale"), "theirs = 1 - ours / 255"),
    (-255, 255, ("inverted", "scale"), "theirs = 255 * (1 - ours)"),
    (-1 / 127.5, 1, ("inverted", "scale"), "theirs = 1 - ours / 127.5"),
    (-2, 1, ("inverted", "scale"), "theirs = 1 - 2 * ours"),
]


@dataclass(frozen=True)
class Fit:
    """A change of values, and how well its replay met them."""

    causes: tuple[str, ...]
    detail: str
    error: float


class Values:
    """The two sides of some elements, and what the changes of values are measured against.

    Args:
        exact: tolerance of what is only moved.
        loose: tolerance of what is computed.
        channel: number of the channel of each element.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, channel: np.ndarray, exact: float, loose: float):
        self.x, self.y, self.channel, self.exact, self.loose = x, y, channel, exact, loose
        self.apart, self.spread = rms(y - x), float(y.std())
        few = slice(None, None, max(1, x.size >> 16))
        self.kinds, counts = np.unique(x[few], return_counts=True)
        # What repeats one value tells nothing about places.
        self.telling = int(counts.sum() - counts.max()) if counts.size else 0

    def _fits(self, replay: np.ndarray, tolerance: float, x: Optional[np.ndarray] = None) -> Optional[float]:
        difference = self.y - replay
        error = float(np.max(np.abs(difference), initial=0))
        # Where rounding is allowed, what changes little could be met by anything.
        limit = 0.2 * min(self.spread, self.apart if x is None else rms(self.y - x))
        return error if error <= tolerance and rms(difference) <= limit else None

    def moved(self) -> Optional[float]:
        """Largest error if nothing but places was changed."""
        difference = self.y - self.x
        error = float(np.max(np.abs(difference), initial=0))
        if error > self.exact or self.telling < 8 or rms(difference) > 0.2 * self.spread:
            return None
        return error

    def changed(self) -> Optional[Fit]:
        """The simplest change of values."""
        if self.telling < 8 or not self.apart or not self.spread:
            return None
        found = self._linear(self.x)
        if found and len(found.causes) == 1:
            return found
        return self._signed() or found or self._gamma() or self._channels()

    def _linear(self, x: np.ndarray) -> Optional[Fit]:
        y = self.y

        def tried(factor: float, offset: float, causes: tuple[str, ...], words: str, tolerance: float) -> Optional[Fit]:
            error = self._fits(factor * x + offset, tolerance)
            return None if error is None else Fit(causes, words, error)

        factor = ratio(x, y)
        slope, offset = straight_line(x, y)
        if not slope or rms(y - slope * x - offset) > 2 * self.loose:
            return None
        fits = [known for known in _KNOWN if len(known[2]) == 1]
        if factor > 0:
            fits.insert(0, (factor, 0, ("scale",), factor_in_words(factor)))
        if self.kinds.size >= 4 and slope > 0:
            fits.append((slope, offset, ("mean and standard deviation",), line_in_words(slope, offset)))
        if slope < 0:
            fits += [known for known in _KNOWN if len(known[2]) > 1]
            fits.append((factor, 0, ("inverted", "scale"), line_in_words(factor, 0)))
            for full in (255.0, 1.0):
                factor = ratio(full - x, y)
                words = f"theirs = {factor:.6g} * ({full:g} - ours)"
                fits.append((-factor, factor * full, ("inverted", "scale"), words))
            if self.kinds.size >= 4:
                fits.append((slope, offset, ("inverted", "mean and standard deviation"), line_in_words(slope, offset)))
        # Of pixels that were rounded, several may be within 1: one that needs no rounding is the right one.
        exact = max(self.exact, 16 * spacing(y))
        tolerances = [exact]
        if self.loose > exact and self.kinds.size >= 6:
            tolerances.append(self.loose)
        return next(filter(None, (tried(*fit, tolerance) for tolerance in tolerances for fit in fits)), None)

    def _signed(self) -> Optional[Fit]:
        x = as_signed(self.x)
        if x is None or self.y.min() >= 0:
            return None
        words = f"values above {127 * white(self.x) / 255:.4g} are less by {256 * white(self.x) / 255:.4g}"
        error = self._fits(x, self.exact)
        if error is not None:
            return Fit(("signed pixels",), words, error)
        then = self._linear(x)
        return then and Fit(("signed pixels", *then.causes), f"{words}; then {then.detail}", then.error)

    def _gamma(self) -> Optional[Fit]:
        x, y = self.x, self.y
        if x.min() < 0 or y.min() < 0 or self.kinds.size < 6:
            return None
        full = white(x)
        for curve, words in ((to_linear, "from sRGB to linear"), (to_srgb, "from linear to sRGB")):
            curved = curve(x / full)
            error = self._fits(curved * full, self.loose)
            if error is not None:
                return Fit(("gamma",), words, error)
            factor = ratio(curved, y)
            error = self._fits(curved * factor, self.loose, x * (factor / full))
            if error is not None:
                return Fit(("gamma", "scale"), f"{words}; then {factor_in_words(factor / full)}", error)
        safe = np.maximum(x / full, 1e-12)
        logs = np.log(safe)
        strong = (y > 0.1 * y.max()) & (x > 0.02 * full) & (logs < -1e-3)
        if strong.sum() < 8:
            return None
        for given in (full, None):
            fitted = self._power(safe, logs, strong, given)
            if fitted:
                power, scale = fitted
                error = self._fits(np.where(x > 0, scale * safe**power, 0), self.loose, x * (scale / full))
                if error is not None:
                    words = f"theirs = {full:g} * (ours / {full:g}) ** {power:.6g}"
                    if given is not None:
                        return Fit(("gamma",), words, error)
                    return Fit(("gamma", "scale"), f"{words}; then {factor_in_words(scale / full)}", error)
        return None

    def _power(
        self, safe: np.ndarray, logs: np.ndarray, strong: np.ndarray, factor: Optional[float]
    ) -> Optional[tuple[float, float]]:
        """Exponent, and the factor if it is not given: by logarithms, then three steps of Gauss and Newton."""
        x, y = logs[strong], np.log(self.y[strong])
        if factor is not None:
            power, scale = ratio(x, y - math.log(factor)), factor
        else:
            power, scale = (float(value) for value in np.polyfit(x, y, 1))
            scale = math.exp(scale)
        for _ in range(3):
            if not 0.1 < power < 10:
                return None
            curve = safe**power
            slope = scale * curve * logs
            rest = self.y - scale * curve
            if factor is not None:
                power += ratio(slope, rest)
            else:
                step, *_ = np.linalg.lstsq(np.stack([slope, curve], 1), rest, rcond=None)
                power, scale = power + float(step[0]), scale + float(step[1])
        return (power, scale) if 0.1 < power < 10 and abs(power - 1) > 0.02 else None

    def _channels(self) -> Optional[Fit]:
        count = int(self.channel.max()) + 1
        if not 2 <= count <= 4:
            return None
        replay = np.empty_like(self.y)
        factors, offsets = [], []
        for number in range(count):
            here = self.channel == number
            x, y = self.x[here], self.y[here]
            if x.size < 8 or np.unique(x[:: max(1, x.size >> 14)]).size < 4:
                return None
            factor, offset = straight_line(x, y)
            factors.append(factor)
            offsets.append(offset)
            replay[here] = factor * x + offset
            if rms(y - replay[here]) > 0.2 * y.std():
                return None
        error = self._fits(replay, self.loose)
        if error is None or not (min(factors) > 0 or max(factors) < 0):
            return None
        numbers = [", ".join(f"{value:.6g}" for value in values) for values in (factors, offsets)]
        words = f"theirs = ({numbers[0]}) * ours + ({numbers[1]}), channel by channel"
        name = "mean and standard deviation"
        return Fit((name,) if factors[0] > 0 else ("inverted", name), words, error)


def factor_in_words(factor: float) -> str:
    """As a division, if it is one by a whole number."""
    inverse = 1 / factor
    if factor < 1 and abs(inverse - round(inverse)) < 1e-5 * inverse:
        return f"theirs = ours / {round(inverse)}"
    return line_in_words(factor, 0)


def line_in_words(factor: float, offset: float) -> str:
    """A straight line with six digits."""
    if not offset:
        return f"theirs = {factor:.6g} * ours"
    return f"theirs = {factor:.6g} * ours {'+' if offset > 0 else '-'} {abs(offset):.6g}"


def as_signed(x: np.ndarray) -> Optional[np.ndarray]:
    """What becomes of bytes that are read as signed; None if these are none, or none of them changes."""
    full = white(x)
    edge = 127.5 * full / 255
    if x.min() < 0 or x.max() > full * 1.001 or x.max() <= edge:
        return None
    return np.where(x > edge, x - 256 * full / 255, x)


def white(x: np.ndarray) -> float:
    """What white is in these values."""
    return 255.0 if np.max(x, initial=0) > 2 else 1.0


def to_linear(x: np.ndarray) -> np.ndarray:
    """From sRGB, 0..1, to intensities."""
    knee, slope, offset, power = _SRGB
    return np.where(x <= knee, x / slope, ((np.maximum(x, 0) + offset) / (1 + offset)) ** power)


def to_srgb(x: np.ndarray) -> np.ndarray:
    """From intensities, 0..1, to sRGB."""
    knee, slope, offset, power = _SRGB
    return np.where(x <= knee / slope, x * slope, (1 + offset) * np.maximum(x, 0) ** (1 / power) - offset)
