"""Several machines: MXNet's parameter server, found by the DMLC_* variables that its launchers and operators set.

A job is a scheduler, servers, which add up, and workers, which learn. Who dies is missed: all but the scheduler send it
heartbeats, and only the scheduler sees all of them. It ends when one is missing, and then they miss the scheduler.
"""

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from vqvae_gluon.compat import mx
from vqvae_gluon.errors import FAILED, UsageError, VQVAEError, internal_error, one_line

VARIABLES = ("DMLC_ROLE", "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT", "DMLC_NUM_SERVER", "DMLC_NUM_WORKER")
_ROLES = ("scheduler", "server", "worker")
_HEARTBEAT, _MISSING = 2, 15  # seconds: between two of them; until a node counts as dead
_EVERYONE = 7  # ps-lite's groups: 1 the scheduler, 2 the servers, 4 the workers
_FIRST_KEY = 1 << 20  # of our own sums, behind those of the parameters
_CHUNK = 1 << 22


class Alone:
    """One process that does everything.

    Attributes:
        rank: of this process, from 0 on. That of rank 0 writes.
        count: of processes.
        store: MXNet's kvstore, which sums gradients, or None.
    """

    rank = 0
    count = 1
    store: Any = None

    def share(self, indices: np.ndarray) -> np.ndarray:
        """This process's part of what all do together."""
        return np.array_split(indices, self.count)[self.rank]

    def add_up(self, vector: np.ndarray) -> np.ndarray:
        """The sum over all processes; each gives a vector of the same length."""
        return vector

    def agree(self, data: bytes) -> bytes:
        """What rank 0 gives."""
        return data


class Workers(Alone):
    """The workers of a job; see :class:`Alone`.

    Args:
        store: MXNet's.
    """

    def __init__(self, store: "mx.kv.KVStore"):
        self.store = store
        self.rank, self.count = store.rank, store.num_workers
        self._keys: dict[int, int] = {}

    def add_up(self, vector: np.ndarray) -> np.ndarray:
        """The sum over all workers, float32."""
        values = mx.nd.array(vector, dtype="float32")
        if len(vector) not in self._keys:
            self._keys[len(vector)] = _FIRST_KEY + len(self._keys)
            self.store.init(self._keys[len(vector)], mx.nd.zeros(len(vector)))
        self.store.pushpull(self._keys[len(vector)], values)
        return np.array(values.asnumpy())

    def agree(self, data: bytes) -> bytes:
        """What rank 0 gives, in sums to which the others add nothing."""
        own = data if self.rank == 0 else b""
        high, low = self.add_up(np.array(divmod(len(own), _CHUNK)))
        length = int(high) * _CHUNK + int(low)
        parts = []
        for start in range(0, length, _CHUNK):
            values = np.zeros(_CHUNK, dtype=np.float32)
            part = np.frombuffer(own[start : start + _CHUNK], dtype=np.uint8)
            values[: len(part)] = part
            parts.append(self.add_up(values).astype(np.uint8).tobytes())
        return b"".join(parts)[:length]


def in_cluster() -> bool:
    """Whether a launcher has made this process a part of a job."""
    return "DMLC_ROLE" in os.environ


@contextlib.contextmanager
def join_cluster(kind: str) -> Iterator[Workers]:
    """Join a job as a worker, until the work is done or has failed. When another process of the job dies, this one ends
    with a message, wherever it is.

    Args:
        kind: of the kvstore, ``dist_sync``.

    Raises:
        UsageError: a variable that a launcher sets is missing.
    """
    with _watched(kind) as store:
        yield Workers(store)
        store._barrier()  # While it is watched: MXNet's own, when a store is freed, waits for the dead for ever.


def serve_cluster(kind: str) -> bool:
    """Be the scheduler or a server of a job until it is done, if this process is one.

    Raises:
        UsageError: a variable that a launcher sets is missing.
    """
    if os.environ.get("DMLC_ROLE", "worker") == "worker":
        return False
    with _watched(kind) as store:
        mx.kvstore.kvstore_server.KVStoreServer(store).run()
    return True


@contextlib.contextmanager
def _watched(kind: str) -> Iterator["mx.kv.KVStore"]:
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    role, place = os.environ.get("DMLC_ROLE", ""), ":".join(os.environ.get(name, "") for name in VARIABLES[1:3])
    if missing or role not in _ROLES:
        remedy = "start it by 'vqvae-gluon launch', or set what docs/training.md lists"
        raise UsageError(missing[0] if missing else f"DMLC_ROLE={role}", f"is not set as --kvstore needs it; {remedy}")
    os.environ.setdefault("PS_HEARTBEAT_INTERVAL", str(_HEARTBEAT))
    patience = int(os.environ.setdefault("PS_HEARTBEAT_TIMEOUT", str(_MISSING)))
    joined = threading.Timer(10, _tell, [f"the {role} still waits for the others of the job to come to {place}"])
    joined.daemon = True
    joined.start()
    store = mx.kv.create(kind)
    joined.cancel()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1):
            dead = ctypes.c_int()
            mx.base._LIB.MXKVStoreGetNumDeadNode(store.handle, _EVERYONE, ctypes.byref(dead), patience)
            if dead.value and not done.is_set():
                who = "a server or worker" if role == "scheduler" else "the scheduler, or another worker with it,"
                _tell(f"error: job at {place}: {who} has died; this {role} ends, go on by --resume")
                os._exit(FAILED)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield store
    except BaseException as error:
        # At once: MXNet would wait for the others, who will miss this one.
        foreseen = isinstance(error, (VQVAEError, OSError, KeyboardInterrupt))
        _tell(f"error: {str(error) or 'interrupted' if foreseen else internal_error(error)}")
        os._exit(getattr(error, "exit_code", FAILED))
    done.set()
    # Here and now, while its threads can still end well, rather than by the garbage collector.
    mx.base.check_call(mx.base._LIB.MXKVStoreFree(store.handle))
    store.handle = ctypes.c_void_p()


def _tell(line: str) -> None:
    print(f"vqvae-gluon: {one_line(line)}", file=sys.stderr, flush=True)
