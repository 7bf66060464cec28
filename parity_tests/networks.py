"""Networks that the tests judge beside our own: MXNet's model zoo, and the standard residual VQ-VAE.

``python parity_tests/networks.py DIR`` writes the latter as an export, ``DIR/net-symbol.json`` and its parameters.
"""

import sys
from pathlib import Path

from vqvae_gluon.artifacts.bundle import GraphFiles
from vqvae_gluon.parity.specimens import Residual, ResidualVQVAE, export, initialized

__all__ = ["ZOO", "Residual", "ResidualVQVAE", "export", "initialized", "residual"]

# Networks of MXNet's model zoo, and the smallest side of an image that is worth a test.
ZOO = {
    "resnet18_v1": 64,
    "resnet18_v2": 64,
    "resnet50_v1": 64,
    "mobilenet1.0": 64,
    "mobilenetv2_1.0": 64,
    "squeezenet1.1": 224,
    "densenet121": 224,
    "inceptionv3": 299,
    "vgg11_bn": 64,
    "alexnet": 64,
}


def residual(directory: Path) -> GraphFiles:
    """Write the residual VQ-VAE, which MXNet's executors compute wrongly."""
    directory.mkdir(parents=True, exist_ok=True)
    return export(initialized(ResidualVQVAE(prefix=""), (4, 3, 32, 32)), directory, (4, 3, 32, 32))


if __name__ == "__main__":
    print(residual(Path(sys.argv[1])).symbol)
