"""What is printed and written for people: names come from files, and files from anywhere. Each line, cell and value
goes through here where it is put together, so that no name can add a line, move a cursor, or make a document
unreadable."""

import json
import os
import re
import sys
from collections.abc import Iterable
from typing import Any, Optional, TextIO

from vqvae_gluon.errors import one_line

# An escape of JSON: a backslash, a whole pair of surrogates, half of one, anything else.
_ESCAPES = re.compile(r"\\\\|\\ud[89ab]..\\ud[c-f]..|\\ud[89a-f]..")
_HALF = 6  # characters of the escape of half a pair


def joined(texts: Iterable[object]) -> str:
    """Lines of a report, one for each text."""
    return "\n".join(one_line(str(text)) for text in texts)


def plain(text: object) -> str:
    """A text in one line that every document can hold: HTML, XML and UTF-8 know no bytes that are no text."""
    return one_line(str(text)).encode(errors="surrogateescape").decode(errors="backslashreplace")


def json_text(document: Any, indent: int = 2) -> str:
    """JSON in ASCII. Half of a surrogate pair, which is no text, becomes the mark of what cannot be shown."""
    halves = _ESCAPES.sub(
        lambda found: r"\ufffd" if len(found[0]) == _HALF else found[0], json.dumps(document, indent=indent)
    )
    return halves.replace("\x7f", r"\u007f")


def say(text: object, file: Optional[TextIO] = None) -> None:
    """Print one line, on standard output unless a file is given."""
    show(one_line(str(text)), file)


def show(text: object, file: Optional[TextIO] = None) -> None:
    """Print a text whose lines are made already.

    Raises:
        OSError: it cannot be; it names the stream.
    """
    try:
        print(text, file=file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output" if file is None else "standard error") from error


def open_streams() -> None:
    """Put something in the place of standard streams that are closed: the next file that is opened would get the number
    of one, and what libraries write there. To read or to print there stays an error, to tell errors does not."""
    for number, name, flags in ((0, "stdin", os.O_WRONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # The lowest number that is free, which is this.
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def discard(stream: Optional[TextIO]) -> Optional[OSError]:
    """Write what waits to be written to a stream; if that cannot be, give the reason, and throw it away: Python would
    try again at its end."""
    try:
        if stream is not None:
            stream.flush()
    except OSError as error:
        assert stream is not None
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        return error
    return None
