"""This project's operators for MXNet (``cpp_bindings/kernels``): where their library is, and what it offers."""

import ctypes
import os
from functools import cache
from pathlib import Path
from threading import Lock

from vqvae_gluon.compat import mx
from vqvae_gluon.errors import RuntimeFailure

KERNELS_VARIABLE = "VQVAE_KERNELS"
# What MXNet calls the two ways in which the library takes parts of a graph: to run them, and to train them.
INFERENCE, TRAINING = "vqvae", "vqvae_training"
FUSED_OPERATOR = "_vqvae_fused"  # of inference
ADAM_OPERATOR = "_vqvae_adam"  # the last that the library registers
# What is said of a runtime of fused operators that has none, and why.
MXNET_ALONE = "{} runs MXNet's own operators alone, no fused ones: {}"
_BUILT = Path(__file__).resolve().parents[1] / "cpp_bindings" / "build" / "libvqvae_kernels.so"
_LOADING = Lock()


@cache
def load_kernels() -> Path:
    """Have MXNet load the library of operators: ``$VQVAE_KERNELS``, or the one built in this checkout.

    Raises:
        RuntimeFailure: it is not there, or MXNet does not take it.
    """
    path = Path(os.environ.get(KERNELS_VARIABLE, _BUILT)).absolute()
    if not path.is_file():
        raise RuntimeFailure(path, f"is missing; build it with 'bash build.sh cpp', or set {KERNELS_VARIABLE}")
    with _LOADING:
        if ADAM_OPERATOR in mx.operator.get_all_registered_operators():
            return path  # A program may have loaded it by itself; MXNet takes it only once.
        try:
            # MXNet's Python would make a function of each of its thousand operators anew, which takes half a second.
            mx.base.check_call(mx.base._LIB.MXLoadLib(str(path).encode(), ctypes.c_uint(False)))
        except mx.MXNetError as error:
            raise RuntimeFailure(path, f"could not be loaded ({error})") from error
    return path


@cache
def why_not_fused() -> str:
    """Why MXNet's own operators run here in place of this project's; empty if this project's do.

    The processor may lack what they need, or the user set ``VQVAE_KERNELS_ISA=none``.

    Raises:
        RuntimeFailure: as :func:`load_kernels`.
    """
    why_not = ctypes.CDLL(str(load_kernels())).vqvae_kernels_why_not
    why_not.restype = ctypes.c_char_p
    return why_not().decode()


def check_kernels() -> None:
    """Load the library, and see that it has something for this processor.

    Raises:
        RuntimeFailure: as :func:`load_kernels`, or there is nothing in it for this processor.
    """
    why = why_not_fused()
    if why:
        raise RuntimeFailure(load_kernels(), f"has nothing to run here: {why}")


def has_kernels() -> bool:
    """Whether :func:`check_kernels` finds nothing wrong."""
    try:
        return not why_not_fused()
    except RuntimeFailure:
        return False
