"""Files that Python alone reads: sound ones, damaged ones, and the words that read them."""

import contextlib
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Optional

from mutate.checkpoints import checkpoint_bytes, damage_checkpoint
from mutate.document import damage_value, dump, paths_of
from mutate.raw import Mutated, damage_bytes, pick
from mutate.toml import TOML, damage_toml
from mutate.zips import damage_members, damage_zip, npy_bytes, zip_bytes

ROOT = Path(__file__).resolve().parents[2]
_PRETRAINED = ROOT / "pretrained" / "mnist"
_MOMENT = 10**18  # When every file was changed last, in nanoseconds: lists of codes name it.
_DIGITS = 3
# What a file may be that is none.
_NO_FILES = ("FIFO", "/dev/zero", "../outside", "nothing", "/dev/null")
Files = dict[str, bytes]


@dataclass
class Case:
    """Files to be laid out, and the words for each program. ``out`` is where results go.

    Attributes:
        links: what is no file: a FIFO, or a link to something.
    """

    what: str
    files: Files
    words: dict[str, list[str]]
    damaged: bytes = b""
    links: dict[str, str] = field(default_factory=dict)


def lay_out(case: Case, work: Path) -> None:
    for name, content in case.files.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(_MOMENT, _MOMENT))
    for name, target in case.links.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if target == "FIFO":
            os.mkfifo(path)
        else:
            path.symlink_to(target)


def _made(files: Files, *words: str) -> Files:
    """What a command makes of files, below ``out``."""
    with tempfile.TemporaryDirectory() as name:
        lay_out(Case("", files, {}), Path(name))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "vqvae_gluon", *words]
        subprocess.run(command, cwd=name, env=environment, check=True, capture_output=True)
        out = Path(name) / "out"
        return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@functools.lru_cache(maxsize=1)
def _images() -> Files:
    digits = sorted((_PRETRAINED / "digits").glob("*.png"))[:_DIGITS]
    return {f"images/{path.name}": path.read_bytes() for path in digits}


@functools.lru_cache(maxsize=1)
def _bundle() -> Files:
    names = ["manifest.json", *(f"{half}-{end}" for half in ("encoder", "decoder") for end in _ENDS)]
    return {f"bundle/{name}": (_PRETRAINED / name).read_bytes() for name in names}


_ENDS = ("symbol.json", "0000.params")


@functools.lru_cache(maxsize=1)
def _trace() -> Files:
    """A recording of the decoder alone."""
    pair = ["--symbol", "bundle/decoder-symbol.json", "--params", "bundle/decoder-0000.params"]
    return _made(
        _bundle(), "parity", "record", *pair, "--input", "codes:1,2,2:int32", "--runtime", "gluon", "--output", "out"
    )


@functools.lru_cache(maxsize=1)
def _codes() -> Files:
    """The folder of codes of some digits, in three parts."""
    words = ("encode-folder", "bundle", "images", "--output", "out", "--shard-size", "1", "--jobs", "1")
    return _made({**_bundle(), **_images()}, *words)


def python_case(run: str, signed: bool, random: Random, is_sound: bool) -> Case:
    """A case of a kind whose files Python alone reads."""
    return _CASES[run](signed, random, is_sound)


def _checkpoint(signed: bool, random: Random, is_sound: bool) -> Case:
    data, other = checkpoint_bytes(1), checkpoint_bytes(2)
    what, damaged = _damage_archive(data, other, signed, random, is_sound, damage_checkpoint)
    return Case(what, {"run/best.npz": damaged}, {"python": ["export", "run", "--output", "out"]}, damaged)


def _npz(signed: bool, random: Random, is_sound: bool) -> Case:
    values = bytes(Random("npz").randrange(64) for _ in range(4 * 784))
    data = zip_bytes(
        [("data.npy", npy_bytes("|u1", (4, 1, 28, 28), values)), ("x.npy", npy_bytes("|u1", (3,), b"abc"))]
    )
    what, damaged = _damage_archive(data, data, signed, random, is_sound, None)
    pair = ["--symbol", "bundle/encoder-symbol.json", "--params", "bundle/encoder-0000.params"]
    fed = ["--input", "data:4,1,28,28", "--data", "x.npz", "--runtime", "gluon", "--output", "out"]
    return Case(what, {**_bundle(), "x.npz": damaged}, {"python": ["parity", "record", *pair, *fed]}, damaged)


def _damage_archive(data: bytes, other: bytes, signed: bool, random: Random, is_sound: bool, fit) -> Mutated:
    """An archive of which a checksum or a digest tells what was done to it; or, ``signed``, one of which none does.

    Args:
        fit: what damages the members under a digest; None where there is none.
    """
    if is_sound:
        return "sound", data
    if signed:
        return fit(data, random) if fit else damage_members(data, other, random)
    choice = random.random()
    if choice < 0.4:
        return damage_bytes(data, other, random)
    if choice < 0.6 and fit:
        return damage_members(data, other, random)
    return damage_zip(data, random)


def _settings(signed: bool, random: Random, is_sound: bool) -> Case:
    what, damaged = "sound", TOML
    if not is_sound:
        structured = random.random() < 0.7
        what, damaged = damage_toml(TOML, random) if structured else damage_bytes(TOML, TOML[::-1], random)
    words = ["train", "--config", "x.toml", "--resume", "--output", "out/run"]
    return Case(what, {"x.toml": damaged}, {"python": words}, damaged)


def _compare(signed: bool, random: Random, is_sound: bool) -> Case:
    sound = _trace()
    candidate, what, damaged = dict(sound), "sound", b""
    links: dict[str, str] = {}
    if not is_sound:
        what, damaged = _damage_trace(candidate, links, signed, random)
    files = {f"a/{name}": content for name, content in sound.items()}
    files.update({f"b/{name}": content for name, content in candidate.items()})
    files["outside"] = next(content for name, content in sound.items() if name.endswith(".npy"))
    links = {f"b/{name}": target for name, target in links.items()}
    return Case(what, files, {"python": ["parity", "compare", "a", "b"]}, damaged, links)


def _damage_trace(files: Files, links: dict[str, str], signed: bool, random: Random) -> Mutated:
    arrays = [name for name in files if name.endswith(".npy")]
    name, index = random.choice(arrays), json.loads(files["trace.json"])
    what = pick(random, "index, index, index, index text, array, array, exchange, drop, link, link, path, path")
    if what == "index":
        what, files["trace.json"] = damage_value(index, random, paths_of(index)), dump(index)
    elif what == "index text":
        what, files["trace.json"] = damage_bytes(files["trace.json"], files[name], random)
    elif what == "array":
        what, files[name] = damage_bytes(files[name], files[random.choice(arrays)], random)
        if signed:
            row = next(row for row in index["nodes"] if row["file"] == name)
            row["sha256"] = hashlib.sha256(files[name][files[name].find(b"\n") + 1 :]).hexdigest()
            files["trace.json"] = json.dumps(index).encode()
    elif what == "exchange":
        other = random.choice(arrays)
        files[name], files[other] = files[other], files[name]
    elif what == "drop":
        del files[random.choice([name, "trace.json"])]
    elif what == "link":
        links[random.choice([name, name, "trace.json"])] = random.choice(_NO_FILES)
    else:
        row = random.choice(index["nodes"])
        row["file"] = random.choice(["../outside", "/dev/zero", "..", ".", "", "a/b.npy", "x\0", "network", "x" * 300])
        what, files["trace.json"] = f"path {row['file'][:20]!r}", json.dumps(index).encode()
    return f"trace: {what} of {name}", files.get("trace.json", b"") + files.get(name, b"")


def _shards(signed: bool, random: Random, is_sound: bool) -> Case:
    words = ["encode-folder", "bundle", "images", "--output", "out", "--shard-size", "1", "--jobs", "1"]
    return _of_codes(signed, random, is_sound, "out", words)


def _index(signed: bool, random: Random, is_sound: bool) -> Case:
    return _of_codes(signed, random, is_sound, "codes", ["read-codes", "codes", "out/codes.json"])


def _of_codes(signed: bool, random: Random, is_sound: bool, place: str, words: list[str]) -> Case:
    codes, what, damaged = dict(_codes()), "sound", b""
    links: dict[str, str] = {}
    if not is_sound:
        what, damaged = _damage_codes(codes, links, signed, random)
    files = {**_bundle(), **_images(), **{f"{place}/{name}": content for name, content in codes.items()}}
    return Case(what, files, {"python": words}, damaged, {f"{place}/{name}": t for name, t in links.items()})


def _damage_codes(files: Files, links: dict[str, str], signed: bool, random: Random) -> Mutated:
    shards = [name for name in files if name.endswith(".vq")]
    lists = [name for name in files if name.endswith(".jsonl")]
    name, shard = random.choice(lists), random.choice(shards)
    what = pick(random, "line, line, lines, text, shard, shard, shard, swap, swap, drop, link")
    if what in ("line", "lines") and name in files:
        lines = files[name].splitlines()
        at = random.randrange(len(lines))
        if what == "line":
            row = [json.loads(lines[at])]
            what, lines[at] = f"{damage_value(row, random, paths_of(row)[:])} of line {at}", dump(row)[1:-1]
        else:
            lines = random.choice([lines[::-1], lines[:-1], lines * 2, [lines[0]], lines[1:], [*lines, b"{}"]])
        files[name] = b"\n".join(lines) + b"\n"
        if signed:
            files[name] = _fit_list(files[name])
    elif what == "text":
        what, files[name] = damage_bytes(files[name], files[shard], random)
    elif what == "shard":
        what, files[shard] = damage_bytes(files[shard], files[random.choice(shards)], random)
    elif what == "swap":
        one, other = random.choice([(random.choice(lists), name), (random.choice(shards), shard)])
        files[one], files[other] = files[other], files[one]
    elif what == "drop":
        del files[random.choice([name, shard])]
    else:
        links[random.choice([name, shard])] = random.choice(_NO_FILES)
    return f"codes: {what} of {name} or {shard}", files.get(name, b"") + files.get(shard, b"")


def _fit_list(data: bytes) -> bytes:
    """A list with the digest that fits, if its first line has a place for one."""
    first, _, rest = data.partition(b"\n")
    with contextlib.suppress(ValueError, AttributeError, TypeError, RecursionError):
        header = json.loads(first)
        text = json.dumps({**header, "sha256": "0" * 64}).encode() + b"\n" + rest
        return json.dumps({**header, "sha256": hashlib.sha256(text).hexdigest()}).encode() + b"\n" + rest
    return data


_CASES = {
    "checkpoint": _checkpoint,
    "settings": _settings,
    "npz": _npz,
    "compare": _compare,
    "shards": _shards,
    "index": _index,
}


def read_codes(directory: str, path: str) -> Optional[str]:
    """Write all codes of a folder of them; or say why they are refused. For the process that has imported the package:
    there is no command that reads single codes."""
    from vqvae_gluon.artifacts.shards import CodesFolder
    from vqvae_gluon.errors import InputError

    try:
        folder = CodesFolder(Path(directory))
        found = {name: folder.codes(name).values.tolist() for name in folder.entries}
    except InputError as error:
        return str(error)
    Path(path).parent.mkdir()
    Path(path).write_text(json.dumps(found))
    return None
