"""Many images to codes: in processes of this machine, or on the workers of a Dask cluster (docs/bulk.md).

A plan cuts the folder into parts before the first image is read. A part is encoded whole by one worker, is done once
its list of images is on the disk, and gives the same bytes whoever encodes it, whenever.
"""

import contextlib
import fcntl
import functools
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
from tqdm import tqdm

from vqvae_gluon.artifacts.bundle import open_bundle
from vqvae_gluon.artifacts.codes import Codes, write_codes
from vqvae_gluon.artifacts.shards import (
    FORMAT,
    INDEX,
    PARTS,
    PLAN,
    SHARD_NAME,
    SHARDS,
    Entry,
    Header,
    part_path,
    read_entries,
    read_plan,
    shard_digests,
    with_digests,
    write_lines,
)
from vqvae_gluon.data.images import SUFFIXES, read_image, walk
from vqvae_gluon.errors import InputError, RuntimeFailure, UsageError, VQVAEError, one_line
from vqvae_gluon.files import is_file_of
from vqvae_gluon.isolation import CRASHED
from vqvae_gluon.limits import BUNDLE_MEMORY, bounding_runs
from vqvae_gluon.runtimes.gluon import Predictor
from vqvae_gluon.temporary import UNFINISHED
from vqvae_gluon.workers import Crash, processor_count, run

SHARD_SIZE = 1024
_PIXELS = 1 << 20  # decoded before they are encoded
_CODES = 1 << 25  # held before they are written
_PRIMITIVES = 32  # that MXNet keeps of each operator. It would keep those of every size of images: gigabytes.
_ATTEMPTS = 3
_CONNECT = "30s"
_RETRIES = 2

# Size and time of change of a file: another one of that name is told by them.
_Stamp = tuple[int, int]
_NO_STAMP = (0, 0)  # An image that is rejected with it differs from its file, so that the next run tries it again.


class Part(NamedTuple):
    """What one worker does at once: images of a folder, by their names in it."""

    bundle: Path
    folder: Path
    output: Path
    header: Header
    number: int
    names: tuple[str, ...]
    memory: Optional[int]


_Results = Generator[tuple[Part, Optional[Exception]], None, None]


@dataclass(frozen=True)
class Outcome:
    """What came of a folder.

    Attributes:
        index: the file that names every image.
        images: how many it names.
        rejected: those without codes.
        failed: whether some of these are not to blame: their workers ended, and a further run tries again.
    """

    index: Path
    images: int
    rejected: list[Entry]
    failed: bool


def encode_folder(
    bundle: Path,
    folder: Path,
    output: Path,
    shard_size: int = SHARD_SIZE,
    jobs: Optional[int] = None,
    cluster: Optional[str] = None,
    memory: Optional[int] = None,
) -> Outcome:
    """Encode every PNG and JPEG file below a folder. What an earlier run has done is not done again.

    Args:
        bundle: directory of the bundle.
        output: directory for the codes (vqvae_gluon/artifacts/shards.py).
        shard_size: images of a part at most.
        jobs: processes, one for each processor when left out.
        cluster: address of a Dask scheduler, to use its workers instead. All of them see the three directories.
        memory: MiB that the tensors of a run may take, see :func:`vqvae_gluon.limits.bounding_runs`.

    Raises:
        InputError: the bundle or the folder was rejected, MXNet crashed before anything was encoded, or the directory
            holds the codes of others.
        RuntimeFailure: there is no such cluster.
        OSError: something cannot be read or written.
    """
    bundle, folder, output = Path(bundle), Path(folder), Path(output)
    header = Header(FORMAT, open_bundle(bundle).digest, shard_size)
    if output.resolve() == folder.resolve():
        raise InputError(output, "is the folder of the images itself; choose another --output")
    found = _scan(folder)
    output.mkdir(parents=True, exist_ok=True)
    with _alone(output):
        parts, waiting, latest = _plan(folder, output, header, found)
        places = (bundle.resolve(), folder.resolve(), output.resolve())
        tasks = [Part(*places, header, number, parts[number], memory) for number in waiting]
        work: Callable[[Sequence[Part]], _Results]
        if cluster is None:
            work = functools.partial(run, encode_part, jobs=jobs or processor_count(), limited=False)
        else:
            work = functools.partial(_run_on_cluster, cluster)
        failures = _finish(tasks, work, sum(map(len, parts)), bundle)
        return _write_index(output, header, parts, failures, latest, found)


def encode_part(part: Part) -> None:
    """Encode the images of a part and write its shards, and after these what came of each image.

    Raises:
        InputError: the bundle was rejected, or is another one.
        OSError: something cannot be written.
    """
    with bounding_runs(part.memory, BUNDLE_MEMORY):
        _encode_part(part)


def _encode_part(part: Part) -> None:
    predictor = _predictor(part.bundle, part.header.bundle)
    entries: list[Entry] = []
    counts: Counter[str] = Counter()
    decoded: dict[str, list[np.ndarray]] = {}
    encoded: dict[str, list[np.ndarray]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    digests: dict[str, str] = {}
    suffix = ""

    def codes_of(images: Sequence[np.ndarray]) -> np.ndarray:
        with _ONE_AT_A_TIME:
            return predictor.encode(np.stack(images))

    def encode() -> None:
        for shard, images in decoded.items():
            encoded.setdefault(shard, []).append(codes_of(images))
        decoded.clear()

    def write() -> None:
        for shard, codes in encoded.items():
            values = Codes(np.concatenate(codes), *sizes[shard], predictor.num_embeddings, predictor.digest)
            digests[shard] = write_codes(part.output / SHARDS / shard, values)
        encoded.clear()

    for name in part.names:
        path = part.folder / name
        stamp = _stamp(path)
        try:
            image = read_image(path, predictor.channels)
        except InputError as error:
            if isinstance(error.__cause__, OSError):  # It may pass.
                stamp = _NO_STAMP
            entries.append(Entry(name, *stamp, rejected=str(error)[len(one_line(f"{path}: ")) :]))
            continue
        alone = None
        if image.size >= _PIXELS:  # What MXNet refuses is told of this image, and keeps no other from being encoded.
            encode()
            try:
                alone = codes_of([image])
            except VQVAEError as error:
                entries.append(Entry(name, *_NO_STAMP, rejected=f"could not be encoded ({error})"))
                continue
        height, width = image.shape[:2]
        shard = f"{part.number:06d}-{width}x{height}{suffix}.vq"
        sizes[shard] = (height, width)
        if alone is None:
            decoded.setdefault(shard, []).append(image)
        else:
            encoded.setdefault(shard, []).append(alone)
        entries.append(Entry(name, *stamp, shard, counts[shard]))
        counts[shard] += 1
        if alone is not None or sum(len(images) * images[0].size for images in decoded.values()) >= _PIXELS:
            encode()
            if sum(codes.size for shard in encoded.values() for codes in shard) >= _CODES:
                write()
                suffix = f"-{len(entries)}"
    encode()
    write()
    rows = (entry.to_json() for entry in with_digests(entries, digests))
    write_lines(part_path(part.output, part.number), part.header, rows)


_ONE_AT_A_TIME = threading.Lock()  # A worker of Dask may have several threads; a CachedOp is of one.


@functools.lru_cache(maxsize=1)
def _predictor(bundle: Path, digest: str) -> Predictor:
    os.environ.setdefault("MXNET_MKLDNN_CACHE_NUM", str(_PRIMITIVES))
    with _ONE_AT_A_TIME:
        predictor = Predictor(open_bundle(bundle))
    if predictor.digest != digest:
        raise InputError(bundle, "is another bundle than the one that the plan was made with; encode with that one")
    return predictor


def _scan(folder: Path) -> dict[str, _Stamp]:
    """The images below a folder, by name."""
    if not folder.is_dir():
        raise InputError(folder, "is no directory; give a directory of images")
    found: dict[str, _Stamp] = {}
    with tqdm(desc="found", unit="image", leave=False, disable=None) as bar:
        for name in walk(folder, SUFFIXES):
            found[name] = _stamp(folder / name)
            bar.update()
    if not found:
        raise InputError(folder, "holds no PNG or JPEG file; give a directory of images")
    return found


def _stamp(path: Path) -> _Stamp:
    try:
        status = os.stat(path)
    except OSError:  # Who reads it finds out why.
        return _NO_STAMP
    return status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """No other run works in this directory meanwhile, where the file system can tell."""
    handle = os.open(output, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(output, "is being written by another run; wait for its end") from error
        except OSError:  # A file system without locks.
            pass
        yield
    finally:
        os.close(handle)


def _plan(
    folder: Path, output: Path, header: Header, found: dict[str, _Stamp]
) -> tuple[list[tuple[str, ...]], list[int], dict[str, int]]:
    """The parts, the numbers of those that are not done, and for each image the last part that has it.

    Images that are new, and rejected ones that have changed since, make new parts at the end. What was written for
    parts that are not done is deleted: a list that is there when its part is encoded again would make it done too soon.
    """
    parts: list[tuple[str, ...]] = []
    planned = header
    for name in (SHARDS, PARTS):
        (output / name).mkdir(exist_ok=True)
        if os.listdir(output / name) and not (output / PLAN).exists():
            raise InputError(output / name, f"holds files, but there is no {PLAN} beside it; choose another --output")
    if (output / PLAN).exists():
        planned, parts = read_plan(output / PLAN)
        if planned.bundle != header.bundle:
            raise InputError(output, "holds codes of another bundle; choose another --output")
        if planned.shard_size != header.shard_size:
            raise InputError(
                output, f"was begun with --shard-size {planned.shard_size}; give the same, or choose another --output"
            )
    latest = {name: number for number, names in enumerate(parts) for name in names}
    shards, waiting = set(os.listdir(output / SHARDS)), []
    used: set[str] = set()
    for number, names in enumerate(tqdm(parts, desc="checked", unit="part", leave=False, disable=None)):
        entries = _entries(part_path(output, number), header, names)
        theirs = shard_digests(entries)
        if not entries or not all(is_file_of(output / SHARDS / shard, sha256) for shard, sha256 in theirs.items()):
            waiting.append(number)
            continue
        used |= theirs.keys()
        for entry in entries:
            if latest.get(entry.name) != number or found.get(entry.name) == (entry.size, entry.modified):
                continue
            if entry.rejected is None:
                raise InputError(
                    folder / entry.name,
                    f"is not as it was encoded into {output}; put it back, or choose another --output",
                )
            del latest[entry.name]
    for shard in shards - used:
        if SHARD_NAME.fullmatch(shard) or shard.startswith(UNFINISHED):
            (output / SHARDS / shard).unlink(missing_ok=True)
    new = sorted(name for name in found if name not in latest)
    for start in range(0, len(new), header.shard_size):
        waiting.append(len(parts))
        parts.append(tuple(new[start : start + header.shard_size]))
        latest.update(dict.fromkeys(parts[-1], len(parts) - 1))
    for number in waiting:
        part_path(output, number).unlink(missing_ok=True)
    if new or planned.format != header.format:
        write_lines(output / PLAN, header, parts)
    return parts, waiting, latest


def _entries(path: Path, header: Header, names: tuple[str, ...]) -> list[Entry]:
    """What came of the images of a part; nothing if it is not done, or the list is that of other images, or of the
    format that had no digests: nobody knows whether its shards are those that were written."""
    if not path.exists():
        return []
    theirs, entries = read_entries(path)
    return entries if theirs.is_like(header) and tuple(entry.name for entry in entries) == names else []


def _finish(
    tasks: Sequence[Part],
    work: Callable[[Sequence[Part]], _Results],
    total: int,
    bundle: Path,
) -> dict[int, Exception]:
    """Have all parts done; those that end their worker once more, after the others, and again. Gives what became of
    those that did so to the end, by their numbers. A crash of the first of all is the bundle's."""
    failures: dict[int, Exception] = {}
    begun = total - sum(len(task.names) for task in tasks)
    is_sound = False
    with tqdm(total=total, initial=begun, desc="encoded", unit="image", leave=False, disable=None) as bar:
        for _ in range(_ATTEMPTS):
            if not tasks:
                break
            failures = {}
            with contextlib.closing(work(tasks)) as results:
                for task, failure in results:
                    if failure is None:
                        bar.update(len(task.names))
                        is_sound = True
                    elif isinstance(failure, Crash) and not is_sound:
                        raise InputError(bundle, CRASHED) from failure
                    elif isinstance(failure, RuntimeFailure):
                        failures[task.number] = failure
                    else:
                        raise failure
            tasks = [task for task in tasks if task.number in failures]
    return failures


def _run_on_cluster(address: str, tasks: Sequence[Part]) -> _Results:
    """What :func:`~vqvae_gluon.workers.run` does, by the workers of a Dask scheduler, which gives the task of a worker
    that ended to another one."""
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise UsageError("--cluster", "needs Dask; install it by pip install -e '.[cluster]'") from error
    try:
        client = Client(address, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RuntimeFailure(address, f"no Dask scheduler answers there ({error})") from error
    with _silent("distributed", "distributed.client"), client:
        futures = {client.submit(encode_part, task, pure=False, retries=_RETRIES): task for task in tasks}
        for future in as_completed(list(futures), loop=client.loop):
            failure: Optional[Exception] = None
            if future.status != "finished":
                failure = future.exception() if future.status == "error" else RuntimeFailure(address, "was lost")
            if failure is not None and not isinstance(failure, (VQVAEError, OSError)):
                failure = RuntimeFailure("worker", f"{type(failure).__name__}: {failure}")
            yield futures.pop(future), failure


@contextlib.contextmanager
def _silent(*names: str) -> Iterator[None]:
    """What these loggers would tell in a page is told in one line, by who uses them."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def _write_index(
    output: Path,
    header: Header,
    parts: Sequence[tuple[str, ...]],
    failures: dict[int, Exception],
    latest: dict[str, int],
    found: dict[str, _Stamp],
) -> Outcome:
    """Name every image that is in the folder, part by part."""
    rejected: list[Entry] = []

    def rows() -> Iterator[dict[str, Any]]:
        for number, names in enumerate(parts):
            if number in failures:
                why = f"is in a part that could not be encoded in {_ATTEMPTS} attempts ({failures[number]})"
                entries = [Entry(name, *found[name], rejected=why) for name in names if name in found]
            else:
                entries = read_entries(part_path(output, number))[1]
            listed = [entry for entry in entries if entry.name in found and latest[entry.name] == number]
            rejected.extend(entry for entry in listed if entry.rejected is not None)
            yield from (entry.to_json() for entry in with_digests(listed, shard_digests(entries)))

    write_lines(output / INDEX, header, rows())
    failed = any(latest[entry.name] in failures for entry in rejected)
    return Outcome(output / INDEX, len(found), rejected, failed)
