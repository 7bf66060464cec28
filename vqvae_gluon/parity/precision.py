"""The comparison of a bundle with the same network in another precision (docs/parity.md, "Other precisions").

Bits and float32's bounds say nothing there. What counts is what is lost: codes that are others, and PSNR of the
reconstructions. The layers say where: each by itself on the reference's inputs, each alone in the other precision.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
from tqdm import tqdm

from vqvae_gluon.artifacts.binding import read_network, write_network
from vqvae_gluon.artifacts.bundle import GRAPH_INPUTS, STAGES, Bundle, open_bundle
from vqvae_gluon.artifacts.graph import Output
from vqvae_gluon.artifacts.layers import changed_layers, mixed
from vqvae_gluon.artifacts.quantize import Criteria
from vqvae_gluon.artifacts.trace import Trace
from vqvae_gluon.data import Images
from vqvae_gluon.data.images import crop, to_images
from vqvae_gluon.errors import InputError, VQVAEError
from vqvae_gluon.parity.metrics import nonfinite
from vqvae_gluon.parity.precision_report import PrecisionReport
from vqvae_gluon.parity.precision_result import Cost, Difference, LayerReport, PrecisionResult
from vqvae_gluon.parity.result import DIVERGE
from vqvae_gluon.parity.side import Side
from vqvae_gluon.parity.stages import MAX_MEMORY, walk
from vqvae_gluon.runtimes.base import DECODER, ENCODER, INPUT, OUTPUT, Runtime
from vqvae_gluon.temporary import temporary_directory

# Layers are looked into on about so many images, spread over all, and on no more pixels than these.
LAYER_IMAGES = 512
_LAYER_PIXELS = 1 << 22


@dataclass(frozen=True)
class _Batch:
    """What one batch takes and gives in the reference."""

    pixels: np.ndarray
    data: np.ndarray
    codes: np.ndarray
    images: np.ndarray

    def inputs(self, stage: str) -> dict[str, np.ndarray]:
        return {GRAPH_INPUTS[stage]: self.data if stage == ENCODER else self.codes}


def compare_precisions(
    reference: Runtime,
    candidate: Runtime,
    bundle: Path,
    candidate_bundle: Path,
    images: Images,
    batch_size: int = 128,
    max_memory: int = MAX_MEMORY,
    criteria: Optional[Criteria] = None,
) -> PrecisionReport:
    """Run a bundle and the same network in another precision on the same images, and tell what is lost, and where. See
    :func:`~vqvae_gluon.parity.harness.compare_bundles`.

    The verdict rests on the outputs of both as they are deployed, on all images. The layers are looked into on
    :data:`LAYER_IMAGES` of them.

    Args:
        criteria: those of :class:`~vqvae_gluon.artifacts.quantize.Criteria` when left out.

    Raises:
        InputError: also if the two are not of one network.
    """
    ours, theirs = open_bundle(bundle), open_bundle(candidate_bundle, verify=False)
    report = PrecisionReport(
        reference.name,
        candidate.name,
        (ours.precision, theirs.precision),
        str(bundle),
        str(candidate_bundle),
        images.name,
        len(images),
        criteria or Criteria(),
    )
    pair = _Pair(reference, candidate, ours, theirs)
    for stage, layers in pair.layers.items():
        report.layers.update({(stage, name): LayerReport(stage, name, layers[name].operator) for name in layers})
    total = -(-len(images) // batch_size)
    wanted = max(1, min(LAYER_IMAGES, _LAYER_PIXELS // (images.shape[0] * images.shape[1])) // batch_size)
    every = max(1, total // wanted)
    kept: list[_Batch] = []
    with tqdm(total=len(images), desc="parity", unit="image", leave=False, disable=None) as bar:
        for number, (files, count) in enumerate(images.batches(batch_size)):
            with temporary_directory() as path:
                expected = reference.trace_bundle(ours.path, files, path / "reference")
                batch = _read(expected)
                try:
                    actual = candidate.trace_bundle(theirs.path, files, path / "candidate")
                    _add(report.cost, batch, *_given(actual))
                    for node in expected.stage(OUTPUT):
                        difference = report.outputs.setdefault(node.name, Difference())
                        difference.add(node.load(), actual.get(OUTPUT, node.name))
                    if number % every == 0 and len(kept) < wanted:
                        pair.look(report, batch, path, max_memory)
                        kept.append(batch)
                except VQVAEError as error:
                    report.failure = error
                    break
            bar.update(count)
    report.layer_images = sum(len(batch.pixels) for batch in kept)
    if report.failure is None and report.layers:
        try:
            pair.cost_layers(report, kept)
            if report.verdict == DIVERGE:
                report.leave = pair.enough(report, kept)
        except VQVAEError as error:
            report.failure = error
    return report


class _Pair:
    """Both sides of both graphs, and the mixtures of them.

    Attributes:
        layers: that differ, by stage and name.
    """

    def __init__(self, reference: Runtime, candidate: Runtime, ours: Bundle, theirs: Bundle):
        self._runtimes = reference, candidate
        self._ours = {stage: read_network(ours.graph(stage)) for stage in STAGES}
        self._theirs = {stage: read_network(theirs.graph(stage)) for stage in STAGES}
        for stage in STAGES:
            if self._ours[stage].graph.outputs != self._theirs[stage].graph.outputs:
                raise InputError(theirs.path, f"is no other precision of {ours.path}: its {stage} has other outputs")
        self.layers = {stage: changed_layers(self._ours[stage], self._theirs[stage]) for stage in STAGES}

    def look(self, report: PrecisionResult, batch: _Batch, path: Path, max_memory: int) -> None:
        """Measure every layer on one batch: on the reference's inputs, and in the candidate's own run."""
        reference, candidate = self._runtimes
        for stage, layers in self.layers.items():
            if not layers:
                continue
            ours = Side(reference, self._ours[stage], stage, batch.inputs(stage), path)
            theirs = Side(candidate, self._theirs[stage], stage, batch.inputs(stage), path)
            cut = {output for layer in layers.values() for output in layer.inputs}
            known = _walked(ours, cut | {(name, 0) for name in layers}, max_memory)
            own = _walked(theirs, {(name, 0) for name in layers}, max_memory)
            computed = {name for layer in layers.values() for name in layer.operators}
            alone = theirs.tap(computed, {output: known[output] for output in cut}, keep=[*layers], cut=cut)
            for name in layers:
                found = report.layers[stage, name]
                expected, local = known[name, 0], alone[theirs.network.tensor((name, 0))].load()
                found.local.add(expected, local)
                found.cumulative.add(expected, own[name, 0])
                found.looked += 1
                found.bad += max(nonfinite(local), nonfinite(own[name, 0]))

    def cost_layers(self, report: PrecisionResult, batches: Sequence[_Batch]) -> None:
        """Measure what each layer costs alone, and what the decoder does."""
        report.decoder = self.cost(batches, {DECODER: self.layers[DECODER]})
        with tqdm(total=len(report.layers), desc="layers", unit="layer", leave=False, disable=None) as bar:
            for (stage, name), layer in report.layers.items():
                layer.alone = self.cost(batches, {stage: [name]})
                bar.update()

    def enough(self, report: PrecisionResult, batches: Sequence[_Batch]) -> Optional[list[str]]:
        """The fewest of the costliest layers that are enough to be left as they are; None if all are not."""
        layers = list(report.layers.values())
        orders = [
            sorted(layers, key=lambda layer: _or_infinite(-layer.alone.psnr_lost)),
            sorted(layers, key=lambda layer: _or_infinite(layer.alone.equal_codes)),
        ]
        for count in range(1, len(layers) + 1):
            for order in orders:
                left = {layer.key for layer in order[:count]}
                rest = {stage: [name for name in self.layers[stage] if (stage, name) not in left] for stage in STAGES}
                decoder = self.cost(batches, {DECODER: rest[DECODER]})
                if self.cost(batches, rest).meets(report.criteria, decoder):
                    return [name for _, name in report.layers if any(name == key[1] for key in left)]
        return None

    def cost(self, batches: Sequence[_Batch], names: Mapping[str, Collection[str]]) -> Cost:
        """What is lost if some layers, by stage, are the candidate's, in the candidate's runtime."""
        cost = Cost()
        with temporary_directory() as path:
            files = {
                stage: write_network(
                    *mixed(self._ours[stage], self._theirs[stage], self.layers[stage], names.get(stage, ())),
                    path / stage,
                )
                for stage in STAGES
            }
            for number, batch in enumerate(batches):

                def run(stage: str, values: np.ndarray, to: Path = path / str(number)) -> np.ndarray:
                    # What is not mixed is the reference's, and so is its runtime.
                    runtime = self._runtimes[bool(names.get(stage))]
                    inputs = {GRAPH_INPUTS[stage]: values}
                    trace = runtime.trace_graph(files[stage], inputs, stage, to / stage, taps=False)
                    return next(node.load() for node in trace.nodes if node.operator != "input")

                codes = run(ENCODER, batch.data) if names.get(ENCODER) else batch.codes
                images = batch.images
                if names.get(DECODER) or not np.array_equal(codes, batch.codes):
                    tensor = run(DECODER, codes)
                    cost.bad += nonfinite(tensor)
                    images = crop(to_images(tensor), *batch.pixels.shape[1:3])
                _add(cost, batch, codes, images)
        return cost


def _walked(side: Side, outputs: Collection[Output], max_memory: int) -> dict[Output, np.ndarray]:
    """Some tensors of one run on the side's own values."""
    wanted = {side.network.tensor(output): output for output in outputs}
    found = walk(side, max_memory, keep=wanted)
    return {wanted[node.name]: node.load() for node in found if node.name in wanted}


def _read(trace: Trace) -> _Batch:
    values = (trace.get(INPUT, "pixels"), trace.get(INPUT, "data"), *_given(trace)[:2])
    return _Batch(*(np.array(array) for array in values))


def _given(trace: Trace) -> tuple[np.ndarray, np.ndarray, int]:
    """Codes and images that a deployed run gave, and how many values of its reconstruction are not finite."""
    return trace.get(OUTPUT, "codes"), trace.get(OUTPUT, "image"), nonfinite(trace.get(OUTPUT, "reconstruction"))


def _add(cost: Cost, batch: _Batch, codes: np.ndarray, images: np.ndarray, bad: int = 0) -> None:
    cost.codes += batch.codes.size
    cost.equal += int((codes == batch.codes).sum()) if codes.shape == batch.codes.shape else 0
    cost.reference.add(batch.pixels, batch.images)
    cost.candidate.add(batch.pixels, images)
    cost.bad += bad


def _or_infinite(number: float) -> float:
    """What cannot be measured is the costliest."""
    return -math.inf if math.isnan(number) else number
