"""Training steps of the presets, beside their twins in PyTorch."""

from dataclasses import replace
from functools import partial

import numpy as np

from vqvae_gluon.bench.inference import time_run
from vqvae_gluon.bench.plan import Bench
from vqvae_gluon.bench.process import started, take_turns
from vqvae_gluon.bench.results import Row
from vqvae_gluon.config import PRESETS
from vqvae_gluon.errors import RuntimeFailure
from vqvae_gluon.kernels import check_kernels

# Batch and side of the images of each preset that is measured.
PRESETS_MEASURED = {"mnist-original": (500, 28), "cifar10": (64, 32)}
FUSED = "gluon-fused"
_QUICK_BATCH = 16


def measure(bench: Bench, preset: str, tick) -> list[Row]:
    """One row for every peer. All begin with the same parameters, and must have the same first loss and gradient."""
    batch, side = PRESETS_MEASURED[preset]
    batch = min(batch, _QUICK_BATCH) if bench.settings.quick else batch
    shape = (batch, side, side, PRESETS[preset].model.image_channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    inputs, start = [bench.save(f"train-{preset}", images)], bench.directory / f"train-{preset}.npz"
    runtimes = [peer.runtime for peer in bench.peers() if peer.runtime == "gluon" or peer.runtime.startswith("torch")]
    if "gluon" not in runtimes:
        return []
    try:
        check_kernels()
        runtimes.append(FUSED)
    except RuntimeFailure as failure:
        bench.note(f"training by {FUSED} is left out: {failure}")
    rows = {name: Row(f"train {preset}", batch, name, "float32") for name in runtimes}
    values = {"preset": preset, "inputs": inputs, "start": start}
    ours = {"gluon": bench.job("train_gluon", f"train-{preset}-gluon", operators="mxnet", **values)}
    twins = {
        name: bench.job("train_torch", f"train-{preset}-{name}", way=name, **values)
        for name in runtimes
        if name.startswith("torch")
    }
    if FUSED in runtimes:
        twins[FUSED] = bench.job("train_gluon", f"train-{preset}-{FUSED}", operators="fused", **values)
    threads = bench.effort.threads
    with started(ours, threads) as processes:
        processes["gluon"].wait()  # The others begin with what it wrote.
        with started(twins, threads) as others:
            processes = {**processes, **others}
            for name, process in others.items():
                try:
                    process.wait()
                except RuntimeFailure as failure:
                    rows[name] = replace(rows[name], error=str(failure))
            sound = {name: process for name, process in processes.items() if rows[name].error is None}
            tasks = {name: partial(time_run, process) for name, process in sound.items()}
            for name, times in take_turns(tasks, bench.effort, tick).items():
                rows[name] = rows[name].timed(times, sound[name].peak_mib())
    return list(rows.values())
