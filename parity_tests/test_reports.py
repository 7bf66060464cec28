"""Reports in Python: they print what the commands print, and a notebook shows their summary."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PRETRAINED, alter_parameters, run_cli

from vqvae_gluon.artifacts.bundle import GraphFiles, graph_files, open_bundle
from vqvae_gluon.compat import mx
from vqvae_gluon.data import open_images
from vqvae_gluon.errors import DIVERGED, DONE
from vqvae_gluon.parity import compare_bundles, compare_exports
from vqvae_gluon.parity.inputs import Feed
from vqvae_gluon.parity.precision import compare_precisions
from vqvae_gluon.runtimes.cpp import CppRuntime
from vqvae_gluon.runtimes.gluon import GluonRuntime
from vqvae_gluon.runtimes.quantization import quantize_bundle

DIGITS = PRETRAINED / "digits"
COUNT = 8
HOSTILE = """</td><script>alert(1)</script><img src="http://localhost/x" onerror='alert(2)'>&amp;"""


class Shown(HTMLParser):
    """What a notebook makes of HTML: its elements, their attributes, and its text by the element around it."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.cells: list[str] = []
        self._open: list[str] = []
        self.text = ""
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open and self._open[-1] == "td":
            self.cells.append(data)


@pytest.fixture(scope="module")
def altered(tmp_path_factory) -> Path:
    """The pretrained bundle with one weight changed."""
    path = tmp_path_factory.mktemp("altered") / "bundle"
    shutil.copytree(PRETRAINED, path, ignore=shutil.ignore_patterns("*.png", "*.npz", "digits"))

    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["arg:encoder_latent_weight"][3, 5, 0, 0] += 0.5

    alter_parameters(graph_files(path, "encoder").params, change)
    return path


@pytest.fixture(scope="module")
def quantized(tmp_path_factory) -> Path:
    """The pretrained bundle in bfloat16."""
    path = tmp_path_factory.mktemp("quantized") / "bundle"
    return quantize_bundle(open_bundle(PRETRAINED), path, "bfloat16").path


@pytest.fixture(scope="module")
def reports(altered, quantized) -> dict[str, Any]:
    """A report of every kind, with the bundle that was judged."""
    sides, images = (GluonRuntime(), CppRuntime()), open_images(str(DIGITS), 1, COUNT)
    return {
        "agree": (compare_bundles(*sides, PRETRAINED, PRETRAINED, images), PRETRAINED),
        "diverge": (compare_bundles(*sides, PRETRAINED, altered, images), altered),
        "precision": (compare_precisions(*sides, PRETRAINED, quantized, images), quantized),
    }


@pytest.mark.parametrize("name", ["agree", "diverge", "precision"])
def test_a_report_prints_what_the_command_prints(reports, name):
    report, bundle = reports[name]
    options = ["--candidate-bundle", bundle, "--candidate", "cpp", "--data", DIGITS, "--count", COUNT]
    status = DIVERGED if name == "diverge" else DONE
    text, values = run_cli("parity", PRETRAINED, *options), run_cli("parity", PRETRAINED, *options, "--json")
    assert (text.returncode, values.returncode) == (status, status), text.stderr
    assert f"{report}\n" == text.stdout
    assert json.loads(json.dumps(report.to_json(), allow_nan=False)) == json.loads(values.stdout)
    assert repr(report) == f"<{type(report).__name__} {text.stdout.splitlines()[0]}>"


@pytest.mark.parametrize("name", ["agree", "diverge", "precision"])
def test_a_notebook_shows_the_verdict_and_what_to_look_at(reports, name):
    report, _ = reports[name]
    shown, values = Shown(report._repr_html_()), report.to_json()
    assert shown.text.split()[0] == values["verdict"].upper()
    assert ("Cause:" in shown.text) == (values["cause"] is not None)
    if name == "diverge":
        cause, first = values["cause"], values["first_divergent"]
        for words in (cause["name"], cause["evidence"], values["causes"][0]["remedy"]):
            assert words in shown.text
        assert f"First divergence: {first['stage']}/{first['node']}" in shown.text
        assert f"{first['stage']}/{first['node']}" in shown.cells
    if name == "precision":
        assert [cell for cell in shown.cells if "/" in cell] == [f"{stage}/{layer}" for stage, layer in report.layers]
    else:
        assert {f"output/{output}" for output in values["outputs"]} <= set(shown.cells)


def test_the_summary_needs_nothing_else_and_names_are_text(tmp_path):
    """In a notebook that is trusted, a script would run."""
    network = mx.sym.broadcast_mul(mx.sym.var("data"), mx.sym.var("factor", shape=(1, 4)), name=HOSTILE)

    def export(factor: float) -> GraphFiles:
        files = GraphFiles(tmp_path / f"{factor}-symbol.json", tmp_path / f"{factor}-0000.params")
        files.symbol.write_text(network.tojson())
        mx.nd.save(str(files.params), {"arg:factor": mx.nd.array(np.full((1, 4), factor, np.float32))})
        return files

    feed = Feed(HOSTILE, {"data": np.ones((2, 4), np.float32)}, 2, [])
    shown = Shown(compare_exports(GluonRuntime(), GluonRuntime(), export(1.0), export(2.0), feed)._repr_html_())
    assert f"graph/{HOSTILE}" in shown.text
    assert shown.tags <= {"div", "p", "b", "code", "table", "thead", "tbody", "tr", "th", "td"}
    assert shown.attributes <= {"style", "scope"}


def test_a_comparison_that_failed_is_shown_with_the_reason(bundle, encoder):
    encoder.symbol.write_text("{}")
    images = open_images(str(DIGITS), 1, 1)
    report = compare_bundles(GluonRuntime(), CppRuntime(), PRETRAINED, bundle, images)
    assert str(report).startswith("INVALID: ")
    assert Shown(report._repr_html_()).text.split()[0] == "INVALID"
    assert str(report.failure) in Shown(report._repr_html_()).text
