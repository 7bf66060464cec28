"""Metadata of the package. What build.sh installs is pinned in constraints.txt and requirements-*.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "vqvae_gluon/__init__.py").read_text(), re.MULTILINE).group(1)
CLUSTER = ["distributed>=2024.8"]
TEST = ["pytest>=8", "pytest-xdist>=3.6", "playwright>=1.40", "psutil>=5", "pyyaml>=6", *CLUSTER]

setup(
    name="vqvae-gluon",
    version=VERSION,
    description="A VQ-VAE in MXNet Gluon, its C++ predictor, and the proof that the two agree",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.9,<3.13",
    packages=find_packages(include=["vqvae_gluon", "vqvae_gluon.*"]),
    package_data={
        "vqvae_gluon.artifacts": ["operators.json"],
        "vqvae_gluon.parity": ["templates/*.html", "templates/*.css", "templates/repro_*"],
    },
    install_requires=[
        "mxnet==1.9.1",
        "numpy>=1.23,<2",
        "pillow>=10",
        "simplejpeg>=1.7.6,<2",
        "matplotlib>=3.7",
        "jinja2>=3.1",
        "platformdirs>=3",
        "tqdm>=4.64",
        "tensorboardX>=2.6",
        "tomli>=2; python_version < '3.11'",
        # MXNet imports distutils, which Python 3.12 dropped.
        "setuptools; python_version >= '3.12'",
    ],
    extras_require={
        "bench": ["torch>=2", "onnxruntime>=1.17", "onnx>=1.15"],
        "cluster": CLUSTER,
        "test": TEST,
        "dev": [*TEST, "ruff", "mypy", "clang-format", "clang-tidy", "uv"],
    },
    entry_points={"console_scripts": ["vqvae-gluon=vqvae_gluon.__main__:main"]},
)
