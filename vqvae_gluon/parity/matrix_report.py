"""The fault matrix as text for a terminal, and as a page that needs no other file."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vqvae_gluon import __version__
from vqvae_gluon.files import atomic_write
from vqvae_gluon.parity.markup import json_block, templates
from vqvae_gluon.parity.matrix import BOUNDS, Fault, Matrix
from vqvae_gluon.printed import joined

_RATES = {
    "right_node": "the right node named",
    "right_cause": "the right cause named",
    "right_cause_black_box": "the right cause named as a black box",
}
# Beside every colour stands a word and a mark.
RIGHT, PARTLY, MISSED = "right", "partly", "missed"
_MARKS = {RIGHT: "\u2713", PARTLY: "\u2248", MISSED: "\u2717"}


@dataclass(frozen=True)
class Cell:
    """The faults of one kind in one network."""

    faults: list[Fault]

    @property
    def state(self) -> str:
        """The worst of them."""
        states = [state_of(fault) for fault in self.faults]
        return next((state for state in (MISSED, PARTLY) if state in states), RIGHT)

    @property
    def mark(self) -> str:
        return _MARKS[self.state]

    @property
    def planted(self) -> int:
        return len(self.faults)

    @property
    def right(self) -> int:
        """How many were caught with their node and their cause, with the files visible and as a black box."""
        return sum(state_of(fault) == RIGHT for fault in self.faults)


def state_of(fault: Fault) -> str:
    """Whether a fault was caught with its node and its cause, caught alone, or missed."""
    if not fault.caught:
        return MISSED
    return RIGHT if all(fault.right.values()) else PARTLY


def to_text(matrix: Matrix) -> str:
    """The summary first, then the kinds, then what was missed."""
    lines = [f"{'PASS' if matrix.passed else 'FAIL'}: {headline(matrix)}"]
    lines += [f"  {text}: {matrix.rate(name):.1%} (at least {BOUNDS[name]:.0%})" for name, text in _RATES.items()]
    kinds = by_kind(matrix)
    width = max((len(kind) for kind in kinds), default=0)
    lines += ["", f"  {'kind':<{width}}  cases  caught  node  cause  black box"] if kinds else []
    for kind, faults in kinds.items():
        rights: Counter = Counter(name for fault in faults for name, right in fault.right.items() if right)
        node, cause, black_box = (rights[name] for name in _RATES)
        caught = sum(fault.caught for fault in faults)
        lines.append(f"  {kind:<{width}}  {len(faults):>5}  {caught:>6}  {node:>4}  {cause:>5}  {black_box:>9}")
    missed = [fault for fault in matrix.faults if state_of(fault) != RIGHT]
    lines += ["", f"  not as expected: {len(missed)}"] if missed else []
    for fault in missed:
        lines += [f"  {fault.name}", *(f"    {text}" for text in differences(fault))]
    failed = [control for control in matrix.controls if not control.passed]
    lines += ["", f"  controls that fail: {len(failed)}"] if failed else []
    lines += [f"  {control.model}: {control.name}: {control.why}" for control in failed]
    return joined(lines)


def headline(matrix: Matrix) -> str:
    """The matrix in one line."""
    summary = matrix.summary
    passed = summary["controls"] - summary["failed_controls"]
    return (
        f"{summary['caught']} of {summary['cases']} planted faults of {summary['kinds']} kinds in {summary['models']}"
        f" networks caught; {passed} of {summary['controls']} controls pass; {summary['seconds']:.0f} seconds"
    )


def by_kind(matrix: Matrix) -> dict[str, list[Fault]]:
    """The faults, by their kind."""
    kinds: dict[str, list[Fault]] = {}
    for fault in matrix.faults:
        kinds.setdefault(fault.kind, []).append(fault)
    return kinds


def differences(fault: Fault) -> list[str]:
    """What was not said of a fault as it should be."""
    lines = []
    for judged, told in ((fault.visible, ""), (fault.black_box, " as a black box")):
        if not judged.caught:
            lines.append(f"not caught{told}{f': {judged.error}' if judged.error else ''}")
            continue
        for what, expected, named in (
            ("node", fault.node_expected, judged.node_named),
            ("cause", fault.cause_expected, judged.cause_named),
        ):
            if named != expected:
                lines.append(f"{what}{told}: {named}, not {expected}")
    return lines


def write_html(matrix: Matrix, directory: Path) -> Path:
    """Write ``index.html`` into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    models = list(dict.fromkeys([fault.model for fault in matrix.faults] + [run.model for run in matrix.controls]))
    kinds = {
        kind: [Cell([fault for fault in faults if fault.model == model]) for model in models]
        for kind, faults in by_kind(matrix).items()
    }
    controls: dict[str, dict] = {}
    for control in matrix.controls:
        controls.setdefault(control.name, {})[control.model] = control
    page = (
        templates()
        .get_template("faults.html")
        .render(
            matrix=matrix,
            summary=matrix.summary,
            headline=headline(matrix),
            rates=[(text, matrix.rate(name), BOUNDS[name]) for name, text in _RATES.items()],
            models=models,
            kinds=kinds,
            marks=_MARKS,
            state_of=state_of,
            differences=differences,
            controls=controls,
            json=json_block(matrix.to_json()),
            version=__version__,
        )
    )
    with atomic_write(directory / "index.html") as file:
        file.write(page.encode())
    return directory / "index.html"
