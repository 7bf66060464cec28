"""One step of the candidate's run, replayed with small changes until its numbers come out.

A step is one operator with what the candidate itself fed it. The reference's function of it gave something else; here
that function is changed in one respect after the other - a parameter, an attribute, the operator, the layout of an
input, the mode - and a change is accepted only if the candidate's numbers follow from the candidate's inputs by it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Optional

import numpy as np

from vqvae_gluon.artifacts.graph import Node
from vqvae_gluon.compat import mx
from vqvae_gluon.errors import VQVAEError
from vqvae_gluon.parity import preflight
from vqvae_gluon.parity.discrete import is_discrete
from vqvae_gluon.parity.identify import estimates, is_like_noise
from vqvae_gluon.parity.relations import (
    Relation,
    parameter_changes,
    relate_codes,
    relate_images,
    relate_latent,
    relate_parameter,
    storages,
)
from vqvae_gluon.runtimes.eager import invoke

_ULPS = 64  # Replays are of the same operators; what is left is rounding.
_FEW = 2  # samples on which a change is tried before it is tried on all
ABSURD = 1e6  # times the largest value that should be there
_RIGHT = 0.3  # share of a tensor that must be right before the end of a buffer is taken to have been passed
_TOUCHED = 0.25  # share of the channels that a weight without numbers shows in at least
_JUMPING = 0.005  # share of what rounding may make jump

_SHAPING = {"pad", "kernel", "stride", "dilate", "adj", "target_shape", "pooling_convention", "count_include_pad"}
_NAMED = {"eps": "eps", "fix_gamma": "fix_gamma", "use_global_stats": "training-mode BatchNorm"}
_ACTIVATIONS = ("relu", "sigmoid", "tanh", "softrelu", "softsign")
_EPS = (1e-3, 1e-5, 1e-4, 2e-5, 1e-6, 1e-2, 1e-8, 0.0)
# Operators that add two tensors; MXNet fuses them with what comes before.
SUMS = {"elemwise_add", "_plus", "broadcast_add", "_Plus"}


@dataclass(frozen=True)
class Step:
    """One operator of the candidate's run.

    Attributes:
        inputs: what the candidate fed it, and of its parameters what the reference's file holds.
        parameters: full names of those, by position.
        actual: what the candidate gave.
        expected: what the reference's operator gives on the same inputs.
        instead: for an input that the candidate does not tell, because it lacks the node, that node's name and input.
    """

    stage: str
    node: Node
    inputs: tuple[np.ndarray, ...]
    parameters: Mapping[int, str]
    actual: tuple[np.ndarray, ...]
    expected: tuple[np.ndarray, ...]
    instead: Mapping[int, tuple[str, np.ndarray]] = field(default_factory=dict)

    @property
    def tolerance(self) -> float:
        """What rounding may bring about."""
        ours, theirs = (max(map(largest, side), default=0.0) for side in (self.expected, self.actual))
        # What was never written may be of any size, and excuses nothing.
        return _ULPS * float(np.finfo(np.float32).eps) * (max(ours, theirs) if theirs < ABSURD * ours else ours)

    @property
    def follows(self) -> bool:
        """Whether the candidate gave what the reference's operator gives."""
        if is_discrete(self.node) and self.expected[0].shape == self.actual[0].shape:
            return bool((self.expected[0] != self.actual[0]).mean() < _JUMPING)
        error = _distance(self.expected, self.actual)
        return error is not None and error <= self.tolerance

    def data(self) -> list[int]:
        """Positions of the inputs that are no parameters."""
        return [position for position in range(len(self.inputs)) if position not in self.parameters]


@dataclass(frozen=True)
class Explanation:
    """A change that reproduces what the candidate gave.

    Attributes:
        causes: names of it, two if it is composed.
        subject: the parameter or node.
        error: largest difference that is left.
        parameters: what the candidate had in their places, by full name.
    """

    causes: tuple[str, ...]
    subject: str
    detail: str
    error: float
    parameters: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """A step, changed in one respect.

    Attributes:
        inputs: new values of some inputs, by position, made of the old ones.
        attributes: of the operator; None takes one away.
    """

    causes: tuple[str, ...]
    subject: str
    detail: str
    inputs: Mapping[int, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    attributes: Mapping[str, Optional[str]] = field(default_factory=dict)
    operator: Optional[str] = None
    training: bool = False
    parameters: Mapping[str, np.ndarray] = field(default_factory=dict)


def largest(values: np.ndarray) -> float:
    """Largest finite absolute value of a tensor; 0 if it holds no such numbers."""
    finite = np.abs(values[np.isfinite(values)]) if values.dtype.kind == "f" else values[:0]
    return float(finite.max()) if finite.size else 0.0


def compute(node: Node, inputs: tuple[np.ndarray, ...], training: bool = False) -> Optional[tuple[np.ndarray, ...]]:
    """What Gluon's operator gives, called imperatively; None if MXNet refuses."""
    arrays = [mx.nd.array(array, dtype=array.dtype) for array in inputs]
    try:
        with mx.autograd.train_mode() if training else mx.autograd.predict_mode():
            return tuple(result.asnumpy() for result in invoke(node, arrays))
    except (mx.MXNetError, VQVAEError, ValueError, TypeError):
        return None


def explain(
    step: Step,
    others: Mapping[str, np.ndarray],
    known: Mapping[str, np.ndarray],
    deployed: Optional[tuple[Node, Mapping[str, np.ndarray]]] = None,
) -> Optional[Explanation]:
    """The simplest change that reproduces a step.

    Args:
        others: all parameters of the reference's network, by full name.
        known: what other steps showed the candidate to have in the place of a parameter.
        deployed: the node and the parameters as the candidate's files have them.
    """
    if deployed is not None:
        found = _as_deployed(step, others, *deployed)
        if found:
            return found
    found = _accepted(step, others, known)
    if found:
        return found
    return _read_late(step, others) or _identified(step, others) or _related(step) or _deduced(step)


def _accepted(step: Step, others: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray]) -> Optional[Explanation]:
    """The first change that gives the candidate's numbers bit for bit; else the one that comes nearest."""
    accepted: list[Explanation] = []
    for change in _changes(step, others, known):
        found = _try(step, change)
        if found and found.error == 0.0:
            return found
        accepted += [found] if found else []
    return min(accepted, key=lambda explanation: explanation.error, default=None)


def attribute_cause(operator: str, key: str) -> str:
    """The name of the cause if an attribute of a node is not the reference's."""
    if operator.startswith("BatchNorm") and key in _NAMED:
        return _NAMED[key]
    return "padding or output shape" if key in _SHAPING else "operator attribute"


# The candidate's files.


def _as_deployed(
    step: Step, others: Mapping[str, np.ndarray], node: Node, parameters: Mapping[str, np.ndarray]
) -> Optional[Explanation]:
    own = {position: parameters[name] for position, name in step.parameters.items() if name in parameters}
    changed = [position for position, values in own.items() if not _same_bits(values, step.inputs[position])]
    keys = sorted(
        key
        for key in node.attributes.keys() | step.node.attributes.keys()
        if node.attributes.get(key) != step.node.attributes.get(key) and not key.startswith("__")
    )
    if not changed and not keys and node.operator == step.node.operator:
        return None
    inputs = tuple(own.get(position, values) for position, values in enumerate(step.inputs))
    if len(node.inputs) != len(step.inputs):
        return None
    if node.operator != step.node.operator:
        # What the other operator does has a name of its own, perhaps.
        renamed = _accepted(step, others, {}) or _related(step)
        if renamed and not changed:
            return renamed
    error = _distance(compute(node, inputs), step.actual)
    if error is None or error > step.tolerance:
        return None
    causes: list[str] = []
    details: list[str] = []
    subjects: list[str] = []
    for position in changed:
        name = step.parameters[position]
        relation = relate_files(name, step.inputs[position], own[position], others)
        causes += relation.causes if relation else ["parameter differs"]
        details.append(told(step.inputs[position], own[position], relation))
        subjects.append(name[4:])
    if node.operator != step.node.operator:
        causes.append("other operator")
        details.append(f"{node.operator} in the place of {step.node.operator}")
    else:
        causes += [attribute_cause(node.operator, key) for key in keys]
        details += [f"{key} is {step.node.attributes.get(key)} against {node.attributes.get(key)}" for key in keys]
    values = {step.parameters[position]: own[position] for position in changed}
    subject = ", ".join(subjects) or step.node.name
    return Explanation(tuple(dict.fromkeys(causes)), subject, "; ".join(details), error, values)


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()


def relate_files(
    name: str, ours: np.ndarray, theirs: np.ndarray, others: Mapping[str, np.ndarray]
) -> Optional[Relation]:
    """How the parameter of one file was made of another's. There every value is known, so that one is enough."""
    relation = relate_parameter(name, ours, theirs, 0.0, others)
    if relation is None and ours.shape == theirs.shape and (ours != theirs).sum() == 1:
        return Relation(("one corrupted value",), "", 0.0, 1 - 1 / ours.size)
    return relation


def told(expected: np.ndarray, actual: np.ndarray, relation: Optional[Relation]) -> str:
    """How the parameter of a file differs, and by what."""
    text = preflight.difference(expected, actual) or "the same"
    return text if relation is None or relation.causes == ("one corrupted value",) else f"{relation.detail}; {text}"


# Changes that are tried.


def _changes(step: Step, others: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray]) -> Iterator[Change]:
    for position, (name, values) in step.instead.items():
        yield Change(("other operator",), name, "it is left out", {position: _samples_of(values)})
    yield from _known_values(step, known)
    yield from _modes(step)
    yield from _layouts(step)
    yield from _attributes(step)
    yield from _together(step)
    yield from _parameters(step, others)
    yield from _operators(step)


def _known_values(step: Step, known: Mapping[str, np.ndarray]) -> Iterator[Change]:
    found = {position: name for position, name in step.parameters.items() if name in known}
    if found:
        yield Change(
            (),
            ", ".join(name[4:] for name in found.values()),
            "",
            {position: _constant(known[name]) for position, name in found.items()},
            parameters={name: known[name] for name in found.values()},
        )


def _modes(step: Step) -> Iterator[Change]:
    if step.node.operator.startswith("BatchNorm"):
        detail = "mean and variance are those of the batch"
        attributes = {"use_global_stats": "False"}
        yield Change(("training-mode BatchNorm",), step.node.name, detail, attributes=attributes, training=True)


def _layouts(step: Step) -> Iterator[Change]:
    for position in step.data():
        values = step.inputs[position]
        if values.dtype.kind == "f":
            yield Change(("latent sign",), step.node.name, "its input is negated", {position: np.negative})
        if values.ndim == 4 and min(values.shape[1:]) > 1:
            for detail, moved in _TRANSPOSED.items():
                yield Change(("latent layout",), step.node.name, detail, {position: moved})
        if values.dtype.kind in "iu" or step.node.operator in ("Embedding", "take", "one_hot"):
            for by in (1, -1):
                detail = f"every code is {'one more' if by > 0 else 'one less'}"
                yield Change(("codes off by one",), step.node.name, detail, {position: _shifted(by)})
            if values.ndim == 3:
                turned = {position: lambda a: np.ascontiguousarray(np.swapaxes(a, 1, 2))}
                yield Change(("codes transposed",), step.node.name, "rows and columns are exchanged", turned)
        if step.node.operator in SUMS:
            detail = f"the sum takes relu({step.node.inputs[position][0]})"
            yield Change(("graph fusion",), step.node.name, detail, {position: lambda a: np.maximum(a, 0)})


def _as_channels_first(array: np.ndarray) -> np.ndarray:
    """The memory of (N, C, H, W) put down as (N, H, W, C) and read as it was before."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).reshape(array.shape)


def _as_channels_last(array: np.ndarray) -> np.ndarray:
    count, channels, height, width = array.shape
    return np.ascontiguousarray(array.reshape(count, height, width, channels).transpose(0, 3, 1, 2))


_TRANSPOSED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "its input is (N, H, W, C) in memory, read as (N, C, H, W)": _as_channels_first,
    "its input is (N, C, H, W) in memory, read as (N, H, W, C)": _as_channels_last,
    "rows and columns of its input are exchanged": lambda a: np.ascontiguousarray(a.transpose(0, 1, 3, 2)),
}


def _parameters(step: Step, others: Mapping[str, np.ndarray]) -> Iterator[Change]:
    for position, name in step.parameters.items():
        for causes, detail, values in parameter_changes(name, step.inputs[position], others):
            yield Change(causes, name[4:], detail, {position: _constant(values)}, parameters={name: values})


def _with(what: tuple[tuple[str, ...], str], step: Step, values: Mapping[int, np.ndarray]) -> Change:
    """A change of several parameters at once."""
    names = {position: step.parameters[position] for position in values}
    return Change(
        *what[:1],
        ", ".join(name[4:] for name in names.values()),
        what[1],
        {position: _constant(array) for position, array in values.items()},
        parameters={names[position]: array for position, array in values.items()},
    )


def _together(step: Step) -> Iterator[Change]:
    """Several parameters of one node: stored in one way, never set, or in each other's place."""
    inputs, names = step.inputs, step.parameters
    if len(names) < 2:
        return
    stored = [list(storages(inputs[position])) for position in names]
    for kinds in zip(*stored):
        _, cause, detail = kinds[0]
        values = {position: array.astype(np.float32) for position, (array, _, _) in zip(names, kinds)}
        yield _with(((cause,), detail), step, values)
    for prefix in ("arg:", "aux:"):
        places = [position for position, name in names.items() if name.startswith(prefix)]
        if len(places) > 1:
            cause = unbound(names[places[0]])
            zeros = {position: np.zeros_like(inputs[position]) for position in places}
            yield _with(((cause,), "all zeros"), step, zeros)
            if prefix == "aux:":
                fresh = {position: np.full_like(inputs[position], k) for k, position in enumerate(places)}
                yield _with(((cause,), "a mean of 0 and a variance of 1"), step, fresh)
    for a, b in combinations(names, 2):
        if inputs[a].shape == inputs[b].shape and not np.array_equal(inputs[a], inputs[b]):
            detail = f"{names[a][4:]} and {names[b][4:]} are in each other's place"
            yield _with((("parameters swapped",), detail), step, {a: inputs[b], b: inputs[a]})


def _attributes(step: Step) -> Iterator[Change]:
    node, known = step.node, step.node.attributes
    attempts: list[dict[str, Optional[str]]] = []
    if node.operator == "BatchNorm":
        attempts += [{"eps": str(eps)} for eps in _EPS]
        attempts.append({"fix_gamma": str(known.get("fix_gamma", "True") not in ("True", "1"))})
    if node.operator in ("Activation", "LeakyReLU"):
        attempts += [{"act_type": kind} for kind in _ACTIVATIONS if node.operator == "Activation"]
        attempts += [{"slope": str(slope)} for slope in (0.01, 0.1, 0.2, 0.25, 0.3) if node.operator == "LeakyReLU"]
    if node.operator == "Pooling":
        attempts += [{"pool_type": kind} for kind in ("max", "avg", "sum")]
        attempts += [{"pooling_convention": kind} for kind in ("valid", "full", "same")]
        attempts += [{"count_include_pad": kind} for kind in ("True", "False")]
    if node.operator in ("Convolution", "Deconvolution", "Pooling") and "kernel" in known:
        axes = known["kernel"].count(",") + (0 if known["kernel"].rstrip(" )").endswith(",") else 1)
        sizes = [str((size,) * axes) for size in range(4)]
        attempts += [{"pad": pad} for pad in sizes]
        attempts += [{"stride": stride} for stride in sizes[1:3]]
        attempts += [{"dilate": sizes[2], "pad": pad} for pad in sizes[1:] if node.operator != "Pooling"]
        attempts += [{"adj": adj} for adj in sizes[:2] if node.operator == "Deconvolution"]
        attempts += [{"pad": pad, "adj": adj} for pad in sizes for adj in sizes[:2] if node.operator == "Deconvolution"]
    for attributes in attempts:
        keys = [key for key, value in attributes.items() if known.get(key) != value]
        if keys:
            detail = "; ".join(f"{key} is {known.get(key, 'left out')} against {attributes[key]}" for key in keys)
            causes = tuple(dict.fromkeys(attribute_cause(node.operator, key) for key in keys))
            yield Change(causes, node.name, detail, attributes=attributes)


def _operators(step: Step) -> Iterator[Change]:
    opposite = {
        "argmin": "argmax",
        "argmax": "argmin",
        "elemwise_add": "elemwise_sub",
        "broadcast_add": "broadcast_sub",
    }
    other = opposite.get(step.node.operator)
    if other:
        detail = f"{other} in the place of {step.node.operator}"
        yield Change(("other operator",), step.node.name, detail, operator=other)


def _constant(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda old: values.reshape(old.shape).astype(old.dtype)


def _samples_of(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda old: values[: len(old)].reshape(old.shape)


def _shifted(by: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda old: old + old.dtype.type(by)


def _try(step: Step, change: Change) -> Optional[Explanation]:
    few = _few(step)
    for inputs, actual in ([few] if few is not None and not change.training else []) + [(step.inputs, step.actual)]:
        moved = tuple(
            change.inputs[position](values) if position in change.inputs else values
            for position, values in enumerate(inputs)
        )
        attributes = {**step.node.attributes, **change.attributes}
        node = dataclasses.replace(
            step.node,
            operator=change.operator or step.node.operator,
            attributes={key: value for key, value in attributes.items() if value is not None},
        )
        error = _distance(compute(node, moved, change.training), actual)
        if error is None or error > step.tolerance:
            return None
    return Explanation(change.causes, change.subject, change.detail, error or 0.0, change.parameters)


def _few(step: Step) -> Optional[tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]]:
    """The step on its first samples; None if it has no more, or does not go sample by sample."""
    count = step.actual[0].shape[0] if step.actual[0].ndim else 0
    data = step.data()
    if count <= _FEW or not data or any(step.inputs[position].shape[:1] != (count,) for position in data):
        return None
    inputs = tuple(values[:_FEW] if position in data else values for position, values in enumerate(step.inputs))
    return inputs, tuple(values[:_FEW] if values.shape[:1] == (count,) else values for values in step.actual)


def _distance(results: Optional[tuple[np.ndarray, ...]], actual: tuple[np.ndarray, ...]) -> Optional[float]:
    """Largest difference; None if shapes differ, or what is not finite does."""
    if results is None or len(results) < len(actual):
        return None
    worst = 0.0
    for ours, theirs in zip(results, actual):
        if ours.shape != theirs.shape:
            return None
        finite = np.isfinite(ours) if ours.dtype.kind == "f" else np.ones(ours.shape, bool)
        if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=ours.dtype.kind == "f"):
            return None
        difference = np.abs(ours[finite].astype(np.float64) - theirs[finite].astype(np.float64))
        if difference.size and not np.isfinite(difference).all():
            return None
        worst = max(worst, float(difference.max()) if difference.size else 0.0)
    return worst


# Parameters told from the numbers.


def _identified(step: Step, others: Mapping[str, np.ndarray]) -> Optional[Explanation]:
    best: Optional[Explanation] = None
    for found in estimates(step.node, list(step.inputs), step.actual[0], step.tolerance / _ULPS * 8):
        if not all(estimate.position in step.parameters for estimate in found):
            continue
        causes: list[str] = []
        details, subjects, values = [], [], {}
        related = True
        for estimate in found:
            name, ours = step.parameters[estimate.position], step.inputs[estimate.position]
            theirs = estimate.values.reshape(ours.shape)
            relation = relate_parameter(name, ours, theirs, estimate.tolerance, others)
            if relation is None and estimate.shown is not None and estimate.shown.any():
                seen = estimate.shown.reshape(ours.shape)
                relation = relate_parameter(name, ours[seen], theirs[seen], estimate.tolerance, {})
            related = related and relation is not None
            causes += relation.causes if relation else ["parameter differs"]
            details.append(relation.detail if relation else "other values, told from what the node gives")
            subjects.append(name[4:])
            values[name] = theirs
        explanation = Explanation(
            tuple(dict.fromkeys(causes)), ", ".join(subjects), "; ".join(details), step.tolerance, values
        )
        if related:
            return explanation
        best = best or explanation
    return best


def _read_late(step: Step, others: Mapping[str, np.ndarray]) -> Optional[Explanation]:
    """A parameter that was read from one value too far on, or too early; the value beyond its end may be any."""
    for position, name in step.parameters.items():
        for by in (1, -1):
            moved = np.roll(step.inputs[position].ravel(), -by).reshape(step.inputs[position].shape)
            inputs = tuple(moved if place == position else values for place, values in enumerate(step.inputs))
            expected = compute(step.node, inputs)
            if expected is None:
                continue
            found = _identified(dataclasses.replace(step, inputs=inputs, expected=expected[: len(step.actual)]), others)
            if found and found.causes == ("one corrupted value",) and found.subject == name[4:]:
                wrong = np.flatnonzero(found.parameters[name].ravel() != moved.ravel())
                if wrong.tolist() == [moved.size - 1 if by > 0 else 0]:
                    detail = f"value i is value i {'+' if by > 0 else '-'} 1, and what lies beyond its end"
                    return dataclasses.replace(found, causes=("reading past a buffer",), detail=detail)
    return None


# What the candidate gave, as a change of what it should have given.


def _related(step: Step) -> Optional[Explanation]:
    ours, theirs = step.expected[0], step.actual[0]
    if step.node.operator == "Dropout":
        return _dropped(step)
    relation = unwritten(ours, theirs)
    if relation is not None and relation.causes != ("reading past a buffer",):
        return None  # Why, says _deduced.
    if relation is not None:
        return Explanation(relation.causes, step.node.name, relation.detail, relation.error)
    if ours.shape == theirs.shape and ours.ndim == 4:
        relation = relate_latent(ours, theirs, step.tolerance)
    elif ours.shape == theirs.shape and ours.ndim == 3 and ours.dtype.kind in "iuf":
        whole = all(np.array_equal(side, np.rint(side)) for side in (ours, theirs))
        relation = relate_codes(ours.astype(np.int64), theirs.astype(np.int64)) if whole else None
    if relation is None:
        relation = _passed_through(step)
    if relation is None and ours.shape == theirs.shape and ours.ndim > 1:
        shape = ours.shape if ours.ndim == 4 else (len(ours), -1, 1, 1)
        general = relate_images(ours.reshape(shape), theirs.reshape(shape), step.tolerance)
        if general is not None and set(general.causes) <= {"reading past a buffer", "batch dependence"}:
            relation = general
    if relation is None:
        relation = _scaled(step)
    if relation is None:
        return None
    return Explanation(relation.causes, step.node.name, relation.detail, relation.error)


def unwritten(ours: np.ndarray, theirs: np.ndarray) -> Optional[Relation]:
    """Whether values were never written: no numbers, or beyond all measure. If all before a place in memory are right,
    it was read past a buffer's end."""
    if ours.shape != theirs.shape or theirs.dtype.kind != "f" or not ours.size or not np.isfinite(ours).all():
        return None
    with np.errstate(invalid="ignore"):
        absurd = ~(np.abs(theirs) <= ABSURD * max(largest(ours), 1e-30)).ravel()
    if not absurd.any():
        return None
    detail = f"{int(absurd.sum())} of {absurd.size} values are no numbers, or beyond all measure"
    wrong = ~(np.abs(theirs.ravel() - ours.ravel()) <= _ULPS * np.finfo(np.float32).eps * largest(ours))
    first = int(np.argmax(wrong))
    if first >= _RIGHT * wrong.size:
        detail = f"the first {first} of {wrong.size} values are right; behind them {detail}"
        return Relation(("reading past a buffer",), detail, 0.0, first / wrong.size)
    return Relation(("input not set",), detail, 0.0, float(absurd.mean()))


def _passed_through(step: Step) -> Optional[Relation]:
    """The operator did nothing."""
    for position in step.data():
        error = _distance((step.inputs[position],), step.actual)
        if error is not None and error <= step.tolerance:
            return Relation(("other operator",), "it hands its input on", error, 1.0)
    return None


def _dropped(step: Step) -> Optional[Explanation]:
    """Values of a Dropout are either 0 or larger by one factor."""
    rate = float(step.node.attributes.get("p", "0.5"))
    scaled = step.inputs[0] / (1 - rate)
    kept = step.actual[0] != 0
    error = _distance((np.where(kept, scaled, 0).astype(np.float32),), step.actual[:1])
    if error is None or error > step.tolerance or kept.all():
        return None
    share = 1 - float(kept[step.inputs[0] != 0].mean())
    detail = f"{share:.3g} of its values are 0, the others {1 / (1 - rate):.3g} times as large"
    return Explanation(("training-mode Dropout",), step.node.name, detail, error)


def _scaled(step: Step) -> Optional[Relation]:
    """One factor: the number of a scalar operator, or of what normalises by the whole batch."""
    ours, theirs = step.expected[0].astype(np.float64), step.actual[0].astype(np.float64)
    if (
        ours.shape != theirs.shape
        or ours.dtype.kind != "f"
        or not np.isfinite(theirs).all()
        or ours.size < 16
        or len(ours) < 2
    ):
        return None
    for centre, words in ((ours.mean(axis=0), "every sample"), (ours.mean(), "all")):
        for spread, more in ((1.0, ""), (ours.std(axis=0) + 0.0, ", by the standard deviation")):
            with np.errstate(all="ignore"):
                error = float(np.abs((ours - centre) / spread - theirs).max())
            if error <= step.tolerance:
                return Relation(("batch dependence",), f"less the mean over the batch of {words}{more}", error, 1.0)
    for mean in (0.0, float(ours.mean())):
        power = float(np.square(ours - mean).sum())
        factor = float(((ours - mean) * theirs).sum()) / power if power > 0 else 0.0
        error = float(np.abs((ours - mean) * factor - theirs).max())
        if factor == 0.0 or error > step.tolerance:
            continue
        deviation = float(ours.std())
        if deviation and abs(factor * deviation - 1) < 1e-3:
            return Relation(("batch dependence",), "divided by the standard deviation over the batch", error, 1.0)
        if mean == 0.0 and step.node.operator.endswith("_scalar"):
            return Relation(("operator attribute",), f"{factor:.9g} times as large", error, 1.0)
    return None


def _deduced(step: Step) -> Optional[Explanation]:
    """What no finite replay shows: parameters that are noise, or no numbers at all."""
    names = list(step.parameters.values())
    if not names:
        return None
    weight = names[0]
    if step.node.operator.startswith("BatchNorm"):
        found = _unbound_statistics(step)
        return Explanation(("auxiliary unbound",), found[0][4:], found[1], float("nan")) if found else None
    if all(np.isfinite(array).all() for array in step.inputs):
        theirs, ours = step.actual[0], step.expected[0]
        bad = ~np.isfinite(theirs) if theirs.dtype.kind == "f" else np.zeros(theirs.shape, bool)
        absurd = bad | (np.abs(np.where(bad, 0, theirs)) > ABSURD * max(largest(ours), 1e-30))
        axis = 1 if absurd.ndim > 1 else 0
        channels = np.moveaxis(absurd, axis, 0).reshape(absurd.shape[axis], -1).mean(axis=1)
        touched = channels > 0
        detail = f"uninitialised: {int(absurd.sum())} of {absurd.size} results are no numbers or beyond all measure"
        if touched.mean() > _TOUCHED and len(channels) > 1:
            return Explanation((unbound(weight),), weight[4:], detail, float("nan"))
        # A single value that is no number spoils all of its channel, and no other.
        if touched.sum() == 1 and channels[touched].min() > 0.5:
            detail = f"channel {int(np.argmax(channels))} alone gives no numbers"
            return Explanation(("one corrupted value",), weight[4:], detail, float("nan"))
    if len(step.inputs) > 1 and step.actual[0].shape == step.expected[0].shape:
        noise = is_like_noise(step.node, list(step.inputs), step.actual[0])
        if noise:
            return Explanation((unbound(weight),), weight[4:], noise, float("nan"))
    return None


def unbound(full_name: str) -> str:
    """What it is called if nothing was bound to a parameter."""
    if "codebook" in full_name:
        return "codebook unbound"
    return "auxiliary unbound" if full_name.startswith("aux:") else "argument unbound"


def _unbound_statistics(step: Step) -> Optional[tuple[str, str]]:
    """Whether a BatchNorm's moving statistics are noise: a variance below 0 has no root."""
    axis = int(step.node.attributes.get("axis", "1")) % step.actual[0].ndim
    channels = np.moveaxis(step.actual[0], axis, 0).reshape(step.actual[0].shape[axis], -1)
    dead = ~np.isfinite(channels).any(axis=1)
    if not np.isfinite(step.inputs[0]).all() or not dead.any() or not np.isfinite(channels[~dead]).all():
        return None
    variance = step.parameters.get(4, next(iter(step.parameters.values())))
    return variance, f"{int(dead.sum())} of {len(dead)} channels are NaN: noise in the place of the variance"
