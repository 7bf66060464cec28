"""Why two sides diverge (docs/parity.md, "Causes").

Every step of the candidate's way is asked the same question: does the reference's function, applied to what the
*candidate* fed this step, give what the candidate got? A step that fails is at fault by itself, whatever came before
it, so that several faults in one run are found one by one. For each a change is looked for that reproduces the
candidate's numbers (:mod:`vqvae_gluon.parity.replay`); nothing is named without that.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Optional

import numpy as np

from vqvae_gluon.artifacts.binding import Network
from vqvae_gluon.artifacts.fusion import misfused
from vqvae_gluon.artifacts.graph import Graph, Node, Output
from vqvae_gluon.artifacts.trace import Key, Trace, TraceNode
from vqvae_gluon.data.images import to_images, to_tensor
from vqvae_gluon.parity import preflight
from vqvae_gluon.parity.relations import (
    Relation,
    relate_codes,
    relate_drawing,
    relate_images,
    relate_pixels,
)
from vqvae_gluon.parity.replay import (
    SUMS,
    Explanation,
    Step,
    attribute_cause,
    compute,
    explain,
    relate_files,
    told,
    unwritten,
)
from vqvae_gluon.parity.result import Cause, Result
from vqvae_gluon.parity.side import Side
from vqvae_gluon.parity.stages import walk
from vqvae_gluon.runtimes.base import DECODER, ENCODER, INPUT, OUTPUT

_EPOCH, _DIFFERS, _PREFIX = "parameters of another epoch", "parameter differs", "prefix lost"
_UNBOUND = {"argument unbound", "auxiliary unbound", "codebook unbound"}
_WHOLESALE = {*_UNBOUND, _EPOCH, _PREFIX, "float16 storage", "bfloat16 storage"}
_FEW_VALUES = 8  # of which one that differs says little
_MAX_SUMS = 4  # that are tried in all combinations
_MAX_STEPS = 64  # that are explained one by one; a fault of all parameters shows in fewer


@dataclass(frozen=True)
class Scene:
    """One graph of a comparison, with all that the candidate computed in it.

    Attributes:
        reference: the believed side; its inputs are those of the reference.
        inputs: what the candidate was fed.
        tensors: what it gave at every node, tapped.
        outputs: what it gave without taps.
        deployed: the network of the candidate's files, if it has its own; None as a black box.
        candidate: to be run again; None if it cannot, or must not.
    """

    reference: Side
    inputs: Mapping[str, np.ndarray]
    tensors: Mapping[str, TraceNode]
    outputs: Mapping[str, TraceNode]
    deployed: Optional[Network] = None
    candidate: Optional[Side] = None

    @property
    def stage(self) -> str:
        return self.reference.stage

    @property
    def network(self) -> Network:
        return self.reference.network


def live_scene(reference: Side, candidate: Side, max_memory: int, black_box: bool) -> Scene:
    """The scene of two sides that can be run, from one more run of the candidate."""
    tensors = {node.name: node for node in walk(candidate, max_memory)}
    own = candidate.network is not reference.network and not black_box
    deployed = candidate.network if own else None
    again = None if black_box else candidate
    return Scene(reference, candidate.inputs, tensors, candidate.outputs(), deployed, again)


def diagnose(report: Result, scenes: Sequence[Scene], way: Optional[tuple[Trace, Trace]] = None) -> list[Cause]:
    """The causes of a divergence, in the order of the data; empty if none was found.

    Args:
        way: the traces of both sides' whole way, if images were fed: what went in, and what came out.
    """
    try:
        return _merged(_causes(report, scenes, way), report.operators)
    except Exception as error:  # The verdict stands, whatever the search for its cause ran into.
        report.notes.append(f"the cause was not looked for to the end: {type(error).__name__}: {error}")
        return []


def _causes(report: Result, scenes: Sequence[Scene], way: Optional[tuple[Trace, Trace]]) -> list[Cause]:
    causes: list[Cause] = []
    if way is not None:
        causes += _of_the_input(*way)
    for scene in scenes:
        if scene.stage == DECODER and way is not None:
            causes += _of_the_handover(way[1], scenes)
        if not causes or scene.stage == DECODER or way is None:
            causes += _of_the_fed(scene)
        causes += _of_the_graph(report, scene)
        causes += _of_the_files(scene, {key for cause in causes for key in cause.subjects})
        causes += _of_the_engine(report, scene)
    if way is not None:
        causes += _of_the_output(way[1])
    return causes


# What goes in.


def _of_the_input(expected: Trace, actual: Trace) -> list[Cause]:
    """Misread pixels, or a tensor that is not what the pixels make."""
    ours, theirs = ({node.name: node for node in trace.stage(INPUT)} for trace in (expected, actual))
    if "pixels" not in ours or "data" not in theirs or ours["data"].sha256 == theirs["data"].sha256:
        return []
    pixels, data = ours["pixels"].load(), theirs["data"].load()
    source, causes = pixels, []
    if "pixels" in theirs and theirs["pixels"].sha256 != ours["pixels"].sha256:
        source = theirs["pixels"].load()
        causes += _caused((INPUT, "pixels"), relate_pixels(pixels, source), source.size)
    wanted = to_tensor(source) if source.ndim == 4 else data
    if not _equal(wanted, data):
        causes += _caused((INPUT, "data"), unwritten(wanted, data) or relate_images(wanted, data), data.size)
    return causes


def _of_the_fed(scene: Scene) -> list[Cause]:
    """Inputs of a graph that are not the reference's."""
    causes = []
    for name, ours in scene.reference.inputs.items():
        theirs = scene.inputs.get(name)
        if theirs is None or _equal(ours, theirs) or scene.stage == DECODER:
            continue
        relation: Optional[Relation] = None
        if ours.ndim == theirs.ndim == 4:
            relation = unwritten(ours, theirs) or relate_images(ours, theirs)
        elif ours.ndim == theirs.ndim == 3 and ours.dtype.kind in "iu":
            relation = relate_codes(ours, theirs)
        causes += _caused((scene.stage, name), relation, theirs.size)
    return causes


def _of_the_handover(actual: Trace, scenes: Sequence[Scene]) -> list[Cause]:
    """Codes that are others behind the encoder than before the decoder."""
    encoder, decoder = ({scene.stage: scene for scene in scenes}.get(stage) for stage in (ENCODER, DECODER))
    if encoder is None or decoder is None or "codes" not in decoder.inputs:
        return []
    fed = decoder.inputs["codes"]
    if _equal(fed, decoder.reference.inputs["codes"]):
        return []
    made = {node.sha256: node for node in encoder.outputs.values()}
    made.update({node.sha256: node for node in actual.stage(OUTPUT) if node.name == "codes" and not made})
    for node in made.values():
        codes = node.load()
        if _equal(codes, fed):
            return []
    for node in made.values():
        return _caused((DECODER, "codes"), relate_codes(node.load(), fed), fed.size)
    return []


# The graph, step by step.


def steps(scene: Scene) -> Iterator[Step]:
    """Every step of the candidate's run that can be replayed: what it took is known, and numbers."""
    network = scene.network
    own: dict[Output, np.ndarray] = {}  # In the place of what the candidate does not tell.
    lacking: dict[Output, tuple[str, np.ndarray]] = {}  # What such a node takes, if that is one tensor.
    for node in network.graph.operators():
        inputs, parameters = _inputs(scene, node, own)
        if inputs is None:
            continue
        expected = compute(node, inputs)
        if expected is None:
            continue
        expected = expected[: network.visible[node.name]]
        told = [scene.tensors.get(network.tensor((node.name, k))) for k in range(len(expected))]
        for k, values in enumerate(expected):
            if told[k] is None:
                own[node.name, k] = values
                if len(inputs) == 1:
                    lacking[node.name, k] = node.name, inputs[0]
        if any(tensor is None for tensor in told):
            continue
        actual = tuple(_narrow(tensor.load(), values) for tensor, values in zip(told, expected) if tensor is not None)
        instead = {place: lacking[output] for place, output in enumerate(node.inputs) if output in lacking}
        step = Step(scene.stage, node, inputs, parameters, actual, expected, instead)
        yield step


def _inputs(
    scene: Scene, node: Node, own: Mapping[Output, np.ndarray]
) -> tuple[Optional[tuple[np.ndarray, ...]], dict[int, str]]:
    """What the candidate fed a node, and which of it are parameters; None if it is not known."""
    source = scene.network.graph.by_name()
    inputs, parameters = [], {}
    for position, output in enumerate(node.inputs):
        name = output[0]
        if not source[name].is_variable:
            tensor = scene.tensors.get(scene.network.tensor(output))
            values = own.get(output) if tensor is None else tensor.load()
        elif name in scene.inputs:
            values = scene.inputs[name]
        else:
            full = next((prefix + name for prefix in ("arg:", "aux:") if prefix + name in scene.network.parameters), "")
            values = scene.network.parameters.get(full)
            parameters[position] = full
        if values is None:
            return None, {}
        inputs.append(values.astype(np.float32) if values.dtype == np.float64 else values)
    return tuple(inputs), parameters


def _of_the_graph(report: Result, scene: Scene) -> list[Cause]:
    others = scene.network.parameters
    deployed_nodes = scene.deployed.graph.by_name() if scene.deployed else {}
    known: dict[str, np.ndarray] = {}
    found: list[tuple[Step, Optional[Explanation]]] = []
    taking = 0  # Steps that show their parameters.
    for step in steps(scene):
        taking += bool(step.parameters) and all(np.isfinite(step.inputs[position]).all() for position in step.data())
        if step.follows:
            continue
        if len(found) == _MAX_STEPS:
            break
        deployed = None
        if scene.deployed is not None and step.node.name in deployed_nodes:
            deployed = deployed_nodes[step.node.name], scene.deployed.parameters
        explanation = explain(step, others, known, deployed)
        if explanation:
            known.update(explanation.parameters)
        found.append((step, explanation))
    return _causes_of(scene, report, found, taking)


def _causes_of(
    scene: Scene, report: Result, found: list[tuple[Step, Optional[Explanation]]], taking: int
) -> list[Cause]:
    """One cause for what many steps show alike."""
    explained = [(step, explanation) for step, explanation in found if explanation and explanation.causes]
    names = [name for _, explanation in explained for name in explanation.causes]
    faulty = sum(bool(step.parameters) for step, _ in found)
    unbound = sum(name in _UNBOUND for name in names)
    lost = any(finding.cause == _PREFIX and finding.stage == scene.stage for finding in report.findings)
    if (lost and unbound) or (
        1 < taking == faulty and 2 * unbound > len(names) and set(names) <= {*_UNBOUND, _DIFFERS}
    ):
        names = [_PREFIX if name in _UNBOUND else name for name in names]
    alone = names.count(_EPOCH) == 1 and taking > 2
    common = next((name for name in names if name in _WHOLESALE and names.count(name) * 2 >= len(names)), None)
    causes = []
    for step, explanation in explained:
        for name in explanation.causes:
            if name in _UNBOUND and _PREFIX in names:
                name = _PREFIX
            if name == _EPOCH and alone:
                name = _DIFFERS
            elif name == _DIFFERS and (common or len(explanation.causes) > 1):
                continue  # Too few numbers to show what the others do.
            elif name == "one corrupted value" and common and _size(explanation) < _FEW_VALUES:
                continue
            evidence = f"{explanation.subject}: {explanation.detail}{_shown(explanation)}"
            causes.append(
                Cause(name, evidence, (scene.stage, step.node.name), (*explanation.parameters, step.node.name))
            )
    for step, reason in found:
        if reason is None and not (common and step.parameters):
            causes.append(Cause("", "", (scene.stage, step.node.name), (step.node.name,)))
    return causes


def _size(explanation: Explanation) -> int:
    return max((values.size for values in explanation.parameters.values()), default=0)


def _shown(explanation: Explanation) -> str:
    if math.isnan(explanation.error):
        return ""
    exactly = "bit for bit" if explanation.error == 0.0 else f"to within {explanation.error:.2g}"
    return f"; replayed, it gives the candidate's numbers {exactly}"


# Files that differ where no number shows it.


def _of_the_files(scene: Scene, explained: set[str]) -> list[Cause]:
    if scene.deployed is None:
        return []
    causes = []
    ours, theirs = scene.network, scene.deployed
    for name, values in ours.parameters.items():
        other = theirs.parameters.get(name)
        if other is None or name in explained:
            continue
        if (values.dtype, values.shape) == (other.dtype, other.shape) and values.tobytes() == other.tobytes():
            continue
        relation = relate_files(name, values, other, ours.parameters) if values.shape == other.shape else None
        consumers = ours.graph.consumers(name[4:])
        detail = told(values, other, relation)
        for cause in relation.causes if relation else (_DIFFERS,):
            place = (scene.stage, consumers[0] if consumers else name[4:])
            causes.append(Cause(cause, f"{name[4:]}: {detail}", place, (name,)))
    nodes = theirs.graph.by_name()
    for node in ours.graph.operators():
        other_node = nodes.get(node.name)
        if other_node is None or node.name in explained or node.operator != other_node.operator:
            continue
        for key, (a, b) in preflight.changed_attributes(node, other_node).items():
            cause, place = attribute_cause(node.operator, key), (scene.stage, node.name)
            causes.append(Cause(cause, f"{node.name}: {key} is {a} against {b}", place, (node.name,)))
    return causes


# The engine: results without taps that are not those with taps.


def _of_the_engine(report: Result, scene: Scene) -> list[Cause]:
    """Fusion: results that are others without taps than with them."""
    wrong = misfused(scene.network.graph)
    place = report.first_divergent.comparison.key if report.first_divergent else (scene.stage, "")
    if place[0] != scene.stage:
        place = scene.stage, next(iter(wrong), place[1])
    for side in (scene.reference, scene.candidate):
        plain = side.runtime.without_fusion() if side is not None and side.replays else None
        if side is None or plain is None:
            continue
        fused, unfused = side.outputs(), side.with_runtime(plain).outputs()
        changed = [name for name, node in fused.items() if not _near(unfused[name].load(), node.load())]
        theirs = scene.outputs if side is scene.reference else scene.tensors
        if changed and all(_near(unfused[name].load(), theirs[name].load()) for name in changed if name in theirs):
            whose = "reference" if side is scene.reference else "candidate"
            evidence = f"with fusion turned off the {whose} ({side.runtime.name}) gives what it should"
            return [Cause("graph fusion", evidence, place, tuple(changed))]
    changed = [
        name
        for name, node in scene.outputs.items()
        if name in scene.tensors and not _near(scene.tensors[name].load(), node.load())
    ]
    if not changed:
        return []
    for sums, told_of, graph in _as_fused(scene.network.graph):
        rewritten = scene.reference.rewritten(graph, scene.inputs)
        if all(_near(rewritten[name].load(), scene.outputs[name].load()) for name in changed):
            evidence = f"a graph in which {told_of} in the place of x + f(relu(x)) gives the candidate's numbers"
            return [Cause("graph fusion", evidence, (scene.stage, sums[0]), tuple(changed))]
    return []


def _as_fused(graph: Graph) -> Iterator[tuple[list[str], str, Graph]]:
    """The graph as MXNet's fusion may make it: the sums that it is about, what happens there, and what is computed.

    In ``x + f(relu(x))`` either the sum takes relu(x), too, or f takes x.
    """
    wrong, source = set(misfused(graph)), graph.by_name()
    activations = {node.inputs[0]: node.name for node in graph.operators() if node.operator == "Activation"}
    sums = {
        node.name: (taken, activations[taken])
        for node in graph.operators()
        if node.name in wrong and node.operator in SUMS
        for taken in node.inputs
        if activations.get(taken) in source and taken[0] != node.name
    }
    if not sums or len(sums) > _MAX_SUMS:
        return
    for lost in product((False, True), repeat=len(sums)):
        instead: dict[tuple[str, Output], Output] = {}
        for (name, (taken, activation)), without in zip(sums.items(), lost):
            if without:
                instead |= {(taker, (activation, 0)): taken for taker in graph.consumers(activation)}
            else:
                instead[name, taken] = (activation, 0)
        nodes = tuple(
            dataclasses.replace(node, inputs=tuple(instead.get((node.name, output), output) for output in node.inputs))
            for node in graph.nodes
        )
        told = [
            f"{name} takes {'x + f(x)' if without else 'relu(x) + f(relu(x))'}" for name, without in zip(sums, lost)
        ]
        yield list(sums), ", ".join(told), dataclasses.replace(graph, nodes=nodes)


# What comes out.


def _of_the_output(actual: Trace) -> list[Cause]:
    nodes = {node.name: node for node in actual.stage(OUTPUT)}
    if not {"reconstruction", "image"} <= nodes.keys():
        return []
    tensor = nodes["reconstruction"].load()
    for name in ("image", "file"):
        if name not in nodes or tensor.ndim != 4:
            continue
        drawn = nodes[name].load()
        if not _equal(to_images(tensor), drawn):
            return _caused((OUTPUT, name), relate_drawing(tensor, drawn), drawn.size)
    return []


# Together.


def _merged(causes: Sequence[Cause], order: Sequence[Key]) -> list[Cause]:
    """Each cause once, at its first place in the order of the data, and at how many."""
    places = {key: number for number, key in enumerate(order)}

    def place(cause: Cause) -> int:
        stage = cause.place[0] if cause.place else ""
        return -1 if stage == INPUT else places.get(cause.place or ("", ""), len(order) if stage == OUTPUT else -1)

    counts = Counter(cause.name for cause in causes)
    if any(counts[name] > 1 for name in _WHOLESALE):
        causes = [cause for cause in causes if cause.name != _DIFFERS]
    first = {cause.name: cause for cause in sorted(causes, key=place, reverse=True)}
    return [dataclasses.replace(cause, places=counts[cause.name]) for cause in sorted(first.values(), key=place)]


def _caused(key: Key, relation: Optional[Relation], size: int) -> list[Cause]:
    if relation is None:
        return [Cause("", "", key, (key[1],))]
    evidence = relation.detail
    if relation.accounted:  # Statistics replay nothing.
        evidence += f": reproduces {round(relation.accounted * size)} of {size} values"
    return [Cause(name, evidence, key, (key[1],)) for name in relation.causes]


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.array_equal(a, b))


def _near(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal but for rounding, and what may jump by it."""
    if a.shape != b.shape:
        return False
    far = np.abs(a.astype(np.float64) - b.astype(np.float64)) > 1e-3 * max(float(np.abs(b).max()), 1e-30)
    return bool(far.mean() < 0.01)


def _narrow(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    return values.astype(like.dtype) if values.dtype == np.float64 and like.dtype == np.float32 else values
