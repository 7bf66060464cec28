"""One call of every operator that graphs may hold, and its attributes set to what no network has."""

import functools
import itertools
import json
import math
import os
import struct
from pathlib import Path
from random import Random
from typing import Any

from mutate.cases import ROOT, Case
from mutate.zips import npy_bytes, zip_bytes

VALUES = ["0", "-1", "2147483647", "10000000", "nan", "inf", "many", ""]
# What operators want that have no default.
_REQUIRED = {
    "kernel": "(2, 2)",
    "num_filter": "4",
    "num_hidden": "4",
    "num_outputs": "1",
    "num_args": "2",
    "pool_type": "max",
    "act_type": "relu",
    "mode": "edge",
    "pad_width": "(0, 0, 0, 0, 1, 1, 1, 1)",
    "input_dim": "8",
    "output_dim": "4",
    "axis": "1",
    "begin": "(0, 0)",
    "end": "(1, 1)",
    "depth": "4",
    "reps": "(1, 2)",
    "repeats": "2",
    "scalar": "0.5",
    "a_min": "0",
    "a_max": "1",
    "shape": "(2, 3)",
    "newshape": "(-1,)",
    "block_size": "2",
    "scale": "2",
    "sample_type": "nearest",
    "dtype": "float32",
    "transform_type": "affine",
    "sampler_type": "bilinear",
    "target_shape": "(4, 4)",
    "pooled_size": "(2, 2)",
    "spatial_scale": "1.0",
    "state_size": "4",
    "num_layers": "1",
    "nsize": "3",
    "value": "1.0",
    "low": "0",
    "high": "4",
    "start": "0",
    "stop": "4",
    "step": "1",
    "N": "3",
    "num": "3",
    "heads": "1",
    "indices": "(0, 1)",
    "group_size": "2",
    "out_dim": "4",
    "sections": "1",
    "size": "(2, 2)",
    "fill_value": "1.0",
    "source": "(0,)",
    "destination": "(1,)",
    "dimensions": "(2, 2)",
    "range_max": "8",
    "num_arrays": "1",
    "output_size": "(8, 8)",
    "p": "0.5",
}
_TABLE = ROOT / "vqvae_gluon" / "artifacts" / "operators.json"
_TENSORS = ("NDArray", "Symbol", "ndarray")
_SHAPES = [(2, 3, 8, 8), (2, 3), (2, 4, 4), (4,), (3, 3), (1, 12, 4, 4), (2, 3, 8)]


@functools.cache
def operators() -> list[str]:
    """Those that graphs may hold."""
    table = json.loads(_TABLE.read_text())
    return sorted(table["bundles"] + table["others"])


def call_case(call: dict[str, Any], random: Random, is_sound: bool, words: tuple[str, ...]) -> Case:
    """A call with another value of one or two attributes of its operator, as a plain export.

    Args:
        call: of :func:`find_call`.
        words: more of them for both programs.
    """
    graph = json.loads(json.dumps(call["graph"]))
    node, names = graph["nodes"][-1], call["attributes"]
    if not is_sound:
        for name in random.sample(names, min(len(names), random.choice([1, 1, 1, 2]))):
            node["attrs"][name] = random.choice(VALUES)
    symbol = json.dumps(graph).encode()
    files = {"net-symbol.json": symbol, "net-0000.params": struct.pack("<4Q", 0x112, 0, 0, 0)}
    both = ["--symbol", "net-symbol.json", "--params", "net-0000.params", *words]
    cpp = [*both, "--trace", "out", "--taps", random.choice(["all", "none"])]
    python = ["parity", "record", *both, "--runtime", "gluon", "--output", "out"]
    members = []
    for row in graph["nodes"][:-1]:
        shape = tuple(call["shapes"].get(row["name"], (2, 3)))
        count = math.prod(shape)
        values = struct.pack(f"<{count}f", *(n % 3 for n in range(count)))
        members.append((f"{row['name']}.npy", npy_bytes("<f4", shape, values)))
        cpp += ["--input", f"{row['name']}={row['name']}.npy"]
        python += ["--input", f"{row['name']}:{','.join(map(str, shape))}"]
    if members:
        files.update(members)
        files["feed.npz"] = zip_bytes(members)
        python += ["--data", "feed.npz"]
    what = "sound" if is_sound else f"{node['op']} {node['attrs']}"
    return Case(what, files, {"cpp": cpp, "python": python}, symbol)


def no_call(operator: str) -> dict[str, Any]:
    """Of an operator for which none is found."""
    return {"graph": _graph(operator, {}, 1), "shapes": {}, "attributes": []}


def find_call(operator: str) -> str:
    """JSON of a call of an operator: ``graph``, a symbol file of one node, ``shapes`` of its inputs, empty where none
    were found that fit, and ``attributes``, the names of all that it takes. ``null`` if MXNet crashes on what is tried;
    that is done in a process of its own."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with os.fdopen(write, "w") as pipe:
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            print(json.dumps(_call(operator)), file=pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read().strip()
    os.waitpid(pid, 0)
    return text or "null"


def _call(operator: str) -> dict[str, Any]:
    from vqvae_gluon.artifacts.graph import parse_graph
    from vqvae_gluon.artifacts.proof import describe_operator, prove
    from vqvae_gluon.compat import mx
    from vqvae_gluon.errors import InputError

    takes = {name: kind for name, kind in describe_operator(operator).items() if not kind.startswith(_TENSORS)}
    attrs = {name: _REQUIRED.get(name, "1") for name, kind in takes.items() if "required" in kind}
    for inputs in range(8):
        graph = _graph(operator, attrs, inputs)
        few = [itertools.product(_SHAPES, repeat=count) for count in range(min(inputs, 1), min(inputs, 2) + 1)]
        for shapes in itertools.chain.from_iterable(few):
            try:
                prove(parse_graph(json.dumps(graph), Path(operator)))
                symbol = mx.sym.load_json(json.dumps(graph))
                given = {f"in{k}": shape for k, shape in enumerate(shapes)}
                arguments, _, auxiliaries = symbol.infer_shape(**given)
            except (mx.MXNetError, ValueError, InputError):
                continue
            if arguments is not None and all(map(all, arguments + auxiliaries)):
                names = symbol.list_arguments() + symbol.list_auxiliary_states()
                found = dict(zip(names, map(list, arguments + auxiliaries)))
                return {"graph": graph, "shapes": found, "attributes": list(takes)}
    return {"graph": _graph(operator, attrs, 2), "shapes": {}, "attributes": list(takes)}


def _graph(operator: str, attrs: dict[str, str], inputs: int) -> dict[str, Any]:
    rows = [{"op": "null", "name": f"in{k}", "inputs": []} for k in range(inputs)]
    node = {"op": operator, "name": "node", "attrs": attrs, "inputs": [[k, 0, 0] for k in range(inputs)]}
    graph = {"nodes": [*rows, node], "arg_nodes": list(range(inputs)), "heads": [[inputs, 0, 0]]}
    return {**graph, "attrs": {"mxnet_version": ["int", 10901]}}
