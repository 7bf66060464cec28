"""Reconstruction by every peer. Each must first give what the reference gives."""

import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from vqvae_gluon.bench.images import repeated
from vqvae_gluon.bench.layers import count_flops
from vqvae_gluon.bench.peers import FLOAT32, Peer, measure_binary
from vqvae_gluon.bench.plan import Bench, Subject
from vqvae_gluon.bench.process import Process, environment, started, take_turns
from vqvae_gluon.bench.results import Row
from vqvae_gluon.errors import RuntimeFailure

# What a peer may differ by from the reference.
CODES_EQUAL = 0.999  # share, at least, in float32
PIXELS_OFF = 0.05  # of 255, at most, in float32, in images that have the reference's codes
PSNR_LOST = 1.0  # dB, at most, in lower precision; how much it is stands in the row
_CHECKED = {FLOAT32: 64}  # images; in lower precision:
_CHECKED_REDUCED, _CHECKED_QUICK = 512, 64
_REFERENCE = "reference"


@dataclass(frozen=True)
class Check:
    """Images and what the reference makes of them, as files.

    Attributes:
        images: float32 (N, C, H, W).
        codes: int32 (N, h, w).
        decoded: float32 (N, C, H, W), of these codes.
    """

    images: Path
    codes: Path
    decoded: Path


def measure(bench: Bench, subject: Subject, batch: int, tick) -> list[Row]:
    """One row for every peer and precision."""
    images = bench.images(subject).test
    name = f"{subject.name}-{batch}"
    timed = repeated(images, batch)
    path = bench.save(f"{name}/images", timed)
    row = Row(f"reconstruct {subject.name}", batch, "", FLOAT32)
    row = replace(row, gflop=batch * count_flops(subject.bundle.path, images.shape[1:]) / 1e9)
    rows: dict[str, Row] = {}
    commands: dict[str, list[str]] = {}
    for peer in bench.peers():
        for precision in peer.precisions:
            key = f"{peer.runtime} {precision}"
            try:
                if peer.ours and bench.bundle(subject, precision) is None:
                    continue
                rows[key] = replace(row, runtime=peer.runtime, precision=precision)
                commands[key] = serving(bench, subject, peer, precision, [path], f"{name}-{key}")
            except RuntimeFailure as failure:
                rows[key] = replace(row, runtime=peer.runtime, precision=precision, error=str(failure))
    checks = make_checks(bench, subject, batch, {rows[key].precision for key in commands})
    with started(commands, bench.effort.threads) as processes:
        for key, process in processes.items():
            try:
                process.wait()
                rows[key] = check(rows[key], process, checks[rows[key].precision], bench.directory / name)
            except RuntimeFailure as failure:
                rows[key] = replace(rows[key], error=str(failure))
        sound = {key: process for key, process in processes.items() if rows[key].error is None}
        tasks = {key: partial(time_run, process) for key, process in sound.items()}
        for key, times in take_turns(tasks, bench.effort, tick).items():
            rows[key] = rows[key].timed(times, sound[key].peak_mib())
    return list(rows.values())


def time_run(process: Process, count: int, number: int = 0) -> float:
    return float(process.ask("run", count, number))


def serving(bench: Bench, subject: Subject, peer: Peer, precision: str, inputs: list[Path], name: str) -> list[str]:
    """The command that serves a peer.

    Raises:
        RuntimeFailure: what it needs could not be made.
    """
    bundle = bench.bundle(subject, precision) if peer.ours else subject.bundle
    assert bundle is not None
    if peer.kernels:
        words = ["--bundle", str(bundle.path), "--kernels", peer.kernels, *map(str, inputs)]
        return [str(measure_binary()), *words]
    if peer.runtime == "gluon":
        return bench.job("gluon", name, bundle=bundle.path.resolve(), inputs=inputs)
    if peer.runtime == "onnxruntime":
        model = onnx_model(bench, subject, precision)
        return bench.job("onnxruntime", name, model=model, inputs=inputs)
    return bench.job("torch", name, bundle=bundle.path.resolve(), inputs=inputs, way=peer.runtime)


def onnx_model(bench: Bench, subject: Subject, precision: str) -> Path:
    """The network as an ONNX model.

    Raises:
        RuntimeFailure: it could not be made.
    """
    path = bench.directory / f"{subject.name}-{precision}.onnx"
    if path.exists():
        return path
    command = [sys.executable, "-m", "vqvae_gluon.bench.onnx_model", str(subject.bundle.path.resolve()), str(path)]
    if precision == "int8":
        command.append(str(bench.save(f"{subject.name}-calibration", bench.images(subject).calibration)))
    where = environment(bench.effort.threads)
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=where)
    if result.returncode:
        raise RuntimeFailure("onnx_model", (result.stderr.strip().splitlines() or ["failed"])[-1])
    return path


def make_checks(bench: Bench, subject: Subject, batch: int, precisions: set[str]) -> dict[str, Check]:
    """What each precision is checked by. The reference is Gluon, in a process of its own."""
    images = bench.images(subject).test
    checks = {}
    for precision in precisions:
        count = _CHECKED.get(precision, _CHECKED_QUICK if bench.settings.quick else _CHECKED_REDUCED)
        count = -(-count // batch) * batch  # Whole batches: some peers run no others.
        directory = bench.directory / f"{subject.name}-check-{count}"
        checks[precision] = Check(directory / "images.npy", directory / "codes.npy", directory / "decoded.npy")
        if not directory.exists():
            bench.save(f"{directory.name}/images", repeated(images, count))
    missing = {one for one in checks.values() if not one.decoded.exists()}
    if not missing:
        return checks
    inputs = [bench.save(f"{subject.name}-reference", repeated(images, min(batch, 64)))]
    command = bench.job("gluon", f"{subject.name}-{_REFERENCE}", bundle=subject.bundle.path.resolve(), inputs=inputs)
    with started({_REFERENCE: command}, bench.effort.threads) as processes:
        processes[_REFERENCE].wait()
        for one in missing:
            processes[_REFERENCE].ask("encode", one.images, one.codes)
            processes[_REFERENCE].ask("reconstruct", one.images, one.decoded)
    return checks


def check(row: Row, process: Process, wanted: Check, directory: Path) -> Row:
    """The row with what it differs by from the reference, and an error if that is too much.

    Raises:
        RuntimeFailure: the process failed.
    """
    stem = f"{row.runtime}-{row.precision}"
    codes_path, decoded_path = directory / f"{stem}-codes.npy", directory / f"{stem}-decoded.npy"
    process.ask("encode", wanted.images, codes_path)
    process.ask("reconstruct", wanted.images, decoded_path)
    images, codes, decoded = (np.load(path) for path in (wanted.images, wanted.codes, wanted.decoded))
    found_codes, found = np.load(codes_path), np.load(decoded_path)
    if found_codes.shape != codes.shape or found.shape != decoded.shape:
        return replace(row, error=f"gives {found_codes.shape} and {found.shape}")
    same = (found_codes == codes).all(axis=(1, 2))
    equal, off = float((found_codes == codes).mean()), float(np.abs(found - decoded)[same].max(initial=0))
    row = replace(row, codes_equal=equal, pixels_off=off)
    if row.precision == FLOAT32:
        fault = not (same.any() and equal >= CODES_EQUAL and off <= PIXELS_OFF)  # NaN is a fault, too.
    else:
        lost = psnr(images, decoded) - psnr(images, found)
        row = replace(row, psnr_lost=lost)
        fault = not lost <= PSNR_LOST
    return replace(row, error=_different(row)) if fault else row


def _different(row: Row) -> str:
    lost = "" if row.psnr_lost is None else f", {row.psnr_lost:.2f} dB worse"
    return (
        f"computes something else: {row.codes_equal:.2%} of the codes equal, pixels off by {row.pixels_off:.3g}{lost}"
    )


def psnr(images: np.ndarray, reconstructions: np.ndarray) -> float:
    """dB, of all pixels together."""
    error = np.mean(np.square(images.astype(np.float64) - reconstructions))
    return float(10 * np.log10(255**2 / error))
