"""The command line. The only module that sees all the others; a command imports what it needs when it runs."""

import argparse
import dataclasses
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn, Optional

import numpy as np

from vqvae_gluon import __version__
from vqvae_gluon.config import PRESETS
from vqvae_gluon.errors import DIVERGED, DONE, FAILED, REJECTED, USAGE, InputError, UsageError, VQVAEError, one_line
from vqvae_gluon.settings import add_flags

_PROGRAM = "vqvae-gluon"
_TOLD = 100  # images that were rejected
_RECORDED = 64  # images of a trace, unless told otherwise
_VERDICT_EXIT_CODES = {"agree": DONE, "diverge": DIVERGED, "invalid": REJECTED}
_EXIT_CODES = "exit codes: 0 done and in agreement, 1 failed, 2 usage, 3 input rejected, 4 divergence found"


def main(arguments: Optional[list[str]] = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["parity"] and words[1:2] in (["record"], ["compare"]):
        words[:2] = [" ".join(words[:2])]
    options = _parser().parse_args(words)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # Names of files are any bytes.
    try:
        return options.run(options)
    except VQVAEError as error:
        return _fail(error.exit_code, str(error))
    except OSError as error:
        return _fail(FAILED, f"{error.filename or 'system'}: {error.strerror or error}")
    except KeyboardInterrupt:
        return _fail(FAILED, "interrupted: nothing half-written is left")


def _fail(code: int, message: str) -> int:
    print(f"{_PROGRAM}: error: {one_line(message)}", file=sys.stderr)
    return code


def _train(options: argparse.Namespace) -> int:
    from vqvae_gluon.settings import read_settings
    from vqvae_gluon.training.cluster import Alone, in_cluster, join_cluster, serve_cluster

    config, run = read_settings(options)
    if not run.kvstore:
        if in_cluster():
            raise UsageError("--kvstore", "is needed where DMLC_ROLE is set; give dist_sync, or unset DMLC_ROLE")
        _train_as(options, config, run, Alone())
    elif not serve_cluster(run.kvstore):
        with join_cluster(run.kvstore) as workers:
            _train_as(options, config, run, workers)
    return DONE


def _train_as(options: argparse.Namespace, config, run, workers) -> None:
    from vqvae_gluon.data.sets import open_split
    from vqvae_gluon.training.loop import find_checkpoint, train

    output = Path(run.output)
    if options.resume and workers.rank == 0 and not find_checkpoint(output).exists():
        raise InputError(find_checkpoint(output), "does not exist; leave --resume out to begin")
    directory = Path(run.data_directory) if run.data_directory else None
    train_images, test_images = (
        open_split(config.training.data, split, config.model.image_channels, directory) for split in ("train", "test")
    )
    train(config, run, train_images, test_images, workers)
    if workers.rank == 0:
        print(output / "best.npz")


def _launch(options: argparse.Namespace) -> int:
    from vqvae_gluon.training.launch import launch

    words = [word for word in options.words if word != "--"]
    if words[:1] != ["train"]:
        raise UsageError("launch", "give what every worker runs, such as: launch --workers 2 -- train --preset mnist")
    if "--kvstore" not in words:
        words += ["--kvstore", "dist_sync"]
    hosts = [host for host in options.hosts.split(",") if host]
    return launch(words, options.workers, options.servers, hosts, options.remote_shell, options.address)


def _pack(options: argparse.Namespace) -> int:
    from vqvae_gluon.data import DATASETS, open_split
    from vqvae_gluon.data.records import write_records

    channels = options.channels or (1 if options.dataset in DATASETS else 3)
    if options.data is not None and options.output.resolve() == options.data.resolve() and options.dataset == "records":
        raise UsageError(options.output, "holds what is to be packed; choose another --output")
    splits = {split: open_split(options.dataset, split, channels, options.data) for split in ("train", "test")}
    for split, images in splits.items():
        write_records(images, options.output, split)
        print(options.output / f"{split}.rec")
    return DONE


def _export(options: argparse.Namespace) -> int:
    from vqvae_gluon.artifacts.export import export_bundle
    from vqvae_gluon.training import checkpoint
    from vqvae_gluon.training.log import copy_record

    found = checkpoint.load(options.training / f"{options.checkpoint}.npz")
    epoch, metrics = found.progress.epoch, found.last
    bundle = export_bundle(options.output, found.config, found.model(), found.data, epoch, metrics)
    if options.record:
        copy_record(options.training, options.output)
    print(bundle.path)
    return DONE


def _encode(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from vqvae_gluon.artifacts.codes import Codes, write_codes
    from vqvae_gluon.data.images import find_sources, open_source, read_sources
    from vqvae_gluon.files import atomic_write, write_npy

    predictor = _open_predictor(options.bundle)
    sources = find_sources(options.images)
    taken = {Path(source.name).resolve() for source in sources}

    def codes_of(images: np.ndarray, name: str) -> Codes:
        codes = predictor.encode(images, name)
        return Codes(codes, images.shape[1], images.shape[2], predictor.num_embeddings, predictor.digest)

    if options.output.suffix in (".npy", ".vq"):
        _claim(taken, [options.output], "codes", sources[0].title)
        codes = codes_of(read_sources(sources, predictor.channels), sources[0].title)
        if options.output.suffix == ".vq":
            write_codes(options.output, codes)
        else:
            with atomic_write(options.output) as file:
                write_npy(file, codes.values)
        print(options.output)
        return DONE
    for source in tqdm(sources, unit="file", leave=False, disable=None):
        path = options.output / source.place.with_name(f"{source.place.name}.vq")
        _claim(taken, [path], "codes", source.title)
        codes = codes_of(open_source(source, predictor.channels)[0], source.title)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_codes(path, codes)
        print(path)
    return DONE


def _encode_folder(options: argparse.Namespace) -> int:
    from vqvae_gluon.runtimes.bulk import encode_folder

    if options.jobs is not None and options.cluster is not None:
        raise UsageError("--jobs", "are processes of this machine; a cluster has workers of its own")
    outcome = encode_folder(
        options.bundle, options.folder, options.output, options.shard_size, options.jobs, options.cluster
    )
    print(outcome.index)
    status = FAILED if outcome.failed else REJECTED if outcome.rejected else DONE
    for entry in outcome.rejected[:_TOLD]:
        _fail(status, f"{options.folder / entry.name}: {entry.rejected}")
    if outcome.rejected:
        _fail(status, f"{outcome.index}: {len(outcome.rejected)} of {outcome.images} images have no codes; it says why")
    return status


def _decode(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from vqvae_gluon.artifacts.codes import parse_codes
    from vqvae_gluon.data.images import find_sources, output_paths, read_source, to_images, write_images
    from vqvae_gluon.files import NPY_MAGIC, parse_npy

    predictor = _open_predictor(options.bundle)
    sources = find_sources(options.codes, (".vq",))
    taken = {Path(source.name).resolve() for source in sources}
    for source in tqdm(sources, unit="file", leave=False, disable=None):
        data = read_source(source)
        suffix = Path(source.name).suffix or (".npy" if data.startswith(NPY_MAGIC) else ".vq")
        if suffix == ".npy":
            images = to_images(predictor.decode(parse_npy(data, source.title), name=source.title))
        else:
            images = predictor.decode_file(parse_codes(data, source.title), source.title)
        paths = output_paths(options.output / source.place, len(images), suffix == ".npy" or len(images) > 1)
        _claim(taken, paths, "images", source.title)
        for path in write_images(paths, images):
            print(path)
    return DONE


def _reconstruct(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from vqvae_gluon.data.images import find_sources, open_source, output_paths, write_images

    predictor = _open_predictor(options.bundle)
    options.output.mkdir(parents=True, exist_ok=True)
    sources = find_sources(options.images)
    taken = {Path(source.name).resolve() for source in sources}
    for source in tqdm(sources, unit="file", leave=False, disable=None):
        images, numbered = open_source(source, predictor.channels)
        paths = output_paths(options.output / source.place, len(images), numbered)
        _claim(taken, paths, "reconstruction", source.title)
        for path in write_images(paths, predictor.reconstruct(images, source.title)):
            print(path)
    return DONE


def _claim(taken: set[Path], paths: list[Path], result: str, source: str) -> None:
    """Nothing that was given or written is overwritten."""
    for path in paths:
        if path.resolve() in taken:
            raise UsageError(path, f"would be overwritten by the {result} of {source}; choose another --output")
        taken.add(path.resolve())


def _parity(options: argparse.Namespace) -> int:
    from vqvae_gluon.parity.harness import compare_bundles, compare_exports
    from vqvae_gluon.runtimes import RUNTIMES

    _make_room(options)
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
    return _tell(report, options)


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
    print(options.output)
    return DONE


def _parity_compare(options: argparse.Namespace) -> int:
    from vqvae_gluon.parity.recorded import compare_traces

    limit = options.max_memory << 20
    report = compare_traces(options.reference, options.candidate, limit, options.black_box, repro=options.repro)
    return _tell(report, options)


def _faults(options: argparse.Namespace) -> int:
    from vqvae_gluon.artifacts.bundle import PRETRAINED
    from vqvae_gluon.parity import matrix
    from vqvae_gluon.parity.matrix_report import to_text, write_html

    if options.html:
        options.html.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vqvae-faults.") as name:
        directory = Path(name)
        bundles = {
            "mnist": lambda: (PRETRAINED / "mnist", PRETRAINED / "mnist" / "digits"),
            "cifar10": lambda: (_seeded_bundle("cifar10", directory / "cifar10.bundle"), None),
        }
        found = matrix.specimens(bundles, directory, options.model)
        result = matrix.judge_all(found, options.kind, options.fast, options.jobs)
    print(json.dumps(result.to_json(), indent=2) if options.json else to_text(result))
    if options.html:
        print(f"report: {write_html(result, options.html)}", file=sys.stderr)
    return DONE if result.as_it_must_be else DIVERGED


def _seeded_bundle(preset: str, path: Path) -> Path:
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
        raise UsageError("options", "give BUNDLE, or --symbol, --params and --input")
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
    from vqvae_gluon.parity.inputs import open_feed, parse_spec

    files = GraphFiles(options.symbol, options.params)
    specs = [parse_spec(text) for text in options.input or ()]
    return files, open_feed(read_network(files), specs, options.data, options.count, options.seed)


def _tell(report, options: argparse.Namespace) -> int:
    from vqvae_gluon.parity.report import to_json, to_text, write_junit
    from vqvae_gluon.parity.result import INVALID

    print(json.dumps(to_json(report), indent=2) if options.json else to_text(report))
    if options.junit:
        write_junit(report, options.junit)
    if options.html:
        from vqvae_gluon.parity.page import write_html

        print(f"report: {write_html(report, options.html)}", file=sys.stderr)
    if options.repro:
        nothing = "nothing was written, the two agree" if report.verdict == "agree" else "nothing could be written"
        print(f"repro: {options.repro if (options.repro / 'README.md').exists() else nothing}", file=sys.stderr)
    if report.verdict == INVALID and report.failure is not None:
        raise report.failure
    return _VERDICT_EXIT_CODES[report.verdict]


def _open_predictor(path: Path):
    from vqvae_gluon.artifacts.bundle import open_bundle
    from vqvae_gluon.runtimes.gluon import Predictor

    return Predictor(open_bundle(path))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{_PROGRAM}: error: options: {one_line(message)} (see {self.prog} --help)\n")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _seed(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**31:
        raise ValueError
    return number


_seed.__name__ = "whole number from 0 to 2**31 - 1"
_positive.__name__ = "whole number from 1 on"  # argparse puts it into its messages.


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=_PROGRAM, description="A VQ-VAE in MXNet Gluon, and the proof that its C++ side agrees.")
    parser.epilog = _EXIT_CODES
    parser.add_argument("--version", action="version", version=f"{_PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run, help: str, examples: list[str]) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog="\n".join(["examples:", *(f"  {_PROGRAM} {name} {words}" for words in examples), "", _EXIT_CODES]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        return command

    train = add(
        "train",
        _train,
        "train a network; run it again to go on after an interruption",
        [
            "--preset mnist",
            "--epochs 1 --batch-size 128 --learning-rate 1e-3 --output runs/short",
            "--dataset images --data faces",
            "--preset cifar10 --data cifar-10-batches-py",
            "--config faces.toml --learning-rate 1e-3",
        ],
    )
    train.add_argument("--resume", action="store_true", help="go on with the run in --output, or fail")
    add_flags(train)

    launch = add(
        "launch",
        _launch,
        "train with several processes or machines: start the scheduler, the servers and the workers of a job",
        [
            "--workers 2 -- train --preset mnist",
            "--workers 8 --servers 2 --hosts a,b,c,d -- train --preset cifar10 --data cifar-10-batches-py",
        ],
    )
    launch.add_argument("--workers", type=_positive, default=2, metavar="N", help="that share each batch (default: 2)")
    launch.add_argument("--servers", type=_positive, default=1, metavar="N", help="that add up (default: 1)")
    launch.add_argument(
        "--hosts", default="", metavar="A,B,...", help="where they run, in turn, beside this one (default: here)"
    )
    launch.add_argument("--address", default="", metavar="NAME", help="of this machine for them (default: its name)")
    launch.add_argument(
        "--remote-shell",
        default="ssh -o BatchMode=yes",
        metavar="COMMAND",
        help="takes a host and a command line (default: ssh -o BatchMode=yes)",
    )
    launch.add_argument("words", nargs=argparse.REMAINDER, metavar="-- train ...", help="what every worker runs")

    pack = add(
        "pack",
        _pack,
        "write a data set as MXNet's RecordIO, for sets of more files than a file system likes",
        [
            "--dataset images --data photos --output records",
            "--dataset cifar10 --data downloads --output cifar10-records",
            "--dataset images --data scans --channels 1 --output records",
        ],
    )
    pack.add_argument("--dataset", choices=_DATASETS, default="images", help="what is packed (default: images)")
    pack.add_argument(
        "--data", type=Path, metavar="DIR", help="where its files are; mnist and fashion-mnist are fetched"
    )
    pack.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="for train.rec and test.rec, and an .idx and .json of each",
    )
    pack.add_argument(
        "--channels", type=int, choices=(1, 3), help="gray or RGB (default: 3; of mnist and fashion-mnist 1)"
    )

    export = add("export", _export, "write a trained network as a bundle", ["runs/mnist --output bundle"])
    export.add_argument("training", type=Path, metavar="RUN", help="directory that 'train' wrote")
    export.add_argument("--output", type=Path, required=True, metavar="DIR", help="the bundle's directory")
    export.add_argument("--checkpoint", choices=("best", "last"), default="best", help="which epoch (default: best)")
    export.add_argument(
        "--record", action="store_true", help="put the run's log, settings, tables and pictures beside the bundle"
    )

    images_help = (
        "PNG or JPEG files, directories of them, uint8 .npy files (N, H, W[, C]), or - for standard input; any size"
    )
    encode = add(
        "encode",
        _encode,
        "write the codes of images",
        ["pretrained/mnist digit.png --output codes.npy", "pretrained/mnist photos --output codes"],
    )
    encode.add_argument("bundle", type=Path, metavar="BUNDLE", help="directory that 'export' wrote")
    encode.add_argument("images", nargs="+", metavar="IMAGE", help=images_help)
    encode.add_argument(
        "--output",
        type=Path,
        default=Path("codes.npy"),
        metavar="FILE|DIR",
        help="an .npy file, int32 (N, h, w), or a .vq file, for images of one size; or a directory for a .vq file of"
        " each (default: codes.npy)",
    )

    folder = add(
        "encode-folder",
        _encode_folder,
        "write the codes of a large folder of images in shards; run it again to go on after an interruption",
        [
            "pretrained/mnist photos --output codes",
            "pretrained/mnist /shared/photos --output /shared/codes --cluster tcp://scheduler:8786",
        ],
    )
    folder.add_argument("bundle", type=Path, metavar="BUNDLE", help="directory that 'export' wrote")
    folder.add_argument("folder", type=Path, metavar="DIR", help="PNG and JPEG files, also in directories below it")
    folder.add_argument(
        "--output", type=Path, required=True, metavar="CODES", help="directory for the .vq files and their index"
    )
    folder.add_argument(
        "--shard-size", type=_positive, default=1024, metavar="N", help="images encoded together (default: 1024)"
    )
    jobs = len(os.sched_getaffinity(0))
    folder.add_argument("--jobs", type=_positive, metavar="N", help=f"processes of this machine (default: {jobs})")
    folder.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="of a Dask scheduler, whose workers see the same directories and encode (needs the extra 'cluster')",
    )

    decode = add(
        "decode",
        _decode,
        "write the images of codes",
        ["pretrained/mnist codes.npy --output decoded", "pretrained/mnist codes --output decoded"],
    )
    decode.add_argument("bundle", type=Path, metavar="BUNDLE", help="directory that 'export' wrote")
    decode.add_argument(
        "codes",
        nargs="+",
        metavar="CODES",
        help=".vq files, directories of them, int32 .npy files (N, h, w), or - for standard input",
    )
    decode.add_argument("--output", type=Path, default=Path("decoded"), metavar="DIR", help="default: decoded")

    reconstruct = add(
        "reconstruct",
        _reconstruct,
        "encode and decode images",
        ["pretrained/mnist digit.png --output out", "pretrained/mnist photos - <photo.jpg"],
    )
    reconstruct.add_argument("bundle", type=Path, metavar="BUNDLE", help="directory that 'export' wrote")
    reconstruct.add_argument("images", nargs="+", metavar="IMAGE", help=images_help)
    reconstruct.add_argument(
        "--output", type=Path, default=Path("reconstructions"), metavar="DIR", help="default: reconstructions"
    )

    parity = add(
        "parity",
        _parity,
        "compare two runtimes layer by layer and name the first difference",
        [
            "pretrained/mnist --candidate cpp --count 1000 --json",
            "pretrained/mnist --candidate cpp --html report",
            "pretrained/mnist --candidate cpp --candidate-bundle deployed --data digits",
            "pretrained/mnist --candidate cpp --candidate-bundle deployed --black-box",
            "--symbol net-symbol.json --params net-0000.params --input data:8,3,224,224 --candidate cpp-executor",
        ],
    )
    _add_subject(parity)
    parity.add_argument(
        "--reference", choices=_RUNTIMES, default="gluon", help="the side that is believed (default: gluon)"
    )
    parity.add_argument("--candidate", choices=_RUNTIMES, required=True, help="the side under test")
    parity.add_argument(
        "--candidate-bundle", type=Path, metavar="DIR", help="what the candidate runs (default: BUNDLE)"
    )
    parity.add_argument("--candidate-symbol", type=Path, metavar="FILE", help="the same of a plain export")
    parity.add_argument("--candidate-params", type=Path, metavar="FILE", help="the same of a plain export")
    parity.add_argument("--batch-size", type=_positive, default=128, metavar="N", help="images at once (default: 128)")
    parity.add_argument(
        "--repeat", type=_positive, default=1, metavar="N", help="run each side N times; all must give the same bits"
    )
    _add_memory(parity)
    _add_report(parity)

    record = add(
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
    record.add_argument("--runtime", choices=_RUNTIMES, required=True, help="what runs it")
    record.add_argument("--output", type=Path, required=True, metavar="TRACE", help="directory of the trace")
    _add_memory(record)

    compare = add(
        "parity compare",
        _parity_compare,
        "compare two recorded traces",
        ["trained recorded", "trained recorded --html report"],
    )
    compare.add_argument("reference", type=Path, metavar="TRACE_A", help="the side that is believed")
    compare.add_argument("candidate", type=Path, metavar="TRACE_B", help="the side under test")
    _add_memory(compare)
    _add_report(compare)

    faults = add(
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
    faults.add_argument("--jobs", type=_positive, default=jobs, metavar="N", help=f"processes (default: {jobs})")
    return parser


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
    command.add_argument("--count", type=_positive, metavar="N", help="how many of them (default: all; one batch)")
    command.add_argument("--seed", type=_seed, default=0, metavar="N", help="of the random numbers (default: 0)")


def _add_memory(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--max-memory", type=_positive, default=1536, metavar="MIB", help="of tapped tensors at once (default: 1536)"
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


# Named here so that --help loads neither MXNet nor a decoder; tests hold them against what they name.
_DATASETS = ("mnist", "fashion-mnist", "cifar10", "images", "records")
_RUNTIMES = ("gluon", "gluon-eager", "executor", "cpp", "cpp-executor", "cpp-predict", "fp64")
