"""The documents tell the truth: every command in them is run, and prints what they say."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PRETRAINED, ROOT, check_python_example
from test_settings import settings

README = (ROOT / "README.md").read_text()
DOCUMENTS = ["README.md", "docs/parity.md"]

# What is running while this is read; test_house.py shows that these two lead here.
RUNNING = {"bash build.sh test", "source .venv/bin/activate", "pytest parity_tests"}

# A full schedule takes hours. The command is run as it is written, on a schedule of a moment.
TRAIN = "vqvae-gluon train --preset mnist --output runs/mnist"
MOMENT = " --epochs 1 --batch-size 100 --dataset images --data digits --kmeans-images 100"
# Many minutes; test_faults.py runs its subset.
FAULTS = "vqvae-gluon faults"


def examples(document: str) -> list[tuple[list[str], str]]:
    """Commands of every bash block, and the text block that follows it at once: what the last of them prints."""
    found = re.findall(r"```bash\n(.*?)```\n+(?:```text\n(.*?)```)?", (ROOT / document).read_text(), re.DOTALL)
    return [([line for line in block.splitlines() if line not in RUNNING], text) for block, text in found]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A directory to write into, with all of the repository in it by links."""
    path = tmp_path_factory.mktemp("checkout")
    for entry in ROOT.iterdir():
        if entry.name not in ("build", "runs", "reconstructions", ".git"):
            (path / entry.name).symlink_to(entry)
    for split in ("train", "test"):
        (path / "digits" / split).mkdir(parents=True)
        for copy in range(100 if split == "train" else 1):
            for digit in (PRETRAINED / "digits").iterdir():
                (path / "digits" / split / f"{copy}-{digit.name}").symlink_to(digit)
    return path


def without_numbers(text: str) -> str:
    """Another processor rounds differently in the last digit of what diverged."""
    return re.sub(r"-?\d[\d.e+-]*", "#", text)


def run(command: str, directory: Path) -> subprocess.CompletedProcess:
    """Run a command as a user would in the activated environment."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    arguments = ["bash", "-c", command]
    return subprocess.run(arguments, cwd=directory, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("document", [*DOCUMENTS, "docs/bulk.md", "docs/training.md"])
def test_every_command_works_and_prints_what_it_says(checkout, document):
    for commands, text in examples(document):
        printed = ""
        for command in commands:
            if command in ("bash build.sh", FAULTS):
                continue
            result = run(command + (MOMENT if command == TRAIN else ""), checkout)
            expected = 4 if text.startswith("DIVERGE") and command == commands[-1] else 0
            assert result.returncode == expected, f"{command}: {result.stderr}"
            printed = result.stdout
        if text:
            told = without_numbers if text.startswith("DIVERGE") else str
            assert told(printed) == told(text)


def test_first_light():
    """bash build.sh, in the checkout itself: what it has done before it does not do again."""
    result = run("bash build.sh", ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("AGREE: cpp against gluon on 64 images")
    for picture in ("report/overview.png", "report/index.html", "cpp/00.png", "python/00.png", "run/losses.png"):
        assert (ROOT / "build/first-light" / picture).stat().st_size > 0
        assert picture.split("/")[0] in result.stderr


def test_the_python_example_gives_what_its_comments_say(monkeypatch):
    monkeypatch.chdir(ROOT)
    check_python_example("README.md", 3)


def test_the_summary_of_the_faults_is_that_of_the_whole_matrix():
    summary = (ROOT / "docs/faults.txt").read_text().split("\n\n")[0]
    assert summary.startswith("AS IT MUST BE: ")
    for document in DOCUMENTS:
        (shown,) = re.findall(r"<!-- matrix -->\n+```text\n(.*?)\n```", (ROOT / document).read_text(), re.DOTALL)
        assert shown == summary


def test_links_lead_somewhere():
    for name in (
        *DOCUMENTS,
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/bulk.md",
        "docs/training.md",
        "pretrained/README.md",
    ):
        document = ROOT / name
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{name}: {target}"


@pytest.mark.parametrize("name", ["mnist", "mnist-original", "cifar10"])
def test_the_numbers_of_a_pretrained_bundle_are_its_own(name):
    bundle = ROOT / "pretrained" / name
    rows = list(csv.DictReader((bundle / "losses.csv").open()))
    text = (ROOT / "pretrained/README.md").read_text()
    best = min(rows, key=lambda row: float(row["validation_mse"]))
    for which, row in (("best", best), ("newest", rows[-1])):
        numbers = {key: float(value) for key, value in row.items()}
        assert (
            f"| {which} | {row['epoch']} | {numbers['validation_mse']:.5f} | {numbers['test_mse']:.5f} "
            f"| {numbers['test_normalised_mse']:.4f} | {numbers['test_psnr']:.2f} dB | {numbers['test_ssim']:.3f} "
            f"| {numbers['test_perplexity']:.0f} | {row['test_codes_used']} |"
        ) in text


def test_the_settings_of_the_training_document_are_read(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/training.md").read_text(), re.DOTALL)
    (tmp_path / "faces.toml").write_text(text)
    config, run = settings("--config", tmp_path / "faces.toml")
    assert (config.model.num_embeddings, config.training.flip, run.num_workers) == (1024, True, 2)


def test_build_sh_help_and_usage(checkout):
    assert "bash build.sh [COMMAND]" in run("bash build.sh --help", ROOT).stdout
    assert run("bash build.sh bogus", ROOT).returncode == 2
