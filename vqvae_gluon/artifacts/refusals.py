"""What MXNet says where it refuses a graph or a run, and the remedy of each kind. The C++ side
(cpp_bindings/src/refusal.cc) has the same table."""

import re
from collections.abc import Collection

SYMBOL_FILE = "copy the file again, or give the -symbol.json that net.export(prefix) of MXNet 1.9.1 writes"
_CAST = "cast the network by net.cast('float32') before net.export(prefix)"

# MXNet's words, and the remedy: of a graph that is refused,
_OF_GRAPHS = (
    (
        re.compile("Cannot find custom operator"),
        "the operator is written in Python, and exists only in a process that registers it: import its module before "
        "vqvae_gluon.parity.compare; for other programs, build the network of MXNet's own operators",
    ),
    (
        re.compile("there is no operator|is not registered"),
        "MXNet 1.9.1 does not have it: load the library that does, or build the network of MXNet's own operators",
    ),
    (re.compile(""), SYMBOL_FILE),
)
# and of one that cannot be run.
_OF_RUNS = (
    (re.compile("FP16 gemm on cpu"), f"MXNet computes no float16 products on a CPU: {_CAST}"),
    (re.compile("[Mm]emory"), "feed smaller batches"),
    (
        re.compile("[Ss]hape|could not be broadcast|dimension"),
        "feed inputs of the shapes that the graph was made for (--input NAME:SHAPE)",
    ),
    (re.compile(""), "use another runtime, or another operator in the network"),
)
# Two types that do not fit each other.
_TYPES = re.compile(r"Expected '(\w+)' v\.s\. given '(\w+)'|expected (float\d+|u?int\d+), got (float\d+|u?int\d+)")
# Where in MXNet's source a check failed, and its expression where words follow.
_PLACE = re.compile(r"MXNetError: |\[\d\d:\d\d:\d\d\] \S+:\d+: |Check failed: .*?: (?=[^:\s])")


def graph_refusal(reason: str) -> str:
    """Why a graph is refused, and the remedy; the reason is as :func:`vqvae_gluon.compat.mxnet_reason` gives it."""
    return _told(reason, _OF_GRAPHS)


def run_refusal(reason: str, fed: Collection[str] = ()) -> str:
    """Why a graph cannot be run, or not for these shapes, and the remedy.

    Args:
        reason: as :func:`vqvae_gluon.compat.mxnet_reason` gives it.
        fed: NumPy's names of the types of the inputs.
    """
    types = _TYPES.search(reason)
    if types is None:
        return _told(reason, _OF_RUNS)
    return f"{_PLACE.sub('', reason)}; {_one_type({name for name in types.groups() if name}, set(fed))}"


def _told(reason: str, table: tuple[tuple[re.Pattern, str], ...]) -> str:
    return f"{_PLACE.sub('', reason)}; {next(remedy for words, remedy in table if words.search(reason))}"


def _one_type(types: set[str], fed: set[str]) -> str:
    stored = types - fed
    if len(stored) != 1 or len(types) == 1:
        return f"the types of inputs and parameters do not fit: {_CAST}"
    (wanted,) = stored
    if wanted in ("float16", "bfloat16"):
        return f"the parameters are {wanted}: {_CAST}"
    return f"feed {wanted}, the type of the parameters (--input NAME:SHAPE:{wanted})"
