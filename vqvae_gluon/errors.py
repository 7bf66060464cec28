"""Exit codes, and the errors that carry them. The C++ tools use the same codes."""

import copyreg
import re
import tempfile
import traceback

DONE = 0
FAILED = 1
USAGE = 2
REJECTED = 3
DIVERGED = 4

_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(message: str) -> str:
    """A message without what would end its line or move a terminal's cursor: names of files may hold anything."""
    return _CONTROLS.sub("?", message)


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


class UsageError(VQVAEError):
    """The command's words do not fit together."""

    exit_code = USAGE


class InputError(VQVAEError):
    """A bundle, image or other input was rejected."""

    exit_code = REJECTED


def internal_error(error: BaseException) -> str:
    """What to tell of an error that nobody foresaw, in one line. Its traceback goes to a file, which the line names."""
    why = f"internal error: {type(error).__name__}: {error}"
    try:
        with tempfile.NamedTemporaryFile("w", prefix="vqvae-gluon-", suffix=".txt", delete=False) as file:
            traceback.print_exception(type(error), error, error.__traceback__, file=file)
    except OSError as unwritten:
        return one_line(f"{why}; the traceback could not be written ({unwritten.strerror})")
    return one_line(f"{why}; the traceback is in {file.name}; please report it")
