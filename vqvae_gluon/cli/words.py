"""What the commands' modules share: the parser, kinds of values, and how an error is told."""

import argparse
import difflib
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from vqvae_gluon.errors import USAGE, one_line
from vqvae_gluon.printed import discard, say

PROGRAM = "vqvae-gluon"
EXIT_CODES = "exit codes: 0 done and in agreement, 1 failed, 2 usage, 3 input rejected, 4 divergence found"

# Named here so that --help loads neither MXNet nor a decoder; tests hold them against what they name.
DATASET_NAMES = ("mnist", "fashion-mnist", "cifar10", "images", "records")
RUNTIME_NAMES = (
    "gluon",
    "gluon-eager",
    "executor",
    "cpp",
    "cpp-executor",
    "cpp-predict",
    "gluon-fused",
    "cpp-fused",
    "fp64",
)
PRECISION_NAMES = ("float32", "bfloat16", "int8")
EQUAL_CODES, PSNR_LOST = 0.97, 0.1  # what another precision may lose


def fail(code: int, message: str) -> int:
    """Tell an error in one line, if anybody listens, and give the exit code."""
    try:
        say(f"{PROGRAM}: error: {message}", sys.stderr)
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr)
    return code


class Parser(argparse.ArgumentParser):
    def parse_known_args(self, args=None, namespace=None):
        """Here, since a command that left its unknown words to the program would point to the program's help."""
        self._words = list(sys.argv[1:] if args is None else args)
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unknown: {' '.join(unknown)}")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required"):  # argparse does not name a misspelt one.
            unknown = [word for word in self._words if word.startswith("--") and not self._knows(word.split("=")[0])]
            message += f"; unknown: {' '.join(unknown)}" if unknown else ""
        self.exit(USAGE, f"{PROGRAM}: error: options: {one_line(message)} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """argparse's own says nothing where it cannot be written."""
        (file or sys.stderr).write(message)

    def _knows(self, word: str) -> bool:
        return word == "--" or any(option.startswith(word) for option in self._option_string_actions)


class Commands:
    """The commands of a parser, each with its help, examples, and the function that runs it."""

    def __init__(self, parser: argparse.ArgumentParser):
        self._parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
        self.names = self._parsers.choices

    def add(
        self, name: str, run: Callable[[argparse.Namespace], int], help: str, examples: list[str]
    ) -> argparse.ArgumentParser:
        """A command that is called so.

        Args:
            run: takes its options and gives the exit code.
            examples: the words that follow its name.
        """
        command = self._parsers.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog="\n".join(["examples:", *(f"  {PROGRAM} {name} {words}" for words in examples), "", EXIT_CODES]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        return command


def warn(message: str) -> None:
    """Tell what does not end the program."""
    say(f"{PROGRAM}: warning: {message}", sys.stderr)


def add_trust(command: argparse.ArgumentParser) -> None:
    """The option that lets graphs hold operators which are refused."""
    command.add_argument(
        "--allow-operator",
        action="append",
        default=[],
        metavar="NAME",
        help="an MXNet operator that the graphs may hold although it is refused, for files that you trust; several"
        " times",
    )


def add_memory(command: argparse.ArgumentParser, default: int, beside: str = "") -> None:
    """The option that bounds the runs of networks; see :mod:`vqvae_gluon.limits`."""
    command.add_argument(
        "--memory",
        type=positive,
        metavar="MIB",
        help=f"of the tensors of a run; a graph that asks for more is rejected (default: {default}{beside})",
    )
    command.set_defaults(default_memory=default)


def refuse_command(word: str, names: Iterable[str]) -> int:
    """Tell that a word is no command, and which one it is like."""
    like = difflib.get_close_matches(word, list(names), 1)
    return fail(USAGE, f"{word}: is no command{f'; did you mean {like[0]}?' if like else ''} (see {PROGRAM} --help)")


def up_to(most: int) -> Callable[[str], int]:
    """The type of a word that is a whole number from 1 to this one."""

    def read(text: str) -> int:
        number = int(text)
        if not 1 <= number <= most:
            raise ValueError
        return number

    read.__name__ = f"whole number from 1 to {most}"  # argparse puts it into its messages.
    return read


positive = up_to(2**31 - 1)
processes = up_to(1024)  # of this machine or a job, or threads


def share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError
    return number


def decibels(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def seed(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**31:
        raise ValueError
    return number


# argparse puts them into its messages.
share.__name__ = "share from 0 to 1"
decibels.__name__ = "number of dB"
seed.__name__ = "whole number from 0 to 2**31 - 1"
