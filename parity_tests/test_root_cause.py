"""docs/root-cause.md tells what its script measures, and the harness names what was done to the earlier network."""

import importlib
import re
import shutil
import sys

import pytest
from conftest import ROOT
from earlier.replay import FOUND, OTHERS

from vqvae_gluon.errors import DIVERGED, DONE

sys.path.insert(0, str(ROOT / "docs"))
root_cause = importlib.import_module("root_cause")  # It is no module of a package.


@pytest.fixture(scope="module")
def answer():
    return root_cause.measure()


@pytest.fixture
def measured(answer, monkeypatch):
    """The script, which need not measure again what was measured once."""
    monkeypatch.setattr(root_cause, "measure", lambda: answer)
    return root_cause


def test_every_number_and_every_picture_is_measured(measured, capsys):
    assert measured.main(["--check"]) == DONE, capsys.readouterr().err


def test_another_number_or_picture_is_found(measured, monkeypatch, tmp_path, capsys):
    document, pictures = tmp_path / "root-cause.md", tmp_path / "root-cause"
    monkeypatch.setattr(root_cause, "DOCUMENT", document)
    monkeypatch.setattr(root_cause, "PICTURES", pictures)
    shutil.copytree(ROOT / "docs" / "root-cause", pictures)
    text = (ROOT / "docs" / "root-cause.md").read_text()
    document.write_text(re.sub(r"(<!-- mse -->0\.)\d", r"\g<1>9", text))
    shutil.copyfile(pictures / "right.png", pictures / "inverted.png")
    assert measured.main(["--check"]) == DIVERGED
    lines = capsys.readouterr().err.splitlines()
    assert sum("mse" in line or "inverted.png" in line for line in lines) == 2
    assert measured.main([]) == DONE
    assert document.read_text() == text
    assert measured.main(["--check"]) == DONE


def test_no_number_stands_outside_what_is_measured():
    text = root_cause.DOCUMENT.read_text()
    written = re.sub(r"<!-- ([\w-]+) -->.*?<!-- /\1 -->|`[^`]*`", "", text, flags=re.DOTALL)
    assert re.findall(r"\d+\.\d+(?!\.)\b|\d+ %", written.replace("MXNet 1.9.1", "")) == []


@pytest.mark.parametrize("case", [*FOUND, *OTHERS], ids=lambda case: case.key)
def test_the_harness_names_what_was_done(answer, case):
    assert answer.outcomes[case.key].named == case.cause
