"""An epoch of the earlier project's network on MNIST, batch 500: this project's training step beside a PyTorch twin's.

    pip install 'vqvae-gluon[bench]'
    python benchmarks/training.py

Both run in processes of their own, on the same threads and the same images, in turns, after a warm-up. Each step takes
uint8 images, and ends when the parameters are moved and the losses known. PyTorch is tried as it is and with
``channels_last``; its better time counts.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

PRESET = "mnist-original"
PEERS = ("gluon", "torch", "torch channels_last")
WARM, STEPS = 2, 5  # of each turn


def gluon_step(images: np.ndarray):
    from vqvae_gluon.config import PRESETS
    from vqvae_gluon.training.cluster import Alone
    from vqvae_gluon.training.learner import Learner

    learner = Learner(PRESETS[PRESET], Alone())
    number = 0

    def step() -> float:
        nonlocal number
        number += 1
        return float(learner.step(images, number, PRESETS[PRESET].training.learning_rate).losses[0])

    return step


def torch_step(images: np.ndarray, layout: str):
    import torch
    from torch import nn

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    kind = torch.channels_last if layout else torch.contiguous_format
    encoder = nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 16, 1), nn.Tanh()
    ).to(memory_format=kind)
    decoder = nn.Sequential(
        nn.ConvTranspose2d(16, 64, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 1, 3, 1, 1),
        nn.Sigmoid(),
    ).to(memory_format=kind)
    codebook = nn.Parameter(torch.rand(64, 16) * 0.5 - 0.25)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters(), codebook], lr=1e-4)

    def step() -> float:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32).contiguous(memory_format=kind) / 255
        z_e = encoder(pixels)
        rows = z_e.permute(0, 2, 3, 1).reshape(-1, 16)
        with torch.no_grad():
            codes = torch.addmm((codebook**2).sum(1), rows, codebook.t(), alpha=-2).argmin(1)
        chosen = nn.functional.embedding(codes, codebook).reshape(-1, 7, 7, 16).permute(0, 3, 1, 2)
        codebook_loss = nn.functional.mse_loss(chosen, z_e.detach())
        commitment_loss = nn.functional.mse_loss(z_e, chosen.detach())
        reconstruction = decoder(z_e + (chosen - z_e).detach())
        loss = 784 * nn.functional.mse_loss(reconstruction, pixels) + codebook_loss + 0.25 * commitment_loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def serve(peer: str, images: np.ndarray, pipe) -> None:
    """Time STEPS steps whenever asked."""
    step = gluon_step(images) if peer == "gluon" else torch_step(images, peer.partition(" ")[2])
    for _ in range(WARM):
        step()
    while pipe.recv():
        begin = time.perf_counter()
        for _ in range(STEPS):
            step()
        pipe.send((time.perf_counter() - begin) / STEPS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each (default: 7)")
    parser.add_argument("--batch-size", type=int, default=500)
    options = parser.parse_args()
    threads = os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    images = np.random.default_rng(0).integers(0, 256, (options.batch_size, 28, 28, 1), dtype=np.uint8)
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for peer in PEERS:
        pipes[peer], theirs = context.Pipe()
        context.Process(target=serve, args=(peer, images, theirs), daemon=True).start()
    seconds: dict[str, list[float]] = {peer: [] for peer in PEERS}
    for _ in range(options.rounds):
        for peer, pipe in pipes.items():
            time.sleep(0.5)  # until the threads of the one before sleep
            pipe.send(True)
            seconds[peer].append(pipe.recv())
    steps = 60000 // options.batch_size
    print(f"an epoch of 60000 digits in batches of {options.batch_size}, {threads} threads, {options.rounds} turns")
    for peer, times in seconds.items():
        median, low, high = statistics.median(times), min(times), max(times)
        print(
            f"{peer:20} {median * steps:6.1f} s   a step {median * 1e3:6.1f} ms ({low * 1e3:.1f} to {high * 1e3:.1f})"
        )
    best = min(statistics.median(seconds[peer]) for peer in PEERS[1:])
    print(f"gluon is {best / statistics.median(seconds['gluon']):.2f} times as fast as the better of PyTorch's two")
    return 0


if __name__ == "__main__":
    sys.exit(main())
