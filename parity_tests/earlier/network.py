"""The earlier project's network: encoder, quantizer and decoder in one graph, images of 0..1 to codes and images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vqvae_gluon.artifacts.bundle import GraphFiles, open_bundle
from vqvae_gluon.artifacts.parameters import read_parameters
from vqvae_gluon.compat import mx

nn: Any = mx.gluon.nn

Parameters = dict[str, np.ndarray]  # Values by the names of a .params file.

ROWS, DIMENSIONS, SIDE = 64, 16, 7  # of the codebook and of the latent
EPSILON = 1e-5  # of BatchNorm


class EarlierVQVAE(nn.HybridBlock):
    """The earlier network; each argument is one thing that was, or may have been, otherwise.

    Args:
        batch_norm: a BatchNorm behind every convolution with a ReLU.
        wrong_sign: the straight-through estimator ``x - sg(x + q)``, which is -q; else ``x - sg(x - q)``, which is q.
        batch_size: baked into the quantizer's reshapes; 0 for any.
        column_major: the latent is handed to the decoder column by column.
    """

    def __init__(self, batch_norm=False, wrong_sign=False, batch_size=0, column_major=False):
        super().__init__(prefix="")
        self._wrong_sign, self._batch_size, self._column_major = wrong_sign, batch_size, column_major
        with self.name_scope():
            self.encoder = nn.HybridSequential(prefix="encoder_")
            self.decoder = nn.HybridSequential(prefix="decoder_")
            self.codebook = self.params.get("quantizer_codebook", shape=(ROWS, DIMENSIONS), init=mx.init.Uniform(0.25))
        with self.encoder.name_scope():
            for i, (width, channels) in enumerate(((1, 32), (32, 64))):
                layer = nn.Conv2D(channels, 3, strides=2, padding=1, in_channels=width, prefix=f"conv{i}_")
                self._add(self.encoder, layer, i, batch_norm)
            self.encoder.add(nn.Conv2D(DIMENSIONS, 1, in_channels=64, prefix="latent_"))
            self.encoder.add(nn.Activation("tanh", prefix="tanh_"))
        with self.decoder.name_scope():
            for i, (width, channels) in enumerate(((DIMENSIONS, 64), (64, 32))):
                layer = nn.Conv2DTranspose(channels, 4, strides=2, padding=1, in_channels=width, prefix=f"upconv{i}_")
                self._add(self.decoder, layer, i, batch_norm)
            self.decoder.add(nn.Conv2DTranspose(1, 3, padding=1, in_channels=32, prefix="image_"))
            self.decoder.add(nn.Activation("sigmoid", prefix="sigmoid_"))

    def _add(self, half, layer, i: int, batch_norm: bool) -> None:
        half.add(layer)
        if batch_norm:
            half.add(nn.BatchNorm(epsilon=EPSILON, in_channels=layer._channels, prefix=f"norm{i}_"))
        half.add(nn.Activation("relu", prefix=f"relu{i}_"))

    def hybrid_forward(self, F, data, codebook):
        """float32 (N, 1, 28, 28), 0..1, to codes (N, 7, 7), reconstruction (N, 1, 28, 28), 0..1, latent (N, 16, 7, 7)
        before the quantizer, and its codebook rows."""
        count = self._batch_size or -1
        latent = self.encoder(data)
        last = F.transpose(latent, axes=(0, 2, 3, 1), name="channels_last")
        pixels = F.reshape(last, shape=(-1, DIMENSIONS), name="pixels")
        norms = F.sum(F.square(codebook, name="squares"), axis=1, name="norms")
        products = F.FullyConnected(pixels, codebook, no_bias=True, num_hidden=ROWS, name="products")
        distances = F.broadcast_sub(F.expand_dims(norms, axis=0, name="row"), products * 2.0, name="distances")
        codes = F.argmin(distances, axis=1, name="nearest")
        found = F.Embedding(codes, codebook, input_dim=ROWS, output_dim=DIMENSIONS, name="rows")
        found = F.reshape(found, shape=(count, SIDE, SIDE, DIMENSIONS), name="grid")
        quantized = F.transpose(found, axes=(0, 3, 1, 2), name="quantized")
        step = F.elemwise_add if self._wrong_sign else F.elemwise_sub
        moved = step(latent, quantized, name="moved")
        estimated = F.elemwise_sub(latent, F.BlockGrad(moved, name="stop"), name="estimator")
        if self._column_major:
            estimated = F.transpose(estimated, axes=(0, 1, 3, 2), name="column_major")
        codes = F.reshape(codes, shape=(count, SIDE, SIDE), name="codes")
        return codes, self.decoder(estimated), latent, quantized


def pretrained(bundle: Path) -> Parameters:
    """The parameters of a bundle of the preset ``mnist`` under the earlier network's names, which are the same.

    Its last layer is a transposed convolution, the bundle's an ordinary one: the same with its kernel turned around.
    """
    opened = open_bundle(bundle)
    found = {name: np.array(values) for stage in ("encoder", "decoder") for name, values in _read(opened.graph(stage))}
    kernel = found["arg:decoder_image_weight"]
    found["arg:decoder_image_weight"] = np.ascontiguousarray(kernel[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))
    return found


def with_batch_norm(parameters: Parameters, data: np.ndarray) -> Parameters:
    """The same function in the network with BatchNorm: its statistics are those of the data, and scale and shift undo
    what they do."""
    net, found = load(EarlierVQVAE(), parameters), dict(parameters)
    images = mx.nd.array(data)
    for half, layers, signals in (("encoder", net.encoder, images), ("decoder", net.decoder, net(images)[3])):
        for i in range(2):
            signals = layers[2 * i](signals)
            array = signals.asnumpy()
            mean, variance = (moment(axis=(0, 2, 3)) for moment in (array.mean, array.var))
            prefix = f"{half}_norm{i}_"
            found[f"aux:{prefix}running_mean"], found[f"aux:{prefix}running_var"] = mean, variance
            found[f"arg:{prefix}beta"], found[f"arg:{prefix}gamma"] = mean, np.sqrt(variance + EPSILON)
            signals = layers[2 * i + 1](signals)
    return found


def as_numbers(digits: np.ndarray) -> np.ndarray:
    """uint8 (N, 28, 28, 1) as the network takes it: float32 (N, 1, 28, 28), 0..1."""
    return np.ascontiguousarray(digits.transpose(0, 3, 1, 2) / np.float32(255), np.float32)


def load(net: EarlierVQVAE, parameters: Mapping[str, np.ndarray]) -> EarlierVQVAE:
    """Set every parameter of a network."""
    net.initialize()
    given = {name[4:]: values for name, values in parameters.items()}
    for name, parameter in net.collect_params().items():
        parameter.set_data(mx.nd.array(given[name]))
    return net


def export(net: EarlierVQVAE, directory: Path) -> GraphFiles:
    """Export codes and reconstruction as Gluon does: ``net-symbol.json`` and ``net-0000.params``."""
    directory.mkdir(parents=True, exist_ok=True)
    with mx.name.NameManager():
        symbol = mx.sym.Group(list(net(mx.sym.var("data")))[:2])
    files = GraphFiles(directory / "net-symbol.json", directory / "net-0000.params")
    symbol.save(str(files.symbol))
    auxiliary, taken = set(symbol.list_auxiliary_states()), set(symbol.list_inputs())
    parameters = {
        f"{'aux' if name in auxiliary else 'arg'}:{name}": parameter.data()
        for name, parameter in net.collect_params().items()
        if name in taken
    }
    mx.nd.save(str(files.params), parameters)
    return files


def _read(files: GraphFiles):
    return read_parameters(files.params).items()
