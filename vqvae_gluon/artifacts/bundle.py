"""Bundles: directories with everything a runtime needs (docs/architecture.md, "The bundle")."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional, Union

from vqvae_gluon.artifacts.document import parse_document
from vqvae_gluon.artifacts.quantize import FLOAT32, PRECISIONS
from vqvae_gluon.compat import mx
from vqvae_gluon.config import Config, ModelConfig
from vqvae_gluon.errors import InputError, VQVAEError
from vqvae_gluon.files import digest, sync
from vqvae_gluon.temporary import temporary_directory

FORMAT = 1
MANIFEST = "manifest.json"
STAGES = ("encoder", "decoder")
GRAPH_INPUTS = {"encoder": "data", "decoder": "codes"}
PRETRAINED = Path(__file__).resolve().parents[2] / "pretrained"
_MAX_MANIFEST_BYTES = 1 << 20
COPY_BUNDLE = "copy the whole bundle again; if it was changed where it was made, export it there again"
_OF_ANOTHER_VERSION = "use the version of vqvae-gluon that wrote it, or copy the whole bundle again"


@dataclass(frozen=True)
class GraphFiles:
    """One exported network: Gluon's pair of files.

    Attributes:
        of_bundle: they belong to a bundle, whose graphs may hold fewer operators.
    """

    symbol: Path
    params: Path
    of_bundle: bool = False


@contextlib.contextmanager
def named(part: GraphFiles, whole: GraphFiles) -> Iterator[None]:
    """What is wrong with a part of a network, or with another form of it, is wrong with the network: errors name the
    network's files."""
    try:
        yield
    except VQVAEError as error:
        for ours, theirs in ((part.symbol, whole.symbol), (part.params, whole.params)):
            error.args = tuple(str(word).replace(str(ours), str(theirs)) for word in error.args)
        raise


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose manifest has been read."""

    path: Path
    manifest: dict[str, Any]

    @property
    def config(self) -> Config:
        """What was trained, and how.

        Raises:
            InputError: this version does not know such a config.
        """
        try:
            return Config.from_json(self.manifest["config"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                self.path / MANIFEST, f"is not a sound manifest ({error}); {_OF_ANOTHER_VERSION}"
            ) from error

    @property
    def channels(self) -> int:
        """Of an image, 1 or 3."""
        return int(self.manifest["input"]["channels"])

    @property
    def stride(self) -> int:
        """Image pixels for each latent pixel and side."""
        return int(self.manifest["input"]["stride"])

    @property
    def num_embeddings(self) -> int:
        """Rows of the codebook."""
        return int(self.manifest["codes"]["num_embeddings"])

    @property
    def precision(self) -> str:
        """What its layers compute in: ``float32``, ``bfloat16`` or ``int8``.

        Raises:
            InputError: this version does not know it.
        """
        found = self.manifest.get("precision", FLOAT32)
        if found not in PRECISIONS:
            raise InputError(
                self.path / MANIFEST, f"is of the unknown precision {str(found)[:40]!r}; {_OF_ANOTHER_VERSION}"
            )
        return str(found)

    @property
    def digest(self) -> str:
        """SHA-256 of the SHA-256 digests of the four files, hexadecimal: what codes remember of their bundle."""
        digests = (bytes.fromhex(digest(self.path / name)) for name in file_names())
        return hashlib.sha256(b"".join(digests)).hexdigest()

    def graph(self, stage: str) -> GraphFiles:
        """The files of the ``encoder`` or the ``decoder``."""
        return replace(graph_files(self.path, stage), of_bundle=True)

    def damage(self) -> Optional[str]:
        """What of the files is not as the manifest says: one line naming the file, or None."""
        for name, wanted in self.manifest["files"].items():
            path = self.path / name
            if not path.is_file():
                return f"{path}: is missing"
            if digest(path) != wanted["sha256"]:
                return f"{path}: its SHA-256 is not the manifest's"
        return None


def graph_files(directory: Path, stage: str) -> GraphFiles:
    """Where a bundle keeps the graph of a stage."""
    return GraphFiles(Path(directory) / f"{stage}-symbol.json", Path(directory) / f"{stage}-0000.params")


def find_export(target: Union[str, Path], inputs: Sequence[str] = ()) -> GraphFiles:
    """The files of a plain export, by its prefix or symbol file; of a bundle the graph that has these inputs.

    Raises:
        InputError: there is none.
    """
    path = Path(target)
    if (path / MANIFEST).is_file():
        found = [stage for stage, name in GRAPH_INPUTS.items() if [name] == list(inputs)]
        if not found:
            raise InputError(path, f"has no graph with the inputs {', '.join(inputs)}; its graphs take data, or codes")
        return graph_files(path, found[0])
    prefix = str(path)[: -len("-symbol.json")] if path.name.endswith("-symbol.json") else str(path)
    params = sorted(path.parent.glob(f"{Path(prefix).name}-[0-9][0-9][0-9][0-9].params"))
    if not Path(f"{prefix}-symbol.json").is_file() or not params:
        raise InputError(
            target,
            f"is no export: {prefix}-symbol.json or {prefix}-0000.params is missing; "
            "give the prefix that net.export(prefix) had, or its -symbol.json",
        )
    return GraphFiles(Path(f"{prefix}-symbol.json"), params[-1])


def file_names() -> list:
    """The files of a bundle beside its manifest."""
    pairs = (graph_files(Path(), stage) for stage in STAGES)
    return [str(path) for pair in pairs for path in (pair.symbol, pair.params)]


def open_bundle(path: Path, verify: bool = True) -> Bundle:
    """Open a bundle.

    Args:
        verify: compare every file with its digest in the manifest.

    Raises:
        InputError: there is no bundle, its manifest is not sound, or a file is not the one the manifest describes.
    """
    path = Path(path)
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise InputError(
            path, f"is not a bundle: it has no {MANIFEST}; give a directory that 'vqvae-gluon export' wrote"
        )
    if manifest_path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise InputError(manifest_path, f"is too large for a manifest; {COPY_BUNDLE}")
    manifest = parse_document(manifest_path.read_bytes(), manifest_path, COPY_BUNDLE)
    try:
        _check_manifest(manifest)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(manifest_path, f"is not a sound manifest ({error}); {COPY_BUNDLE}") from error
    bundle = Bundle(path, manifest)
    damage = bundle.damage() if verify else None
    if damage:
        file, why = damage.split(": ", 1)
        raise InputError(file, f"{why}; {COPY_BUNDLE}")
    return bundle


def open_pretrained(name: str) -> Bundle:
    """Open a bundle that comes with this project, such as ``mnist``.

    Raises:
        InputError: there is none of this name.
    """
    names = sorted(path.parent.name for path in PRETRAINED.glob(f"*/{MANIFEST}"))
    if name not in names:
        known = f"give one of {', '.join(names)}" if names else f"there are none in {PRETRAINED}; clone the repository"
        raise InputError(name, f"is not the name of a pretrained network; {known}")
    return open_bundle(PRETRAINED / name)


def write_bundle(path: Path, graphs: dict[str, Any], description: dict[str, Any]) -> Bundle:
    """Write a bundle. The manifest goes first and comes last, so that there is a whole bundle or none; other files of
    the directory are left alone.

    Args:
        graphs: for each stage its symbol and its parameters by full name (``arg:...``), MXNet's own objects.
        description: what the manifest says beside the format and the files.

    Raises:
        InputError: the path is a file.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(path, "is a file; choose another directory")
    path.mkdir(parents=True, exist_ok=True)
    with temporary_directory(path) as temporary:
        for stage, (symbol, parameters) in graphs.items():
            files = graph_files(temporary, stage)
            symbol.save(str(files.symbol))
            mx.nd.save(str(files.params), parameters)
        entries = {name: {"sha256": digest(temporary / name)} for name in file_names()}
        manifest = {"format": FORMAT, **description, "files": entries}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        names = (*file_names(), MANIFEST)
        for name in names:
            sync(temporary / name)
        # In a moment, since a bundle that is replaced is none meanwhile.
        (path / MANIFEST).unlink(missing_ok=True)
        for name in names:
            os.replace(temporary / name, path / name)
    return open_bundle(path)


def interface(model: ModelConfig) -> dict[str, Any]:
    """What a manifest says of the tensors that go in and out, for readers that know nothing of the network."""
    return {
        "input": {
            "layout": "NCHW",
            "dtype": "float32",
            "range": [0, 255],
            "channels": model.image_channels,
            "stride": model.stride,
        },
        "codes": {"layout": "NHW", "dtype": "int32", "num_embeddings": model.num_embeddings},
    }


def _check_manifest(manifest: Any) -> None:
    """The rules of cpp_bindings/src/bundle.cc. What else the manifest says is for those who read it."""
    _number(manifest, "format", FORMAT, FORMAT)
    if not isinstance(manifest["files"], dict) or sorted(manifest["files"]) != sorted(file_names()):
        raise ValueError("its files are not those of a bundle")
    for name, entry in manifest["files"].items():
        if not isinstance(entry["sha256"], str) or not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
            raise ValueError(f"{name} has no SHA-256")
    channels = _number(manifest["input"], "channels", 1, 3)
    if channels == 2:
        raise ValueError("channels is 2")
    _number(manifest["input"], "stride", 1, 1024)
    num_embeddings = _number(manifest["codes"], "num_embeddings", 1, 1 << 24)
    for section, key, wanted in (
        ("input", "layout", "NCHW"),
        ("input", "dtype", "float32"),
        ("input", "range", [0, 255]),
        ("codes", "layout", "NHW"),
        ("codes", "dtype", "int32"),
    ):
        value = manifest[section][key]
        if json.dumps(value) != json.dumps(wanted):
            raise ValueError(f"{key} is {value}")
    _number(manifest["config"]["model"], "image_channels", channels, channels)
    _number(manifest["config"]["model"], "num_embeddings", num_embeddings, num_embeddings)
    if not isinstance(manifest["data"]["name"], str):
        raise ValueError("its data has no name")


def _number(section: Any, key: str, low: int, high: int) -> int:
    value = section[key]
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{key} is {value}")
    return int(value)
