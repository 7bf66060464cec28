"""The house (docs/architecture.md): which room may know which, and what holds for all of them."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import COMMANDS, PRETRAINED, ROOT, run_cli

from vqvae_gluon.cli import words
from vqvae_gluon.data import NAMES
from vqvae_gluon.runtimes import RUNTIMES
from vqvae_gluon.runtimes.cpp import find_binary
from vqvae_gluon.workers import processor_count

PACKAGE = ROOT / "vqvae_gluon"

# The way of the data. A room may import itself and the rooms before it.
ROOMS = ["data", "model", "training", "artifacts", "runtimes", "parity"]
# What belongs to no room and may be imported from all of them.
FOUNDATIONS = {
    "archives",
    "compat",
    "config",
    "environment",
    "errors",
    "files",
    "isolation",
    "kernels",
    "limits",
    "printed",
    "settings",
    "temporary",
    "workers",
    "",
}
# What a room may not know although it comes earlier.
HIDDEN = {"artifacts": {"training"}, "runtimes": {"training", "model"}, "parity": {"training", "model"}}


def imports(path: Path) -> set[str]:
    """Rooms and foundations of this package that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    ours = [name.split(".") for name in names if name.split(".")[0] == "vqvae_gluon"]
    return {parts[1] if len(parts) > 1 else "" for parts in ours}


@pytest.mark.parametrize("room", ROOMS)
def test_the_way_through_the_house_is_one_way(room):
    allowed = FOUNDATIONS | set(ROOMS[: ROOMS.index(room) + 1]) - HIDDEN.get(room, set())
    for path in (PACKAGE / room).rglob("*.py"):
        assert imports(path) <= allowed, path


def test_the_files_of_the_judgement_know_those_above_them():
    """docs/architecture.md lists them; a line may know itself and the lines above it."""
    section = (ROOT / "docs/architecture.md").read_text().split("\n## The judgement\n")[1].split("\n## ")[0]
    lines = [re.split(r"\s{2,}", line.strip())[0] for line in section.splitlines() if line.startswith("    ")]
    place = {name.rstrip("/"): number for number, names in enumerate(lines) for name in names.split(", ")}
    parity = PACKAGE / "parity"
    names = {path.relative_to(parity).parts[0].removesuffix(".py") for path in parity.rglob("*.py")} - {"__init__"}
    assert names == set(place)
    for path in {*parity.rglob("*.py")} - {parity / "__init__.py"}:
        own = path.relative_to(parity).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vqvae_gluon.parity"):
                known = (node.module or "").split(".")[2:3] or [alias.name for alias in node.names]
                assert all(place[name] <= place[own] for name in known), f"{path}: {known}"


def test_foundations_know_no_room():
    for name in FOUNDATIONS - {""}:
        assert imports(PACKAGE / f"{name}.py") <= FOUNDATIONS


def test_what_measures_sees_all_rooms_and_only_commands_see_it():
    for path in (PACKAGE / "bench").rglob("*.py"):
        assert imports(path) <= FOUNDATIONS | set(ROOMS) | {"bench"}, path


def test_every_module_has_its_place():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    files = {path.stem for path in PACKAGE.glob("*.py")}
    assert rooms == set(ROOMS) | {"bench", "cli"}
    assert files == FOUNDATIONS - {""} | {"__init__", "__main__"}


def test_mxnet_is_imported_by_way_of_compat_alone():
    for path in PACKAGE.rglob("*.py"):
        assert "import mxnet" not in path.read_text(), path


def test_the_command_line_knows_every_runtime():
    assert set(words.RUNTIME_NAMES) == set(RUNTIMES)


def test_the_command_line_knows_every_data_set():
    assert set(words.DATASET_NAMES) == set(NAMES)


def test_help_does_not_load_mxnet():
    code = """
import sys
from vqvae_gluon.cli import main
try:
    main(["parity", "--help"])
except SystemExit:
    sys.exit("mxnet" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command):
    result = run_cli(command, "--help")
    assert result.returncode == 0
    assert f"vqvae-gluon {command} " in result.stdout.split("examples:")[1]


def threads(command, tmp_path, **variables):
    """OMP_NUM_THREADS as the OpenMP library of a program saw it when it was loaded."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment.update(OMP_DISPLAY_ENV="true", **variables)
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return {line.split("'")[1] for line in result.stderr.splitlines() if " OMP_NUM_THREADS = " in line}


@pytest.mark.parametrize("language", ["Python", "C++"])
def test_every_processor_is_used_unless_the_user_says_otherwise(language, tmp_path):
    digit = str(PRETRAINED / "digits" / "00.png")
    command = {
        "Python": [sys.executable, "-m", "vqvae_gluon", "reconstruct", str(PRETRAINED), digit],
        "C++": [str(find_binary()), "--bundle", str(PRETRAINED), digit],
    }[language]
    assert threads(command, tmp_path) == {str(processor_count())}
    assert threads(command, tmp_path, OMP_NUM_THREADS="1") == {"1"}


def test_ci_runs_what_the_readme_says():
    assert "bash build.sh test" in (ROOT / ".ci" / "run").read_text()
    assert "pytest parity_tests" in (ROOT / "build.sh").read_text()


def test_the_repository_is_small():
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert sum((ROOT / name).stat().st_size for name in files.split("\0") if name and (ROOT / name).exists()) < 20e6
