"""What MXNet says where it refuses a graph or a run, and the remedy of each kind. The C++ side
(cpp_bindings/src/refusal.cc) has the same table."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from types import MappingProxyType

SYMBOL_FILE = "copy the file again, or give the -symbol.json that net.export(prefix) of MXNet 1.9.1 writes"
SHAPES = "feed inputs of the shapes that the graph was made for (--input NAME:SHAPE)"
_CAST = "cast the network by net.cast('float32') before net.export(prefix)"

# MXNet's words, and the remedy: of a graph that is refused,
_OF_GRAPHS = (
    (
        re.compile("Cannot find custom operator|calls a function of the program"),
        "the operator is written in Python, and exists only in a process that registers it: import its module before "
        "vqvae_gluon.parity.compare; for other programs, build the network of MXNet's own operators",
    ),
    (
        re.compile("there is no operator|is not registered"),
        "MXNet 1.9.1 does not have it: build the network of MXNet's own operators, or load the library that has it and "
        "allow it (--allow-operator NAME)",
    ),
    (
        re.compile("is refused: it "),
        "build the network of operators that compute tensors from tensors; where you trust the file, allow this one "
        "(--allow-operator NAME)",
    ),
    (re.compile(""), SYMBOL_FILE),
)
# and of one that cannot be run.
_OF_RUNS = (
    (
        re.compile("FP16 gemm on cpu|float16 .*only supported by CuDNN|dot only supports"),
        f"MXNet computes no float16 products on a CPU: {_CAST}",
    ),
    (
        re.compile("Unsupported (data )?type|only support floating point|data type do not match"),
        f"MXNet does not compute this type here: feed float32, or {_CAST}",
    ),
    (re.compile("[Mm]emory"), "feed smaller batches"),
    (re.compile("[Ss]hape|could not be broadcast|dimension|should be [0-9]D"), SHAPES),
    (re.compile(""), "use another runtime, or another operator in the network"),
)
# Two types that do not fit each other.
_TYPES = re.compile(
    r"Expected '(\w+)' v\.s\. given '(\w+)'"
    r"|expected (?:data type )?(float\d+|u?int\d+), got (?:data type )?(float\d+|u?int\d+)"
    r"|Provided = (\w+), inferred type = (\w+)"
)
_FLOATING = ("float32", "float64", "float16", "bfloat16")
_HALVES = ("float16", "bfloat16")
# Where in MXNet's source a check failed, and its expression where words follow.
_PLACE = re.compile(
    r"MXNetError: |Error in operator (?=\S+: )|\[\d\d:\d\d:\d\d\] \S+:\d+: |Check failed: .*?: (?=[^:\s])"
)


def graph_refusal(reason: str) -> str:
    """Why a graph is refused, and the remedy; the reason is as :func:`vqvae_gluon.compat.mxnet_reason` gives it."""
    return _told(reason, _OF_GRAPHS)


def shape_refusal(reason: str) -> str:
    """Why a graph has no shapes for its inputs, ``<node>: <why>`` where MXNet tells the node. :data:`SHAPES` is the
    remedy."""
    return _PLACE.sub("", reason)


def run_refusal(reason: str, fed: Collection[str] = (), parameters: Mapping[str, str] = MappingProxyType({})) -> str:
    """Why a graph cannot be run, and the remedy.

    Args:
        reason: as :func:`vqvae_gluon.compat.mxnet_reason` gives it.
        fed: NumPy's names of the types of the inputs.
        parameters: NumPy's names of their types, by name.
    """
    types = _TYPES.search(reason)
    if types is None:
        return _told(reason, _OF_RUNS)
    return f"{_PLACE.sub('', reason)}; {_one_type(set(filter(None, types.groups())), fed, parameters)}"


def _told(reason: str, table: tuple[tuple[re.Pattern, str], ...]) -> str:
    return f"{_PLACE.sub('', reason)}; {next(remedy for words, remedy in table if words.search(reason))}"


def _one_type(types: Collection[str], fed: Collection[str], parameters: Mapping[str, str]) -> str:
    """The remedy where two types do not fit, of the inputs and the parameters or of two parameters. MXNet may have
    no name for the type of an input."""
    among = {name: kind for name, kind in sorted(parameters.items()) if kind in types}
    usual = _usual(among.values())
    odd = [name for name, kind in among.items() if kind != usual and kind not in fed]
    if usual in _HALVES:
        return f"the parameters are {usual}: {_CAST}"
    if len(odd) == 1:
        return f"the parameter {odd[0]} is {among[odd[0]]}: cast it to {usual} before net.export(prefix)"
    if odd:
        return f"{len(odd)} parameters are not {usual}, {odd[0]} is {among[odd[0]]}: {_CAST}"
    if among and usual not in fed:
        return f"feed {usual}, the type of the parameters (--input NAME:SHAPE:{usual})"
    return f"the types of inputs and parameters do not fit: {_CAST}"


def _usual(types: Collection[str]) -> str:
    """The floating type that most have, float32 if several do or none has one."""
    counts = Counter(types)
    return max(_FLOATING, key=lambda kind: counts[kind])
