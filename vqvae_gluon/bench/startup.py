"""From the start of a program to the first reconstructed digit on the disk."""

import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from vqvae_gluon.bench.images import find_pictures
from vqvae_gluon.bench.inference import onnx_model
from vqvae_gluon.bench.plan import Bench, Subject
from vqvae_gluon.bench.process import environment, take_turns
from vqvae_gluon.bench.results import Row
from vqvae_gluon.errors import RuntimeFailure
from vqvae_gluon.runtimes.cpp import find_binary

# What a user of ONNX Runtime would write.
_ONNX = """
import sys
import numpy as np, onnxruntime, PIL.Image
model, picture, output = sys.argv[1:]
pixels = np.asarray(PIL.Image.open(picture), np.float32)
pixels = pixels[None, None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)[None]
codes, result = onnxruntime.InferenceSession(model).run(None, {"data": pixels})
image = np.rint(result[0]).astype(np.uint8)
PIL.Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(output)
"""


def measure(bench: Bench, subject: Subject, tick) -> list[Row]:
    """One row for every program."""
    pictures = find_pictures(subject.bundle.path)
    if not pictures:
        bench.note(f"start-up of {subject.name} is left out: there is no picture beside the bundle")
        return []
    output, runtimes = bench.directory / "started", {peer.runtime for peer in bench.peers()}
    output.mkdir(exist_ok=True)
    bundle, picture = str(subject.bundle.path), str(pictures[0])
    python = [sys.executable, "-m", "vqvae_gluon", "reconstruct", bundle, picture, "--output", str(output)]
    cpp = [str(find_binary()), "--bundle", bundle, "--output", str(output), picture]
    commands = {"cpp": [*cpp, "--engine", "cachedop"], "cpp-fused": [*cpp, "--engine", "fused"], "gluon": python}
    commands = {name: command for name, command in commands.items() if name in runtimes}
    written = output / f"{pictures[0].stem}.png"
    if "onnxruntime" in runtimes:
        model = onnx_model(bench, subject, "float32")
        commands["onnxruntime"] = [sys.executable, "-c", _ONNX, str(model), picture, str(written)]
    rows = {name: Row(f"start-up {subject.name}", 1, name, "float32") for name in commands}
    tasks = {name: partial(_time, name, command, written, bench.effort.threads) for name, command in commands.items()}
    for name, times in take_turns(tasks, replace(bench.effort, seconds=0), tick).items():
        rows[name] = rows[name].timed(times)
    return list(rows.values())


def _time(name: str, command: list[str], written: Path, threads: int, count: int) -> float:
    """Seconds until the file has its name, which is when its inode is changed last."""
    total = 0.0
    for _ in range(count):
        written.unlink(missing_ok=True)
        begin = time.time_ns()
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(threads))
        if result.returncode or not written.is_file():
            raise RuntimeFailure(name, (result.stderr.strip().splitlines() or ["wrote nothing"])[-1])
        total += (written.stat().st_ctime_ns - begin) / 1e9
    return total
