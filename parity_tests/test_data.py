"""Data sets and image files: what is there is read exactly, what is wrong is named with its remedy."""

import errno
import gzip
import os
import struct
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from conftest import PRETRAINED, run_cli_here

from vqvae_gluon.data import fingerprint, load_split, mnist, open_images
from vqvae_gluon.data.idx import cache_directory
from vqvae_gluon.data.images import (
    decode_image,
    encode_png,
    find_files,
    find_images,
    read_image,
    read_images,
    to_images,
    to_tensor,
    write_image,
)
from vqvae_gluon.errors import REJECTED, InputError

IDX_HEADER = struct.pack(">4i", 2051, 10000, 28, 28)


def test_mnist_is_the_official_one():
    train, test = load_split("mnist", "train", 1), load_split("mnist", "test", 1)
    assert (train.shape, test.shape) == ((60000, 28, 28, 1), (10000, 28, 28, 1))
    # The means that everybody quotes.
    assert train.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert test.mean() / 255 == pytest.approx(0.1325, abs=5e-5)


def test_mnist_from_a_directory(tmp_path):
    name, *_ = mnist.FILES["test"]
    load_split("mnist", "test", 1)  # Fills the cache.
    (tmp_path / name).write_bytes((cache_directory("mnist") / name).read_bytes())
    np.testing.assert_array_equal(load_split("mnist", "test", 1, tmp_path), load_split("mnist", "test", 1))


def test_a_missing_mnist_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte.gz: is missing; put the official file there"):
        load_split("mnist", "test", 1, tmp_path)


DAMAGED = {
    "empty": (b"", "it does not hold 10000 images of 28x28"),
    "no gzip": (b"garbage", "Not a gzipped file"),
    "cut off": (gzip.compress(IDX_HEADER + bytes(7840000))[:-9], "Compressed file ended"),
    "no deflate": (gzip.compress(b"")[:10] + b"\xff" * 50, "Error -3 while decompressing"),
    "other header": (gzip.compress(bytes(16) + bytes(7840000)), "it does not hold 10000 images of 28x28"),
    "too short": (gzip.compress(IDX_HEADER + bytes(7839999)), "it does not hold 10000 images of 28x28"),
    "too long": (gzip.compress(IDX_HEADER + bytes(7840001)), "it does not hold 10000 images of 28x28"),
    "other pixels": (gzip.compress(IDX_HEADER + bytes(7840000)), "the SHA-256 of what it holds is not"),
}


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_mnist_file_is_named(tmp_path, name, damage):
    content, reason = DAMAGED[damage]
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(InputError, match=f"ubyte.gz: is damaged: .*{reason}.*; put the official file there"):
        load_split(name, "test", 1, tmp_path)


def test_an_unknown_data_set_is_named():
    with pytest.raises(InputError, match="imagenet: is no data set; the names are mnist, fashion-mnist, cifar10, "):
        load_split("imagenet", "train", 1)


def test_an_image_folder(tmp_path, digits):
    (tmp_path / "test" / "deep").mkdir(parents=True)
    write_image(tmp_path / "test" / "b.png", digits[1])
    write_image(tmp_path / "test" / "deep" / "a.PNG", digits[2])
    write_image(tmp_path / "test" / "a.png", digits[0])
    (tmp_path / "test" / "notes.txt").write_text("no image")
    np.testing.assert_array_equal(load_split("images", "test", 1, tmp_path), digits[:3])


def test_an_image_folder_without_images_is_named(tmp_path):
    (tmp_path / "test").mkdir()
    with pytest.raises(InputError, match="holds no PNG or JPEG file; give a directory of images"):
        load_split("images", "test", 1, tmp_path)
    with pytest.raises(InputError, match=r"holds no .vq file; give a directory of codes"):
        find_files(tmp_path, (".vq",))


@pytest.mark.parametrize("command", ["pack", "encode-folder", "decode"])
def test_a_directory_that_cannot_be_read_is_named(tmp_path, digits, monkeypatch, command):
    """Its images would be missing without a word."""
    for name in ("train/a/0.png", "train/b/0.png", "test/0.png", "train/a/0.vq"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / "in" / name, digits[0])
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "b":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    words = {"pack": ["--data", tmp_path / "in"]}.get(command, [PRETRAINED, tmp_path / "in"])
    result = run_cli_here(command, *words, "--output", tmp_path / "out")
    assert result.returncode == REJECTED
    place = tmp_path / "in" / "train" / "b"
    assert result.stderr == (
        f"vqvae-gluon: error: {place}: cannot be read (Permission denied); make it readable, or move it away\n"
    )


def test_links_to_files_are_followed_and_links_to_directories_are_not(tmp_path, digits):
    for name in ("elsewhere", "in"):
        (tmp_path / name).mkdir()
    write_image(tmp_path / "elsewhere" / "0.png", digits[0])
    (tmp_path / "in" / "1.png").symlink_to(tmp_path / "elsewhere" / "0.png")
    (tmp_path / "in" / "2.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "in" / "sub").symlink_to(tmp_path / "elsewhere")
    assert find_images(tmp_path / "in") == [tmp_path / "in" / "1.png"]


def test_images_of_two_sizes_are_named(tmp_path, digits):
    write_image(tmp_path / "a.png", digits[0])
    write_image(tmp_path / "b.png", digits[1][:24])
    with pytest.raises(InputError, match=r"b.png: is 28x24 of 1 channels, but the images before it are 28x28"):
        read_images([tmp_path / "a.png", tmp_path / "b.png"], 1)


def test_images_are_fed_in_batches(tmp_path, digits):
    np.save(tmp_path / "digits.npy", digits[:10])
    images = open_images(str(tmp_path / "digits.npy"), 1, count=7)
    sizes: list[int] = []
    for files, count in images.batches(3):
        np.testing.assert_array_equal(read_images(files, 1), digits[sum(sizes) : sum(sizes) + count])
        sizes.append(count)
    assert sizes == [3, 3, 1]


@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_every_pixel(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 5, channels), dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(encode_png(pixels), channels), pixels)


def test_tensors_and_back(digits):
    tensor = to_tensor(digits[:5])
    assert (tensor.shape, tensor.dtype) == ((5, 1, 28, 28), np.float32)
    np.testing.assert_array_equal(to_images(tensor), digits[:5])
    assert to_images(np.array([[[[0.5, 1.5, 2.4, 254.6]]]], np.float32)).ravel().tolist() == [0, 2, 2, 255]


def test_a_kind_of_image_that_is_not_read_is_named(tmp_path):
    PIL.Image.new("CMYK", (8, 8)).save(tmp_path / "x.jpg")
    with pytest.raises(InputError, match=r"x.jpg: is not a readable .+its pixels are CMYK; save it with 8 bits"):
        read_image(tmp_path / "x.jpg", 1)


def test_the_fingerprint_knows_shape_and_pixels(digits):
    a, b = digits[:2], digits[:2].copy()
    assert fingerprint(a) == fingerprint(b)
    b[1, 27, 27, 0] ^= 1
    assert fingerprint(a) != fingerprint(b)
    assert fingerprint(a) != fingerprint(a.reshape(4, 14, 28, 1))
