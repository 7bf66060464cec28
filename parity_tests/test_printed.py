"""What is printed of hostile names: they are shown, and can neither add a line nor make a document unreadable."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from conftest import PRETRAINED, run_cli_here, run_reconstruct

from vqvae_gluon.artifacts.bundle import GraphFiles
from vqvae_gluon.artifacts.trace import INDEX
from vqvae_gluon.compat import mx
from vqvae_gluon.errors import DIVERGED, DONE, REJECTED, one_line
from vqvae_gluon.parity.recorded import compare_traces
from vqvae_gluon.printed import json_text, plain

# MXNet's own reader of JSON takes no other escapes in the names of nodes; names of files and traces may hold all.
NODE, NODE_SHOWN = "x\nAGREE: all\r]]><script>alert(1)</script>", r"x\x0aAGREE: all\x0d]]><script>alert(1)</script>"
PLACE, PLACE_SHOWN = (
    "y\nAGREE\x1b[2J\x85\u2028\u202e\u2066\x07\ufffe",
    r"y\x0aAGREE\x1b[2J\x85\u2028\u202e\u2066\x07\ufffe",
)
LINES = ("\n", "\r", "\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e")
UNSEEN = set(map(chr, [*range(32), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A)])) - {"\n"}


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> tuple[GraphFiles, GraphFiles]:
    """A graph whose names are an attack, and another with a factor that differs."""
    directory = tmp_path_factory.mktemp("hostile") / PLACE
    directory.mkdir()
    value = mx.sym.broadcast_mul(mx.sym.var("data"), mx.sym.var("factor", shape=(1, 4)), name="HOSTILE")
    value = mx.sym.tanh(value, name="HOSTILE2")

    def export(factor: float) -> GraphFiles:
        files = GraphFiles(directory / f"{factor}-symbol.json", directory / f"{factor}-0000.params")
        files.symbol.write_text(value.tojson().replace("HOSTILE", json.dumps(NODE)[1:-1]))
        mx.nd.save(str(files.params), {"arg:factor": mx.nd.full((1, 4), factor)})
        return files

    return export(1.0), export(1.5)


def parity(exports, *words) -> tuple[int, str]:
    ours, theirs = exports
    sides = ("--symbol", ours.symbol, "--params", ours.params, "--candidate-symbol", theirs.symbol)
    result = run_cli_here(
        *("parity", *sides, "--candidate-params", theirs.params, "--candidate", "gluon", "--input", "data:2,4"), *words
    )
    assert not UNSEEN & set(result.stderr)
    return result.returncode, result.stdout


def test_a_name_cannot_add_a_line_to_the_report(exports):
    status, text = parity(exports)
    assert status == DIVERGED
    assert not UNSEEN & set(text)
    lines = text.splitlines()
    assert lines[0].startswith("DIVERGE: ") and not any(line.startswith("AGREE") for line in lines)
    assert f"graph/{NODE_SHOWN}" in text


def test_every_document_can_be_read_and_holds_the_names(exports, tmp_path):
    words = ("--json", "--junit", tmp_path / "junit.xml", "--html", tmp_path, "--repro", tmp_path / "r")
    status, text = parity(exports, *words)
    assert status == DIVERGED and text.isascii() and not UNSEEN & set(text)
    document = json.loads(text)
    assert document["first_divergent"]["node"] == NODE and PLACE in document["subject"]
    cases = ElementTree.parse(tmp_path / "junit.xml").findall("testcase")
    assert f"graph/{NODE_SHOWN}" in [case.get("name") for case in cases]
    page = (tmp_path / "index.html").read_text()
    assert not UNSEEN & set(page) and "<script>" not in page and "]]&gt;&lt;script&gt;" in page and PLACE_SHOWN in page
    readme = (tmp_path / "r" / "README.md").read_text()
    assert not UNSEEN & set(readme) and "\nAGREE" not in readme


def test_names_that_are_no_text_are_shown_in_every_document(exports, tmp_path):
    """A trace may call its runtime anything, and a directory's name may be any bytes."""
    ours, _ = exports
    reference, candidate = tmp_path / "gluon", tmp_path / "b\udce9"
    for runtime, path in (("gluon", reference), ("gluon-eager", candidate)):
        words = ("--symbol", ours.symbol, "--params", ours.params, "--input", "data:2,4", "--runtime", runtime)
        assert run_cli_here("parity", "record", *words, "--output", path).returncode == DONE
    document = json.loads((candidate / INDEX).read_text())
    (candidate / INDEX).write_text(json.dumps({**document, "runtime": "gluon\nAGREE\x1b"}))
    for reports in ((), ("--json",), ("--junit", tmp_path / "junit.xml"), ("--html", tmp_path / "page")):
        result = run_cli_here("parity", "compare", reference, candidate, *reports)
        assert result.returncode == DONE, result.stderr
        assert not UNSEEN & set(result.stdout)
        assert not [line for line in result.stdout.splitlines()[1:] if line.startswith("AGREE")]
        if reports == ("--json",):
            found = json.loads(result.stdout)
            assert (found["candidate"], found["candidate_subject"]) == ("gluon\nAGREE\x1b", f"{tmp_path}/b\ufffd")
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert suite.get("name") == r"parity of gluon\x0aAGREE\x1b with gluon"
    page = (tmp_path / "page" / "index.html").read_text()
    assert r"gluon\x0aAGREE\x1b" in page and r"b\xe9" in page
    report = compare_traces(reference, candidate)
    assert "\n" not in repr(report)
    assert r"gluon\x0aAGREE\x1b" in report._repr_html_()


def test_half_a_surrogate_pair_in_a_trace_is_refused(exports, tmp_path):
    (tmp_path / INDEX).write_text(json.dumps({"format": 1, "runtime": "\ud800", "environment": {}, "nodes": []}))
    result = run_cli_here("parity", "compare", tmp_path, tmp_path)
    assert (result.returncode, result.stdout) == (REJECTED, "")
    assert len(result.stderr.splitlines()) == 1 and r"\ud800" in result.stderr


def test_both_programs_show_names_alike(tmp_path):
    name = "a\nAGREE\x1b\x7f\u009b\u202e\u2067\u00e9.npy"
    missing = tmp_path / name
    shown = f"{tmp_path}/{one_line(name)}"
    ours = run_cli_here("encode", PRETRAINED, missing, "--output", tmp_path / "x.vq")
    theirs = run_reconstruct("--bundle", PRETRAINED, "--codes", tmp_path / "x.vq", missing)
    for result in (ours, theirs):
        assert shown in result.stderr and len(result.stderr.splitlines()) == 1
    out = tmp_path / "x\nAGREE"
    for result in (
        run_cli_here("encode", PRETRAINED, PRETRAINED / "digits" / "00.png", "--output", out),
        run_reconstruct("--bundle", PRETRAINED, "--codes", out, PRETRAINED / "digits" / "00.png"),
    ):
        assert result.stdout == rf"{tmp_path}/x\x0aAGREE/00.vq" + "\n"


def test_bytes_that_are_no_text_stay_for_who_reads_the_names_but_for_controls():
    assert one_line("\udce9\udc9b\ud800") == "\udce9" + r"\x9b\ud800"
    assert plain("\udce9\udc9b\ud800") == r"\xe9\x9b\ud800"
    assert json_text({"a": "\\ud800 \ud83d\ude00\ud83d"}) == '{\n  "a": "\\\\ud800 \\ud83d\\ude00\\ufffd"\n}'
    for end in LINES:
        assert len(one_line(f"a{end}b").splitlines()) == 1


def test_the_numbers_of_a_name_are_not_lost(tmp_path: Path):
    np.save(tmp_path / "x\n.npy", np.zeros((1, 28, 28), np.uint8))
    result = run_reconstruct("--bundle", PRETRAINED, "--json", "--output", tmp_path, tmp_path / "x\n.npy")
    assert json.loads(result.stdout)["images"][0]["source"].endswith("x\n.npy")
