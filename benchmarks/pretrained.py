"""Measure a shipped bundle on its validation and test images as training does; draw its losses from the stored table.

python benchmarks/pretrained.py mnist
python benchmarks/pretrained.py cifar10 --data DIR --write

With --write the manifest gets the numbers; its digests are of the other files, which stay.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from vqvae_gluon.artifacts.bundle import MANIFEST, Bundle, graph_files, open_pretrained
from vqvae_gluon.compat import mx
from vqvae_gluon.data import open_split
from vqvae_gluon.files import atomic_write
from vqvae_gluon.model.vqvae import VQVAE
from vqvae_gluon.training import plots
from vqvae_gluon.training.loop import hold_out, pixel_variance
from vqvae_gluon.training.metrics import evaluate

_BATCH = 250


def network(bundle: Bundle) -> VQVAE:
    """The network that a bundle holds the two halves of."""
    model = VQVAE(bundle.config.model)
    model.initialize()
    arrays = {}
    for part in ("encoder", "decoder"):
        arrays.update(mx.nd.load(str(graph_files(bundle.path, part).params)))
    for name, parameter in model.collect_params().items():
        parameter.set_data(arrays[f"arg:{name}"])
    model.hybridize(static_alloc=True)
    return model


def measure(bundle: Bundle, data: Path) -> dict[str, float]:
    """What the manifest says of the validation and the test images, measured again."""
    name, config = bundle.manifest["data"]["name"], bundle.config
    train, test = (open_split(name, split, bundle.channels, data) for split in ("train", "test"))
    if train.fingerprint() != bundle.manifest["data"]["sha256"]:
        raise SystemExit(f"{data}: holds other images than {bundle.path} was trained on; give those by --data")
    held_out, chosen = hold_out(config.training, len(train), 1)
    variance, model, found = pixel_variance(train, chosen), network(bundle), {}
    for part, images, numbers in (("validation", train, held_out), ("test", test, np.arange(len(test)))):
        batches = (images.read(numbers[start : start + _BATCH]) for start in range(0, len(numbers), _BATCH))
        values, counts = evaluate(model, batches, config, variance)
        found.update({f"{part}_{key}": value for key, value in values.items()})
    history = list(csv.DictReader((bundle.path / "losses.csv").open()))
    rows = [{**{key: float(value) for key, value in row.items()}, "epoch": int(row["epoch"])} for row in history]
    plots.loss_graph(bundle.path / "losses.png", rows)
    if bundle.manifest["epoch"] == rows[-1]["epoch"]:
        plots.codebook_usage(bundle.path / "codebook_usage.png", counts, rows)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the bundle")
    parser.add_argument("--data", type=Path, help="where its data set is, if it is not fetched")
    parser.add_argument("--write", action="store_true", help="write the numbers into the manifest")
    options = parser.parse_args()
    bundle = open_pretrained(options.name)
    before = bundle.manifest["metrics"]
    found = measure(bundle, options.data)
    for name, value in found.items():
        print(f"{name}: {before[name]:.6g} in the manifest, {value:.6g} now")
    if options.write:
        manifest = json.loads((bundle.path / MANIFEST).read_text())
        manifest["metrics"].update(found)
        with atomic_write(bundle.path / MANIFEST) as file:
            file.write((json.dumps(manifest, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
