"""The program: ``vqvae-gluon``, or ``python -m vqvae_gluon``."""

import signal
import sys


def main() -> int:
    """Run one command and return its exit code.

    While modules are imported, Ctrl-C ends the program without a word: an import may lose an interrupt, or make
    another error of it.
    """
    is_heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heeded:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from vqvae_gluon.cli import main as run_command

    if is_heeded:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run_command()


if __name__ == "__main__":
    sys.exit(main())
