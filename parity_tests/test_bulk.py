"""A folder of images to shards of codes: nothing is lost, nothing is done twice, whatever ends in between."""

import builtins
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import PRETRAINED, alter_parameters, run_cli_here, run_reconstruct
from distributed import Client
from mutate import fit_vq

from vqvae_gluon.artifacts.bundle import MANIFEST, open_bundle
from vqvae_gluon.artifacts.codes import read_codes
from vqvae_gluon.artifacts.shards import CodesFolder, part_path, read_lines, write_lines
from vqvae_gluon.data.images import read_image, write_image
from vqvae_gluon.errors import DONE, FAILED, REJECTED, USAGE, InputError, RuntimeFailure
from vqvae_gluon.files import digest
from vqvae_gluon.runtimes import bulk
from vqvae_gluon.runtimes.bulk import Part, encode_folder, encode_part
from vqvae_gluon.runtimes.gluon import Predictor

COUNT, SHARD_SIZE = 2000, 50
WAIT = 60  # seconds, for what must come
ENDING = 1  # the part that ends its worker


def files(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, hidden ones, too."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def identities(directory: Path) -> dict[str, tuple[int, int]]:
    """What tells whether a shard or the list of a part was written again."""
    found = [*(directory / "shards").iterdir(), *(directory / "parts").iterdir()]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def done(output: Path) -> int:
    return len(list((output / "parts").glob("*"))) if (output / "parts").exists() else 0


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    until = time.monotonic() + WAIT
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def command(folder: Path, output: Path, *words) -> list[str]:
    arguments = [PRETRAINED, folder, "--output", output, "--shard-size", SHARD_SIZE, *words]
    return [sys.executable, "-m", "vqvae_gluon", "encode-folder", *map(str, arguments)]


def start(folder: Path, output: Path, *words) -> subprocess.Popen:
    return subprocess.Popen(command(folder, output, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def workers_of(pid: int) -> list[int]:
    """The workers of a command, which runs in a child of its process."""
    children = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
    workers = [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return workers or [worker for child in children for worker in workers_of(int(child))]


@pytest.fixture(scope="module")
def many(tmp_path_factory, digits) -> Path:
    """Digits, each under several names."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(COUNT):
        path = folder / f"{number // 1000}" / f"{number % 1000:03d}.png"
        path.parent.mkdir(exist_ok=True)
        if number < 1000:
            write_image(path, digits[number])
        else:
            os.link(folder / "0" / path.name, path)
    return folder


@pytest.fixture(scope="module")
def whole(many, tmp_path_factory) -> dict[str, bytes]:
    """What a run writes that nothing disturbs."""
    output = tmp_path_factory.mktemp("whole")
    result = subprocess.run(command(many, output), capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (DONE, "")
    assert result.stdout == f"{output / 'index.jsonl'}\n"
    return files(output)


@pytest.fixture
def folder(tmp_path, digits) -> Path:
    """Ten digits, three of which are cut, in two directories."""
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for number in range(10):
        image = digits[number][:, : 21 if number in (2, 3, 7) else 28]
        write_image(tmp_path / "images" / ("sub" if number > 4 else ".") / f"{number}.png", image)
    return tmp_path / "images"


@pytest.fixture
def here(monkeypatch) -> None:
    """Parts are encoded in this process: quicker, where processes do not matter."""

    def run(function, tasks, jobs, limited) -> Iterator[tuple[Part, None]]:
        yield from ((task, function(task)) for task in tasks)

    monkeypatch.setattr(bulk, "run", run)


def encode_here(folder: Path, output: Path, *words) -> subprocess.CompletedProcess:
    return run_cli_here("encode-folder", PRETRAINED, folder, "--output", output, "--shard-size", 4, *words)


# What is written.


def test_the_index_says_where_the_codes_of_every_image_are(folder, tmp_path, here):
    """Shards of the images of one size; each is read alone, by both languages."""
    output = tmp_path / "codes"
    assert encode_here(folder, output).returncode == DONE
    header, *rows = map(json.loads, (output / "index.jsonl").read_text().splitlines())
    predictor = Predictor(open_bundle(PRETRAINED))
    text = (output / "index.jsonl").read_text()
    unsigned = text.replace(header["sha256"], "0" * 64)
    sha256 = hashlib.sha256(unsigned.encode()).hexdigest()
    assert header.pop("file") == "index.jsonl"
    assert header == {"format": 2, "bundle": predictor.digest, "shard_size": 4, "sha256": sha256}
    for row in rows:
        first = row["position"] == 0
        assert row.get("sha256") == (digest(output / "shards" / row["shard"]) if first else None)
    assert [row["name"] for row in rows] == [*(f"{n}.png" for n in range(5)), *(f"sub/{n}.png" for n in range(5, 10))]
    assert [(row["shard"], row["position"]) for row in rows] == [
        *(("000000-28x28.vq", 0), ("000000-28x28.vq", 1), ("000000-21x28.vq", 0), ("000000-21x28.vq", 1)),
        *(("000001-28x28.vq", 0), ("000001-28x28.vq", 1), ("000001-28x28.vq", 2), ("000001-21x28.vq", 0)),
        *(("000002-28x28.vq", 0), ("000002-28x28.vq", 1)),
    ]
    codes = CodesFolder(output)
    for row in rows:
        image = read_image(folder / row["name"], 1)[np.newaxis]
        found = codes.codes(row["name"])
        np.testing.assert_array_equal(found.values, predictor.encode(image))
        np.testing.assert_array_equal(predictor.decode_file(found), predictor.reconstruct(image))
    for result in (
        run_cli_here("decode", PRETRAINED, output, "--output", tmp_path / "python"),
        run_reconstruct("--bundle", PRETRAINED, "--decode", output, "--output", tmp_path / "cpp"),
    ):
        assert result.returncode == DONE, result.stderr
    assert len(files(tmp_path / "python")) == 10
    for name in files(tmp_path / "python"):
        np.testing.assert_array_equal(read_image(tmp_path / "python" / name, 1), read_image(tmp_path / "cpp" / name, 1))


def test_codes_that_are_not_there_are_told(folder, tmp_path, here):
    output = tmp_path / "codes"
    with pytest.raises(InputError, match=r"has no index.jsonl; finish it by 'vqvae-gluon encode-folder'"):
        CodesFolder(tmp_path)
    (folder / "0.png").write_bytes(b"nothing")
    encode_here(folder, output)
    codes = CodesFolder(output)
    with pytest.raises(InputError, match=r"index.jsonl: x.png is not in the index"):
        codes.codes("x.png")
    with pytest.raises(InputError, match=r"0.png has no codes: it is not a readable PNG or JPEG image"):
        codes.codes("0.png")
    shutil.copy(output / "shards" / "000000-21x28.vq", output / "shards" / "000001-28x28.vq")
    with pytest.raises(InputError, match=r"is not the shard that index.jsonl names"):
        codes.codes("sub/6.png")
    (output / "index.jsonl").write_text('{"format": 3, "bundle": "", "shard_size": 4}\n')
    with pytest.raises(InputError, match="its format is 3, not 2"):
        CodesFolder(output)


def test_large_images_go_into_several_shards_of_a_part(folder, tmp_path, here, monkeypatch):
    """Neither pixels nor codes of a whole part need to be held."""
    monkeypatch.setattr(bulk, "_PIXELS", 2 * 28 * 28)
    monkeypatch.setattr(bulk, "_CODES", 3 * 49)
    assert encode_folder(PRETRAINED, folder, tmp_path / "codes").rejected == []
    names = {path.name for path in (tmp_path / "codes" / "shards").iterdir()}
    assert len(names) > 3
    assert max(len(read_codes(tmp_path / "codes" / "shards" / name).values) for name in names) <= 4
    codes, predictor = CodesFolder(tmp_path / "codes"), Predictor(open_bundle(PRETRAINED))
    for name in codes.entries:
        image = read_image(folder / name, 1)[np.newaxis]
        np.testing.assert_array_equal(codes.codes(name).values, predictor.encode(image))


# What ends in between.


@pytest.mark.parametrize("moment", [1, 20])
def test_a_run_that_was_killed_goes_on_where_it_was(many, whole, tmp_path, moment):
    output = tmp_path / "codes"
    process = start(many, output)
    wait_for(lambda: done(output) >= moment, process)
    workers = workers_of(process.pid)
    process.kill()
    process.communicate(timeout=WAIT)
    until = time.monotonic() + WAIT
    while any(Path(f"/proc/{worker}").exists() for worker in workers):  # They end with it.
        assert time.monotonic() < until
        time.sleep(0.01)
    assert not (output / "index.jsonl").exists()
    assert files(output).items() <= whole.items()
    parts = {path.stem for path in (output / "parts").iterdir()}
    assert moment <= len(parts) < COUNT // SHARD_SIZE
    before = {name: identity for name, identity in identities(output).items() if name[:6] in parts}
    assert subprocess.run(command(many, output), capture_output=True, check=False).returncode == DONE
    assert files(output) == whole
    assert before.items() <= identities(output).items()


def test_a_worker_that_is_killed_is_replaced(many, whole, tmp_path):
    output = tmp_path / "codes"
    process = start(many, output, "--jobs", 2)
    wait_for(lambda: done(output) >= 2 and bool(workers_of(process.pid)), process)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    _, error = process.communicate(timeout=WAIT)
    assert (process.returncode, error) == (DONE, "")
    assert files(output) == whole


def test_nobody_needs_to_listen(folder, tmp_path):
    """Standard error may be closed."""
    run = command(folder, tmp_path / "codes", "--jobs", 1)
    result = subprocess.run(run, stdout=subprocess.PIPE, text=True, check=False, preexec_fn=lambda: os.close(2))
    assert (result.returncode, result.stdout) == (DONE, f"{tmp_path / 'codes' / 'index.jsonl'}\n")


def ends_its_worker(part: Part) -> None:
    if part.number == ENDING:
        with open(part.output / "ended", "a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    encode_part(part)


@contextlib.contextmanager
def images_away(folder: Path, names: Iterable[str]) -> Iterator[None]:
    moves = {folder / name: folder.parent / Path(name).name for name in names}
    for image, elsewhere in moves.items():
        image.rename(elsewhere)
    yield
    for image, elsewhere in moves.items():
        elsewhere.rename(image)


def test_a_part_that_ends_every_worker_does_not_hold_up_the_others(folder, tmp_path, monkeypatch, request):
    output = tmp_path / "codes"
    names = ("4.png", "sub/5.png", "sub/6.png", "sub/7.png")
    with monkeypatch.context() as patch:
        patch.setattr(bulk, "encode_part", ends_its_worker)
        result = encode_here(folder, output, "--jobs", "1")
        with images_away(folder, names):
            without = encode_here(folder, output, "--jobs", "1")
    assert (result.returncode, without.returncode) == (FAILED, DONE)
    assert (output / "ended").read_text() == "xxxxxx"
    assert not without.stderr
    lines = result.stderr.splitlines()
    for name, line in zip(names, lines):
        assert f"{folder / name}: is in a part that could not be encoded in 3 attempts" in line
        assert "its process ended with status -9" in line
    assert lines[4:] == [
        f"vqvae-gluon: error: {output / 'index.jsonl'}: 4 of 10 images have no codes; it says why",
    ]
    assert {path.stem for path in (output / "parts").iterdir()} == {"000000", "000002"}
    before = identities(output)
    request.getfixturevalue("here")
    assert encode_here(folder, output).returncode == DONE
    assert before.items() <= identities(output).items()
    assert len(CodesFolder(output).entries) == 10


@pytest.fixture
def cluster(tmp_path) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """The address of a scheduler, and the processes of its two workers and its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    scheduler_file = tmp_path / "scheduler.json"
    with contextlib.ExitStack() as stack:

        def begin(program: str, *words: str) -> subprocess.Popen:
            log = stack.enter_context(open(tmp_path / f"{program}-{len(words)}.log", "ab"))
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{program}", "--no-dashboard", *words],
                stdout=log,
                stderr=log,
                env=environment,
                cwd=tmp_path,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        words = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(scheduler_file)]
        scheduler = begin("dask_scheduler", *words)
        wait_for(lambda: scheduler_file.exists() and scheduler_file.stat().st_size > 0, scheduler)
        address = json.loads(scheduler_file.read_text())["address"]
        words = [address, "--no-nanny", "--nthreads", "1", "--local-directory", str(tmp_path)]
        workers = [begin("dask_worker", *words) for _ in range(2)]
        with Client(address) as client:
            client.wait_for_workers(len(workers), timeout=WAIT)
        yield address, [*workers, scheduler]


def test_a_cluster_gives_the_same_though_a_worker_is_killed(many, whole, tmp_path, cluster):
    address, (worker, *_) = cluster
    output = tmp_path / "codes"
    process = start(many, output, "--cluster", address)
    wait_for(lambda: done(output) >= 5, process)
    worker.kill()
    seen = done(output)
    _, error = process.communicate(timeout=WAIT)
    assert process.returncode == DONE, error
    assert seen < COUNT // SHARD_SIZE
    assert files(output) == whole


def test_a_scheduler_that_is_lost_is_told_in_one_line(many, tmp_path, cluster):
    address, (*_, scheduler) = cluster
    output = tmp_path / "codes"
    run = command(many, output, "--cluster", address)
    program = "import sys; from vqvae_gluon.runtimes import bulk; from vqvae_gluon.cli import main; "
    run[1:3] = ["-c", f"{program} bulk._CONNECT = '3s'; sys.exit(main())"]
    process = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: done(output) >= 2, process)
    scheduler.kill()
    _, error = process.communicate(timeout=WAIT)
    assert process.returncode == FAILED
    assert len(error.splitlines()) == 1
    assert error.startswith(f"vqvae-gluon: error: {address}: ")


def test_what_is_no_cluster_is_told(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk, "_CONNECT", "1s")
    result = encode_here(folder, tmp_path / "codes", "--cluster", "tcp://127.0.0.1:9")
    assert result.returncode == FAILED
    assert "tcp://127.0.0.1:9: no Dask scheduler answers there" in result.stderr
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = encode_here(folder, tmp_path / "codes", "--cluster", "tcp://127.0.0.1:9")
    assert result.returncode == USAGE
    assert "--cluster: needs Dask; install it by pip install -e '.[cluster]'" in result.stderr
    result = encode_here(folder, tmp_path / "codes", "--cluster", "tcp://127.0.0.1:9", "--jobs", "2")
    assert result.returncode == USAGE


# What is not as it was.


def test_damaged_images_are_told_and_those_that_were_mended_are_encoded(folder, tmp_path, here, digits):
    output, remedy = tmp_path / "codes", "replace it, or move it away"
    whole_file = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole_file[:100])
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    for _ in range(2):
        result = encode_here(folder, output)
        assert result.returncode == REJECTED
        assert result.stderr.splitlines() == [
            f"vqvae-gluon: error: {folder / '1.png'}: is not a readable PNG or JPEG image (it ends early); {remedy}",
            f"vqvae-gluon: error: {folder / 'gone.jpg'}: does not exist or is no file",
            f"vqvae-gluon: error: {output / 'index.jsonl'}: 2 of 11 images have no codes; it says why",
        ]
        assert done(output) == 3
        assert sum(entry.shard is not None for entry in CodesFolder(output).entries.values()) == 9
    before = identities(output)
    (folder / "1.png").write_bytes(whole_file)
    (folder / "gone.jpg").unlink()
    assert encode_here(folder, output).returncode == DONE
    codes = CodesFolder(output)
    assert len(codes.entries) == 10
    assert codes.entries["1.png"].shard == "000003-28x28.vq"
    assert before.items() <= identities(output).items()
    np.testing.assert_array_equal(
        codes.codes("1.png").values, Predictor(open_bundle(PRETRAINED)).encode(digits[1][np.newaxis])
    )


def test_an_image_that_could_not_be_read_is_tried_again(folder, tmp_path, here, monkeypatch):
    """An error of the system may pass, and the file be the same."""
    output = tmp_path / "codes"
    open_file = open

    def fail(path, *words, **options):
        if Path(path).name == "1.png":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return open_file(path, *words, **options)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", fail)
        for _ in range(2):
            result = encode_here(folder, output)
            assert result.returncode == REJECTED
            assert f"{folder / '1.png'}: Input/output error" in result.stderr
    before = identities(output)
    assert encode_here(folder, output).returncode == DONE
    assert before.items() <= identities(output).items()
    check_codes(folder, output)


def test_an_image_that_mxnet_refuses_does_not_take_its_part_along(folder, tmp_path, here, monkeypatch, digits):
    output = tmp_path / "codes"
    write_image(folder / "2.png", np.tile(digits[2], (3, 2, 1)))
    write_image(folder / "3.png", np.tile(digits[3], (2, 3, 1)))
    encode = Predictor.encode

    def refuse(self, images, *words):
        if images.shape[1:] == (84, 56, 1):
            raise RuntimeFailure("encoder-symbol.json", "no memory")
        return encode(self, images, *words)

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "encode", refuse)
        patch.setattr(bulk, "_PIXELS", 6 * 28 * 28)
        result = encode_here(folder, output)
    assert result.returncode == REJECTED
    assert result.stderr.splitlines() == [
        f"vqvae-gluon: error: {folder / '2.png'}: could not be encoded (encoder-symbol.json: no memory)",
        f"vqvae-gluon: error: {output / 'index.jsonl'}: 1 of 10 images have no codes; it says why",
    ]
    before = identities(output)
    assert encode_here(folder, output).returncode == DONE
    assert before.items() <= identities(output).items()
    check_codes(folder, output)


def test_new_images_are_encoded_and_no_others(folder, tmp_path, here, digits):
    output = tmp_path / "codes"
    assert encode_here(folder, output).returncode == DONE
    before = identities(output)
    for number in range(5):
        write_image(folder / f"0-{number}.png", digits[10 + number])
    assert encode_here(folder, output).returncode == DONE
    after = identities(output)
    assert before.items() <= after.items()
    assert set(after) - set(before) == {
        *("000003-28x28.vq", "000003.jsonl", "000004-28x28.vq", "000004.jsonl"),
    }
    assert len(CodesFolder(output).entries) == 15


def test_a_shard_that_is_gone_is_encoded_again_and_no_other(folder, tmp_path, here):
    output = tmp_path / "codes"
    assert encode_here(folder, output).returncode == DONE
    before, content = identities(output), files(output)
    (output / "shards" / "000001-21x28.vq").unlink()
    (output / "shards" / "000002-30x30.vq").write_bytes(b"of a part that was not done")
    assert encode_here(folder, output).returncode == DONE
    assert files(output) == content
    after = identities(output)
    assert {name[:6] for name in before if before[name] != after[name]} == {"000001"}


class Interrupted(BaseException):
    """What ends a run in a test."""


def interrupt(patch: pytest.MonkeyPatch, folder: Path, output: Path) -> None:
    """Run until the first part has its shards, but not yet its list."""

    def end(*_) -> None:
        raise Interrupted

    with patch.context() as within:
        within.setattr(bulk, "write_lines", lambda path, *rest: (end if "parts" in path.parts else WRITE)(path, *rest))
        with pytest.raises(Interrupted):
            encode_folder(PRETRAINED, folder, output, 4)


WRITE = bulk.write_lines


def check_codes(folder: Path, output: Path) -> None:
    """Every image of a folder is in the index, with its own codes."""
    codes, predictor = CodesFolder(output), Predictor(open_bundle(PRETRAINED))
    assert set(codes.entries) == set(files(folder))
    for name in codes.entries:
        image = read_image(folder / name, 1)[np.newaxis]
        np.testing.assert_array_equal(codes.codes(name).values, predictor.encode(image))


def test_an_old_list_does_not_make_a_part_done_that_is_encoded_again(folder, tmp_path, here, monkeypatch):
    """Between its new shards and its new list, the old one tells of other places."""
    output = tmp_path / "codes"
    image = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(b"nothing")
    assert encode_here(folder, output).returncode == REJECTED
    (output / "shards" / "000000-28x28.vq").unlink()
    (folder / "0.png").write_bytes(image)
    interrupt(monkeypatch, folder, output)
    assert encode_here(folder, output).returncode == DONE
    check_codes(folder, output)


@pytest.mark.parametrize("change", ["names", "header"])
def test_a_list_of_another_plan_does_not_make_a_part_done(folder, tmp_path, here, change):
    output = tmp_path / "codes"
    assert encode_here(folder, output).returncode == DONE
    content, path = files(output), output / "parts" / "000000.jsonl"
    header, rows = read_lines(path)
    if change == "names":
        write_lines(path, header, rows[:-1])
    else:
        write_lines(path, header._replace(shard_size=5), rows)
    assert encode_here(folder, output).returncode == DONE
    assert files(output) == content
    check_codes(folder, output)


def test_a_list_that_no_plan_knows_does_not_make_a_new_part_done(folder, tmp_path, here, monkeypatch, digits):
    output = tmp_path / "codes"
    assert encode_here(folder, output).returncode == DONE
    shutil.copy(output / "parts" / "000001.jsonl", output / "parts" / "000003.jsonl")
    write_image(folder / "new.png", digits[20])
    interrupt(monkeypatch, folder, output)
    assert not (output / "parts" / "000003.jsonl").exists()
    assert encode_here(folder, output).returncode == DONE
    check_codes(folder, output)


def test_shards_without_their_plan_are_not_guessed_at(folder, tmp_path, here):
    """Whose they are, nobody knows any more; they may be no shards at all."""
    output = tmp_path / "codes"
    assert encode_here(folder, output).returncode == DONE
    (output / "plan.jsonl").unlink()
    content = files(output)
    for directory in ("shards", "parts"):
        result = encode_here(folder, output)
        assert result.returncode == REJECTED
        assert result.stderr == (
            f"vqvae-gluon: error: {output / directory}: holds files, but there is no plan.jsonl beside it;"
            " choose another --output\n"
        )
        assert files(output) == content
        shutil.rmtree(output / directory)
        content = files(output)


def test_files_of_others_are_left_alone(folder, tmp_path, here):
    """An output may be anything: also the folder of the images, with a directory of the name that shards have."""
    (folder / "shards").mkdir()
    shutil.copy(folder / "0.png", folder / "shards" / "04.png")
    before = files(folder)
    result = encode_here(folder, folder / "sub" / "..")
    assert result.returncode == REJECTED
    assert "is the folder of the images itself; choose another --output" in result.stderr
    assert encode_here(folder / "sub", folder).returncode == REJECTED
    assert files(folder) == before
    output = tmp_path / "codes"
    assert encode_here(folder, output).returncode == DONE
    theirs = {"04.png", "notes.vq", "1-2x3.vq"}
    for name in (*theirs, "000009-28x28.vq", "000009-28x28-7.vq", ".vqvae.1234"):
        (output / "shards" / name).write_bytes(b"something")
    assert encode_here(folder, output).returncode == DONE
    own = {entry.shard for entry in CodesFolder(output).entries.values()}
    assert {path.name for path in (output / "shards").iterdir()} == own | theirs


@pytest.mark.parametrize("damage", ["truncated", "flipped", "swapped", "FIFO"])
def test_a_shard_that_is_not_as_it_was_written_is_not_read_and_is_encoded_again(folder, tmp_path, here, damage):
    output = tmp_path / "codes"
    assert encode_here(folder, output).returncode == DONE
    before, content = identities(output), files(output)
    shards = [output / "shards" / f"00000{number}-28x28.vq" for number in (0, 2)]  # Both are of two images.
    data = shards[0].read_bytes()
    if damage == "truncated":
        shards[0].write_bytes(data[:-1])
    elif damage == "flipped":
        shards[0].write_bytes(fit_vq(data[:70] + bytes([data[70] ^ 1]) + data[71:]))
    elif damage == "swapped":
        shards[0].write_bytes(shards[1].read_bytes())
    else:
        shards[0].unlink()
        os.mkfifo(shards[0])
    with pytest.raises(InputError, match=r"is not the shard that index.jsonl names|is no file"):
        CodesFolder(output).codes("0.png")
    assert encode_here(folder, output).returncode == DONE
    assert files(output) == content
    assert {name[:6] for name, identity in identities(output).items() if identity != before[name]} == {"000000"}
    check_codes(folder, output)


def test_a_list_in_the_place_of_another_is_told(folder, tmp_path, here):
    output = tmp_path / "codes"
    assert encode_here(folder, output).returncode == DONE
    shutil.copy(output / "parts" / "000001.jsonl", output / "index.jsonl")
    with pytest.raises(InputError, match=r"index.jsonl: cannot be read .line 1: it is that of 000001.jsonl"):
        CodesFolder(output)


def test_lines_are_bounded_before_they_are_read(folder, tmp_path, here):
    output = tmp_path / "codes"
    assert encode_here(folder, output).returncode == DONE
    header, rows = read_lines(output / "index.jsonl")
    write_lines(output / "index.jsonl", header, [*rows, {"name": "x" * (1 << 16)}])
    with pytest.raises(InputError, match="line 12: it is of no image"):
        CodesFolder(output)
    header, rows = read_lines(output / "plan.jsonl")
    write_lines(output / "plan.jsonl", header, [[[]] * 5])
    assert "plan.jsonl: cannot be read (line 2: it is no list of names of images)" in encode_here(folder, output).stderr


@pytest.mark.parametrize("name", ["", "../0.png", "/0.png", "sub/../../0.png", "a\0.png", "\ud800.png"])
def test_an_image_is_below_its_folder(folder, tmp_path, here, name):
    output = tmp_path / "codes"
    assert encode_here(folder, output).returncode == DONE
    header, rows = read_lines(output / "plan.jsonl")
    write_lines(output / "plan.jsonl", header, [*rows, [name]])
    result = encode_here(folder, output)
    assert result.returncode == REJECTED
    assert "plan.jsonl: cannot be read (line 5: it is no list of names of images)" in result.stderr
    header, rows = read_lines(output / "index.jsonl")
    write_lines(output / "index.jsonl", header, [*rows, {"name": name, "size": 1, "modified": 1, "rejected": "is bad"}])
    with pytest.raises(InputError, match="line 12: it is of no image"):
        CodesFolder(output)


@pytest.mark.parametrize("name", ["index.jsonl", "plan.jsonl", "parts/000001.jsonl"])
def test_a_list_that_is_not_as_it_was_written_is_told(folder, tmp_path, here, name):
    output = tmp_path / "codes"
    assert encode_here(folder, output).returncode == DONE
    lines = (output / name).read_bytes().splitlines(keepends=True)
    for damaged in (
        [lines[0], lines[2], lines[1], *lines[3:]],
        lines[:-1],
        [*lines, lines[-1]],
        [lines[0].replace(b'"shard_size": 4', b'"shard_size": 5'), *lines[1:]],
        [lines[0].replace(b'"format": 2', b'"format": 1'), *lines[1:]],
        [re.sub(rb', "sha256": ".*"', b"", lines[0]), *lines[1:]],
    ):
        (output / name).write_bytes(b"".join(damaged))
        if name == "index.jsonl":
            with pytest.raises(InputError, match=r"index.jsonl: cannot be read \(line 1: "):
                CodesFolder(output)
        else:
            result = encode_here(folder, output)
            assert result.returncode == REJECTED
            assert f"{output / name}: cannot be read (line 1: " in result.stderr


def test_a_folder_from_before_the_digests_is_read_and_gets_them_by_a_further_run(folder, tmp_path, here):
    output = tmp_path / "codes"
    assert encode_here(folder, output).returncode == DONE
    content = files(output)
    for path in [*output.glob("*.jsonl"), *output.glob("parts/*")]:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            if isinstance(row, dict):
                row.pop("sha256", None)
                row.pop("file", None)
        rows[0]["format"] = 1
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    check_codes(folder, output)
    assert encode_here(folder, output).returncode == DONE
    assert files(output) == content


def read_header(text: str) -> bulk.Header:
    return bulk.Header(**json.loads(text.splitlines()[0]))


def line(**changes) -> str:
    entry = {"name": "0.png", "size": 1, "modified": 1, "shard": "000000-28x28.vq", "position": 0}
    return json.dumps({key: value for key, value in {**entry, **changes}.items() if value is not ...})


@pytest.mark.parametrize(
    "row",
    [
        *("5", "[]", "[[]]", "nothing", "[" * 100000, line(more=1), line(name=...), line(name=["0.png"])),
        *(
            line(size="1"),
            line(modified=0.5),
            line(size=True),
            line(shard=7),
            line(position="0"),
            line(position=0.5),
            line(position=-1),
        ),
        *(line(shard="../../x"), line(shard="/000000-28x28.vq"), line(shard=...), line(position=...)),
        *(line(rejected="is bad"), line(shard=..., position=..., rejected=5), line(), line(sha256="x")),
    ],
)
def test_damaged_lines_are_told(folder, tmp_path, here, row):
    output = tmp_path / "codes"
    assert encode_here(folder, output).returncode == DONE
    for name in ("index.jsonl", "parts/000001.jsonl", "plan.jsonl"):
        whole = (output / name).read_text()
        (output / name).write_text(f"{whole.splitlines()[0]}\n{row}\n")
        with contextlib.suppress(ValueError, RecursionError):  # With a digest that fits, where it can be written.
            write_lines(output / name, read_header(whole), [json.loads(row)])
        if name == "index.jsonl":
            with pytest.raises(InputError, match=r"index.jsonl: cannot be read \(.*\); delete it and encode"):
                CodesFolder(output)
        elif (name, row) != ("plan.jsonl", "[]"):  # which is a part without images
            result = encode_here(folder, output)
            assert result.returncode == REJECTED
            assert f"{output / name}: cannot be read" in result.stderr
        (output / name).write_text(whole)


@pytest.mark.parametrize("header", ["[]", "5", '{"format": 1, "bundle": 5, "shard_size": 4}', '{"format": 1}'])
def test_a_damaged_first_line_is_told(folder, tmp_path, here, header):
    output = tmp_path / "codes"
    output.mkdir()
    (output / "plan.jsonl").write_text(f"{header}\n")
    result = encode_here(folder, output)
    assert result.returncode == REJECTED
    assert "plan.jsonl: cannot be read" in result.stderr
    assert result.stderr.endswith("encode the folder into another --output\n")


def test_what_does_not_fit_what_is_there_is_refused(folder, tmp_path, here, bundle, digits):
    output = tmp_path / "codes"
    assert encode_here(folder, output).returncode == DONE
    content = files(output)

    def refused(words: str, *arguments) -> None:
        result = run_cli_here("encode-folder", *arguments)
        assert result.returncode == REJECTED
        assert words in result.stderr
        assert files(output) == content

    same = ["--output", output, "--shard-size", 4]
    refused("codes: was begun with --shard-size 4; give the same", PRETRAINED, folder, "--output", output)
    image = (folder / "0.png").read_bytes()
    write_image(folder / "0.png", digits[1])
    refused(f"0.png: is not as it was encoded into {output}; put it back, or", PRETRAINED, folder, *same)
    (folder / "0.png").unlink()
    refused(f"0.png: is not as it was encoded into {output}; put it back, or", PRETRAINED, folder, *same)
    (folder / "0.png").write_bytes(image)
    alter_parameters(bundle / "encoder-0000.params", lambda arrays: arrays.popitem()[1].__imul__(2))
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"]["encoder-0000.params"]["sha256"] = digest(bundle / "encoder-0000.params")
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    refused("codes: holds codes of another bundle; choose another --output", bundle, folder, *same)
    (tmp_path / "empty").mkdir()
    refused("empty: holds no PNG or JPEG file", PRETRAINED, tmp_path / "empty", *same)
    refused("nowhere: is no directory", PRETRAINED, tmp_path / "nowhere", *same)
    handle = os.open(output, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    refused("codes: is being written by another run; wait for its end", PRETRAINED, folder, *same)
    os.close(handle)
    (output / "plan.jsonl").write_text("{}\n")
    content = files(output)
    refused("plan.jsonl: cannot be read", PRETRAINED, folder, *same)


def test_a_worker_with_another_bundle_encodes_nothing(folder, tmp_path):
    header = bulk.Header(1, "ab" * 32, 4)
    with pytest.raises(InputError, match="is another bundle than the one that the plan was made with"):
        encode_part(Part(PRETRAINED, folder, tmp_path, header, 0, ("0.png",), None))


def finds_a_directory(part: Part) -> None:
    part_path(part.output, part.number).mkdir()
    encode_part(part)


def test_what_cannot_be_written_ends_the_run(folder, tmp_path, monkeypatch):
    """An error of the system in a worker is told as it is."""
    output = tmp_path / "codes"
    monkeypatch.setattr(bulk, "encode_part", finds_a_directory)
    result = encode_here(folder, output, "--jobs", "1")
    assert result.returncode == FAILED
    assert result.stderr == f"vqvae-gluon: error: {output / 'parts' / '000000.jsonl'}: Is a directory\n"
