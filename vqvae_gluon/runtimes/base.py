"""What every runtime can do: run a graph or a whole bundle and record everything."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vqvae_gluon.artifacts.bundle import GraphFiles
from vqvae_gluon.artifacts.trace import Trace

# The stages of a bundle's trace, in the order of the data.
INPUT, ENCODER, DECODER, OUTPUT = "input", "encoder", "decoder", "output"


class Runtime(ABC):
    """Runs exported networks.

    Attributes:
        name: what the command line calls it.
    """

    name: str

    @abstractmethod
    def trace_graph(self, files: GraphFiles, inputs: dict[str, np.ndarray], stage: str, path: Path) -> Trace:
        """Run one graph and record its inputs and the output of every node, as one stage.

        Args:
            files: the exported network.
            inputs: values by the name of the input.
            stage: what the trace calls it.
            path: directory for the trace.

        Raises:
            InputError: the network or an input was rejected.
            RuntimeFailure: it could not be run.
        """

    @abstractmethod
    def trace_bundle(self, bundle: Path, images: Sequence[Path], path: Path) -> Trace:
        """Reconstruct images as a deployment would, and record the way there.

        Args:
            bundle: directory of the bundle. Its digests are not checked: the numbers of an altered bundle are wanted.
            images: PNG and JPEG files of one size, or one ``.npy`` file.
            path: directory for the trace.

        Returns:
            A trace with four stages: ``input`` (``pixels``), ``encoder`` and ``decoder`` (every node), and ``output``:
            ``codes`` and ``reconstruction`` of the graphs run *without* taps, ``image`` (uint8), and ``file``, the
            pixels of the PNG files that were written.

        Raises:
            InputError: the bundle or an image was rejected.
            RuntimeFailure: it could not be run.
        """
