"""Folders of a user's own pictures: which of them are for tests, and how pictures of many sizes become images of one.

Nothing here is random: the same files give the same images, whatever the seed.
"""

import collections
import functools
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from vqvae_gluon.data.images import SUFFIXES, find_images, read_shape, walk
from vqvae_gluon.data.imageset import ArraySet, FolderSet, ImageSet, each_number, read_all, refuse_damaged
from vqvae_gluon.errors import InputError

_SPLITS = ("train", "test")
_TEST_EVERY = 10  # Of a folder that is not split, each tenth picture is for tests.
_FEWEST = 3  # One to train on, one to choose the best epoch, one for tests.
_SMALLEST_SIDE, _LARGEST_SIDE = 16, 128  # That are taken without being asked for.
_FAST_SIDE = 256  # Pictures of one size with a longer side are taken as they are, with a note.
_LISTED = 5
_KEPT_BYTES = 1 << 30  # Resized images that take no more stay in memory: decoding photographs takes long.


class Folder(NamedTuple):
    """A folder's pictures, ready to train on.

    Attributes:
        train, test: the images of each split.
        image_size: side of the square that all were resized to; 0 if they were taken as they are.
        channels: 1 or 3.
        notes: what a user should know of how they were read, a line each.
    """

    train: ImageSet
    test: ImageSet
    image_size: int
    channels: int
    notes: list[str]


def split_files(directory: Path, split: str) -> list[Path]:
    """The pictures of one split, sorted by path: of ``train/`` and ``test/`` if the folder has them. Else every tenth
    picture, and at least the last, is for tests; they are those below ``train/`` if there is one, else those below the
    folder. Hidden files and folders are left out.

    Raises:
        InputError: there are none, or fewer than three to be split.
    """
    if not directory.is_dir():
        raise InputError(directory, "is no directory; give the folder of the pictures by --data")
    if (directory / "test").is_dir():
        if not (directory / split).is_dir():
            raise InputError(directory, "has test/ and no train/; give it both, or neither")
        return _visible(directory / split)
    files = _visible(directory / "train" if (directory / "train").is_dir() else directory)
    if len(files) < _FEWEST:
        raise InputError(
            directory, f"holds {len(files)} pictures; give {_FEWEST} at least: to train, to choose, to test"
        )
    tests = set(range(_TEST_EVERY - 1, len(files), _TEST_EVERY)) or {len(files) - 1}
    return [file for number, file in enumerate(files) if (number in tests) == (split == "test")]


def open_folder(directory: Path, channels: Optional[int], image_size: int, stride: int) -> Folder:
    """The pictures below a directory as images of one size.

    Pictures of one size are taken as they are; where the stride does not divide a side, the last row or column is
    repeated, as ``reconstruct`` does. Of pictures of several sizes each is cut to the square around its middle and
    resized to the shortest side that was found, rounded down to a multiple of the stride, at most 128. One with a side
    below 16 does not decide for all: it is refused.

    Args:
        channels: 1 or 3; None for 1 if all pictures are gray, else 3.
        image_size: cut and resize all pictures to this side; 0 for what is said above.
        stride: of the network.

    Raises:
        InputError: files are damaged, there are none, or one is too small to set the size of all.
    """
    files = {split: split_files(directory, split) for split in _SPLITS}
    every = [*files["train"], *files["test"]]
    try:
        shapes = each_number(functools.partial(_shapes, every), len(every), f"looking at {directory.name}")
    except InputError:
        refuse_damaged(every)
        raise
    sizes = collections.Counter(shape[:2] for shape in shapes)
    channels = channels or max(shape[2] for shape in shapes)
    notes = [_describe(directory, files, sizes)]
    size = image_size
    if not size and len(sizes) > 1:
        smallest, (height, width, _) = min(zip(every, shapes), key=lambda picture: min(picture[1][:2]))
        shortest = min(height, width)
        if all(min(shape[:2]) < stride for shape in shapes):
            raise InputError(
                directory,
                f"holds pictures with sides below {stride}, the network's stride; give fewer --hidden-channels, each "
                f"of which halves the sides, or --image-size {stride}",
            )
        if shortest < max(_SMALLEST_SIDE, stride):
            raise InputError(
                smallest,
                f"is {width}x{height}, and the shortest side would set the size of all {len(every)} pictures; "
                "move it away, or give --image-size N",
            )
        size = min(shortest, _LARGEST_SIDE) // stride * stride
    if size:
        how = f"each is cut to the square around its middle and resized to {size}x{size}"
        if not image_size and shortest <= _LARGEST_SIDE:
            how += f", since {smallest.relative_to(directory)} is {width}x{height}"
        notes.append(how if image_size else f"{how}; --image-size gives another size")
    try:
        train, test = (_open(files[split], channels, size, stride) for split in _SPLITS)
    except InputError:
        refuse_damaged(every)
        raise
    height, width = next(iter(sizes))
    if not size and max(height, width) > _FAST_SIDE:
        notes.append(f"taken as they are, {width}x{height}; --image-size {_LARGEST_SIDE} trains faster")
    if not size and train.shape[:2] != (height, width):
        sides = f"{train.shape[1]}x{train.shape[0]}"
        notes.append(
            f"the last rows and columns are repeated up to {sides}, which the network's stride {stride} divides"
        )
    return Folder(train, test, size, channels, notes)


def _open(files: Sequence[Path], channels: int, size: int, stride: int) -> ImageSet:
    images = FolderSet("images", files, channels, size, stride)
    return ArraySet("images", read_all(images)) if size and len(files) * size**2 * channels <= _KEPT_BYTES else images


def _shapes(files: Sequence[Path], numbers: Iterable[int]) -> list[tuple[int, int, int]]:
    return [read_shape(files[number]) for number in numbers]


def _visible(directory: Path) -> list[Path]:
    """The pictures that are not hidden. Some systems put files with names like ``._1.jpg`` beside pictures."""
    others = _other_files(directory)
    if others and next(walk(directory, SUFFIXES), None) is None:
        raise InputError(directory, f"holds no PNG or JPEG file, but others ({_listed(others)}); convert its pictures")
    files = [file for file in find_images(directory) if not _is_hidden(file.relative_to(directory))]
    if not files:
        raise InputError(directory, "holds hidden PNG and JPEG files alone; give a folder of pictures")
    return files


def _other_files(directory: Path) -> "collections.Counter[str]":
    """How many files that are no pictures there are of each suffix."""
    others: collections.Counter[str] = collections.Counter()
    for _, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if not _is_hidden(Path(name))]
        kinds = (os.path.splitext(name)[1].lower() for name in names if not name.startswith("."))
        others.update(kind or "no suffix" for kind in kinds if kind not in SUFFIXES)
    return others


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _describe(directory: Path, files: dict[str, list[Path]], sizes: "collections.Counter[tuple[int, int]]") -> str:
    """How many pictures there are, of which sizes, in which folders, how they are split, and what was left out."""
    every = [*files["train"], *files["test"]]
    found = sorted(sizes, key=math.prod)
    least, most = (f"{width}x{height}" for height, width in (found[0], found[-1]))
    of = f"of {least}" if len(found) == 1 else f"of {len(found)} sizes from {least} to {most}"
    counts = f"{len(files['train'])} to train on and {len(files['test'])} for tests"
    text = f"{directory}: {len(every)} pictures {of}, {counts}"
    if not (directory / "test").is_dir():
        text += f" (each {_TEST_EVERY}th by name)"
    places = collections.Counter(os.path.relpath(file.parent, directory) for file in every)
    if len(places) > 1:
        text += f"; in {_listed(places)}"
    unused = _beside(directory)
    if unused:
        text += f"; not used: {_listed(unused)}"
    others = _other_files(directory)
    return f"{text}; left out: {_listed(others)}" if others else text


def _beside(directory: Path) -> "collections.Counter[str]":
    """How many pictures lie beside ``train/`` and ``test/``, where those are what is used, in which folders."""
    if not (directory / "train").is_dir():
        return collections.Counter()
    splits = _SPLITS if (directory / "test").is_dir() else ("train",)
    paths = (Path(name) for name in walk(directory, SUFFIXES))
    return collections.Counter(
        str(path.parent) for path in paths if not _is_hidden(path) and path.parts[0] not in splits
    )


def _listed(counts: "collections.Counter[str]") -> str:
    named = [f"{name} {count}" for name, count in counts.most_common(_LISTED)]
    return ", ".join(named) + (f" and {len(counts) - _LISTED} more" if len(counts) > _LISTED else "")
