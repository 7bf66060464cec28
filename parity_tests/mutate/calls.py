"""One call of every operator that graphs may hold, and its attributes set to what no network has.

``python -m mutate.calls FILE`` writes the calls, which takes MXNet: for each operator attributes and inputs with which
it has shapes, where some were found. The process that starts the damaged ones stays small, and reads them.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

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
_HERE = Path(__file__).resolve().parent
_MANY = 5000
_TENSORS = ("NDArray", "Symbol", "ndarray")
_SHAPES = [(2, 3, 8, 8), (2, 3), (2, 4, 4), (4,), (3, 3), (1, 12, 4, 4), (2, 3, 8)]


def damage_call(call: dict[str, Any], random: Random) -> tuple[str, bytes]:
    """The symbol file of a call, with another value of one or two attributes of its operator."""
    graph = json.loads(json.dumps(call["graph"]))
    node = graph["nodes"][-1]
    for name in random.sample(call["attributes"], min(len(call["attributes"]), random.choice([1, 1, 1, 2]))):
        node["attrs"][name] = random.choice(VALUES)
    return f"call: {node['op']} {node['attrs']}", json.dumps(graph).encode()


def find_calls(path: Path) -> None:
    """Write a call of each operator that graphs may hold, a line each: ``graph``, a symbol file of one node, ``shapes``
    of its inputs, empty where none were found that fit, and ``attributes``, the names of all that it takes.

    MXNet may crash on inputs that do not fit, so another process looks, and after a crash one more.
    """
    path.touch()
    command = [sys.executable, "-m", "mutate.calls", str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (_HERE.parent, _HERE.parents[1])))}
    while subprocess.run(
        command, env=environment, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ).returncode:
        done = len(path.read_text().splitlines())
        with path.open("a") as file:
            print(json.dumps({"graph": _graph("null", {}, 1), "shapes": {}, "attributes": []}), file=file)
        if done > _MANY:
            raise RuntimeError("the operators' calls cannot be found")


def _look(path: Path) -> None:
    from vqvae_gluon.artifacts.operators import table

    known = table()
    done = len(path.read_text().splitlines())
    with path.open("a") as file:
        for operator in sorted(known.bundles | known.others)[done:]:
            print(json.dumps(_call(operator)), file=file, flush=True)


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
                shapes = dict(zip(names, map(list, arguments + auxiliaries)))
                return {"graph": graph, "shapes": shapes, "attributes": list(takes)}
    return {"graph": _graph(operator, attrs, 2), "shapes": {}, "attributes": list(takes)}


def _graph(operator: str, attrs: dict[str, str], inputs: int) -> dict[str, Any]:
    rows = [{"op": "null", "name": f"in{k}", "inputs": []} for k in range(inputs)]
    node = {"op": operator, "name": "node", "attrs": attrs, "inputs": [[k, 0, 0] for k in range(inputs)]}
    graph = {"nodes": [*rows, node], "arg_nodes": list(range(inputs)), "heads": [[inputs, 0, 0]]}
    return {**graph, "attrs": {"mxnet_version": ["int", 10901]}}


if __name__ == "__main__":
    _look(Path(sys.argv[1]))
