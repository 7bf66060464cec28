"""Networks that the tests judge beside our own: MXNet's model zoo, and the standard residual VQ-VAE.

``python parity_tests/networks.py DIR`` writes the latter as an export, ``DIR/net-symbol.json`` and its parameters.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from vqvae_gluon.artifacts.bundle import GraphFiles
from vqvae_gluon.compat import mx

nn: Any = mx.gluon.nn

# Networks of MXNet's model zoo, and the smallest side of an image that is worth a test.
ZOO = {
    "resnet18_v1": 64,
    "resnet18_v2": 64,
    "resnet50_v1": 64,
    "mobilenet1.0": 64,
    "mobilenetv2_1.0": 64,
    "squeezenet1.1": 224,
    "densenet121": 224,
    "inceptionv3": 299,
    "vgg11_bn": 64,
    "alexnet": 64,
}


class Residual(nn.HybridBlock):
    """x + conv1(relu(conv0(relu(x)))): what MXNet's executor fuses wrongly behind a convolution."""

    def __init__(self, channels: int, hidden: int, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.relu0 = nn.Activation("relu")
            self.conv0 = nn.Conv2D(hidden, 3, padding=1)
            self.relu1 = nn.Activation("relu")
            self.conv1 = nn.Conv2D(channels, 1)

    def hybrid_forward(self, F, x):
        return F.elemwise_add(x, self.conv1(self.relu1(self.conv0(self.relu0(x)))), name="sum")


class ResidualVQVAE(nn.HybridBlock):
    """The VQ-VAE of van den Oord et al. 2017, section 4.1, in one graph: images to codes and reconstruction."""

    def __init__(self, channels: int = 16, rows: int = 32, **kwargs):
        super().__init__(**kwargs)
        self._rows, self._channels = rows, channels
        with self.name_scope():
            self.encoder = nn.HybridSequential(prefix="encoder_")
            self.decoder = nn.HybridSequential(prefix="decoder_")
            with self.encoder.name_scope():
                self.encoder.add(nn.Conv2D(channels, 4, strides=2, padding=1, prefix="down_"))
                self.encoder.add(nn.Activation("relu", prefix="relu_"))
                self.encoder.add(nn.Conv2D(channels, 3, padding=1, prefix="stem_"))
                self.encoder.add(Residual(channels, 8, prefix="block0_"), Residual(channels, 8, prefix="block1_"))
            with self.decoder.name_scope():
                self.decoder.add(nn.Conv2D(channels, 3, padding=1, prefix="stem_"))
                self.decoder.add(Residual(channels, 8, prefix="block0_"), Residual(channels, 8, prefix="block1_"))
                self.decoder.add(nn.Conv2DTranspose(3, 4, strides=2, padding=1, prefix="up_"))
            self.codebook = self.params.get("codebook", shape=(rows, channels))

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


def residual(directory: Path) -> GraphFiles:
    """Write the residual VQ-VAE, which MXNet's executors compute wrongly."""
    directory.mkdir(parents=True, exist_ok=True)
    return export(initialized(ResidualVQVAE(prefix=""), (4, 3, 32, 32)), directory, (4, 3, 32, 32))


if __name__ == "__main__":
    print(residual(Path(sys.argv[1])).symbol)
