"""What the parity harness costs beside plain passes of the two runtimes that it compares."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

from vqvae_gluon.bench.images import repeated
from vqvae_gluon.bench.inference import serving, time_run
from vqvae_gluon.bench.plan import Bench, Subject
from vqvae_gluon.bench.process import environment, started, take_turns
from vqvae_gluon.bench.results import Row
from vqvae_gluon.data.images import to_images
from vqvae_gluon.errors import RuntimeFailure

# Images of the short comparison and of the long one: what the second takes longer is the cost of its further images.
_COUNTS, _QUICK_COUNTS = (64, 576), (8, 16)
_ROUNDS = 3
_COMPARED = ("cpp", "gluon")
HARNESS, STARTUP, PLAIN = "parity cpp against gluon", "parity start-up", "plain pass"


def measure(bench: Bench, subject: Subject, tick) -> list[Row]:
    """Rows of the harness for its further images, of its start-up, and of plain passes of so many images."""
    few, many = _QUICK_COUNTS if bench.settings.quick else _COUNTS
    batch = min(many - few, 128)  # What the harness runs at once
    images = bench.images(subject).test
    peers = [peer for peer in bench.peers() if peer.runtime in _COMPARED]
    if len(peers) < 2:
        return []
    path = bench.save("parity-batch", repeated(images, batch))
    commands = {
        peer.runtime: serving(bench, subject, peer, "float32", [path], f"parity-{peer.runtime}") for peer in peers
    }
    rows = []
    with started(commands, bench.effort.threads) as processes:
        for process in processes.values():
            process.wait()
        tasks = {name: partial(time_run, process) for name, process in processes.items()}
        for name, times in take_turns(tasks, bench.effort, tick).items():
            rows.append(Row(f"{PLAIN} {subject.name}", batch, name, "float32").timed(times))
    effort = replace(bench.effort, seconds=0, rounds=min(_ROUNDS, bench.effort.rounds))
    pixels = {count: bench.save(f"parity-{count}", to_images(repeated(images, count))) for count in (few, many)}
    runs = {str(count): partial(_time, bench, subject, str(file)) for count, file in pixels.items()}
    short, whole = take_turns(runs, effort, tick).values()
    each = max(0.0, whole.median - short.median) / (many - few)
    row = Row(f"{HARNESS} {subject.name}", batch, "harness", "float32")
    rows.append(replace(row, milliseconds=each * batch * 1e3, images_per_second=1 / each if each else None))
    rows.append(Row(f"{STARTUP} {subject.name}", few, "harness", "float32").timed(short))
    return rows


def _time(bench: Bench, subject: Subject, data: str, count: int) -> float:
    command = [sys.executable, "-m", "vqvae_gluon", "parity", str(subject.bundle.path), "--candidate", "cpp"]
    command += ["--data", data, "--json"]
    begin = time.perf_counter()
    for _ in range(count):
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment(bench.effort.threads)
        )
        if result.returncode or json.loads(result.stdout)["verdict"] != "agree":
            raise RuntimeFailure("parity", (result.stderr.strip().splitlines() or ["the two do not agree"])[-1])
    return time.perf_counter() - begin
