"""The VQ-VAE, and the two graphs of it that are exported."""

from typing import Any

from vqvae_gluon.compat import mx
from vqvae_gluon.config import ModelConfig
from vqvae_gluon.model.quantizer import VectorQuantizer

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


class Encoder(nn.HybridSequential):
    """Images to latents: float32 (N, C, H, W) in 0..1 to (N, D, H/s, W/s), s the stride."""

    def __init__(self, config: ModelConfig, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            width = config.image_channels
            side = 4 if config.residual_blocks else 3
            for i, channels in enumerate(config.hidden_channels):
                self.add(nn.Conv2D(channels, side, strides=2, padding=1, in_channels=width, prefix=f"conv{i}_"))
                self.add(nn.Activation("relu", prefix=f"relu{i}_"))
                width = channels
            if config.residual_blocks:
                _add_stack(self, config, width)
            self.add(nn.Conv2D(config.embedding_dim, 1, in_channels=width, prefix="latent_"))
            if not config.residual_blocks:
                self.add(nn.Activation("tanh", prefix="tanh_"))


class Decoder(nn.HybridSequential):
    """Latents to images: float32 (N, D, h, w) to (N, C, s*h, s*w) in 0..1.

    The last layer of a plain network is a 3x3 convolution, which is the transposed convolution of stride 1 with its
    kernel turned around: the same functions, but one that oneDNN can differentiate (docs/architecture.md, "The mnist
    preset").
    """

    def __init__(self, config: ModelConfig, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            width = config.embedding_dim
            ups = list(reversed(config.hidden_channels))
            if config.residual_blocks:
                _add_stack(self, config, width)
                width = ups.pop(0)
            for i, channels in enumerate(ups):
                self.add(nn.Conv2DTranspose(channels, 4, strides=2, padding=1, in_channels=width, prefix=f"upconv{i}_"))
                self.add(nn.Activation("relu", prefix=f"relu{i}_"))
                width = channels
            if config.residual_blocks:
                image: Any = nn.Conv2DTranspose(
                    config.image_channels, 4, strides=2, padding=1, in_channels=width, prefix="image_"
                )
            else:
                image = nn.Conv2D(config.image_channels, 3, padding=1, in_channels=width, prefix="image_")
            self.add(image)
            self.add(nn.Activation("sigmoid", prefix="sigmoid_"))


class VQVAE(mx.gluon.HybridBlock):
    """Encoder, quantizer and decoder, for training.

    Every parameter has its shape from the start; nothing is inferred from a first batch.
    """

    def __init__(self, config: ModelConfig, **kwargs):
        super().__init__(prefix="", **kwargs)
        with self.name_scope():
            self.encoder = Encoder(config, prefix="encoder_")
            self.quantizer = VectorQuantizer(config.num_embeddings, config.embedding_dim, prefix="quantizer_")
            self.decoder = Decoder(config, prefix="decoder_")

    def hybrid_forward(self, F, data):
        """Reconstruct.

        Args:
            data: float32 (N, C, H, W), raw pixels 0..255.

        Returns:
            Reconstruction float32 (N, C, H, W) in 0..1, codes int32 (N, h, w), and three losses of shape (1,), each a
            mean: reconstruction (pixels as 0..1), codebook, commitment.
        """
        pixels = data / 255.0
        z_q, codes, codebook_loss, commitment_loss = self.quantizer(self.encoder(pixels))
        reconstruction = self.decoder(z_q)
        reconstruction_loss = F.mean(F.square(reconstruction - pixels))
        return reconstruction, codes, reconstruction_loss, codebook_loss, commitment_loss


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
        return F.clip(self.decoder(self.lookup(codes)) * 255.0, 0.0, 255.0, name="reconstruction")
