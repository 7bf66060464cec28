"""What every runtime can do: run a graph or a whole bundle and record it."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Optional

import numpy as np

from vqvae_gluon.artifacts.binding import Network
from vqvae_gluon.artifacts.bundle import GraphFiles, open_bundle
from vqvae_gluon.artifacts.graph import is_numpy
from vqvae_gluon.artifacts.refusals import run_refusal
from vqvae_gluon.artifacts.trace import Trace, TraceWriter
from vqvae_gluon.compat import mx, mxnet_reason
from vqvae_gluon.data.images import check_fit, crop, decode_image, encode_png, pad_to, read_images, to_images, to_tensor

# The stages of a bundle's trace, in the order of the data.
INPUT, ENCODER, DECODER, OUTPUT = "input", "encoder", "decoder", "output"

# Name of a tensor, MXNet's name of the operator that made it, and its values.
Recorded = tuple[str, str, np.ndarray]


def why_not_run(error: Exception, inputs: Mapping[str, np.ndarray], network: Network) -> str:
    """Why MXNet could not run a network on these inputs, and the remedy."""
    types = {name[4:]: values.dtype.name for name, values in network.parameters.items()}
    return run_refusal(mxnet_reason(error), {values.dtype.name for values in inputs.values()}, types)


class Runtime(ABC):
    """Runs exported networks.

    Attributes:
        name: what the command line calls it.
        fuses: whether it rewrites a graph before it runs it. Two that do not must agree bit for bit.
        taps_fused: whether nodes that it fuses can be tapped all the same, without being computed in another way.
        wide: whether it computes in float64.
        separate: whether it is a process of its own, which may work while this one does.
        settings: environment variables that it is run with in place of this process's; they may change roundings.
    """

    name: str
    fuses = False
    taps_fused = False
    wide = False
    separate = False
    settings: Mapping[str, str] = MappingProxyType({})

    def without_fusion(self) -> Optional["Runtime"]:
        """The same runtime, fusing nothing; None if it does not fuse."""
        return None

    def notes(self, networks: Iterable[Network]) -> list[str]:
        """What a reader of a comparison should know of this runtime on these networks."""
        return []

    @abstractmethod
    def trace_graph(
        self,
        files: GraphFiles,
        inputs: Mapping[str, np.ndarray],
        stage: str,
        path: Path,
        taps: bool = True,
        keep: Optional[Collection[str]] = None,
    ) -> Trace:
        """Run one graph and record its inputs and its results, as one stage.

        Args:
            files: the exported network.
            inputs: values by the name of the input; those that the graph does not take are ignored.
            stage: what the trace calls it.
            path: directory for the trace.
            taps: record the output of every node; else the graph's own outputs, of a run without taps.
            keep: names of the tensors whose values are written, all when left out. Of the others the trace has the
                digest alone.

        Raises:
            InputError: the network or an input was rejected.
            RuntimeFailure: it could not be run.
        """

    @abstractmethod
    def trace_bundle(self, bundle: Path, images: Sequence[Path], path: Path) -> Trace:
        """Reconstruct images as a deployment would, without taps, and record what goes in and comes out.

        Args:
            bundle: directory of the bundle. Its digests are not checked: the numbers of an altered bundle are wanted.
            images: PNG and JPEG files of one size, or one ``.npy`` file.
            path: directory for the trace.

        Returns:
            A trace with two stages: ``input`` (``pixels`` as they were decoded, ``data`` as the encoder takes them,
            padded) and ``output`` (``codes``, ``reconstruction``, ``image`` in uint8, cropped, and ``file``, the pixels
            of the PNG files that were written).

        Raises:
            InputError: the bundle or an image was rejected.
            RuntimeFailure: it could not be run.
        """


class PythonRuntime(Runtime):
    """A runtime within this process."""

    @abstractmethod
    def outputs(self, files: GraphFiles, inputs: Mapping[str, np.ndarray], taps: bool) -> Iterator[Recorded]:
        """Run one graph; see :meth:`trace_graph`. One tensor at a time, so that the others need not be held."""

    def trace_graph(self, files, inputs, stage, path, taps=True, keep=None):
        writer = TraceWriter(path, self.name, keep)
        for name, values in inputs.items():
            writer.add(stage, name, "input", values)
        with mx.util.np_shape(is_numpy(files.symbol)):
            for name, operator, values in self.outputs(files, inputs, taps):
                writer.add(stage, name, operator, values)
        return writer.close()

    def trace_bundle(self, bundle, images, path):
        opened = open_bundle(bundle, verify=False)
        pixels = read_images(images, opened.channels)
        check_fit(pixels, opened.channels, str(images[0]))
        data = to_tensor(pad_to(pixels, opened.stride))
        ((_, _, codes),) = self.outputs(opened.graph(ENCODER), {"data": data}, False)
        ((_, _, reconstruction),) = self.outputs(opened.graph(DECODER), {"codes": codes}, False)
        result = crop(to_images(reconstruction), *pixels.shape[1:3])
        writer = TraceWriter(path, self.name)
        for name, values in (("pixels", pixels), ("data", data)):
            writer.add(INPUT, name, "input", values)
        written = np.stack([decode_image(encode_png(image), image.shape[2]) for image in result])
        for name, values in (
            ("codes", codes),
            ("reconstruction", reconstruction),
            ("image", result),
            ("file", written),
        ):
            writer.add(OUTPUT, name, "output", values)
        return writer.close()
