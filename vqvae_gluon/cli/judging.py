"""The commands that judge: parity, parity record, parity compare, faults."""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np

from vqvae_gluon.cli.words import (
    EQUAL_CODES,
    PROGRAM,
    PSNR_LOST,
    RUNTIME_NAMES,
    Commands,
    add_memory,
    add_trust,
    decibels,
    positive,
    processes,
    seed,
    share,
)
from vqvae_gluon.config import PRESETS
from vqvae_gluon.errors import DIVERGED, DONE, REJECTED, InputError, UsageError
from vqvae_gluon.limits import PLAIN_MEMORY
from vqvae_gluon.printed import json_text, say, show
from vqvae_gluon.temporary import temporary_directory
from vqvae_gluon.workers import processor_count

_RECORDED = 64  # images of a trace, unless told otherwise
_VERDICT_EXIT_CODES = {"agree": DONE, "diverge": DIVERGED, "invalid": REJECTED}


def add_to(commands: Commands) -> None:
    parity = commands.add(
        "parity",
        _parity,
        "compare two runtimes layer by layer and name the first difference",
        [
            "pretrained/mnist --candidate cpp --count 1000 --json",
            "pretrained/mnist --candidate cpp --html report",
            "pretrained/mnist --candidate cpp --candidate-bundle deployed --data digits",
            "pretrained/mnist --candidate cpp --candidate-bundle deployed --black-box",
            "pretrained/mnist --candidate-bundle mnist-int8 --candidate cpp",
            "--symbol net-symbol.json --params net-0000.params --input data:8,3,224,224 --candidate cpp-executor",
        ],
    )
    _add_subject(parity)
    parity.add_argument(
        "--reference", choices=RUNTIME_NAMES, default="gluon", help="the side that is believed (default: gluon)"
    )
    parity.add_argument(
        "--candidate",
        choices=RUNTIME_NAMES,
        help="the side under test (default, if its bundle is in another precision: the reference)",
    )
    parity.add_argument(
        "--candidate-bundle",
        type=Path,
        metavar="DIR",
        help="what the candidate runs (default: BUNDLE); one in another precision is judged by what is lost",
    )
    parity.add_argument("--candidate-symbol", type=Path, metavar="FILE", help="the same of a plain export")
    parity.add_argument("--candidate-params", type=Path, metavar="FILE", help="the same of a plain export")
    parity.add_argument("--batch-size", type=positive, default=128, metavar="N", help="images at once (default: 128)")
    parity.add_argument(
        "--repeat", type=positive, default=1, metavar="N", help="run each side N times; all must give the same bits"
    )
    parity.add_argument(
        "--equal-codes",
        type=share,
        metavar="SHARE",
        help=f"of another precision, the share of equal codes that is enough (default: {EQUAL_CODES:g})",
    )
    parity.add_argument(
        "--psnr-lost",
        type=decibels,
        metavar="DB",
        help=f"of another precision, the loss of PSNR that is little enough (default: {PSNR_LOST:g})",
    )
    _add_tapped_memory(parity)
    _add_report(parity)

    record = commands.add(
        "parity record",
        _parity_record,
        "record every node of one batch, to be compared on another machine",
        [
            "pretrained/mnist --runtime gluon --count 64 --output trained",
            "deployed --runtime cpp --data trained --output recorded",
            "--symbol net-symbol.json --params net-0000.params --input data:1,3,224,224 --runtime cpp --output trace",
        ],
    )
    _add_subject(record)
    record.add_argument("--runtime", choices=RUNTIME_NAMES, required=True, help="what runs it")
    record.add_argument("--output", type=Path, required=True, metavar="TRACE", help="directory of the trace")
    _add_tapped_memory(record)

    compare = commands.add(
        "parity compare",
        _parity_compare,
        "compare two recorded traces",
        ["trained recorded", "trained recorded --html report"],
    )
    compare.add_argument("reference", type=Path, metavar="TRACE_A", help="the side that is believed")
    compare.add_argument("candidate", type=Path, metavar="TRACE_B", help="the side under test")
    _add_tapped_memory(compare)
    _add_report(compare)

    faults = commands.add(
        "faults",
        _faults,
        "plant faults in networks and show that the harness finds them, and that it lets pass what is harmless",
        ["--fast", "--html matrix", "--model residual --kind 'graph fusion' --kind eps"],
    )
    faults.add_argument("--json", action="store_true", help="print the matrix as JSON")
    faults.add_argument("--html", type=Path, metavar="DIR", help="write the matrix as a page")
    faults.add_argument("--model", action="append", default=[], metavar="NAME", help="a network; several times")
    faults.add_argument(
        "--kind", action="append", default=[], metavar="NAME", help="a kind of fault, without controls; several times"
    )
    faults.add_argument("--fast", action="store_true", help="every kind of fault and of control once")
    jobs = processor_count()
    faults.add_argument("--jobs", type=processes, default=jobs, metavar="N", help=f"processes (default: {jobs})")


def _add_subject(command: argparse.ArgumentParser) -> None:
    """What is run, and what it is fed."""
    command.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="directory that 'export' wrote")
    command.add_argument("--symbol", type=Path, metavar="FILE", help="a plain Gluon export: its -symbol.json")
    command.add_argument("--params", type=Path, metavar="FILE", help="a plain Gluon export: its .params")
    command.add_argument(
        "--input",
        action="append",
        metavar="NAME:SHAPE[:TYPE]",
        help="an input of a plain export and the shape of a batch, such as data:8,3,224,224; several times",
    )
    command.add_argument(
        "--data",
        metavar="NAME|DIR|FILE",
        help="images to feed: a data set, a directory, an .npy file; of a plain export also an .npz file with an array"
        " for each input, or a recorded trace (default: the bundle's own test set; seeded random numbers)",
    )
    command.add_argument("--count", type=positive, metavar="N", help="how many of them (default: all; one batch)")
    command.add_argument("--seed", type=seed, default=0, metavar="N", help="of the random numbers (default: 0)")
    add_memory(command, PLAIN_MEMORY)
    add_trust(command)


def _add_tapped_memory(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--max-memory", type=positive, default=1536, metavar="MIB", help="of tapped tensors at once (default: 1536)"
    )


def _add_report(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--black-box", action="store_true", help="judge the candidate by its numbers alone, do not look at its files"
    )
    command.add_argument("--json", action="store_true", help="print the report as JSON")
    command.add_argument("--junit", type=Path, metavar="FILE", help="write the report as JUnit XML")
    command.add_argument("--html", type=Path, metavar="DIR", help="write the report as a page, with pictures")
    command.add_argument(
        "--repro", type=Path, metavar="DIR", help="write the first divergence as a folder to be reported upstream"
    )


def _parity(options: argparse.Namespace) -> int:
    from vqvae_gluon.parity import report as words
    from vqvae_gluon.parity.harness import compare_bundles, compare_exports
    from vqvae_gluon.runtimes import RUNTIMES

    _make_room(options)
    if options.bundle is not None and _differ_in_precision(options):
        return _parity_of_precisions(options)
    if options.candidate is None:
        raise UsageError("--candidate", f"is needed; give one of {', '.join(RUNTIME_NAMES)}")
    for option in ("--equal-codes", "--psnr-lost"):
        if getattr(options, option[2:].replace("-", "_")) is not None:
            raise UsageError(option, "is for a --candidate-bundle in another precision; this one must be right")
    sides = RUNTIMES[options.reference](), RUNTIMES[options.candidate]()
    limits = {
        "max_memory": options.max_memory << 20,
        "repeat": options.repeat,
        "repro": options.repro,
        "black_box": options.black_box,
    }
    if options.bundle is not None:
        images = _images(options)
        theirs = options.candidate_bundle or options.bundle
        report = compare_bundles(*sides, options.bundle, theirs, images, options.batch_size, **limits)
    else:
        files, feed = _export_and_feed(options)
        theirs = dataclasses.replace(
            files,
            symbol=options.candidate_symbol or files.symbol,
            params=options.candidate_params or files.params,
        )
        report = compare_exports(*sides, files, theirs, feed, **limits)
    return _tell(report, words, options)


def _differ_in_precision(options: argparse.Namespace) -> bool:
    from vqvae_gluon.artifacts.bundle import open_bundle

    if options.candidate_bundle is None:
        return False
    ours = open_bundle(options.bundle, verify=False)
    try:
        theirs = open_bundle(options.candidate_bundle, verify=False)
    except InputError:
        return False  # The harness will tell it as a failure of the candidate.
    return ours.precision != theirs.precision


def _parity_of_precisions(options: argparse.Namespace) -> int:
    from vqvae_gluon.artifacts.quantize import Criteria
    from vqvae_gluon.parity import precision_report as words
    from vqvae_gluon.parity.precision import compare_precisions
    from vqvae_gluon.runtimes import RUNTIMES

    given = {
        "--black-box": options.black_box,
        "--html": options.html,
        "--repro": options.repro,
        "--repeat": options.repeat > 1,
    }
    for option, value in given.items():
        if value:
            raise UsageError(option, "is not for a --candidate-bundle in another precision, where no bit is expected")
    sides = RUNTIMES[options.reference](), RUNTIMES[options.candidate or options.reference]()
    default = Criteria()
    criteria = Criteria(
        default.equal_codes if options.equal_codes is None else options.equal_codes,
        default.psnr_lost if options.psnr_lost is None else options.psnr_lost,
    )
    report = compare_precisions(
        *sides,
        options.bundle,
        options.candidate_bundle,
        _images(options),
        options.batch_size,
        options.max_memory << 20,
        criteria,
    )
    return _tell(report, words, options)


def _parity_record(options: argparse.Namespace) -> int:
    from vqvae_gluon.artifacts.trace import INDEX, open_trace
    from vqvae_gluon.parity.recorded import record_bundle, record_export
    from vqvae_gluon.runtimes import RUNTIMES

    _make_room(options)
    runtime, limit = RUNTIMES[options.runtime](), options.max_memory << 20
    if options.bundle is not None:
        replayed = None
        if options.data is not None and (Path(options.data) / INDEX).exists():
            replayed = open_trace(Path(options.data))
            pixels = replayed.by_key().get(("input", "pixels"))
            if pixels is None or pixels.path is None:
                raise InputError(options.data, "holds no images; it is no trace of a bundle")
            pixels.load()  # Proves that they are those of the trace.
            options.data = str(pixels.path)
        images = _images(options)
        for files, _ in images.batches(min(len(images), options.count or _RECORDED)):
            record_bundle(runtime, options.bundle, files, options.output, replayed, limit)
            break
    else:
        files, feed = _export_and_feed(options)
        batches = list(feed.batches())
        if len(batches) > 1:
            raise UsageError("--count", f"a trace is of one batch; give --input a shape that begins with {len(feed)}")
        record_export(runtime, files, batches[0], options.output, limit)
    say(options.output)
    return DONE


def _parity_compare(options: argparse.Namespace) -> int:
    from vqvae_gluon.parity import report as words
    from vqvae_gluon.parity.recorded import compare_traces

    limit = options.max_memory << 20
    report = compare_traces(options.reference, options.candidate, limit, options.black_box, repro=options.repro)
    return _tell(report, words, options)


def _faults(options: argparse.Namespace) -> int:
    from vqvae_gluon.artifacts.bundle import PRETRAINED
    from vqvae_gluon.parity import matrix
    from vqvae_gluon.parity.matrix_report import to_text, write_html

    if options.html:
        options.html.mkdir(parents=True, exist_ok=True)
    with temporary_directory() as directory:
        bundles = {
            "mnist": lambda: (PRETRAINED / "mnist", PRETRAINED / "mnist" / "digits"),
            "cifar10": lambda: (seeded_bundle("cifar10", directory / "cifar10.bundle"), None),
        }
        found = matrix.specimens(bundles, directory, options.model)
        result = matrix.judge_all(found, options.kind, options.fast, options.jobs)
    show(json_text(result.to_json()) if options.json else to_text(result))
    if options.html:
        say(f"report: {write_html(result, options.html)}", sys.stderr)
    return DONE if result.passed else DIVERGED


def seeded_bundle(preset: str, path: Path) -> Path:
    """A preset's network with random weights from a seed, as a bundle. The rows of its codebook are latents of
    pictures, as of one that was trained: of other rows it would choose a few alone."""
    from vqvae_gluon.artifacts.export import export_bundle
    from vqvae_gluon.compat import mx
    from vqvae_gluon.data.images import to_tensor
    from vqvae_gluon.model.vqvae import VQVAE
    from vqvae_gluon.parity.specimens import initialized, pictures

    config = PRESETS[preset]
    stride, channels = config.model.stride, config.model.image_channels
    model = initialized(VQVAE(config.model), (1, channels, stride, stride))
    images = pictures(64, 8 * stride, channels, seed=1)
    latents = model.encoder(mx.nd.array(to_tensor(images)) / 255).asnumpy()
    vectors = latents.transpose(0, 2, 3, 1).reshape(-1, config.model.embedding_dim)
    chosen = np.random.default_rng(0).choice(len(vectors), config.model.num_embeddings, replace=False)
    model.quantizer.codebook.set_data(mx.nd.array(vectors[chosen]))
    return export_bundle(path, config, model, {"name": "random weights", "sha256": ""}, 0, {}).path


def _make_room(options: argparse.Namespace) -> None:
    """Refuse words that do not fit together, and find out that a report cannot be written before the work is done."""
    plain = options.symbol is not None or options.params is not None or bool(options.input)
    if plain == (options.bundle is not None):
        help_of = f"{PROGRAM} {options.command} --help"
        raise UsageError("options", f"give BUNDLE, or --symbol, --params and --input (see {help_of})")
    if plain and (options.symbol is None or options.params is None):
        raise UsageError("options", "a plain export takes --symbol and --params")
    if getattr(options, "html", None):
        options.html.mkdir(parents=True, exist_ok=True)


def _images(options: argparse.Namespace):
    from vqvae_gluon.artifacts.bundle import open_bundle
    from vqvae_gluon.data import DATASETS, open_images

    bundle = open_bundle(options.bundle, verify=False)  # Of an altered one the numbers are wanted, too.
    source = options.data or bundle.manifest["data"]["name"]
    if options.data is None and source not in DATASETS:
        raise UsageError(
            "--data", f"is needed: {options.bundle} was trained on '{source}', which has no test set to fetch"
        )
    return open_images(source, bundle.channels, options.count)


def _export_and_feed(options: argparse.Namespace):
    from vqvae_gluon.artifacts.binding import read_network
    from vqvae_gluon.artifacts.bundle import GraphFiles
    from vqvae_gluon.parity.inputs import open_feed, parse_specs

    files = GraphFiles(options.symbol, options.params)
    specs = parse_specs(options.input or ())
    return files, open_feed(
        read_network(files), specs, options.data, options.count, options.seed, options.max_memory << 20
    )


def _tell(report, words, options: argparse.Namespace) -> int:
    """Print and write a report in the words of its module, and give the exit code."""
    show(json_text(report.to_json()) if options.json else report)
    if options.junit:
        words.write_junit(report, options.junit)
    if options.html:
        from vqvae_gluon.parity.page import write_html

        say(f"report: {write_html(report, options.html)}", sys.stderr)
    if options.repro:
        nothing = "nothing was written, the two agree" if report.verdict == "agree" else "nothing could be written"
        say(f"repro: {options.repro if (options.repro / 'README.md').exists() else nothing}", sys.stderr)
    if report.verdict == "invalid" and report.failure is not None:
        raise report.failure
    return _VERDICT_EXIT_CODES[report.verdict]
