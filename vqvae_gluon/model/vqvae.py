"""The VQ-VAE, and the two graphs of it that are exported."""

import math
from typing import Any

from vqvae_gluon.compat import mx
from vqvae_gluon.config import ModelConfig
from vqvae_gluon.model.layers import TrainingConv2D, TrainingConv2DTranspose, mean_square
from vqvae_gluon.model.quantizer import make_quantizer

nn: Any = mx.gluon.nn


class Residual(mx.gluon.HybridBlock):
    """x + conv1(relu(conv0(relu(x)))), the second convolution 1x1.

    What makes x must end in an activation or in such a sum: behind a bare convolution MXNet's executors compute the sum
    wrongly (artifacts/fusion.py).
    """

    def __init__(self, channels: int, hidden: int, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.relu0 = nn.Activation("relu", prefix="relu0_")
            self.conv0 = nn.Conv2D(hidden, 3, padding=1, in_channels=channels, prefix="conv0_")
            self.relu1 = nn.Activation("relu", prefix="relu1_")
            self.conv1 = nn.Conv2D(channels, 1, in_channels=hidden, prefix="conv1_")

    def hybrid_forward(self, F, x):
        return F.elemwise_add(x, self.conv1(self.relu1(self.conv0(self.relu0(x)))), name="sum")


def _add_stack(half: "nn.HybridSequential", config: ModelConfig, width: int) -> None:
    """Add the residual part of a half: a 3x3 convolution, the blocks, and an activation at both ends of them."""
    channels = config.hidden_channels[-1]
    half.add(nn.Conv2D(channels, 3, padding=1, in_channels=width, prefix="stem_"))
    half.add(nn.Activation("relu", prefix="stem_relu_"))
    for i in range(config.residual_blocks):
        half.add(Residual(channels, config.residual_channels, prefix=f"block{i}_"))
    half.add(nn.Activation("relu", prefix="stack_relu_"))


class Shift(mx.gluon.HybridBlock):
    """x + offset."""

    def __init__(self, offset: float, **kwargs):
        super().__init__(**kwargs)
        self._offset = offset

    def hybrid_forward(self, F, x):
        return x + self._offset


class Encoder(nn.HybridSequential):
    """Images to latents: float32 (N, C, H, W) in 0..1 to (N, D, H/s, W/s), s the stride."""

    def __init__(self, config: ModelConfig, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            width = config.image_channels
            side = 4 if config.residual_blocks else 3
            if config.residual_blocks:
                self.add(Shift(-_GRAY, prefix="shift_"))
            for i, channels in enumerate(config.hidden_channels):
                self.add(nn.Conv2D(channels, side, strides=2, padding=1, in_channels=width, prefix=f"conv{i}_"))
                self.add(nn.Activation("relu", prefix=f"relu{i}_"))
                width = channels
            if config.residual_blocks:
                _add_stack(self, config, width)
            self.add(nn.Conv2D(config.embedding_dim, 1, in_channels=width, prefix="latent_"))
            if not config.residual_blocks:
                self.add(nn.Activation("tanh", prefix="tanh_"))


_GRAY = 0.5


def _upconvolution(config: ModelConfig, training: bool, channels: int, width: int, **kwargs) -> "nn.Conv2DTranspose":
    """To twice the height and width. MXNet's initializers take the two channels of its weight for each other."""
    kind = TrainingConv2DTranspose if training else nn.Conv2DTranspose
    start = mx.init.Normal(1 / math.sqrt(16 * width)) if config.residual_blocks else None
    return kind(channels, 4, strides=2, padding=1, in_channels=width, weight_initializer=start, **kwargs)


def _image_convolution(config: ModelConfig, training: bool, width: int, **kwargs) -> "nn.Conv2D":
    arguments = {"channels": config.image_channels, "kernel_size": 3, "padding": 1, "in_channels": width, **kwargs}
    if not training:
        return nn.Conv2D(**arguments)
    return TrainingConv2D(**arguments, block=min(config.stride, 4 if config.image_channels == 1 else 2))


class Decoder(nn.HybridSequential):
    """Latents to images: float32 (N, D, h, w) to (N, C, s*h, s*w), 0..1 and, of a residual network, somewhat beyond.

    The last layer of a plain network is a 3x3 convolution, which is the transposed convolution of stride 1 with its
    kernel turned around: the same functions, but one that oneDNN can differentiate (docs/architecture.md, "The mnist
    preset").

    Args:
        training: compute it in the way that is fast to train (model/layers.py).
    """

    def __init__(self, config: ModelConfig, training: bool = False, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            width = config.embedding_dim
            ups = list(reversed(config.hidden_channels))
            if config.residual_blocks:
                _add_stack(self, config, width)
                width = ups.pop(0)
            for i, channels in enumerate(ups):
                self.add(_upconvolution(config, training, channels, width, prefix=f"upconv{i}_"))
                self.add(nn.Activation("relu", prefix=f"relu{i}_"))
                width = channels
            if config.residual_blocks:
                self.add(_upconvolution(config, training, config.image_channels, width, prefix="image_"))
                self.add(Shift(_GRAY, prefix="shift_"))
            else:
                self.add(_image_convolution(config, training, width, prefix="image_"))
                self.add(nn.Activation("sigmoid", prefix="sigmoid_"))

    def start_at(self, mean: float) -> None:
        """Have the untrained network give pixels of about this mean, above 0 and below 1."""
        bias = self.collect_params()[f"{self.prefix}image_bias"]
        is_linear = isinstance(self[-1], Shift)
        bias.set_data(mx.nd.full(bias.shape, mean - _GRAY if is_linear else math.log(mean / (1 - mean))))


class VQVAE(mx.gluon.HybridBlock):
    """Encoder, quantizer and decoder.

    Every parameter has its shape from the start; nothing is inferred from a first batch.

    Args:
        training: it is to be trained; the same functions, but faster to differentiate.
    """

    def __init__(self, config: ModelConfig, training: bool = False, **kwargs):
        super().__init__(prefix="", **kwargs)
        self._is_residual = bool(config.residual_blocks)
        with self.name_scope():
            self.encoder = Encoder(config, prefix="encoder_")
            self.quantizer = make_quantizer(config, prefix="quantizer_")
            self.decoder = Decoder(config, training, prefix="decoder_")

    def start(self) -> None:
        """Initialize the parameters: of a residual network as Sonnet does, with a variance of 1 / the number of values
        that an output is the sum of."""
        self.initialize(mx.init.Xavier("gaussian", "in", 1) if self._is_residual else mx.init.Xavier())

    def hybrid_forward(self, F, data):
        """Reconstruct.

        Args:
            data: float32 (N, C, H, W), raw pixels 0..255.

        Returns:
            Reconstruction float32 (N, C, H, W) in 0..1, latent float32 (N, D, h, w), codes int32 (N, h, w), and three
            losses of shape (1,), each a mean: reconstruction (pixels as 0..1), codebook, commitment.
        """
        pixels = data / 255.0
        z_e = self.encoder(pixels)
        z_q, codes, codebook_loss, commitment_loss = self.quantizer(z_e)
        reconstruction = self.decoder(z_q)
        reconstruction_loss = mean_square(F, reconstruction - pixels)
        return reconstruction, z_e, codes, reconstruction_loss, codebook_loss, commitment_loss


def to_pixels(F, decoded):
    """What a decoder gives as pixels, 0..255: the one place where images are clipped. The last layer of a residual
    network is linear, and a byte would wrap around."""
    return F.clip(decoded * 255.0, 0.0, 255.0, name="reconstruction")


class ImagesToCodes(mx.gluon.HybridBlock):
    """The encoder graph of a bundle: float32 (N, C, H, W), raw pixels 0..255, to int32 (N, h, w)."""

    def __init__(self, model: VQVAE):
        super().__init__(prefix="")
        self.encoder = model.encoder
        self.nearest = model.quantizer.nearest

    def hybrid_forward(self, F, data):
        return self.nearest(self.encoder(data / 255.0))


class CodesToImages(mx.gluon.HybridBlock):
    """The decoder graph of a bundle: int32 (N, h, w) to float32 (N, C, H, W), clipped to 0..255."""

    def __init__(self, model: VQVAE):
        super().__init__(prefix="")
        self.lookup = model.quantizer.lookup
        self.decoder = model.decoder

    def hybrid_forward(self, F, codes):
        return to_pixels(F, self.decoder(self.lookup(codes)))
