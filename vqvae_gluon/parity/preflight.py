"""What can be said before anything is run: the two sides' files against the manifest, the graphs and each other."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np

from vqvae_gluon.artifacts.binding import Finding, Network, check_binding
from vqvae_gluon.artifacts.bundle import STAGES, Bundle, GraphFiles
from vqvae_gluon.artifacts.fusion import misfused
from vqvae_gluon.artifacts.graph import Graph, Node
from vqvae_gluon.errors import InputError

# Findings of these causes are a divergence even if no image shows it: another network was deployed.
PARAMETER_DIFFERS = "parameter differs"
GRAPH_DIFFERS = "graph differs"
PREFIX_LOST = "prefix lost"
# This one alone is none: a file that was saved again holds the same network.
DIGEST_DIFFERS = "digest differs"

# Attributes that choose how an operator is computed on a GPU, or hold notes of the front end; not what it computes.
_HINTS = {"cudnn_off", "cudnn_tune", "workspace"}


def check_bundles(
    reference: Bundle,
    candidate: Bundle,
    ours: Mapping[str, Network],
    theirs: Mapping[str, Network],
    images: tuple[int, ...],
) -> list[Finding]:
    """Findings about the candidate's files, the weightiest first.

    Args:
        ours: the reference's networks, by stage.
        theirs: the candidate's.
        images: shape (N, H, W, C) of what will be fed.
    """
    count, height, width, channels = images
    stride = reference.stride
    inputs: dict[str, dict[str, tuple[int, ...]]] = {
        "encoder": {"data": (count, channels, height, width)},
        "decoder": {"codes": (count, height // stride, width // stride)},
    }
    findings: list[Finding] = []
    for stage in STAGES:
        findings += check_networks(ours[stage], theirs[stage], inputs[stage], stage)
    damage = candidate.damage()
    if damage:
        file, why = damage.split(": ", 1)
        findings.append(Finding(DIGEST_DIFFERS, file, why))
    return findings


def check_networks(ours: Network, theirs: Network, inputs: Mapping[str, tuple[int, ...]], stage: str) -> list[Finding]:
    """Findings about one exported network of the candidate. See :func:`check_bundles`.

    Args:
        inputs: shapes of what will be fed, by name.
    """
    findings = check_binding(theirs, inputs)
    if ours is not theirs:
        if theirs.lost and not ours.lost:
            detail = f"{theirs.lost[0]} has no prefix arg: or aux:, so that MXPredCreate and others do not bind it"
            findings.append(Finding(PREFIX_LOST, theirs.files.params.name, detail))
        findings += _parameter_findings(ours.parameters, theirs.parameters)
        findings += _graph_findings(ours.graph, theirs.graph)
    return [dataclasses.replace(finding, stage=stage) for finding in findings]


def fusion_notes(networks: Mapping[str, Network]) -> list[str]:
    """What is to be said of graphs that MXNet's executors get wrong, whatever runs them here.

    Args:
        networks: by stage.
    """
    notes = []
    for stage, network in networks.items():
        names = misfused(network.graph)
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            notes.append(
                f"{stage}: MXNet's executors compute {names[0]}{more} wrongly: they fuse a layer whose output "
                "something else takes, too; use the engine cachedop, set MXNET_SUBGRAPH_BACKEND=NONE, or put an "
                "Activation behind that layer"
            )
    return notes


def _parameter_findings(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> list[Finding]:
    findings = []
    for name, expected in ours.items():
        actual = theirs.get(name)
        if actual is None:
            continue  # check_binding names it.
        detail = difference(expected, actual)
        if detail:
            findings.append(Finding(PARAMETER_DIFFERS, name[4:], detail))
    return findings


def unreadable(files: GraphFiles, error: InputError, stage: str) -> Finding:
    """What is to be said of files that were refused."""
    return Finding("file refused", files.params.name, str(error), stage)


def difference(expected: np.ndarray, actual: np.ndarray) -> Optional[str]:
    """How two parameters differ, in a few words; None if they are the same bit for bit."""
    if (expected.dtype, expected.shape) != (actual.dtype, actual.shape):
        return f"{expected.dtype} {expected.shape} against {actual.dtype} {actual.shape}"
    unequal = np.frombuffer(expected.tobytes(), np.uint8) != np.frombuffer(actual.tobytes(), np.uint8)
    unequal = unequal.reshape(expected.size, expected.itemsize).any(axis=1)
    if not unequal.any():
        return None
    first = int(np.argmax(unequal))
    place = tuple(int(i) for i in np.unravel_index(first, expected.shape))
    values = f"{expected.flat[first]:.9g} against {actual.flat[first]:.9g}"
    return f"{int(unequal.sum())} of {expected.size} values, the first at {place}: {values}"


def _meaning(node: Node) -> dict[str, str]:
    return {key: value for key, value in node.attributes.items() if key not in _HINTS and not key.startswith("__")}


def changed_attributes(node: Node, other: Node) -> dict[str, tuple[Optional[str], Optional[str]]]:
    """Attributes of two nodes that are not the same and bear on what is computed: both values, by name."""
    a, b = _meaning(node), _meaning(other)
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def _graph_findings(reference: Graph, candidate: Graph) -> list[Finding]:
    ours: dict[str, Any] = {node.name: node for node in reference.nodes}
    theirs: dict[str, Any] = {node.name: node for node in candidate.nodes}
    findings = []
    if reference.outputs != candidate.outputs:
        detail = f"the graph's outputs are {candidate.outputs}, not {reference.outputs}"
        findings.append(Finding(GRAPH_DIFFERS, reference.outputs[0][0], detail))
    for name, node in ours.items():
        other = theirs.get(name)
        if other is None:
            findings.append(Finding(GRAPH_DIFFERS, name, "the candidate's graph does not have it"))
        elif (node.operator, node.inputs) != (other.operator, other.inputs):
            findings.append(Finding(GRAPH_DIFFERS, name, "has another operator or other inputs"))
        elif not node.is_variable:
            changed = changed_attributes(node, other).items()
            findings += [Finding(GRAPH_DIFFERS, name, f"{key} is {a} against {b}") for key, (a, b) in changed]
    for name in sorted(theirs.keys() - ours.keys()):
        findings.append(Finding(GRAPH_DIFFERS, name, "the reference's graph does not have it"))
    return findings
