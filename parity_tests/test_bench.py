"""``vqvae-gluon bench``: real processes, timed in turns, and refused if they compute something else."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
from conftest import PRETRAINED, run_cli

from vqvae_gluon.artifacts.bundle import open_bundle
from vqvae_gluon.bench import inference, run
from vqvae_gluon.bench.peers import PEERS
from vqvae_gluon.bench.plan import Bench, make_settings
from vqvae_gluon.bench.process import environment
from vqvae_gluon.bench.results import Row
from vqvae_gluon.cli import benchmark
from vqvae_gluon.errors import DONE, USAGE
from vqvae_gluon.files import digest
from vqvae_gluon.kernels import why_not_fused

OURS = {"cpp", "cpp-fused", "gluon"}


def missing(package):
    return importlib.util.find_spec(package) is None


with_peers = pytest.mark.skipif(
    missing("onnxruntime") or missing("onnx") or missing("torch"), reason="the extra bench is not there"
)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The results of a short run of what belongs to the project itself."""
    output = tmp_path_factory.mktemp("bench")
    result = run_cli(
        "bench", "--quick", "--json", "--output", output, "--only", "inference", "startup", "--bundle", "mnist",
        "--batch", "1", "4", "--peers", *sorted(OURS), "--rounds", "1",
    )  # fmt: skip
    assert result.returncode == DONE, result.stderr
    return json.loads(result.stdout), output


def test_every_row_has_what_is_promised(quick):
    found, _ = quick
    assert found["machine"]["threads"] >= 1
    rows = [row for row in found["rows"] if row["work"] == "reconstruct mnist"]
    assert {(row["batch"], row["runtime"]) for row in rows} == {(batch, name) for batch in (1, 4) for name in OURS}
    for row in rows:
        assert row["precision"] == "float32" and row["peak_rss_mib"] > 20
        assert row["images_per_second"] == pytest.approx(row["batch"] / row["milliseconds"] * 1e3)


def test_notes_say_when_mxnets_operators_run_alone(quick):
    found, output = quick
    note = "cpp-fused runs MXNet's own operators alone, no fused ones"
    assert (note in (output / "RESULTS.md").read_text()) == (note in " ".join(found["notes"])) == bool(why_not_fused())


def test_ratios_are_those_of_the_rows(quick):
    found, _ = quick
    rate = {
        (row["batch"], row["runtime"]): row["images_per_second"]
        for row in found["rows"]
        if "reconstruct" in row["work"]
    }
    for batch in (1, 4):
        name = f"reconstruct mnist, batch {batch}: images a second, cpp-fused over gluon, float32"
        assert found["ratios"][name] == pytest.approx(rate[batch, "cpp-fused"] / rate[batch, "gluon"])


def test_report_is_written_with_its_command(quick):
    _, output = quick
    page = (output / "RESULTS.md").read_text()
    assert "vqvae-gluon bench --only inference startup" in page and "cpp-fused" in page
    assert str(output) not in page


def test_what_was_measured_is_kept_and_gone_on_with(quick, tmp_path):
    found, output = quick
    shutil.copytree(output, tmp_path / "again")
    results = json.loads((tmp_path / "again/results.json").read_text())
    result = run_cli(
        "bench", "--quick", "--json", "--output", tmp_path / "again", "--resume", "--only", "inference", "startup",
        "--bundle", "mnist", "--batch", "1", "4", "--peers", *sorted(OURS), "--rounds", "1",
    )  # fmt: skip
    assert result.returncode == DONE, result.stderr
    assert json.loads(result.stdout)["rows"] == found["rows"] and results


def test_what_was_measured_before_an_interruption_is_kept(monkeypatch, tmp_path):
    row = Row("reconstruct mnist", 1, "cpp", "float32")

    def interrupted(tick):
        raise KeyboardInterrupt

    parts = {"inference mnist 1": lambda tick: [row], "inference mnist 8": interrupted}
    monkeypatch.setattr(run, "_parts", lambda bench: parts)
    settings = make_settings(["inference"], ["mnist"], [1, 8], ["cpp"], 1, 1, quick=True)
    results, whole = run.run(settings, tmp_path, False, lambda _: None)
    assert not whole and results.parts == {"inference mnist 1": [row]}
    assert json.loads((tmp_path / "results.json").read_text())["rows"][0]["runtime"] == "cpp"
    assert results.notes == ["interrupted in inference mnist 8; go on with --resume"]


@pytest.mark.parametrize("runtime", ["cpp", pytest.param("onnxruntime", marks=with_peers)])
def test_a_peer_that_computes_something_else_is_an_error_and_no_time(runtime, monkeypatch, tmp_path):
    """Planted: the reference's network has another codebook than the one that is timed."""
    bundle = tmp_path / "mnist"
    shutil.copytree(PRETRAINED, bundle, ignore=shutil.ignore_patterns("digits"))
    shutil.copytree(PRETRAINED / "digits", bundle / "digits")
    data = bytearray((bundle / "decoder-0000.params").read_bytes())
    data[4000:4004] = np.float32(3.0).tobytes()
    (bundle / "decoder-0000.params").write_bytes(data)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["decoder-0000.params"]["sha256"] = digest(bundle / "decoder-0000.params")
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    open_bundle(bundle)
    bench, wrong = (
        Bench(make_settings(["inference"], [name], [2], [runtime], 1, 1, quick=True), tmp_path, lambda _: None)
        for name in ("mnist", str(bundle))
    )
    serving = inference.serving

    def planted(bench, subject, peer, precision, inputs, name):
        return serving(wrong, wrong.subjects[0], peer, precision, inputs, name)

    monkeypatch.setattr(inference, "serving", planted)
    row = inference.measure(bench, bench.subjects[0], 2, lambda: None)[0]
    assert row.codes_equal == 1 and row.pixels_off is not None and row.pixels_off > 1
    assert row.precision == "float32" and row.error and row.milliseconds is None


@with_peers
def test_the_peers_compute_the_same_network(tmp_path):
    result = run_cli(
        "bench", "--quick", "--json", "--only", "inference", "--bundle", "mnist", "--batch", "2", "--rounds", "1",
        "--peers", "onnxruntime", "torch",
    )  # fmt: skip
    assert result.returncode == DONE, result.stderr
    rows = json.loads(result.stdout)["rows"]
    assert {row["runtime"] for row in rows} == {"onnxruntime", "torch"} and not any(row.get("error") for row in rows)


def test_a_missing_peer_is_told_with_its_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    notes: list[str] = []
    settings = make_settings(["inference"], ["mnist"], [1], ["cpp", "onnxruntime"], 1, 1, quick=True)
    assert [peer.runtime for peer in Bench(settings, tmp_path, notes.append).peers()] == ["cpp"]
    remedy = "install with: pip install -e '.[bench]'"
    assert notes == [f"onnxruntime is left out: onnxruntime and onnx not installed; {remedy}"]


def test_the_command_names_what_there_is():
    assert set(benchmark.PEERS) == {peer.runtime for peer in PEERS}


def test_all_peers_have_the_same_threads():
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    assert {environment(3)[name] for name in names} == {"3"}


@pytest.mark.parametrize(
    "words",
    [
        ["--only", "nothing"],
        ["--peers", "caffe"],
        ["--threads", "100000"],
        ["--batch", "0"],
        ["--quick", "--resume"],
    ],
)
def test_what_cannot_be_asked_for_is_a_usage_error(words):
    assert run_cli("bench", *words).returncode == USAGE
