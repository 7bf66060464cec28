"""Write the seed corpora of the fuzz targets: small real files, a directory a target.

usage: python cpp_bindings/fuzz/seeds.py DIR
"""

import io
import shutil
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL.Image

from vqvae_gluon.artifacts.parameters import read_parameters
from vqvae_gluon.compat import mx

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "parity_tests"))
from mutate import PARAMS_FORMS, params_bytes

BUNDLE = Path(__file__).resolve().parents[2] / "pretrained" / "mnist"


def write_seeds(directory: Path) -> None:
    """One directory below this one for each target; what is there already stays."""
    for target, files in {
        "parameters": _parameters(directory),
        "graph": {path.name: path.read_bytes() for path in BUNDLE.glob("*-symbol.json")},
        "manifest": {"manifest.json": (BUNDLE / "manifest.json").read_bytes()},
        "npy": _arrays(),
        "codes": _codes(),
        "image": _images(),
    }.items():
        (directory / target).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / target / name).write_bytes(content)


def _parameters(directory: Path) -> dict[str, bytes]:
    """The encoder's tensors, four values of each, in every form; and one of every type."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "parameters.tmp"
    files = {}
    cut = {name: value.reshape(-1)[:4] for name, value in read_parameters(BUNDLE / "encoder-0000.params").items()}
    types = ["float32", "float64", "float16", "uint8", "int32", "int8", "int64"]
    kinds = {f"aux:{kind}": np.arange(6, dtype=kind).reshape(1, 2, 3) for kind in types}
    for name, arrays in (("encoder", cut), ("types", kinds), ("one", {"arg:x": np.float32([1])})):
        mx.nd.save(str(path), {key: mx.nd.array(value, dtype=value.dtype) for key, value in arrays.items()})
        files[name] = path.read_bytes()
    path.unlink()
    small = [(name.encode(), 0, value.shape, value.tobytes()) for name, value in cut.items()]
    small += [(b"bare", 4, (2, 3), np.arange(6, dtype=np.int32).tobytes())]
    return files | {form: params_bytes(small, form) for form in PARAMS_FORMS}


def _arrays() -> dict[str, bytes]:
    files = {}
    for kind in ("uint8", "int32", "float32", "bool"):
        for shape in ((), (5,), (2, 4, 4), (1, 2, 3, 3)):
            file = io.BytesIO()
            np.save(file, np.ones(shape, kind))
            files[f"{kind}-{len(shape)}"] = file.getvalue()
    return files


def _codes() -> dict[str, bytes]:
    """By hand, from the table of the format: a writer that is wrong must not write its own test."""
    files = {}
    for rows, shape in ((64, (1, 7, 7)), (1, (2, 2, 2)), (3, (1, 3, 5)), (512, (1, 2, 2))):
        width = max(1, (rows - 1).bit_length())
        stream = 0
        for index in range(int(np.prod(shape))):
            stream |= index % rows << index * width
        packed = stream.to_bytes((int(np.prod(shape)) * width + 7) // 8, "little")
        count, height, length = shape
        header = struct.pack("<8s32s6I", b"VQCODES1", bytes(32), count, 4 * height, 4 * length, height, length, rows)
        content = header + packed
        files[f"{rows}"] = content + struct.pack("<I", zlib.crc32(content))
    return files


def _images() -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in sorted((BUNDLE / "digits").glob("*.png"))[:2]}
    noise = np.random.default_rng(5).integers(0, 256, (8, 12, 4), dtype=np.uint8)
    picture = PIL.Image.fromarray(noise)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = PIL.Image.fromarray(noise[..., :2].copy().view("<u2")[..., 0]) if mode == "I;16" else None
        image = image or (picture if mode == "RGBA" else picture.convert("RGB").convert(mode))
        files[f"{mode.replace(';', '')}.png"] = _saved(image, "PNG", exif=exif)
    for name, options in {
        "444": {"subsampling": 0},
        "420": {"subsampling": 2},
        "progressive": {"progressive": True, "exif": exif},
        "restart": {"restart_marker_blocks": 1},
    }.items():
        files[f"{name}.jpg"] = _saved(picture.convert("RGB"), "JPEG", **options)
    files["gray.jpg"] = _saved(picture.convert("L"), "JPEG")
    files["cmyk.jpg"] = _saved(picture.convert("CMYK"), "JPEG")
    return files


def _saved(image: PIL.Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    write_seeds(Path(sys.argv[1]))
