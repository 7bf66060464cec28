"""Where in a specimen faults can be planted: first, middle and last of its layers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Optional, TypeVar

import numpy as np

from vqvae_gluon.artifacts.binding import Network, read_network
from vqvae_gluon.artifacts.graph import Node
from vqvae_gluon.parity.specimens import Specimen
from vqvae_gluon.parity.stages import GRAPH

KERNELS = ("Convolution", "Deconvolution", "FullyConnected")
_T = TypeVar("_T")
_PLACES = {1: ("only",), 2: ("first", "last"), 3: ("first", "middle", "last")}


@dataclass(frozen=True)
class Layer:
    """A node, and what it is called at its place.

    Attributes:
        weight: full name of its kernel; empty if it has none of its own.
    """

    place: str
    stage: str
    node: Node
    weight: str

    @property
    def key(self) -> str:
        return f"{self.stage}/{self.node.name}"

    def __str__(self) -> str:
        return f"{self.place}, {self.key}"


class Site:
    """A specimen as those see it who plant."""

    def __init__(self, specimen: Specimen):
        self.specimen = specimen
        self.networks: dict[str, Network] = {stage: read_network(files) for stage, files in specimen.stages.items()}
        self.nodes = [(stage, node) for stage, network in self.networks.items() for node in network.graph.operators()]
        self.is_bundle = specimen.bundle is not None

    @cached_property
    def images(self) -> np.ndarray:
        return np.load(self.specimen.images)

    @property
    def channels(self) -> int:
        return int(self.images.shape[3])

    @property
    def stages(self) -> list[str]:
        return list(self.networks)

    def layers(self, accepted: Callable[[Node], object]) -> list[Layer]:
        """First, middle and last of the nodes that are accepted."""
        found = [(stage, node, self._weight(node)) for stage, node in self.nodes if accepted(node)]
        return [Layer(place, *entry) for place, entry in spread(found)]

    def kernels(self, accepted: Callable[[np.ndarray], object] = np.size) -> list[Layer]:
        """First, middle and last of the layers with a kernel of their own that is accepted."""
        return self.layers(lambda node: bool(self._weight(node)) and accepted(self._parameters[self._weight(node)]))

    def operators(self, *names: str) -> list[Layer]:
        """First, middle and last of some operators."""
        return self.layers(lambda node: node.operator in names)

    @cached_property
    def _parameters(self) -> dict[str, np.ndarray]:
        return {name: values for network in self.networks.values() for name, values in network.parameters.items()}

    def _weight(self, node: Node) -> str:
        name = f"arg:{node.inputs[1][0]}" if node.operator in KERNELS else ""
        return name if name in self._parameters else ""

    def first_consumer(self, names: Mapping[str, Sequence[str]]) -> str:
        """The first node that takes one of some parameters, given by stage."""
        return next(
            f"{stage}/{node.name}"
            for stage, node in self.nodes
            if any(source in [name[4:] for name in names.get(stage, ())] for source, _ in node.inputs)
        )

    def named(self, ending: str, operator: str = "") -> Optional[str]:
        """The first node whose name ends so; None if there is none."""
        found = (node for _, node in self.nodes if node.name.endswith(ending) and operator in ("", node.operator))
        return next((node.name for node in found), None)

    def input(self, is_seen: bool) -> str:
        """The tensor at which a fault of the input acts first; whether the pixels show it."""
        return ("input/pixels" if is_seen else "input/data") if self.is_bundle else f"{GRAPH}/data"


def spread(items: Sequence[_T]) -> list[tuple[str, _T]]:
    """First, middle and last of some items, and what they are called."""
    chosen = sorted({0, (len(items) - 1) // 2, len(items) - 1}) if items else []
    return [(place, items[i]) for place, i in zip(_PLACES.get(len(chosen), ()), chosen)]
