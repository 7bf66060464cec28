"""The machine's rate of matrix multiplication: no network made of convolutions is faster."""

import importlib.util
from dataclasses import replace
from functools import partial

from vqvae_gluon.bench.inference import time_run
from vqvae_gluon.bench.plan import Bench
from vqvae_gluon.bench.process import started, take_turns
from vqvae_gluon.bench.results import Row
from vqvae_gluon.errors import RuntimeFailure

WORK = "matrix product"
_SIDES, _QUICK_SIDES = (1024, 2048), (512,)
_PRECISIONS = {"torch": ("float32", "bfloat16", "int8"), "numpy": ("float32",)}


def measure(bench: Bench, tick) -> list[Row]:
    """A row for each precision, library that has it, and size."""
    sides = _QUICK_SIDES if bench.settings.quick else _SIDES
    rows = {
        f"{library} {precision} {side}": Row(WORK, 1, library, precision, side=side, gflop=2 * side**3 / 1e9)
        for library, precisions in _PRECISIONS.items()
        if importlib.util.find_spec(library) is not None
        for precision in precisions
        for side in sides
    }
    commands = {
        name: bench.job("matmul", f"matmul-{name}", side=row.side, precision=row.precision, library=row.runtime)
        for name, row in rows.items()
    }
    with started(commands, bench.effort.threads) as processes:
        sound = {}
        for name, process in processes.items():
            try:
                process.wait()
                sound[name] = process
            except RuntimeFailure as failure:
                rows[name] = replace(rows[name], error=str(failure))
        tasks = {name: partial(time_run, process) for name, process in sound.items()}
        for name, times in take_turns(tasks, bench.effort, tick).items():
            rows[name] = replace(rows[name].timed(times), images_per_second=None)
    return list(rows.values())


def rates(rows: list[Row]) -> dict[str, float]:
    """GFLOP/s by precision: the best turn of the best library."""
    found: dict[str, float] = {}
    for row in rows:
        if row.milliseconds_min and row.gflop:
            found[row.precision] = max(found.get(row.precision, 0.0), row.gflop / row.milliseconds_min * 1e3)
    return found
