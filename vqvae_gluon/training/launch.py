"""Starts all processes of a training job, on this machine or by way of a remote shell on others."""

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from vqvae_gluon.errors import DONE
from vqvae_gluon.printed import say
from vqvae_gluon.workers import processor_count

_PATIENCE = 3  # seconds that the others have to end by themselves when one has failed


def launch(
    words: Sequence[str], workers: int, servers: int, hosts: Sequence[str], remote_shell: str, address: str
) -> int:
    """Run ``vqvae-gluon`` with these words as the workers of a job, until all have ended.

    Args:
        hosts: where the servers and workers run, in turn; empty for this machine. Each has this Python and this
            directory under the same paths.
        remote_shell: the command that takes a host and a command line.
        address: of this machine, for the others.

    Returns:
        The first exit code that was not 0, or 0.
    """
    root = address or (socket.gethostname() if hosts else "127.0.0.1")
    port = reserve_port()
    variables = {
        "DMLC_PS_ROOT_URI": root,
        "DMLC_PS_ROOT_PORT": str(port.getsockname()[1]),
        "DMLC_NUM_SERVER": str(servers),
        "DMLC_NUM_WORKER": str(workers),
    }
    if not hosts and "OMP_NUM_THREADS" not in os.environ:
        variables["OMP_NUM_THREADS"] = str(max(1, processor_count() // workers))
    command = [sys.executable, "-m", "vqvae_gluon", *words]
    processes = {"the scheduler": _start(command, {**variables, "DMLC_ROLE": "scheduler"}, "", remote_shell)}
    try:
        for count, role in ((servers, "server"), (workers, "worker")):
            for number in range(count):
                host = hosts[(len(processes) - 1) % len(hosts)] if hosts else ""
                name = f"{role} {number} on {host}" if host else f"{role} {number}"
                processes[name] = _start(command, {**variables, "DMLC_ROLE": role}, host, remote_shell)
        return _wait(processes)
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.terminate()
        port.close()


def reserve_port() -> socket.socket:
    """A socket with a free port, for the scheduler: until it is closed, the system gives the port to nobody else.

    Linux lets two sockets have one port if both ask for SO_REUSEADDR, as ZeroMQ's do, and only one listens.
    """
    port = socket.socket()
    port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    port.bind(("", 0))
    return port


def _start(command: list[str], variables: dict[str, str], host: str, remote_shell: str) -> subprocess.Popen:
    if not host:
        return subprocess.Popen(command, env={**os.environ, **variables})
    settings = [f"{name}={value}" for name, value in variables.items()]
    line = f"cd {shlex.quote(os.getcwd())} && exec env {shlex.join([*settings, *command])}"
    return subprocess.Popen([*shlex.split(remote_shell), host, line])


def _wait(processes: dict[str, subprocess.Popen]) -> int:
    """The first exit code that tells of a failure, which is also told; the others then have some time to end."""
    failed, until = DONE, 0.0
    while True:
        codes = {name: process.poll() for name, process in processes.items()}
        if not failed and any(codes.values()):
            name, failed = next((name, code) for name, code in codes.items() if code)
            until = time.monotonic() + _PATIENCE
            how = f"was ended by signal {-failed}" if failed < 0 else f"ended with exit code {failed}"
            say(f"vqvae-gluon: error: {name}: {how}; the job ends, go on by --resume", sys.stderr)
        if None not in codes.values() or (failed and time.monotonic() > until):
            return 128 - failed if failed < 0 else failed
        time.sleep(0.2)
