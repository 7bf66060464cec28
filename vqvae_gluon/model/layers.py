"""Gluon's layers, computed in another way for training: the same functions of the same parameters, faster to
differentiate on a CPU. What each saves: docs/training.md, "What training costs"."""

from typing import Any

from vqvae_gluon.compat import mx

nn: Any = mx.gluon.nn


def mean_square(F, x):
    """Mean square of all values of x, (N, ...), as (1,). Each image's is taken first: MXNet sums on one processor to
    one number, and on all of them to several."""
    return F.mean(F.mean(F.square(x), axis=0, exclude=True))


class TrainingConv2D(nn.Conv2D):
    """A convolution of stride 1 to few channels that keeps height and width, which must be multiples of a block.

    All pixels of a block are computed together, as channels of one convolution with that stride, so that no channel is
    only padding. Its kernel is as large as all that the block depends on, and holds the original one at every place.
    """

    def __init__(self, *args, block: int, **kwargs):
        super().__init__(*args, **kwargs)
        self._block = block

    def hybrid_forward(self, F, x, weight, bias):
        block = self._block
        places = [
            F.pad(weight, mode="constant", pad_width=(0, 0, 0, 0, row, block - 1 - row, column, block - 1 - column))
            for row in range(block)
            for column in range(block)
        ]
        kernel = [side + block - 1 for side in self._kwargs["kernel"]]
        kwargs = {**self._kwargs, "kernel": kernel, "stride": (block, block), "num_filter": self._channels * block**2}
        x = F.Convolution(x, F.concat(*places, dim=0), F.tile(bias, block**2), **kwargs)
        return F.depth_to_space(x, block)


class TrainingConv2DTranspose(nn.Conv2DTranspose):
    """A transposed convolution whose bias is added by a convolution of each channel with a one. MXNet adds that bias
    outside of oneDNN, and takes the tensor out of oneDNN's layout and back for it."""

    def hybrid_forward(self, F, x, weight, bias):
        channels = self.weight.shape[1]
        x = F.Deconvolution(x, weight, **{**self._kwargs, "no_bias": True})
        ones = F.ones((channels, 1, 1, 1))
        return F.Convolution(x, ones, bias, kernel=(1, 1), num_filter=channels, num_group=channels)
