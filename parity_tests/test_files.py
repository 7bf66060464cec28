"""Files that are whole or absent, arrays in files, and messages; test_whole_files.py runs the programs."""

import io
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vqvae_gluon.archives import Archive
from vqvae_gluon.errors import InputError
from vqvae_gluon.files import atomic_write, parse_npy, read_file, read_npy, write_npy


def test_a_killed_python_leaves_nothing(tmp_path):
    (tmp_path / "there.txt").write_text("as it was")
    for name in ("new.txt", "there.txt"):
        script = (
            "import sys, time\nfrom vqvae_gluon.files import atomic_write\n"
            "with atomic_write(sys.argv[1]) as file:\n"
            "    file.write(b'half'); file.flush(); print('ready', flush=True); time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", script, tmp_path / name], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.kill()
        assert os.listdir(tmp_path) == ["there.txt"]
    assert (tmp_path / "there.txt").read_text() == "as it was"


def test_where_no_file_can_be_without_a_name_a_hidden_one_is_used(tmp_path, monkeypatch):
    opened = os.open

    def refusing(path, flags, *rest, **more):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refusing)
    for content in (b"one", b"another"):
        with atomic_write(tmp_path / "x") as file:
            assert len([name for name in os.listdir(tmp_path) if name.startswith(".vqvae.")]) == 1
            file.write(content)
        assert os.listdir(tmp_path) == ["x"]
        assert (tmp_path / "x").read_bytes() == content
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "x"):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_what_fails_while_a_file_is_written_leaves_the_one_that_was_there(tmp_path):
    path = tmp_path / ("x" * 255)  # As long as a name may be.
    for content in (b"one", b"another"):
        with atomic_write(path) as file:
            file.write(content)
        with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
            file.write(b"half")
            raise ZeroDivisionError
        assert path.read_bytes() == content
        assert len(os.listdir(tmp_path)) == 1
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_what_is_not_a_file_is_not_replaced(tmp_path):
    for path in (tmp_path, Path("/dev/null"), tmp_path / "nowhere" / "x"):
        with pytest.raises(OSError, match=str(path)), atomic_write(path):
            pass
    assert not list(tmp_path.iterdir())
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)])
def test_arrays_come_back(tmp_path, shape):
    array = np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)
    with atomic_write(tmp_path / "x.npy") as file:
        write_npy(file, array)
    for read in (np.load(tmp_path / "x.npy"), read_npy(tmp_path / "x.npy")):
        np.testing.assert_array_equal(read, array)
        assert (read.shape, read.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(parse_npy((tmp_path / "x.npy").read_bytes(), "x"), array)


def test_messages_are_one_line_whatever_a_file_is_called():
    error = InputError("a\nb\x1b[2J\u009b\u2028é", "is\r\nwrong")
    assert str(error) == r"a\x0ab\x1b[2J\x9b\u2028é: is\x0d\x0awrong"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("name", ["fifo", "/dev/zero", "directory", "link", "nothing"])
def test_what_is_no_file_is_not_opened(tmp_path, name):
    """A FIFO would be waited for; /dev/zero never ends."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    for read in (read_npy, lambda path: read_file(path, 100)):
        with pytest.raises(InputError, match="does not exist or is no file"):
            read(tmp_path / name)


def archived(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # Of two members of one name.
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def test_what_numpy_archives_is_read():
    arrays = {"a/b": np.arange(6.0).reshape(2, 3), "c": np.array(3, np.int32), "none": np.zeros((0, 2), np.float32)}
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, **arrays)
        archive = Archive(file, "x.npz")
        assert archive.sizes.keys() == arrays.keys()
        for name, array in arrays.items():
            found = archive.array(name)
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it does not end as a zip file does"),
        (b"PK\3\4" + bytes(100), "it does not end as a zip file does"),
        (archived([("x", b"")]), "its member x is no array"),
        (archived([("../x.npy", b"")]), "its member ../x.npy is no array"),
        (archived([("/x.npy", b"")]), "its member /x.npy is no array"),
        (archived([("x.npy", b""), ("x.npy", b"")]), "it holds two arrays of one name"),
        (archived([("x.npy", b"")], zipfile.ZIP_LZMA), "compressed in another way"),
        (
            archived([(f"{n:060}.npy", b"") for n in range(10000)], zipfile.ZIP_STORED),
            "its directory has 1100000 bytes",
        ),
        (archived([("x.npy", b"")]) + b"x", "it does not end as a zip file does"),
    ],
    ids=["empty", "short", "no array", "above", "absolute", "twice", "compression", "many", "longer"],
)
def test_an_archive_of_anything_else_is_refused(data, why):
    with pytest.raises(InputError, match=why):
        Archive(io.BytesIO(data), "x.npz")


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\1\0", b"\x80\4K\1."])
def test_a_member_that_is_no_array_is_refused(content):
    with pytest.raises(InputError, match=r"x.npz: x: is not an .npy file"):
        Archive(io.BytesIO(archived([("x.npy", content)])), "x.npz").array("x")


def test_a_member_that_is_more_than_its_directory_says_is_not_expanded():
    data = archived([("x.npy", bytes(1 << 20))])
    assert data.count((1 << 20).to_bytes(4, "little")) == 2
    claimed = data.replace((1 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    with pytest.raises(InputError, match="CRC"):
        Archive(io.BytesIO(claimed), "x.npz").read("x")
    longer = data.replace((1 << 20).to_bytes(4, "little"), (1 << 30).to_bytes(4, "little"))
    with pytest.raises(InputError, match="is cut off"):
        Archive(io.BytesIO(longer), "x.npz").read("x")
