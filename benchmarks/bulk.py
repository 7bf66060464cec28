"""Images a second of `encode` and of `encode-folder`, on test digits as PNG files.

    python benchmarks/bulk.py
    python benchmarks/bulk.py --count 100000 --jobs 1 --jobs 8

Seconds are those of the whole command, from its start; those of the processors tell how busy the machine was besides.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vqvae_gluon.data import load_split
from vqvae_gluon.data.images import encode_png

ROOT = Path(__file__).resolve().parents[1]


def measure(name: str, count: int, *words) -> None:
    command = [sys.executable, "-m", "vqvae_gluon", *map(str, words)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{name:24} {count / seconds:10.0f} {seconds:8.1f} {busy:11.1f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=ROOT / "pretrained" / "mnist")
    parser.add_argument("--count", type=int, default=20000, help="images (default: 20000)")
    parser.add_argument("--jobs", type=int, action="append", help="processes; several times (default: 1, and all)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vqvae-bulk.") as name:
        digits, output = Path(name) / "digits", Path(name) / "codes"
        digits.mkdir()
        files = [encode_png(image) for image in load_split("mnist", "test", 1)]
        for number in range(options.count):
            (digits / f"{number:07d}.png").write_bytes(files[number % len(files)])
        print(f"{'':24} {'images/s':>10} {'seconds':>8} {'processors':>11}")
        measure("encode", options.count, "encode", options.bundle, digits, "--output", f"{output}.vq")
        for jobs in options.jobs or sorted({1, len(os.sched_getaffinity(0))}):
            words = ("encode-folder", options.bundle, digits, "--output", f"{output}-{jobs}", "--jobs", jobs)
            measure(f"encode-folder --jobs {jobs}", options.count, *words)
    return 0


if __name__ == "__main__":
    sys.exit(main())
