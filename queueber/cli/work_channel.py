"""
The messages between a worker process and its supervisor, over a pair of sockets.

The worker sends the lines ``ready``, ``polled`` after its first answered poll, and ``ending SECONDS REASON`` when it
ends within that time in order to be replaced.  It sends ``refused REASON`` when it ends before the first answered poll
because the server refuses it, or before it is ready because its health page cannot listen.
Anything that the supervisor sends means: end at once.  If the supervisor is gone, the worker stops as after SIGTERM,
and ends itself in time: no worker process goes on without its supervisor.
"""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

VARIABLE: Final = "QUEUEBER_WORK_CHANNEL"
"""The environment variable with the number of the process, its descriptor and its session."""

READ_BYTES: Final = 65_536

READY: Final = "ready"
POLLED: Final = "polled"
REFUSED: Final = "refused"
ENDING: Final = "ending"


class WorkerEnd:
    """The worker's end."""

    def __init__(self, slot: int, connection: socket.socket, session: bytes) -> None:
        """Process number *slot*, from 0, with a connected socket, in *session*."""
        self.slot = slot
        self.session = session
        """The session shared by the successive processes of this slot; one runs at a time."""

        self._connection = connection

    @classmethod
    def from_environment(cls) -> Self | None:
        """Return the end that this process was started with; None if it has no supervisor."""
        # Programs that handlers start are no workers.
        found = os.environ.pop(VARIABLE, "")
        if not found:
            return None
        slot, descriptor, session = found.split(",")
        os.set_inheritable(int(descriptor), False)
        return cls(int(slot), socket.socket(fileno=int(descriptor)), bytes.fromhex(session))

    def send(self, word: str, text: str = "") -> None:
        """Send a line.  `watch` notices that the supervisor is gone."""
        with suppress(OSError):
            self._connection.sendall(f"{word} {text}".strip().encode() + b"\n")

    def watch(self, force: Callable[[], None], gone: Callable[[], None]) -> None:
        """Call *force* when the supervisor says so, and *gone* once the supervisor is gone, in a thread."""
        threading.Thread(target=self._watch, args=(force, gone), name="supervisor-watch", daemon=True).start()

    def _watch(self, force: Callable[[], None], gone: Callable[[], None]) -> None:
        with suppress(OSError):
            while self._connection.recv(READ_BYTES):
                force()
        gone()


class SupervisorEnd:
    """The supervisor's end for one process."""

    def __init__(self, slot: int, session: bytes) -> None:
        """Make both ends."""
        self.slot = slot
        self._session = session
        self._connection, self._theirs = socket.socketpair()
        self._connection.setblocking(False)
        self._rest = b""

    def for_worker(self) -> tuple[int, dict[str, str]]:
        """Return the descriptor to pass on, and the environment that names it."""
        return self._theirs.fileno(), {VARIABLE: f"{self.slot},{self._theirs.fileno()},{self._session.hex()}"}

    def passed_on(self) -> None:
        """Close the worker's end in this process."""
        self._theirs.close()

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._connection.fileno()

    def read(self) -> list[tuple[str, str]] | None:
        """Return the messages that have arrived; None if the worker has closed its end."""
        try:
            data = self._connection.recv(READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [(word, text) for word, _, text in (line.decode(errors="replace").partition(" ") for line in lines)]

    def force(self) -> None:
        """Let the worker end at once."""
        with suppress(OSError):
            self._connection.send(b"now\n")

    def close(self) -> None:
        """Close this end."""
        self._connection.close()
