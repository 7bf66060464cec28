"""The fault matrix: every fault and every control, judged with the candidate's files visible and as a black box."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

from tqdm import tqdm

from vqvae_gluon.artifacts.trace import Trace, open_trace
from vqvae_gluon.errors import UsageError, VQVAEError
from vqvae_gluon.parity.controls import controls
from vqvae_gluon.parity.faults import TAMPERED, Case, cases
from vqvae_gluon.parity.plant import TamperedRuntime, deployed
from vqvae_gluon.parity.recorded import compare_traces
from vqvae_gluon.parity.report import Report
from vqvae_gluon.parity.result import AGREE
from vqvae_gluon.parity.specimens import BARE, EXPORTS, Specimen, bundle_specimen, export_specimen
from vqvae_gluon.runtimes import RUNTIMES
from vqvae_gluon.runtimes.gluon import GluonRuntime
from vqvae_gluon.temporary import temporary_directory
from vqvae_gluon.workers import run

# The least share of faults whose node, whose cause, and whose cause as a black box is the right one.
BOUNDS = {"right_node": 0.95, "right_cause": 0.90, "right_cause_black_box": 0.75}
# A subset takes of the slower ones only what no other has.
_STRIDE = 7  # between those that are taken
_SLOWER = ("cifar10", BARE, "squeezenet1.1")


@dataclass(frozen=True)
class Task:
    """One fault or one control of a specimen, by its name."""

    specimen: Specimen
    name: str
    is_control: bool = False


@dataclass(frozen=True)
class Judged:
    """What the harness said of one fault.

    Attributes:
        error: why it could not judge, if it could not.
    """

    caught: bool = False
    node_named: Optional[str] = None
    cause_named: Optional[str] = None
    error: Optional[str] = None


@dataclass(frozen=True)
class Fault:
    """A planted fault and what was said of it.

    Attributes:
        dropped: why it is none here, if it is none.
    """

    name: str
    model: str
    kind: str
    layer: str
    node_expected: str
    cause_expected: str
    visible: Judged = Judged()
    black_box: Judged = Judged()
    seconds: float = 0.0
    dropped: Optional[str] = None

    @property
    def right(self) -> dict[str, bool]:
        """What is right of it, by the name of the rate."""
        return {
            "right_node": self.visible.node_named == self.node_expected,
            "right_cause": self.visible.cause_named == self.cause_expected,
            "right_node_black_box": self.black_box.node_named == self.node_expected,
            "right_cause_black_box": self.black_box.cause_named == self.cause_expected,
        }

    @property
    def caught(self) -> bool:
        return self.visible.caught and self.black_box.caught

    def to_json(self) -> dict[str, Any]:
        visible, black_box = asdict(self.visible), asdict(self.black_box)
        return {
            **{name: getattr(self, name) for name in ("name", "model", "kind", "layer")},
            **{name: getattr(self, name) for name in ("node_expected", "cause_expected")},
            **visible,
            "black_box": black_box,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Harmless:
    """A control and whether it passed: it must agree with the files visible and as a black box.

    Attributes:
        why: what was said, if it did not.
    """

    name: str
    model: str
    passed: bool
    why: Optional[str] = None
    seconds: float = 0.0


@dataclass
class Matrix:
    """All that was found.

    Attributes:
        dropped: what was not planted, since it changes nothing there, or since it cannot be run.
    """

    faults: list[Fault] = field(default_factory=list)
    controls: list[Harmless] = field(default_factory=list)
    dropped: list[Fault] = field(default_factory=list)
    seconds: float = 0.0

    def rate(self, name: str) -> float:
        """Share of the faults of which something is right; see :attr:`Fault.right`."""
        return sum(fault.right[name] for fault in self.faults) / len(self.faults) if self.faults else 1.0

    @property
    def summary(self) -> dict[str, Any]:
        names = ("right_node", "right_cause", "right_node_black_box", "right_cause_black_box")
        return {
            "kinds": len({fault.kind for fault in self.faults}),
            "models": len({fault.model for fault in self.faults}),
            "cases": len(self.faults),
            "dropped": len(self.dropped),
            "controls": len(self.controls),
            "caught": sum(fault.caught for fault in self.faults),
            **{name: round(self.rate(name), 4) for name in names},
            "failed_controls": sum(not control.passed for control in self.controls),
            "seconds": round(self.seconds, 1),
        }

    @property
    def passed(self) -> bool:
        """Every fault caught, every control passed, and no rate below its bound."""
        return (
            all(fault.caught for fault in self.faults)
            and all(control.passed for control in self.controls)
            and all(self.rate(name) >= bound for name, bound in BOUNDS.items())
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "summary": self.summary,
            "bounds": BOUNDS,
            "faults": [fault.to_json() for fault in self.faults],
            "controls": [asdict(control) for control in self.controls],
            "dropped": [{"name": fault.name, "why": fault.dropped} for fault in self.dropped],
        }


def specimens(
    bundles: Mapping[str, Callable[[], tuple[Path, Optional[Path]]]], directory: Path, models: Collection[str] = ()
) -> list[Specimen]:
    """The networks in which faults are planted.

    Args:
        bundles: by name what gives a bundle, and the directory of its images if it has any.
        directory: where what they need is written.
        models: names of those that are wanted; all when left out.

    Raises:
        UsageError: there is none of a name.
    """
    names = [*bundles, *EXPORTS, BARE]
    for name in models:
        if name not in names:
            raise UsageError("--model", f"there is no {name}; the names are {', '.join(names)}")
    wanted = [name for name in names if not models or name in models]
    return [
        bundle_specimen(name, *bundles[name](), directory / name)
        if name in bundles
        else export_specimen(name, directory / name)
        for name in wanted
    ]


def judge_all(found: Sequence[Specimen], kinds: Collection[str] = (), fast: bool = False, jobs: int = 2) -> Matrix:
    """Plant every fault in every specimen, run every control, and judge them all.

    Args:
        kinds: of faults that are wanted, without controls; all, and the controls, when left out.
        fast: every kind of fault and every control once.

    Raises:
        UsageError: there is no such kind.
        RuntimeFailure: a reference could not be recorded.
    """
    start = time.perf_counter()
    planted = [(specimen, case) for specimen in found for case in cases(specimen)]
    planted = [(specimen, case) for specimen, case in planted if specimen.name != BARE or case.kind == "graph fusion"]
    every = dict.fromkeys(case.kind for _, case in planted)
    for kind in kinds:
        if kind not in every:
            raise UsageError("--kind", f"there is no '{kind}' here; the kinds are {', '.join(every)}")
    tasks = [Task(specimen, case.name) for specimen, case in planted if not kinds or case.kind in kinds]
    if fast:
        chosen = _one_of_each((case.kind, Task(specimen, case.name)) for specimen, case in planted)
        tasks = [task for task in tasks if task in chosen]
    if not kinds:
        harmless = [Task(specimen, control.name, True) for specimen in found for control in controls(specimen)]
        tasks += _one_of_each((task.name, task) for task in harmless) if fast else harmless
    used = [specimen for specimen in found if any(task.specimen == specimen for task in tasks)]
    matrix = Matrix()
    with tqdm(total=len(tasks) + len(used), desc="faults", unit="case", leave=False, disable=None) as bar:
        for _, failure in run(_record, used, jobs):
            if failure is not None:
                raise failure
            bar.update()
        results: list[tuple[Task, Any]] = []
        for result in run(_judge, tasks, jobs):
            results.append(result)
            bar.update()
    of_name = {(specimen.name, case.name): case for specimen, case in planted}
    for task, result in sorted(results, key=lambda entry: tasks.index(entry[0])):
        if task.is_control:
            failed = Harmless(task.name, task.specimen.name, False, str(result))
            matrix.controls.append(result if isinstance(result, Harmless) else failed)
        else:
            case = of_name[task.specimen.name, task.name]
            failure = Judged(error=str(result))
            fault = result if isinstance(result, Fault) else _fault(case, failure, failure)
            (matrix.dropped if fault.dropped else matrix.faults).append(fault)
    matrix.seconds = time.perf_counter() - start
    return matrix


def _one_of_each(tasks: Iterable[tuple[str, Task]]) -> list[Task]:
    """Of every kind one, and not always in the same specimen and layer."""

    def slow(task: Task) -> int:
        return 1 + _SLOWER.index(task.specimen.name) if task.specimen.name in _SLOWER else 0

    kinds: dict[str, list[Task]] = {}
    for kind, task in tasks:
        kinds.setdefault(kind, []).append(task)
    result = []
    for number, alike in enumerate(kinds.values()):
        quickest = [task for task in alike if slow(task) == min(map(slow, alike))]
        result.append(quickest[_STRIDE * number % len(quickest)])
    return result


# In a process of its own.

_known: dict[Path, dict[str, Case]] = {}


def _record(specimen: Specimen) -> None:
    specimen.record(GluonRuntime(), specimen.reference)


def _judge(task: Task) -> Union[Fault, Harmless]:
    start, specimen = time.perf_counter(), task.specimen
    with temporary_directory() as directory:
        if task.is_control:
            return _judge_control(specimen, task.name, directory, start)
        if specimen.directory not in _known:
            _known[specimen.directory] = {case.name: case for case in cases(specimen)}
        return _judge_fault(specimen, _known[specimen.directory][task.name], directory, start)


def _judge_fault(specimen: Specimen, case: Case, directory: Path, start: float) -> Fault:
    program = deployed(specimen)
    case.plant(program)
    if case.live is None:
        try:
            trace = program.record(directory / "candidate")
        except VQVAEError as error:
            return _fault(case, dropped=f"the program itself cannot run: {error}")
        why = _idle(open_trace(specimen.reference), trace, case.node)
        if why is not None:
            return _fault(case, dropped=why)
    elif case.live != TAMPERED:
        program.write(directory / "deployed")

    def judge(black_box: bool) -> Judged:
        try:
            if case.live is None:
                report = compare_traces(specimen.reference, directory / "candidate", black_box=black_box)
            elif case.live != TAMPERED:
                report = specimen.compare(RUNTIMES[case.live](), directory / "deployed", black_box=black_box)
            else:
                tampers = {name: tamper for (_, name), tamper in program.tampers.items()}
                report = specimen.compare(TamperedRuntime(tampers), repeat=2, black_box=black_box)
        except Exception as error:  # It is counted as not caught, and the others go on.
            return Judged(error=f"{type(error).__name__}: {error}")
        return _said(report)

    visible, black_box = judge(False), judge(True)
    return _fault(case, visible, black_box, seconds=time.perf_counter() - start)


def _fault(
    case: Case,
    visible: Judged = Judged(),
    black_box: Judged = Judged(),
    seconds: float = 0.0,
    dropped: Optional[str] = None,
) -> Fault:
    what = (case.name, case.model, case.kind, case.layer, case.node, case.cause)
    return Fault(*what, visible, black_box, seconds, dropped)


def _idle(reference: Trace, candidate: Trace, key: str) -> Optional[str]:
    """Why a planted fault is none: nothing of the trace shows it, or it does not act where it was planted."""
    ours = {f"{node.stage}/{node.name}": node.sha256 for node in reference.nodes}
    theirs = {f"{node.stage}/{node.name}": node.sha256 for node in candidate.nodes}
    if ours == theirs:
        return "it changes nothing"
    return f"it does not act at {key}" if ours.get(key) == theirs.get(key) else None


def _said(report: Report) -> Judged:
    first, cause = report.first_divergent, report.cause
    node = None if first is None else f"{first.comparison.stage}/{first.comparison.name}"
    failure = None if report.failure is None else str(report.failure)
    return Judged(report.verdict != AGREE, node, cause.name if cause else None, failure)


def _judge_control(specimen: Specimen, name: str, directory: Path, start: float) -> Harmless:
    control = next(control for control in controls(specimen) if control.name == name)
    for black_box in (False, True):
        scratch = directory / str(black_box)
        scratch.mkdir()
        report = control.run(scratch, black_box)
        if report.verdict != AGREE:
            said = _said(report)
            why = f"{report.verdict}{' as a black box' * black_box}: {said.node_named}: {said.cause_named}"
            return Harmless(name, specimen.name, False, f"{why}: {said.error}", time.perf_counter() - start)
    return Harmless(name, specimen.name, True, None, time.perf_counter() - start)
