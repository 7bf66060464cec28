"""The documents tell the truth: every ``bash`` and ``python`` block in them is run, and prints what they say.

What takes hours, files that a user has, or several machines is in a block of ``sh``.
"""

import csv
import re
import subprocess

import pytest
from conftest import COMMANDS, PRETRAINED, ROOT, bash_blocks, run_cli, run_reconstruct, run_shell, settings

from vqvae_gluon.cli.words import RUNTIME_NAMES

README = (ROOT / "README.md").read_text()
DOCUMENTS = ["README.md", "docs/parity.md"]
TRACKED = subprocess.run(
    ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.splitlines()

OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
# Of the programs that documents name: cmake, dask, make, pip, tensorboard, and the scripts of this repository.
FOREIGN_OPTIONS = {"--build", "--install", "--prefix", "--strip", "--nthreads", "--nworkers", "--silent", "--logdir"}
FOREIGN_OPTIONS |= {"--check", "--program", "--only", "--first", "--keep", "--local-directory", "--require-hashes"}

# What is running while this is read (test_house.py shows that these lead here), what test_first_light runs, and what
# takes many minutes: test_faults.py runs a subset of it.
RUNNING = {"bash build.sh test", "source .venv/bin/activate", "pytest parity_tests"}
NOT_RUN = {*RUNNING, "bash build.sh", "vqvae-gluon faults"}

# A full schedule takes hours. The command is run as it is written, on a schedule of a moment.
TRAIN = "vqvae-gluon train --preset mnist --output runs/mnist"
MOMENT = " --epochs 1 --batch-size 100 --dataset images --data digits --kmeans-images 100"


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


@pytest.mark.parametrize("document", [name for name in TRACKED if bash_blocks(name)])
def test_every_command_works_and_prints_what_it_says(checkout, document):
    for commands, text in bash_blocks(document):
        printed = ""
        for command in commands:
            if command in NOT_RUN:
                continue
            result = run_shell(command + (MOMENT if command == TRAIN else ""), checkout)
            expected = 4 if text.startswith("DIVERGE") and command == commands[-1] else 0
            assert result.returncode == expected, f"{command}: {result.stderr}"
            printed = result.stdout
        if text:
            told = without_numbers if text.startswith("DIVERGE") else str
            assert told(printed) == told(text)


def test_first_light():
    """bash build.sh, in the checkout itself: what it has done before it does not do again."""
    result = run_shell("bash build.sh", ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("AGREE: cpp against gluon on 64 images")
    for picture in ("report/overview.png", "report/index.html", "cpp/00.png", "python/00.png", "run/losses.png"):
        assert (ROOT / "build/first-light" / picture).stat().st_size > 0
        assert picture.split("/")[0] in result.stderr


def python_blocks(document: str) -> list[tuple[str, str]]:
    """Every Python block, and the text block that follows it at once: what it prints."""
    return re.findall(r"```python\n(.*?)```\n+(?:```text\n(.*?)```)?", (ROOT / document).read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def prepared(checkout):
    """The checkout with what the documents' commands make before their Python: an export, codes, an installed tree."""
    for command in (
        "python parity_tests/networks.py . && test -e net-symbol.json -a -e net-0000.params",
        "vqvae-gluon encode-folder pretrained/mnist pretrained/mnist/digits --output codes",
        "cmake --install cpp_bindings/build --prefix dist",
    ):
        result = run_shell(command, checkout)
        assert result.returncode == 0, result.stderr
    return checkout


@pytest.mark.parametrize("document", [name for name in TRACKED if "```python\n" in (ROOT / name).read_text()])
def test_the_python_of_every_document_runs_and_gives_what_it_says(prepared, document):
    """The blocks of a document run in order, in one process. What one makes has the type and shape that its comment
    says: ``name = ...  # uint8 (1, 28, 28, 1)``."""
    blocks = python_blocks(document)
    script = ["import numpy as np"]
    for number, (code, _) in enumerate(blocks):
        script.append(f"{code}\nprint('end of block', {number})")
        for name, dtype, shape in re.findall(r"^(\w+) = .*  # (\w+) (\(.*\))$", code, re.MULTILINE):
            script.append(f"assert ({name}.dtype, {name}.shape) == (np.dtype({dtype!r}), {shape}), {name!r}")
    (prepared / "blocks.py").write_text("\n".join(script))
    result = run_shell("python blocks.py", prepared)
    assert result.returncode == 0, result.stderr
    printed = re.split(r"end of block \d+\n", result.stdout)
    for (_, text), found in zip(blocks, printed):
        assert not text or found == text


def test_no_document_imports_mxnet_before_compat():
    """MXNet 1.9.1 cannot be imported beside the NumPy that is pinned, unless vqvae_gluon.compat comes first."""
    for document in TRACKED:
        for code, _ in python_blocks(document):
            before = re.split(r"^\s*(?:import|from) mxnet\b", code, flags=re.MULTILINE)
            assert len(before) == 1 or "import vqvae_gluon.compat" in before[0], document


def test_the_runtimes_are_counted_nowhere_and_listed_once():
    """A number would be wrong with the next one."""
    table = (ROOT / "docs/parity.md").read_text().split("\n## Runtimes\n\n")[1].split("\n\n")[0]
    listed = [name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert sorted(listed) == sorted(RUNTIME_NAMES)
    for document in TRACKED:
        number = r"\b(?:three|four|five|six|seven|eight|nine|ten|eleven|twelve|\d+) (?:\w+ )?runtimes\b"
        assert not re.search(number, (ROOT / document).read_text()), document


def test_the_summary_of_the_faults_is_that_of_the_whole_matrix():
    summary = (ROOT / "docs/faults.txt").read_text().split("\n\n")[0]
    assert summary.startswith("PASS: ")
    for document in DOCUMENTS:
        (shown,) = re.findall(r"<!-- matrix -->\n+```text\n(.*?)\n```", (ROOT / document).read_text(), re.DOTALL)
        assert shown == summary


def test_the_options_in_the_documents_exist():
    known = {*FOREIGN_OPTIONS}
    for command in (*COMMANDS, "parity record", "parity compare"):
        known |= set(OPTION.findall(run_cli(*command.split(), "--help").stdout))
    known |= set(OPTION.findall(run_reconstruct("--help").stdout))
    for document in TRACKED:
        assert set(OPTION.findall((ROOT / document).read_text())) <= known, document


@pytest.mark.parametrize("document", TRACKED)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^):]+)\)", (ROOT / document).read_text()):
        path, _, heading = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings], target


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
    assert "bash build.sh [COMMAND]" in run_shell("bash build.sh --help", ROOT).stdout
    assert run_shell("bash build.sh bogus", ROOT).returncode == 2
