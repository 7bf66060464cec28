"""The command that measures: bench."""

import argparse
import sys
from pathlib import Path

from vqvae_gluon.cli.words import PROGRAM, Commands, positive, processes
from vqvae_gluon.errors import DONE, FAILED, UsageError
from vqvae_gluon.printed import json_text, say, show
from vqvae_gluon.workers import processor_count

# Named here so that --help does not load MXNet; tests hold them against what they name.
SECTIONS = ("limit", "inference", "training", "startup", "scaling", "parity")
PEERS = ("cpp", "cpp-fused", "gluon", "onnxruntime", "torch", "torch-channels-last", "torch-compile")

_OUTPUT = Path("benchmarks")


def add_to(commands: Commands) -> None:
    bench = commands.add(
        "bench",
        _bench,
        "measure what the network costs, beside ONNX Runtime and PyTorch",
        [
            "--quick",
            "--data cifar-10-batches-py --output benchmarks",
            "--only training --rounds 7",
            "--only inference --bundle cifar10 cifar10-int8 --batch 64 --peers cpp onnxruntime",
        ],
    )
    bench.add_argument(
        "--only", nargs="+", action="extend", choices=SECTIONS, default=[], help="what is measured (default: all)"
    )
    bench.add_argument(
        "--bundle",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME|DIR",
        help="networks: that come with the project, or directories that 'export' wrote; those in int8 or"
        " bfloat16 are measured beside that of float32, which is else exported so (default: mnist cifar10)",
    )
    bench.add_argument(
        "--batch",
        type=positive,
        nargs="+",
        action="extend",
        default=[],
        metavar="N",
        help="images at once (default: 1 8 64 256)",
    )
    bench.add_argument(
        "--peers", nargs="+", action="extend", choices=PEERS, default=[], help="who is measured (default: all)"
    )
    bench.add_argument("--rounds", type=positive, metavar="N", help="turns of each (default: 7)")
    threads = processor_count()
    bench.add_argument(
        "--threads", type=processes, default=threads, metavar="N", help=f"of each peer (default: {threads})"
    )
    bench.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="the data set that a network was trained on, where it cannot be fetched; without it pieces of the pictures"
        " beside the bundle are taken",
    )
    bench.add_argument("--quick", action="store_true", help="little and short, to see that it works")
    bench.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help=f"for results.json, RESULTS.md and plots (default: {_OUTPUT}; with --quick: none)",
    )
    bench.add_argument("--resume", action="store_true", help="go on with what --output holds of the same run")
    bench.add_argument("--json", action="store_true", help="print the results as JSON")


def _bench(options: argparse.Namespace) -> int:
    output = options.output or (None if options.quick else _OUTPUT)
    if options.resume and output is None:
        raise UsageError("--resume", "goes on with what --output DIR holds; give it")
    if options.threads > processor_count():
        raise UsageError("--threads", f"are {options.threads}; this process may use {processor_count()} processors")

    from vqvae_gluon.bench.plan import make_settings
    from vqvae_gluon.bench.report import to_json, to_text, write_page
    from vqvae_gluon.bench.run import run

    settings = make_settings(
        options.only or SECTIONS,
        options.bundle,
        options.batch,
        options.peers,
        options.rounds,
        options.threads,
        options.data,
        options.quick,
    )
    results, whole = run(settings, output, options.resume, _note)
    show(json_text(to_json(results)) if options.json else to_text(results))
    if output is not None and results.parts:
        say(f"report: {write_page(results, output, _words(options))}", sys.stderr)
    return DONE if whole else FAILED


def _note(text: str) -> None:
    say(f"{PROGRAM}: note: {text}", sys.stderr)


def _words(options: argparse.Namespace) -> list[str]:
    """The command, for the page: what was chosen, and no place of this machine."""
    words = ["bench"]
    for name in ("only", "bundle", "batch", "peers"):
        chosen = getattr(options, name)
        words += [f"--{name}", *(Path(str(one)).name for one in chosen)] if chosen else []
    for name in ("rounds", "data"):
        value = getattr(options, name)
        words += [f"--{name}", Path(str(value)).name] if value is not None else []
    words += ["--threads", str(options.threads)] if options.threads != processor_count() else []
    return [*words, *(["--quick"] if options.quick else [])]
