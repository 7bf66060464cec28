"""A large photograph through `reconstruct`, at once and in tiles: how far the results are apart, and what each costs.

    python benchmarks/tiles.py
    python benchmarks/tiles.py --bundle photos --photo holiday.jpg --memory 256 --memory 1024

Without --photo a picture of 24 megapixels is made up, from a seed. At once it takes about 15 GB of memory.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image

from vqvae_gluon.runtimes.cpp import find_binary

ROOT = Path(__file__).resolve().parents[1]
AT_ONCE = 1 << 17  # MiB


def photograph(height: int, width: int) -> PIL.Image.Image:
    """Coarse and fine structure and noise, in colour."""
    generator = np.random.default_rng(3)
    pixels = generator.normal(0, 5, (height, width, 3)).astype(np.float32)
    for grain in (400, 100, 25):
        coarse = generator.integers(0, 256, (height // grain + 2, width // grain + 2, 3), dtype=np.uint8)
        pixels += np.asarray(PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BICUBIC)) / 3
    return PIL.Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


# A child begins with the memory of who started it, so that must be little.
_MEASURE = """
import resource, subprocess, sys, time
start = time.perf_counter()
status = subprocess.call(sys.argv[1:])
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
sys.exit(status)
"""


def run(bundle: Path, photo: Path, memory: int, output: Path) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Seconds, MiB of memory at most, the codes and the picture."""
    command = [find_binary(), "--bundle", bundle, "--memory", memory, "--quiet", "--codes", f"{output}.npy"]
    whole = [sys.executable, "-c", _MEASURE, *map(str, command), "--output", str(output), str(photo)]
    result = subprocess.run(whole, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"tiles.py: error: reconstruct ended with status {result.returncode}")
    seconds, peak = map(float, result.stdout.split())
    with PIL.Image.open(output / f"{photo.stem}.png") as picture:
        return seconds, peak, np.load(f"{output}.npy"), np.asarray(picture).astype(int)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=ROOT / "pretrained" / "mnist")
    parser.add_argument("--photo", type=Path, help="a PNG or JPEG file")
    parser.add_argument("--memory", type=int, action="append", help="MiB; several times (default: 128, 512, 2048)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vqvae-tiles.") as name:
        directory = Path(name)
        photo = options.photo or directory / "photograph.jpg"
        if options.photo is None:
            photograph(4000, 6000).save(photo, quality=92)
        print(f"{'memory':>10} {'seconds':>8} {'peak MiB':>9}  result")
        seconds, peak, codes, picture = run(options.bundle, photo, AT_ONCE, directory / "whole")
        print(f"{'at once':>10} {seconds:8.1f} {peak:9.0f}")
        close = True
        for memory in options.memory or (128, 512, 2048):
            seconds, peak, tiled_codes, tiled = run(options.bundle, photo, memory, directory / f"tiled-{memory}")
            distances = np.abs(tiled - picture)
            told = f"{np.count_nonzero(distances)} of {distances.size} values differ, by at most {distances.max()}"
            told += f"; {np.count_nonzero(tiled_codes != codes)} codes differ"
            print(f"{memory:6} MiB {seconds:8.1f} {peak:9.0f}  {told if distances.any() else 'equal'}")
            close = close and distances.max() <= 1 and np.array_equal(tiled_codes, codes)
    return 0 if close else 1


if __name__ == "__main__":
    sys.exit(main())
