"""The commands that make a bundle: train, launch, pack, export."""

import argparse
from pathlib import Path

from vqvae_gluon.cli.words import DATASET_NAMES, Commands, positive
from vqvae_gluon.errors import DONE, InputError, UsageError
from vqvae_gluon.settings import add_flags


def add_to(commands: Commands) -> None:
    train = commands.add(
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

    launch = commands.add(
        "launch",
        _launch,
        "train with several processes or machines: start the scheduler, the servers and the workers of a job",
        [
            "--workers 2 -- train --preset mnist",
            "--workers 8 --servers 2 --hosts a,b,c,d -- train --preset cifar10 --data cifar-10-batches-py",
        ],
    )
    launch.add_argument("--workers", type=positive, default=2, metavar="N", help="that share each batch (default: 2)")
    launch.add_argument("--servers", type=positive, default=1, metavar="N", help="that add up (default: 1)")
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

    export = commands.add("export", _export, "write a trained network as a bundle", ["runs/mnist --output bundle"])
    export.add_argument("training", type=Path, metavar="RUN", help="directory that 'train' wrote")
    export.add_argument("--output", type=Path, required=True, metavar="DIR", help="the bundle's directory")
    export.add_argument("--checkpoint", choices=("best", "last"), default="best", help="which epoch (default: best)")
    export.add_argument(
        "--record", action="store_true", help="put the run's log, settings, tables and pictures beside the bundle"
    )


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

    path = options.training / f"{options.checkpoint}.npz"
    found = checkpoint.load(path)
    progress = found.progress
    if progress.position or not progress.history:
        unmeasured = f"is within epoch {progress.epoch + 1}, of which nothing is measured"
        raise InputError(path, f"{unmeasured}; finish the run, or export the best epoch")
    metrics = progress.history[-1]
    bundle = export_bundle(options.output, found.config, found.model(), found.data, progress.epoch, metrics)
    if options.record:
        copy_record(options.training, options.output)
    print(bundle.path)
    return DONE
