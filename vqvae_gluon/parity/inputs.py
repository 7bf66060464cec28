"""What is fed to a plain export: inputs as a user names them, values from files, images, a trace or a seed."""

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from vqvae_gluon.archives import Archive
from vqvae_gluon.artifacts.binding import Network, output_shapes
from vqvae_gluon.artifacts.trace import INDEX, open_trace
from vqvae_gluon.data.images import find_images, read_images, to_tensor
from vqvae_gluon.errors import InputError, UsageError
from vqvae_gluon.files import open_file, read_npy

_MAX_VALUES = 2**31 - 1  # of one input; MXNet counts with 32 bits
_MAX_RANK = 32
_SPEC = re.compile(r"(?P<name>[^:]+):(?P<shape> *0*[1-9]\d{0,11} *(, *0*[1-9]\d{0,11} *)*)(:(?P<dtype>\w+))?", re.ASCII)
_DRAWN_BYTES = 8  # Random numbers are drawn as float64.
# What the arrays of an .npz file may take: so many times the file, and beside that
_EXPANSION, _SPARE_BYTES = 4, 64 << 20
_DTYPES = ("float32", "float64", "float16", "uint8", "int8", "int32", "int64")
# Operators whose input of this number holds indices, and the attribute that says how many there are.
_INDICES = {"Embedding": (0, "input_dim"), "one_hot": (0, "depth")}


@dataclass(frozen=True)
class InputSpec:
    """One input of a graph.

    Attributes:
        shape: of a batch; the first extent is its size.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


def parse_spec(text: str) -> InputSpec:
    """Read ``NAME:2,3,224,224`` or ``NAME:2,7,7:int32``.

    Raises:
        UsageError: it is something else.
    """
    match = _SPEC.fullmatch(text)
    if match is None or match["dtype"] not in (None, *_DTYPES):
        shown = text if len(text) <= 200 else f"{text[:200]}..."
        raise UsageError(
            "--input", f"takes NAME:SHAPE[:TYPE], such as data:1,3,224,224 or codes:1,7,7:int32, not {shown}"
        )
    shape = tuple(map(int, match["shape"].split(",")))
    if len(shape) > _MAX_RANK or math.prod(shape) > _MAX_VALUES:
        why = f"has a shape of more than {_MAX_RANK} extents or {_MAX_VALUES} values for {match['name']}"
        raise UsageError("--input", f"{why}; give fewer")
    return InputSpec(match["name"], shape, match["dtype"] or "float32")


def parse_specs(texts: Iterable[str]) -> list[InputSpec]:
    """Read inputs as :func:`parse_spec` does, each of them once.

    Raises:
        UsageError: one is something else, or has the name of another.
    """
    specs: list[InputSpec] = []
    for spec in map(parse_spec, texts):
        if any(spec.name == other.name for other in specs):
            raise UsageError("--input", f"names {spec.name} twice; give each input once")
        specs.append(spec)
    return specs


class Feed:
    """Batches of values for every input of a graph.

    Attributes:
        name: what the user called them.
        notes: what was decided for the user.
    """

    def __init__(self, name: str, values: Mapping[str, np.ndarray], batch_size: Optional[int], notes: list[str]):
        self.name = name
        self.notes = notes
        self._values = dict(values)
        self._batch_size = batch_size

    def __len__(self) -> int:
        return len(next(iter(self._values.values()))) if self._values else 1

    def batches(self) -> Iterator[dict[str, np.ndarray]]:
        if self._batch_size is None:  # The first axis is not that of the samples in all of them.
            yield self._values
            return
        for start in range(0, len(self), self._batch_size):
            yield {name: values[start : start + self._batch_size] for name, values in self._values.items()}


def open_feed(
    network: Network,
    specs: list[InputSpec],
    source: Optional[str] = None,
    count: Optional[int] = None,
    seed: int = 0,
    max_memory: Optional[int] = None,
) -> Feed:
    """Values for the inputs of a network.

    Args:
        specs: of the inputs that the user named. One that the graph does not take is left out, with a note; a label
            that was not named is fed zeros.
        source: an ``.npy`` file (of the only input), an ``.npz`` file (an array for each input), a directory of images
            or a recorded trace; numbers from the seed when left out.
        count: how many samples; one batch of random numbers, or all there are, when left out.
        max_memory: bytes that random numbers may take.

    Raises:
        InputError: what is there does not fit the inputs.
        UsageError: an input is not named, or so many numbers are asked for that they take more memory.
    """
    notes = []
    wanted = network.unbound()
    used = [spec for spec in specs if spec.name in wanted]
    notes += [f"the graph does not take the input {spec.name}" for spec in specs if spec not in used]
    if network.lost:
        notes.append(
            f"{len(network.lost)} names in {network.files.params.name} have no prefix arg: or aux:; they are bound as "
            "the graph takes them, as Gluon does, but MXPredCreate and others ignore them"
        )
    named = {spec.name for spec in used}
    missing = [name for name in wanted if name not in named and not name.endswith("_label")]
    if missing and not specs:
        raise UsageError("--input", f"is needed for {', '.join(missing)}, such as --input {missing[0]}:1,3,224,224")
    if not specs and not wanted:
        return Feed("nothing", {}, None, notes)
    if not used:
        takes = ", ".join(wanted) or "nothing"
        raise InputError(network.files.symbol, f"has none of the inputs that --input names; it takes {takes}")
    batch = used[0].shape[0]
    mixed = len({spec.shape[0] for spec in used}) > 1
    if mixed and count is not None:
        raise UsageError("--count", "is for inputs whose shapes begin with one number, that of the samples")
    if source is None:
        _check_memory(used, count, max_memory)
        generator = np.random.default_rng(seed)
        values = {spec.name: _random(network, spec, count or spec.shape[0], generator) for spec in used}
        name = f"random numbers (seed {seed})"
    else:
        values = {key: array[:count] for key, array in _read(source, used).items()}
        name = source
    labels = [name for name in wanted if name not in named and name.endswith("_label")]
    if labels:
        values.update(_zeros(network, labels, {key: array.shape for key, array in values.items()}))
        notes.append(f"fed zeros to {', '.join(labels)}")
    if mixed:
        return Feed(name, values, None, notes)
    if len({len(array) for array in values.values()}) != 1:
        raise InputError(
            name, f"the inputs have different numbers of samples: { {k: len(v) for k, v in values.items()} }"
        )
    return Feed(name, values, batch, notes)


def _check_memory(specs: list[InputSpec], count: Optional[int], max_memory: Optional[int]) -> None:
    sizes = [math.prod(((count or spec.shape[0]), *spec.shape[1:])) for spec in specs]
    needed = _DRAWN_BYTES * sum(sizes)
    if max(sizes) > _MAX_VALUES:
        raise UsageError("--count", f"asks for {max(sizes)} numbers of one input, more than {_MAX_VALUES}; give fewer")
    if max_memory is not None and needed > max_memory:
        mebibytes = f"{-(-needed >> 20)} MiB of random numbers, and --max-memory is {max_memory >> 20}"
        raise UsageError("--input", f"and --count ask for {mebibytes}; give fewer, or more memory")


def _random(network: Network, spec: InputSpec, count: int, generator: np.random.Generator) -> np.ndarray:
    shape = (count, *spec.shape[1:])
    limits = [
        int(node.attributes[attribute])
        for node in network.graph.operators()
        for operator, (position, attribute) in _INDICES.items()
        if node.operator == operator and node.inputs[position][0] == spec.name
    ]
    if limits or np.dtype(spec.dtype).kind in "iu":
        return generator.integers(0, min(limits, default=2), shape).astype(spec.dtype)
    return generator.standard_normal(shape).astype(spec.dtype)


def _zeros(network: Network, labels: list[str], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    output_shapes(network, network.symbol, shapes)  # What does not fit is told here.
    found, _, _ = network.symbol.infer_shape_partial(**shapes)
    inferred = dict(zip(network.symbol.list_arguments(), found or ()))
    for name in labels:
        if not inferred.get(name) or 0 in inferred[name]:
            raise UsageError("--input", f"is needed for {name}: its shape cannot be told")
    return {name: np.zeros(inferred[name], np.float32) for name in labels}


def _read(source: str, specs: list[InputSpec]) -> dict[str, np.ndarray]:
    path = Path(source)
    if path.is_dir() and (path / INDEX).exists():
        nodes = {node.name: node for node in open_trace(path).nodes if node.operator == "input"}
        values = {spec.name: nodes[spec.name].load() for spec in specs if spec.name in nodes}
    elif path.is_dir():
        values = {_only(specs, source).name: to_tensor(read_images(find_images(path), _only(specs, source).shape[1]))}
    elif path.suffix == ".npz":
        values = _read_npz(path, specs)
    elif path.suffix == ".npy":
        values = {_only(specs, source).name: read_npy(path)}
    else:
        raise InputError(source, "is no .npy or .npz file, directory of images, or trace")
    for spec in specs:
        array = values.get(spec.name)
        if array is None:
            raise InputError(source, f"holds nothing for the input {spec.name}")
        if array.dtype.kind not in "fiub":
            raise InputError(source, f"holds {array.dtype} for {spec.name}, which are no numbers")
        if array.ndim == 0 or array.shape[1:] != spec.shape[1:] or not array.size:
            raise InputError(source, f"holds {array.shape} for {spec.name}; --input says (N, {str(spec.shape[1:])[1:]}")
    return {spec.name: values[spec.name].astype(spec.dtype) for spec in specs}


def _read_npz(path: Path, specs: list[InputSpec]) -> dict[str, np.ndarray]:
    """The arrays of the inputs; what else the file holds is not read."""
    with open_file(path) as file:
        archive = Archive(file, path)
        names = [spec.name for spec in specs if spec.name in archive.sizes]
        limit = _EXPANSION * os.fstat(file.fileno()).st_size + _SPARE_BYTES
        total = sum(archive.sizes[name] for name in names)
        if total > limit:
            why = f"is so much compressed that {total} bytes are to come of it, more than {limit}"
            raise InputError(path, f"{why}; write it by numpy.savez, which does not compress")
        return {name: archive.array(name) for name in names}


def _only(specs: list[InputSpec], source: str) -> InputSpec:
    if len(specs) != 1 or len(specs[0].shape) < 2:
        raise UsageError("--data", f"{source} is for a graph with one input; give an .npz file with an array for each")
    return specs[0]
