"""What a comparison with another precision found: what is lost, where, and the verdict that follows."""

import math
from dataclasses import dataclass, field
from typing import Optional

import numpy as np

from vqvae_gluon.artifacts.quantize import Criteria
from vqvae_gluon.artifacts.trace import Key
from vqvae_gluon.errors import VQVAEError
from vqvae_gluon.parity.metrics import largest_error, measure
from vqvae_gluon.parity.result import AGREE, DIVERGE, INVALID
from vqvae_gluon.runtimes.quantization import SquaredError


@dataclass
class Ratio:
    """Power of a tensor and of what is added to it, over all batches; ``max_abs`` is the most that is added."""

    signal: float = 0.0
    noise: float = 0.0
    max_abs: float = 0.0

    def add(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        a, b = reference.astype(np.float64), candidate.astype(np.float64)
        self.signal += float(np.square(a).sum())
        self.noise += float(np.square(a - b).sum())
        self.max_abs = max(self.max_abs, largest_error(a, b))

    @property
    def decibels(self) -> float:
        """10 log10(signal / noise); infinite where nothing was added, NaN where a value is no number."""
        if self.noise == 0:
            return math.inf
        ratio = self.signal / self.noise
        return 10 * math.log10(ratio) if ratio > 0 else (-math.inf if ratio == 0 else math.nan)


@dataclass
class Cost:
    """What is lost on some images.

    Attributes:
        codes: how many there are, ``equal`` how many of them are those of the reference.
        reference, candidate: squared error of the reconstructions against the images.
        bad: how many values are NaN or infinite.
    """

    codes: int = 0
    equal: int = 0
    reference: SquaredError = field(default_factory=SquaredError)
    candidate: SquaredError = field(default_factory=SquaredError)
    bad: int = 0

    @property
    def equal_codes(self) -> float:
        """Share of the codes."""
        return self.equal / self.codes if self.codes and not self.bad else math.nan

    @property
    def psnr_lost(self) -> float:
        """In dB; negative where the candidate is nearer to the images."""
        if self.bad:
            return math.nan
        ours, theirs = self.reference.psnr, self.candidate.psnr
        return 0.0 if ours == theirs else ours - theirs

    def meets(self, criteria: Criteria, decoder: "Cost") -> bool:
        """Whether this is little enough.

        Args:
            decoder: what the decoder loses on the reference's codes.
        """
        return criteria.met(self.equal_codes, self.psnr_lost, decoder.psnr_lost)


@dataclass
class Difference:
    """How far an output is from the reference's, over all batches.

    Attributes:
        max_abs: largest absolute difference; infinite where a value or a shape is none to be compared.
        max_rel: largest ``|a - b| / max(|a|, |b|)``, between 0 and 2.
    """

    max_abs: float = 0.0
    max_rel: float = 0.0

    @property
    def equal(self) -> bool:
        return self.max_abs == 0

    def add(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        if reference.shape != candidate.shape:
            self.max_abs, self.max_rel = math.inf, 2.0
        elif (metrics := measure(reference, candidate)) is not None:
            self.max_abs, self.max_rel = max(self.max_abs, metrics.max_abs), max(self.max_rel, metrics.max_rel)


@dataclass
class LayerReport:
    """One layer that is computed in the other precision.

    Attributes:
        local: on the reference's inputs.
        cumulative: in the candidate's own run.
        alone: what is lost if this layer alone is the candidate's.
        bad: how many of its values are NaN or infinite.
        looked: on how many batches it was measured.
    """

    stage: str
    name: str
    operator: str
    looked: int = 0
    local: Ratio = field(default_factory=Ratio)
    cumulative: Ratio = field(default_factory=Ratio)
    alone: Cost = field(default_factory=Cost)
    bad: int = 0

    @property
    def key(self) -> Key:
        return self.stage, self.name


@dataclass
class PrecisionResult:
    """What was found. :class:`~vqvae_gluon.parity.precision_report.PrecisionReport` is the same, to be read.

    Attributes:
        reference, candidate: names of the runtimes.
        precisions: of both bundles.
        subject, candidate_subject: directories of the bundles.
        data: what they were fed, ``count`` images of it.
        cost: what the candidate loses as it is deployed, on all images.
        outputs: how far apart they are then, by the name that traces give them.
        decoder: what its decoder loses on the reference's codes, on as many images as the layers.
        layers: those that differ, in the order of the data.
        layer_images: on how many images the layers were looked into.
        leave: names of the layers that, left as the reference has them, make the candidate meet the criteria; empty if
            it meets them, None if not even all of them are enough.
        failure: why the candidate could not be run, if it could not.
    """

    reference: str
    candidate: str
    precisions: tuple[str, str]
    subject: str
    candidate_subject: str
    data: str
    count: int
    criteria: Criteria
    cost: Cost = field(default_factory=Cost)
    outputs: dict[str, Difference] = field(default_factory=dict)
    decoder: Cost = field(default_factory=Cost)
    layers: dict[Key, LayerReport] = field(default_factory=dict)
    layer_images: int = 0
    leave: Optional[list[str]] = field(default_factory=list)
    failure: Optional[VQVAEError] = None

    @property
    def bad(self) -> list[LayerReport]:
        """Layers with values that are NaN or infinite."""
        return [layer for layer in self.layers.values() if layer.bad]

    @property
    def compared(self) -> list[LayerReport]:
        """Layers that were measured by themselves and in the candidate's run, and whose cost alone was."""
        return [layer for layer in self.layers.values() if layer.looked and layer.alone.codes]

    @property
    def verdict(self) -> str:
        if self.bad or self.cost.bad:
            return DIVERGE
        if self.failure is not None or not self.layers or not self.cost.codes:
            return INVALID
        return AGREE if self.cost.meets(self.criteria, self.decoder) else DIVERGE

    @property
    def worst(self) -> Optional[LayerReport]:
        """The layer that adds the most noise by itself; the first with NaN or infinity if there is one."""
        measured = [layer for layer in self.layers.values() if layer.looked]
        return next(iter(self.bad), min(measured, key=lambda layer: layer.local.decibels, default=None))
