"""Gluon's layers computed in another way for training: the same functions of the same parameters, faster to differentiate
on a CPU. What each saves: docs/training.md, "What training costs"."""

from typing import Any

from vqvae_gluon.compat import mx

nn: Any = mx.gluon.nn

_OUTPUT_BLOCK, _INPUT_BLOCK = 8, 16  # channels that oneDNN's kernels take at once; it has no fast ones for fewer


class TrainingConv2D(nn.Conv2D):
    """A convolution to few channels that keeps height and width, all strides 1.

    Each of its kernel's values is a channel of a 1x1 convolution, of the same number of products; a second convolution,
    with a fixed kernel of zeros and ones, moves each channel to its place and adds them up. So the many input channels
    are gone through once, not once for every place of the kernel with output channels that are only padding.
    """

    def hybrid_forward(self, F, x, weight, bias):
        channels, width, height, length = self.weight.shape
        taps = channels * height * length
        inputs, outputs = _padded(taps, _INPUT_BLOCK), _padded(channels, _OUTPUT_BLOCK)
        rows = F.reshape(F.transpose(weight, (0, 2, 3, 1)), (taps, width, 1, 1))
        rows = F.concat(rows, F.zeros((inputs - taps, width, 1, 1)), dim=0)
        places = F.transpose(F.reshape(F.eye(taps, inputs), (channels, height, length, inputs)), (0, 3, 1, 2))
        places = F.concat(places, F.zeros((outputs - channels, inputs, height, length)), dim=0)
        bias = F.concat(bias, F.zeros((outputs - channels,)), dim=0)
        x = F.Convolution(x, rows, no_bias=True, kernel=(1, 1), num_filter=inputs)
        x = F.Convolution(x, places, bias, **{**self._kwargs, "num_filter": outputs})
        return F.slice_axis(x, axis=1, begin=0, end=channels)


class TrainingConv2DTranspose(nn.Conv2DTranspose):
    """A transposed convolution whose bias is added by a convolution of each channel with a one: MXNet adds the bias of a
    transposed convolution outside of oneDNN, and takes the tensor out of oneDNN's layout and back for it."""

    def hybrid_forward(self, F, x, weight, bias):
        channels = self.weight.shape[1]
        x = F.Deconvolution(x, weight, **{**self._kwargs, "no_bias": True})
        ones = F.ones((channels, 1, 1, 1))
        return F.Convolution(x, ones, bias, kernel=(1, 1), num_filter=channels, num_group=channels)


def _padded(count: int, block: int) -> int:
    return -(-count // block) * block
