"""The commands that make a bundle: train, launch, pack, export."""

import argparse
import math
import shlex
import sys
from pathlib import Path

from vqvae_gluon.cli.words import DATASET_NAMES, PRECISION_NAMES, Commands, add_memory, positive, processes, up_to
from vqvae_gluon.errors import DONE, InputError, RuntimeFailure, UsageError
from vqvae_gluon.limits import PLAIN_MEMORY
from vqvae_gluon.printed import say
from vqvae_gluon.settings import add_flags
from vqvae_gluon.temporary import temporary_directory

_CALIBRATION_IMAGES = 512
_MAX_SIDE = 2**14  # as of the setting image_size


def add_to(commands: Commands) -> None:
    train = commands.add(
        "train",
        _train,
        "train a network; run it again to continue after an interruption",
        [
            "--preset mnist",
            "--epochs 1 --batch-size 128 --learning-rate 1e-3 --output runs/short",
            "--dataset images --data faces",
            "--resume --output runs/faces",
            "--preset cifar10 --data cifar-10-batches-py",
            "--config faces.toml --learning-rate 1e-3",
        ],
    )
    train.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in --output with the settings that it wrote; an error if there is none",
    )
    add_flags(train)

    launch = commands.add(
        "launch",
        _launch,
        "train with several processes or machines: start the scheduler, the servers and the workers of a job",
        [
            "--workers 2 -- train --preset mnist",
            "--workers 8 --servers 2 --hosts a,b,c,d -- train --preset cifar10 --data cifar-10-batches-py",
        ],
    )
    launch.add_argument("--workers", type=processes, default=2, metavar="N", help="that share each batch (default: 2)")
    launch.add_argument("--servers", type=processes, default=1, metavar="N", help="that add up (default: 1)")
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

    pack = commands.add(
        "pack",
        _pack,
        "write a data set as MXNet's RecordIO, for sets of more files than a file system likes",
        [
            "--dataset images --data photos --output records",
            "--dataset cifar10 --data downloads --output cifar10-records",
            "--dataset images --data scans --channels 1 --output records",
        ],
    )
    pack.add_argument("--dataset", choices=DATASET_NAMES, default="images", help="what is packed (default: images)")
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

    pack.add_argument(
        "--image-size",
        type=up_to(_MAX_SIDE),
        default=0,
        metavar="N",
        help="cut each picture to the square around its middle, resized to N (default: all have one size)",
    )

    export = commands.add(
        "export",
        _export,
        "write a trained network as a bundle, in float32, bfloat16 or int8",
        [
            "runs/mnist --output bundle",
            "pretrained/mnist --precision int8 --output mnist-int8",
            "pretrained/cifar10 --precision int8 --data cifar-10-batches-py --output cifar10-int8",
            "bundle --precision bfloat16 --float32 encoder_conv0_fwd --output half",
        ],
    )
    export.add_argument(
        "training", type=Path, metavar="RUN|BUNDLE", help="directory that 'train' wrote, or a float32 bundle"
    )
    export.add_argument("--output", type=Path, required=True, metavar="DIR", help="the bundle's directory")
    export.add_argument("--checkpoint", choices=("best", "last"), help="of a run, which epoch (default: best)")
    export.add_argument(
        "--precision", choices=PRECISION_NAMES, default="float32", help="what it computes in (default: float32)"
    )
    export.add_argument(
        "--calibrate", type=positive, metavar="N", help="training images that int8 is calibrated on (default: 512)"
    )
    export.add_argument(
        "--data", type=Path, metavar="DIR|FILE", help="where they are: as for 'train', or an .npy file of images"
    )
    export.add_argument(
        "--float32",
        action="extend",
        nargs="+",
        default=[],
        metavar="LAYER",
        help="layers that stay in float32, such as encoder_conv0_fwd",
    )
    export.add_argument(
        "--record", action="store_true", help="put the run's log, settings, tables and pictures beside the bundle"
    )
    add_memory(export, PLAIN_MEMORY)


def _train(options: argparse.Namespace) -> int:
    from vqvae_gluon.settings import read_settings
    from vqvae_gluon.training.cluster import Alone, in_cluster, join_cluster, serve_cluster

    settings = read_settings(options, options.resume)
    kvstore = settings.run.kvstore
    if not kvstore:
        if in_cluster():
            raise UsageError("--kvstore", "is needed where DMLC_ROLE is set; give dist_sync, or unset DMLC_ROLE")
        try:
            _train_as(options, settings, Alone())
        except KeyboardInterrupt as error:
            raise RuntimeFailure("interrupted", _how_to_continue(settings.run.output)) from error
    elif not serve_cluster(kvstore):
        with join_cluster(kvstore) as workers:
            _train_as(options, settings, workers)
    return DONE


def _train_as(options: argparse.Namespace, settings, workers) -> None:
    from vqvae_gluon.training.adapt import prepare
    from vqvae_gluon.training.loop import check_resumed, find_checkpoint, train

    output = Path(settings.run.output)
    if options.resume and workers.rank == 0 and not find_checkpoint(output).exists():
        raise InputError(find_checkpoint(output), "does not exist; leave --resume out to begin")
    _check_place(output, settings)
    check_resumed(settings.run, settings.config, settings.given)
    train(settings.run, prepare(settings.config, settings.run, settings.given, workers.count), workers)
    if workers.rank == 0:
        say(output / "best.npz")


def _check_place(output: Path, settings) -> None:
    """A run's pictures must not lie where its data set is looked for: they would be trained on the next time."""
    if settings.config.training.data != "images" or not settings.run.data_directory:
        return
    data = Path(settings.run.data_directory).resolve()
    below = {data / "train", data / "test"} if (data / "test").is_dir() else {data}
    if any(output.resolve().is_relative_to(place) for place in below):
        raise UsageError(
            "--output", f"{output} lies in {data}, all pictures of which are trained on; give another place"
        )


def _how_to_continue(output: str) -> str:
    from vqvae_gluon.training.loop import find_checkpoint

    if not find_checkpoint(Path(output)).exists():
        return "nothing is kept yet; begin again by the same command"
    words = shlex.join(["vqvae-gluon", "train", "--resume", "--output", output])
    return f"the run is kept up to its last checkpoint; continue by: {words}"


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
    if options.image_size and options.dataset != "images":
        raise UsageError("--image-size", "is for --dataset images")
    splits = {
        split: open_split(options.dataset, split, channels, options.data, options.image_size)
        for split in ("train", "test")
    }
    for split, images in splits.items():
        write_records(images, options.output, split)
        say(options.output / f"{split}.rec")
    return DONE


def _export(options: argparse.Namespace) -> int:
    from vqvae_gluon.artifacts.bundle import MANIFEST, open_bundle

    calibrates = options.precision == "int8"
    for option, given in (("--calibrate", options.calibrate), ("--data", options.data)):
        if given is not None and not calibrates:
            raise UsageError(option, "is for --precision int8, which alone is calibrated")
    if options.float32 and options.precision == "float32":
        raise UsageError("--float32", "is for another --precision")
    bundled = (options.training / MANIFEST).is_file()
    if bundled and options.precision == "float32":
        raise UsageError("--precision", f"{options.training} is a bundle in float32; give int8 or bfloat16")
    if bundled and (options.record or options.checkpoint):
        raise UsageError(options.training, "is a bundle, which has no --checkpoint and no --record")
    if bundled and options.output.resolve() == options.training.resolve():
        raise UsageError("--output", "is the bundle itself; choose another directory")
    if bundled:
        _quantize(options, open_bundle(options.training))
    elif options.precision == "float32":
        _export_run(options, options.output)
    else:
        with temporary_directory() as directory:
            _quantize(options, _export_run(options, directory))
    if options.record:
        from vqvae_gluon.training.log import copy_record

        copy_record(options.training, options.output)
    say(options.output)
    return DONE


def _export_run(options: argparse.Namespace, path: Path):
    """The float32 bundle of a run."""
    from vqvae_gluon.artifacts.export import export_bundle
    from vqvae_gluon.training import checkpoint

    file = options.training / f"{options.checkpoint or 'best'}.npz"
    found = checkpoint.load(file)
    progress = found.progress
    if progress.position or not progress.history:
        unmeasured = f"is within epoch {progress.epoch + 1}, of which nothing is measured"
        raise InputError(file, f"{unmeasured}; finish the run, or export the best epoch")
    # JSON has no infinity, which the PSNR of a network is that makes no error.
    row = progress.history[-1]
    metrics = {name: value if math.isfinite(value) else None for name, value in row.items()}
    return export_bundle(path, found.config, found.model(), found.data, progress.epoch, metrics)


def _quantize(options: argparse.Namespace, bundle) -> None:
    """Write a float32 bundle in the precision that is asked for, and say what that costs."""
    from vqvae_gluon.runtimes.quantization import quantize_bundle

    images = _calibration_images(options, bundle) if options.precision == "int8" else None
    count = options.calibrate or _CALIBRATION_IMAGES
    written = quantize_bundle(bundle, options.output, options.precision, images, count, options.float32)
    told = written.manifest["quantization"]
    if "measured" in told:
        measured = told["measured"]
        quality = f"{measured['equal_codes']:.2%} of the codes equal, {measured['psnr_lost']:.3f} dB of PSNR lost"
        say(f"on the {told['data']['images']} images of the calibration: {quality}", sys.stderr)
    if told["float32"]:
        say(f"left in float32: {', '.join(told['float32'])}", sys.stderr)


def _calibration_images(options: argparse.Namespace, bundle):
    from vqvae_gluon.data import NAMES, ArraySet, open_split
    from vqvae_gluon.data.images import check_fit, read_any

    name = bundle.manifest["data"]["name"]
    if options.data is not None and options.data.suffix == ".npy":
        array = read_any(options.data, bundle.channels)
        check_fit(array, bundle.channels, str(options.data))
        return ArraySet(str(options.data), array)
    if name not in NAMES:
        raise UsageError("--data", f"is needed as an .npy file of images: {bundle.path} was trained on '{name}'")
    size = bundle.config.training.image_size
    return open_split(name, "train", bundle.channels, options.data, size, bundle.stride)
