"""JSON that is looked over before it is read. The C++ side (cpp_bindings/src/document.cc) follows the same rules."""

import json
from typing import Any, Optional

import numpy as np

from vqvae_gluon.errors import InputError

_MAX_DEPTH = 64
# What a reader may use beside twice the file, and at most uses of it for each bracket, comma or colon.
_SPARE_BYTES = 56 << 20
_ENTRY_BYTES = 96
_OPENING = np.frombuffer(b"[{", np.uint8)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_AT_ONCE = 1 << 16  # brackets
# How files of other kinds begin.
_OTHER_FILES = {
    b"\x12\x01\0\0\0\0\0\0": "a .params file",
    b"PK\x03\x04": "a zip archive, such as an .npz file",
    b"\x93NUMPY": "an .npy file",
    b"version https://git-lfs": "a pointer of Git LFS, which 'git lfs pull' replaces by the file",
}


def file_kind(data: bytes) -> Optional[str]:
    """What a file is that is no JSON, if its first bytes tell."""
    return next((kind for start, kind in _OTHER_FILES.items() if data.startswith(start)), None)


def parse_document(data: bytes, name: object, remedy: str) -> Any:
    """What a JSON text says, if it is no deeper than any of our files, and if a reader does not make more of it than
    three times its size and 64 MiB.

    Args:
        name: what messages call it.
        remedy: where it is a file of another kind.

    Raises:
        InputError: it is not such a text.
    """
    kind = file_kind(data)
    if kind is not None:
        raise InputError(name, f"is no JSON: it is {kind}; {remedy}")
    bare = without_texts(data)
    try:
        if sum(bare.count(mark) for mark in (b"[", b"{", b",", b":")) * _ENTRY_BYTES > 2 * len(data) + _SPARE_BYTES:
            raise ValueError("it holds too many small values")
        if _depth(bare) > _MAX_DEPTH:
            raise ValueError("it is nested too deep")
        document = json.loads(data.decode(), parse_constant=_refuse)
        json.dumps(document, ensure_ascii=False).encode()  # Half of a surrogate pair is no text.
    except (ValueError, RecursionError) as error:
        raise InputError(
            name, f"is not JSON that can be read ({error}); copy the file again and compare its digest"
        ) from error
    return document


def without_texts(data: bytes) -> bytes:
    """The brackets, commas, colons and numbers of a JSON text; of each string the quote that ends it."""
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    characters = np.frombuffer(unescaped, np.uint8)
    return characters[~np.logical_xor.accumulate(characters == ord('"'))].tobytes()


def _depth(bare: bytes) -> int:
    brackets = np.frombuffer(bare.translate(None, _NO_BRACKETS), np.uint8)
    depth = deepest = 0
    for start in range(0, len(brackets), _AT_ONCE):
        opening = np.isin(brackets[start : start + _AT_ONCE], _OPENING)
        depths = depth + np.cumsum(np.where(opening, 1, -1))
        depth, deepest = int(depths[-1]), max(deepest, int(depths.max()))
    return deepest


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is no JSON")
