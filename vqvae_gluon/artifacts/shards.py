"""The codes of a folder of images: ``.vq`` shards, and where in them the codes of each image are (docs/bulk.md).

plan.jsonl               which images are encoded together; the first line, as of all of them, says of what
shards/000007-28x28.vq   the codes of the images of one size in part 7
parts/000007.jsonl       what came of each image of part 7; written last, it makes the part done
index.jsonl              the same of all images
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Optional

from vqvae_gluon.artifacts.codes import Codes, read_codes
from vqvae_gluon.errors import InputError
from vqvae_gluon.files import atomic_write, read_file

FORMAT = 1
PLAN, INDEX = "plan.jsonl", "index.jsonl"
SHARDS, PARTS = "shards", "parts"
SHARD_NAME = re.compile(r"\d{6,}-\d+x\d+(-\d+)?\.vq", re.ASCII)
_MAX_FILE_BYTES = 1 << 34


class Header(NamedTuple):
    """What every ``.jsonl`` file of a folder of codes begins with.

    Attributes:
        format: :data:`FORMAT`.
        bundle: ``Bundle.digest`` of the bundle that makes the codes.
        shard_size: images of a part at most.
    """

    format: int
    bundle: str
    shard_size: int


class Entry(NamedTuple):
    """What came of one image.

    Attributes:
        name: of its file, below the folder.
        size: of the file in bytes, when it was read.
        modified: when it was last changed before that, in nanoseconds.
        shard: name of the file in :data:`SHARDS`; None if there are no codes.
        position: of its codes in there.
        rejected: why there are no codes.
    """

    name: str
    size: int
    modified: int
    shard: Optional[str] = None
    position: Optional[int] = None
    rejected: Optional[str] = None

    def is_sound(self) -> bool:
        """Whether the values are of these types, and the shard a file of :data:`SHARDS`, not a path to elsewhere."""
        if (type(self.name), type(self.size), type(self.modified)) != (str, int, int):
            return False
        if self.rejected is not None:
            return type(self.rejected) is str and self.shard is self.position is None
        return type(self.shard) is str and bool(SHARD_NAME.fullmatch(self.shard)) and type(self.position) is int

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in self._asdict().items() if value is not None}


def part_path(directory: Path, number: int) -> Path:
    """Where it is written what came of a part."""
    return Path(directory) / PARTS / f"{number:06d}.jsonl"


def write_lines(path: Path, header: Header, rows: Iterable[Any]) -> None:
    """Write a file of JSON lines, whole or not at all."""
    with atomic_write(path) as file:
        for row in (header._asdict(), *rows):
            file.write(json.dumps(row).encode() + b"\n")


def read_lines(path: Path) -> tuple[Header, list[Any]]:
    """The header and the rows of a file that :func:`write_lines` wrote.

    Raises:
        InputError: it is missing, or not such a file.
    """
    try:
        first, *rows = map(json.loads, read_file(path, _MAX_FILE_BYTES).splitlines())
        header = Header(**first)
    except (ValueError, TypeError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error
    if header.format != FORMAT:
        raise _unreadable(path, f"its format is {header.format}, not {FORMAT}")
    if type(header.bundle) is not str or type(header.shard_size) is not int or header.shard_size < 1:
        raise _unreadable(path, "its first line does not say of what it is")
    return header, rows


def read_plan(path: Path) -> tuple[Header, list[tuple[str, ...]]]:
    """The header of a plan, and the names of the images of each part; see :func:`read_lines`."""
    header, rows = read_lines(path)
    for line, row in enumerate(rows, 2):
        if type(row) is not list or not all(type(name) is str for name in row):
            raise _unreadable(path, f"its line {line} is no list of names")
    return header, [tuple(row) for row in rows]


def read_entries(path: Path) -> tuple[Header, list[Entry]]:
    """The header of an index or of a part, and its images; see :func:`read_lines`."""
    header, rows = read_lines(path)
    try:
        entries = [Entry(**row) for row in rows]
    except TypeError as error:
        raise _unreadable(path, str(error)) from error
    for line, entry in enumerate(entries, 2):
        if not entry.is_sound():
            raise _unreadable(path, f"its line {line} is of no image")
    return header, entries


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
        self._last: tuple[Optional[str], Optional[Codes]] = (None, None)

    def codes(self, name: str) -> Codes:
        """The codes of one image, values int32 (1, h, w). The shard that was read last is kept.

        Raises:
            InputError: there is no such image, it was rejected, or its shard is damaged or of another bundle.
        """
        entry = self.entries.get(name)
        if entry is None or entry.shard is None or entry.position is None:
            why = "is not in the index" if entry is None else f"has no codes: it {entry.rejected}"
            raise InputError(self._directory / INDEX, f"{name} {why}")
        path = self._directory / SHARDS / entry.shard
        shard = self._last[1] if self._last[0] == entry.shard else None
        if shard is None:
            shard = read_codes(path)
            self._last = (entry.shard, shard)
        if shard.bundle != self.bundle or not 0 <= entry.position < len(shard.values):
            raise InputError(path, f"is not the shard that {INDEX} names; encode the folder again")
        values = shard.values[entry.position : entry.position + 1]
        return Codes(values, shard.height, shard.width, shard.num_embeddings, shard.bundle)


def _unreadable(path: Path, why: str) -> InputError:
    # Without its plan, nobody knows whose the shards are.
    remedy = "encode the folder into another --output" if path.name == PLAN else "delete it and encode the folder again"
    return InputError(path, f"cannot be read ({why}); {remedy}")
