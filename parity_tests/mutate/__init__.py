"""Damaged files, made from sound ones by a seed: the same ones on any machine. ``mutations.py`` runs them.

Each function takes a ``random.Random`` and returns what it did, in words, and the damaged bytes. Half of the mutations
know nothing of the format; the other half damage one field of it and make the checksums fit again.
"""

import struct
from collections.abc import Callable
from random import Random

from mutate.arrays import damage_npy, damage_vq, fit_vq, vq_bytes
from mutate.document import damage_json
from mutate.graph import damage_graph
from mutate.jpeg import damage_jpeg
from mutate.png import SIGNATURE, damage_png, exif, png_bytes, png_chunk
from mutate.raw import Mutated, damage_bytes
from mutate.tensors import PARAMS_FORMS, damage_params, params_bytes, reform

__all__ = [
    "FORMS",
    "PARAMS_FORMS",
    "claimed_pixels",
    "exif",
    "fit_vq",
    "mutate",
    "params_bytes",
    "png_bytes",
    "png_chunk",
    "reform",
    "vq_bytes",
]

Damage = Callable[[bytes, Random], Mutated]
FORMS: dict[str, Damage] = {
    "manifest": damage_json,
    "json": damage_graph,
    "params": damage_params,
    "png": damage_png,
    "jpeg": damage_jpeg,
    "npy": damage_npy,
    "vq": damage_vq,
}


def mutate(form: str, data: bytes, other: bytes, random: Random) -> Mutated:
    """Damage a file.

    Args:
        form: one of FORMS.
        data: the sound file.
        other: another sound file, to splice in.
    """
    structured = FORMS[form]
    if random.random() < 0.4:
        whole = reform(data, random.choice(PARAMS_FORMS)) if form == "params" else data
        return damage_bytes(whole, other, random)
    return structured(data, random)


def claimed_pixels(data: bytes) -> int:
    """Pixels that an image file says it has, more than which nobody needs to allocate; 0 if it says none."""
    limit = 178956970
    if data.startswith(SIGNATURE) and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return min(width * height, limit)
    if data.startswith(b"\xff\xd8"):
        most = 0
        for at in range(2, len(data) - 9):
            if data[at] == 0xFF and 0xC0 <= data[at + 1] <= 0xCF:
                height, width = struct.unpack_from(">HH", data, at + 5)
                most = max(most, height * width)
        return min(most, limit)
    return 0
