"""How far honest implementations are from float64: the measure behind the bounds (docs/parity.md, "Bounds").

    python benchmarks/honest_error.py [--seeds 3] [NETWORK ...]

MXNet's executor fuses operators, and so rounds otherwise than Gluon; on these networks it is right. For each of them
and several seeds: the executor's largest error against float64 at the outputs, as a multiple of Gluon's. The bound is
the factor of vqvae_gluon/parity/bounds.py, which must lie well above all of them. Exit code 4 if it does not.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "parity_tests"))

import networks
from tqdm import tqdm

from vqvae_gluon.artifacts.binding import read_network
from vqvae_gluon.compat import mx
from vqvae_gluon.errors import DIVERGED, DONE
from vqvae_gluon.parity import compare_exports
from vqvae_gluon.parity.bounds import FACTOR
from vqvae_gluon.parity.inputs import InputSpec, open_feed
from vqvae_gluon.runtimes import RUNTIMES


def ratios(name: str, size: int, seeds: int) -> list[float]:
    """The executor's error over Gluon's, or the least error that counts, for each seed."""
    found = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as directory:
            shape = (1, 3, size, size)
            net = networks.initialized(mx.gluon.model_zoo.vision.get_model(name), shape, seed)
            files = networks.export(net, Path(directory), shape)
            feed = open_feed(read_network(files), [InputSpec("data", shape)], seed=seed)
            report = compare_exports(RUNTIMES["gluon"](), RUNTIMES["executor"](), files, files, feed)
        errors = [output.errors for output in report.outputs.values() if output.errors]
        found.append(max((one.candidate / one.bound * FACTOR for one in errors), default=0.0))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"default: {' '.join(networks.ZOO)}")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each, with other weights and inputs (default: 3)")
    options = parser.parse_args()
    print(f"| network | executor's error over Gluon's, {options.seeds} seeds |\n| --- | --- |")
    worst = 0.0
    for name in tqdm(options.networks or list(networks.ZOO), leave=False, disable=None):
        found = ratios(name, networks.ZOO[name], options.seeds)
        worst = max(worst, *found)
        print(f"| {name} | {', '.join(f'{ratio:.2f}' for ratio in found)} |")
    print(f"\nlargest: {worst:.2f}; the bound is {FACTOR:g}")
    return DONE if worst < FACTOR else DIVERGED


if __name__ == "__main__":
    sys.exit(main())
