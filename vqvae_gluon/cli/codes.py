"""The commands that use a bundle: encode, encode-folder, decode, reconstruct."""

import argparse
import itertools
from pathlib import Path

import numpy as np

from vqvae_gluon.cli.words import Commands, add_memory, add_trust, fail, positive, processes
from vqvae_gluon.errors import DONE, FAILED, REJECTED, UsageError
from vqvae_gluon.limits import BUNDLE_MEMORY
from vqvae_gluon.printed import say
from vqvae_gluon.workers import processor_count

_TOLD = 100  # images that were rejected
_BESIDE = ", and 4 KiB for each pixel at once"


def add_to(commands: Commands) -> None:
    images_help = (
        "PNG or JPEG files, directories of them, uint8 .npy files (N, H, W[, C]), or - for standard input; any size"
    )
    encode = commands.add(
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
    add_trust(encode)
    add_memory(encode, BUNDLE_MEMORY, _BESIDE)

    folder = commands.add(
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
        "--shard-size", type=positive, default=1024, metavar="N", help="images encoded together (default: 1024)"
    )
    jobs = processor_count()
    folder.add_argument("--jobs", type=processes, metavar="N", help=f"processes of this machine (default: {jobs})")
    folder.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="of a Dask scheduler, whose workers see the same directories and encode (needs the extra 'cluster')",
    )
    add_memory(folder, BUNDLE_MEMORY, _BESIDE)

    decode = commands.add(
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
    add_trust(decode)
    add_memory(decode, BUNDLE_MEMORY, _BESIDE)

    reconstruct = commands.add(
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
    add_trust(reconstruct)
    add_memory(reconstruct, BUNDLE_MEMORY, _BESIDE)


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
        say(options.output)
        return DONE
    for source in tqdm(sources, unit="file", leave=False, disable=None):
        path = options.output / source.place.with_name(f"{source.place.name}.vq")
        _claim(taken, [path], "codes", source.title)
        codes = codes_of(open_source(source, predictor.channels)[0], source.title)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_codes(path, codes)
        say(path)
    return DONE


def _encode_folder(options: argparse.Namespace) -> int:
    from vqvae_gluon.runtimes.bulk import encode_folder

    if options.jobs is not None and options.cluster is not None:
        raise UsageError("--jobs", "are processes of this machine; a cluster has workers of its own")
    outcome = encode_folder(
        options.bundle,
        options.folder,
        options.output,
        options.shard_size,
        options.jobs,
        options.cluster,
        options.memory,
    )
    say(outcome.index)
    status = FAILED if outcome.failed else REJECTED if outcome.rejected else DONE
    for entry in outcome.rejected[:_TOLD]:
        fail(status, f"{options.folder / entry.name}: {entry.rejected}")
    if outcome.rejected:
        fail(status, f"{outcome.index}: {len(outcome.rejected)} of {outcome.images} images have no codes; it says why")
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
            values = parse_npy(data, source.title)
            batches = map(to_images, predictor.decode_batches(values, name=source.title))
        else:
            codes = parse_codes(data, source.title)
            values, batches = codes.values, predictor.decode_file_batches(codes, source.title)
        paths = output_paths(options.output / source.place, len(values), suffix == ".npy" or len(values) > 1)
        _claim(taken, paths, "images", source.title)
        for path in write_images(paths, itertools.chain.from_iterable(batches)):
            say(path)
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
            say(path)
    return DONE


def _claim(taken: set[Path], paths: list[Path], result: str, source: str) -> None:
    """Nothing that was given or written is overwritten."""
    for path in paths:
        if path.resolve() in taken:
            raise UsageError(path, f"would be overwritten by the {result} of {source}; choose another --output")
        taken.add(path.resolve())


def _open_predictor(path: Path):
    from vqvae_gluon.artifacts.bundle import open_bundle
    from vqvae_gluon.runtimes.gluon import Predictor

    return Predictor(open_bundle(path))
