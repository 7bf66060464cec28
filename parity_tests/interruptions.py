"""Training runs that are killed at random moments and resumed: each must end as one that was not.

python parity_tests/interruptions.py --count 20
"""

import argparse
import itertools
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tensorboardX.proto.event_pb2 import Event
from tqdm import tqdm

from vqvae_gluon.data import load_split
from vqvae_gluon.data.images import write_image
from vqvae_gluon.training import checkpoint

# Everything that has a state, or is random: averages, restarts, clustering, augmentation, schedules, reading ahead.
SETTINGS = """
preset = "mnist"

[model]
restart_below = 0.3

[training]
data = "images"
epochs = 3
batch_size = 32
validation_images = 32
warmup_steps = 5
clip_norm = 0.5
kmeans_images = 64
flip = true
shift = 2

[run]
num_workers = 1
checkpoint_steps = 2
"""
# More than a hundred steps, of which there is a row in a table.
LONG = ("--batch-size", "8", "--epochs", "4", "--checkpoint-steps", "9")
_PATIENCE = 600  # seconds


def make_folder(path: Path, digits: np.ndarray) -> Path:
    """An image folder: 288 digits to train on, 32 to test; and the settings beside it."""
    for split, images in (("train", digits[:288]), ("test", digits[288:320])):
        (path / split).mkdir(parents=True)
        for number, image in enumerate(images):
            write_image(path / split / f"{number:04d}.png", image)
    (path / "settings.toml").write_text(SETTINGS)
    return path


def heed_ctrl_c() -> None:
    """In a new process, before its program: a shell turns Ctrl-C off in what it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(folder: Path, run: Path, *flags: str) -> subprocess.Popen:
    """A training run in a process of its own."""
    command = [sys.executable, "-m", "vqvae_gluon", "train", "--config", folder / "settings.toml", "--data", folder]
    words = [*map(str, [*command, "--output", run, *flags])]
    return interruptible(words)


def interruptible(words: list[str]) -> subprocess.Popen:
    """A program whose errors are read, and that a Ctrl-C ends."""
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c)


def finish(process: subprocess.Popen) -> None:
    """Wait for a run that must succeed."""
    _, errors = process.communicate(timeout=_PATIENCE)
    if process.returncode != 0:
        raise RuntimeError(errors)


def interrupt(folder: Path, run: Path, moment: float) -> bool:
    """Kill a run after ``moment`` seconds and resume it; whether it was killed before its end."""
    process = start(folder, run, *LONG)
    try:
        process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    killed = process.returncode < 0
    finish(start(folder, run, *LONG, *(["--resume"] if (run / "last.npz").exists() else [])))
    return killed


def differences(a: Path, b: Path) -> list[str]:
    """What of two checkpoints is not equal bit for bit: arrays, and what was measured but for seconds."""
    first, second = checkpoint.load(a), checkpoint.load(b)
    names = sorted(first.arrays.keys() | second.arrays.keys())
    found = [name for name in names if not _equal(first.arrays.get(name), second.arrays.get(name))]
    for row, other in zip(first.progress.history, second.progress.history):
        changed = (name for name in row if "second" not in name and row[name] != other[name])
        found += [f"{name} of epoch {row['epoch']}" for name in changed]
    parts = ("epoch", "position", "step", "sums", "counts", "recent", "steps")
    return found + [part for part in parts if getattr(first.progress, part) != getattr(second.progress, part)]


def shown(run: Path) -> dict[tuple[str, int], bytes]:
    """What TensorBoard shows of a run, by name and step, but for seconds: events of before a resumption that come after
    it are gone."""
    found: dict[tuple[str, int], bytes] = {}
    files = filter(None, map(_read_events, (run / "tensorboard").iterdir()))
    for events in sorted(files, key=lambda events: events[0].wall_time):
        for event in events:
            if event.HasField("session_log"):
                found = {place: value for place, value in found.items() if place[1] < event.step}
            for value in event.summary.value:
                if "second" not in value.tag:
                    found[value.tag, event.step] = value.SerializeToString()
    return found


def _read_events(path: Path) -> list[Event]:
    """Those that are whole: of a run that was killed, the last may not be."""
    events: list[Event] = []
    data = path.read_bytes()
    while len(data) >= 8:
        (length,) = struct.unpack("<Q", data[:8])
        if len(data) < 16 + length:
            break
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def _equal(a, b) -> bool:
    return a is not None and b is not None and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20, help="runs that are killed (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as directory:
        folder = make_folder(Path(directory) / "images", load_split("mnist", "test", 1))
        whole = Path(directory) / "whole"
        begin = time.monotonic()
        finish(start(folder, whole, *LONG))
        duration = time.monotonic() - begin
        killed = failing = 0
        with tqdm(total=options.count, unit="run", disable=None) as bar:
            for number in itertools.count():
                run = Path(directory) / str(number)
                moment = moments.uniform(0.1, duration)
                if not interrupt(folder, run, moment):
                    continue  # It had come to its end; another one.
                killed += 1
                bar.update()
                found = [name for last in ("last.npz", "best.npz") for name in differences(whole / last, run / last)]
                found += ["tensorboard"] if shown(whole) != shown(run) else []
                if found:
                    failing += 1
                    print(f"run {number}, killed after {moment:.2f} s of {duration:.2f}: {', '.join(found[:5])} differ")
                if killed == options.count:
                    break
    print(f"{killed} runs killed before their end and resumed; {failing} did not end as the one that was not killed")
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
