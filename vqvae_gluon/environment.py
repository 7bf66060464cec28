"""What the process is given, checked before MXNet is loaded: the variables that it and its OpenMP read, and memory. Of
a value that cannot be read, MXNet ends the process or takes another one; where its threads find no memory, it crashes.
The C++ side (cpp_bindings/src/environment.cc) has the same table.
"""

import mmap
import re
import resource
from collections.abc import MutableMapping
from dataclasses import dataclass

from vqvae_gluon.errors import RuntimeFailure, UsageError

THREADS = "OMP_NUM_THREADS"
_MOST = 2**31 - 1
_SHOWN = 40  # characters of a value
_LONGEST = 1000
# What MXNet maps when it is imported, and how many threads of its own it starts. Measured, and something more.
_ROOM = 512 << 20
_OWN_THREADS = 8
_DEFAULT_STACK = 2 << 20  # What the C library gives a thread where stacks are not limited.


@dataclass(frozen=True)
class _Rule:
    """What a variable's value must be: a pattern, whatever the case of its letters, and the bounds of numbers in it."""

    pattern: str
    wanted: str
    low: int = 0
    high: int = _MOST


_COUNT = _Rule(" *[0-9]{1,10} *", "a whole number from 1 to 1024", 1, 1024)
_COUNTS = _Rule(" *[0-9]{1,10} *(, *[0-9]{1,10} *)*", "whole numbers from 1 to 1024, with commas between them", 1, 1024)
_POSITIVE = _Rule(" *[0-9]{1,10} *", "a whole number from 1 to 2147483647", 1)
_WHOLE = _Rule(" *[0-9]{1,10} *", "a whole number from 0 to 2147483647")
_NODES = _Rule(" *[0-9]{1,10} *", "a whole number from 0 to 1000000", 0, 10**6)  # MXNet makes room for so many.
_WHOLE_OR_NONE = _Rule("-1|[0-9]{1,10}", "a whole number from -1 to 2147483647")
_NUMBER = _Rule(r"[0-9]{1,9}(\.[0-9]{1,9})?", "a number such as 0.5")
_FLAG = _Rule("0|1|true|false", "0, 1, true or false")
_SWITCH = _Rule("0|1", "0 or 1")
_TRUTH = _Rule("true|false", "true or false")

RULES = {
    "OMP_NUM_THREADS": _COUNTS,
    "OMP_THREAD_LIMIT": _POSITIVE,
    "OMP_MAX_ACTIVE_LEVELS": _WHOLE,
    "OMP_MAX_TASK_PRIORITY": _WHOLE,
    "OMP_DEFAULT_DEVICE": _WHOLE,
    "OMP_DYNAMIC": _TRUTH,
    "OMP_NESTED": _TRUTH,
    "OMP_CANCELLATION": _TRUTH,
    "OMP_DISPLAY_ENV": _Rule("true|false|verbose", "true, false or verbose"),
    "OMP_WAIT_POLICY": _Rule("active|passive", "active or passive"),
    "OMP_PROC_BIND": _Rule(
        "true|false|(master|primary|close|spread)(,(master|primary|close|spread))*",
        "true, false, or of master, close and spread some with commas between them",
    ),
    "OMP_SCHEDULE": _Rule(
        "((non)?monotonic:)?(static|dynamic|guided|auto)(,[0-9]{1,9})?", "static, dynamic, guided or auto"
    ),
    "OMP_STACKSIZE": _Rule(" *([0-9]{1,7} *[bk]?|[0-9]{1,4} *m|[1-4] *g) *", "a size up to 4G, such as 4M"),
    "MXNET_ENGINE_TYPE": _Rule(
        "NaiveEngine|ThreadedEngine|ThreadedEnginePerDevice",
        "NaiveEngine, ThreadedEngine or ThreadedEnginePerDevice",
    ),
    "MXNET_TUNING_WEIGHT_SCALE": _NUMBER,
    "MXNET_CPU_WORKER_NTHREADS": _COUNT,
    "MXNET_CPU_PRIORITY_NTHREADS": _COUNT,
    "MXNET_MP_WORKER_NTHREADS": _COUNT,
    "MXNET_GPU_WORKER_NTHREADS": _COUNT,
    "MXNET_GPU_COPY_NTHREADS": _COUNT,
    "MXNET_KVSTORE_REDUCTION_NTHREADS": _COUNT,
    "MXNET_OMP_MAX_THREADS": _COUNT,
    "MXNET_CPU_TEMP_COPY": _COUNT,
    "MXNET_GPU_TEMP_COPY": _COUNT,
    "MXNET_CPU_PARALLEL_RAND_COPY": _COUNT,
    "MXNET_GPU_PARALLEL_RAND_COPY": _COUNT,
    "MXNET_USE_NUM_CORES_OPERATOR_TUNING": _COUNT,
    "MXNET_MKLDNN_CACHE_NUM": _WHOLE_OR_NONE,
    "MXNET_CPU_PARALLEL_SIZE": _WHOLE,
    "MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN": _NODES,
    "MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_FWD": _NODES,
    "MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_BWD": _NODES,
    "MXNET_EXEC_INPLACE_GRAD_SUM_CAP": _WHOLE,
    "MXNET_KVSTORE_BIGARRAY_BOUND": _WHOLE,
    "MXNET_KVSTORE_SLICE_THRESHOLD": _WHOLE,
    "MXNET_KVSTORE_SERIAL_PUSH": _WHOLE,
    "MXNET_KVSTORE_USETREE": _WHOLE,
    "MXNET_MP_OPENCV_NUM_THREADS": _WHOLE,
    "MXNET_PROFILER_AUTOSTART": _WHOLE,
    "MXNET_PROFILER_MODE": _WHOLE,
    "MXNET_QUANTIZATION_VERBOSE": _WHOLE,
    "MXNET_SUBGRAPH_VERBOSE": _WHOLE,
    "MXNET_BACKWARD_DO_MIRROR": _WHOLE,
    "MXNET_ENABLE_GPU_P2P": _WHOLE,
    "MXNET_RNN_USE_WEIGHT_CACHE": _WHOLE,
    "MXNET_USE_MKLDNN_RNN": _WHOLE,
    "MXNET_DISABLE_MKLDNN_CONV_OPT": _WHOLE,
    "MXNET_DISABLE_MKLDNN_FC_OPT": _WHOLE,
    "MXNET_DISABLE_MKLDNN_FUSE_CONV_BN": _WHOLE,
    "MXNET_DISABLE_MKLDNN_FUSE_CONV_RELU": _WHOLE,
    "MXNET_DISABLE_MKLDNN_FUSE_CONV_SUM": _WHOLE,
    "MXNET_DISABLE_MKLDNN_TRANSFORMER_OPT": _WHOLE,
    "MXNET_DISABLE_MKLDNN_QEM_FLOAT_OUTPUT": _SWITCH,
    "MXNET_DISABLE_MKLDNN_QEM_FUSE_ALL": _SWITCH,
    "MXNET_DISABLE_MKLDNN_QFC_FLOAT_OUTPUT": _SWITCH,
    "MXNET_DISABLE_MKLDNN_QFC_FUSE_ALL": _SWITCH,
    "MXNET_DISABLE_MKLDNN_QTRANSFORMER_FLOAT_OUTPUT": _SWITCH,
    "MXNET_DISABLE_MKLDNN_QTRANSFORMER_FUSE_ALL": _SWITCH,
    "MXNET_MKLDNN_QFC_DYNAMIC_PARAMS": _SWITCH,
    "MXNET_DISABLE_MKLDNN_FUSE_FC_ELTWISE": _FLAG,
    "MXNET_ELIMINATE_COMMON_EXPR": _FLAG,
    "MXNET_ENGINE_INFO": _FLAG,
    "MXNET_EXEC_BULK_EXEC_INFERENCE": _FLAG,
    "MXNET_EXEC_BULK_EXEC_TRAIN": _FLAG,
    "MXNET_EXEC_VERBOSE_LOGGING": _FLAG,
    "MXNET_INFER_STORAGE_TYPE_VERBOSE_LOGGING": _FLAG,
    "MXNET_KVSTORE_DIST_ROW_SPARSE_VERBOSE": _FLAG,
    "MXNET_KVSTORE_LOGTREE": _FLAG,
    "MXNET_MEM_PLAN_VERBOSE_LOGGING": _FLAG,
    "MXNET_MKLDNN_DEBUG": _FLAG,
    "MXNET_MKLDNN_ENABLED": _FLAG,
    "MXNET_MKLDNN_FORCE_FC_AB_FORMAT": _FLAG,
    "MXNET_OUTPUT_TUNING_DATA": _FLAG,
    "MXNET_SAFE_ACCUMULATION": _FLAG,
    "MXNET_STORAGE_FALLBACK_LOG_VERBOSE": _FLAG,
    "MXNET_USE_FUSION": _FLAG,
    "MXNET_VERBOSE_TUNING_INFO": _FLAG,
}


def check_environment(variables: MutableMapping[str, str]) -> None:
    """Check what MXNet will read. A variable that is empty is unset, and of the threads of several levels, which is
    more than MXNet can read, the first number stays.

    Raises:
        UsageError: a variable has a value that cannot be read.
    """
    for name, rule in RULES.items():
        value = variables.get(name)
        if value is None:
            continue
        if not value:
            del variables[name]
            continue
        if (
            len(value) > _LONGEST
            or not re.fullmatch(rule.pattern, value, re.IGNORECASE | re.ASCII)
            or not all(rule.low <= int(number) <= rule.high for number in re.findall("[0-9]+", value))
        ):
            shown = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
            raise UsageError(name, f"is '{shown}', not {rule.wanted}; change it, or unset it")
    if THREADS in variables:
        variables[THREADS] = variables[THREADS].partition(",")[0].strip(" ")


def require_room(threads: int) -> None:
    """Under a limit of addresses (``ulimit -v``): find out whether what MXNet takes at its start is to be had.

    Raises:
        RuntimeFailure: it is not.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    room = _ROOM + (threads + _OWN_THREADS) * (_DEFAULT_STACK if stack == resource.RLIM_INFINITY else stack)
    try:
        mmap.mmap(-1, room, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 0).close()
    except (OSError, OverflowError) as error:
        why = f"there is not enough of it: to start, MXNet takes {room >> 20} MiB of addresses, and all are limited to"
        raise RuntimeFailure("memory", f"{why} {limit >> 20} MiB (ulimit -v); raise the limit") from error
