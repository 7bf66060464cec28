"""MXNet 1.9.1 on a current Python: import it from here, ``from vqvae_gluon.compat import mx``.

MXNet 1.9.1 is the last release. Four things about it are out of date, and this is the only place that knows:

* it reads ``numpy.bool`` at import, an alias that NumPy removed in 1.24;
* it reads other names that NumPy 2 removed, and cannot run beside it;
* it imports ``distutils``, which Python 3.12 dropped and setuptools still carries;
* on x86 it takes half of the processors for hyper-threads and leaves them idle, unless ``OMP_NUM_THREADS`` says
  otherwise before its library is loaded.

It also writes a line to stderr for every executor that fuses operators, unless it is told not to. And every large array
that it frees goes back to the system, whose fresh pages for the next one cost a tenth of the time of a tapped run.
"""

import atexit
import contextlib
import ctypes
import faulthandler
import importlib
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vqvae_gluon.environment import THREADS, check_environment, require_room
from vqvae_gluon.errors import RuntimeFailure, is_lack_of_memory
from vqvae_gluon.isolation import CRASHES
from vqvae_gluon.workers import processor_count

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # glibc's numbers, malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for what is wanted next; and where addresses are limited, not take 64 MiB
    of them for each thread. Where it is not glibc, nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            library.mallopt(option, _NEVER)
        if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
            library.mallopt(_M_ARENA_MAX, 1)


def import_mxnet():
    """Import MXNet with the aliases it needs in place and every processor in use.

    Variables that the user has set are left alone.

    Raises:
        RuntimeFailure: NumPy is too new, or MXNet is not installed, or could not be loaded.
        UsageError: a variable that MXNet reads makes no sense.
    """
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        raise RuntimeFailure("numpy", f"{np.__version__} does not work with MXNet; run: pip install 'numpy<2'")
    check_environment(os.environ)
    os.environ.setdefault(THREADS, str(processor_count()))
    os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")
    keep_freed_memory()
    require_room(int(os.environ[THREADS]))
    if "bool" not in np.__dict__:
        np.bool = np.bool_  # type: ignore[attr-defined]
    if sys.version_info >= (3, 12):
        importlib.import_module("setuptools")
    # As a server MXNet would serve from its import on, and end the process.
    role = os.environ.pop("DMLC_ROLE", None)
    try:
        mxnet = importlib.import_module("mxnet")
    except ModuleNotFoundError as error:
        raise RuntimeFailure("mxnet", f"could not be imported ({error}); run: pip install mxnet==1.9.1") from error
    except OSError as error:
        if is_lack_of_memory(error):
            raise MemoryError from error
        raise RuntimeFailure("mxnet", f"its library could not be loaded ({error})") from error
    finally:
        if role is not None:
            os.environ["DMLC_ROLE"] = role
    for crash in CRASHES:
        # MXNet's handlers write to standard error and end the process with 255, as if it had ended itself.
        with contextlib.suppress(ValueError):  # Not in this thread.
            if not faulthandler.is_enabled():
                signal.signal(crash, signal.SIG_DFL)
    # An operator may raise an IndexError and the like; here that is an MXNetError, too.
    kinds = mxnet.base.error_types
    for name, kind in list(kinds.items()):
        if not issubclass(kind, mxnet.MXNetError):
            kinds[name] = type(name, (mxnet.MXNetError, kind), {})
    # An operator that failed is reported where its result is read; at exit MXNet would report it again, as a traceback.
    atexit.unregister(mxnet.base._notify_shutdown)
    atexit.register(mxnet.base._LIB.MXNotifyShutdown)
    return mxnet


def mxnet_reason(error: Exception) -> str:
    """The line of an MXNet error that says what is wrong: the last one that is no part of a stack trace.

    Raises:
        MemoryError: what is wrong is a lack of memory.
    """
    lines = [line.strip() for line in str(error).partition("Stack trace:")[0].splitlines()]
    told = [line for line in lines if line and not line.startswith(('File "', "Traceback"))]
    reason = told[-1] if told else type(error).__name__
    if is_lack_of_memory(error) or is_lack_of_memory(reason):
        raise MemoryError from error
    return reason


def forget_range_errors() -> None:
    """Called before MXNet reads attributes: it takes an infinity for an overflow if ``errno`` still says so of what
    this thread did before."""
    _errno_location().contents.value = 0


_errno_location = ctypes.CDLL(None).__errno_location
_errno_location.restype = ctypes.POINTER(ctypes.c_int)

mx = import_mxnet()


def call_operator(name: str, inputs: Sequence[Any], attributes: Mapping[str, object]) -> list[Any]:
    """Call an operator of MXNet's registry at once, whether or not MXNet has made a Python function of it.

    Args:
        inputs: ``mx.nd.NDArray``.
        attributes: as they would stand in a symbol file; what is no text is written as text.

    Returns:
        All its outputs, ``mx.nd.NDArray``.

    Raises:
        mx.MXNetError: there is no such operator, or it does not take these.
    """
    handle = ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.NNGetOpHandle(name.encode(), ctypes.byref(handle)))
    keys, values = list(attributes), list(attributes.values())
    return mx._ctypes.ndarray._imperative_invoke(handle.value, inputs, keys, values, None, False, True)
