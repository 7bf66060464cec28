"""The loader: the same batches whoever reads them, and no process that hangs or stays."""

import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest

from vqvae_gluon.data import ArraySet, Augmentation, FolderSet, ImageSet, Loader
from vqvae_gluon.data.images import find_images, write_images
from vqvae_gluon.data.records import RecordSet, write_records
from vqvae_gluon.errors import InputError, RuntimeFailure
from vqvae_gluon.workers import Worker

AUGMENTATION = Augmentation(flip=True, shift=3)
WAIT = 60  # seconds, for what must end
KINDS = ["array", "folder", "records"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, ImageSet]:
    """The same forty images in every kind of set."""
    directory = tmp_path_factory.mktemp("sets")
    array = np.random.default_rng(0).integers(0, 256, (40, 9, 7, 3), dtype=np.uint8)
    list(write_images([directory / "files" / f"{number:02d}.png" for number in range(40)], array))
    images = ArraySet("array", array)
    write_records(images, directory, "train")
    folder = FolderSet("folder", find_images(directory / "files"), 3)
    return {"array": images, "folder": folder, "records": RecordSet(directory, "train", 3)}


@pytest.fixture(scope="module")
def plan() -> list[np.ndarray]:
    order = np.random.default_rng(1).permutation(40)
    return [*np.split(order, 8), np.array([3]), np.array([39, 0, 39])]


def draws(count: int) -> np.ndarray:
    return np.random.default_rng(1).random((count, 3))


def children() -> list:
    return multiprocessing.active_children()


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_the_images_of_the_plan_in_order(kind, sets, plan):
    before = children()
    for workers in (0, 1):
        with Loader(sets[kind], None, workers, seed=0) as loader:
            batches = list(loader.batches(plan, epoch=1))
        assert len(batches) == len(plan)
        for batch, indices in zip(batches, plan):
            assert batch.dtype == np.uint8
            np.testing.assert_array_equal(batch, sets["array"].read(indices))
    assert children() == before


def test_workers_and_a_resume_change_nothing(sets, plan):
    with Loader(sets["array"], AUGMENTATION, 0, seed=5) as loader:
        expected = [list(loader.batches(plan, epoch)) for epoch in (1, 2)]
    for kind, workers in (("array", 2), ("folder", 2), ("records", 1)):
        with Loader(sets[kind], AUGMENTATION, workers, seed=5) as loader:
            for start in (0, 3, len(plan)):
                for epoch in (1, 2):
                    batches = list(loader.batches(plan, epoch, start))
                    assert len(batches) == len(plan) - start
                    for batch, whole in zip(batches, expected[epoch - 1][start:]):
                        np.testing.assert_array_equal(batch, whole)


def test_the_augmentation_differs_by_seed_epoch_and_image(sets, plan):
    images = sets["array"].read(np.arange(40))

    def changed(seed: int, epoch: int) -> np.ndarray:
        with Loader(sets["array"], AUGMENTATION, 0, seed) as loader:
            (batch,) = loader.batches([np.arange(40)], epoch)
        return batch

    assert len({changed(*key).tobytes() for key in ((0, 1), (0, 2), (1, 1))}) == 3
    assert (changed(0, 1) != images).any(axis=(1, 2, 3)).sum() > 30


def test_machines_that_share_a_batch_change_its_images_as_one_does(sets):
    with Loader(sets["array"], AUGMENTATION, 0, seed=3) as loader:
        (whole,) = loader.batches([np.arange(40)], 7)
        halves = list(loader.batches([np.arange(20), np.arange(20, 40)], 7))
    np.testing.assert_array_equal(np.concatenate(halves), whole)


def test_an_augmented_image_is_a_part_of_the_padded_one_maybe_turned():
    images = np.random.default_rng(0).integers(0, 256, (300, 6, 5, 3), dtype=np.uint8)
    seen = set()
    for image, changed in zip(images, Augmentation(True, 2).apply(images, draws(300))):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
        crops = {(y, x): padded[y : y + 6, x : x + 5] for y in range(5) for x in range(5)}
        found = [(*at, turn) for at, crop in crops.items() for turn in (1, -1) if (crop[:, ::turn] == changed).all()]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) == 50


def test_each_half_of_the_augmentation_works_alone():
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 5, 1), dtype=np.uint8)
    np.testing.assert_array_equal(Augmentation().apply(images, draws(50)), images)
    flipped = Augmentation(flip=True).apply(images, draws(50))
    turned = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert 10 < turned.sum() < 40
    np.testing.assert_array_equal(flipped[~turned], images[~turned])
    shifted = Augmentation(shift=9).apply(images, draws(50))
    assert set(shifted.ravel()) <= set(images.ravel())


def test_workers_are_kept_from_epoch_to_epoch_even_if_one_is_left(sets, plan):
    with Loader(sets["array"], AUGMENTATION, 2, seed=0) as loader:
        started = {process.pid for process in children()}
        expected = [batch.tobytes() for batch in loader.batches(plan, epoch=1)]
        left = loader.batches(plan, epoch=2)
        next(left)
        del left
        both = zip(loader.batches(plan, epoch=1), loader.batches(plan, epoch=1))
        for (one, two), whole in zip(both, expected):
            assert one.tobytes() == two.tobytes() == whole
        assert {process.pid for process in children()} == started


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_is_named_and_the_rest_can_still_be_read(sets, plan, workers, tmp_path, digits):
    files = [tmp_path / f"{number}.png" for number in range(10)]
    list(write_images(files, digits[:10]))
    folder = FolderSet("folder", files, 1)
    files[7].write_bytes(files[7].read_bytes()[:-30])
    with Loader(folder, None, workers, seed=0) as loader:
        batches = loader.batches(np.split(np.arange(10), 5), epoch=1)
        for step in range(3):
            np.testing.assert_array_equal(next(batches), digits[2 * step : 2 * step + 2])
        with pytest.raises(
            InputError, match=r"7.png: is not a readable PNG or JPEG image \(.+\); replace it, or move it away$"
        ):
            next(batches)
        (again,) = loader.batches([np.array([9])], epoch=1)
        np.testing.assert_array_equal(again, digits[9:10])


def test_a_worker_that_dies_is_an_error_at_any_moment():
    # Batches larger than what a pipe holds, so that some die while they write.
    images = ArraySet("large", np.zeros((64, 256, 256, 3), np.uint8))
    random = Random(0)
    for _ in range(4):
        before = children()
        with Loader(images, AUGMENTATION, 2, seed=0) as loader:
            batches = loader.batches([np.arange(8)] * 10000, epoch=1)
            next(batches)
            (victim, *_) = [process for process in children() if process not in before]
            time.sleep(random.random() * 0.1)
            victim.kill()
            with pytest.raises(RuntimeFailure, match="worker: its process ended with status -9; run again"):
                for _ in batches:
                    pass
        assert children() == before


def ends_in_the_middle_of_its_answer(task: int) -> int:
    if task:
        return task
    connection = sys._getframe(1).f_locals["connection"]
    os.write(connection.fileno(), struct.pack("!i", 1000) + b"the beginning")
    os._exit(5)


def test_a_worker_that_ends_in_the_middle_of_its_answer_is_replaced():
    worker = Worker(ends_in_the_middle_of_its_answer)
    for _ in range(2):
        with pytest.raises(RuntimeFailure, match="worker: its process ended with status 5; run again"):
            worker.give(0)
        assert worker.give(7) == 7
    worker.stop()


PARENT = """
import multiprocessing, signal, sys, time
import numpy as np
from vqvae_gluon.data import ArraySet, Augmentation, Loader
from vqvae_gluon.data.processes import Processes

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # What a shell starts in the background ignores it.
    if sys.argv[1] == "ahead":  # Calls wait for a process, and nobody for an answer.
        batches = Processes(time.sleep, 2).in_order((seconds,) for seconds in (0, 2, 2, 2, 2, 2))
    else:
        loader = Loader(ArraySet("zeros", np.zeros((1 << 24, 1, 1, 3), np.uint8)), Augmentation(True, 1), 2, 0)
        batches = loader.batches([np.arange(500)] * 1000000, 1)
    next(batches)
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    if sys.argv[1] != "busy":
        sys.stdin.read()
    for batch in batches:
        pass
"""


def start_parent(directory: Path, state: str) -> tuple[subprocess.Popen, list[int]]:
    """A program in a group of its own that loads without end, or waits in between; and its workers."""
    program = directory / "parent.py"
    program.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, program, state],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    return parent, workers


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_workers_share_the_array_and_end_with_a_parent_that_is_killed(state, tmp_path):
    parent, workers = start_parent(tmp_path, state)
    maps = [Path(f"/proc/{pid}/maps") for pid in workers]
    wait_until(lambda: all("/pym-" in path.read_text() for path in maps))  # The file of the array.
    assert not any("libmxnet" in path.read_text() for path in maps)
    parent.send_signal(signal.SIGKILL)
    parent.communicate(timeout=WAIT)
    wait_until(lambda: not any(map(is_running, workers)))


@pytest.mark.parametrize("state", ["idle", "busy", "ahead"])
def test_an_interrupted_program_ends_its_workers_without_a_word_of_theirs(state, tmp_path):
    parent, workers = start_parent(tmp_path, state)
    os.killpg(parent.pid, signal.SIGINT)
    _, error = parent.communicate(timeout=WAIT)
    assert error.count("Traceback") == 1
    assert error.splitlines()[-1] == "KeyboardInterrupt"
    wait_until(lambda: not any(map(is_running, workers)))
