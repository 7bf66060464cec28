"""A float32 bundle in int8 or bfloat16: what is quantized, measured on images before it is written."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from vqvae_gluon.artifacts.binding import Network, read_network
from vqvae_gluon.artifacts.bundle import GRAPH_INPUTS, MANIFEST, STAGES, Bundle, write_bundle
from vqvae_gluon.artifacts.graph import Graph
from vqvae_gluon.artifacts.quantize import (
    BFLOAT16,
    FLOAT32,
    INT8,
    Criteria,
    Quantized,
    in_bfloat16,
    in_int8,
    quantizable,
)
from vqvae_gluon.compat import mx
from vqvae_gluon.data.images import crop, pad_to, to_images, to_tensor
from vqvae_gluon.data.imageset import ImageSet, fingerprint_of
from vqvae_gluon.errors import InputError, UsageError
from vqvae_gluon.runtimes.base import DECODER, ENCODER
from vqvae_gluon.runtimes.calibrate import Batches, Outputs, calibrated

# The first and the last layer stay in float32 if one of them alone uses up more than this share of the criteria.
EDGE_SHARE = 1 / 3
_PIXELS = 1 << 16  # of images that are run at once

# A graph and its parameters by full name.
Pair = tuple[Graph, dict[str, np.ndarray]]


class Chosen:
    """Some images of a set, spread over all of it, read batch by batch as often as they are asked for.

    Args:
        stride: of the network: what both sides are padded to a multiple of.
    """

    def __init__(self, images: ImageSet, count: int, stride: int):
        self.images = images
        self.numbers = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(np.int64))
        self._stride = stride
        self._batch = max(1, _PIXELS // (images.shape[0] * images.shape[1]))

    def __len__(self) -> int:
        return len(self.numbers)

    def pieces(self) -> Iterator[np.ndarray]:
        """uint8 (n, H, W, C)."""
        for start in range(0, len(self), self._batch):
            yield self.images.read(self.numbers[start : start + self._batch])

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for piece in self.pieces():
            yield {GRAPH_INPUTS[ENCODER]: to_tensor(pad_to(piece, self._stride))}

    def fingerprint(self) -> str:
        return fingerprint_of(self.pieces(), len(self), self.images.shape)


@dataclass(frozen=True)
class Quality:
    """What a network loses against the float32 one on some images.

    Attributes:
        equal_codes: share of the codes that are the same.
        psnr: of its reconstructions, dB, over all pixels of all images.
        psnr_lost: how much less that is than the float32 network's.
    """

    equal_codes: float
    psnr: float
    psnr_lost: float

    def to_json(self) -> dict[str, float]:
        return {"equal_codes": self.equal_codes, "psnr": self.psnr, "psnr_lost": self.psnr_lost}


def quantize_bundle(
    bundle: Bundle,
    path: Path,
    precision: str,
    images: Optional[ImageSet] = None,
    count: int = 512,
    float32: Sequence[str] = (),
) -> Bundle:
    """Write a float32 bundle in another precision.

    Args:
        path: directory of the new one.
        precision: ``int8`` or ``bfloat16``.
        images: what int8 is calibrated on; bfloat16 takes none.
        count: how many of them, spread over the set.
        float32: names of layers that stay as they are.

    Raises:
        InputError: the bundle is not in float32, or cannot be quantized.
        UsageError: it has no such layer.
    """
    if bundle.precision != FLOAT32:
        raise InputError(bundle.path / MANIFEST, f"is of a bundle in {bundle.precision}; quantize the float32 one")
    networks = {stage: read_network(bundle.graph(stage)) for stage in STAGES}
    found = {stage: quantizable(network.graph, network.parameters) for stage, network in networks.items()}
    names = [name for layers in found.values() for name in layers]
    unknown = [name for name in float32 if name not in names]
    if unknown:
        raise UsageError("--float32", f"there is no layer {unknown[0]}; the layers are {', '.join(names) or 'none'}")
    if not set(names) - set(float32):
        raise UsageError("--float32", "leaves no layer to be quantized")
    kept, told = list(float32), dict[str, Any]()
    try:
        if precision == BFLOAT16:
            pairs = {
                stage: in_bfloat16(
                    network.graph,
                    network.parameters,
                    {name: node for name, node in found[stage].items() if name not in kept},
                )
                for stage, network in networks.items()
            }
        elif images is not None:
            chosen = Chosen(images, count, bundle.stride)
            pairs, kept, told = _calibrated(networks, found, chosen, float32)
        else:
            raise UsageError("--data", f"images are needed to calibrate {INT8}")
    except ValueError as error:
        raise InputError(bundle.path, f"cannot be quantized: {error}") from error
    described = {key: value for key, value in bundle.manifest.items() if key not in ("format", "files")}
    described |= {"precision": precision, "quantization": {"source": bundle.digest, "float32": kept, **told}}
    return write_bundle(path, {stage: _for_mxnet(*pair) for stage, pair in pairs.items()}, described)


def _calibrated(
    networks: Mapping[str, Network], found: Mapping[str, Mapping[str, Any]], chosen: Chosen, float32: Sequence[str]
) -> tuple[dict[str, Pair], list[str], dict[str, Any]]:
    """Both graphs in int8, the layers that stay in float32, and what the manifest says of it."""
    plain: dict[str, Pair] = {stage: (network.graph, network.parameters) for stage, network in networks.items()}
    codes = list(_run(plain[ENCODER], chosen))
    batches: dict[str, Batches] = {ENCODER: chosen, DECODER: [{GRAPH_INPUTS[DECODER]: batch} for batch in codes]}
    before = _Measured(plain, chosen, codes)

    def plan(stage: str, names: Collection[str]) -> dict[str, Quantized]:
        return calibrated(*plain[stage], batches[stage], names)

    kept = list(float32)
    allowed = Criteria().part(EDGE_SHARE)
    for stage, edge in _edges(found):
        if edge not in kept:
            alone = {**plain, stage: in_int8(*plain[stage], plan(stage, [edge]))}
            cost = before.quality(alone)
            if cost.equal_codes < allowed.equal_codes or cost.psnr_lost > allowed.psnr_lost:
                kept.append(edge)
    plans = {stage: plan(stage, [name for name in layers if name not in kept]) for stage, layers in found.items()}
    pairs = {stage: in_int8(*plain[stage], layers) for stage, layers in plans.items()}
    told = {
        "data": {"name": chosen.images.name, "images": len(chosen), "sha256": chosen.fingerprint()},
        "layers": {
            name: {"input_scale": layer.input_scale, "input_range": list(layer.limits)}
            for layers in plans.values()
            for name, layer in layers.items()
        },
        "measured": before.quality(pairs).to_json(),
    }
    return pairs, kept, told


def _edges(found: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Stage and name of the layer that takes the pixels, and of the one that gives them."""
    first, last = list(found[ENCODER])[:1], list(found[DECODER])[-1:]
    return [(ENCODER, name) for name in first] + [(DECODER, name) for name in last]


class _Measured:
    """The float32 network on the images, and what others lose against it."""

    def __init__(self, plain: Mapping[str, Pair], chosen: Chosen, codes: Sequence[np.ndarray]):
        self._plain, self._chosen, self._codes = plain, chosen, codes
        self._psnr = self._psnr_of(plain[DECODER], codes)

    def quality(self, pairs: Mapping[str, Pair]) -> Quality:
        codes = list(_run(pairs[ENCODER], self._chosen))
        equal = sum(int((ours == theirs).sum()) for ours, theirs in zip(self._codes, codes))
        psnr = self._psnr_of(pairs[DECODER], codes)
        return Quality(equal / sum(batch.size for batch in codes), psnr, self._psnr - psnr)

    def _psnr_of(self, decoder: Pair, codes: Sequence[np.ndarray]) -> float:
        height, width = self._chosen.images.shape[:2]
        error = SquaredError()
        given = _run(decoder, [{GRAPH_INPUTS[DECODER]: batch} for batch in codes])
        for images, tensor in zip(self._chosen.pieces(), given):
            error.add(images, crop(to_images(tensor), height, width))
        return error.psnr


@dataclass
class SquaredError:
    """Squared error of images against others, both uint8 (N, H, W, C)."""

    total: float = 0.0
    values: int = 0

    def add(self, images: np.ndarray, others: np.ndarray) -> None:
        self.total += float(np.square(images.astype(np.float64) - others).sum())
        self.values += images.size

    @property
    def psnr(self) -> float:
        """10 log10(255^2 / mean squared error), dB; infinite where nothing differs."""
        return 10 * math.log10(255**2 * self.values / self.total) if self.total else math.inf


def _run(pair: Pair, batches: Batches) -> Iterator[np.ndarray]:
    """The first output of a graph, batch by batch."""
    graph, parameters = pair
    outputs = Outputs(graph, parameters, graph.outputs[:1])
    return (outputs.only(inputs) for inputs in batches)


def _for_mxnet(graph: Graph, parameters: Mapping[str, np.ndarray]):
    arrays = {name: mx.nd.array(values, dtype=values.dtype) for name, values in parameters.items()}
    return mx.sym.load_json(graph.to_json()), arrays
