"""CIFAR-10 (Krizhevsky 2009): the official binary and python versions, and image folders."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import numpy as np

from vqvae_gluon.data.images import find_images
from vqvae_gluon.data.imageset import ArraySet, FolderSet, ImageSet, read_all
from vqvae_gluon.errors import InputError
from vqvae_gluon.files import read_file

BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
BATCH_IMAGES = 10000
CLASSES = 10
_SHAPE = (32, 32, 3)
_PIXELS = 32 * 32 * 3
_MAX_PICKLE_BYTES = 1 << 25  # The official ones have 31 MB.
_REMEDY = (
    "get cifar-10-binary.tar.gz or cifar-10-python.tar.gz of www.cs.toronto.edu/~kriz/cifar.html, unpack it, and give"
    " the directory by --data; or a directory with train/ and test/ with an image file for each picture; of your own"
    " pictures give --dataset images"
)


def open_cifar10(split: str, directory: Optional[Path] = None) -> ImageSet:
    """The pictures of one split, in memory, in the order of the files.

    Args:
        split: ``train`` (50,000) or ``test`` (10,000).
        directory: which holds the batches of one of the official versions, or the directory that these come in, or
            ``train/<class>/`` and ``test/<class>/`` with PNG or JPEG files.

    Raises:
        InputError: there is none of them, or a file is missing, damaged or not of its size.
    """
    if directory is None:
        raise InputError("cifar10", f"is not fetched; {_REMEDY}")
    for folder in (directory, directory / "cifar-10-batches-bin", directory / "cifar-10-batches-py"):
        for suffix, read in ((".bin", _read_binary), ("", _read_pickle)):
            files = [folder / f"{name}{suffix}" for name in BATCHES[split]]
            if any(file.exists() for file in files):
                return ArraySet("cifar10", np.concatenate([_to_images(read(file)) for file in files]))
    if (directory / split).is_dir():
        return _read_folder(directory / split, BATCH_IMAGES * len(BATCHES[split]))
    raise InputError(directory, f"holds no {split} images of CIFAR-10; {_REMEDY}")


def _to_images(rows: np.ndarray) -> np.ndarray:
    """Rows of 3072 values, one channel after the other, as uint8 (N, 32, 32, 3)."""
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _read_binary(path: Path) -> np.ndarray:
    size = BATCH_IMAGES * (1 + _PIXELS)
    data = read_file(path, size, f"; {_REMEDY}")
    rows = np.frombuffer(data, np.uint8)
    if len(data) != size or rows[:: 1 + _PIXELS].max() >= CLASSES:
        raise InputError(path, f"is damaged: it does not hold {BATCH_IMAGES} labels and pictures; {_REMEDY}")
    return rows.reshape(BATCH_IMAGES, 1 + _PIXELS)[:, 1:]


def _read_pickle(path: Path) -> np.ndarray:
    try:
        content = _Unpickler(io.BytesIO(read_file(path, _MAX_PICKLE_BYTES, f"; {_REMEDY}"))).load()
        array = {_text(key): value for key, value in content.items()}["data"]
        return array.rows()
    except InputError:
        raise
    except Exception as error:  # A pickle that is damaged may raise any.
        reason = f"{type(error).__name__}: {error}"
        raise InputError(path, f"is not a batch of CIFAR-10's python version ({reason}); {_REMEDY}") from error


def _text(word: Any) -> str:
    """
    Raises:
        ValueError: it is of another kind, of which even ``str`` may take for ever.
    """
    if isinstance(word, bytes):
        return word.decode("latin-1")
    if not isinstance(word, str):
        raise ValueError("a name in it is no text")
    return word


class _Array:
    """What stands for a NumPy array while a pickle is read: it notes what it is given, and NumPy sees none of it."""

    def __setstate__(self, state: tuple) -> None:
        _, self._shape, self._dtype, self._columns_first, self._data = state

    def rows(self) -> np.ndarray:
        """uint8 (10000, 3072).

        Raises:
            ValueError: it is of another kind.
        """
        data = self._data.encode("latin-1") if isinstance(self._data, str) else self._data
        if not isinstance(self._dtype, _Type) or self._dtype.name not in ("u1", "|u1") or self._columns_first:
            raise ValueError("its pixels are not bytes in rows")
        if self._shape != (BATCH_IMAGES, _PIXELS) or len(data) != BATCH_IMAGES * _PIXELS:
            raise ValueError(f"it does not hold {BATCH_IMAGES} pictures")
        return np.frombuffer(data, np.uint8).reshape(self._shape)


class _Type:
    """The same for a NumPy type."""

    def __init__(self, name: Any, *_: Any):
        self.name = _text(name)

    def __setstate__(self, state: tuple) -> None:
        """Byte order and the like, which bytes do not have."""


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    return text.encode("latin-1")


_KNOWN = {
    "_codecs.encode": _encode,
    "numpy.dtype": _Type,
    "numpy.ndarray": _Array,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
}


# To hash a tuple that holds one tuple twice, which holds one twice ..., takes for ever. So keys are text, and sets, of
# which the official files have none, are not read.
_KEYS = {pickle.SETITEM: slice(-2, -1), pickle.SETITEMS: slice(0, None, 2), pickle.DICT: slice(0, None, 2)}
_LEFT_OUT = (pickle.DUP, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET)
_Load = Callable[[Any], None]


def _with_text_as_keys(load: _Load, keys: slice) -> _Load:
    """What makes entries of a dictionary, of what lies on the stack."""

    def checked(unpickler: Any) -> None:
        if not all(isinstance(key, (str, bytes)) for key in unpickler.stack[keys]):
            raise pickle.UnpicklingError("a key in it is no text")
        load(unpickler)

    return checked


def _dispatch(known: dict[int, _Load]) -> dict[int, _Load]:
    left = {code: load for code, load in known.items() if bytes([code]) not in _LEFT_OUT}
    return {**left, **{code[0]: _with_text_as_keys(left[code[0]], keys) for code, keys in _KEYS.items()}}


class _Unpickler(pickle._Unpickler):
    """Reads nothing but what the official files hold, and calls nothing but the functions above. It is the one that is
    written in Python: that in C reserves as much memory as a damaged file tells it to.
    """

    dispatch = _dispatch(pickle._Unpickler.dispatch)

    def __init__(self, file: io.BytesIO):
        super().__init__(file, encoding="latin-1")

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _KNOWN[f"{module}.{name}"]


def _read_folder(directory: Path, count: int) -> ImageSet:
    files = find_images(directory)
    if len(files) != count:
        raise InputError(directory, f"holds {len(files)} image files instead of {count}; {_REMEDY}")
    folder = FolderSet("cifar10", files, 3)
    if folder.shape != _SHAPE:
        raise InputError(files[0], "is not 32x32; CIFAR-10's are")
    return ArraySet("cifar10", read_all(folder))
