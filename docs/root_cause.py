"""Every number and picture of docs/root-cause.md.

``python docs/root_cause.py`` measures them and writes them into the document, between its markers
``<!-- name -->...<!-- /name -->``; ``python docs/root_cause.py --check`` measures them and compares, and ends with 4 if
one is another. What is measured is in parity_tests/earlier/.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "parity_tests"))

import networks  # noqa: E402
from earlier.network import DIMENSIONS, SIDE, EarlierVQVAE, load  # noqa: E402
from earlier.replay import (  # noqa: E402
    COUNT,
    FOUND,
    OTHERS,
    RECONSTRUCTION,
    Bench,
    Outcome,
    batch_of_one,
    mean_squared_error,
    replay,
    untapped,
)
from earlier.training import MEASURED, Training  # noqa: E402

from vqvae_gluon.artifacts.binding import read_network  # noqa: E402
from vqvae_gluon.artifacts.bundle import graph_files  # noqa: E402
from vqvae_gluon.compat import mx  # noqa: E402
from vqvae_gluon.data import open_images  # noqa: E402
from vqvae_gluon.data.images import read_image, write_image  # noqa: E402
from vqvae_gluon.errors import DIVERGED, DONE  # noqa: E402
from vqvae_gluon.parity.harness import compare_bundles, compare_exports  # noqa: E402
from vqvae_gluon.parity.inputs import InputSpec, open_feed  # noqa: E402
from vqvae_gluon.parity.recorded import compare_traces, record_export  # noqa: E402
from vqvae_gluon.parity.relations import relate_drawing  # noqa: E402
from vqvae_gluon.parity.report import Report, to_text  # noqa: E402
from vqvae_gluon.runtimes import RUNTIMES  # noqa: E402

DOCUMENT = ROOT / "docs" / "root-cause.md"
PICTURES = ROOT / "docs" / "root-cause"
BUNDLE = ROOT / "pretrained" / "mnist"
_FUSION = ROOT / "parity_tests" / "earlier" / "fusion.py"
_ENGINES = ("executor", "cpp", "cpp-executor", "cpp-predict")
_DIGITS = 8  # in a picture
_PART = re.compile(r"<!-- ([\w-]+) -->(.*?)<!-- /\1 -->", re.DOTALL)
_MAX_GRAY = 2  # by which a pixel may be another on another processor


@dataclass
class Answer:
    """What was measured.

    Attributes:
        texts: the document's generated parts, by name.
        pictures: uint8 (H, W, 1), by the name of the file.
        outcomes: of the cases, by key.
    """

    texts: dict[str, str]
    pictures: dict[str, np.ndarray]
    outcomes: dict[str, Outcome]


def measure() -> Answer:
    """Replay everything."""
    with tempfile.TemporaryDirectory(prefix="root-cause.") as directory:
        bench = Bench(BUNDLE, Path(directory))
        cases = sorted((*FOUND, *OTHERS), key=lambda case: "trained" in case.reference)  # Which is still at work.
        outcomes = {case.key: replay(bench, case) for case in cases}
        answer = Answer({}, {}, outcomes)
        _add_engines(answer, bench)
        _add_reading(answer, bench)
        _add_drawing(answer, bench)
        _add_batch_norm(answer)
        _add_sign(answer, bench)
        _add_fusion(answer, bench)
        found = [_row(outcomes[case.key]) for case in FOUND]
        found.insert(2, _drawn_row(outcomes["right"]))
        found.append(_report_row("batch size baked into the quantizer's reshapes, on one digit", batch_of_one(bench)))
        others = [_row(outcomes[case.key]) for case in OTHERS]
        header = ("what happens", "codes equal", "MSE", "what comes out", "verdict", "first divergent node", "cause")
        answer.texts["found"], answer.texts["others"] = _table(header, found), _table(header, others)
        for key, outcome in outcomes.items():
            if not outcome.case.live:
                answer.pictures[f"{key}.png"] = _strip(outcome.reconstruction)
        return answer


# The parts of the document.


def _add_engines(answer: Answer, bench: Bench) -> None:
    reference = bench.reference("plain")
    expected = {name: untapped(reference, name) for name in ("codes", RECONSTRUCTION)}
    error = mean_squared_error(expected[RECONSTRUCTION], bench.data)
    answer.texts["mse"], answer.texts["black"] = f"{error:.4f}", f"{np.square(bench.data).mean():.4f}"
    rows = [("the earlier network", "gluon", "", "", f"{error:.4f}", "the reference")]
    files = graph_files(reference.path / "network", "graph")
    for engine in _ENGINES:
        trace = record_export(RUNTIMES[engine](), files, {"data": bench.data}, bench.fresh() / "trace")
        actual = {name: untapped(trace, name) for name in expected}
        equal = (actual["codes"] == expected["codes"]).mean()
        difference = abs(actual[RECONSTRUCTION] - expected[RECONSTRUCTION]).max()
        error = mean_squared_error(actual[RECONSTRUCTION], bench.data)
        verdict = compare_traces(reference.path, trace.path).verdict
        rows.append(("the earlier network", engine, f"{equal:.3f}", _difference(difference), f"{error:.4f}", verdict))
    for engine in _ENGINES[2:]:
        images = open_images("mnist", 1, COUNT)
        report = compare_bundles(RUNTIMES["gluon"](), RUNTIMES[engine](), BUNDLE, BUNDLE, images)
        assert report.codes is not None
        equal = report.codes.equal / report.codes.compared
        difference = report.outputs["reconstruction"].comparison.max_abs / 255
        rows.append(("our bundle", engine, f"{equal:.3f}", _difference(difference), "", report.verdict))
    header = ("network", "runtime", "codes equal", "largest difference, of 1", "MSE", "verdict")
    answer.texts["engines"] = _table(header, rows)


def _difference(value: float) -> str:
    """What is left within the bounds depends on the processor; that nothing is left does not."""
    return "0" if value == 0 else ("below 1e-6" if value < 1e-6 else f"{value:.2g}")


def _add_reading(answer: Answer, bench: Bench) -> None:
    outcome = answer.outcomes["pixel-stride"]
    side = bench.data.shape[2]
    first = np.add.outer(side * np.arange(side), 3 * np.arange(side))  # of the three bytes of every pixel
    answer.texts["behind"] = f"{(first >= side * side).sum()} of {side * side}"
    answer.texts["reach"] = str((first + 2 >= side * side).sum())
    answer.texts["stride-equal"], answer.texts["stride-mse"] = f"{outcome.codes_equal:.3f}", f"{outcome.mse:.4f}"
    answer.texts["stride-printed"] = _printed(outcome.report)
    answer.pictures["reading.png"] = np.concatenate(
        [
            _strip(values)
            for values in (
                bench.data,
                outcome.data,
                outcome.reconstruction,
                answer.outcomes["right"].reconstruction,
            )
        ]
    )


def _add_drawing(answer: Answer, bench: Bench) -> None:
    latent, drawn = _latent(answer.outcomes["right"], bench)
    answer.texts["saturated"] = f"{100 * (drawn == 255).mean():.0f} %"
    relation = relate_drawing(latent, drawn)
    answer.texts["drawn-printed"] = f"`{' + '.join(relation.causes)}: {relation.detail}`" if relation else "nothing"
    low, high = latent.min(), latent.max()
    answer.texts["range"] = f"{low:.2f} to {high:.2f}"
    side_by_side = latent.transpose(0, 2, 1, 3).reshape(drawn.shape)
    stretched = np.rint((side_by_side - low) / (high - low) * 255).astype(np.uint8)
    rows = []
    for digit in range(3):
        rows += [_enlarged(drawn[digit]), _enlarged(stretched[digit])]
    answer.pictures["latent.png"] = np.concatenate([np.pad(row, ((2, 2), (2, 2), (0, 0))) for row in rows])


def _latent(outcome: Outcome, bench: Bench) -> tuple[np.ndarray, np.ndarray]:
    """The latent, float32 (100, 16, 7, 7), and its pictures as its test drew them, uint8 (100, 7, 112, 1)."""
    latent = outcome.trace.get("graph", "quantized")
    drawn = bench.run_program("draw", latent, "uint8").reshape(COUNT, SIDE, DIMENSIONS * SIDE, 1)
    return latent, drawn


def _add_batch_norm(answer: Answer) -> None:
    trace, report = answer.outcomes["auxiliary"].trace, answer.outcomes["auxiliary"].report
    rows = []
    for name in ("encoder_conv0_fwd", "encoder_norm0_fwd", "encoder_relu0_fwd", "encoder_norm1_fwd", RECONSTRUCTION):
        values = trace.get("graph", name)
        equal = "yes" if ("graph", name) in report.nodes and report.nodes["graph", name].comparison.equal else "no"
        rows.append((f"`{name}`", equal, f"{100 * np.isnan(values).mean():.0f} %"))
    answer.texts["norm"] = _table(("node", "equal to Gluon's", "NaN"), rows)
    codes = np.unique(untapped(trace, "codes"))
    answer.texts["norm-codes"], answer.texts["norm-mse"] = str(len(codes)), f"{answer.outcomes['auxiliary'].mse:.4f}"


def _add_sign(answer: Answer, bench: Bench) -> None:
    trace = answer.outcomes["sign"].trace
    error = abs(trace.get("graph", "estimator") + trace.get("graph", "quantized")).max()
    answer.texts["sign-forward"] = f"{error:.1g}"
    rows = [(str(step), *_trained(bench, bench.right, step), *_trained(bench, bench.wrong, step)) for step in MEASURED]
    header = ("step", "right sign: MSE", "codes used", "wrong sign: MSE", "codes used")
    answer.texts["sign-training"] = _table(header, rows)


def _trained(bench: Bench, training: Training, step: int) -> tuple[str, str]:
    net = load(EarlierVQVAE(wrong_sign=training is bench.wrong), training.parameters(step))
    codes, reconstruction, *_ = net(mx.nd.array(bench.data))
    return f"{mean_squared_error(reconstruction.asnumpy(), bench.data):.3f}", str(len(np.unique(codes.asnumpy())))


def _add_fusion(answer: Answer, bench: Bench) -> None:
    source = _FUSION.read_text().partition('"""\n\n')[2].strip()
    result = subprocess.run([sys.executable, str(_FUSION)], capture_output=True, text=True, check=True)
    answer.texts["fusion-source"] = f"\n```python\n{source}\n```\n"
    answer.texts["fusion-printed"] = f"\n```text\n{result.stdout.strip()}\n```\n"
    files = networks.residual(bench.fresh())
    rows = []
    for engine in _ENGINES:
        feed = open_feed(read_network(files), [InputSpec("data", (4, 3, 32, 32))])
        report = compare_exports(RUNTIMES["gluon"](), RUNTIMES[engine](), files, files, feed)
        codes = report.outputs["codes"].comparison
        first = report.first_divergent
        off = "" if first is None else f"{first.comparison.max_abs:.2f}"
        wrong = f"{codes.differing} of {codes.elements}"
        rows.append((f"`{engine}`", report.verdict, _node(report), off, wrong, _cause(report)))
    header = ("runtime", "verdict", "first divergent node", "off by", "codes that differ", "cause")
    answer.texts["fusion"] = _table(header, rows)


# Rows and pictures.


def _row(outcome: Outcome) -> tuple[str, ...]:
    case = outcome.case
    if case.live:
        return (case.name, "varies", "varies", "", outcome.report.verdict, "varies", outcome.named)
    shown = f"![]({PICTURES.name}/{case.key}.png)"
    numbers = f"{outcome.codes_equal:.3f}", f"{outcome.mse:.4f}"
    return (case.name, *numbers, shown, outcome.report.verdict, _node(outcome.report), outcome.named)


def _drawn_row(outcome: Outcome) -> tuple[str, ...]:
    _, *row = _row(outcome)
    return ("latent drawn as `(2 - e) * 125.5`", *row)


def _report_row(name: str, report: Report) -> tuple[str, ...]:
    return (name, "none", "none", "", report.verdict, _node(report), _cause(report))


def _node(report: Report) -> str:
    first = report.first_divergent
    return f"`{first.comparison.name}`" if first is not None else ""


def _cause(report: Report) -> str:
    return report.cause.name if report.cause is not None else ""


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _printed(report: Report) -> str:
    """The lines of a report for the terminal that tell the verdict, the cause and the node."""
    lines = to_text(report).splitlines()
    told = [line for line in lines if re.match(r"DIVERGE|  cause|    remedy", line)]
    return "\n```text\n" + "\n".join(told) + "\n```\n"


def _strip(images: np.ndarray) -> np.ndarray:
    """The first digits side by side: float32 (N, 1, 28, 28), 0..1, to uint8 (H, W, 1)."""
    pixels = np.rint(np.clip(images[:_DIGITS], 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.concatenate(list(np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=96)), axis=1)


def _enlarged(picture: np.ndarray) -> np.ndarray:
    return picture.repeat(4, axis=0).repeat(4, axis=1)


# The document.


def fill(document: str, texts: dict[str, str]) -> str:
    """The document with its generated parts in their places.

    Raises:
        KeyError: a marker names nothing that is measured, or nothing names what is measured.
    """
    used = set()

    def put(match: re.Match) -> str:
        used.add(match[1])
        return f"<!-- {match[1]} -->{texts[match[1]]}<!-- /{match[1]} -->"

    filled = _PART.sub(put, document)
    if used != texts.keys():
        raise KeyError(f"the document has no place for {sorted(texts.keys() - used)}")
    return filled


def differences(answer: Answer) -> list[str]:
    """Where the document or its pictures say something else than what was measured."""
    text = DOCUMENT.read_text()
    fill(text, answer.texts)  # Every one of them has its place.
    found = [
        f"{DOCUMENT.name}: {name}: {told!r} is now {answer.texts[name]!r}"
        for name, told in _PART.findall(text)
        if told != answer.texts[name]
    ]
    for name, pixels in answer.pictures.items():
        shown = read_image(PICTURES / name, 1) if (PICTURES / name).exists() else None
        if shown is None or shown.shape != pixels.shape or np.abs(shown - pixels.astype(int)).max() > _MAX_GRAY:
            found.append(f"{name}: is another picture now")
    found += [f"{path.name}: nothing makes it" for path in PICTURES.iterdir() if path.name not in answer.pictures]
    return found


def main(arguments: Optional[list[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Measure what docs/root-cause.md tells, and write it there.")
    parser.add_argument("--check", action="store_true", help="compare, write nothing; end with 4 if something differs")
    check = parser.parse_args(arguments).check
    answer = measure()
    for outcome in answer.outcomes.values():
        if outcome.named != outcome.case.cause:
            print(f"{outcome.case.key}: named {outcome.named!r}, not {outcome.case.cause!r}", file=sys.stderr)
    if check:
        found = differences(answer)
        for line in found:
            print(line, file=sys.stderr)
        return DIVERGED if found else DONE
    PICTURES.mkdir(exist_ok=True)
    for name, pixels in answer.pictures.items():
        write_image(PICTURES / name, pixels)
    DOCUMENT.write_text(fill(DOCUMENT.read_text(), answer.texts))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
