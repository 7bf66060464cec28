"""Pictures as people have them, in one folder, of many sizes and kinds, among other files; and settings that fit."""

import dataclasses
import json

import numpy as np
import PIL.Image
import pytest
from conftest import run_cli, run_cli_here

from vqvae_gluon.config import PRESETS
from vqvae_gluon.data import load_split
from vqvae_gluon.data.folders import open_folder, split_files
from vqvae_gluon.data.images import fit, read_image, read_shape, write_image
from vqvae_gluon.data.imageset import read_all
from vqvae_gluon.errors import DONE, REJECTED, USAGE, InputError
from vqvae_gluon.training import checkpoint
from vqvae_gluon.training.adapt import adapt

TINY = ["--preset", "cifar10", "--hidden-channels", 8, 8, "--residual-channels", 4, "--num-embeddings", 16]


def waves(height: int, width: int, number: int = 0, channels: int = 3) -> np.ndarray:
    """A picture with some structure, uint8 (height, width, channels)."""
    y, x = np.mgrid[:height, :width]
    parts = [x / (3 + number % 7), y / (5 + number % 3), (x + y) / (9 + number % 5)][:channels]
    return np.asarray(127 + 120 * np.sin(np.stack(parts, axis=-1))).astype(np.uint8)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, pixels)


@pytest.fixture
def photos(tmp_path):
    """Twelve colour pictures of twelve sizes in one folder, with the leavings of other programs."""
    path = tmp_path / "photos"
    for number in range(12):
        place = path / ("a" if number % 2 else "b")
        place.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(waves(41 + number, 70 - number, number)).save(place / f"{number:02d}.jpg")
    (path / "checkpoint").mkdir()
    (path / "checkpoint" / "vqvae_001.pt").write_bytes(b"x" * 99)
    (path / "a" / "._01.jpg").write_bytes(b"what another system leaves")
    (path / "__MACOSX").mkdir()
    (path / "__MACOSX" / "01.jpg").write_bytes(b"the same")
    (path / ".thumbnails").mkdir()
    write_image(path / ".thumbnails" / "00.png", waves(8, 8))
    return path


def train(data, output, *flags):
    return run_cli("train", "--dataset", "images", "--data", data, "--output", output, *flags)


def test_a_flat_folder_is_split_by_name_whatever_the_seed(photos):
    files = {split: [file.name for file in split_files(photos, split)] for split in ("train", "test")}
    assert files["test"] == ["06.jpg"]  # The tenth by path: those of a/ come first.
    assert sorted(files["train"] + files["test"]) == [f"{number:02d}.jpg" for number in range(12)]


def test_a_folder_with_train_alone_is_split_too(photos):
    photos.rename(photos.parent / "train")
    assert len(split_files(photos.parent, "test")) == 1
    assert len(split_files(photos.parent, "train")) == 11


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([], r"photos: holds no PNG or JPEG file; give a directory of images"),
        (["a.png", "b.png"], r"photos: holds 2 pictures; give 3 at least"),
        ([".a.png"], r"photos: holds hidden PNG and JPEG files alone; give a folder of pictures"),
        (["a.webp", "b.webp"], r"photos: holds no PNG or JPEG file, but others \(.webp 2\); convert its pictures"),
        (["test/a.png"], r"photos: has test/ and no train/; give it both, or neither"),
        (None, r"photos: is no directory; give the folder of the pictures by --data"),
    ],
)
def test_a_folder_that_cannot_be_split_says_what_it_wants(names, why, tmp_path):
    if names is not None:
        (tmp_path / "photos" / "test" if names and "test" in names[0] else tmp_path / "photos").mkdir(parents=True)
    for name in names or []:
        PIL.Image.fromarray(waves(8, 8)).save(tmp_path / "photos" / name)
    with pytest.raises(InputError, match=why):
        open_folder(tmp_path / "photos", None, 0, 4)


def test_pictures_of_many_sizes_are_cut_and_resized_to_the_shortest_side(photos):
    folder = open_folder(photos, None, 0, 4)
    assert (folder.train.shape, folder.image_size, folder.channels) == ((40, 40, 3), 40, 3)
    first = split_files(photos, "train")[0]
    np.testing.assert_array_equal(read_all(folder.train)[0], fit(read_image(first, 3), 40, 40))
    notes = "\n".join(folder.notes)
    assert "12 pictures of 12 sizes from 70x41 to 59x52, 11 to train on and 1 for tests (each 10th by name)" in notes
    assert "in a 6, b 6; left out: .pt 1" in notes
    assert "resized to 40x40, since b/00.jpg is 70x41; --image-size gives another size" in notes
    again = open_folder(photos, None, 0, 4)
    assert again.train.fingerprint() == folder.train.fingerprint()
    assert open_folder(photos, None, 32, 4).train.shape == (32, 32, 3)
    assert open_folder(photos, None, 32, 4).train.fingerprint() != folder.train.fingerprint()


def test_large_pictures_of_many_sizes_become_128_pixels_wide(tmp_path):
    for number, side in enumerate((300, 310, 320)):
        write_image(tmp_path / f"{number}.png", waves(side, 400))
    assert open_folder(tmp_path, None, 0, 8).train.shape == (128, 128, 3)


@pytest.mark.parametrize(("side", "stride"), [(1, 4), (3, 4), (15, 4), (20, 32)])
def test_one_small_picture_does_not_set_the_size_of_all(side, stride, tmp_path):
    for number, height in enumerate((50, side, 64)):
        write(tmp_path / "thumb" / f"{number}.png", waves(height, 64))
    why = f"is 64x{side}, and the shortest side would set the size of all 3 pictures; move it away, or give --image-"
    with pytest.raises(InputError, match=f"thumb/1.png: {why}"):
        open_folder(tmp_path, None, 0, stride)
    assert open_folder(tmp_path, None, 32, stride).train.shape == (32, 32, 3)


def test_a_stride_that_all_pictures_are_smaller_than_is_named(tmp_path):
    for number, height in enumerate((33, 50, 64)):
        write(tmp_path / f"{number}.png", waves(height, 64))
    with pytest.raises(
        InputError, match=r"sides below 128, the network's stride; give fewer --hidden-channels, .* 128$"
    ):
        open_folder(tmp_path, None, 0, 128)


def test_large_pictures_of_one_size_are_taken_with_a_note(tmp_path):
    for number in range(3):
        write(tmp_path / "large" / f"{number}.png", waves(200, 260, number))
        write(tmp_path / "small" / f"{number}.png", waves(200, 256, number))
    assert open_folder(tmp_path / "large", None, 0, 4).notes[1:] == [
        "taken as they are, 260x200; --image-size 128 trains faster"
    ]
    assert open_folder(tmp_path / "small", None, 0, 4).notes[1:] == []


@pytest.mark.parametrize("test", [True, False])
def test_pictures_that_are_not_used_are_counted(test, tmp_path):
    for name in ("train/0", "train/1", "train/2", "val/3", "val/4", "val/.5", "6", *(["test/7"] if test else [])):
        write(tmp_path / f"{name}.png", waves(16, 16))
    assert open_folder(tmp_path, None, 0, 4).notes[0].endswith("; not used: val 2, . 1")


def test_without_train_nothing_is_unused(photos):
    assert "not used" not in open_folder(photos, None, 0, 4).notes[0]


def test_pictures_of_one_size_are_padded_as_reconstruct_pads(tmp_path):
    for number in range(3):
        write_image(tmp_path / f"{number}.png", waves(30, 34, number))
    folder = open_folder(tmp_path, None, 0, 4)
    image = read_all(folder.train)[1]
    assert (image.shape, folder.image_size) == ((32, 36, 3), 0)
    np.testing.assert_array_equal(image[:30, :34], waves(30, 34, 1))
    np.testing.assert_array_equal(image[31, :34], waves(30, 34, 1)[29])
    assert "repeated up to 36x32, which the network's stride 4 divides" in folder.notes[-1]


def test_fit_takes_the_middle():
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 20:60] = waves(40, 40)
    np.testing.assert_array_equal(fit(picture, 40, 40), waves(40, 40))
    half = fit(picture, 20, 20)
    expected = np.asarray(PIL.Image.fromarray(waves(40, 40)).resize((20, 20), PIL.Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(half, expected)
    assert fit(waves(9, 300, channels=1), 16, 16).shape == (16, 16, 1)


def kinds(path):
    """A picture of each kind that cameras, scanners and programs write; which of them have colours."""
    pixels = waves(32, 32)
    gray = waves(32, 32, channels=1)[..., 0]
    palette = PIL.Image.fromarray(gray).convert("P")
    pictures = {
        "gray.png": (PIL.Image.fromarray(gray), 1),
        "gray.jpg": (PIL.Image.fromarray(gray), 1),
        "deep.png": (PIL.Image.fromarray(gray.astype(np.uint16) * 257), 1),
        "alpha.png": (PIL.Image.merge("LA", [PIL.Image.fromarray(gray)] * 2), 1),
        "bits.png": (PIL.Image.fromarray(gray).convert("1"), 1),
        "gray-palette.png": (palette, 1),
        "rgba.png": (PIL.Image.fromarray(pixels).convert("RGBA"), 3),
        "palette.png": (PIL.Image.fromarray(pixels).quantize(8), 3),
        "rgb.jpg": (PIL.Image.fromarray(pixels), 3),
    }
    for name, (picture, _) in pictures.items():
        picture.save(path / name)
    return {name: channels for name, (_, channels) in pictures.items()}


def test_the_shape_of_a_file_is_known_without_decoding_it(tmp_path):
    for name, channels in kinds(tmp_path).items():
        assert read_shape(tmp_path / name) == (32, 32, channels), name
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(waves(20, 30)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_shape(tmp_path / "turned.jpg") == read_image(tmp_path / "turned.jpg", 3).shape == (30, 20, 3)


def test_channels_come_from_the_pictures(tmp_path):
    channels = kinds(tmp_path)
    assert open_folder(tmp_path, None, 0, 4).channels == 3
    assert open_folder(tmp_path, 1, 0, 4).train.shape == (32, 32, 1)
    for name, count in channels.items():
        if count == 3:
            (tmp_path / name).unlink()
    assert open_folder(tmp_path, None, 0, 4).train.shape == (32, 32, 1)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"text"])
def test_a_damaged_picture_is_named_before_anything_is_trained(split, damage, photos, tmp_path):
    path = split_files(photos, split)[-1]
    path.write_bytes(damage(path.read_bytes()))
    result = run_cli_here("train", "--dataset", "images", "--data", photos, "--output", tmp_path / "run", *TINY)
    assert result.returncode == REJECTED
    assert f"{path}: is not a readable PNG or JPEG image (" in result.stderr
    assert result.stderr.endswith("; replace it, or move it away\n")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("sizes", [(32, 32), (32, 40)])
@pytest.mark.parametrize("kinds", [2, 1])
def test_all_damaged_pictures_are_named_at_once(sizes, kinds, tmp_path):
    """Those whose head is damaged, which a first look finds, and those whose pixels are."""
    photos = tmp_path / "photos"
    for number in range(20):
        write(photos / f"{number:03d}.png", waves(sizes[number % 2], 32, number))
    for name in ("000.png", "009.png", "019.png"):
        (photos / name).write_bytes((photos / name).read_bytes()[:-40])
    if kinds > 1:
        (photos / "015.png").write_bytes(b"text")
    result = run_cli_here("train", "--dataset", "images", "--data", photos, "--output", tmp_path / "run", *TINY)
    assert result.returncode == REJECTED
    assert len(result.stderr.splitlines()) == 1
    assert f"{photos}: {2 + kinds} of 20 pictures cannot be read: 000.png (" in result.stderr
    assert all(f"{name} (" in result.stderr for name in ("009.png", "019.png"))
    assert ("015.png (it is of no kind that is known)" in result.stderr) == (kinds > 1)
    assert result.stderr.endswith("); replace them, or move them away\n")


def test_what_was_decided_is_told_before_too_few_latents(tmp_path):
    for number in range(12):
        write(tmp_path / "photos" / f"{number:02d}.png", waves(4, 4, number))
    result = train(tmp_path / "photos", tmp_path / "run")
    assert result.returncode == REJECTED
    *notes, error = result.stderr.splitlines()
    assert "12 pictures of 4x4" in notes[0]
    assert "too few for the 64 rows of the codebook" in error


def test_the_readmes_command_works_on_300_colour_pictures(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(300):
        write_image(tmp_path / "photos" / f"{number:03d}.png", waves(8, 8, number))
    result = train(tmp_path / "photos", tmp_path / "run", "--epochs", 1)
    assert result.returncode == DONE, result.stderr
    config = checkpoint.load(tmp_path / "run" / "last.npz").config
    assert (config.model.image_channels, config.training.batch_size, config.training.validation_images) == (3, 30, 27)
    assert "batch_size is 30, not the preset's 500: an epoch has 243 images" in result.stderr
    assert run_cli("train", "--resume", "--output", tmp_path / "run").returncode == DONE
    manifest = run_cli("export", tmp_path / "run", "--output", tmp_path / "bundle")
    assert manifest.returncode == DONE
    assert json.loads((tmp_path / "bundle" / "manifest.json").read_text())["input"]["channels"] == 3


def test_gray_pictures_train_the_residual_network(tmp_path):
    (tmp_path / "scans").mkdir()
    for number in range(30):
        write_image(tmp_path / "scans" / f"{number:02d}.png", waves(16, 16, number, 1))
    # Full width: of narrow networks MXNet finds a gradient.
    flags = ["--preset", "cifar10", "--epochs", 1, "--num-embeddings", 16]
    result = train(tmp_path / "scans", tmp_path / "run", *flags)
    assert result.returncode == DONE, result.stderr
    assert "image_channels is 1, not the preset's 3: the images have as many" in result.stderr
    assert checkpoint.load(tmp_path / "run" / "last.npz").config.model.image_channels == 1


def test_adaptation_changes_nothing_that_was_given_and_nothing_of_a_presets_own_data():
    for name, images in (("mnist", 60000), ("mnist-original", 60000), ("cifar10", 50000), ("cifar10-sonnet", 50000)):
        assert adapt(PRESETS[name], frozenset(), images, 1) == (PRESETS[name], [])
    given = frozenset({"training.batch_size", "training.validation_images", "training.epochs"})
    assert adapt(PRESETS["mnist"], given, 300, 1) == (PRESETS["mnist"], [])


@pytest.mark.parametrize("images", [3, 10, 50, 270, 5000])
@pytest.mark.parametrize("workers", [1, 2])
def test_adaptation_leaves_batches_that_workers_can_share(images, workers):
    config, notes = adapt(PRESETS["cifar10"], frozenset(), images, workers)
    training = config.training
    left = images - training.validation_images
    assert training.batch_size % workers == 0
    assert 1 <= training.batch_size <= max(left, workers)
    assert training.steps <= 100 * max(1, left // training.batch_size)
    assert config == dataclasses.replace(PRESETS["cifar10"], training=training)
    assert [note.split()[0] for note in notes][:1] == ["validation_images"]


def test_what_was_given_and_does_not_fit_is_refused_with_the_numbers(photos, tmp_path):
    flags = ["--dataset", "images", "--data", photos, "--output", tmp_path / "run", *TINY, "--batch-size", 64]
    result = run_cli_here("train", *flags)
    assert result.returncode == REJECTED
    assert "of 11 images 1 are held out, and 10 are left, fewer than a batch of 64; lower" in result.stderr


def test_a_run_is_not_written_among_the_pictures(photos):
    result = run_cli_here("train", "--dataset", "images", "--data", photos, "--output", photos / "run", *TINY)
    assert result.returncode == USAGE
    assert "--output: " in result.stderr
    assert "all pictures of which are trained on; give another place" in result.stderr
    assert not (photos / "run").exists()


def test_an_image_size_that_the_stride_does_not_divide_is_a_usage_error(photos):
    result = run_cli_here("train", "--dataset", "images", "--data", photos, "--image-size", 30)
    assert result.returncode == USAGE
    assert "image_size is 30, which the network's stride of 4 does not divide; give 28 or 32" in result.stderr


def test_an_image_size_is_for_ones_own_pictures(tmp_path):
    result = run_cli_here("train", "--image-size", 32, "--output", tmp_path / "run")
    assert result.returncode == REJECTED
    assert "--image-size: is for pictures of your own (--dataset images), and the data set is mnist" in result.stderr


def test_a_flat_folder_of_many_sizes_is_packed(photos, tmp_path):
    words = ["--dataset", "images", "--data", photos, "--output", tmp_path / "records"]
    refused = run_cli_here("pack", *words)
    assert refused.returncode == REJECTED
    assert "give images of one size" in refused.stderr
    assert run_cli_here("pack", *words, "--image-size", 24).returncode == DONE
    packed = load_split("records", "train", 3, tmp_path / "records")
    np.testing.assert_array_equal(packed, read_all(open_folder(photos, 3, 24, 4).train))
