"""Images a second that each kind of set brings, augmented, beside what the preset `cifar10` learns from.

    python benchmarks/loading.py
    python benchmarks/loading.py --data cifar-10-batches-py --steps 50

Without --data 10,000 pictures of 32x32 are made up, from a seed.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

import numpy as np
import PIL.Image

from vqvae_gluon.config import PRESETS
from vqvae_gluon.data import ArraySet, Augmentation, FolderSet, ImageSet, Loader, open_split
from vqvae_gluon.data.images import find_images
from vqvae_gluon.data.imageset import read_all
from vqvae_gluon.data.records import RecordSet, write_records
from vqvae_gluon.training.cluster import Alone
from vqvae_gluon.training.learner import Learner

BATCH = 128


def pictures(count: int) -> ImageSet:
    """Coarse structure and noise, in colour."""
    generator = np.random.default_rng(3)
    coarse = generator.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    smooth = [PIL.Image.fromarray(image).resize((32, 32), PIL.Image.Resampling.BICUBIC) for image in coarse]
    noisy = np.stack([np.asarray(image) for image in smooth]) + generator.normal(0, 5, (count, 32, 32, 3))
    return ArraySet("pictures", np.clip(noisy, 0, 255).astype(np.uint8))


def kinds(images: ImageSet, directory: Path) -> dict[str, ImageSet]:
    """The same pictures in every kind of set; as JPEG files almost the same."""
    (directory / "files").mkdir()
    for number, image in enumerate(read_all(images)):
        PIL.Image.fromarray(image).save(directory / "files" / f"{number:05d}.jpg", quality=90)
    folder = FolderSet("folder", find_images(directory / "files"), 3)
    write_records(images, directory, "png")
    write_records(folder, directory, "jpeg")
    return {
        "in memory": images,
        "folder, JPEG": folder,
        "records, PNG": RecordSet(directory, "png", 3),
        "records, JPEG": RecordSet(directory, "jpeg", 3),
    }


def rate(batches: Iterable[np.ndarray], learner: Optional[Learner] = None) -> float:
    """Images a second, from the second batch on."""
    start, count = 0.0, 0
    for number, batch in enumerate(batches):
        if learner is not None:
            learner.step(batch, number + 1, 1e-4)
        if number == 0:
            start = time.perf_counter()
        else:
            count += len(batch)
    return count / (time.perf_counter() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="CIFAR-10 in any form that 'train' takes")
    parser.add_argument("--steps", type=int, default=20, help=f"of {BATCH} images, to be learnt from (default: 20)")
    options = parser.parse_args()
    images = pictures(10000) if options.data is None else open_split("cifar10", "test", 3, options.data)
    learner = Learner(PRESETS["cifar10"], Alone())
    order = np.random.default_rng(0).permutation(len(images))
    plan = np.split(order[: len(order) // BATCH * BATCH], len(order) // BATCH)
    with tempfile.TemporaryDirectory(prefix="vqvae-loading.") as name:
        print(f"{'images a second':16} {'workers':>7} {'loading':>8} {'training':>9}")
        batch = images.read(plan[0])
        print(f"{'one batch again':16} {'':7} {'':8} {rate(itertools.repeat(batch, options.steps + 1), learner):9.0f}")
        for kind, source in kinds(images, Path(name)).items():
            for workers in (0, 1, 2):
                with Loader(source, Augmentation(flip=True, shift=2), workers, seed=0) as loader:
                    alone = rate(loader.batches(plan, epoch=1))
                    trained = rate(loader.batches(plan[: options.steps + 1], epoch=2), learner)
                print(f"{kind:16} {workers:7} {alone:8.0f} {trained:9.0f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
