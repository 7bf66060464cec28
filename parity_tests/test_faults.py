"""The harness proves itself: planted faults are caught and named, what is harmless passes (`vqvae-gluon faults`)."""

import dataclasses
import json
import os
import signal
import time

import numpy as np
import pytest
from conftest import PRETRAINED, run_cli, run_cli_here

from vqvae_gluon import workers
from vqvae_gluon.artifacts.trace import open_trace
from vqvae_gluon.parity import causes, changes, matrix, plant
from vqvae_gluon.parity.controls import controls
from vqvae_gluon.parity.faults import Case, cases
from vqvae_gluon.parity.matrix import BOUNDS, Fault, Harmless, Judged, Matrix
from vqvae_gluon.parity.matrix_report import to_text, write_html
from vqvae_gluon.parity.recorded import compare_traces
from vqvae_gluon.parity.specimens import EXPORTS, Specimen, bundle_specimen, export_specimen
from vqvae_gluon.runtimes.gluon import GluonRuntime

FAULT_KEYS = {"name", "model", "caught", "node_expected", "node_named", "cause_expected", "cause_named"}
CONTROL_KEYS = {"name", "model", "passed"}


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    specimen = bundle_specimen("mnist", PRETRAINED, PRETRAINED / "digits", tmp_path_factory.mktemp("mnist") / "mnist")
    specimen.record(GluonRuntime(), specimen.reference)
    return specimen


def test_of_every_kind_of_fault_one_is_caught_and_named_and_every_control_passes(tmp_path):
    start = time.perf_counter()
    result = run_cli("faults", "--fast", "--json", "--html", tmp_path)
    found = json.loads(result.stdout)
    summary = found["summary"]
    missed = [row for row in found["faults"] if not (row["caught"] and row["black_box"]["caught"])]
    failed = [row for row in found["controls"] if not row["passed"]]
    assert (missed, failed) == ([], [])
    assert all(summary[rate] >= bound for rate, bound in BOUNDS.items()), summary
    assert summary["kinds"] == summary["cases"] >= 40
    assert result.returncode == 0
    assert all(row.keys() >= FAULT_KEYS for row in found["faults"])
    assert all(row.keys() >= CONTROL_KEYS for row in found["controls"])
    assert summary["seconds"] <= time.perf_counter() - start
    page = (tmp_path / "index.html").read_text()
    assert all(row["kind"] in page for row in found["faults"])
    assert "://" not in page, "it needs nothing from elsewhere"


def test_the_whole_matrix_is_as_large_as_it_should_be(tmp_path, mnist):
    """Without the preset cifar10, whose bundle the command line makes."""
    specimens = [mnist, *(export_specimen(name, tmp_path / name) for name in EXPORTS)]
    planted = [case for specimen in specimens for case in cases(specimen)]
    assert len({case.name for case in planted}) == len(planted) >= 300
    assert len({case.kind for case in planted}) >= 40
    assert sum(len(controls(specimen)) for specimen in specimens) >= 75  # and 25 more in cifar10
    for case in planted:
        assert set(case.cause.split(" + ")) <= causes.REMEDIES.keys(), case.name
    for specimen in specimens:
        places = {case.layer.partition(",")[0] for case in planted if case.model == specimen.name}
        assert {"first", "middle", "last"} <= places


def test_a_program_without_a_fault_leaves_the_reference_s_trace(mnist, tmp_path):
    trace = plant.deployed(mnist).record(tmp_path / "trace")
    expected = {node.key: node.sha256 for node in open_trace(mnist.reference).nodes}
    assert {node.key: node.sha256 for node in trace.nodes} == expected
    assert compare_traces(mnist.reference, tmp_path / "trace").verdict == "agree"


def test_a_fault_first_acts_where_it_is_planted(mnist, tmp_path):
    """What lies before it is the reference's, bit for bit."""
    found = {case.name: case for case in cases(mnist)}
    reference = open_trace(mnist.reference)
    order = [node.key for node in reference.nodes if not node.stage.startswith("output")]
    for i, name in enumerate(
        (
            "mnist: kernel flipped: middle, decoder/decoder_upconv0_fwd, in memory",
            "mnist: latent sign: before the distances",
            "mnist: another activation: last, decoder/decoder_sigmoid_fwd, in the file",
        )
    ):
        program = plant.deployed(mnist)
        found[name].plant(program)
        trace = program.record(tmp_path / str(i))
        theirs = {node.key: node.sha256 for node in trace.nodes}
        changed = [key for key in order if theirs[key] != reference.by_key()[key].sha256]
        assert "/".join(changed[0]) == found[name].node


def test_what_changes_nothing_is_not_counted(mnist, tmp_path):
    harmless = Case("none", "mnist", "nowhere", "encoder/encoder_conv0_fwd", "scale", plant.both())
    fault = matrix._judge_fault(mnist, harmless, tmp_path, time.perf_counter())
    assert fault.dropped == "it changes nothing"


def test_a_fault_in_memory_leaves_the_file_as_it_was(mnist):
    for in_file in (True, False):
        program = plant.deployed(mnist)
        plant.changed(["encoder"], ["arg:encoder_conv0_weight"], np.negative, in_file)(program)
        memory, disk = (
            place["encoder"].parameters["arg:encoder_conv0_weight"] for place in (program.memory, program.disk)
        )
        assert np.array_equal(memory, disk) == in_file


# The numbers of faults.


def test_bfloat16_rounds_to_the_nearest_and_ties_to_even():
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -3.14159274], np.float32)
    expected = np.array([1.0, 1.0, 1 + 2**-6, 1 + 2**-7, -3.140625], np.float32)
    assert np.array_equal(changes.bfloat16(values), expected)


def test_pixels_read_three_bytes_apart_from_rows_that_are_not():
    """The earlier project's way: address 28j+3k, which runs past the end of a gray image."""
    images = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(2, 28, 28, 1)
    memory = np.concatenate([images.ravel(), np.zeros(100, np.uint8)])
    found = changes.strided(images, pixel=3)
    assert all(
        found[n, j, k, 0] == memory[784 * n + 28 * j + 3 * k] for n in (0, 1) for j in (0, 5, 27) for k in (0, 9, 27)
    )


# The judgement of the matrix itself.

RIGHT = Judged(True, "graph/a", "scale")


def matrix_of(count: int, **wrong) -> Matrix:
    fault = Fault("x", "net", "kind", "first", "graph/a", "scale", RIGHT, RIGHT)
    found = Matrix([fault] * count, [Harmless("cpp", "net", True)])
    if wrong:
        found.faults[0] = dataclasses.replace(fault, **wrong)
    return found


def test_the_matrix_passes_only_if_all_is_caught_and_the_rates_hold():
    assert matrix_of(100).passed
    assert not matrix_of(100, visible=dataclasses.replace(RIGHT, caught=False)).passed
    assert not matrix_of(100, black_box=dataclasses.replace(RIGHT, caught=False)).passed
    assert matrix_of(100, visible=dataclasses.replace(RIGHT, cause_named="eps", node_named="graph/b")).passed
    assert not matrix_of(9, visible=dataclasses.replace(RIGHT, cause_named="eps")).passed
    assert not matrix_of(19, visible=dataclasses.replace(RIGHT, node_named="graph/b")).passed
    assert not matrix_of(3, black_box=dataclasses.replace(RIGHT, cause_named="eps")).passed
    failed = matrix_of(100)
    failed.controls.append(Harmless("executor", "net", False, "diverge"))
    assert not failed.passed


def test_a_miss_is_told_and_ends_with_4(monkeypatch, tmp_path):
    missed = matrix_of(20, visible=Judged(error="died"), name="residual: eps: first", kind="<eps>")
    monkeypatch.setattr(matrix, "specimens", lambda *_: [])
    monkeypatch.setattr(matrix, "judge_all", lambda *_: missed)
    result = run_cli_here("faults", "--html", tmp_path)
    assert result.returncode == 4
    assert result.stdout.startswith("FAIL: 19 of 20 planted faults")
    assert "residual: eps: first\n    not caught: died" in result.stdout
    assert "missed" in (tmp_path / "index.html").read_text()


def test_names_on_the_page_are_text(tmp_path):
    page = write_html(matrix_of(2, kind="<b>kind</b>", layer="<script>"), tmp_path).read_text()
    assert "&lt;b&gt;kind" in page
    assert "<script>" not in page.replace(json.dumps("<script>"), "")


def test_text_has_a_row_for_every_kind():
    text = to_text(matrix_of(4, kind="other"))
    assert [line.split()[0] for line in text.splitlines() if line.split()[1:] == ["3", "3", "3", "3", "3"]] == ["kind"]
    assert [line.split()[0] for line in text.splitlines() if line.split()[1:] == ["1", "1", "1", "1", "1"]] == ["other"]


@pytest.mark.parametrize("words", [["--model", "vgg"], ["--kind", "vapours", "--model", "residual"], ["--jobs", "0"]])
def test_unknown_words_are_refused(words):
    result = run_cli("faults", *words)
    assert (result.returncode, result.stdout) == (2, "")
    assert words[0] in result.stderr


# Processes of their own.


def work(task: str) -> tuple[str, str]:
    if task == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "raises":
        raise ValueError(task)
    if task == "hangs":
        time.sleep(60)
    return task, os.environ["OMP_NUM_THREADS"]


def test_a_task_that_dies_hangs_or_fails_does_not_end_the_others(monkeypatch):
    monkeypatch.setattr(workers, "_TIMEOUT", 20)
    before = os.environ.get("OMP_NUM_THREADS")
    tasks = ["one", "dies", "two", "raises", "three", "hangs", "four"]
    found = dict(workers.run(work, tasks, jobs=2))
    assert {task: found[task] for task in ("one", "two", "three", "four")} == {
        task: (task, "1") for task in ("one", "two", "three", "four")
    }
    assert "its process ended with status -9" in str(found["dies"])
    assert "ValueError: raises" in str(found["raises"])
    assert "did not end within 20 seconds" in str(found["hangs"])
    assert os.environ.get("OMP_NUM_THREADS") == before
