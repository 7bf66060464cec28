"""The command line. The only room that sees all the others; a command imports what it needs when it runs."""

import argparse
import contextlib
import io
import signal
import sys
from collections.abc import Iterator
from typing import Optional

from vqvae_gluon import __version__
from vqvae_gluon.cli import benchmark, codes, judging, training
from vqvae_gluon.cli.signals import TERMINATED, Termination, heed_termination
from vqvae_gluon.cli.words import EXIT_CODES, PROGRAM, Commands, Parser, fail, refuse_command, warn
from vqvae_gluon.errors import DONE, FAILED, UsageError, VQVAEError, internal_error, is_lack_of_memory
from vqvae_gluon.limits import bounding_runs
from vqvae_gluon.printed import discard, open_streams


def main(arguments: Optional[list[str]] = None) -> int:
    """Run one command and return its exit code."""
    open_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # Names of files are any bytes.
    words = _joined(list(sys.argv[1:] if arguments is None else arguments))
    parser, commands = _parser()
    if words and not words[0].startswith("-") and words[0] not in commands:
        return refuse_command(words[0], commands)
    try:
        options = parser.parse_args(words)
    except SystemExit:  # For --help, which was printed.
        unwritten = discard(sys.stdout)
        if unwritten is None:
            raise
        return _tell_unwritten(unwritten)
    except OSError as error:
        discard(sys.stdout)
        return _tell_unwritten(error)
    with heed_termination() as heeded:
        try:
            code = _run(options)
        except Termination:  # It came after all was done.
            code = FAILED
    return TERMINATED if heeded.since is not None and code != DONE else code


def _run(options: argparse.Namespace) -> int:
    """Run a parsed command and report its errors, each in one line."""
    try:
        with _trusting(getattr(options, "allow_operator", [])), _bounding(options):
            code = int(options.run(options))
        unwritten = discard(sys.stdout)
        return code if unwritten is None else _tell_unwritten(unwritten)
    except VQVAEError as error:
        return fail(error.exit_code, str(error))
    except MemoryError as error:
        return fail(FAILED, _lack(error))
    except OSError as error:
        if is_lack_of_memory(error):
            return fail(FAILED, _lack(error))
        discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return _tell_unwritten(error)
        return fail(FAILED, f"{error.filename or 'system'}: {error.strerror or error}")
    except KeyboardInterrupt as error:
        return fail(FAILED, f"{str(error) or 'interrupted'}: nothing half-written is left")
    except Exception as error:  # A fault of this program; the user is not shown its inside.
        return fail(FAILED, _lack(error) if is_lack_of_memory(error) else internal_error(error))


def _tell_unwritten(error: OSError) -> int:
    """Tell that standard output cannot be written, unless who reads it has read enough, as head(1) does."""
    if isinstance(error, BrokenPipeError):
        return 128 + signal.SIGPIPE
    return fail(FAILED, f"standard output: {error.strerror or error}")


def _lack(error: BaseException) -> str:
    return f"out of memory: {error or 'no more is to be had'}; give smaller sizes, or fewer at once"


@contextlib.contextmanager
def _trusting(operators: list[str]) -> Iterator[None]:
    if not operators:
        yield
        return
    from vqvae_gluon.artifacts.operators import is_operator, trusting

    for operator in operators:
        if not is_operator(operator):
            raise UsageError("--allow-operator", f"MXNet has no operator '{operator}'; take the name from the error")
        warn(f"the operator {operator} is run where a graph holds it, whatever it does (--allow-operator)")
    with trusting(operators):
        yield


def _bounding(options: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    if not hasattr(options, "memory"):
        return contextlib.nullcontext()
    return bounding_runs(options.memory, options.default_memory)


def is_isolated(words: list[str]) -> bool:
    """Whether a command runs files that may be anybody's."""
    return bool(words) and words[0] in ("encode", "encode-folder", "decode", "reconstruct", "export", "parity")


def subject(words: list[str]) -> str:
    """The files that such a command runs, for messages."""
    options = _parser()[0].parse_args(_joined(words))
    names = ("symbol", "bundle", "training", "reference")
    return str(next(file for file in (getattr(options, name, None) for name in names) if file is not None))


def _joined(words: list[str]) -> list[str]:
    """The words of a command whose name has two of them, and of ``help``."""
    if words[:1] == ["parity"] and words[1:2] in (["record"], ["compare"]):
        return [" ".join(words[:2]), *words[2:]]
    return [*words[1:], "--help"] if words[:1] == ["help"] else words


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser, and the names of all commands."""
    parser = Parser(prog=PROGRAM, description="A VQ-VAE in MXNet Gluon, and the proof that its C++ side agrees.")
    parser.epilog = EXIT_CODES
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = Commands(parser)
    for part in (training, codes, judging, benchmark):
        part.add_to(commands)
    return parser, list(commands.names)
