"""What the rows say beside each other, and what was aimed at."""

from dataclasses import dataclass
from typing import Optional

from vqvae_gluon.bench import limit, parity, scaling, training
from vqvae_gluon.bench.peers import FLOAT32, PEERS, REDUCED
from vqvae_gluon.bench.results import Results, Row

CPP = tuple(peer.runtime for peer in PEERS if peer.kernels)
TORCH = tuple(peer.runtime for peer in PEERS if peer.runtime.startswith("torch"))
ONNX = ("onnxruntime",)
_TRAINED = ("gluon", training.FUSED)
_AIMED_AT = "reconstruct cifar10"


@dataclass(frozen=True)
class Ratio:
    """One number.

    Attributes:
        name: what is divided by what.
        wanted: the least that it should be, or the most; None where nothing is aimed at.
    """

    name: str
    value: float
    wanted: Optional[float] = None
    most: bool = False

    @property
    def met(self) -> Optional[bool]:
        if self.wanted is None:
            return None
        return self.value <= self.wanted if self.most else self.value >= self.wanted

    @property
    def aim(self) -> str:
        return "" if self.wanted is None else f"at {'most' if self.most else 'least'} {self.wanted:g}"


def ratios(results: Results) -> list[Ratio]:
    """All that the rows allow for."""
    return [*_rates(results), *_training(results), *_startup(results), *_parity(results), *_scaling(results)]


def shares(results: Results) -> dict[int, float]:
    """Of the rows with a count of operations: their share of the machine's rate with such numbers, by ``id(row)``."""
    rates = limit.rates([row for row in results.rows() if row.work == limit.WORK])
    return {
        id(row): row.gflop / row.milliseconds * 1e3 / rates[row.precision]
        for row in results.rows()
        if row.gflop and row.milliseconds and row.precision in rates
    }


def _cpp(results: Results, work: str, batch: int, precision: str) -> Optional[Row]:
    """The row with our operators; where there is none, that with MXNet's."""
    rows = [results.find(work, batch, (name,), precision) for name in reversed(CPP)]
    return next((row for row in rows if row is not None), None)


def _faster(name: str, ours: Optional[Row], theirs: Optional[Row], wanted: Optional[float]) -> list[Ratio]:
    if ours is None or theirs is None or not ours.milliseconds or not theirs.milliseconds:
        return []
    return [Ratio(name, theirs.milliseconds / ours.milliseconds, wanted)]


def _rates(results: Results) -> list[Ratio]:
    found: list[Ratio] = []
    cases = dict.fromkeys((row.work, row.batch) for row in results.rows() if row.work.startswith("reconstruct "))
    for work, batch in cases:
        where = f"{work}, batch {batch}"
        aims = work == _AIMED_AT and batch == 64

        def aim(value: float, holds: bool = aims) -> Optional[float]:
            return value if holds else None

        cpp = _cpp(results, work, batch, FLOAT32)
        if cpp is None:
            continue
        ours = f"{where}: images a second, {cpp.runtime}"
        onnx, torch = results.find(work, batch, ONNX, FLOAT32), results.find(work, batch, TORCH, FLOAT32)
        found += _faster(f"{ours} over onnxruntime, float32", cpp, onnx, aim(1.3))
        found += _faster(f"{ours} over the best torch, float32", cpp, torch, aim(1.7))
        gluon = results.find(work, batch, ("gluon",), FLOAT32)
        found += _faster(f"{ours} over gluon, float32", cpp, gluon, None)
        if batch == 1 and onnx and cpp.milliseconds and onnx.milliseconds:
            wanted = 1.0 if work == _AIMED_AT else None
            name = f"{where}: latency, {cpp.runtime} over onnxruntime, float32"
            found.append(Ratio(name, cpp.milliseconds / onnx.milliseconds, wanted, most=True))
        for precision in REDUCED:
            reduced, theirs = _cpp(results, work, batch, precision), results.find(work, batch, ONNX, precision)
            if reduced is None:
                continue
            is_int8 = precision == "int8"
            names = f"{where}: images a second, {reduced.runtime} {precision} over onnxruntime"
            found += _faster(f"{names} float32", reduced, onnx, aim(2.0) if is_int8 else None)
            found += _faster(f"{names} {precision}", reduced, theirs, aim(1.0) if is_int8 else None)
    return found


def _training(results: Results) -> list[Ratio]:
    found = []
    for work, batch in dict.fromkeys((row.work, row.batch) for row in results.rows("training")):
        ours, theirs = (results.find(work, batch, who, FLOAT32) for who in (_TRAINED, TORCH))
        name = f"{work}, batch {batch}: steps a second, {ours.runtime if ours else ''} over the best torch"
        found += _faster(name, ours, theirs, 1.5)
    return found


def _startup(results: Results) -> list[Ratio]:
    found = []
    for work in dict.fromkeys(row.work for row in results.rows("startup")):
        python, onnx = (results.find(work, 1, (name,), FLOAT32) for name in ("gluon", "onnxruntime"))
        for runtime in CPP:
            cpp = results.find(work, 1, (runtime,), FLOAT32)
            if cpp is None or not cpp.milliseconds:
                continue
            name = f"{work}: seconds to the first image, {runtime}"
            found.append(Ratio(name, cpp.milliseconds / 1e3, 0.25, most=True))
            for whose, other, wanted in (("Python", python, 0.2), ("onnxruntime", onnx, None)):
                if other and other.milliseconds:
                    value = cpp.milliseconds / other.milliseconds
                    found.append(Ratio(f"{name} over {whose}", value, wanted, most=True))
    return found


def _parity(results: Results) -> list[Ratio]:
    found = []
    for row in results.rows("parity"):
        if row.work.startswith(parity.HARNESS) and row.milliseconds:
            subject = row.work[len(parity.HARNESS) + 1 :]
            plain = [one for one in results.rows("parity") if one.work == f"{parity.PLAIN} {subject}"]
            total = sum(one.milliseconds or 0 for one in plain)
            name = f"parity {subject}: seconds for each image, harness over a plain pass of both runtimes"
            found += [Ratio(name, row.milliseconds / total)] if total else []
    return found


def _scaling(results: Results) -> list[Ratio]:
    found = []
    for (work, runtime), rows in scaling.curves(results).items():
        line = scaling.fit(rows)
        found.append(Ratio(f"{work}, {runtime}: exponent of the pixels (1 is linear)", line.exponent))
        found.append(Ratio(f"{work}, {runtime}: R squared of the straight line", line.r_squared))
        found.append(Ratio(f"{work}, {runtime}: milliseconds for each megapixel", line.milliseconds_per_megapixel))
    return found
