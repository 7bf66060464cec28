"""What faults do to values: to the pixels of images, uint8 (N, H, W, C), to the tensor that is made of them, float32
(N, C, H, W), and to parameters."""

import numpy as np

_MEAN, _DEVIATION = {1: [0.1307], 3: [0.485, 0.456, 0.406]}, {1: [0.3081], 3: [0.229, 0.224, 0.225]}


def strided(images: np.ndarray, pixel: int = 0, row: int = 0) -> np.ndarray:
    """Every pixel taken from where it would lie if pixels had ``pixel`` bytes, but rows their own length, and rows
    ``row`` bytes more than they have. What lies behind an image is the next; behind the last, zeros."""
    count, height, width, channels = images.shape
    j, k, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    addresses = (width * channels + row) * j + (pixel or channels) * k + c
    size = height * width * channels
    memory = np.concatenate([images.ravel(), np.zeros(addresses.max() + 1, np.uint8)])
    return np.stack([memory[i * size + addresses] for i in range(count)])


def shifted(images: np.ndarray, axis: int) -> np.ndarray:
    """Every pixel one further along an axis; black comes in."""
    moved = np.roll(images, 1, axis)
    moved[(slice(None),) * axis + (0,)] = 0
    return moved


def blended(images: np.ndarray, background: int) -> np.ndarray:
    """Transparency blended onto a background, where training dropped it: the images fade towards their right side."""
    alpha = np.linspace(1, 0.25, images.shape[2])[:, np.newaxis]
    return np.rint(images * alpha + background * (1 - alpha)).astype(np.uint8)


def powered(images: np.ndarray, exponent: float) -> np.ndarray:
    return np.rint((images / 255) ** exponent * 255).astype(np.uint8)


def hwc_as_chw(tensor: np.ndarray) -> np.ndarray:
    return tensor.transpose(0, 2, 3, 1).reshape(tensor.shape)


def column_major(tensor: np.ndarray) -> np.ndarray:
    """Each image (C, H, W) filled with the first index running fastest."""
    return tensor.transpose(0, 3, 2, 1).reshape(tensor.shape)


def normalised(tensor: np.ndarray, unit: float) -> np.ndarray:
    """Less the data's mean, by its standard deviation, where the network takes the pixels as they are."""
    mean, deviation = (
        np.array(numbers[tensor.shape[1]], np.float32)[:, np.newaxis, np.newaxis] for numbers in (_MEAN, _DEVIATION)
    )
    return (tensor / np.float32(255 * unit) - mean) / deviation


def signed(tensor: np.ndarray, unit: float) -> np.ndarray:
    """Bytes read as -128..127."""
    return np.where(tensor >= np.float32(127.5 * unit), tensor - np.float32(256 * unit), tensor).astype(np.float32)


def cut_short(tensor: np.ndarray, share: float = 0.1) -> np.ndarray:
    """The last values were never written."""
    flat = tensor.ravel().copy()
    start = len(flat) - max(1, int(len(flat) * share))
    flat[start:] = garbage((len(flat) - start,))
    return flat.reshape(tensor.shape)


def one_late(values: np.ndarray) -> np.ndarray:
    """Read from one element too far on; the last one is what lies behind."""
    return np.concatenate([values.ravel()[1:], garbage((1,))]).reshape(values.shape)


def noise(values: np.ndarray) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(values.shape).astype(np.float32)


def unwritten(values: np.ndarray) -> np.ndarray:
    return garbage(values.shape)


def hwio(values: np.ndarray) -> np.ndarray:
    """(O, I, ...) from memory that holds it as other libraries do, (..., I, O)."""
    return values.transpose(*range(2, values.ndim), 1, 0).reshape(values.shape)


def float16(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).astype(np.float32)


def bfloat16(values: np.ndarray) -> np.ndarray:
    """The nearest values of 16 bits with the exponent of float32, ties to even."""
    words = np.ascontiguousarray(values).view(np.uint32)
    rounded = words + 0x7FFF + ((words >> 16) & 1)
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


def another_epoch(values: np.ndarray) -> np.ndarray:
    """As they might be an epoch later: every value moved by a share of its own size and of the tensor's."""
    generator = np.random.default_rng(2)
    spread = 0.03 * np.abs(values).mean()
    moved = values * (1 + generator.normal(0, 0.03, values.shape)) + generator.normal(0, spread, values.shape)
    return np.where(values > 0, np.maximum(moved, values / 2), moved).astype(np.float32)


def permuted(values: np.ndarray) -> np.ndarray:
    return values[np.random.default_rng(3).permutation(len(values))]


def nhwc(values: np.ndarray) -> np.ndarray:
    """(N, C, H, W) read from memory that holds (N, H, W, C)."""
    return values.transpose(0, 2, 3, 1).reshape(values.shape)


def garbage(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Float32 values as they lie in memory that nobody has written: zeros, halves of addresses, remains of other
    tensors; none of them NaN or infinite."""
    generator = np.random.default_rng(seed)
    size = int(np.prod(shape))
    kinds = generator.integers(0, 4, size)
    words = np.zeros(size, np.uint32)
    words[kinds == 1] = generator.integers(0, 2**32, int((kinds == 1).sum()))
    words[kinds == 2] = 0x7F00 + generator.integers(0, 0xFF, int((kinds == 2).sum()))
    values = words.view(np.float32).copy()
    values[kinds == 3] = generator.standard_normal(int((kinds == 3).sum()))
    values[~np.isfinite(values)] = 0
    return values.reshape(shape)


class Noise:
    """What is read before it is there: the second half of a tensor is other noise in every run."""

    def __init__(self) -> None:
        self._generator = np.random.default_rng(0)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        flat = values.ravel().copy()
        late = len(flat) // 2
        if values.dtype.kind == "f":
            flat[late:] = self._generator.standard_normal(len(flat) - late)
        else:
            flat[late:] = self._generator.integers(0, 8, len(flat) - late)
        return flat.reshape(values.shape)
