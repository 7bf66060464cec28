"""What build.sh installs: the pinned versions, from files whose digests are written down, and no others."""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from vqvae_gluon.errors import FAILED

EXTRAS = ["test", "dev"]
PYTHONS = ["3.9", "3.10", "3.11", "3.12"]
DIGEST = re.compile(r"--hash=sha256:[0-9a-f]{64}")
WHEEL = "few_words-1.0-py3-none-any.whl"


def pins_file(extra: str) -> Path:
    return ROOT / f"requirements-{extra}.txt"


def requirements(path: Path) -> list[Requirement]:
    """Of a file of pip's, without digests and comments."""
    text = path.read_text().replace("\\\n", " ")
    lines = (re.sub(r"--hash=\S+|#.*", "", line).strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def holding(found: list[Requirement], python: str, extra: str = "") -> dict[str, Requirement]:
    """Those for this Python on Linux, by their names."""
    where = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux", "extra": extra}
    return {canonicalize_name(one.name): one for one in found if one.marker is None or one.marker.evaluate(where)}


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_package_has_one_version_and_digests_and_no_place(extra):
    text = pins_file(extra).read_text()
    packages = [line for line in text.replace("\\\n", " ").splitlines() if not line.startswith("#")]
    assert len(packages) > 40
    for line in packages:
        package, *digests = re.split(r"\s+(?=--)", line.strip())
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; [^@]+)?", package), line
        assert digests and all(map(DIGEST.fullmatch, digests)), line
    assert "://" not in text


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", EXTRAS)
def test_the_pins_are_those_of_the_constraints_and_all_that_the_package_asks_for(extra, python):
    """A change of setup.py or constraints.txt wants 'bash build.sh pins'."""
    pins = holding(requirements(pins_file(extra)), python)
    constraints = holding(requirements(ROOT / "constraints.txt"), python)
    assert {name: str(pin.specifier) for name, pin in pins.items()}.items() <= {
        name: str(one.specifier) for name, one in constraints.items()
    }.items()
    wanted = [Requirement(one) for one in importlib.metadata.requires("vqvae-gluon") or []]
    for name, one in {**holding(wanted, python), **holding(wanted, python, extra)}.items():
        (version,) = pins[name].specifier
        assert one.specifier.contains(version.version), one
    assert "setuptools" in pins  # It builds this package.


def make_wheel(path: Path, module: str) -> str:
    """A wheel of one module; its SHA-256."""
    files = {
        "few_words.py": module,
        "few_words-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: few-words\nVersion: 1.0\n",
        "few_words-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "few_words-1.0.dist-info/RECORD": "few_words.py,,\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_package_file_that_was_replaced_is_refused(tmp_path):
    """By build.sh itself, in a project that wants one package. The other file has the same name and version."""
    right, wrong = (make_wheel(tmp_path / WHEEL, f"right = {is_right}\n") for is_right in (True, False))
    shutil.copy(ROOT / "build.sh", tmp_path)
    (tmp_path / "setup.py").touch()
    (tmp_path / "requirements-test.txt").write_text(f"few-words==1.0 --hash=sha256:{right}\n")
    command = [sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", tmp_path / ".venv"]
    subprocess.run(command, check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    command = ["bash", tmp_path / "build.sh", "setup"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == FAILED
    assert re.search(rf"Expected sha256 {right}\s+Got +{wrong}", result.stderr)
    assert result.stderr.splitlines()[-1].startswith("build.sh: error: the packages could not be installed; see above")
    assert not list(tmp_path.glob(".venv/**/few_words.py"))
