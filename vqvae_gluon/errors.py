"""Exit codes, and the errors that carry them. The C++ tools use the same codes."""

import copyreg
import errno
import re
import tempfile
import traceback
from typing import Union

DONE = 0
FAILED = 1
USAGE = 2
REJECTED = 3
DIVERGED = 4

# Controls, ends of lines, what turns the direction of writing, and halves of surrogate pairs; but those that stand for
# bytes of a file's name stay, unless the byte is a control of some terminals.
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udc9f\udd00-\udfff\ufffe\uffff]")
# How the messages of libraries end when memory is short: of C++, MXNet, the C library, its loader, Python's threads.
_NO_MEMORY = re.compile(
    r"(std: ?:bad_alloc|Failed to allocate \w* ?[Mm]emory|[Cc]annot allocate memory"
    r"|failed to map segment from shared object|can't start new thread)\W*$"
)


def one_line(message: str) -> str:
    """A message in which is shown, as an escape, what would end its line, move a terminal's cursor or turn the order of
    what is seen: names may hold anything."""
    return _CONTROLS.sub(_shown, message)


def _shown(found: re.Match) -> str:
    code = ord(found[0])
    byte = code - 0xDC00 if 0xDC80 <= code <= 0xDC9F else code
    return f"\\x{byte:02x}" if byte < 0x100 else f"\\u{code:04x}"


class VQVAEError(Exception):
    """An error to be told in one line: ``<what>: <why>``.

    Args:
        what: the file or thing that is wrong.
        why: what is wrong with it, and the remedy.
    """

    exit_code = FAILED

    def __init__(self, what, why: str):
        super().__init__(what, why)  # As they came, so that it passes between processes.

    def __str__(self) -> str:
        return one_line(": ".join(map(str, self.args)))

    def __reduce__(self):
        # Between processes goes the message, which is made already.
        return copyreg.__newobj__, (type(self), str(self))  # type: ignore[attr-defined]


class RuntimeFailure(VQVAEError):
    """A runtime, the system or the network failed."""


class GraphFailure(RuntimeFailure):
    """MXNet does not run what the network's files hold."""

    exit_code = REJECTED


class UsageError(VQVAEError):
    """The command's words do not fit together."""

    exit_code = USAGE


class InputError(VQVAEError):
    """A bundle, image or other input was rejected."""

    exit_code = REJECTED


def is_lack_of_memory(error: Union[BaseException, str]) -> bool:
    """Whether an error, or its message, says that there is not enough memory."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return not isinstance(error, VQVAEError) and _NO_MEMORY.search(str(error)) is not None


def internal_error(error: BaseException) -> str:
    """What to tell of an error that nobody foresaw, in one line. Its traceback goes to a file, which the line names."""
    why = f"internal error: {type(error).__name__}: {error}"
    try:
        with tempfile.NamedTemporaryFile("w", prefix="vqvae-gluon-", suffix=".txt", delete=False) as file:
            traceback.print_exception(type(error), error, error.__traceback__, file=file)
    except OSError as unwritten:
        return one_line(f"{why}; the traceback could not be written ({unwritten.strerror})")
    return one_line(f"{why}; the traceback is in {file.name}; please report it")
