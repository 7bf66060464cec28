"""Damaged files through the real programs: thousands of them, the same ones for the same seed on any machine.

    python parity_tests/mutations.py --count 10000 --seed 0

Whatever a file holds, a program ends in time, by status 0 or 3, within its memory, with one line on standard error if
it refuses, and leaves nothing behind then. Where a digest or a checksum proves the file, a run that ends with 0 gave
what the sound file gives. Where nothing proves it, any pixels will do, but both languages must give the same ones.

The C++ binary is started anew for each file. Python is forked for each from a process that has imported it. This
process stays small, because Linux counts the memory of whoever starts a program as the program's.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import gc
import hashlib
import io
import json
import multiprocessing
import os
import re
import resource
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Optional

from mutate import claimed_pixels, exif, fit_vq, mutate, png_bytes, vq_bytes
from mutate.calls import call_case, find_call, no_call, operators
from mutate.cases import Case, lay_out, python_case, read_codes

ROOT = Path(__file__).resolve().parents[1]
PRETRAINED = ROOT / "pretrained" / "mnist"
BINARY = Path(os.environ.get("VQVAE_RECONSTRUCT", ROOT / "cpp_bindings" / "build" / "reconstruct"))
DIGIT = PRETRAINED / "digits" / "00.png"
BUNDLE_FILES = ["manifest.json"] + [
    f"{half}-{end}" for half in ("encoder", "decoder") for end in ("symbol.json", "0000.params")
]
PROGRAMS = ("cpp", "python")
FLOAT32, INT8 = "float32", "int8"
ENGINES = ("cachedop", "executor", "predict")

CPU_SECONDS = 5.0  # Of processor time, so that a loaded machine fails no run.
WALL_SECONDS = 180  # For one that sleeps.
MEMORY = 64 << 20  # Beyond what the sound file takes, and
MEMORY_PER_BYTE = 3  # of the damaged file, and
MEMORY_PER_PIXEL = 16  # that an image says it has: pixels as RGB, turned, padded and gray, or a JPEG's coefficients.
EXPANDED = 384 << 20  # An .npz file of a few bytes may hold arrays of 64 MiB, of bytes that become floats.
ENCODED = 128 << 20  # A part that is encoded again runs the network.
JUDGED = 256 << 20  # What differs is computed by the arbiter, in float64.
LIMIT = 256  # MiB of tensors, where a graph may ask for what it likes,
BESIDE = 512 << 20  # and what the whole process may take beside that.
ADDRESS_SPACE = 16 << 30  # No run may take the machine down.

# Lines that may stand before the error: a note of the program's own, and MXNet's log, which its operators write.
_NOTE = re.compile(r"reconstruct: note: |\[\d\d:\d\d:\d\d\] ")


@dataclass(frozen=True)
class Kind:
    """What is damaged, and what is run then.

    Attributes:
        form: the file's, as mutate has it; empty of those that Python alone reads.
        run: ``bundle``, ``plain``, ``image`` or ``codes``; of Python alone one of mutate.cases.
        signed: the checks that are no proof of structure, digests and checksums, are made to fit again.
        sound: the status of the sound file.
        statuses: others than 0 and 3 that a damaged one may give; 1 where it lies in the way of what is written.
        memory: that it may take beyond what the sound file takes, and what belongs to the size of the file.
        precision: of the bundle.
    """

    form: str
    run: str
    signed: bool = False
    sound: int = 0
    statuses: tuple[int, ...] = ()
    memory: int = MEMORY
    precision: str = FLOAT32

    @property
    def is_free(self) -> bool:
        """Whether a graph may ask for any memory."""
        return self.run in ("plain", "call") or (self.form == "json" and self.signed)

    @property
    def proved(self) -> bool:
        """Whether a digest or checksum shows every damage."""
        return self.run in ("bundle", "codes", "checkpoint", "npz", "shards", "index") and not self.signed

    @property
    def compared(self) -> bool:
        """Whether both languages must give the same pixels, or both refuse."""
        return self.run in ("image", "codes")

    @property
    def programs(self) -> tuple[str, ...]:
        """Those that read such files."""
        return PROGRAMS if self.form else ("python",)


KINDS = {
    "manifest": Kind("manifest", "bundle"),
    "params": Kind("params", "bundle"),
    "json": Kind("json", "bundle"),
    "signed-params": Kind("params", "bundle", signed=True),
    "signed-json": Kind("json", "bundle", signed=True),
    "plain-params": Kind("params", "plain"),
    "plain-json": Kind("json", "plain"),
    "png": Kind("png", "image"),
    "jpeg": Kind("jpeg", "image"),
    "npy": Kind("npy", "image"),
    "vq": Kind("vq", "codes"),
    "signed-vq": Kind("vq", "codes", signed=True),
    "checkpoint": Kind("", "checkpoint"),
    "signed-checkpoint": Kind("", "checkpoint", signed=True),
    "npz": Kind("", "npz", memory=EXPANDED),
    "signed-npz": Kind("", "npz", signed=True, memory=EXPANDED),
    "toml": Kind("", "settings", sound=3, statuses=(2,)),  # A file of settings that fit leads to a run that is none.
    "trace": Kind("", "compare", statuses=(4,), memory=JUDGED),
    "signed-trace": Kind("", "compare", signed=True, statuses=(4,), memory=JUDGED),
    "shards": Kind("", "shards", statuses=(1,), memory=ENCODED),
    "signed-shards": Kind("", "shards", signed=True, statuses=(1,), memory=ENCODED),
    "index": Kind("", "index"),
    "signed-index": Kind("", "index", signed=True),
    "call": Kind("call", "call"),
}
KINDS.update(
    {
        f"{precision}-{name}": replace(kind, precision=precision)
        for precision in (INT8, "bfloat16")
        for name, kind in KINDS.items()
        if kind.run in ("bundle", "plain") and kind.form != "manifest"
    }
)


@dataclass
class Outcome:
    status: int  # Negative: the signal.
    cpu: float
    memory: int
    error: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)


# What is run.


def _saved(kind: str, **options) -> bytes:
    import PIL.Image

    noise = PIL.Image.frombytes("RGB", (10, 7), Random("noise").getrandbits(8 * 210).to_bytes(210, "little"))
    file = io.BytesIO()
    noise.resize((28, 20), PIL.Image.Resampling.BICUBIC).convert(kind).save(file, format="JPEG", **options)
    return file.getvalue()


@functools.cache
def bundle_of(precision: str) -> dict[str, bytes]:
    """The files of a bundle."""
    if precision == FLOAT32:
        return {name: (PRETRAINED / name).read_bytes() for name in BUNDLE_FILES}
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "vqvae_gluon", "export", str(PRETRAINED), "--precision", precision]
        command += ["--output", directory]
        if precision == INT8:
            images = Path(directory) / "digit.npy"
            images.write_bytes(_npy((1, 28, 28), zlib_pixels(DIGIT.read_bytes())[2]))
            command += ["--data", str(images), "--calibrate", "1"]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        return {name: (Path(directory) / name).read_bytes() for name in BUNDLE_FILES}


class Sound:
    """The files that are damaged.

    Args:
        find_call: gives a call of an operator, as mutate.calls finds it.
    """

    def __init__(self, find_call: Optional[Callable[[str], dict[str, Any]]] = None) -> None:
        self.call = functools.cache(find_call or (lambda operator: PythonServer().find_call(operator)))
        self.bundle = bundle_of(FLOAT32)
        self.digit = DIGIT.read_bytes()
        random = Random("images")
        forms = [(8, 0), (1, 0), (16, 0), (8, 2), (16, 2), (8, 3), (2, 3), (8, 4), (8, 6)]
        self.png = [self.digit, self.digit]
        self.png += [
            png_bytes(13, 11, bits, color, number % 3 == 1, random) for number, (bits, color) in enumerate(forms)
        ]
        turned = b"Exif\0\0" + exif(6)
        self.jpeg = [
            _saved("L", quality=80),
            _saved("RGB", quality=80, subsampling=0),
            _saved("RGB", quality=60, subsampling=2, exif=turned),
            _saved("RGB", quality=80, progressive=True),
            _saved("RGB", quality=80, restart_marker_blocks=1),
            _saved("CMYK", quality=80),
        ]
        self.npy = _npy((1, 28, 28), zlib_pixels(self.digit)[2])
        self.vq = vq_bytes(bytes.fromhex(self.digest()), (1, 28, 28, 7, 7, 64), [n * 5 % 64 for n in range(49)])

    def digest(self) -> str:
        names = ("encoder-symbol.json", "encoder-0000.params", "decoder-symbol.json", "decoder-0000.params")
        return hashlib.sha256(b"".join(hashlib.sha256(self.bundle[name]).digest() for name in names)).hexdigest()

    def pick(self, kind: Kind, random: Random) -> tuple[str, bytes, bytes]:
        """Name of the file to be damaged, its bytes, and others to splice in."""
        bundle = bundle_of(kind.precision)
        if kind.form == "manifest":
            return "manifest.json", bundle["manifest.json"], bundle["encoder-symbol.json"]
        if kind.form in ("json", "params"):
            names = [name for name in BUNDLE_FILES[1:] if name.endswith(kind.form)]
            name = random.choice(names)
            return name, bundle[name], bundle[next(other for other in names if other != name)]
        if kind.form in ("png", "jpeg"):
            images = {"png": self.png, "jpeg": self.jpeg}[kind.form]
            return f"image.{kind.form}", random.choice(images), random.choice(images)
        whole = {"npy": self.npy, "vq": self.vq}[kind.form]
        return f"x.{kind.form}", whole, whole


def _npy(shape: tuple[int, ...], values: bytes) -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + values


def zlib_pixels(data: bytes) -> tuple[int, int, bytes]:
    """Width, height and pixels of a PNG as both programs write them: 8 bits, gray or RGB, not interlaced."""
    width, height, bits, color, _, _, interlaced = struct.unpack_from(">II5B", data, 16)
    if (bits, interlaced) != (8, 0) or color not in (0, 2):
        raise ValueError("a result is neither gray nor RGB")
    packed, at = b"", 33
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += 12 + length
    step = 1 if color == 0 else 3
    rows, size = zlib.decompress(packed), width * step
    out, above = bytearray(), bytes(size)
    for y in range(height):
        kind, row = rows[y * (size + 1)], bytearray(rows[y * (size + 1) + 1 : (y + 1) * (size + 1)])
        for x in range(size):
            a, b, c = row[x - step] if x >= step else 0, above[x], above[x - step] if x >= step else 0
            nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            row[x] = row[x] + (0, a, b, (a + b) // 2, nearest)[kind] & 0xFF
        out += row
        above = bytes(row)
    return width, height, bytes(out)


def make_case(sound: Sound, name: str, number: Optional[int], seed: int) -> Case:
    """Mutation ``number`` of a kind; None for the sound files."""
    kind, random = KINDS[name], Random(f"{seed}/{name}/{number}")
    if not kind.form:
        return python_case(kind.run, kind.signed, random, number is None)
    if kind.run == "call":
        operator = "tanh" if number is None else random.choice(operators())
        return call_case(sound.call(operator), random, number is None, ("--memory", str(LIMIT)))
    bundle = bundle_of(kind.precision)
    target, data, other = sound.pick(kind, random)
    what, damaged = "sound", data
    if number is not None:
        what, damaged = mutate(kind.form, data, other, random)
    elif kind.run == "image":
        target, damaged = "image.png", sound.digit
    if kind.form == "vq" and kind.signed and len(damaged) > 4:
        damaged = fit_vq(damaged)
    files = {f"bundle/{file}": content for file, content in bundle.items()}
    files["digit.png"] = sound.digit
    files[f"bundle/{target}" if target in bundle else target] = damaged
    engine = random.choice(ENGINES)
    if kind.run == "bundle" and kind.signed:
        manifest = json.loads(bundle["manifest.json"])
        manifest["files"][target]["sha256"] = hashlib.sha256(damaged).hexdigest()
        files["bundle/manifest.json"] = json.dumps(manifest).encode()
    if kind.run == "plain":
        half = target.split("-")[0]
        feed, shape = {"encoder": ("data", "1,1,28,28"), "decoder": ("codes", "1,7,7")}[half]
        files["feed.npy"] = {"encoder": _feed("<f4", (1, 1, 28, 28)), "decoder": _feed("<i4", (1, 7, 7))}[half]
        pair = ["--symbol", f"bundle/{half}-symbol.json", "--params", f"bundle/{half}-0000.params"]
        taps = random.choice(["all", "none"])
        words = {
            "cpp": [*pair, "--input", f"{feed}=feed.npy", "--trace", "out", "--engine", engine, "--taps", taps],
            "python": [
                "parity",
                "record",
                *pair,
                "--input",
                f"{feed}:{shape}",
                "--runtime",
                "gluon",
                "--output",
                "out",
            ],
        }
    elif kind.run == "codes":
        words = {
            "cpp": ["--bundle", "bundle", "--decode", target, "--output", "out"],
            "python": ["decode", "bundle", target, "--output", "out"],
        }
    else:
        image = target if kind.run == "image" else "digit.png"
        words = {
            "cpp": ["--bundle", "bundle", "--output", "out", image],
            "python": ["reconstruct", "bundle", image, "--output", "out"],
        }
        if kind.run == "bundle" and kind.signed and number is not None:
            words["cpp"] += ["--engine", engine]
    if kind.is_free:
        for program in PROGRAMS:
            words[program] += ["--memory", str(LIMIT)]
    return Case(what, files, words, damaged)


def _feed(descr: str, shape: tuple[int, ...]) -> bytes:
    count = 1
    for extent in shape:
        count *= extent
    form = {"<f4": "f", "<i4": "i"}[descr]
    header = _npy(shape, b"").replace(b"|u1", descr.encode())
    return header + struct.pack(f"<{count}{form}", *(n % 64 for n in range(count)))


# Running.


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(CPU_SECONDS) + 1, int(CPU_SECONDS) + 2))
    if "VQVAE_SANITIZED" not in os.environ:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def _redirect(directory: Path) -> None:
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        file = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, descriptor)


def _await(pid: int) -> tuple[int, float, int]:
    """Status or negative signal, seconds of processor time, and bytes at the peak, of a child."""
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.alarm(WALL_SECONDS)
    _, status, usage = os.wait4(pid, 0)
    signal.alarm(0)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def _start_binary(words: list[str], work: Path, streams: Path) -> tuple[int, float, int]:
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(work)
            _redirect(streams)
            _limit()
            os.execv(str(BINARY), [str(BINARY), *words])
        finally:
            os._exit(126)
    return _await(pid)


class PythonServer:
    """A process that has imported everything, and forks for every command."""

    def __init__(self) -> None:
        here, there = os.pipe(), os.pipe()
        if os.fork() == 0:
            os.close(here[1])
            os.close(there[0])
            self._serve(os.fdopen(here[0]), os.fdopen(there[1], "w"))
        os.close(here[0])
        os.close(there[1])
        self._requests, self._replies = os.fdopen(here[1], "w"), os.fdopen(there[0])
        self._replies.readline()

    def find_call(self, operator: str) -> dict[str, Any]:
        """A call of an operator (mutate.calls); one that has no shapes where MXNet crashes on all that were tried."""
        print(json.dumps([operator]), file=self._requests, flush=True)
        return json.loads(self._replies.readline()) or no_call(operator)

    def run(self, words: list[str], work: Path, streams: Path) -> tuple[int, float, int]:
        print(json.dumps([words, str(work), str(streams)]), file=self._requests, flush=True)
        status, cpu, memory = json.loads(self._replies.readline())
        return status, cpu, memory

    @staticmethod
    def _serve(requests, replies) -> None:
        sys.path.insert(0, str(ROOT))
        from vqvae_gluon.__main__ import main
        from vqvae_gluon.artifacts import bundle, trace
        from vqvae_gluon.parity import inputs, recorded
        from vqvae_gluon.runtimes import gluon

        del bundle, trace, inputs, recorded, gluon
        gc.freeze()  # A child that collects garbage copies no page of this process.
        print("ready", file=replies, flush=True)
        for line in requests:
            request = json.loads(line)
            if len(request) == 1:
                print(find_call(request[0]), file=replies, flush=True)
                continue
            words, work, streams = request
            pid = os.fork()
            if pid == 0:
                status: Any = 1
                try:
                    os.chdir(work)
                    _redirect(Path(streams))
                    _limit()
                    status = main(words) if words[0] != "read-codes" else _read_codes(*words[1:])
                except SystemExit as stop:
                    status = stop.code
                except BaseException:
                    import traceback

                    traceback.print_exc()
                finally:
                    with contextlib.suppress(BaseException):
                        sys.stdout.flush()
                        sys.stderr.flush()
                    os._exit(status)
            print(json.dumps(_await(pid)), file=replies, flush=True)
        os._exit(0)


def _read_codes(directory: str, path: str) -> int:
    why = read_codes(directory, path)
    if why is not None:
        print(f"vqvae-gluon: error: {why}", file=sys.stderr)
    return 0 if why is None else 3


class Runner:
    """Runs cases in a directory of its own, and keeps what the sound files give."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._sound = Sound(lambda operator: self._python().find_call(operator))
        self._server: Optional[PythonServer] = None
        self._references: dict[tuple[str, str], Outcome] = {}

    def case(self, name: str, number: Optional[int], seed: int) -> Case:
        return make_case(self._sound, name, number, seed)

    def _python(self) -> PythonServer:
        self._server = self._server or PythonServer()
        return self._server

    def run(self, case: Case, program: str) -> Outcome:
        work, streams = self._directory / "work", self._directory
        shutil.rmtree(work, ignore_errors=True)
        lay_out(case, work)
        if program == "cpp":
            ended = _start_binary(case.words["cpp"], work, streams)
        else:
            ended = self._python().run(case.words["python"], work, streams)
        outcome = Outcome(*ended, (streams / "stderr").read_bytes().decode(errors="replace"))
        for path in sorted(work.rglob("*")):
            name = str(path.relative_to(work))
            if path.is_file() and name.startswith("out/"):
                outcome.files[name] = path.read_bytes()
            elif path.is_file() and name not in case.files and name not in case.links:
                outcome.strays.append(name)
        return outcome

    def reference(self, name: str, program: str) -> Outcome:
        if (name, program) not in self._references:
            outcome = self.run(self.case(name, None, 0), program)
            if outcome.status != KINDS[name].sound:
                raise RuntimeError(f"{program}, sound files of {name}: ended with {outcome.status}: {outcome.error}")
            self._references[name, program] = outcome
        return self._references[name, program]

    def judge(self, name: str, number: int, seed: int, programs: tuple[str, ...]) -> list[dict]:
        """What was found of one mutation: a row for each program."""
        kind, case, outcomes, rows = KINDS[name], self.case(name, number, seed), {}, []
        programs = tuple(program for program in programs if program in kind.programs)
        for program in PROGRAMS if kind.compared else programs:
            outcomes[program] = self.run(case, program)
        for program in programs:
            outcome, sound = outcomes[program], self.reference(name, program)
            complaints = list(_complaints(program, kind, case, outcome, sound))
            if len(outcomes) == len(PROGRAMS):
                complaints += _differences(kind, outcomes)
            rows.append(
                {
                    "program": program,
                    "mutation": f"{name}:{number}",
                    "what": case.what,
                    "status": outcome.status,
                    "cpu": outcome.cpu,
                    "memory": outcome.memory - sound.memory,
                    "error": outcome.error,
                    "complaints": complaints,
                }
            )
        return rows


def _complaints(program: str, kind: Kind, case: Case, outcome: Outcome, sound: Outcome) -> Iterator[str]:
    begin = {"cpp": "reconstruct: error: ", "python": "vqvae-gluon: error: "}[program]
    if outcome.status < 0:
        yield f"was ended by signal {-outcome.status} after {outcome.cpu:.1f} s"
    elif outcome.status not in (0, 3, *kind.statuses):
        yield f"ended with status {outcome.status}"
    if outcome.cpu > CPU_SECONDS:
        yield f"took {outcome.cpu:.1f} s of processor time"
    allowed = kind.memory + MEMORY_PER_BYTE * len(case.damaged) + MEMORY_PER_PIXEL * claimed_pixels(case.damaged)
    whole = (LIMIT << 20) + BESIDE
    if "VQVAE_SANITIZED" in os.environ:
        pass
    elif kind.is_free and outcome.memory > whole:
        yield f"took {outcome.memory >> 20} MiB, allowed are {whole >> 20}"
    elif not kind.is_free and outcome.memory - sound.memory > allowed:
        yield f"took {outcome.memory - sound.memory >> 20} MiB more than the sound file, allowed are {allowed >> 20}"
    if "internal error" in outcome.error or "Traceback" in outcome.error:
        yield "does not foresee it"
    if outcome.status in (1, 2, 3):
        lines = [line for line in outcome.error.splitlines() if not _NOTE.match(line)]
        if len(lines) != 1 or not lines[0].startswith(begin):
            yield "does not say in one line why it refuses the file"
        left = [name for name in outcome.files if name not in case.files]
        if left:
            yield f"refuses the file and leaves {', '.join(left)}"
    strays = outcome.strays + [name for name in outcome.files if Path(name).name.startswith(".")]
    if strays:
        yield f"leaves {', '.join(strays)}"
    if outcome.status == 0:
        if kind.run in ("plain", "call"):
            if "out/trace.json" not in outcome.files:
                yield "ends with 0 and no whole trace"
        elif kind.run != "image" and not kind.signed and outcome.files.keys() != sound.files.keys():
            yield f"wrote {', '.join(outcome.files) or 'nothing'}"
        elif kind.proved and outcome.files != sound.files:
            yield "gave another result than the sound file"


def _differences(kind: Kind, outcomes: dict[str, Outcome]) -> Iterator[str]:
    cpp, python = outcomes["cpp"], outcomes["python"]
    if cpp.status != python.status:
        yield f"C++ ends with {cpp.status} ({cpp.error.strip()}), Python with {python.status} ({python.error.strip()})"
    elif not kind.compared:
        return
    elif cpp.files.keys() != python.files.keys():
        yield f"C++ wrote {', '.join(cpp.files)}, Python {', '.join(python.files)}"
    elif any(zlib_pixels(content) != zlib_pixels(python.files[name]) for name, content in cpp.files.items()):
        yield "C++ and Python give different pixels"


# The command.

_runner: Optional[Runner] = None


def _open_runner(directory: str) -> None:
    global _runner
    _runner = Runner(Path(tempfile.mkdtemp(dir=directory)))


def _judge(job: tuple[str, int, int, tuple[str, ...]]) -> list[dict]:
    assert _runner is not None
    return _runner.judge(*job)


def _keep(name: str, number: int, seed: int, directory: Path) -> None:
    """Write the files of one mutation, and say how to run them."""
    case = make_case(Sound(), name, number, seed)
    lay_out(case, directory)
    print(f"{name}:{number}: {case.what}")
    print(f"  cd {shlex.quote(str(directory))}")
    if "cpp" in case.words:
        print(f"  {shlex.join([str(BINARY), *case.words['cpp']])}")
    print(f"  {shlex.join([sys.executable, '-m', 'vqvae_gluon', *case.words['python']])}")


def _tell(row: dict, seed: int) -> None:
    print(f"FAIL {row['program']} {row['mutation']} seed {seed} ({row['what']}): {'; '.join(row['complaints'])}")
    if row["status"] not in (0, 3) or "internal error" in row["error"]:
        print("    " + "\n    ".join(row["error"].strip().splitlines()[-3:]))
    sys.stdout.flush()


def _table(rows: list[dict]) -> str:
    lines = [f"{'kind':14} {'program':8} {'runs':>6} {'exit 0':>7} {'exit 3':>7} {'failing':>8} {'s':>6} {'MiB':>6}"]
    for name in [*KINDS, ""]:
        for program in PROGRAMS:
            found = [
                r for r in rows if r["program"] == program and r["mutation"].startswith(f"{name}:" if name else "")
            ]
            if not found:
                continue
            statuses = [row["status"] for row in found]
            failing = sum(bool(row["complaints"]) for row in found)
            cpu, memory = max(row["cpu"] for row in found), max(row["memory"] for row in found) / 2**20
            lines.append(
                f"{name or 'all':14} {program:8} {len(found):6} {statuses.count(0):7} {statuses.count(3):7} "
                f"{failing:8} {cpu:6.2f} {memory:6.0f}"
            )
    return "\n".join([*lines, "s: most processor time; MiB: most memory beyond the sound file's"])


def _parse(arguments: Optional[list[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], epilog="exit codes: 0 all is as it must be, 1 not"
    )
    parser.add_argument(
        "--count", type=int, default=1000, metavar="N", help="of mutations, over all kinds (default: 1000)"
    )
    parser.add_argument(
        "--first", type=int, default=0, metavar="N", help="leave out so many, to go on with a long run (default: 0)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which mutations (default: 0)")
    parser.add_argument("--program", choices=PROGRAMS, action="append", help="default: both")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        action="append",
        metavar="KIND",
        help=f"of {', '.join(KINDS)}; several times (default: all)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="processes (default: a processor each)",
    )
    parser.add_argument("--only", metavar="KIND:NUMBER", help="this mutation alone")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="with --only: write its files, and say how to run them"
    )
    return parser.parse_args(arguments)


def main(arguments: Optional[list[str]] = None) -> int:
    options = _parse(arguments)
    programs = tuple(options.program or PROGRAMS)
    kinds = options.kind or [name for name, kind in KINDS.items() if set(programs) & set(kind.programs)]
    # The kinds in turn, so that a run that is cut short has seen all of them.
    jobs = [
        (kinds[n % len(kinds)], n // len(kinds), options.seed, programs) for n in range(options.first, options.count)
    ]
    if options.only:
        name, number = options.only.split(":")
        jobs = [(name, int(number), options.seed, programs)]
        if options.keep:
            _keep(name, int(number), options.seed, options.keep)
    os.environ["OMP_NUM_THREADS"] = "1"
    for precision in {KINDS[name].precision for name, *_ in jobs}:
        bundle_of(precision)  # All processes have it.
    memory = Path("/dev/shm")
    rows: list[dict] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(
        prefix="mutations.", dir=memory if os.access(memory, os.W_OK) else None
    ) as directory:
        context = multiprocessing.get_context("fork")
        workers = concurrent.futures.ProcessPoolExecutor(options.jobs, context, _open_runner, (directory,))
        with workers:
            for done, found in enumerate(workers.map(_judge, jobs, chunksize=4 if len(jobs) > 100 else 1), 1):
                rows += found
                for row in found:
                    if row["complaints"]:
                        _tell(row, options.seed)
                if done % 100 == 0 and sys.stderr.isatty():
                    print(f"\r{done} of {len(jobs)}", end="", file=sys.stderr, flush=True)
    print(_table(rows))
    failing = sum(bool(row["complaints"]) for row in rows)
    print(f"{len(rows)} runs in {time.monotonic() - began:.0f} s, {failing} failing")
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
