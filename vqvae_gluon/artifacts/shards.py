"""The codes of a folder of images: ``.vq`` shards, and where in them the codes of each image are (docs/bulk.md).

plan.jsonl               which images are encoded together; the first line, as of all of them, says of what
shards/000007-28x28.vq   the codes of the images of one size in part 7
parts/000007.jsonl       what came of each image of part 7; written last, it makes the part done
index.jsonl              the same of all images

The first line of each has the digest of it, and of every shard the digest stands beside its first image: shards have
names alone to tell them from each other, and one that was exchanged for another is as sound as that.
"""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Optional

from vqvae_gluon.artifacts.codes import MAX_FILE_BYTES, Codes, parse_codes
from vqvae_gluon.artifacts.document import without_texts
from vqvae_gluon.errors import InputError
from vqvae_gluon.files import atomic_write, read_file

FORMAT = 2
_OLD_FORMAT = 1  # without digests; such an index is read as it is
PLAN, INDEX = "plan.jsonl", "index.jsonl"
SHARDS, PARTS = "shards", "parts"
SHARD_NAME = re.compile(r"\d{6,}-\d+x\d+(-\d+)?\.vq", re.ASCII)
_MAX_FILE_BYTES = 1 << 34
_MAX_LINE_BYTES = 1 << 16  # of an image
_SHA256 = re.compile("[0-9a-f]{64}")
_NO_DIGEST = "0" * 64  # What stands in the place of a file's own digest while that is computed.


class Header(NamedTuple):
    """What every ``.jsonl`` file of a folder of codes begins with.

    Attributes:
        format: :data:`FORMAT`.
        bundle: ``Bundle.digest`` of the bundle that makes the codes.
        shard_size: images of a part at most.
        file: name of the file that it begins.
        sha256: digest of the file, as it is with 64 zeros here. Both are empty before it is written.
    """

    format: int
    bundle: str
    shard_size: int
    file: str = ""
    sha256: str = ""

    def is_sound(self) -> bool:
        """Whether the values are of these types, and there is a digest where the format has one."""
        if tuple(map(type, self)) != (int, str, int, str, str) or self.shard_size < 1:
            return False
        if self.format == _OLD_FORMAT:
            return self.file == self.sha256 == ""
        return self.format == FORMAT and bool(_SHA256.fullmatch(self.sha256))

    def is_like(self, other: "Header") -> bool:
        """Whether two files are of one run."""
        return self[:3] == other[:3]


class Entry(NamedTuple):
    """What came of one image.

    Attributes:
        name: of its file, below the folder.
        size: of the file in bytes, when it was read.
        modified: when it was last changed before that, in nanoseconds.
        shard: name of the file in :data:`SHARDS`; None if there are no codes.
        position: of its codes in there.
        rejected: why there are no codes.
        sha256: digest of the shard, with the first of its images in each list.
    """

    name: str
    size: int
    modified: int
    shard: Optional[str] = None
    position: Optional[int] = None
    rejected: Optional[str] = None
    sha256: Optional[str] = None

    def is_sound(self) -> bool:
        """Whether the values are of these types, and the names those of files in their folders, not elsewhere."""
        if (type(self.size), type(self.modified)) != (int, int) or not _is_name(self.name):
            return False
        if self.rejected is not None:
            return type(self.rejected) is str and self.shard is self.position is self.sha256 is None
        if type(self.shard) is not str or type(self.position) is not int or self.position < 0:
            return False
        is_digest = self.sha256 is None or (type(self.sha256) is str and bool(_SHA256.fullmatch(self.sha256)))
        return is_digest and bool(SHARD_NAME.fullmatch(self.shard))

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in self._asdict().items() if value is not None}


def _is_name(name: Any) -> bool:
    """Whether it is the name of a file below a folder."""
    if type(name) is not str or not name or "\0" in name or name.startswith("/") or ".." in name.split("/"):
        return False
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # Half of a surrogate pair that stands for no byte.
        return False
    return True


def part_path(directory: Path, number: int) -> Path:
    """Where it is written what came of a part."""
    return Path(directory) / PARTS / f"{number:06d}.jsonl"


def write_lines(path: Path, header: Header, rows: Iterable[Any]) -> None:
    """Write a file of JSON lines, whole or not at all."""
    state, header = hashlib.sha256(), header._replace(file=path.name, sha256=_NO_DIGEST)
    with atomic_write(path) as file:
        for row in itertools.chain([header._asdict()], rows):
            line = json.dumps(row).encode() + b"\n"
            state.update(line)
            file.write(line)
        file.seek(0)
        file.write(json.dumps(header._replace(sha256=state.hexdigest())._asdict()).encode())


def read_lines(path: Path, read_row: Callable[[bytes], Any] = json.loads) -> tuple[Header, list[Any]]:
    """The header and the rows of a file that :func:`write_lines` wrote.

    Args:
        read_row: makes a row of its line. A line that it refuses with ValueError or TypeError is the last that is read.

    Raises:
        InputError: it is missing, or not such a file.
    """
    data = read_file(path, _MAX_FILE_BYTES)
    number, rows = 0, []
    try:
        for number, line in enumerate(data.splitlines(), 1):
            if number == 1:
                header = _read_header(path, line, data)
            else:
                rows.append(read_row(line))
    except (ValueError, TypeError, RecursionError) as error:
        raise _unreadable(path, f"line {number}: {error}") from error
    if not number:
        raise _unreadable(path, "it is empty")
    return header, rows


def _read_header(path: Path, line: bytes, data: bytes) -> Header:
    """The header of a file, if it is of that file as it is."""
    if len(line) > _MAX_LINE_BYTES:
        raise ValueError("it is too long")
    header = Header(**json.loads(line))
    if header.format not in (FORMAT, _OLD_FORMAT):
        raise ValueError(f"its format is {str(header.format)[:100]}, not {FORMAT}")
    if not header.is_sound():
        raise ValueError("it does not say what the file is")
    if header.sha256 and header.file != path.name:
        raise ValueError(f"it is that of {header.file[:100]}")
    if header.sha256:
        state = hashlib.sha256(line.replace(header.sha256.encode(), _NO_DIGEST.encode()))
        state.update(memoryview(data)[len(line) :])
        if state.hexdigest() != header.sha256:
            raise ValueError("its digest does not fit: the file is not as it was written")
    return header


def read_plan(path: Path) -> tuple[Header, list[tuple[str, ...]]]:
    """The header of a plan, and the names of the images of each part; see :func:`read_lines`."""

    def read_row(line: bytes) -> tuple[str, ...]:
        bare = without_texts(line)
        names = json.loads(line) if bare.count(b"[") == 1 and b"{" not in bare else None
        if type(names) is not list or not all(map(_is_name, names)):
            raise ValueError("it is no list of names of images")
        return tuple(names)

    return read_lines(path, read_row)


def read_entries(path: Path) -> tuple[Header, list[Entry]]:
    """The header of an index or of a part, and its images; see :func:`read_lines`."""

    def read_row(line: bytes) -> Entry:
        entry = Entry(**json.loads(line)) if len(line) <= _MAX_LINE_BYTES else None
        if entry is None or not entry.is_sound():
            raise ValueError("it is of no image")
        return entry

    header, entries = read_lines(path, read_row)
    proved: set[Optional[str]] = {None}
    for line, entry in enumerate(entries, 2):
        if entry.sha256 is not None:
            proved.add(entry.shard)
        elif header.format == FORMAT and entry.shard not in proved:
            raise _unreadable(path, f"line {line}: it has no digest of {entry.shard}")
    return header, entries


def shard_digests(entries: Iterable[Entry]) -> dict[str, str]:
    """Digest of each shard that a list has one of."""
    return {entry.shard: entry.sha256 for entry in entries if entry.shard is not None and entry.sha256 is not None}


def with_digests(entries: Iterable[Entry], digests: dict[str, str]) -> list[Entry]:
    """Images with the digest of their shard beside the first of each."""
    left = dict(digests)
    return [entry._replace(sha256=left.pop(entry.shard, None) if entry.shard else None) for entry in entries]


class CodesFolder:
    """The codes of a folder of images, by name.

    Args:
        directory: what ``vqvae-gluon encode-folder`` wrote.

    Attributes:
        bundle: digest of the bundle that made them.
        entries: of every image, by name.

    Raises:
        InputError: it is not whole, or something else.
    """

    def __init__(self, directory: Path):
        self._directory = Path(directory)
        if not (self._directory / INDEX).is_file():
            raise InputError(directory, f"has no {INDEX}; finish it by 'vqvae-gluon encode-folder'")
        header, entries = read_entries(self._directory / INDEX)
        self.bundle = header.bundle
        self.entries = {entry.name: entry for entry in entries}
        self._digests = shard_digests(entries)
        self._last: tuple[Optional[str], Optional[Codes]] = (None, None)

    def codes(self, name: str) -> Codes:
        """The codes of one image, values int32 (1, h, w). The shard that was read last is kept.

        Raises:
            InputError: there is no such image, it was rejected, or its shard is not the one that was written.
        """
        entry = self.entries.get(name)
        if entry is None or entry.shard is None or entry.position is None:
            why = "is not in the index" if entry is None else f"has no codes: it {entry.rejected}"
            raise InputError(self._directory / INDEX, f"{name} {why}")
        path = self._directory / SHARDS / entry.shard
        shard = self._last[1] if self._last[0] == entry.shard else None
        if shard is None:
            data = read_file(path, MAX_FILE_BYTES)
            sha256 = self._digests.get(entry.shard)
            if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
                raise _another(path)
            shard = parse_codes(data, path)
            self._last = (entry.shard, shard)
        if shard.bundle != self.bundle or entry.position >= len(shard.values):
            raise _another(path)
        values = shard.values[entry.position : entry.position + 1]
        return Codes(values, shard.height, shard.width, shard.num_embeddings, shard.bundle)


def _another(path: Path) -> InputError:
    return InputError(path, f"is not the shard that {INDEX} names; encode the folder again")


def _unreadable(path: Path, why: str) -> InputError:
    # Without its plan, nobody knows whose the shards are.
    remedy = "encode the folder into another --output" if path.name == PLAN else "delete it and encode the folder again"
    return InputError(path, f"cannot be read ({why}); {remedy}")
