"""What the C++ side and Gluon cost by batch and by image size, and how nearly that grows with the pixels."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from vqvae_gluon.bench.images import repeated
from vqvae_gluon.bench.inference import serving, time_run
from vqvae_gluon.bench.plan import Bench, Subject
from vqvae_gluon.bench.process import started, take_turns
from vqvae_gluon.bench.results import Results, Row

_BATCHES, _SIDES = (1, 4, 16, 64, 256), (32, 64, 96, 128, 192, 256)
_QUICK_BATCHES, _QUICK_SIDES = (1, 4), (32, 64)
_ROUNDS = 5


@dataclass(frozen=True)
class Fit:
    """A straight line through times by pixels.

    Attributes:
        fixed_milliseconds: of a run of no pixels.
        milliseconds_per_megapixel: of each further one.
        r_squared: share of the times' variance that the line explains.
        exponent: of the power of the pixels that the times grow with; 1 is linear.
    """

    fixed_milliseconds: float
    milliseconds_per_megapixel: float
    r_squared: float
    exponent: float


def measure(bench: Bench, subject: Subject, tick) -> list[Row]:
    """A row for each runtime and each batch of images of side 32, and each side of a single image."""
    images = bench.images(subject).test
    batches, sides = (_QUICK_BATCHES, _QUICK_SIDES) if bench.settings.quick else (_BATCHES, _SIDES)
    arrays = [(f"batches {subject.name}", repeated(images, batch)) for batch in batches]
    for side in sides:  # The same pixels side by side.
        tiles = -(-side // min(images.shape[2:]))
        one = np.tile(images[:1], (1, 1, tiles, tiles))[:, :, :side, :side]
        arrays.append((f"sides {subject.name}", np.ascontiguousarray(one)))
    paths = [bench.save(f"scaling/{number}", array) for number, (_, array) in enumerate(arrays)]
    peers = [peer for peer in bench.peers() if peer.ours]
    commands = {
        peer.runtime: serving(bench, subject, peer, "float32", paths, f"scaling-{peer.runtime}") for peer in peers
    }
    rows = {}
    with started(commands, bench.effort.threads) as processes:
        for process in processes.values():
            process.wait()
        effort = replace(bench.effort, seconds=bench.effort.seconds / 2, rounds=min(_ROUNDS, bench.effort.rounds))
        tasks = {}
        for number, (work, array) in enumerate(arrays):
            for name, process in processes.items():
                key = f"{name} {number}"
                tasks[key] = partial(time_run, process, number=number)
                rows[key] = Row(f"scaling, {work}", len(array), name, "float32", side=array.shape[2])
        for key, times in take_turns(tasks, effort, tick).items():
            rows[key] = rows[key].timed(times)
    return list(rows.values())


def fit(rows: list[Row]) -> Fit:
    """Of the rows of one runtime and one kind."""
    pixels = np.array([row.batch * (row.side or 0) ** 2 for row in rows], float) / 1e6
    times = np.array([row.milliseconds for row in rows], float)
    # By relative error: a line that fits the largest alone says nothing of the others.
    slope, fixed = np.polyfit(pixels, times, 1, w=1 / times)
    rest = np.square(times - (fixed + slope * pixels)).sum()
    spread = np.square(times - times.mean()).sum()
    exponent = np.polyfit(np.log(pixels), np.log(times), 1)[0]
    return Fit(float(fixed), float(slope), float(1 - rest / spread if spread else 1), float(exponent))


def curves(results: Results) -> dict[tuple[str, str], list[Row]]:
    """The rows with times, by work and runtime."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in results.rows("scaling"):
        if row.milliseconds:
            found.setdefault((row.work, row.runtime), []).append(row)
    return {key: rows for key, rows in found.items() if len(rows) > 1}
