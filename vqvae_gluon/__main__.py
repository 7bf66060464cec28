"""The program: ``vqvae-gluon``, or ``python -m vqvae_gluon``."""

import signal
import sys
from typing import Optional


def main(arguments: Optional[list[str]] = None) -> int:
    """Run one command and return its exit code.

    While modules are imported, Ctrl-C ends the program without a word: an import may lose an interrupt, or make
    another error of it.
    """
    is_heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heeded:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from vqvae_gluon import cli
    from vqvae_gluon.isolation import isolated
    from vqvae_gluon.printed import open_streams

    open_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)

    def run() -> int:
        if is_heeded:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return cli.main(words)

    if not cli.is_isolated(words):
        return run()
    return isolated(run, lambda code, why: cli.fail(code, f"{cli.subject(words)}: {why}"))


if __name__ == "__main__":
    sys.exit(main())
