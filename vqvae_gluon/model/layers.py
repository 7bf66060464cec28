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
    outside of oneDNN, and takes the tensor out of oneDNN's layout and back for it.

    To one channel oneDNN computes no gradient of it ("could not create a primitive descriptor for a reorder
    primitive"). There the pixels of a block of 2x2 are the channels of one convolution of stride 1, as in
    :class:`TrainingConv2D`: a kernel of 4x4, stride 2 and padding 1, which all of ours have, reaches 3x3 pixels.
    """

    def hybrid_forward(self, F, x, weight, bias):
        channels = self.weight.shape[1]
        if channels == 1:
            return self._to_one_channel(F, x, weight, bias)
        x = F.Deconvolution(x, weight, **{**self._kwargs, "no_bias": True})
        ones = F.ones((channels, 1, 1, 1))
        return F.Convolution(x, ones, bias, kernel=(1, 1), num_filter=channels, num_group=channels)

    def _to_one_channel(self, F, x, weight, bias):
        """Pixel 2i + r of a row takes x[i - 1 + t] by the kernel's column r + 3 - 2t, or 0 where it has none."""
        kernel = F.transpose(weight, axes=(1, 0, 2, 3))
        kernel = F.pad(kernel, mode="constant", pad_width=(0, 0, 0, 0, 1, 1, 1, 1))
        kernel = F.reverse(kernel, axis=(2, 3))
        places = [
            F.slice(kernel, begin=(None, None, 1 - row, 1 - column), end=(None,) * 4, step=(1, 1, 2, 2))
            for row in range(2)
            for column in range(2)
        ]
        x = F.Convolution(x, F.concat(*places, dim=0), F.tile(bias, 4), kernel=(3, 3), pad=(1, 1), num_filter=4)
        return F.depth_to_space(x, 2)
