"""Networks that the harness is tried on: the standard residual VQ-VAE, small ones of MXNet's model zoo, and what they
are fed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import PIL.Image

from vqvae_gluon.artifacts.bundle import STAGES, GraphFiles, graph_files, open_bundle
from vqvae_gluon.artifacts.trace import Trace
from vqvae_gluon.compat import mx
from vqvae_gluon.data import open_images
from vqvae_gluon.data.images import find_images, read_images, to_tensor
from vqvae_gluon.parity.harness import compare_bundles, compare_exports
from vqvae_gluon.parity.inputs import Feed
from vqvae_gluon.parity.recorded import record_bundle, record_export
from vqvae_gluon.parity.report import Report
from vqvae_gluon.parity.stages import GRAPH
from vqvae_gluon.runtimes.base import Runtime
from vqvae_gluon.runtimes.gluon import GluonRuntime

nn: Any = mx.gluon.nn

EXPORTS = ("residual", "mobilenet0.25", "squeezenet1.1")
# The export that MXNet's executors compute wrongly, bare: what the smallest reproducer of that fault looks like.
BARE = "residual-bare"
# Images, and pixels of their sides. Behind 225 pixels every pooling layer of squeezenet1.1 sees an even side, where its
# two conventions of rounding give different shapes.
_SIZES = {"residual": (4, 32), BARE: (4, 32), "mobilenet0.25": (4, 64), "squeezenet1.1": (2, 225)}
_BUNDLE_SIZES = {1: (8, 28), 3: (4, 32)}  # by channels


class Residual(nn.HybridBlock):
    """x + conv1(relu(conv0(relu(x)))): what MXNet's executor fuses wrongly behind a convolution."""

    def __init__(self, channels: int, hidden: int, norm: bool = False, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.body = nn.HybridSequential(prefix="")
            self.body.add(nn.Activation("relu", prefix="relu0_"), nn.Conv2D(hidden, 3, padding=1, prefix="conv0_"))
            if norm:
                self.body.add(nn.BatchNorm(prefix="norm0_"))
            self.body.add(nn.Activation("relu", prefix="relu1_"), nn.Conv2D(channels, 1, prefix="conv1_"))
            if norm:
                self.body.add(nn.BatchNorm(prefix="norm1_"))

    def hybrid_forward(self, F, x):
        return F.elemwise_add(x, self.body(x), name="sum")


class ResidualVQVAE(nn.HybridBlock):
    """The VQ-VAE of van den Oord et al. 2017, section 4.1, in one graph: images to codes and reconstruction.

    Args:
        channels: D, of the latent.
        rows: K, of the codebook.
        norm: with what computes otherwise while a network is trained, BatchNorm and Dropout, in both halves, and with
            an average of neighbours before the image.
    """

    def __init__(self, channels: int = 16, rows: int = 32, norm: bool = False, **kwargs):
        super().__init__(**kwargs)
        self._rows, self._channels = rows, channels
        with self.name_scope():
            self.encoder = nn.HybridSequential(prefix="encoder_")
            self.decoder = nn.HybridSequential(prefix="decoder_")
            with self.encoder.name_scope():
                self.encoder.add(nn.Conv2D(channels, 4, strides=2, padding=1, prefix="down_"))
                self.encoder.add(nn.Activation("relu", prefix="relu_"))
                self._add_stack(self.encoder, channels, norm)
            with self.decoder.name_scope():
                self._add_stack(self.decoder, channels, norm)
                if norm:
                    self.decoder.add(nn.AvgPool2D(3, strides=1, padding=1, prefix="smooth_"))
                self.decoder.add(nn.Conv2DTranspose(3, 4, strides=2, padding=1, prefix="up_"))
            self.codebook = self.params.get("codebook", shape=(rows, channels))

    @staticmethod
    def _add_stack(half, channels: int, norm: bool) -> None:
        if norm:
            half.add(nn.Dropout(0.2, prefix="dropout_"))
        half.add(nn.Conv2D(channels, 3, padding=1, prefix="stem_"))
        if norm:
            half.add(nn.BatchNorm(prefix="stem_norm_"))
        half.add(Residual(channels, 8, norm, prefix="block0_"), Residual(channels, 8, norm, prefix="block1_"))

    def hybrid_forward(self, F, x, codebook):
        latent = self.encoder(x)
        kernel = F.reshape(codebook * -2.0, shape=(self._rows, self._channels, 1, 1), name="kernel")
        norms = F.sum(F.square(codebook), axis=1, name="norms")
        distances = F.Convolution(latent, kernel, norms, kernel=(1, 1), num_filter=self._rows, name="distances")
        codes = F.argmin(distances, axis=1, name="codes")
        found = F.Embedding(codes, codebook, input_dim=self._rows, output_dim=self._channels, name="lookup")
        return codes, self.decoder(F.transpose(found, axes=(0, 3, 1, 2), name="latent"))


def initialized(net, shape: tuple[int, ...], seed: int = 0):
    """The network with random weights that matter, and BatchNorm statistics that are not 0 and 1."""
    mx.random.seed(seed)
    generator = np.random.default_rng(seed)
    net.initialize(mx.init.MSRAPrelu(), force_reinit=True)
    net(mx.nd.zeros(shape))
    spread = {
        "gamma": (1.0, 0.2),
        "beta": (0.0, 0.2),
        "running_mean": (0.0, 0.2),
        "bias": (0.0, 0.1),
        "codebook": (0.0, 1.0),
    }
    for name, parameter in net.collect_params().items():
        kind = next((kind for kind in (*spread, "running_var") if name.endswith(kind)), None)
        if kind == "running_var":
            parameter.set_data(mx.nd.array(generator.uniform(0.5, 2.0, parameter.shape)))
        elif kind is not None:
            parameter.set_data(mx.nd.array(generator.normal(*spread[kind], parameter.shape)))
    return net


def export(net, directory: Path, shape: tuple[int, ...]) -> GraphFiles:
    """Export a network as its users do."""
    net.hybridize()
    net(mx.nd.zeros(shape))
    net.export(str(directory / "net"))
    return GraphFiles(directory / "net-symbol.json", directory / "net-0000.params")


@dataclass(frozen=True)
class Specimen:
    """One network with its images and its reference, on disk.

    Attributes:
        stages: its graphs, by the stage that traces call them.
        directory: where its images and its reference are.
        bundle: the bundle's directory; None of a plain export.
        unit: what the network takes for a pixel's 1: 255 of 255 are fed as ``255 * unit``.
    """

    name: str
    stages: Mapping[str, GraphFiles]
    directory: Path
    bundle: Optional[Path]
    unit: float

    @property
    def images(self) -> Path:
        """File of the images, uint8 (N, H, W, C)."""
        return self.directory / "images.npy"

    @property
    def originals(self) -> np.ndarray:
        """What the images were resized from, uint8 (N, 2H, 2W, C)."""
        return np.load(self.directory / "originals.npy")

    @property
    def reference(self) -> Path:
        """The reference's trace."""
        return self.directory / "reference"

    def tensor(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels uint8 (N, H, W, C) as the network takes them, float32 (N, C, H, W)."""
        return to_tensor(pixels) * np.float32(self.unit)

    def record(self, runtime: Runtime, path: Path, images: Optional[Path] = None) -> Trace:
        """Record its whole way in a runtime.

        Args:
            images: other ones than its own.
        """
        images = images or self.images
        if self.bundle is not None:
            return record_bundle(runtime, self.bundle, [images], path)
        return record_export(runtime, self.stages[GRAPH], {"data": self.tensor(np.load(images))}, path)

    def compare(
        self,
        candidate: Runtime,
        deployed: Optional[Path] = None,
        images: Optional[Path] = None,
        repeat: int = 1,
        black_box: bool = False,
    ) -> Report:
        """Judge a runtime against Gluon, live.

        Args:
            deployed: directory of the candidate's files, the specimen's own if None.
            images: other ones than its own.
        """
        reference, source = GluonRuntime(), images or self.images
        if self.bundle is not None:
            theirs, found = deployed or self.bundle, open_images(str(source), np.load(source).shape[3])
            return compare_bundles(reference, candidate, self.bundle, theirs, found, repeat=repeat, black_box=black_box)
        data = self.tensor(np.load(source))
        feed = Feed("the pictures", {"data": data}, len(data), [])
        ours = self.stages[GRAPH]
        other = graph_files(deployed, GRAPH) if deployed else ours
        return compare_exports(reference, candidate, ours, other, feed, repeat=repeat, black_box=black_box)


def export_specimen(name: str, directory: Path) -> Specimen:
    """One of :data:`EXPORTS`, or :data:`BARE`, with seeded random weights and pictures."""
    directory.mkdir(parents=True)
    count, side = _SIZES[name]
    shape = (count, 3, side, side)
    with mx.name.NameManager():
        if name.startswith("residual"):
            net = ResidualVQVAE(prefix="", norm=name != BARE)
        else:
            net = mx.gluon.model_zoo.vision.get_model(name, prefix="", classes=100)
        files = export(initialized(net, shape), directory, shape)
    _save_images(directory, pictures(count, 2 * side, 3))
    return Specimen(name, {GRAPH: files}, directory, None, 1 / 255)


def bundle_specimen(name: str, bundle: Path, images: Optional[Path], directory: Path) -> Specimen:
    """A bundle.

    Args:
        images: directory of image files that it is fed; pictures from a seed if None.
    """
    directory.mkdir(parents=True)
    channels = open_bundle(bundle).channels
    count, side = _BUNDLE_SIZES[channels]
    if images is None:
        originals = pictures(count, 2 * side, channels)
    else:
        small = read_images(find_images(images)[:count], channels)
        originals = resized(small, 2 * small.shape[1], PIL.Image.Resampling.BICUBIC)
    _save_images(directory, originals)
    return Specimen(name, {stage: graph_files(bundle, stage) for stage in STAGES}, directory, bundle, 1.0)


def pictures(count: int, side: int, channels: int, seed: int = 0) -> np.ndarray:
    """Pictures of coloured ellipses before a coloured ramp, uint8 (count, side, side, channels): no axis, direction or
    channel of them is like another."""
    generator = np.random.default_rng(seed)
    y, x = np.meshgrid(*2 * [np.linspace(0, 1, side, dtype=np.float32)], indexing="ij")
    images = []
    for _ in range(count):
        steepness = generator.uniform(-0.5, 0.5, (2, channels))
        picture = generator.uniform(0.2, 0.6, channels) + y[..., None] * steepness[0] + x[..., None] * steepness[1]
        for _ in range(12):
            (row, column), (height, width) = generator.uniform(0, 1, 2), generator.uniform(0.05, 0.3, 2)
            inside = ((y - row) / height) ** 2 + ((x - column) / width) ** 2 < 1
            picture[inside] = generator.uniform(0, 1, channels) + picture[inside] * 0.2
        images.append(picture + generator.normal(0, 0.02, picture.shape))
    return np.rint(np.clip(np.stack(images), 0, 1) * 255).astype(np.uint8)


def resized(images: np.ndarray, side: int, method: "PIL.Image.Resampling") -> np.ndarray:
    """Images uint8 (N, H, W, C) at another size."""
    planes = [
        [np.asarray(PIL.Image.fromarray(plane).resize((side, side), method)) for plane in image.transpose(2, 0, 1)]
        for image in images
    ]
    return np.ascontiguousarray(np.array(planes).transpose(0, 2, 3, 1))


def _save_images(directory: Path, originals: np.ndarray) -> None:
    np.save(directory / "originals.npy", originals)
    np.save(directory / "images.npy", resized(originals, originals.shape[1] // 2, PIL.Image.Resampling.LANCZOS))
