"""Commands that write, of both programs, killed by ``kill -9`` at random moments with all their processes, and then run
again: nothing that was there before may be lost or half new, and nothing may be left but what the command writes.

python parity_tests/kills.py --count 100
"""

import argparse
import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
from tqdm import tqdm

from vqvae_gluon.artifacts.bundle import PRETRAINED
from vqvae_gluon.artifacts.trace import INDEX
from vqvae_gluon.data.images import write_image
from vqvae_gluon.runtimes.cpp import find_binary

BUNDLE = PRETRAINED / "mnist"
PYTHON = [sys.executable, "-m", "vqvae_gluon"]
TRAIN = (
    "--dataset",
    "images",
    "--image-channels",
    "1",
    "--epochs",
    "2",
    "--batch-size",
    "16",
    "--hidden-channels",
    "8",
)
_PATIENCE = 600  # seconds
_DIVERGED = 4


@dataclass(frozen=True)
class Command:
    """A command that writes.

    Attributes:
        words: of it, by what it reads, a directory of inputs, and where it writes.
        replaces: it writes over what an earlier run wrote; else it writes into an empty directory, or goes on.
        same: two runs write the same bytes.
        code: that it ends with.
        taken: what must not be there when it begins.
        resume: what is added to go on, if a file of this name is there.
    """

    words: Callable[[Path, Path], list]
    replaces: bool = True
    same: bool = True
    code: int = 0
    taken: str = ""
    resume: Optional[tuple[str, str]] = None


def _cpp(*words: object) -> list:
    return [find_binary(), "--bundle", BUNDLE, *words]


def _python(*words: object) -> list:
    return [*PYTHON, *words]


def _parity(source: Path, out: Path) -> list:
    words = ("parity", BUNDLE, "--candidate-bundle", source / "other", "--candidate", "gluon", "--data", source / "few")
    return _python(*words, "--html", out / "page", "--junit", out / "junit.xml", "--repro", out / "repro")


COMMANDS: dict[str, Command] = {
    "C++ reconstruct": Command(lambda source, out: _cpp("--output", out, "--grid", out / "x.png", source / "images")),
    "C++ codes": Command(lambda source, out: _cpp("--codes", out, source / "images")),
    "C++ decode": Command(lambda source, out: _cpp("--decode", source / "codes.npy", "--output", out)),
    "C++ trace": Command(lambda source, out: _cpp("--trace", out / "trace", "--output", out / "x", source / "few")),
    "encode": Command(lambda source, out: _python("encode", BUNDLE, source / "images", "--output", out)),
    "decode": Command(lambda source, out: _python("decode", BUNDLE, source / "codes.npy", "--output", out)),
    "reconstruct": Command(lambda source, out: _python("reconstruct", BUNDLE, source / "images", "--output", out)),
    "encode-folder": Command(
        lambda source, out: _python("encode-folder", BUNDLE, source / "images", "--output", out, "--jobs", 1),
        replaces=False,
    ),
    "pack": Command(lambda source, out: _python("pack", "--data", source / "split", "--output", out)),
    "export": Command(
        lambda source, out: _python("export", source / "bundle", "--precision", "bfloat16", "--output", out)
    ),
    "train": Command(
        lambda source, out: _python("train", "--data", source / "split", "--output", out, *TRAIN),
        replaces=False,
        same=False,
        resume=("last.npz", "--resume"),
    ),
    "parity record": Command(
        lambda source, out: _python(
            "parity", "record", BUNDLE, "--runtime", "cpp", "--data", source / "few", "--output", out / "trace"
        ),
        replaces=False,
        taken="trace",
    ),
    "parity": Command(_parity, replaces=False, same=False, code=_DIVERGED, taken="repro"),
    "faults": Command(
        lambda _, out: _python("faults", "--model", "residual", "--kind", "eps", "--jobs", 2, "--html", out), same=False
    ),
    "bench": Command(
        lambda _, out: _python("bench", "--quick", "--only", "parity", "--rounds", 1, "--output", out),
        same=False,
    ),
}


def make_inputs(path: Path, seed: int) -> Path:
    """What the commands read."""
    numbers = np.random.default_rng(seed)
    for folder, count in (("images", 60), ("few", 3), ("split/train", 48), ("split/test", 16)):
        (path / folder).mkdir(parents=True)
        for number in range(count):
            write_image(path / folder / f"{number:03d}.png", numbers.integers(0, 256, (28, 28, 1), dtype=np.uint8))
    np.save(path / "codes.npy", numbers.integers(0, 16, (60, 7, 7), dtype=np.int32))
    for name in ("bundle", "other"):
        shutil.copytree(BUNDLE, path / name, ignore=shutil.ignore_patterns("*.png", "*.npz", "digits"))
    symbol = path / "other" / "decoder-symbol.json"
    symbol.write_text(symbol.read_text().replace("sigmoid", "tanh"))
    return path


class Trial:
    """One command in a directory of its own: what a whole run writes, and runs that are killed.

    Args:
        sources: what it reads: before, for what is there already, and then.
    """

    def __init__(self, name: str, directory: Path, sources: tuple[Path, Path]):
        self.name = name
        self.command = COMMANDS[name]
        self._directory = directory
        self._sources = sources
        self._numbers = itertools.count()
        self._wholes: list[dict[str, bytes]] = []
        self.seconds = 0.0

    def kill(self, moments: random.Random) -> tuple[bool, list[str]]:
        """Kill a run and run it again; whether it was killed before its end, and what is wrong."""
        if not self._wholes:
            self._run_whole()
        before, after = self._wholes
        out, temporary = self._fresh()
        if self.command.replaces and moments.random() < 0.5:
            shutil.copytree(self._whole(0), out, dirs_exist_ok=True)
        else:
            before = {}
        process = self._start(self._sources[1], out, temporary)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=moments.uniform(0, self.seconds))
        killed = process.poll() is None
        _kill_group(process)
        found = self._lost(_files(out), before, after)
        if self.command.taken:  # It came to be whole, and the command would refuse to replace it.
            shutil.rmtree(out / self.command.taken, ignore_errors=True)
        error = self._finish(self._start(self._sources[1], out, temporary))
        found += [error] if error else self._left(_files(out), before, after)
        found += [f"{path.name} is left in TMPDIR" for path in temporary.iterdir()]
        found += [f"{path.relative_to(out)} is left" for path in out.rglob(".*")]
        if not found:
            shutil.rmtree(out.parent)
        return killed, [f"{self.name}, {out.parent}: {what}" for what in found]

    def _run_whole(self) -> None:
        for number, source in enumerate(self._sources):
            begin = time.monotonic()
            error = self._finish(self._start(source, self._whole(number), self._fresh()[1]))
            self.seconds = time.monotonic() - begin
            if error:
                raise RuntimeError(f"{self.name}: {error}")
            self._wholes.append(_files(self._whole(number)))

    def _whole(self, number: int) -> Path:
        path = self._directory / f"whole{number}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _fresh(self) -> tuple[Path, Path]:
        place = self._directory / str(next(self._numbers))
        for name in ("out", "tmp"):
            (place / name).mkdir(parents=True)
        return place / "out", place / "tmp"

    def _start(self, source: Path, out: Path, temporary: Path) -> subprocess.Popen:
        words = self.command.words(source, out)
        if self.command.resume is not None and (out / self.command.resume[0]).exists():
            words.append(self.command.resume[1])
        return subprocess.Popen(
            [*map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(temporary)},
            start_new_session=True,
        )

    def _finish(self, process: subprocess.Popen) -> str:
        _, error = process.communicate(timeout=_PATIENCE)
        return "" if process.returncode == self.command.code else f"ended with {process.returncode}: {error.strip()}"

    def _lost(self, found: dict[str, bytes], before: dict[str, bytes], after: dict[str, bytes]) -> list[str]:
        """What is not whole after the kill, or not there any more."""
        shown = {name: content for name, content in found.items() if not _is_hidden(name)}
        if not self.command.same:
            return [f"{name} is lost" for name in before if name not in shown]
        wrong = [name for name, content in shown.items() if content not in (before.get(name), after.get(name))]
        return [f"{name} is not whole" for name in wrong] + [f"{name} is lost" for name in before if name not in shown]

    def _left(self, found: dict[str, bytes], before: dict[str, bytes], after: dict[str, bytes]) -> list[str]:
        """What is not as after a run that was not killed."""
        if not self.command.same:
            return [
                f"{name} is not there after the next run"
                for name in after
                if "events" not in name and name not in found
            ]
        wrong = [name for name, content in after.items() if found.get(name) != content]
        strays = [name for name in found if name not in after and name not in before]
        return [f"{name} is wrong after the next run" for name in wrong] + [f"{name} is a stray" for name in strays]


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def _files(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, but for what two machines, or two moments, write otherwise."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != INDEX
    }


def _kill_group(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="runs that are killed (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS), help="these commands alone")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    directory = Path(tempfile.mkdtemp(prefix="kills-"))
    sources = (make_inputs(directory / "before", 0), make_inputs(directory / "after", 1))
    trials = [Trial(name, directory / name.replace(" ", "-"), sources) for name in options.only]
    killed, wrong = dict.fromkeys(options.only, 0), 0
    with tqdm(total=options.count, unit="run", disable=None) as bar:
        for trial in itertools.cycle(trials):
            was_killed, found = trial.kill(moments)
            for what in found:
                print(what, flush=True)
            wrong += bool(found)
            killed[trial.name] += was_killed  # Else it had come to its end; another one.
            bar.update(was_killed)
            if sum(killed.values()) >= options.count:
                break
    print(", ".join(f"{name} {count}" for name, count in killed.items()))
    print(f"{sum(killed.values())} runs killed before their end and run again; {wrong} lost or left something")
    if not wrong:
        shutil.rmtree(directory)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
