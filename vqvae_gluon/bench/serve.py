"""What a Python peer's process runs: it loads one thing, says ``ready``, and answers.

    python -m vqvae_gluon.bench.serve KIND JOB.json

    run         COUNT  NUMBER   repeats input NUMBER: the seconds of the whole
    encode      IN.npy OUT.npy  images to codes, in parts of the first input's size: "done"
    reconstruct IN.npy OUT.npy  images to images, as they are timed, in parts as large: "done"

Only the first is there for what is no bundle. ``cpp_bindings/tools/measure.cc`` is the same in C++.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np

from vqvae_gluon.errors import RuntimeFailure, VQVAEError

_AGREES = 1e-3  # relative, the first step of training


class Served(NamedTuple):
    """What a peer does.

    Attributes:
        run: takes one of the inputs; of a bundle, images to images.
        inputs: that it is run on.
        encode: images to codes; None where there are no codes.
    """

    run: Callable[[Any], Any]
    inputs: list[Any]
    encode: Optional[Callable[[np.ndarray], np.ndarray]] = None


# Each in a module of its own, whose function ``serve`` takes the job and gives a Served. Modules are loaded by
# name because no process may load the libraries of another peer.
_KINDS = {
    "gluon": "serve_gluon",
    "onnxruntime": "serve_onnxruntime",
    "torch": "serve_torch",
    "train_gluon": "train_gluon",
    "train_torch": "train_torch",
    "matmul": "serve_matmul",
}


def check_start(name: str, wanted: Mapping[str, Any], loss: float, norm: float) -> None:
    """See that a first step of training was what it should be.

    Raises:
        RuntimeFailure: it was not.
    """
    for what, value, known in (("loss", loss, wanted["loss"]), ("gradient", norm, wanted["gradient_norm"])):
        if not abs(value - known) <= _AGREES * abs(known):
            raise RuntimeFailure(name, f"computes something else: its first {what} is {value:g}, not {known:g}")


def main(words: list[str]) -> int:
    kind, path = words
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # What libraries print is no answer.
    try:
        module = importlib.import_module(f"vqvae_gluon.bench.{_KINDS[kind]}")
        answer(module.serve(json.loads(Path(path).read_text())), answers)
    except VQVAEError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def answer(served: Served, answers) -> None:
    for _ in range(2):
        served.run(served.inputs[0])
    print("ready", file=answers)
    for line in sys.stdin:
        words = line.rstrip("\n").split("\t")
        if words[0] == "run":
            count, number = int(words[1]), int(words[2])
            value = served.inputs[number]
            served.run(value)  # The caches are another's, and what is planned for a new shape is no part of its time.
            begin = time.perf_counter()
            for _ in range(count):
                served.run(value)
            print(time.perf_counter() - begin, file=answers)
        else:
            function = {"encode": served.encode, "reconstruct": served.run}[words[0]]
            assert function is not None
            values, size = np.load(words[1]), len(served.inputs[0])
            np.save(words[2], np.concatenate([function(values[i : i + size]) for i in range(0, len(values), size)]))
            print("done", file=answers)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
