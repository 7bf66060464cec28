"""What a run is asked for, and what its parts share."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np

from vqvae_gluon.artifacts.bundle import MANIFEST, PRETRAINED, Bundle, open_bundle, open_pretrained
from vqvae_gluon.bench.images import Images, load_images
from vqvae_gluon.bench.peers import FLOAT32, FUSED, PEERS, Peer
from vqvae_gluon.bench.process import Effort, environment
from vqvae_gluon.data.images import to_images
from vqvae_gluon.errors import RuntimeFailure, UsageError
from vqvae_gluon.kernels import MXNET_ALONE, why_not_fused

ALL_BATCHES = (1, 8, 64, 256)
_QUICK_BATCHES = (1, 8)


@dataclass(frozen=True)
class Settings:
    """What was asked for.

    Attributes:
        sections: what is measured.
        bundles: names of those that come with the project, or directories.
        batches: images at once.
        peers: runtimes.
        data: directory of the data set, where it is none that is fetched.
        quick: little and short, to see that all of it works.
    """

    sections: tuple[str, ...]
    bundles: tuple[str, ...]
    batches: tuple[int, ...]
    peers: tuple[str, ...]
    effort: Effort
    data: Optional[Path] = None
    quick: bool = False

    def to_json(self) -> dict[str, Any]:
        """Without the sections, each of which stands for itself, and without places of this machine."""
        data = self.data.name if self.data else None
        bundles = tuple(Path(name).name for name in self.bundles)
        return {**dataclasses.asdict(self), "sections": None, "data": data, "bundles": bundles}


def make_settings(
    sections: Sequence[str],
    bundles: Sequence[str],
    batches: Sequence[int],
    peers: Sequence[str],
    rounds: Optional[int],
    threads: int,
    data: Optional[Path] = None,
    quick: bool = False,
) -> Settings:
    """With the defaults in place of what is empty."""
    effort = Effort(rounds or (3 if quick else 7), *((0.05, 0.02) if quick else (0.15, 0.25)), threads)
    default = [peer.runtime for peer in PEERS if not (quick and peer.runtime == "torch-compile")]  # It takes a minute.
    return Settings(
        tuple(sections),
        tuple(bundles) or (("mnist",) if quick else ("mnist", "cifar10")),
        tuple(sorted(set(batches))) or (_QUICK_BATCHES if quick else ALL_BATCHES),
        tuple(peers or default),
        effort,
        data,
        quick,
    )


@dataclass(frozen=True)
class Subject:
    """A network that is measured.

    Attributes:
        name: of its bundle.
        bundle: in float32.
        reduced: the same network in other precisions, by these.
    """

    name: str
    bundle: Bundle
    reduced: dict[str, Bundle] = field(default_factory=dict)


def open_subjects(names: Sequence[str]) -> list[Subject]:
    """The networks of bundles; those of lower precision join the float32 one of the same network.

    Raises:
        InputError: one is no bundle.
        UsageError: one of lower precision is alone.
    """
    subjects: list[Subject] = []
    reduced: list[Bundle] = []
    for name in dict.fromkeys(names):
        is_ours = (PRETRAINED / name / MANIFEST).is_file() and "/" not in name
        bundle = open_pretrained(name) if is_ours else open_bundle(Path(name))
        if bundle.manifest.get("precision", FLOAT32) == FLOAT32:
            subjects.append(Subject(Path(name).resolve().name, bundle))
        else:
            reduced.append(bundle)
    for bundle in reduced:
        home = [one for one in subjects if _network(one.bundle) == _network(bundle)]
        if not home:
            raise UsageError(bundle.path, "is no float32 bundle; give that of the same network by --bundle, too")
        home[0].reduced[bundle.manifest["precision"]] = bundle
    return subjects


def _network(bundle: Bundle) -> Any:
    return bundle.manifest["config"]["model"], bundle.manifest["data"]


class Bench:
    """What the parts of a run share: settings, networks, images, a directory for files, and what is told."""

    def __init__(self, settings: Settings, directory: Path, note: Callable[[str], None]):
        self.settings = settings
        self.directory = directory
        self.note = note
        self.subjects = open_subjects(settings.bundles)
        self._images: dict[str, Images] = {}

    @property
    def effort(self) -> Effort:
        return self.settings.effort

    def images(self, subject: Subject) -> Images:
        """Of the network's data set, or what there is in its place."""
        if subject.name not in self._images:
            self._images[subject.name] = load_images(subject.bundle, self.settings.data, self.settings.quick)
            self.note(f"{subject.name}: measured with {self._images[subject.name].source}")
        return self._images[subject.name]

    def bundle(self, subject: Subject, precision: str) -> Optional[Bundle]:
        """The network in a precision: what was given, else what ``export`` makes of it now. None in a quick run.

        Raises:
            RuntimeFailure: it could not be made.
        """
        if precision == FLOAT32:
            return subject.bundle
        if precision not in subject.reduced and not self.settings.quick:
            path = self.directory / f"{subject.name}-{precision}"
            command = [sys.executable, "-m", "vqvae_gluon", "export", str(subject.bundle.path)]
            command += ["--precision", precision, "--output", str(path)]
            if precision == "int8":
                images = self.save(f"{subject.name}-pixels", to_images(self.images(subject).calibration))
                command += ["--data", str(images)]
            where = environment(self.effort.threads)
            result = subprocess.run(command, capture_output=True, text=True, check=False, env=where)
            if result.returncode:
                raise RuntimeFailure("export", (result.stderr.strip().splitlines() or ["failed"])[-1])
            subject.reduced[precision] = open_bundle(path)
        return subject.reduced.get(precision)

    def peers(self) -> list[Peer]:
        """Those that were asked for and can be measured here; of the others it is said why not."""
        chosen = []
        for peer in PEERS:
            if peer.runtime in self.settings.peers:
                why = peer.lacks()
                if why is None:
                    chosen.append(peer)
                    if peer.kernels == FUSED and why_not_fused():
                        self.note(MXNET_ALONE.format(peer.runtime, why_not_fused()))
                else:
                    self.note(f"{peer.runtime} is left out: {why}")
        return chosen

    def save(self, name: str, array: np.ndarray) -> Path:
        path = self.directory / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
        return path

    def job(self, kind: str, name: str, **values: Any) -> list[str]:
        """The command that serves a Python peer."""
        path = self.directory / f"{name.replace('/', '-').replace(' ', '-')}.json"
        path.write_text(json.dumps({key: _plain(value) for key, value in values.items()}))
        return [sys.executable, "-m", "vqvae_gluon.bench.serve", kind, str(path)]


def _plain(value: Any) -> Any:
    return [str(one) for one in value] if isinstance(value, list) else str(value) if isinstance(value, Path) else value
